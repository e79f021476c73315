//! What a network costs on an accelerator: cycles, traffic, energy, latency. No libtorch.
//!
//! A [`Workload`](core_tensor::workload::Workload) (layers, shapes, densities, bits) meets an [`Accelerator`] (an engine,
//! memory levels, unit energies) and becomes a [`NetworkCost`].
//!
//! ```
//! use hw_sim::{Accelerator, networks};
//!
//! let net = networks::with_bits(networks::builtin("resnet18")?, [8, 8, 8]);
//! let cost = Accelerator::preset("eyeriss-like")?.cost(&net)?;
//! println!("{:.2} ms, {:.0} µJ", cost.latency_ms(), cost.energy_pj() * 1e-6);
//! # Ok::<(), hw_sim::HwError>(())
//! ```
//!
//! # How it is built
//! - [`task`] turns a pass of a layer into loop bounds. Everything below sees only those.
//! - [`engine`] has one file a kind of array: cycles and accesses, in closed form. Pricing and stalls are common to all.
//! - [`systolic`], [`scalesim`] and [`bitfusion`] equal public simulators figure by figure and are usable alone.
//! - [`loopnest`] counts any nest and searches mappings.
//! - [`comparison`] and [`training`] put costs side by side and integrate them over time.
//!
//! Counts are 64-bit integers, formed in 128 bits where they could overflow, and an error where they do. Nothing here prints,
//! panics on bad input, or depends on the number of threads.

pub mod accelerator;
pub mod bitfusion;
pub mod comparison;
pub mod cost;
pub mod engine;
mod error;
mod explain;
pub mod loopnest;
pub mod networks;
mod parallel;
pub mod published;
pub mod scalesim;
mod sram;
pub mod stall;
pub mod systolic;
pub mod table;
pub mod task;
pub mod training;

pub use accelerator::Accelerator;
pub use cost::{LayerCost, NetworkCost};
pub use error::HwError;
pub use explain::explain;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
