//! Forests fitted so that every training row has a class vector from trees that did not see it.

use ndarray::{Array2, ArrayView2};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::classifier::SoftForest;
use crate::ensemble::{Ensemble, Stored};
use crate::error::{ForestError, Result};
use crate::hard::{HardForest, HardForestParams, StoredHard};
use crate::params::{SoftForestParams, require};
use crate::store::Numbers;

/// Numbers of trees' class distributions that exist at a time: 64 MB.
const AT_A_TIME: usize = 16 << 20;

/// One forest of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Forest {
    /// Soft trees; the k folds are k times as many trees in one fused training, each blind to its fold.
    Soft(Box<SoftForestParams>),
    /// Hard trees; one forest a fold.
    Hard(HardForestParams),
}

impl Forest {
    pub(super) fn validate(&self) -> Result<()> {
        match self {
            Self::Soft(params) => params.validate(),
            Self::Hard(params) => params.validate(),
        }
    }

    /// Refuses what lets a row's label reach the trees that are blind to the row.
    pub(super) fn validate_out_of_fold(&self) -> Result<()> {
        match self {
            Self::Soft(params) => require(
                params.early_stopping.is_none(),
                "early_stopping",
                "none in a cascade, as labels of held-out rows would choose the epoch of trees blind to them",
                &params.early_stopping,
            ),
            Self::Hard(_) => Ok(()),
        }
    }

    /// The same forest for another layer or window: other seed, no image augmentation where the rows are no images.
    pub(super) fn placed(&self, place: u64, images: bool) -> Self {
        let shift = place.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut forest = self.clone();
        match &mut forest {
            Self::Soft(params) => {
                params.seed ^= shift;
                if !images {
                    params.augment = None;
                }
            }
            Self::Hard(params) => params.seed ^= shift,
        }
        forest
    }
}

/// What a forest passes on about a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClassVector {
    /// One class distribution, the mean of its trees', as gcForest does.
    PerForest,
    /// One class distribution a tree, as Forward Thinking does. For forests of some tens of trees.
    #[default]
    PerTree,
}

/// Stratified folds: the fold of every row. Every class is dealt out in random order.
pub(super) fn stratified_folds(labels: &[usize], classes: usize, folds: usize, seed: u64) -> Result<Vec<u16>> {
    let mut by_class: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for (row, &label) in labels.iter().enumerate() {
        by_class[label].push(row);
    }
    let rarest = by_class.iter().enumerate().filter(|(_, rows)| !rows.is_empty()).min_by_key(|(_, rows)| rows.len());
    if let Some((class, rows)) = rarest
        && rows.len() < folds
    {
        return Err(ForestError::Folds { folds, class, rows: rows.len() });
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut fold_of = vec![0u16; labels.len()];
    let mut next = 0;
    for rows in &mut by_class {
        rows.shuffle(&mut rng);
        for &row in rows.iter() {
            fold_of[row] = (next % folds) as u16;
            next += 1;
        }
    }
    Ok(fold_of)
}

/// A forest in k parts, part f of which did not see fold f.
#[derive(Clone, Debug)]
pub(super) enum FoldedForest {
    Soft { forest: Box<SoftForest>, folds: usize },
    Hard(Vec<HardForest>),
}

impl FoldedForest {
    pub(super) fn fit(
        forest: &Forest,
        x: ArrayView2<f32>,
        labels: &[usize],
        classes: usize,
        fold_of: &[u16],
        folds: usize,
    ) -> Result<Self> {
        match forest {
            Forest::Soft(params) => {
                let each = params.trees;
                let params = (**params).clone().trees(each * folds).classes(Some(classes));
                let blind = Array2::from_shape_fn((params.trees, fold_of.len()), |(tree, row)| {
                    u8::from(usize::from(fold_of[row]) != tree / each)
                });
                let forest = params.fit_forests(x, ndarray::aview1(labels), None, Some(blind), folds)?;
                Ok(Self::Soft { forest: Box::new(forest), folds })
            }
            Forest::Hard(params) => Ok(Self::Hard(params.fit_folds(x, labels, classes, fold_of, folds)?)),
        }
    }

    /// Class distributions of every tree of every fold, `[rows, folds x trees x classes]`.
    fn each(&self, x: ArrayView2<f32>) -> Result<Array2<f32>> {
        match self {
            Self::Soft { forest, .. } => forest.predict_trees(x),
            Self::Hard(parts) => {
                let outputs = parts.iter().map(|part| part.predict_trees(x)).collect::<Result<Vec<_>>>()?;
                let views: Vec<_> = outputs.iter().map(|o| o.view()).collect();
                ndarray::concatenate(ndarray::Axis(1), &views).map_err(|e| ForestError::Malformed(e.to_string()))
            }
        }
    }

    pub(super) fn folds(&self) -> usize {
        match self {
            Self::Soft { folds, .. } => *folds,
            Self::Hard(parts) => parts.len(),
        }
    }

    /// Classes of its trees; 0 when its parts differ.
    pub(super) fn classes(&self) -> usize {
        match self {
            Self::Soft { forest, .. } => forest.classes(),
            Self::Hard(parts) => {
                let first = parts.first().map_or(0, HardForest::classes);
                let same = parts.iter().all(|p| p.classes() == first);
                if same { first } else { 0 }
            }
        }
    }

    /// Vectors of rows that took part in training, each from the part that did not see it; `fold_of` says which.
    pub(super) fn unseen(
        &self,
        x: ArrayView2<f32>,
        fold_of: &[u16],
        vector: ClassVector,
        classes: usize,
    ) -> Result<Array2<f32>> {
        self.unseen_in(self.rows_at_a_time(classes), x, fold_of, vector, classes)
    }

    fn unseen_in(
        &self,
        rows: usize,
        x: ArrayView2<f32>,
        fold_of: &[u16],
        vector: ClassVector,
        classes: usize,
    ) -> Result<Array2<f32>> {
        self.in_blocks(rows, x, vector, classes, |start, all| {
            let width = all.ncols() / self.folds();
            let mut out = Array2::zeros((all.nrows(), width));
            for ((mut out, all), &fold) in out.rows_mut().into_iter().zip(all.rows()).zip(&fold_of[start..]) {
                let own = usize::from(fold) * width;
                out.assign(&all.slice(ndarray::s![own..own + width]));
            }
            out
        })
    }

    /// Vectors of new rows: the mean over the parts.
    pub(super) fn vectors(&self, x: ArrayView2<f32>, vector: ClassVector, classes: usize) -> Result<Array2<f32>> {
        self.vectors_in(self.rows_at_a_time(classes), x, vector, classes)
    }

    fn vectors_in(&self, rows: usize, x: ArrayView2<f32>, vector: ClassVector, classes: usize) -> Result<Array2<f32>> {
        self.in_blocks(rows, x, vector, classes, |_, all| {
            let folds = self.folds();
            let width = all.ncols() / folds;
            let mut out = Array2::zeros((all.nrows(), width));
            for fold in 0..folds {
                out += &all.slice(ndarray::s![.., fold * width..(fold + 1) * width]);
            }
            out / folds as f32
        })
    }

    /// Of thousands of trees and tens of thousands of rows, the distributions of all would take gigabytes.
    fn rows_at_a_time(&self, classes: usize) -> usize {
        (AT_A_TIME / (self.trees() * classes).max(1)).max(1)
    }

    /// `across` makes one distribution a tree out of those of all folds. It sees so many rows at a time and where they
    /// start.
    fn in_blocks(
        &self,
        rows: usize,
        x: ArrayView2<f32>,
        vector: ClassVector,
        classes: usize,
        across: impl Fn(usize, Array2<f32>) -> Array2<f32>,
    ) -> Result<Array2<f32>> {
        let mut out: Option<Array2<f32>> = None;
        // Once for no rows at all, which is an error of the trees'.
        for start in (0..x.nrows().max(1)).step_by(rows) {
            let block = ndarray::s![start..x.nrows().min(start + rows), ..];
            let found = condensed(across(start, self.each(x.slice(block))?), vector, classes);
            let out = out.get_or_insert_with(|| Array2::zeros((x.nrows(), found.ncols())));
            out.slice_mut(block).assign(&found);
        }
        Ok(out.unwrap_or_default())
    }

    /// Numbers a stored model holds.
    pub(super) fn scalars(&self) -> usize {
        match self {
            Self::Soft { forest, .. } => forest.complexity().scalars,
            Self::Hard(parts) => parts.iter().map(HardForest::scalars).sum(),
        }
    }

    /// The same with a pure leaf as the number of its class.
    pub(super) fn least_scalars(&self) -> usize {
        match self {
            Self::Soft { forest, .. } => forest.complexity().scalars,
            Self::Hard(parts) => parts.iter().map(HardForest::least_scalars).sum(),
        }
    }

    pub(super) fn trees(&self) -> usize {
        match self {
            Self::Soft { forest, .. } => forest.trees().len(),
            Self::Hard(parts) => parts.iter().map(HardForest::trees).sum(),
        }
    }

    pub(super) fn parts(&self, numbers: &mut Vec<f32>) -> StoredFolded {
        match self {
            Self::Soft { forest, folds } => {
                let (stored, own) = forest.ensemble.parts();
                numbers.extend(own);
                StoredFolded::Soft { forest: Box::new(stored), folds: *folds }
            }
            Self::Hard(parts) => StoredFolded::Hard(
                parts
                    .iter()
                    .map(|part| {
                        let (stored, own) = part.parts();
                        numbers.extend(own);
                        stored
                    })
                    .collect(),
            ),
        }
    }

    pub(super) fn from_parts(stored: StoredFolded, numbers: &mut Numbers) -> Result<Self> {
        match stored {
            StoredFolded::Soft { forest, folds } => {
                let ensemble = Ensemble::from_parts(*forest, numbers)?;
                if folds == 0 || !ensemble.trees.len().is_multiple_of(folds) {
                    return Err(ForestError::Malformed("folds do not divide the trees".to_owned()));
                }
                Ok(Self::Soft { forest: Box::new(SoftForest { ensemble }), folds })
            }
            StoredFolded::Hard(parts) => {
                let parts: Vec<HardForest> =
                    parts.into_iter().map(|part| HardForest::from_parts(part, numbers)).collect::<Result<_>>()?;
                let first = parts.first().ok_or_else(|| ForestError::Malformed("a forest without folds".to_owned()))?;
                if parts.iter().any(|part| part.trees() != first.trees()) {
                    return Err(ForestError::Malformed("folds of a forest differ in their trees".to_owned()));
                }
                Ok(Self::Hard(parts))
            }
        }
    }
}

/// A folded forest in a file's header.
#[derive(Serialize, Deserialize)]
pub(super) enum StoredFolded {
    Soft { forest: Box<Stored>, folds: usize },
    Hard(Vec<StoredHard>),
}

/// Mean over trees when one vector a forest is wanted.
fn condensed(per_tree: Array2<f32>, vector: ClassVector, classes: usize) -> Array2<f32> {
    if vector == ClassVector::PerTree {
        return per_tree;
    }
    let trees = per_tree.ncols() / classes;
    let mut out = Array2::zeros((per_tree.nrows(), classes));
    for tree in 0..trees {
        out += &per_tree.slice(ndarray::s![.., tree * classes..(tree + 1) * classes]);
    }
    out / trees as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Loss;
    use crate::tree::Tree;

    #[test]
    fn folds_are_stratified_and_too_many_are_refused() -> Result<()> {
        let labels: Vec<usize> = (0..90).map(|i| usize::from(i % 3 == 0)).collect();
        let fold_of = stratified_folds(&labels, 2, 3, 1)?;
        for fold in 0..3u16 {
            let rows = || fold_of.iter().zip(&labels).filter(move |(f, _)| **f == fold);
            assert_eq!(rows().count(), 30);
            assert_eq!(rows().filter(|(_, y)| **y == 1).count(), 10);
        }
        let few = [0, 0, 0, 1, 1];
        assert!(matches!(stratified_folds(&few, 2, 3, 1), Err(ForestError::Folds { folds: 3, class: 1, rows: 2 })));
        Ok(())
    }

    /// Not even through other trees: with a joint loss a tree's gradient is made of its whole forest's output.
    #[test]
    fn trees_know_nothing_of_the_labels_of_their_fold() -> Result<()> {
        let (x, labels) = crate::synthetic::blobs(60, 4, 3, 2.0, 1);
        let fold_of = stratified_folds(&labels, 3, 3, 1)?;
        let mut others = labels.clone();
        for (label, _) in others.iter_mut().zip(&fold_of).filter(|(_, fold)| **fold == 1) {
            *label = (*label + 1) % 3;
        }
        for loss in [Loss::PerTree, Loss::Joint] {
            let params = SoftForestParams::default().trees(2).depth(2).epochs(3).batch(16).loss(loss);
            let forest = Forest::Soft(Box::new(params));
            let trees = |labels: &[usize]| -> Result<Vec<Tree>> {
                match FoldedForest::fit(&forest, x.view(), labels, 3, &fold_of, 3)? {
                    FoldedForest::Soft { forest, .. } => Ok(forest.trees().to_vec()),
                    FoldedForest::Hard(_) => Ok(Vec::new()),
                }
            };
            let (known, changed) = (trees(&labels)?, trees(&others)?);
            for (tree, (known, changed)) in known.iter().zip(&changed).enumerate() {
                assert_eq!(known == changed, tree / 2 == 1, "{loss:?}, tree {tree}");
            }
            assert_eq!(known.len(), 6);
        }
        Ok(())
    }

    #[test]
    fn vectors_made_block_by_block_are_those_of_each_row_alone() -> Result<()> {
        let (x, labels) = crate::synthetic::blobs(50, 4, 3, 2.0, 1);
        let fold_of = stratified_folds(&labels, 3, 2, 1)?;
        let soft = SoftForestParams::default().trees(30).depth(2).epochs(1);
        let hard = HardForestParams { trees: 30, ..HardForestParams::default() };
        for forest in [Forest::Soft(Box::new(soft)), Forest::Hard(hard)] {
            let folded = FoldedForest::fit(&forest, x.view(), &labels, 3, &fold_of, 2)?;
            for vector in [ClassVector::PerTree, ClassVector::PerForest] {
                let unseen = folded.unseen(x.view(), &fold_of, vector, 3)?;
                let vectors = folded.vectors(x.view(), vector, 3)?;
                assert_ne!(unseen, vectors);
                // Seven blocks of seven rows, and one row.
                assert_eq!(folded.unseen_in(7, x.view(), &fold_of, vector, 3)?, unseen);
                assert_eq!(folded.vectors_in(7, x.view(), vector, 3)?, vectors);
                for row in 0..50 {
                    let (only, own) = (x.slice(ndarray::s![row..=row, ..]), ndarray::s![row..=row, ..]);
                    assert_eq!(folded.unseen(only, &fold_of[row..=row], vector, 3)?, unseen.slice(own));
                    assert_eq!(folded.vectors(only, vector, 3)?, vectors.slice(own));
                }
            }
            let nothing = Array2::zeros((0, 4));
            let refused = folded.vectors(nothing.view(), ClassVector::PerTree, 3);
            assert!(matches!(refused, Err(ForestError::Empty { .. })));
        }
        Ok(())
    }
}
