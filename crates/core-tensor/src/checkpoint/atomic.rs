//! Files that are either their old selves or their new selves.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Writes a file so that whoever reads `path`, now or after a crash or a power cut, finds the whole old content or
/// the whole new one.
///
/// `write` fills a temporary file in the same folder, which is then synced and renamed over `path`; the folder is
/// synced last. When anything fails (full disk, read-only folder, an error from `write` itself) the temporary file is
/// removed and `path` is untouched. A process killed half-way leaves at most a file named `.writing-….tmp`, which is
/// safe to delete.
///
/// ```
/// # fn main() -> core_tensor::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("metrics.json");
/// use std::io::Write;
/// core_tensor::checkpoint::write_atomically(&path, |file| file.write_all(b"{\"accuracy\": 0.9}"))?;
/// # assert_eq!(std::fs::read(&path).unwrap(), b"{\"accuracy\": 0.9}");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Io`], naming the path and the step that failed.
pub fn write_atomically<T>(path: &Path, write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<T>) -> Result<T> {
    let folder = folder_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-").suffix(".tmp");
    #[cfg(unix)]
    {
        // The usual permissions (less the umask) instead of the owner-only ones of temporary files.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(&folder).map_err(Error::io(path, "creating a temporary file beside it"))?;

    let mut writer = BufWriter::with_capacity(1 << 16, temporary.as_file());
    let value = write(&mut writer).map_err(Error::io(path, "write"))?;
    writer.flush().map_err(Error::io(path, "write"))?;
    drop(writer);
    temporary.as_file().sync_all().map_err(Error::io(path, "sync"))?;
    temporary.persist(path).map_err(|refused| Error::io(path, "rename")(refused.error))?;
    sync_folder(&folder).map_err(Error::io(path, "syncing its folder"))?;
    Ok(value)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Elsewhere a folder cannot be opened for syncing; the rename is as durable as the system makes it.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_appears_whole_and_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let written = write_atomically(&path, |file| file.write_all(b"new").map(|()| 3)).unwrap();
        assert_eq!((written, fs::read(&path).unwrap().as_slice()), (3, b"new".as_slice()));
        assert_eq!(entries(folder.path()), ["a.bin"]);
    }

    #[test]
    fn a_failing_writer_leaves_the_old_file_and_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        fs::write(&path, b"old").unwrap();
        let error = write_atomically(&path, |file| -> io::Result<()> {
            file.write_all(&[7; 1 << 20])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(
            matches!(&error, Error::Io { path: named, action: "write", source } if named == &path && source.kind() == io::ErrorKind::StorageFull),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(folder.path()), ["a.bin"]);
    }

    #[test]
    fn a_panicking_writer_leaves_the_old_file_and_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        fs::write(&path, b"old").unwrap();
        let outcome = std::panic::catch_unwind(|| {
            write_atomically(&path, |_| -> io::Result<()> { panic!("a bug in the caller") })
        });
        assert!(outcome.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(folder.path()), ["a.bin"]);
    }

    #[test]
    fn a_target_that_is_a_folder_is_refused_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write_atomically(&path, |file| file.write_all(b"new")).unwrap_err();
        assert!(matches!(error, Error::Io { action: "rename", .. }), "{error}");
        assert_eq!(entries(folder.path()), ["taken"]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("a.bin");
        let error = write_atomically(&path, |file| file.write_all(b"new")).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_an_ordinary_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ordinary, atomic) = (folder.path().join("ordinary"), folder.path().join("atomic"));
        fs::write(&ordinary, b"x").unwrap();
        write_atomically(&atomic, |file| file.write_all(b"x")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&atomic), mode(&ordinary));
    }
}
