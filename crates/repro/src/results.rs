//! What became of the planned runs, as experiments read it.

use crate::error::{Error, Result};
use crate::finished::Finished;
use crate::run::Run;
use crate::samples::Samples;

/// What became of a run.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It finished, now or earlier.
    Finished(Box<Finished>),
    /// Its worker failed, or its folder cannot be used.
    Failed {
        /// In a sentence.
        reason: String,
        /// The last lines of its log.
        log_tail: String,
    },
    /// It was not started: a run that it needs failed, or nothing was to be started.
    Skipped {
        /// In a sentence.
        reason: String,
    },
}

/// The runs of one experiment with their outcomes, in the order of the plan.
#[derive(Debug, Clone, Default)]
pub struct Results {
    entries: Vec<(Run, Outcome)>,
}

impl Results {
    /// Results of these runs.
    pub fn new(entries: Vec<(Run, Outcome)>) -> Self {
        Self { entries }
    }

    /// All runs.
    pub fn runs(&self) -> impl Iterator<Item = (&Run, &Outcome)> {
        self.entries.iter().map(|(run, outcome)| (run, outcome))
    }

    /// Those that finished and that `select` picks.
    pub fn finished(&self, select: impl Fn(&Run) -> bool) -> impl Iterator<Item = &Finished> {
        self.entries.iter().filter(move |(run, _)| select(run)).filter_map(|(_, outcome)| match outcome {
            Outcome::Finished(finished) => Some(finished.as_ref()),
            _ => None,
        })
    }

    /// A final metric of the runs that `select` picks, one run a seed.
    ///
    /// # Errors
    /// Two runs of one seed, or a run that did not report the metric.
    pub fn samples(&self, metric: &str, select: impl Fn(&Run) -> bool) -> Result<Samples> {
        self.collect(metric, select, |finished| finished.metric(metric))
    }

    /// A number measured with a clock, of the runs that `select` picks; `seconds` is the worker's whole time.
    ///
    /// # Errors
    /// Two runs of one seed, or a run that did not measure it.
    pub fn timings(&self, name: &str, select: impl Fn(&Run) -> bool) -> Result<Samples> {
        self.collect(name, select, |finished| {
            if name == "seconds" {
                return Ok(finished.timing.seconds);
            }
            finished.timing.measured.get(name).copied().ok_or_else(|| Error::Need {
                run: finished.run.label(),
                need: format!("timing `{name}`"),
                reason: format!("it measured {:?}", finished.timing.measured.keys().collect::<Vec<_>>()),
            })
        })
    }

    /// A metric epoch by epoch: for each epoch the numbers of all runs that `select` picks and that logged it.
    pub fn history(&self, metric: &str, select: impl Fn(&Run) -> bool) -> Vec<(u64, Vec<f64>)> {
        let mut epochs = std::collections::BTreeMap::<u64, Vec<f64>>::new();
        for row in self.finished(select).flat_map(|finished| &finished.rows) {
            if let Some(&value) = row.values.get(metric) {
                epochs.entry(row.epoch).or_default().push(value);
            }
        }
        epochs.into_iter().collect()
    }

    fn collect(
        &self,
        metric: &str,
        select: impl Fn(&Run) -> bool,
        read: impl Fn(&Finished) -> Result<f64>,
    ) -> Result<Samples> {
        let mut samples = Samples::default();
        let mut seen = std::collections::BTreeMap::<u64, &Run>::new();
        for (run, outcome) in self.entries.iter().filter(|(run, _)| select(run)) {
            if let Some(first) = seen.insert(run.seed, run) {
                let describe = |run: &Run| format!("{} ({})", run.kind, run.id());
                let (first, second) = (describe(first), describe(run));
                return Err(Error::Ambiguous { seed: run.seed, first, second, metric: metric.into() });
            }
            match outcome {
                Outcome::Finished(finished) => samples.insert(run.seed, read(finished)?, [run.id()]),
                Outcome::Failed { reason, .. } => samples.miss(format!("{} failed: {reason}", run.label())),
                Outcome::Skipped { reason } => samples.miss(format!("{} was skipped: {reason}", run.label())),
            }
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceKind;
    use crate::finished::Timing;
    use crate::metrics::{Metrics, Row};

    fn entry(kind: &str, seed: u64, accuracy: Option<f64>) -> (Run, Outcome) {
        let run = Run::new("toy", kind, seed, &(), DeviceKind::Cpu).unwrap();
        let outcome =
            accuracy.map_or(Outcome::Failed { reason: "exit status 1".into(), log_tail: String::new() }, |accuracy| {
                let row = |epoch| Row { epoch, values: Metrics::from([("accuracy".into(), accuracy * epoch as f64)]) };
                Outcome::Finished(Box::new(Finished {
                    run: run.clone(),
                    dir: "runs/x".into(),
                    metrics: Metrics::from([("accuracy".into(), accuracy)]),
                    rows: vec![row(1), row(2)],
                    timing: Timing { seconds: 2.0, ..Timing::default() },
                    artifacts: Default::default(),
                }))
            });
        (run, outcome)
    }

    #[test]
    fn samples_are_paired_by_seed_and_failed_runs_are_reasons() {
        let results = Results::new(vec![
            entry("a", 0, Some(1.0)),
            entry("b", 0, Some(0.5)),
            entry("a", 1, Some(2.0)),
            entry("b", 1, None),
        ]);
        let of = |kind: &'static str| results.samples("accuracy", move |run| run.kind == kind).unwrap();
        let gain = of("a").minus(&of("b"));
        assert_eq!((gain.seeds(), gain.values()), (vec![0], vec![0.5]));
        assert_eq!(gain.missing(), ["toy b seed 1 failed: exit status 1"]);
        assert_eq!(gain.runs().len(), 2);
        assert_eq!(results.history("accuracy", |run| run.kind == "a"), [(1, vec![1.0, 2.0]), (2, vec![2.0, 4.0])]);
        assert_eq!(results.timings("seconds", |run| run.kind == "a").unwrap().values(), [2.0, 2.0]);
    }

    #[test]
    fn two_runs_of_one_seed_and_unknown_metrics_are_errors() {
        let results = Results::new(vec![entry("a", 0, Some(1.0)), entry("b", 0, Some(0.5))]);
        let error = results.samples("accuracy", |_| true).unwrap_err().to_string();
        assert!(error.contains("both a (") && error.contains("and b ("), "{error}");
        let error = results.samples("recall", |run| run.kind == "a").unwrap_err().to_string();
        assert!(error.contains("it reported accuracy"), "{error}");
        assert!(results.timings("step", |run| run.kind == "a").is_err());
    }
}
