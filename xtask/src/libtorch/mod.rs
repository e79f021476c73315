//! libtorch as a folder of files: what it must hold, where one may already be, and how to make one.

mod fetch;
mod locate;
mod recipe;
mod unpack;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::staging::{self, Staging};

pub(crate) use recipe::Recipe;

/// The file beside the libraries that `.cargo/config.toml` includes.
const CARGO_CONFIG: &str = "cargo-config.toml";

/// What to set up, where, and from what.
pub(crate) struct Request {
    /// The folder that must hold libtorch afterwards.
    pub(crate) target: PathBuf,
    /// The user's own `LIBTORCH`, if set.
    pub(crate) named: Option<PathBuf>,
    /// Whether to ask Python for its torch (`LIBTORCH_USE_PYTORCH`).
    pub(crate) ask_python: bool,
    /// A folder with the archives already downloaded; no network is used then.
    pub(crate) from: Option<PathBuf>,
    /// Replace what is there.
    pub(crate) force: bool,
}

/// What `ensure` found or did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The target was in order.
    Present,
    /// The target now links to an installation found elsewhere.
    Linked(PathBuf),
    /// The target was fetched and unpacked from the named source.
    Fetched(String),
}

/// Makes `request.target` a valid libtorch, doing nothing when it is one already.
pub(crate) fn ensure(request: &Request, recipe: &Recipe) -> Result<Outcome> {
    let elsewhere = locate::elsewhere(request, &recipe.version)?;
    if let Some(outcome) = in_order(request, elsewhere.as_deref(), recipe)? {
        return Ok(outcome);
    }
    let staging = Staging::open(&request.target)?;
    // Another process may have finished the same work while we waited for the lock.
    if let Some(outcome) = in_order(request, elsewhere.as_deref(), recipe)? {
        staging.discard();
        return Ok(outcome);
    }
    let outcome = match elsewhere {
        Some(found) => {
            link(&found, &staging.tree(), &recipe.version)?;
            Outcome::Linked(found)
        }
        None => Outcome::Fetched(fetch::fetch(request, recipe, &staging)?),
    };
    check(&staging.tree(), &recipe.version)?;
    write_cargo_config(&staging.tree(), &request.target)?;
    staging.place()?;
    Ok(outcome)
}

/// Decides whether the target can stay as it is.
fn in_order(request: &Request, elsewhere: Option<&Path>, recipe: &Recipe) -> Result<Option<Outcome>> {
    let target = &request.target;
    if request.force || check(target, &recipe.version).is_err() {
        return Ok(None);
    }
    let outcome = match elsewhere {
        None => Outcome::Present,
        Some(found) if same_libraries(target, found) => Outcome::Linked(found.to_path_buf()),
        Some(_) if fs::symlink_metadata(target.join("lib")).is_ok_and(|lib| lib.is_symlink()) => return Ok(None),
        Some(found) => bail!(
            "{} holds a copy of its own, but the environment names {}. Unset LIBTORCH and LIBTORCH_USE_PYTORCH to use \
             the copy, or run `cargo xtask setup --force` to replace it with a link",
            target.display(),
            found.display(),
        ),
    };
    write_cargo_config(target, target)?;
    Ok(Some(outcome))
}

fn same_libraries(target: &Path, found: &Path) -> bool {
    matches!(
        (target.join("lib").canonicalize(), found.join("lib").canonicalize()),
        (Ok(a), Ok(b)) if a == b
    )
}

/// Checks that `folder` has what compiling and linking against libtorch needs, in the right version.
pub(crate) fn check(folder: &Path, version: &str) -> Result<()> {
    let found = version_of(folder).ok_or_else(|| anyhow!("{} does not say which libtorch it is", folder.display()))?;
    if found != version {
        bail!("{} is libtorch {found}, but {version} is needed", folder.display());
    }
    check_files(folder)
}

fn check_files(folder: &Path) -> Result<()> {
    const NEEDED: [&str; 4] =
        ["lib/libc10.so", "lib/libtorch_cpu.so", "lib/libtorch.so", "include/torch/csrc/api/include/torch/torch.h"];
    for name in NEEDED {
        let path = folder.join(name);
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() > 0) {
            bail!("{} is missing or empty", path.display());
        }
    }
    Ok(())
}

/// The version without its build suffix (`2.11.0+cu130` → `2.11.0`): from libtorch's `build-version`, or from a
/// Python package's `version.py`.
fn version_of(folder: &Path) -> Option<String> {
    let full = fs::read_to_string(folder.join("build-version")).ok().or_else(|| {
        let python = fs::read_to_string(folder.join("version.py")).ok()?;
        let line = python.lines().find(|line| line.starts_with("__version__"))?;
        Some(line.split('\'').nth(1)?.to_owned())
    })?;
    Some(full.trim().split('+').next().unwrap_or_default().to_owned())
}

/// Makes `tree` a folder of links to the installation `found`.
fn link(found: &Path, tree: &Path, version: &str) -> Result<()> {
    let found = found.canonicalize().with_context(|| format!("cannot follow {}", found.display()))?;
    for name in ["include", "lib"] {
        symlink(&found.join(name), &tree.join(name))?;
    }
    staging::write(&tree.join("build-version"), format!("{version}\n").as_bytes())
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> Result<()> {
    std::os::unix::fs::symlink(to, at).map_err(|error| staging::explain(error, "link", at))
}

#[cfg(not(unix))]
fn symlink(to: &Path, _: &Path) -> Result<()> {
    bail!("{} cannot be linked on this system: keep LIBTORCH set instead", to.display())
}

/// Writes the run-time path that documentation tests need, because they run from a temporary folder and find nothing
/// relative to themselves. `target` is where the folder will be; a file that says the same is left alone, so that
/// cargo sees no change.
fn write_cargo_config(folder: &Path, target: &Path) -> Result<()> {
    let lib =
        std::path::absolute(target).with_context(|| format!("cannot find where {} is", target.display()))?.join("lib");
    let lib = lib
        .to_str()
        .ok_or_else(|| anyhow!("cargo can only be told of paths in UTF-8, which {} is not", lib.display()))?;
    let flags = ["-C".to_owned(), format!("link-arg=-Wl,-rpath,{lib}")];
    let config = toml::Table::from_iter([(
        "build".to_owned(),
        toml::Value::Table(toml::Table::from_iter([(
            "rustdocflags".to_owned(),
            toml::Value::try_from(flags).context("cannot write cargo's configuration")?,
        )])),
    )]);
    let path = folder.join(CARGO_CONFIG);
    let same = fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok())
        .is_some_and(|there| there == config);
    if !same {
        let text = format!("# Written by `cargo xtask setup`, included by .cargo/config.toml.\n{config}");
        staging::write(&path, text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
