//! Many pieces of work on all cores, each piece on one.
//!
//! libtorch's threads meet after every operation, and spin while they wait, which keeps everybody else from the cores. Pieces that have nothing
//! to do with one another need not meet.

use super::Result;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use tch::no_grad;

/// Hands out the pieces.
pub(super) struct Pieces<'a> {
    next: &'a AtomicUsize,
    count: usize,
}

impl Iterator for Pieces<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        Some(self.next.fetch_add(1, Relaxed)).filter(|piece| *piece < self.count)
    }
}

/// As many workers as libtorch would take threads, but no more than there are pieces.
pub(super) fn count(pieces: usize) -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).clamp(1, pieces.max(1))
}

/// One worker a state, each on one thread of libtorch and without a graph. `work` goes through the pieces it is handed, and gives back
/// each one's result with its number; here they are in order. After the first error no more pieces are handed out.
///
/// Meanwhile a thread that uses libtorch for the first time computes on one core.
pub(super) fn run<S: Send, T: Send>(
    states: Vec<S>,
    count: usize,
    work: impl Fn(S, Pieces) -> Result<Vec<(usize, T)>> + Sync,
) -> Result<Vec<T>> {
    let threads = tch::get_num_threads();
    let next = AtomicUsize::new(0);
    let one = |state| {
        tch::set_num_threads(1);
        let result = no_grad(|| work(state, Pieces { next: &next, count }));
        if result.is_err() {
            next.store(count, Relaxed);
        }
        result
    };
    let ends: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = states.into_iter().map(|state| scope.spawn(|| one(state))).collect();
        running.into_iter().map(thread::ScopedJoinHandle::join).collect()
    });
    tch::set_num_threads(threads);
    let mut found = Vec::with_capacity(count);
    for end in ends {
        found.extend(end.unwrap_or_else(|panic| resume_unwind(panic))?);
    }
    found.sort_unstable_by_key(|(piece, _)| *piece);
    Ok(found.into_iter().map(|(_, result)| result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariance::Error;

    #[test]
    fn every_piece_is_done_once_and_in_order() {
        let threads = tch::get_num_threads();
        let square = |offset: usize, pieces: Pieces| Ok(pieces.map(|piece| (piece, piece * piece + offset)).collect());
        assert_eq!(run(vec![0; 3], 50, square).unwrap(), (0..50).map(|piece| piece * piece).collect::<Vec<_>>());
        assert_eq!(run(vec![1], 2, square).unwrap(), [1, 2]);
        assert!(run(vec![1; 2], 0, square).unwrap().is_empty());
        assert_eq!(tch::get_num_threads(), threads);
    }

    #[test]
    fn the_first_error_ends_it() {
        let refuse = |_: (), pieces: Pieces| -> Result<Vec<(usize, ())>> {
            let one = |piece: usize| {
                if piece < 5 { Ok((piece, ())) } else { Err(Error::setting("piece", "below 5", piece)) }
            };
            pieces.map(one).collect()
        };
        assert!(run(vec![(); 2], 1000, refuse).unwrap_err().to_string().contains("below 5"));
    }
}
