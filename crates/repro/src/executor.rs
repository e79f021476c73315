//! Runs the planned runs in worker processes, needs first, so many at a time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use crate::data::DataRoot;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::experiment::Planned;
use crate::finished::Finished;
use crate::home::{RunHome, RunStore};
use crate::progress::{Display, Done};
use crate::results::Outcome;
use crate::run::{Run, RunId};
use crate::worker::protocol::Message;

/// Lines of a failed worker's log that the report shows.
const LOG_TAIL: usize = 20;

/// What glibc's allocator reads: a worker keeps what libtorch frees, because the memory of feature maps, given back after each
/// layer and touched anew, cost the steps measured a twentieth to a quarter of their time. As in `.cargo/config.toml`.
const KEPT_MEMORY: [(&str, &str); 2] =
    [("MALLOC_TRIM_THRESHOLD_", "17179869184"), ("MALLOC_MMAP_THRESHOLD_", "33554432")];

/// What thread pools read when they start, libtorch's before any call could tell them.
const ONE_THREAD: [(&str, &str); 3] = [("OMP_NUM_THREADS", "1"), ("MKL_NUM_THREADS", "1"), ("RAYON_NUM_THREADS", "1")];

/// How to run a plan.
pub(crate) struct Executor<'a> {
    pub(crate) store: &'a RunStore,
    pub(crate) data: &'a DataRoot,
    pub(crate) device: Device,
    /// Of this program, for the runs' records.
    pub(crate) commit: Option<&'a str>,
    /// Workers at a time.
    pub(crate) jobs: usize,
    /// Compute finished runs again.
    pub(crate) force: bool,
}

enum Event {
    Said(usize, Message),
    Ended(usize, std::io::Result<ExitStatus>),
}

/// A worker that is at work: its place on the display, since when, and why it is about to end, if it said so.
struct Working {
    slot: usize,
    since: Instant,
    failed: Option<String>,
}

impl Working {
    fn at(slot: usize) -> Self {
        Self { slot, since: Instant::now(), failed: None }
    }
}

impl Executor<'_> {
    /// Returns an outcome for every run of the plan, in its order. A failed run stops only those that need it.
    ///
    /// # Errors
    /// A plan in which a needed run is missing. Whatever goes wrong with one run is that run's outcome.
    pub(crate) fn execute(&self, plan: &[Planned], display: &mut dyn Display) -> Result<Vec<Outcome>> {
        let position = positions(plan)?;
        let damaged = self.damaged(plan, &position);
        let (send, events) = channel();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; plan.len()];
        let mut working: HashMap<usize, Working> = HashMap::new();
        loop {
            while let Some((index, step)) = next(plan, &position, &outcomes, &working, self.jobs) {
                match step {
                    Step::Skip(reason) => {
                        display.ended(index, None, &reason);
                        outcomes[index] = Some(Outcome::Skipped { reason });
                    }
                    Step::Start => match self.start(&plan[index].run, damaged[index], index, &send) {
                        Ok(None) => {
                            let slot = free_slot(&working);
                            working.insert(index, Working::at(slot));
                            display.started(index, slot);
                        }
                        Ok(Some(finished)) => {
                            display.ended(index, None, "finished earlier");
                            outcomes[index] = Some(Outcome::Finished(Box::new(finished)));
                        }
                        Err(error) => {
                            let reason = error.to_string();
                            display.ended(index, None, &reason);
                            outcomes[index] = Some(Outcome::Failed { reason, log_tail: String::new() });
                        }
                    },
                }
            }
            if working.is_empty() {
                break;
            }
            self.listen(plan, &events, &mut working, &mut outcomes, display);
        }
        let never = || Outcome::Skipped { reason: "the runs that it needs wait for one another".into() };
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(never)).collect())
    }

    /// Which finished runs have artifacts that changed, of those that a run yet to be computed will read. What nobody is
    /// about to read is not looked at: it may be large.
    fn damaged(&self, plan: &[Planned], position: &HashMap<RunId, usize>) -> Vec<bool> {
        let finished = |run: &Run| self.store.home(&run.id()).finished(run).ok().flatten().filter(|_| !self.force);
        let mut damaged = vec![false; plan.len()];
        let mut looked_at = vec![false; plan.len()];
        let mut computed: Vec<usize> = (0..plan.len()).filter(|&index| finished(&plan[index].run).is_none()).collect();
        // A run that is computed again for its damage reads those that it needs itself.
        while let Some(index) = computed.pop() {
            for &need in plan[index].run.needs.values().filter_map(|id| position.get(id)) {
                if !std::mem::replace(&mut looked_at[need], true) {
                    let found = finished(&plan[need].run).as_ref().map(Finished::check_contents);
                    damaged[need] = matches!(found, Some(Err(_)));
                    computed.extend(damaged[need].then_some(need));
                }
            }
        }
        damaged
    }

    /// Starts a worker, or finds the run finished and not `damaged`.
    fn start(&self, run: &Run, damaged: bool, index: usize, send: &Sender<Event>) -> Result<Option<Finished>> {
        let home = self.store.home(&run.id());
        match home.finished(run) {
            Ok(Some(finished)) if !self.force && !damaged => return Ok(Some(finished)),
            // A worker mends what is damaged.
            Ok(_) | Err(Error::Damaged { .. }) => {}
            Err(other) => return Err(other),
        }
        if self.force {
            // Whoever holds the lock is computing the run just now: that is recent enough.
            if let Some(_lock) = home.try_lock()? {
                home.replace()?;
            }
        }
        home.prepare(run)?;
        self.spawn(&home, index, send.clone())?;
        Ok(None)
    }

    /// A worker's arguments and environment.
    fn worker(&self, program: &Path, home: &RunHome) -> Command {
        let mut command = Command::new(program);
        command
            .arg("worker")
            .arg(home.description())
            .arg("--attached")
            .arg("--device")
            .arg(self.device.to_string())
            .arg("--data")
            .arg(self.data.path())
            .envs(ONE_THREAD);
        if let Some(commit) = self.commit {
            command.arg("--commit").arg(commit);
        }
        for (name, bytes) in KEPT_MEMORY {
            if std::env::var_os(name).is_none() {
                command.env(name, bytes);
            }
        }
        if self.device != Device::Cpu {
            // cuDNN would round what single precision convolves to 10 bits, which checks of 1e-3 and less would notice.
            command.env("NVIDIA_TF32_OVERRIDE", "0");
        }
        command
    }

    fn spawn(&self, home: &RunHome, index: usize, send: Sender<Event>) -> Result<()> {
        let path = home.log();
        let mut log = File::options().create(true).append(true).open(&path).map_err(Error::io(&path, "open"))?;
        let program = std::env::current_exe().map_err(Error::io("this program".as_ref(), "locate"))?;
        let mut command = self.worker(&program, home);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(log.try_clone().map_err(Error::io(&path, "open"))?);
        let mut child = command.spawn().map_err(Error::io(&program, "start"))?;
        std::thread::spawn(move || {
            // Open for as long as the worker lives: its end of this pipe closing is what tells it to die.
            let lifeline = child.stdin.take();
            let lines = child.stdout.take().map(|out| BufReader::new(out).split(b'\n'));
            for line in lines.into_iter().flatten().map_while(|line| line.ok()) {
                let line = String::from_utf8_lossy(&line).into_owned();
                // Neither a log that cannot be written nor an executor that is gone may stall the worker's pipe.
                match Message::parse(&line) {
                    Some(message) => drop(send.send(Event::Said(index, message))),
                    // One write, or the worker's own words could come between a line and its end.
                    None => drop(log.write_all(format!("{line}\n").as_bytes())),
                }
            }
            let status = child.wait();
            drop(lifeline);
            // Without an executor nobody asks for the status.
            let _ = send.send(Event::Ended(index, status));
        });
        Ok(())
    }

    fn listen(
        &self,
        plan: &[Planned],
        events: &Receiver<Event>,
        working: &mut HashMap<usize, Working>,
        outcomes: &mut [Option<Outcome>],
        display: &mut dyn Display,
    ) {
        // A sender lives in `execute`, so the channel cannot close.
        let Ok(event) = events.recv() else { return };
        match event {
            Event::Said(index, Message::Note(text)) => display.note(index, &text),
            Event::Said(index, Message::Progress { done, total, inherited, note }) => {
                if let Some(worker) = working.get(&index) {
                    display.progress(index, worker.slot, Done { done, total, inherited }, &note);
                }
            }
            Event::Said(index, Message::Failed(reason)) => {
                if let Some(worker) = working.get_mut(&index) {
                    worker.failed = Some(reason);
                }
            }
            Event::Ended(index, status) => {
                let Some(worker) = working.remove(&index) else { return };
                let outcome = self.outcome(&plan[index].run, status, worker.failed);
                let words = match &outcome {
                    Outcome::Finished(_) => format!("finished in {:.1} s", worker.since.elapsed().as_secs_f64()),
                    Outcome::Failed { reason, .. } | Outcome::Skipped { reason } => format!("failed: {reason}"),
                };
                display.ended(index, Some(worker.slot), &words);
                outcomes[index] = Some(outcome);
            }
        }
    }

    /// What counts is `done.json`, written last: a worker that trips on its way out has still finished.
    fn outcome(&self, run: &Run, status: std::io::Result<ExitStatus>, said: Option<String>) -> Outcome {
        let home = self.store.home(&run.id());
        let log_tail = || home.log_tail(LOG_TAIL);
        match (home.finished(run), status) {
            (Ok(Some(finished)), _) => Outcome::Finished(Box::new(finished)),
            (Err(error), _) => Outcome::Failed { reason: error.to_string(), log_tail: log_tail() },
            (Ok(None), Err(error)) => Outcome::Failed { reason: error.to_string(), log_tail: log_tail() },
            (Ok(None), Ok(status)) => {
                let reason = said.unwrap_or_else(|| format!("its worker ended with {status}"));
                Outcome::Failed { reason, log_tail: log_tail() }
            }
        }
    }
}

enum Step {
    Start,
    Skip(String),
}

/// The next run to start or to skip; `None` when there is nothing to do until a worker ends.
fn next(
    plan: &[Planned],
    position: &HashMap<RunId, usize>,
    outcomes: &[Option<Outcome>],
    working: &HashMap<usize, Working>,
    jobs: usize,
) -> Option<(usize, Step)> {
    for (index, planned) in plan.iter().enumerate() {
        if outcomes[index].is_some() || working.contains_key(&index) {
            continue;
        }
        let needs = planned.run.needs.values().filter_map(|id| position.get(id));
        let mut ready = true;
        for &need in needs {
            match &outcomes[need] {
                Some(Outcome::Finished(_)) => {}
                Some(_) => {
                    let reason = format!("it needs {}, which did not finish", plan[need].run.label());
                    return Some((index, Step::Skip(reason)));
                }
                None => ready = false,
            }
        }
        if ready && working.len() < jobs {
            return Some((index, Step::Start));
        }
    }
    None
}

fn positions(plan: &[Planned]) -> Result<HashMap<RunId, usize>> {
    let position: HashMap<RunId, usize> =
        plan.iter().enumerate().map(|(index, planned)| (planned.run.id(), index)).collect();
    for planned in plan {
        for (name, id) in &planned.run.needs {
            if !position.contains_key(id) {
                return Err(Error::Need {
                    run: planned.run.label(),
                    need: format!("`{name}`, run {id}"),
                    reason: "the plan does not have it".into(),
                });
            }
        }
    }
    Ok(position)
}

fn free_slot(working: &HashMap<usize, Working>) -> usize {
    (0..).find(|slot| working.values().all(|worker| worker.slot != *slot)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceKind;
    use std::ffi::OsStr;

    fn planned(kind: &str, needs: &[&Run]) -> Planned {
        let run = Run::new("toy", kind, 0, &(), DeviceKind::Cpu).unwrap();
        let run = needs.iter().fold(run, |run, need| run.needing(&need.kind, need));
        Planned { run, effort: 1.0 }
    }

    #[test]
    fn a_worker_has_one_thread_in_every_pool_and_is_told_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        let store = RunStore::at(folder.path());
        let data = DataRoot::at(folder.path());
        let executor =
            Executor { store: &store, data: &data, device: Device::Cpu, commit: Some("abc"), jobs: 4, force: false };
        let home = store.home(&planned("dense", &[]).run.id());
        let command = executor.worker("program".as_ref(), &home);
        let set: HashMap<_, _> = command.get_envs().collect();
        for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"] {
            assert_eq!(set.get(OsStr::new(name)), Some(&Some(OsStr::new("1"))), "{name}");
        }
        let arguments: Vec<_> = command.get_args().collect();
        assert!(arguments.windows(2).any(|pair| pair == ["--commit", "abc"]), "{arguments:?}");
    }

    fn failed() -> Option<Outcome> {
        Some(Outcome::Failed { reason: "x".into(), log_tail: String::new() })
    }

    #[test]
    fn needs_come_first_and_failure_skips_only_what_depends_on_it() {
        let dense = planned("dense", &[]);
        let ticket = planned("ticket", &[&dense.run]);
        let other = planned("other", &[]);
        let plan = [ticket, dense, other];
        let position = positions(&plan).unwrap();
        let idle = HashMap::new();

        let start = |outcomes: &[Option<Outcome>], working: &HashMap<usize, Working>| {
            next(&plan, &position, outcomes, working, 2)
        };
        let mut outcomes = vec![None, None, None];
        assert!(matches!(start(&outcomes, &idle), Some((1, Step::Start))));
        let busy = HashMap::from([(1, Working::at(0))]);
        assert!(matches!(start(&outcomes, &busy), Some((2, Step::Start))));
        assert_eq!(free_slot(&busy), 1);
        outcomes[1] = failed();
        let Some((0, Step::Skip(reason))) = start(&outcomes, &idle) else { panic!("the ticket is to be skipped") };
        assert_eq!(reason, "it needs toy dense seed 0, which did not finish");
    }

    #[test]
    fn a_need_outside_the_plan_is_an_error() {
        let dense = planned("dense", &[]);
        let error = positions(&[planned("ticket", &[&dense.run])]).unwrap_err().to_string();
        assert!(error.contains("toy ticket seed 0 needs `dense`") && error.contains("the plan does not have it"));
    }
}
