//! The report: `bench.json`, and `bench.md` for a reader.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::benches::{Bench, benches};
use super::compare::{Comparison, compare};
use super::manifest::{Manifest, Unmeasured};
use super::markdown::markdown;
use super::origin::Origin;
use super::rounds::{FailedRun, Log};
use super::targets::{Checked, check};
use super::versions::Versions;
use crate::staging;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: u32,
    #[serde(flatten)]
    pub(super) origin: Origin,
    /// Those of the Python environments that were used.
    pub(super) environments: BTreeMap<String, Versions>,
    /// The same for a reader: Python, and what the manifest names.
    #[serde(skip)]
    pub(super) installed: BTreeMap<String, String>,
    pub(super) failed_programs: Vec<FailedRun>,
    pub(super) benches: Vec<Bench>,
    pub(super) peers: Vec<Comparison>,
    pub(super) targets: Vec<Checked>,
    pub(super) unmeasured: Vec<Unmeasured>,
}

impl Report {
    pub(super) fn new(
        origin: Origin,
        manifest: &Manifest,
        mut log: Log,
        environments: BTreeMap<String, Versions>,
    ) -> Self {
        let peers = compare(manifest, &mut log);
        let benches = benches(log.benches);
        let describe =
            |(name, versions): (&String, &Versions)| (name.clone(), versions.describe(manifest.requirements(name)));
        Self {
            schema: 3,
            origin,
            installed: environments.iter().map(describe).collect(),
            environments,
            failed_programs: log.failed,
            targets: check(&manifest.targets, &benches),
            benches,
            peers,
            unmeasured: manifest.unmeasured.clone(),
        }
    }

    /// What went wrong, a line each: what is not as it should be whatever the figures say.
    pub(super) fn complaints(&self) -> Vec<String> {
        let lost = self.peers.iter().filter(|peer| peer.lost_a_round()).count();
        let differing = self.peers.iter().filter(|peer| !peer.agrees()).count();
        [
            (self.failed_programs.len(), "runs of our programs failed"),
            (lost, "of the peers could not be run in every round"),
            (differing, "of the peers have other results than ours, or some that are missing on a side"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect()
    }

    /// Writes both files into `folder`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write(folder, "bench.json", &(serde_json::to_string_pretty(self)? + "\n"))?;
        write(folder, "bench.md", &markdown(self))
    }
}

/// All of the file or, where the disk is full, nothing: an older one stays.
fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let (path, part) = (folder.join(name), folder.join(format!("{name}.part")));
    staging::create_dir(folder)?;
    let written = staging::write(&part, text.as_bytes()).and_then(|()| staging::rename(&part, &path));
    if let Err(error) = written {
        // What is left of it is of no use.
        let _ = staging::remove(&part);
        return Err(error);
    }
    println!("wrote {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn report(log: Log) -> Report {
        let manifest = Manifest::parse(
            "[environments]\ndefault = []\n[[peer]]\nname = 'p'\nscript = 'p.py'\nours = 'x'\nwant = 1\n\
             [[target]]\nbench = 'x'\nat_most = 1\n[[unmeasured]]\nname = 'memory'\nwhy = 'no bench'\n",
        )
        .unwrap();
        let origin = Origin {
            commit: "abc".into(),
            date: "2024-02-29".into(),
            machine: BTreeMap::from([("cores", "2".to_owned())]),
            threads: 2,
            rounds: 3,
            arguments: Vec::new(),
        };
        Report::new(origin, &manifest, log, BTreeMap::new())
    }

    #[test]
    fn figures_name_their_commit_their_day_and_how_they_were_made() {
        let folder = tempfile::tempdir().unwrap();
        report(Log::default()).write(folder.path()).unwrap();
        let json = fs::read_to_string(folder.path().join("bench.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(json["schema"] == 3 && json["commit"] == "abc" && json["date"] == "2024-02-29", "{json}");
        assert!(json["threads"] == 2 && json["rounds"] == 3 && json["machine"]["cores"] == "2", "{json}");
        assert_eq!(json["peers"][0]["not_run"], "no bench `x`");
        assert_eq!(json["targets"][0]["not_run"], "no bench `x`");
        assert_eq!(json["unmeasured"][0]["why"], "no bench");
        assert!(fs::read_to_string(folder.path().join("bench.md")).unwrap().contains("- commit: abc\n"));
    }

    #[test]
    fn a_report_that_cannot_be_written_leaves_the_older_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("bench.json"), "older").unwrap();
        // Nothing can be written where a folder lies.
        fs::create_dir(folder.path().join("bench.json.part")).unwrap();
        let error = report(Log::default()).write(folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("bench.json.part"), "{error:#}");
        assert_eq!(fs::read_to_string(folder.path().join("bench.json")).unwrap(), "older");
        report(Log::default()).write(folder.path()).unwrap();
        let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(
            names.collect::<std::collections::BTreeSet<_>>(),
            ["bench.json", "bench.md"].map(String::from).into()
        );
    }

    #[test]
    fn a_missing_bench_is_no_complaint_and_a_failed_program_is_one() {
        assert!(report(Log::default()).complaints().is_empty());
        let failed = FailedRun { program: "forest".into(), round: 1, why: "exit status: 101".into() };
        let log = Log { failed: vec![failed], ..Log::default() };
        assert_eq!(report(log).complaints(), ["1 runs of our programs failed"]);
    }
}
