//! Coefficients on heads and neurons, and the penalty that sorts them.

use super::group::shape;
use crate::prunable::NamedTensor;
use crate::{Error, Result};
use core_tensor::nn::{
    BatchNormConfig, Conv2dConfig, EmbeddingConfig, GateConfig, Gated, LayerFactory, LayerNormConfig, LinearConfig,
    Module, PoolConfig, StridedConv2d,
};
use core_tensor::optim::{Parameter, parameters_with};
use core_tensor::train::{Loss, Objective, Progress};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{Init, Path, VarStore};

/// What the names of coefficients end in. Published weights have none: a network with them loads such weights by
/// [`load_weights_keeping`](core_tensor::networks::bert::load_weights_keeping) with this.
pub const COEFFICIENT: &str = "slimming_coef";

/// A factory that puts a learned coefficient on every head and every feed-forward neuron, after the inner factory's own
/// gate if it has one, and else makes what the inner one makes. Coefficients start at 1, where they change nothing.
///
/// Scaling a head's output is scaling its attention probabilities, as the paper's code does it, and is scaling the columns
/// of the output projection that read it: [`fold`](super::fold) does that.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slimming<F>(pub F);

/// What scales a layer's heads or neurons.
#[derive(Debug)]
pub struct Slimmed {
    inner: Option<Module>,
    coefficient: Tensor,
}

impl tch::nn::ModuleT for Slimmed {
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        match &self.inner {
            Some(inner) => inner.forward_t(input, train) * &self.coefficient,
            None => input * &self.coefficient,
        }
    }
}

impl<F: LayerFactory> LayerFactory for Slimming<F> {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        self.0.conv2d(path, config)
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        self.0.linear(path, config)
    }

    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
        self.0.batch_norm2d(path, config)
    }

    fn embedding(&self, path: &Path, config: EmbeddingConfig) -> Module {
        self.0.embedding(path, config)
    }

    fn layer_norm(&self, path: &Path, config: LayerNormConfig) -> Module {
        self.0.layer_norm(path, config)
    }

    fn gate(&self, path: &Path, config: GateConfig) -> Option<Module> {
        let inner = self.0.gate(path, config);
        let coefficient = path.var(COEFFICIENT, &shape(config.gated, config.units), Init::Const(1.0));
        Some(Box::new(Slimmed { inner, coefficient }))
    }

    fn max_pool2d(&self, config: PoolConfig) -> Module {
        self.0.max_pool2d(config)
    }

    fn strided_conv2d(&self, path: &Path, config: Conv2dConfig) -> StridedConv2d {
        self.0.strided_conv2d(path, config)
    }

    fn shortcut_conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        self.0.shortcut_conv2d(path, config)
    }
}

/// How hard coefficients are pressed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlimConfig {
    /// Weight of `Σ|c|` over heads, at least 0. The reference scripts: 1e-4.
    pub lambda_heads: f64,
    /// Weight of `Σ|c|` over neurons, at least 0. The reference scripts: 1e-4.
    pub lambda_neurons: f64,
}

impl Default for SlimConfig {
    fn default() -> Self {
        Self { lambda_heads: 1e-4, lambda_neurons: 1e-4 }
    }
}

impl SlimConfig {
    /// # Errors
    /// A weight that is negative or not finite.
    pub fn validate(&self) -> Result<()> {
        for (setting, value) in [("lambda_heads", self.lambda_heads), ("lambda_neurons", self.lambda_neurons)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::setting(setting, "finite and at least 0", value));
            }
        }
        Ok(())
    }
}

/// `λ_heads·Σ|c_heads| + λ_neurons·Σ|c_neurons|`: sums, not means. The gradient of `|c|` at 0 is 0.
///
/// Add it once an optimizer step: gradients accumulated over micro-batches would count it as often.
///
/// # Errors
/// A config outside its range, or no [coefficients](super::coefficients).
pub fn slim_penalty(coefficients: &[NamedTensor], config: SlimConfig) -> Result<Tensor> {
    config.validate()?;
    let weighted = |(_, c): &NamedTensor| {
        let heads = c.dim() == shape(Gated::Heads, 1).len();
        c.abs().sum(c.kind()) * if heads { config.lambda_heads } else { config.lambda_neurons }
    };
    let terms = coefficients.iter().map(weighted).reduce(|a, b| a + b);
    terms.ok_or_else(|| Error::NothingToPrune { tensors: 0, predicate: "the slimming coefficients".into() })
}

/// A task's loss with the [penalty](slim_penalty) added, once an optimizer step.
pub struct SlimmedObjective<'a, B> {
    task: &'a mut dyn Objective<B>,
    coefficients: Vec<NamedTensor>,
    config: SlimConfig,
}

impl<B> std::fmt::Debug for SlimmedObjective<'_, B> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("SlimmedObjective").field("config", &self.config).finish()
    }
}

impl<'a, B> SlimmedObjective<'a, B> {
    /// A task's objective with the penalty on these [coefficients](super::coefficients).
    ///
    /// # Errors
    /// As [`slim_penalty`].
    pub fn new(task: &'a mut dyn Objective<B>, coefficients: &[NamedTensor], config: SlimConfig) -> Result<Self> {
        let _fits = slim_penalty(coefficients, config)?;
        let coefficients = coefficients.iter().map(|(name, c)| (name.clone(), c.shallow_clone())).collect();
        Ok(Self { task, coefficients, config })
    }
}

impl<B> Objective<B> for SlimmedObjective<'_, B> {
    fn loss(&mut self, batch: &B, progress: &Progress) -> core_tensor::Result<Loss> {
        let Loss { total, mut parts } = self.task.loss(batch, progress)?;
        let penalty = slim_penalty(&self.coefficients, self.config).map_err(|error| core_tensor::Error::Observer {
            observer: "slimming penalty".into(),
            source: Box::new(error),
        })?;
        parts.push(("slimming", penalty.detach()));
        Ok(Loss { total: total + penalty, parts })
    }
}

/// All trainable variables, with weight decay on none of biases, norms and coefficients: what fine-tuning BERT leaves
/// out, and the coefficients, which decay would move all alike. Whatever has fewer than two axes is a bias or a norm.
pub fn slim_parameters(store: &VarStore, weight_decay: f64) -> Vec<Parameter> {
    parameters_with(store, |parameter| {
        let named = ["bias", "LayerNorm.weight", COEFFICIENT].iter().any(|end| parameter.name.ends_with(end));
        let spared = named || parameter.tensor.dim() < 2;
        parameter.weight_decay = if spared { 0.0 } else { weight_decay };
    })
}
