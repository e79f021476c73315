//! Dropping a gradient, which tch can only fill with zeros.

use super::ffi::error_of;
use crate::Result;
use std::ffi::c_char;
use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn ct_drop_gradient(tensor: *mut C_tensor) -> *mut c_char;
}

/// Leaves a leaf without a gradient, as if none had ever reached it: [`Tensor::grad`] is undefined until the next does.
///
/// [`Tensor::zero_grad`] leaves a gradient of zeros instead, which an optimizer cannot tell from one that was computed.
///
/// ```
/// use core_tensor::autograd::drop_gradient;
/// use tch::Tensor;
///
/// let mut weight = Tensor::from_slice(&[3.0_f32]).set_requires_grad(true);
/// weight.square().backward();
/// assert_eq!(weight.grad().double_value(&[0]), 6.0);
/// drop_gradient(&mut weight)?;
/// assert!(!weight.grad().defined());
/// # Ok::<(), core_tensor::Error>(())
/// ```
///
/// # Errors
/// What libtorch refuses.
pub fn drop_gradient(tensor: &mut Tensor) -> Result<()> {
    // SAFETY: the tensor is alive for the call, which resets its own reference to the gradient and keeps nothing.
    let message = unsafe { ct_drop_gradient(tensor.as_mut_ptr()) };
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the message is C++'s, not null, and goes no further.
    Err(unsafe { error_of(message) })
}
