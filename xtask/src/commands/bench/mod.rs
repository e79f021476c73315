//! `cargo xtask bench`: criterion's benches, and the same work done by Python peers in turn with them.

mod agreement;
mod arguments;
mod benches;
mod compare;
mod environment;
mod machine;
mod manifest;
mod markdown;
mod measure;
mod median;
mod origin;
mod output;
mod places;
mod programs;
mod report;
mod rounds;
mod scripts;
mod targets;
mod threads;
mod versions;

use std::collections::BTreeMap;
use std::env;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};

use self::arguments::Arguments;
use self::environment::Environments;
use self::manifest::Manifest;
use self::origin::Origin;
use self::places::Places;
use self::programs::{Programs, cargo_bench};
use self::report::Report;
use self::rounds::Log;
use self::scripts::Scripts;
use self::threads::threads;
use super::setup;
use crate::process;
use crate::workspace::Workspace;

/// Set up what is missing, then `cargo bench`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the peers of benches/peers/peers.toml in turn with ours, and write docs/results/bench.json and bench.md; into
    /// bench-results/ of the target folder if anything is handed to cargo bench
    #[arg(long)]
    peers: bool,
    /// Rounds of ours and theirs in turn
    #[arg(long, requires = "peers", default_value = "3")]
    rounds: NonZeroUsize,
    /// Threads of either side; without it as many as the machine runs at once
    #[arg(long, requires = "peers")]
    threads: Option<NonZeroUsize>,
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

/// What is handed to cargo bench.
fn handed_on(rest: &[String]) -> Vec<String> {
    let command_line: Vec<String> = env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    with_dashes(rest, &command_line)
}

/// The end of the command line that clap gave us, with the `--` that it takes for its own if nothing for cargo stands in
/// front of it.
fn with_dashes(rest: &[String], command_line: &[String]) -> Vec<String> {
    let before = command_line.strip_suffix(rest).and_then(<[String]>::last);
    let dashes = before.filter(|before| !rest.is_empty() && *before == "--");
    dashes.into_iter().chain(rest).cloned().collect()
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::current()?;
    setup::ensure(&workspace)?;
    if args.peers {
        return run_beside_peers(args, &workspace);
    }
    let mut cargo = cargo_bench(&workspace, args.data.as_deref())?;
    cargo.args(handed_on(&args.rest));
    process::replace_with(cargo)
}

/// Each of our bench programs in turn with its peers, and the report.
fn run_beside_peers(args: &Args, workspace: &Workspace) -> Result<ExitCode> {
    let peers = workspace.root().join("benches/peers");
    let manifest = Manifest::read(&peers.join("peers.toml"))?;
    let arguments = Arguments::new(&handed_on(&args.rest));
    let (threads, rounds) = (threads(args.threads), args.rounds.get());
    let target = workspace.target_dir()?;
    let data = std::path::absolute(workspace.data_root(args.data.as_deref()))?;
    let python = args.python.as_deref();
    let named = [(&*data, "{data}"), (&*target, "{target}"), (workspace.root(), "{workspace}")];
    let places = Places::new(named.into_iter().chain(python.map(|python| (python, "{python}"))));
    let shown = arguments.given().iter().map(|argument| places.hide(argument)).collect();
    let origin = Origin::now(workspace.root(), threads.get(), rounds, shown);

    let programs = Programs {
        workspace,
        target: &target,
        data: args.data.as_deref(),
        arguments: &arguments,
        threads,
        places: &places,
    };
    let environments = Environments::new(&manifest, target.join("peers"), python);
    let mut scripts = Scripts { folder: &peers, data: &data, target: &target, threads, places: &places, environments };
    let names = programs.names()?;
    ensure!(!names.is_empty(), "there is no bench program of that name");
    // All is built before anything is timed; for a part of the benches only what it turns out to need.
    programs.build()?;
    if arguments.given().is_empty() {
        scripts.environments.make_all();
    }
    let mut log = Log::default();
    for program in names {
        let ours = |only: Option<&[&str]>| programs.run(&program, only);
        log.take_turns(&manifest, rounds, &program, ours, |peer| scripts.run(peer));
        // A run of an hour that is broken off has left what it measured.
        let so_far = Report::new(origin.clone(), &manifest, log.clone(), BTreeMap::new());
        if let Err(error) = so_far.write(&parts_folder(&target)) {
            eprintln!("{}", crate::commands::with_reasons(&error));
        }
    }
    let report = Report::new(origin, &manifest, log, scripts.environments.versions());
    report.write(&results_folder(workspace.root(), &target, &arguments))?;
    let complaints = report.complaints();
    if complaints.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{}; bench.md says which", complaints.join(", "));
    Ok(ExitCode::FAILURE)
}

/// The project's results are those of a whole run; others lie where they are in nobody's way.
fn results_folder(root: &Path, target: &Path, arguments: &Arguments) -> PathBuf {
    if arguments.given().is_empty() { root.join("docs/results") } else { parts_folder(target) }
}

/// Where reports lie that are none of a whole run, or not yet.
fn parts_folder(target: &Path) -> PathBuf {
    target.join("bench-results")
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn parse(text: &str) -> Result<Args, clap::Error> {
        let command = <Args as clap::Args>::augment_args(Command::new("bench"));
        Args::from_arg_matches(&command.try_get_matches_from(text.split_whitespace())?)
    }

    #[test]
    fn arguments_for_cargo_and_for_criterion_are_handed_on() {
        for text in ["forest", "forest -- --quick", "-- --quick", "--no-run", "--no-run -- --quick x", ""] {
            let line: Vec<String> =
                "bench --peers".split(' ').chain(text.split_whitespace()).map(str::to_owned).collect();
            let args = parse(&line.join(" ")).unwrap();
            assert!(args.peers);
            assert_eq!(with_dashes(&args.rest, &line).join(" "), text);
        }
    }

    #[test]
    fn rounds_and_threads_are_at_least_one() {
        assert_eq!(parse("bench --peers").unwrap().rounds.get(), 3);
        let args = parse("bench --peers --rounds 1 --threads 2").unwrap();
        assert_eq!((args.rounds.get(), threads(args.threads).get()), (1, 2));
        for wrong in ["--rounds 0", "--threads 0", "--rounds many"] {
            assert!(parse(&format!("bench --peers {wrong}")).is_err(), "{wrong}");
        }
        // Without peers there are none.
        assert!(parse("bench --rounds 2").is_err());
    }

    #[test]
    fn only_a_whole_run_is_the_projects_result() {
        let folder =
            |given: &[String]| results_folder(Path::new("/house"), Path::new("/target"), &Arguments::new(given));
        assert_eq!(folder(&[]), Path::new("/house/docs/results"));
        assert_eq!(folder(&["forest".to_owned()]), Path::new("/target/bench-results"));
    }
}
