//! Measuring and showing how far a network's features depend on where an object is (Lee, Yang and Wang, *What Does CNN Shift
//! Invariance Look Like?*, arXiv 2011.04127).
//!
//! ```text
//! Sprite ─Placer, ShiftGrid→ images ─FeatureExtractor→ features ─ShiftStudy→ ShiftMaps → SimilarityMap, measures
//! ```
//!
//! | you want | you take |
//! |---|---|
//! | an object at every position | [`Sprite`], [`ShiftGrid`], [`Placer`] |
//! | features at named layers of a network | [`NetworkProbe`], or a closure |
//! | maps of similarity to any anchor | [`ShiftStudy::run`], [`ShiftMaps::similarity`] |
//! | the same over millions of images | [`ShiftStudy::stream`], [`MeanMaps`] |
//! | the same at a fraction of the cost, exactly | [`reuse::ConvProgram`] |
//! | numbers of a map | [`SimilarityMap`]: local and global drop, jaggedness, profile, stride spectrum, repetition |
//! | consistency of a classifier | [`CropConsistency`], [`circular_consistency`], [`roll_change`], [`ShiftMaps::one_step_changes`] |
//! | whether a layer's maps move as the image does | [`equivariance_error`] |
//! | whether features say where the object is | [`LinearSvm::separability`], [`arithmetic`] |
//! | to see it all and drag the object about | [`Page`] |
//! | networks that do better | [`AntiAlias`]: [`BlurPool2d`], [`ApsPool2d`], circular or full borders |

mod antialias;
mod aps;
mod blur;
mod consistency;
mod equivariance;
mod error;
mod extractor;
mod grid;
mod page;
mod position;
pub mod reuse;
mod scene;
mod similarity;
mod statistics;
mod study;

pub use antialias::{AntiAlias, AntiAliasConfig, Borders, Reduction};
pub use aps::{ApsConfig, ApsNorm, ApsPool2d, OddSides};
pub use blur::{BlurConfig, BlurPadding, BlurPool2d, binomial_taps};
pub use consistency::{CropConsistency, Neighbours, RollChange, circular_consistency, roll_change};
pub use equivariance::equivariance_error;
pub use error::{Error, Result};
pub use extractor::{FeatureExtractor, LOGITS, MapFeature, NetworkProbe};
pub use grid::{Anchor, ShiftGrid};
pub use page::{Page, PageConfig};
pub use position::{Arithmetic, Folds, Halves, LinearSvm, Separability, arithmetic};
pub use scene::{Background, Blend, Motion, Picture, Placer, Sprite};
pub use similarity::{ProfilePoint, Similarity, SimilarityMap};
pub use statistics::bootstrap_interval;
pub use study::{MeanMap, MeanMaps, Predictions, ShiftMaps, ShiftStudy};
