//! `Tensor::register_hook`, through a small C++ file.
//!
//! Ownership: the closure is boxed and handed to C++, whose shared pointer drops it when the last graph node that holds
//! the hook goes. Nothing unwinds across the border: a panic is caught and becomes a C++ exception, which `backward`
//! reports as an error of libtorch.

use super::ffi::{drop_closure, error_of, hand_over};
use crate::{Error, Result};
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use tch::Tensor;
use torch_sys::C_tensor;

type Hook = Box<dyn Fn(&Tensor) -> Tensor + Send>;
/// Two threads may run backward through one kept graph at once; a closure need not be ready for that.
type Closure = Mutex<Hook>;

unsafe extern "C" {
    fn ct_register_hook(
        tensor: *mut C_tensor,
        closure: *mut c_void,
        call: extern "C" fn(*mut c_void, *mut C_tensor) -> *mut C_tensor,
        drop: extern "C" fn(*mut c_void),
    ) -> *mut c_char;
}

/// Calls `hook` with the gradient of `tensor` when it arrives in a backward pass, and goes on with what it returns.
///
/// The hook runs without gradient recording, on the thread that calls `backward` (on CUDA: on the device's autograd
/// thread). It lives as long as the graph node of `tensor`. It must not hold `tensor` itself, or neither is ever freed.
/// If it panics, `backward` fails. One thread runs it at a time, so it must not run backward through `tensor` itself: that
/// would wait for its own end.
///
/// # Errors
/// A tensor that needs no gradient.
pub fn register_hook(tensor: &Tensor, hook: impl Fn(&Tensor) -> Tensor + Send + 'static) -> Result<()> {
    if !tensor.requires_grad() {
        return Err(Error::tensor("hooked tensor", "one that requires a gradient", "one that does not"));
    }
    let hook: Hook = Box::new(hook);
    let closure = hand_over::<Closure>(Mutex::new(hook));
    // SAFETY: the tensor is alive for the call and C++ only reads it; the closure's ownership moves to C++, which gives
    // it to `drop_closure` exactly once, also when registering fails.
    let message =
        unsafe { ct_register_hook(tensor.as_ptr().cast_mut(), closure, call_closure, drop_closure::<Closure>) };
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: the message is C++'s, not null, and goes no further.
    Err(unsafe { error_of(message) })
}

extern "C" fn call_closure(closure: *mut c_void, gradient: *mut C_tensor) -> *mut C_tensor {
    // SAFETY: C++ passes the pointer that `register_hook` made, while its shared pointer keeps it alive.
    let closure = unsafe { &*closure.cast::<Closure>() };
    // SAFETY: the pointer is to a live tensor; the clone shares its storage and has a lifetime of its own.
    let gradient = unsafe { Tensor::clone_from_ptr(gradient) };
    let replaced = catch_unwind(AssertUnwindSafe(|| {
        let closure = closure.lock().unwrap_or_else(PoisonError::into_inner);
        tch::no_grad(|| closure(&gradient))
    }));
    // A fresh handle, whose ownership passes to C++.
    replaced.map_or(std::ptr::null_mut(), |tensor| {
        let mut handle = std::mem::ManuallyDrop::new(tensor);
        handle.as_mut_ptr()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::straight_through;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tch::{Device, Kind};

    fn leaf(values: &[f32]) -> Tensor {
        Tensor::from_slice(values).set_requires_grad(true)
    }

    #[test]
    fn the_hooked_gradient_is_what_flows_on() {
        let x = leaf(&[1.0, -2.0]);
        let y = &x * 3.0;
        register_hook(&y, |gradient| gradient.round()).unwrap();
        (&y * Tensor::from_slice(&[0.4_f32, 1.6])).sum(Kind::Float).backward();
        // dL/dy = [.4, 1.6] → [0, 2] → dL/dx = [0, 6].
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [0.0, 6.0]);
    }

    #[test]
    fn a_residual_graph_equals_its_manual_backward() {
        // y = h + relu(h·w), hook doubles at h: dL/dx = 2·(1 + w·[h·w > 0])·1 element-wise.
        let x = leaf(&[1.0, -1.0]);
        let h = &x * 1.0;
        register_hook(&h, |gradient| gradient * 2.0).unwrap();
        let y = &h + (&h * 0.5).relu();
        y.sum(Kind::Float).backward();
        assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [3.0, 2.0]);
    }

    #[test]
    fn a_hook_is_not_called_where_no_gradient_arrives() {
        let (a, b) = (leaf(&[1.0]), leaf(&[2.0]));
        let hooked = &a * 2.0;
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = calls.clone();
        let count = move |gradient: &Tensor| {
            counter.fetch_add(1, Ordering::Relaxed);
            gradient * 3.0
        };
        register_hook(&hooked, count).unwrap();
        let value = Tensor::from_slice(&[5.0_f32]);
        let only_second = |gradient: &Tensor| vec![None, Some(gradient.shallow_clone())];
        let out = crate::autograd::with_backward(&[&hooked, &b], &value, only_second).unwrap();
        out.sum(Kind::Float).f_backward().unwrap();
        assert_eq!((calls.load(Ordering::Relaxed), b.grad().double_value(&[0])), (0, 1.0));
        assert!(!a.grad().defined());
    }

    #[test]
    fn dropping_the_graph_drops_the_closure() {
        struct Counts(Arc<AtomicUsize>);
        impl Drop for Counts {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let drops = Arc::new(AtomicUsize::new(0));
        let x = leaf(&[1.0]);
        {
            let counts = Counts(drops.clone());
            let y = &x * 2.0;
            register_hook(&y, move |gradient| {
                let _alive = &counts;
                gradient.shallow_clone()
            })
            .unwrap();
            y.sum(Kind::Float).backward();
            assert_eq!(drops.load(Ordering::SeqCst), 0);
        }
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_panicking_hook_is_an_error_of_backward_and_not_a_crash() {
        let x = leaf(&[1.0]);
        let y = &x * 2.0;
        register_hook(&y, |_| panic!("no gradient for you")).unwrap();
        let error = y.sum(Kind::Float).f_backward().unwrap_err().to_string();
        assert!(error.contains("hook panicked"), "{error}");
    }

    #[test]
    fn threads_in_one_kept_graph_run_a_hook_one_after_the_other() {
        let (inside, overlaps) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let x = leaf(&[1.0]);
        let y = &x * 2.0;
        let seen = overlaps.clone();
        register_hook(&y, move |gradient| {
            seen.fetch_add(inside.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(2));
            inside.fetch_sub(1, Ordering::SeqCst);
            gradient * 3.0
        })
        .unwrap();
        let total = y.sum(Kind::Float);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (total, x) = (total.shallow_clone(), x.shallow_clone());
                std::thread::spawn(move || Tensor::f_run_backward(&[total], &[x], true, false).unwrap())
            })
            .collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap()[0].double_value(&[0]), 6.0);
        }
        assert_eq!(overlaps.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_tensor_without_gradient_is_refused() {
        let constant = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        let error = register_hook(&constant, Tensor::shallow_clone).unwrap_err().to_string();
        assert!(error.contains("requires a gradient"), "{error}");
    }

    proptest! {
        #[test]
        fn straight_through_is_exact_forward_and_the_identity_backward(values in proptest::collection::vec(-1e6_f32..1e6, 1..20)) {
            let x = leaf(&values);
            let y = straight_through(&x, &(&x * 1e-3).round());
            let expected: Vec<f32> = Vec::try_from((x.detach() * 1e-3).round()).unwrap();
            prop_assert_eq!(Vec::<f32>::try_from(&y.detach()).unwrap(), expected);
            y.sum(Kind::Float).backward();
            prop_assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), vec![1.0; values.len()]);
        }
    }
}
