//! Gradient hooks, functions with a backward pass of one's own, straight-through estimators and gradients that can be
//! dropped: what tch does not expose of libtorch's autograd.
//!
//! ```
//! use core_tensor::autograd::{register_hook, straight_through};
//! use tch::Tensor;
//!
//! let x = Tensor::from_slice(&[0.2_f32, 1.7]).set_requires_grad(true);
//! let rounded = straight_through(&x, &x.round()); // rounds forward, passes the gradient unchanged
//! register_hook(&rounded, |gradient| gradient * 10.0)?; // and ten times it on the way back
//! rounded.sum(tch::Kind::Float).backward();
//! assert_eq!(Vec::<f32>::try_from(&rounded)?, [0.0, 2.0]);
//! assert_eq!(Vec::<f32>::try_from(x.grad())?, [10.0, 10.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod custom;
mod ffi;
mod gradient;
mod hook;

pub use custom::with_backward;
pub use gradient::drop_gradient;
pub use hook::register_hook;

use tch::Tensor;

/// `value` forward, the gradient of `input` backward.
///
/// Where `input` is finite the result equals `value`, with −0 as 0: the usual `input + (value − input)` does not, since the
/// subtraction rounds. Where `input` is infinite or NaN it is NaN.
pub fn straight_through(input: &Tensor, value: &Tensor) -> Tensor {
    value.detach() + (input - input.detach())
}
