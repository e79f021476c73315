//! Binomial deviance.

use super::{MetricLoss, check_finite, check_positive, masked_mean};
use crate::grouping::{Embedded, Mined, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Positive pairs `ln(1 + exp(−α(s − μ)))`, negative pairs `ln(1 + exp(αC(s − μ)))`, each averaged, then added (Yi, Lei,
/// Liao and Li 2014). An item is no pair with itself.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BinomialDeviance {
    /// Slope α. Usually 2.
    pub alpha: f64,
    /// Boundary μ. Usually 0.5.
    pub mu: f64,
    /// Cost C of negatives. Usually 25.
    pub negative_cost: f64,
}

impl Default for BinomialDeviance {
    fn default() -> Self {
        Self { alpha: 2.0, mu: 0.5, negative_cost: 25.0 }
    }
}

impl MetricLoss for BinomialDeviance {
    fn loss(&self, batch: &Embedded, mined: Option<&Mined>) -> Result<Tensor> {
        check_positive("alpha", self.alpha)?;
        check_positive("negative_cost", self.negative_cost)?;
        check_finite("mu", self.mu)?;
        let masks = batch.masks(mined)?;
        let excess = batch.cosines()? - self.mu;
        let positive = (&excess * -self.alpha).softplus();
        let negative = (&excess * (self.alpha * self.negative_cost)).softplus();
        Ok(masked_mean(&positive, &masks.positive) + masked_mean(&negative, &masks.negative))
    }
}
