//! The file format of every model of this crate.
//!
//! ```text
//! magic "dforest\0" | version u32 | header length u64 | numbers u64 | header (JSON) | numbers (f32) | CRC-32 of all before
//! ```
//! Little-endian throughout. The header names the kind of model and everything but the big arrays.

use std::io::Write;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{ForestError, Result};

const MAGIC: [u8; 8] = *b"dforest\0";
/// Newest version of the format.
const VERSION: u32 = 1;
/// Bytes before the header.
const PREFIX: usize = 8 + 4 + 8 + 8;

#[derive(Serialize, Deserialize)]
struct Header<T> {
    kind: String,
    model: T,
}

/// A model as bytes.
pub(crate) fn to_bytes(kind: &str, model: &impl Serialize, numbers: &[f32]) -> Result<Vec<u8>> {
    let header = serde_json::to_vec(&Header { kind: kind.to_owned(), model })
        .map_err(|e| ForestError::Malformed(e.to_string()))?;
    let mut bytes = Vec::with_capacity(PREFIX + header.len() + 4 * numbers.len() + 4);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend((numbers.len() as u64).to_le_bytes());
    bytes.extend(header);
    for number in numbers {
        bytes.extend(number.to_le_bytes());
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend(checksum.to_le_bytes());
    Ok(bytes)
}

/// The model and the numbers in `bytes`.
pub(crate) fn from_bytes<T: DeserializeOwned>(kind: &'static str, bytes: &[u8]) -> Result<(T, Vec<f32>)> {
    let start = &bytes[..bytes.len().min(8)];
    if start != &MAGIC[..start.len()] || start.is_empty() {
        return Err(ForestError::Foreign { expected: MAGIC, found: start.to_vec() });
    }
    let too_short = |expected: u64| ForestError::Length { expected, found: bytes.len() as u64 };
    if bytes.len() < PREFIX {
        return Err(too_short(PREFIX as u64));
    }
    let long = |at: usize| {
        let mut raw = [0; 8];
        raw.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(raw)
    };
    let word = |at: usize| {
        let mut raw = [0; 4];
        raw.copy_from_slice(&bytes[at..at + 4]);
        u32::from_le_bytes(raw)
    };
    let version = word(8);
    if version == 0 || version > VERSION {
        return Err(ForestError::Version { supported: VERSION, found: version });
    }
    let (header, count) = (long(12), long(20));
    let expected = count
        .checked_mul(4)
        .and_then(|n| n.checked_add(header))
        .and_then(|n| n.checked_add(PREFIX as u64 + 4))
        .unwrap_or(u64::MAX);
    if expected != bytes.len() as u64 {
        return Err(too_short(expected));
    }
    let end = bytes.len() - 4;
    let (stored, computed) = (word(end), crc32fast::hash(&bytes[..end]));
    if stored != computed {
        return Err(ForestError::Checksum { stored, computed });
    }
    let (text, numbers) = bytes[PREFIX..end].split_at(header as usize);
    let malformed = |e: serde_json::Error| ForestError::Malformed(e.to_string());
    let found: Header<serde_json::Value> = serde_json::from_slice(text).map_err(malformed)?;
    if found.kind != kind {
        return Err(ForestError::Kind { expected: kind, found: found.kind });
    }
    let numbers = numbers.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    Ok((serde_json::from_value(found.model).map_err(malformed)?, numbers))
}

/// Writes to a temporary file beside `path`, syncs, and renames: a crash leaves the old file or the new one.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| ForestError::Io { path: path.to_owned(), source };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = std::fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| std::fs::rename(&temporary, path)).map_err(|e| {
        // The first error is the one worth reporting.
        let _ = std::fs::remove_file(&temporary);
        io(e)
    })
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| ForestError::Io { path: path.to_owned(), source })
}

/// Takes numbers off the front of an array, or says that the file promised more.
pub(crate) struct Numbers<'a>(pub(crate) &'a [f32]);

impl Numbers<'_> {
    pub(crate) fn take(&mut self, count: usize) -> Result<Vec<f32>> {
        if count > self.0.len() {
            return Err(ForestError::Malformed(format!("expected {count} more numbers, found {}", self.0.len())));
        }
        let (head, tail) = self.0.split_at(count);
        self.0 = tail;
        Ok(head.to_vec())
    }

    pub(crate) fn finish(&self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(ForestError::Malformed(format!("{} numbers belong to nothing", self.0.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Result<Vec<u8>> {
        to_bytes("test", &vec![1u32, 2], &[0.5, f32::MIN_POSITIVE, -0.0])
    }

    #[test]
    fn what_is_written_is_read() -> Result<()> {
        let (model, numbers): (Vec<u32>, _) = from_bytes("test", &sample()?)?;
        assert_eq!(model, [1, 2]);
        let bits: Vec<u32> = numbers.iter().map(|n| n.to_bits()).collect();
        assert_eq!(bits, [0x3f00_0000, 0x0080_0000, 0x8000_0000]);
        Ok(())
    }

    #[test]
    fn every_kind_of_bad_file_has_its_own_error() -> Result<()> {
        let good = sample()?;
        let read = |bytes: &[u8]| from_bytes::<Vec<u32>>("test", bytes);
        assert!(matches!(read(b"PK\x03\x04"), Err(ForestError::Foreign { .. })));
        assert!(matches!(read(b""), Err(ForestError::Foreign { .. })));
        assert!(matches!(read(&good[..20]), Err(ForestError::Length { .. })));
        assert!(matches!(read(&good[..good.len() - 1]), Err(ForestError::Length { .. })));
        let mut newer = good.clone();
        newer[8] = 2;
        assert!(matches!(read(&newer), Err(ForestError::Version { found: 2, .. })));
        let mut flipped = good.clone();
        flipped[40] ^= 1;
        assert!(matches!(read(&flipped), Err(ForestError::Checksum { .. })));
        assert!(matches!(from_bytes::<Vec<u32>>("other", &good), Err(ForestError::Kind { .. })));
        Ok(())
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), with_magic: bool) {
            let mut all = if with_magic { MAGIC.to_vec() } else { Vec::new() };
            all.extend(bytes);
            prop_assert!(from_bytes::<Vec<u32>>("test", &all).is_err());
        }

        #[test]
        fn a_file_cut_anywhere_is_refused(cut in 0usize..200) {
            let good = sample().unwrap_or_default();
            let cut = cut % good.len();
            prop_assert!(from_bytes::<Vec<u32>>("test", &good[..cut]).is_err());
        }
    }
}
