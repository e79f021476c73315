//! Contrastive loss.

use super::{Averaging, MetricLoss, check_finite};
use crate::grouping::{Embedded, Mined, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Positive pairs `max(0, D − m₊)`, negative pairs `max(0, m₋ − D)`, each averaged, then added (Hadsell, Chopra and
/// LeCun 2006, without the squares).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Contrastive {
    /// Positives closer than this cost nothing. Usually 0.
    pub positive_margin: f64,
    /// Negatives further than this cost nothing. Usually 1 for unit vectors.
    pub negative_margin: f64,
    /// Over which pairs each part is averaged.
    pub averaging: Averaging,
}

impl Default for Contrastive {
    fn default() -> Self {
        Self { positive_margin: 0.0, negative_margin: 1.0, averaging: Averaging::NonZero }
    }
}

impl MetricLoss for Contrastive {
    fn loss(&self, batch: &Embedded, mined: Option<&Mined>) -> Result<Tensor> {
        check_finite("positive_margin", self.positive_margin)?;
        check_finite("negative_margin", self.negative_margin)?;
        let masks = batch.masks(mined)?;
        let distances = batch.distances();
        let positive = (&distances - self.positive_margin).relu();
        let negative = (distances * -1.0 + self.negative_margin).relu();
        let mean = |costs, mask| self.averaging.mean(costs, Some(mask));
        Ok(mean(&positive, &masks.positive) + mean(&negative, &masks.negative))
    }
}
