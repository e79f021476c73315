//! Throw-away Python environments for the peers, below `target/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Makes the environment, or takes the one made earlier from the same requirements.
pub(super) fn environment(folder: &Path, requirements: &[String]) -> Result<PathBuf> {
    let python = folder.join("bin/python");
    let record = folder.join("requirements.txt");
    let wanted = requirements.join("\n");
    if python.exists() && fs::read_to_string(&record).is_ok_and(|there| there == wanted) {
        return Ok(python);
    }
    eprintln!("making a Python environment for the peers in {} (PyTorch is large) …", folder.display());
    for mut command in [venv(folder), pip_install(&python, requirements)] {
        let status = command.status().context("cannot run python3")?;
        if !status.success() {
            bail!("the peers' environment could not be made; give one with --python");
        }
    }
    // Written last: an environment without its record is made again.
    fs::write(&record, wanted).with_context(|| format!("cannot write {}", record.display()))?;
    Ok(python)
}

fn venv(folder: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "venv", "--clear"]).arg(folder);
    command
}

fn pip_install(python: &Path, requirements: &[String]) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(requirements);
    command
}
