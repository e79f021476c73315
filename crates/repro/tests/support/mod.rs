//! A place to run the program in, and its report without what differs every time.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Pid;
use serde_json::Value;

/// A folder with room for `runs/`, `out/` and no data.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Place {
    /// For the `toy` example.
    pub(crate) fn new() -> Self {
        let program = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/toy");
        assert!(program.exists(), "{} is missing: `cargo build -p repro --example toy` makes it", program.display());
        Self { folder: tempfile::tempdir().unwrap(), program }
    }

    /// For the papers themselves.
    pub(crate) fn of_papers() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), program: env!("CARGO_BIN_EXE_repro").into() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments.split_whitespace()).current_dir(self.folder.path()).env_remove("REPRO_DATA");
        command
    }

    /// A shell script here, in which `$program` is the program.
    pub(crate) fn script(&self, script: &str) -> Output {
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .env("program", &self.program)
            .current_dir(self.folder.path())
            .env_remove("REPRO_DATA");
        command.output().unwrap()
    }

    pub(crate) fn run(&self, arguments: &str) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs, expects exit code 0, and reads the report.
    pub(crate) fn report(&self, arguments: &str) -> Value {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        self.read_report()
    }

    pub(crate) fn read_report(&self) -> Value {
        without_timings(serde_json::from_slice(&fs::read(self.path("out/report.json")).unwrap()).unwrap())
    }

    /// The folders of runs.
    pub(crate) fn runs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("runs")).into_iter().flatten().map(|entry| entry.unwrap().path());
        let mut runs: Vec<PathBuf> = entries.filter(|path| path.join("run.json").exists()).collect();
        runs.sort();
        runs
    }

    /// The run of this kind and seed.
    pub(crate) fn find(&self, kind: &str, seed: u64) -> PathBuf {
        let matches = |path: &PathBuf| {
            let file: Value = serde_json::from_slice(&fs::read(path.join("run.json")).unwrap()).unwrap();
            file["run"]["kind"] == kind && file["run"]["seed"] == seed
        };
        self.runs().into_iter().find(matches).unwrap()
    }

    /// Epochs logged by all runs together.
    pub(crate) fn epochs(&self) -> usize {
        let rows = |run: &PathBuf| fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
        self.runs().iter().map(rows).sum()
    }

    /// Times that a worker began on a run, over all runs.
    pub(crate) fn attempts(&self) -> usize {
        let starts = |run: &PathBuf| text(&fs::read(run.join("log.txt")).unwrap()).matches("--- ").count();
        self.runs().iter().map(starts).sum()
    }
}

/// What `docs/report-schema.md` says to leave out before two reports are compared.
pub(crate) fn without_timings(mut report: Value) -> Value {
    let top = report.as_object_mut().unwrap();
    top.remove("machine").unwrap();
    top.remove("timing").unwrap();
    for paper in top["papers"].as_array_mut().unwrap() {
        paper.as_object_mut().unwrap().remove("seconds").unwrap();
        for claim in paper["claims"].as_array_mut().unwrap() {
            if claim["timed"] == true {
                let claim = claim.as_object_mut().unwrap();
                for field in ["samples", "mean", "interval", "verdict", "reason"] {
                    claim.remove(field).unwrap();
                }
            }
        }
    }
    report
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(60), "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(3));
    }
}

pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}
