//! Turns a PyTorch checkpoint into safetensors, without Python and without running anything the file holds.
//!
//! ```text
//! cargo run --release -p core-tensor --example convert_checkpoint -- resnet50.pth resnet50.safetensors
//! cargo run --release -p core-tensor --example convert_checkpoint -- moco_v2.pth.tar moco.safetensors state_dict
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use core_tensor::checkpoint::{Header, PickleFile, write_safetensors};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [source, target, keys @ ..] = arguments.as_slice() else {
        eprintln!("usage: convert_checkpoint SOURCE.pth TARGET.safetensors [KEY…]");
        return ExitCode::FAILURE;
    };
    match convert(source.into(), target.into(), keys) {
        Ok(tensors) => {
            println!("{tensors} tensors");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn convert(source: PathBuf, target: PathBuf, keys: &[String]) -> core_tensor::Result<usize> {
    let mut file = PickleFile::open(&source)?;
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let state = if keys.is_empty() { file.state()? } else { file.state_at(&keys)? };
    let origin = serde_json::json!({ "converted_from": source.file_name().map(|name| name.to_string_lossy()) });
    write_safetensors(&target, &state, &Header::new("core-tensor.state", 1, origin).to_metadata()?)?;
    Ok(state.len())
}
