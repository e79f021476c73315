//! Peak memory of NT-Xent, forward and backward, in a process of its own (Linux):
//!
//! ```text
//! cargo run --release -p contrast --example nt_xent_memory -- blocks 2048
//! cargo run --release -p contrast --example nt_xent_memory -- plain 2048
//! ```

use contrast::learn::{Layout, nt_xent, nt_xent_plain};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let usage = "usage: nt_xent_memory blocks|plain ROWS";
    let mut arguments = std::env::args().skip(1);
    let loss = match arguments.next().as_deref() {
        Some("blocks") => nt_xent,
        Some("plain") => nt_xent_plain,
        _ => return Err(usage.into()),
    };
    let rows: i64 = arguments.next().ok_or(usage)?.parse()?;
    // A small one first, so that libtorch's own buffers and threads are there already.
    run(loss, 64)?;
    let before = peak()?;
    run(loss, rows)?;
    println!("{:.1} MB above the process's earlier peak of {:.1} MB", peak()? - before, before);
    Ok(())
}

type Loss = fn(&Tensor, f64, Layout) -> contrast::learn::Result<Tensor>;

fn run(loss: Loss, rows: i64) -> contrast::learn::Result<()> {
    let embeddings = Tensor::randn([rows, 128], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    loss(&embeddings, 0.5, Layout::Stacked)?.backward();
    Ok(())
}

/// The largest resident size so far, in MB.
fn peak() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).ok_or("no VmHWM")?;
    let kilobytes = line.split_whitespace().nth(1).ok_or("no number")?;
    Ok(kilobytes.parse::<f64>()? / 1000.0)
}
