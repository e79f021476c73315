//! The safetensors format: a length, a JSON header, and the tensors' bytes.
//!
//! Written here rather than through the `safetensors` crate because that crate keeps the string map in a hash map,
//! whose order, and with it the file's bytes, changes from run to run; and because a refusal here names the byte.
//! The property tests hold both directions against that crate.

mod layout;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use layout::{Metadata, TensorInfo};
pub use read::{SafetensorsFile, read_safetensors};
pub use write::write_safetensors;
