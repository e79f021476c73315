//! Tensors whose bytes come straight from a file.

use tch::{Device, Kind, Tensor};

use crate::Result;

/// A new tensor on the CPU whose bytes, in row-major order and the machine's own byte order, `fill` writes. They are
/// zero before it does.
///
/// tch's own way from bytes to a tensor fills the tensor with zeros on all of libtorch's threads and then copies. For
/// a file of many tensors the hand-overs between threads cost more than the reading (ten times as much when other
/// processes keep the cores busy), and the bytes need a second home meanwhile.
///
/// `fill` must refuse [stray truth values](stray_truth_value).
pub(super) fn filled(kind: Kind, shape: &[i64], fill: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Tensor> {
    let tensor = Tensor::f_empty(shape, (kind, Device::Cpu))?;
    let length = tensor.numel() * kind.elt_size_in_bytes();
    if length == 0 {
        fill(&mut [])?;
        return Ok(tensor);
    }
    let start = tensor.data_ptr().cast::<u8>();
    // SAFETY: `tensor` is new, so nothing else refers to its memory, and it lives beyond the slice. `empty` makes
    // it contiguous on the CPU: `length` bytes from `start`. They are initialised before a slice of them exists.
    // Any bytes are valid elements of the numeric kinds; for truth values `fill` checks.
    let bytes = unsafe {
        start.write_bytes(0, length);
        std::slice::from_raw_parts_mut(start, length)
    };
    fill(bytes)?;
    Ok(tensor)
}

/// The place of the first byte that no truth value has, in the bytes of a tensor of them; nothing for other kinds.
pub(super) fn stray_truth_value(kind: Kind, bytes: &[u8]) -> Option<usize> {
    if kind == Kind::Bool { bytes.iter().position(|&byte| byte > 1) } else { None }
}
