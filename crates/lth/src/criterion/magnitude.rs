//! Small weights go first.

use super::{Criterion, Rank, Scores};
use crate::Result;
use crate::mask::MaskSet;
use crate::prunable::NamedTensor;

/// `|w|` (Han et al., arXiv 1506.02626). What the lottery-ticket papers prune by.
///
/// The weights themselves serve as scores, ranked by magnitude; nothing is copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct Magnitude;

impl Criterion for Magnitude {
    fn name(&self) -> String {
        "magnitude".into()
    }

    fn score(&self, weights: &[NamedTensor], _mask: Option<&MaskSet>) -> Result<Scores> {
        let values = weights.iter().map(|(_, weight)| weight.detach());
        Ok(Scores::of(weights, values, Rank::Magnitude))
    }

    fn unit(&self, _shape: &[i64]) -> Option<usize> {
        Some(1)
    }
}
