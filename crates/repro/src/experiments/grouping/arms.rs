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
/// The weight that claims on the main arms take, whatever held-out characters say.
pub(super) const FIXED_LAMBDA: f64 = 0.05;
const GROUPS: i64 = 4;
pub(super) const POOLED: Head = Head::Baseline { how: BaselineKind::PooledLinear, groups: GROUPS };
pub(super) const UNGROUPED: Head = Head::Baseline { how: BaselineKind::PooledLinear, groups: 1 };
pub(super) const ATTENTIVE: Head = Head::Attentive { groups: GROUPS };
/// Attention without grouping.
pub(super) const ALONE: Head = Head::Attentive { groups: 1 };
pub(super) const BLOCKS: Head = Head::Baseline { how: BaselineKind::ChannelBlocks, groups: GROUPS };
pub(super) const EXCITATION: Head =
    Head::Baseline { how: BaselineKind::ChannelExcitation { reduction: 5 }, groups: GROUPS };
pub(super) const GATES: Head = Head::Baseline { how: BaselineKind::Gate { reduction: 8 }, groups: GROUPS };

/// Under what heads are compared: kinds of image, and losses.
pub(super) const SETTINGS: [(Scene, LossChoice); 6] = [
    (Scene::Plain, LossChoice::Margin),
    (Scene::Plain, LossChoice::MultiSimilarity),
    (Scene::Plain, LossChoice::Contrastive),
    (Scene::Plain, LossChoice::Triplet),
    (Scene::Cluttered, LossChoice::Margin),
    (Scene::Cluttered, LossChoice::MultiSimilarity),
];

/// Seeds of the standard tier's main arms, and of its others.
const MAIN_SEEDS: u64 = 8;
const SEEDS: u64 = 3;

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
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Margin => "margin",
            Self::MultiSimilarity => "multi-similarity",
            Self::Contrastive => "contrastive",
            Self::Triplet => "triplet",
        }
    }
}

impl Head {
    pub(super) fn groups(self) -> i64 {
        match self {
            Self::Baseline { groups, .. } | Self::Attentive { groups } => groups,
        }
    }

    pub(super) fn is_attentive(self) -> bool {
        matches!(self, Self::Attentive { .. })
    }

    pub(super) fn name(self) -> String {
        let how = match self {
            Self::Attentive { .. } => "attentive",
            Self::Baseline { how: BaselineKind::PooledLinear, .. } => "pooled",
            Self::Baseline { how: BaselineKind::ChannelBlocks, .. } => "channel blocks",
            Self::Baseline { how: BaselineKind::ChannelExcitation { .. }, .. } => "channel excitation",
            Self::Baseline { how: BaselineKind::Gate { .. }, .. } => "gates",
            Self::Baseline { how: BaselineKind::LinearGate { .. }, .. } => "linear gates",
        };
        format!("{how} G={}", self.groups())
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
        // λ means something to groups that share their values; the others are trained without.
        let lambda = match self.head {
            Head::Attentive { groups: 1 }
            | Head::Baseline { how: BaselineKind::PooledLinear | BaselineKind::ChannelBlocks, .. } => String::new(),
            Head::Attentive { .. } | Head::Baseline { .. } => format!(" λ={}", self.lambda),
        };
        format!("{} {} {}{lambda}", self.scene.name(), self.loss.name(), self.head.name())
    }

    /// Seconds on one core, roughly.
    pub(super) fn effort(&self) -> f64 {
        if self.scene == Scene::Plain { 40.0 } else { 75.0 }
    }
}

impl Study {
    pub(super) fn of(tier: Tier, source: Source) -> Self {
        let plain = |head, lambda| TrainParams::new(source, Scene::Plain, LossChoice::Margin, head, lambda);
        let mut study = Self { arms: Vec::new() };
        if tier == Tier::Quick {
            for (head, lambda) in [(POOLED, 0.0), (ATTENTIVE, 0.0), (ATTENTIVE, FIXED_LAMBDA)] {
                // One training says nothing of another: two are the fewest that can carry a claim.
                study.add(plain(head, lambda), 2);
            }
            return study;
        }
        // The main claims first, with more seeds, so that a run cut short still has them.
        for (head, lambda) in [(POOLED, 0.0), (UNGROUPED, 0.0), (ATTENTIVE, 0.0), (ATTENTIVE, FIXED_LAMBDA)] {
            study.add(plain(head, lambda), MAIN_SEEDS);
        }
        for (scene, loss) in SETTINGS {
            for head in [POOLED, UNGROUPED] {
                study.add(TrainParams::new(source, scene, loss, head, 0.0), SEEDS);
            }
            for lambda in LAMBDAS {
                study.add(TrainParams::new(source, scene, loss, ATTENTIVE, lambda), SEEDS);
            }
        }
        for scene in [Scene::Plain, Scene::Cluttered] {
            study.add(TrainParams::new(source, scene, LossChoice::Margin, ALONE, 0.0), SEEDS);
        }
        study.add(plain(BLOCKS, 0.0), SEEDS);
        for head in [EXCITATION, GATES] {
            for lambda in LAMBDAS {
                study.add(plain(head, lambda), SEEDS);
            }
        }
        study
    }

    /// Unless it is there already, maybe with more seeds.
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
        // On one core: of the ten minutes on two cores that ten papers have; and 57 minutes on two.
        assert!(seconds(Tier::Quick) <= 240.0, "{}", seconds(Tier::Quick));
        assert!(seconds(Tier::Standard) <= 6840.0, "{}", seconds(Tier::Standard));
    }

    #[test]
    fn no_training_is_planned_twice() {
        let study = Study::of(Tier::Standard, Source::Omniglot);
        let labels: std::collections::BTreeSet<String> = study.arms.iter().map(|(params, _)| params.label()).collect();
        assert_eq!(labels.len(), study.arms.len());
    }

    #[test]
    fn main_arms_have_more_seeds_than_the_settings_that_list_them_again() {
        let study = Study::of(Tier::Standard, Source::Omniglot);
        let seeds = |head, lambda| {
            let params = TrainParams::new(Source::Omniglot, Scene::Plain, LossChoice::Margin, head, lambda);
            study.arms.iter().find(|(known, _)| *known == params).map(|(_, seeds)| *seeds)
        };
        for (head, lambda) in [(POOLED, 0.0), (UNGROUPED, 0.0), (ATTENTIVE, 0.0), (ATTENTIVE, FIXED_LAMBDA)] {
            assert_eq!(seeds(head, lambda), Some(MAIN_SEEDS));
        }
        for (head, lambda) in [(ATTENTIVE, 0.02), (ALONE, 0.0), (BLOCKS, 0.0), (GATES, 0.05), (EXCITATION, 0.02)] {
            assert_eq!(seeds(head, lambda), Some(SEEDS));
        }
    }

    #[test]
    fn labels_name_the_weight_of_the_diversity_loss_where_it_acts() {
        let label =
            |head, lambda| TrainParams::new(Source::Omniglot, Scene::Plain, LossChoice::Margin, head, lambda).label();
        assert_eq!(label(GATES, 0.02), "plain margin gates G=4 λ=0.02");
        assert_eq!(label(ATTENTIVE, 0.0), "plain margin attentive G=4 λ=0");
        assert_eq!(label(ALONE, 0.0), "plain margin attentive G=1");
        assert_eq!(label(UNGROUPED, 0.0), "plain margin pooled G=1");
    }
}
