//! Attentive grouping: retrieval evaluation, a loss, the module beside its backbone.
//!
//! | bench | target |
//! |---|---|
//! | `grouping/evaluate_60000x512` | `pytorch-metric-learning` with faiss ÷ 1.3, at most 1 GB beside the embeddings |
//! | `grouping/multi_similarity_512x512` | `pytorch-metric-learning` ÷ 1.5 |
//! | `grouping/step_with_module` | 1.1 × `grouping/step_of_backbone` |
//!
//! The peer is `peers/grouping_speed.py`, on the same vectors, which this bench leaves in
//! `target/grouping_*.safetensors`.

// The macros of criterion make items without documentation.
#![allow(missing_docs)]

mod case;

use std::hint::black_box;
use std::time::Duration;

use benches::record;
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use core_tensor::seed::{Purpose, generator, seed_libtorch};
use criterion::{Criterion, criterion_group, criterion_main};
use indexmap::IndexMap;
use rand::Rng;
use tch::{Device, Kind, Tensor, nn};
use vision::grouping::{
    AttentiveGrouping, AttentiveGroupingConfig, Embedded, Evaluator, GroupingHead, MetricLoss, MultiSimilarity,
    feature_map,
};

/// Unit vectors around a direction of their class, five a class as in Stanford Online Products.
fn classes_of_five(count: i64, dim: i64) -> (Tensor, Vec<i64>) {
    let mut rng = generator(0, Purpose::Data, 0);
    let mut uniform =
        |rows: i64| Tensor::from_slice(&(0..rows * dim).map(|_| rng.random_range(-1.0_f32..1.0)).collect::<Vec<_>>());
    let centres = uniform(count / 5).view([count / 5, 1, dim]);
    let noise = uniform(count).view([count / 5, 5, dim]) * 2.0;
    let rows = (centres + noise).view([count, dim]);
    let norms = rows.norm_scalaropt_dim(2, [1], true);
    (rows / norms, (0..count).map(|item| item / 5).collect())
}

/// The vectors and their classes, left for the peer with what our evaluation says of them.
fn vectors(evaluator: &Evaluator) -> (Tensor, Vec<i64>) {
    let (embeddings, labels) = classes_of_five(60_000, 512);
    let classes = Tensor::from_slice(&labels);
    case::leave("grouping_vectors", IndexMap::new(), &[("rows", &embeddings), ("labels", &classes)]);
    let before = peak_bytes();
    let report = evaluator.evaluate(&embeddings, &labels).expect("finite embeddings");
    println!("peak beside the embeddings: {} MB", (peak_bytes() - before) >> 20);
    for &(k, recall) in &report.recall {
        record("grouping/evaluate_60000x512", &format!("recall_{k}"), recall);
    }
    record("grouping/evaluate_60000x512", "r_precision", report.r_precision);
    record("grouping/evaluate_60000x512", "map_at_r", report.map_at_r);
    (embeddings, labels)
}

fn evaluation(c: &mut Criterion) {
    let mut group = c.benchmark_group("grouping");
    group.sample_size(10).warm_up_time(Duration::from_millis(1)).measurement_time(Duration::from_secs(1));
    let evaluator = Evaluator::new([1, 10, 100, 1000]);
    let mut made = None;
    group.bench_function("evaluate_60000x512", |b| {
        // Only now, so that a filter that leaves this out need not wait.
        let (embeddings, labels) = made.get_or_insert_with(|| vectors(&evaluator));
        b.iter(|| evaluator.evaluate(black_box(embeddings), labels).expect("finite embeddings").map_at_r)
    });
    group.finish();
}

fn multi_similarity(c: &mut Criterion) {
    let (raw, _) = classes_of_five(510, 512);
    let raw = Tensor::cat(&[&raw, &raw.narrow(0, 0, 2)], 0).set_requires_grad(true);
    let labels: Vec<i64> = (0..512).map(|item| item / 4).collect();
    let classes = Tensor::from_slice(&labels);
    case::leave("grouping_loss", IndexMap::new(), &[("rows", &raw), ("labels", &classes)]);
    let loss = |batch: &Embedded| MultiSimilarity::default().loss(batch, None).expect("pairs");
    let value = loss(&Embedded::new(&raw, &labels).expect("finite embeddings")).double_value(&[]);
    record("grouping/multi_similarity_512x512", "loss", value);
    let mut group = c.benchmark_group("grouping");
    group.measurement_time(Duration::from_secs(4));
    group.bench_function("multi_similarity_512x512", |b| {
        b.iter(|| {
            let batch = Embedded::new(&raw, &labels).expect("finite embeddings");
            loss(&batch).backward();
        })
    });
    group.finish();
}

fn module(c: &mut Criterion) {
    seed_libtorch(0, Purpose::Initialisation, 0);
    let store = nn::VarStore::new(Device::Cpu);
    let network = Architecture::imagenet_resnet(18, 10).and_then(|net| net.build(&store.root(), &Standard));
    let network = network.expect("a ResNet-18");
    let config = AttentiveGroupingConfig::new(512, 4, 512);
    let head = AttentiveGrouping::new(&(store.root() / "head"), config).expect("a head");
    let images = Tensor::randn([16, 3, 112, 112], (Kind::Float, Device::Cpu));
    let mut group = c.benchmark_group("grouping");
    group.sample_size(10).measurement_time(Duration::from_secs(8));
    group.bench_function("step_of_backbone", |b| {
        b.iter(|| {
            let map = feature_map(network.as_ref(), "layer4", &images, true).expect("a stage");
            map.mean(Kind::Float).backward();
        })
    });
    group.bench_function("step_with_module", |b| {
        b.iter(|| {
            let map = feature_map(network.as_ref(), "layer4", &images, true).expect("a stage");
            head.forward(&map).expect("a map").groups().mean(Kind::Float).backward();
        })
    });
    let map = feature_map(network.as_ref(), "layer4", &images, false).expect("a stage").detach();
    let map = map.set_requires_grad(true);
    group.bench_function("module_alone", |b| {
        b.iter(|| head.forward(&map).expect("a map").groups().mean(Kind::Float).backward())
    });
    group.finish();
}

/// The most memory that this process has had so far, as Linux counts it; 0 elsewhere.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) << 10
}

criterion_group!(benches, evaluation, multi_similarity, module);
criterion_main!(benches);
