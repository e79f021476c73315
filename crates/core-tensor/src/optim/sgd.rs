//! Stochastic gradient descent with momentum.

use super::parameters::check_parameters;
use super::{NamedTensors, Optimizer, Parameter, check_state};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Tensor, no_grad};

/// Settings of [`Sgd`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SgdConfig {
    /// Momentum μ in `[0, 1)`.
    pub momentum: f64,
    /// Nesterov's form of momentum.
    pub nesterov: bool,
}

impl Default for SgdConfig {
    /// Momentum 0.9, not Nesterov: the setting of nearly every vision recipe.
    fn default() -> Self {
        Self { momentum: 0.9, nesterov: false }
    }
}

/// `g ← ∇ + wd·w; v ← μ·v + g (v = g at first); w ← w − lr·v`, or `w − lr·(g + μ·v)` with Nesterov.
#[derive(Debug)]
pub struct Sgd {
    config: SgdConfig,
    parameters: Vec<Parameter>,
    momentum: Vec<Tensor>,
}

impl Sgd {
    /// An optimizer with zero momentum. A zero buffer gives the same first step as PyTorch's missing one.
    ///
    /// # Errors
    /// Momentum outside `[0, 1)`, Nesterov without momentum, two parameters of one name, or a parameter's setting
    /// outside its range.
    pub fn new(parameters: Vec<Parameter>, config: SgdConfig) -> Result<Self> {
        if !(0.0..1.0).contains(&config.momentum) || (config.nesterov && config.momentum == 0.0) {
            return Err(Error::setting("momentum", "in [0, 1), above 0 for Nesterov", config.momentum));
        }
        check_parameters(&parameters)?;
        let momentum = parameters.iter().map(|parameter| parameter.tensor.zeros_like().set_requires_grad(false));
        let momentum = if config.momentum > 0.0 { momentum.collect() } else { Vec::new() };
        Ok(Self { config, parameters, momentum })
    }

    /// A step along a gradient of each parameter, which stays as it is; parameters without one are left alone.
    pub(super) fn step_along(
        &mut self,
        learning_rate: f64,
        gradient_of: impl Fn(&Parameter) -> Result<Option<Tensor>>,
    ) -> Result<()> {
        let SgdConfig { momentum, nesterov } = self.config;
        no_grad(|| {
            for (index, parameter) in self.parameters.iter_mut().enumerate() {
                let Some(mut gradient) = gradient_of(parameter)? else { continue };
                let rate = learning_rate * parameter.learning_rate_scale;
                if momentum > 0.0 {
                    let velocity = &mut self.momentum[index];
                    let _ = velocity.f_mul_scalar_(momentum)?.f_add_(&gradient)?;
                    gradient = if nesterov { gradient + &*velocity * momentum } else { velocity.shallow_clone() };
                }
                let _ = parameter.tensor.f_sub_(&(gradient * rate))?;
            }
            Ok(())
        })
    }
}

/// `∇ + wd·w`, or nothing where no gradient arrived.
pub(super) fn decayed(parameter: &Parameter) -> Result<Option<Tensor>> {
    let gradient = parameter.tensor.grad();
    if !gradient.defined() {
        return Ok(None);
    }
    if parameter.weight_decay == 0.0 {
        return Ok(Some(gradient));
    }
    Ok(Some(gradient.f_add(&(&parameter.tensor * parameter.weight_decay))?))
}

impl Optimizer for Sgd {
    fn step(&mut self, learning_rate: f64) -> Result<()> {
        self.step_along(learning_rate, decayed)
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }

    fn state(&self) -> NamedTensors {
        let named = self.parameters.iter().zip(&self.momentum);
        named.map(|(parameter, buffer)| (format!("{}.momentum", parameter.name), buffer.shallow_clone())).collect()
    }

    fn load_state(&mut self, state: &NamedTensors) -> Result<()> {
        let current = self.state();
        check_state(&current, state)?;
        no_grad(|| current.into_iter().for_each(|(name, mut tensor)| tensor.copy_(&state[&name])));
        Ok(())
    }
}
