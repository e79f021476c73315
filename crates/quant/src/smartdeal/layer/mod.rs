//! A whole layer in compressed form.
//!
//! Here is the form itself; `fit` makes it from weights, `rebuild` makes weights from it, `stats` counts its zeros.

mod basis;
mod fit;
mod rebuild;
mod stats;

use super::ladder::exponent_of_code;
use super::{LayerShape, Layout};
use crate::{Error, Result};

pub use basis::Basis;
pub use stats::LayerStats;

/// One layer: a code for every coefficient, a basis for every block.
///
/// ```
/// use quant::smartdeal::{DecomposeConfig, LayerShape, SdLayer};
/// let weights: Vec<f32> = (0..8 * 30).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
/// let shape = LayerShape::Linear { out_features: 8, in_features: 30 };
/// let layer = SdLayer::decompose(&weights, shape, &DecomposeConfig::with_theta(0.01))?;
/// assert!(layer.relative_error(&weights)? < 0.2);
/// # Ok::<(), quant::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SdLayer {
    layout: Layout,
    codes: Vec<i8>,
    basis: Basis,
}

impl SdLayer {
    /// A layer from its parts, refused where they do not fit one another.
    ///
    /// # Errors
    /// [`Error::Shape`] for a layout that does not hold its layer, and for another number of codes or basis entries
    /// than it has; [`Error::OffLadder`] for −128, which is no code; [`Error::Config`] for a width, a scale or a value
    /// that [`Basis::Fixed`] rules out; [`Error::NotFinite`] for a basis entry that is NaN or infinite.
    pub fn from_parts(layout: Layout, codes: Vec<i8>, basis: Basis) -> Result<Self> {
        // Its fields are everybody's.
        let Layout { shape, rows, columns, block_rows } = layout;
        let layout = Layout::checked(shape, rows, columns, block_rows)?;
        basis.check()?;
        let mismatch = |what: &str, expected: usize, found: usize| Error::Shape {
            what: format!("{what} of {:?}", layout.shape.dims()),
            expected: expected.to_string(),
            found: found.to_string(),
        };
        if codes.len() != layout.entries() {
            return Err(mismatch("coefficients", layout.entries(), codes.len()));
        }
        let basis_len = layout.blocks() * layout.basis_len();
        if basis.len() != basis_len {
            return Err(mismatch("basis entries", basis_len, basis.len()));
        }
        if let Some(position) = codes.iter().position(|c| *c == i8::MIN) {
            return Err(Error::OffLadder { value: f64::from(codes[position]), p_min: -63, p_max: 63 });
        }
        let floats = basis.to_floats();
        if let Some(position) = floats.iter().position(|v| !v.is_finite()) {
            return Err(Error::NotFinite { what: "basis".into(), position, value: f64::from(floats[position]) });
        }
        Ok(Self { layout, codes, basis })
    }

    /// The same layer with its bases rounded to `bits` (2 to 16) of fixed point. SmartExchange keeps 8.
    ///
    /// # Errors
    /// As [`Basis::quantised`].
    pub fn with_basis_bits(self, bits: u8) -> Result<Self> {
        Ok(Self { basis: self.basis.quantised(bits)?, ..self })
    }

    /// The cut.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The layer's shape.
    pub fn shape(&self) -> LayerShape {
        self.layout.shape
    }

    /// The codes, `[filters, rows, columns]`, see [`decode_coefficient`](super::decode_coefficient).
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// The bases.
    pub fn basis(&self) -> &Basis {
        &self.basis
    }

    /// `‖W − Ce·B‖_F / ‖W‖_F` against the given weights.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::NotFinite`] for weights that do not fit the shape or are not finite.
    pub fn relative_error(&self, weights: &[f32]) -> Result<f64> {
        check_weights(weights, &self.shape())?;
        let (mut rest, mut whole) = (0.0, 0.0);
        for (w, r) in weights.iter().zip(self.rebuild()) {
            rest += f64::from(w - r).powi(2);
            whole += f64::from(*w).powi(2);
        }
        Ok(if whole == 0.0 { 0.0 } else { (rest / whole).sqrt() })
    }

    /// The exponents in use, ascending.
    pub fn exponents(&self) -> Vec<i8> {
        let mut seen = [false; 128];
        for code in &self.codes {
            seen[usize::from(code.unsigned_abs()) & 127] = true;
        }
        (1..=127i8).filter(|c| seen[*c as usize]).filter_map(exponent_of_code).collect()
    }
}

pub(super) fn check_weights(weights: &[f32], shape: &LayerShape) -> Result<()> {
    if weights.len() != shape.weights() {
        return Err(Error::Shape {
            what: "weights".into(),
            expected: format!("{:?}", shape.dims()),
            found: format!("{} values", weights.len()),
        });
    }
    match weights.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(position) => {
            Err(Error::NotFinite { what: "weights".into(), position, value: f64::from(weights[position]) })
        }
    }
}

#[cfg(test)]
mod tests;
