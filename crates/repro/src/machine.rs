//! Where a report was made.

use std::process::Command;

use serde::Serialize;

/// The machine, as far as it explains timings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Machine {
    /// Operating system.
    pub(crate) os: String,
    /// Instruction set.
    pub(crate) arch: String,
    /// The processor's name, where the system tells it.
    pub(crate) cpu: Option<String>,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Main memory in MiB, where the system tells it.
    pub(crate) memory_mib: Option<u64>,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        Self {
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            cpu: entry("/proc/cpuinfo", "model name"),
            cores: cores(),
            memory_mib: entry("/proc/meminfo", "MemTotal")
                .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
                .map(|kib| kib / 1024),
        }
    }
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The commit of the sources that this program was built from, with `-dirty` when tracked files differ; `None` when they
/// are gone, or without Git. Not of the working folder, which may belong to something else.
pub(crate) fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR")])
            .args(arguments)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_string())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|lines| !lines.is_empty());
    Some(if changed { format!("{commit}-dirty") } else { commit })
}

fn entry(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim().to_string())
}
