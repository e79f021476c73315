//! Where data sets lie, and what was used instead of those that do not.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::durable::Fingerprint;
use crate::error::{Error, Result};

/// The folder of data sets, a folder a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataRoot {
    root: PathBuf,
}

/// A data set as an experiment uses it, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataUse {
    /// Name and part, such as `Fashion-MNIST, first 4,096 training images`.
    pub set: String,
    /// Where it came from.
    pub source: DataSource,
}

/// Where data came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DataSource {
    /// Read from its published files.
    Files,
    /// Made by a seeded generator: part of the experiment, or instead of files that are not there.
    Generator,
    /// Not there, so what needs it did not run.
    Absent,
}

impl DataRoot {
    /// The sets under `root`, which may not exist.
    pub fn at(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// `given` (from `--data`) must exist; without it `$REPRO_DATA` must; without both `data/` may be missing.
    ///
    /// # Errors
    /// A folder that was named and is missing, or that cannot be read.
    pub fn locate(given: Option<&Path>) -> Result<Self> {
        // An empty variable names nothing, as for `cargo xtask`.
        let variable = || std::env::var_os("REPRO_DATA").filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = given.map(Path::to_path_buf).or_else(variable);
        let Some(root) = named else { return Ok(Self::at(Path::new("data"))) };
        std::fs::read_dir(&root).map_err(Error::io(&root, "read data folder"))?;
        Ok(Self { root })
    }

    /// The folder of `set` when it holds all of `files`.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn find(&self, set: &str, files: &[&str]) -> Result<Option<PathBuf>> {
        let folder = self.root.join(set);
        for file in files {
            let path = folder.join(file);
            match std::fs::File::open(&path) {
                Ok(_) => {}
                Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(other) => return Err(Error::io(&path, "open")(other)),
            }
        }
        Ok(folder.is_dir().then_some(folder))
    }

    /// What a file of a set is, such as `shift-invariance/resnet18.safetensors`. It belongs into the parameters of runs that
    /// read files which users bring: others under the same names are then other runs. A published set has its name for that.
    ///
    /// # Errors
    /// A file that is missing or cannot be read.
    pub fn fingerprint(&self, file: &str) -> Result<Fingerprint> {
        Fingerprint::of_file(&self.root.join(file))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_there_when_all_its_files_are() {
        let folder = tempfile::tempdir().unwrap();
        let root = DataRoot::locate(Some(folder.path())).unwrap();
        assert_eq!(root.find("mnist", &["images", "labels"]).unwrap(), None);
        std::fs::create_dir(folder.path().join("mnist")).unwrap();
        std::fs::write(folder.path().join("mnist/images"), "").unwrap();
        assert_eq!(root.find("mnist", &["images", "labels"]).unwrap(), None);
        std::fs::write(folder.path().join("mnist/labels"), "").unwrap();
        assert_eq!(root.find("mnist", &["images", "labels"]).unwrap(), Some(folder.path().join("mnist")));
    }

    #[test]
    fn a_file_that_changed_is_another_by_its_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let root = DataRoot::at(folder.path());
        std::fs::write(folder.path().join("weights"), "abc").unwrap();
        let first = root.fingerprint("weights").unwrap();
        // FIPS 180-2's example.
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(first, Fingerprint { bytes: 3, sha256: sha256.into() });
        std::fs::write(folder.path().join("weights"), "abd").unwrap();
        assert_ne!(root.fingerprint("weights").unwrap(), first);
        assert!(root.fingerprint("nothing").unwrap_err().to_string().contains("nothing: open failed"));
    }

    #[test]
    fn a_named_folder_must_exist() {
        let error = DataRoot::locate(Some(Path::new("/no/such/folder"))).unwrap_err().to_string();
        assert!(error.contains("/no/such/folder: read data folder failed"), "{error}");
    }
}
