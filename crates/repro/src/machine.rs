//! Where a report was made.

use std::fmt;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::device::Device;

/// The machine, as far as it explains timings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Machine {
    /// Operating system.
    pub(crate) os: String,
    /// Instruction set.
    pub(crate) arch: String,
    /// The processor's name, where the system tells it.
    pub(crate) cpu: Option<String>,
    /// The widest vectors that it computes with, on x86-64: libtorch and our own kernels choose by them, and with the order
    /// of a sum its last digits change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) simd: Option<String>,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Main memory in MiB, where the system tells it.
    pub(crate) memory_mib: Option<u64>,
    /// The GPU that was asked for, where one was and the driver tells its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gpu: Option<String>,
}

impl Machine {
    /// This one, with the GPU among its devices that was asked for.
    pub(crate) fn here(device: Device) -> Self {
        Self {
            os: std::env::consts::OS.into(),
            arch: std::env::consts::ARCH.into(),
            cpu: entry("/proc/cpuinfo", "model name"),
            simd: simd().map(Into::into),
            cores: cores(),
            memory_mib: entry("/proc/meminfo", "MemTotal")
                .and_then(|text| text.trim_end_matches(" kB").parse::<u64>().ok())
                .map(|kib| kib / 1024),
            gpu: match device {
                Device::Cpu => None,
                Device::Cuda(index) => gpu(index),
            },
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = self.cpu.as_deref().unwrap_or("unknown processor");
        write!(f, "{} {}, {cpu}", self.os, self.arch)?;
        self.simd.iter().try_for_each(|simd| write!(f, " with {simd}"))?;
        write!(f, ", {} cores", self.cores)?;
        self.gpu.iter().try_for_each(|gpu| write!(f, ", {gpu}"))
    }
}

/// The widest vectors of floats, and whether there are products of bytes in as wide ones.
fn simd() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return Some(if is_x86_feature_detected!("avx512vnni") { "AVX-512 VNNI" } else { "AVX-512" });
        }
        if is_x86_feature_detected!("avx2") {
            return Some("AVX2");
        }
    }
    None
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The commit of the sources that this program was built from, with `-dirty` when tracked files differ, or `older than` it
/// when it was made after the program was; `None` when the sources are gone, or without Git. Not of the working folder,
/// which may belong to something else.
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
    let made =
        git(&["log", "-1", "--format=%ct"])?.parse().ok().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))?;
    let built = std::env::current_exe().and_then(std::fs::metadata).and_then(|file| file.modified()).ok()?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|lines| !lines.is_empty());
    Some(described(&commit, made, built, changed))
}

fn described(commit: &str, made: SystemTime, built: SystemTime, changed: bool) -> String {
    match (built < made, changed) {
        (true, _) => format!("older than {commit}"),
        (false, true) => format!("{commit}-dirty"),
        (false, false) => commit.to_owned(),
    }
}

/// The name of a GPU by the driver's own list, which has the order of the bus.
fn gpu(index: usize) -> Option<String> {
    let folders = std::fs::read_dir("/proc/driver/nvidia/gpus").ok()?;
    let mut folders: Vec<_> = folders.flatten().map(|folder| folder.path()).collect();
    folders.sort();
    entry(folders.get(index)?.join("information").to_str()?, "Model")
}

fn entry(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_told_with_its_vectors_where_they_are_known() {
        let plain = Machine {
            os: "linux".into(),
            arch: "x86_64".into(),
            cpu: Some("X".into()),
            cores: 2,
            ..Machine::default()
        };
        assert_eq!(plain.to_string(), "linux x86_64, X, 2 cores");
        let wide = Machine { simd: Some("AVX-512".into()), gpu: Some("Y".into()), ..plain };
        assert_eq!(wide.to_string(), "linux x86_64, X with AVX-512, 2 cores, Y");
    }

    #[test]
    fn a_program_does_not_claim_a_commit_that_is_younger_than_itself() {
        let (early, late) = (UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(described("abc", late, early, false), "older than abc");
        assert_eq!(described("abc", late, early, true), "older than abc");
        assert_eq!(described("abc", early, late, true), "abc-dirty");
        assert_eq!(described("abc", early, early, false), "abc");
    }
}
