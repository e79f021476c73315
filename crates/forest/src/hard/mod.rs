//! Greedy trees with hard axis-aligned splits: what deep forests were made of before, and what soft forests are measured
//! against.
//!
//! No maintained crate of hard trees gives per-class probabilities together with per-node feature subsets and random
//! thresholds, which forests in a cascade need, so this is a small one: columns are cut into at most 255 bins once, and nodes
//! are split on bin counts.

mod bins;
mod grow;

use ndarray::{Array2, ArrayView1, ArrayView2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::classifier::{check_labels, check_rows};
use crate::encoder::check_finite;
use crate::error::{ForestError, Result};
use crate::hard::bins::Bins;
use crate::hard::grow::{Grower, HardTree};
use crate::params::require;
use crate::store::Numbers;

/// How splits are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HardKind {
    /// Best Gini gain among a random subset of features, on a bootstrap of the rows (Breiman 2001).
    #[default]
    RandomForest,
    /// Best among random thresholds of a random subset of features, on all rows (Geurts et al. 2006).
    ExtraTrees,
    /// One random threshold of one random feature, on all rows: the completely-random forests of gcForest (Zhou and Feng
    /// 2017).
    CompletelyRandom,
    /// Best Gini gain over all features, on all rows: classification and regression trees without pruning (Breiman et al.
    /// 1984). All trees of such a forest are equal but for ties, so one is enough.
    Greedy,
}

/// Settings of a hard forest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HardForestParams {
    /// How splits are chosen. Default random forest.
    pub kind: HardKind,
    /// Number of trees. Default 100; gcForest's paper uses 500 in each of 8 forests a layer.
    pub trees: usize,
    /// Largest depth. Default: none.
    pub max_depth: Option<usize>,
    /// Rows a leaf must keep. Default 1.
    pub min_samples_leaf: usize,
    /// Features tried per node. Default: the square root of their number.
    pub max_features: Option<usize>,
    /// Number of classes. Default: the largest label plus 1, where that is no more than there are rows, else an error.
    pub classes: Option<usize>,
    /// Seed. Default 0.
    pub seed: u64,
}

impl Default for HardForestParams {
    fn default() -> Self {
        Self {
            kind: HardKind::RandomForest,
            trees: 100,
            max_depth: None,
            min_samples_leaf: 1,
            max_features: None,
            classes: None,
            seed: 0,
        }
    }
}

impl HardForestParams {
    /// Checks every range.
    ///
    /// # Errors
    /// [`ForestError::Setting`], naming the first field that is out of range.
    pub fn validate(&self) -> Result<()> {
        require(self.trees > 0, "trees", "at least 1", &self.trees)?;
        require(self.min_samples_leaf > 0, "min_samples_leaf", "at least 1", &self.min_samples_leaf)?;
        require(self.max_depth != Some(0), "max_depth", "at least 1", &self.max_depth)?;
        require(self.max_features != Some(0), "max_features", "at least 1", &self.max_features)
    }

    /// Fits a forest to `x` `[rows, columns]` and labels `y`.
    ///
    /// # Errors
    /// A setting out of range, no rows, a NaN or infinite feature, fewer than two classes, a label out of range.
    pub fn fit(&self, x: ArrayView2<f32>, y: ArrayView1<usize>) -> Result<HardForest> {
        self.validate()?;
        let labels = check_labels(x, y, self.classes)?;
        check_finite(x, "features")?;
        let rows: Vec<u32> = (0..x.nrows() as u32).collect();
        Ok(self.grow(&Bins::new(x), &labels.labels, labels.classes, &rows))
    }

    /// Grows trees on some of the binned rows.
    fn grow(&self, bins: &Bins, labels: &[usize], classes: usize, rows: &[u32]) -> HardForest {
        let trees = (0..self.trees)
            .into_par_iter()
            .map(|t| {
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
                rng.set_stream(t as u64);
                let sample: Vec<u32> = match self.kind {
                    HardKind::RandomForest => (0..rows.len()).map(|_| rows[rng.random_range(0..rows.len())]).collect(),
                    HardKind::ExtraTrees | HardKind::CompletelyRandom | HardKind::Greedy => rows.to_vec(),
                };
                Grower::new(self, bins, labels, classes, rng).grow(sample)
            })
            .collect();
        HardForest { columns: bins.columns(), classes, trees }
    }

    /// One forest per fold, each on the rows outside its fold.
    pub(crate) fn fit_folds(
        &self,
        x: ArrayView2<f32>,
        labels: &[usize],
        classes: usize,
        fold_of: &[u16],
        folds: usize,
    ) -> Result<Vec<HardForest>> {
        check_rows("folds", x.nrows(), fold_of.len())?;
        check_finite(x, "features")?;
        let bins = Bins::new(x);
        Ok((0..folds)
            .map(|fold| {
                let rows: Vec<u32> =
                    (0u32..).zip(fold_of).filter(|&(_, &f)| usize::from(f) != fold).map(|(row, _)| row).collect();
                let mut params = self.clone();
                // Far from the neighbouring seeds: those may be other forests' own.
                params.seed = self.seed ^ (fold as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                params.grow(&bins, labels, classes, &rows)
            })
            .collect())
    }
}

/// A fitted hard forest.
#[derive(Clone, Debug, PartialEq)]
pub struct HardForest {
    columns: usize,
    classes: usize,
    trees: Vec<HardTree>,
}

impl HardForest {
    /// Class probabilities `[rows, classes]`: the mean of the leaves' class shares.
    ///
    /// # Errors
    /// Another number of columns than at fitting, no rows, or a NaN or infinite feature.
    pub fn predict_proba(&self, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        self.each_tree(x, true)
    }

    /// Every tree's class probabilities `[rows, trees x classes]`.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba).
    pub fn predict_trees(&self, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        self.each_tree(x, false)
    }

    fn each_tree(&self, x: ArrayView2<f32>, mean: bool) -> Result<Array2<f32>> {
        if x.ncols() != self.columns {
            return Err(ForestError::Width { expected: self.columns, found: x.ncols() });
        }
        if x.nrows() == 0 {
            return Err(ForestError::Empty { what: "features", rows: 0, columns: x.ncols() });
        }
        check_finite(x, "features")?;
        let width = self.classes * if mean { 1 } else { self.trees.len() };
        let mut out = Array2::zeros((x.nrows(), width));
        let share = if mean { 1.0 / self.trees.len() as f32 } else { 1.0 };
        out.outer_iter_mut().into_par_iter().zip(x.outer_iter().into_par_iter()).for_each(|(mut out, row)| {
            let row = row.to_vec();
            for (t, tree) in self.trees.iter().enumerate() {
                let at = if mean { 0 } else { t * self.classes };
                for (k, p) in tree.leaf(&row).iter().enumerate() {
                    out[at + k] += share * p;
                }
            }
        });
        Ok(out)
    }

    /// Most probable class of each row.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba).
    pub fn predict(&self, x: ArrayView2<f32>) -> Result<ndarray::Array1<usize>> {
        Ok(self.predict_proba(x)?.rows().into_iter().map(|row| crate::ensemble::arg_max(row.iter().copied())).collect())
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

    /// Number of trees.
    #[must_use]
    pub fn trees(&self) -> usize {
        self.trees.len()
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of nodes of all trees.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.trees.iter().map(HardTree::nodes).sum()
    }

    /// Numbers a stored model holds: feature, threshold and two children per split, class shares per leaf.
    #[must_use]
    pub fn scalars(&self) -> usize {
        self.trees.iter().map(|t| 4 * t.splits() + self.classes * t.leaves()).sum()
    }

    /// The same of a model that names the class of a leaf with a single one, instead of every class's share: what these trees need
    /// at least, where files of this crate spend [`scalars`](Self::scalars).
    #[must_use]
    pub fn least_scalars(&self) -> usize {
        let spared = |tree: &HardTree| (self.classes - 1) * tree.pure_leaves();
        self.scalars() - self.trees.iter().map(spared).sum::<usize>()
    }

    /// Header and numbers of a file.
    pub(crate) fn parts(&self) -> (StoredHard, Vec<f32>) {
        let mut numbers = Vec::new();
        for tree in &self.trees {
            tree.write(&mut numbers);
        }
        let stored = StoredHard {
            columns: self.columns,
            classes: self.classes,
            trees: self.trees.iter().map(|t| [t.splits(), t.leaves()]).collect(),
        };
        (stored, numbers)
    }

    pub(crate) fn from_parts(stored: StoredHard, numbers: &mut Numbers) -> Result<Self> {
        if stored.columns == 0 || stored.classes < 2 || stored.trees.is_empty() {
            return Err(ForestError::Malformed("a hard forest without columns, classes or trees".to_owned()));
        }
        let trees = stored
            .trees
            .iter()
            .map(|&[splits, leaves]| HardTree::read(splits, leaves, stored.columns, stored.classes, numbers))
            .collect::<Result<_>>()?;
        Ok(Self { columns: stored.columns, classes: stored.classes, trees })
    }
}

/// A hard forest in a file's header.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredHard {
    columns: usize,
    classes: usize,
    /// Splits and leaves of each tree.
    trees: Vec<[usize; 2]>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic::{blobs, oblique_xor};

    #[test]
    fn every_kind_learns_blobs() -> Result<()> {
        let (x, y) = blobs(600, 5, 3, 6.0, 1);
        let (test_x, test_y) = blobs(300, 5, 3, 6.0, 2);
        for kind in [HardKind::RandomForest, HardKind::ExtraTrees, HardKind::CompletelyRandom, HardKind::Greedy] {
            let params = HardForestParams { kind, trees: 30, ..HardForestParams::default() };
            let forest = params.fit(x.view(), ndarray::aview1(&y))?;
            // Blobs 6 apart along different axes overlap by less than a percent; 0.9 is far from the prior of 1/3.
            let score = forest.score(test_x.view(), ndarray::aview1(&test_y))?;
            assert!(score > 0.9, "{kind:?} {score}");
            for row in forest.predict_proba(test_x.view())?.rows() {
                assert!((row.sum() - 1.0).abs() < 1e-5);
            }
        }
        Ok(())
    }

    /// Or seeds that are told apart would share most of their trees.
    #[test]
    fn no_fold_has_the_trees_of_another_seed() -> Result<()> {
        let (x, y) = oblique_xor(60, 3, 0.5, 4);
        let grown = |seed| {
            let params =
                HardForestParams { seed, trees: 3, kind: HardKind::CompletelyRandom, ..HardForestParams::default() };
            // No row is in the third fold, so that both forests are grown on all rows.
            let folds = params.fit_folds(x.view(), &y, 2, &[2; 60], 2)?;
            Ok::<_, ForestError>([folds[0].clone(), folds[1].clone()])
        };
        let (zero, one) = (grown(0)?, grown(1)?);
        assert_ne!(zero[0], zero[1]);
        assert!(zero.iter().all(|forest| !one.contains(forest)));
        Ok(())
    }

    #[test]
    fn a_tree_grown_without_limits_remembers_distinct_rows() -> Result<()> {
        let (x, y) = oblique_xor(200, 3, 0.5, 4);
        let params = HardForestParams { kind: HardKind::ExtraTrees, trees: 1, ..HardForestParams::default() };
        let forest = params.fit(x.view(), ndarray::aview1(&y))?;
        // 200 rows fall into 200 different bins of each column, so every leaf can be made pure.
        assert_eq!(forest.score(x.view(), ndarray::aview1(&y))?, 1.0);
        // s splits have s + 1 leaves, of two shares in a file, of which the class's number would do.
        let splits = (forest.nodes() - 1) / 2;
        assert_eq!((forest.scalars(), forest.least_scalars()), (6 * splits + 2, 5 * splits + 1));
        Ok(())
    }

    /// Every split takes one row from the others, so that the tree is nearly as deep as there are rows.
    #[test]
    fn a_chain_as_deep_as_its_rows_needs_no_deep_stack() -> Result<()> {
        let x = Array2::<f32>::eye(1000);
        let y: Vec<usize> = (0..1000).map(|row| row % 2).collect();
        let params = HardForestParams { kind: HardKind::CompletelyRandom, trees: 1, ..HardForestParams::default() };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).stack_size(256 << 10).build();
        let pool = pool.map_err(|e| ForestError::Malformed(e.to_string()))?;
        let forest = pool.install(|| params.fit(x.view(), ndarray::aview1(&y)))?;
        assert!(forest.nodes() > 1500, "{}", forest.nodes());
        assert_eq!(forest.score(x.view(), ndarray::aview1(&y))?, 1.0);
        Ok(())
    }

    #[test]
    fn limits_are_kept() -> Result<()> {
        let (x, y) = oblique_xor(300, 3, 0.5, 4);
        let params = HardForestParams { trees: 3, max_depth: Some(2), ..HardForestParams::default() };
        let forest = params.fit(x.view(), ndarray::aview1(&y))?;
        assert!(forest.nodes() <= 3 * 7);
        // No single split tells the two apart: leaves of a hundred rows have both classes and need both shares.
        let one_split = HardForestParams { max_depth: Some(1), min_samples_leaf: 100, ..params };
        let mixed = one_split.fit(x.view(), ndarray::aview1(&y))?;
        assert_eq!((mixed.scalars(), mixed.least_scalars()), (3 * 8, 3 * 8));
        Ok(())
    }

    #[test]
    fn bad_input_is_refused() {
        let (x, y) = blobs(20, 2, 2, 3.0, 1);
        let labels = ndarray::aview1(&y);
        let none = HardForestParams { trees: 0, ..HardForestParams::default() };
        assert!(none.fit(x.view(), labels).is_err());
        let mut bad = x.clone();
        bad[[3, 1]] = f32::NAN;
        let found = HardForestParams::default().fit(bad.view(), labels);
        assert!(matches!(found, Err(ForestError::NotFinite { row: 3, column: 1, .. })));
    }
}
