//! Named parameters with their own settings.

use crate::{Error, Result};
use std::collections::HashSet;
use tch::{Tensor, nn};

/// A trainable tensor with the settings that may differ between parameters.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in the `VarStore`. An optimizer keeps its state by name: where variables come from two stores, rename
    /// some.
    pub name: String,
    /// The live tensor.
    pub tensor: Tensor,
    /// Weight decay (L2 for SGD and Adam, decoupled for AdamW), finite and at least 0.
    pub weight_decay: f64,
    /// Multiplies the learning rate, finite and at least 0; 1 unless a layer learns slower or faster.
    pub learning_rate_scale: f64,
    /// Whether LARS scales this parameter's step by its trust ratio.
    pub adapt: bool,
}

/// The trainable variables of a store, sorted by name: the order everything deterministic relies on.
pub fn named_trainable(store: &nn::VarStore) -> Vec<(String, Tensor)> {
    let mut named: Vec<_> = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

/// Refuses a name that is there twice, whose states could not be told apart, and settings outside their range.
pub(super) fn check_parameters(parameters: &[Parameter]) -> Result<()> {
    let mut names = HashSet::new();
    for Parameter { name, weight_decay, learning_rate_scale, .. } in parameters {
        if !names.insert(name.as_str()) {
            return Err(Error::tensor(name, "one parameter of that name", "two"));
        }
        for (setting, value) in [("weight_decay", *weight_decay), ("learning_rate_scale", *learning_rate_scale)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::setting(setting, "finite and at least 0", format!("{value} for `{name}`")));
            }
        }
    }
    Ok(())
}

/// All trainable variables with the same weight decay, finite and at least 0.
pub fn parameters(store: &nn::VarStore, weight_decay: f64) -> Vec<Parameter> {
    parameters_with(store, |parameter| parameter.weight_decay = weight_decay)
}

/// All trainable variables, each after `set` chose its settings: no decay, scale 1, adapted, unless changed.
///
/// ```
/// # use core_tensor::optim::parameters_with;
/// # let store = tch::nn::VarStore::new(tch::Device::Cpu);
/// // The usual exclusions: no weight decay on biases and norms.
/// let all = parameters_with(&store, |p| p.weight_decay = if p.tensor.dim() > 1 { 1e-4 } else { 0.0 });
/// ```
pub fn parameters_with(store: &nn::VarStore, set: impl Fn(&mut Parameter)) -> Vec<Parameter> {
    let make = |(name, tensor)| {
        let mut parameter = Parameter { name, tensor, weight_decay: 0.0, learning_rate_scale: 1.0, adapt: true };
        set(&mut parameter);
        parameter
    };
    named_trainable(store).into_iter().map(make).collect()
}
