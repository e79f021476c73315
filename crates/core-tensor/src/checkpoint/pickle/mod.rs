//! PyTorch's `.pth` and `.bin` files, read for tensors only.
//!
//! `torch.save` writes a zip archive: `data.pkl`, a pickle that describes nested containers and where their tensors
//! lie, and one member a storage. A pickle is a program; Python's reader runs it, and with it whatever the file's
//! author wrote. This reader is an interpreter that knows the three dozen instructions and the thirteen names that such
//! a file needs, builds plain [`Value`]s, and refuses everything else by name. Nothing is executed, and what a file
//! may take in memory is [limited](PickleLimits).
//!
//! | file | does |
//! |---|---|
//! | `archive` | the zip: finds the members, counts the bytes they claim |
//! | `machine` | the interpreter: `data.pkl` → [`Value`] |
//! | `globals` | the names it knows and what calling them means |
//! | `tensor` | storages, and views into them, checked against one another |

mod archive;
mod globals;
mod machine;
mod tensor;
#[cfg(test)]
mod tests;
mod value;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tch::Tensor;

pub(super) use archive::{has_zip_signature, refuse_legacy};
pub use tensor::TensorRef;
pub use value::{Dict, Value};

use crate::{Error, Result};
use archive::Archive;

/// What a file may take before its tensors are believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PickleLimits {
    /// Bytes of `data.pkl`. The interpreter takes about 60 bytes of memory for each. Default: 16 MiB, a hundred
    /// times what a ResNet-152 with its optimizer needs.
    pub pickle_bytes: u64,
    /// Bytes that tensors may take beyond what the file holds: those of all compressed storages together, and those
    /// of any one view that repeats its elements. (Uncompressed storages are limited by the file's own length.)
    /// Default: 4 GiB.
    pub expanded_bytes: u64,
    /// How deeply containers may be nested. Default: 64.
    pub depth: usize,
}

impl Default for PickleLimits {
    fn default() -> Self {
        Self { pickle_bytes: 16 << 20, expanded_bytes: 4 << 30, depth: 64 }
    }
}

/// Where training scripts put the model among other things.
const USUAL_KEYS: [&str; 4] = ["state_dict", "model_state_dict", "model", "net"];

/// An opened PyTorch checkpoint: its containers are read, its tensors are read when asked for.
///
/// ```no_run
/// # fn main() -> core_tensor::Result<()> {
/// use core_tensor::checkpoint::PickleFile;
/// let mut file = PickleFile::open("moco_v2_800ep_pretrain.pth.tar".as_ref())?;
/// println!("epoch {:?}", file.root().get("epoch"));
/// let state = file.state_at(&["state_dict"])?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PickleFile {
    path: PathBuf,
    archive: Archive,
    root: Value,
    /// Storages already read, each as a flat tensor, so that views of one storage share it.
    storages: HashMap<String, Tensor>,
}

impl PickleFile {
    /// Opens a checkpoint within the default [limits](PickleLimits).
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Malformed`] when it is not a zip of PyTorch's (PyTorch's
    /// older format is named, with how to convert it), is damaged or big-endian, exceeds a limit, or its pickle asks
    /// for anything but tensors, containers and plain values: the offset is then that of the instruction in
    /// `data.pkl`, and the reason names it.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_within(path, &PickleLimits::default())
    }

    /// Opens a checkpoint within these limits.
    ///
    /// # Errors
    /// As [`PickleFile::open`].
    pub fn open_within(path: &Path, limits: &PickleLimits) -> Result<Self> {
        let mut archive = Archive::open(path, limits)?;
        let pickle = archive.pickle()?;
        let root = machine::interpret(&pickle, limits)
            .map_err(|fault| Error::malformed(path, fault.offset, format!("data.pkl: {}", fault.reason)))?;
        Ok(Self { path: path.to_owned(), archive, root, storages: HashMap::new() })
    }

    /// What was saved, with a [`TensorRef`] for each tensor.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// Reads one tensor, onto the CPU. Tensors that shared a storage when they were saved share it again, and views
    /// keep their strides.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Malformed`] when the storage is missing, damaged, not as
    /// long as the tensor says, or beyond the limits.
    pub fn tensor(&mut self, tensor: &TensorRef) -> Result<Tensor> {
        let storage = match self.storages.get(tensor.storage()) {
            Some(storage) => storage,
            None => {
                let flat = self.archive.storage(tensor)?;
                self.storages.entry(tensor.storage().to_owned()).or_insert(flat)
            }
        };
        Ok(storage.f_as_strided(tensor.shape(), tensor.strides(), Some(tensor.offset()))?)
    }

    /// The named tensors of the dictionary found by following these keys from the root; `&[]` is the root itself.
    ///
    /// # Errors
    /// [`Error::Tensor`] naming the key where there is no dictionary, or the entry that is not a tensor under a text
    /// key; otherwise as [`PickleFile::tensor`].
    pub fn state_at(&mut self, keys: &[&str]) -> Result<IndexMap<String, Tensor>> {
        let mut place = &self.root;
        for (depth, key) in keys.iter().enumerate() {
            place = place.get(key).ok_or_else(|| {
                let found = format!("{} with keys {:?}", place.describe(), place.text_keys());
                Error::tensor(keys[..=depth].join("."), "an entry of the checkpoint", found)
            })?;
        }
        let Value::Dict(entries) = place else {
            return Err(Error::tensor(keys.join("."), "a dictionary of tensors", place.describe()));
        };
        let mut references = Vec::with_capacity(entries.len());
        for (key, value) in entries.iter() {
            match (key, value) {
                (Value::Text(name), Value::Tensor(tensor)) => references.push((name.to_string(), tensor.clone())),
                _ => return Err(Error::tensor(key.to_string(), "a tensor under a text key", value.describe())),
            }
        }
        references
            .into_iter()
            .map(|(name, reference)| {
                let tensor = self.tensor(&reference)?;
                Ok((name, tensor))
            })
            .collect()
    }

    /// The model's named tensors, where scripts usually put them: the root when it is a dictionary of tensors, else
    /// the dictionary under `state_dict`, `model_state_dict`, `model` or `net`, of which there must be exactly one.
    ///
    /// # Errors
    /// [`Error::Malformed`] listing the keys when the model is not found so; otherwise as [`PickleFile::state_at`].
    pub fn state(&mut self) -> Result<IndexMap<String, Tensor>> {
        if let Value::Dict(entries) = &self.root
            && entries.iter().all(|(_, value)| matches!(value, Value::Tensor(_)))
        {
            return self.state_at(&[]);
        }
        let found: Vec<_> =
            USUAL_KEYS.into_iter().filter(|key| matches!(self.root.get(key), Some(Value::Dict(_)))).collect();
        match found.as_slice() {
            [key] => self.state_at(&[key]),
            _ => {
                let reason = format!(
                    "data.pkl: expected tensors or one dictionary under {USUAL_KEYS:?}, found {} with keys {:?}; \
                     name its place with `state_at`",
                    self.root.describe(),
                    self.root.text_keys(),
                );
                Err(Error::malformed(&self.path, 0, reason))
            }
        }
    }
}
