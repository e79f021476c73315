//! Built-in workloads: the shapes of well-known networks, layer names as in their published checkpoints.
//!
//! Operands are dense and 32 bits wide; [`with_bits`] narrows them. Pooling, normalisation and activation carry no
//! multiply-accumulates and are left out, as everywhere in [`core_tensor::workload`].

use core_tensor::workload::{Layer, Operator, Workload};

use crate::error::HwError;

type Builder = fn() -> Workload;

const NETWORKS: [(&str, Builder); 13] = [
    ("alexnet", alexnet),
    ("vgg16", vgg16),
    ("resnet18", || residual("resnet18", &[2, 2, 2, 2], false)),
    ("resnet34", || residual("resnet34", &[3, 4, 6, 3], false)),
    ("resnet50", || residual("resnet50", &[3, 4, 6, 3], true)),
    ("resnet20-cifar", || residual_cifar("resnet20-cifar", 3)),
    ("resnet38-cifar", || residual_cifar("resnet38-cifar", 6)),
    ("resnet74-cifar", || residual_cifar("resnet74-cifar", 12)),
    ("mobilenet_v2", mobilenet_v2),
    ("efficientnet_b0", efficientnet_b0),
    ("deeplab", deeplab),
    ("bert-base", || bert_base(128)),
    ("mlp", mlp),
];

/// Names of the built-in networks.
pub fn names() -> impl Iterator<Item = &'static str> {
    NETWORKS.iter().map(|&(name, _)| name)
}

/// A built-in network for one sample.
///
/// # Errors
/// A name that is not among [`names`].
pub fn builtin(name: &str) -> Result<Workload, HwError> {
    NETWORKS.iter().find(|&&(known, _)| known == name).map(|&(_, build)| build()).ok_or_else(|| HwError::Unknown {
        kind: "network",
        name: name.to_owned(),
        known: names().collect::<Vec<_>>().join(", "),
    })
}

/// The same network with every layer at `[weight, activation, gradient]` bits.
pub fn with_bits(mut workload: Workload, [weight, activation, gradient]: [u8; 3]) -> Workload {
    for layer in &mut workload.layers {
        (layer.weight.bits, layer.activation.bits, layer.gradient.bits) = (weight, activation, gradient);
    }
    workload
}

/// The same network with every layer at `[weight, activation]` densities. The second factor of a matrix product is no weight
/// and keeps its density.
pub fn with_densities(mut workload: Workload, [weight, activation]: [f64; 2]) -> Workload {
    for layer in &mut workload.layers {
        layer.activation.density = activation;
        if !matches!(layer.op, Operator::MatMul { .. }) {
            layer.weight.density = weight;
        }
    }
    workload
}

/// Adds layers one after the other, following the size of the feature map.
struct Stack {
    layers: Vec<Layer>,
    channels: u64,
    size: u64,
}

impl Stack {
    fn new(channels: u64, size: u64) -> Self {
        Self { layers: Vec::new(), channels, size }
    }

    /// A convolution on the current map, which its output becomes.
    fn conv(&mut self, name: &str, out: u64, kernel: u64, stride: u64, padding: u64) {
        self.layers
            .push(Layer::new(name, Operator::conv2d(self.channels, out, kernel, stride, padding, [self.size; 2])));
        self.size = (self.size + 2 * padding - kernel) / stride + 1;
        self.channels = out;
    }

    fn grouped(&mut self, name: &str, out: u64, kernel: u64, stride: u64, groups: u64, dilation: u64) {
        let padding = dilation * (kernel - 1) / 2;
        self.layers.push(Layer::new(
            name,
            Operator::Conv2d {
                in_channels: self.channels,
                out_channels: out,
                kernel: [kernel; 2],
                stride: [stride; 2],
                padding: [padding; 2],
                dilation: [dilation; 2],
                groups,
                input: [self.size; 2],
            },
        ));
        self.size = (self.size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
        self.channels = out;
    }

    fn pool(&mut self, kernel: u64, stride: u64, padding: u64) {
        self.size = (self.size + 2 * padding - kernel) / stride + 1;
    }

    fn linear(&mut self, name: &str, inputs: u64, outputs: u64) {
        self.layers.push(Layer::new(name, Operator::linear(inputs, outputs)));
    }

    fn build(self, name: &str) -> Workload {
        Workload::new(name, self.layers)
    }
}

fn alexnet() -> Workload {
    let mut net = Stack::new(3, 224);
    net.conv("features.0", 64, 11, 4, 2);
    net.pool(3, 2, 0);
    net.conv("features.3", 192, 5, 1, 2);
    net.pool(3, 2, 0);
    net.conv("features.6", 384, 3, 1, 1);
    net.conv("features.8", 256, 3, 1, 1);
    net.conv("features.10", 256, 3, 1, 1);
    net.linear("classifier.1", 256 * 36, 4096);
    net.linear("classifier.4", 4096, 4096);
    net.linear("classifier.6", 4096, 1000);
    net.build("alexnet")
}

fn vgg16() -> Workload {
    let mut net = Stack::new(3, 224);
    let mut index = 0;
    for (width, repeats) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)] {
        for _ in 0..repeats {
            net.conv(&format!("features.{index}"), width, 3, 1, 1);
            index += 2;
        }
        net.pool(2, 2, 0);
        index += 1;
    }
    net.linear("classifier.0", 512 * 49, 4096);
    net.linear("classifier.3", 4096, 4096);
    net.linear("classifier.6", 4096, 1000);
    net.build("vgg16")
}

fn residual(name: &str, blocks: &[u64], bottleneck: bool) -> Workload {
    let mut net = stem();
    for (stage, &count) in blocks.iter().enumerate() {
        stage_of_blocks(&mut net, stage, count, bottleneck, if stage == 0 { 1 } else { 2 }, 1);
    }
    let features = net.channels;
    net.linear("fc", features, 1000);
    net.build(name)
}

fn stem() -> Stack {
    let mut net = Stack::new(3, 224);
    net.conv("conv1", 64, 7, 2, 3);
    net.pool(3, 2, 1);
    net
}

/// A stage whose first block strides (or dilates, when `stride` is 1 and `dilation` is not).
fn stage_of_blocks(net: &mut Stack, stage: usize, count: u64, bottleneck: bool, stride: u64, dilation: u64) {
    let width = 64 << stage;
    for block in 0..count {
        let prefix = format!("layer{}.{block}", stage + 1);
        let step = if block == 0 { stride } else { 1 };
        let (channels, size) = (net.channels, net.size);
        let out = if bottleneck {
            net.conv(&format!("{prefix}.conv1"), width, 1, 1, 0);
            // The first block of a dilated stage still has the rate of the stage before.
            let rate = if block == 0 { dilation.div_ceil(2) } else { dilation };
            net.grouped(&format!("{prefix}.conv2"), width, 3, step, 1, rate);
            net.conv(&format!("{prefix}.conv3"), width * 4, 1, 1, 0);
            width * 4
        } else {
            net.conv(&format!("{prefix}.conv1"), width, 3, step, 1);
            net.conv(&format!("{prefix}.conv2"), width, 3, 1, 1);
            width
        };
        if block == 0 && (step > 1 || channels != out) {
            let op = Operator::conv2d(channels, out, 1, step, 0, [size; 2]);
            net.layers.push(Layer::new(format!("{prefix}.downsample.0"), op));
        }
    }
}

/// Three stages of `n` basic blocks at 16, 32 and 64 channels on 32 × 32 images, projections where shapes change.
fn residual_cifar(name: &str, n: u64) -> Workload {
    let mut net = Stack::new(3, 32);
    net.conv("conv1", 16, 3, 1, 1);
    for (stage, width) in [16, 32, 64].into_iter().enumerate() {
        for block in 0..n {
            let prefix = format!("layer{}.{block}", stage + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let (channels, size) = (net.channels, net.size);
            net.conv(&format!("{prefix}.conv1"), width, 3, stride, 1);
            net.conv(&format!("{prefix}.conv2"), width, 3, 1, 1);
            if stride > 1 {
                let op = Operator::conv2d(channels, width, 1, stride, 0, [size; 2]);
                net.layers.push(Layer::new(format!("{prefix}.downsample.0"), op));
            }
        }
    }
    net.linear("fc", 64, 10);
    net.build(name)
}

fn mobilenet_v2() -> Workload {
    let mut net = Stack::new(3, 224);
    net.conv("features.0.0", 32, 3, 2, 1);
    let mut index = 1;
    for (expand, width, repeats, stride) in
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    {
        for block in 0..repeats {
            let hidden = net.channels * expand;
            let prefix = format!("features.{index}.conv");
            let mut part = 0;
            if expand > 1 {
                net.conv(&format!("{prefix}.0.0"), hidden, 1, 1, 0);
                part = 1;
            }
            net.grouped(&format!("{prefix}.{part}.0"), hidden, 3, if block == 0 { stride } else { 1 }, hidden, 1);
            net.conv(&format!("{prefix}.{}", part + 1), width, 1, 1, 0);
            index += 1;
        }
    }
    net.conv("features.18.0", 1280, 1, 1, 0);
    net.linear("classifier.1", 1280, 1000);
    net.build("mobilenet_v2")
}

fn efficientnet_b0() -> Workload {
    let mut net = Stack::new(3, 224);
    net.conv("features.0.0", 32, 3, 2, 1);
    let stages = [
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ];
    for (stage, (expand, kernel, stride, width, repeats)) in stages.into_iter().enumerate() {
        for block in 0..repeats {
            let (inputs, prefix) = (net.channels, format!("features.{}.{block}.block", stage + 1));
            let hidden = inputs * expand;
            let mut part = 0;
            if expand > 1 {
                net.conv(&format!("{prefix}.0.0"), hidden, 1, 1, 0);
                part = 1;
            }
            net.grouped(&format!("{prefix}.{part}.0"), hidden, kernel, if block == 0 { stride } else { 1 }, hidden, 1);
            // Squeeze and excitation: two pointwise layers on one pixel.
            let squeezed = inputs / 4;
            net.layers.push(Layer::new(
                format!("{prefix}.{}.fc1", part + 1),
                Operator::conv2d(hidden, squeezed, 1, 1, 0, [1, 1]),
            ));
            net.layers.push(Layer::new(
                format!("{prefix}.{}.fc2", part + 1),
                Operator::conv2d(squeezed, hidden, 1, 1, 0, [1, 1]),
            ));
            net.conv(&format!("{prefix}.{}.0", part + 2), width, 1, 1, 0);
        }
    }
    net.conv("features.8.0", 1280, 1, 1, 0);
    net.linear("classifier.1", 1280, 1000);
    net.build("efficientnet_b0")
}

/// ResNet-50 at output stride 8 with an atrous pyramid and a 21-class head, on 224 × 224 images
/// (DeepLab v3, Chen et al., arXiv 1706.05587).
fn deeplab() -> Workload {
    let mut net = stem();
    for (stage, (count, stride, dilation)) in [(3, 1, 1), (4, 2, 1), (6, 1, 2), (3, 1, 4)].into_iter().enumerate() {
        stage_of_blocks(&mut net, stage, count, true, stride, dilation);
    }
    let (channels, size) = (net.channels, net.size);
    for (branch, (kernel, rate)) in [(1, 1), (3, 12), (3, 24), (3, 36)].into_iter().enumerate() {
        (net.channels, net.size) = (channels, size);
        net.grouped(&format!("classifier.0.convs.{branch}.0"), 256, kernel, 1, 1, rate);
    }
    net.layers.push(Layer::new("classifier.0.convs.4.1", Operator::conv2d(channels, 256, 1, 1, 0, [1, 1])));
    net.channels = 5 * 256;
    net.conv("classifier.0.project.0", 256, 1, 1, 0);
    net.conv("classifier.1", 256, 3, 1, 1);
    net.conv("classifier.4", 21, 1, 1, 0);
    net.build("deeplab")
}

/// The encoder of BERT-base (Devlin et al., arXiv 1810.04805) on a sequence.
pub fn bert_base(sequence: u64) -> Workload {
    let (width, heads, hidden) = (768, 12, 3072);
    let mut layers = Vec::new();
    for block in 0..12 {
        let prefix = format!("encoder.layer.{block}");
        let mut linear = |name: &str, inputs, outputs| {
            let op = Operator::Linear { in_features: inputs, out_features: outputs, rows: sequence };
            layers.push(Layer::new(format!("{prefix}.{name}"), op));
        };
        for name in ["attention.self.query", "attention.self.key", "attention.self.value"] {
            linear(name, width, width);
        }
        let head = width / heads;
        let product = |m, n, k| Operator::MatMul { m, n, k, count: heads };
        layers.push(Layer::new(format!("{prefix}.attention.scores"), product(sequence, sequence, head)));
        layers.push(Layer::new(format!("{prefix}.attention.context"), product(sequence, head, sequence)));
        let mut linear = |name: &str, inputs, outputs| {
            let op = Operator::Linear { in_features: inputs, out_features: outputs, rows: sequence };
            layers.push(Layer::new(format!("{prefix}.{name}"), op));
        };
        linear("attention.output.dense", width, width);
        linear("intermediate.dense", width, hidden);
        linear("output.dense", hidden, width);
    }
    Workload::new("bert-base", layers)
}

fn mlp() -> Workload {
    let mut net = Stack::new(1, 28);
    for (index, pair) in [784, 300, 100, 10].windows(2).enumerate() {
        net.linear(&format!("fc{}", index + 1), pair[0], pair[1]);
    }
    net.build("mlp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_those_of_the_published_checkpoints() {
        // torchvision's parameter counts less biases and batch-norm pairs; BERT: 12·(4·768² + 2·768·3072).
        let counts = [
            ("alexnet", 61_100_840 - 10_344),
            ("vgg16", 138_357_544 - 13_416),
            ("resnet18", 11_689_512 - 9_600 - 1_000),
            ("resnet34", 21_797_672 - 17_024 - 1_000),
            ("resnet50", 25_557_032 - 53_120 - 1_000),
            ("mobilenet_v2", 3_504_872 - 34_112 - 1_000),
            ("bert-base", 84_934_656),
            ("mlp", 266_200),
        ];
        for (name, weights) in counts {
            assert_eq!(builtin(name).unwrap().weights().unwrap(), weights, "{name}");
        }
    }

    #[test]
    fn macs_are_those_of_the_published_shapes() {
        // AlexNet and VGG: summed by hand over their layers. CIFAR ResNets: 40 812 544, 83 279 872 and 168 214 528 in
        // convolutions, 640 in the classifier. ResNets: the usual 1.814 G, 3.664 G, 4.089 G. BERT: 128 rows of its
        // weights and 2·12·128·128·768 in attention.
        let counts = [
            ("alexnet", 714_188_480),
            ("vgg16", 15_470_264_320),
            ("resnet18", 1_814_073_344),
            ("resnet34", 3_663_761_408),
            ("resnet50", 4_089_184_256),
            ("resnet20-cifar", 40_812_544 + 640),
            ("resnet38-cifar", 83_279_872 + 640),
            ("resnet74-cifar", 168_214_528 + 640),
            ("bert-base", 128 * 84_934_656 + 2 * 12 * 128 * 128 * 768),
        ];
        for (name, macs) in counts {
            assert_eq!(builtin(name).unwrap().macs().unwrap(), macs, "{name}");
        }
    }

    #[test]
    fn sparse_weights_leave_products_of_activations_dense() {
        let net = with_densities(builtin("bert-base").unwrap(), [0.25, 0.5]);
        for layer in &net.layers {
            let product = matches!(layer.op, Operator::MatMul { .. });
            let expected = [if product { 1.0 } else { 0.25 }, 0.5];
            assert_eq!([layer.weight.density, layer.activation.density], expected, "{}", layer.name);
        }
    }

    #[test]
    fn every_network_validates_and_has_distinct_layer_names() {
        for name in names() {
            let net = builtin(name).unwrap();
            net.validate().unwrap();
            assert_eq!(net.name, name);
            let mut layers: Vec<_> = net.layers.iter().map(|layer| &layer.name).collect();
            layers.sort();
            layers.dedup();
            assert_eq!(layers.len(), net.layers.len(), "{name}");
        }
        assert!(builtin("lenet").unwrap_err().to_string().contains("resnet18"));
    }
}
