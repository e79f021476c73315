//! The command line.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::data::DataRoot;
use crate::device::Device;
use crate::durable;
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::experiment::{Ask, Experiment, Plan, Planned, Registry, Tier};
use crate::home::RunStore;
use crate::machine::{self, Machine};
use crate::progress::clock;
use crate::report::{Frame, Report};
use crate::results::{Outcome, Results};
use crate::run::RunId;
use crate::worker::protocol::Reporter;
use crate::{progress, worker};

/// Re-runs papers' claims and reports verdicts.
///
/// Exit code: 0 when everything that was asked ran, whatever the verdicts; 1 when --strict was given and a claim was not
/// reproduced; 2 when the request makes no sense or a folder cannot be used; 3 when a run failed or could not be judged.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Compute what is missing, then report.
    Run(RunArgs),
    /// Report from the runs that are there, computing nothing.
    Report(Request),
    /// Compute one run. The other commands start this one.
    #[command(hide = true)]
    Worker(WorkerArgs),
}

#[derive(Args)]
struct Request {
    /// Papers by name; all when none is given.
    papers: Vec<String>,
    /// How far to go.
    #[arg(long, value_enum, default_value_t = Tier::Quick)]
    tier: Tier,
    /// Folder of data sets [default: $REPRO_DATA, else data/, which may be missing].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder for the report.
    #[arg(long, value_name = "DIR", default_value = "out")]
    out: PathBuf,
    /// Folder of runs, shared by all reports.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs: PathBuf,
    /// cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Seeds per method [default: the tier's].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Exit with 1 when a claim is not reproduced.
    #[arg(long)]
    strict: bool,
}

#[derive(Args)]
struct RunArgs {
    #[command(flatten)]
    request: Request,
    /// Workers at a time, of one thread each [default: the number of cores; 1 on a GPU].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: Option<u64>,
    /// Say what would be run, and run nothing.
    #[arg(long)]
    list: bool,
    /// Compute finished runs again. The old ones are kept until the new ones are done.
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
struct WorkerArgs {
    /// <runs>/<id>/run.json
    description: PathBuf,
    #[arg(long)]
    data: PathBuf,
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Of the program, for the run's record.
    #[arg(long)]
    commit: Option<String>,
    /// End when standard input closes.
    #[arg(long)]
    attached: bool,
}

/// The whole program, for these experiments and the process's arguments.
pub fn main_with(registry: &Registry) -> ExitCode {
    run_with(registry, std::env::args_os())
}

fn run_with(registry: &Registry, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let action = Cli::parse_from(arguments).command;
    let done = match &action {
        Action::Run(args) => reproduce(registry, &args.request, Some(args)).map_err(anyhow::Error::from),
        Action::Report(request) => reproduce(registry, request, None).map_err(anyhow::Error::from),
        Action::Worker(args) => work(registry, args).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        // One write: a worker shares its log with the executor.
        let words = format!("error: {}\n", with_causes(&error));
        let _ = std::io::Write::write_all(&mut std::io::stderr(), words.as_bytes());
        ExitCode::from(2)
    })
}

fn work(registry: &Registry, args: &WorkerArgs) -> anyhow::Result<()> {
    // The executor checked the folder; a default one may be missing.
    let data = DataRoot::at(&args.data);
    let task = worker::Task {
        description: &args.description,
        data,
        device: args.device,
        commit: args.commit.clone(),
        attached: args.attached,
    };
    worker::work(registry, task).inspect_err(|error| Reporter::stdout().failed(&with_causes(error)))
}

/// An error and its causes on one line, without those that the words before them end with already.
fn with_causes(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.ends_with(&cause) {
            words += &format!(": {cause}");
        }
    }
    words
}

/// `run` with `args`, `report` without.
fn reproduce(registry: &Registry, request: &Request, args: Option<&RunArgs>) -> Result<ExitCode> {
    let experiments = registry.select(&request.papers)?;
    let data = DataRoot::locate(request.data.as_deref())?;
    let ask = Ask { tier: request.tier, seeds: request.seeds, device: request.device, data };
    let plans = plans(&experiments, &ask)?;
    let store = RunStore::at(&request.runs);
    if args.is_some_and(|args| args.list) {
        list(&experiments, &plans, &store);
        return Ok(ExitCode::SUCCESS);
    }
    // Before hours of computing, not after: the folder, and the commit, which by then may be another.
    durable::writable_folder(&request.out)?;
    let commit = machine::commit();
    let union = union(&plans);
    let outcomes = match args {
        Some(args) => {
            ask.device.check()?;
            store.make_writable()?;
            let jobs = args.jobs.map_or_else(|| default_jobs(request.device), |jobs| jobs as usize);
            let executor = Executor {
                store: &store,
                data: &ask.data,
                device: ask.device,
                commit: commit.as_deref(),
                jobs,
                force: args.force,
            };
            executor.execute(&union, progress::for_stderr(&union).as_mut())?
        }
        None => union.iter().map(|planned| look_up(&store, planned)).collect(),
    };
    let by_id: HashMap<RunId, Outcome> = union.iter().map(|planned| planned.run.id()).zip(outcomes).collect();

    let frame = Frame {
        commit,
        machine: Machine::here(request.device),
        command: command(registry, request),
        versions: registry.versions.iter().map(|(name, version)| (name.to_string(), version.clone())).collect(),
    };
    let mut report = Report::new(frame, &ask);
    for (experiment, plan) in experiments.iter().zip(plans) {
        let outcome =
            |planned: &Planned| by_id.get(&planned.run.id()).map(|outcome| (planned.run.clone(), outcome.clone()));
        let results = Results::new(plan.runs.iter().filter_map(outcome).collect());
        report.add(*experiment, &ask, plan.data, &results);
    }
    let page = report.write(&request.out).inspect_err(|_| {
        use std::io::Write;
        let runs = request.runs.display();
        let words = format!("the runs are safe in {runs}: once there is room, `report` writes the report from them");
        // Whoever closed standard error is told by the exit code.
        let _ = writeln!(std::io::stderr(), "{words}");
    })?;
    say(&format!("{}{}", report.summary(), page.display()));
    Ok(exit_code(&report, request.strict))
}

fn exit_code(report: &Report, strict: bool) -> ExitCode {
    if !report.is_complete() {
        ExitCode::from(3)
    } else if strict && report.claims().any(|claim| claim.verdict().is_refutation()) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}

fn plans(experiments: &[&dyn Experiment], ask: &Ask) -> Result<Vec<Plan>> {
    let plan = |experiment: &&dyn Experiment| {
        experiment.plan(ask).map_err(|source| Error::Experiment { paper: experiment.paper().into(), source })
    };
    experiments.iter().map(plan).collect()
}

/// Every run once, whoever plans it.
fn union(plans: &[Plan]) -> Vec<Planned> {
    let mut union = Plan::default();
    for planned in plans.iter().flat_map(|plan| &plan.runs) {
        union.add_weighted(planned.run.clone(), planned.effort);
    }
    union.runs
}

fn look_up(store: &RunStore, planned: &Planned) -> Outcome {
    match store.home(&planned.run.id()).finished(&planned.run) {
        Ok(Some(finished)) => Outcome::Finished(Box::new(finished)),
        Ok(None) => Outcome::Skipped { reason: "it has not been run".into() },
        Err(error) => Outcome::Failed { reason: error.to_string(), log_tail: String::new() },
    }
}

fn list(experiments: &[&dyn Experiment], plans: &[Plan], store: &RunStore) {
    for (experiment, plan) in experiments.iter().zip(plans) {
        let finished =
            plan.runs.iter().filter(|planned| matches!(look_up(store, planned), Outcome::Finished(_))).count();
        let (paper, title, runs) = (experiment.paper(), experiment.title(), plan.runs.len());
        say(&format!("{paper:<18} {runs:>4} runs, {finished:>4} finished  {title}"));
        for data in &plan.data {
            say(&format!("{:<18} data: {} ({:?})", "", data.set, data.source));
        }
        let mut kinds: Vec<(&str, usize, f64)> = Vec::new();
        for planned in &plan.runs {
            match kinds.iter_mut().find(|(kind, ..)| *kind == planned.run.kind) {
                Some((_, count, effort)) => (*count, *effort) = (*count + 1, *effort + planned.effort),
                None => kinds.push((&planned.run.kind, 1, planned.effort)),
            }
        }
        for (kind, count, effort) in kinds {
            let each = clock(Duration::try_from_secs_f64(effort / count as f64).unwrap_or_default());
            say(&format!("{:<18} {count:>4} × {kind}, about {each}", ""));
        }
    }
}

/// A line for whoever reads it: one who went away (`| head`) is no failure of the runs.
fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// What makes the same report again, given the same data: `--out`, `--runs` and `--jobs` do not change it.
fn command(registry: &Registry, request: &Request) -> String {
    let mut command = registry.program.to_string();
    request.papers.iter().for_each(|paper| command += &format!(" {paper}"));
    command += &format!(" --tier {}", request.tier);
    if let Some(seeds) = request.seeds {
        command += &format!(" --seeds {seeds}");
    }
    if let Some(data) = &request.data {
        command += &format!(" --data {}", quoted(&data.to_string_lossy()));
    }
    if request.device != Device::Cpu {
        command += &format!(" --device {}", request.device);
    }
    command
}

/// An argument as a shell reads it back whole.
fn quoted(argument: &str) -> String {
    if argument.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+=:@%,".contains(&byte)) {
        argument.into()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

fn default_jobs(device: Device) -> usize {
    match device {
        Device::Cpu => machine::cores(),
        Device::Cuda(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_each_of_its_causes_once() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let reason = missing.to_string();
        let source = anyhow::Error::from(Error::io("labels".as_ref(), "open")(missing)).context("the test set");
        let error = anyhow::Error::from(Error::Experiment { paper: "acl".into(), source });
        assert_eq!(with_causes(&error), format!("acl: the test set: labels: open failed: {reason}"));
    }

    #[test]
    fn a_path_is_one_argument_of_the_command_that_makes_the_report_again() {
        for (path, expected) in [
            ("../shared/data", "../shared/data"),
            ("/home/me/my data", "'/home/me/my data'"),
            ("it's $HOME", r"'it'\''s $HOME'"),
        ] {
            assert_eq!(quoted(path), expected);
        }
    }
}
