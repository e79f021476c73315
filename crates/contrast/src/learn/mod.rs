//! Contrastive pre-training, robust pre-training and fine-tuning.
//!
//! | module's part | types |
//! |---|---|
//! | two views of an image | [`TwoViews`], [`ViewBatch`], [`SimClrAugmentation`] |
//! | SimCLR | [`SimClr`], [`nt_xent`], [`Projector`] |
//! | MoCo | [`MoCo`], [`info_nce`] |
//! | what features are worth | [`Features`], [`knn_accuracy`], [`retrieval_top1`] |
//!
//! Objectives take any [`Network`](core_tensor::nn::Network) with a [`Projector`], or any closure from images to
//! embeddings ([`Embed`]).

mod error;
mod evaluate;
mod moco;
mod nt_xent;
mod projector;
mod simclr;
mod views;

pub use error::{Error, Result};
pub use evaluate::{Features, KnnConfig, knn_accuracy, retrieval_top1};
pub use moco::{MoCo, MoCoConfig, MomentumState, Tower, info_nce};
pub use nt_xent::{Layout, nt_xent, nt_xent_plain};
pub use projector::{Embed, Projector, ProjectorConfig, projected};
pub use simclr::{SimClr, SimClrConfig};
pub use views::{SimClrAugmentation, TwoViews, ViewBatch};
