//! Taking the files out of a tar archive without ever writing outside the folder given.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use flate2::bufread::GzDecoder;
use tar::{Archive, EntryType};

use crate::progress::Progress;
use crate::staging::{create_dir, explain};

/// More than any set in the catalogue unpacks to: a bomb is stopped here.
const LIMIT: u64 = 4 << 30;

/// Unpacks `archive` (`.tar.gz` or `.tar.xz`) into `folder`. `keep` maps a member's path to where it goes, or to
/// `None` to leave it out.
pub(super) fn unpack(archive: &Path, folder: &Path, keep: impl Fn(&Path) -> Option<PathBuf>) -> Result<()> {
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let progress = Progress::uncounted(&format!("unpacking {name}"));
    let file = File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
    let advance = |bytes| progress.advance(bytes);
    if archive.extension() == Some(OsStr::new("xz")) {
        let mut xz = Command::new("xz")
            .args(["--decompress", "--stdout"])
            .stdin(file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run xz (Debian: `apt-get install xz-utils`)")?;
        let stream = xz.stdout.take().context("xz has no output")?;
        let result = unpack_tar(BufReader::new(stream), folder, keep, advance);
        let status = xz.wait().context("lost sight of xz")?;
        result.with_context(|| damaged(archive))?;
        if !status.success() {
            bail!("{}: xz said {status}", damaged(archive));
        }
    } else {
        unpack_tar(GzDecoder::new(BufReader::new(file)), folder, keep, advance).with_context(|| damaged(archive))?;
    }
    progress.done();
    Ok(())
}

fn damaged(archive: &Path) -> String {
    format!("{} cannot be unpacked", archive.display())
}

/// Only plain files and folders with plain relative names are accepted: no links, no devices, no `..`.
fn unpack_tar(
    mut stream: impl Read,
    folder: &Path,
    keep: impl Fn(&Path) -> Option<PathBuf>,
    mut advance: impl FnMut(u64),
) -> Result<()> {
    let mut written = 0;
    let mut archive = Archive::new(&mut stream);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        match entry.header().entry_type() {
            EntryType::Directory => continue,
            EntryType::Regular | EntryType::Continuous => {}
            other => bail!("its member {} is neither a file nor a folder but {other:?}", path.display()),
        }
        let plain: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
        if plain.as_os_str().is_empty() || !plain.components().all(|part| matches!(part, Component::Normal(_))) {
            bail!("its member {} would be written outside the folder", path.display());
        }
        let Some(kept) = keep(&plain) else { continue };
        let target = folder.join(kept);
        if let Some(parent) = target.parent() {
            create_dir(parent)?;
        }
        let mut file = File::create(&target).map_err(|error| explain(error, "create", &target))?;
        let bytes = io::copy(&mut entry.by_ref().take(LIMIT - written + 1), &mut file)
            .map_err(|error| explain(error, "write", &target))?;
        if bytes < entry.header().size()? {
            bail!("it ends in the middle of {}", path.display());
        }
        written += bytes;
        advance(bytes);
        if written > LIMIT {
            bail!("it unpacks to more than {} GiB", LIMIT >> 30);
        }
    }
    // The rest of the stream carries the compressor's own checksum: read on, so that it is compared.
    io::copy(&mut stream, &mut io::sink())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tar::{Builder, Header};

    use super::*;

    fn tar_of(members: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for (name, kind, content) in members {
            let mut header = Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            // `set_path` refuses what an attacker would write: the bytes are set as they are.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            if *kind == EntryType::Symlink {
                header.set_link_name("/etc").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn keep_all(path: &Path) -> Option<PathBuf> {
        Some(path.to_path_buf())
    }

    #[test]
    fn plain_files_are_unpacked_and_the_rest_of_the_names_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = tar_of(&[("./a/b", EntryType::Regular, b"abc"), ("c", EntryType::Regular, b"no")]);
        unpack_tar(&*bytes, folder.path(), |path| path.starts_with("a").then(|| path.to_path_buf()), |_| ()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("a/b")).unwrap(), b"abc");
        assert!(!folder.path().join("c").exists());
    }

    #[test]
    fn names_that_leave_the_folder_and_links_are_refused() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("in");
        std::fs::create_dir(&folder).unwrap();
        for (name, kind) in [
            ("../evil", EntryType::Regular),
            ("a/../../evil", EntryType::Regular),
            ("/tmp/evil-of-this-test", EntryType::Regular),
            ("link", EntryType::Symlink),
            ("link", EntryType::Link),
            ("device", EntryType::Char),
        ] {
            let bytes = tar_of(&[(name, kind, if kind == EntryType::Regular { b"x" } else { b"" })]);
            unpack_tar(&*bytes, &folder, keep_all, |_| ()).unwrap_err();
            assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1, "{name}");
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{name}");
            assert!(!Path::new("/tmp/evil-of-this-test").exists());
        }
    }

    #[test]
    fn an_archive_that_ends_too_early_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = tar_of(&[("a", EntryType::Regular, &[1; 2000])]);
        unpack_tar(&bytes[..1500], folder.path(), keep_all, |_| ()).unwrap_err();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn noise_never_panics_and_never_escapes(
            name in "[a-z./]{1,20}",
            noise in proptest::collection::vec((0usize..1024, any::<u8>()), 0..6),
            cut in 0usize..1600,
        ) {
            let outer = tempfile::tempdir().unwrap();
            let folder = outer.path().join("a/in");
            std::fs::create_dir_all(&folder).unwrap();
            let mut bytes = tar_of(&[(&name, EntryType::Regular, b"content")]);
            for (at, value) in noise {
                bytes[at] = value;
            }
            bytes.truncate(bytes.len() - cut);
            let _ = unpack_tar(&*bytes, &folder, keep_all, |_| ());
            prop_assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 1);
            prop_assert_eq!(std::fs::read_dir(outer.path().join("a")).unwrap().count(), 1);
        }
    }
}
