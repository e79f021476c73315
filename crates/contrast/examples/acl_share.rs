//! What a dual-stream step costs beyond its network passes, as a ratio of the two, timed in turns:
//!
//! ```text
//! cargo run --release -p contrast --example acl_share -- 100
//! ```
//!
//! 128 images of 28 × 28 in two views, the small convolutional net, five attack steps. The passes alone are five forward and
//! backward to the images, two forward and one backward to the weights, with the sum of the embeddings as their loss; the
//! step has NT-Xent seven times, the ascent, its checks, and both branches of the norms. A machine's speed wanders by more
//! than the difference, so that a ratio is taken of each step and the passes right beside it, in alternating order.

use std::error::Error;
use std::time::Instant;

use contrast::learn::{Acl, AclConfig, BranchSwitch, DualBatchNorm, Projector, ProjectorConfig, ViewBatch};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::train::{Objective, Progress};
use tch::{Device, Kind, Tensor, nn};

/// Rounds that warm up caches, allocator and libtorch, and are not counted.
const WARM_UP: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: usize = std::env::args().nth(1).ok_or("usage: acl_share ROUNDS")?.parse()?;
    if rounds < 6 {
        return Err("an interval of a median needs 6 rounds".into());
    }
    let switch = BranchSwitch::default();
    let store = nn::VarStore::new(Device::Cpu);
    let layers = DualBatchNorm::new(&switch);
    let architecture = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![16, 32, 64], classes: 10 });
    let network = architecture.build(&store.root(), &layers)?;
    let projector = Projector::new(&(store.root() / "projector"), &layers, 64, &ProjectorConfig::acl(64))?;
    let config = AclConfig::default();
    let attack_steps = config.attack.steps;
    let mut acl = Acl::new((network.as_ref(), &projector), &switch, config, 0)?;
    let views = Tensor::rand([256, 1, 28, 28], (Kind::Float, Device::Cpu));
    let batch = ViewBatch { views: views.shallow_clone(), index: (0..128).collect() };

    let clear = || store.variables().values_mut().for_each(Tensor::zero_grad);
    let embed = |images: &Tensor, train| projector.forward(&network.features(images, train), train).sum(Kind::Float);
    let mut passes = || {
        for _ in 0..attack_steps {
            let images = views.detach().set_requires_grad(true);
            drop(Tensor::run_backward(&[embed(&images, false)], &[images], false, false));
        }
        (embed(&views, true) + embed(&views, true)).backward();
        clear();
        Ok(())
    };
    let mut step = || {
        acl.loss(&batch, &Progress::default())?.total.backward();
        clear();
        Ok(())
    };

    let mut pairs = Vec::new();
    for round in 0..rounds + WARM_UP {
        pairs.push(if round % 2 == 0 {
            let alone = milliseconds(&mut passes)?;
            (alone, milliseconds(&mut step)?)
        } else {
            let whole = milliseconds(&mut step)?;
            (milliseconds(&mut passes)?, whole)
        });
    }
    let pairs = &pairs[WARM_UP..];
    let alone = sorted(pairs.iter().map(|pair| pair.0));
    let whole = sorted(pairs.iter().map(|pair| pair.1));
    let ratio = sorted(pairs.iter().map(|pair| pair.1 / pair.0));
    let [low, high] = median_interval(&ratio);
    println!("passes {:.1} ms, step {:.1} ms (medians of {rounds})", median(&alone), median(&whole));
    println!("step ÷ passes: {:.4} (95 % interval of the median {low:.4} to {high:.4})", median(&ratio));
    Ok(())
}

fn milliseconds(work: &mut dyn FnMut() -> core_tensor::Result<()>) -> core_tensor::Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

/// The order statistics between which the median lies with 95 % probability, whatever the distribution (normal approximation
/// to the binomial).
fn median_interval(sorted: &[f64]) -> [f64; 2] {
    let count = sorted.len() as f64;
    let reach = 0.98 * count.sqrt();
    let low = (count / 2.0 - reach).floor().max(0.0) as usize;
    let high = ((count / 2.0 + reach).ceil() as usize).min(sorted.len() - 1);
    [sorted[low], sorted[high]]
}
