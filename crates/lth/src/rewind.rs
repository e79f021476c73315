//! Where re-training starts.

use crate::{Error, Result};
use core_tensor::optim::{NamedTensors, Schedule};
use serde::{Deserialize, Serialize};
use tch::Tensor;

mod controls;
mod snapshots;

pub use controls::reinitialise;
pub use snapshots::Snapshots;

/// Where the re-training of a pruned network starts: from which weights of the dense training, and at which step of its
/// schedule. `T` is the number of steps of the dense training.
///
/// | | weights | schedule from | steps |
/// |---|---|---|---|
/// | `Init` (Frankle and Carbin, arXiv 1803.03635) | `θ_0` | 0 | `T` |
/// | `Step(k)` (Frankle et al., arXiv 1903.01611) | `θ_k` | `k` | `T − k` |
/// | `LearningRate(k)` (Renda et al., arXiv 2003.02389) | `θ_T` | `k` | `T − k` |
/// | `FineTune` | `θ_T` | the last learning rate throughout | `T` |
///
/// Weights means all variables: biases, batch-norm scales and *running statistics* too. The optimizer starts anew. A KD
/// ticket is `Init` with a [`Distillation`](crate::Distillation) objective; KD with rewinding is `Step(k)` with one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rewind {
    /// The original lottery ticket.
    Init,
    /// Weight rewinding to a step.
    Step(u64),
    /// Weight rewinding to a fraction of the dense training, in `[0, 1]`, rounded to a step, halves to even.
    Fraction(f64),
    /// Learning-rate rewinding to a step.
    LearningRate(u64),
    /// Fine-tuning at the last learning rate.
    FineTune,
}

/// What a [`Rewind`] means for a given dense training.
#[derive(Debug, Clone, PartialEq)]
pub struct Retraining {
    /// The step of the dense training whose weights are taken.
    pub weights_from: u64,
    /// The step of the schedule at which re-training starts.
    pub start_step: u64,
    /// Steps of re-training.
    pub steps: u64,
    /// The learning rate by step of the re-training.
    pub schedule: Schedule,
}

impl Rewind {
    /// Where to start after a dense training of `total` steps under `schedule`.
    ///
    /// # Errors
    /// A rewinding point beyond the end, or a schedule that makes no sense.
    pub fn plan(&self, schedule: &Schedule, total: u64) -> Result<Retraining> {
        schedule.validate()?;
        let step = |step: u64| {
            let within = || Error::setting("rewind step", format!("at most the {total} of the training"), step);
            if step <= total { Ok(step) } else { Err(within()) }
        };
        let from = |weights_from, start_step| Retraining {
            weights_from,
            start_step,
            steps: total - start_step,
            schedule: schedule.clone().starting_at(start_step),
        };
        Ok(match *self {
            Self::Init => from(0, 0),
            Self::Step(k) => from(step(k)?, k),
            Self::Fraction(fraction) if (0.0..=1.0).contains(&fraction) => {
                let k = (fraction * total as f64).round_ties_even() as u64;
                from(k, k)
            }
            Self::Fraction(fraction) => return Err(Error::setting("rewind fraction", "in [0, 1]", fraction)),
            Self::LearningRate(k) => from(total, step(k)?),
            Self::FineTune => {
                let peak = schedule.learning_rate(total.saturating_sub(1));
                Retraining { weights_from: total, start_step: 0, steps: total, schedule: Schedule::Constant { peak } }
            }
        })
    }
}

/// Copies of tensors, detached from their graph: what a model's state must become to outlive its training.
pub fn copies<'a>(tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>) -> NamedTensors {
    tensors.into_iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy())).collect()
}

#[cfg(test)]
mod tests;
