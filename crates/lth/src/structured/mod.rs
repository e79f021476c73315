//! Structured early-bird tickets for transformers: EarlyBERT (Chen et al., arXiv 2101.00063).
//!
//! ```text
//! search   θ₀ + coefficients c = 1 on heads and neurons ──train with λ·|c|₁ for a few hundred steps (Search)──► scores c
//! draw     the smallest scores go: heads layer by layer, neurons over all layers (DrawConfig) ──► TicketMask
//! train    θ₀ without those heads and neurons (prune) ──train as usual──► a smaller dense model
//! ```
//!
//! | you want | you take |
//! |---|---|
//! | coefficients in any network written against a `LayerFactory` | [`Slimming`] |
//! | the L1 penalty on them | [`SlimmedObjective`], or [`slim_penalty`] in a loop of your own |
//! | to record them, to notice that the ticket has settled, and to stop | [`Search`], [`DrawRule`] |
//! | to turn scores into a ticket | [`DrawConfig::draw`] |
//! | to cut for real | [`prune`], [`fold`], [`pruned_config`] |
//! | to begin at published weights | `core_tensor::networks::bert::load_weights_keeping` with [`COEFFICIENT`] |
//! | other tickets to compare with | [`DrawConfig::random`], [`TicketMask::random_matched`], [`Scores::inverted`], [`magnitude`], [`first_order`], [`keep_layers`] |
//!
//! Nothing here knows BERT but [`bert_groups`], [`pruned_config`] and [`keep_layers`]: a model of your own is a list of
//! [`SlimGroup`]s that says which rows and columns of which tensors belong to a head or a neuron; the crate's README
//! has one with a fused projection to queries, keys and values.
//!
//! Why it works on signs and not sizes: `∂L/∂c_h = ⟨∂L/∂out_h, out_h⟩`. A head whose output does not matter feels the
//! penalty alone and sinks; one whose louder voice would lower the loss rises. After `n` steps of Adam no coefficient is
//! further than the summed learning rates from 1, so that the ranking sits in the third to sixth decimal: keep
//! coefficients in `f32`, and never round them. [`coefficients`] refuses halves.

mod baselines;
mod bert;
mod draw;
mod group;
mod prune;
mod search;
mod slimming;
mod ticket;

pub use baselines::{every_other, first_order, keep_layers, magnitude};
pub use bert::{bert_groups, pruned_config};
pub use draw::{Cut, DrawConfig, Drawn, Scores, Threshold};
pub use group::{Follower, SlimGroup, coefficients};
pub use prune::{LayerCut, PruneReport, fold, prune};
pub use search::{CoefficientTrace, DrawRule, Found, Search, SearchConfig};
pub use slimming::{COEFFICIENT, SlimConfig, Slimmed, SlimmedObjective, Slimming, slim_parameters, slim_penalty};
pub use ticket::{TicketMask, chance_distance, mask_distances};

#[cfg(test)]
mod tests;
