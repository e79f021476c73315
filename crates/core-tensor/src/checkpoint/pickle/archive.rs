//! The zip around a checkpoint.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use tch::Tensor;
use zip::read::ZipFile;
use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::{PickleLimits, TensorRef};
use crate::checkpoint::memory::{filled, stray_truth_value};
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
        let limit = self.pickle_limit;
        self.member("data.pkl", |size| {
            if size > limit { Err(format!("{size} bytes, more than the limit of {limit}")) } else { Ok(()) }
        })?
        .read()
    }

    /// A tensor's whole storage, flat.
    pub(super) fn storage(&mut self, tensor: &TensorRef) -> Result<Tensor> {
        let (kind, elements) = (tensor.kind(), tensor.storage_elements());
        let name = format!("data/{}", tensor.storage());
        let member = self.member(&name, |size| {
            let expected = elements as u128 * kind.elt_size_in_bytes() as u128;
            if u128::from(size) == expected {
                return Ok(());
            }
            Err(format!("expected {elements} elements of {kind:?} in {expected} bytes, found {size} bytes"))
        })?;
        let path = member.path;
        let check = |bytes: &[u8]| match stray_truth_value(kind, bytes) {
            None => Ok(()),
            Some(place) => {
                let reason = format!("{name}: expected a truth value of 0 or 1, found {}", bytes[place]);
                Err(Error::malformed(path, place as u64, reason))
            }
        };
        if member.is_stored() {
            // No longer than the file itself, so its length may be believed.
            return filled(kind, &[elements], |bytes| {
                member.read_into(bytes)?;
                check(bytes)
            });
        }
        let unfolded = member.read()?;
        filled(kind, &[elements], |bytes| {
            bytes.copy_from_slice(&unfolded);
            check(bytes)
        })
    }

    /// PyTorch 2.1 and later say how numbers are written; earlier ones only ran where it was this way.
    fn check_byte_order(&mut self) -> Result<()> {
        if self.zip.index_for_name(&format!("{}byteorder", self.folder)).is_none() {
            return Ok(());
        }
        let order =
            self.member("byteorder", |size| if size > 16 { Err(format!("{size} bytes")) } else { Ok(()) })?.read()?;
        if order == b"little" {
            return Ok(());
        }
        let reason = format!("byteorder: expected `little`, found `{}`", order.escape_ascii());
        Err(Error::malformed(&self.path, 0, reason))
    }

    /// One member, once `check` accepts how many bytes it claims and the file and its limits leave as many.
    fn member<'a>(&'a mut self, name: &'a str, check: impl FnOnce(u64) -> Result<(), String>) -> Result<Member<'a>> {
        let path = &self.path;
        let content =
            self.zip.by_name(&format!("{}{name}", self.folder)).map_err(|error| refuse_zip(path, name, error))?;
        let member = Member { path, name, content };
        let size = member.content.size();
        check(size).map_err(|reason| member.refuse(reason))?;
        let left = if member.is_stored() { &mut self.stored_left } else { &mut self.expanded_left };
        *left = left.checked_sub(size).ok_or_else(|| {
            member.refuse(format!("{size} bytes, where the file's length and the limits leave {left}"))
        })?;
        Ok(member)
    }
}

/// A member about to be read.
struct Member<'a> {
    path: &'a Path,
    name: &'a str,
    content: ZipFile<'a, BufReader<File>>,
}

impl Member<'_> {
    fn is_stored(&self) -> bool {
        self.content.compression() == CompressionMethod::Stored
    }

    /// All its bytes, into a slice of as many as it claims.
    fn read_into(mut self, bytes: &mut [u8]) -> Result<()> {
        self.content.read_exact(bytes).map_err(|error| self.refuse_read(error))?;
        // The end is where the checksum is compared.
        match self.content.read(&mut [0]).map_err(|error| self.refuse_read(error))? {
            0 => Ok(()),
            _ => Err(self.refuse(format!("more than the {} bytes it claims", bytes.len()))),
        }
    }

    /// All its bytes. What it claims is not believed before it is there.
    fn read(mut self) -> Result<Vec<u8>> {
        let size = self.content.size();
        let mut bytes = Vec::new();
        let outcome = (&mut self.content).take(size.saturating_add(1)).read_to_end(&mut bytes);
        outcome.map_err(|error| self.refuse_read(error))?;
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(self.refuse(format!("not the {size} bytes it claims"))) }
    }

    fn refuse(&self, reason: String) -> Error {
        Error::malformed(self.path, self.content.header_start(), format!("{}: {reason}", self.name))
    }

    fn refuse_read(&self, error: io::Error) -> Error {
        refuse_read(self.path, self.content.header_start(), self.name, error)
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
