//! Whole filters, by their norm.

use super::{Criterion, Masked, Rank, Scores};
use crate::mask::MaskSet;
use crate::prunable::NamedTensor;
use crate::{Error, Result};
use tch::{Kind, no_grad};

/// `Σ|w|^p` over each filter `w[o, …]` (Li et al., arXiv 1608.08710, with p = 1): one score a filter, so that masks drop
/// filters whole. Amounts then count filters, not weights.
#[derive(Debug, Clone, Copy)]
pub struct FilterNorm {
    /// The exponent, above 0; 1 in the paper.
    pub p: f64,
}

impl Default for FilterNorm {
    fn default() -> Self {
        Self { p: 1.0 }
    }
}

impl Criterion for FilterNorm {
    fn name(&self) -> String {
        format!("filter_l{}", self.p)
    }

    fn score(&self, weights: &[NamedTensor], mask: Option<&MaskSet>) -> Result<Scores> {
        if !(self.p > 0.0 && self.p.is_finite()) {
            return Err(Error::setting("p", "finite and above 0", self.p));
        }
        let _masked = Masked::new(weights, mask)?;
        let norms = weights.iter().map(|(_, weight)| {
            let power = no_grad(|| weight.f_abs()?.f_pow_tensor_scalar(self.p))?;
            power.f_flatten(1, -1)?.f_sum_dim_intlist(1_i64, false, Kind::Float)
        });
        let norms = norms.collect::<Result<Vec<_>, _>>()?;
        Ok(Scores::of(weights, norms, Rank::Value))
    }

    fn unit(&self, shape: &[i64]) -> Option<usize> {
        Some(shape.iter().skip(1).product::<i64>() as usize)
    }
}
