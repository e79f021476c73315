//! What a training step waits for: reading a set once, and augmenting every batch.

use std::path::{Path, PathBuf};

use core_tensor::data::{
    Augmentation, BatchSource, ChannelStatistics, Draw, Loader, LoaderConfig, ShapeGenerator, Transform, fashion_mnist,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const BATCH: usize = 128;

/// The augmentation of the CIFAR ResNets, which may take 2 % of a ResNet-20 step.
fn crop_flip_normalise() -> Augmentation {
    Augmentation::new([
        Transform::PadCrop { padding: 4 },
        Transform::HorizontalFlip { probability: 0.5 },
        ChannelStatistics::cifar10().normalise(),
    ])
}

/// SimCLR's for CIFAR-10, without blur (Chen et al., arXiv 2002.05709, appendix B.9).
fn contrastive() -> Augmentation {
    Augmentation::new([
        Transform::ResizedCrop { size: [32, 32], scale: [0.08, 1.0], ratio: [0.75, 4.0 / 3.0] },
        Transform::HorizontalFlip { probability: 0.5 },
        Transform::ColourJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, probability: 0.8 },
        Transform::Grey { probability: 0.2 },
    ])
}

fn augmentation(criterion: &mut Criterion) {
    let set = ShapeGenerator::cifar10().splits(2048, 10, 0).unwrap().train;
    let mut group = criterion.benchmark_group("augmentation_128x3x32x32");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, augmentation) in [("crop_flip_normalise", crop_flip_normalise()), ("contrastive", contrastive())] {
        let pipeline = augmentation.prepare(3, Some([32, 32])).unwrap();
        // Strides through the set, as a shuffled epoch does.
        let index: Vec<_> = (0..BATCH).map(|i| i * 797 % 2048).collect();
        group.bench_function(name, |bencher| bencher.iter(|| pipeline.batch(&set, &index, Draw::default()).unwrap()));
    }
    group.finish();
}

fn loader(criterion: &mut Criterion) {
    let set = ShapeGenerator::cifar10().splits(BATCH * 16, 10, 0).unwrap().train;
    let loader = Loader::new(set, &crop_flip_normalise(), LoaderConfig::training(BATCH), 0).unwrap();
    let mut group = criterion.benchmark_group("loader");
    group.throughput(Throughput::Elements(BATCH as u64 * 16));
    group.bench_function("epoch_of_16_batches", |bencher| {
        bencher.iter(|| loader.epoch(0).unwrap().map(|batch| batch.unwrap().index.len()).sum::<usize>());
    });
    group.finish();
}

fn generator(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("generator");
    group.sample_size(10).throughput(Throughput::Elements(10_000));
    let shapes = ShapeGenerator::fashion_mnist();
    group.bench_function("10000_images_28x28", |bencher| bencher.iter(|| shapes.splits(9_000, 1_000, 0).unwrap()));
    group.finish();
}

/// Fashion-MNIST below `$REPRO_DATA` or `data/`, gzipped, to tensors.
fn reading(criterion: &mut Criterion) {
    let root = std::env::var_os("REPRO_DATA").map_or_else(|| Path::new("../data").to_path_buf(), PathBuf::from);
    let folder = root.join("fashion-mnist");
    if !folder.join("train-images-idx3-ubyte.gz").exists() {
        eprintln!("{} is not there: reading is left out", folder.display());
        return;
    }
    let mut group = criterion.benchmark_group("reading");
    group.sample_size(10).throughput(Throughput::Elements(70_000));
    group.bench_function("fashion_mnist_gz_to_tensors", |bencher| {
        bencher.iter(|| {
            let sets = fashion_mnist(&folder).unwrap();
            (sets.train.images(), sets.train.labels(), sets.test.images(), sets.test.labels())
        });
    });
    group.finish();
}

criterion_group!(benches, augmentation, loader, generator, reading);
criterion_main!(benches);
