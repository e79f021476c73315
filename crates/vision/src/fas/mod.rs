//! Face anti-spoofing from physical cues.

mod error;
pub mod metrics;
pub mod model;
mod panel;
pub mod synth;

pub use error::{Error, Result};
pub use panel::Panel;
