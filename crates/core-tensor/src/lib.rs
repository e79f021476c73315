//! What every method shares: networks, data, training, checkpoints, and the workload that hardware models price.
//!
//! Data flows one way:
//!
//! ```text
//! data → Batch → Objective(network built from a LayerFactory) → Trainer(+ Observers) → checkpoint
//!                              └─ Workload → hardware models
//! ```
//!
//! | module | one job |
//! |---|---|
//! | [`workload`] | layers, shapes, densities, bits; MAC and parameter counts. The only module without libtorch. |
//! | [`nn`] | the layer factory that networks are written against, and the [`nn::Network`] trait |
//! | [`networks`] | LeNets, CIFAR and ImageNet ResNets, VGG, MobileNetV2, BERT, with published parameter names |
//! | [`data`] | readers of published formats, generators, augmentation, the prefetching batch loader |
//! | [`text`] | WordPiece, GLUE and SQuAD with their metrics, corpora for masked and causal language models |
//! | [`optim`] | optimizers whose state can be saved, learning-rate schedules |
//! | [`train`] | the training loop, objectives, observers, metrics |
//! | [`checkpoint`] | safetensors with a JSON header, PyTorch zip-pickles read for tensors only |
//! | [`autograd`] | gradient hooks and straight-through estimators |
//! | [`bridge`] | between `ndarray` and libtorch: the same values, or a typed refusal |
//! | [`seed`] | one `u64` for everything random |
//!
//! Without the default feature `torch` only [`workload`] is left and nothing links libtorch.

pub mod workload;

#[cfg(feature = "torch")]
pub mod autograd;
#[cfg(feature = "torch")]
pub mod bridge;
#[cfg(feature = "torch")]
pub mod checkpoint;
#[cfg(feature = "torch")]
pub mod data;
#[cfg(feature = "torch")]
mod error;
#[cfg(feature = "torch")]
pub mod networks;
#[cfg(feature = "torch")]
pub mod nn;
#[cfg(feature = "torch")]
pub mod optim;
#[cfg(feature = "torch")]
pub mod seed;
#[cfg(feature = "torch")]
pub mod text;
#[cfg(feature = "torch")]
pub mod train;

#[cfg(feature = "torch")]
pub use error::{Error, Result};

#[cfg(all(doctest, feature = "torch"))]
#[doc = include_str!("../README.md")]
struct Readme;
