//! A small convolutional net for experiments that must finish on a laptop.

use crate::nn::{BatchNormConfig, Conv2dConfig, LayerFactory, LinearConfig, Module, Network, Tap, channels_last};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

/// Blocks of conv 3 × 3, batch norm, ReLU; every block but the first halves the resolution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConvNetConfig {
    /// Channels of the input images.
    pub in_channels: i64,
    /// Filters of each block, such as `[32, 64, 128]`.
    pub widths: Vec<i64>,
    /// Classes.
    pub classes: i64,
}

/// See [`ConvNetConfig`]. Names `conv{i}`, `bn{i}` from 1, then `fc` on globally averaged features.
#[derive(Debug)]
pub struct ConvNet {
    blocks: Vec<Block>,
    fc: Module,
    feature_size: i64,
}

#[derive(Debug)]
struct Block {
    name: String,
    conv: Module,
    norm: Module,
    reduce: Option<Module>,
}

impl ConvNet {
    /// Builds the blocks and the classifier.
    ///
    /// # Errors
    /// No block, or a width, channels or classes below 1.
    pub fn new(path: &nn::Path, factory: &dyn LayerFactory, config: &ConvNetConfig) -> Result<Self> {
        let Some(&feature_size) = config.widths.last() else {
            return Err(Error::setting("widths", "at least one block", "[]"));
        };
        if let Some(width) = config.widths.iter().find(|width| **width < 1) {
            return Err(Error::setting("widths", "at least 1 filter a block", width));
        }
        if config.in_channels < 1 {
            return Err(Error::setting("in_channels", "at least 1", config.in_channels));
        }
        if config.classes < 1 {
            return Err(Error::setting("classes", "at least 1", config.classes));
        }
        let mut in_channels = config.in_channels;
        let blocks = config.widths.iter().enumerate().map(|(index, &width)| {
            let number = index + 1;
            let stride = if index == 0 { 1 } else { 2 };
            let conv_config = Conv2dConfig::new(in_channels, width, 3, stride);
            in_channels = width;
            let conv = factory.strided_conv2d(&(path / format!("conv{number}")), conv_config);
            Block {
                name: format!("conv{number}"),
                conv: conv.conv,
                norm: factory.batch_norm2d(&(path / format!("bn{number}")), BatchNormConfig::new(width)),
                reduce: conv.reduce,
            }
        });
        let blocks = blocks.collect();
        let fc = factory.linear(&(path / "fc"), LinearConfig::new(feature_size, config.classes));
        Ok(Self { blocks, fc, feature_size })
    }

    fn pooled(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        let mut map = channels_last(input);
        for block in &self.blocks {
            map = block.norm.forward_t(&block.conv.forward_t(&map, train), train).relu_();
            if let Some(reduce) = &block.reduce {
                map = reduce.forward_t(&map, train);
            }
            tap(&block.name, &map);
        }
        let pooled = map.adaptive_avg_pool2d([1, 1]).flatten(1, -1);
        tap("avgpool", &pooled);
        pooled
    }
}

impl Network for ConvNet {
    fn forward_tapped(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        self.fc.forward_t(&self.pooled(input, train, tap), train)
    }

    fn features(&self, input: &Tensor, train: bool) -> Tensor {
        self.pooled(input, train, &mut |_, _| {})
    }

    fn feature_size(&self) -> i64 {
        self.feature_size
    }

    fn classifier(&self) -> &str {
        "fc"
    }
}
