//! Residual networks: the CIFAR family of He et al. 2016 (arXiv 1512.03385, section 4.2) and the ImageNet family.
//!
//! Names are torchvision's for both: `conv1`, `bn1`, `layer{s}.{i}.conv{k}`, `layer{s}.{i}.bn{k}`,
//! `layer{s}.0.downsample.{0,1}`, `fc`.

use crate::nn::{
    BatchNormConfig, Conv2dConfig, LayerFactory, LinearConfig, Module, Network, PoolConfig, Tap, channels_last,
};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

/// A residual network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResNetConfig {
    /// Channels of the input images.
    pub in_channels: i64,
    /// What comes before the first stage.
    pub stem: Stem,
    /// The kind of every block.
    pub block: BlockKind,
    /// Width of each stage, before expansion.
    pub widths: Vec<i64>,
    /// Blocks in each stage; every stage but the first halves the resolution.
    pub blocks: Vec<i64>,
    /// How a shortcut changes shape.
    pub shortcut: Shortcut,
    /// Classes.
    pub classes: i64,
}

/// What comes before the first stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stem {
    /// 3 × 3, stride 1, for images of about 32 × 32.
    Cifar,
    /// 3 × 3, stride 2: the same at a quarter of the cost, for small machines.
    Strided,
    /// 7 × 7, stride 2, then max pooling 3 × 3, stride 2.
    Imagenet,
}

/// The kind of a residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockKind {
    /// Two 3 × 3 convolutions.
    Basic,
    /// 1 × 1, 3 × 3 (which carries the stride), 1 × 1 to four times the width.
    Bottleneck,
}

/// How a shortcut changes shape (He et al. 2016, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortcut {
    /// Option B: 1 × 1 convolution and batch norm.
    Projection,
    /// Option A: every second pixel, new channels zero, no parameters.
    ZeroPadding,
}

impl BlockKind {
    fn expansion(self) -> i64 {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

impl ResNetConfig {
    /// Depth 20, 32, 44, 56, 74, 110, … = `6n + 2`; basic blocks, widths 16, 32, 64, projection shortcuts, RGB input.
    ///
    /// # Errors
    /// A depth that is not `6n + 2`.
    pub fn cifar(depth: u32, classes: i64) -> Result<Self> {
        if depth < 8 || !(depth - 2).is_multiple_of(6) {
            return Err(Error::setting("depth", "6n + 2 with n ≥ 1 (8, 20, 32, 44, 56, 74, 110, …)", depth));
        }
        Ok(Self {
            in_channels: 3,
            stem: Stem::Cifar,
            block: BlockKind::Basic,
            widths: vec![16, 32, 64],
            blocks: vec![i64::from(depth - 2) / 6; 3],
            shortcut: Shortcut::Projection,
            classes,
        })
    }

    /// ResNet-18, 34 or 50 on RGB images of about 224 × 224, as torchvision builds them.
    ///
    /// # Errors
    /// Another depth.
    pub fn imagenet(depth: u32, classes: i64) -> Result<Self> {
        let (block, blocks) = match depth {
            18 => (BlockKind::Basic, [2, 2, 2, 2]),
            34 => (BlockKind::Basic, [3, 4, 6, 3]),
            50 => (BlockKind::Bottleneck, [3, 4, 6, 3]),
            _ => return Err(Error::setting("depth", "18, 34 or 50", depth)),
        };
        Ok(Self {
            in_channels: 3,
            stem: Stem::Imagenet,
            block,
            widths: vec![64, 128, 256, 512],
            blocks: blocks.to_vec(),
            shortcut: Shortcut::Projection,
            classes,
        })
    }

    /// The same network with a 3 × 3 stem for images of about 32 × 32.
    pub fn with_cifar_stem(self) -> Self {
        Self { stem: Stem::Cifar, ..self }
    }

    fn validate(&self) -> Result<()> {
        if self.widths.is_empty() || self.widths.len() != self.blocks.len() {
            let found = format!("{} widths and {} block counts", self.widths.len(), self.blocks.len());
            return Err(Error::setting("stages", "as many widths as block counts, at least one", found));
        }
        let below_one = |values: &[i64]| values.iter().any(|value| *value < 1);
        if below_one(&self.widths) || below_one(&self.blocks) || self.in_channels < 1 {
            let found = format!("{} channels, widths {:?}, blocks {:?}", self.in_channels, self.widths, self.blocks);
            return Err(Error::setting("stages", "sizes of at least 1", found));
        }
        if self.classes < 1 {
            return Err(Error::setting("classes", "at least 1", self.classes));
        }
        Ok(())
    }
}

/// See [`ResNetConfig`].
#[derive(Debug)]
pub struct ResNet {
    conv1: Module,
    bn1: Module,
    stem_reduce: Option<Module>,
    max_pool: Option<Module>,
    stages: Vec<Vec<Block>>,
    fc: Module,
    feature_size: i64,
}

/// `relu(branch(x) + shortcut(x))`; the branch is conv, norm, ReLU (and reduction) repeated, without the last ReLU.
#[derive(Debug)]
struct Block {
    branch: Vec<BranchLayer>,
    shortcut: BlockShortcut,
}

#[derive(Debug)]
struct BranchLayer {
    conv: Module,
    norm: Module,
    reduce: Option<Module>,
}

#[derive(Debug)]
enum BlockShortcut {
    Identity,
    Projection { conv: Module, norm: Module },
    ZeroPadding { stride: i64, before: i64, after: i64 },
}

impl ResNet {
    /// Builds all stages and the classifier.
    ///
    /// # Errors
    /// A configuration outside its range.
    pub fn new(path: &nn::Path, factory: &dyn LayerFactory, config: &ResNetConfig) -> Result<Self> {
        config.validate()?;
        let stem_width = config.widths[0];
        let stem = match config.stem {
            Stem::Cifar => Conv2dConfig::new(config.in_channels, stem_width, 3, 1),
            Stem::Strided => Conv2dConfig::new(config.in_channels, stem_width, 3, 2),
            Stem::Imagenet => Conv2dConfig::new(config.in_channels, stem_width, 7, 2),
        };
        let stem = factory.strided_conv2d(&(path / "conv1"), stem);
        let pool = PoolConfig { channels: stem_width, kernel: 3, stride: 2, padding: 1 };

        let mut in_channels = stem_width;
        let mut stages = Vec::new();
        for (stage, (&width, &count)) in config.widths.iter().zip(&config.blocks).enumerate() {
            let stage_path = path / format!("layer{}", stage + 1);
            let mut blocks = Vec::new();
            for index in 0..count {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                blocks.push(Block::new(&(&stage_path / index), factory, config, in_channels, width, stride));
                in_channels = width * config.block.expansion();
            }
            stages.push(blocks);
        }
        Ok(Self {
            conv1: stem.conv,
            bn1: factory.batch_norm2d(&(path / "bn1"), BatchNormConfig::new(stem_width)),
            stem_reduce: stem.reduce,
            max_pool: (config.stem == Stem::Imagenet).then(|| factory.max_pool2d(pool)),
            stages,
            fc: factory.linear(&(path / "fc"), LinearConfig::new(in_channels, config.classes)),
            feature_size: in_channels,
        })
    }

    fn pooled(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        let mut map = self.bn1.forward_t(&self.conv1.forward_t(&channels_last(input), train), train).relu_();
        for reduction in [&self.stem_reduce, &self.max_pool].into_iter().flatten() {
            map = reduction.forward_t(&map, train);
        }
        tap("conv1", &map);
        for (stage, blocks) in self.stages.iter().enumerate() {
            let stage = stage + 1;
            for (index, block) in blocks.iter().enumerate() {
                map = block.forward(&map, train);
                tap(&format!("layer{stage}.{index}"), &map);
            }
            tap(&format!("layer{stage}"), &map);
        }
        let pooled = map.adaptive_avg_pool2d([1, 1]).flatten(1, -1);
        tap("avgpool", &pooled);
        pooled
    }
}

impl Block {
    fn new(
        path: &nn::Path,
        factory: &dyn LayerFactory,
        config: &ResNetConfig,
        in_channels: i64,
        width: i64,
        stride: i64,
    ) -> Self {
        let out_channels = width * config.block.expansion();
        let convolutions = match config.block {
            BlockKind::Basic => {
                vec![Conv2dConfig::new(in_channels, width, 3, stride), Conv2dConfig::new(width, width, 3, 1)]
            }
            BlockKind::Bottleneck => vec![
                Conv2dConfig::new(in_channels, width, 1, 1),
                Conv2dConfig::new(width, width, 3, stride),
                Conv2dConfig::new(width, out_channels, 1, 1),
            ],
        };
        let branch = convolutions.into_iter().enumerate().map(|(index, conv)| {
            let norm = BatchNormConfig::new(conv.out_channels);
            let conv = factory.strided_conv2d(&(path / format!("conv{}", index + 1)), conv);
            let norm = factory.batch_norm2d(&(path / format!("bn{}", index + 1)), norm);
            BranchLayer { conv: conv.conv, norm, reduce: conv.reduce }
        });
        let branch = branch.collect();
        let keeps_shape = stride == 1 && in_channels == out_channels;
        let shortcut = match config.shortcut {
            _ if keeps_shape => BlockShortcut::Identity,
            Shortcut::Projection => {
                let path = path / "downsample";
                let conv = Conv2dConfig::new(in_channels, out_channels, 1, stride);
                BlockShortcut::Projection {
                    conv: factory.shortcut_conv2d(&(&path / 0), conv),
                    norm: factory.batch_norm2d(&(&path / 1), BatchNormConfig::new(out_channels)),
                }
            }
            Shortcut::ZeroPadding => {
                let added = out_channels - in_channels;
                BlockShortcut::ZeroPadding { stride, before: added / 2, after: added - added / 2 }
            }
        };
        Self { branch, shortcut }
    }

    fn forward(&self, input: &Tensor, train: bool) -> Tensor {
        let mut branch = input.shallow_clone();
        let last = self.branch.len() - 1;
        for (index, layer) in self.branch.iter().enumerate() {
            branch = layer.norm.forward_t(&layer.conv.forward_t(&branch, train), train);
            if index < last {
                branch = branch.relu_();
                if let Some(reduce) = &layer.reduce {
                    branch = reduce.forward_t(&branch, train);
                }
            }
        }
        let mut sum = match &self.shortcut {
            BlockShortcut::Identity => branch + input,
            BlockShortcut::Projection { conv, norm } => branch + norm.forward_t(&conv.forward_t(input, train), train),
            BlockShortcut::ZeroPadding { stride, before, after } => {
                let sampled = input.slice(2, None, None, *stride).slice(3, None, None, *stride);
                branch + sampled.constant_pad_nd([0, 0, 0, 0, *before, *after])
            }
        };
        sum.relu_()
    }
}

impl Network for ResNet {
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
