//! Retrieval metrics of as many embeddings as Stanford Online Products has, exactly: how long, and how much memory.
//!
//! `cargo run --release -p vision --example grouping_evaluate -- --items 60000 --dim 512`

use clap::Parser;
use core_tensor::seed::{Purpose, generator};
use rand::Rng;
use std::time::Instant;
use tch::Tensor;
use vision::grouping::Evaluator;

#[derive(Parser)]
struct Args {
    /// Embeddings, five a class.
    #[arg(long, default_value_t = 20_000)]
    items: i64,
    /// Numbers in each.
    #[arg(long, default_value_t = 512)]
    dim: i64,
}

fn main() -> anyhow::Result<()> {
    let Args { items, dim } = Args::parse();
    anyhow::ensure!(items >= 2000 && items % 5 == 0 && dim > 0, "a multiple of five items, 2000 at least");
    let mut rng = generator(0, Purpose::Data, 0);
    let mut uniform =
        |rows: i64| Tensor::from_slice(&(0..rows * dim).map(|_| rng.random_range(-1.0_f32..1.0)).collect::<Vec<_>>());
    let centres = uniform(items / 5).view([items / 5, 1, dim]);
    let rows = (centres + uniform(items).view([items / 5, 5, dim]) * 2.0).view([items, dim]);
    let embeddings = &rows / rows.norm_scalaropt_dim(2, [1], true);
    drop(rows);
    let labels: Vec<i64> = (0..items).map(|item| item / 5).collect();

    let (before, start) = (memory("VmRSS:"), Instant::now());
    let report = Evaluator::new([1, 10, 100, 1000]).evaluate(&embeddings, &labels)?;
    println!("{:.2} s, at most {} MB beside the embeddings", start.elapsed().as_secs_f64(), memory("VmHWM:") - before);
    for (k, recall) in &report.recall {
        println!("Recall@{k:<5} {recall:.4}");
    }
    println!("R-precision  {:.4}\nMAP@R        {:.4}", report.r_precision, report.map_at_r);
    Ok(())
}

/// A line of Linux's account of this process, in MB; 0 elsewhere.
fn memory(line: &str) -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.split_whitespace().next()?.parse::<i64>().ok());
    value.unwrap_or(0) >> 10
}
