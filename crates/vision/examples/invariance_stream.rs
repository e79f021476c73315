//! Streams a million shifted images through a small network, and says how much memory that took:
//!
//! ```text
//! cargo run --release -p vision --example invariance_stream -- [IMAGES]
//! ```

use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::nn::Standard;
use core_tensor::seed::{Purpose, seed_libtorch};
use std::time::Instant;
use tch::{Device, Kind, Tensor, nn};
use vision::invariance::{Anchor, MeanMaps, NetworkProbe, Picture, Placer, ShiftGrid, ShiftStudy, Sprite};

fn main() -> anyhow::Result<()> {
    let wanted: usize = std::env::args().nth(1).map_or(Ok(1_000_000), |images| images.parse())?;
    seed_libtorch(0, Purpose::Initialisation, 0);
    let store = nn::VarStore::new(Device::Cpu);
    let config = ConvNetConfig { in_channels: 1, widths: vec![4, 8, 16], classes: 10 };
    let network = Architecture::ConvNet(config).build(&store.root(), &Standard)?;
    // 15 × 15 positions an object.
    let study = ShiftStudy::new(ShiftGrid::new([24, 24], [10, 10], 1)?, Placer::on_colour(vec![0.0]));
    let probe = NetworkProbe::new(network.as_ref(), &["conv3", "logits"], [1, 24, 24])?;
    let mut means = MeanMaps::new();
    let (start, mut done) = (Instant::now(), 0);
    let mut next = wanted / 10;
    while done < wanted {
        let object = Tensor::f_rand([1, 10, 10], (Kind::Float, Device::Cpu))?;
        let object = Sprite::opaque(Picture::from_tensor(&object)?);
        means.add(&study.stream(&probe, &object, &[Anchor::Centre])?, &[Anchor::Centre])?;
        done += study.grid.len();
        if done >= next {
            println!("{done} images, {:.0} s, peak memory {}", start.elapsed().as_secs_f64(), peak());
            next += wanted / 10;
        }
    }
    for mean in means.finish() {
        let (similarity, deviation) = mean.mean_similarity();
        println!("{}: mean cosine {similarity:.4} ({deviation:.4} over objects)", mean.layer);
    }
    Ok(())
}

/// Linux's own count; elsewhere nothing is known.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".into(), |value| value.trim().to_owned())
}
