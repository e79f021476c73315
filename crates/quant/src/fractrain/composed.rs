//! Rounding to a uniform grid as plain tensor operations: for devices and kinds that the kernel does not know, and to
//! compare it with.

use super::Result;
use super::kernel::{Extent, Grid, Mode};
use tch::Tensor;

/// The least and greatest value.
pub(super) fn scan(values: &Tensor) -> Result<Extent> {
    if values.numel() == 0 {
        return Ok(Extent { low: f32::INFINITY, high: f32::NEG_INFINITY, finite: false });
    }
    let (low, high) = (values.f_min()?.double_value(&[]), values.f_max()?.double_value(&[]));
    let extent = Extent { low: low as f32, high: high as f32, finite: low.is_finite() && high.is_finite() };
    Ok(extent.with_finite_width())
}

/// Rounds to one grid, or row by row along the first axis. Noise comes from libtorch's generator.
pub(super) fn round(values: &Tensor, grids: &[Grid], mode: Mode) -> Result<Tensor> {
    let column = |pick: fn(&Grid) -> f32| -> Result<Tensor> {
        let mut shape = vec![1; values.dim()];
        if grids.len() > 1 {
            shape[0] = grids.len() as i64;
        }
        let numbers: Vec<f32> = grids.iter().map(pick).collect();
        Ok(Tensor::f_from_slice(&numbers)?
            .f_to_kind(values.kind())?
            .f_to_device(values.device())?
            .f_view(&shape[..])?)
    };
    let (min, step, steps) = (column(|grid| grid.min)?, column(|grid| grid.step)?, column(|grid| grid.steps)?);
    let position = values.f_sub(&min)?.f_div(&step)?.f_clamp_min(0.0)?.f_minimum(&steps)?;
    let level = match mode {
        Mode::Nearest => position.f_round()?,
        Mode::Stochastic(_) => {
            let below = position.f_floor()?;
            let up = position.f_sub(&below)?.f_gt_tensor(&position.f_rand_like()?)?;
            below.f_add(&up.f_to_kind(values.kind())?)?
        }
    };
    Ok(level.f_mul(&step)?.f_add(&min)?)
}
