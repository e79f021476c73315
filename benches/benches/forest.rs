//! Soft forests: one training epoch, and prediction of a batch and of a single row, at the size of Fashion-MNIST.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forest::synthetic::blobs;
use forest::{Evaluation, HardForestParams, Leafness, Scaling, SoftForestParams};
use ndarray::aview1;

const COLUMNS: usize = 784;
const CLASSES: usize = 10;

/// 15 trees of 45 nodes: what training on Fashion-MNIST ends with.
fn compact() -> SoftForestParams {
    SoftForestParams::default().scaling(Scaling::Centre).leafness(Leafness::Random { nodes: 45 }).epochs(1)
}

fn prediction(criterion: &mut Criterion) {
    let (x, y) = blobs(2048, COLUMNS, CLASSES, 6.0, 1);
    let model = compact().fit(x.view(), aview1(&y)).unwrap();
    let mut group = criterion.benchmark_group("forest_predict_2048x784");
    group.throughput(Throughput::Elements(x.nrows() as u64));
    for (name, evaluation) in [
        ("exact", Evaluation::Exact),
        ("integer", Evaluation::Integer),
        ("skip_below_0.05", Evaluation::Skip { below: 0.05 }),
        ("integer_skip_below_0.05", Evaluation::IntegerSkip { below: 0.05 }),
        ("hard", Evaluation::Hard),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| model.evaluate(x.view(), evaluation).unwrap()));
    }
    let params = HardForestParams { max_depth: Some(12), ..HardForestParams::default() };
    let hard = params.fit(x.view(), aview1(&y)).unwrap();
    group.bench_function("hard_trees_100", |bencher| bencher.iter(|| hard.predict_proba(x.view()).unwrap()));
    group.finish();
    let row = x.row(0).to_vec();
    let mut output = [0.0; CLASSES];
    let mut group = criterion.benchmark_group("forest_predict_one_row");
    for (name, evaluation) in [
        ("exact", Evaluation::Exact),
        ("skip_below_0.05", Evaluation::Skip { below: 0.05 }),
        ("integer_skip_below_0.05", Evaluation::IntegerSkip { below: 0.05 }),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| model.predict_one(&row, evaluation, &mut output).unwrap());
        });
    }
    group.finish();
}

fn training(criterion: &mut Criterion) {
    let (x, y) = blobs(2048, COLUMNS, CLASSES, 6.0, 1);
    let mut group = criterion.benchmark_group("forest_train_epoch_2048x784");
    group.throughput(Throughput::Elements(x.nrows() as u64)).sample_size(10);
    for (name, params) in [
        ("15_full_trees_of_depth_6", SoftForestParams::default().leafness(Leafness::Fixed)),
        ("15_trees_of_45_nodes", compact()),
    ] {
        let mut model = params.epochs(0).fit(x.view(), aview1(&y)).unwrap();
        group.bench_function(name, |bencher| bencher.iter(|| model.partial_fit(x.view(), aview1(&y)).unwrap()));
    }
    group.finish();
}

criterion_group!(benches, prediction, training);
criterion_main!(benches);
