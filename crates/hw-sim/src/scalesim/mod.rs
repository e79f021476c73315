//! SCALE-Sim's files and reports: its `.cfg` and topology CSV are read as they are, its report CSVs are written.
//!
//! With `InterfaceBandwidth: CALC` every figure of `COMPUTE_REPORT.csv`, `BANDWIDTH_REPORT.csv` and
//! `DETAILED_ACCESS_REPORT.csv` is the tool's own (release 3.0.0), off-by-ones included. With `USER` the compute
//! cycles are the tool's; the stalls are this crate's double-buffering model, because the tool adds a positive stall
//! twice and takes its read bandwidth from another key.

mod config;
mod line;
mod report;
mod topology;

pub use config::{Interface, ScaleSimConfig, Sparsity};
pub use report::{LayerReport, Reports, run};
pub use topology::{Topology, TopologyKind, TopologyLayer, TopologyShape};
