//! A small backbone that leaves a feature map.

use super::{Error, Result};
use core_tensor::nn::{BatchNormConfig, Conv2dConfig, LayerFactory, Module, Network, channels_last};
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

/// What lies beyond the border of a map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Zeros, as usual.
    #[default]
    Zeros,
    /// The opposite border, so that shifting the image by the total stride shifts the map.
    Circular,
}

/// Four convolutions of 3 × 3 with batch norm and ReLU, the first two followed by 2 × 2 max pooling: images of 28 × 28
/// become 64 maps of 7 × 7. Names `conv1` to `conv4` and `bn1` to `bn4`.
#[derive(Debug)]
pub struct Conv4 {
    layers: Vec<(Module, Module)>,
    padding: Padding,
}

impl Conv4 {
    /// Filters of the last layer.
    pub const CHANNELS: i64 = 64;
    /// Pixels of the image between two positions of the map.
    pub const STRIDE: i64 = 4;

    /// Creates the variables under `path`, layers made by `factory`.
    pub fn new(path: &nn::Path, factory: &dyn LayerFactory, in_channels: i64, padding: Padding) -> Self {
        let widths = [in_channels, 32, 64, 64, Self::CHANNELS];
        let layers = (1..=4).map(|number| {
            let config = Conv2dConfig::new(widths[number - 1], widths[number], 3, 1);
            let outside = if padding == Padding::Circular { 0 } else { 1 };
            let conv = factory.conv2d(&(path / format!("conv{number}")), Conv2dConfig { padding: outside, ..config });
            (conv, factory.batch_norm2d(&(path / format!("bn{number}")), BatchNormConfig::new(widths[number])))
        });
        Self { layers: layers.collect(), padding }
    }

    /// From `[batch, in_channels, height, width]` to `[batch, 64, height / 4, width / 4]`.
    pub fn forward(&self, images: &Tensor, train: bool) -> Tensor {
        let mut map = channels_last(images);
        for (number, (conv, norm)) in self.layers.iter().enumerate() {
            if self.padding == Padding::Circular {
                map = map.pad([1_i64, 1, 1, 1], "circular", None);
            }
            map = norm.forward_t(&conv.forward_t(&map, train), train).relu_();
            if number < 2 {
                map = map.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
            }
        }
        map
    }
}

/// The feature map that a [`Network`] names `tap`, such as `layer4` of a ResNet: what a
/// [`GroupingHead`](super::GroupingHead) sees.
///
/// # Errors
/// The network calls no map so.
pub fn feature_map(network: &dyn Network, tap: &str, images: &Tensor, train: bool) -> Result<Tensor> {
    let mut found = None;
    let mut names = Vec::new();
    let _ = network.forward_tapped(images, train, &mut |name, map| {
        if name == tap {
            found = Some(map.shallow_clone());
        }
        names.push(name.to_owned());
    });
    found.ok_or_else(|| Error::setting("tap", format!("one of {}", names.join(", ")), tap))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::networks::Architecture;
    use core_tensor::nn::Standard;
    use core_tensor::seed::{Purpose, generator};
    use rand::Rng;
    use tch::{Device, Kind};

    use crate::grouping::{AttentiveGrouping, AttentiveGroupingConfig, GroupingHead};

    fn images(seed: u64) -> Tensor {
        let mut rng = generator(seed, Purpose::Data, 0);
        let values: Vec<f32> = (0..2 * 28 * 28).map(|_| rng.random_range(0.0..1.0)).collect();
        Tensor::from_slice(&values).view([2, 1, 28, 28])
    }

    /// Largest change of the embedding when the image is rolled to the right.
    fn change(padding: Padding, pixels: i64) -> f64 {
        let store = nn::VarStore::new(Device::Cpu);
        let backbone = Conv4::new(&store.root(), &Standard, 1, padding);
        let config = AttentiveGroupingConfig { reduction: 4, ..AttentiveGroupingConfig::new(64, 4, 64) };
        let head = AttentiveGrouping::new(&(store.root() / "head"), config).unwrap();
        let embed = |images: &Tensor| tch::no_grad(|| head.forward(&backbone.forward(images, false)).unwrap().concat());
        let images = images(1);
        let moved = images.roll([pixels], [3]);
        (embed(&images) - embed(&moved)).abs().max().double_value(&[])
    }

    #[test]
    fn circular_padding_and_a_multiple_of_the_stride_leave_the_embedding() {
        // Sums of f32 in another order, of unit vectors.
        assert!(change(Padding::Circular, Conv4::STRIDE) < 1e-5);
        assert!(change(Padding::Circular, 2 * Conv4::STRIDE) < 1e-5);
    }

    #[test]
    fn other_shifts_and_zeros_at_the_border_do_not() {
        assert!(change(Padding::Circular, 1) > 1e-4);
        assert!(change(Padding::Zeros, Conv4::STRIDE) > 1e-4);
    }

    /// An image of 16 × 16 map positions, constant but for an object of one position's size at two positions of the
    /// middle row.
    fn placed(column: i64) -> Tensor {
        let image = Tensor::full([1, 1, 64, 64], 0.5, (Kind::Float, Device::Cpu));
        let object = images(2).narrow(0, 0, 1).narrow(2, 0, 4).narrow(3, 0, 4);
        image.narrow(2, 28, 4).narrow(3, Conv4::STRIDE * column, 4).copy_(&object);
        image
    }

    #[test]
    fn an_object_on_a_constant_background_may_move_by_the_stride_away_from_the_border() {
        let store = nn::VarStore::new(Device::Cpu);
        let backbone = Conv4::new(&store.root(), &Standard, 1, Padding::Zeros);
        let config = AttentiveGroupingConfig { reduction: 4, ..AttentiveGroupingConfig::new(64, 4, 64) };
        let head = AttentiveGrouping::new(&(store.root() / "head"), config).unwrap();
        let embed = |column| tch::no_grad(|| head.forward(&backbone.forward(&placed(column), false)).unwrap().concat());
        let change = |from, to| (embed(from) - embed(to)).abs().max().double_value(&[]);
        // Zeros outside reach three positions into the map, and an object three to either side: from 6 to 9 of 16 they
        // stay apart.
        assert!(change(6, 7) < 1e-5 && change(6, 9) < 1e-5, "{} and {}", change(6, 7), change(6, 9));
        assert!(change(6, 1) > 1e-4 && change(1, 0) > 1e-4, "{} and {}", change(6, 1), change(1, 0));
    }

    #[test]
    fn maps_of_a_network_are_found_by_name() {
        let store = nn::VarStore::new(Device::Cpu);
        let network = Architecture::cifar_resnet(8, 10).unwrap().build(&store.root(), &Standard).unwrap();
        let images = Tensor::zeros([1, 3, 32, 32], (Kind::Float, Device::Cpu));
        assert_eq!(feature_map(network.as_ref(), "layer3", &images, false).unwrap().size(), [1, 64, 8, 8]);
        let refused = feature_map(network.as_ref(), "layer9", &images, false).unwrap_err().to_string();
        assert!(refused.contains("layer3") && refused.contains("layer9"), "{refused}");
    }
}
