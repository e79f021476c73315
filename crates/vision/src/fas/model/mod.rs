//! The network, its losses, and how hard negatives are found.
//!
//! A backbone's feature feeds one branch a task: liveness, and whichever of depth, reflection and material are switched
//! on. Every branch has a vector, every proxy branch a map as well. An attention gives each branch's vector a weight of
//! its own, by what the branch says and by how sure it is; the weighted vectors decide.

mod attention;
mod backbone;
mod baselines;
mod cdc;
mod context;
mod losses;
mod mining;
mod network;
mod set;
mod source;

pub use attention::{
    Attention, kl_to_standard_normal, logit_normal_mean, logit_normal_sample, precision, softmax_share,
};
pub use backbone::{Backbone, PlainBackbone};
pub use baselines::{DeepPixBis, asymmetric_triplet, reversal_coefficient, reverse_gradient, ssdg_scale};
pub use cdc::CentralDifference;
pub use context::WithContext;
pub use losses::{Balance, LossWeights, ProxyObjective, ProxyTargets, contrastive_depth, heteroscedastic, proxy_loss};
pub use mining::{AttributeMiner, MiningStats};
pub use network::{Branches, Proxy, ProxyConfig, ProxyFas, ProxyOut, Task, weight_decay};
pub use set::{Columns, DepthPolicy, FasBatch, FasData, Policies, ReflectionPolicy};
pub use source::{Augment, FasSource, Sampling};
