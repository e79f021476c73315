//! Loads a published BERT and prints the pooled vector of a sequence of word pieces.
//!
//! `cargo run -p core-tensor --example bert_hidden -- FOLDER/config.json FOLDER/model.safetensors 101 7592 102`
//!
//! The weights may be safetensors or a `pytorch_model.bin`, of a bare encoder or of a task model.

use core_tensor::networks::bert::{Bert, BertConfig, BertInput, load_weights};
use core_tensor::nn::Standard;
use tch::{Device, Tensor, nn::VarStore};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, weights, ids @ ..] = arguments.as_slice() else {
        return Err("config.json, weights and word pieces are needed".into());
    };
    let config = BertConfig::from_file(config.as_ref())?;
    let store = VarStore::new(Device::Cpu);
    let bert = Bert::new(&store.root(), &Standard, &config)?;
    let load = load_weights(weights.as_ref(), &store)?;
    eprintln!("{} loaded, without a place: {:?}", load.report.loaded.len(), load.report.unexpected);
    let ids = ids.iter().map(|id| id.parse()).collect::<Result<Vec<i64>, _>>()?;
    let input = BertInput::new(Tensor::from_slice(&ids).view([1, -1]));
    let pooled = tch::no_grad(|| bert.pooled(&input, false))?;
    let values: Vec<f32> = pooled.view(-1).try_into()?;
    println!("{}", values.iter().map(f32::to_string).collect::<Vec<_>>().join(" "));
    Ok(())
}
