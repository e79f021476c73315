//! The alternating fit of one matrix: `W ≈ Ce·B`, `Ce` sparse powers of two, `B` a small dense basis.
//!
//! Starting from `B = I`, `C = W`, each iteration projects `C` onto the ladder, fits `B` to the projected
//! coefficients by least squares, fits `C` to that basis, and zeroes what lies below the threshold. Nothing is
//! thresholded before the first projection; the objective need not fall from one iteration to the next.
//!
//! [`decompose_plain`] writes that down with dense singular value decompositions, for any number of columns.
//! Three columns, which is nearly every layer there is, take a vectorised path that solves the 3 × 3 normal
//! equations in closed form and falls back to the singular values where those are ill-conditioned.

mod lanes;
mod least_squares;
mod plain;
mod three;

use ndarray::{Array2, ArrayView2};

use super::ladder::encode_coefficient;
use super::{DecomposeConfig, Projection};
use crate::{Error, Result};

pub(super) use lanes::Rungs;
pub use plain::decompose_plain;
pub(crate) use three::Scratch;

/// One recorded iteration.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct TraceStep {
    /// `‖W − Ce·B‖_F` after fitting the basis.
    pub error: f64,
    /// Non-zero coefficients.
    pub non_zeros: usize,
}

/// A matrix as the product of its coefficients and its basis.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// `[rows, columns]`, on the ladder unless the projection was [`Projection::Real`].
    pub coefficients: Array2<f64>,
    /// `[columns, columns]`.
    pub basis: Array2<f64>,
    /// One entry an iteration, the last the result's.
    pub trace: Vec<TraceStep>,
    /// `‖W − Ce·B‖_F / ‖W‖_F`; 0 for an all-zero matrix.
    pub relative_error: f64,
}

impl Factors {
    /// `Ce·B`.
    pub fn rebuild(&self) -> Array2<f64> {
        self.coefficients.dot(&self.basis)
    }

    /// The coefficients as codes, row-major.
    ///
    /// # Errors
    /// [`Error::OffLadder`] where they were not projected onto powers of two, or onto other ones than `config` has;
    /// [`Error::Config`] for a ladder that [`Ladder::validate`](super::Ladder::validate) refuses.
    pub fn codes(&self, config: &DecomposeConfig) -> Result<Vec<i8>> {
        let Projection::PowersOfTwo(ladder) = config.projection else {
            let value = self.coefficients.iter().copied().find(|c| *c != 0.0).unwrap_or(0.0);
            return Err(Error::OffLadder { value, p_min: 0, p_max: 0 });
        };
        self.coefficients.iter().map(|c| encode_coefficient(*c, &ladder)).collect()
    }

    /// Non-zero coefficients.
    pub fn non_zeros(&self) -> usize {
        self.coefficients.iter().filter(|c| **c != 0.0).count()
    }

    /// Rows without a non-zero coefficient.
    pub fn zero_rows(&self) -> usize {
        self.coefficients.rows().into_iter().filter(|row| row.iter().all(|c| *c == 0.0)).count()
    }
}

/// Decomposes one matrix as one block.
///
/// ```
/// use ndarray::array;
/// use quant::smartdeal::{decompose, DecomposeConfig};
/// // Already on the ladder: the basis is the identity and nothing is lost.
/// let w = array![[0.5, 0.0, -0.25], [0.0, 1.0, 0.0], [2.0, 0.0, 0.125], [0.0, -4.0, 0.0]];
/// let factors = decompose(&w.view(), &DecomposeConfig::with_theta(0.05))?;
/// assert_eq!(factors.coefficients, w);
/// assert!(factors.relative_error < 1e-14);
/// # Ok::<(), quant::Error>(())
/// ```
///
/// # Errors
/// [`Error::Config`] for a setting outside its range; [`Error::Shape`] for a matrix without rows or columns;
/// [`Error::NotFinite`] for an entry that is NaN or infinite.
pub fn decompose(w: &ArrayView2<f64>, config: &DecomposeConfig) -> Result<Factors> {
    check(w, config)?;
    if w.ncols() == 3 && config.scale.is_none() {
        Ok(three::decompose_three(w, config, &mut Scratch::default()))
    } else {
        decompose_plain(w, config)
    }
}

/// Row threshold: a row goes when its absolute sum is below this many `theta`.
const ROW_FACTOR: f64 = 5.0;

fn check(w: &ArrayView2<f64>, config: &DecomposeConfig) -> Result<()> {
    config.validate()?;
    if w.nrows() == 0 || w.ncols() == 0 {
        return Err(Error::Shape {
            what: "matrix to decompose".into(),
            expected: "at least one row and one column".into(),
            found: format!("{} × {}", w.nrows(), w.ncols()),
        });
    }
    match w.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(position) => Err(Error::NotFinite {
            what: "matrix to decompose".into(),
            position,
            value: *w.iter().nth(position).unwrap_or(&f64::NAN),
        }),
    }
}

#[cfg(test)]
mod tests;
