//! The grouping module itself: learned queries that look for their own part of a feature map.

use super::{Error, GroupEmbedding, GroupingHead, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

/// What an [`AttentiveGrouping`] looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentiveGroupingConfig {
    /// Channels of the feature map: 2048 of a ResNet-50, 64 of a [`Conv4`](super::Conv4).
    pub in_channels: i64,
    /// Groups G, at least 1. Published: 3.
    #[serde(default = "three")]
    pub groups: i64,
    /// Numbers in the whole embedding, D; a group gets `D / G`. Published: 512.
    pub embed_dim: i64,
    /// Keys have `in_channels / reduction` numbers. Published: 8.
    #[serde(default = "eight")]
    pub reduction: i64,
    /// What happens when G does not divide D.
    #[serde(default)]
    pub remainder: Remainder,
    /// One more `d × d` matrix after the pooling, shared by all groups, as the published variant `LearnQ_he` has.
    #[serde(default)]
    pub output_projection: bool,
}

/// What happens when the groups do not divide the embedding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remainder {
    /// It is an error.
    #[default]
    Refuse,
    /// Groups are `floor(D / G)` long and the embedding is shorter than asked for, as in the published code, where 512
    /// numbers in three groups are 510. [`GroupingHead::embedding_size`] tells the real length.
    Floor,
}

fn three() -> i64 {
    3
}

fn eight() -> i64 {
    8
}

impl AttentiveGroupingConfig {
    /// Published settings (reduction 8, no output projection) for this feature map, these groups and this embedding.
    pub fn new(in_channels: i64, groups: i64, embed_dim: i64) -> Self {
        let (remainder, output_projection) = (Remainder::Refuse, false);
        Self { in_channels, groups, embed_dim, reduction: eight(), remainder, output_projection }
    }

    /// # Errors
    /// No channel, no group, fewer numbers than groups, a remainder that was not allowed, or keys without a number.
    pub fn validate(&self) -> Result<()> {
        check_groups(self.in_channels, self.groups, self.embed_dim)?;
        if self.remainder == Remainder::Refuse && self.embed_dim % self.groups != 0 {
            let expected = format!("a multiple of {} groups (or allow the floor)", self.groups);
            return Err(Error::setting("embed_dim", expected, self.embed_dim));
        }
        if self.reduction < 1 || self.reduction > self.in_channels {
            let expected = format!("1 to {}, the channels of the feature map", self.in_channels);
            return Err(Error::setting("reduction", expected, self.reduction));
        }
        Ok(())
    }

    /// Numbers in a group's embedding, d.
    pub fn group_dim(&self) -> i64 {
        self.embed_dim / self.groups.max(1)
    }

    /// Numbers in a key.
    pub fn key_dim(&self) -> i64 {
        self.in_channels / self.reduction.max(1)
    }

    /// Learned numbers: `G·ck + ck·C + d·C`, and `d²` with an output projection.
    pub fn parameters(&self) -> i64 {
        let (key, group) = (self.key_dim(), self.group_dim());
        let output = if self.output_projection { group * group } else { 0 };
        (self.groups + self.in_channels) * key + group * self.in_channels + output
    }
}

/// Checks what all heads share.
pub(super) fn check_groups(in_channels: i64, groups: i64, embed_dim: i64) -> Result<()> {
    if in_channels < 1 {
        return Err(Error::setting("in_channels", "at least 1", in_channels));
    }
    if groups < 1 {
        return Err(Error::setting("groups", "at least 1", groups));
    }
    if embed_dim < groups {
        return Err(Error::setting("embed_dim", format!("at least {groups}, one number a group"), embed_dim));
    }
    Ok(())
}

/// Splits an embedding into groups that each look at their own part of the image (Xu, Wang, Deng, Yuan and Ji,
/// arXiv 2011.08877).
///
/// Every group owns a learned query `q_g`. Keys `K = W_k X` and values `V = W_v X` come from the feature map
/// `X [batch, channels, positions]` by 1 × 1 convolutions without bias, shared by all groups and images:
///
/// ```text
/// A_g = softmax over positions of q_g · K          what the group looks at
/// z_g = Σ_p A_g[p] V[:, p]                         what it sees there
/// e_g = z_g / ‖z_g‖                                its part of the embedding
/// ```
///
/// It stands where "global average pool, then linear" stands in any network, costs little beside it, and is exactly that
/// when a query is zero. A permutation of the positions of `X` does not change the embedding.
///
/// The forward pass folds query and key into one `G × C` matrix and pools before it projects:
/// `z_g = W_v (X A_gᵀ)`, which for a ResNet-50 is 1.65 million multiply-accumulates an image instead of 42.7 million.
/// [`forward_unfolded`](Self::forward_unfolded) is the same as it is written above.
///
/// Parameters: `query` `[G, ck]`, `key.weight` `[ck, C]`, `value.weight` `[d, C]`, `output.weight` `[d, d]`, each from
/// `U(−1/√inputs, 1/√inputs)`, so that attention starts nearly uniform.
///
/// ```
/// use tch::{Device, Kind, Tensor, nn};
/// use vision::grouping::{AttentiveGrouping, AttentiveGroupingConfig, GroupingHead};
///
/// let store = nn::VarStore::new(Device::Cpu);
/// let head = AttentiveGrouping::new(&store.root(), AttentiveGroupingConfig::new(64, 4, 128))?;
/// let features = Tensor::rand([2, 64, 7, 7], (Kind::Float, Device::Cpu));
/// let seen = head.forward(&features)?;
/// assert_eq!(seen.groups().size(), [2, 4, 32]);
/// assert_eq!(seen.attention().unwrap().size(), [2, 4, 7, 7]);
/// assert_eq!(seen.concat().size(), [2, 128]);
/// # Ok::<(), vision::grouping::Error>(())
/// ```
#[derive(Debug)]
pub struct AttentiveGrouping {
    config: AttentiveGroupingConfig,
    /// `[groups, key_dim]`.
    pub query: Tensor,
    /// `[key_dim, in_channels]`.
    pub key: Tensor,
    /// `[group_dim, in_channels]`.
    pub value: Tensor,
    /// `[group_dim, group_dim]`.
    pub output: Option<Tensor>,
}

impl AttentiveGrouping {
    /// Creates the parameters under `path`, drawn from libtorch's generator
    /// ([`core_tensor::seed::seed_libtorch`] fixes it).
    ///
    /// # Errors
    /// A configuration outside its range.
    pub fn new(path: &nn::Path, config: AttentiveGroupingConfig) -> Result<Self> {
        config.validate()?;
        let (channels, key, group) = (config.in_channels, config.key_dim(), config.group_dim());
        let (query, keys) =
            (matrix(path, "query", config.groups, key), matrix(&(path / "key"), "weight", key, channels));
        let value = matrix(&(path / "value"), "weight", group, channels);
        let output = config.output_projection.then(|| matrix(&(path / "output"), "weight", group, group));
        Ok(Self { query, key: keys, value, output, config })
    }

    /// What it was made from.
    pub fn config(&self) -> &AttentiveGroupingConfig {
        &self.config
    }

    /// The definition, step by step: keys and values of every position, then attention. Equal to
    /// [`forward`](GroupingHead::forward) up to rounding, and slower.
    ///
    /// # Errors
    /// A feature map of another shape.
    pub fn forward_unfolded(&self, features: &Tensor) -> Result<GroupEmbedding> {
        let [_, _, height, width] = check_map(features, self.config.in_channels)?;
        let map = features.flatten(2, -1);
        let (keys, values) = (self.key.matmul(&map), self.value.matmul(&map));
        let attention = self.query.matmul(&keys).softmax(-1, None::<Kind>);
        let pooled = attention.matmul(&values.transpose(1, 2));
        self.finish(pooled, &attention, height, width)
    }

    fn finish(&self, pooled: Tensor, attention: &Tensor, height: i64, width: i64) -> Result<GroupEmbedding> {
        let projected = match &self.output {
            Some(output) => pooled.matmul(&output.tr()),
            None => pooled,
        };
        let attention = attention.unflatten(-1, [height, width]);
        GroupEmbedding::normalised(&projected, Some(attention))
    }
}

impl GroupingHead for AttentiveGrouping {
    fn forward(&self, features: &Tensor) -> Result<GroupEmbedding> {
        let [batch, channels, height, width] = check_map(features, self.config.in_channels)?;
        // [batch, positions, channels]: no copy for maps laid out channels-last, which is how networks here compute.
        let map = features.permute([0, 2, 3, 1]).reshape([batch, height * width, channels]);
        let scores = map.matmul(&self.query.matmul(&self.key).tr());
        let attention = scores.softmax(1, None::<Kind>).transpose(1, 2);
        let pooled = attention.matmul(&map).matmul(&self.value.tr());
        self.finish(pooled, &attention, height, width)
    }

    fn groups(&self) -> i64 {
        self.config.groups
    }

    fn group_dim(&self) -> i64 {
        self.config.group_dim()
    }
}

/// A trainable matrix with PyTorch's default start for linear layers and 1 × 1 convolutions.
pub(super) fn matrix(path: &nn::Path, name: &str, outputs: i64, inputs: i64) -> Tensor {
    let bound = 1.0 / (inputs as f64).sqrt();
    path.var(name, &[outputs, inputs], nn::Init::Uniform { lo: -bound, up: bound })
}

/// `[batch, channels, height, width]` of a feature map that has these channels and at least one position.
pub(super) fn check_map(features: &Tensor, channels: i64) -> Result<[i64; 4]> {
    let size = features.size();
    match *size.as_slice() {
        [batch, found, height, width] if found == channels && height > 0 && width > 0 => {
            Ok([batch, found, height, width])
        }
        _ => {
            let expected = format!("[batch, {channels}, height, width] with at least one position");
            Err(Error::shape("feature map", expected, format!("{size:?}")))
        }
    }
}

#[cfg(test)]
mod tests;
