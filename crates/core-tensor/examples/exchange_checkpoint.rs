//! A CIFAR ResNet-20 written for PyTorch with one batch and its logits, or read from PyTorch.
//!
//! `benches/peers/checkpoint_interop.py` drives both directions and compares the logits:
//!
//! ```text
//! cargo run --release -p core-tensor --example exchange_checkpoint -- write FOLDER
//! cargo run --release -p core-tensor --example exchange_checkpoint -- read FOLDER/theirs.pth FOLDER
//! ```

use std::path::Path;
use std::process::ExitCode;

use core_tensor::Result;
use core_tensor::checkpoint::{self, Header, LoadPolicy, Metadata};
use core_tensor::networks::Architecture;
use core_tensor::nn::{Network, Standard};
use core_tensor::seed::{Purpose, seed_libtorch};
use tch::{Device, Kind, Tensor, nn};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["write", folder] => write(folder.as_ref()),
        ["read", checkpoint, folder] => read(checkpoint.as_ref(), folder.as_ref()),
        _ => {
            eprintln!("usage: exchange_checkpoint write FOLDER | read CHECKPOINT FOLDER");
            return ExitCode::FAILURE;
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn resnet20() -> Result<(nn::VarStore, Box<dyn Network>)> {
    seed_libtorch(0, Purpose::Initialisation, 0);
    let variables = nn::VarStore::new(Device::Cpu);
    let network = Architecture::cifar_resnet(20, 10)?.build(&variables.root(), &Standard)?;
    Ok((variables, network))
}

/// `ours.safetensors`, and `batch.safetensors` with `images` and our `logits` in evaluation mode.
fn write(folder: &Path) -> Result<()> {
    let (variables, network) = resnet20()?;
    let images = Tensor::rand([8, 3, 32, 32], (Kind::Float, Device::Cpu));
    // A training pass moves the running statistics from their start.
    let _ = tch::no_grad(|| network.forward(&images, true));
    let logits = tch::no_grad(|| network.forward(&images, false));
    let header = Header::new("core-tensor.state", 1, serde_json::json!({ "network": "resnet20", "epoch": 0 }));
    checkpoint::save_variables(&folder.join("ours.safetensors"), &variables, &header)?;
    let batch = [("images".to_owned(), images), ("logits".to_owned(), logits)].into_iter().collect();
    checkpoint::write_safetensors(&folder.join("batch.safetensors"), &batch, &Metadata::new())
}

/// `logits_of_theirs.safetensors`: our logits with their weights on the images of `batch.safetensors`.
fn read(weights: &Path, folder: &Path) -> Result<()> {
    let (variables, network) = resnet20()?;
    let report = checkpoint::load_variables(weights, &variables, &LoadPolicy::strict())?;
    println!("{} variables loaded, {} counters ignored", report.loaded.len(), report.ignored.len());
    let batch = checkpoint::read_safetensors(&folder.join("batch.safetensors"))?;
    let logits = tch::no_grad(|| network.forward(&batch["images"], false));
    let state = [("logits".to_owned(), logits)].into_iter().collect();
    checkpoint::write_safetensors(&folder.join("logits_of_theirs.safetensors"), &state, &Metadata::new())
}
