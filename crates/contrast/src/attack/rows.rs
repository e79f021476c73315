//! Between a batch of images and one slice of numbers an example.

use rayon::prelude::*;
use tch::Tensor;

use super::Result;

/// The batch's values in memory order of `[batch, …]`, in double precision, and the length of a row.
pub(crate) fn to_rows(batch: &Tensor) -> Result<(Vec<f64>, usize)> {
    let count = batch.size().first().copied().unwrap_or(0).max(1) as usize;
    let flat = batch.detach().to_device(tch::Device::Cpu).to_kind(tch::Kind::Double).reshape([-1]);
    let values = Vec::<f64>::try_from(flat)?;
    let width = values.len() / count;
    Ok((values, width))
}

/// A tensor of `like`'s shape, kind and device.
pub(crate) fn from_rows(values: &[f64], like: &Tensor) -> Tensor {
    Tensor::from_slice(values).reshape(like.size()).to_kind(like.kind()).to_device(like.device())
}

/// Rewrites every example of `batch` by `change(place, row)`, rows in parallel.
pub(crate) fn map_rows(batch: &Tensor, change: impl Fn(usize, &mut [f64]) + Sync) -> Result<Tensor> {
    let (mut values, width) = to_rows(batch)?;
    if width > 0 {
        values.par_chunks_mut(width).enumerate().for_each(|(place, row)| change(place, row));
    }
    Ok(from_rows(&values, batch))
}

/// `values [batch]` shaped so that it multiplies a batch of `dimensions` dimensions.
pub(crate) fn broadcast(values: &Tensor, dimensions: usize) -> Tensor {
    let mut shape = vec![1; dimensions.max(1)];
    shape[0] = -1;
    values.reshape(shape)
}

/// A value as a model of single precision will see it.
pub(crate) fn rounded(value: f64, single: bool) -> f64 {
    if single { f64::from(value as f32) } else { value }
}
