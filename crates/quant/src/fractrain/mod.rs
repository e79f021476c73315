//! FracTrain (Fu et al., arXiv 2012.13113): spend precision only where and when it pays.
//!
//! Training costs three products a layer: forward, input gradient, weight gradient. Each is about as expensive as its two
//! operands are wide. Two knobs narrow them:
//!
//! - **PFQ**, in time: start with very few bits and add some whenever the loss stands still ([`Pfq`], an observer's schedule).
//! - **DFQ**, in space: a small recurrent gate picks, for every sample and every block, the bits of activations and
//!   gradients; a term in the loss steers the mean cost to a target ([`QuantFactory::gated`], [`WithGateCost`]).
//! - **FracTrain**: DFQ whose target rises as PFQ's bits do ([`FollowTarget::staged`]).
//!
//! | you want to | take |
//! |---|---|
//! | quantise a network without touching it | [`QuantFactory`], a [`LayerFactory`](core_tensor::nn::LayerFactory) |
//! | quantise a layer of your own | [`QuantFactory::site`] |
//! | change its precision | [`QuantHandle`], or a [`PrecisionSchedule`] through [`PrecisionController`] |
//! | round a tensor | [`Affine`], [`QParams`], [`round_per_sample`] |
//! | know what it cost | [`CostLedger`] |
//! | run the result with integers | [`export_int8`], [`Int8Model`]; [`Int8Factory`] for a network of your own |
//!
//! # How it is built
//! Rounding is one pass over memory (`kernel.rs`), compiled for AVX2 and AVX-512 too, on the threads that libtorch computes
//! with (`threads.rs`), with noise drawn by position, so that neither threads nor vectors change a bit of it. Gradients are rounded in a hook on a layer's output, and everything that is
//! straight-through is a graph node of its own that copies nothing ([`core_tensor::autograd::with_backward`]).
//!
//! A layer cannot return an error from its forward pass. A NaN or an infinity therefore passes unrounded and is noted;
//! [`PrecisionController`] turns the note into [`Error::NotFinite`] with the layer's name, if the loss has not already
//! stopped the training.

mod affine;
mod composed;
mod config;
mod error;
mod factory;
mod gate;
mod handle;
mod indicator;
mod int8;
mod kernel;
mod layer;
mod ledger;
mod memory;
mod noise;
mod norm;
mod precision;
mod schedule;
mod threads;

pub use affine::{Affine, Granularity, GridKind, QParams, Rounding, round_per_sample};
pub use config::{QuantConfig, RangeRule};
pub use error::{Error, Result, Warning};
pub use factory::QuantFactory;
pub use gate::{CostController, CpTarget, DfqConfig, DfqOption, FollowTarget, GatePass, Gates, WithGateCost};
pub use handle::QuantHandle;
pub use indicator::{AtEpochs, PlateauConfig, PlateauIndicator, StageIndicator};
pub use int8::{Int8Factory, Int8Model, export_int8};
pub use layer::QuantSite;
pub use ledger::{CostLedger, at_precision, step_cost};
pub use norm::RangeBatchNorm;
pub use precision::{Bits, Operand, Precision};
pub use schedule::{ByProgress, Cyclic, Pfq, PrecisionController, PrecisionSchedule};
