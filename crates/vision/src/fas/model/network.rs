//! Branches, maps, fusion.

use super::attention::{
    Attention, kl_to_standard_normal, logit_normal_mean, logit_normal_sample, precision, softmax_share,
};
use super::backbone::{Backbone, Block};
use crate::fas::error::{Error, Result};
use core_tensor::nn::{Conv2dConfig, Init, LayerFactory, LinearConfig, Module};
use core_tensor::optim::{Parameter, parameters_with};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tch::nn::{self, Path};
use tch::{Kind, Tensor};

/// A physical cue that a branch predicts as a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proxy {
    /// Height towards the camera, one channel in [0, 1].
    Depth,
    /// Share of mirrored light, one channel in [0, 1].
    Reflection,
    /// Seven classes, as log-probabilities.
    Material,
}

impl Proxy {
    /// All cues.
    pub const ALL: [Self; 3] = [Self::Depth, Self::Reflection, Self::Material];

    /// Channels of its map.
    pub fn channels(self) -> i64 {
        if self == Self::Material { 7 } else { 1 }
    }

    /// A name for parameters and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Depth => "depth",
            Self::Reflection => "reflection",
            Self::Material => "material",
        }
    }
}

/// What a branch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Liveness itself.
    Live,
    /// A cue.
    Proxy(Proxy),
}

impl Task {
    /// A name for parameters and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Proxy(proxy) => proxy.name(),
        }
    }
}

/// What the network is made of besides its backbone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyConfig {
    /// Cues predicted; none leaves a binary classifier. Default all.
    pub proxies: Vec<Proxy>,
    /// How branches are weighted. Default [`Attention::LogitNormal`].
    pub attention: Attention,
    /// Length of a branch's vector, 1 to 4096. Default 32.
    pub features: i64,
    /// A weight a channel instead of one a branch. Default true.
    pub per_channel: bool,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self { proxies: Proxy::ALL.to_vec(), attention: Attention::default(), features: 32, per_channel: true }
    }
}

impl ProxyConfig {
    /// Checks sizes and that no cue is named twice.
    ///
    /// # Errors
    /// [`Error::BadParam`].
    pub fn validate(&self) -> Result<()> {
        if !(1..=4096).contains(&self.features) {
            return Err(Error::BadParam { name: "features", expected: "1 to 4096", value: self.features as f64 });
        }
        let twice = |proxy: &Proxy| self.proxies.iter().filter(|other| *other == proxy).count() > 1;
        if self.proxies.iter().any(twice) {
            return Err(Error::BadParam { name: "proxies", expected: "each once", value: self.proxies.len() as f64 });
        }
        Ok(())
    }

    /// Liveness, then the cues in their order.
    fn tasks(&self) -> Vec<Task> {
        std::iter::once(Task::Live).chain(self.proxies.iter().copied().map(Task::Proxy)).collect()
    }
}

/// A liveness detector with physical cues.
#[derive(Debug)]
pub struct ProxyFas {
    backbone: Box<dyn Backbone>,
    config: ProxyConfig,
    live: [Block; 2],
    proxies: IndexMap<Proxy, (Block, Module)>,
    weighers: IndexMap<Task, (nn::Linear, nn::Linear)>,
    classifier: Module,
}

/// What the branches say about a batch.
#[derive(Debug)]
pub struct Branches {
    /// A vector a task, `[batch, features]`. Replacing one shows what the decision owes to it.
    pub vectors: IndexMap<Task, Tensor>,
    /// A map a cue: `[batch, channels, height, width]`; probabilities for depth and reflection, log-probabilities for
    /// material.
    pub maps: IndexMap<Proxy, Tensor>,
}

/// What the network says about a batch.
#[derive(Debug)]
pub struct ProxyOut {
    /// `[batch]`; higher is more live.
    pub logit: Tensor,
    /// Predicted maps, see [`Branches::maps`].
    pub maps: IndexMap<Proxy, Tensor>,
    /// Weights, `[batch, features or 1]`.
    pub weights: IndexMap<Task, Tensor>,
    /// Standard deviations in the same shape, for attentions that know uncertainty.
    pub sigma: IndexMap<Task, Tensor>,
    /// The weighted vectors side by side, `[batch, tasks · features]`.
    pub embedding: Tensor,
    /// Mean nats from the branches' distributions to the standard normal. Attentions that know no uncertainty have that
    /// of unit variance, `½ μ²`, so that all weights have the same prior on their means; 0 where nothing is weighed.
    pub kl: Tensor,
}

impl ProxyOut {
    /// `sigmoid(logit)`: the probability of being live, `[batch]`.
    pub fn score(&self) -> Tensor {
        self.logit.sigmoid()
    }

    /// The mean of the depth map, `[batch]`: how depth-supervised detectors score.
    pub fn depth_score(&self) -> Option<Tensor> {
        self.maps.get(&Proxy::Depth).map(|map| map.mean_dim([1_i64, 2, 3].as_slice(), false, Kind::Float))
    }
}

impl ProxyFas {
    /// A network on any backbone, its branches built by `factory` under `path`.
    ///
    /// # Errors
    /// [`Error::BadParam`] for a configuration that does not fit.
    pub fn new(
        path: &Path,
        factory: &dyn LayerFactory,
        backbone: Box<dyn Backbone>,
        config: ProxyConfig,
    ) -> Result<Self> {
        config.validate()?;
        let (channels, features) = (backbone.channels(), config.features);
        let live_path = path / "live";
        let live = [
            Block::new(&(&live_path / "block0"), factory, [channels, features], 2),
            Block::new(&(&live_path / "block1"), factory, [features, features], 1),
        ];
        let mut proxies = IndexMap::new();
        for &proxy in &config.proxies {
            let own = path / proxy.name();
            let head = Conv2dConfig { bias: true, ..Conv2dConfig::new(features, proxy.channels(), 1, 1) };
            let block = Block::new(&(&own / "block0"), factory, [channels, features], 1);
            proxies.insert(proxy, (block, factory.conv2d(&(&own / "map"), head)));
        }
        let tasks = config.tasks();
        let mut weighers = IndexMap::new();
        if config.attention != Attention::Concat {
            let outputs = if config.per_channel { features } else { 1 };
            for &task in &tasks {
                let own = path / "attention" / task.name();
                weighers.insert(task, (mean_layer(&own, features, outputs), variance_layer(&own, features, outputs)));
            }
        }
        let classifier =
            LinearConfig { init: Init::Normal { std: 0.01 }, ..LinearConfig::new(features * tasks.len() as i64, 1) };
        let classifier = factory.linear(&(path / "classifier"), classifier);
        Ok(Self { backbone, config, live, proxies, weighers, classifier })
    }

    /// What it is made of.
    pub fn config(&self) -> &ProxyConfig {
        &self.config
    }

    /// Pictures `[batch, 3, height, width]` with values in [0, 1] to what is known about them. What the backbone is fed
    /// of them is [its own affair](Backbone::normalised).
    ///
    /// # Errors
    /// [`Error::BadShape`] for anything but three channels and sides of two or more of the backbone's strides.
    pub fn forward(&self, input: &Tensor, train: bool) -> Result<ProxyOut> {
        self.fuse(self.branches(input, train)?, train)
    }

    /// What each branch says.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn branches(&self, input: &Tensor, train: bool) -> Result<Branches> {
        let (size, stride) = (input.size(), self.backbone.stride());
        let side = |length: i64| length % stride == 0 && length >= 2 * stride;
        let fits = size.len() == 4 && size[1] == 3 && side(size[2]) && side(size[3]);
        if !fits || input.kind() != Kind::Float {
            return Err(Error::BadShape {
                what: "pictures",
                expected: format!("[batch, 3, height, width] of f32 with sides of 2 or more times {stride}"),
                found: format!("{size:?} of {:?}", input.kind()),
            });
        }
        let feature = self.backbone.forward_t(&self.backbone.normalised(input), train);
        let pooled = |map: &Tensor| map.mean_dim([2_i64, 3].as_slice(), false, Kind::Float);
        let live = self.live.iter().fold(feature.shallow_clone(), |feature, block| block.forward(&feature, train));
        let mut branches = Branches { vectors: IndexMap::from([(Task::Live, pooled(&live))]), maps: IndexMap::new() };
        for (&proxy, (block, head)) in &self.proxies {
            let own = block.forward(&feature, train);
            let map = head.forward_t(&own, train);
            let map = if proxy == Proxy::Material { map.log_softmax(1, Kind::Float) } else { map.sigmoid() };
            branches.vectors.insert(Task::Proxy(proxy), pooled(&own));
            branches.maps.insert(proxy, map);
        }
        Ok(branches)
    }

    /// Weighs the branches' vectors and decides. In training, noise comes from libtorch's generator.
    ///
    /// # Errors
    /// [`Error::BadShape`] for anything but one vector `[batch, features]` a task: liveness, then the cues in the
    /// configuration's order.
    pub fn fuse(&self, branches: Branches, train: bool) -> Result<ProxyOut> {
        let Branches { vectors, maps } = branches;
        let tasks = self.config.tasks();
        if !vectors.keys().eq(&tasks) {
            let found = format!("{:?}", vectors.keys().collect::<Vec<_>>());
            return Err(Error::BadShape { what: "branches", expected: format!("{tasks:?}"), found });
        }
        let shape = [vectors[0].size().first().copied().unwrap_or(0), self.config.features];
        let odd = vectors.iter().find(|(_, vector)| vector.size() != shape || vector.kind() != Kind::Float);
        if let Some((task, vector)) = odd {
            let found = format!("{:?} of {:?} for {}", vector.size(), vector.kind(), task.name());
            return Err(Error::BadShape { what: "branches", expected: format!("{shape:?} of Float each"), found });
        }
        let mode = self.config.attention;
        let (mut weights, mut sigma, mut parts) = (IndexMap::new(), IndexMap::new(), Vec::new());
        let mut kl = Tensor::zeros([], (Kind::Float, vectors[0].device()));
        let means: Vec<Tensor> =
            self.weighers.iter().map(|(task, (mean, _))| nn::Module::forward(mean, &vectors[task])).collect();
        let shared = (mode == Attention::Softmax).then(|| softmax_share(&Tensor::stack(&means, 0)));
        for (at, (&task, vector)) in vectors.iter().enumerate() {
            let log_variance = self
                .weighers
                .get(&task)
                .filter(|_| mode.knows_uncertainty())
                .map(|(_, variance)| nn::Module::forward(variance, vector).clamp(-8.0, 4.0));
            if matches!(mode, Attention::Softmax | Attention::Sigmoid) {
                kl += (means[at].square() * 0.5).mean(Kind::Float);
            }
            let mut value = vector.shallow_clone();
            let weight = match (mode, &log_variance) {
                (Attention::Softmax, _) => shared.as_ref().map_or_else(|| vector.ones_like(), |s| s.get(at as i64)),
                (Attention::Sigmoid, _) => means[at].sigmoid(),
                (Attention::LogitNormal, Some(log_variance)) => {
                    kl += kl_to_standard_normal(&means[at], log_variance).mean(Kind::Float);
                    if train {
                        logit_normal_sample(&means[at], log_variance, &means[at].randn_like())
                    } else {
                        logit_normal_mean(&means[at], log_variance)
                    }
                }
                (Attention::Precision, Some(log_variance)) => {
                    kl += kl_to_standard_normal(vector, log_variance).mean(Kind::Float);
                    if train {
                        value = vector + (log_variance * 0.5).exp() * vector.randn_like();
                    }
                    precision(log_variance)
                }
                _ => Tensor::ones([vector.size()[0], 1], (Kind::Float, vector.device())),
            };
            parts.push(&weight * value);
            weights.insert(task, weight);
            if let Some(log_variance) = log_variance {
                sigma.insert(task, (log_variance * 0.5).exp());
            }
        }
        kl /= vectors.len() as f64;
        let embedding = Tensor::cat(&parts, 1);
        let logit = self.classifier.forward_t(&embedding, train).squeeze_dim(1);
        Ok(ProxyOut { logit, maps, weights, sigma, embedding, kl })
    }
}

/// A store's variables for an optimizer, with weight `decay` on all but the attention's own layers.
///
/// Those have a prior already, [`ProxyOut::kl`]. Decay would be a second one on `ln σ²` itself, which pulls every
/// uncertainty to σ = 1; and an optimizer that rescales gradients, such as Adam, would make it the stronger of the two
/// by far, so that σ would tell how long was trained rather than what was seen.
///
/// ```
/// use core_tensor::nn::Standard;
/// use tch::{Device, nn::VarStore};
/// use vision::fas::model::{PlainBackbone, ProxyConfig, ProxyFas, weight_decay};
///
/// let store = VarStore::new(Device::Cpu);
/// let backbone = PlainBackbone::new(&(store.root() / "backbone"), &Standard, 8);
/// ProxyFas::new(&store.root(), &Standard, Box::new(backbone), ProxyConfig::default())?;
/// let decay = |name: &str| weight_decay(&store, 5e-4).into_iter().find(|p| p.name == name).unwrap().weight_decay;
/// assert_eq!(decay("classifier.weight"), 5e-4);
/// assert_eq!(decay("attention.depth.log_variance.bias"), 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn weight_decay(store: &nn::VarStore, decay: f64) -> Vec<Parameter> {
    parameters_with(store, |parameter| parameter.weight_decay = if is_attention(&parameter.name) { 0.0 } else { decay })
}

/// Whether a variable is one of `….attention.{task}.{mean, log_variance}.{weight, bias}`.
fn is_attention(name: &str) -> bool {
    let mut segments = name.rsplit('.').skip(1);
    matches!(segments.next(), Some("mean" | "log_variance")) && segments.nth(1) == Some("attention")
}

fn mean_layer(path: &Path, inputs: i64, outputs: i64) -> nn::Linear {
    let start = nn::LinearConfig {
        ws_init: nn::Init::Randn { mean: 0.0, stdev: 0.01 },
        bs_init: Some(nn::Init::Const(0.0)),
        bias: true,
    };
    nn::linear(path / "mean", inputs, outputs, start)
}

/// Starts at σ = e^−1.5 whatever the vector.
fn variance_layer(path: &Path, inputs: i64, outputs: i64) -> nn::Linear {
    let start = nn::LinearConfig { ws_init: nn::Init::Const(0.0), bs_init: Some(nn::Init::Const(-3.0)), bias: true };
    nn::linear(path / "log_variance", inputs, outputs, start)
}

#[cfg(test)]
mod tests;
