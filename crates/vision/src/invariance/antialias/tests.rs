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
    let moved =
        |shift: [i64; 2]| (network.forward(&image.roll(shift, [2, 3]), false) - &still).abs().max().double_value(&[]);
    [[1, 0], [3, 2], [7, 5]].map(moved).into_iter().fold(0.0, f64::max)
}

#[test]
fn polyphase_pools_that_would_refuse_every_even_side_are_refused() {
    let vgg = Architecture::Vgg16 { head: Vgg16Head::Cifar, classes: 5 };
    let finished = |borders, odd| {
        let reduction = Reduction::Polyphase(ApsConfig { odd, ..ApsConfig::default() });
        let factory = AntiAlias::new(AntiAliasConfig { reduction, borders, ..AntiAliasConfig::polyphase() }).unwrap();
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

/// Makes the layers of an order, `branch` and `shortcut` after a block's name or `pool`, and says what the factory finds.
fn made_in_order(order: &[&str]) -> Result<()> {
    let store = nn::VarStore::new(Device::Cpu);
    let factory = AntiAlias::new(AntiAliasConfig::polyphase())?;
    for step in order {
        let _ = match step.split_once(' ') {
            None => factory.max_pool2d(PoolConfig { channels: 4, kernel: 2, stride: 2, padding: 0 }),
            Some((block, "branch")) => {
                factory.strided_conv2d(&(store.root() / block / 0 / "conv1"), Conv2dConfig::new(4, 4, 3, 2)).conv
            }
            Some((block, _)) => {
                let path = store.root() / block / 0 / "downsample" / 0;
                factory.shortcut_conv2d(&path, Conv2dConfig::new(4, 4, 1, 2))
            }
        };
    }
    factory.finish()
}

#[test]
fn a_polyphase_shortcut_made_before_its_branch_is_refused() {
    let refused = |order: &[&str]| made_in_order(order).unwrap_err().to_string();
    let message = |block: &str| {
        let found = format!("made first, at `{block}.0.downsample.0`");
        format!("polyphase shortcut is {found}, expected one made after the strided layer of its branch")
    };
    // It would choose by itself, …
    assert_eq!(refused(&["b shortcut", "b branch"]), message("b"));
    // … or follow the block before, which has a shortcut without parameters, …
    assert_eq!(refused(&["a branch", "b shortcut", "b branch"]), message("b"));
    // … or the stem's pool.
    assert_eq!(refused(&["pool", "a shortcut", "a branch", "b shortcut", "b branch"]), message("a"));
    for order in [
        &["a branch", "a shortcut", "b branch", "b shortcut"][..],
        &["pool", "a branch", "a shortcut", "b branch"],
        // A branch whose pool reduces.
        &["pool", "a shortcut"],
        &["a branch", "b branch"],
    ] {
        assert!(made_in_order(order).is_ok(), "{order:?}");
    }
    // Networks of the house make their branches first.
    for depth in [18, 50] {
        build(&Architecture::imagenet_resnet(depth, 5).unwrap(), AntiAliasConfig::polyphase());
    }
}

#[test]
fn an_alexnet_stem_keeps_its_stride_or_is_refused() {
    let finished = |stem| {
        let store = nn::VarStore::new(Device::Cpu);
        let factory = AntiAlias::new(AntiAliasConfig { stem, ..AntiAliasConfig::default() }).unwrap();
        let layer =
            factory.strided_conv2d(&store.root(), Conv2dConfig { padding: 2, ..Conv2dConfig::new(3, 4, 11, 4) });
        (layer.reduce.is_some(), factory.finish().map_err(|error| error.to_string()))
    };
    assert_eq!(finished(false), (false, Ok(())));
    let refused = "stride of an anti-aliased layer is 4, expected 1 or 2".to_owned();
    assert_eq!(finished(true), (false, Err(refused)));
}

#[test]
fn a_strided_convolution_sees_the_two_ends_of_an_even_side_differently() {
    // Taps 1, 10, 100 with stride 2 and a zero on each side, of which the right one is never used: windows end at 7 of 8 pixels. A unit
    // at the right edge meets the last tap alone; two pixels further left the first and the last; at the left edge the middle one.
    let sums = |side: i64, places: [i64; 4]| {
        let store = nn::VarStore::new(Device::Cpu);
        let conv = Standard.conv2d(&store.root(), Conv2dConfig::new(1, 1, 3, 2));
        tch::no_grad(|| {
            let taps = Tensor::from_slice(&[0.0_f32, 0., 0., 1., 10., 100., 0., 0., 0.]).view([1, 1, 3, 3]);
            store.root().get("weight").unwrap().copy_(&taps);
        });
        places.map(|place| {
            let image = Tensor::zeros([1, 1, 1, side], (Kind::Float, Device::Cpu));
            let _ = image.narrow(3, place, 1).fill_(1.0);
            conv.forward_t(&image, false).sum(Kind::Float).double_value(&[])
        })
    };
    assert_eq!(sums(8, [7, 5, 1, 0]), [100.0, 101.0, 101.0, 10.0]);
    // An odd side is symmetric.
    assert_eq!(sums(7, [6, 5, 1, 0]), [10.0, 101.0, 101.0, 10.0]);
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
    // padding, 9, 3 and 1 without padding, and 9 everywhere with full padding.
    let padded = |borders, padding| {
        let store = nn::VarStore::new(Device::Cpu);
        let factory = AntiAlias::new(AntiAliasConfig { borders, ..AntiAliasConfig::circular() }).unwrap();
        let conv = factory.conv2d(&store.root(), Conv2dConfig { padding, ..Conv2dConfig::new(1, 1, 3, 1) });
        let _ = tch::no_grad(|| store.root().get("weight").unwrap().fill_(1.0));
        [[2, 2], [0, 2], [0, 0]].map(|[row, column]: [i64; 2]| {
            let image = Tensor::zeros([1, 1, 5, 5], (Kind::Float, Device::Cpu));
            let _ = image.get(0).get(0).get(row).get(column).fill_(1.0);
            conv.forward_t(&image, false).sum(Kind::Float).double_value(&[])
        })
    };
    let sums = |borders| padded(borders, 1);
    assert_eq!(padded(Borders::Zeros, 0), [9.0, 3.0, 1.0]);
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
