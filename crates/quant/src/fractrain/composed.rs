//! Rounding to a uniform grid as plain tensor operations: for devices and kinds that the kernel does not know, and to
//! compare it with.

use super::Result;
use super::kernel::{Extent, Grid, Mode};
use tch::{Kind, Tensor};

/// The least and greatest value.
pub(super) fn scan(values: &Tensor) -> Result<Extent> {
    if values.numel() == 0 {
        return Ok(Extent { low: f32::INFINITY, high: f32::NEG_INFINITY, finite: false });
    }
    // Both numbers in one transfer: each waits for the device.
    let ends = Tensor::f_stack(&[values.f_min()?, values.f_max()?], 0)?.f_to_kind(Kind::Double)?;
    let ends = Vec::<f64>::try_from(ends)?;
    Ok(extent(ends[0], ends[1]))
}

/// The same along the first axis, an extent a row.
pub(super) fn scan_rows(values: &Tensor) -> Result<Vec<Extent>> {
    let rows = values.size()[0];
    if values.numel() == 0 {
        return (0..rows).map(|row| scan(&values.f_select(0, row)?)).collect();
    }
    let flat = values.f_reshape([rows, -1])?;
    let axis = [1_i64];
    let ends = Tensor::f_cat(&[flat.f_amin(&axis[..], false)?, flat.f_amax(&axis[..], false)?], 0)?;
    let ends = Vec::<f64>::try_from(ends.f_to_kind(Kind::Double)?)?;
    let (low, high) = ends.split_at(rows as usize);
    Ok(low.iter().zip(high).map(|(low, high)| extent(*low, *high)).collect())
}

fn extent(low: f64, high: f64) -> Extent {
    let finite = low.is_finite() && high.is_finite();
    Extent { low: low as f32, high: high as f32, finite }.with_finite_width()
}

/// Rounds to one grid, or row by row along the first axis. Noise comes from libtorch's generator.
pub(super) fn round(values: &Tensor, grids: &[Grid], mode: Mode) -> Result<Tensor> {
    let kind = values.kind();
    if matches!(kind, Kind::Half | Kind::BFloat16) {
        // In their own kind positions would have no fraction left, and the last of 16 bits would be infinite.
        return Ok(round(&values.f_to_kind(Kind::Float)?, grids, mode)?.f_to_kind(kind)?);
    }
    let mut shape = vec![1; values.dim()];
    if grids.len() > 1 {
        shape[0] = grids.len() as i64;
    }
    let picks: [fn(&Grid) -> f32; 3] = [|grid| grid.min, |grid| grid.step, |grid| grid.steps];
    let numbers: Vec<f32> = picks.iter().flat_map(|pick| grids.iter().map(pick)).collect();
    let columns = Tensor::f_from_slice(&numbers)?
        .f_to_kind(kind)?
        .f_to_device(values.device())?
        .f_view([3, grids.len() as i64])?;
    let column = |index: i64| -> Result<Tensor> { Ok(columns.f_select(0, index)?.f_view(&shape[..])?) };
    let (min, step, steps) = (column(0)?, column(1)?, column(2)?);
    let position = values.f_sub(&min)?.f_div(&step)?.f_clamp_min(0.0)?.f_minimum(&steps)?;
    let level = match mode {
        Mode::Nearest => position.f_round()?,
        Mode::Stochastic(_) => {
            let below = position.f_floor()?;
            let up = position.f_sub(&below)?.f_gt_tensor(&position.f_rand_like()?)?;
            below.f_add(&up.f_to_kind(kind)?)?
        }
    };
    Ok(level.f_mul(&step)?.f_add(&min)?)
}
