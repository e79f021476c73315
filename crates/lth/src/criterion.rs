//! What weights are ranked by: the higher the score, the longer a weight is kept.

mod filter_norm;
mod grasp;
mod magnitude;
mod random;
mod snip;
mod synflow;

pub use crate::select::Rank;
pub use filter_norm::FilterNorm;
pub use grasp::Grasp;
pub use magnitude::Magnitude;
pub use random::Random;
pub use snip::Snip;
pub use synflow::SynFlow;

use crate::mask::MaskSet;
use crate::prunable::NamedTensor;
use crate::{Error, Result};
use tch::{Tensor, no_grad};

/// Scores the weights of a model.
///
/// | criterion | score | needs |
/// |---|---|---|
/// | [`Magnitude`] | `\|w\|` | nothing |
/// | [`Random`] | a random number | a seed |
/// | [`FilterNorm`] | `Σ\|w\|^p` of a filter | nothing |
/// | [`Snip`] | `\|w ⊙ ∂L/∂w\|` | one batch |
/// | [`Grasp`] | `w ⊙ H·∂L/∂w` | one batch, twice |
/// | [`SynFlow`] | `\|w ⊙ ∂R/∂w\|`, `R` the flow of ones through `\|w\|` | no data, many rounds |
pub trait Criterion {
    /// A short name for records: `magnitude`.
    fn name(&self) -> String;

    /// Scores of live weights, as masked by what earlier rounds left (`mask`; everything, without one). The scores of
    /// dropped weights do not matter. A [`Selector`](crate::Selector) ranks them as `f32`, whatever their kind.
    ///
    /// # Errors
    /// What keeps the weights from being scored.
    fn score(&self, weights: &[NamedTensor], mask: Option<&MaskSet>) -> Result<Scores>;

    /// How many consecutive weights of a tensor of this shape share one score: 1 where each has its own, those of a
    /// filter where filters go whole. [`Imp`](crate::Imp) asks it about a round on disk, to count without scoring what
    /// that round should have kept. Default: `None`, not known without scores; such rounds are not counted.
    fn unit(&self, _shape: &[i64]) -> Option<usize> {
        None
    }
}

/// Scores of several tensors.
#[derive(Debug)]
pub struct Scores {
    /// In the order in which ties are broken.
    pub layers: Vec<LayerScores>,
    /// Whether scores rank by value or by magnitude.
    pub rank: Rank,
}

/// Scores of one tensor's weights.
#[derive(Debug)]
pub struct LayerScores {
    /// The tensor's name.
    pub name: String,
    /// The tensor's shape.
    pub shape: Vec<i64>,
    /// One score for each weight in row-major order, or one for each of equally many consecutive weights, such as a
    /// filter.
    pub values: Tensor,
}

impl Scores {
    /// One score tensor for each weight tensor.
    pub(crate) fn of(weights: &[NamedTensor], values: impl IntoIterator<Item = Tensor>, rank: Rank) -> Self {
        let layer = |((name, weight), values): (&NamedTensor, Tensor)| LayerScores {
            name: name.clone(),
            shape: weight.size(),
            values,
        };
        Self { layers: weights.iter().zip(values).map(layer).collect(), rank }
    }
}

/// Live weights with a mask applied for as long as this lives; then they are as before.
struct Masked {
    originals: Vec<(Tensor, Tensor)>,
}

impl Masked {
    fn new(weights: &[NamedTensor], mask: Option<&MaskSet>) -> Result<Self> {
        let Some(mask) = mask else { return Ok(Self { originals: Vec::new() }) };
        let matched = mask.matched(weights)?;
        let originals = matched.into_iter().map(|(_, weight)| (weight.detach().copy(), weight)).collect();
        let masked = Self { originals };
        mask.apply(weights)?;
        Ok(masked)
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        no_grad(|| self.originals.iter_mut().for_each(|(original, weight)| weight.copy_(original)));
    }
}

/// Gradients of a scalar with respect to tensors.
///
/// # Errors
/// [`Error::Mismatch`] for a tensor that is frozen or has no part in the scalar, and for a scalar without a graph.
pub(crate) fn gradients(loss: &Tensor, weights: &[NamedTensor], create_graph: bool) -> Result<Vec<Tensor>> {
    if let Some((name, _)) = weights.iter().find(|(_, weight)| !weight.requires_grad()) {
        return Err(Error::mismatch(name, "a tensor that takes a gradient", "a frozen one"));
    }
    // libtorch would walk down a graph that is not there, and end the process.
    if !loss.requires_grad() {
        let found = "none: computed under `no_grad`, detached, or constant in them";
        return Err(Error::mismatch("scalar to differentiate", "a graph back to the weights", found));
    }
    // Asked for none, it would fill every leaf's `grad` instead.
    if weights.is_empty() {
        return Ok(Vec::new());
    }
    let inputs: Vec<&Tensor> = weights.iter().map(|(_, weight)| weight).collect();
    let gradients = Tensor::f_run_backward(&[loss], &inputs, create_graph, create_graph)?;
    for ((name, _), gradient) in weights.iter().zip(&gradients) {
        if !gradient.defined() {
            return Err(Error::mismatch(name, "a tensor that the loss depends on", "one that it does not"));
        }
    }
    Ok(gradients)
}

#[cfg(test)]
mod tests;
