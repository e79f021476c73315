//! SmartDeal: decomposing, writing, reading, rebuilding, and running from codes.
//!
//! | bench | target |
//! |---|---|
//! | `decompose/block_192x3` | 40 µs on one core |
//! | `decompose/cifar_resnet18` | 1 s on two cores |
//! | `sdz/rebuild` | 1 GB/s of f32 weights, from the file's bytes |
//! | `linear_4096/codes` | a third of `linear_4096/libtorch` |
//! | `sdz/resnet50_write_and_read` | 1 s, sync included |

// The macros of criterion make items without documentation.
#![allow(missing_docs)]

mod case;

use std::hint::black_box;
use std::time::Duration;

use benches::record;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use indexmap::IndexMap;
use ndarray::Array2;
use quant::smartdeal::{
    Basis, BlockRule, DecomposeConfig, Factors, LayerShape, Layout, Record, SdConv2dKernel, SdLayer, SdLinearKernel,
    SdzModel, SdzReader, SdzWriter, decompose,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// Gaussian weights by Box and Muller.
fn gaussian(count: usize, sigma: f32, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut normal = || {
        let (radius, turn) = ((-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt(), rng.random::<f32>());
        sigma * radius * (std::f32::consts::TAU * turn).cos()
    };
    (0..count).map(|_| normal()).collect()
}

fn conv(out_channels: usize, in_channels: usize, kernel: usize) -> LayerShape {
    LayerShape::Conv { out_channels, in_channels, kernel: [kernel; 2] }
}

/// The layers of a CIFAR ResNet-18.
fn resnet18() -> Vec<LayerShape> {
    let mut layers = vec![conv(64, 3, 3)];
    let mut channels = 64;
    for width in [64, 128, 256, 512] {
        layers.extend([conv(width, channels, 3), conv(width, width, 3)]);
        if width != channels {
            layers.push(conv(width, channels, 1));
        }
        layers.extend([conv(width, width, 3), conv(width, width, 3)]);
        channels = width;
    }
    layers.push(LayerShape::Linear { out_features: 10, in_features: 512 });
    layers
}

/// The layers of an ImageNet ResNet-50 but for its 7×7 stem.
fn resnet50() -> Vec<LayerShape> {
    let mut layers = Vec::new();
    let mut channels = 64;
    for (width, blocks) in [(64, 3), (128, 4), (256, 6), (512, 3)] {
        for block in 0..blocks {
            layers.extend([conv(width, channels, 1), conv(width, width, 3), conv(4 * width, width, 1)]);
            if block == 0 {
                layers.push(conv(4 * width, channels, 1));
            }
            channels = 4 * width;
        }
    }
    layers.push(LayerShape::Linear { out_features: 1000, in_features: 2048 });
    layers
}

/// A layer of random codes of eight magnitudes with the given share of zero rows.
fn random_layer(shape: LayerShape, zero_rows: f64, rng: &mut ChaCha8Rng) -> SdLayer {
    let layout = Layout::new(shape, BlockRule::MaxRows(64)).expect("a layer with a cut");
    let mut codes = vec![0i8; layout.entries()];
    for row in codes.chunks_mut(layout.columns) {
        if !rng.random_bool(zero_rows) {
            row.fill_with(|| rng.random_range(56..64) * if rng.random() { 1 } else { -1 });
        }
    }
    let basis = (0..layout.blocks() * layout.basis_len()).map(|_| rng.random_range(-1f32..1.0)).collect();
    let layer = SdLayer::from_parts(layout, codes, Basis::Float(basis)).expect("parts that fit");
    layer.with_basis_bits(8).expect("eight bits")
}

fn decomposing(c: &mut Criterion) {
    let rng = &mut ChaCha8Rng::seed_from_u64(0);
    let mut group = c.benchmark_group("smartdeal/decompose");
    let config = DecomposeConfig::with_theta(4e-3);
    // Twenty blocks, as the peer: iterations differ from block to block.
    let blocks: Vec<Array2<f64>> = (0..20)
        .map(|_| {
            let weights = gaussian(576, 0.0589, rng).into_iter().map(f64::from).collect();
            Array2::from_shape_vec((192, 3), weights).expect("192 × 3")
        })
        .collect();
    let values: Vec<f64> = blocks.iter().flatten().copied().collect();
    case::leave("smartdeal_blocks", IndexMap::new(), &[("blocks", &Tensor::from_slice(&values).view([20, 192, 3]))]);
    let found: Vec<_> = blocks.iter().map(|block| decompose(&block.view(), &config).expect("finite weights")).collect();
    let mean = |of: fn(&Factors) -> f64| found.iter().map(of).sum::<f64>() / found.len() as f64;
    record("smartdeal/decompose/block_192x3", "mean_iterations", mean(|factors| factors.trace.len() as f64));
    record("smartdeal/decompose/block_192x3", "relative_error", mean(|factors| factors.relative_error));
    let mut next = 0;
    group.bench_function("block_192x3", |b| {
        b.iter(|| {
            next = (next + 1) % blocks.len();
            decompose(&black_box(&blocks[next]).view(), &config)
        })
    });
    let layers: Vec<(LayerShape, Vec<f32>)> = resnet18()
        .into_iter()
        .map(|shape| {
            let sigma = (2.0 / shape.filter_len() as f32).sqrt();
            (shape, gaussian(shape.weights(), sigma, rng))
        })
        .collect();
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    group.bench_function("cifar_resnet18", |b| {
        b.iter(|| {
            for (shape, weights) in &layers {
                black_box(SdLayer::decompose(weights, *shape, &config).expect("finite weights"));
            }
        })
    });
    group.finish();
}

fn file(c: &mut Criterion) {
    let rng = &mut ChaCha8Rng::seed_from_u64(1);
    let mut group = c.benchmark_group("smartdeal/sdz");
    group.sample_size(10);
    let layer = random_layer(conv(512, 512, 3), 0.5, rng);
    for (name, scheme) in [
        ("rebuild_row_bitmap", quant::smartdeal::IndexScheme::RowBitmap),
        ("rebuild_bitmap", quant::smartdeal::IndexScheme::Bitmap),
    ] {
        let mut writer = SdzWriter::new(Vec::new()).expect("memory");
        writer.layer("w", &layer, Some(scheme)).expect("memory");
        let bytes = writer.finish().expect("memory");
        group.throughput(Throughput::Bytes(4 * layer.shape().weights() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut reader = SdzReader::new(&bytes[..]).expect("header");
                let (_, record) = reader.next_record().expect("record").expect("one layer");
                black_box(record.to_dense())
            })
        });
    }
    let mut model = SdzModel::default();
    for (i, shape) in resnet50().into_iter().enumerate() {
        model.records.insert(format!("layer{i}.weight"), Record::Layer(random_layer(shape, 0.5, rng)));
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("resnet50.sdz");
    group.throughput(Throughput::Bytes(model.dense_bytes()));
    group.bench_function("resnet50_write_and_read", |b| {
        b.iter(|| {
            model.write(&path, None).expect("write");
            black_box(SdzModel::read(&path).expect("read"))
        })
    });
    group.finish();
}

fn linear(c: &mut Criterion) {
    let rng = &mut ChaCha8Rng::seed_from_u64(2);
    let layer = random_layer(LayerShape::Linear { out_features: 4096, in_features: 4096 }, 0.9, rng);
    let dense = Tensor::from_slice(&layer.rebuild()).view([4096, 4096]);
    let kernel = SdLinearKernel::new(&layer).expect("a linear layer");
    for (batch, name) in [(1, "smartdeal/linear_4096"), (64, "smartdeal/linear_4096_batch_64")] {
        let input = Tensor::randn([batch, 4096], (Kind::Float, tch::Device::Cpu));
        let values = Vec::<f32>::try_from(input.flatten(0, -1)).expect("floats");
        let mut group = c.benchmark_group(name);
        group.sample_size(30);
        group.bench_function("codes", |b| b.iter(|| black_box(kernel.forward(&values, None).expect("fits"))));
        group.bench_function("libtorch", |b| {
            b.iter(|| match batch {
                1 => black_box(dense.mv(&input.view([4096]))),
                _ => black_box(input.linear::<&Tensor>(&dense, None)),
            })
        });
        group.finish();
    }
}

fn convolution(c: &mut Criterion) {
    let rng = &mut ChaCha8Rng::seed_from_u64(3);
    let layer = random_layer(conv(256, 256, 3), 0.9, rng);
    let dense = Tensor::from_slice(&layer.rebuild()).view([256, 256, 3, 3]);
    let geometry = quant::smartdeal::ConvGeometry { padding: [1, 1], ..Default::default() };
    let kernel = SdConv2dKernel::new(&layer, geometry).expect("a convolution");
    let input = Tensor::randn([8, 256, 16, 16], (Kind::Float, tch::Device::Cpu));
    let values = Vec::<f32>::try_from(input.flatten(0, -1)).expect("floats");
    let mut group = c.benchmark_group("smartdeal/conv_256_16x16_batch_8");
    group.sample_size(20);
    group.bench_function("codes", |b| b.iter(|| black_box(kernel.forward(&values, 8, [16, 16], None).expect("fits"))));
    group.bench_function("libtorch", |b| {
        b.iter(|| black_box(input.conv2d::<&Tensor>(&dense, None, [1, 1], [1, 1], [1, 1], 1)))
    });
    group.finish();
}

criterion_group!(benches, decomposing, file, linear, convolution);
criterion_main!(benches);
