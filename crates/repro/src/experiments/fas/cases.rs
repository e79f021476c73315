//! What each tier trains.

use crate::Tier;
use serde::{Deserialize, Serialize};
use vision::fas::model::{Attention, Augment, LossWeights, Policies, Proxy, ProxyConfig};
use vision::fas::synth::{Domain, GeneratorConfig, Population};

/// What is rendered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PictureParams {
    pub(super) seed: u64,
    pub(super) config: GeneratorConfig,
    pub(super) population: Population,
    pub(super) policies: Policies,
}

/// How a model is trained.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    pub(super) width: i64,
    pub(super) batch: usize,
    pub(super) steps: u64,
    pub(super) peak: f64,
    pub(super) weight_decay: f64,
    pub(super) augment: Augment,
    pub(super) weights: LossWeights,
    pub(super) features: i64,
    /// Pixels across, which decide how long a step takes.
    pub(super) crop: usize,
}

impl Recipe {
    /// Roughly seconds, for the forecast.
    pub(super) fn effort(&self) -> f64 {
        self.steps as f64 * self.batch as f64 * (self.crop * self.crop) as f64 * self.width as f64 * 7e-8
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

/// The arms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Model {
    /// Liveness alone.
    Binary,
    /// All cues, every branch with weight 1.
    Concat,
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
    /// Central-difference network supervised by depth alone, scored by its depth map.
    CentralDifference,
    /// One cue, every branch with weight 1.
    Only(Proxy),
    /// Binary map and score.
    DeepPixBis,
}

impl Model {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Binary => "binary",
            Self::Concat => "concat",
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
            Self::DeepPixBis => "deep-pix-bis",
        }
    }

    pub(super) fn config(self, features: i64) -> ProxyConfig {
        let (proxies, attention) = match self {
            Self::Binary | Self::DeepPixBis => (Vec::new(), Attention::Concat),
            Self::Concat => (Proxy::ALL.to_vec(), Attention::Concat),
            Self::Softmax => (Proxy::ALL.to_vec(), Attention::Softmax),
            Self::Precision => (Proxy::ALL.to_vec(), Attention::Precision),
            Self::Sigmoid => (Proxy::ALL.to_vec(), Attention::Sigmoid),
            Self::Full | Self::Paired | Self::Mined | Self::Triplet => (Proxy::ALL.to_vec(), Attention::LogitNormal),
            Self::CentralDifference => (vec![Proxy::Depth], Attention::Concat),
            Self::Only(proxy) => (vec![proxy], Attention::Concat),
        };
        ProxyConfig { proxies, attention, features, per_channel: true }
    }
}

/// A tier.
pub(super) struct TierPlan {
    pub(super) pictures: PictureParams,
    pub(super) targets: Vec<Domain>,
    pub(super) models: Vec<Model>,
    pub(super) recipe: Recipe,
    pub(super) seeds: u64,
}

impl TierPlan {
    pub(super) fn of(tier: Tier) -> Self {
        let quick = Recipe {
            width: 12,
            batch: 48,
            steps: 300,
            peak: 6e-3,
            weight_decay: 5e-4,
            augment: Augment::default(),
            weights: LossWeights::default(),
            features: 32,
            crop: 32,
        };
        let pictures =
            |population, config| PictureParams { seed: 2011, config, population, policies: Policies::default() };
        let compared = vec![
            Model::Binary,
            Model::Concat,
            Model::Softmax,
            Model::Sigmoid,
            Model::Full,
            Model::Paired,
            Model::Mined,
        ];
        match tier {
            Tier::Quick => Self {
                pictures: pictures(Population::quick(), GeneratorConfig::quick()),
                targets: vec![Domain::DimTablet],
                models: vec![Model::Binary, Model::Full],
                recipe: quick,
                seeds: 2,
            },
            Tier::Standard => Self {
                pictures: pictures(Population::default(), GeneratorConfig::default()),
                targets: Domain::ALL.to_vec(),
                models: compared,
                recipe: Recipe {
                    width: 24,
                    batch: 64,
                    steps: 800,
                    peak: 4e-3,
                    augment: Augment { gain: 0.05, cutout: 0.25, ..Augment::default() },
                    crop: 64,
                    ..quick
                },
                seeds: 1,
            },
            Tier::Paper => Self {
                pictures: pictures(
                    Population { identities: 200, live: 16, print: 8, replay: 8, mask: 6, ..Population::default() },
                    GeneratorConfig { raster: 256, crop: 256, map: 64 },
                ),
                targets: Domain::ALL.to_vec(),
                models: [
                    compared,
                    vec![Model::Precision, Model::Triplet, Model::CentralDifference, Model::DeepPixBis],
                    Proxy::ALL.map(Model::Only).to_vec(),
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
}
