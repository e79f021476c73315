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
    match images.size()[..] {
        // With one channel both layouts are one order of values, and the stride of the axis of length 1 alone tells libtorch
        // which of them is meant for the maps that follow: 1 is channels last.
        [_, 1, _, _] => images.contiguous().squeeze_dim(1).unsqueeze(-1).permute([0, 3, 1, 2]),
        [_, _, _, _] => images.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
        _ => images.shallow_clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn channels_come_last_whatever_their_number_and_stay_there_behind_a_convolution() {
        for channels in [1, 2, 3] {
            let images = Tensor::rand([2, channels, 4, 5], (Kind::Float, Device::Cpu));
            let last = channels_last(&images);
            assert_eq!(last, images);
            assert_eq!(last.stride(), [20 * channels, 1, 5 * channels, channels]);
            let weight = Tensor::rand([6, channels, 3, 3], (Kind::Float, Device::Cpu));
            let map = last.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
            assert_eq!(map.stride(), [120, 1, 30, 6]);
            assert_eq!(channels_last(&last).data_ptr(), last.data_ptr());
        }
        let rows = Tensor::rand([2, 3], (Kind::Float, Device::Cpu));
        assert_eq!(channels_last(&rows), rows);
    }
}
