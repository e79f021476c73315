//! `docs/results/bench.{json,md}`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Serialize;

use super::compare::{Comparison, Outcome};
use super::measure::Measurement;

#[derive(Debug, Serialize)]
pub(super) struct Results {
    schema: u32,
    #[serde(flatten)]
    origin: Origin,
    benches: Vec<Measurement>,
    peers: Vec<Comparison>,
}

/// When, where and of what the figures are.
#[derive(Debug, Serialize)]
pub(super) struct Origin {
    /// As in Git, with `-dirty` when tracked files differ.
    commit: String,
    /// Year-month-day, of Greenwich.
    date: String,
    machine: BTreeMap<&'static str, String>,
}

impl Origin {
    /// Of the checkout at `root`, as it is before the benches are built.
    pub(super) fn now(root: &Path) -> Self {
        let git = |arguments: &[&str]| said(Command::new("git").arg("-C").arg(root).args(arguments));
        let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|lines| !lines.is_empty());
        let commit = git(&["rev-parse", "HEAD"]).map(|commit| commit + if changed { "-dirty" } else { "" });
        let date = said(Command::new("date").args(["-u", "+%Y-%m-%d"]));
        Self { commit: commit.unwrap_or_else(unknown), date: date.unwrap_or_else(unknown), machine: machine() }
    }
}

impl Results {
    pub(super) fn new(origin: Origin, benches: Vec<Measurement>, peers: Vec<Comparison>) -> Self {
        Self { schema: 2, origin, benches, peers }
    }

    /// Writes both files into `folder`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write(folder, "bench.json", &(serde_json::to_string_pretty(self)? + "\n"))?;
        write(folder, "bench.md", &self.to_markdown())
    }

    fn to_markdown(&self) -> String {
        let mut text = String::from("# Benches\n\nWritten by `cargo xtask bench --peers`. Times are medians.\n\n");
        let Origin { commit, date, machine } = &self.origin;
        text += &format!("- commit: {commit}\n- date: {date}\n");
        for (key, value) in machine {
            text += &format!("- {key}: {value}\n");
        }
        if !self.peers.is_empty() {
            text += "\n| what | ours | theirs | ours ÷ theirs | wanted | met |\n|---|---|---|---|---|---|\n";
        }
        for peer in &self.peers {
            let (theirs, ratio, met) = match &peer.outcome {
                Outcome::Compared { their_seconds, ratio, met } => {
                    (time(*their_seconds), quotient(*ratio), if *met { "yes" } else { "**no**" }.to_owned())
                }
                Outcome::Failed { why } => ("–".to_owned(), "–".to_owned(), format!("not run: {}", one_line(why))),
            };
            let ours = time(peer.our_seconds);
            text += &format!("| {} | {ours} | {theirs} | {ratio} | ≤ {} | {met} |\n", peer.name, peer.want);
        }
        text += "\n| bench | median | interval |\n|---|---|---|\n";
        for bench in &self.benches {
            let [low, high] = bench.interval;
            text += &format!("| {} | {} | {} – {} |\n", bench.id, time(bench.seconds), time(low), time(high));
        }
        text
    }
}

/// Fit for a cell of a table.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/")
}

/// What a reader needs to judge the figures.
fn machine() -> BTreeMap<&'static str, String> {
    let cpu = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split(':').nth(1)?.trim().to_owned())
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let rustc = said(Command::new("rustc").arg("--version"));
    BTreeMap::from([
        ("cpu", cpu.unwrap_or_else(unknown)),
        ("cores", cores.to_string()),
        ("os", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("rustc", rustc.unwrap_or_else(unknown)),
    ])
}

/// What a tool printed; nothing when it is not there or failed.
fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// A quotient to three decimals, or, where they would hide it, to two digits.
fn quotient(x: f64) -> String {
    if x < 1e-3 { format!("{x:.1e}") } else { format!("{x:.3}") }
}

/// Seconds in the unit that keeps the number readable.
fn time(seconds: f64) -> String {
    let (scale, unit) = match seconds {
        s if s >= 1.0 => (1.0, "s"),
        s if s >= 1e-3 => (1e3, "ms"),
        s if s >= 1e-6 => (1e6, "µs"),
        _ => (1e9, "ns"),
    };
    format!("{:.3} {unit}", seconds * scale)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_readable_units() {
        assert_eq!(time(1.5), "1.500 s");
        assert_eq!(time(0.0025), "2.500 ms");
        assert_eq!(time(2e-8), "20.000 ns");
    }

    #[test]
    fn small_quotients_keep_their_digits() {
        // 1.511 µs ÷ 295.859 s.
        assert_eq!(quotient(1.511e-6 / 295.859), "5.1e-9");
        assert_eq!(quotient(0.0116), "0.012");
    }

    #[test]
    fn figures_name_their_commit_and_their_day() {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin { commit: "abc".into(), date: "2024-02-29".into(), machine: machine() };
        Results::new(origin, Vec::new(), Vec::new()).write(folder.path()).unwrap();
        let json = fs::read_to_string(folder.path().join("bench.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(json["commit"] == "abc" && json["date"] == "2024-02-29" && json["machine"]["cores"].is_string());
        let text = fs::read_to_string(folder.path().join("bench.md")).unwrap();
        assert!(text.contains("- commit: abc\n- date: 2024-02-29\n"), "{text}");
        // Outside a checkout.
        assert_eq!(Origin::now(folder.path()).commit, "unknown");
    }
}
