//! Adam and AdamW.

use super::parameters::check_parameters;
use super::{NamedTensors, Optimizer, Parameter, check_state};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad};

/// Settings of [`Adam`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamConfig {
    /// Decay of the mean of gradients, in `[0, 1)`.
    pub beta1: f64,
    /// Decay of the mean of squared gradients, in `[0, 1)`.
    pub beta2: f64,
    /// Added to the root of the second moment, finite and above 0.
    pub epsilon: f64,
    /// Whether weight decay shrinks the weights directly (AdamW) or enters the gradient (Adam).
    pub decoupled: bool,
}

impl Default for AdamConfig {
    /// Adam with 0.9, 0.999, 1e-8.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decoupled: false }
    }
}

impl AdamConfig {
    /// AdamW (Loshchilov and Hutter, arXiv 1711.05101) with the same numbers.
    pub fn decoupled() -> Self {
        Self { decoupled: true, ..Self::default() }
    }
}

/// `m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; w ← w − lr·(m/(1−β₁ᵗ)) / (√(v/(1−β₂ᵗ)) + ε)`, with `t` the steps in which the
/// parameter had a gradient.
#[derive(Debug)]
pub struct Adam {
    config: AdamConfig,
    parameters: Vec<Parameter>,
    mean: Vec<Tensor>,
    square: Vec<Tensor>,
    /// Steps that each parameter has taken, as tensors so that they are saved with the rest.
    steps: Vec<Tensor>,
}

impl Adam {
    /// An optimizer that has taken no step.
    ///
    /// # Errors
    /// A β outside `[0, 1)`, an ε that is not above 0, two parameters of one name, or a parameter's setting outside its
    /// range.
    pub fn new(parameters: Vec<Parameter>, config: AdamConfig) -> Result<Self> {
        for (setting, beta) in [("beta1", config.beta1), ("beta2", config.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::setting(setting, "in [0, 1)", beta));
            }
        }
        // At 0 an entry whose gradient has always been 0 would become NaN.
        if !(config.epsilon > 0.0 && config.epsilon.is_finite()) {
            return Err(Error::setting("epsilon", "finite and above 0", config.epsilon));
        }
        check_parameters(&parameters)?;
        let zeros = || parameters.iter().map(|p| p.tensor.zeros_like().set_requires_grad(false)).collect();
        let (mean, square) = (zeros(), zeros());
        let steps = parameters.iter().map(|_| Tensor::from(0_i64)).collect();
        Ok(Self { config, parameters, mean, square, steps })
    }
}

impl Optimizer for Adam {
    fn step(&mut self, learning_rate: f64) -> Result<()> {
        let AdamConfig { beta1, beta2, epsilon, decoupled } = self.config;
        no_grad(|| {
            for (index, parameter) in self.parameters.iter_mut().enumerate() {
                let mut gradient = parameter.tensor.grad();
                if !gradient.defined() {
                    continue;
                }
                let _ = self.steps[index].f_add_scalar_(1)?;
                let steps = self.steps[index].int64_value(&[]) as f64;
                let (correction1, correction2) = (1.0 - beta1.powf(steps), 1.0 - beta2.powf(steps));
                let rate = learning_rate * parameter.learning_rate_scale;
                if parameter.weight_decay != 0.0 && decoupled {
                    let _ = parameter.tensor.f_mul_scalar_(1.0 - rate * parameter.weight_decay)?;
                } else if parameter.weight_decay != 0.0 {
                    gradient = gradient.f_add(&(&parameter.tensor * parameter.weight_decay))?;
                }
                let (mean, square) = (&mut self.mean[index], &mut self.square[index]);
                let _ = mean.f_mul_scalar_(beta1)?.f_add_(&(&gradient * (1.0 - beta1)))?;
                let _ = square.f_mul_scalar_(beta2)?.f_add_(&(gradient.square() * (1.0 - beta2)))?;
                let scale = (&*square / correction2).sqrt_() + epsilon;
                let _ = parameter.tensor.f_sub_(&(&*mean / scale * (rate / correction1)))?;
            }
            Ok(())
        })
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn parameters_mut(&mut self) -> &mut [Parameter] {
        &mut self.parameters
    }

    fn state(&self) -> NamedTensors {
        let mut state = NamedTensors::new();
        for (index, parameter) in self.parameters.iter().enumerate() {
            state.insert(format!("{}.mean", parameter.name), self.mean[index].shallow_clone());
            state.insert(format!("{}.square", parameter.name), self.square[index].shallow_clone());
            state.insert(format!("{}.steps", parameter.name), self.steps[index].shallow_clone());
        }
        state
    }

    fn load_state(&mut self, state: &NamedTensors) -> Result<()> {
        let current = self.state();
        check_state(&current, state)?;
        for parameter in &self.parameters {
            let name = format!("{}.steps", parameter.name);
            let kind = state[&name].kind();
            if kind != Kind::Int64 {
                return Err(Error::tensor(&name, "an i64", format!("{kind:?}")));
            }
        }
        no_grad(|| current.into_iter().for_each(|(name, mut tensor)| tensor.copy_(&state[&name])));
        Ok(())
    }
}
