//! Saves a ResNet-20 that PyTorch can load by name, with example images and their logits beside the weights.
//!
//! `cargo run -p core-tensor --example export_resnet20 -- resnet20.safetensors`

use core_tensor::checkpoint::{Header, state_of, write_safetensors};
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use core_tensor::seed::{Purpose, seed_libtorch};
use tch::{Device, Kind, Tensor, nn};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("usage: export_resnet20 FILE.safetensors")?;
    seed_libtorch(0, Purpose::Initialisation, 0);
    let store = nn::VarStore::new(Device::Cpu);
    let network = Architecture::cifar_resnet(20, 10)?.build(&store.root(), &Standard)?;
    // One pass in training mode, so that the running statistics are not the trivial ones.
    let images = Tensor::randn([16, 3, 32, 32], (Kind::Float, Device::Cpu));
    let _ = tch::no_grad(|| network.forward(&images, true));
    let logits = tch::no_grad(|| network.forward(&images, false));

    let mut tensors = state_of(&store);
    tensors.insert("example.input".into(), images);
    tensors.insert("example.logits".into(), logits);
    let header = Header::new("core-tensor.example", 1, serde_json::json!({ "network": "ResNet-20" }));
    write_safetensors(file.as_ref(), &tensors, &header.to_metadata()?)?;
    Ok(())
}
