//! A libtorch that the machine already has: one that `LIBTORCH` names, or Python's.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Request, check, check_files, version_of};

/// The installation that the environment asks for. One that is asked for and is not good is an error: silently taking
/// another would build against something the user did not mean.
pub(super) fn elsewhere(request: &Request, version: &str) -> Result<Option<PathBuf>> {
    if let Some(named) = &request.named {
        check_named(named, version).context(
            "LIBTORCH is set, but what it names cannot be used. Unset it, and `cargo xtask setup` fetches its own copy",
        )?;
        if request.ask_python
            && let Ok(python) = ask_python()
            && named.canonicalize().ok() != python.canonicalize().ok()
        {
            bail!(
                "LIBTORCH names {}, but LIBTORCH_USE_PYTORCH is set too, and with it tch compiles against {}. Unset one",
                named.display(),
                python.display(),
            );
        }
        return Ok(Some(named.clone()));
    }
    if request.ask_python {
        let found = ask_python().and_then(|found| check(&found, version).map(|()| found)).with_context(|| {
            format!(
                "LIBTORCH_USE_PYTORCH is set, but Python has no torch {version}. Unset it, or `pip install torch=={version}`"
            )
        })?;
        return Ok(Some(found));
    }
    Ok(None)
}

/// As tch does, a folder that does not state its version is given the benefit of the doubt.
fn check_named(named: &Path, version: &str) -> Result<()> {
    match version_of(named) {
        Some(_) => check(named, version),
        None => check_files(named),
    }
}

/// Where the active Python keeps torch, without importing it: an import loads half a gigabyte.
fn ask_python() -> Result<PathBuf> {
    let python = if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
    let output = Command::new(python)
        .args(["-c", "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"])
        .output()
        .with_context(|| format!("cannot run {python}"))?;
    let path = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || path.is_empty() {
        bail!("{python} knows no package torch");
    }
    Ok(PathBuf::from(path))
}
