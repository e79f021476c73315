//! A stream of random numbers for every example, whatever the batch it sits in.
//!
//! An example's stream is chosen by the seed and by the example's own pixels. So a permuted, split or shortened batch
//! gives every image the numbers it had before, which no generator shared by a batch can do.

use core_tensor::seed::{Purpose, derive, generator};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::Result;
use super::rows::from_rows;

/// Batches of fewer values are filled by the calling thread alone. libtorch's threads spin for a while after each of its
/// operations, and on a machine of few cores rayon's get what is left: an attack step from a random start, 200,000 values on
/// two cores, took 5.5 ms with them and 4.0 without.
const FEW: usize = 1 << 20;

/// The streams of one batch.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    seed: u64,
    keys: Vec<u64>,
}

impl Streams {
    /// One stream for each of `images`.
    pub(crate) fn new(seed: u64, images: &Tensor) -> Result<Self> {
        let count = images.size().first().copied().unwrap_or(0) as usize;
        if count == 0 {
            return Ok(Self { seed, keys: Vec::new() });
        }
        let flat = images.detach().to_device(tch::Device::Cpu).to_kind(Kind::Float).reshape([-1]);
        let values = Vec::<f32>::try_from(flat)?;
        let width = (values.len() / count).max(1);
        let few = values.len() < FEW;
        let keys =
            if few { values.chunks(width).map(hash).collect() } else { values.par_chunks(width).map(hash).collect() };
        Ok(Self { seed, keys })
    }

    /// The streams of the examples at `places`.
    pub(crate) fn select(&self, places: &[i64]) -> Self {
        Self { seed: self.seed, keys: places.iter().map(|&place| self.keys[place as usize]).collect() }
    }

    /// The generator of the example at `place` for the `counter`-th use: a restart, a query, a class.
    pub(crate) fn generator(&self, place: usize, counter: u64) -> ChaCha8Rng {
        generator(derive(self.seed, Purpose::Noise, self.keys[place]), Purpose::Noise, counter)
    }

    /// A tensor like `like`, every example's row filled by `fill` from its own generator.
    pub(crate) fn fill(
        &self,
        like: &Tensor,
        counter: u64,
        fill: impl Fn(&mut ChaCha8Rng, &mut [f64]) + Sync,
    ) -> Result<Tensor> {
        let width = (like.numel() / self.keys.len().max(1)).max(1);
        if like.kind() == Kind::Float {
            let mut values = vec![0.0_f32; like.numel()];
            let single = |row: &mut Vec<f64>, (place, values): (usize, &mut [f32])| {
                row.fill(0.0);
                fill(&mut self.generator(place, counter), row);
                values.iter_mut().zip(row).for_each(|(value, drawn)| *value = *drawn as f32);
            };
            let room = || vec![0.0; width];
            if values.len() < FEW {
                let mut row = room();
                values.chunks_mut(width).enumerate().for_each(|chunk| single(&mut row, chunk));
            } else {
                values.par_chunks_mut(width).enumerate().for_each_init(room, single);
            }
            return Ok(Tensor::from_slice(&values).reshape(like.size()).to_device(like.device()));
        }
        let mut values = vec![0.0; like.numel()];
        let rows = values.par_chunks_mut(width).enumerate();
        rows.for_each(|(place, row)| fill(&mut self.generator(place, counter), row));
        Ok(from_rows(&values, like))
    }
}

/// A multiplicative hash of the pixels' bits (the one of Firefox), enough to tell images apart.
fn hash(row: &[f32]) -> u64 {
    row.iter().fold(row.len() as u64, |state, value| {
        (state.rotate_left(5) ^ u64::from(value.to_bits())).wrapping_mul(0x517C_C1B7_2722_0A95)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;
    use tch::Device;

    #[test]
    fn an_example_keeps_its_numbers_when_the_batch_is_permuted() {
        let images = Tensor::arange(12, (Kind::Float, Device::Cpu)).reshape([3, 1, 2, 2]) / 12.0;
        let order = Tensor::from_slice(&[2_i64, 0, 1]);
        let draw = |batch: &Tensor| {
            let streams = Streams::new(7, batch).unwrap();
            streams.fill(batch, 0, |rng, row| row.fill_with(|| rng.random())).unwrap()
        };
        assert_eq!(draw(&images).index_select(0, &order), draw(&images.index_select(0, &order)));
        // Other images, other numbers.
        assert_ne!(draw(&images).get(0), draw(&images).get(1));
    }

    #[test]
    fn an_example_keeps_its_numbers_when_many_threads_draw_them() {
        let (rows, width) = (3, 700_000);
        assert!((width as usize) < FEW && (rows * width) as usize >= FEW);
        let images = Tensor::arange(rows * width, (Kind::Float, Device::Cpu)).reshape([rows, width]);
        let draw = |batch: &Tensor| {
            let streams = Streams::new(7, batch).unwrap();
            streams.fill(batch, 0, |rng, row| row.fill_with(|| rng.random())).unwrap()
        };
        let whole = draw(&images);
        for row in 0..rows {
            assert_eq!(whole.narrow(0, row, 1), draw(&images.narrow(0, row, 1)));
        }
    }
}
