//! What a training step receives.

use tch::Tensor;

/// Images or feature vectors with class labels.
#[derive(Debug)]
pub struct Batch {
    /// `[batch, channels, height, width]` or `[batch, features]`, `f32`.
    pub input: Tensor,
    /// `[batch]`, `i64`, class numbers.
    pub target: Tensor,
    /// Positions of the samples in their data set, in the order of `input`.
    pub index: Vec<usize>,
}

/// Something that yields the batches of an epoch: the same ones, in the same order, whenever asked for the same epoch.
///
/// The batch type is free: labelled images, two augmented views, token sequences, images with several target maps.
pub trait BatchSource {
    /// One step's worth of data.
    type Batch;

    /// Batches in every epoch.
    fn batches_per_epoch(&self) -> u64;

    /// The batches of one epoch, from 0.
    ///
    /// # Errors
    /// What keeps the data from being read.
    fn epoch(&self, epoch: u64) -> crate::Result<Box<dyn Iterator<Item = crate::Result<Self::Batch>> + '_>>;
}

impl<S: BatchSource + ?Sized> BatchSource for &S {
    type Batch = S::Batch;

    fn batches_per_epoch(&self) -> u64 {
        (**self).batches_per_epoch()
    }

    fn epoch(&self, epoch: u64) -> crate::Result<Box<dyn Iterator<Item = crate::Result<S::Batch>> + '_>> {
        (**self).epoch(epoch)
    }
}
