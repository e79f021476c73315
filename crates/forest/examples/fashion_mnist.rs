//! Trains on Fashion-MNIST (or any set of 28 x 28 images as four gzipped IDX files) and prints what `forest_peers.py` prints
//! for its models, for every way of evaluating.
//!
//! cargo run --release -p forest --example fashion_mnist -- DATA_DIR [ROWS] [constant|small|linear|linear-small|cascade [TREES]]

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use forest::{
    DeepForestParams, Evaluation, Forest, LeafModel, Leafness, Mix, Optimiser, Regularisers, Scaling, SoftForest,
    SoftForestParams,
};
use ndarray::{Array1, Array2, ArrayView2, s};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("expected the folder of the IDX files")?;
    let rows: usize = arguments.next().map_or(Ok(10_000), |rows| rows.parse())?;
    let preset = arguments.next().unwrap_or_else(|| "constant".to_owned());
    let trees = arguments.next().map(|trees| trees.parse::<usize>()).transpose()?;
    let (x, y) = load(Path::new(&folder), "train")?;
    let (test_x, test_y) = load(Path::new(&folder), "t10k")?;
    let rows = rows.min(y.len());
    let (x, y) = (x.slice_move(s![..rows, ..]), y.slice_move(s![..rows]));
    let large = rows > 20_000;
    let base = SoftForestParams::default().scaling(Scaling::Centre).batch(if large { 256 } else { 128 }).epochs(15);
    let linear = base.clone().mix(Mix::Logits).leaf(LeafModel::Linear).optimiser(Optimiser {
        rate: 0.003,
        weight_decay: if large { 0.0 } else { 1.0 },
        ..Optimiser::default()
    });
    let params = match preset.as_str() {
        "constant" => base,
        "small" => base
            .leafness(Leafness::Logit { init: 0.0 })
            .regularisers(Regularisers { size: 1e-3, ..Regularisers::default() }),
        "linear" => linear.trees(if large { 5 } else { 15 }).depth(4),
        "linear-small" => linear.trees(2).depth(3),
        "cascade" => return cascade(&base, &x, &y, &test_x, &test_y),
        other => return Err(format!("unknown preset {other}").into()),
    };
    let params = match trees {
        Some(trees) => params.trees(trees),
        None => params,
    };
    let start = (Instant::now(), cpu_seconds()?);
    let forest = params.fit(x.view(), y.view())?;
    println!(
        "{{\"model\": \"{preset}\", \"train_rows\": {}, \"accuracy\": {:.4}, \"fit_wall_s\": {:.2}, \"fit_cpu_s\": {:.2}, \
         \"bytes\": {}, \"peak_mb\": {}}}",
        x.nrows(),
        forest.score(test_x.view(), test_y.view())?,
        start.0.elapsed().as_secs_f64(),
        cpu_seconds()? - start.1,
        forest.complexity().bytes,
        peak_megabytes()?
    );
    println!("{:?}", forest.complexity());
    for evaluation in [
        Evaluation::Exact,
        Evaluation::Skip { below: 0.01 },
        Evaluation::Skip { below: 0.05 },
        Evaluation::Skip { below: 0.1 },
        Evaluation::Hard,
    ] {
        measure(&forest, test_x.view(), &test_y, evaluation)?;
    }
    if !preset.starts_with("linear") {
        for evaluation in [
            Evaluation::Integer,
            Evaluation::IntegerSkip { below: 0.01 },
            Evaluation::IntegerSkip { below: 0.05 },
            Evaluation::IntegerSkip { below: 0.1 },
            Evaluation::IntegerSkip { below: 1.0 },
        ] {
            measure(&forest, test_x.view(), &test_y, evaluation)?;
        }
    }
    Ok(())
}

/// Accuracy, time of the whole batch (best of 7, wall and CPU), and median time of one row.
fn measure(forest: &SoftForest, x: ArrayView2<f32>, y: &Array1<usize>, evaluation: Evaluation) -> Result<(), Failure> {
    let mut best = (f64::MAX, f64::MAX);
    for _ in 0..7 {
        let start = (Instant::now(), cpu_seconds()?);
        forest.predict_with(x, evaluation)?;
        best.0 = best.0.min(start.0.elapsed().as_secs_f64());
        best.1 = best.1.min(cpu_seconds()? - start.1);
    }
    let predicted = forest.evaluate(x, evaluation)?;
    let classes = forest.predict_with(x, evaluation)?;
    let hits = classes.iter().zip(y).filter(|(p, y)| p == y).count();
    let mut single = Vec::new();
    let mut output = vec![0.0; forest.classes()];
    for row in x.rows().into_iter().take(2000) {
        let row = row.to_vec();
        let start = Instant::now();
        forest.predict_one(&row, evaluation, &mut output)?;
        single.push(start.elapsed().as_secs_f64());
    }
    single.sort_by(f64::total_cmp);
    println!(
        "{evaluation:?}: accuracy {:.4}, {:.2} us a row (wall), {:.2} us (CPU), one row alone {:.1} us, mean bound {:.4}",
        hits as f64 / y.len() as f64,
        best.0 / x.nrows() as f64 * 1e6,
        best.1 / x.nrows() as f64 * 1e6,
        single[single.len() / 2] * 1e6,
        predicted.bounds.iter().sum::<f32>() / x.nrows() as f32
    );
    Ok(())
}

/// Two layers of the forest, each layer's accuracy on the test set.
fn cascade(
    base: &SoftForestParams,
    x: &Array2<f32>,
    y: &Array1<usize>,
    test_x: &Array2<f32>,
    test_y: &Array1<usize>,
) -> Result<(), Failure> {
    let params = DeepForestParams {
        forests: vec![Forest::Soft(Box::new(base.clone()))],
        max_layers: 3,
        ..DeepForestParams::default()
    };
    let start = (Instant::now(), cpu_seconds()?);
    let model = params.fit(x.view(), y.view())?;
    println!(
        "fitted in {:.1} s (CPU {:.1}), out-of-fold scores {:.4?}, {} layers kept, {} numbers",
        start.0.elapsed().as_secs_f64(),
        cpu_seconds()? - start.1,
        model.layer_scores(),
        model.layers(),
        model.scalars()
    );
    for (layer, output) in model.predict_layers(test_x.view())?.iter().enumerate() {
        let hits = output.rows().into_iter().zip(test_y).filter(|(row, y)| row.iter().all(|p| *p <= row[**y])).count();
        println!("layer {}: accuracy {:.4}", layer + 1, hits as f64 / test_y.len() as f64);
    }
    Ok(())
}

/// Images in [0, 1] and labels.
fn load(folder: &Path, part: &str) -> Result<(Array2<f32>, Array1<usize>), Failure> {
    let read = |kind: &str| -> Result<Vec<u8>, Failure> {
        let path = folder.join(format!("{part}-{kind}-ubyte.gz"));
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let (images, labels) = (read("images-idx3")?, read("labels-idx1")?);
    let pixels = images.get(16..).ok_or("no images")?.iter().map(|&b| f32::from(b) / 255.0).collect();
    let labels: Array1<usize> = labels.get(8..).ok_or("no labels")?.iter().map(|&l| l.into()).collect();
    Ok((Array2::from_shape_vec((labels.len(), 784), pixels)?, labels))
}

/// Processor time of all living threads of this process so far; Linux only.
fn cpu_seconds() -> Result<f64, Failure> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += stat.split_whitespace().next().ok_or("empty schedstat")?.parse::<f64>()?;
    }
    Ok(nanoseconds * 1e-9)
}

/// Peak resident memory of this process; Linux only.
fn peak_megabytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).ok_or("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse::<u64>()? / 1024)
}
