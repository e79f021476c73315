//! Readers of published formats, generators, augmentation, and the prefetching batch loader.

mod batch;

pub use batch::{Batch, BatchSource};
