//! Attentive grouping for deep metric learning.

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
