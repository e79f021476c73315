//! Miners: which pairs or triplets of a batch a loss looks at.
//!
//! A loss without a miner looks at all of them. Miners read embeddings without their gradient, and everything random comes
//! from the generator they are given.

mod batch_hard;
mod distance_weighted;
mod multi_similarity;
mod random;
mod semi_hard;

pub use batch_hard::BatchHard;
pub use distance_weighted::{DistanceWeighted, negative_weights};
pub use multi_similarity::MultiSimilarityMiner;
pub use random::RandomTriplets;
pub use semi_hard::SemiHard;

use super::embedded::all_triplets;
use super::{Embedded, Mined, Result};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Chooses pairs or triplets.
pub trait Miner: std::fmt::Debug {
    /// What a loss should look at. May be empty, when no anchor has what the miner needs.
    ///
    /// # Errors
    /// Embeddings that the miner cannot work on.
    fn mine(&self, batch: &Embedded, rng: &mut ChaCha8Rng) -> Result<Mined>;
}

/// Every anchor with every positive and every negative, as a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AllTriplets;

impl Miner for AllTriplets {
    fn mine(&self, batch: &Embedded, _: &mut ChaCha8Rng) -> Result<Mined> {
        Ok(Mined::Triplets(all_triplets(batch)))
    }
}

/// A matrix of anchors by references on the host.
struct Matrix {
    values: Vec<f64>,
    columns: usize,
}

impl Matrix {
    fn new(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.detach().to_device(tch::Device::Cpu).to_kind(Kind::Double).contiguous();
        let mut values = vec![0.0; tensor.numel()];
        tensor.f_copy_data(&mut values, tensor.numel())?;
        Ok(Self { values, columns: tensor.size()[1] as usize })
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }
}

/// Positions of an anchor's positives and negatives.
fn partition(batch: &Embedded, anchor: usize) -> (Vec<usize>, Vec<usize>) {
    let (labels, references) = (batch.labels(), batch.reference_labels());
    let others = (0..references.len()).filter(|&other| !batch.is_self(anchor, other));
    others.partition(|&other| references[other] == labels[anchor])
}

#[cfg(test)]
mod tests;
