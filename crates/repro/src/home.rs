//! `runs/<id>/`: where a run lives, and who may write there.
//!
//! ```text
//! runs/<id>/run.json                   schema and description; written first
//!           metrics.jsonl              a row an epoch
//!           events.out.tfevents.repro  the same for TensorBoard
//!           checkpoint.json            which checkpoint counts, and how far the rows reached then
//!           checkpoint-<epoch>         the experiment's own format
//!           artifacts/                 what other runs and the report read
//!           log.txt                    the worker's words
//!           done.json                  final metrics; written last
//! runs/.locks/<id>                     held by the process that computes the run
//! runs/.replaced/<id>/                 the finished run that --force is computing again
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::durable;
use crate::error::{Error, Result};
use crate::finished::{self, DoneFile, Finished};
use crate::metrics;
use crate::run::{Run, RunId};

/// The version of this layout. A folder of another version is refused, never read and never overwritten.
pub const SCHEMA: u64 = 1;

/// The description's file, the one that is written without the run's lock.
pub(crate) const DESCRIPTION: &str = "run.json";

/// The folder of all runs.
#[derive(Debug, Clone)]
pub struct RunStore {
    root: PathBuf,
}

/// One run's folder.
#[derive(Debug, Clone)]
pub struct RunHome {
    pub(crate) dir: PathBuf,
    lock: PathBuf,
    replaced: PathBuf,
}

/// Held while a run is computed. The system lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: File,
}

#[derive(Serialize, Deserialize)]
struct DescriptionFile {
    schema: u64,
    id: RunId,
    run: Run,
}

impl RunStore {
    /// The runs under `root`, which may not exist yet.
    pub fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// Creates the folder and makes sure that it can be written.
    ///
    /// # Errors
    /// A folder that cannot be created or written.
    pub fn make_writable(&self) -> Result<()> {
        durable::writable_folder(&self.root)
    }

    /// A run's home.
    pub fn home(&self, id: &RunId) -> RunHome {
        let inside = |folder: &str| self.root.join(folder).join(id.as_str());
        RunHome { dir: self.root.join(id.as_str()), lock: inside(".locks"), replaced: inside(".replaced") }
    }
}

impl RunHome {
    /// The home that a description file lies in.
    ///
    /// # Errors
    /// A path that is not `<runs>/<id>/run.json`.
    pub(crate) fn of_description(path: &Path) -> Result<Self> {
        let refused = || Error::setting("descriptor", "<runs>/<id>/run.json", path.display());
        let dir = path.parent().ok_or_else(refused)?;
        let id = dir.file_name().and_then(|name| name.to_str()).ok_or_else(refused)?;
        let root = dir.parent().ok_or_else(refused)?;
        Ok(RunStore::at(root).home(&RunId::try_from(id.to_string())?))
    }

    pub(crate) fn sibling(&self, id: &RunId) -> Self {
        RunStore::at(self.dir.parent().unwrap_or(Path::new("."))).home(id)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn description(&self) -> PathBuf {
        self.file(DESCRIPTION)
    }

    pub(crate) fn rows(&self) -> PathBuf {
        self.file("metrics.jsonl")
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.file("events.out.tfevents.repro")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.file("log.txt")
    }

    pub(crate) fn done(&self) -> PathBuf {
        self.file("done.json")
    }

    /// Creates the folder and the description, unless they are there.
    ///
    /// # Errors
    /// A folder of another schema or another run, or one that cannot be written.
    pub(crate) fn prepare(&self, run: &Run) -> Result<()> {
        durable::create_folder(&self.dir)?;
        match self.read_description() {
            Ok(Some(found)) => self.check_same(&found, run),
            // A damaged description of a run whose description is at hand loses nothing.
            Ok(None) | Err(Error::Damaged { .. }) => {
                let file = DescriptionFile { schema: SCHEMA, id: run.id(), run: run.clone() };
                durable::write_json(&self.description(), &file)
            }
            Err(other) => Err(other),
        }
    }

    /// The description on disk; `None` when there is none.
    pub(crate) fn read_description(&self) -> Result<Option<Run>> {
        let path = self.description();
        let Some(value) = durable::read_json::<Value>(&path)? else { return Ok(None) };
        let found = value["schema"].as_u64().ok_or_else(|| Error::damaged(&path, "it has no schema"))?;
        if found != SCHEMA {
            return Err(Error::OtherSchema { path, found, expected: SCHEMA });
        }
        let file: DescriptionFile = serde_json::from_value(value).map_err(|reason| Error::damaged(&path, reason))?;
        let (named, computed) = (self.dir.file_name().and_then(|name| name.to_str()), file.run.id());
        if named != Some(computed.as_str()) || file.id != computed {
            return Err(Error::damaged(&path, format!("it describes run {computed}, which lives elsewhere")));
        }
        Ok(Some(file.run))
    }

    /// What the run left; `None` when it has not finished.
    ///
    /// # Errors
    /// A folder of another schema, or damaged files.
    pub fn finished(&self, run: &Run) -> Result<Option<Finished>> {
        let Some(found) = self.read_description()? else { return Ok(None) };
        self.check_same(&found, run)?;
        let Some(done) = durable::read_json::<DoneFile>(&self.done())? else { return Ok(None) };
        let rows = metrics::read(&self.rows(), &done.rows).map_err(|error| match error {
            Error::Io { path, action, source } => Error::damaged(&path, format!("{action} failed: {source}")),
            other => other,
        })?;
        finished::check_lengths(&self.dir, &done.artifacts)?;
        Ok(Some(Finished {
            run: found,
            dir: self.dir.clone(),
            metrics: done.metrics,
            rows,
            timing: done.timing,
            artifacts: done.artifacts,
        }))
    }

    fn check_same(&self, found: &Run, run: &Run) -> Result<()> {
        if found == run {
            return Ok(());
        }
        Err(Error::damaged(&self.description(), format!("it describes {}, not {}", found.label(), run.label())))
    }

    /// Takes the run's lock, waiting for whoever holds it; `waiting` is told the holder's process number.
    pub(crate) fn lock(&self, waiting: impl FnOnce(&str)) -> Result<RunLock> {
        let mut file = self.open_lock()?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            let mut holder = String::new();
            // Only for the message.
            let _ = file.read_to_string(&mut holder);
            waiting(holder.trim());
        }
        file.lock().map_err(Error::io(&self.lock, "lock"))?;
        self.sign(file)
    }

    /// Takes the run's lock unless somebody holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<RunLock>> {
        let file = self.open_lock()?;
        match file.try_lock() {
            Ok(()) => self.sign(file).map(Some),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(Error::io(&self.lock, "lock")(source)),
        }
    }

    fn open_lock(&self) -> Result<File> {
        durable::create_folder(self.lock.parent().unwrap_or(Path::new(".")))?;
        File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&self.lock)
            .map_err(Error::io(&self.lock, "open"))
    }

    fn sign(&self, mut file: File) -> Result<RunLock> {
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| writeln!(file, "{}", std::process::id()))
            .map_err(Error::io(&self.lock, "write"))?;
        Ok(RunLock { _file: file })
    }

    /// Moves a finished run to where it waits until it has been computed again. A partial one is discarded when a
    /// finished one waits already: it is what an interrupted `--force` left.
    pub(crate) fn replace(&self) -> Result<()> {
        if !self.dir.exists() {
            return Ok(());
        }
        if self.replaced.exists() && !self.done().exists() {
            return fs::remove_dir_all(&self.dir).map_err(Error::io(&self.dir, "remove"));
        }
        self.forget_replaced()?;
        durable::create_folder(self.replaced.parent().unwrap_or(Path::new(".")))?;
        fs::rename(&self.dir, &self.replaced).map_err(Error::io(&self.dir, "rename"))
    }

    /// Deletes the run that has been computed again.
    pub(crate) fn forget_replaced(&self) -> Result<()> {
        match fs::remove_dir_all(&self.replaced) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(&self.replaced, "remove")(error))
            }
            _ => Ok(()),
        }
    }

    /// The last lines that its worker wrote.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceKind;

    fn home() -> (tempfile::TempDir, Run, RunHome) {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::new("toy", "arm", 0, &serde_json::json!({}), DeviceKind::Cpu).unwrap();
        let home = RunStore::at(folder.path()).home(&run.id());
        (folder, run, home)
    }

    #[test]
    fn a_folder_of_another_schema_is_refused_naming_both_versions_and_kept() {
        let (_folder, run, home) = home();
        home.prepare(&run).unwrap();
        let theirs = r#"{"schema": 7, "whatever": "they write"}"#;
        fs::write(home.description(), theirs).unwrap();
        for error in [home.prepare(&run).unwrap_err(), home.finished(&run).unwrap_err()] {
            assert!(matches!(error, Error::OtherSchema { found: 7, expected: SCHEMA, .. }), "{error}");
            assert!(error.to_string().contains("schema 7") && error.to_string().contains("schema 1"));
        }
        assert_eq!(fs::read_to_string(home.description()).unwrap(), theirs);
    }

    #[test]
    fn a_damaged_description_is_written_again_and_a_moved_one_is_noticed() {
        let (folder, run, home) = home();
        home.prepare(&run).unwrap();
        fs::write(home.description(), "{\"schema\": 1, \"ru").unwrap();
        assert!(matches!(home.finished(&run), Err(Error::Damaged { .. })));
        home.prepare(&run).unwrap();
        assert_eq!(home.read_description().unwrap(), Some(run));

        let elsewhere = folder.path().join("0123456789abcdef");
        fs::rename(&home.dir, &elsewhere).unwrap();
        let moved = RunHome::of_description(&elsewhere.join("run.json")).unwrap();
        assert!(moved.read_description().unwrap_err().to_string().contains("lives elsewhere"));
    }

    #[test]
    fn a_lock_is_held_once_and_names_its_holder() {
        let (_folder, _, home) = home();
        let held = home.try_lock().unwrap().unwrap();
        assert!(home.try_lock().unwrap().is_none());
        assert_eq!(fs::read_to_string(&home.lock).unwrap().trim(), std::process::id().to_string());
        drop(held);
        assert!(home.try_lock().unwrap().is_some());
    }

    #[test]
    fn replacing_keeps_the_finished_run_until_the_new_one_is_done() {
        let (_folder, run, home) = home();
        home.prepare(&run).unwrap();
        fs::write(home.done(), "first").unwrap();
        home.replace().unwrap();
        assert!(!home.dir.exists() && home.replaced.join("done.json").exists());
        // A forced run that was killed, forced again: the finished one still waits.
        home.prepare(&run).unwrap();
        home.replace().unwrap();
        assert!(!home.dir.exists() && home.replaced.join("done.json").exists());
        home.forget_replaced().unwrap();
        assert!(!home.replaced.exists());
    }
}
