//! The contract between networks and the methods that change how a layer computes.

use super::{Embedding, Init, LayerNorm, Module};
use tch::nn::Path;

/// A square 2-d convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conv2dConfig {
    /// Channels of the input.
    pub in_channels: i64,
    /// Filters.
    pub out_channels: i64,
    /// Kernel height and width.
    pub kernel: i64,
    /// Stride in both directions.
    pub stride: i64,
    /// Zeros added on each side.
    pub padding: i64,
    /// Independent groups.
    pub groups: i64,
    /// Whether a bias is learned.
    pub bias: bool,
    /// How the weight starts.
    pub init: Init,
}

impl Conv2dConfig {
    /// A "same" convolution without bias for odd kernels (`padding = kernel / 2`), Kaiming-normal by fan-out.
    pub fn new(in_channels: i64, out_channels: i64, kernel: i64, stride: i64) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel,
            stride,
            padding: kernel / 2,
            groups: 1,
            bias: false,
            init: Init::KaimingNormalFanOut,
        }
    }
}

/// A linear layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LinearConfig {
    /// Length of an input vector.
    pub in_features: i64,
    /// Length of an output vector.
    pub out_features: i64,
    /// Whether a bias is learned.
    pub bias: bool,
    /// How the weight starts.
    pub init: Init,
}

impl LinearConfig {
    /// With bias, PyTorch's default start.
    pub fn new(in_features: i64, out_features: i64) -> Self {
        Self { in_features, out_features, bias: true, init: Init::PyTorchDefault }
    }
}

/// Batch normalisation over `[batch, channels, height, width]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNormConfig {
    /// Channels.
    pub channels: i64,
    /// Added to the variance.
    pub eps: f64,
    /// Weight of a new batch in the running statistics.
    pub momentum: f64,
    /// Where the scale starts: 1, or 0 to make a residual branch start silent.
    pub scale: f64,
}

impl BatchNormConfig {
    /// PyTorch's defaults: eps 1e-5, momentum 0.1, scale 1, shift 0. (tch's own default draws the scale from U(0, 1).)
    pub fn new(channels: i64) -> Self {
        Self { channels, eps: 1e-5, momentum: 0.1, scale: 1.0 }
    }
}

/// A table of vectors looked up by number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmbeddingConfig {
    /// Rows.
    pub entries: i64,
    /// Length of a row.
    pub features: i64,
    /// A row, counted from 0, that starts at zero and receives no gradient: the padding token's.
    pub padding: Option<i64>,
    /// How the other rows start.
    pub init: Init,
}

impl EmbeddingConfig {
    /// PyTorch's default: `N(0, 1)`, no padding row.
    pub fn new(entries: i64, features: i64) -> Self {
        Self { entries, features, padding: None, init: Init::Normal { std: 1.0 } }
    }
}

/// Normalisation of the last axis of `[…, features]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerNormConfig {
    /// Length of the last axis.
    pub features: i64,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNormConfig {
    /// PyTorch's eps 1e-5; scale 1 and shift 0 at the start.
    pub fn new(features: i64) -> Self {
        Self { features, eps: 1e-5 }
    }
}

/// What a [gate](LayerFactory::gate) scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gated {
    /// Attention heads: the input is `[batch, heads, tokens, head size]`, attention already applied.
    Heads,
    /// Hidden neurons of a feed-forward layer, after the activation: the input is `[…, neurons]`.
    Neurons,
}

/// A place where a transformer layer lets a method scale its structures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateConfig {
    /// What is scaled.
    pub gated: Gated,
    /// How many heads or neurons there are.
    pub units: i64,
}

/// A square max pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolConfig {
    /// Channels, which anti-aliased pooling needs to know.
    pub channels: i64,
    /// Window height and width.
    pub kernel: i64,
    /// Stride in both directions.
    pub stride: i64,
    /// Padding on each side.
    pub padding: i64,
}

/// A convolution that reduces resolution, in the two steps that anti-aliasing needs.
#[derive(Debug)]
pub struct StridedConv2d {
    /// The convolution; strided itself when there is no `reduce`.
    pub conv: Module,
    /// What reduces resolution after the convolution's norm and activation, if the convolution does not.
    pub reduce: Option<Module>,
}

/// Makes the layers of a network under a variable path.
///
/// The parameter names under `path` must be those of [`Standard`](super::Standard) (`weight`, `bias`, `running_mean`,
/// `running_var`) wherever a layer has these parameters, so that published weights load by name; extra parameters get
/// names of their own. Layers that compute multiply-accumulates call [`record`](super::record) in their forward pass,
/// so that [`trace_workload`](super::trace_workload) sees them.
pub trait LayerFactory {
    /// A convolution.
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module;

    /// A linear layer.
    fn linear(&self, path: &Path, config: LinearConfig) -> Module;

    /// A batch normalisation.
    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module;

    /// A table of vectors; takes `i64` numbers of any shape and appends an axis.
    fn embedding(&self, path: &Path, config: EmbeddingConfig) -> Module {
        Box::new(Embedding::new(path, config))
    }

    /// A layer normalisation.
    fn layer_norm(&self, path: &Path, config: LayerNormConfig) -> Module {
        Box::new(LayerNorm::new(path, config))
    }

    /// What scales the heads or neurons of a transformer layer; nothing, as published networks have it.
    fn gate(&self, _path: &Path, _config: GateConfig) -> Option<Module> {
        None
    }

    /// Max pooling.
    fn max_pool2d(&self, config: PoolConfig) -> Module {
        Box::new(tch::nn::func(move |input| {
            input.max_pool2d([config.kernel; 2], [config.stride; 2], [config.padding; 2], [1, 1], false)
        }))
    }

    /// A main-path convolution with a stride, followed in the network by norm, activation, then `reduce`.
    fn strided_conv2d(&self, path: &Path, config: Conv2dConfig) -> StridedConv2d {
        StridedConv2d { conv: self.conv2d(path, config), reduce: None }
    }

    /// The convolution of a shortcut that changes shape. A stride here acts on the input, before the convolution.
    ///
    /// Asked for after the layers of the branch that it passes by: a factory may let both halve resolution in the same way.
    fn shortcut_conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        self.conv2d(path, config)
    }
}
