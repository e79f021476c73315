//! Anti-aliasing as a layer factory, in the published placements.

use super::aps::{ApsConfig, ApsPool2d, OddSides};
use super::blur::{BlurConfig, BlurPadding, BlurPool2d};
use super::{Error, Result};
use core_tensor::nn::{
    BatchNormConfig, Conv2dConfig, EmbeddingConfig, GateConfig, LayerFactory, LayerNormConfig, LinearConfig, Module,
    PoolConfig, Standard, StridedConv2d,
};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use tch::Tensor;
use tch::nn::{self, Path};

/// How a network halves its resolution, and what it sees beyond its borders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AntiAliasConfig {
    /// How resolution is halved. Default: blur pools of side 4.
    pub reduction: Reduction,
    /// What convolutions and pools see beyond the border. Default zeros, as networks are published.
    pub borders: Borders,
    /// Whether a strided convolution with a kernel above 3 × 3 (the stem of an ImageNet ResNet) is changed too. Default
    /// no, as published: it would run at four times its cost. A stride of 4 (AlexNet's stem) is kept as well, or refused where this
    /// is set: the published place of its blur, a stride of 2 before and one after, is not offered.
    pub stem: bool,
}

/// How resolution is halved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduction {
    /// By strides, as without this factory.
    Plain,
    /// By [`BlurPool2d`].
    Blur(BlurConfig),
    /// By [`ApsPool2d`].
    Polyphase(ApsConfig),
}

/// What convolutions and pools see beyond the border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Borders {
    /// Zeros: a pixel at the border is seen by fewer weights, which tells where it is.
    Zeros,
    /// The opposite side: a circular shift goes through every layer of stride 1.
    Circular,
    /// Zeros, `kernel − 1` wide, so that every pixel is seen by every weight (Kayhan and van Gemert, arXiv 2003.07064).
    /// Maps grow by `kernel − 1`, so that it does not go with residual blocks.
    Full,
}

impl Default for AntiAliasConfig {
    fn default() -> Self {
        Self { reduction: Reduction::Blur(BlurConfig::default()), borders: Borders::Zeros, stem: false }
    }
}

impl AntiAliasConfig {
    /// Networks as published, with blur pools of this side.
    pub fn blur(kernel: usize) -> Self {
        Self { reduction: Reduction::Blur(BlurConfig { kernel, ..BlurConfig::default() }), ..Self::default() }
    }

    /// Circular borders and adaptive polyphase sampling: exactly invariant to circular shifts.
    pub fn polyphase() -> Self {
        Self { reduction: Reduction::Polyphase(ApsConfig::default()), borders: Borders::Circular, stem: true }
    }

    /// Strides as published, circular borders.
    pub fn circular() -> Self {
        Self { reduction: Reduction::Plain, borders: Borders::Circular, stem: false }
    }
}

/// Makes networks with anti-aliased downsampling out of any other factory's layers.
///
/// | plain | anti-aliased |
/// |---|---|
/// | max pool k, stride 2 | max pool k, stride 1, then reduction |
/// | max pool 3, stride 2, padding 1 (ResNet stem) | max pool 2, stride 1, then reduction |
/// | conv, stride 2, norm, ReLU | conv, stride 1, norm, ReLU, reduction |
/// | shortcut conv 1 × 1, stride 2 | reduction, conv 1 × 1, stride 1 |
///
/// With polyphase sampling a shortcut follows the choice of the strided layer that was made last before it: a block has to make its
/// branch first, as [`LayerFactory::shortcut_conv2d`] says. [`finish`](Self::finish) tells where one did not.
///
/// No parameter is added and none is renamed, so plain weights load. A shortcut without parameters
/// ([`Shortcut::ZeroPadding`](core_tensor::networks::Shortcut)) takes every second pixel by itself, out of this factory's
/// reach.
///
/// ```
/// use core_tensor::networks::Architecture;
/// use tch::{Device, Kind, Tensor, nn};
/// use vision::invariance::{AntiAlias, AntiAliasConfig};
///
/// let store = nn::VarStore::new(Device::Cpu);
/// let factory = AntiAlias::new(AntiAliasConfig::polyphase())?;
/// let network = Architecture::cifar_resnet(8, 10)?.build(&store.root(), &factory)?;
/// factory.finish()?;
/// let image = Tensor::rand([1, 3, 32, 32], (Kind::Float, Device::Cpu));
/// let shift = network.forward(&image, false) - network.forward(&image.roll([3, 5], [2, 3]), false);
/// assert!(shift.abs().max().double_value(&[]) < 1e-4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AntiAlias<F = Standard> {
    config: AntiAliasConfig,
    inner: F,
    /// What a residual block's shortcut has to follow.
    leader: RefCell<Option<Leader>>,
    /// The first shortcut whose leader is called like a layer of another block.
    doubtful: RefCell<Option<Error>>,
    problems: RefCell<Vec<Error>>,
}

/// The last layer that chose a grid, with its path; pools have none.
#[derive(Debug)]
struct Leader {
    pool: ApsPool2d,
    path: Option<Vec<String>>,
}

impl AntiAlias {
    /// Over plain layers.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn new(config: AntiAliasConfig) -> Result<Self> {
        Self::over(Standard, config)
    }
}

impl<F: LayerFactory> AntiAlias<F> {
    /// Over the layers of another factory.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn over(inner: F, config: AntiAliasConfig) -> Result<Self> {
        match config.reduction {
            Reduction::Plain => {}
            Reduction::Blur(blur) => {
                BlurPool2d::new(1, blur)?;
                if blur.stride != 2 {
                    return Err(Error::setting("blur stride", "2 in a network", blur.stride));
                }
            }
            Reduction::Polyphase(aps) => {
                ApsPool2d::new(1, aps)?;
            }
        }
        let (leader, doubtful, problems) = Default::default();
        Ok(Self { config, inner, leader, doubtful, problems })
    }

    /// Says whether every layer could be made as asked; call it after building a network.
    ///
    /// # Errors
    /// The first layer that could not, such as one with a stride other than 1 or 2, or a polyphase shortcut made before the branch
    /// whose choice it has to share.
    pub fn finish(self) -> Result<()> {
        // Where blocks make their shortcuts first, each follows the block before, and nothing follows the last branch.
        let unfollowed = self.leader.into_inner().is_some();
        let late = self.doubtful.into_inner().filter(|_| unfollowed);
        self.problems.into_inner().into_iter().chain(late).next().map_or(Ok(()), Err)
    }

    /// What halves resolution, of the layer at `path`; nothing when the layer keeps its own stride.
    fn reduction(&self, channels: i64, stride: i64, path: Option<&Path>) -> Option<Module> {
        if stride == 1 || self.config.reduction == Reduction::Plain {
            return None;
        }
        let made = (|| {
            if stride != 2 {
                return Err(Error::setting("stride of an anti-aliased layer", "1 or 2", stride));
            }
            Ok(match self.config.reduction {
                Reduction::Plain => None,
                Reduction::Blur(blur) => Some(Box::new(BlurPool2d::new(channels, blur)?) as Module),
                Reduction::Polyphase(aps) => {
                    let pool = ApsPool2d::new(channels, aps)?;
                    let path = path.map(|path| path.components().map(String::from).collect());
                    *self.leader.borrow_mut() = Some(Leader { pool: pool.follower(channels)?, path });
                    Some(Box::new(pool) as Module)
                }
            })
        })();
        made.unwrap_or_else(|problem| {
            self.problems.borrow_mut().push(problem);
            None
        })
    }

    fn bordered_conv(&self, path: &Path, config: Conv2dConfig) -> Module {
        match self.config.borders {
            Borders::Zeros => self.inner.conv2d(path, config),
            Borders::Full => self.inner.conv2d(path, Conv2dConfig { padding: config.kernel - 1, ..config }),
            Borders::Circular if config.padding == 0 => self.inner.conv2d(path, config),
            Borders::Circular => {
                let inner = self.inner.conv2d(path, Conv2dConfig { padding: 0, ..config });
                Box::new(Bordered { before: config.padding, after: config.padding, inner })
            }
        }
    }

    fn keeps_stride(&self, config: &Conv2dConfig) -> bool {
        config.stride == 1 || (config.kernel > 3 && !self.config.stem)
    }
}

impl<F: LayerFactory> LayerFactory for AntiAlias<F> {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        self.bordered_conv(path, config)
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        self.inner.linear(path, config)
    }

    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
        self.inner.batch_norm2d(path, config)
    }

    fn embedding(&self, path: &Path, config: EmbeddingConfig) -> Module {
        self.inner.embedding(path, config)
    }

    fn layer_norm(&self, path: &Path, config: LayerNormConfig) -> Module {
        self.inner.layer_norm(path, config)
    }

    fn gate(&self, path: &Path, config: GateConfig) -> Option<Module> {
        self.inner.gate(path, config)
    }

    fn max_pool2d(&self, config: PoolConfig) -> Module {
        let circular = self.config.borders == Borders::Circular;
        let Some(reduce) = self.reduction(config.channels, config.stride, None) else {
            if !circular || config.padding == 0 {
                return self.inner.max_pool2d(config);
            }
            let inner = self.inner.max_pool2d(PoolConfig { padding: 0, ..config });
            return Box::new(Bordered { before: config.padding, after: config.padding, inner });
        };
        let kernel = if config.padding > 0 { config.kernel - config.padding } else { config.kernel };
        if let Reduction::Polyphase(ApsConfig { odd: OddSides::Refuse, .. }) = self.config.reduction
            && !circular
            && kernel % 2 == 0
        {
            // Of an even side the dense maximum leaves an odd one.
            let problem = Error::setting("borders of polyphase pools", "circular, or odd sides padded", "zeros");
            self.problems.borrow_mut().push(problem);
        }
        let dense = self.inner.max_pool2d(PoolConfig { kernel, stride: 1, padding: 0, ..config });
        let after = if circular { kernel - 1 } else { 0 };
        Box::new(Sequence([Box::new(Bordered { before: 0, after, inner: dense }), reduce]))
    }

    fn strided_conv2d(&self, path: &Path, config: Conv2dConfig) -> StridedConv2d {
        let reduce = if self.keeps_stride(&config) {
            None
        } else {
            self.reduction(config.out_channels, config.stride, Some(path))
        };
        let stride = if reduce.is_some() { 1 } else { config.stride };
        StridedConv2d { conv: self.bordered_conv(path, Conv2dConfig { stride, ..config }), reduce }
    }

    fn shortcut_conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        let early = || {
            let found = format!("made first, at `{}`", path.components().collect::<Vec<_>>().join("."));
            Error::setting("polyphase shortcut", "one made after the strided layer of its branch", found)
        };
        let reduce = match (self.config.reduction, self.leader.take()) {
            (Reduction::Polyphase(_), Some(leader)) if config.stride == 2 => {
                if !leader.path.is_some_and(|leader| beside(&leader, path)) {
                    self.doubtful.borrow_mut().get_or_insert_with(early);
                }
                let follower = leader.pool.follower(config.in_channels);
                follower.map(|follower| Some(Box::new(follower) as Module)).unwrap_or_else(|problem| {
                    self.problems.borrow_mut().push(problem);
                    None
                })
            }
            (Reduction::Polyphase(_), None) if config.stride == 2 => {
                self.problems.borrow_mut().push(early());
                None
            }
            _ => self.reduction(config.in_channels, config.stride, None),
        };
        match reduce {
            None => self.bordered_conv(path, config),
            Some(reduce) => {
                let conv = self.bordered_conv(path, Conv2dConfig { stride: 1, ..config });
                Box::new(Sequence([reduce, conv]))
            }
        }
    }
}

/// Whether two paths, of a branch's layer and of a shortcut, may be of one block: they part where the shorter of them ends.
fn beside(leader: &[String], shortcut: &Path) -> bool {
    let shortcut: Vec<&str> = shortcut.components().collect();
    let common = leader.iter().zip(&shortcut).take_while(|(a, b)| a == b).count();
    common + 1 >= leader.len().min(shortcut.len())
}

/// A layer that sees the opposite side beyond its border.
#[derive(Debug)]
struct Bordered {
    before: i64,
    after: i64,
    inner: Module,
}

impl nn::ModuleT for Bordered {
    /// # Panics
    /// Like every tch layer, on an input that does not fit.
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        let padded = BlurPadding::Circular.pad(input, [self.before, self.after]);
        self.inner.forward_t(&padded.unwrap_or_else(|error| panic!("{error}")), train)
    }
}

#[derive(Debug)]
struct Sequence([Module; 2]);

impl nn::ModuleT for Sequence {
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        self.0[1].forward_t(&self.0[0].forward_t(input, train), train)
    }
}

#[cfg(test)]
mod tests;
