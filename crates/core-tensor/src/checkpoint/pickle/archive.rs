//! The zip around a checkpoint.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::{PickleLimits, TensorRef};
use crate::{Error, Result};

/// How PyTorch's format before 1.6 begins: a pickle (protocol 2) of the number 0x1950a86a20f9469cfc6c.
const LEGACY: [u8; 14] = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Whether these first bytes are a zip's.
pub(in crate::checkpoint) fn has_zip_signature(start: &[u8]) -> bool {
    start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06")
}

/// Refuses PyTorch's older format, saying how to convert it.
///
/// # Errors
/// [`Error::Malformed`] when these first bytes of `path` are that format's.
pub(in crate::checkpoint) fn refuse_legacy(path: &Path, start: &[u8]) -> Result<()> {
    if !start.starts_with(&LEGACY) {
        return Ok(());
    }
    let reason = "expected a zip archive, found PyTorch's format before 1.6; convert it in Python with \
                  torch.save(torch.load(path, map_location='cpu', weights_only=True), new_path)";
    Err(Error::malformed(path, 0, reason))
}

/// An opened archive and what may still be read from it.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    zip: ZipArchive<BufReader<File>>,
    /// The folder inside the archive, with its slash.
    folder: String,
    pickle_limit: u64,
    /// Uncompressed members cannot hold more than the file together, or some overlap.
    stored_left: u64,
    /// What compressed members may still unfold to.
    expanded_left: u64,
}

impl Archive {
    pub(super) fn open(path: &Path, limits: &PickleLimits) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::io(path, "open"))?;
        let length = file.metadata().map_err(Error::io(path, "read"))?.len();
        let mut start = Vec::with_capacity(LEGACY.len());
        (&mut file).take(LEGACY.len() as u64).read_to_end(&mut start).map_err(Error::io(path, "read"))?;
        refuse_legacy(path, &start)?;
        let zip = ZipArchive::new(BufReader::new(file)).map_err(|error| refuse_zip(path, "zip archive", error))?;
        let mut folders = zip.file_names().filter_map(|name| {
            let folder = name.strip_suffix("data.pkl")?;
            (folder.find('/') == Some(folder.len().wrapping_sub(1))).then_some(folder)
        });
        let (Some(folder), None) = (folders.next(), folders.next()) else {
            let reason = "expected a PyTorch checkpoint: a zip archive with one folder that has a `data.pkl`";
            return Err(Error::malformed(path, 0, reason));
        };
        let folder = folder.to_owned();
        drop(folders);
        let mut archive = Self {
            path: path.to_owned(),
            zip,
            folder,
            pickle_limit: limits.pickle_bytes,
            stored_left: length,
            expanded_left: limits.expanded_bytes,
        };
        archive.check_byte_order()?;
        Ok(archive)
    }

    /// The pickle that describes the rest.
    pub(super) fn pickle(&mut self) -> Result<Vec<u8>> {
        self.member("data.pkl", |size, limit| {
            if size > limit { Err(format!("{size} bytes, more than the limit of {limit}")) } else { Ok(()) }
        })
    }

    /// A tensor's whole storage, flat.
    pub(super) fn storage(&mut self, tensor: &TensorRef) -> Result<Tensor> {
        let (kind, elements) = (tensor.kind(), tensor.storage_elements());
        let name = format!("data/{}", tensor.storage());
        let bytes = self.member(&name, |size, _| {
            let expected = elements as u128 * kind.elt_size_in_bytes() as u128;
            if u128::from(size) == expected {
                Ok(())
            } else {
                Err(format!("expected {elements} elements of {kind:?} in {expected} bytes, found {size} bytes"))
            }
        })?;
        if kind == Kind::Bool
            && let Some(place) = bytes.iter().position(|&byte| byte > 1)
        {
            let reason = format!("{name}: expected a truth value of 0 or 1, found {}", bytes[place]);
            return Err(Error::malformed(&self.path, place as u64, reason));
        }
        Ok(Tensor::f_from_data_size(&bytes, &[elements], kind)?)
    }

    /// PyTorch 2.1 and later say how numbers are written; earlier ones only ran where it was this way.
    fn check_byte_order(&mut self) -> Result<()> {
        if self.zip.index_for_name(&format!("{}byteorder", self.folder)).is_none() {
            return Ok(());
        }
        let order =
            self.member("byteorder", |size, _| if size > 16 { Err(format!("{size} bytes")) } else { Ok(()) })?;
        if order == b"little" {
            return Ok(());
        }
        let reason = format!("byteorder: expected `little`, found `{}`", order.escape_ascii());
        Err(Error::malformed(&self.path, 0, reason))
    }

    /// The bytes of one member, once `check` accepts their number (its second argument is the pickle's limit).
    fn member(&mut self, name: &str, check: impl FnOnce(u64, u64) -> Result<(), String>) -> Result<Vec<u8>> {
        let path = &self.path;
        let mut member =
            self.zip.by_name(&format!("{}{name}", self.folder)).map_err(|error| refuse_zip(path, name, error))?;
        let at = member.header_start();
        let refuse = |reason: String| Error::malformed(path, at, format!("{name}: {reason}"));
        let size = member.size();
        check(size, self.pickle_limit).map_err(refuse)?;
        let left = match member.compression() {
            CompressionMethod::Stored => &mut self.stored_left,
            _ => &mut self.expanded_left,
        };
        *left = left
            .checked_sub(size)
            .ok_or_else(|| refuse(format!("{size} bytes, where the file and its limits leave {left}")))?;
        let mut bytes = Vec::new();
        if member.compression() == CompressionMethod::Stored {
            // No longer than the file itself, so it may be believed.
            bytes.resize(size as usize, 0);
            member.read_exact(&mut bytes).map_err(|error| refuse_read(path, at, name, error))?;
        }
        // What a compressed member says is not believed before it is there. One more byte reaches the checksum.
        (&mut member)
            .take(size.saturating_add(1) - bytes.len() as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| refuse_read(path, at, name, error))?;
        if bytes.len() as u64 != size {
            return Err(refuse(format!("expected {size} bytes, found another number")));
        }
        Ok(bytes)
    }
}

fn refuse_zip(path: &Path, what: &str, error: ZipError) -> Error {
    match error {
        ZipError::Io(error) => refuse_read(path, 0, what, error),
        ZipError::FileNotFound => Error::malformed(path, 0, format!("{what} is missing from the archive")),
        other => Error::malformed(path, 0, format!("{what}: {other}")),
    }
}

/// The system's errors are its own; those of the zip and deflate readers are the file's.
fn refuse_read(path: &Path, at: u64, what: &str, error: io::Error) -> Error {
    if error.raw_os_error().is_some() {
        return Error::io(path, "read")(error);
    }
    Error::malformed(path, at, format!("{what}: {error}"))
}
