//! Tickets of pre-trained networks and what becomes of them on other tasks (Chen et al., arXiv 2012.06908).
//!
//! ```text
//! published or own weights ─Pretrained::load→ θ_p ─Imp→ tickets (m, θ_p) ─Ticket::transfer→ a network for another task
//!                                                        └─MaskComparison, Profile: how masks differ
//! scores of several runs ─largest_matching→ the sparsity up to which the ticket is as good as the dense network
//! ```
//!
//! | part | types |
//! |---|---|
//! | published checkpoints by layout | [`Pretrained`] |
//! | how alike two masks are, layer by layer | [`MaskComparison`], [`Profile`] |
//! | what perturbing a mask costs | [`Perturbation`] |
//! | whether two solutions lie in one valley | [`LinearPath`] |
//! | as good as the dense network, up to which sparsity | [`Matching`], [`largest_matching`] |
//! | other tasks | [`SceneGenerator`], [`Segmenter`] with [`Confusion`], [`Detector`] with [`average_precision`] |

mod compare;
mod connectivity;
mod detection;
mod matching;
mod perturb;
mod precision;
mod pretrained;
mod profile;
mod scenes;
mod segmentation;
mod taps;

pub use compare::{LayerComparison, MaskComparison};
pub use connectivity::LinearPath;
pub use detection::{DetectionConfig, Detector};
pub use matching::{Bracket, Matching, largest_matching};
pub use perturb::Perturbation;
pub use precision::{AveragePrecision, Detection, Object, average_precision};
pub use pretrained::Pretrained;
pub use profile::{LayerProfile, Profile};
pub use scenes::{SceneBatch, SceneGenerator, SceneLoader, Scenes};
pub use segmentation::{Confusion, IGNORED, Segmenter};
