//! Triplet loss.

use super::{Averaging, MetricLoss, check_finite};
use crate::grouping::{Embedded, Mined, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// `max(0, D_ap − D_an + m)` (Schroff, Kalenichenko and Philbin, arXiv 1503.03832, with unsquared distances).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Triplet {
    /// By how much a negative should be further away than a positive. FaceNet: 0.2.
    pub margin: f64,
    /// Over which triplets the mean is taken.
    pub averaging: Averaging,
}

impl Default for Triplet {
    fn default() -> Self {
        Self { margin: 0.2, averaging: Averaging::NonZero }
    }
}

impl MetricLoss for Triplet {
    fn loss(&self, batch: &Embedded, mined: Option<&Mined>) -> Result<Tensor> {
        check_finite("margin", self.margin)?;
        let (positive, negative) = batch.triplets(mined)?.pick(&batch.distances());
        Ok(self.averaging.mean(&(positive - negative + self.margin).relu(), None))
    }
}
