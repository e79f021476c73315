//! The soft forest as a classifier.

use std::path::Path;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use crate::ensemble::{Ensemble, Samples, arg_max};
use crate::error::{ForestError, Result};
use crate::kernel::{Evaluation, Kernel, Prediction};
use crate::params::{ClassWeights, LeafModel, Mix, SoftForestParams, require};
use crate::store;
use crate::train::{Epoch, Targets};
use crate::tree::Tree;

const KIND: &str = "soft forest classifier";

impl SoftForestParams {
    /// Fits a classifier to `x` `[rows, columns]` and labels `y` in `0..classes`.
    ///
    /// # Errors
    /// A setting out of range, no rows, a NaN or infinite feature, nothing but categorical columns without a value, fewer than
    /// two classes, a label out of range, a number of labels that is not the number of rows, or a loss that diverges.
    pub fn fit(&self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> Result<SoftForest> {
        self.fit_weighted(x, y, None)
    }

    /// As [`fit`](Self::fit), with a weight per row in the loss.
    ///
    /// # Errors
    /// As [`fit`](Self::fit), and for weights that are negative, not finite, or all zero.
    pub fn fit_weighted(
        &self,
        x: ArrayView2<f32>,
        y: ArrayView1<usize>,
        weights: Option<ArrayView1<f32>>,
    ) -> Result<SoftForest> {
        self.fit_masked(x, y, weights, None)
    }

    /// As [`fit_weighted`](Self::fit_weighted), with a whole-number weight of each row in each tree, `[trees, rows]`, in the
    /// loss and in penalties that depend on rows: 0 hides a row from a tree. Folds of a cascade are trees that do not see one
    /// part of the rows. With [`Loss::Joint`](crate::Loss::Joint) the mean of a row is over its weights, and a row that no tree
    /// sees costs nothing.
    ///
    /// # Errors
    /// As [`fit_weighted`](Self::fit_weighted), and when `tree_weights` has another shape.
    pub fn fit_masked(
        &self,
        x: ArrayView2<f32>,
        y: ArrayView1<usize>,
        weights: Option<ArrayView1<f32>>,
        tree_weights: Option<Array2<u8>>,
    ) -> Result<SoftForest> {
        self.fit_forests(x, y, weights, tree_weights, 1)
    }

    /// As [`fit_masked`](Self::fit_masked), the trees making `forests` forests one after the other, `trees / forests` each. A
    /// joint loss is that of each forest's mean, so that forests learn nothing from one another.
    pub(crate) fn fit_forests(
        &self,
        x: ArrayView2<f32>,
        y: ArrayView1<usize>,
        weights: Option<ArrayView1<f32>>,
        tree_weights: Option<Array2<u8>>,
        forests: usize,
    ) -> Result<SoftForest> {
        self.validate()?;
        require(
            self.leaf == LeafModel::Constant || self.mix == Mix::Logits,
            "leaf",
            "linear leaves only with Mix::Logits",
            &self.mix,
        )?;
        let labels = check_labels(x, y, self.classes)?;
        if let Some(given) = &tree_weights
            && given.dim() != (self.trees, x.nrows())
        {
            return Err(ForestError::Setting {
                name: "tree_weights",
                expected: "the shape [trees, rows]",
                found: format!("{:?} for {} trees and {} rows", given.dim(), self.trees, x.nrows()),
            });
        }
        let weights = row_weights(&labels.labels, labels.classes, &self.class_weights, weights)?;
        let samples = Samples { x, targets: Targets::Classes(labels.labels), weights, tree_weights, forests };
        Ok(SoftForest { ensemble: Ensemble::fit(self, samples, labels.classes, None)? })
    }
}

/// A fitted classifier: probabilistic trees with learned routing and learned shape.
///
/// Made by [`SoftForestParams::fit`], or by [`SoftForest::load`].
#[derive(Clone, Debug)]
pub struct SoftForest {
    pub(crate) ensemble: Ensemble,
}

impl SoftForest {
    /// Class probabilities `[rows, classes]`.
    ///
    /// # Errors
    /// Another number of columns than at fitting, no rows, a NaN or infinite feature (a NaN is fine when missing values were
    /// enabled), an unknown category.
    pub fn predict_proba(&self, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        Ok(self.evaluate(x, Evaluation::Exact)?.output)
    }

    /// Most probable class of each row.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba).
    pub fn predict(&self, x: ArrayView2<f32>) -> Result<Array1<usize>> {
        self.predict_with(x, Evaluation::Exact)
    }

    /// As [`predict`](Self::predict), evaluating only part of each tree.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba), and for a threshold outside [0, 1] or integers with linear leaves.
    pub fn predict_with(&self, x: ArrayView2<f32>, evaluation: Evaluation) -> Result<Array1<usize>> {
        let output = self.evaluate(x, evaluation)?.output;
        Ok(output.rows().into_iter().map(|row| arg_max(row.iter().copied())).collect())
    }

    /// Class probabilities with a bound per row on what skipping changed.
    ///
    /// # Errors
    /// As [`predict_with`](Self::predict_with).
    pub fn evaluate(&self, x: ArrayView2<f32>, evaluation: Evaluation) -> Result<Prediction> {
        self.ensemble.predict(x, evaluation)
    }

    /// Class probabilities of one row into `output`; returns the bound on what skipping changed.
    ///
    /// # Errors
    /// As [`predict_with`](Self::predict_with), and when `output` is not as long as there are classes.
    pub fn predict_one(&self, row: &[f32], evaluation: Evaluation, output: &mut [f32]) -> Result<f32> {
        self.ensemble.predict_one(row, evaluation, output)
    }

    /// Accuracy on labelled rows.
    ///
    /// # Errors
    /// As [`predict`](Self::predict), and when `y` has another length.
    pub fn score(&self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> Result<f64> {
        check_rows("labels", x.nrows(), y.len())?;
        let hits = self.predict(x)?.iter().zip(y).filter(|(p, y)| p == y).count();
        Ok(hits as f64 / y.len() as f64)
    }

    /// Mean negative log-likelihood on labelled rows, in nats.
    ///
    /// # Errors
    /// As [`score`](Self::score), and for a label out of range.
    pub fn log_loss(&self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> Result<f64> {
        check_rows("labels", x.nrows(), y.len())?;
        check_range(y, self.classes())?;
        let output = self.predict_proba(x)?;
        let sum: f64 =
            output.rows().into_iter().zip(y).map(|(p, &y)| -f64::from(p[y].max(f32::MIN_POSITIVE)).ln()).sum();
        Ok(sum / y.len() as f64)
    }

    /// One more pass over new rows, at the configured step size without decay. The shape goes on changing unless it has been
    /// hardened. To learn from a stream from the start, fit with 0 epochs first. Scaling and categories stay those of
    /// the first rows; balanced class weights count as uniform, given ones are divided by their mean over the classes.
    ///
    /// Adam's moments start over with each call, and its first step is as long as the rate whatever the gradient's size. So what
    /// all rows of a chunk weigh alike counts against the penalties only, and many small chunks move the trees further than
    /// few large ones.
    ///
    /// Responses are learned by gradient, also with [`LeafUpdate::ClosedForm`](crate::LeafUpdate::ClosedForm): that
    /// would put what the chunk says in the place of all that was said before.
    ///
    /// # Errors
    /// As [`SoftForestParams::fit`], also where all rows are of classes with a weight of 0; labels must be below the number of
    /// classes at fitting. The model is unchanged on error.
    pub fn partial_fit(&mut self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> Result<()> {
        check_rows("labels", x.nrows(), y.len())?;
        if x.nrows() == 0 {
            return Err(ForestError::Empty { what: "features", rows: 0, columns: x.ncols() });
        }
        check_range(y, self.classes())?;
        let labels = y.to_vec();
        let weights = match &self.ensemble.params.class_weights {
            class_weights @ ClassWeights::Given(given) => {
                let mean = mean(given);
                scaled(unscaled_weights(&labels, self.classes(), class_weights, None)?, mean)
            }
            // Frequencies of one chunk say little about the stream's.
            _ => vec![1.0; labels.len()],
        };
        let targets = Targets::Classes(labels);
        self.ensemble.partial_fit(Samples { x, targets, weights, tree_weights: None, forests: 1 })
    }

    /// Every tree's own class probabilities, `[rows, trees x classes]`.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba).
    pub fn predict_trees(&self, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        let expanded = self.ensemble.encoder.expand(x)?;
        self.ensemble.kernel.predict_trees(expanded.view())
    }

    /// Rows `[rows, columns]` as the gates of [`trees`](Self::trees) see them, `[rows, inputs]`: missing values and
    /// categories expanded, each input scaled.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba).
    pub fn scaled(&self, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        let encoder = &self.ensemble.encoder;
        let mut scaled = encoder.expand(x)?.into_owned();
        for mut row in scaled.rows_mut() {
            for ((v, m), s) in row.iter_mut().zip(encoder.mean()).zip(encoder.inverse_scale()) {
                *v = (*v - m) * s;
            }
        }
        Ok(scaled)
    }

    /// The same model with other trees in the place of its own, say those that were trained in libtorch. They count as
    /// hardened where all of their leafness is 0. Their gates see what [`scaled`](Self::scaled) makes of rows.
    ///
    /// # Errors
    /// [`ForestError::Setting`] without trees, and for trees of another width, another number of classes or another
    /// [`LeafModel`].
    pub fn with_trees(&self, trees: Vec<Tree>) -> Result<Self> {
        require(!trees.is_empty(), "trees", "at least 1", &0)?;
        let ensemble = &self.ensemble;
        let widths = (ensemble.encoder.inputs(), ensemble.outputs);
        let linear = ensemble.params.leaf == LeafModel::Linear;
        for tree in &trees {
            let found = (tree.inputs, tree.outputs);
            require(found == widths, "trees", "the model's numbers of inputs and classes", &found)?;
            require(tree.slopes.is_empty() != linear, "trees", "the model's kind of leaves", &ensemble.params.leaf)?;
        }
        let mut model = self.clone();
        model.ensemble.hardened = trees.iter().all(|tree| tree.leafness.iter().all(|&g| g == 0.0));
        model.ensemble.ambiguity = None;
        model.ensemble.trees = trees;
        model.ensemble.compile();
        Ok(model)
    }

    /// Makes every shape binary and drops what can no longer be reached, without further training.
    pub fn harden(&mut self) {
        self.ensemble.harden();
    }

    /// Mean over trees of [`Tree::ambiguity`] where shapes are still soft, and after hardening, that of fitting
    /// included, what it was just before: how much hardening had to decide. `None` where no shape was hardened: shapes
    /// were not learned, trees came hard from elsewhere, or the model is from a file of before this was kept.
    #[must_use]
    pub fn ambiguity(&self) -> Option<f32> {
        self.ensemble.ambiguity()
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.ensemble.outputs
    }

    /// Settings it was fitted with.
    #[must_use]
    pub fn params(&self) -> &SoftForestParams {
        &self.ensemble.params
    }

    /// The trees. Their gates see scaled inputs.
    #[must_use]
    pub fn trees(&self) -> &[Tree] {
        &self.ensemble.trees
    }

    /// The compiled form that predicts; it takes unscaled inputs.
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
    /// [`ForestError::Io`], and one variant each for foreign, truncated, newer, damaged and contradictory files.
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

pub(crate) struct Labels {
    pub(crate) labels: Vec<usize>,
    pub(crate) classes: usize,
}

/// Checks labels against rows and classes.
pub(crate) fn check_labels(x: ArrayView2<f32>, y: ArrayView1<usize>, classes: Option<usize>) -> Result<Labels> {
    if x.is_empty() {
        return Err(ForestError::Empty { what: "features", rows: x.nrows(), columns: x.ncols() });
    }
    check_rows("labels", x.nrows(), y.len())?;
    let largest = y.iter().copied().max().unwrap_or(0);
    if y.iter().all(|&label| label == largest) {
        return Err(ForestError::OneClass { class: largest });
    }
    // A label far above the number of rows is a mistake (an id, a hash), not a class: refuse instead of allocating for it.
    let classes = classes.unwrap_or_else(|| (largest.saturating_add(1)).min(y.len().max(2)));
    check_range(y, classes)?;
    Ok(Labels { labels: y.to_vec(), classes })
}

pub(crate) fn check_range(y: ArrayView1<usize>, classes: usize) -> Result<()> {
    match y.iter().position(|&label| label >= classes) {
        Some(row) => Err(ForestError::Label { row, label: y[row], classes }),
        None => Ok(()),
    }
}

pub(crate) fn check_rows(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(ForestError::Rows { what, expected, found })
}

/// Sample weights times class weights, scaled to mean 1.
pub(crate) fn row_weights(
    labels: &[usize],
    classes: usize,
    class_weights: &ClassWeights,
    sample_weights: Option<ArrayView1<f32>>,
) -> Result<Vec<f32>> {
    let weights = unscaled_weights(labels, classes, class_weights, sample_weights)?;
    let mean = mean(&weights);
    Ok(scaled(weights, mean))
}

fn mean(weights: &[f32]) -> f64 {
    weights.iter().map(|&w| f64::from(w)).sum::<f64>() / weights.len() as f64
}

fn scaled(mut weights: Vec<f32>, unit: f64) -> Vec<f32> {
    weights.iter_mut().for_each(|w| *w = (f64::from(*w) / unit) as f32);
    weights
}

/// Sample weights times class weights.
fn unscaled_weights(
    labels: &[usize],
    classes: usize,
    class_weights: &ClassWeights,
    sample_weights: Option<ArrayView1<f32>>,
) -> Result<Vec<f32>> {
    let mut weights = checked_weights(labels.len(), sample_weights)?;
    let per_class = match class_weights {
        ClassWeights::Uniform => None,
        ClassWeights::Balanced => {
            let mut counts = vec![0usize; classes];
            labels.iter().for_each(|&l| counts[l] += 1);
            Some(counts.iter().map(|&c| labels.len() as f32 / (classes * c.max(1)) as f32).collect())
        }
        ClassWeights::Given(given) => {
            check_rows("class weights", classes, given.len())?;
            check_weights("class weights", given.iter().copied())?;
            Some(given.clone())
        }
    };
    if let Some(per_class) = per_class {
        for (weight, &label) in weights.iter_mut().zip(labels) {
            *weight *= per_class[label];
        }
    }
    check_weights("sample weights times class weights", weights.iter().copied())?;
    Ok(weights)
}

/// Given sample weights, or ones.
pub(crate) fn checked_weights(rows: usize, weights: Option<ArrayView1<f32>>) -> Result<Vec<f32>> {
    let Some(weights) = weights else {
        return Ok(vec![1.0; rows]);
    };
    check_rows("sample weights", rows, weights.len())?;
    check_weights("sample weights", weights.iter().copied())?;
    Ok(weights.to_vec())
}

fn check_weights(what: &'static str, weights: impl Iterator<Item = f32>) -> Result<()> {
    let mut sum = 0.0;
    for (index, weight) in weights.enumerate() {
        if !weight.is_finite() || weight < 0.0 {
            return Err(ForestError::Weight { what, found: format!("{weight} at {index}") });
        }
        sum += f64::from(weight);
    }
    if sum > 0.0 {
        return Ok(());
    }
    Err(ForestError::Weight { what, found: "only zeros".to_owned() })
}
