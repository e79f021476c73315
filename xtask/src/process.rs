//! Child processes: those that we wait for quietly, and those that we become.

use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// A tool that ran and said no.
#[derive(Debug)]
pub(crate) struct ToolFailed {
    name: String,
    pub(crate) status: ExitStatus,
    said: String,
}

impl fmt::Display for ToolFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed ({}): {}", self.name, self.status, self.said)
    }
}

impl std::error::Error for ToolFailed {}

/// Runs `command` with its output kept in `log`, calling `tick` a few times a second.
/// A failure quotes the log's last lines: they hold the tool's own reason.
pub(crate) fn run_quietly(mut command: Command, log: &Path, mut tick: impl FnMut()) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let errors = output.try_clone().with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let status = loop {
        match child.try_wait().with_context(|| format!("lost sight of {name}"))? {
            Some(status) => break status,
            None => {
                tick();
                thread::sleep(Duration::from_millis(50));
            }
        }
    };
    if !status.success() {
        let said = fs::read(log).unwrap_or_default();
        let said = last_lines(&String::from_utf8_lossy(&said));
        return Err(ToolFailed { name, status, said }.into());
    }
    Ok(())
}

/// Whether `program` with `arguments` runs and succeeds.
pub(crate) fn works(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `command` in the foreground and returns its exit code as ours.
pub(crate) fn run(mut command: Command) -> Result<ExitCode> {
    let status = command.status().with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    Ok(exit_code(status))
}

/// Becomes `command`: same process, so exit code and signals pass through untouched. Returns only on failure.
#[cfg(unix)]
pub(crate) fn replace_with(mut command: Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))
}

/// Where a process cannot be replaced: run it and pass its exit code on.
#[cfg(not(unix))]
pub(crate) fn replace_with(command: Command) -> Result<ExitCode> {
    run(command)
}

/// A child's exit code; 128 + the signal's number for one that was killed, as shells have it.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return ExitCode::from(128u8.saturating_add(u8::try_from(signal).unwrap_or(0)));
    }
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}

fn last_lines(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    // A tool that tried again says the same again.
    lines.dedup();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failing_tool_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let error = run_quietly(shell("echo no route >&2; exit 3"), &log, || ()).unwrap_err().to_string();
        assert!(error.contains("no route") && error.contains("sh failed"), "{error}");
    }

    #[test]
    fn a_missing_tool_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = run_quietly(Command::new("no-such-tool"), &folder.path().join("log"), || ()).unwrap_err();
        assert_eq!(error.to_string(), "cannot run no-such-tool");
        assert!(!works("no-such-tool", &[]));
    }

    #[test]
    fn an_exit_code_passes_through_and_a_signal_becomes_128_plus_its_number() {
        assert_eq!(run(shell("exit 7")).unwrap(), ExitCode::from(7));
        assert_eq!(run(shell("kill -9 $$")).unwrap(), ExitCode::from(137));
    }
}
