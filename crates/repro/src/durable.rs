//! Files that are either wholly there or not at all, whatever kills the program.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::run::hex;

/// What the name of a file that is being written begins with. A kill leaves it under that name.
pub(crate) const PARTIAL: &str = ".writing-";

/// Writes `bytes` beside `path`, syncs, and renames over it.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = beside(path)?;
    file.write_all(bytes).map_err(Error::io(path, "write"))?;
    file.as_file().sync_all().map_err(Error::io(path, "sync"))?;
    file.persist(path).map_err(|refused| Error::io(path, "rename")(refused.error))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// An empty file that is to become `path`, under a name that says so: whoever tidies up knows whose half it is.
fn beside(path: &Path) -> Result<tempfile::NamedTempFile> {
    let prefix = format!("{PARTIAL}{}-", path.file_name().unwrap_or_default().to_string_lossy());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    #[cfg(unix)]
    {
        // As `File::create` would, and unlike temporary files: readable by whoever the umask lets.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(path.parent().unwrap_or(Path::new("."))).map_err(Error::io(path, "create"))
}

/// Writes `value` as indented JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|reason| Error::damaged(path, reason))?;
    text.push(b'\n');
    write(path, &text)
}

/// Reads JSON; `None` when there is no file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|reason| Error::damaged(path, reason)),
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(other) => Err(Error::io(path, "read")(other)),
    }
}

/// Lets `save` write a file beside `path`, syncs it, renames it to `path`, and returns its fingerprint.
pub(crate) fn write_with(path: &Path, save: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<Fingerprint> {
    // The extension stays last: writers choose a format by it.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let partial = path.with_file_name(format!("{PARTIAL}{name}"));
    save(&partial)?;
    let file = File::options().read(true).write(true).open(&partial).map_err(Error::io(&partial, "open"))?;
    file.sync_all().map_err(Error::io(&partial, "sync"))?;
    let fingerprint = Fingerprint::of_reader(&partial, file)?;
    fs::rename(&partial, path).map_err(Error::io(path, "rename"))?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    Ok(fingerprint)
}

/// Creates a folder and its parents.
pub(crate) fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io(path, "create"))
}

/// Creates a folder and makes sure that files can be made in it.
pub(crate) fn writable_folder(path: &Path) -> Result<()> {
    create_folder(path)?;
    tempfile::Builder::new().prefix(".probe-").tempfile_in(path).map(drop).map_err(Error::io(path, "write into"))
}

/// A rename survives a power cut only when its folder is synced too.
pub(crate) fn sync_folder(path: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io(path, "sync"))?;
    Ok(())
}

/// Renames a damaged file out of the way, so that it can be looked at: `name.damaged`, `name.damaged-2`, …
pub(crate) fn set_aside(path: &Path) -> Result<()> {
    let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { return Ok(()) };
    let free: Option<PathBuf> = (1_u32..)
        .map(|count| {
            path.with_file_name(if count == 1 { format!("{name}.damaged") } else { format!("{name}.damaged-{count}") })
        })
        .find(|candidate| !candidate.exists());
    match free.map(|free| fs::rename(path, free)) {
        Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "rename")(error)),
        _ => Ok(()),
    }
}

/// A file's length and SHA-256, which tell it from any other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Length in bytes.
    pub bytes: u64,
    /// Lower-case hexadecimal.
    pub sha256: String,
}

impl Fingerprint {
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, sha256: hex(&Sha256::digest(bytes)) }
    }

    pub(crate) fn of_file(path: &Path) -> Result<Self> {
        Self::of_reader(path, File::open(path).map_err(Error::io(path, "open"))?)
    }

    fn of_reader(path: &Path, mut file: File) -> Result<Self> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut bytes = 0;
        loop {
            let read = file.read(&mut buffer).map_err(Error::io(path, "read"))?;
            if read == 0 {
                return Ok(Self { bytes, sha256: hex(&hash.finalize()) });
            }
            bytes += read as u64;
            hash.update(&buffer[..read]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_the_making_says_which_it_will_be() {
        let folder = tempfile::tempdir().unwrap();
        let half = beside(&folder.path().join("run.json")).unwrap();
        let name = half.path().file_name().unwrap().to_string_lossy();
        assert!(name.starts_with(".writing-run.json-"), "{name}");
    }
}
