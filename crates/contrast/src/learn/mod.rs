//! Contrastive pre-training, robust pre-training and fine-tuning.
//!
//! | module's part | types |
//! |---|---|
//! | two views of an image | [`TwoViews`], [`ViewBatch`], [`SimClrAugmentation`] |
//! | SimCLR | [`SimClr`], [`nt_xent`], [`Projector`] |
//! | MoCo | [`MoCo`], [`info_nce`] |
//! | ACL | [`Acl`], [`Formulation`]; [`DualBatchNorm`], [`BranchSwitch`], [`extract`] |
//! | fine-tuning | [`fine_tuned`], [`RobustTraining`]: standard, PGD adversarial training, TRADES, MART, Gaussian noise |
//! | few labels | [`SemiSplit`], [`pseudo_labels`], [`SemiSupervised`] |
//! | what features are worth | [`Features`], [`linear_probe`], [`knn_accuracy`], [`retrieval_top1`] |
//!
//! Objectives take any [`Network`](core_tensor::nn::Network) with a [`Projector`], or any closure from images to
//! embeddings ([`Embed`]).

mod acl;
mod dual_norm;
mod error;
mod evaluate;
mod fine_tune;
mod moco;
mod nt_xent;
mod probe;
mod projector;
mod robust;
mod semi;
mod simclr;
mod views;

pub use acl::{Acl, AclConfig, Formulation};
pub use dual_norm::{Branch, BranchSwitch, DualBatchNorm, DualNorm, extract};
pub use error::{Error, Result};
pub use evaluate::{Features, KnnConfig, knn_accuracy, retrieval_top1};
pub use fine_tune::{Scope, fine_tuned};
pub use moco::{MoCo, MoCoConfig, MomentumState, Tower, info_nce};
pub use nt_xent::{Layout, nt_xent, nt_xent_plain};
pub use probe::{LinearHead, ProbeConfig, linear_probe};
pub use projector::{Embed, Projector, ProjectorConfig, projected};
pub use robust::{Defence, Logits, RobustConfig, RobustLoss, RobustTraining, mart_loss, trades_loss};
pub use semi::{SemiBatch, SemiConfig, SemiLoader, SemiSplit, SemiSupervised, pseudo_label_accuracy, pseudo_labels};
pub use simclr::{SimClr, SimClrConfig};
pub use views::{SimClrAugmentation, TwoViews, ViewBatch};
