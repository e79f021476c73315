//! Semi-hard negatives.

use super::{Matrix, Miner, partition};
use crate::grouping::{Embedded, Error, Mined, Result};
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// For every positive pair one negative that is further than the positive, but by less than the margin, drawn uniformly;
/// where there is none, any negative (Schroff, Kalenichenko and Philbin, arXiv 1503.03832, section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SemiHard {
    /// The margin of the triplet loss. FaceNet: 0.2.
    pub margin: f64,
}

impl Default for SemiHard {
    fn default() -> Self {
        Self { margin: 0.2 }
    }
}

impl Miner for SemiHard {
    fn mine(&self, batch: &Embedded, rng: &mut ChaCha8Rng) -> Result<Mined> {
        if !(self.margin > 0.0 && self.margin.is_finite()) {
            return Err(Error::setting("margin", "finite and above 0", self.margin));
        }
        let distances = Matrix::new(&batch.distances())?;
        let mut triplets = Vec::new();
        for anchor in 0..batch.labels().len() {
            let row = distances.row(anchor);
            let (positives, negatives) = partition(batch, anchor);
            for positive in positives {
                let reach = row[positive]..row[positive] + self.margin;
                let between = |&other: &usize| row[other] > reach.start && row[other] < reach.end;
                let semi_hard: Vec<usize> = negatives.iter().copied().filter(between).collect();
                if let Some(&negative) = semi_hard.choose(rng).or_else(|| negatives.choose(rng)) {
                    triplets.push([anchor, positive, negative]);
                }
            }
        }
        Ok(Mined::Triplets(triplets))
    }
}
