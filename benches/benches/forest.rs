//! Soft forests: one training epoch, and prediction of a batch and of a single row, at the size of Fashion-MNIST.
//!
//! With `$REPRO_DATA` (or `data/`) holding Fashion-MNIST, also 15 trees trained on its 60,000 images (20 to 40 seconds)
//! that predict its 10,000 test images, beside a random forest of scikit-learn's (`peers/forest_peers.py`).

use std::hint::black_box;
use std::path::{Path, PathBuf};

use benches::record;
use core_tensor::data::{Dataset, fashion_mnist};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forest::synthetic::blobs;
use forest::{Evaluation, HardForestParams, Leafness, Scaling, SoftForestParams};
use ndarray::{Array1, Array2, aview1};

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

fn rows(images: &Dataset) -> (Array2<f32>, Array1<usize>) {
    let values = images.pixels().iter().map(|&pixel| f32::from(pixel) / 255.0).collect();
    let labels: Array1<_> = images.targets().iter().map(|&class| class as usize).collect();
    (Array2::from_shape_vec((labels.len(), COLUMNS), values).unwrap(), labels)
}

fn images(criterion: &mut Criterion) {
    let root = std::env::var_os("REPRO_DATA").map_or_else(|| Path::new("../data").to_path_buf(), PathBuf::from);
    let folder = root.join("fashion-mnist");
    let Ok(splits) = fashion_mnist(&folder) else {
        eprintln!("{} is not there: prediction of its images is left out", folder.display());
        return;
    };
    let ((x, y), (test_x, test_y)) = (rows(&splits.train), rows(&splits.test));
    let params = SoftForestParams::default().scaling(Scaling::Centre).batch(256).epochs(15);
    let mut trained = None;
    let mut group = criterion.benchmark_group("forest_fashion_mnist_predict_10000");
    for (name, evaluation) in
        [("exact", Evaluation::Exact), ("integer_skip_below_0.1", Evaluation::IntegerSkip { below: 0.1 })]
    {
        let mut judged = false;
        group.bench_function(name, |bencher| {
            // Only now, so that a filter that leaves this out need not wait.
            let model = trained.get_or_insert_with(|| params.fit(x.view(), y.view()).unwrap());
            if !std::mem::replace(&mut judged, true) {
                let found = model.predict_with(test_x.view(), evaluation).unwrap();
                let right = found.iter().zip(&test_y).filter(|(found, label)| found == label).count();
                let accuracy = right as f64 / test_y.len() as f64;
                record(&format!("forest_fashion_mnist_predict_10000/{name}"), "accuracy", accuracy);
            }
            bencher.iter(|| black_box(model.evaluate(test_x.view(), evaluation).unwrap()));
        });
    }
    group.finish();
}

criterion_group!(benches, prediction, training, images);
criterion_main!(benches);
