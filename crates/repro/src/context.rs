//! What an experiment is given while it computes a run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::data::DataRoot;
use crate::device::Device;
use crate::durable::{self, Fingerprint, PARTIAL};
use crate::error::{Error, Result};
use crate::finished::{self, ARTIFACTS, DoneFile, Finished, Timing};
use crate::home::{DESCRIPTION, RunHome};
use crate::machine::Machine;
use crate::metrics::{self, LogPosition, Metrics, MetricsLog};
use crate::run::Run;
use crate::worker::protocol::Reporter;

/// Metrics, checkpoints, artifacts, data, needed runs and progress of the run that is being computed.
///
/// A run that is killed goes on from its last checkpoint; rows and artifacts that came after it are dropped and made
/// again, so that in the end nothing tells an interrupted run from an undisturbed one. That asks one thing of an
/// experiment: everything random must be drawn from (seed, epoch), or be part of the checkpoint.
///
/// ```no_run
/// # use repro::{Metrics, Run, RunContext};
/// # struct Model; impl Model { fn load(_: &std::path::Path) -> anyhow::Result<Self> { Ok(Model) }
/// # fn save(&self, _: &std::path::Path) -> anyhow::Result<()> { Ok(()) } fn epoch(&mut self, _: u64) -> f64 { 0.0 } }
/// fn execute(run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics> {
///     let (mut model, done) = match context.checkpoint() {
///         Some(checkpoint) => (Model::load(&checkpoint.path)?, checkpoint.epoch),
///         None => (Model, 0),
///     };
///     let mut accuracy = 0.0;
///     for epoch in done + 1..=30 {
///         accuracy = model.epoch(epoch);
///         context.log(epoch, &[("test_accuracy", accuracy)])?;
///         context.save_checkpoint(epoch, |path| model.save(path))?;
///         context.progress(epoch, 30, "");
///     }
///     context.save_artifact("final.safetensors", |path| model.save(path))?;
///     Ok(Metrics::from([("test_accuracy".into(), accuracy)]))
/// }
/// ```
pub struct RunContext {
    label: String,
    home: RunHome,
    data: DataRoot,
    device: Device,
    commit: Option<String>,
    needs: BTreeMap<String, Finished>,
    log: MetricsLog,
    checkpoint: Option<Checkpoint>,
    artifacts: BTreeMap<String, Fingerprint>,
    before: Timing,
    measured: Metrics,
    started: Instant,
    reporter: Reporter,
}

/// Where to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last epoch that it covers.
    pub epoch: u64,
    /// What [`RunContext::save_checkpoint`] wrote.
    pub path: PathBuf,
}

/// The content of `checkpoint.json`, whose replacement makes a checkpoint count.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckpointFile {
    epoch: u64,
    file: Fingerprint,
    log: LogPosition,
    artifacts: BTreeMap<String, Fingerprint>,
    timing: Timing,
}

impl RunContext {
    /// Opens a run for computing: where its checkpoint left it, or afresh. The run's lock must be held.
    pub(crate) fn open(
        run: &Run,
        home: RunHome,
        data: DataRoot,
        device: Device,
        commit: Option<String>,
        mut reporter: Reporter,
    ) -> Result<Self> {
        let needs = read_needs(run, &home)?;
        let kept = match read_checkpoint(&home) {
            Ok(kept) => kept,
            Err(Error::Damaged { path, reason }) => {
                reporter.note(&format!("{} is damaged ({reason}): starting over", path.display()));
                durable::set_aside(&home.file("checkpoint.json"))?;
                durable::set_aside(&home.rows())?;
                durable::set_aside(&home.file(ARTIFACTS))?;
                None
            }
            Err(other) => return Err(other),
        };
        let (log, checkpoint, artifacts, before) = match kept {
            Some((file, log)) => {
                let path = checkpoint_path(&home, file.epoch);
                (log, Some(Checkpoint { epoch: file.epoch, path }), file.artifacts, file.timing)
            }
            None => {
                let artifacts = home.file(ARTIFACTS);
                if artifacts.exists() {
                    fs::remove_dir_all(&artifacts).map_err(Error::io(&artifacts, "remove"))?;
                }
                (MetricsLog::create(&home.rows(), &home.events())?, None, BTreeMap::new(), Timing::default())
            }
        };
        remove_other_checkpoints(&home, checkpoint.as_ref().map(|checkpoint| checkpoint.epoch))?;
        durable::create_folder(&home.file(ARTIFACTS))?;
        remove_other_artifacts(&home.file(ARTIFACTS), &artifacts)?;
        Ok(Self {
            label: run.label(),
            measured: before.measured.clone(),
            home,
            data,
            device,
            commit,
            needs,
            log,
            checkpoint,
            artifacts,
            before,
            started: Instant::now(),
            reporter,
        })
    }

    /// Where to go on from; `None` for a run that starts.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// Lets `save` write everything needed to go on after `epoch`, and makes it count from then on.
    ///
    /// # Errors
    /// Those of `save`, and files that cannot be written.
    pub fn save_checkpoint(
        &mut self,
        epoch: u64,
        save: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let path = checkpoint_path(&self.home, epoch);
        let file = durable::write_with(&path, save)?;
        let (log, artifacts, timing) = (self.log.position(), self.artifacts.clone(), self.timing());
        let record = CheckpointFile { epoch, file, log, artifacts, timing };
        durable::write_json(&self.home.file("checkpoint.json"), &record)?;
        remove_other_checkpoints(&self.home, Some(epoch))?;
        self.checkpoint = Some(Checkpoint { epoch, path });
        Ok(())
    }

    /// Appends an epoch's metrics to `metrics.jsonl` and to the TensorBoard events. Log before the checkpoint of the
    /// same epoch.
    ///
    /// # Errors
    /// An epoch that does not follow the last, a number that is not finite, a file that cannot be written.
    pub fn log(&mut self, epoch: u64, values: &[(&str, f64)]) -> Result<()> {
        self.log.log(epoch, values)
    }

    /// Keeps a number measured with a clock, apart from the metrics.
    ///
    /// # Errors
    /// A number that is not finite.
    pub fn measured(&mut self, name: &str, value: f64) -> Result<()> {
        self.measured.extend(metrics::checked("timing", &[(name, value)])?);
        Ok(())
    }

    /// Lets `save` write a file that other runs or the report read under `name`. Give each content a name of its own: where one
    /// replaces another that the last checkpoint vouches for, a kill before the next checkpoint starts the run over.
    ///
    /// # Errors
    /// A name that is no plain file name, those of `save`, and files that cannot be written.
    pub fn save_artifact(&mut self, name: &str, save: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
        check_file_name("artifact", name)?;
        let fingerprint = durable::write_with(&self.home.file(ARTIFACTS).join(name), save)?;
        self.artifacts.insert(name.into(), fingerprint);
        Ok(())
    }

    /// The path of an artifact that this run saved, before a checkpoint or since.
    pub fn artifact(&self, name: &str) -> Option<PathBuf> {
        self.artifacts.contains_key(name).then(|| self.home.file(ARTIFACTS).join(name))
    }

    /// A run that this one needs, by the name given in [`Run::needing`].
    ///
    /// # Errors
    /// A name that the description does not have.
    pub fn needed(&self, name: &str) -> Result<&Finished> {
        self.needs.get(name).ok_or_else(|| Error::Need {
            run: self.label.clone(),
            need: format!("`{name}`"),
            reason: format!("its description names {:?}", self.needs.keys().collect::<Vec<_>>()),
        })
    }

    /// The folder of data sets.
    pub fn data(&self) -> &DataRoot {
        &self.data
    }

    /// Where to compute.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The run's folder, for files that are neither checkpoint nor artifact.
    pub fn dir(&self) -> &Path {
        &self.home.dir
    }

    /// Shows how far the run is: `done` of `total` epochs, and a few words.
    pub fn progress(&mut self, done: u64, total: u64, note: &str) {
        let (before, now) = (self.before.seconds, self.started.elapsed().as_secs_f64());
        self.reporter.progress(done, total, (100.0 * before / (before + now).max(f64::MIN_POSITIVE)) as u8, note);
    }

    /// Writes `done.json`: from now on the run is finished.
    pub(crate) fn finish(self, metrics: &Metrics) -> Result<()> {
        let listed: Vec<(&str, f64)> = metrics.iter().map(|(name, &value)| (name.as_str(), value)).collect();
        let done = DoneFile {
            metrics: metrics::checked("final metrics", &listed)?,
            rows: self.log.position().rows,
            artifacts: self.artifacts.clone(),
            timing: self.timing(),
        };
        durable::write_json(&self.home.done(), &done)
    }

    fn timing(&self) -> Timing {
        Timing {
            seconds: self.before.seconds + self.started.elapsed().as_secs_f64(),
            attempts: self.before.attempts + 1,
            measured: self.measured.clone(),
            machine: Some(Machine::here(self.device).to_string()),
            commit: self.commit.clone(),
        }
    }
}

/// Refuses anything but a plain file name.
pub(crate) fn check_file_name(what: &'static str, name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
        let reason = "a file name of letters, digits, `-`, `_` and `.` is needed, not starting with `.`";
        return Err(Error::Name { what, name: name.into(), reason });
    }
    Ok(())
}

fn read_needs(run: &Run, home: &RunHome) -> Result<BTreeMap<String, Finished>> {
    let mut needs = BTreeMap::new();
    for (name, id) in &run.needs {
        let there = home.sibling(id);
        let unmet = |reason: String| Error::Need { run: run.label(), need: format!("`{name}`, run {id}"), reason };
        let other = there.read_description()?.ok_or_else(|| unmet("it has no folder".into()))?;
        let finished = there.finished(&other)?.ok_or_else(|| unmet("it has not finished".into()))?;
        finished.check_contents()?;
        needs.insert(name.clone(), finished);
    }
    Ok(needs)
}

fn checkpoint_path(home: &RunHome, epoch: u64) -> PathBuf {
    home.file(&format!("checkpoint-{epoch}"))
}

/// The checkpoint that counts and the rows that it covers; `None` when there is none.
fn read_checkpoint(home: &RunHome) -> Result<Option<(CheckpointFile, MetricsLog)>> {
    let Some(record) = durable::read_json::<CheckpointFile>(&home.file("checkpoint.json"))? else { return Ok(None) };
    let path = checkpoint_path(home, record.epoch);
    let gone = |error| match error {
        Error::Io { path, source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Error::damaged(&path, "it was written and is gone")
        }
        other => other,
    };
    if Fingerprint::of_file(&path).map_err(gone)? != record.file {
        return Err(Error::damaged(&path, "its SHA-256 is not that of what was written"));
    }
    finished::check_contents(&home.dir, &record.artifacts)?;
    let log = MetricsLog::resume(&home.rows(), &home.events(), &record.log).map_err(gone)?;
    Ok(Some((record, log)))
}

/// Checkpoints before the one that counts, and the partial files that a kill left. Not those of the description:
/// another program, which needs no lock for it, may be writing it just now.
fn remove_other_checkpoints(home: &RunHome, kept: Option<u64>) -> Result<()> {
    let kept = kept.map(|epoch| format!("checkpoint-{epoch}"));
    for entry in fs::read_dir(&home.dir).map_err(Error::io(&home.dir, "list"))? {
        let entry = entry.map_err(Error::io(&home.dir, "list"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let epoch = name.strip_prefix("checkpoint-").is_some_and(|epoch| epoch.bytes().all(|b| b.is_ascii_digit()));
        let partial = name.strip_prefix(PARTIAL).is_some_and(|whole| !whole.starts_with(DESCRIPTION));
        if (epoch && Some(&name) != kept.as_ref()) || partial {
            fs::remove_file(entry.path()).map_err(Error::io(&entry.path(), "remove"))?;
        }
    }
    Ok(())
}

/// Artifacts that the checkpoint does not know, and the partial ones that a kill left.
fn remove_other_artifacts(folder: &Path, kept: &BTreeMap<String, Fingerprint>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder, "list"))? {
        let path = entry.map_err(Error::io(folder, "list"))?.path();
        let known = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| kept.contains_key(name));
        if !known && path.is_file() {
            fs::remove_file(&path).map_err(Error::io(&path, "remove"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
