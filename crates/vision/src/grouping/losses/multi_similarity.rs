//! Multi-similarity loss.

use super::{MetricLoss, check_finite, check_positive, log_one_plus_sum_exp};
use crate::grouping::{Embedded, Mined, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The mean over anchors of `1/α ln(1 + Σ_p exp(−α(s − λ))) + 1/β ln(1 + Σ_n exp(β(s − λ)))` (Wang, Han, Huang, Dong and
/// Scott, arXiv 1904.06627).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MultiSimilarity {
    /// Sharpness of positives. Published: 2.
    pub alpha: f64,
    /// Sharpness of negatives. Published: 50; small networks trained from scratch do better with 10.
    pub beta: f64,
    /// The cosine λ around which costs turn. Published: 0.5 (the paper's text says 1).
    pub base: f64,
}

impl Default for MultiSimilarity {
    fn default() -> Self {
        Self { alpha: 2.0, beta: 50.0, base: 0.5 }
    }
}

impl MetricLoss for MultiSimilarity {
    fn loss(&self, batch: &Embedded, mined: Option<&Mined>) -> Result<Tensor> {
        check_positive("alpha", self.alpha)?;
        check_positive("beta", self.beta)?;
        check_finite("base", self.base)?;
        let masks = batch.masks(mined)?;
        let excess = batch.cosines()? - self.base;
        let positive = log_one_plus_sum_exp(&(&excess * -self.alpha), &masks.positive, 1)? / self.alpha;
        let negative = log_one_plus_sum_exp(&(&excess * self.beta), &masks.negative, 1)? / self.beta;
        Ok((positive + negative).mean(excess.kind()))
    }
}
