//! Networks of the papers, each written once against [`LayerFactory`], with the parameter names of torchvision and, for
//! [`bert`], of Hugging Face.
//!
//! An [`Architecture`] is a description; [`Architecture::build`] makes it under a variable path with any factory:
//!
//! ```
//! use core_tensor::networks::Architecture;
//! use core_tensor::nn::Standard;
//! use core_tensor::seed::{Purpose, seed_libtorch};
//! use tch::{Device, Kind, Tensor, nn};
//!
//! seed_libtorch(0, Purpose::Initialisation, 0);
//! let store = nn::VarStore::new(Device::Cpu);
//! let network = Architecture::cifar_resnet(20, 10)?.build(&store.root(), &Standard)?;
//! let images = Tensor::zeros([2, 3, 32, 32], (Kind::Float, Device::Cpu));
//! assert_eq!(network.forward(&images, false).size(), [2, 10]);
//! # Ok::<(), core_tensor::Error>(())
//! ```

pub mod bert;
mod conv_net;
mod folded;
mod language;
mod lenet;
mod mobilenet_v2;
mod resnet;
mod vgg;

pub use conv_net::{ConvNet, ConvNetConfig};
pub use language::{LanguageModel, LanguageModelConfig};
pub use lenet::{LeNet5, LeNet300100};
pub use mobilenet_v2::{MobileNetV2, MobileNetV2Config};
pub use resnet::{BlockKind, ResNet, ResNetConfig, Shortcut, Stem};
pub use vgg::{Vgg16, Vgg16Head};

use crate::nn::{LayerFactory, Network, trace_workload};
use crate::workload::Workload;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, nn};

/// A network as data: what a run's description holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "network", rename_all = "kebab-case")]
pub enum Architecture {
    /// 784-300-100-10, the fully connected net of LeCun et al. 1998 as pruning papers use it.
    #[serde(rename = "lenet-300-100")]
    LeNet300100 {
        /// Classes.
        classes: i64,
    },
    /// 20 and 50 filters of 5 × 5, then 500 hidden units, on 28 × 28 grey images.
    #[serde(rename = "lenet-5")]
    LeNet5 {
        /// Classes.
        classes: i64,
    },
    /// A stack of stride-2 convolution blocks.
    ConvNet(ConvNetConfig),
    /// A residual network with a CIFAR or an ImageNet stem.
    #[serde(rename = "resnet")]
    ResNet(ResNetConfig),
    /// VGG-16 with batch norm.
    #[serde(rename = "vgg16-bn")]
    Vgg16 {
        /// The classifier after the convolutions.
        head: Vgg16Head,
        /// Classes.
        classes: i64,
    },
    /// MobileNetV2.
    #[serde(rename = "mobilenet-v2")]
    MobileNetV2(MobileNetV2Config),
}

impl Architecture {
    /// CIFAR ResNet of He et al. 2016, section 4.2: `depth = 6n + 2`, widths 16, 32, 64, projection shortcuts.
    ///
    /// # Errors
    /// A depth that is not `6n + 2`.
    pub fn cifar_resnet(depth: u32, classes: i64) -> Result<Self> {
        ResNetConfig::cifar(depth, classes).map(Self::ResNet)
    }

    /// ImageNet ResNet-18, 34 or 50 as torchvision builds them.
    ///
    /// # Errors
    /// Another depth.
    pub fn imagenet_resnet(depth: u32, classes: i64) -> Result<Self> {
        ResNetConfig::imagenet(depth, classes).map(Self::ResNet)
    }

    /// Creates the network's variables under `path` and its layers with `factory`.
    ///
    /// Seed libtorch first ([`crate::seed::seed_libtorch`]): initial weights come from its generator.
    ///
    /// # Errors
    /// A configuration outside its range.
    pub fn build(&self, path: &nn::Path, factory: &dyn LayerFactory) -> Result<Box<dyn Network>> {
        let classes = match self {
            Self::LeNet300100 { classes } | Self::LeNet5 { classes } | Self::Vgg16 { classes, .. } => *classes,
            Self::ConvNet(config) => config.classes,
            Self::ResNet(config) => config.classes,
            Self::MobileNetV2(config) => config.classes,
        };
        if classes < 1 {
            return Err(Error::setting("classes", "at least 1", classes));
        }
        Ok(match self {
            Self::LeNet300100 { .. } => Box::new(LeNet300100::new(path, factory, classes)),
            Self::LeNet5 { .. } => Box::new(LeNet5::new(path, factory, classes)),
            Self::ConvNet(config) => Box::new(ConvNet::new(path, factory, config)?),
            Self::ResNet(config) => Box::new(ResNet::new(path, factory, config)?),
            Self::Vgg16 { head, .. } => Box::new(Vgg16::new(path, factory, *head, classes)),
            Self::MobileNetV2(config) => Box::new(MobileNetV2::new(path, factory, config)?),
        })
    }

    /// Layers, shapes and MACs for one sample of `[channels, height, width]`, found by running a throw-away copy. Its weights
    /// are drawn from libtorch's generator too: seed that after this, not before.
    ///
    /// # Errors
    /// A configuration outside its range, or a sample too small for the network.
    pub fn workload(&self, name: &str, sample: &[i64]) -> Result<Workload> {
        let store = nn::VarStore::new(Device::Cpu);
        let network = self.build(&store.root(), &crate::nn::Standard)?;
        trace_workload(name, network.as_ref(), sample, Device::Cpu)
    }
}

#[cfg(test)]
mod tests;
