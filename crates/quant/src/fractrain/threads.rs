//! Work shared among the threads that libtorch computes with.
//!
//! After an operation the threads of libtorch's OpenMP pool spin for milliseconds, waiting for the next one. A pool of our
//! own would have to compete with them for the very same cores, so loops run on theirs: OpenMP's entry point is looked up
//! among the libraries that are loaded. Where it is not there, rayon's pool does the work.

use rayon::prelude::*;
use std::ffi::{c_uint, c_void};
use std::sync::{Mutex, PoisonError};

/// Calls `work` once with each item, on as many threads as libtorch is told to use. Each takes the next item when it is
/// done with its last, so that a thread that others keep from running holds nobody up.
pub(super) fn share<I>(items: I, work: impl Fn(I::Item) + Sync)
where
    I: Iterator<Item: Send> + Send,
{
    let threads = c_uint::try_from(tch::get_num_threads()).unwrap_or(1);
    if threads <= 1 {
        return items.for_each(work);
    }
    let queue = Mutex::new(items);
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let body = || {
        while let Some(item) = next() {
            work(item);
        }
    };
    match openmp::entry() {
        Some(entry) => openmp::run(entry, threads, &body),
        None => (0..threads).into_par_iter().for_each(|_| body()),
    }
}

#[cfg(target_os = "linux")]
mod openmp {
    use super::{c_uint, c_void};
    use std::ffi::c_char;
    use std::sync::OnceLock;

    /// `GOMP_parallel(body, data, threads, flags)`: calls `body(data)` on each of the threads, and returns when all did.
    pub(super) type Entry = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

    unsafe extern "C" {
        fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    }

    /// The entry point of the GNU OpenMP that libtorch brought into this process, if it did.
    pub(super) fn entry() -> Option<Entry> {
        static FOUND: OnceLock<Option<Entry>> = OnceLock::new();
        *FOUND.get_or_init(|| {
            // SAFETY: a null library means all that are loaded, and the name ends with a zero byte.
            let found = unsafe { dlsym(std::ptr::null_mut(), c"GOMP_parallel".as_ptr()) };
            // SAFETY: compilers emit calls to this symbol, so that its type is fixed; a null pointer is `None`.
            unsafe { std::mem::transmute::<*mut c_void, Option<Entry>>(found) }
        })
    }

    /// Runs `body` on each thread. If it panics, the process ends: nothing may unwind through C.
    pub(super) fn run<F: Fn() + Sync>(entry: Entry, threads: c_uint, body: &F) {
        unsafe extern "C" fn call<F: Fn() + Sync>(body: *mut c_void) {
            // SAFETY: `run` passes its `body`, which several threads may call at once and which outlives them all.
            let body = unsafe { &*body.cast::<F>() };
            body();
        }
        // SAFETY: the entry point has this type, and it returns only after every thread is done with `body`.
        unsafe { entry(call::<F>, std::ptr::from_ref(body).cast_mut().cast(), threads, 0) };
    }
}

#[cfg(not(target_os = "linux"))]
mod openmp {
    use super::c_uint;

    pub(super) enum Entry {}

    pub(super) fn entry() -> Option<Entry> {
        None
    }

    pub(super) fn run<F: Fn() + Sync>(entry: Entry, _: c_uint, _: &F) {
        match entry {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn every_item_is_worked_on_once_whoever_does_it() {
        let mut room = vec![0_u32; 1000];
        let total = AtomicU32::new(0);
        share(room.chunks_mut(7).enumerate(), |(index, part)| {
            part.iter_mut().for_each(|cell| *cell += index as u32 + 1);
            total.fetch_add(part.len() as u32, Ordering::Relaxed);
        });
        assert_eq!(total.into_inner(), 1000);
        assert!(room.iter().enumerate().all(|(index, cell)| *cell == index as u32 / 7 + 1));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn openmp_runs_the_body_on_every_thread_and_waits() {
        // libtorch is linked, and with it OpenMP.
        let entry = openmp::entry().expect("libtorch's OpenMP");
        let calls = AtomicU32::new(0);
        openmp::run(entry, 3, &|| {
            calls.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(calls.into_inner(), 3);
    }
}
