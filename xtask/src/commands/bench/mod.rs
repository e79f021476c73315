//! `cargo xtask bench`: criterion's benches, and the same work done by Python peers in the same run.

mod compare;
mod environment;
mod manifest;
mod measure;
mod results;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use self::compare::{Outcome, compare};
use self::environment::environment;
use self::manifest::Manifest;
use self::measure::measurements;
use self::results::{Origin, Results};
use super::setup;
use crate::process;
use crate::workspace::Workspace;

/// Set up what is missing, then `cargo bench`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the peers of benches/peers/peers.toml too, and write docs/results/bench.json and bench.md
    #[arg(long)]
    peers: bool,
    /// Python that has the peers' requirements; without it a throw-away environment is made below target/
    #[arg(long, requires = "peers")]
    python: Option<PathBuf>,
    /// Root of the data sets, for peers that read some
    #[arg(long)]
    data: Option<PathBuf>,
    /// Handed to cargo bench (a filter, `-- --quick`, …)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::current()?;
    setup::ensure(&workspace)?;
    let mut cargo = workspace.cargo();
    // The two packages that hold benches; hw-sim has its own because it must build without libtorch.
    cargo.args(["bench", "--package", "benches", "--package", "hw-sim"]).args(&args.rest);
    if let Some(data) = &args.data {
        // Our benches read the same files as the peers.
        cargo.env("REPRO_DATA", std::path::absolute(data)?);
    }
    if !args.peers {
        return process::replace_with(cargo);
    }
    let manifest = Manifest::read(&workspace.root().join("benches/peers/peers.toml"))?;
    let origin = Origin::now(workspace.root());
    // File systems stamp files by a clock that ticks a few milliseconds late.
    let begun = SystemTime::now() - std::time::Duration::from_millis(100);
    if process::run(cargo)? != ExitCode::SUCCESS {
        bail!("the benches failed, see above");
    }
    let target = workspace.target_dir()?;
    let benches = measurements(&target.join("criterion"), begun)?;
    let data = workspace.data_root(args.data.as_deref());
    let scripts = workspace.root().join("benches/peers");
    let peers = compare(&manifest, &benches, |peer| {
        let python = match &args.python {
            Some(python) => python.clone(),
            None => {
                let folder = target.join("peers").join(&peer.environment);
                environment(&folder, manifest.requirements(&peer.environment))?
            }
        };
        let fill = |argument: &String| {
            let argument = argument.replace("{data}", &data.to_string_lossy());
            argument.replace("{target}", &target.to_string_lossy())
        };
        let output = Command::new(&python)
            .arg(scripts.join(&peer.script))
            .args(peer.args.iter().map(fill))
            .output()
            .with_context(|| format!("cannot run {}", python.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        eprint!("{said}");
        if !output.status.success() {
            // Where things lie on this machine is nobody else's business.
            let why = last_line(&said).replace(&*data.to_string_lossy(), "{data}");
            bail!("{} failed ({}){why}", peer.script, output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    });
    let failed = peers.iter().filter(|peer| matches!(peer.outcome, Outcome::Failed { .. })).count();
    Results::new(origin, benches, peers).write(&workspace.root().join("docs/results"))?;
    if failed > 0 {
        eprintln!("{failed} of the peers could not be run; bench.md says why");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// A tool's last words behind a colon: where Python and most others put the reason of a failure. Nothing of one that said
/// nothing.
fn last_line(text: &str) -> String {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    line.map_or_else(String::new, |line| format!(": {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failure_is_its_last_words() {
        let said = "Traceback (most recent call last):\n  File \"p.py\"\nOSError: no vocab.txt\n\n";
        assert_eq!(last_line(said), ": OSError: no vocab.txt");
        assert_eq!(last_line("\n"), "");
    }
}
