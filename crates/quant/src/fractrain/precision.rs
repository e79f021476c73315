//! Bit widths: of one operand, of a layer's operands, and what they cost.

use super::{Error, Result};
use core_tensor::workload::FULL_PRECISION_BITS;
use serde::{Deserialize, Serialize};

/// The width of a uniform grid: `2^bits` levels, 1 to 24 bits (24 is all that an f32's significand holds).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Bits(u8);

impl Bits {
    /// The widest grid.
    pub const MAX: u32 = 24;

    /// `bits` wide.
    ///
    /// # Errors
    /// [`Error::BitsOutOfRange`] below 1 and above 24.
    pub fn new(bits: u32) -> Result<Self> {
        if (1..=Self::MAX).contains(&bits) { Ok(Self(bits as u8)) } else { Err(Error::BitsOutOfRange { found: bits }) }
    }

    /// The width.
    pub fn get(self) -> u8 {
        self.0
    }

    /// Steps between the lowest and the highest level: `2^bits − 1`, exact in an f32.
    pub fn steps(self) -> f32 {
        ((1_u32 << self.0) - 1) as f32
    }
}

impl TryFrom<u32> for Bits {
    type Error = Error;

    fn try_from(bits: u32) -> Result<Self> {
        Self::new(bits)
    }
}

impl From<Bits> for u32 {
    fn from(bits: Bits) -> Self {
        bits.0.into()
    }
}

/// An operand of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operand {
    /// The layer's weight.
    Weight,
    /// The layer's input.
    Activation,
    /// The gradient of the layer's output.
    Gradient,
}

impl std::fmt::Display for Operand {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Weight => "weight",
            Self::Activation => "activation",
            Self::Gradient => "gradient",
        })
    }
}

/// The bits of a layer's operands; `None` is full precision, bit for bit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Precision {
    /// Of the weight, in the forward pass and in the gradient of the input.
    pub weight: Option<Bits>,
    /// Of the input, in the forward pass and in the gradient of the weight.
    pub activation: Option<Bits>,
    /// Of the output's gradient, where the input's gradient is made from it, and the weight's too unless
    /// `weight_gradient` says otherwise.
    pub gradient: Option<Bits>,
    /// Of the output's gradient where the weight's and the bias's gradients are made from it. Set, it bifurcates the
    /// gradient (SBM, Banner et al., arXiv 1805.11046), at the price of a second forward convolution.
    pub weight_gradient: Option<Bits>,
}

impl Precision {
    /// No rounding at all.
    pub const FULL: Self = Self { weight: None, activation: None, gradient: None, weight_gradient: None };

    /// The papers' notation: `forward` bits for weights and activations, `gradient` bits on the way back.
    ///
    /// # Errors
    /// [`Error::BitsOutOfRange`].
    pub fn new(forward: u32, gradient: u32) -> Result<Self> {
        let (forward, gradient) = (Some(Bits::new(forward)?), Some(Bits::new(gradient)?));
        Ok(Self { weight: forward, activation: forward, gradient, weight_gradient: None })
    }

    /// Cost of a multiply-accumulate in the forward, input-gradient and weight-gradient pass, relative to full precision:
    /// `b₁·b₂ / 32²`.
    pub fn cost(&self) -> [f64; 3] {
        let share = |bits: Option<Bits>| f64::from(width(bits)) / f64::from(FULL_PRECISION_BITS);
        let [weight, activation, error] = [self.weight, self.activation, self.gradient].map(share);
        let gradient = self.weight_gradient.map_or(error, |bits| share(Some(bits)));
        [weight * activation, weight * error, activation * gradient]
    }

    /// The mean of [`cost`](Self::cost) in percent: the papers' `cp`.
    pub fn cost_percent(&self) -> f64 {
        100.0 * self.cost().iter().sum::<f64>() / 3.0
    }

    /// `[weight, activation, gradient]` widths, 32 for full precision, as [`core_tensor::workload`] has them.
    pub fn widths(&self) -> [u8; 3] {
        [self.weight, self.activation, self.gradient].map(width)
    }

    /// Whether any operand has fewer bits than in `earlier`.
    pub(super) fn is_below(&self, earlier: &Self) -> bool {
        self.widths().iter().zip(earlier.widths()).any(|(now, before)| *now < before)
    }

    /// The four widths as numbers, 0 for full precision: what saved states hold.
    pub(super) fn to_numbers(self) -> [f64; 4] {
        let Self { weight, activation, gradient, weight_gradient } = self;
        [weight, activation, gradient, weight_gradient].map(|bits| bits.map_or(0.0, |bits| f64::from(bits.get())))
    }

    /// Takes back what [`to_numbers`](Self::to_numbers) gave.
    ///
    /// # Errors
    /// [`Error::BitsOutOfRange`].
    pub(super) fn from_numbers(numbers: [f64; 4]) -> Result<Self> {
        let bits = |number: f64| match number as u32 {
            0 => Ok(None),
            bits => Bits::new(bits).map(Some),
        };
        let [weight, activation, gradient, weight_gradient] = numbers;
        Ok(Self {
            weight: bits(weight)?,
            activation: bits(activation)?,
            gradient: bits(gradient)?,
            weight_gradient: bits(weight_gradient)?,
        })
    }
}

fn width(bits: Option<Bits>) -> u8 {
    bits.map_or(FULL_PRECISION_BITS, Bits::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_those_of_the_published_pairs() {
        // (b·b + 2·b·g) / (3·1024), worked by hand; the papers' table of pairs.
        for (forward, gradient, percent) in [
            (3, 6, 1.4648),
            (4, 6, 2.0833),
            (4, 8, 2.6042),
            (6, 8, 4.2969),
            (6, 12, 5.8594),
            (8, 8, 6.25),
            (8, 16, 10.4167),
        ] {
            let found = Precision::new(forward, gradient).unwrap().cost_percent();
            assert!((found - percent).abs() < 5e-5, "{forward}/{gradient}: {found}");
        }
        assert_eq!(Precision::FULL.cost_percent(), 100.0);
        // Bifurcated 8/8 with 16 bits for the weight's gradient: (64 + 64 + 128) / 3072.
        let sbm = Precision { weight_gradient: Some(Bits::new(16).unwrap()), ..Precision::new(8, 8).unwrap() };
        assert!((sbm.cost_percent() - 100.0 * 256.0 / 3072.0).abs() < 1e-12);
    }

    #[test]
    fn bits_outside_their_range_are_refused_also_from_json() {
        assert!(matches!(Bits::new(0), Err(Error::BitsOutOfRange { found: 0 })));
        assert!(matches!(Precision::new(8, 25), Err(Error::BitsOutOfRange { found: 25 })));
        assert!(serde_json::from_str::<Bits>("33").is_err());
        assert_eq!(serde_json::to_string(&Precision::new(3, 6).unwrap().weight).unwrap(), "3");
        assert_eq!((Bits::new(1).unwrap().steps(), Bits::new(24).unwrap().steps()), (1.0, 16_777_215.0));
    }
}
