//! Face anti-spoofing from physical cues (Wu et al., arXiv 2011.14054).
//!
//! A living face has a face's depth, mirrors little light, and is made of skin, whatever camera looks at it. A detector that
//! predicts depth, reflection and material beside liveness, and weighs them by how sure it is of each, is asked to
//! hold where cameras, light and attacks are new.
//!
//! | module | what it has |
//! |---|---|
//! | [`synth`] | rendered faces and attacks with true depth, reflection and material |
//! | [`model`] | the network, attentions, losses, mining, batches, rivals |
//! | [`metrics`] | error rates as ISO/IEC 30107-3 defines them, with thresholds that never see a test set |
//! | [`data`] | published sets as they are laid out, cutting faces out, and protocols on generated domains |
//!
//! [`Detector`] keeps a trained network with its preprocessing and threshold in one file.
//!
//! The paper's body could not be read; see `docs/papers/fas.md` for what is the paper's and what is this project's. A
//! detector trained on generated faces has **no validity on real ones**.

pub mod data;
mod detector;
mod error;
pub mod metrics;
pub mod model;
mod panel;
pub mod synth;

pub use detector::{Assessment, Decision, Detector, DetectorConfig, Reason};
pub use error::{Error, Result};
pub use panel::Panel;
