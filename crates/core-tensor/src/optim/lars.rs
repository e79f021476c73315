//! Layer-wise adaptive rate scaling, for large batches.

use super::parameters::check_parameters;
use super::{NamedTensors, Optimizer, Parameter, Sgd, SgdConfig};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::no_grad;

/// Settings of [`Lars`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LarsConfig {
    /// Momentum in `[0, 1)`.
    pub momentum: f64,
    /// Trust coefficient η; 0.001 in SimCLR's recipe.
    pub trust: f64,
}

impl Default for LarsConfig {
    /// Momentum 0.9, trust coefficient 0.001.
    fn default() -> Self {
        Self { momentum: 0.9, trust: 1e-3 }
    }
}

/// SGD with momentum on `η·‖w‖/‖g‖·g`, `g = ∇ + wd·w` (You et al., arXiv 1708.03888; SimCLR's variant, where the ratio
/// scales the gradient and not the momentum). Parameters with `adapt == false` (biases, norms) take plain SGD steps.
#[derive(Debug)]
pub struct Lars {
    trust: f64,
    inner: Sgd,
    weight_decay: Vec<f64>,
}

impl Lars {
    /// An optimizer with zero momentum.
    ///
    /// # Errors
    /// Momentum outside `[0, 1)`, a trust coefficient that is not positive, two parameters of one name, or a
    /// parameter's setting outside its range.
    pub fn new(mut parameters: Vec<Parameter>, config: LarsConfig) -> Result<Self> {
        if config.trust.is_nan() || config.trust <= 0.0 {
            return Err(Error::setting("trust", "above 0", config.trust));
        }
        check_parameters(&parameters)?;
        // The decay must be inside the ratio, so it is added here and not by SGD.
        let weight_decay = parameters.iter_mut().map(|parameter| std::mem::take(&mut parameter.weight_decay)).collect();
        let inner = Sgd::new(parameters, SgdConfig { momentum: config.momentum, nesterov: false })?;
        Ok(Self { trust: config.trust, inner, weight_decay })
    }
}

impl Optimizer for Lars {
    fn step(&mut self, learning_rate: f64) -> Result<()> {
        no_grad(|| -> Result<()> {
            for (parameter, weight_decay) in self.inner.parameters().iter().zip(&self.weight_decay) {
                let mut gradient = parameter.tensor.grad();
                if !gradient.defined() {
                    continue;
                }
                let _ = gradient.f_add_(&(&parameter.tensor * *weight_decay))?;
                let (weight_norm, gradient_norm) = (parameter.tensor.norm(), gradient.norm());
                let (weight_norm, gradient_norm) = (weight_norm.double_value(&[]), gradient_norm.double_value(&[]));
                if parameter.adapt && weight_norm > 0.0 && gradient_norm > 0.0 {
                    let _ = gradient.f_mul_scalar_(self.trust * weight_norm / gradient_norm)?;
                }
            }
            Ok(())
        })?;
        self.inner.step(learning_rate)
    }

    fn parameters(&self) -> &[Parameter] {
        self.inner.parameters()
    }

    fn parameters_mut(&mut self) -> &mut [Parameter] {
        self.inner.parameters_mut()
    }

    fn state(&self) -> NamedTensors {
        self.inner.state()
    }

    fn load_state(&mut self, state: &NamedTensors) -> Result<()> {
        self.inner.load_state(state)
    }
}
