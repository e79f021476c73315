//! Many items at once, with an outcome that does not depend on the number of threads.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use crate::error::HwError;

/// Maps every item in parallel and keeps their order. Of several errors it is the first item's that is returned, where
/// collecting with rayon would return whichever came first in time; items behind one that failed are not begun any more.
pub(crate) fn try_map<T: Sync, R: Send>(
    items: &[T],
    map: impl Fn(&T) -> Result<R, HwError> + Send + Sync,
) -> Result<Vec<R>, HwError> {
    let failed = AtomicUsize::new(usize::MAX);
    let results: Vec<Option<Result<R, HwError>>> = items
        .par_iter()
        .enumerate()
        .map(|(index, item)| {
            if index > failed.load(Ordering::Relaxed) {
                return None;
            }
            let result = map(item);
            if result.is_err() {
                failed.fetch_min(index, Ordering::Relaxed);
            }
            Some(result)
        })
        .collect();
    // Only items behind the first error are missing.
    results.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_the_first_item_is_returned_whatever_the_number_of_threads() {
        let items: Vec<u64> = (0..200).collect();
        let map = |&item: &u64| match item {
            // First in order, last in time.
            3 => {
                std::thread::sleep(std::time::Duration::from_millis(20));
                Err(HwError::field("item", "number", "another", item))
            }
            100.. => Err(HwError::field("item", "number", "another", item)),
            _ => Ok(2 * item),
        };
        for threads in [1, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (all, first) = pool.install(|| (try_map(&items, map), try_map(&items[..3], map)));
            assert_eq!(all, Err(HwError::field("item", "number", "another", 3)));
            assert_eq!(first, Ok(vec![0, 2, 4]));
        }
    }
}
