//! How much the loss feels a weight.

use super::{Criterion, Masked, Rank, Scores, gradients};
use crate::mask::MaskSet;
use crate::prunable::NamedTensor;
use crate::{Error, Result};
use tch::{Kind, Tensor, no_grad};

/// `|w ⊙ ∂L/∂w|`, normalised to sum 1 (SNIP: Lee et al., arXiv 1810.02340, equations 5 and 6).
///
/// The gradient is summed over `batches` calls of the loss.
pub struct Snip<F> {
    batches: usize,
    loss: F,
}

impl<F: Fn(usize) -> Result<Tensor>> Snip<F> {
    /// `loss(i)` is the scalar loss of batch `i`, in `0..batches`, with its graph. The paper uses one batch.
    pub fn new(batches: usize, loss: F) -> Self {
        Self { batches, loss }
    }
}

impl<F> std::fmt::Debug for Snip<F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("Snip").field("batches", &self.batches).finish_non_exhaustive()
    }
}

impl<F: Fn(usize) -> Result<Tensor>> Criterion for Snip<F> {
    fn name(&self) -> String {
        "snip".into()
    }

    fn score(&self, weights: &[NamedTensor], mask: Option<&MaskSet>) -> Result<Scores> {
        if self.batches == 0 {
            return Err(Error::setting("batches", "at least 1", 0));
        }
        let _masked = Masked::new(weights, mask)?;
        let mut sums = gradients(&(self.loss)(0)?, weights, false)?;
        for batch in 1..self.batches {
            let more = gradients(&(self.loss)(batch)?, weights, false)?;
            sums = sums.iter().zip(&more).map(|(sum, more)| sum.f_add(more)).collect::<Result<_, _>>()?;
        }
        let products =
            sums.iter().zip(weights).map(|(gradient, (_, weight))| no_grad(|| gradient.f_mul(weight)?.f_abs()));
        let products = products.collect::<Result<Vec<_>, _>>()?;
        let total: f64 = products.iter().map(|product| product.sum(Kind::Double).double_value(&[])).sum();
        // Where the loss does not feel any weight, all scores are 0 whatever they are divided by.
        let scale = if total > 0.0 { 1.0 / total } else { 1.0 };
        let scores = products.iter().map(|product| product * scale);
        Ok(Scores::of(weights, scores, Rank::Value))
    }

    fn unit(&self, _shape: &[i64]) -> Option<usize> {
        Some(1)
    }
}
