//! Published checkpoints in, ordinary checkpoints out.

use super::BertConfig;
use crate::checkpoint::{
    Header, LoadPolicy, LoadReport, Tolerance, load_state, read_state, save_variables, write_atomically,
};
use crate::optim::NamedTensors;
use crate::{Error, Result};
use std::io::Write;
use std::path::Path;
use tch::nn::VarStore;

/// What became of each name of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct BertLoad {
    /// Loaded, missing, unexpected and left out. Names of the file are those after renaming.
    pub report: LoadReport,
    /// What was read under another name: `(the file's, the model's)`.
    pub renamed: Vec<(String, String)>,
}

/// What task models have beside the encoder, and may lack in a checkpoint or find in it without use for it.
const HEADS: [&str; 6] = ["classifier.", "qa_outputs.", "cls.", "bert.pooler.", "pooler.", "bert.cls."];

/// Reads a safetensors file or a PyTorch `.bin` into a model built under the store's root.
///
/// # Errors
/// A file that cannot be read, and whatever [`load_state_into`] refuses.
pub fn load_weights(path: &Path, variables: &VarStore) -> Result<BertLoad> {
    load_weights_keeping(path, variables, &[])
}

/// [`load_weights`] into a model with parts that the file may lack, as [`load_state_keeping`].
///
/// # Errors
/// A file that cannot be read, and whatever [`load_state_keeping`] refuses.
pub fn load_weights_keeping(path: &Path, variables: &VarStore, keep: &[&str]) -> Result<BertLoad> {
    load_state_keeping(variables, &read_state(path)?, keep)
}

/// Copies a Hugging Face state dict into a model built under the store's root.
///
/// `module.`, which `DataParallel` puts on, is taken off, the prefix `bert.` added or taken off as the model needs it;
/// `LayerNorm.gamma` and `beta`, as old checkpoints have them, become `weight` and `bias`; position numbers and the
/// decoder tied to the word table are left out; half precision widens. Heads may be missing, and then keep their own
/// values; heads without a place are reported. Heads are what begins with `classifier.`, `qa_outputs.`, `cls.`,
/// `bert.cls.`, `pooler.` or `bert.pooler.`: for other names there is [`load_state_keeping`].
///
/// # Errors
/// Encoder weights that are missing or unexpected, and any weights of another shape (a vocabulary that does not match the
/// embedding, an attention head too many, a classifier of another number of classes: leave it out of `state` to keep the
/// model's own), by name. The model is then as it was.
pub fn load_state_into(variables: &VarStore, state: &NamedTensors) -> Result<BertLoad> {
    load_state_keeping(variables, state, &[])
}

/// [`load_state_into`] a model with parts of its own: variables whose names begin with or end in an entry of `keep` may
/// be missing as heads may, and then keep their values. `slimming_coef` for coefficients, `head.` for a head of that
/// name. What `state` does hold is loaded, whatever `keep` says.
///
/// # Errors
/// An empty entry, and whatever [`load_state_into`] refuses.
pub fn load_state_keeping(variables: &VarStore, state: &NamedTensors, keep: &[&str]) -> Result<BertLoad> {
    if keep.contains(&"") {
        return Err(Error::setting("keep", "beginnings or ends of names", "an empty one"));
    }
    let ours = variables.variables().keys().any(|name| name.starts_with("bert."));
    let theirs = state.keys().any(|name| without_module(name).starts_with("bert."));
    let mut renamed = Vec::new();
    let mut translated = NamedTensors::new();
    for (name, tensor) in state {
        let Some(new) = translate(name, ours, theirs) else { continue };
        if new != *name {
            renamed.push((name.clone(), new.clone()));
        }
        if translated.insert(new.clone(), tensor.shallow_clone()).is_some() {
            return Err(Error::tensor(new, "one tensor of that name", "two"));
        }
    }
    let heads = HEADS.map(String::from);
    let kept = |name: &String| keep.iter().any(|part| name.starts_with(part) || name.ends_with(part));
    let own = variables.variables().into_keys().filter(kept);
    let policy = LoadPolicy {
        strip: Vec::new(),
        missing: Tolerance::Under(heads.iter().cloned().chain(own).collect()),
        unexpected: Tolerance::Under(heads.into()),
        ..LoadPolicy::strict()
    };
    Ok(BertLoad { report: load_state(variables, &translated, &policy)?, renamed })
}

/// The model's name for a tensor of a file; nothing for what no model keeps.
fn translate(name: &str, ours: bool, theirs: bool) -> Option<String> {
    let plain = without_module(name);
    if plain.ends_with("embeddings.position_ids") || plain.contains("cls.predictions.decoder.") {
        return None;
    }
    let plain = match (plain.strip_suffix("LayerNorm.gamma"), plain.strip_suffix("LayerNorm.beta")) {
        (Some(stem), _) => format!("{stem}LayerNorm.weight"),
        (_, Some(stem)) => format!("{stem}LayerNorm.bias"),
        _ => plain.to_owned(),
    };
    let encoder = ["embeddings.", "encoder.", "pooler."].iter().any(|part| plain.starts_with(part));
    Some(match (ours, theirs) {
        (true, false) if encoder => format!("bert.{plain}"),
        (false, true) => plain.strip_prefix("bert.").map_or(plain.clone(), str::to_owned),
        _ => plain,
    })
}

fn without_module(name: &str) -> &str {
    name.strip_prefix("module.").unwrap_or(name)
}

/// Writes `config.json` and `model.safetensors` into a folder, each as a whole, as Hugging Face's `save_pretrained` does.
/// A pruned model's config says what is missing, so that [`BertConfig::from_file`] rebuilds it.
///
/// # Errors
/// A config outside its range, or files that cannot be written.
pub fn save_pretrained(folder: &Path, variables: &VarStore, config: &BertConfig) -> Result<()> {
    config.validate()?;
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "create"))?;
    let mut json = serde_json::to_value(config).map_err(|error| Error::setting("config", "a JSON form", error))?;
    json["model_type"] = "bert".into();
    let text = serde_json::to_string_pretty(&json).map_err(|error| Error::setting("config", "a JSON form", error))?;
    let path = folder.join("config.json");
    write_atomically(&path, |file| file.write_all(text.as_bytes()))?;
    save_variables(&folder.join("model.safetensors"), variables, &Header::new("bert", 1, config))
}
