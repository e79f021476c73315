//! A function with a backward pass of one's own, through the same small C++ file as the hooks.
//!
//! Ownership is that of `hook.rs`: the closure is boxed, C++ holds it in a shared pointer, and it goes with the last graph
//! node. Nothing unwinds across the border.

use super::ffi::{drop_closure, error_of, hand_over};
use crate::{Error, Result};
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use tch::Tensor;
use torch_sys::C_tensor;

type Backward = Box<dyn Fn(&Tensor) -> Vec<Option<Tensor>> + Send>;
/// Two threads may run backward through one kept graph at once; a closure need not be ready for that.
type Closure = Mutex<Backward>;

unsafe extern "C" {
    fn ct_with_backward(
        inputs: *const *mut C_tensor,
        count: usize,
        value: *mut C_tensor,
        closure: *mut c_void,
        call: extern "C" fn(*mut c_void, *mut C_tensor, *mut *mut C_tensor, usize) -> bool,
        drop: extern "C" fn(*mut c_void),
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// `value` forward, sharing its memory; backward, each input gets what `backward` makes of the incoming gradient.
///
/// `backward` returns one entry an input, in their order, `None` for no gradient. It runs without gradient recording, on
/// the thread that calls `backward` (on CUDA: on the device's autograd thread), and lives as long as the result's graph.
/// One thread runs it at a time, so it must not run backward through the result itself: that would wait for its own end. If
/// it panics or returns another number of entries, the backward pass fails. Where no input needs a gradient, or
/// gradients are off, the result is `value` and the closure is dropped.
///
/// ```
/// use core_tensor::autograd::with_backward;
/// use tch::Tensor;
///
/// // The sign, with the gradient of the identity clipped to |x| ≤ 1.
/// let x = Tensor::from_slice(&[0.3_f32, -4.0]).set_requires_grad(true);
/// let saved = x.detach();
/// let sign = with_backward(&[&x], &x.detach().sign(), move |gradient| {
///     vec![Some(gradient * saved.abs().le(1.0))]
/// })?;
/// sign.sum(tch::Kind::Float).backward();
/// assert_eq!(Vec::<f32>::try_from(x.grad())?, [1.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A value that is part of a graph itself, or of a kind that has no gradient although an input needs one.
pub fn with_backward(
    inputs: &[&Tensor],
    value: &Tensor,
    backward: impl Fn(&Tensor) -> Vec<Option<Tensor>> + Send + 'static,
) -> Result<Tensor> {
    if value.requires_grad() {
        return Err(Error::tensor("value", "one outside any graph", "one that requires a gradient"));
    }
    let backward: Backward = Box::new(backward);
    let closure = hand_over::<Closure>(Mutex::new(backward));
    let pointers: Vec<*mut C_tensor> = inputs.iter().map(|input| input.as_ptr().cast_mut()).collect();
    let mut out = std::ptr::null_mut();
    // SAFETY: all tensors are alive for the call and C++ only reads them; the closure's ownership moves to C++, which
    // gives it to `drop_closure` exactly once, also on failure.
    let message = unsafe {
        ct_with_backward(
            pointers.as_ptr(),
            pointers.len(),
            value.as_ptr().cast_mut(),
            closure,
            call_closure,
            drop_closure::<Closure>,
            &raw mut out,
        )
    };
    if out.is_null() {
        // SAFETY: C++ sets `out` last, so without a tensor there is a message of its; it goes no further.
        return Err(unsafe { error_of(message) });
    }
    // SAFETY: a tensor that C++ made for us, and nobody else holds the handle.
    Ok(unsafe { Tensor::from_ptr(out) })
}

extern "C" fn call_closure(
    closure: *mut c_void,
    gradient: *mut C_tensor,
    slots: *mut *mut C_tensor,
    count: usize,
) -> bool {
    // SAFETY: C++ passes the pointer that `with_backward` made, while its shared pointer keeps it alive.
    let closure = unsafe { &*closure.cast::<Closure>() };
    // SAFETY: the pointer is to a live tensor; the clone shares its storage and has a lifetime of its own.
    let gradient = unsafe { Tensor::clone_from_ptr(gradient) };
    let made = catch_unwind(AssertUnwindSafe(|| {
        let closure = closure.lock().unwrap_or_else(PoisonError::into_inner);
        tch::no_grad(|| closure(&gradient))
    }));
    let Some(made) = made.ok().filter(|made| made.len() == count) else { return false };
    for (index, tensor) in made.into_iter().enumerate() {
        if let Some(tensor) = tensor {
            let mut handle = std::mem::ManuallyDrop::new(tensor);
            // SAFETY: C++ gave room for `count` handles; this one's ownership passes to C++.
            unsafe { *slots.add(index) = handle.as_mut_ptr() };
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tch::{Device, Kind};

    fn leaf(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    #[test]
    fn several_inputs_get_their_own_gradients_also_deep_in_a_graph() {
        let (a, b) = (leaf(&[2.0, 3.0]), leaf(&[5.0]));
        let inner = &a * 2.0;
        let value = Tensor::from_slice(&[7.0_f32, 7.0]);
        let y = with_backward(&[&inner, &b], &value, |gradient| {
            vec![Some(gradient * 10.0), Some(gradient.sum_dim_intlist([0_i64].as_slice(), true, Kind::Float))]
        })
        .unwrap();
        (&y * Tensor::from_slice(&[1.0_f32, 2.0])).sum(Kind::Float).backward();
        // dL/dy = [1, 2]; a: ·10·2; b: the sum.
        assert_eq!(Vec::<f32>::try_from(a.grad()).unwrap(), [20.0, 40.0]);
        assert_eq!(Vec::<f32>::try_from(b.grad()).unwrap(), [3.0]);
        assert_eq!(Vec::<f32>::try_from(y.detach()).unwrap(), [7.0, 7.0]);
    }

    #[test]
    fn without_gradients_the_closure_is_dropped_and_the_value_comes_back() {
        let witness = Arc::new(());
        let held = witness.clone();
        let x = Tensor::zeros([1], (Kind::Float, Device::Cpu));
        let y = with_backward(&[&x], &Tensor::from_slice(&[4.0_f32]), move |_| {
            let _held = &held;
            vec![None]
        });
        assert_eq!((y.unwrap().double_value(&[0]), Arc::strong_count(&witness)), (4.0, 1));
    }

    #[test]
    fn panics_and_wrong_counts_are_errors_of_backward() {
        let x = leaf(&[1.0]);
        let value = Tensor::from_slice(&[1.0_f32]);
        let y = with_backward(&[&x], &value, |_| panic!("no")).unwrap();
        assert!(y.sum(Kind::Float).f_backward().unwrap_err().to_string().contains("backward function panicked"));
        let y = with_backward(&[&x], &value, |_| Vec::new()).unwrap();
        assert!(y.sum(Kind::Float).f_backward().is_err());
    }

    #[test]
    fn a_value_within_a_graph_is_refused() {
        let x = leaf(&[1.0]);
        assert!(with_backward(&[&x], &(&x * 2.0), |_| vec![None]).is_err());
    }
}
