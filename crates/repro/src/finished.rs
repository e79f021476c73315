//! What a finished run left: final metrics, rows, artifacts, and how long it took.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::Fingerprint;
use crate::error::{Error, Result};
use crate::metrics::{Metrics, Row};
use crate::run::Run;

/// A finished run, read and verified.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The description.
    pub run: Run,
    /// The run's folder.
    pub dir: PathBuf,
    /// Its final metrics.
    pub metrics: Metrics,
    /// Its metrics epoch by epoch.
    pub rows: Vec<Row>,
    /// Everything that differs when the same run is computed again.
    pub timing: Timing,
    pub(crate) artifacts: BTreeMap<String, Fingerprint>,
}

/// Wall-clock time, kept apart from metrics because no two executions share it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Seconds in the worker: of the last attempt, and of those before it up to the checkpoints that were resumed from. What
    /// an attempt did after its last checkpoint is lost with it.
    pub seconds: f64,
    /// Attempts that the result was made by: the last one and those whose checkpoints were resumed from. One that ended
    /// before its first checkpoint is not counted.
    pub attempts: u32,
    /// What the experiment measured with a clock.
    pub measured: Metrics,
    /// On what the last attempt ran, in words; runs of earlier versions did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The commit of the program that made the last attempt, as a report's; runs of earlier versions did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

impl Finished {
    /// A final metric.
    ///
    /// # Errors
    /// A name that the run did not report.
    pub fn metric(&self, name: &str) -> Result<f64> {
        self.metrics.get(name).copied().ok_or_else(|| Error::Need {
            run: self.run.label(),
            need: format!("metric `{name}`"),
            reason: format!("it reported {}", names(self.metrics.keys())),
        })
    }

    /// Where an artifact lies.
    ///
    /// # Errors
    /// A name under which the run saved nothing.
    pub fn artifact(&self, name: &str) -> Result<PathBuf> {
        if self.artifacts.contains_key(name) {
            return Ok(self.dir.join(ARTIFACTS).join(name));
        }
        Err(Error::Need {
            run: self.run.label(),
            need: format!("artifact `{name}`"),
            reason: format!("it saved {}", names(self.artifacts.keys())),
        })
    }

    /// Refuses artifacts whose content changed.
    pub(crate) fn check_contents(&self) -> Result<()> {
        check_contents(&self.dir, &self.artifacts)
    }

    /// The names of its artifacts.
    pub fn artifacts(&self) -> impl Iterator<Item = &str> {
        self.artifacts.keys().map(String::as_str)
    }
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

pub(crate) const ARTIFACTS: &str = "artifacts";

/// The content of `done.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DoneFile {
    pub(crate) metrics: Metrics,
    pub(crate) rows: Fingerprint,
    pub(crate) artifacts: BTreeMap<String, Fingerprint>,
    pub(crate) timing: Timing,
}

/// Refuses artifacts that are gone or have another length; their content is hashed before a run that needs them starts.
pub(crate) fn check_lengths(dir: &Path, artifacts: &BTreeMap<String, Fingerprint>) -> Result<()> {
    for (name, fingerprint) in artifacts {
        let path = dir.join(ARTIFACTS).join(name);
        match std::fs::metadata(&path) {
            Ok(found) if found.len() == fingerprint.bytes => {}
            Ok(found) => {
                let reason = format!("{} bytes, of which {} were written", found.len(), fingerprint.bytes);
                return Err(Error::damaged(&path, reason));
            }
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::damaged(&path, "it was saved and is gone"));
            }
            Err(other) => return Err(Error::io(&path, "inspect")(other)),
        }
    }
    Ok(())
}

/// Refuses artifacts whose content changed.
pub(crate) fn check_contents(dir: &Path, artifacts: &BTreeMap<String, Fingerprint>) -> Result<()> {
    check_lengths(dir, artifacts)?;
    for (name, fingerprint) in artifacts {
        let path = dir.join(ARTIFACTS).join(name);
        let found = Fingerprint::of_file(&path)?;
        if found != *fingerprint {
            return Err(Error::damaged(&path, format!("SHA-256 {}, written was {}", found.sha256, fingerprint.sha256)));
        }
    }
    Ok(())
}
