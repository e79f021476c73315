//! The ways to re-train a ticket that the paper compares, and its controls.

use crate::experiments::training::Recipe;
use lth::{DistillConfig, Rewind};
use serde::{Deserialize, Serialize};

/// A way to re-train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arm {
    /// The original lottery ticket: first weights, hard labels.
    Original,
    /// The recipe's own initialisation with another seed, under the same mask.
    Redrawn,
    /// Fresh weights of a variance that counts live weights, under the same mask.
    Reinitialised,
    /// First weights under a mask shuffled within each layer.
    RandomMask,
    /// Weights (and schedule) of step `k`.
    WeightRewind(u64),
    /// Last weights, schedule of step `k`.
    LearningRateRewind(u64),
    /// The KD ticket: first weights, soft labels.
    Kd(DistillConfig),
    /// Soft labels from the weights of step `k`.
    KdWeightRewind(u64, DistillConfig),
    /// Soft labels from the last weights under the schedule of step `k`.
    KdLearningRateRewind(u64, DistillConfig),
    /// Soft labels averaged within true classes: a gain that survives this needs no teacher of single images.
    KdOfClasses(DistillConfig),
    /// The true class at the teacher's mean confidence, all others alike: a gain that survives this is one of smoothing.
    KdUniform(DistillConfig),
}

/// A ticket run's parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketParams {
    /// The arm's name.
    pub(super) label: String,
    pub(super) recipe: Recipe,
    pub(super) density: f64,
    /// Layers that keep all weights.
    pub(super) unpruned: Vec<String>,
    pub(super) rewind: Rewind,
    pub(super) start: Start,
    pub(super) shuffle_mask: bool,
    pub(super) teacher: Teacher,
}

/// The weights under the mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Start {
    /// Those of the rewinding point.
    Rewound,
    /// The recipe's initialisation with another seed.
    Redrawn,
    /// Drawn with variance 2/`n_eff`, `n_eff` the mean number of live weights that an input channel feeds.
    Reinitialised,
}

/// Who gives the labels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Teacher {
    /// The data set.
    None,
    /// The dense network too.
    Dense(DistillConfig),
    /// The dense network, each image getting the mean soft label of its true class.
    OfClasses(DistillConfig),
    /// The true class at the dense network's mean confidence in it; what is left is shared by the others alike.
    Uniform(DistillConfig),
}

impl Arm {
    /// As reports name it.
    pub(super) fn label(self) -> String {
        let settings = |config: DistillConfig| format!("(τ {}, α {})", config.temperature, config.alpha);
        match self {
            Self::Original => "LT".into(),
            Self::Redrawn => "redrawn".into(),
            Self::Reinitialised => "reinit".into(),
            Self::RandomMask => "random mask".into(),
            Self::WeightRewind(k) => format!("WR from {k}"),
            Self::LearningRateRewind(k) => format!("LRR from {k}"),
            Self::Kd(config) => format!("KD {}", settings(config)),
            Self::KdWeightRewind(k, config) => format!("KD {} + WR from {k}", settings(config)),
            Self::KdLearningRateRewind(k, config) => format!("KD {} + LRR from {k}", settings(config)),
            Self::KdOfClasses(config) => format!("KD {} of classes", settings(config)),
            Self::KdUniform(config) => format!("KD {} uniform off-class", settings(config)),
        }
    }

    /// The parameters of its run.
    pub(super) fn params(self, recipe: &Recipe, density: f64, unpruned: &[String]) -> TicketParams {
        let rewind = match self {
            Self::WeightRewind(k) | Self::KdWeightRewind(k, _) => Rewind::Step(k),
            Self::LearningRateRewind(k) | Self::KdLearningRateRewind(k, _) => Rewind::LearningRate(k),
            _ => Rewind::Init,
        };
        let start = match self {
            Self::Redrawn => Start::Redrawn,
            Self::Reinitialised => Start::Reinitialised,
            _ => Start::Rewound,
        };
        let teacher = match self {
            Self::Kd(config) => Teacher::Dense(config),
            Self::KdWeightRewind(k, config) | Self::KdLearningRateRewind(k, config) => {
                // The last epoch of soft labels is one of the schedule, which starts at `k`; the loss counts from there.
                let skipped = k / recipe.steps_per_epoch();
                let until_epoch = config.until_epoch.map(|epoch| epoch.saturating_sub(skipped));
                Teacher::Dense(DistillConfig { until_epoch, ..config })
            }
            Self::KdOfClasses(config) => Teacher::OfClasses(config),
            Self::KdUniform(config) => Teacher::Uniform(config),
            _ => Teacher::None,
        };
        TicketParams {
            label: self.label(),
            recipe: recipe.clone(),
            density,
            unpruned: unpruned.to_vec(),
            rewind,
            start,
            shuffle_mask: self == Self::RandomMask,
            teacher,
        }
    }
}

impl TicketParams {
    /// Seconds on one core, roughly. A teacher's forward pass takes a third of a step: it comes with every step, or once
    /// over the images where it is averaged.
    pub(super) fn effort(&self, recipe: &Recipe) -> f64 {
        let skipped = match self.rewind {
            Rewind::Step(k) | Rewind::LearningRate(k) => k,
            _ => 0,
        };
        let steps = recipe.steps().saturating_sub(skipped);
        let taught = match self.teacher {
            Teacher::None => 0,
            Teacher::Dense(_) => steps,
            Teacher::OfClasses(_) | Teacher::Uniform(_) => recipe.steps_per_epoch(),
        };
        (steps as f64 + taught as f64 / 3.0) * recipe.step_seconds()
    }
}
