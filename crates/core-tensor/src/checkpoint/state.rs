//! Models to files and back, in the names PyTorch uses.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use indexmap::IndexMap;
use serde::Serialize;
use tch::{Kind, Tensor, nn::VarStore};

use super::{Header, LoadPolicy, LoadReport, PickleFile, load_state, pickle, read_safetensors, write_safetensors};
use crate::{Error, Result};

/// A model's variables by name, sorted, as PyTorch's `state_dict()` has them: next to each batch norm's
/// `running_mean` stands a `num_batches_tracked` of 0, which tch does not keep but `load_state_dict(strict=True)`
/// asks for.
///
/// The tensors share the model's memory; copy those that should outlive a further training step.
pub fn state_of(variables: &VarStore) -> IndexMap<String, Tensor> {
    let mut state: IndexMap<String, Tensor> =
        variables.variables().into_iter().map(|(name, variable)| (name, variable.detach())).collect();
    let counters: Vec<_> = state
        .keys()
        .filter_map(|name| name.strip_suffix("running_mean"))
        .filter(|prefix| prefix.is_empty() || prefix.ends_with('.'))
        .map(|prefix| format!("{prefix}num_batches_tracked"))
        .collect();
    for counter in counters {
        state.entry(counter).or_insert_with(|| Tensor::zeros([], (Kind::Int64, variables.device())));
    }
    state.sort_keys();
    state
}

/// Writes a model's [state](state_of) to a safetensors file, atomically.
///
/// # Errors
/// As [`write_safetensors`] and [`Header::to_metadata`].
pub fn save_variables<T: Serialize>(path: &Path, variables: &VarStore, header: &Header<T>) -> Result<()> {
    write_safetensors(path, &state_of(variables), &header.to_metadata()?)
}

/// Reads a file's tensors into a model, by name; see [`load_state`].
///
/// # Errors
/// As [`read_state`] and [`load_state`]; on any of them the model is as it was.
pub fn load_variables(path: &Path, variables: &VarStore, policy: &LoadPolicy) -> Result<LoadReport> {
    load_state(variables, &read_state(path)?, policy)
}

/// The named tensors of a file: safetensors, or a PyTorch checkpoint with the model in [one of the usual
/// places](PickleFile::state). The file's first bytes tell which; its name does not matter.
///
/// # Errors
/// As [`read_safetensors`], or as [`PickleFile::open`] and [`PickleFile::state`].
pub fn read_state(path: &Path) -> Result<IndexMap<String, Tensor>> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    file.take(16).read_to_end(&mut start).map_err(Error::io(path, "read"))?;
    pickle::refuse_legacy(path, &start)?;
    if pickle::has_zip_signature(&start) { PickleFile::open(path)?.state() } else { read_safetensors(path) }
}

#[cfg(test)]
mod tests;
