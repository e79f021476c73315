//! What losses and miners see: checked embeddings with labels, and which pairs count.

use super::head::unit;
use super::{Error, Result};
use core_tensor::autograd::with_backward;
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

/// Embeddings `[n, d]` with one label each, checked once, so that losses and miners need not.
///
/// Pairs are formed within the batch, an item never with itself, or between the batch and [references](Self::against)
/// such as a [`CrossBatchMemory`](super::CrossBatchMemory).
#[derive(Debug, Clone, Copy)]
pub struct Embedded<'a> {
    anchors: &'a Tensor,
    labels: &'a [i64],
    references: Option<(&'a Tensor, &'a [i64])>,
}

/// Pairs or triplets that a [`Miner`](super::Miner) chose, by position: anchors in the batch, the others in the
/// references (the batch itself without them).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mined {
    /// Anchor, positive, negative.
    Triplets(Vec<[usize; 3]>),
    /// Pairs of one class and pairs of two.
    Pairs {
        /// Anchor and positive.
        positives: Vec<[usize; 2]>,
        /// Anchor and negative.
        negatives: Vec<[usize; 2]>,
    },
}

impl Mined {
    /// The triplets; of pairs, every positive pair with every negative pair of its anchor.
    pub fn triplets(&self) -> Vec<[usize; 3]> {
        match self {
            Self::Triplets(triplets) => triplets.clone(),
            Self::Pairs { positives, negatives } => {
                let of = |anchor: usize| negatives.iter().filter(move |pair| pair[0] == anchor);
                positives.iter().flat_map(|&[a, p]| of(a).map(move |&[_, n]| [a, p, n])).collect()
            }
        }
    }

    /// The positive and the negative pairs, repeats included.
    pub fn pairs(&self) -> (Vec<[usize; 2]>, Vec<[usize; 2]>) {
        match self {
            Self::Triplets(triplets) => triplets.iter().map(|&[a, p, n]| ([a, p], [a, n])).unzip(),
            Self::Pairs { positives, negatives } => (positives.clone(), negatives.clone()),
        }
    }

    /// Whether there is no pair at all.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Triplets(triplets) => triplets.is_empty(),
            Self::Pairs { positives, negatives } => positives.is_empty() && negatives.is_empty(),
        }
    }
}

/// Which entries of a matrix of anchors by references count as positive and as negative pairs, `[n, m]`, boolean.
#[derive(Debug)]
pub(super) struct Masks {
    pub(super) positive: Tensor,
    pub(super) negative: Tensor,
}

impl<'a> Embedded<'a> {
    /// A batch.
    ///
    /// # Errors
    /// Embeddings that are not `[n, d]`, another number of labels, no embedding, NaN or infinity.
    pub fn new(embeddings: &'a Tensor, labels: &'a [i64]) -> Result<Self> {
        check("embeddings", embeddings, labels)?;
        Ok(Self { anchors: embeddings, labels, references: None })
    }

    /// A batch of whose numbers it is known that they are finite, without a look at them.
    ///
    /// # Errors
    /// As [`new`](Self::new) otherwise.
    pub(super) fn of_finite(embeddings: &'a Tensor, labels: &'a [i64]) -> Result<Self> {
        check_shape("embeddings", embeddings, labels)?;
        Ok(Self { anchors: embeddings, labels, references: None })
    }

    /// The same anchors, whose positives and negatives are now among `references`.
    ///
    /// # Errors
    /// As [`new`](Self::new), and another length of vectors.
    pub fn against(self, references: &'a Tensor, labels: &'a [i64]) -> Result<Self> {
        check("references", references, labels)?;
        let (d, found) = (self.dim(), references.size()[1]);
        if found != d {
            return Err(Error::shape("references", format!("vectors of {d} numbers"), found.to_string()));
        }
        Ok(Self { references: Some((references, labels)), ..self })
    }

    /// `[n, d]`.
    pub fn anchors(&self) -> &Tensor {
        self.anchors
    }

    /// `[m, d]`: where positives and negatives are looked for.
    pub fn references(&self) -> &Tensor {
        self.references.map_or(self.anchors, |(references, _)| references)
    }

    /// One a row of [`anchors`](Self::anchors).
    pub fn labels(&self) -> &[i64] {
        self.labels
    }

    /// One a row of [`references`](Self::references).
    pub fn reference_labels(&self) -> &[i64] {
        self.references.map_or(self.labels, |(_, labels)| labels)
    }

    /// Numbers in an embedding.
    pub fn dim(&self) -> i64 {
        self.anchors.size()[1]
    }

    /// Whether both are the same item.
    pub fn is_self(&self, anchor: usize, reference: usize) -> bool {
        self.references.is_none() && anchor == reference
    }

    /// Whether both are items of one class, and not the same item.
    pub fn is_positive(&self, anchor: usize, reference: usize) -> bool {
        self.labels[anchor] == self.reference_labels()[reference] && !self.is_self(anchor, reference)
    }

    /// Cosines, `[n, m]`.
    ///
    /// # Errors
    /// A vector of norm zero.
    pub fn cosines(&self) -> Result<Tensor> {
        let anchors = directions(self.anchors)?;
        Ok(match self.references {
            None => products(&anchors)?,
            Some((references, _)) => anchors.matmul(&directions(references)?.tr()),
        })
    }

    /// `√(‖a − r‖² + 1e-8)`, `[n, m]`; the addend keeps the gradient finite where two items coincide.
    pub fn distances(&self) -> Tensor {
        let squares = |rows: &Tensor| rows.square().sum_dim_intlist(-1, true, None::<Kind>);
        let references = self.references();
        let products = self.anchors.matmul(&references.tr());
        let squared = squares(self.anchors) + squares(references).tr() - products * 2.0;
        (squared.clamp_min(0.0) + 1e-8).sqrt()
    }

    /// All pairs, or those that were mined, each counting once.
    ///
    /// # Errors
    /// Positions outside the batch; no pair at all. Of all pairs within a batch, none of one class or none of two:
    /// every loss is best then with all items in one place, or as far from one another as may be. A miner may choose
    /// one kind, and references may lack the other for a while.
    pub(super) fn masks(&self, mined: Option<&Mined>) -> Result<Masks> {
        let device = self.anchors.device();
        let (rows, columns) = (self.labels.len(), self.reference_labels().len());
        // Told from what is on the host: a mask would have to be waited for.
        let found = match mined {
            None => self.has_pairs(),
            Some(mined) => {
                let (positives, negatives) = mined.pairs();
                [!positives.is_empty(), !negatives.is_empty()]
            }
        };
        if found == [false; 2] {
            return Err(Error::NothingMined { kind: "pair", reason: "nothing was mined, or the batch has one item" });
        }
        if mined.is_none() && self.references.is_none() {
            let missing = |kind, reason| Err(Error::NothingMined { kind, reason });
            match found {
                [false, _] => return missing("positive pair", "no two items of the batch are of one class"),
                [_, false] => return missing("negative pair", "all items of the batch are of one class"),
                [true, true] => {}
            }
        }
        Ok(match mined {
            None => {
                let column = |labels: &[i64]| Tensor::from_slice(labels).to_device(device);
                let same = column(self.labels).unsqueeze(1).eq_tensor(&column(self.reference_labels()).unsqueeze(0));
                let negative = same.logical_not();
                let mut positive = same;
                if self.references.is_none() {
                    let _ = positive.fill_diagonal_(0, false);
                }
                Masks { positive, negative }
            }
            Some(mined) => {
                let (positives, negatives) = mined.pairs();
                let mask = |pairs: &[[usize; 2]]| -> Result<Tensor> {
                    let mut entries = vec![false; rows * columns];
                    for &[anchor, reference] in pairs {
                        self.check_position(anchor, rows)?;
                        self.check_position(reference, columns)?;
                        entries[anchor * columns + reference] = true;
                    }
                    Ok(Tensor::from_slice(&entries).view([rows as i64, columns as i64]).to_device(device))
                };
                Masks { positive: mask(&positives)?, negative: mask(&negatives)? }
            }
        })
    }

    /// Whether some anchor has a positive, and some a negative.
    fn has_pairs(&self) -> [bool; 2] {
        let own: BTreeSet<i64> = self.labels.iter().copied().collect();
        let others: BTreeSet<i64> = self.reference_labels().iter().copied().collect();
        let positive =
            if self.references.is_some() { !own.is_disjoint(&others) } else { own.len() < self.labels.len() };
        [positive, own.union(&others).nth(1).is_some()]
    }

    /// The triplets that were mined, or all of them, as indices into the flattened `[n · m]` matrix: of anchor with
    /// positive, and of anchor with negative.
    ///
    /// # Errors
    /// Positions outside the batch; no triplet.
    pub(super) fn triplets(&self, mined: Option<&Mined>) -> Result<Indexed> {
        let (rows, columns) = (self.labels.len(), self.reference_labels().len());
        let triplets = mined.map_or_else(|| all_triplets(self), Mined::triplets);
        let (mut anchors, mut positives, mut negatives) = (Vec::new(), Vec::new(), Vec::new());
        for [a, p, n] in triplets {
            self.check_position(a, rows)?;
            self.check_position(p.max(n), columns)?;
            anchors.push(self.labels[a]);
            positives.push((a * columns + p) as i64);
            negatives.push((a * columns + n) as i64);
        }
        if anchors.is_empty() {
            let reason = "nothing was mined, or the batch has no two items of a class, or no second class";
            return Err(Error::NothingMined { kind: "triplet", reason });
        }
        let device = self.anchors.device();
        let [anchor_labels, positive, negative] =
            [anchors, positives, negatives].map(|indices| Tensor::from_slice(&indices).to_device(device));
        Ok(Indexed { anchor_labels, positive, negative })
    }

    fn check_position(&self, position: usize, below: usize) -> Result<()> {
        if position < below {
            return Ok(());
        }
        Err(Error::setting("mined position", format!("below {below}"), position))
    }
}

/// Triplets ready to pick distances, each `[triplets]`.
#[derive(Debug)]
pub(super) struct Indexed {
    pub(super) anchor_labels: Tensor,
    pub(super) positive: Tensor,
    pub(super) negative: Tensor,
}

impl Indexed {
    /// Distances to the positive and to the negative, each `[triplets]`.
    pub(super) fn pick(&self, distances: &Tensor) -> (Tensor, Tensor) {
        let flat = distances.flatten(0, -1);
        (flat.index_select(0, &self.positive), flat.index_select(0, &self.negative))
    }
}

/// Every anchor with every positive and every negative.
pub(super) fn all_triplets(batch: &Embedded) -> Vec<[usize; 3]> {
    let references = batch.reference_labels();
    let mut triplets = Vec::new();
    for (anchor, label) in batch.labels().iter().enumerate() {
        let negatives: Vec<usize> = (0..references.len()).filter(|&n| references[n] != *label).collect();
        for positive in (0..references.len()).filter(|&p| batch.is_positive(anchor, p)) {
            triplets.extend(negatives.iter().map(|&negative| [anchor, positive, negative]));
        }
    }
    triplets
}

/// Inner products of all pairs of rows. Both factors being the same, their gradients are one product, not two.
fn products(rows: &Tensor) -> Result<Tensor> {
    let saved = rows.detach();
    let value = saved.f_matmul(&saved.f_tr()?)?;
    Ok(with_backward(&[rows], &value, move |gradient| vec![Some((gradient + gradient.tr()).matmul(&saved))])?)
}

/// Unit vectors, refusing those without a direction.
pub(super) fn directions(rows: &Tensor) -> Result<Tensor> {
    let norms = rows.detach().norm_scalaropt_dim(2, [-1], false);
    if norms.min().double_value(&[]) == 0.0 {
        return Err(Error::ZeroNorm { position: first(&norms.eq(0.0)) });
    }
    Ok(unit(rows))
}

fn check(what: &'static str, rows: &Tensor, labels: &[i64]) -> Result<()> {
    check_shape(what, rows, labels)?;
    let finite = rows.detach().isfinite();
    if finite.all().int64_value(&[]) == 0 {
        let what = if what == "references" { "reference" } else { "embedding" };
        return Err(Error::NotFinite { what, position: first(&finite.all_dim(-1, false).logical_not()) });
    }
    Ok(())
}

fn check_shape(what: &'static str, rows: &Tensor, labels: &[i64]) -> Result<()> {
    let size = rows.size();
    if size.len() != 2 || size[0] != labels.len() as i64 || size[1] < 1 {
        return Err(Error::shape(what, format!("[{}, d], a row a label", labels.len()), format!("{size:?}")));
    }
    if labels.is_empty() {
        return Err(Error::Empty(what));
    }
    Ok(())
}

/// Position of the first true entry.
fn first(mask: &Tensor) -> usize {
    mask.to_kind(Kind::Int).argmax(None, false).int64_value(&[]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn what_cannot_be_embedded_is_refused_with_its_place() {
        let rows = |values: &[f64]| Tensor::from_slice(values).view([-1, 2]);
        let labels = [0, 1];
        let nan = rows(&[0.0, 1.0, f64::NAN, 1.0]);
        assert!(matches!(Embedded::new(&nan, &labels), Err(Error::NotFinite { what: "embedding", position: 1 })));
        let infinite = rows(&[f64::INFINITY, 1.0, 0.0, 1.0]);
        assert!(matches!(Embedded::new(&infinite, &labels), Err(Error::NotFinite { position: 0, .. })));
        let fine = rows(&[0.0, 1.0, 1.0, 1.0]);
        assert!(matches!(Embedded::new(&fine, &[0]), Err(Error::Shape { .. })));
        assert!(matches!(Embedded::new(&fine.view([4]), &labels), Err(Error::Shape { .. })));
        let none = Tensor::zeros([0, 2], (Kind::Double, Device::Cpu));
        assert!(matches!(Embedded::new(&none, &[]), Err(Error::Empty(_))));
        let zero = rows(&[1.0, 1.0, 0.0, 0.0]);
        let zero = Embedded::new(&zero, &labels).unwrap();
        assert!(matches!(zero.cosines(), Err(Error::ZeroNorm { position: 1 })));
        let batch = Embedded::new(&fine, &labels).unwrap();
        assert!(batch.against(&fine.view([1, 4]), &[0]).is_err());
        assert!(batch.masks(Some(&Mined::Triplets(vec![[0, 1, 2]]))).is_err());
        assert!(batch.triplets(Some(&Mined::Triplets(vec![[0, 1, 2]]))).is_err());
    }

    #[test]
    fn pairs_and_triplets_convert_into_each_other() {
        let triplets = Mined::Triplets(vec![[0, 1, 2], [0, 1, 3]]);
        assert_eq!(triplets.pairs(), (vec![[0, 1], [0, 1]], vec![[0, 2], [0, 3]]));
        let pairs = Mined::Pairs { positives: vec![[0, 1], [2, 3]], negatives: vec![[0, 2], [0, 3], [3, 1]] };
        assert_eq!(pairs.triplets(), [[0, 1, 2], [0, 1, 3]]);
        assert!(Mined::Triplets(vec![]).is_empty() && !pairs.is_empty());
    }

    #[test]
    fn distances_of_a_right_triangle() {
        let rows = Tensor::from_slice(&[0.0_f64, 0.0, 3.0, 4.0]).view([2, 2]);
        let distances = Embedded::new(&rows, &[0, 1]).unwrap().distances();
        // √(25 + 1e-8), and √1e-8 on the diagonal.
        assert!((distances.double_value(&[0, 1]) - 5.0).abs() < 1e-8);
        assert!((distances.double_value(&[1, 1]) - 1e-4).abs() < 1e-12);
    }
}
