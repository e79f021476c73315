//! Face anti-spoofing from physical cues.

mod error;
pub mod synth;

pub use error::{Error, Result};
