//! A small VGG whose pools and head are what is under test.

use core_tensor::nn::{
    BatchNormConfig, Conv2dConfig, LayerFactory, LinearConfig, Module, Network, PoolConfig, Tap, channels_last,
};
use core_tensor::seed::{Purpose, seed_libtorch};
use serde::{Deserialize, Serialize};
use tch::nn::{Path, VarStore};
use tch::{Device, Tensor};
use vision::invariance::{AntiAlias, AntiAliasConfig, Borders, Reduction};

/// Side of an image.
pub(super) const SIDE: usize = 40;
/// Length of the feature vector.
const FEATURES: i64 = 128;

/// Between the last map and the feature vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Head {
    /// All places.
    Flatten,
    /// Their mean.
    Average,
}

/// How resolution is halved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Pool {
    /// Max 2 × 2, stride 2.
    Max,
    /// Max 2 × 2, stride 1, then a binomial blur of this side with stride 2.
    Blur(usize),
    /// As `Max`, with circular borders everywhere.
    Circular,
    /// Circular borders, max 2 × 2 with stride 1, then adaptive polyphase sampling.
    Polyphase,
}

impl Head {
    pub(super) fn label(self) -> &'static str {
        if self == Self::Flatten { "fc" } else { "gap" }
    }
}

impl Pool {
    pub(super) fn label(self) -> String {
        match self {
            Self::Max => "max".into(),
            Self::Blur(kernel) => format!("blur {kernel}"),
            Self::Circular => "circular".into(),
            Self::Polyphase => "polyphase".into(),
        }
    }

    fn config(self) -> AntiAliasConfig {
        match self {
            Self::Max => AntiAliasConfig { reduction: Reduction::Plain, borders: Borders::Zeros, stem: false },
            Self::Blur(kernel) => AntiAliasConfig::blur(kernel),
            Self::Circular => AntiAliasConfig::circular(),
            Self::Polyphase => AntiAliasConfig::polyphase(),
        }
    }
}

/// Three stages of two convolutions and a pool, then `fc6` (the feature, before its ReLU) and `fc`.
#[derive(Debug)]
pub(super) struct SmallVgg {
    stages: Vec<Stage>,
    head: Head,
    fc6: Module,
    fc: Module,
}

#[derive(Debug)]
struct Stage {
    layers: Vec<(Module, Module)>,
    pool: Module,
}

/// The network with this seed's first weights, on `device`: equal for equal heads, whatever the pools.
pub(super) fn build(head: Head, pool: Pool, seed: u64, device: Device) -> anyhow::Result<(VarStore, SmallVgg)> {
    seed_libtorch(seed, Purpose::Initialisation, 0);
    // Drawn on the CPU, so that a seed means the same weights on every device.
    let mut store = VarStore::new(Device::Cpu);
    let factory = AntiAlias::new(pool.config())?;
    let network = SmallVgg::new(&store.root(), &factory, head);
    factory.finish()?;
    store.set_device(device);
    Ok((store, network))
}

impl SmallVgg {
    fn new(path: &Path, factory: &dyn LayerFactory, head: Head) -> Self {
        let mut inputs = 1;
        let stages = [8, 16, 32].into_iter().enumerate().map(|(stage, width)| {
            let layers = (0..2).map(|layer| {
                let conv = Conv2dConfig::new(inputs, width, 3, 1);
                inputs = width;
                let at = |kind: &str| path / format!("stage{}", stage + 1) / format!("{kind}{}", layer + 1);
                (factory.conv2d(&at("conv"), conv), factory.batch_norm2d(&at("bn"), BatchNormConfig::new(width)))
            });
            let layers = layers.collect();
            let pool = factory.max_pool2d(PoolConfig { channels: width, kernel: 2, stride: 2, padding: 0 });
            Stage { layers, pool }
        });
        let stages = stages.collect();
        let places = if head == Head::Flatten { (SIDE / 8 * SIDE / 8) as i64 } else { 1 };
        Self {
            stages,
            head,
            fc6: factory.linear(&(path / "fc6"), LinearConfig::new(32 * places, FEATURES)),
            fc: factory.linear(&(path / "fc"), LinearConfig::new(FEATURES, 10)),
        }
    }
}

impl Network for SmallVgg {
    fn forward_tapped(&self, input: &Tensor, train: bool, tap: Tap) -> Tensor {
        let mut map = channels_last(input);
        for (number, stage) in self.stages.iter().enumerate() {
            for (conv, norm) in &stage.layers {
                map = norm.forward_t(&conv.forward_t(&map, train), train).relu_();
            }
            map = stage.pool.forward_t(&map, train);
            tap(&format!("stage{}", number + 1), &map);
        }
        let flat = match self.head {
            Head::Flatten => map.contiguous().flatten(1, -1),
            Head::Average => map.adaptive_avg_pool2d([1, 1]).flatten(1, -1),
        };
        let feature = self.fc6.forward_t(&flat, train);
        tap("fc6", &feature);
        self.fc.forward_t(&feature.relu(), train)
    }

    fn features(&self, input: &Tensor, train: bool) -> Tensor {
        let mut feature = Tensor::new();
        let _logits = self.forward_tapped(input, train, &mut |name, tensor| {
            if name == "fc6" {
                feature = tensor.shallow_clone();
            }
        });
        feature
    }

    fn feature_size(&self) -> i64 {
        FEATURES
    }

    fn classifier(&self) -> &str {
        "fc"
    }
}
