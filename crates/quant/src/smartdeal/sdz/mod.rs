//! The `.sdz` file: a compressed network whose size on disk is the storage saving.
//!
//! A header, one record a tensor (a compressed layer, or a dense tensor such as a bias), an end record; every part
//! carries a CRC-32. Records are written and read one at a time, so neither side holds more than one layer.
//! `docs/formats/sdz.md` gives the bytes.

mod bits;
mod bytes;
mod payload;
mod reader;
mod writer;

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use indexmap::IndexMap;

use super::{IndexScheme, SdLayer};
use crate::{Error, Result};

pub use reader::SdzReader;
pub use writer::{SdzFile, SdzWriter};

/// First bytes of a file.
pub const SDZ_MAGIC: [u8; 4] = *b"\x89SDZ";
/// Version this crate writes, and the newest it reads.
pub const SDZ_VERSION: u16 = 1;

const LAYER: u8 = 1;
const DENSE: u8 = 2;
const END: u8 = 255;

/// A tensor kept at full precision.
#[derive(Debug, Clone, PartialEq)]
pub struct DenseTensor {
    /// Dimensions; none for a scalar.
    pub dims: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A compressed weight.
    Layer(SdLayer),
    /// Anything else.
    Dense(DenseTensor),
}

impl Record {
    /// The tensor's dimensions and its values, a compressed weight rebuilt.
    pub fn to_dense(&self) -> DenseTensor {
        match self {
            Self::Layer(layer) => DenseTensor { dims: layer.shape().dims(), values: layer.rebuild() },
            Self::Dense(tensor) => tensor.clone(),
        }
    }

    /// Bytes at 32 bits a value.
    pub fn dense_bytes(&self) -> u64 {
        4 * match self {
            Self::Layer(layer) => layer.shape().weights() as u64,
            Self::Dense(tensor) => tensor.values.len() as u64,
        }
    }
}

/// The named tensors of a network, in the order of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SdzModel {
    /// Tensors by name.
    pub records: IndexMap<String, Record>,
}

impl SdzModel {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be opened; as [`SdzReader::new`] and [`SdzReader::next_record`].
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::File { path: path.into(), source })?;
        let mut reader = SdzReader::new(BufReader::with_capacity(1 << 20, file))?;
        let mut records = IndexMap::new();
        while let Some((name, record)) = reader.next_record()? {
            records.insert(name, record);
        }
        Ok(Self { records })
    }

    /// Writes a whole file, atomically, and returns its length in bytes. Without a scheme each layer takes its
    /// cheapest.
    ///
    /// # Errors
    /// As [`SdzFile::create`], [`SdzWriter::layer`], [`SdzWriter::dense`] and [`SdzFile::finish`].
    pub fn write(&self, path: &Path, scheme: Option<IndexScheme>) -> Result<u64> {
        let mut file = SdzFile::create(path)?;
        for (name, record) in &self.records {
            match record {
                Record::Layer(layer) => file.writer().layer(name, layer, scheme)?,
                Record::Dense(tensor) => file.writer().dense(name, &tensor.dims, &tensor.values)?,
            }
        }
        file.finish()
    }

    /// The compressed layer of that name.
    pub fn layer(&self, name: &str) -> Option<&SdLayer> {
        match self.records.get(name) {
            Some(Record::Layer(layer)) => Some(layer),
            _ => None,
        }
    }

    /// All compressed layers.
    pub fn layers(&self) -> impl Iterator<Item = (&str, &SdLayer)> {
        self.records.iter().filter_map(|(name, record)| match record {
            Record::Layer(layer) => Some((name.as_str(), layer)),
            Record::Dense(_) => None,
        })
    }

    /// Bytes of all tensors at 32 bits a value: the size that a file is compared with.
    pub fn dense_bytes(&self) -> u64 {
        self.records.values().map(Record::dense_bytes).sum()
    }
}

/// What buffers a file on its way to disk.
type FileWriter = BufWriter<tempfile::NamedTempFile>;

#[cfg(test)]
mod tests;
