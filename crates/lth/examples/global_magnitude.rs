//! Prunes a ResNet-50 to 80 % by global magnitude, and writes its weights and the mask for other programs to read:
//!
//! ```text
//! cargo run --release -p lth --example global_magnitude -- FOLDER
//! ```

use core_tensor::checkpoint::{Header, save_variables};
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use core_tensor::seed::{Purpose, seed_libtorch};
use lth::criterion::{Criterion, Magnitude};
use lth::{Amount, EmptyLayer, MaskRecord, Prunable, Selector};
use std::path::PathBuf;
use std::time::Instant;
use tch::{Device, nn};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: global_magnitude FOLDER")?);
    seed_libtorch(0, Purpose::Initialisation, 0);
    let store = nn::VarStore::new(Device::Cpu);
    let _network = Architecture::imagenet_resnet(50, 1000)?.build(&store.root(), &Standard)?;
    let prunable = Prunable::conv_and_linear();
    let weights = prunable.select_from(&store)?;

    let start = Instant::now();
    let scores = Magnitude.score(&weights, None)?;
    // These weights are untrained, so whole layers may go.
    let selector = Selector { empty_layer: EmptyLayer::Allow, ..Selector::global() };
    let mask = selector.prune(&scores, Amount::Rate(0.8), None)?;
    println!("{} of {} weights kept, in {:.3} s", mask.survivors(), mask.weights(), start.elapsed().as_secs_f64());

    let header = Header::new("example.model", 1, "ResNet-50, seed 0");
    save_variables(&folder.join("weights.safetensors"), &store, &header)?;
    let record = MaskRecord { criterion: "magnitude".into(), scope: "global".into(), prunable, source: None };
    mask.save(&folder.join("mask.safetensors"), &record)?;
    Ok(())
}
