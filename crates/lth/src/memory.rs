//! Tensor memory as slices: the only `unsafe` of the crate.

use crate::{Error, Result};
use tch::{Device, Kind, Tensor};

/// A tensor's values in CPU memory, row by row, as `f32`; without a copy where they already are that.
pub(crate) struct HostValues {
    tensor: Tensor,
}

impl HostValues {
    /// # Errors
    /// A tensor that does not hold floating-point numbers.
    pub(crate) fn new(name: &str, tensor: &Tensor) -> Result<Self> {
        let kind = tensor.f_kind()?;
        if !matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) {
            return Err(Error::mismatch(name, "floating-point numbers", format!("{kind:?}")));
        }
        // Each of these hands back the same memory where there is nothing to do.
        let tensor = tensor.detach().f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        Ok(Self { tensor })
    }

    pub(crate) fn values(&self) -> &[f32] {
        let len = self.tensor.numel();
        if len == 0 {
            return &[];
        }
        // SAFETY: `new` made the tensor contiguous `f32` in CPU memory, so its `numel` elements lie one after the other
        // from `data_ptr`, aligned by libtorch's allocator. `self.tensor` keeps the storage alive for the slice's life.
        // Nothing writes to it meanwhile: this crate's callers run no tensor operation while they hold the slice.
        unsafe { std::slice::from_raw_parts(self.tensor.data_ptr().cast::<f32>(), len) }
    }
}

/// Writes `0.0` to each place of `tensor` whose bit in `kept` is 0; `kept` is in the order of memory, which must have
/// the given strides. Returns false, having done nothing, if the tensor is not `f32` in CPU memory with these strides.
pub(crate) fn zero_dropped(tensor: &Tensor, strides: &[i64], kept: &[u64]) -> bool {
    let fits = tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.stride() == strides;
    let len = tensor.numel();
    if !fits || len == 0 || kept.len() != len.div_ceil(64) {
        return false;
    }
    // SAFETY: the tensor is `f32` in CPU memory and its strides are those of a permuted contiguous layout (checked when
    // the mask was laid out), so its `len` elements fill the memory from `data_ptr` without gaps. Tensors are interior
    // mutable by libtorch's design, and no other slice of this memory exists while this function runs.
    let values = unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<f32>(), len) };
    for (values, kept) in values.chunks_mut(64).zip(kept) {
        if *kept == 0 {
            values.fill(0.0);
        } else if *kept != u64::MAX {
            for (index, value) in values.iter_mut().enumerate() {
                // All ones or all zeros: unlike a product, this also clears NaN and never leaves -0.
                let keep = 0_u32.wrapping_sub((*kept >> index) as u32 & 1);
                *value = f32::from_bits(value.to_bits() & keep);
            }
        }
    }
    true
}

/// The strides of a tensor if it fills its memory without gaps, whatever the order of its axes.
pub(crate) fn dense_strides(tensor: &Tensor) -> Option<Vec<i64>> {
    let strides = tensor.stride();
    let mut axes: Vec<(i64, i64)> = strides.iter().copied().zip(tensor.size()).filter(|(_, size)| *size != 1).collect();
    axes.sort_unstable();
    let mut expected = 1;
    for (stride, size) in axes {
        if stride != expected {
            return None;
        }
        expected *= size;
    }
    Some(strides)
}
