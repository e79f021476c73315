//! Throw-away Python environments for the peers, below `target/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::manifest::Manifest;
use super::versions::Versions;

/// The environments of one run.
pub(super) struct Environments<'a> {
    manifest: &'a Manifest,
    /// Where they are made, a folder each.
    folder: PathBuf,
    /// One Python for all, instead of those.
    given: Option<&'a Path>,
    /// Those made, or why they could not be.
    made: BTreeMap<String, Result<PathBuf, String>>,
    used: BTreeSet<String>,
}

impl<'a> Environments<'a> {
    pub(super) fn new(manifest: &'a Manifest, folder: PathBuf, given: Option<&'a Path>) -> Self {
        Self { manifest, folder, given, made: BTreeMap::new(), used: BTreeSet::new() }
    }

    /// Makes the environment of every peer. One that cannot be made is its peers' trouble when they are run.
    pub(super) fn make_all(&mut self) {
        for peer in &self.manifest.peers {
            let _ = self.make(&peer.environment);
        }
    }

    /// The environment's Python, for use.
    pub(super) fn python(&mut self, name: &str) -> Result<PathBuf, String> {
        self.used.insert(name.to_owned());
        self.make(name)
    }

    fn make(&mut self, name: &str) -> Result<PathBuf, String> {
        if let Some(python) = self.given {
            return Ok(python.to_owned());
        }
        if !self.made.contains_key(name) {
            let made = environment(&self.folder.join(name), self.manifest.requirements(name));
            self.made.insert(name.to_owned(), made.map_err(|error| crate::commands::with_reasons(&error)));
        }
        self.made[name].clone()
    }

    /// What is installed in the environments that were used.
    pub(super) fn versions(&self) -> BTreeMap<String, Versions> {
        let mut of_python: BTreeMap<&Path, Versions> = BTreeMap::new();
        let mut found = BTreeMap::new();
        for name in &self.used {
            let python = match (self.given, self.made.get(name)) {
                (Some(given), _) => given,
                (None, Some(Ok(made))) => made,
                _ => continue,
            };
            let versions = of_python.entry(python).or_insert_with(|| Versions::of(python));
            found.insert(name.clone(), versions.clone());
        }
        found
    }
}

/// Makes the environment, or takes the one made earlier from the same requirements.
fn environment(folder: &Path, requirements: &[String]) -> Result<PathBuf> {
    let python = folder.join("bin/python");
    let record = folder.join("requirements.txt");
    let wanted = requirements.join("\n");
    if python.exists() && fs::read_to_string(&record).is_ok_and(|there| there == wanted) {
        return Ok(python);
    }
    eprintln!("making a Python environment for the peers in {} (PyTorch is large) …", folder.display());
    for mut command in [venv(folder), pip_install(&python, requirements)] {
        let status = command.status().context("cannot run python3")?;
        if !status.success() {
            bail!("the peers' environment could not be made; give one with --python");
        }
    }
    // Written last: an environment without its record is made again.
    fs::write(&record, wanted).with_context(|| format!("cannot write {}", record.display()))?;
    Ok(python)
}

fn venv(folder: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "venv", "--clear"]).arg(folder);
    command
}

fn pip_install(python: &Path, requirements: &[String]) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(requirements);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_asked_of_the_environments_that_were_used() {
        let manifest = Manifest::parse("[environments]\nused = []\nunused = []\n").unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in ["used", "unused"] {
            // Made earlier, from no requirements.
            fs::create_dir_all(folder.path().join(name).join("bin")).unwrap();
            fs::write(folder.path().join(name).join("bin/python"), "").unwrap();
            fs::write(folder.path().join(name).join("requirements.txt"), "").unwrap();
        }
        let mut environments = Environments::new(&manifest, folder.path().to_owned(), None);
        assert!(environments.make("unused").is_ok());
        assert_eq!(environments.python("used").unwrap(), folder.path().join("used/bin/python"));
        assert_eq!(environments.versions().keys().collect::<Vec<_>>(), ["used"]);
    }

    #[test]
    fn a_python_that_was_given_is_every_environment() {
        let manifest = Manifest::parse("[environments]\nold = []\nnew = []\n").unwrap();
        let mut environments = Environments::new(&manifest, PathBuf::new(), Some(Path::new("no-such-python")));
        assert_eq!(environments.python("old"), environments.python("new"));
        assert_eq!(environments.versions().len(), 2);
    }
}
