//! What an attacker may do: a ball round every image, cut by the box of valid pixels.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::projection::onto_l1_ball_and_box;
use super::rows::{broadcast, from_rows, map_rows, to_rows};
use super::streams::Streams;
use super::{Error, Result};

/// How the size of a perturbation is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Norm {
    /// The largest change of a value.
    Linf,
    /// The Euclidean length.
    L2,
    /// The sum of the changes' sizes.
    L1,
}

impl Norm {
    /// `linf`, `l2` or `l1`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linf => "linf",
            Self::L2 => "l2",
            Self::L1 => "l1",
        }
    }

    /// The size of every example's perturbation, `[batch]`, in double precision.
    pub fn size(self, perturbation: &Tensor) -> Tensor {
        let count = perturbation.size().first().copied().unwrap_or(0);
        if perturbation.numel() == 0 {
            return Tensor::zeros([count], (Kind::Double, perturbation.device()));
        }
        let rows = perturbation.detach().to_kind(Kind::Double).reshape([count, -1]);
        let order = match self {
            Self::Linf => f64::INFINITY,
            Self::L2 => 2.0,
            Self::L1 => 1.0,
        };
        rows.linalg_norm(order, [1].as_slice(), false, Kind::Double)
    }
}

/// The threat model: all images within `radius` of the clean one in `norm`, with every value in `[low, high]`.
///
/// Pixels are in `[0, 1]` unless said otherwise, so 8/255 is written `8.0 / 255.0`. A network that wants normalised
/// inputs normalises them itself; the attack never sees such values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ball {
    /// The norm.
    pub norm: Norm,
    /// The budget ε, at least 0.
    pub radius: f64,
    /// Least value of a pixel. 0 by default.
    #[serde(default)]
    pub low: f64,
    /// Largest value of a pixel. 1 by default.
    #[serde(default = "one")]
    pub high: f64,
}

fn one() -> f64 {
    1.0
}

impl Ball {
    /// A ball in `norm` with pixels in `[0, 1]`.
    pub fn new(norm: Norm, radius: f64) -> Self {
        Self { norm, radius, low: 0.0, high: 1.0 }
    }

    /// Every pixel may change by `radius`.
    pub fn linf(radius: f64) -> Self {
        Self::new(Norm::Linf, radius)
    }

    /// The image may move by the Euclidean distance `radius`.
    pub fn l2(radius: f64) -> Self {
        Self::new(Norm::L2, radius)
    }

    /// The changes may add up to `radius`.
    pub fn l1(radius: f64) -> Self {
        Self::new(Norm::L1, radius)
    }

    /// The same ball with another box.
    pub fn within(self, low: f64, high: f64) -> Self {
        Self { low, high, ..self }
    }

    /// The same ball with another budget.
    pub fn with_radius(self, radius: f64) -> Self {
        Self { radius, ..self }
    }

    /// Checks the budget and the box.
    ///
    /// # Errors
    /// [`Error::InvalidBudget`] for a radius that is negative, infinite or NaN, [`Error::Setting`] for an empty box.
    pub fn validate(&self) -> Result<()> {
        if !(self.radius >= 0.0 && self.radius.is_finite()) {
            return Err(Error::InvalidBudget { found: self.radius });
        }
        if !(self.low < self.high && self.low.is_finite() && self.high.is_finite()) {
            return Err(Error::setting("box", "low < high, both finite", format!("[{}, {}]", self.low, self.high)));
        }
        Ok(())
    }

    /// What is legal but probably not meant, in words.
    pub fn advice(&self) -> Option<String> {
        let width = self.high - self.low;
        (self.norm == Norm::Linf && self.radius > width).then(|| {
            format!(
                "an Linf budget of {} allows every image of the box [{}, {}]; was {}/255 meant?",
                self.radius, self.low, self.high, self.radius
            )
        })
    }

    /// Checks that images are floats of single or double precision inside the box.
    ///
    /// # Errors
    /// [`Error::Images`] for another kind or fewer than two dimensions, [`Error::InputOutOfBounds`] for pixels outside the
    /// box or NaN.
    pub fn check_images(&self, images: &Tensor) -> Result<()> {
        let kind = check_batch(images)?;
        if images.numel() == 0 {
            return Ok(());
        }
        // libtorch's minimum and maximum are NaN as soon as one value is.
        let (min, max) = (images.min().double_value(&[]), images.max().double_value(&[]));
        // In single precision a bound such as 0.1 lies half a unit off its double.
        let slack =
            if kind == Kind::Float { f64::from(f32::EPSILON) * self.low.abs().max(self.high.abs()) } else { 0.0 };
        if min >= self.low - slack && max <= self.high + slack {
            return Ok(());
        }
        Err(Error::InputOutOfBounds { low: self.low, high: self.high, min, max })
    }

    /// The point of ball and box that replaces `moved`.
    ///
    /// Linf and L1: the exact Euclidean projection onto the intersection. L2: scaled back onto the sphere, then clipped,
    /// as everybody does it; the result is in both, since `images` are in the box. What rounding to single precision adds
    /// to an L2 or L1 size is taken back.
    ///
    /// # Errors
    /// As [`Ball::validate`], and [`Error::Images`] for another kind than single or double precision, fewer than two
    /// dimensions, or shapes that differ. That `images` are in the box is not checked.
    pub fn project(&self, images: &Tensor, moved: &Tensor) -> Result<Tensor> {
        self.validate()?;
        check_batch(images)?;
        check_batch(moved)?;
        if images.size() != moved.size() {
            let expected = format!("{:?} as the clean images", images.size());
            return Err(Error::Images { expected, found: format!("{:?}", moved.size()) });
        }
        match self.norm {
            Norm::Linf => {
                let (low, high) = self.bounds(images)?;
                Ok(moved.f_clamp_tensor(Some(&low), Some(&high))?)
            }
            Norm::L2 => {
                let perturbation = moved.f_sub(images)?;
                let length = perturbation.flatten(1, -1).f_linalg_norm(2, [1].as_slice(), false, images.kind())?;
                let scale = (length.clamp_min(1e-30).reciprocal() * self.radius).clamp_max(1.0);
                let scaled = images + perturbation * broadcast(&scale, images.dim());
                self.settle(images, scaled.clamp(self.low, self.high))
            }
            Norm::L1 => {
                let (pixels, width) = to_rows(images)?;
                let (radius, low, high) = (self.radius, self.low, self.high);
                let perturbation = map_rows(&moved.f_sub(images)?, |place, row| {
                    onto_l1_ball_and_box(row, &pixels[place * width..][..width], radius, low, high);
                })?;
                self.settle(images, (images + perturbation).clamp(low, high))
            }
        }
    }

    /// Where an ascent begins that was given its start.
    ///
    /// # Errors
    /// [`Error::Images`] for a start of another shape or kind than the images.
    pub(crate) fn start_at(&self, images: &Tensor, start: &Tensor) -> Result<Tensor> {
        let (kind, found) = (images.f_kind()?, start.f_kind()?);
        if start.size() != images.size() || found != kind {
            let expected = format!("a start {:?} of kind {kind:?}, as the images", images.size());
            return Err(Error::Images { expected, found: format!("{:?} of kind {found:?}", start.size()) });
        }
        self.project(images, &start.detach().to_device(images.device()))
    }

    /// The least and largest value of every pixel within an Linf ball and the box.
    pub(crate) fn bounds(&self, images: &Tensor) -> Result<(Tensor, Tensor)> {
        let low = images.f_sub_scalar(self.radius)?.clamp_min(self.low);
        let high = images.f_add_scalar(self.radius)?.clamp_max(self.high);
        Ok((low, high))
    }

    /// The direction of unit size that a step of an ascent takes: the gradient's sign (Linf), the normed gradient (L2),
    /// or the signs of its largest hundredth among the pixels that can still move, divided by their number (L1).
    pub(crate) fn direction(&self, gradient: &Tensor, now: &Tensor) -> Tensor {
        match self.norm {
            Norm::Linf => gradient.sign(),
            Norm::L2 => {
                let length = gradient.flatten(1, -1).linalg_norm(2, [1].as_slice(), false, gradient.kind());
                gradient / broadcast(&(length + 1e-10), gradient.dim())
            }
            Norm::L1 => {
                let stuck = (now.le(self.low).logical_and(&gradient.lt(0.0)))
                    .logical_or(&now.ge(self.high).logical_and(&gradient.gt(0.0)));
                let free = gradient.masked_fill(&stuck, 0.0);
                let sizes = free.abs().flatten(1, -1);
                let width = sizes.size()[1];
                // The order statistic at or above the quantile 0.99, so that at least one pixel moves.
                let place = (width - (width - 1) / 100).max(1);
                let (threshold, _) = sizes.kthvalue(place, 1, true);
                let signs = free.flatten(1, -1).sign() * sizes.ge_tensor(&threshold).to_kind(free.kind());
                let count = signs.abs().sum_dim_intlist([1].as_slice(), true, free.kind()).clamp_min(1.0);
                (signs / count).reshape(gradient.size())
            }
        }
    }

    /// A random point of ball and box for every image.
    ///
    /// Linf: uniform in the cube. L2 and L1: a uniform direction of the sphere at a distance uniform in `[0, radius]`.
    /// Then projected.
    pub(crate) fn random_point(&self, images: &Tensor, streams: &Streams, counter: u64) -> Result<Tensor> {
        let (norm, radius) = (self.norm, self.radius);
        let noise = streams.fill(images, counter, |rng, row| match norm {
            Norm::Linf => uniform(rng, row, radius),
            Norm::L2 => {
                row.fill_with(|| StandardNormal.sample(rng));
                scale(row, radius * rng.random::<f64>(), row.iter().map(|v| v * v).sum::<f64>().sqrt());
            }
            Norm::L1 => {
                // Exponential sizes with random signs are uniform on the sphere of the L1 norm.
                row.fill_with(|| (1.0 - rng.random::<f64>()).ln() * if rng.random() { 1.0 } else { -1.0 });
                scale(row, radius * rng.random::<f64>(), row.iter().map(|v| v.abs()).sum());
            }
        })?;
        self.project(images, &(images + noise))
    }

    /// Takes back what rounding to single precision added to the L2 or L1 size of a perturbation.
    ///
    /// Linf needs none of this: one rounding of a pixel is all that can be added.
    fn settle(&self, images: &Tensor, moved: Tensor) -> Result<Tensor> {
        if moved.numel() == 0 {
            return Ok(moved);
        }
        let sizes = Vec::<f64>::try_from(self.norm.size(&(&moved - images)).to_device(tch::Device::Cpu))?;
        let allowed = self.radius * ALLOWED;
        if sizes.iter().all(|&size| size <= allowed) {
            return Ok(moved);
        }
        let (pixels, width) = to_rows(images)?;
        let (mut values, _) = to_rows(&moved)?;
        for (place, &size) in sizes.iter().enumerate().filter(|(_, size)| **size > allowed) {
            let share = self.radius / size * SHRUNK;
            let clean = &pixels[place * width..][..width];
            for (value, x) in values[place * width..][..width].iter_mut().zip(clean) {
                *value = x + (*value - x) * share;
            }
        }
        Ok(from_rows(&values, &moved).clamp(self.low, self.high))
    }
}

/// Refuses what is no batch of images in single or double precision, and gives the precision.
fn check_batch(images: &Tensor) -> Result<Kind> {
    let kind = images.f_kind()?;
    if !matches!(kind, Kind::Float | Kind::Double) {
        let expected = "single or double precision".to_owned();
        return Err(Error::Images { expected, found: format!("{kind:?}") });
    }
    if images.dim() < 2 {
        let expected = "a batch of at least one dimension each".to_owned();
        return Err(Error::Images { expected, found: format!("{:?}", images.size()) });
    }
    Ok(kind)
}

/// Half of the 1e-6 that is promised may be kept of a budget's excess, so that a double's last digit decides nothing …
pub(crate) const ALLOWED: f64 = 1.0 + 5e-7;
/// … and what is beyond is shrunk to a little less than the budget, since it is rounded again.
pub(crate) const SHRUNK: f64 = 1.0 - 1e-6;

/// Uniform in `[−radius, radius)`, 32 bits each, drawn many at a time.
fn uniform(rng: &mut impl Rng, row: &mut [f64], radius: f64) {
    let mut bits = [0_u32; 256];
    for part in row.chunks_mut(bits.len()) {
        let bits = &mut bits[..part.len()];
        rng.fill(bits);
        for (value, bits) in part.iter_mut().zip(bits) {
            *value = (f64::from(*bits) / f64::from(1_u32 << 31) - 1.0) * radius;
        }
    }
}

fn scale(row: &mut [f64], to: f64, from: f64) {
    let factor = to / from.max(f64::MIN_POSITIVE);
    row.iter_mut().for_each(|value| *value *= factor);
}
