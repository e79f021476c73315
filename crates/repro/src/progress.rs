//! What a person sees while runs are computed: bars on a terminal, lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::experiment::Planned;

/// What the executor tells. Runs are named by their index in the plan, workers by their slot.
pub(crate) trait Display {
    /// A worker starts.
    fn started(&mut self, run: usize, slot: usize);
    /// A worker got so far.
    fn progress(&mut self, run: usize, slot: usize, far: Done, note: &str);
    /// A run needs no more work, for the reason in `words`; `slot` is the worker that it had.
    fn ended(&mut self, run: usize, slot: Option<usize>, words: &str);
    /// A worker has something to say.
    fn note(&mut self, run: usize, text: &str);
}

/// How far a worker is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) done: u64,
    pub(crate) total: u64,
    /// The percentage of the time so far that earlier processes spent.
    pub(crate) inherited: u8,
}

/// Bars when standard error is a terminal, lines otherwise.
pub(crate) fn for_stderr(plan: &[Planned]) -> Box<dyn Display> {
    if std::io::stderr().is_terminal() {
        Box::new(Bars::new(plan))
    } else {
        Box::new(Lines::new(plan, std::io::stderr()))
    }
}

/// How much of the plan is done, weighted by effort, and how long the rest will take.
struct Pace {
    labels: Vec<String>,
    effort: Vec<f64>,
    done: Vec<f64>,
    /// Which part of what is done cost no time now, because it was done before.
    inherited: Vec<f64>,
    ended: usize,
    since: Instant,
}

impl Pace {
    fn new(plan: &[Planned]) -> Self {
        Self {
            labels: plan.iter().map(|planned| planned.run.label()).collect(),
            effort: plan.iter().map(|planned| planned.effort.max(0.0)).collect(),
            done: vec![0.0; plan.len()],
            inherited: vec![0.0; plan.len()],
            ended: 0,
            since: Instant::now(),
        }
    }

    fn advance(&mut self, run: usize, Done { done, total, inherited }: Done) {
        self.done[run] = done.min(total) as f64 / total.max(1) as f64;
        self.inherited[run] = f64::from(inherited.min(100)) / 100.0;
    }

    fn end(&mut self, run: usize, worked: bool) {
        if !worked {
            self.inherited[run] = 1.0;
        }
        self.done[run] = 1.0;
        self.ended += 1;
    }

    fn fraction(&self) -> f64 {
        let total: f64 = self.effort.iter().sum();
        if total == 0.0 { 1.0 } else { self.effort.iter().zip(&self.done).map(|(a, b)| a * b).sum::<f64>() / total }
    }

    /// `None` before a hundredth of what is left to do: the first runs of a plan are often its smallest, and least like
    /// the rest.
    fn remaining(&self, elapsed: Duration) -> Option<Duration> {
        let (mut worked, mut left) = (0.0, 0.0);
        for ((effort, done), inherited) in self.effort.iter().zip(&self.done).zip(&self.inherited) {
            worked += effort * done * (1.0 - inherited);
            left += effort * (1.0 - done);
        }
        let seconds = elapsed.as_secs_f64() * left / worked;
        let enough = worked > 0.0 && worked >= 0.01 * (worked + left) && elapsed >= Duration::from_secs(2);
        enough.then(|| Duration::try_from_secs_f64(seconds).ok()).flatten()
    }

    fn summary(&self) -> String {
        let runs = format!("{}/{} runs", self.ended, self.labels.len());
        match self.remaining(self.since.elapsed()) {
            Some(left) if self.ended < self.labels.len() => format!("{runs}, about {} left", clock(left)),
            _ => runs,
        }
    }
}

/// `9 s`, `3:07`, `1:02:40`.
pub(crate) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m}:{s:02}"),
        (h, m, s) => format!("{h}:{m:02}:{s:02}"),
    }
}

/// An overall bar, and one for each worker.
struct Bars {
    pace: Pace,
    all: MultiProgress,
    overall: ProgressBar,
    workers: Vec<ProgressBar>,
}

/// Steps of the overall bar.
const FINE: u64 = 10_000;

impl Bars {
    fn new(plan: &[Planned]) -> Self {
        let all = MultiProgress::new();
        let overall = all.add(ProgressBar::new(FINE));
        overall.set_style(style("{bar:24.green/dim} {percent:>3} %  {elapsed}  {msg}"));
        overall.enable_steady_tick(Duration::from_millis(500));
        Self { pace: Pace::new(plan), all, overall, workers: Vec::new() }
    }

    fn refresh(&self) {
        self.overall.set_position((self.pace.fraction() * FINE as f64) as u64);
        self.overall.set_message(self.pace.summary());
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours; a default bar is better than none if one were wrong.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─")
}

impl Display for Bars {
    fn started(&mut self, run: usize, slot: usize) {
        while self.workers.len() <= slot {
            let bar = self.all.insert_before(&self.overall, ProgressBar::new(0));
            bar.set_style(style("{bar:24.cyan/dim} {pos:>5}/{len:<5} {prefix}  {msg:.dim}"));
            self.workers.push(bar);
        }
        let bar = &self.workers[slot];
        bar.set_position(0);
        bar.set_length(1);
        bar.set_prefix(self.pace.labels[run].clone());
        bar.set_message("");
        self.refresh();
    }

    fn progress(&mut self, run: usize, slot: usize, far: Done, note: &str) {
        self.pace.advance(run, far);
        if let Some(bar) = self.workers.get(slot) {
            bar.set_length(far.total);
            bar.set_position(far.done);
            bar.set_message(note.to_string());
        }
        self.refresh();
    }

    fn ended(&mut self, run: usize, slot: Option<usize>, words: &str) {
        self.pace.end(run, slot.is_some());
        if let Some(bar) = slot.and_then(|slot| self.workers.get(slot)) {
            bar.set_prefix("");
            bar.set_message("idle");
            bar.set_position(0);
        }
        if !words.starts_with("finished") {
            self.overall.println(format!("{}: {words}", self.pace.labels[run]));
        }
        self.refresh();
        if self.pace.ended == self.pace.labels.len() {
            self.workers.drain(..).for_each(|bar| bar.finish_and_clear());
            self.overall.finish();
        }
    }

    fn note(&mut self, run: usize, text: &str) {
        self.overall.println(format!("{}: {text}", self.pace.labels[run]));
    }
}

/// A line when something starts, ends or is said, and every ten seconds from a worker.
struct Lines<W> {
    pace: Pace,
    out: W,
    spoke: Vec<Option<Instant>>,
}

const BETWEEN_LINES: Duration = Duration::from_secs(10);

impl<W: Write> Lines<W> {
    fn new(plan: &[Planned], out: W) -> Self {
        Self { pace: Pace::new(plan), out, spoke: vec![None; plan.len()] }
    }

    fn line(&mut self, run: usize, text: &str) {
        self.spoke[run] = Some(Instant::now());
        let (elapsed, summary) = (clock(self.pace.since.elapsed()), self.pace.summary());
        // A closed standard error stops no run.
        let _ = writeln!(self.out, "{elapsed:>7}  {summary}  {}: {text}", self.pace.labels[run]);
    }
}

impl<W: Write> Display for Lines<W> {
    fn started(&mut self, run: usize, _: usize) {
        self.line(run, "started");
    }

    fn progress(&mut self, run: usize, _: usize, far: Done, note: &str) {
        self.pace.advance(run, far);
        if self.spoke[run].is_none_or(|spoke| spoke.elapsed() >= BETWEEN_LINES) {
            self.line(run, format!("{}/{} {note}", far.done, far.total).trim_end());
        }
    }

    fn ended(&mut self, run: usize, slot: Option<usize>, words: &str) {
        self.pace.end(run, slot.is_some());
        self.line(run, words);
    }

    fn note(&mut self, run: usize, text: &str) {
        self.line(run, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceKind;
    use crate::run::Run;

    fn plan() -> Vec<Planned> {
        [("a", 1.0), ("b", 3.0)]
            .map(|(kind, effort)| Planned { run: Run::new("toy", kind, 0, &(), DeviceKind::Cpu).unwrap(), effort })
            .into()
    }

    #[test]
    fn runs_that_cost_nothing_do_not_speed_up_the_forecast() {
        let mut pace = Pace::new(&plan());
        assert_eq!(pace.remaining(Duration::from_secs(10)), None);
        pace.end(0, false);
        assert_eq!(pace.fraction(), 0.25);
        assert_eq!(pace.remaining(Duration::from_secs(10)), None);
        pace.advance(1, Done { done: 1, total: 3, inherited: 0 });
        // One of three units in ten seconds leaves two for twenty.
        assert_eq!(pace.remaining(Duration::from_secs(10)).unwrap().as_secs_f64().round(), 20.0);
        pace.end(1, true);
        assert_eq!(pace.fraction(), 1.0);
    }

    #[test]
    fn a_first_run_that_is_next_to_nothing_forecasts_nothing() {
        let runs = [("tiny", 0.1), ("long", 99.9)];
        let runs =
            runs.map(|(kind, effort)| Planned { run: Run::new("toy", kind, 0, &(), DeviceKind::Cpu).unwrap(), effort });
        let mut pace = Pace::new(&runs);
        pace.end(0, true);
        assert_eq!(pace.remaining(Duration::from_secs(10)), None);
        pace.advance(1, Done { done: 1, total: 100, inherited: 0 });
        let left = pace.remaining(Duration::from_secs(10)).unwrap().as_secs_f64();
        assert!((left - 10.0 * 98.901 / 1.099).abs() < 1e-6, "{left}");
    }

    #[test]
    fn what_earlier_processes_did_of_a_run_does_not_speed_up_the_forecast() {
        let mut pace = Pace::new(&plan());
        // Half of three units is done, nine tenths of it before: .15 took ten seconds, and 1 + 1.5 are left.
        pace.advance(1, Done { done: 50, total: 100, inherited: 90 });
        let left = |pace: &Pace| pace.remaining(Duration::from_secs(10)).unwrap().as_secs_f64();
        assert!((left(&pace) - 10.0 * 2.5 / 0.15).abs() < 1e-6);
        // At the end it took .6 of three units itself.
        pace.advance(1, Done { done: 100, total: 100, inherited: 80 });
        pace.end(1, true);
        assert!((left(&pace) - 10.0 / 0.6).abs() < 1e-6);
    }

    #[test]
    fn without_a_terminal_starts_and_ends_are_lines_and_progress_is_rare() {
        let mut lines = Lines::new(&plan(), Vec::new());
        lines.started(0, 0);
        (1..50).for_each(|epoch| lines.progress(0, 0, Done { done: epoch, total: 50, inherited: 0 }, "loss 1"));
        lines.ended(0, Some(0), "finished in 0.1 s");
        let text = String::from_utf8(lines.out).unwrap();
        let said: Vec<&str> = text.lines().map(|line| line.split("  ").last().unwrap()).collect();
        assert_eq!(said, ["toy a seed 0: started", "toy a seed 0: finished in 0.1 s"]);
        assert!(text.lines().last().unwrap().contains("1/2 runs"));
    }

    #[test]
    fn clocks_read_like_clocks() {
        for (seconds, text) in [(9, "9 s"), (187, "3:07"), (3760, "1:02:40")] {
            assert_eq!(clock(Duration::from_secs(seconds)), text);
        }
    }
}
