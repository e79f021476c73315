//! Learning with SmartDeal: projecting a dense network after every epoch, or training coefficients and bases themselves.

mod coefficients;
mod factory;
mod retraining;
mod weight;

pub use coefficients::{BucketSwitch, CoefficientMode, CoefficientUpdate, UpdateConfig, switch};
pub use factory::{SdTrainConfig, SdTrainingFactory, SdWeights};
pub use retraining::AlternateRetraining;
pub use weight::SdWeight;
