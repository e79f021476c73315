//! `cargo xtask bench`: criterion's benches, and the same work done by Python peers in the same run.

mod compare;
mod environment;
mod manifest;
mod measure;
mod results;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use self::compare::{Outcome, compare};
use self::environment::environment;
use self::manifest::{Manifest, Peer};
use self::measure::{Measurement, measurements};
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

/// The two packages that hold benches; hw-sim has its own because it must build without libtorch.
const PACKAGES: [&str; 2] = ["benches", "hw-sim"];

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::current()?;
    setup::ensure(&workspace)?;
    if args.peers {
        return run_beside_peers(args, &workspace);
    }
    let mut cargo = cargo_bench(args, &workspace)?;
    cargo.args(&args.rest);
    process::replace_with(cargo)
}

/// Each of our bench programs, and its peers right after it: a machine's speed is not the same half an hour later.
fn run_beside_peers(args: &Args, workspace: &Workspace) -> Result<ExitCode> {
    let manifest = Manifest::read(&workspace.root().join("benches/peers/peers.toml"))?;
    let origin = Origin::now(workspace.root());
    let target = workspace.target_dir()?;
    let run = |what: &[&str]| -> Result<()> {
        let mut cargo = cargo_bench(args, workspace)?;
        cargo.args(what).args(&args.rest);
        if process::run(cargo)? != ExitCode::SUCCESS {
            bail!("the benches failed, see above");
        }
        Ok(())
    };
    // All is built before anything is timed.
    run(&["--no-run"])?;
    let (mut benches, mut peers) = (Vec::<Measurement>::new(), Vec::new());
    for program in workspace.bench_programs(&PACKAGES)? {
        // File systems stamp files by a clock that ticks a few milliseconds late.
        let begun = SystemTime::now() - std::time::Duration::from_millis(100);
        run(&["--bench", &program])?;
        let mut measured = measurements(&target.join("criterion"), begun)?;
        measured.retain(|new| benches.iter().all(|known| known.id != new.id));
        peers.extend(compare(&manifest, &measured, |peer| run_peer(args, workspace, &manifest, &target, peer)));
        benches.append(&mut measured);
    }
    benches.sort_by(|a, b| a.id.cmp(&b.id));
    peers.sort_by_key(|pair| manifest.peers.iter().position(|peer| peer.name == pair.name));
    let failed = peers.iter().filter(|peer| matches!(peer.outcome, Outcome::Failed { .. })).count();
    Results::new(origin, benches, peers).write(&workspace.root().join("docs/results"))?;
    if failed > 0 {
        eprintln!("{failed} of the peers could not be run; bench.md says why");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// `cargo bench` of our packages, together whatever is chosen of them, so that they are built once.
fn cargo_bench(args: &Args, workspace: &Workspace) -> Result<Command> {
    let mut cargo = workspace.cargo();
    cargo.arg("bench").args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    if let Some(data) = &args.data {
        // Our benches read the same files as the peers.
        cargo.env("REPRO_DATA", std::path::absolute(data)?);
    }
    Ok(cargo)
}

/// What a peer's script prints.
fn run_peer(args: &Args, workspace: &Workspace, manifest: &Manifest, target: &Path, peer: &Peer) -> Result<String> {
    let python = match &args.python {
        Some(python) => python.clone(),
        None => environment(&target.join("peers").join(&peer.environment), manifest.requirements(&peer.environment))?,
    };
    let data = workspace.data_root(args.data.as_deref());
    let fill = |argument: &String| {
        let argument = argument.replace("{data}", &data.to_string_lossy());
        argument.replace("{target}", &target.to_string_lossy())
    };
    let output = Command::new(&python)
        .arg(workspace.root().join("benches/peers").join(&peer.script))
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
