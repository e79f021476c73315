//! Heads to compare with: no grouping, and groupings that do not look at places.

use super::attention::{check_groups, check_map, matrix};
use super::{Error, GroupEmbedding, GroupingHead, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

/// Which baseline, and its shape. `embed_dim` must be a multiple of `groups`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineConfig {
    /// How groups are made.
    pub kind: BaselineKind,
    /// Channels of the feature map.
    pub in_channels: i64,
    /// Groups.
    pub groups: i64,
    /// Numbers in the whole embedding.
    pub embed_dim: i64,
}

/// How a baseline makes its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum BaselineKind {
    /// Global average pool, one linear layer, its outputs cut into groups. With one group it is the usual embedding;
    /// with several, the heads of BIER (Opitz et al., arXiv 1801.04815) without their boosting.
    PooledLinear,
    /// Channels are cut into as many blocks as there are groups, and each group sees its own block, pooled.
    ChannelBlocks,
    /// Each group weighs channels by a squeeze and excitation of its own, then pools; one linear layer for all.
    ChannelExcitation {
        /// Channels are squeezed by this factor. Published: 5.
        reduction: i64,
    },
    /// Each group masks the map position by position and channel by channel with a gate of its own, then pools; one
    /// linear layer for all. The form of ABE (Kim et al., arXiv 1804.00382) in one module, a ReLU between a gate's two
    /// convolutions and masks in 0 to 1, without its divergence loss.
    Gate {
        /// Channels between the two convolutions of a gate are fewer by this factor. Published: 8.
        reduction: i64,
    },
    /// The same with the gates of the published code of attentive grouping: two convolutions with biases and nothing
    /// after either, so that masks are linear in the map and have any sign.
    LinearGate {
        /// As of [`Gate`](Self::Gate).
        reduction: i64,
    },
}

/// A head without spatial attention. See [`BaselineKind`].
#[derive(Debug)]
pub struct Baseline {
    config: BaselineConfig,
    /// `[embed_dim, channels]`, `[groups · group_dim, block]` or, shared by all groups, `[group_dim, channels]`.
    value: Tensor,
    gates: Option<Gates>,
}

/// `[hidden, channels]` shared or a group's own, then `[channels, hidden]` a group.
#[derive(Debug)]
struct Gates {
    squeeze: Vec<Tensor>,
    excite: Vec<Tensor>,
    /// Of linear gates: `[hidden]` of the shared one, then `[channels]` a group.
    biases: Vec<Tensor>,
}

impl BaselineConfig {
    /// # Errors
    /// No channel, no group, groups that do not divide the embedding (or, cut into blocks, the channels), or a
    /// reduction that leaves no channel.
    pub fn validate(&self) -> Result<()> {
        check_groups(self.in_channels, self.groups, self.embed_dim)?;
        if self.embed_dim % self.groups != 0 {
            return Err(Error::setting("embed_dim", format!("a multiple of {} groups", self.groups), self.embed_dim));
        }
        match self.kind {
            BaselineKind::ChannelBlocks if self.in_channels % self.groups != 0 => {
                let expected = format!("a multiple of {} groups", self.groups);
                Err(Error::setting("in_channels", expected, self.in_channels))
            }
            BaselineKind::Gate { reduction }
            | BaselineKind::LinearGate { reduction }
            | BaselineKind::ChannelExcitation { reduction }
                if !(1..=self.in_channels).contains(&reduction) =>
            {
                Err(Error::setting("reduction", format!("1 to {} channels", self.in_channels), reduction))
            }
            _ => Ok(()),
        }
    }
}

impl Baseline {
    /// Creates the parameters under `path`: `value.weight`, and of gates `squeeze{g}.weight` and `excite{g}.weight`, of
    /// linear ones also `squeeze0.bias` and `excite{g}.bias`.
    ///
    /// # Errors
    /// A configuration outside its range.
    pub fn new(path: &nn::Path, config: BaselineConfig) -> Result<Self> {
        config.validate()?;
        let BaselineConfig { in_channels, groups, embed_dim, .. } = config;
        let group_dim = embed_dim / groups;
        let value_path = path / "value";
        let named = |name: &str, group: i64, outputs: i64, inputs: i64| {
            matrix(&(path / format!("{name}{group}")), "weight", outputs, inputs)
        };
        let (value, gates) = match config.kind {
            BaselineKind::PooledLinear => (matrix(&value_path, "weight", embed_dim, in_channels), None),
            BaselineKind::ChannelBlocks => (matrix(&value_path, "weight", embed_dim, in_channels / groups), None),
            BaselineKind::ChannelExcitation { reduction } => {
                let hidden = in_channels / reduction;
                let squeeze = (0..groups).map(|group| named("squeeze", group, hidden, in_channels)).collect();
                let excite = (0..groups).map(|group| named("excite", group, in_channels, hidden)).collect();
                let gates = Gates { squeeze, excite, biases: Vec::new() };
                (matrix(&value_path, "weight", group_dim, in_channels), Some(gates))
            }
            BaselineKind::Gate { reduction } | BaselineKind::LinearGate { reduction } => {
                let hidden = in_channels / reduction;
                let squeeze = vec![named("squeeze", 0, hidden, in_channels)];
                let excite = (0..groups).map(|group| named("excite", group, in_channels, hidden)).collect();
                let biases = if matches!(config.kind, BaselineKind::LinearGate { .. }) {
                    let shared = bias(&(path / "squeeze0"), hidden, in_channels);
                    let own = (0..groups).map(|group| bias(&(path / format!("excite{group}")), in_channels, hidden));
                    std::iter::once(shared).chain(own).collect()
                } else {
                    Vec::new()
                };
                let gates = Gates { squeeze, excite, biases };
                (matrix(&value_path, "weight", group_dim, in_channels), Some(gates))
            }
        };
        Ok(Self { config, value, gates })
    }

    /// `[batch, groups, d]` before normalisation.
    fn pool(&self, features: &Tensor) -> Tensor {
        let BaselineConfig { groups, kind, .. } = self.config;
        let average = |map: &Tensor| map.mean_dim([2_i64, 3].as_slice(), false, None::<Kind>);
        match (kind, &self.gates) {
            (BaselineKind::ChannelExcitation { .. }, Some(gates)) => {
                let pooled = average(features);
                let group = |(squeeze, excite): (&Tensor, &Tensor)| {
                    let weights = pooled.matmul(&squeeze.tr()).relu().matmul(&excite.tr()).sigmoid();
                    (&pooled * weights).matmul(&self.value.tr())
                };
                let parts: Vec<_> = gates.squeeze.iter().zip(&gates.excite).map(group).collect();
                Tensor::stack(&parts, 1)
            }
            (BaselineKind::Gate { .. }, Some(gates)) => {
                let map = features.flatten(2, -1);
                let hidden = gates.squeeze[0].matmul(&map).relu();
                let group = |excite: &Tensor| {
                    let masked = &map * excite.matmul(&hidden).sigmoid();
                    masked.mean_dim(-1, false, None::<Kind>).matmul(&self.value.tr())
                };
                Tensor::stack(&gates.excite.iter().map(group).collect::<Vec<_>>(), 1)
            }
            (BaselineKind::LinearGate { .. }, Some(gates)) => {
                let map = features.flatten(2, -1);
                let hidden = gates.squeeze[0].matmul(&map) + gates.biases[0].unsqueeze(-1);
                let group = |(excite, bias): (&Tensor, &Tensor)| {
                    let masked = &map * (excite.matmul(&hidden) + bias.unsqueeze(-1));
                    masked.mean_dim(-1, false, None::<Kind>).matmul(&self.value.tr())
                };
                Tensor::stack(&gates.excite.iter().zip(&gates.biases[1..]).map(group).collect::<Vec<_>>(), 1)
            }
            (BaselineKind::ChannelBlocks, _) => {
                let blocks = average(features).unflatten(-1, [groups, -1]).unsqueeze(-2);
                let weights = self.value.unflatten(0, [groups, -1]).transpose(1, 2);
                blocks.matmul(&weights).squeeze_dim(-2)
            }
            _ => average(features).matmul(&self.value.tr()).unflatten(-1, [groups, -1]),
        }
    }
}

/// As convolutions start theirs: uniform between ∓1/√inputs.
fn bias(path: &nn::Path, outputs: i64, inputs: i64) -> Tensor {
    let bound = 1.0 / (inputs as f64).sqrt();
    path.var("bias", &[outputs], nn::Init::Uniform { lo: -bound, up: bound })
}

impl GroupingHead for Baseline {
    fn forward(&self, features: &Tensor) -> Result<GroupEmbedding> {
        check_map(features, self.config.in_channels)?;
        GroupEmbedding::normalised(&self.pool(features), None)
    }

    fn groups(&self) -> i64 {
        self.config.groups
    }

    fn group_dim(&self) -> i64 {
        self.config.embed_dim / self.config.groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grouping::{AttentiveGrouping, AttentiveGroupingConfig};
    use tch::Device;

    const KINDS: [BaselineKind; 5] = [
        BaselineKind::PooledLinear,
        BaselineKind::ChannelBlocks,
        BaselineKind::ChannelExcitation { reduction: 5 },
        BaselineKind::Gate { reduction: 8 },
        BaselineKind::LinearGate { reduction: 8 },
    ];

    fn build(kind: BaselineKind, groups: i64) -> Result<Baseline> {
        let store = nn::VarStore::new(Device::Cpu);
        let made = Baseline::new(&store.root(), BaselineConfig { kind, in_channels: 16, groups, embed_dim: 8 })?;
        // Drawn weights leave now and then a group so short that normalising it shows every last digit.
        let weights: std::collections::BTreeMap<_, _> = store.variables().into_iter().collect();
        for (index, mut weight) in weights.into_values().enumerate() {
            let angles = Tensor::arange(weight.numel() as i64, (Kind::Float, Device::Cpu)) * 1.3 + index as f64;
            tch::no_grad(|| weight.copy_(&(angles.sin() * 0.4).view_as(&weight)));
        }
        Ok(made)
    }

    fn features() -> Tensor {
        let wave = Tensor::arange(2 * 16 * 12, (Kind::Float, Device::Cpu));
        (wave * 0.37).sin().view([2, 16, 3, 4])
    }

    #[test]
    fn all_give_unit_groups_that_do_not_depend_on_the_order_of_positions() {
        for kind in KINDS {
            let head = build(kind, 4).unwrap();
            let (seen, moved) = (head.forward(&features()).unwrap(), head.forward(&features().flip([2, 3])).unwrap());
            assert_eq!(seen.groups().size(), [2, 4, 2], "{kind:?}");
            assert_eq!((head.embedding_size(), seen.attention().is_none()), (8, true));
            let lengths = seen.groups().norm_scalaropt_dim(2, [-1], false);
            // Rounding of f32 unit vectors.
            assert!((lengths - 1.0).abs().max().double_value(&[]) < 1e-6, "{kind:?}");
            let difference = (seen.groups() - moved.groups()).abs().max().double_value(&[]);
            // Averages of twelve numbers in another order, magnified by normalising short vectors.
            assert!(difference < 1e-5, "{kind:?}: {difference}");
        }
    }

    #[test]
    fn pooled_linear_with_one_group_is_attention_with_a_zero_query() {
        let head = build(BaselineKind::PooledLinear, 1).unwrap();
        let store = nn::VarStore::new(Device::Cpu);
        let mut attentive = AttentiveGrouping::new(&store.root(), AttentiveGroupingConfig::new(16, 1, 8)).unwrap();
        attentive.query = attentive.query.zeros_like();
        attentive.value = head.value.shallow_clone();
        let (a, b) = (head.forward(&features()).unwrap(), attentive.forward(&features()).unwrap());
        assert!((a.concat() - b.concat()).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn a_block_of_channels_reaches_its_own_group_only() {
        let head = build(BaselineKind::ChannelBlocks, 4).unwrap();
        let changed = features();
        // Channels 4 to 7 are the second group's.
        let _ = changed.narrow(1, 4, 4).fill_(0.25);
        let before = head.forward(&features()).unwrap();
        let after = head.forward(&changed).unwrap();
        for group in 0..4 {
            let moved = (before.group(group).unwrap() - after.group(group).unwrap()).abs().max().double_value(&[]);
            assert_eq!(moved > 1e-4, group == 1, "group {group} moved {moved}");
        }
    }

    #[test]
    fn excitations_and_gates_worked_by_hand() {
        // Two channels of two positions: (1, 3) and (2, 0), with means 2 and 1.
        let features = Tensor::from_slice(&[1.0_f32, 3.0, 2.0, 0.0]).view([1, 2, 1, 2]);
        let unit = Tensor::eye(2, (Kind::Float, Device::Cpu));
        let excite = Tensor::from_slice(&[3.0_f32.ln(), 0.0, 0.0, 0.0]).view([2, 2]);
        let pooled = |kind| {
            let store = nn::VarStore::new(Device::Cpu);
            let config = BaselineConfig { kind, in_channels: 2, groups: 1, embed_dim: 2 };
            let mut head = Baseline::new(&store.root(), config).unwrap();
            head.value = unit.shallow_clone();
            let (squeeze, excite) = (vec![unit.shallow_clone()], vec![excite.shallow_clone()]);
            // As a linear gate's biases, 1 and −2 of the shared convolution, and ½ and 3 of the group's.
            let biases = [[1.0_f32, -2.0], [0.5, 3.0]].map(|values| Tensor::from_slice(&values)).into();
            head.gates = Some(Gates { squeeze, excite, biases });
            Vec::<f32>::try_from(head.pool(&features).view([2])).unwrap()
        };
        // Weights sigmoid(2 ln 3) = 9/10 and sigmoid(0) = 1/2 of the means.
        let excited = pooled(BaselineKind::ChannelExcitation { reduction: 1 });
        // Weights sigmoid(ln 3) = 3/4 and sigmoid(3 ln 3) = 27/28 of the first channel's positions, 1/2 of the other's.
        let gated = pooled(BaselineKind::Gate { reduction: 1 });
        // Masks (x + 1) ln 3 + ½ of the first channel's positions, 2 ln 3 + ½ and 4 ln 3 + ½, and 3 of the other's.
        let linear = pooled(BaselineKind::LinearGate { reduction: 1 });
        let expected = [[1.8, 0.5], [0.5 * (0.75 + 81.0 / 28.0), 0.5], [7.0 * 3.0_f32.ln() + 1.0, 3.0]];
        for (found, expected) in [excited, gated, linear].iter().zip(expected) {
            assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-5), "{found:?} against {expected:?}");
        }
    }

    #[test]
    fn shapes_that_do_not_divide_are_refused() {
        assert!(build(BaselineKind::PooledLinear, 3).unwrap_err().to_string().contains("embed_dim"));
        let config = BaselineConfig { kind: BaselineKind::ChannelBlocks, in_channels: 15, groups: 4, embed_dim: 8 };
        assert!(config.validate().unwrap_err().to_string().contains("in_channels"));
        assert!(build(BaselineKind::Gate { reduction: 17 }, 4).unwrap_err().to_string().contains("reduction"));
        let head = build(BaselineKind::PooledLinear, 2).unwrap();
        assert!(head.forward(&Tensor::zeros([2, 3, 4, 4], (Kind::Float, Device::Cpu))).is_err());
    }
}
