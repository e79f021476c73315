//! What is trained: data, heads, losses, weights of the diversity loss.

use crate::{Ask, DataSource, DataUse, Tier};
use serde::{Deserialize, Serialize};
use vision::grouping::BaselineKind;

/// Where characters come from; part of a run's description, so that a substitute is another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Source {
    /// 242 characters of eight alphabets, twenty drawers each.
    Omniglot,
    /// As many made of random strokes.
    Generated,
}

/// What an image shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Scene {
    /// A character, 28 × 28.
    Plain,
    /// A character of 20 × 20 somewhere in 32 × 32, with three scraps of others.
    Cluttered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Head {
    Baseline { how: BaselineKind, groups: i64 },
    Attentive { groups: i64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum LossChoice {
    /// With distance-weighted triplets.
    Margin,
    /// α 2, β 10, all pairs.
    MultiSimilarity,
    /// All pairs.
    Contrastive,
    /// With semi-hard triplets.
    Triplet,
}

/// One training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrainParams {
    pub(super) source: Source,
    pub(super) scene: Scene,
    pub(super) head: Head,
    pub(super) loss: LossChoice,
    /// Weight of the diversity loss.
    pub(super) lambda: f64,
    pub(super) epochs: u64,
    /// Characters and images of each in a batch.
    pub(super) batch: [usize; 2],
    pub(super) embed_dim: i64,
    pub(super) peak: f64,
    pub(super) weight_decay: f64,
    /// Training characters set aside for choosing λ.
    pub(super) held_out: usize,
}

/// The trainings of a tier, each with its number of seeds.
pub(super) struct Study {
    pub(super) arms: Vec<(TrainParams, u64)>,
}

/// Weights of the diversity loss to choose from.
pub(super) const LAMBDAS: [f64; 3] = [0.0, 0.02, 0.05];
pub(super) const GROUPS: i64 = 4;
pub(super) const POOLED: Head = Head::Baseline { how: BaselineKind::PooledLinear, groups: GROUPS };
pub(super) const UNGROUPED: Head = Head::Baseline { how: BaselineKind::PooledLinear, groups: 1 };
pub(super) const ATTENTIVE: Head = Head::Attentive { groups: GROUPS };
const OTHERS: [BaselineKind; 3] = [
    BaselineKind::ChannelBlocks,
    BaselineKind::ChannelExcitation { reduction: 5 },
    BaselineKind::Gate { reduction: 8 },
];

impl Source {
    /// Omniglot where it is; a substitute in the quick tier only.
    pub(super) fn at_hand(ask: &Ask) -> anyhow::Result<Option<Self>> {
        let files = ["images28-idx3-ubyte.gz", "images105-idx3-ubyte.gz", "labels.csv"];
        Ok(match (ask.data.find("omniglot", &files)?, ask.tier) {
            (Some(_), _) => Some(Self::Omniglot),
            (None, Tier::Quick) => Some(Self::Generated),
            (None, _) => None,
        })
    }

    pub(super) fn describe(self) -> DataUse {
        let (name, source) = match self {
            Self::Omniglot => ("Omniglot", DataSource::Files),
            Self::Generated => ("generated characters in place of Omniglot", DataSource::Generator),
        };
        DataUse { set: format!("{name}: 109 characters to train on, 27 to choose λ by, 106 to test on"), source }
    }
}

impl LossChoice {
    pub(super) const ALL: [Self; 4] = [Self::Margin, Self::MultiSimilarity, Self::Contrastive, Self::Triplet];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Margin => "margin",
            Self::MultiSimilarity => "multi-similarity",
            Self::Contrastive => "contrastive",
            Self::Triplet => "triplet",
        }
    }
}

impl Scene {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Cluttered => "cluttered",
        }
    }
}

impl TrainParams {
    pub(super) fn new(source: Source, scene: Scene, loss: LossChoice, head: Head, lambda: f64) -> Self {
        Self {
            source,
            scene,
            head,
            loss,
            lambda,
            // 22 batches of 96 among 2,180 images: 308 and 396 steps.
            epochs: if scene == Scene::Plain { 14 } else { 18 },
            batch: [24, 4],
            embed_dim: 64,
            peak: 4e-3,
            weight_decay: 1e-4,
            held_out: 27,
        }
    }

    /// For logs and folders.
    pub(super) fn label(&self) -> String {
        let head = match self.head {
            Head::Attentive { groups } => format!("attentive G={groups} λ={}", self.lambda),
            Head::Baseline { how, groups } => {
                let how = match how {
                    BaselineKind::PooledLinear => "pooled",
                    BaselineKind::ChannelBlocks => "channel blocks",
                    BaselineKind::ChannelExcitation { .. } => "channel excitation",
                    BaselineKind::Gate { .. } => "gates",
                };
                format!("{how} G={groups}")
            }
        };
        format!("{} {} {head}", self.scene.name(), self.loss.name())
    }

    /// Seconds on one core, roughly.
    pub(super) fn effort(&self) -> f64 {
        if self.scene == Scene::Plain { 35.0 } else { 60.0 }
    }
}

impl Study {
    pub(super) fn of(tier: Tier, source: Source) -> Self {
        let plain = |loss, head, lambda| TrainParams::new(source, Scene::Plain, loss, head, lambda);
        let mut study = Self { arms: Vec::new() };
        if tier == Tier::Quick {
            for (head, lambda) in [(POOLED, 0.0), (ATTENTIVE, 0.0), (ATTENTIVE, 0.05)] {
                // One training says nothing of another: two are the fewest that can carry a claim.
                study.add(plain(LossChoice::Margin, head, lambda), 2);
            }
            return study;
        }
        // The main claims first, with more seeds, so that a run cut short still has them.
        for (head, lambda) in [(POOLED, 0.0), (ATTENTIVE, 0.0), (ATTENTIVE, 0.05)] {
            study.add(plain(LossChoice::Margin, head, lambda), 5);
        }
        for (scene, losses) in [(Scene::Plain, &LossChoice::ALL[..]), (Scene::Cluttered, &LossChoice::ALL[..2])] {
            for &loss in losses {
                study.add(TrainParams::new(source, scene, loss, POOLED, 0.0), 3);
                for lambda in LAMBDAS {
                    study.add(TrainParams::new(source, scene, loss, ATTENTIVE, lambda), 3);
                }
            }
        }
        study.add(plain(LossChoice::Margin, UNGROUPED, 0.0), 3);
        for how in OTHERS {
            study.add(plain(LossChoice::Margin, Head::Baseline { how, groups: GROUPS }, 0.0), 3);
        }
        study
    }

    fn add(&mut self, params: TrainParams, seeds: u64) {
        if !self.arms.iter().any(|(known, _)| *known == params) {
            self.arms.push((params, seeds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_hold_what_their_time_allows() {
        let seconds = |tier| {
            let study = Study::of(tier, Source::Omniglot);
            study.arms.iter().map(|(params, seeds)| params.effort() * *seeds as f64).sum::<f64>()
        };
        // On one core: of the ten minutes on two cores that ten papers have; and little more than half an hour on two.
        assert!(seconds(Tier::Quick) <= 240.0, "{}", seconds(Tier::Quick));
        assert!(seconds(Tier::Standard) <= 4000.0, "{}", seconds(Tier::Standard));
    }

    #[test]
    fn no_training_is_planned_twice() {
        let study = Study::of(Tier::Standard, Source::Omniglot);
        let labels: std::collections::BTreeSet<String> = study.arms.iter().map(|(params, _)| params.label()).collect();
        assert_eq!(labels.len(), study.arms.len());
    }
}
