//! Reading a safetensors file, believing nothing in it.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use indexmap::map::Entry as Slot;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use tch::Tensor;

use super::layout::{LENGTH_BYTES, LONGEST_HEADER, METADATA_KEY, Metadata, TensorInfo, byte_length, kind_of};
use crate::checkpoint::memory::{filled, stray_truth_value};
use crate::{Error, Result};

/// An opened safetensors file: its header is read and checked, its tensors are read when asked for, from the file
/// straight into their own memory.
#[derive(Debug)]
pub struct SafetensorsFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    tensors: IndexMap<String, TensorInfo>,
    metadata: Metadata,
}

/// Every tensor of a file, in its header's order.
///
/// # Errors
/// As [`SafetensorsFile::open`] and [`SafetensorsFile::tensor`].
pub fn read_safetensors(path: &Path) -> Result<IndexMap<String, Tensor>> {
    let mut file = SafetensorsFile::open(path)?;
    let names: Vec<String> = file.tensors.keys().cloned().collect();
    names
        .into_iter()
        .map(|name| {
            let tensor = file.tensor(&name)?;
            Ok((name, tensor))
        })
        .collect()
}

impl SafetensorsFile {
    /// Opens a file and checks its header: known kinds, shapes that agree with their bytes, data without overlaps or
    /// gaps, and nothing missing or left over at the end.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read; [`Error::Malformed`] naming the byte and the tensor when the file
    /// is truncated or contradicts itself.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io(path, "open"))?;
        let length = file.metadata().map_err(Error::io(path, "read"))?.len();
        if length < LENGTH_BYTES {
            return Err(Error::malformed(path, 0, format!("expected at least {LENGTH_BYTES} bytes, found {length}")));
        }
        let mut prefix = [0; LENGTH_BYTES as usize];
        file.read_exact(&mut prefix).map_err(Error::io(path, "read"))?;
        let header_length = u64::from_le_bytes(prefix);
        let longest = LONGEST_HEADER.min(length - LENGTH_BYTES);
        if header_length > longest {
            let reason = format!("expected a header of at most {longest} bytes, found a length of {header_length}");
            return Err(Error::malformed(path, 0, reason));
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).map_err(Error::io(path, "read"))?;
        let header = parse(path, &header)?;
        let data_start = LENGTH_BYTES + header_length;
        let tensors = header
            .tensors
            .into_iter()
            .map(|(name, entry)| {
                let info = entry
                    .check()
                    .map_err(|reason| Error::malformed(path, LENGTH_BYTES, format!("`{name}`: {reason}")))?;
                Ok((name, info))
            })
            .collect::<Result<IndexMap<_, _>>>()?;
        check_cover(path, &tensors, data_start, length - data_start)?;
        Ok(Self { path: path.to_owned(), file, data_start, tensors, metadata: header.metadata })
    }

    /// The file's string map; empty when it has none.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Name, kind and shape of each tensor, in the header's order.
    pub fn tensors(&self) -> &IndexMap<String, TensorInfo> {
        &self.tensors
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// [`Error::Names`] when there is none of that name; [`Error::Io`] when the file cannot be read or has shrunk;
    /// [`Error::Malformed`] for a truth value that is neither 0 nor 1.
    pub fn tensor(&mut self, name: &str) -> Result<Tensor> {
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::Names { missing: vec![name.to_owned()], unexpected: Vec::new() })?;
        let start = self.data_start + info.begin;
        self.file.seek(SeekFrom::Start(start)).map_err(Error::io(&self.path, "seek"))?;
        filled(info.kind, &info.shape, |bytes| {
            self.file.read_exact(bytes).map_err(Error::io(&self.path, "read"))?;
            if let Some(place) = stray_truth_value(info.kind, bytes) {
                let reason = format!("`{name}`: expected a truth value of 0 or 1, found {}", bytes[place]);
                return Err(Error::malformed(&self.path, start + place as u64, reason));
            }
            Ok(())
        })
    }
}

/// The header as it stands in the file.
struct RawHeader {
    metadata: Metadata,
    tensors: IndexMap<String, RawEntry>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<i64>,
    data_offsets: (u64, u64),
}

impl RawEntry {
    fn check(self) -> Result<TensorInfo, String> {
        let Self { dtype, shape, data_offsets: (begin, end) } = self;
        let kind = kind_of(&dtype).ok_or_else(|| format!("unsupported dtype `{dtype}`"))?;
        let bytes = byte_length(kind, &shape).ok_or_else(|| format!("impossible shape {shape:?}"))?;
        if end.checked_sub(begin) != Some(bytes) {
            return Err(format!("{dtype} of shape {shape:?} takes {bytes} bytes, found offsets {begin} to {end}"));
        }
        Ok(TensorInfo { kind, shape, begin, end })
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map from tensor names to dtype, shape and data_offsets")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut metadata = None;
                let mut tensors = IndexMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    let twice = || A::Error::custom(format!("`{name}` appears twice"));
                    if name == METADATA_KEY {
                        if metadata.replace(map.next_value()?).is_some() {
                            return Err(twice());
                        }
                        continue;
                    }
                    let entry =
                        map.next_value::<RawEntry>().map_err(|error| A::Error::custom(format!("`{name}`: {error}")))?;
                    match tensors.entry(name.clone()) {
                        Slot::Occupied(_) => return Err(twice()),
                        Slot::Vacant(slot) => slot.insert(entry),
                    };
                }
                Ok(RawHeader { metadata: metadata.unwrap_or_default(), tensors })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

fn parse(path: &Path, header: &[u8]) -> Result<RawHeader> {
    if header.first() != Some(&b'{') {
        return Err(Error::malformed(path, LENGTH_BYTES, "expected a JSON header that begins with `{`"));
    }
    serde_json::from_slice(header).map_err(|error| {
        let line_start: usize =
            header.split_inclusive(|&byte| byte == b'\n').take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
        let offset = LENGTH_BYTES + (line_start + error.column()) as u64;
        Error::malformed(path, offset, format!("JSON header: {error}"))
    })
}

/// The data must follow one another from the first byte behind the header to the file's last.
fn check_cover(path: &Path, tensors: &IndexMap<String, TensorInfo>, data_start: u64, data_length: u64) -> Result<()> {
    let mut in_order: Vec<_> = tensors.iter().collect();
    in_order.sort_by_key(|(_, info)| (info.begin, info.end));
    let mut covered = 0;
    for (name, info) in in_order {
        if info.begin != covered {
            let fault = if info.begin < covered { "overlaps the tensor before it" } else { "leaves a gap before it" };
            let reason = format!("`{name}` begins at {} of the data and {fault}, which ends at {covered}", info.begin);
            return Err(Error::malformed(path, data_start.saturating_add(info.begin), reason));
        }
        covered = info.end;
    }
    if covered != data_length {
        let reason = format!("the header describes {covered} bytes of data, found {data_length}");
        return Err(Error::malformed(path, data_start + covered.min(data_length), reason));
    }
    Ok(())
}
