//! Layer-wise adaptive rate scaling, for large batches.

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
}

impl Lars {
    /// An optimizer with zero momentum.
    ///
    /// # Errors
    /// Momentum outside `[0, 1)`, a trust coefficient that is not positive, two parameters of one name, or a
    /// parameter's setting outside its range.
    pub fn new(parameters: Vec<Parameter>, config: LarsConfig) -> Result<Self> {
        if config.trust.is_nan() || config.trust <= 0.0 {
            return Err(Error::setting("trust", "above 0", config.trust));
        }
        let inner = Sgd::new(parameters, SgdConfig { momentum: config.momentum, nesterov: false })?;
        Ok(Self { trust: config.trust, inner })
    }
}

impl Optimizer for Lars {
    fn step(&mut self, learning_rate: f64) -> Result<()> {
        no_grad(|| -> Result<()> {
            for parameter in self.inner.parameters() {
                let mut gradient = parameter.tensor.grad();
                if !gradient.defined() {
                    continue;
                }
                let _ = gradient.f_add_(&(&parameter.tensor * parameter.weight_decay))?;
                let (weight_norm, gradient_norm) = (parameter.tensor.norm(), gradient.norm());
                let (weight_norm, gradient_norm) = (weight_norm.double_value(&[]), gradient_norm.double_value(&[]));
                if parameter.adapt && weight_norm > 0.0 && gradient_norm > 0.0 {
                    let _ = gradient.f_mul_scalar_(self.trust * weight_norm / gradient_norm)?;
                }
            }
            Ok(())
        })?;
        // The decay is inside the ratio by now, so SGD must not add it again.
        let decay_of = |parameter: &mut Parameter| std::mem::take(&mut parameter.weight_decay);
        let decays: Vec<f64> = self.inner.parameters_mut().iter_mut().map(decay_of).collect();
        let stepped = self.inner.step(learning_rate);
        for (parameter, decay) in self.inner.parameters_mut().iter_mut().zip(decays) {
            parameter.weight_decay = decay;
        }
        stepped
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
