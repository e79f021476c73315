//! Room on the disk: asked for before a download, explained after a failed write.

use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

/// Refuses to begin when the file system that holds `folder` has less than `bytes` free.
/// Where the system cannot tell (no `df`), the write itself will.
pub(crate) fn require(folder: &Path, bytes: u64) -> Result<()> {
    if let Some(free) = free(folder)
        && free < bytes
    {
        bail!(
            "not enough room in {}: {} are needed, {} are free. Free some space, or choose another place",
            folder.display(),
            mebibytes(bytes),
            mebibytes(free),
        );
    }
    Ok(())
}

/// Says what to do about an I/O error that means the place is unusable; `None` for any other.
pub(crate) fn advice(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("the disk is full: free some space and run the same command again")
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            Some("the folder cannot be written to: change its permissions or choose another place")
        }
        _ => None,
    }
}

fn free(folder: &Path) -> Option<u64> {
    let output = Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    parse_df(&String::from_utf8_lossy(&output.stdout))
}

/// POSIX `df -P`: a header, then one line whose fourth column is the room left, in KiB.
fn parse_df(text: &str) -> Option<u64> {
    let kibibytes: u64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_room_left_is_the_fourth_column_of_posix_df() {
        let text = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda 100 60 40 60% /\n";
        assert_eq!(parse_df(text), Some(40 * 1024));
        assert_eq!(parse_df("df: no such file\n"), None);
    }

    #[test]
    fn more_room_than_any_disk_has_is_refused_with_both_figures() {
        let folder = tempfile::tempdir().unwrap();
        let error = require(folder.path(), u64::MAX / 2).unwrap_err().to_string();
        assert!(error.contains("not enough room in") && error.contains("are free"), "{error}");
    }

    #[test]
    fn a_full_device_is_explained() {
        let mut full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let error = full.write_all(b"x").unwrap_err();
        assert!(advice(&error).unwrap().contains("disk is full"));
        assert_eq!(advice(&io::Error::from(io::ErrorKind::InvalidData)), None);
    }
}
