//! Weights in and out of files.
//!
//! | what | how |
//! |---|---|
//! | own format | [`safetensors`](https://github.com/huggingface/safetensors) with a string map in its header: [`write_safetensors`], [`SafetensorsFile`], and a typed [`Header`] on top |
//! | published weights | PyTorch's zip-pickles, read for tensors only: [`PickleFile`] executes nothing |
//! | into a model | by name, with a [`LoadPolicy`] that says what may differ: [`load_state`], which copies all or nothing |
//! | out of a model | [`state_of`], in torchvision's state-dict naming, so that `load_state_dict(strict=True)` accepts it |
//! | any file | [`write_atomically`]: the old content or the new, never a part of it |
//!
//! ```
//! use core_tensor::checkpoint::{self, Header, LoadPolicy};
//! use tch::{Device, nn};
//!
//! # fn main() -> core_tensor::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("model.safetensors");
//! let variables = nn::VarStore::new(Device::Cpu);
//! let _layer = nn::linear(variables.root() / "fc", 4, 2, Default::default());
//!
//! let header = Header::new("example.model", 1, serde_json::json!({"epoch": 3}));
//! checkpoint::save_variables(&path, &variables, &header)?;
//!
//! let report = checkpoint::load_variables(&path, &variables, &LoadPolicy::strict())?;
//! assert_eq!(report.loaded, ["fc.bias", "fc.weight"]);
//! # Ok(())
//! # }
//! ```

mod atomic;
mod header;
mod load;
mod memory;
mod pickle;
mod policy;
mod safetensors;
mod state;

pub use atomic::write_atomically;
pub use header::Header;
pub use load::{LoadReport, Mismatch, compare_state, load_state};
pub use pickle::{Dict, PickleFile, PickleLimits, TensorRef, Value};
pub use policy::{LoadPolicy, Rename, Tolerance};
pub use safetensors::{Metadata, SafetensorsFile, TensorInfo, read_safetensors, write_safetensors};
pub use state::{load_variables, read_state, save_variables, state_of};
