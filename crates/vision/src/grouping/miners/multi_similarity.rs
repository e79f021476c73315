//! The miner that comes with the multi-similarity loss.

use super::{Matrix, Miner, partition};
use crate::grouping::{Embedded, Error, Mined, Result};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Negatives more similar than the least similar positive minus ε, and positives less similar than the most similar
/// negative plus ε (Wang et al., arXiv 1904.06627, section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultiSimilarityMiner {
    /// How much an informative pair may miss the other side, in cosine. Published: 0.1.
    pub epsilon: f64,
}

impl Default for MultiSimilarityMiner {
    fn default() -> Self {
        Self { epsilon: 0.1 }
    }
}

impl Miner for MultiSimilarityMiner {
    fn mine(&self, batch: &Embedded, _: &mut ChaCha8Rng) -> Result<Mined> {
        if !self.epsilon.is_finite() {
            return Err(Error::setting("epsilon", "finite", self.epsilon));
        }
        let cosines = Matrix::new(&batch.cosines()?)?;
        let (mut positives, mut negatives) = (Vec::new(), Vec::new());
        for anchor in 0..batch.labels().len() {
            let row = cosines.row(anchor);
            let (same, different) = partition(batch, anchor);
            let least = same.iter().map(|&other| row[other]).fold(f64::INFINITY, f64::min);
            let most = different.iter().map(|&other| row[other]).fold(f64::NEG_INFINITY, f64::max);
            if same.is_empty() || different.is_empty() {
                continue;
            }
            let pair = |other: usize| [anchor, other];
            positives.extend(same.into_iter().filter(|&other| row[other] - self.epsilon < most).map(pair));
            negatives.extend(different.into_iter().filter(|&other| row[other] + self.epsilon > least).map(pair));
        }
        Ok(Mined::Pairs { positives, negatives })
    }
}
