//! A tensor's numbers as slices, in the order in which they lie in memory.

use super::kernel::{self, Extent, Grid, Mode};
use super::{Result, composed};
use std::mem::MaybeUninit;
use tch::{Device, Kind, Tensor};

/// Whether the kernel can work on it: single precision on the CPU.
pub(super) fn is_plain(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && tensor.kind() == Kind::Float
}

/// The same tensor, copied only if its memory has gaps or if its first axis is not outermost.
pub(super) fn dense(tensor: &Tensor) -> Tensor {
    let channels_last = || tensor.dim() == 4 && tensor.permute([0, 2, 3, 1]).is_contiguous();
    if tensor.is_contiguous() || channels_last() { tensor.shallow_clone() } else { tensor.contiguous() }
}

/// The numbers of a tensor that [`dense`] gave.
fn values(tensor: &Tensor) -> &[f32] {
    // Read as host memory below: never that of another device.
    assert!(is_plain(tensor), "a kernel got a {:?} tensor on {:?}", tensor.kind(), tensor.device());
    if tensor.numel() == 0 {
        return &[]; // whose `data_ptr` may be null
    }
    // SAFETY: a dense tensor of f32 on the CPU holds `numel` initialised numbers from `data_ptr` on, which lives as long
    // as the tensor that the slice borrows from; nobody writes to it meanwhile, as tch's operations run on this thread.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// The least and greatest value of a tensor; of an empty one, an extent that is not finite.
pub(super) fn scan(tensor: &Tensor) -> Result<Extent> {
    if is_plain(tensor) { Ok(kernel::scan(values(&dense(tensor)))) } else { composed::scan(tensor) }
}

/// The same along the first axis, an extent a row.
pub(super) fn scan_rows(tensor: &Tensor) -> Result<Vec<Extent>> {
    if !is_plain(tensor) {
        return composed::scan_rows(tensor);
    }
    let rows = tensor.size()[0];
    let tensor = dense(tensor);
    if tensor.numel() == 0 {
        return Ok((0..rows).map(|_| kernel::scan(&[])).collect());
    }
    let length = tensor.numel() / rows as usize;
    Ok(values(&tensor).chunks(length).map(kernel::scan).collect())
}

/// Rounds to one grid, or to a grid for each index of the first axis. Outside any graph; the layout in memory is kept.
pub(super) fn round(tensor: &Tensor, grids: &[Grid], mode: Mode) -> Result<Tensor> {
    if !is_plain(tensor) {
        return composed::round(&tensor.detach(), grids, mode);
    }
    let mut source = dense(&tensor.detach());
    let mut target = source.f_empty_like()?;
    if target.stride() != source.stride() {
        // Axes of length one leave strides open.
        source = source.contiguous();
        target = Tensor::f_empty(source.size(), (Kind::Float, Device::Cpu))?;
    }
    if target.numel() > 0 {
        // SAFETY: freshly allocated, dense, `numel` numbers long, and nobody else knows it yet.
        let room: &mut [MaybeUninit<f32>] =
            unsafe { std::slice::from_raw_parts_mut(target.data_ptr().cast(), target.numel()) };
        match grids {
            [grid] => kernel::round(values(&source), room, *grid, mode),
            grids => kernel::round_rows(values(&source), room, grids, mode),
        }
    }
    Ok(target)
}

/// `[rows, grids]`: for each index of the first axis and each grid, `Σ gradient · round(value)`.
pub(super) fn products(tensor: &Tensor, gradient: &Tensor, grids: &[Grid]) -> Result<Tensor> {
    let rows = tensor.size()[0];
    if tensor.numel() == 0 {
        return Ok(Tensor::f_zeros([rows, grids.len() as i64], (tensor.kind(), tensor.device()))?);
    }
    if !is_plain(tensor) || !is_plain(gradient) {
        let per_grid = grids.iter().map(|grid| -> Result<Tensor> {
            let rounded = composed::round(&tensor.detach(), &[*grid], Mode::Nearest)?;
            let product = rounded.f_mul(gradient)?.f_flatten(1, -1)?;
            Ok(product.f_sum_dim_intlist([1_i64].as_slice(), false, tensor.kind())?)
        });
        return Ok(Tensor::f_stack(&per_grid.collect::<Result<Vec<_>>>()?, 1)?);
    }
    let (mut tensor, mut gradient) = (dense(tensor), dense(gradient));
    if tensor.stride() != gradient.stride() {
        (tensor, gradient) = (tensor.contiguous(), gradient.contiguous());
    }
    let sums = kernel::products(values(&tensor), values(&gradient), rows as usize, grids);
    Ok(Tensor::f_from_slice(&sums)?.f_view([rows, grids.len() as i64])?)
}
