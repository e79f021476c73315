//! The training loop, what it minimises, and what watches it.
//!
//! The loop ([`Trainer::fit`]) fits on one screen and knows nothing of pruning, quantisation or logging: a method that
//! changes the loss is an [`Objective`], a method that acts between steps is an [`Observer`].
//!
//! ```
//! use core_tensor::data::{Batch, BatchSource};
//! use core_tensor::networks::Architecture;
//! use core_tensor::nn::Standard;
//! use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
//! use core_tensor::train::{CrossEntropy, TrainConfig, Trainer};
//! use tch::{Device, Kind, Tensor, nn};
//!
//! /// Two batches of random images, the same in every epoch.
//! struct Noise;
//! impl BatchSource for Noise {
//!     type Batch = Batch;
//!     fn batches_per_epoch(&self) -> u64 {
//!         2
//!     }
//!     fn epoch(&self, _: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
//!         Ok(Box::new((0..2).map(|_| {
//!             let input = Tensor::rand([8, 1, 28, 28], (Kind::Float, Device::Cpu));
//!             Ok(Batch { input, target: Tensor::arange(8, (Kind::Int64, Device::Cpu)), index: (0..8).collect() })
//!         })))
//!     }
//! }
//!
//! let store = nn::VarStore::new(Device::Cpu);
//! let network = Architecture::LeNet300100 { classes: 10 }.build(&store.root(), &Standard)?;
//! let mut objective = CrossEntropy::new(network.as_ref());
//! let mut optimizer = Sgd::new(parameters(&store, 5e-4), SgdConfig::default())?;
//! let config = TrainConfig { epochs: 3, seed: 0, schedule: Schedule::Constant { peak: 0.05 } };
//! let progress = Trainer::new(config, &mut objective, &mut optimizer)?.fit(&Noise)?;
//! assert_eq!((progress.epoch, progress.step), (3, 6));
//! # Ok::<(), core_tensor::Error>(())
//! ```

mod clip;
mod metrics;
mod objective;
mod observer;
mod resume;
mod trainer;

pub use clip::ClipNorm;
pub use metrics::{Evaluation, evaluate};
pub use objective::{CrossEntropy, Loss, Objective};
pub use observer::{Control, EachEpoch, EpochReport, Observer, StepContext};
pub use trainer::{TrainConfig, Trainer};

use serde::{Deserialize, Serialize};

/// How far a training has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs completed; during an epoch, its number from 0.
    pub epoch: u64,
    /// Optimizer steps completed; during a step, its number from 0.
    pub step: u64,
}
