//! The bases of a layer, as numbers or in fixed point.

use crate::{Error, Result};

/// The bases of a layer's blocks, `[blocks, columns, columns]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Basis {
    /// Full precision: 32 bits an entry.
    Float(Vec<f32>),
    /// Fixed point: entry = `scale` · value.
    Fixed {
        /// Width of a value in the file, 2 to 16 bits.
        bits: u8,
        /// One step, above 0.
        scale: f32,
        /// Signed values within `±(2^(bits−1) − 1)`.
        values: Vec<i16>,
    },
}

impl Basis {
    /// Entries of all bases: `N_B`.
    pub fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Fixed { values, .. } => values.len(),
        }
    }

    /// Whether there is no block at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bits of an entry: `b_B`.
    pub fn bits(&self) -> u32 {
        match self {
            Self::Float(_) => 32,
            Self::Fixed { bits, .. } => u32::from(*bits),
        }
    }

    /// The entries as numbers.
    pub fn to_floats(&self) -> Vec<f32> {
        match self {
            Self::Float(values) => values.clone(),
            Self::Fixed { scale, values, .. } => values.iter().map(|v| f32::from(*v) * scale).collect(),
        }
    }

    /// Refuses fixed point that a file cannot hold: a value beyond full scale would run into its neighbours' bits.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub(super) fn check(&self) -> Result<()> {
        let Self::Fixed { bits, scale, values } = self else { return Ok(()) };
        let refuse = |name: &'static str, expected: &'static str, found: String| -> Result<()> {
            Err(Error::Config { name, expected, found })
        };
        if !(2..=16).contains(bits) {
            return refuse("basis_bits", "2 to 16, or 32", bits.to_string());
        }
        if !(scale.is_finite() && *scale > 0.0) {
            return refuse("basis scale", "a finite number above 0", scale.to_string());
        }
        let top = (1i32 << (bits - 1)) - 1;
        match values.iter().find(|value| i32::from(**value).abs() > top) {
            Some(value) => refuse("basis value", "within full scale", format!("{value} in {bits} bits")),
            None => Ok(()),
        }
    }

    /// Rounds to symmetric fixed point with one scale for the layer, the largest magnitude being full scale.
    ///
    /// # Errors
    /// [`Error::Config`] for `bits` outside 2 to 16.
    pub fn quantised(&self, bits: u8) -> Result<Self> {
        if !(2..=16).contains(&bits) {
            return Err(Error::Config { name: "basis_bits", expected: "2 to 16, or 32", found: bits.to_string() });
        }
        let floats = self.to_floats();
        let largest = floats.iter().fold(0f32, |m, v| m.max(v.abs()));
        let top = ((1i32 << (bits - 1)) - 1) as f32;
        let scale = if largest == 0.0 { 1.0 } else { largest / top };
        let values = floats.iter().map(|v| (v / scale).round().clamp(-top, top) as i16).collect();
        Ok(Self::Fixed { bits, scale, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smartdeal::layer::tests::random_weights;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_rounded_basis_is_within_half_a_step(seed in any::<u64>(), bits in 2u8..=16) {
            let basis = Basis::Float(random_weights(seed, 45));
            let Basis::Fixed { scale, .. } = basis.quantised(bits).unwrap() else { panic!("fixed point expected") };
            // Half a step; division and product round numbers of up to 2^(bits − 1) steps once each, by 2^-24 of them.
            let bound = f64::from(scale) * (0.5 + f64::from(1u32 << (bits - 1)) * 2f64.powi(-23));
            for (rounded, exact) in basis.quantised(bits).unwrap().to_floats().iter().zip(basis.to_floats()) {
                prop_assert!((f64::from(*rounded) - f64::from(exact)).abs() <= bound);
            }
        }
    }
}
