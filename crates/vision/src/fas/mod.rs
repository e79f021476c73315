//! Face anti-spoofing from physical cues.

mod error;
pub mod metrics;
pub mod synth;

pub use error::{Error, Result};
