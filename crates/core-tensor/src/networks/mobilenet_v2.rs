//! MobileNetV2 (arXiv 1801.04381), with torchvision's parameter names.

use crate::nn::{BatchNormConfig, Conv2dConfig, Init, LayerFactory, LinearConfig, Module, Network, Tap, channels_last};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

/// MobileNetV2 at width 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MobileNetV2Config {
    /// Strides of the stem and of stages 2 and 3. ImageNet: `[2, 2, 2]`; for 32 × 32 images the custom is `[1, 1, 2]`.
    pub early_strides: [i64; 3],
    /// Classes.
    pub classes: i64,
}

/// Expansion, output channels, repeats and first stride of each stage (table 2 of the paper).
const STAGES: [(i64, i64, i64, i64); 7] =
    [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)];
const STEM: i64 = 32;
const LAST: i64 = 1280;

/// See [`MobileNetV2Config`]. Names `features.{n}.conv.…`, `classifier.1`.
#[derive(Debug)]
pub struct MobileNetV2 {
    stem: ConvNorm,
    blocks: Vec<InvertedResidual>,
    last: ConvNorm,
    classifier: Module,
}

#[derive(Debug)]
struct ConvNorm {
    conv: Module,
    norm: Module,
    reduce: Option<Module>,
}

/// Expand (1 × 1), depthwise 3 × 3, project (1 × 1, no activation); added to its input where shapes allow.
#[derive(Debug)]
struct InvertedResidual {
    activated: Vec<ConvNorm>,
    project: ConvNorm,
    residual: bool,
}

impl ConvNorm {
    fn new(conv: &nn::Path, norm: &nn::Path, factory: &dyn LayerFactory, config: Conv2dConfig) -> Self {
        let conv = factory.strided_conv2d(conv, config);
        let norm = factory.batch_norm2d(norm, BatchNormConfig::new(config.out_channels));
        Self { conv: conv.conv, norm, reduce: conv.reduce }
    }

    fn linear(&self, input: &Tensor, train: bool) -> Tensor {
        self.norm.forward_t(&self.conv.forward_t(input, train), train)
    }

    fn activated(&self, input: &Tensor, train: bool) -> Tensor {
        let output = self.linear(input, train).clamp(0.0, 6.0);
        match &self.reduce {
            Some(reduce) => reduce.forward_t(&output, train),
            None => output,
        }
    }
}

impl MobileNetV2 {
    /// Builds the stem, seventeen blocks, the last convolution and the classifier.
    ///
    /// # Errors
    /// A stride below 1, or no class.
    pub fn new(path: &nn::Path, factory: &dyn LayerFactory, config: &MobileNetV2Config) -> Result<Self> {
        if let Some(stride) = config.early_strides.iter().find(|stride| **stride < 1) {
            return Err(Error::setting("early_strides", "at least 1 each", stride));
        }
        if config.classes < 1 {
            return Err(Error::setting("classes", "at least 1", config.classes));
        }
        let features = path / "features";
        let numbered =
            |parent: &nn::Path, conv: Conv2dConfig| ConvNorm::new(&(parent / 0), &(parent / 1), factory, conv);
        let [stem_stride, stage2, stage3] = config.early_strides;
        let stem = numbered(&(&features / 0), Conv2dConfig::new(3, STEM, 3, stem_stride));
        let (mut in_channels, mut number) = (STEM, 1);
        let mut blocks = Vec::new();
        for (stage, (expansion, out_channels, repeats, published)) in STAGES.into_iter().enumerate() {
            let first = [published, stage2, stage3].get(stage).copied().unwrap_or(published);
            for repeat in 0..repeats {
                let stride = if repeat == 0 { first } else { 1 };
                let conv = &features / number / "conv";
                let hidden = in_channels * expansion;
                let mut activated = Vec::new();
                if expansion != 1 {
                    activated.push(numbered(&(&conv / 0), Conv2dConfig::new(in_channels, hidden, 1, 1)));
                }
                let depthwise = Conv2dConfig { groups: hidden, ..Conv2dConfig::new(hidden, hidden, 3, stride) };
                activated.push(numbered(&(&conv / activated.len()), depthwise));
                let (index, config) = (activated.len(), Conv2dConfig::new(hidden, out_channels, 1, 1));
                let project = ConvNorm::new(&(&conv / index), &(&conv / (index + 1)), factory, config);
                let residual = stride == 1 && in_channels == out_channels;
                blocks.push(InvertedResidual { activated, project, residual });
                (in_channels, number) = (out_channels, number + 1);
            }
        }
        let last = numbered(&(&features / number), Conv2dConfig::new(in_channels, LAST, 1, 1));
        let linear = LinearConfig { init: Init::Normal { std: 0.01 }, ..LinearConfig::new(LAST, config.classes) };
        Ok(Self { stem, blocks, last, classifier: factory.linear(&(path / "classifier" / 1), linear) })
    }

    fn pooled(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        let mut map = self.stem.activated(&channels_last(input), train);
        tap("features.0", &map);
        for (index, block) in self.blocks.iter().enumerate() {
            let mut hidden = map.shallow_clone();
            for layer in &block.activated {
                hidden = layer.activated(&hidden, train);
            }
            let projected = block.project.linear(&hidden, train);
            map = if block.residual { projected + map } else { projected };
            tap(&format!("features.{}", index + 1), &map);
        }
        let pooled = self.last.activated(&map, train).adaptive_avg_pool2d([1, 1]).flatten(1, -1);
        tap("avgpool", &pooled);
        pooled
    }
}

impl Network for MobileNetV2 {
    fn forward_tapped(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        let pooled = self.pooled(input, train, tap).dropout(0.2, train);
        self.classifier.forward_t(&pooled, train)
    }

    fn features(&self, input: &Tensor, train: bool) -> Tensor {
        self.pooled(input, train, &mut |_, _| {})
    }

    fn feature_size(&self) -> i64 {
        LAST
    }

    fn classifier(&self) -> &str {
        "classifier.1"
    }
}
