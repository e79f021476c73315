//! Random triplets.

use super::{Miner, partition};
use crate::grouping::{Embedded, Mined, Result};
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// One triplet an anchor, positive and negative drawn uniformly. Anchors without either are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RandomTriplets;

impl Miner for RandomTriplets {
    fn mine(&self, batch: &Embedded, rng: &mut ChaCha8Rng) -> Result<Mined> {
        let mut triplets = Vec::new();
        for anchor in 0..batch.labels().len() {
            let (positives, negatives) = partition(batch, anchor);
            if let (Some(&positive), Some(&negative)) = (positives.choose(rng), negatives.choose(rng)) {
                triplets.push([anchor, positive, negative]);
            }
        }
        Ok(Mined::Triplets(triplets))
    }
}
