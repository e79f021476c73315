//! Building something beside its final place and renaming it at the end, one process at a time.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::disk;

/// A locked folder beside `target`, on the same file system, in which `target` is prepared.
///
/// * `tree` becomes the target. A killed predecessor's half-made one is never continued.
/// * `scratch` is for tools that need a place to work in; it does not outlive its user.
/// * `downloads` is kept when set-up fails: whole or resumable files need not be fetched twice.
/// * An inner `.gitignore` hides the folder while it exists.
pub(crate) struct Staging {
    folder: PathBuf,
    target: PathBuf,
    finished: bool,
    _lock: File,
}

impl Staging {
    /// Opens `<target>.setup`, waiting for another process that works on the same target.
    pub(crate) fn open(target: &Path) -> Result<Self> {
        let name =
            target.file_name().ok_or_else(|| anyhow!("{} does not name a folder", target.display()))?.to_string_lossy();
        let folder = target.with_file_name(format!("{name}.setup"));
        respect_permissions(target)?;
        let lock = loop {
            if let Some(lock) = begin(&folder)? {
                break lock;
            }
        };
        let staging = Self { folder, target: target.to_path_buf(), finished: false, _lock: lock };
        create_dir(&staging.downloads())?;
        staging.empty_tree()?;
        Ok(staging)
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.folder.join("tree")
    }

    /// Begins the tree anew.
    pub(crate) fn empty_tree(&self) -> Result<PathBuf> {
        empty(self.tree())
    }

    /// An empty folder to work in.
    pub(crate) fn empty_scratch(&self) -> Result<PathBuf> {
        empty(self.scratch())
    }

    fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }

    pub(crate) fn downloads(&self) -> PathBuf {
        self.folder.join("downloads")
    }

    /// A log file for a tool's output.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Puts the finished tree in the target's place and removes the staging folder.
    pub(crate) fn place(mut self) -> Result<()> {
        flush(&self.tree())?;
        let old = self.folder.join("old");
        remove(&old)?;
        if fs::symlink_metadata(&self.target).is_ok() {
            rename(&self.target, &old)?;
        }
        rename(&self.tree(), &self.target)?;
        if let Some(parent) = self.target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // The rename itself must survive a power cut; a file system that cannot sync a folder keeps its own order.
            let _ = File::open(parent).and_then(|folder| folder.sync_all());
        }
        self.finish();
        Ok(())
    }

    /// Puts the finished tree's files into a target that may hold other things, replacing each file at once.
    pub(crate) fn merge(mut self) -> Result<()> {
        if !self.target.is_dir() {
            return self.place();
        }
        flush(&self.tree())?;
        let tree = self.tree();
        for entry in fs::read_dir(&tree).map_err(|error| explain(error, "list", &tree))? {
            let entry = entry.map_err(|error| explain(error, "list", &tree))?;
            rename(&entry.path(), &self.target.join(entry.file_name()))?;
        }
        self.finish();
        Ok(())
    }

    fn finish(&mut self) {
        self.finished = true;
        self.clear_away();
    }

    /// Removes the staging folder, under another name first: a process that waits for it makes its own, and nothing of
    /// that is touched. What cannot be removed is litter, not a failure.
    fn clear_away(&self) {
        let mut name = self.folder.clone().into_os_string();
        name.push(format!(".gone-{}", std::process::id()));
        let gone = PathBuf::from(name);
        if fs::rename(&self.folder, &gone).is_ok() {
            let _ = remove(&gone);
        }
    }

    /// Gives up the staging folder when there turned out to be nothing to do.
    pub(crate) fn discard(mut self) {
        self.finish();
    }
}

/// After a failure only downloads that are worth something stay: a full disk is not left full of half-made trees.
impl Drop for Staging {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // The failure that brought us here is being reported; one of cleaning up would only hide it.
        let _ = remove(&self.tree());
        let _ = remove(&self.scratch());
        if fs::read_dir(self.downloads()).is_ok_and(|mut entries| entries.next().is_none()) {
            self.clear_away();
        }
    }
}

/// A folder that nobody may write to is left alone, even by root, whom the system would let.
fn respect_permissions(target: &Path) -> Result<()> {
    match target.parent().map(|parent| (parent, fs::metadata(parent))) {
        Some((parent, Ok(metadata))) if metadata.permissions().readonly() => {
            Err(explain(io::ErrorKind::PermissionDenied.into(), "write to", parent))
        }
        _ => Ok(()),
    }
}

/// Makes the staging folder and takes its lock; `None` when its last owner cleared it away meanwhile, so that we must
/// begin again.
fn begin(folder: &Path) -> Result<Option<File>> {
    create_dir(folder)?;
    let path = folder.join("lock");
    let opened = fs::write(folder.join(".gitignore"), b"*\n")
        .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path));
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(explain(error, "write in", folder)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another set-up that holds {} …", path.display());
            file.lock().map_err(|error| explain(error, "lock", &path))?;
        }
        Err(TryLockError::Error(error)) => return Err(explain(error, "lock", &path)),
    }
    let still_ours = match (file.metadata(), fs::metadata(&path)) {
        (Ok(held), Ok(there)) => same_file(&held, &there),
        _ => false,
    };
    Ok(still_ours.then_some(file))
}

#[cfg(unix)]
fn same_file(a: &fs::Metadata, b: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn same_file(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    // Where an open file cannot be removed, the path still names it.
    true
}

/// Asks the system to write the tree to disk: one call for the file system, else file by file.
fn flush(tree: &Path) -> Result<()> {
    let synced = Command::new("sync").arg("-f").arg(tree).status().is_ok_and(|status| status.success());
    if !synced {
        flush_each(tree).map_err(|error| explain(error, "flush", tree))?;
    }
    Ok(())
}

fn flush_each(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            flush_each(&entry.path())?;
        } else if kind.is_file() {
            File::open(entry.path())?.sync_all()?;
        }
    }
    Ok(())
}

fn empty(folder: PathBuf) -> Result<PathBuf> {
    remove(&folder)?;
    create_dir(&folder)?;
    Ok(folder)
}

/// Creates a folder and its parents.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|error| explain(error, "create", path))
}

/// Writes a small file.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).map_err(|error| explain(error, "write", path))
}

/// Renames within one file system.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| explain(error, "rename to", to))
}

/// Removes a file, a link or a whole folder; what is not there is removed already.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    result.map_err(|error| explain(error, "remove", path))
}

/// An I/O error with what was being done, where, and, when it is known, what to do about it.
pub(crate) fn explain(error: io::Error, doing: &str, path: &Path) -> anyhow::Error {
    let advice = disk::advice(&error);
    let error = anyhow!(error).context(format!("cannot {doing} {}", path.display()));
    match advice {
        Some(advice) => error.context(advice),
        None => error,
    }
}

/// Copies a file whole.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).with_context(|| format!("cannot open {}", from.display()))?;
    let mut target = File::create(to).map_err(|error| explain(error, "create", to))?;
    io::copy(&mut source, &mut target).map_err(|error| explain(error, "write", to))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_appears_whole_and_the_staging_folder_goes() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("thing");
        let staging = Staging::open(&target).unwrap();
        write(&staging.tree().join("a"), b"new").unwrap();
        assert!(!target.exists());
        staging.place().unwrap();
        assert_eq!(fs::read(target.join("a")).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_old_target_is_replaced_not_mixed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("thing");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old"), b"").unwrap();
        Staging::open(&target).unwrap().place().unwrap();
        assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    }

    #[test]
    fn merging_keeps_what_else_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("thing");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("LICENSE"), b"mine").unwrap();
        fs::write(target.join("a"), b"corrupt").unwrap();
        let staging = Staging::open(&target).unwrap();
        write(&staging.tree().join("a"), b"good").unwrap();
        staging.merge().unwrap();
        assert_eq!(fs::read(target.join("LICENSE")).unwrap(), b"mine");
        assert_eq!(fs::read(target.join("a")).unwrap(), b"good");
    }

    #[test]
    fn a_predecessors_half_made_tree_is_dropped_and_its_downloads_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("thing");
        for file in ["tree/half", "downloads/whole"] {
            let path = folder.path().join("thing.setup").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let staging = Staging::open(&target).unwrap();
        assert!(!staging.tree().join("half").exists());
        assert!(staging.downloads().join("whole").exists());
    }

    #[test]
    fn a_failure_leaves_downloads_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("thing");
        drop(Staging::open(&target).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let staging = Staging::open(&target).unwrap();
        write(&staging.tree().join("half"), b"").unwrap();
        write(&staging.downloads().join("whole"), b"").unwrap();
        drop(staging);
        assert!(!folder.path().join("thing.setup/tree").exists());
        assert!(folder.path().join("thing.setup/downloads/whole").exists());
    }

    #[test]
    fn only_one_process_works_on_a_target() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("thing");
        let staging = Staging::open(&target).unwrap();
        let other = std::thread::spawn({
            let target = target.clone();
            move || {
                let staging = Staging::open(&target).unwrap();
                let already_there = target.exists();
                staging.discard();
                already_there
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!other.is_finished());
        staging.place().unwrap();
        assert!(other.join().unwrap(), "the second one finds what the first one made");
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = Staging::open(&file.join("thing")).err().unwrap();
        assert!(format!("{error:#}").contains("file/thing.setup"), "{error:#}");
    }
}
