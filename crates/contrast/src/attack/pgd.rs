//! Projected gradient ascent: FGSM, BIM, PGD and their variant with momentum are one algorithm with other settings.

use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::rows::broadcast;
use super::streams::Streams;
use super::{Ball, Error, Result};

/// Where an ascent starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the image itself.
    Image,
    /// At a random point of ball and box.
    Random,
    /// Next to the image, at a normal deviation of a thousandth of the box for every pixel: the start of TRADES (Zhang et al.
    /// 2019, arXiv 1901.08573), whose loss has no gradient at the image itself.
    Nearby,
}

/// Projected gradient ascent (Madry et al. 2018, arXiv 1706.06083): `steps` times
/// `x ← P(x + step_size · direction(∇ loss))`, with `P` the projection onto ball and box and the direction of unit size in
/// the ball's norm.
///
/// [`Pgd::perturb`] maximises any loss, [`Pgd::perturb_from`] from a point of one's own; as an [`Attack`](super::Attack) it
/// fools a classifier.
///
/// ```
/// use contrast::attack::{Ball, Error, Pgd};
/// use tch::{Kind, Tensor};
///
/// let images = Tensor::from_slice(&[0.2_f32, 0.5, 0.8]).reshape([1, 3]);
/// let weights = Tensor::from_slice(&[1_f32, -2.0, 0.5]);
/// let loss = |x: &Tensor| Ok::<_, Error>((x * &weights).sum_dim_intlist([1].as_slice(), false, Kind::Float));
/// let moved = Pgd::new(Ball::linf(0.1)).perturb(&images, loss, 0)?;
/// // A linear loss is largest in a corner of the cube.
/// assert!((moved - Tensor::from_slice(&[0.3_f32, 0.4, 0.9])).abs().max().double_value(&[]) < 1e-6);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pgd {
    /// What the attacker may do.
    pub ball: Ball,
    /// Length of a step in the ball's norm. A quarter of the radius by default, as 2/255 is of 8/255.
    pub step_size: f64,
    /// Steps of a restart, at least 1. 20 by default.
    pub steps: usize,
    /// Independent restarts, at least 1; more than one needs a random start. 1 by default.
    pub restarts: usize,
    /// Where a restart begins. A random point by default.
    pub start: Start,
    /// Decay μ of the gradients' running sum (Dong et al. 2018, arXiv 1710.06081, where it is 1). 0, no momentum, by default.
    pub momentum: f64,
    /// Gradients averaged a step, for a model that is random (Athalye et al. 2018, arXiv 1802.00420). 1 by default.
    pub passes: usize,
    /// What is maximised when a classifier is attacked. Cross-entropy by default.
    #[serde(default)]
    pub loss: super::Loss,
    /// Whether an example is left alone from its first successful iterate on, and skipped by later restarts. The success of
    /// an attack is then the success at any iterate rather than at the last, and fooled examples cost no more passes.
    /// False by default, as in the published evaluations.
    pub early_stop: bool,
}

impl Pgd {
    /// 20 steps of a quarter of the radius from one random start.
    pub fn new(ball: Ball) -> Self {
        Self {
            ball,
            step_size: ball.radius / 4.0,
            steps: 20,
            restarts: 1,
            start: Start::Random,
            momentum: 0.0,
            passes: 1,
            loss: super::Loss::CrossEntropy,
            early_stop: false,
        }
    }

    /// One step of the whole radius from the image (Goodfellow et al. 2015, arXiv 1412.6572).
    pub fn fgsm(ball: Ball) -> Self {
        Self { step_size: ball.radius, steps: 1, start: Start::Image, ..Self::new(ball) }
    }

    /// The basic iterative method (Kurakin et al. 2017, arXiv 1607.02533): PGD from the image itself.
    pub fn bim(ball: Ball, steps: usize) -> Self {
        Self { steps, start: Start::Image, ..Self::new(ball) }
    }

    /// The momentum iterative method (Dong et al. 2018, arXiv 1710.06081): 10 steps of a tenth of the radius, μ = 1.
    pub fn momentum(ball: Ball) -> Self {
        Self { step_size: ball.radius / 10.0, steps: 10, start: Start::Image, momentum: 1.0, ..Self::new(ball) }
    }

    /// Other length of a step.
    pub fn with_step_size(self, step_size: f64) -> Self {
        Self { step_size, ..self }
    }

    /// Other number of steps.
    pub fn with_steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    /// Other number of restarts.
    pub fn with_restarts(self, restarts: usize) -> Self {
        Self { restarts, ..self }
    }

    /// Another start.
    pub fn with_start(self, start: Start) -> Self {
        Self { start, ..self }
    }

    /// Another loss.
    pub fn with_loss(self, loss: super::Loss) -> Self {
        Self { loss, ..self }
    }

    /// See [`Pgd::early_stop`](field@Self::early_stop).
    pub fn stopping_early(self) -> Self {
        Self { early_stop: true, ..self }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        self.ball.validate()?;
        if !(self.step_size >= 0.0 && self.step_size.is_finite()) {
            return Err(Error::setting("step_size", "a finite number of at least 0", self.step_size));
        }
        if !(self.momentum >= 0.0 && self.momentum.is_finite()) {
            return Err(Error::setting("momentum", "a finite number of at least 0", self.momentum));
        }
        for (setting, value) in [("steps", self.steps), ("restarts", self.restarts), ("passes", self.passes)] {
            if value == 0 {
                return Err(Error::setting(setting, "at least 1", value));
            }
        }
        if self.restarts > 1 && self.start == Start::Image {
            return Err(Error::setting("restarts", "1 when every restart begins at the image", self.restarts));
        }
        if self.start == Start::Image && self.loss == super::Loss::KullbackLeibler {
            let expected = "random or nearby for KullbackLeibler, which has no gradient at the image";
            return Err(Error::setting("start", expected, "image"));
        }
        Ok(())
    }

    /// Moves `images` within ball and box so that `loss` rises.
    ///
    /// `loss` gets the perturbed batch and returns one value an example, `[batch]`, or a scalar for the whole batch (such
    /// as a contrastive loss, where every example's partners matter). Gradients are taken with respect to the images alone;
    /// no parameter gets one, and none is touched. Whatever the loss runs must be in evaluation mode.
    ///
    /// One restart gives the last iterate; of several, each example (the batch, under a scalar loss) keeps the one of
    /// highest loss. `seed` and an image's own pixels fix its random starts.
    ///
    /// # Errors
    /// Settings outside their range, images outside the box, a loss that is not finite or does not depend on the images,
    /// and whatever `loss` returns.
    pub fn perturb<E: From<Error>>(
        &self,
        images: &Tensor,
        mut loss: impl FnMut(&Tensor) -> Result<Tensor, E>,
        seed: u64,
    ) -> Result<Tensor, E> {
        self.validate()?;
        self.ball.check_images(images)?;
        let images = images.detach();
        if images.numel() == 0 || self.ball.radius == 0.0 {
            return Ok(images.copy());
        }
        let streams = Streams::new(seed, &images)?;
        let mut best: Option<(Tensor, Tensor)> = None;
        for restart in 0..self.restarts {
            let reached = self.climb(self.ascent(&images, &streams, restart)?, &mut loss)?;
            if self.restarts == 1 {
                return Ok(reached);
            }
            let value = tch::no_grad(|| loss(&reached))?;
            let value = checked_loss(value, images.size()[0], self.steps)?;
            best = Some(match best {
                None => (reached, value),
                Some((points, values)) => {
                    let better = value.gt_tensor(&values);
                    let mask =
                        if better.dim() == 0 { better.shallow_clone() } else { broadcast(&better, images.dim()) };
                    (reached.where_self(&mask, &points), value.where_self(&better, &values))
                }
            });
        }
        Ok(best.map_or_else(|| images.copy(), |(points, _)| points))
    }

    /// As [`Pgd::perturb`], one ascent from `start`, of the images' shape and kind: what another attack found, the last
    /// perturbation of a training that keeps it. It is projected into ball and box first; [`Pgd::start`](field@Self::start)
    /// is not looked at, and nothing is random.
    ///
    /// # Errors
    /// As [`Pgd::perturb`]; a start of another shape or kind than the images, more than one restart.
    pub fn perturb_from<E: From<Error>>(
        &self,
        images: &Tensor,
        start: &Tensor,
        mut loss: impl FnMut(&Tensor) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        self.validate()?;
        if self.restarts > 1 {
            return Err(Error::setting("restarts", "1 from a given start", self.restarts).into());
        }
        self.ball.check_images(images)?;
        let images = images.detach();
        let start = self.ball.start_at(&images, start)?;
        if images.numel() == 0 || self.ball.radius == 0.0 {
            return Ok(images.copy());
        }
        self.climb(Ascent::new(self, &images, start)?, &mut loss)
    }

    /// The last iterate of an ascent.
    fn climb<E: From<Error>>(
        &self,
        mut ascent: Ascent,
        loss: &mut impl FnMut(&Tensor) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        for step in 0..self.steps {
            let gradient = self.summed_gradient(ascent.point(), step, loss)?;
            ascent.step(gradient)?;
        }
        Ok(ascent.point().copy())
    }

    /// The gradient at `point`, summed over [`Pgd::passes`](field@Self::passes): every direction of a step norms it.
    fn summed_gradient<E: From<Error>>(
        &self,
        point: &Tensor,
        step: usize,
        loss: &mut impl FnMut(&Tensor) -> Result<Tensor, E>,
    ) -> Result<Tensor, E> {
        let mut gradient = slope(point, step, loss)?;
        for _ in 1..self.passes {
            // Not in place: that of a sum over pixels is one number spread over all of them.
            gradient = &gradient + slope(point, step, loss)?;
        }
        Ok(gradient)
    }

    /// An ascent at its start.
    pub(crate) fn ascent(&self, images: &Tensor, streams: &Streams, restart: usize) -> Result<Ascent> {
        let point = match self.start {
            Start::Image => images.copy(),
            Start::Random => self.ball.random_point(images, streams, restart as u64)?,
            Start::Nearby => {
                let deviation = (self.ball.high - self.ball.low) * 1e-3;
                let noise = streams.fill(images, restart as u64, |rng, row| {
                    row.fill_with(|| deviation * Distribution::<f64>::sample(&StandardNormal, rng));
                })?;
                self.ball.project(images, &(images + noise))?
            }
        };
        Ascent::new(self, images, point)
    }
}

/// A restart under way.
pub(crate) struct Ascent {
    ball: Ball,
    step_size: f64,
    momentum: f64,
    images: Tensor,
    bounds: Option<(Tensor, Tensor)>,
    point: Tensor,
    velocity: Option<Tensor>,
}

impl Ascent {
    /// From a given point of ball and box.
    pub(crate) fn new(config: &Pgd, images: &Tensor, point: Tensor) -> Result<Self> {
        let ball = config.ball;
        let bounds = if ball.norm == super::Norm::Linf { Some(ball.bounds(images)?) } else { None };
        let images = images.shallow_clone();
        Ok(Self { ball, step_size: config.step_size, momentum: config.momentum, images, bounds, point, velocity: None })
    }

    /// The current iterate.
    pub(crate) fn point(&self) -> &Tensor {
        &self.point
    }

    /// One step along a gradient.
    pub(crate) fn step(&mut self, gradient: Tensor) -> Result<()> {
        let along = if self.momentum == 0.0 {
            gradient
        } else {
            let mean = gradient.abs().flatten(1, -1).mean_dim([1].as_slice(), false, gradient.kind());
            // A gradient of zero adds nothing, rather than NaN for ever after.
            let normed = &gradient / broadcast(&mean.clamp_min(1e-30), gradient.dim());
            let velocity = match &self.velocity {
                Some(velocity) => velocity * self.momentum + normed,
                None => normed,
            };
            self.velocity = Some(velocity.shallow_clone());
            velocity
        };
        let mut moved = self.ball.direction(&along, &self.point);
        moved = moved.g_mul_scalar_(self.step_size).g_add_(&self.point);
        self.point = match &self.bounds {
            Some((low, high)) => moved.clamp_tensor_(Some(low), Some(high)),
            None => self.ball.project(&self.images, &moved)?,
        };
        Ok(())
    }

    /// Keeps the examples at `places` only.
    pub(crate) fn keep(&mut self, places: &Tensor) {
        let rows = |tensor: &Tensor| tensor.index_select(0, places);
        self.images = rows(&self.images);
        self.point = rows(&self.point);
        self.bounds = self.bounds.as_ref().map(|(low, high)| (rows(low), rows(high)));
        self.velocity = self.velocity.as_ref().map(rows);
    }
}

/// The gradient of `loss` at `point`, of nothing but the point.
pub(crate) fn slope<E: From<Error>>(
    point: &Tensor,
    step: usize,
    loss: &mut impl FnMut(&Tensor) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    let input = point.detach().set_requires_grad(true);
    let value = tch::with_grad(|| loss(&input))?;
    let gradient = input_gradient(&value, &input)?;
    let value = value.detach();
    if let Err(error) = check_loss_shape(&value, point.size()[0]) {
        check_finite("gradient", &gradient, step)?;
        return Err(error.into());
    }
    check_all_finite(&[("gradient", &gradient), ("loss", &value)], step)?;
    Ok(gradient)
}

/// The gradient of a scalar, or of the sum of `[batch]` values, with respect to `input`. Whether it is finite is not looked at.
pub(crate) fn input_gradient(value: &Tensor, input: &Tensor) -> Result<Tensor> {
    if !value.requires_grad() {
        return Err(Error::NoGradient);
    }
    let gradient = Tensor::f_run_backward(&[value], &[input], false, false)?.remove(0);
    if !gradient.defined() {
        return Err(Error::NoGradient);
    }
    Ok(gradient)
}

fn checked_loss(value: Tensor, examples: i64, step: usize) -> Result<Tensor> {
    let value = value.detach();
    check_loss_shape(&value, examples)?;
    check_finite("loss", &value, step)?;
    Ok(value)
}

fn check_loss_shape(value: &Tensor, examples: i64) -> Result<()> {
    let shape = value.size();
    if shape.is_empty() || shape == [examples] { Ok(()) } else { Err(Error::LossShape { examples, found: shape }) }
}

/// Refuses NaN and infinities in any of several tensors, the first first. One look at the sum of all: on an accelerator every
/// look waits until the work before it is done.
pub(crate) fn check_all_finite(all: &[(&'static str, &Tensor)], step: usize) -> Result<()> {
    let sum = all.iter().map(|(_, values)| values.sum(values.kind())).reduce(|sum, next| sum + next);
    if sum.is_none_or(|sum| sum.double_value(&[]).is_finite()) {
        return Ok(());
    }
    all.iter().try_for_each(|(what, values)| check_finite(what, values, step))
}

/// Refuses NaN and infinities, naming the first example that has one.
pub(crate) fn check_finite(what: &'static str, values: &Tensor, step: usize) -> Result<()> {
    // A sum is finite only if every term is; that it could overflow otherwise is settled by the second look.
    if values.sum(values.kind()).double_value(&[]).is_finite() {
        return Ok(());
    }
    let broken = values.isfinite().logical_not();
    let broken = if values.dim() > 1 { broken.flatten(1, -1).any_dim(1, false) } else { broken.reshape([-1]) };
    let broken = broken.to_kind(Kind::Int64);
    if broken.max().int64_value(&[]) == 0 {
        return Ok(());
    }
    let example = broken.argmax(0, false).int64_value(&[]) as usize;
    Err(Error::NonFinite { what, step, example })
}
