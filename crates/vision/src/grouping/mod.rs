//! Attentive grouping for deep metric learning (Xu, Wang, Deng, Yuan and Ji, arXiv 2011.08877), and the metric learning around it.
//!
//! ```text
//! images ─backbone→ feature map ─GroupingHead→ GroupEmbedding ─GroupLoss (miner, loss a group, diversity)→ training
//!                                                    └─concat→ Evaluator, RetrievalIndex; attention → pictures
//! ```
//!
//! | you want to | start at |
//! |---|---|
//! | embed with groups that look at places | [`AttentiveGrouping`], or a [`Baseline`] to compare with |
//! | train | [`GroupLoss`], [`GroupingObjective`], [`PkLoader`] |
//! | choose a loss | [`MetricLoss`] and what implements it |
//! | choose pairs | [`Miner`] and what implements it, [`CrossBatchMemory`] |
//! | measure | [`Evaluator`], [`RetrievalIndex`] |
//! | read published sets | [`data`] |
//!
//! Losses, miners and evaluation take plain embeddings and labels, and know nothing of groups.

mod attention;
mod baselines;
mod conv4;
pub mod data;
mod diversity;
mod embedded;
mod error;
mod evaluate;
mod group_loss;
mod head;
mod losses;
mod memory;
mod miners;
mod pictures;
mod sampler;
mod search;

pub use attention::{AttentiveGrouping, AttentiveGroupingConfig, Remainder};
pub use baselines::{Baseline, BaselineConfig, BaselineKind};
pub use conv4::{Conv4, Padding, feature_map};
pub use diversity::{DiversityConfig, diversity_loss};
pub use embedded::{Embedded, Mined};
pub use error::{Error, Result};
pub use evaluate::{Evaluator, KMeans, QueryOutcome, RetrievalReport, normalised_mutual_information};
pub use group_loss::{GroupLoss, GroupLossParts, GroupingObjective, OnNothing, Role};
pub use head::{GroupEmbedding, GroupingHead};
pub use losses::{
    Averaging, BinomialDeviance, Contrastive, Lifted, Margin, MarginConfig, MetricLoss, MultiSimilarity, NPair,
    NormalisedSoftmax, ProxyAnchor, ProxyAnchorConfig, ProxyNca, ProxyNcaConfig, Triplet,
};
pub use memory::CrossBatchMemory;
pub use miners::{
    AllTriplets, BatchHard, DistanceWeighted, Miner, MultiSimilarityMiner, RandomTriplets, SemiHard, negative_weights,
};
pub use pictures::{attention_sheet, neighbour_sheet};
pub use sampler::{PkLoader, PkSampler};
pub use search::{Distance, Neighbours, RetrievalIndex};
