//! A view of the whole picture for backbones that see little around a pixel.

use super::backbone::{Backbone, Block};
use core_tensor::nn::LayerFactory;
use tch::Tensor;
use tch::nn::Path;

/// Cells of the coarse grid along a side.
const CELLS: i64 = 4;

/// A backbone whose feature knows the whole picture: the feature's means over a grid of 4 × 4 cells go through three
/// blocks (3 × 3 convolution, batch norm, ReLU), as many as join every cell with all others, and what they say is laid
/// bilinearly over the feature and added to it.
///
/// Where in the picture a pixel is, and what stands in front of what, cannot be read off a small window: a
/// [`PlainBackbone`](super::PlainBackbone) and a branch on it see 29 × 29 pixels, whatever the picture's size.
#[derive(Debug)]
pub struct WithContext {
    backbone: Box<dyn Backbone>,
    blocks: [Block; 3],
}

impl WithContext {
    /// Blocks built by `factory` under `path`, as wide as the backbone's feature.
    pub fn new(path: &Path, factory: &dyn LayerFactory, backbone: Box<dyn Backbone>) -> Self {
        let channels = backbone.channels();
        let block = |at: usize| Block::new(&(path / format!("block{at}")), factory, [channels; 2], 1);
        Self { blocks: [block(0), block(1), block(2)], backbone }
    }
}

impl Backbone for WithContext {
    fn normalised(&self, pictures: &Tensor) -> Tensor {
        self.backbone.normalised(pictures)
    }

    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        let feature = self.backbone.forward_t(input, train);
        let coarse = feature.adaptive_avg_pool2d([CELLS, CELLS]);
        let context = self.blocks.iter().fold(coarse, |coarse, block| block.forward(&coarse, train));
        let side = |at: usize| feature.size()[at];
        &feature + context.upsample_bilinear2d([side(2), side(3)], false, None, None)
    }

    fn channels(&self) -> i64 {
        self.backbone.channels()
    }

    fn stride(&self) -> i64 {
        self.backbone.stride()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fas::model::PlainBackbone;
    use core_tensor::nn::Standard;
    use tch::nn::VarStore;
    use tch::{Device, Kind, no_grad};

    /// Both backbones with the same plain one beneath, all weights fixed and positive.
    fn pair() -> [(VarStore, Box<dyn Backbone>); 2] {
        [false, true].map(|context| {
            let store = VarStore::new(Device::Cpu);
            let plain = Box::new(PlainBackbone::new(&(store.root() / "backbone"), &Standard, 2));
            let backbone: Box<dyn Backbone> =
                if context { Box::new(WithContext::new(&(store.root() / "context"), &Standard, plain)) } else { plain };
            for (name, mut variable) in store.variables() {
                if name.ends_with("conv.weight") {
                    let _ = no_grad(|| variable.fill_(0.1));
                }
            }
            (store, backbone)
        })
    }

    /// By how much the feature's first corner moves with each pixel of a picture of 64 × 64.
    fn sensitivity(backbone: &dyn Backbone) -> Tensor {
        let picture = Tensor::full([1, 3, 64, 64], 0.5, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        backbone.forward_t(&picture, false).select(3, 0).select(2, 0).sum(Kind::Float).backward();
        picture.grad().sum_dim_intlist([0_i64, 1].as_slice(), false, Kind::Float)
    }

    #[test]
    fn every_pixel_counts_everywhere_where_few_did() {
        let [(_plain, plain), (_context, context)] = pair();
        let seen = |backbone: &dyn Backbone| sensitivity(backbone).gt(0.0).sum(Kind::Int64).int64_value(&[]);
        // 21 pixels around the first of every fourth, those inside the picture: 0 to 10 each way.
        assert_eq!((seen(plain.as_ref()), seen(context.as_ref())), (11 * 11, 64 * 64));
    }

    #[test]
    fn the_feature_keeps_its_shape_whatever_the_sides() {
        let [(_plain, plain), (_context, context)] = pair();
        assert_eq!((context.channels(), context.stride()), (plain.channels(), plain.stride()));
        for sides in [[8, 8], [20, 28], [64, 36]] {
            let picture = Tensor::full([2, 3, sides[0], sides[1]], 0.5, (Kind::Float, Device::Cpu));
            let [with, without] = [&context, &plain].map(|backbone| backbone.forward_t(&picture, true));
            assert_eq!((with.size(), with.kind()), (without.size(), without.kind()), "{sides:?}");
        }
    }

    #[test]
    fn a_uniform_context_is_added_as_it_is() {
        let [(_plain, plain), (store, context)] = pair();
        // The last block's norm says 3 everywhere.
        let variables = store.variables();
        no_grad(|| {
            let _ = variables["context.block2.norm.weight"].shallow_clone().fill_(0.0);
            let _ = variables["context.block2.norm.bias"].shallow_clone().fill_(3.0);
        });
        let picture = Tensor::arange(3 * 32 * 24, (Kind::Float, Device::Cpu)).sin().view([1, 3, 32, 24]);
        let off = context.forward_t(&picture, false) - plain.forward_t(&picture, false) - 3.0;
        assert!(off.abs().max().double_value(&[]) < 1e-5);
        assert_eq!(context.normalised(&picture), plain.normalised(&picture));
    }
}
