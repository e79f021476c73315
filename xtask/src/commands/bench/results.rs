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
    machine: BTreeMap<&'static str, String>,
    benches: Vec<Measurement>,
    peers: Vec<Comparison>,
}

impl Results {
    pub(super) fn new(benches: Vec<Measurement>, peers: Vec<Comparison>) -> Self {
        Self { schema: 2, machine: machine(), benches, peers }
    }

    /// Writes both files into `folder`.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write(folder, "bench.json", &(serde_json::to_string_pretty(self)? + "\n"))?;
        write(folder, "bench.md", &self.to_markdown())
    }

    fn to_markdown(&self) -> String {
        let mut text = String::from("# Benches\n\nWritten by `cargo xtask bench --peers`. Times are medians.\n\n");
        for (key, value) in &self.machine {
            text += &format!("- {key}: {value}\n");
        }
        if !self.peers.is_empty() {
            text += "\n| what | ours | theirs | ours ÷ theirs | wanted | met |\n|---|---|---|---|---|---|\n";
        }
        for peer in &self.peers {
            let (theirs, ratio, met) = match &peer.outcome {
                Outcome::Compared { their_seconds, ratio, met } => {
                    (time(*their_seconds), format!("{ratio:.3}"), if *met { "yes" } else { "**no**" }.to_owned())
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
    let rustc = Command::new("rustc")
        .arg("--version")
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    BTreeMap::from([
        ("cpu", cpu.unwrap_or_else(|| "unknown".to_owned())),
        ("cores", cores.to_string()),
        ("os", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("rustc", rustc.unwrap_or_else(|_| "unknown".to_owned())),
    ])
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
}
