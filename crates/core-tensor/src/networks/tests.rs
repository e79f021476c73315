use super::*;
use crate::nn::Standard;
use tch::{Kind, Tensor};

/// Conv layers (shortcuts included), conv weights, all parameters, MACs at the sample's size.
fn counts(architecture: &Architecture, sample: [i64; 3]) -> (usize, i64, i64, u64) {
    let store = nn::VarStore::new(Device::Cpu);
    let network = architecture.build(&store.root(), &Standard).unwrap();
    let shapes = store.variables();
    let convolutions: Vec<i64> =
        shapes.values().filter(|tensor| tensor.dim() == 4).map(|tensor| tensor.numel() as i64).collect();
    let parameters = store.trainable_variables().iter().map(|tensor| tensor.numel() as i64).sum();
    let workload = trace_workload("w", network.as_ref(), &sample, Device::Cpu).unwrap();
    (convolutions.len(), convolutions.iter().sum(), parameters, workload.macs().unwrap())
}

const CIFAR: [i64; 3] = [3, 32, 32];

#[test]
fn cifar_resnets_count_as_published_layers_do() {
    // Reference: the same networks built in PyTorch 2.11 and counted with forward hooks.
    for (depth, expected) in [
        (8, (9, 76_720, 78_042, 12_501_632)),
        (20, (21, 270_256, 272_474, 40_813_184)),
        (32, (33, 463_792, 466_906, 69_124_736)),
        (56, (57, 850_864, 855_770, 125_747_840)),
        (110, (111, 1_721_776, 1_730_714, 253_149_824)),
    ] {
        assert_eq!(counts(&Architecture::cifar_resnet(depth, 10).unwrap(), CIFAR), expected, "ResNet-{depth}");
    }
}

#[test]
fn bottleneck_cifar_resnet_of_the_kd_ticket_reference_counts_the_same() {
    let mut config = ResNetConfig::cifar(56, 10).unwrap();
    config.block = BlockKind::Bottleneck;
    assert_eq!(counts(&Architecture::ResNet(config), CIFAR), (85, 853_936, 869_530, 127_322_624));
}

#[test]
fn a_strided_stem_leaves_a_quarter_of_the_work_to_the_same_weights() {
    let config = ResNetConfig::cifar(20, 10).unwrap();
    let whole = counts(&Architecture::ResNet(config.clone()), CIFAR);
    let strided = counts(&Architecture::ResNet(ResNetConfig { stem: Stem::Strided, ..config }), CIFAR);
    assert_eq!((strided.0, strided.1, strided.2), (whole.0, whole.1, whole.2));
    // All but the classifier's products: 64 features, 10 classes.
    assert_eq!(4 * (strided.3 - 640), whole.3 - 640);
}

#[test]
fn zero_padding_shortcuts_drop_exactly_the_projections() {
    let mut config = ResNetConfig::cifar(20, 10).unwrap();
    config.shortcut = Shortcut::ZeroPadding;
    // 272,474 less 2,560 shortcut weights and 192 batch-norm parameters.
    assert_eq!(counts(&Architecture::ResNet(config), CIFAR).2, 269_722);
}

#[test]
fn imagenet_networks_count_as_torchvision_does() {
    let resnet18 = ResNetConfig::imagenet(18, 10).unwrap().with_cifar_stem();
    assert_eq!(counts(&Architecture::ResNet(resnet18), CIFAR), (20, 11_159_232, 11_173_962, 555_422_720));
    let resnet50 = Architecture::imagenet_resnet(50, 1000).unwrap();
    assert_eq!(counts(&resnet50, [3, 224, 224]), (53, 23_454_912, 25_557_032, 4_089_184_256));
    // Torchvision's documentation gives these parameter counts.
    let mobilenet = Architecture::MobileNetV2(MobileNetV2Config { early_strides: [2, 2, 2], classes: 1000 });
    assert_eq!(counts(&mobilenet, [3, 224, 224]).2, 3_504_872);
    let vgg = Architecture::Vgg16 { head: Vgg16Head::Imagenet, classes: 1000 };
    assert_eq!(counts(&vgg, [3, 32, 32]).2, 138_365_992);
}

#[test]
fn lenets_count_as_the_pruning_literature_does() {
    let grey = [1, 28, 28];
    assert_eq!(counts(&Architecture::LeNet300100 { classes: 10 }, grey).2, 266_610);
    assert_eq!(counts(&Architecture::LeNet5 { classes: 10 }, grey).2, 431_080);
}

#[test]
fn resnet50_names_and_shapes_are_torchvisions() {
    let store = nn::VarStore::new(Device::Cpu);
    Architecture::imagenet_resnet(50, 1000).unwrap().build(&store.root(), &Standard).unwrap();
    let variables = store.variables();
    // 320 state-dict entries less 53 `num_batches_tracked`, which tch does not have.
    assert_eq!(variables.len(), 267);
    for (name, shape) in [
        ("conv1.weight", vec![64, 3, 7, 7]),
        ("bn1.running_var", vec![64]),
        ("layer1.0.conv1.weight", vec![64, 64, 1, 1]),
        ("layer1.0.downsample.0.weight", vec![256, 64, 1, 1]),
        ("layer1.0.downsample.1.running_mean", vec![256]),
        ("layer3.5.conv2.weight", vec![256, 256, 3, 3]),
        ("layer4.2.bn3.bias", vec![2048]),
        ("fc.weight", vec![1000, 2048]),
    ] {
        assert_eq!(variables[name].size(), shape, "{name}");
    }
}

#[test]
fn mobilenet_and_vgg_names_are_torchvisions() {
    let names = |architecture: Architecture| {
        let store = nn::VarStore::new(Device::Cpu);
        architecture.build(&store.root(), &Standard).unwrap();
        store.variables()
    };
    let mobilenet = names(Architecture::MobileNetV2(MobileNetV2Config { early_strides: [1, 1, 2], classes: 10 }));
    for (name, shape) in [
        ("features.0.0.weight", vec![32, 3, 3, 3]),
        ("features.1.conv.0.0.weight", vec![32, 1, 3, 3]),
        ("features.1.conv.1.weight", vec![16, 32, 1, 1]),
        ("features.1.conv.2.running_var", vec![16]),
        ("features.2.conv.0.0.weight", vec![96, 16, 1, 1]),
        ("features.2.conv.1.0.weight", vec![96, 1, 3, 3]),
        ("features.2.conv.2.weight", vec![24, 96, 1, 1]),
        ("features.2.conv.3.weight", vec![24]),
        ("features.18.0.weight", vec![1280, 320, 1, 1]),
        ("classifier.1.bias", vec![10]),
    ] {
        assert_eq!(mobilenet[name].size(), shape, "{name}");
    }
    let vgg = names(Architecture::Vgg16 { head: Vgg16Head::Cifar, classes: 10 });
    for name in
        ["features.0.weight", "features.1.running_mean", "features.40.bias", "features.41.weight", "classifier.bias"]
    {
        assert!(vgg.contains_key(name), "{name}");
    }
}

#[test]
fn taps_see_every_stage_in_order_and_leave_the_logits_alone() {
    let store = nn::VarStore::new(Device::Cpu);
    let network = Architecture::cifar_resnet(8, 10).unwrap().build(&store.root(), &Standard).unwrap();
    let images = Tensor::rand([2, 3, 32, 32], (Kind::Float, Device::Cpu));
    let mut seen = Vec::new();
    let logits = network.forward_tapped(&images, false, &mut |name, map| seen.push((name.to_owned(), map.size())));
    let names: Vec<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["conv1", "layer1.0", "layer1", "layer2.0", "layer2", "layer3.0", "layer3", "avgpool"]);
    assert_eq!(seen[4].1, [2, 32, 16, 16]);
    assert_eq!(seen[7].1, [2, network.feature_size()]);
    assert!(logits.equal(&network.forward(&images, false)));
}

/// Plain layers, counting how often pooling is asked for.
#[derive(Debug, Default)]
struct CountsPools(std::cell::Cell<usize>);

impl LayerFactory for CountsPools {
    fn conv2d(&self, path: &nn::Path, config: crate::nn::Conv2dConfig) -> crate::nn::Module {
        Standard.conv2d(path, config)
    }

    fn linear(&self, path: &nn::Path, config: crate::nn::LinearConfig) -> crate::nn::Module {
        Standard.linear(path, config)
    }

    fn batch_norm2d(&self, path: &nn::Path, config: crate::nn::BatchNormConfig) -> crate::nn::Module {
        Standard.batch_norm2d(path, config)
    }

    fn max_pool2d(&self, config: crate::nn::PoolConfig) -> crate::nn::Module {
        self.0.set(self.0.get() + 1);
        Standard.max_pool2d(config)
    }
}

#[test]
fn lenet_pools_by_its_factory() {
    let (store, layers) = (nn::VarStore::new(Device::Cpu), CountsPools::default());
    Architecture::LeNet5 { classes: 10 }.build(&store.root(), &layers).unwrap();
    assert_eq!(layers.0.get(), 2);
}

#[test]
fn settings_that_make_no_network_are_refused() {
    assert!(Architecture::cifar_resnet(21, 10).unwrap_err().to_string().contains("6n + 2"));
    assert!(Architecture::imagenet_resnet(42, 10).unwrap_err().to_string().contains("18, 34 or 50"));
    let store = nn::VarStore::new(Device::Cpu);
    let no_classes = Architecture::LeNet5 { classes: 0 }.build(&store.root(), &Standard);
    assert!(no_classes.unwrap_err().to_string().contains("classes is 0"));
    let refused = |architecture: Architecture| architecture.build(&store.root(), &Standard).unwrap_err().to_string();
    let convolutions = ConvNetConfig { in_channels: -1, widths: vec![4], classes: 10 };
    assert!(refused(Architecture::ConvNet(convolutions)).contains("in_channels is -1"));
    let mobile = MobileNetV2Config { early_strides: [0, 2, 2], classes: 10 };
    assert!(refused(Architecture::MobileNetV2(mobile)).contains("early_strides is 0"));
    // Built by themselves as well.
    let none = ConvNetConfig { in_channels: 1, widths: vec![4], classes: 0 };
    assert!(ConvNet::new(&store.root(), &Standard, &none).unwrap_err().to_string().contains("classes is 0"));
    let none = ResNetConfig::cifar(8, -1).unwrap();
    assert!(ResNet::new(&store.root(), &Standard, &none).unwrap_err().to_string().contains("classes is -1"));
    let error = Architecture::cifar_resnet(8, 10).unwrap().workload("w", &[3, 0, 32]).unwrap_err();
    assert!(error.to_string().contains("0"), "{error}");
}
