//! Layers as published: the factory that changes nothing.

use super::{BatchNormConfig, Conv2dConfig, LayerFactory, LinearConfig, Module, record};
use crate::workload::Operator;
use tch::nn::{Init as TchInit, ModuleT, Path};
use tch::{Tensor, nn};

/// Plain full-precision layers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Standard;

impl LayerFactory for Standard {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        Box::new(Conv2d::new(path, config))
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        Box::new(Linear::new(path, config))
    }

    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
        Box::new(BatchNorm2d::new(path, config))
    }
}

/// A convolution with its parameters in reach.
#[derive(Debug)]
pub struct Conv2d {
    name: String,
    config: Conv2dConfig,
    /// `[out_channels, in_channels / groups, kernel, kernel]`.
    pub weight: Tensor,
    /// `[out_channels]`, zero at the start.
    pub bias: Option<Tensor>,
}

impl Conv2d {
    /// Creates `weight` and, if asked for, `bias` under `path`.
    pub fn new(path: &Path, config: Conv2dConfig) -> Self {
        let shape = [config.out_channels, config.in_channels / config.groups, config.kernel, config.kernel];
        let weight = path.var("weight", &shape, config.init.for_weight(&shape));
        let bias = config.bias.then(|| path.var("bias", &[config.out_channels], TchInit::Const(0.0)));
        Self { name: layer_name(path), config, weight, bias }
    }

    /// What this layer computes on an input of `[…, height, width]`.
    pub fn operator(&self, input: &Tensor) -> Operator {
        operator_of(&self.config, input)
    }

    /// The parameter prefix.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The convolution of `input` with any weight of this layer's shape, such as a quantised or masked one.
    pub fn forward_with(&self, input: &Tensor, weight: &Tensor) -> Tensor {
        let Conv2dConfig { stride, padding, groups, .. } = self.config;
        input.conv2d(weight, self.bias.as_ref(), [stride; 2], [padding; 2], [1, 1], groups)
    }
}

impl nn::Module for Conv2d {
    fn forward(&self, input: &Tensor) -> Tensor {
        record(&self.name, || self.operator(input));
        self.forward_with(input, &self.weight)
    }
}

/// A linear layer with its parameters in reach.
#[derive(Debug)]
pub struct Linear {
    name: String,
    /// `[out_features, in_features]`.
    pub weight: Tensor,
    /// `[out_features]`, drawn from `U(−1/√in, 1/√in)` where the weight starts as PyTorch's does, zero otherwise.
    pub bias: Option<Tensor>,
}

impl Linear {
    /// Creates `weight` and, if asked for, `bias` under `path`.
    pub fn new(path: &Path, config: LinearConfig) -> Self {
        let shape = [config.out_features, config.in_features];
        let weight = path.var("weight", &shape, config.init.for_weight(&shape));
        let bound = 1.0 / (config.in_features as f64).sqrt();
        let bias_init = match config.init {
            super::Init::PyTorchDefault => TchInit::Uniform { lo: -bound, up: bound },
            _ => TchInit::Const(0.0),
        };
        let bias = config.bias.then(|| path.var("bias", &[config.out_features], bias_init));
        Self { name: layer_name(path), weight, bias }
    }

    /// What this layer computes on an input of `[…, in_features]`: every leading axis but the batch is a row.
    pub fn operator(&self, input: &Tensor) -> Operator {
        let size = input.size();
        let rows = size.iter().rev().skip(1).rev().skip(1).product::<i64>();
        let [out_features, in_features] = [0, 1].map(|axis| self.weight.size()[axis] as u64);
        Operator::Linear { in_features, out_features, rows: rows as u64 }
    }

    /// The parameter prefix.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl nn::Module for Linear {
    fn forward(&self, input: &Tensor) -> Tensor {
        record(&self.name, || self.operator(input));
        input.linear(&self.weight, self.bias.as_ref())
    }
}

/// Batch normalisation with running statistics.
#[derive(Debug)]
pub struct BatchNorm2d {
    config: BatchNormConfig,
    /// `[channels]`, the learned scale γ.
    pub weight: Tensor,
    /// `[channels]`, the learned shift β.
    pub bias: Tensor,
    /// `[channels]`, not trained.
    pub running_mean: Tensor,
    /// `[channels]`, not trained, unbiased.
    pub running_var: Tensor,
}

impl BatchNorm2d {
    /// Creates `weight`, `bias`, `running_mean` and `running_var` under `path`.
    pub fn new(path: &Path, config: BatchNormConfig) -> Self {
        let shape = [config.channels];
        Self {
            config,
            weight: path.var("weight", &shape, TchInit::Const(config.scale)),
            bias: path.var("bias", &shape, TchInit::Const(0.0)),
            running_mean: path.zeros_no_train("running_mean", &shape),
            running_var: path.ones_no_train("running_var", &shape),
        }
    }
}

impl ModuleT for BatchNorm2d {
    /// # Panics
    /// Like every tch layer, on an input that does not fit. In training also where a channel has a single value: its
    /// variance would be 0/0, which libtorch writes into the running one without a word.
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        assert!(
            !train || input.numel() as i64 != self.config.channels,
            "batch norm in training needs more than one value a channel, found an input of {:?}; a last batch of one \
             image is left out by `drop_last`",
            input.size()
        );
        let parameters = [&self.weight, &self.bias, &self.running_mean, &self.running_var].map(Some);
        let [weight, bias, mean, var] = parameters;
        input.batch_norm(weight, bias, mean, var, train, self.config.momentum, self.config.eps, true)
    }
}

pub(crate) fn operator_of(config: &Conv2dConfig, input: &Tensor) -> Operator {
    let size = input.size();
    let side = |from_end: usize| size[size.len() - from_end] as u64;
    Operator::Conv2d {
        in_channels: config.in_channels as u64,
        out_channels: config.out_channels as u64,
        kernel: [config.kernel as u64; 2],
        stride: [config.stride as u64; 2],
        padding: [config.padding as u64; 2],
        dilation: [1, 1],
        groups: config.groups as u64,
        input: [side(2), side(1)],
    }
}

/// The path's components joined as in a state dict: `layer1.0.conv1`.
pub(crate) fn layer_name(path: &Path) -> String {
    path.components().collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, nn::VarStore};

    #[test]
    fn one_value_a_channel_is_no_batch_to_norm_by() {
        let store = VarStore::new(Device::Cpu);
        let norm = BatchNorm2d::new(&store.root(), BatchNormConfig::new(4));
        let one = Tensor::rand([1, 4, 1, 1], (Kind::Float, Device::Cpu));
        let training = std::panic::AssertUnwindSafe(|| norm.forward_t(&one, true));
        let panic = std::panic::catch_unwind(training).unwrap_err();
        assert!(panic.downcast_ref::<String>().unwrap().contains("more than one value a channel"));
        let spread = |norm: &BatchNorm2d| Vec::<f32>::try_from(&norm.running_var).unwrap();
        assert_eq!(spread(&norm), [1.0; 4]);
        let _ = norm.forward_t(&one, false);
        let _ = norm.forward_t(&one.expand([2, 4, 1, 1], false), true);
        assert!(spread(&norm).iter().all(|variance| variance.is_finite()));
    }
}
