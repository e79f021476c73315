//! What turns a picture into the feature that all branches share.

use core_tensor::nn::{BatchNormConfig, Conv2dConfig, LayerFactory, Module};
use tch::Tensor;
use tch::nn::Path;

/// A feature extractor: bring your own.
pub trait Backbone: std::fmt::Debug + Send {
    /// What [`forward_t`](Self::forward_t) is fed of pictures `[batch, 3, height, width]`, red, green, blue in [0, 1].
    /// Unless said otherwise `(x − 0.45) · 4`, which has roughly unit variance: a pre-trained backbone says what it was
    /// trained on, such as `(x − mean) / deviation` with ImageNet's.
    fn normalised(&self, pictures: &Tensor) -> Tensor {
        (pictures - 0.45) * 4.0
    }

    /// [Normalised](Self::normalised) pictures `[batch, 3, height, width]` to `[batch, channels, height / stride, width
    /// / stride]`.
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor;

    /// Channels of the feature.
    fn channels(&self) -> i64;

    /// How much smaller than the picture the feature is.
    fn stride(&self) -> i64;
}

/// 3 × 3 convolution without bias, batch norm, ReLU.
#[derive(Debug)]
pub(crate) struct Block {
    convolution: Module,
    norm: Module,
}

impl Block {
    pub(crate) fn new(path: &Path, factory: &dyn LayerFactory, channels: [i64; 2], stride: i64) -> Self {
        let config = Conv2dConfig::new(channels[0], channels[1], 3, stride);
        Self {
            convolution: factory.conv2d(&(path / "conv"), config),
            norm: factory.batch_norm2d(&(path / "norm"), BatchNormConfig::new(channels[1])),
        }
    }

    pub(crate) fn forward(&self, input: &Tensor, train: bool) -> Tensor {
        self.norm.forward_t(&self.convolution.forward_t(input, train), train).relu()
    }
}

/// Five blocks: `w`, `w` with stride 2, `2w`, `2w` with stride 2, `2w`. Standard width 24, quick 12.
#[derive(Debug)]
pub struct PlainBackbone {
    blocks: Vec<Block>,
    width: i64,
}

impl PlainBackbone {
    /// With layers from `factory`; [`CentralDifference`](super::CentralDifference) makes it a central-difference
    /// network.
    ///
    /// # Panics
    /// At a width outside 1 to 4096.
    pub fn new(path: &Path, factory: &dyn LayerFactory, width: i64) -> Self {
        assert!((1..=4096).contains(&width), "`width`: expected 1 to 4096, found {width}");
        let plan = [
            ([3, width], 1),
            ([width, width], 2),
            ([width, 2 * width], 1),
            ([2 * width, 2 * width], 2),
            ([2 * width, 2 * width], 1),
        ];
        let block = |(at, (channels, stride))| Block::new(&(path / format!("block{at}")), factory, channels, stride);
        Self { blocks: plan.into_iter().enumerate().map(block).collect(), width }
    }
}

impl Backbone for PlainBackbone {
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        let start = core_tensor::nn::channels_last(input);
        self.blocks.iter().fold(start, |feature, block| block.forward(&feature, train))
    }

    fn channels(&self) -> i64 {
        2 * self.width
    }

    fn stride(&self) -> i64 {
        4
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::nn::Standard;
    use tch::Device;
    use tch::nn::VarStore;

    fn build(width: i64) -> VarStore {
        let store = VarStore::new(Device::Cpu);
        PlainBackbone::new(&store.root(), &Standard, width);
        store
    }

    #[test]
    fn channels_follow_the_width() {
        let shapes = build(1);
        let size = |name: &str| shapes.variables()[name].size();
        assert_eq!((size("block0.conv.weight"), size("block4.conv.weight")), (vec![1, 3, 3, 3], vec![2, 2, 3, 3]));
    }

    #[test]
    #[should_panic(expected = "`width`: expected 1 to 4096, found 0")]
    fn no_width_is_refused() {
        build(0);
    }

    #[test]
    #[should_panic(expected = "`width`: expected 1 to 4096, found 4097")]
    fn a_width_of_gigabytes_is_refused() {
        build(4097);
    }
}
