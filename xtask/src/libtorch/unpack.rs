//! Taking chosen members out of a zip archive without ever writing outside the folder given.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use zip::ZipArchive;

use super::recipe::Take;
use crate::staging::{create_dir, explain};

/// Bytes that `unpack` would write.
pub(super) fn unpacked_size(archive: &Path, take: &[Take]) -> Result<u64> {
    let mut zip = open(archive)?;
    let mut total = 0;
    for index in 0..zip.len() {
        let member = zip.by_index_raw(index).with_context(|| damaged(archive))?;
        if take.iter().any(|take| take.rename(member.name()).is_some()) {
            total += member.size();
        }
    }
    Ok(total)
}

/// Unpacks what `take` chooses into `folder`; `written` is told of the bytes as they are written.
/// Every member's CRC-32 is checked. A name that leaves the folder, or a link, condemns the whole archive before
/// anything is written, whether it was chosen or not.
pub(super) fn unpack(archive: &Path, take: &[Take], folder: &Path, mut written: impl FnMut(u64)) -> Result<()> {
    let mut zip = open(archive)?;
    let mut chosen = Vec::new();
    for index in 0..zip.len() {
        let member = zip.by_index_raw(index).with_context(|| damaged(archive))?;
        let name = member.name();
        inside(name).with_context(|| format!("{} is not to be trusted", archive.display()))?;
        if member.is_symlink() {
            bail!("{} is not to be trusted: its member {name} is a link", archive.display());
        }
        if member.is_file()
            && let Some(kept) = take.iter().find_map(|take| take.rename(name))
        {
            chosen.push((index, inside(&kept)?, member.unix_mode()));
        }
    }
    for rule in take {
        let matched = zip.file_names().any(|name| rule.rename(name).is_some());
        if !matched {
            bail!("{} holds no {}", archive.display(), rule.from);
        }
    }
    let mut buffer = vec![0; 1 << 18];
    for (index, kept, mode) in chosen {
        let path = folder.join(kept);
        if let Some(parent) = path.parent() {
            create_dir(parent)?;
        }
        let mut member = zip.by_index(index).with_context(|| damaged(archive))?;
        let mut file = File::create(&path).map_err(|error| explain(error, "create", &path))?;
        loop {
            let count = match member.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    return Err(anyhow!(error).context(format!("{}: member {}", damaged(archive), member.name())));
                }
            };
            file.write_all(&buffer[..count]).map_err(|error| explain(error, "write", &path))?;
            written(count as u64);
        }
        set_executable(&file, mode).map_err(|error| explain(error, "set the mode of", &path))?;
    }
    Ok(())
}

fn open(archive: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
    ZipArchive::new(BufReader::new(file)).with_context(|| damaged(archive))
}

fn damaged(archive: &Path) -> String {
    format!("{} is damaged or not a zip archive", archive.display())
}

/// A member's name as a path that stays below the folder it is joined to.
fn inside(name: &str) -> Result<PathBuf> {
    let path = PathBuf::from(name);
    let plain = !name.contains(['\\', '\0'])
        && path.components().all(|part| matches!(part, Component::Normal(_)))
        && !name.is_empty();
    if !plain {
        bail!("its member {name:?} would be written outside the folder");
    }
    Ok(path)
}

/// Keeps only the executable bit of the mode that the archive records.
#[cfg(unix)]
fn set_executable(file: &File, mode: Option<u32>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if mode.is_some_and(|mode| mode & 0o100 != 0) {
        file.set_permissions(std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn set_executable(_: &File, _: Option<u32>) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn take_all() -> Vec<Take> {
        vec![Take { from: "t/".into(), to: "lib/".into(), containing: String::new() }]
    }

    fn archive(folder: &Path, members: &[(&str, &[u8])]) -> PathBuf {
        let path = folder.join("archive.zip");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for (name, content) in members {
            zip.start_file(*name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
        path
    }

    #[test]
    fn chosen_members_are_written_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = archive(folder.path(), &[("t/a.so", b"abc"), ("other", b"no")]);
        let mut bytes = 0;
        unpack(&path, &take_all(), folder.path(), |count| bytes += count).unwrap();
        assert_eq!(std::fs::read(folder.path().join("lib/a.so")).unwrap(), b"abc");
        assert_eq!(bytes, unpacked_size(&path, &take_all()).unwrap());
        assert!(!folder.path().join("other").exists());
    }

    #[test]
    fn a_name_that_leaves_the_folder_condemns_the_archive_before_anything_is_written() {
        for name in ["t/../../evil", "../evil", "/evil", "t/..", "t\\..\\..\\evil", "elsewhere/../../evil"] {
            let outer = tempfile::tempdir().unwrap();
            let folder = outer.path().join("in");
            std::fs::create_dir(&folder).unwrap();
            let path = archive(outer.path(), &[("t/good", b"x"), (name, b"x")]);
            let error = unpack(&path, &take_all(), &folder, |_| ()).unwrap_err();
            assert!(format!("{error:#}").contains("outside the folder"), "{name}: {error:#}");
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{name}");
            assert!(!outer.path().join("evil").exists(), "{name}");
        }
    }

    #[test]
    fn a_link_condemns_the_archive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive.zip");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        zip.add_symlink("t/lib", "/etc", SimpleFileOptions::default()).unwrap();
        zip.finish().unwrap();
        let error = unpack(&path, &take_all(), folder.path(), |_| ()).unwrap_err();
        assert!(error.to_string().contains("t/lib is a link"), "{error}");
    }

    #[test]
    fn what_is_asked_for_and_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = archive(folder.path(), &[("other", b"x")]);
        let error = unpack(&path, &take_all(), folder.path(), |_| ()).unwrap_err();
        assert!(error.to_string().contains("holds no t/"), "{error}");
    }

    #[test]
    fn a_flipped_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..=255).cycle().take(4096).collect();
        let path = folder.path().join("archive.zip");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file("t/a", stored).unwrap();
        zip.write_all(&content).unwrap();
        zip.finish().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[1000] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = unpack(&path, &take_all(), folder.path(), |_| ()).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However an archive is damaged or named, unpacking ends without a panic and writes only below its folder.
        #[test]
        fn nothing_escapes_and_nothing_panics(
            name in "[a-z./\\\\]{1,12}",
            cut in 0usize..200,
            noise in proptest::collection::vec((0usize..200, any::<u8>()), 0..4),
        ) {
            let outer = tempfile::tempdir().unwrap();
            let folder = outer.path().join("a/b/in");
            std::fs::create_dir_all(&folder).unwrap();
            let path = archive(outer.path(), &[(&format!("t/{name}"), b"content")]);
            let mut bytes = std::fs::read(&path).unwrap();
            for (at, value) in noise {
                if let Some(byte) = bytes.get_mut(at) { *byte = value; }
            }
            let keep = bytes.len() - cut.min(bytes.len());
            std::fs::write(&path, &bytes[..keep]).unwrap();
            let _ = unpack(&path, &take_all(), &folder, |_| ());
            let outside = |folder: PathBuf| std::fs::read_dir(folder).unwrap().count();
            prop_assert_eq!(outside(outer.path().to_path_buf()), 2);
            prop_assert_eq!(outside(outer.path().join("a")), 1);
            prop_assert_eq!(outside(outer.path().join("a/b")), 1);
        }
    }
}
