//! Working ahead on another thread.

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, JoinHandle};

use crate::{Error, Result};

/// The items up to and with the first error: what failed is not passed over.
pub(crate) fn until_failure<T>(items: impl Iterator<Item = Result<T>>) -> impl Iterator<Item = Result<T>> {
    let mut items = Some(items);
    std::iter::from_fn(move || {
        let item = items.as_mut()?.next();
        if !matches!(item, Some(Ok(_))) {
            items = None;
        }
        item
    })
}

/// Runs `items` on a thread of its own, at most `depth` items ahead of the reader; with a depth of 0, on the reader's.
///
/// The items and their order are the same at any depth. Dropping the result early stops the thread; a panic in it
/// continues on the reader's side.
///
/// # Errors
/// The system refuses a thread.
pub fn prefetch<T: Send + 'static>(
    depth: usize,
    items: impl Iterator<Item = T> + Send + 'static,
) -> Result<Box<dyn Iterator<Item = T>>> {
    if depth == 0 {
        return Ok(Box::new(items));
    }
    let (sender, receiver) = sync_channel(depth);
    let work = move || {
        for item in items {
            if sender.send(item).is_err() {
                // Nobody reads any more.
                return;
            }
        }
    };
    let thread = Builder::new().name("prefetch".to_owned()).spawn(work);
    let thread = thread.map_err(Error::io(Path::new("prefetch thread"), "start"))?;
    Ok(Box::new(Prefetch { receiver: Some(receiver), thread: Some(thread) }))
}

struct Prefetch<T> {
    receiver: Option<Receiver<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T> Iterator for Prefetch<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let item = self.receiver.as_ref()?.recv().ok();
        if item.is_none()
            && let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
        {
            std::panic::resume_unwind(panic);
        }
        item
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        // Closing the channel first lets a thread that waits to send see that it is over.
        self.receiver = None;
        if let Some(thread) = self.thread.take() {
            // A panic of a thread whose items nobody wants is nobody's concern, and unwinding may be under way already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn dropping_early_stops_the_thread_and_frees_what_it_held() {
        let held = Arc::new(());
        let made = Arc::new(AtomicUsize::new(0));
        let items = {
            let (held, made) = (held.clone(), made.clone());
            (0..1_000_000).map(move |i| {
                made.fetch_add(1, Ordering::SeqCst);
                (i, held.clone())
            })
        };
        let mut reader = prefetch(2, items).unwrap();
        assert_eq!(reader.next().unwrap().0, 0);
        drop(reader);
        // Read 1, queued 2, and one in hand that could not be sent.
        assert!(made.load(Ordering::SeqCst) <= 4, "{made:?}");
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[test]
    fn a_panic_reaches_the_reader() {
        let items = (0..3).map(|i| if i == 1 { panic!("item 1") } else { i });
        let mut reader = prefetch(1, items).unwrap();
        assert_eq!(reader.next(), Some(0));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| reader.next())).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"item 1"));
    }

    proptest! {
        #[test]
        fn any_depth_yields_the_same_items(depth in 0_usize..5, count in 0_u32..50) {
            prop_assert!(prefetch(depth, 0..count).unwrap().eq(0..count));
        }
    }
}
