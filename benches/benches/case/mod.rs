//! What a bench leaves for its peers, so that both sides compute the same: tensors in `target/NAME.safetensors`.

use std::path::Path;

use core_tensor::checkpoint::{Metadata, write_safetensors};
use indexmap::IndexMap;
use tch::Tensor;

/// Writes a file of tensors by name, such as a network's state and a batch.
pub fn leave(name: &str, state: IndexMap<String, Tensor>, more: &[(&str, &Tensor)]) {
    let mut tensors = state;
    tensors.extend(more.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.detach())));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("../{name}.safetensors"));
    write_safetensors(&path, &tensors, &Metadata::new()).expect("target is writable");
}
