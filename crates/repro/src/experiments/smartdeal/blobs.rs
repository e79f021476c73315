//! Ten classes of Gaussian clumps, and the network that tells them apart.

use core_tensor::data::{Batch, BatchSource};
use core_tensor::nn::{Init, LayerFactory, LinearConfig, Module, Network, Tap};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor, nn};

pub(super) const DESCRIPTION: &str = "Gaussian clumps, 10 classes in 64 dimensions";
const CLASSES: usize = 10;
const DIMENSIONS: usize = 64;
const CLUMPS: usize = 6;
const NOISE: f32 = 0.9;
const BATCH: usize = 100;

/// Labelled vectors, shuffled anew in every epoch.
#[derive(Debug)]
pub(super) struct Blobs {
    input: Tensor,
    target: Tensor,
    seed: u64,
}

impl Blobs {
    /// Training and test samples around the same clumps.
    pub(super) fn splits(train: usize, test: usize, seed: u64) -> (Self, Self) {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let centres: Vec<f32> = (0..CLASSES * CLUMPS * DIMENSIONS).map(|_| normal(rng)).collect();
        let mut draw = |count: usize| {
            let (mut input, mut target) = (Vec::with_capacity(count * DIMENSIONS), Vec::with_capacity(count));
            for _ in 0..count {
                let clump = rng.random_range(0..CLASSES * CLUMPS);
                target.push((clump % CLASSES) as i64);
                let centre = &centres[clump * DIMENSIONS..][..DIMENSIONS];
                input.extend(centre.iter().map(|c| c + NOISE * normal(rng)));
            }
            let input = Tensor::from_slice(&input).view([count as i64, DIMENSIONS as i64]);
            Self { input, target: Tensor::from_slice(&target), seed }
        };
        (draw(train), draw(test))
    }

    /// The same on a device.
    pub(super) fn on(self, device: Device) -> Self {
        Self { input: self.input.to_device(device), target: self.target.to_device(device), seed: self.seed }
    }

    /// The first and the second half.
    pub(super) fn halves(&self) -> (Self, Self) {
        let half = self.target.size()[0] / 2;
        let part = |start| Self {
            input: self.input.narrow(0, start, half),
            target: self.target.narrow(0, start, half),
            seed: self.seed,
        };
        (part(0), part(half))
    }

    pub(super) fn input(&self) -> &Tensor {
        &self.input
    }
}

impl BatchSource for Blobs {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        (self.target.size()[0] as usize / BATCH) as u64
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        let mut order: Vec<i64> = (0..self.target.size()[0]).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(1 + epoch);
        order.shuffle(&mut rng);
        let batches: Vec<Vec<i64>> = order.chunks_exact(BATCH).map(<[i64]>::to_vec).collect();
        Ok(Box::new(batches.into_iter().map(|index| {
            let rows = Tensor::from_slice(&index).to_device(self.input.device());
            Ok(Batch {
                input: self.input.f_index_select(0, &rows)?,
                target: self.target.f_index_select(0, &rows)?,
                index: index.iter().map(|i| *i as usize).collect(),
            })
        })))
    }
}

/// Box and Muller.
pub(super) fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (radius, turn) = ((-2.0 * (1.0 - rng.random::<f32>()).ln()).sqrt(), rng.random::<f32>());
    radius * (std::f32::consts::TAU * turn).cos()
}

/// 64-96-48-10.
#[derive(Debug)]
pub(super) struct Mlp {
    layers: Vec<Module>,
}

const WIDTHS: [i64; 4] = [DIMENSIONS as i64, 96, 48, CLASSES as i64];

impl Mlp {
    pub(super) fn new(path: &nn::Path, factory: &dyn LayerFactory) -> Self {
        let layer = |(i, pair): (usize, &[i64])| {
            let config = LinearConfig { init: Init::KaimingNormalFanIn, ..LinearConfig::new(pair[0], pair[1]) };
            factory.linear(&(path / format!("fc{}", i + 1)), config)
        };
        Self { layers: WIDTHS.windows(2).enumerate().map(layer).collect() }
    }
}

impl Network for Mlp {
    fn forward_tapped(&self, input: &Tensor, train: bool, _: Tap) -> Tensor {
        self.layers[2].forward_t(&self.features(input, train), train)
    }

    fn features(&self, input: &Tensor, train: bool) -> Tensor {
        let hidden = self.layers[0].forward_t(input, train).relu();
        self.layers[1].forward_t(&hidden, train).relu()
    }

    fn feature_size(&self) -> i64 {
        WIDTHS[2]
    }

    fn classifier(&self) -> &str {
        "fc3"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_data_and_every_epoch_its_own_order() {
        let (first, test) = Blobs::splits(200, 50, 3);
        let (again, _) = Blobs::splits(200, 50, 3);
        assert_eq!(first.input, again.input);
        assert_eq!(test.target.size(), [50]);
        let order = |blobs: &Blobs, epoch| -> Vec<usize> {
            blobs.epoch(epoch).unwrap().flat_map(|batch| batch.unwrap().index).collect()
        };
        assert_eq!(order(&first, 1), order(&again, 1));
        assert_ne!(order(&first, 1), order(&first, 2));
        let mut all = order(&first, 0);
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
    }
}
