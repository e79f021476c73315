//! The soft forest as a regressor.

use std::path::Path;

use ndarray::{Array2, ArrayView1, ArrayView2};

use crate::classifier::{check_rows, checked_weights};
use crate::encoder::check_finite;
use crate::ensemble::{Ensemble, Samples, r_squared};
use crate::error::{ForestError, Result};
use crate::kernel::{Evaluation, Kernel, Prediction};
use crate::params::SoftForestParams;
use crate::store;
use crate::train::{Epoch, Targets};
use crate::tree::Tree;

const KIND: &str = "soft forest regressor";

impl SoftForestParams {
    /// Fits a regressor to `x` `[rows, columns]` and values `y` `[rows, outputs]` by squared error. Values are standardised
    /// inside. Settings that only make sense for classes (`classes`, `class_weights`, `mix`, closed-form leaf updates,
    /// leaf cross-entropy) are not used.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and for targets that are not finite.
    pub fn fit_values(
        &self,
        x: ArrayView2<f32>,
        y: ArrayView2<f32>,
        weights: Option<ArrayView1<f32>>,
    ) -> Result<SoftForestRegressor> {
        self.validate()?;
        if x.is_empty() || y.is_empty() {
            return Err(ForestError::Empty {
                what: "features and targets",
                rows: x.nrows().min(y.nrows()),
                columns: x.ncols().min(y.ncols()),
            });
        }
        check_rows("targets", x.nrows(), y.nrows())?;
        check_finite(y, "targets")?;
        let mut weights = checked_weights(x.nrows(), weights)?;
        let mean = weights.iter().map(|&w| f64::from(w)).sum::<f64>() / weights.len() as f64;
        weights.iter_mut().for_each(|w| *w = (f64::from(*w) / mean) as f32);
        let target: Vec<(f32, f32)> = y.columns().into_iter().map(scale_of).collect();
        let scaled = scale(y, &target);
        let samples = Samples { x, targets: Targets::Values(scaled), weights, tree_weights: None, forests: 1 };
        let outputs = target.len();
        Ok(SoftForestRegressor { ensemble: Ensemble::fit(self, samples, outputs, Some(target))? })
    }
}

/// A fitted regressor. Made by [`SoftForestParams::fit_values`], or by [`SoftForestRegressor::load`].
#[derive(Clone, Debug)]
pub struct SoftForestRegressor {
    ensemble: Ensemble,
}

impl SoftForestRegressor {
    /// Values `[rows, outputs]`.
    ///
    /// # Errors
    /// As [`SoftForest::predict_proba`](crate::SoftForest::predict_proba).
    pub fn predict(&self, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        Ok(self.evaluate(x, Evaluation::Exact)?.output)
    }

    /// Values with a bound per row on what skipping changed.
    ///
    /// # Errors
    /// As [`predict`](Self::predict), and for a threshold outside [0, 1] or integers with linear leaves.
    pub fn evaluate(&self, x: ArrayView2<f32>, evaluation: Evaluation) -> Result<Prediction> {
        self.ensemble.predict(x, evaluation)
    }

    /// Values of one row into `output`; returns the bound on what skipping changed.
    ///
    /// # Errors
    /// As [`evaluate`](Self::evaluate), and when `output` is not as long as there are outputs.
    pub fn predict_one(&self, row: &[f32], evaluation: Evaluation, output: &mut [f32]) -> Result<f32> {
        self.ensemble.predict_one(row, evaluation, output)
    }

    /// R^2 over all outputs.
    ///
    /// # Errors
    /// As [`predict`](Self::predict), when `y` has another shape, and for targets that are not finite.
    pub fn score(&self, x: ArrayView2<f32>, y: ArrayView2<f32>) -> Result<f64> {
        check_rows("targets", x.nrows(), y.nrows())?;
        if y.ncols() != self.ensemble.outputs {
            return Err(ForestError::Width { expected: self.ensemble.outputs, found: y.ncols() });
        }
        check_finite(y, "targets")?;
        Ok(r_squared(self.predict(x)?.view(), y))
    }

    /// One more pass over new rows, at the configured step size without decay. Adam starts over, as in
    /// [`SoftForest::partial_fit`](crate::SoftForest::partial_fit).
    ///
    /// # Errors
    /// As [`SoftForestParams::fit_values`]. The model is unchanged on error.
    pub fn partial_fit(&mut self, x: ArrayView2<f32>, y: ArrayView2<f32>) -> Result<()> {
        check_rows("targets", x.nrows(), y.nrows())?;
        check_finite(y, "targets")?;
        let target = self.ensemble.target.clone().unwrap_or_default();
        if y.ncols() != target.len() {
            return Err(ForestError::Width { expected: target.len(), found: y.ncols() });
        }
        let scaled = scale(y, &target);
        self.ensemble.partial_fit(Samples {
            x,
            targets: Targets::Values(scaled),
            weights: vec![1.0; x.nrows()],
            tree_weights: None,
            forests: 1,
        })
    }

    /// Makes every shape binary and drops what can no longer be reached, without further training.
    pub fn harden(&mut self) {
        self.ensemble.harden();
    }

    /// Settings it was fitted with.
    #[must_use]
    pub fn params(&self) -> &SoftForestParams {
        &self.ensemble.params
    }

    /// The trees. Their gates see scaled inputs, and their responses are standardised values.
    #[must_use]
    pub fn trees(&self) -> &[Tree] {
        &self.ensemble.trees
    }

    /// The compiled form that predicts.
    #[must_use]
    pub fn kernel(&self) -> &Kernel {
        &self.ensemble.kernel
    }

    /// What each epoch of training did, fine-tuning included.
    #[must_use]
    pub fn history(&self) -> &[Epoch] {
        &self.ensemble.history
    }

    /// Writes the model to a file, atomically.
    ///
    /// # Errors
    /// [`ForestError::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        store::write(path.as_ref(), &self.to_bytes()?)
    }

    /// Reads a model back; it predicts bit for bit as the one that was saved.
    ///
    /// # Errors
    /// As [`SoftForest::load`](crate::SoftForest::load).
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self { ensemble: Ensemble::load(KIND, path.as_ref())? })
    }

    /// The bytes that [`save`](Self::save) writes.
    ///
    /// # Errors
    /// [`ForestError::Malformed`] when the settings cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.ensemble.to_bytes(KIND)
    }

    /// A model from the bytes of a file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Ok(Self { ensemble: Ensemble::from_bytes(KIND, bytes)? })
    }
}

/// Standard deviation and mean of a target; deviation 1 when it does not vary.
fn scale_of(column: ArrayView1<f32>) -> (f32, f32) {
    let rows = column.len() as f64;
    let mean = column.iter().map(|&v| f64::from(v)).sum::<f64>() / rows;
    let variance = column.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / rows;
    let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
    (deviation as f32, mean as f32)
}

fn scale(y: ArrayView2<f32>, target: &[(f32, f32)]) -> Array2<f32> {
    let mut scaled = y.to_owned();
    for mut row in scaled.rows_mut() {
        for (v, (deviation, mean)) in row.iter_mut().zip(target) {
            *v = (*v - mean) / deviation;
        }
    }
    scaled
}
