//! Layer-wise adaptive rate scaling, for large batches.

use super::sgd::decayed;
use super::{NamedTensors, Optimizer, Parameter, Sgd, SgdConfig};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

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
/// scales the gradient and not the momentum). The learning rate multiplies the momentum, as in PyTorch's SGD; SimCLR's has it
/// inside, which comes to the same while it is constant. Parameters with `adapt == false` (biases, norms) take plain SGD steps.
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
        let trust = self.trust;
        self.inner.step_along(learning_rate, |parameter| {
            let Some(gradient) = decayed(parameter)? else { return Ok(None) };
            if !parameter.adapt {
                return Ok(Some(gradient));
            }
            let norm = |tensor: &Tensor| tensor.f_norm()?.f_to_kind(Kind::Double);
            let (weight, slope) = (norm(&parameter.tensor)?, norm(&gradient)?);
            let ratio = weight.f_mul_scalar(trust)?.f_div(&slope)?;
            // Where either is zero the gradient counts as it is. All of it stays on the device.
            let both = weight.f_gt(0.0)?.f_logical_and(&slope.f_gt(0.0)?)?;
            let ratio = ratio.f_where_self(&both, &ratio.f_ones_like()?)?;
            Ok(Some(gradient.f_mul(&ratio.f_to_kind(gradient.kind())?)?))
        })
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
