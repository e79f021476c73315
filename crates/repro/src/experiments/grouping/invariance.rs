//! What moving things in the image or the map does to an embedding of random weights.

use crate::Metrics;
use core_tensor::nn::Standard;
use core_tensor::seed::{Purpose, generator, seed_libtorch};
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use vision::grouping::{AttentiveGrouping, AttentiveGroupingConfig, Conv4, GroupingHead, Padding};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    permutations: u64,
    images: i64,
    groups: i64,
}

impl Default for Params {
    fn default() -> Self {
        Self { permutations: 100, images: 8, groups: 4 }
    }
}

pub(super) fn measure(params: &Params, seed: u64, device: Device) -> anyhow::Result<Metrics> {
    let mut rng = generator(seed, Purpose::Data, 0);
    let count = (params.images * 28 * 28) as usize;
    let pixels: Vec<f32> = (0..count).map(|_| rng.random_range(0.0..1.0)).collect();
    let images = Tensor::from_slice(&pixels).view([params.images, 1, 28, 28]).to_device(device);
    let mut metrics = Metrics::new();
    for (name, padding) in [("circular", Padding::Circular), ("zeros", Padding::Zeros)] {
        seed_libtorch(seed, Purpose::Initialisation, 0);
        // Drawn on the CPU, so that a seed means the same weights on every device.
        let mut store = VarStore::new(Device::Cpu);
        let backbone = Conv4::new(&(store.root() / "backbone"), &Standard, 1, padding);
        let config = AttentiveGroupingConfig {
            reduction: 4,
            ..AttentiveGroupingConfig::new(Conv4::CHANNELS, params.groups, 64)
        };
        let head = AttentiveGrouping::new(&(store.root() / "head"), config)?;
        store.set_device(device);
        let map = |images: &Tensor| tch::no_grad(|| backbone.forward(images, false));
        let embed = |map: &Tensor| anyhow::Ok(tch::no_grad(|| head.forward(map))?.concat());
        // A flattened map through one random matrix, for comparison: positions have weights of their own.
        let flat = Tensor::from_slice(&(0..64 * 64 * 49).map(|_| rng.random_range(-1.0_f32..1.0)).collect::<Vec<_>>());
        let flat = flat.view([64, 64 * 49]).to_device(device);
        let flattened = |map: &Tensor| {
            let vectors = map.contiguous().flatten(1, -1).matmul(&flat.tr());
            &vectors / vectors.norm_scalaropt_dim(2, [-1], true)
        };
        let still = map(&images);
        let reference = embed(&still)?;
        for (shift, pixels) in [("stride", Conv4::STRIDE), ("pixel", 1)] {
            let moved = map(&images.roll([pixels], [3]));
            metrics.insert(format!("{name}_{shift}"), furthest(&reference, &embed(&moved)?));
            metrics.insert(format!("flat_{name}_{shift}"), furthest(&flattened(&still), &flattened(&moved)));
        }
        if padding == Padding::Zeros {
            metrics.insert("permutation".into(), permuted(&still, &reference, params.permutations, seed, &embed)?);
        }
    }
    Ok(metrics)
}

/// The largest change over random permutations of the positions of a map.
pub(super) fn permuted(
    map: &Tensor,
    reference: &Tensor,
    permutations: u64,
    seed: u64,
    embed: &dyn Fn(&Tensor) -> anyhow::Result<Tensor>,
) -> anyhow::Result<f64> {
    let size = map.size();
    let mut order: Vec<i64> = (0..size[2] * size[3]).collect();
    let mut largest = 0.0_f64;
    for permutation in 0..permutations {
        order.shuffle(&mut generator(seed, Purpose::Order, permutation));
        let places = Tensor::from_slice(&order).to_device(map.device());
        let moved = map.contiguous().flatten(2, -1).index_select(2, &places).view(size.as_slice());
        let change = furthest(reference, &embed(&moved)?);
        // `f64::max` would drop a NaN.
        anyhow::ensure!(change.is_finite(), "permutation {permutation} changes the embedding by {change}");
        largest = largest.max(change);
    }
    Ok(largest)
}

fn furthest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().to_kind(Kind::Double).double_value(&[])
}
