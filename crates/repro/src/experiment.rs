//! What an experiment is: plan runs, compute one, judge all.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::context::RunContext;
use crate::data::{DataRoot, DataUse};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::results::Results;
use crate::run::Run;
use crate::section::Section;

/// A paper's claims, re-run. One file an experiment, one row in the [`Registry`]; everything else (processes, resume,
/// progress, statistics, report) comes for free.
pub trait Experiment: Send + Sync {
    /// Its name on the command line, such as `kd-ticket`.
    fn paper(&self) -> &'static str;

    /// The paper's title.
    fn title(&self) -> &'static str;

    /// Authors, year and where to find it.
    fn reference(&self) -> &'static str;

    /// The paper's idea in three sentences.
    fn idea(&self) -> &'static str;

    /// The runs that the tier asks for, with the data at hand. Planning computes nothing and is quick.
    ///
    /// # Errors
    /// Data that is there and cannot be read.
    fn plan(&self, ask: &Ask) -> anyhow::Result<Plan>;

    /// Computes one of the planned runs, in a worker process, and returns its final metrics.
    ///
    /// # Errors
    /// Whatever goes wrong; it ends up in the run's log, and the other runs go on.
    fn execute(&self, run: &Run, context: &mut RunContext) -> anyhow::Result<Metrics>;

    /// Turns results into claims, curves, tables and pictures. Runs that failed are missing from `results` with their
    /// reasons; a claim that lacks some of them is inconclusive at best, one that lacks them all is `not run`.
    ///
    /// # Errors
    /// Samples that are not finite, metrics that two runs answer for, artifacts that cannot be read.
    fn judge(&self, ask: &Ask, results: &Results) -> anyhow::Result<Section>;
}

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// All papers together in ten to fifteen minutes on 2 cores.
    Quick,
    /// Half an hour to two hours a paper on 2 cores.
    Standard,
    /// The paper's own models and data, with a GPU; some papers only say what they would need.
    Paper,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Paper => "paper",
        })
    }
}

/// What was asked on the command line.
#[derive(Debug, Clone)]
pub struct Ask {
    /// How far to go.
    pub tier: Tier,
    /// Seeds, when the tier's own number is not wanted.
    pub seeds: Option<u64>,
    /// Where to compute.
    pub device: Device,
    /// Where data sets lie.
    pub data: DataRoot,
}

impl Ask {
    /// The seeds to use: as many as were asked for, else `default`.
    pub fn seeds(&self, default: u64) -> std::ops::Range<u64> {
        0..self.seeds.unwrap_or(default)
    }

    /// A run on the device that was asked for.
    ///
    /// # Errors
    /// Parameters that JSON cannot hold.
    pub fn run(&self, paper: &str, kind: &str, seed: u64, params: &impl Serialize) -> Result<Run> {
        Run::new(paper, kind, seed, params, self.device.kind())
    }
}

/// The runs of an experiment and the data that they use.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In the order in which they should start, as far as needs allow.
    pub runs: Vec<Planned>,
    /// For the report.
    pub data: Vec<DataUse>,
}

/// A run, and how long it takes.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The run.
    pub run: Run,
    /// Seconds on one core, roughly: its share in the progress bar, which papers share, so that all count in one unit.
    pub effort: f64,
}

impl Plan {
    /// Adds a run of about a second, unless it is there already, and gives it back for others to need.
    pub fn add(&mut self, run: Run) -> Run {
        self.add_weighted(run, 1.0)
    }

    /// Adds a run of about `effort` seconds on one core.
    pub fn add_weighted(&mut self, run: Run, effort: f64) -> Run {
        if !self.runs.iter().any(|planned| planned.run == run) {
            self.runs.push(Planned { run: run.clone(), effort });
        }
        run
    }
}

/// The table of experiments, and what a report says about the program.
pub struct Registry {
    /// A row an experiment, in the order of the report.
    pub experiments: Vec<Box<dyn Experiment>>,
    /// Called first in every worker. With libtorch it must set one thread: how a sum is split among threads changes its
    /// rounding, and a result must not depend on how many workers there are.
    pub prepare_worker: fn(),
    /// How this program is called, for "run it again".
    pub program: &'static str,
    /// Versions worth a line in the report, such as libtorch's.
    pub versions: Vec<(&'static str, String)>,
}

impl Registry {
    /// The experiment of a paper.
    ///
    /// # Errors
    /// A name that no row has; the error lists those that there are.
    pub fn find(&self, paper: &str) -> Result<&dyn Experiment> {
        let found = self.experiments.iter().find(|experiment| experiment.paper() == paper);
        found.map(Box::as_ref).ok_or_else(|| Error::UnknownPaper {
            found: paper.into(),
            choices: self.experiments.iter().map(|experiment| experiment.paper().into()).collect(),
        })
    }

    /// The experiments of the papers asked for, each once, in the order of the table; all when none is named.
    ///
    /// # Errors
    /// A name that no row has.
    pub fn select(&self, papers: &[String]) -> Result<Vec<&dyn Experiment>> {
        for paper in papers {
            self.find(paper)?;
        }
        let asked =
            |experiment: &&dyn Experiment| papers.is_empty() || papers.iter().any(|paper| paper == experiment.paper());
        Ok(self.experiments.iter().map(Box::as_ref).filter(asked).collect())
    }
}
