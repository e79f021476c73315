//! How much dropping a weight would hurt the gradient flow.

use super::{Criterion, Masked, Rank, Scores, gradients};
use crate::mask::MaskSet;
use crate::prunable::NamedTensor;
use crate::{Error, Result};
use tch::{Kind, Tensor, no_grad};

/// `w ⊙ H·g`, with the gradient `g` and the Hessian `H` of the loss (GraSP: Wang et al., arXiv 2002.07376, equation 8,
/// with the sign turned so that high scores are kept).
///
/// Two passes over the batches: the first sums `g`, the second differentiates `g · ∂L/∂w` once more. Under an earlier
/// mask `g` is that of the weights left: what a dropped weight would gain is no part of the flow.
pub struct Grasp<F> {
    batches: usize,
    temperature: f64,
    loss: F,
}

impl<F: Fn(usize, f64) -> Result<Tensor>> Grasp<F> {
    /// `loss(i, temperature)` is the scalar loss of batch `i`, in `0..batches`, with logits *divided by* `temperature`,
    /// with its graph. The reference code's temperature is 200.
    pub fn new(batches: usize, loss: F) -> Self {
        Self { batches, temperature: 200.0, loss }
    }

    /// Another temperature than 200.
    ///
    /// # Errors
    /// A temperature that is not above 0.
    pub fn with_temperature(self, temperature: f64) -> Result<Self> {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::setting("temperature", "finite and above 0", temperature));
        }
        Ok(Self { temperature, ..self })
    }
}

impl<F> std::fmt::Debug for Grasp<F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let mut fields = formatter.debug_struct("Grasp");
        fields.field("batches", &self.batches).field("temperature", &self.temperature).finish_non_exhaustive()
    }
}

impl<F: Fn(usize, f64) -> Result<Tensor>> Criterion for Grasp<F> {
    fn name(&self) -> String {
        "grasp".into()
    }

    fn score(&self, weights: &[NamedTensor], mask: Option<&MaskSet>) -> Result<Scores> {
        if self.batches == 0 {
            return Err(Error::setting("batches", "at least 1", 0));
        }
        let _masked = Masked::new(weights, mask)?;
        let add = |sums: Option<Vec<Tensor>>, more: Vec<Tensor>| -> Result<Vec<Tensor>> {
            let Some(sums) = sums else { return Ok(more) };
            Ok(sums.iter().zip(&more).map(|(sum, more)| sum.f_add(more)).collect::<Result<_, _>>()?)
        };
        let mut first = None;
        for batch in 0..self.batches {
            first = Some(add(first, gradients(&(self.loss)(batch, self.temperature)?, weights, false)?)?);
        }
        let mut first = first.unwrap_or_default();
        for ((name, _), gradient) in weights.iter().zip(&mut first) {
            if let Some(mask) = mask.and_then(|mask| mask.get(name)) {
                *gradient = gradient.f_mul(&mask.to_tensor((gradient.kind(), gradient.device())))?;
            }
        }
        let mut products = None;
        for batch in 0..self.batches {
            let second = gradients(&(self.loss)(batch, self.temperature)?, weights, true)?;
            let terms =
                first.iter().zip(&second).map(|(first, second)| first.detach().f_mul(second)?.f_sum(Kind::Float));
            let terms = terms.collect::<Result<Vec<_>, _>>()?;
            products =
                Some(add(products, gradients(&Tensor::f_stack(&terms, 0)?.f_sum(Kind::Float)?, weights, false)?)?);
        }
        let scores = products.unwrap_or_default().into_iter().zip(weights);
        let scores =
            scores.map(|(product, (_, weight))| no_grad(|| product.f_mul(weight))).collect::<Result<Vec<_>, _>>()?;
        Ok(Scores::of(weights, scores, Rank::Value))
    }

    fn unit(&self, _shape: &[i64]) -> Option<usize> {
        Some(1)
    }
}
