//! What each tier trains.

use crate::Tier;
use serde::{Deserialize, Serialize};
use vision::fas::model::{
    Attention, AttributeMiner, Augment, Columns, DepthPolicy, LossWeights, Policies, Proxy, ProxyConfig,
    ReflectionPolicy, Sampling,
};
use vision::fas::synth::{Domain, GeneratorConfig, Population};

/// Depth and reflection of everything as they are, which is what the generator writes.
pub(super) const PHYSICAL: Policies = Policies { depth: DepthPolicy::Physical, reflection: ReflectionPolicy::Physical };

/// What is rendered. Who is pictured, and how, is drawn from the run's seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PictureParams {
    pub(super) config: GeneratorConfig,
    pub(super) population: Population,
}

/// How a model is trained.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    pub(super) width: i64,
    /// Whether the backbone sees the whole picture, see [`WithContext`](vision::fas::model::WithContext).
    pub(super) context: bool,
    pub(super) batch: usize,
    pub(super) steps: u64,
    pub(super) peak: f64,
    pub(super) weight_decay: f64,
    pub(super) augment: Augment,
    pub(super) weights: LossWeights,
    /// What maps say of attacks' depth and of faces' reflection.
    pub(super) policies: Policies,
    pub(super) sampling: Sampling,
    /// What triplets are mined; `None` for no triplets.
    pub(super) miner: Option<AttributeMiner>,
    pub(super) features: i64,
    /// Pixels across, which decide how long a step takes.
    pub(super) crop: usize,
}

impl Recipe {
    /// The recipe as a model has it.
    pub(super) fn of(&self, model: Model) -> Self {
        let mut own = self.clone();
        match model {
            Model::ConcatPhysical | Model::Only(_) => own.policies = PHYSICAL,
            Model::ConcatUnmapped | Model::OnlyUnmapped(_) => {
                own.weights = LossWeights { depth: 0.0, reflection: 0.0, material: 0.0, ..own.weights };
            }
            Model::Paired | Model::Mined | Model::Triplet => own.sampling = Sampling::Pairs,
            _ => {}
        }
        own.miner = match model {
            // The two that the claims ask about: positives come from another person in another domain.
            Model::Mined => {
                let keys = [Columns::Identity, Columns::Camera].map(|column| column as i64);
                Some(AttributeMiner { keys: keys.to_vec(), ..AttributeMiner::default() })
            }
            Model::Triplet => Some(AttributeMiner { keys: Vec::new(), ..AttributeMiner::default() }),
            _ => None,
        };
        own
    }

    /// Whether a model's maps are trained.
    pub(super) fn trains_maps(&self, model: Model) -> bool {
        !model.config(self.features).proxies.is_empty() && self.of(model).weights.depth > 0.0
    }

    /// Roughly seconds of a model's training, for the forecast.
    pub(super) fn effort(&self, model: Model) -> f64 {
        let share = if model.config(self.features).proxies.is_empty() { 0.7 } else { 1.0 };
        self.steps as f64 * self.batch as f64 * (self.crop * self.crop) as f64 * self.width as f64 * 7e-8 * share
    }

    /// Optimizer steps of what counts as an epoch.
    pub(super) fn steps_per_epoch(&self) -> u64 {
        50.min(self.steps)
    }
}

/// A training: all domains but one, tested on that one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FoldParams {
    pub(super) target: Domain,
    pub(super) model: Model,
    pub(super) recipe: Recipe,
}

/// The kind of run that trains a model with a domain unseen.
pub(super) fn kind(model: Model, target: Domain) -> String {
    format!("{} → {}", model.name(), target.name())
}

/// The arms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Model {
    /// Liveness alone.
    Binary,
    /// All cues, every branch with weight 1.
    Concat,
    /// `Concat` with depth and reflection as they physically are.
    ConcatPhysical,
    /// `Concat` without the maps' losses: its capacity alone.
    ConcatUnmapped,
    /// All cues, traditional attention.
    Softmax,
    /// All cues, independent weights that know no uncertainty: `Full` without its noise.
    Sigmoid,
    /// All cues, uncertainty-aware attention of independent weights.
    Full,
    /// All cues, the heteroscedastic attention.
    Precision,
    /// `Full` in batches of pairs, as `Mined` and `Triplet` are given: what both are compared with.
    Paired,
    /// `Paired` with attribute-assisted hard negatives.
    Mined,
    /// `Paired` with the same triplet loss without attributes.
    Triplet,
    /// Central-difference network with the losses of liveness and depth, scored by its depth map.
    CentralDifference,
    /// One cue as it physically is, both branches with weight 1.
    Only(Proxy),
    /// `Only` without the map's loss: its capacity alone.
    OnlyUnmapped(Proxy),
    /// Binary map and score.
    DeepPixBis,
}

impl Model {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Concat => "concat",
            Self::ConcatPhysical => "concat-physical",
            Self::ConcatUnmapped => "concat-unmapped",
            Self::Softmax => "softmax",
            Self::Sigmoid => "sigmoid",
            Self::Full => "full",
            Self::Paired => "paired",
            Self::Precision => "precision",
            Self::Mined => "mined",
            Self::Triplet => "triplet",
            Self::CentralDifference => "central-difference",
            Self::Only(Proxy::Depth) => "depth-only",
            Self::Only(Proxy::Reflection) => "reflection-only",
            Self::Only(Proxy::Material) => "material-only",
            Self::OnlyUnmapped(Proxy::Depth) => "depth-only-unmapped",
            Self::OnlyUnmapped(Proxy::Reflection) => "reflection-only-unmapped",
            Self::OnlyUnmapped(Proxy::Material) => "material-only-unmapped",
            Self::DeepPixBis => "deep-pix-bis",
        }
    }

    /// What it is, for the report.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Binary => "liveness alone",
            Self::Concat => "all cues, every branch with weight 1, maps labelled by class",
            Self::ConcatPhysical => "concat with depth and reflection as they physically are",
            Self::ConcatUnmapped => "concat with weights of 0 on the maps' losses",
            Self::Softmax => "all cues, weights that share one unit",
            Self::Sigmoid => "all cues, independent weights",
            Self::Full => "all cues, independent weights with noise of a learnt variance",
            Self::Precision => "all cues, weights by the variance of noise on the vectors",
            Self::Paired => "full, in batches of two live pictures and two attacks of each person",
            Self::Mined => "paired, with triplets mined by identity and camera",
            Self::Triplet => "paired, with the hardest triplets whatever their attributes",
            Self::CentralDifference => "central differences, losses of liveness and depth, scored by its depth map",
            Self::Only(_) => "one cue as it physically is, both branches with weight 1",
            Self::OnlyUnmapped(_) => "the same with a weight of 0 on the map's loss",
            Self::DeepPixBis => "a binary map and a score",
        }
    }

    pub(super) fn config(self, features: i64) -> ProxyConfig {
        let (proxies, attention) = match self {
            Self::Binary | Self::DeepPixBis => (Vec::new(), Attention::Concat),
            Self::Concat | Self::ConcatPhysical | Self::ConcatUnmapped => (Proxy::ALL.to_vec(), Attention::Concat),
            Self::Softmax => (Proxy::ALL.to_vec(), Attention::Softmax),
            Self::Precision => (Proxy::ALL.to_vec(), Attention::Precision),
            Self::Sigmoid => (Proxy::ALL.to_vec(), Attention::Sigmoid),
            Self::Full | Self::Paired | Self::Mined | Self::Triplet => (Proxy::ALL.to_vec(), Attention::LogitNormal),
            Self::CentralDifference => (vec![Proxy::Depth], Attention::Concat),
            Self::Only(proxy) | Self::OnlyUnmapped(proxy) => (vec![proxy], Attention::Concat),
        };
        ProxyConfig { proxies, attention, features, per_channel: true }
    }
}

/// Which domains a seed leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// Each of the tier's, one a training.
    Every,
    /// One of them, in turn with the seeds: as many trainings go into more seeds. Their interval counts what domains
    /// differ by as error, so that it is wide for these domains, and says nothing of others.
    InTurn,
}

/// A tier.
pub(super) struct TierPlan {
    pub(super) pictures: PictureParams,
    /// The domains that are unseen in some training.
    pub(super) targets: Vec<Domain>,
    pub(super) left_out: LeftOut,
    pub(super) models: Vec<Model>,
    /// What all models have in common, see [`Recipe::of`].
    pub(super) recipe: Recipe,
    pub(super) seeds: u64,
}

impl TierPlan {
    pub(super) fn of(tier: Tier) -> Self {
        let quick = Recipe {
            width: 12,
            context: true,
            batch: 48,
            steps: 300,
            peak: 6e-3,
            weight_decay: 5e-4,
            augment: Augment::default(),
            weights: LossWeights::default(),
            policies: Policies::default(),
            sampling: Sampling::Balanced,
            miner: None,
            features: 32,
            crop: 32,
        };
        let compared = vec![
            Model::Binary,
            Model::Concat,
            Model::ConcatPhysical,
            Model::ConcatUnmapped,
            Model::Softmax,
            Model::Sigmoid,
            Model::Full,
            Model::Paired,
            Model::Mined,
            Model::Triplet,
        ];
        match tier {
            Tier::Quick => Self {
                pictures: PictureParams { config: GeneratorConfig::quick(), population: Population::quick() },
                targets: vec![Domain::DimTablet],
                left_out: LeftOut::InTurn,
                models: vec![Model::Binary, Model::Concat, Model::ConcatUnmapped, Model::Full],
                recipe: quick,
                seeds: 2,
            },
            Tier::Standard => Self {
                pictures: PictureParams { config: GeneratorConfig::default(), population: Population::default() },
                targets: Domain::ALL.to_vec(),
                left_out: LeftOut::InTurn,
                models: compared,
                recipe: Recipe {
                    width: 24,
                    // As many pictures as 800 steps of 64 see.
                    batch: 32,
                    steps: 1600,
                    peak: 4e-3,
                    augment: Augment { gain: 0.05, cutout: 0.25, ..Augment::default() },
                    crop: 64,
                    ..quick
                },
                // Two for every domain.
                seeds: 8,
            },
            Tier::Paper => Self {
                pictures: PictureParams {
                    config: GeneratorConfig { raster: 256, crop: 256, map: 64 },
                    population: Population {
                        identities: 200,
                        live: 16,
                        print: 8,
                        replay: 8,
                        mask: 6,
                        ..Population::default()
                    },
                },
                targets: Domain::ALL.to_vec(),
                left_out: LeftOut::Every,
                models: [
                    compared,
                    vec![Model::Precision, Model::CentralDifference, Model::DeepPixBis],
                    Proxy::ALL.map(Model::Only).to_vec(),
                    Proxy::ALL.map(Model::OnlyUnmapped).to_vec(),
                ]
                .concat(),
                recipe: Recipe {
                    width: 64,
                    batch: 128,
                    steps: 20_000,
                    peak: 1e-3,
                    augment: Augment { gain: 0.1, cutout: 0.25, ..Augment::default() },
                    crop: 256,
                    ..quick
                },
                seeds: 5,
            },
        }
    }

    /// The domains that a seed leaves out, one a training.
    pub(super) fn targets_of(&self, seed: u64) -> Vec<Domain> {
        match self.left_out {
            LeftOut::Every => self.targets.clone(),
            LeftOut::InTurn => {
                let turn = (seed % self.targets.len() as u64) as usize;
                self.targets[turn..].iter().take(1).copied().collect()
            }
        }
    }

    /// Where a seed's number is from, for formulas.
    pub(super) fn of_a_seed(&self) -> &'static str {
        match self.left_out {
            LeftOut::Every => "mean over unseen domains",
            LeftOut::InTurn => "in the domain that the seed leaves out",
        }
    }

    /// What is unseen where every seed is held to a bound.
    pub(super) fn of_every_seed(&self) -> &'static str {
        match self.left_out {
            LeftOut::Every => "with the worst of a seed's domains unseen",
            LeftOut::InTurn => "with the seed's domain unseen",
        }
    }

    /// What a table's numbers are of.
    pub(super) fn one_a_seed(&self) -> &'static str {
        match self.left_out {
            LeftOut::Every => "One number a seed, the mean over the domains that are left out.",
            LeftOut::InTurn => "One number a seed, which leaves out one domain.",
        }
    }

    /// The unseen domains by name.
    pub(super) fn unseen(&self) -> String {
        self.targets.iter().map(|target| target.name()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_differ_in_what_their_names_say() {
        let recipe = TierPlan::of(Tier::Standard).recipe;
        let [labelled, physical, unmapped] =
            [Model::Concat, Model::ConcatPhysical, Model::ConcatUnmapped].map(|model| recipe.of(model));
        assert_eq!((labelled.policies, physical.policies), (Policies::default(), PHYSICAL));
        assert_eq!(labelled.weights, physical.weights);
        let LossWeights { depth, reflection, material, .. } = unmapped.weights;
        assert_eq!([depth, reflection, material], [0.0; 3]);
        let network = |model: Model| model.config(32);
        assert_eq!(network(Model::Concat), network(Model::ConcatUnmapped));
        assert!(recipe.trains_maps(Model::ConcatPhysical));
        assert!(![Model::Binary, Model::ConcatUnmapped].iter().any(|&model| recipe.trains_maps(model)));
        for cue in Proxy::ALL {
            let [alone, unmapped] = [Model::Only(cue), Model::OnlyUnmapped(cue)];
            // By the literature's label, a cue's map is another copy of the label.
            assert_eq!(recipe.of(alone).policies, PHYSICAL);
            assert!(recipe.trains_maps(alone) && !recipe.trains_maps(unmapped));
        }
    }

    #[test]
    fn triplets_are_mined_by_the_attributes_that_are_probed() {
        let recipe = TierPlan::of(Tier::Standard).recipe;
        let keys = |model| recipe.of(model).miner.map(|miner| miner.keys);
        assert_eq!(keys(Model::Mined), Some(vec![Columns::Identity as i64, Columns::Camera as i64]));
        assert_eq!((keys(Model::Triplet), keys(Model::Paired)), (Some(Vec::new()), None));
        for model in [Model::Paired, Model::Mined, Model::Triplet] {
            assert_eq!(recipe.of(model).sampling, Sampling::Pairs);
        }
        assert_eq!(recipe.of(Model::Full).sampling, Sampling::Balanced);
    }
}
