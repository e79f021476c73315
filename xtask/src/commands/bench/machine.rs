//! The machine, as far as a reader needs it to judge the figures.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// Those of a CPU's vector units that the kernels of either side ask for.
const VECTOR_UNITS: [&str; 5] = ["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16"];

pub(super) fn machine() -> BTreeMap<&'static str, String> {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let rustc = said(Command::new("rustc").arg("--version"));
    BTreeMap::from([
        ("cpu", field(&cpu_info, "model name").map_or_else(unknown, str::to_owned)),
        ("cores", cores.to_string()),
        ("os", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("rustc", rustc.unwrap_or_else(unknown)),
        ("vector units", vector_units(&cpu_info)),
    ])
}

fn vector_units(cpu_info: &str) -> String {
    let Some(flags) = field(cpu_info, "flags") else { return unknown() };
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let there: Vec<&str> = VECTOR_UNITS.into_iter().filter(|unit| flags.contains(unit)).collect();
    if there.is_empty() { format!("none of {}", VECTOR_UNITS.join(", ")) } else { there.join(", ") }
}

/// What `/proc/cpuinfo` says of the first core.
fn field<'a>(cpu_info: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = cpu_info.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// What a tool printed; nothing when it is not there or failed.
pub(super) fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

pub(super) fn unknown() -> String {
    "unknown".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vector_units_are_those_that_the_cpu_lists() {
        let cpu_info = "model name\t: A CPU: fast\nflags\t\t: fpu avx avx2 avx512f fma\nflags\t\t: avx512_vnni\n";
        assert_eq!(vector_units(cpu_info), "avx2, fma, avx512f");
        assert_eq!(field(cpu_info, "model name"), Some("A CPU: fast"));
        assert_eq!(vector_units("flags : fpu\n"), "none of avx2, fma, avx512f, avx512_vnni, avx512_bf16");
        // Arm lists features by another name, and other systems have no such file.
        assert_eq!(vector_units("Features : asimd\n"), "unknown");
    }
}
