//! What hooks and functions of one's own share of the border to C++: closures that go over it and messages that come back.

use crate::Error;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tch::TchError;

unsafe extern "C" {
    fn ct_free(message: *mut c_char);
}

/// Hands a closure over; [`drop_closure`] of the same type takes it back.
pub(super) fn hand_over<C>(closure: C) -> *mut c_void {
    Box::into_raw(Box::new(closure)).cast()
}

/// Drops what [`hand_over`] gave away. C++ calls it once, when the last owner goes.
pub(super) extern "C" fn drop_closure<C>(closure: *mut c_void) {
    // SAFETY: the pointer came from `hand_over` of the same type, and C++ drops it once.
    let closure = unsafe { Box::from_raw(closure.cast::<C>()) };
    // A panicking destructor must not unwind into C++.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(closure)));
}

/// The error that a message of the C++ side stands for; the message is freed.
///
/// # Safety
/// `message` came from a function of the C++ side, is not null and is not used again.
pub(super) unsafe fn error_of(message: *mut c_char) -> Error {
    // SAFETY: by contract a NUL-terminated string that C++ made for us.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: as above, and it is freed once.
    unsafe { ct_free(message) };
    TchError::Torch(text).into()
}
