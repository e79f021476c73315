//! What a network costs on an accelerator: cycles, traffic, energy, latency. No libtorch.

pub mod accelerator;
pub mod bitfusion;
pub mod comparison;
pub mod cost;
pub mod engine;
mod error;
pub mod loopnest;
pub mod networks;
pub mod scalesim;
pub mod stall;
pub mod systolic;
pub mod task;
pub mod training;

pub use accelerator::Accelerator;
pub use cost::{LayerCost, NetworkCost};
pub use error::HwError;
