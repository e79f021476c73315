//! The process that computes one run.

pub(crate) mod protocol;

use std::path::Path;

use crate::context::RunContext;
use crate::data::DataRoot;
use crate::device::Device;
use crate::durable;
use crate::error::{Error, Result};
use crate::experiment::Registry;
use crate::finished::Finished;
use crate::home::RunHome;
use protocol::Reporter;

/// What a worker is told on its command line.
pub(crate) struct Task<'a> {
    /// `<runs>/<id>/run.json`.
    pub(crate) description: &'a Path,
    pub(crate) data: DataRoot,
    pub(crate) device: Device,
    /// Of the program, as its executor found it when it began.
    pub(crate) commit: Option<String>,
    /// Whether to die when standard input closes, which is when the executor dies.
    pub(crate) attached: bool,
}

/// Computes the run, or finds it finished.
pub(crate) fn work(registry: &Registry, task: Task<'_>) -> anyhow::Result<()> {
    if task.attached {
        die_with_the_executor();
    }
    yield_to_people();
    (registry.prepare_worker)();

    let home = RunHome::of_description(task.description)?;
    let run = home.read_description()?.ok_or_else(|| Error::setting("descriptor", "a file", "missing"))?;
    let experiment = registry.find(&run.paper)?;
    let mut reporter = Reporter::stdout();
    let _lock = home.lock(|holder| {
        reporter.note(&format!("waiting for process {holder}, which is computing {}", run.label()));
    })?;
    if already_finished(&home, &run, &mut reporter)? {
        return Ok(());
    }
    log(&format!("--- {} {}, process {}", run.id(), run.label(), std::process::id()));
    let mut context = RunContext::open(&run, home.clone(), task.data, task.device, task.commit, reporter)?;
    if let Some(checkpoint) = context.checkpoint() {
        log(&format!("resuming after epoch {}", checkpoint.epoch));
    }
    let metrics = experiment.execute(&run, &mut context)?;
    context.finish(&metrics)?;
    home.forget_replaced()?;
    Ok(())
}

/// A line for the log. One that cannot be written, as on a full disk, is no reason to stop: the run may still fit.
fn log(line: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{line}\n").as_bytes());
}

/// Puts a damaged `done.json`, or one that vouches for what is damaged, aside; the checkpoint then decides where to go on.
fn already_finished(home: &RunHome, run: &crate::run::Run, reporter: &mut Reporter) -> Result<bool> {
    match home.finished(run).and_then(|finished| finished.as_ref().map(Finished::check_contents).transpose()) {
        Ok(whole) => Ok(whole.is_some()),
        Err(Error::Damaged { path, reason }) => {
            reporter.note(&format!("{} is damaged ({reason}): computing the run again", path.display()));
            durable::set_aside(&home.done())?;
            Ok(false)
        }
        Err(other) => Err(other),
    }
}

/// Ends this process, without clean-up, as soon as the executor's end of standard input is closed: on its exit, on
/// Ctrl-C, and on `kill -9`. Everything on disk is safe against exactly that.
fn die_with_the_executor() {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        #[cfg(unix)]
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    });
}

/// Training is patient; whoever uses the machine meanwhile is not.
fn yield_to_people() {
    #[cfg(unix)]
    let _ = rustix::process::nice(5);
}
