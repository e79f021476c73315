//! Fashion-MNIST objects, 20 × 20, on a black frame of 40 × 40.

use super::network::SIDE;
use core_tensor::data::{Batch, BatchSource, Dataset, shuffled};
use core_tensor::seed::{Purpose, generator};
use rand::Rng;
use tch::{Kind, Tensor};
use vision::invariance::{Picture, Sprite};

/// Side of an object.
pub(super) const OBJECT: usize = 20;
/// Rows above and columns left of an object at the centre.
pub(super) const CENTRE: usize = (SIDE - OBJECT) / 2;
/// Training objects are at most this far from the centre.
const JITTER: i64 = 3;

/// Objects near the centre, as photographs have them.
pub(super) struct Placed {
    /// `[count, 20, 20]`, 0 to 1.
    objects: Tensor,
    labels: Vec<i64>,
    batch: usize,
    seed: u64,
}

impl Placed {
    pub(super) fn new(set: &Dataset, batch: usize, seed: u64) -> anyhow::Result<Self> {
        Ok(Self { objects: shrunk(set)?, labels: set.targets().to_vec(), batch, seed })
    }

    fn make(&self, index: Vec<usize>, epoch: u64) -> core_tensor::Result<Batch> {
        let (count, side) = (index.len(), SIDE as i64);
        let input = Tensor::f_zeros([count as i64, 1, side, side], (Kind::Float, tch::Device::Cpu))?;
        for (place, &sample) in index.iter().enumerate() {
            let mut rng = generator(self.seed ^ epoch.rotate_left(32), Purpose::Augmentation, sample as u64);
            let [row, column] = [0; 2].map(|_| CENTRE as i64 + rng.random_range(-JITTER..=JITTER));
            let spot =
                input.f_get(place as i64)?.f_narrow(1, row, OBJECT as i64)?.f_narrow(2, column, OBJECT as i64)?;
            spot.f_squeeze_dim(0)?.f_copy_(&self.objects.f_get(sample as i64)?)?;
        }
        let target = Tensor::from_slice(&index.iter().map(|&sample| self.labels[sample]).collect::<Vec<_>>());
        Ok(Batch { input, target, index })
    }
}

impl BatchSource for Placed {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        self.labels.len().div_ceil(self.batch) as u64
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        let order = shuffled(self.labels.len(), self.seed, epoch);
        let starts = (0..order.len()).step_by(self.batch);
        Ok(Box::new(starts.map(move |start| {
            let index = order[start..(start + self.batch).min(order.len())].to_vec();
            self.make(index, epoch)
        })))
    }
}

/// `[count, 20, 20]`, 0 to 1, resized with anti-aliasing.
fn shrunk(set: &Dataset) -> anyhow::Result<Tensor> {
    let images = set.images().to_kind(Kind::Float) / 255.0;
    let side = OBJECT as i64;
    Ok(images.f_internal_upsample_bilinear2d_aa([side, side], false, None, None)?.f_squeeze_dim(1)?)
}

/// The set's objects at the centre, `[count, 1, 40, 40]`.
pub(super) fn centred(set: &Dataset) -> anyhow::Result<Tensor> {
    Ok(shrunk(set)?.f_unsqueeze(1)?.f_constant_pad_nd([CENTRE as i64; 4])?)
}

/// The set's objects, each with its class.
pub(super) fn sprites(set: &Dataset) -> anyhow::Result<Vec<(Sprite, i64)>> {
    let objects = shrunk(set)?;
    let one = |(place, &label): (usize, &i64)| {
        let picture = Picture::from_tensor(&objects.f_get(place as i64)?.f_unsqueeze(0)?)?;
        Ok((Sprite::opaque(picture), label))
    };
    set.targets().iter().enumerate().map(one).collect()
}
