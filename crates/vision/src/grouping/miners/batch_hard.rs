//! The hardest positive and negative of every anchor.

use super::{Matrix, Miner, partition};
use crate::grouping::{Embedded, Mined, Result};
use rand_chacha::ChaCha8Rng;

/// For every anchor its furthest positive and its nearest negative (Hermans, Beyer and Leibe, arXiv 1703.07737). Of several
/// at the same distance, the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchHard;

impl Miner for BatchHard {
    fn mine(&self, batch: &Embedded, _: &mut ChaCha8Rng) -> Result<Mined> {
        let distances = Matrix::new(&batch.distances())?;
        let hardest = |anchor: usize| {
            let row = distances.row(anchor);
            let (positives, negatives) = partition(batch, anchor);
            // `rev` because max_by keeps the last of equals.
            let furthest = positives.into_iter().rev().max_by(|&a, &b| row[a].total_cmp(&row[b]))?;
            let nearest = negatives.into_iter().min_by(|&a, &b| row[a].total_cmp(&row[b]))?;
            Some([anchor, furthest, nearest])
        };
        Ok(Mined::Triplets((0..batch.labels().len()).filter_map(hardest).collect()))
    }
}
