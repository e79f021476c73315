//! The ways to re-train a ticket that the paper compares, and its controls.

use crate::experiments::training::Recipe;
use lth::{DistillConfig, Rewind};
use serde::{Deserialize, Serialize};

/// A way to re-train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Arm {
    /// The original lottery ticket: first weights, hard labels.
    Original,
    /// Fresh weights under the same mask.
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
    /// Soft labels averaged within classes: a gain that survives this needs no teacher of single images.
    KdOfClasses(DistillConfig),
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
    /// Fresh ones.
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
    /// The dense network, each image getting the mean soft label of the class into which the network puts it.
    OfClasses(DistillConfig),
}

impl Arm {
    /// As reports name it.
    pub(super) fn label(self) -> String {
        let settings = |config: DistillConfig| format!("(τ {}, α {})", config.temperature, config.alpha);
        match self {
            Self::Original => "LT".into(),
            Self::Reinitialised => "reinit".into(),
            Self::RandomMask => "random mask".into(),
            Self::WeightRewind(k) => format!("WR from {k}"),
            Self::LearningRateRewind(k) => format!("LRR from {k}"),
            Self::Kd(config) => format!("KD {}", settings(config)),
            Self::KdWeightRewind(k, config) => format!("KD {} + WR from {k}", settings(config)),
            Self::KdLearningRateRewind(k, config) => format!("KD {} + LRR from {k}", settings(config)),
            Self::KdOfClasses(config) => format!("KD {} of classes", settings(config)),
        }
    }

    /// The parameters of its run.
    pub(super) fn params(self, recipe: &Recipe, density: f64, unpruned: &[String]) -> TicketParams {
        let rewind = match self {
            Self::Original | Self::Reinitialised | Self::RandomMask | Self::Kd(_) | Self::KdOfClasses(_) => {
                Rewind::Init
            }
            Self::WeightRewind(k) | Self::KdWeightRewind(k, _) => Rewind::Step(k),
            Self::LearningRateRewind(k) | Self::KdLearningRateRewind(k, _) => Rewind::LearningRate(k),
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
            _ => Teacher::None,
        };
        TicketParams {
            label: self.label(),
            recipe: recipe.clone(),
            density,
            unpruned: unpruned.to_vec(),
            rewind,
            start: if self == Self::Reinitialised { Start::Reinitialised } else { Start::Rewound },
            shuffle_mask: self == Self::RandomMask,
            teacher,
        }
    }
}

impl TicketParams {
    /// Seconds on one core, roughly: a third more where a teacher's forward pass comes with a step.
    pub(super) fn effort(&self, recipe: &Recipe) -> f64 {
        let skipped = match self.rewind {
            Rewind::Step(k) | Rewind::LearningRate(k) => k,
            _ => 0,
        };
        let steps = recipe.steps().saturating_sub(skipped) as f64;
        let teacher = if self.teacher == Teacher::None { 1.0 } else { 4.0 / 3.0 };
        steps * recipe.step_seconds() * teacher
    }
}
