//! Optimizers whose state can be saved, and learning-rate schedules.
//!
//! Every optimizer follows PyTorch's update rule to the letter, keeps its state by parameter name, and can hand it out
//! ([`Optimizer::state`]) and take it back, so that a run resumed at an epoch boundary goes on bit for bit.

mod adam;
mod clip;
mod lars;
mod parameters;
mod schedule;
mod sgd;

pub use adam::{Adam, AdamConfig};
pub use clip::clip_gradient_norm;
pub use lars::{Lars, LarsConfig};
pub use parameters::{Parameter, named_trainable, parameters, parameters_with};
pub use schedule::Schedule;
pub use sgd::{Sgd, SgdConfig};

use crate::Result;
use crate::autograd::drop_gradient;
use indexmap::IndexMap;
use tch::Tensor;

/// Tensors by name: an optimizer's state, a model's weights.
pub type NamedTensors = IndexMap<String, Tensor>;

/// Updates parameters from their gradients.
pub trait Optimizer {
    /// Drops all gradients: a parameter that the next backward pass does not reach has none, and the next step leaves it
    /// alone.
    ///
    /// # Errors
    /// What libtorch refuses.
    fn zero_grad(&mut self) -> Result<()> {
        self.parameters_mut().iter_mut().try_for_each(|parameter| drop_gradient(&mut parameter.tensor))
    }

    /// One update with this learning rate. Parameters without a gradient stay as they are.
    ///
    /// # Errors
    /// What libtorch refuses.
    fn step(&mut self, learning_rate: f64) -> Result<()>;

    /// The parameters it updates, in a fixed order.
    fn parameters(&self) -> &[Parameter];

    /// The same, to change their settings.
    fn parameters_mut(&mut self) -> &mut [Parameter];

    /// Everything that the next step depends on besides weights and gradients: `{parameter}.momentum` and the like.
    /// The tensors are the live ones; copy them to keep them.
    fn state(&self) -> NamedTensors;

    /// Takes back what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// Names or shapes that do not fit; nothing is changed then.
    fn load_state(&mut self, state: &NamedTensors) -> Result<()>;
}

/// Checks `state` against the names and shapes an optimizer expects.
fn check_state(expected: &NamedTensors, state: &NamedTensors) -> Result<()> {
    let missing: Vec<String> = expected.keys().filter(|name| !state.contains_key(*name)).cloned().collect();
    let unexpected: Vec<String> = state.keys().filter(|name| !expected.contains_key(*name)).cloned().collect();
    if !missing.is_empty() || !unexpected.is_empty() {
        return Err(crate::Error::Names { missing, unexpected });
    }
    for (name, tensor) in expected {
        let found = &state[name];
        if found.size() != tensor.size() {
            return Err(crate::Error::tensor(name, format!("{:?}", tensor.size()), format!("{:?}", found.size())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
