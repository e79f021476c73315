//! Our bench programs, run by cargo.

use std::fs;
use std::io::ErrorKind;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use super::agreement::{FOLDER_VARIABLE, recorded};
use super::arguments::Arguments;
use super::measure::{Written, measurements};
use super::places::Places;
use super::rounds::Run;
use super::threads;
use crate::process;
use crate::workspace::Workspace;

/// The two packages that hold benches; hw-sim has its own because it must build without libtorch.
const PACKAGES: [&str; 2] = ["benches", "hw-sim"];

/// How our programs are run.
pub(super) struct Programs<'a> {
    pub(super) workspace: &'a Workspace,
    /// Where cargo and criterion write.
    pub(super) target: &'a Path,
    /// The data root, if it was named.
    pub(super) data: Option<&'a Path>,
    pub(super) arguments: &'a Arguments,
    pub(super) threads: NonZeroUsize,
    pub(super) places: &'a Places,
}

/// `cargo bench` of our packages, together whatever is chosen of them, so that they are built once.
pub(super) fn cargo_bench(workspace: &Workspace, data: Option<&Path>) -> Result<Command> {
    let mut cargo = workspace.cargo();
    cargo.arg("bench").args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    if let Some(data) = data {
        // Our benches read the same files as the peers.
        cargo.env("REPRO_DATA", std::path::absolute(data)?);
    }
    Ok(cargo)
}

impl Programs<'_> {
    /// Those that were asked for, in cargo's order.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let mut names = self.workspace.bench_programs(&PACKAGES)?;
        names.retain(|name| self.arguments.choose(name));
        Ok(names)
    }

    pub(super) fn build(&self) -> Result<()> {
        let mut cargo = cargo_bench(self.workspace, self.data)?;
        cargo.arg("--no-run").args(self.arguments.given());
        if process::run(cargo)? != ExitCode::SUCCESS {
            bail!("the benches could not be built, see above");
        }
        Ok(())
    }

    /// Runs all benches of the program that the arguments let through, or these only.
    pub(super) fn run(&self, program: &str, only: Option<&[&str]>) -> Run {
        let mut run = Run::default();
        if let Err(error) = self.run_into(&mut run, program, only) {
            let why = crate::commands::with_reasons(&error);
            eprintln!("{program}: {why}");
            run.failure = Some(self.places.hide(&why));
        }
        run
    }

    fn run_into(&self, run: &mut Run, program: &str, only: Option<&[&str]>) -> Result<()> {
        let results = empty(self.target.join("bench-recorded"))?;
        let mut cargo = cargo_bench(self.workspace, self.data)?;
        threads::give(&mut cargo, self.threads);
        cargo.env(FOLDER_VARIABLE, &results);
        cargo.args(["--bench", program]).args(self.arguments.of_run(only));
        let criterion = self.target.join("criterion");
        let before = Written::now(&criterion);
        let status = cargo.status().context("cannot run cargo")?;
        run.measured = measurements(&criterion, &before)?;
        run.recorded = recorded(&results)?;
        if !status.success() {
            bail!("{status}");
        }
        Ok(())
    }
}

/// The folder, with nothing in it.
fn empty(folder: PathBuf) -> Result<PathBuf> {
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(&folder),
    }
    .with_context(|| format!("cannot empty {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_for_results_holds_none_of_an_earlier_run() {
        let folder = tempfile::tempdir().unwrap();
        let results = empty(folder.path().join("a/results")).unwrap();
        fs::write(results.join("old.json"), "{}").unwrap();
        empty(results.clone()).unwrap();
        assert_eq!(fs::read_dir(results).unwrap().count(), 0);
    }
}
