//! The uniform quantiser (FracTrain, arXiv 2012.13113, as its reference code has it): ranges, grids, rounding.
//!
//! ```text
//! N = 2^b − 1,   s = range / N,   v = (x − m) / s,   k = round(clamp(v, 0, N)),   Q(x) = k·s + m
//! ```

use super::kernel::{Extent, Grid, Mode};
use super::noise::Stream;
use super::{Bits, Error, Operand, Result, memory};
use core_tensor::autograd::with_backward;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Where the levels of a grid lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GridKind {
    /// From the least to the greatest value, evenly. Zero need not be a level. What the paper's code does.
    #[default]
    MinMax,
    /// As above, the range widened to hold zero and shifted so that zero is a level: what integer kernels with padding
    /// need.
    IntegerZeroPoint,
    /// `2^b − 1` levels from −a to a, a being the greatest magnitude; zero is the middle one. 2 bits at least.
    Symmetric,
}

/// How values between two levels are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// To the nearer level, ties to the even one.
    Nearest,
    /// To the upper level with the probability of the distance from the lower one: unbiased. In single precision on a
    /// CPU the same seed gives the same numbers with any number of threads; other kinds and devices use libtorch's
    /// generator.
    Stochastic {
        /// Fixes the noise, where it is not libtorch's.
        seed: u64,
    },
}

/// What shares a range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Granularity {
    /// The whole tensor.
    #[default]
    Tensor,
    /// Each index of an axis.
    Channel(i64),
}

/// A uniform quantiser whose range is that of the tensor it is given.
///
/// ```
/// use quant::fractrain::{Affine, Bits, Rounding};
/// use tch::Tensor;
///
/// let x = Tensor::from_slice(&[-1.0_f32, -0.4, 0.0, 0.3, 1.1]);
/// let two_bits = Affine::per_tensor(Bits::new(2)?);
/// // s = 2.1 / 3 = 0.7: levels −1, −0.3, 0.4, 1.1.
/// let rounded = Vec::<f32>::try_from(two_bits.round(&x, Rounding::Nearest)?)?;
/// assert!(rounded.iter().zip([-1.0, -0.3, -0.3, 0.4, 1.1]).all(|(a, b)| (a - b).abs() < 1e-6));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Affine {
    /// Width of the grid.
    pub bits: Bits,
    /// What shares a range.
    #[serde(default)]
    pub granularity: Granularity,
    /// Where levels lie.
    #[serde(default)]
    pub grid: GridKind,
}

/// Grids that were chosen for a tensor, to be used on others too.
#[derive(Debug, Clone, PartialEq)]
pub struct QParams {
    grids: Vec<Grid>,
    axis: Option<i64>,
}

impl Affine {
    /// One range for the tensor, from its least to its greatest value.
    pub fn per_tensor(bits: Bits) -> Self {
        Self { bits, granularity: Granularity::Tensor, grid: GridKind::MinMax }
    }

    /// One range for each output channel of a weight, which come first.
    pub fn per_channel(bits: Bits) -> Self {
        Self { bits, granularity: Granularity::Channel(0), grid: GridKind::MinMax }
    }

    /// The grids of `values`.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a NaN, an infinity or a range of infinite width; [`Error::Shape`] for an empty tensor,
    /// an axis that is not there, or numbers that are not floating-point; [`Error::BitsOutOfRange`] for a symmetric
    /// grid of one bit.
    pub fn params(&self, values: &Tensor) -> Result<QParams> {
        check_kind(values)?;
        if values.numel() == 0 {
            return Err(Error::shape("tensor to quantise", "at least one number", format!("{:?}", values.size())));
        }
        let extents = match self.granularity {
            Granularity::Tensor => vec![memory::scan(values)?],
            Granularity::Channel(axis) => memory::scan_rows(&axis_first(values, axis)?)?,
        };
        let grids = extents.into_iter().map(|extent| self.grid.of(extent, self.bits, "tensor"));
        let axis = match self.granularity {
            Granularity::Tensor => None,
            Granularity::Channel(axis) => Some(axis),
        };
        Ok(QParams { grids: grids.collect::<Result<_>>()?, axis })
    }

    /// The values rounded to their own grids. No gradient flows through; an empty tensor comes back as it is.
    ///
    /// # Errors
    /// As [`params`](Self::params).
    pub fn round(&self, values: &Tensor, rounding: Rounding) -> Result<Tensor> {
        check_kind(values)?;
        if values.numel() == 0 {
            return Ok(values.detach());
        }
        self.params(values)?.round(values, rounding)
    }

    /// [`round`](Self::round) forward, the identity backward (the straight-through estimator): nothing is clipped, since
    /// the range is the tensor's own.
    ///
    /// # Errors
    /// As [`params`](Self::params).
    pub fn fake_quant(&self, values: &Tensor, rounding: Rounding) -> Result<Tensor> {
        let rounded = self.round(values, rounding)?;
        straight_through(values, &rounded)
    }
}

/// `value` forward without a copy, the gradient of `input` backward.
pub(super) fn straight_through(input: &Tensor, value: &Tensor) -> Result<Tensor> {
    Ok(with_backward(&[input], value, |gradient| vec![Some(gradient.shallow_clone())])?)
}

/// Rounds each sample (index of the first axis) to a width of its own, all over the range of the whole tensor.
///
/// # Errors
/// [`Error::Shape`] unless there is one width a sample; as [`Affine::params`].
pub fn round_per_sample(values: &Tensor, bits: &[Bits], rounding: Rounding) -> Result<Tensor> {
    check_kind(values)?;
    let samples = values.size().first().copied().unwrap_or(0);
    if samples != bits.len() as i64 {
        return Err(Error::shape("widths of samples", samples, bits.len()));
    }
    if values.numel() == 0 {
        return Ok(values.detach());
    }
    let extent = memory::scan(values)?;
    let grids = bits.iter().map(|bits| GridKind::MinMax.of(extent, *bits, "tensor"));
    memory::round(values, &grids.collect::<Result<Vec<_>>>()?, rounding.mode())
}

impl QParams {
    /// One grid from `low` to `high`.
    ///
    /// # Errors
    /// [`Error::Config`] for a range that is NaN, upside down or of infinite width; [`Error::BitsOutOfRange`] for a symmetric grid of
    /// one bit.
    pub fn from_range(low: f32, high: f32, bits: Bits, grid: GridKind) -> Result<Self> {
        // The difference of two finite numbers may be infinite.
        if !(low <= high && (high - low).is_finite()) {
            let expected = "two numbers a finite distance apart, the lower first";
            return Err(Error::config("range", expected, format!("{low} … {high}")));
        }
        Ok(Self { grids: vec![grid.of(Extent { low, high, finite: true }, bits, "range")?], axis: None })
    }

    /// The lowest level of each grid.
    pub fn mins(&self) -> Vec<f32> {
        self.grids.iter().map(|grid| grid.min).collect()
    }

    /// The distance between neighbouring levels of each grid.
    pub fn steps(&self) -> Vec<f32> {
        self.grids.iter().map(|grid| grid.step).collect()
    }

    /// Values rounded to these grids; those outside go to the nearest end.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tensor has another number of channels, or numbers that are not floating-point.
    pub fn round(&self, values: &Tensor, rounding: Rounding) -> Result<Tensor> {
        check_kind(values)?;
        let Some(axis) = self.axis else {
            return memory::round(values, &self.grids, rounding.mode());
        };
        let first = self.fitting(values, axis)?;
        Ok(memory::round(&first, &self.grids, rounding.mode())?.f_transpose(0, axis)?)
    }

    /// The number of each value's level, 0 to `2^bits − 1`, as `Int`.
    ///
    /// # Errors
    /// As [`round`](Self::round).
    pub fn quantize(&self, values: &Tensor) -> Result<Tensor> {
        let levels = self.affine(&self.round(values, Rounding::Nearest)?, |values, min, step| {
            Ok(values.f_sub(min)?.f_div(step)?.f_round()?)
        })?;
        Ok(levels.f_to_kind(Kind::Int)?)
    }

    /// The values of levels, which may be integers.
    ///
    /// # Errors
    /// [`Error::Shape`] if the tensor has another number of channels.
    pub fn dequantize(&self, levels: &Tensor) -> Result<Tensor> {
        self.affine(&levels.f_to_kind(Kind::Float)?, |levels, min, step| Ok(levels.f_mul(step)?.f_add(min)?))
    }

    fn fitting(&self, values: &Tensor, axis: i64) -> Result<Tensor> {
        let first = axis_first(values, axis)?;
        if first.size()[0] != self.grids.len() as i64 {
            return Err(Error::shape("channels", self.grids.len(), first.size()[0]));
        }
        Ok(first)
    }

    fn affine(&self, values: &Tensor, apply: impl Fn(&Tensor, &Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let mut shape = vec![1; values.dim()];
        if let Some(axis) = self.axis {
            let _fits = self.fitting(values, axis)?;
            shape[axis as usize] = self.grids.len() as i64;
        }
        let column = |numbers: Vec<f32>| -> Result<Tensor> {
            Ok(Tensor::f_from_slice(&numbers)?.f_to_device(values.device())?.f_view(&shape[..])?)
        };
        apply(values, &column(self.mins())?, &column(self.steps())?)
    }
}

impl Rounding {
    pub(super) fn mode(self) -> Mode {
        match self {
            Self::Nearest => Mode::Nearest,
            Self::Stochastic { seed } => Mode::Stochastic(Stream::new(seed, 0, 0)),
        }
    }
}

impl GridKind {
    /// The grid of a range; `site` names it where it is not finite.
    pub(super) fn of(self, extent: Extent, bits: Bits, site: &str) -> Result<Grid> {
        let Extent { low, high, finite } = extent;
        if !finite {
            return Err(Error::NotFinite { site: site.into(), operand: Operand::Activation, step: 0 });
        }
        let steps = bits.steps();
        // A range so small that its step would vanish is a constant: it must come back as it is.
        let step = |range: f32, steps: f32| (range / steps).max(f32::MIN_POSITIVE);
        Ok(match self {
            Self::MinMax if high == low => Grid::constant(low),
            Self::MinMax => Grid { min: low, step: step(high - low, steps), steps },
            Self::IntegerZeroPoint => {
                let (low, high) = (low.min(0.0), high.max(0.0));
                if low == high {
                    return Ok(Grid::constant(0.0));
                }
                let step = step(high - low, steps);
                let zero = (-low / step).round_ties_even().clamp(0.0, steps);
                Grid { min: -(zero * step), step, steps }
            }
            Self::Symmetric => {
                if bits.get() < 2 {
                    return Err(Error::BitsOutOfRange { found: bits.into() });
                }
                let magnitude = high.max(-low);
                if magnitude == 0.0 {
                    return Ok(Grid::constant(0.0));
                }
                let half = (steps - 1.0) / 2.0;
                let step = step(magnitude, half);
                Grid { min: -(half * step), step, steps: steps - 1.0 }
            }
        })
    }
}

/// Refuses integers and the like, in which positions between levels have no fraction.
fn check_kind(values: &Tensor) -> Result<()> {
    match values.kind() {
        Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double => Ok(()),
        kind => Err(Error::shape("tensor to quantise", "floating-point numbers", format!("{kind:?}"))),
    }
}

/// `values` with `axis` brought to the front.
fn axis_first(values: &Tensor, axis: i64) -> Result<Tensor> {
    let axes = values.dim() as i64;
    if !(0..axes).contains(&axis) {
        return Err(Error::shape("channel axis", format!("0 to {}", axes - 1), axis));
    }
    Ok(if axis == 0 { values.shallow_clone() } else { values.f_transpose(0, axis)? })
}

#[cfg(test)]
mod tests;
