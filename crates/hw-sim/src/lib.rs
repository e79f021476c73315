//! What a network costs on an accelerator: cycles, traffic, energy, latency. No libtorch.

pub mod bitfusion;
mod error;
pub mod scalesim;
pub mod stall;
pub mod systolic;

pub use error::HwError;
