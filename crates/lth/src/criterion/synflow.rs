//! How much flows through a weight, whatever the data.

use super::{Criterion, Rank, Scores, gradients};
use crate::mask::MaskSet;
use crate::prunable::NamedTensor;
use crate::{Error, Result};
use tch::{Kind, Tensor, nn, no_grad};

/// `|w ⊙ ∂R/∂w|` with `R = 1ᵀ f_{|w|}(1)`, the summed output for an input of ones after every parameter and buffer is
/// replaced by its absolute value (SynFlow: Tanaka et al., arXiv 2006.05467, equation 3 and algorithm 1).
///
/// Scores depend on what is already pruned: use it with
/// [`PruningSchedule::Exponential`](crate::PruningSchedule::Exponential) and 100 steps, as the paper does. The flow is
/// computed in `f64` because it overflows `f32` in deep networks, and scores are scaled so that the highest is 1.
pub struct SynFlow<'a, F> {
    store: &'a nn::VarStore,
    input: Vec<i64>,
    forward: F,
}

impl<'a, F: Fn(&Tensor) -> Tensor> SynFlow<'a, F> {
    /// `store` holds the model's parameters and buffers, `input` is a sample's shape without the batch axis, and
    /// `forward` runs the model *in evaluation mode*, so that batch norm is an affine map.
    pub fn new(store: &'a nn::VarStore, input: &[i64], forward: F) -> Self {
        Self { store, input: input.to_vec(), forward }
    }

    /// The flow `R` and the unscaled scores.
    pub(super) fn flow(&self, weights: &[NamedTensor], mask: Option<&MaskSet>) -> Result<(f64, Vec<Tensor>)> {
        if self.input.iter().any(|size| *size < 1) {
            return Err(Error::setting("input", "sizes of at least 1", format!("{:?}", self.input)));
        }
        let _absolute = Absolute::new(self.store);
        if let Some(mask) = mask {
            mask.apply(weights)?;
        }
        let mut shape = vec![1];
        shape.extend_from_slice(&self.input);
        let ones = Tensor::f_ones(&shape, (Kind::Double, self.store.device()))?;
        let flow = (self.forward)(&ones).f_sum(Kind::Double)?;
        let gradients = gradients(&flow, weights, false)?;
        let scores =
            gradients.iter().zip(weights).map(|(gradient, (_, weight))| no_grad(|| gradient.f_mul(weight)?.f_abs()));
        Ok((flow.double_value(&[]), scores.collect::<Result<Vec<_>, _>>()?))
    }
}

impl<F> std::fmt::Debug for SynFlow<'_, F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("SynFlow").field("input", &self.input).finish_non_exhaustive()
    }
}

impl<F: Fn(&Tensor) -> Tensor> Criterion for SynFlow<'_, F> {
    fn name(&self) -> String {
        "synflow".into()
    }

    fn score(&self, weights: &[NamedTensor], mask: Option<&MaskSet>) -> Result<Scores> {
        let (flow, scores) = self.flow(weights, mask)?;
        if !flow.is_finite() {
            return Err(Error::setting("synaptic flow", "finite", flow));
        }
        let highest = scores.iter().map(|score| score.max().double_value(&[])).fold(0.0, f64::max);
        let scale = if highest > 0.0 { 1.0 / highest } else { 1.0 };
        let scores = scores.iter().map(|score| score * scale);
        Ok(Scores::of(weights, scores, Rank::Value))
    }

    fn unit(&self, _shape: &[i64]) -> Option<usize> {
        Some(1)
    }
}

/// All variables of a store as `f64` absolute values for as long as this lives; then they are as before.
struct Absolute {
    originals: Vec<(Tensor, Tensor)>,
}

impl Absolute {
    fn new(store: &nn::VarStore) -> Self {
        let swap = |mut variable: Tensor| {
            // `detach` keeps hold of the memory that `set_data` takes away from the variable.
            let original = variable.detach();
            variable.set_data(&original.to_kind(Kind::Double).abs());
            (original, variable)
        };
        Self { originals: store.variables().into_values().map(swap).collect() }
    }
}

impl Drop for Absolute {
    fn drop(&mut self) {
        self.originals.iter_mut().for_each(|(original, variable)| variable.set_data(original));
    }
}
