//! VGG-16 with batch norm, in torchvision's numbering of `features`.

use crate::nn::{
    BatchNormConfig, Conv2dConfig, Init, LayerFactory, LinearConfig, Module, Network, PoolConfig, Tap, channels_last,
};
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

/// The classifier after the convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vgg16Head {
    /// Pooling to 7 × 7, then 4096-4096-classes with dropout: torchvision's, for 224 × 224 images.
    Imagenet,
    /// Global average, then one linear layer: for 32 × 32 images.
    Cifar,
}

/// Filters of the thirteen convolutions in five groups, each group followed by max pooling 2 × 2.
const GROUPS: [&[i64]; 5] = [&[64, 64], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]];

/// VGG-16-BN. Names `features.{n}` with torchvision's numbers, `classifier.{0,3,6}` or `classifier`.
#[derive(Debug)]
pub struct Vgg16 {
    groups: Vec<Group>,
    head: Vgg16Head,
    hidden: Vec<Module>,
    classifier: Module,
}

#[derive(Debug)]
struct Group {
    layers: Vec<(Module, Module)>,
    pool: Module,
}

impl Vgg16 {
    /// Builds the thirteen convolutions and the classifier.
    pub fn new(path: &nn::Path, factory: &dyn LayerFactory, head: Vgg16Head, classes: i64) -> Self {
        let features = path / "features";
        let (mut number, mut in_channels) = (0, 3);
        let mut groups = Vec::new();
        for widths in GROUPS {
            let mut layers = Vec::new();
            for &width in widths {
                let conv = Conv2dConfig { bias: true, ..Conv2dConfig::new(in_channels, width, 3, 1) };
                let conv = factory.conv2d(&(&features / number), conv);
                let norm = factory.batch_norm2d(&(&features / (number + 1)), BatchNormConfig::new(width));
                layers.push((conv, norm));
                (number, in_channels) = (number + 3, width);
            }
            let pool = PoolConfig { channels: in_channels, kernel: 2, stride: 2, padding: 0 };
            groups.push(Group { layers, pool: factory.max_pool2d(pool) });
            number += 1;
        }
        let linear = |path: &nn::Path, inputs, outputs| {
            let config = LinearConfig { init: Init::Normal { std: 0.01 }, ..LinearConfig::new(inputs, outputs) };
            factory.linear(path, config)
        };
        let classifier = path / "classifier";
        let (hidden, classifier) = match head {
            Vgg16Head::Imagenet => (
                vec![linear(&(&classifier / 0), 512 * 49, 4096), linear(&(&classifier / 3), 4096, 4096)],
                linear(&(&classifier / 6), 4096, classes),
            ),
            Vgg16Head::Cifar => (Vec::new(), linear(&classifier, 512, classes)),
        };
        Self { groups, head, hidden, classifier }
    }

    fn pooled(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        let mut map = channels_last(input);
        for (index, group) in self.groups.iter().enumerate() {
            for (conv, norm) in &group.layers {
                map = norm.forward_t(&conv.forward_t(&map, train), train).relu_();
            }
            map = group.pool.forward_t(&map, train);
            tap(&format!("features.{}", index + 1), &map);
        }
        let side = if self.head == Vgg16Head::Imagenet { 7 } else { 1 };
        let mut hidden = map.adaptive_avg_pool2d([side, side]).flatten(1, -1);
        for layer in &self.hidden {
            hidden = layer.forward_t(&hidden, train).relu_().dropout(0.5, train);
        }
        tap("avgpool", &hidden);
        hidden
    }
}

impl Network for Vgg16 {
    fn forward_tapped(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        self.classifier.forward_t(&self.pooled(input, train, tap), train)
    }

    fn features(&self, input: &Tensor, train: bool) -> Tensor {
        self.pooled(input, train, &mut |_, _| {})
    }

    fn feature_size(&self) -> i64 {
        match self.head {
            Vgg16Head::Imagenet => 4096,
            Vgg16Head::Cifar => 512,
        }
    }

    fn classifier(&self) -> &str {
        match self.head {
            Vgg16Head::Imagenet => "classifier.6",
            Vgg16Head::Cifar => "classifier",
        }
    }
}
