//! Writing a safetensors file.

use std::io::{self, Write};
use std::path::Path;

use indexmap::IndexMap;
use serde::Serialize;
use tch::Tensor;

use super::layout::{LENGTH_BYTES, LONGEST_HEADER, METADATA_KEY, Metadata, TensorInfo, byte_length, name_of};
use crate::checkpoint::write_atomically;
use crate::{Error, Result};

#[derive(Serialize)]
struct Entry<'a> {
    dtype: &'static str,
    shape: &'a [i64],
    data_offsets: (u64, u64),
}

/// Writes named tensors and a string map, [atomically](write_atomically).
///
/// The same tensors and map in the same order give the same bytes. The header lists the tensors in the map's order;
/// their data are ordered by element size, the widest first (and in the map's order within a size), so that each
/// begins on a multiple of its element size and Python can map the file into memory.
///
/// # Errors
/// [`Error::Tensor`] for a tensor that is undefined, sparse, or of a kind the format does not know, and for the
/// reserved name `__metadata__`; [`Error::Io`] when the file cannot be written.
pub fn write_safetensors(path: &Path, tensors: &IndexMap<String, Tensor>, metadata: &Metadata) -> Result<()> {
    let (entries, order) = lay_out(tensors)?;
    let header = header_bytes(tensors, &entries, metadata)?;
    write_atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        let mut bytes = Vec::new();
        for index in order {
            let (tensor, entry) = (&tensors[index], &entries[index]);
            bytes.resize((entry.end - entry.begin) as usize, 0);
            tensor.f_copy_data_u8(&mut bytes, tensor.numel()).map_err(io::Error::other)?;
            file.write_all(&bytes)?;
        }
        Ok(())
    })
}

/// Each tensor's place, in the map's order, and the indices of those with data in the order of their data.
fn lay_out(tensors: &IndexMap<String, Tensor>) -> Result<(Vec<TensorInfo>, Vec<usize>)> {
    let mut entries = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let refuse = |found: &str| Error::tensor(name, "a dense tensor under a name of its own", found);
        if name == METADATA_KEY {
            return Err(refuse("the reserved name `__metadata__`"));
        }
        if !tensor.defined() {
            return Err(refuse("an undefined tensor"));
        }
        if tensor.is_sparse() {
            return Err(refuse("a sparse one"));
        }
        let (kind, shape) = (tensor.f_kind()?, tensor.size());
        if name_of(kind).is_none() {
            return Err(refuse(&format!("elements of kind {kind:?}, which the format does not know")));
        }
        let end = byte_length(kind, &shape).ok_or_else(|| refuse(&format!("shape {shape:?}")))?;
        entries.push(TensorInfo { kind, shape, begin: 0, end });
    }
    let mut order: Vec<usize> = (0..entries.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(entries[index].kind.elt_size_in_bytes()));
    let mut offset = 0;
    for &index in &order {
        let entry = &mut entries[index];
        (entry.begin, entry.end) = (offset, offset + entry.end);
        offset = entry.end;
    }
    order.retain(|&index| entries[index].begin < entries[index].end);
    Ok((entries, order))
}

fn header_bytes(tensors: &IndexMap<String, Tensor>, entries: &[TensorInfo], metadata: &Metadata) -> Result<Vec<u8>> {
    let mut map = serde_json::Map::new();
    if !metadata.is_empty() {
        map.insert(METADATA_KEY.into(), json(metadata)?);
    }
    for (name, entry) in tensors.keys().zip(entries) {
        let dtype = name_of(entry.kind).expect("lay_out refuses kinds without a name");
        map.insert(name.clone(), json(Entry { dtype, shape: &entry.shape, data_offsets: (entry.begin, entry.end) })?);
    }
    let mut header = serde_json::to_vec(&map).map_err(unserialisable)?;
    // Spaces bring the data to a multiple of eight bytes.
    header.resize(header.len().next_multiple_of(LENGTH_BYTES as usize), b' ');
    if header.len() as u64 > LONGEST_HEADER {
        return Err(Error::setting("safetensors header", format!("at most {LONGEST_HEADER} bytes"), header.len()));
    }
    Ok(header)
}

fn json(value: impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(unserialisable)
}

fn unserialisable(error: serde_json::Error) -> Error {
    Error::setting("safetensors header", "something with a JSON form", error)
}
