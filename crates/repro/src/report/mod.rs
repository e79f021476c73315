//! The report: one model, three renderings.

mod chart;
mod html;
mod markdown;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::claim::{JudgedClaim, Verdict};
use crate::data::{DataSource, DataUse};
use crate::durable;
use crate::error::{Error, Result};
use crate::experiment::{Ask, Experiment, Tier};
use crate::machine::Machine;
use crate::metrics::Metrics;
use crate::results::{Outcome, Results};
use crate::run::RunId;
use crate::section::{Curve, Media, Section, Table};

/// The version of `report.json`, described in `docs/report-schema.md`.
pub const REPORT_SCHEMA: u64 = 1;

/// Everything that a report says. `report.json` is this, as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: u64,
    commit: Option<String>,
    tier: Tier,
    device: String,
    /// The command that makes this report again.
    command: String,
    versions: BTreeMap<String, String>,
    papers: Vec<PaperReport>,
    machine: Machine,
    timing: Timing,
}

/// All that two executions of the same command do not share, beside `machine`, `seconds` and claims that are `timed`.
#[derive(Debug, Serialize)]
struct Timing {
    /// Seconds of all workers together, as the runs' own [`Timing`](crate::Timing) counts them.
    seconds: f64,
    runs: BTreeMap<RunId, RunTiming>,
    /// Runs by the machine that they ran on, where it was noted.
    machines: BTreeMap<String, usize>,
    /// Runs by the commit of the program that computed them, where it was noted.
    commits: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
struct RunTiming {
    seconds: f64,
    attempts: u32,
    measured: Metrics,
}

/// A paper's part.
#[derive(Debug, Serialize)]
struct PaperReport {
    paper: String,
    title: String,
    reference: String,
    idea: String,
    data: Vec<DataUse>,
    /// Seconds of its workers together. Timing.
    seconds: f64,
    claims: Vec<ClaimReport>,
    curves: Vec<Curve>,
    tables: Vec<Table>,
    artifacts: Vec<Artifact>,
    notes: Vec<String>,
    runs: Vec<RunReport>,
    /// Why the results could not be judged.
    error: Option<String>,
    #[serde(skip)]
    files: Vec<Vec<u8>>,
}

#[derive(Debug, Serialize)]
struct ClaimReport {
    #[serde(flatten)]
    judged: JudgedClaim,
    tier: Tier,
    data: String,
}

/// A file beside the report, whose bytes are at the same position in `files`.
#[derive(Debug, Serialize)]
struct Artifact {
    title: String,
    caption: String,
    alt: String,
    /// Relative to the report.
    path: String,
    kind: ArtifactKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum ArtifactKind {
    Png,
    Svg,
    File,
}

#[derive(Debug, Serialize)]
struct RunReport {
    id: RunId,
    paper: String,
    kind: String,
    seed: u64,
    status: &'static str,
    reason: Option<String>,
    #[serde(skip)]
    log_tail: String,
}

/// What a report is about, beside the papers.
pub(crate) struct Frame {
    pub(crate) commit: Option<String>,
    pub(crate) machine: Machine,
    pub(crate) command: String,
    pub(crate) versions: BTreeMap<String, String>,
}

impl Report {
    pub(crate) fn new(frame: Frame, ask: &Ask) -> Self {
        Self {
            schema: REPORT_SCHEMA,
            commit: frame.commit,
            tier: ask.tier,
            device: ask.device.to_string(),
            command: frame.command,
            versions: frame.versions,
            papers: Vec::new(),
            machine: frame.machine,
            timing: Timing { seconds: 0.0, runs: BTreeMap::new(), machines: BTreeMap::new(), commits: BTreeMap::new() },
        }
    }

    /// Where the runs ran, and which commits' programs computed them, a line each. Nothing of machines when all that noted
    /// theirs ran where the report is written; nothing of commits when all are of the report's.
    fn elsewhere(&self) -> Vec<String> {
        let Timing { runs, machines, commits, .. } = &self.timing;
        let line = |noted: &BTreeMap<String, usize>, at: &str, unknown: &str| {
            let rest = runs.len().saturating_sub(noted.values().sum());
            let rest = (rest > 0).then(|| format!("{rest} {unknown} that was not noted"));
            let known = noted.iter().map(|(name, count)| format!("{count} {at} {name}"));
            format!("runs: {}", known.chain(rest).collect::<Vec<_>>().join("; "))
        };
        let here = self.machine.to_string();
        let elsewhere = machines.keys().any(|machine| *machine != here);
        let own = self.commit.as_ref().and_then(|commit| commits.get(commit)).copied().unwrap_or(0);
        // Without any commit to tell, as where there is no Git, there is nothing to say.
        let other = runs.len() > own && (self.commit.is_some() || !commits.is_empty());
        let machines = elsewhere.then(|| line(machines, "on", "on a machine"));
        machines.into_iter().chain(other.then(|| line(commits, "of commit", "of a commit"))).collect()
    }

    /// Adds a paper. Judging that fails becomes part of the report, so that one paper does not hide the others.
    pub(crate) fn add(&mut self, experiment: &dyn Experiment, ask: &Ask, data: Vec<DataUse>, results: &Results) {
        let judged = experiment.judge(ask, results).and_then(|section| Ok(section.check().map(|()| section)?));
        let (section, error) = match judged {
            Ok(section) => (section, None),
            Err(error) => (Section::default(), Some(format!("{error:#}"))),
        };
        let mut seconds = 0.0;
        for finished in results.finished(|_| true) {
            let timing = &finished.timing;
            seconds += timing.seconds;
            let measured = timing.measured.clone();
            let run = RunTiming { seconds: timing.seconds, attempts: timing.attempts, measured };
            if self.timing.runs.insert(finished.run.id(), run).is_none() {
                self.timing.seconds += timing.seconds;
                for machine in timing.machine.iter().cloned() {
                    *self.timing.machines.entry(machine).or_default() += 1;
                }
                for commit in timing.commit.iter().cloned() {
                    *self.timing.commits.entry(commit).or_default() += 1;
                }
            }
        }
        let summary = match data.is_empty() {
            true => "none".into(),
            false => data.iter().map(describe).collect::<Vec<_>>().join("; "),
        };
        let claim = |judged| ClaimReport { judged, tier: ask.tier, data: String::clone(&summary) };
        let paper = experiment.paper().to_string();
        let (artifacts, files) = artifacts(&paper, section.pictures, section.attachments);
        self.papers.push(PaperReport {
            title: experiment.title().into(),
            reference: experiment.reference().into(),
            idea: experiment.idea().into(),
            seconds,
            claims: section.claims.into_iter().map(claim).collect(),
            curves: section.curves,
            tables: section.tables,
            artifacts,
            notes: section.notes,
            runs: results.runs().map(|(run, outcome)| RunReport::new(run, outcome)).collect(),
            error,
            files,
            data,
            paper,
        });
    }

    /// Writes `report.json`, `report.md`, `report.html` and the artifacts. Each file is replaced as a whole.
    ///
    /// # Errors
    /// A folder that cannot be written, or is full.
    pub(crate) fn write(&self, out: &Path) -> Result<PathBuf> {
        let path = out.join(".lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(Error::io(&path, "open"))?;
        // Two programs may report into one folder: the three files are to be of one mind.
        lock.lock().map_err(Error::io(&path, "lock"))?;
        for paper in &self.papers {
            for (artifact, bytes) in paper.artifacts.iter().zip(&paper.files) {
                let path = out.join(&artifact.path);
                durable::create_folder(path.parent().unwrap_or(out))?;
                durable::write(&path, bytes)?;
            }
        }
        durable::write_json(&out.join("report.json"), self)?;
        durable::write(&out.join("report.md"), markdown::render(self).as_bytes())?;
        let page = out.join("report.html");
        durable::write(&page, html::render(self).as_bytes())?;
        Ok(page)
    }

    /// How many claims came out as `verdict`.
    pub(crate) fn count(&self, verdict: Verdict) -> usize {
        self.claims().filter(|claim| claim.verdict() == verdict).count()
    }

    /// All claims.
    pub(crate) fn claims(&self) -> impl Iterator<Item = &JudgedClaim> {
        self.papers.iter().flat_map(|paper| &paper.claims).map(|claim| &claim.judged)
    }

    /// Whether every planned run finished and every paper was judged.
    pub(crate) fn is_complete(&self) -> bool {
        self.papers.iter().all(|paper| paper.error.is_none() && paper.runs.iter().all(|run| run.status == FINISHED))
    }

    /// A few lines for the terminal: each claim's verdict.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for paper in &self.papers {
            text += &format!("{}\n", paper.paper);
            for ClaimReport { judged, .. } in &paper.claims {
                text += &format!("  {:<16}{:<7} {}\n", judged.verdict(), judged.id(), judged.statement());
            }
            if let Some(error) = &paper.error {
                text += &format!("  could not be judged: {error}\n");
            }
            for run in paper.runs.iter().filter(|run| run.status == "failed") {
                let reason = run.reason.as_deref().unwrap_or_default();
                text += &format!("  run {} failed ({} seed {}): {reason}\n", run.id, run.kind, run.seed);
            }
        }
        text + &self.headline() + "\n"
    }

    /// `4 of 6 claims reproduced, 1 inconclusive, 1 not run`.
    fn headline(&self) -> String {
        let [reproduced, others @ ..] = Verdict::ALL;
        let total = self.claims().count();
        let mut text = format!("{} of {total} claims {reproduced}", self.count(reproduced));
        for verdict in others.into_iter().filter(|&verdict| self.count(verdict) > 0) {
            text += &format!(", {} {verdict}", self.count(verdict));
        }
        text
    }
}

const FINISHED: &str = "finished";

impl RunReport {
    fn new(run: &crate::run::Run, outcome: &Outcome) -> Self {
        let (status, reason, log_tail) = match outcome {
            Outcome::Finished(_) => (FINISHED, None, String::new()),
            Outcome::Failed { reason, log_tail } => ("failed", Some(reason.clone()), log_tail.clone()),
            Outcome::Skipped { reason } => ("skipped", Some(reason.clone()), String::new()),
        };
        Self {
            id: run.id(),
            paper: run.paper.clone(),
            kind: run.kind.clone(),
            seed: run.seed,
            status,
            reason,
            log_tail,
        }
    }
}

fn describe(data: &DataUse) -> String {
    match data.source {
        DataSource::Files => data.set.clone(),
        DataSource::Generator => format!("{} (generated)", data.set),
        DataSource::Absent => format!("{} (absent)", data.set),
    }
}

fn artifacts(
    paper: &str,
    pictures: Vec<crate::section::Picture>,
    attachments: Vec<crate::section::Attachment>,
) -> (Vec<Artifact>, Vec<Vec<u8>>) {
    let mut listed = Vec::new();
    for (number, picture) in (1..).zip(pictures) {
        let (kind, extension, bytes) = match picture.media {
            Media::Png(bytes) => (ArtifactKind::Png, "png", bytes),
            Media::Svg(text) => (ArtifactKind::Svg, "svg", text.into_bytes()),
        };
        let path = format!("artifacts/{paper}/picture-{number}.{extension}");
        listed.push((Artifact { title: picture.title, caption: picture.caption, alt: picture.alt, path, kind }, bytes));
    }
    for attachment in attachments {
        let path = format!("artifacts/{paper}/{}", attachment.name);
        let (caption, alt) = (String::new(), String::new());
        listed.push((
            Artifact { title: attachment.title, caption, alt, path, kind: ArtifactKind::File },
            attachment.bytes,
        ));
    }
    listed.into_iter().unzip()
}

/// A number with as many digits as a reader can use, with a proper minus sign.
fn number(x: f64) -> String {
    let magnitude = x.abs();
    let text = if x == 0.0 {
        "0".into()
    } else if !(1e-4..1e6).contains(&magnitude) {
        format!("{x:.2e}")
    } else {
        // Four significant digits, at most four decimals, no trailing zeros.
        let decimals = (3 - magnitude.log10().floor() as i32).clamp(0, 4) as usize;
        let text = format!("{x:.decimals$}");
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
    };
    text.replace('-', "−")
}

/// A measured mean with its interval, if it has one, and its unit.
fn measured(claim: &JudgedClaim) -> String {
    let unit = if claim.unit().is_empty() { String::new() } else { format!(" {}", claim.unit()) };
    match (claim.mean(), claim.interval()) {
        (Some(mean), Some(interval)) => {
            format!("{}{unit} [{}, {}]", number(mean), number(interval.lo), number(interval.hi))
        }
        (Some(mean), None) => format!("{}{unit}", number(mean)),
        _ => "–".into(),
    }
}

#[cfg(test)]
mod tests;
