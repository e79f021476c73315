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
    /// no, as published: it would run at four times its cost.
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
    /// The pool that a residual block's shortcut has to follow.
    leader: RefCell<Option<ApsPool2d>>,
    problems: RefCell<Vec<Error>>,
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
        Ok(Self { config, inner, leader: RefCell::default(), problems: RefCell::default() })
    }

    /// Says whether every layer could be made as asked; call it after building a network.
    ///
    /// # Errors
    /// The first layer that could not, such as one with a stride other than 1 or 2.
    pub fn finish(self) -> Result<()> {
        self.problems.into_inner().into_iter().next().map_or(Ok(()), Err)
    }

    /// What halves resolution; nothing when the layer keeps its own stride.
    fn reduction(&self, channels: i64, stride: i64) -> Option<Module> {
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
                    *self.leader.borrow_mut() = Some(pool.follower(channels)?);
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
        let Some(reduce) = self.reduction(config.channels, config.stride) else {
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
        let reduce = if self.keeps_stride(&config) { None } else { self.reduction(config.out_channels, config.stride) };
        let stride = if reduce.is_some() { 1 } else { config.stride };
        StridedConv2d { conv: self.bordered_conv(path, Conv2dConfig { stride, ..config }), reduce }
    }

    fn shortcut_conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        let reduce = match (self.config.reduction, self.leader.take()) {
            (Reduction::Polyphase(_), Some(leader)) if config.stride == 2 => {
                let follower = leader.follower(config.in_channels);
                follower.map(|follower| Some(Box::new(follower) as Module)).unwrap_or_else(|problem| {
                    self.problems.borrow_mut().push(problem);
                    None
                })
            }
            _ => self.reduction(config.in_channels, config.stride),
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
mod tests {
    use super::*;
    use core_tensor::networks::{Architecture, ConvNetConfig, MobileNetV2Config, Vgg16Head};
    use core_tensor::nn::{Gated, Network};
    use tch::{Device, Kind};

    fn build(architecture: &Architecture, config: AntiAliasConfig) -> (nn::VarStore, Box<dyn Network>) {
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let factory = AntiAlias::new(config).unwrap();
        let network = architecture.build(&store.root(), &factory).unwrap();
        factory.finish().unwrap();
        (store, network)
    }

    fn conv_net() -> Architecture {
        Architecture::ConvNet(ConvNetConfig { in_channels: 3, widths: vec![4, 6, 8], classes: 5 })
    }

    /// The largest change of a logit under three rolls.
    fn change(network: &dyn Network, side: i64) -> f64 {
        let image = Tensor::rand([2, 3, side, side], (Kind::Float, Device::Cpu));
        let still = network.forward(&image, false);
        let moved = |shift: [i64; 2]| {
            (network.forward(&image.roll(shift, [2, 3]), false) - &still).abs().max().double_value(&[])
        };
        [[1, 0], [3, 2], [7, 5]].map(moved).into_iter().fold(0.0, f64::max)
    }

    #[test]
    fn polyphase_pools_that_would_refuse_every_even_side_are_refused() {
        let vgg = Architecture::Vgg16 { head: Vgg16Head::Cifar, classes: 5 };
        let finished = |borders, odd| {
            let reduction = Reduction::Polyphase(ApsConfig { odd, ..ApsConfig::default() });
            let factory =
                AntiAlias::new(AntiAliasConfig { reduction, borders, ..AntiAliasConfig::polyphase() }).unwrap();
            let store = nn::VarStore::new(Device::Cpu);
            let _ = vgg.build(&store.root(), &factory).unwrap();
            factory.finish().map_err(|error| error.to_string())
        };
        let refused = finished(Borders::Zeros, OddSides::Refuse).unwrap_err();
        assert_eq!(refused, "borders of polyphase pools is zeros, expected circular, or odd sides padded");
        assert_eq!(finished(Borders::Zeros, OddSides::PadCircularly), Ok(()));
        assert_eq!(finished(Borders::Circular, OddSides::Refuse), Ok(()));
    }

    #[test]
    fn plain_weights_load_into_an_anti_aliased_network() {
        for architecture in [conv_net(), Architecture::cifar_resnet(8, 10).unwrap()] {
            let plain = nn::VarStore::new(Device::Cpu);
            let _network = architecture.build(&plain.root(), &Standard).unwrap();
            for config in [AntiAliasConfig::blur(5), AntiAliasConfig::polyphase(), AntiAliasConfig::circular()] {
                let (store, _) = build(&architecture, config);
                let shapes = |store: &nn::VarStore| {
                    let mut shapes: Vec<_> =
                        store.variables().into_iter().map(|(name, tensor)| (name, tensor.size())).collect();
                    shapes.sort();
                    shapes
                };
                assert_eq!(shapes(&store), shapes(&plain));
            }
        }
    }

    #[test]
    fn every_network_of_the_house_trains_with_every_reduction() {
        let mobile = Architecture::MobileNetV2(MobileNetV2Config { early_strides: [1, 1, 2], classes: 5 });
        for architecture in [conv_net(), Architecture::cifar_resnet(8, 5).unwrap(), mobile] {
            for config in [AntiAliasConfig::blur(3), AntiAliasConfig::polyphase()] {
                let (store, network) = build(&architecture, config);
                let images = Tensor::rand([2, 3, 32, 32], (Kind::Float, Device::Cpu));
                let labels = Tensor::from_slice(&[0_i64, 1]);
                network.forward(&images, true).cross_entropy_for_logits(&labels).backward();
                let silent = |(name, tensor): &(String, Tensor)| {
                    tensor.requires_grad() && !tensor.grad().defined() && !name.is_empty()
                };
                let silent: Vec<_> = store.variables().into_iter().filter(silent).map(|(name, _)| name).collect();
                assert!(silent.is_empty(), "no gradient reaches {silent:?}");
            }
        }
    }

    #[test]
    fn the_published_placements_keep_the_sizes_of_the_maps() {
        // Only ⌈n/2⌉ at each level makes these sizes: 64 → 32 (stem) → 16 (pool) → 16, 8, 4, 2.
        let resnet = Architecture::imagenet_resnet(18, 5).unwrap();
        let image = Tensor::rand([1, 3, 64, 64], (Kind::Float, Device::Cpu));
        let sides = |config| {
            let (_store, network) = build(&resnet, config);
            let mut sides = Vec::new();
            let _ = network.forward_tapped(&image, false, &mut |name, map| {
                if map.dim() == 4 && !name.contains('.') {
                    sides.push(map.size()[2]);
                }
            });
            sides
        };
        let replicate = |stem| AntiAliasConfig {
            reduction: Reduction::Blur(BlurConfig { padding: BlurPadding::Replicate, ..BlurConfig::default() }),
            stem,
            ..AntiAliasConfig::default()
        };
        assert_eq!(sides(replicate(false)), [16, 16, 8, 4, 2]);
        assert_eq!(sides(replicate(true)), [16, 16, 8, 4, 2]);
    }

    #[test]
    fn polyphase_networks_are_exactly_invariant_to_rolls_and_others_are_not() {
        for (architecture, side) in [(conv_net(), 16), (Architecture::cifar_resnet(8, 10).unwrap(), 16)] {
            let (_store, network) = build(&architecture, AntiAliasConfig::polyphase());
            // Rounding of sums in another order, on logits of order 1.
            assert!(change(network.as_ref(), side) < 1e-5);
            for config in [AntiAliasConfig::circular(), AntiAliasConfig::blur(4)] {
                let (_store, network) = build(&architecture, config);
                assert!(change(network.as_ref(), side) > 1e-4, "{config:?}");
            }
        }
    }

    #[test]
    fn circular_borders_stride_one_and_global_pooling_are_exactly_invariant() {
        let one = Architecture::ConvNet(ConvNetConfig { in_channels: 3, widths: vec![6], classes: 5 });
        let (_store, network) = build(&one, AntiAliasConfig::circular());
        assert!(change(network.as_ref(), 15) < 1e-5);
        let (_store, zeros) = build(&one, AntiAliasConfig { borders: Borders::Zeros, ..AntiAliasConfig::circular() });
        assert!(change(zeros.as_ref(), 15) > 1e-4);
    }

    #[test]
    fn full_borders_let_every_weight_see_every_pixel() {
        // Kernel of ones, unit pixel: the summed response is 9 in the interior, 6 at an edge, 4 in a corner with "same"
        // padding, and 9 everywhere with full padding.
        let sums = |borders| {
            let store = nn::VarStore::new(Device::Cpu);
            let factory = AntiAlias::new(AntiAliasConfig { borders, ..AntiAliasConfig::circular() }).unwrap();
            let conv = factory.conv2d(&store.root(), Conv2dConfig::new(1, 1, 3, 1));
            let _ = tch::no_grad(|| store.root().get("weight").unwrap().fill_(1.0));
            [[2, 2], [0, 2], [0, 0]].map(|[row, column]: [i64; 2]| {
                let image = Tensor::zeros([1, 1, 5, 5], (Kind::Float, Device::Cpu));
                let _ = image.get(0).get(0).get(row).get(column).fill_(1.0);
                conv.forward_t(&image, false).sum(Kind::Float).double_value(&[])
            })
        };
        assert_eq!(sums(Borders::Zeros), [9.0, 6.0, 4.0]);
        assert_eq!(sums(Borders::Full), [9.0, 9.0, 9.0]);
        assert_eq!(sums(Borders::Circular), [9.0, 9.0, 9.0]);
    }

    #[test]
    fn a_vgg_gets_its_reductions_through_the_pools() {
        let vgg = Architecture::Vgg16 { head: Vgg16Head::Cifar, classes: 3 };
        let config = BlurConfig { kernel: 3, padding: BlurPadding::Replicate, stride: 2 };
        let config = AntiAliasConfig { reduction: Reduction::Blur(config), ..AntiAliasConfig::default() };
        let (_store, network) = build(&vgg, config);
        let image = Tensor::rand([1, 3, 32, 32], (Kind::Float, Device::Cpu));
        let mut sides = Vec::new();
        let _ = network.forward_tapped(&image, false, &mut |_, map| sides.push(*map.size().last().unwrap()));
        assert_eq!(sides[..5], [16, 8, 4, 2, 1]);
    }

    /// Layers that all do the same, so that nothing but the factory decides.
    struct Doubling;

    fn doubled() -> Module {
        Box::new(nn::func(|input| input * 2.0))
    }

    impl LayerFactory for Doubling {
        fn conv2d(&self, _: &Path, _: Conv2dConfig) -> Module {
            doubled()
        }

        fn linear(&self, _: &Path, _: LinearConfig) -> Module {
            doubled()
        }

        fn batch_norm2d(&self, _: &Path, _: BatchNormConfig) -> Module {
            doubled()
        }

        fn embedding(&self, _: &Path, _: EmbeddingConfig) -> Module {
            doubled()
        }

        fn layer_norm(&self, _: &Path, _: LayerNormConfig) -> Module {
            doubled()
        }

        fn gate(&self, _: &Path, _: GateConfig) -> Option<Module> {
            Some(doubled())
        }
    }

    #[test]
    fn layers_without_a_resolution_are_the_inner_factorys() {
        let store = nn::VarStore::new(Device::Cpu);
        let (root, factory) = (store.root(), AntiAlias::over(Doubling, AntiAliasConfig::default()).unwrap());
        let layers = [
            factory.linear(&root, LinearConfig::new(1, 1)),
            factory.batch_norm2d(&root, BatchNormConfig::new(1)),
            factory.embedding(&root, EmbeddingConfig::new(1, 1)),
            factory.layer_norm(&root, LayerNormConfig::new(1)),
            factory.gate(&root, GateConfig { gated: Gated::Heads, units: 1 }).unwrap(),
        ];
        let one = Tensor::ones([1, 1], (Kind::Float, Device::Cpu));
        assert!(layers.iter().all(|layer| layer.forward_t(&one, false).double_value(&[0, 0]) == 2.0));
    }

    #[test]
    fn settings_and_strides_outside_their_range_are_refused() {
        assert!(AntiAlias::new(AntiAliasConfig::blur(9)).is_err());
        let one = Reduction::Blur(BlurConfig { stride: 1, ..BlurConfig::default() });
        assert!(AntiAlias::new(AntiAliasConfig { reduction: one, ..AntiAliasConfig::default() }).is_err());
        let factory = AntiAlias::new(AntiAliasConfig::default()).unwrap();
        let _ = factory.max_pool2d(PoolConfig { channels: 2, kernel: 3, stride: 3, padding: 0 });
        assert!(factory.finish().unwrap_err().to_string().contains("stride"));
    }
}
