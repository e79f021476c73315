//! The traits of the linfa ecosystem: `SoftForestParams` is fitted to a `DatasetBase`, `SoftForest` predicts arrays.

use linfa::dataset::{AsSingleTargets, DatasetBase};
use linfa::traits::{Fit, PredictInplace};
use ndarray::{Array1, ArrayBase, Data, Ix2};

use crate::classifier::SoftForest;
use crate::error::ForestError;
use crate::params::SoftForestParams;

/// What can go wrong inside linfa's traits.
#[derive(Debug, thiserror::Error)]
pub enum LinfaError {
    /// An error of this crate.
    #[error(transparent)]
    Forest(#[from] ForestError),
    /// An error of linfa.
    #[error(transparent)]
    Linfa(#[from] linfa::Error),
}

impl<D, T> Fit<ArrayBase<D, Ix2>, T, LinfaError> for SoftForestParams
where
    D: Data<Elem = f32>,
    T: AsSingleTargets<Elem = usize>,
{
    type Object = SoftForest;

    /// Fits a classifier; the data set's weights, when there are any, weigh the rows.
    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, T>) -> Result<SoftForest, LinfaError> {
        let targets = dataset.targets().as_single_targets();
        let weights = dataset.weights().map(ndarray::aview1);
        Ok(self.fit_weighted(dataset.records().view(), targets, weights)?)
    }
}

impl<D: Data<Elem = f32>> PredictInplace<ArrayBase<D, Ix2>, Array1<usize>> for SoftForest {
    /// # Panics
    /// linfa's trait has no error: panics for rows that [`SoftForest::predict`] refuses (another number of columns, NaN).
    fn predict_inplace(&self, x: &ArrayBase<D, Ix2>, y: &mut Array1<usize>) {
        match self.predict(x.view()) {
            Ok(predicted) => y.assign(&predicted),
            Err(error) => panic!("linfa's Predict cannot return an error: {error}"),
        }
    }

    fn default_target(&self, x: &ArrayBase<D, Ix2>) -> Array1<usize> {
        Array1::zeros(x.nrows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::blobs;
    use linfa::traits::Predict;

    #[test]
    fn a_data_set_is_fitted_and_predicted_through_the_traits() -> Result<(), LinfaError> {
        let (x, y) = blobs(200, 4, 3, 5.0, 1);
        let dataset = DatasetBase::new(x.clone(), Array1::from(y.clone()));
        let params = SoftForestParams::default().trees(3).depth(3).epochs(20).batch(32);
        let model = Fit::fit(&params, &dataset)?;
        let predicted: Array1<usize> = Predict::predict(&model, &x);
        assert_eq!(predicted, model.predict(x.view())?);
        assert!(model.score(x.view(), ndarray::aview1(&y))? > 0.9);
        Ok(())
    }
}
