//! Generalised lifted structure loss.

use super::{MetricLoss, check_finite, masked_mean};
use crate::grouping::{Embedded, Error, Mined, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The mean over anchors with positives and negatives of `max(0, ln Σ_p exp(D_ap) + ln Σ_n exp(m − D_an))` (Hermans, Beyer
/// and Leibe, arXiv 1703.07737, section 2, after Oh Song et al.).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lifted {
    /// Margin m. Usually 1.
    pub margin: f64,
}

impl Default for Lifted {
    fn default() -> Self {
        Self { margin: 1.0 }
    }
}

impl MetricLoss for Lifted {
    fn loss(&self, batch: &Embedded, mined: Option<&Mined>) -> Result<Tensor> {
        check_finite("margin", self.margin)?;
        let masks = batch.masks(mined)?;
        let anchors = masks.positive.any_dim(1, false).logical_and(&masks.negative.any_dim(1, false));
        if anchors.any().int64_value(&[]) == 0 {
            let reason = "no anchor has both a positive and a negative";
            return Err(Error::NothingMined { kind: "triplet", reason });
        }
        let distances = batch.distances();
        // A large negative number instead of −∞: rows that are left out must not put NaN into the gradient.
        let total = |logits: Tensor, mask: &Tensor| {
            logits.masked_fill(&mask.logical_not(), -1e30).logsumexp([1_i64].as_slice(), false)
        };
        let positive = total(distances.shallow_clone(), &masks.positive);
        let negative = total(distances * -1.0 + self.margin, &masks.negative);
        Ok(masked_mean(&(positive + negative).relu(), &anchors))
    }
}
