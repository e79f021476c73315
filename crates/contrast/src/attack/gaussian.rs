//! Gaussian noise that depends on a seed and a row's number alone.

use core_tensor::seed::{Purpose, generator};
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use tch::Tensor;

/// `rows` times the shape of `like` behind its first dimension, of its kind and on its device: normal deviates of deviation
/// `sigma`. A row has a generator of its own, counted from `first`, so that however many come at a time, each is the same.
pub(crate) fn gaussian(like: &Tensor, rows: usize, sigma: f64, seed: u64, first: u64) -> Tensor {
    let mut shape = like.size();
    shape[0] = rows as i64;
    let width = shape[1..].iter().product::<i64>() as usize;
    let sigma = sigma as f32;
    let mut noise = vec![0.0_f32; rows * width];
    noise.par_chunks_mut(width.max(1)).enumerate().for_each(|(index, row)| {
        let mut rng = generator(seed, Purpose::Noise, first + index as u64);
        row.fill_with(|| sigma * Distribution::<f32>::sample(&StandardNormal, &mut rng));
    });
    Tensor::from_slice(&noise).reshape(shape).to_kind(like.kind()).to_device(like.device())
}
