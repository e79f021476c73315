//! From a paper's claim to a verdict with its evidence.
//!
//! ```text
//! Experiment ─plan→ Runs ─executor→ worker processes ─→ runs/<id>/ ─judge→ Claims ─→ report.{json,html,md}
//! ```
//!
//! | thing | what it is |
//! |---|---|
//! | [`Run`] | a description; the hash of its canonical JSON names its folder |
//! | [`Experiment`] | plans runs, computes one, judges all: one file and one row in a [`Registry`] |
//! | [`RunContext`] | metrics, checkpoints, artifacts, data and progress, for the experiment that computes a run |
//! | [`Results`], [`Samples`] | what was measured, paired by seed |
//! | [`Claim`] | an inequality; its [`Verdict`] can only be computed |
//! | [`main_with`] | the command line over all of it |
//!
//! Why processes: a crash or a failed run stops nothing else, one thread a worker makes results independent of how many
//! work, and a run directory needs no database to be shared by a cluster. Why hashes: a finished run is never computed
//! twice, and a changed setting is another run. Why every file is replaced as a whole, and `done.json` comes last: a run
//! that is killed at any moment goes on from its last checkpoint and ends bit-identical.

mod claim;
mod cli;
mod context;
mod data;
mod device;
mod durable;
mod error;
mod executor;
mod experiment;
mod finished;
mod home;
mod machine;
mod metrics;
mod progress;
mod report;
mod results;
mod run;
mod samples;
pub mod section;
pub mod statistics;
mod tensorboard;
mod worker;

pub use claim::{Claim, JudgedClaim, Over, Relation, Test, Verdict};
pub use cli::main_with;
pub use context::{Checkpoint, RunContext};
pub use data::{DataRoot, DataSource, DataUse};
pub use device::{Device, DeviceKind};
pub use durable::Fingerprint;
pub use error::{Error, Result};
pub use experiment::{Ask, Experiment, Plan, Planned, Registry, Tier};
pub use finished::{Finished, Timing};
pub use home::{RunHome, RunStore, SCHEMA};
pub use metrics::{Metrics, Row};
pub use report::REPORT_SCHEMA;
pub use results::{Outcome, Results};
pub use run::{Run, RunId};
pub use samples::Samples;
pub use section::Section;
pub use statistics::Interval;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
