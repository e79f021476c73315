//! Cascades: layers of forests, each seeing the input and the class vectors of the layer before.

mod folds;
mod scanning;

use std::path::Path;

use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

pub use self::folds::{ClassVector, Forest};
pub use self::scanning::{Scanning, Window};

use self::folds::{FoldedForest, StoredFolded, stratified_folds};
use self::scanning::{Scanner, StoredScanner};
use crate::classifier::{check_labels, check_rows};
use crate::ensemble::arg_max;
use crate::error::{ForestError, Result};
use crate::params::require;
use crate::store::{self, Numbers};

const KIND: &str = "deep forest classifier";

/// Settings of a deep forest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeepForestParams {
    /// Forests of every layer; soft and hard ones may be mixed, without early stopping. Default: one default soft
    /// forest.
    pub forests: Vec<Forest>,
    /// What forests pass on. Default per tree.
    pub class_vector: ClassVector,
    /// Folds of the class vectors, at least 2. Default 3, as in gcForest's paper.
    pub folds: usize,
    /// Most layers to grow. Default 20, as in DF21.
    pub max_layers: usize,
    /// Layers without improvement that are tolerated before growing stops. Default 2: the third stops it, as in
    /// gcForest's code; in DF21 the second does.
    pub patience: usize,
    /// Least gain in out-of-fold accuracy that counts as an improvement. Default 1e-5, as in DF21.
    pub min_gain: f64,
    /// Multi-grained scanning before the cascade. Default none.
    pub scanning: Option<Scanning>,
    /// Number of classes. Default: the largest label plus 1, where that is no more than there are rows, else an error.
    pub classes: Option<usize>,
    /// Seed of the folds; forests have their own seeds, varied from layer to layer. Default 0.
    pub seed: u64,
}

impl Default for DeepForestParams {
    fn default() -> Self {
        Self {
            forests: vec![Forest::Soft(Box::default())],
            class_vector: ClassVector::PerTree,
            folds: 3,
            max_layers: 20,
            patience: 2,
            min_gain: 1e-5,
            scanning: None,
            classes: None,
            seed: 0,
        }
    }
}

impl DeepForestParams {
    /// Checks every range, the forests' included.
    ///
    /// # Errors
    /// [`ForestError::Setting`], naming the first field that is out of range.
    pub fn validate(&self) -> Result<()> {
        require(!self.forests.is_empty(), "forests", "at least 1", &0)?;
        require((2..=usize::from(u16::MAX)).contains(&self.folds), "folds", "2 to 65535", &self.folds)?;
        require(self.max_layers > 0, "max_layers", "at least 1", &0)?;
        require(
            self.min_gain.is_finite() && self.min_gain >= 0.0,
            "min_gain",
            "a non-negative number",
            &self.min_gain,
        )?;
        self.forests.iter().try_for_each(Forest::validate)?;
        self.scanning.iter().try_for_each(Scanning::validate)?;
        // Here and not where the forests are checked, as files are: those of before this was refused can be read.
        let scanned = self.scanning.iter().flat_map(|scanning| &scanning.forests);
        self.forests.iter().chain(scanned).try_for_each(Forest::validate_out_of_fold)
    }

    /// Grows layers until the out-of-fold accuracy stops improving, and keeps them up to the best.
    ///
    /// # Errors
    /// A setting out of range, more folds than rows of the rarest class, and whatever the forests refuse.
    pub fn fit(&self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> Result<DeepForest> {
        self.validate()?;
        let labels = check_labels(x, y, self.classes)?;
        let (labels, classes) = (labels.labels, labels.classes);
        let fold_of = stratified_folds(&labels, classes, self.folds, self.seed)?;
        let scanner = match &self.scanning {
            None => None,
            Some(scanning) => {
                require(
                    scanning.pixels() == Some(x.ncols()),
                    "scanning.height, scanning.width",
                    "a product equal to the number of columns",
                    &(scanning.height, scanning.width, x.ncols()),
                )?;
                Some(Scanner::fit(scanning, x, &labels, classes, &fold_of, self.folds, self.seed)?)
            }
        };
        let grains = grains(scanner.as_ref(), x, Some(&fold_of), classes)?;
        let mut model = DeepForest {
            columns: x.ncols(),
            classes,
            class_vector: self.class_vector,
            scanner,
            layers: Vec::new(),
            scores: Vec::new(),
        };
        let mut vectors: Option<Array2<f32>> = None;
        let mut best = 0;
        for layer in 0..self.max_layers {
            let input = beside(&grains[layer % grains.len()], vectors.as_ref())?;
            let images = layer == 0 && model.scanner.is_none();
            let forests = self
                .forests
                .iter()
                .enumerate()
                .map(|(index, forest)| {
                    let place = (layer * self.forests.len() + index) as u64;
                    FoldedForest::fit(
                        &forest.placed(place, images),
                        input.view(),
                        &labels,
                        classes,
                        &fold_of,
                        self.folds,
                    )
                })
                .collect::<Result<Vec<_>>>()?;
            let layer = Layer { forests };
            let (passed, mean) = layer.outputs(input.view(), Some(&fold_of), self.class_vector, classes)?;
            let hits = mean
                .rows()
                .into_iter()
                .zip(&labels)
                .filter(|(row, label)| arg_max(row.iter().copied()) == **label)
                .count();
            model.scores.push(hits as f64 / labels.len() as f64);
            model.layers.push(layer);
            vectors = Some(passed);
            let last = model.scores.len() - 1;
            if last > 0 && model.scores[last] >= model.scores[best] + self.min_gain {
                best = last;
            }
            if last - best > self.patience {
                break;
            }
        }
        model.layers.truncate(best + 1);
        Ok(model)
    }
}

/// Inputs of the cascade: one table a grain, or the rows themselves without scanning.
fn grains(
    scanner: Option<&Scanner>,
    x: ArrayView2<f32>,
    fold_of: Option<&[u16]>,
    classes: usize,
) -> Result<Vec<Array2<f32>>> {
    match scanner {
        None => Ok(vec![x.to_owned()]),
        Some(scanner) => (0..scanner.grains()).map(|grain| scanner.features(grain, x, fold_of, classes)).collect(),
    }
}

/// Columns of the input, then those of the class vectors.
fn beside(input: &Array2<f32>, vectors: Option<&Array2<f32>>) -> Result<Array2<f32>> {
    match vectors {
        None => Ok(input.clone()),
        Some(vectors) => ndarray::concatenate(Axis(1), &[input.view(), vectors.view()])
            .map_err(|e| ForestError::Malformed(e.to_string())),
    }
}

#[derive(Clone, Debug)]
struct Layer {
    forests: Vec<FoldedForest>,
}

impl Layer {
    /// What the layer passes on, and the mean of its forests' class distributions. With `fold_of`, rows are training rows
    /// and get out-of-fold vectors.
    fn outputs(
        &self,
        x: ArrayView2<f32>,
        fold_of: Option<&[u16]>,
        vector: ClassVector,
        classes: usize,
    ) -> Result<(Array2<f32>, Array2<f32>)> {
        let mut passed = Vec::with_capacity(self.forests.len());
        let mut mean = Array2::zeros((x.nrows(), classes));
        for forest in &self.forests {
            let vectors = match fold_of {
                Some(fold_of) => forest.unseen(x, fold_of, vector, classes)?,
                None => forest.vectors(x, vector, classes)?,
            };
            let count = vectors.ncols() / classes;
            let share = 1.0 / (count * self.forests.len()) as f32;
            for part in vectors.axis_chunks_iter(Axis(1), classes) {
                mean.scaled_add(share, &part);
            }
            passed.push(vectors);
        }
        let views: Vec<_> = passed.iter().map(|p| p.view()).collect();
        let passed = ndarray::concatenate(Axis(1), &views).map_err(|e| ForestError::Malformed(e.to_string()))?;
        Ok((passed, mean))
    }
}

/// A fitted cascade. Made by [`DeepForestParams::fit`], or by [`DeepForest::load`].
#[derive(Clone, Debug)]
pub struct DeepForest {
    columns: usize,
    classes: usize,
    class_vector: ClassVector,
    scanner: Option<Scanner>,
    layers: Vec<Layer>,
    scores: Vec<f64>,
}

impl DeepForest {
    /// Class probabilities `[rows, classes]` of the last layer.
    ///
    /// # Errors
    /// Another number of columns than at fitting, no rows, a NaN or infinite feature.
    pub fn predict_proba(&self, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        let mut layers = self.predict_layers(x)?;
        layers.pop().ok_or_else(|| ForestError::Malformed("a cascade without layers".to_owned()))
    }

    /// Class probabilities of every layer, the first one first: what each layer adds.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba).
    pub fn predict_layers(&self, x: ArrayView2<f32>) -> Result<Vec<Array2<f32>>> {
        if x.ncols() != self.columns {
            return Err(ForestError::Width { expected: self.columns, found: x.ncols() });
        }
        if x.nrows() == 0 {
            return Err(ForestError::Empty { what: "features", rows: 0, columns: x.ncols() });
        }
        let grains = grains(self.scanner.as_ref(), x, None, self.classes)?;
        let mut vectors: Option<Array2<f32>> = None;
        let mut outputs = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let input = beside(&grains[index % grains.len()], vectors.as_ref())?;
            let (passed, mean) = layer.outputs(input.view(), None, self.class_vector, self.classes)?;
            vectors = Some(passed);
            outputs.push(mean);
        }
        Ok(outputs)
    }

    /// Most probable class of each row.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba).
    pub fn predict(&self, x: ArrayView2<f32>) -> Result<Array1<usize>> {
        Ok(self.predict_proba(x)?.rows().into_iter().map(|row| arg_max(row.iter().copied())).collect())
    }

    /// Accuracy on labelled rows.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba), and when `y` has another length.
    pub fn score(&self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> Result<f64> {
        check_rows("labels", x.nrows(), y.len())?;
        let hits = self.predict(x)?.iter().zip(y).filter(|(p, y)| p == y).count();
        Ok(hits as f64 / y.len() as f64)
    }

    /// Out-of-fold accuracy of every layer that was grown, dropped ones included.
    #[must_use]
    pub fn layer_scores(&self) -> &[f64] {
        &self.scores
    }

    /// Number of layers kept.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Number of trees, all folds, layers and window forests together.
    #[must_use]
    pub fn trees(&self) -> usize {
        self.all_forests().map(FoldedForest::trees).sum()
    }

    /// Numbers a stored model holds.
    #[must_use]
    pub fn scalars(&self) -> usize {
        self.all_forests().map(FoldedForest::scalars).sum()
    }

    /// The same with hard trees' pure leaves as the numbers of their classes, see [`HardForest::least_scalars`](crate::HardForest::least_scalars).
    #[must_use]
    pub fn least_scalars(&self) -> usize {
        self.all_forests().map(FoldedForest::least_scalars).sum()
    }

    fn all_forests(&self) -> impl Iterator<Item = &FoldedForest> {
        let layers = self.layers.iter().flat_map(|l| &l.forests);
        layers.chain(self.scanner.iter().flat_map(Scanner::forests))
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
        Self::from_bytes(&store::read(path.as_ref())?)
    }

    /// The bytes that [`save`](Self::save) writes.
    ///
    /// # Errors
    /// [`ForestError::Malformed`] when the settings cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut numbers = Vec::new();
        let stored = StoredDeep {
            columns: self.columns,
            classes: self.classes,
            class_vector: self.class_vector,
            scores: self.scores.clone(),
            scanner: self.scanner.as_ref().map(|s| s.parts(&mut numbers)),
            layers: self.layers.iter().map(|l| l.forests.iter().map(|f| f.parts(&mut numbers)).collect()).collect(),
        };
        store::to_bytes(KIND, &stored, &numbers)
    }

    /// A model from the bytes of a file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let (stored, numbers): (StoredDeep, _) = store::from_bytes(KIND, bytes)?;
        let mut numbers = Numbers(&numbers);
        if stored.layers.is_empty() || stored.layers.iter().any(Vec::is_empty) {
            return Err(ForestError::Malformed("a cascade with an empty layer".to_owned()));
        }
        let scanner = stored.scanner.map(|s| Scanner::from_parts(s, &mut numbers)).transpose()?;
        if scanner.as_ref().is_some_and(|s| s.settings.pixels() != Some(stored.columns)) {
            return Err(ForestError::Malformed("scanned samples do not fit the columns".to_owned()));
        }
        let layers = stored
            .layers
            .into_iter()
            .map(|forests| {
                let forests = forests
                    .into_iter()
                    .map(|f| FoldedForest::from_parts(f, &mut numbers))
                    .collect::<Result<Vec<_>>>()?;
                Ok(Layer { forests })
            })
            .collect::<Result<Vec<_>>>()?;
        numbers.finish()?;
        let model = Self {
            columns: stored.columns,
            classes: stored.classes,
            class_vector: stored.class_vector,
            scanner,
            layers,
            scores: stored.scores,
        };
        let agree = model.all_forests().all(|f| f.classes() == model.classes);
        if model.columns == 0 || !agree {
            return Err(ForestError::Malformed("forests of a cascade differ in their classes".to_owned()));
        }
        Ok(model)
    }
}

/// A cascade in a file's header.
#[derive(Serialize, Deserialize)]
struct StoredDeep {
    columns: usize,
    classes: usize,
    class_vector: ClassVector,
    scores: Vec<f64>,
    scanner: Option<StoredScanner>,
    layers: Vec<Vec<StoredFolded>>,
}

#[cfg(test)]
mod tests;
