//! The layer factory that networks are written against, and the [`Network`] trait.
//!
//! A network asks a [`LayerFactory`] for its convolutions, linear layers, norms and pooling. A method that changes *how
//! a layer computes* (fractional quantisation, dual batch norm, anti-aliasing, slimming coefficients) is one more
//! factory, and every network gains it.

mod factory;
mod init;
mod network;
mod sequence;
mod standard;
mod trace;

pub use factory::{
    BatchNormConfig, Conv2dConfig, EmbeddingConfig, GateConfig, Gated, LayerFactory, LayerNormConfig, LinearConfig,
    PoolConfig, StridedConv2d,
};
pub use init::Init;
pub use network::{Network, Tap};
pub use sequence::{Embedding, LayerNorm};
pub use standard::{BatchNorm2d, Conv2d, Linear, Standard};
pub use trace::{record, trace, trace_workload};

use tch::Tensor;

/// A layer: what a factory hands out. Any tch `ModuleT` will do.
pub type Module = Box<dyn tch::nn::ModuleT>;

/// The same values laid out `[batch, height, width, channels]` in memory; a no-op where they already are.
///
/// libtorch's CPU convolutions and batch norms follow the layout of their input, and run about 1.5 × faster so.
pub fn channels_last(images: &Tensor) -> Tensor {
    if images.dim() != 4 {
        return images.shallow_clone();
    }
    images.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}
