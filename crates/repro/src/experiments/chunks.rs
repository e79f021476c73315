//! Epochs of any length from a source whose passes have a length of their own.

use core_tensor::Result;
use core_tensor::data::BatchSource;

/// A stretch of an endless stream of batches, pass after pass over the source, so that a training can stop and go on
/// between stretches.
pub(crate) struct Chunks<'a, S> {
    pub(crate) source: &'a S,
    /// Batches of an epoch.
    pub(crate) chunk: u64,
}

impl<S: BatchSource> BatchSource for Chunks<'_, S> {
    type Batch = S::Batch;

    fn batches_per_epoch(&self) -> u64 {
        self.chunk
    }

    fn epoch(&self, epoch: u64) -> Result<Box<dyn Iterator<Item = Result<S::Batch>> + '_>> {
        let whole = self.source.batches_per_epoch();
        let first = epoch * self.chunk;
        let pass = |pass| -> Box<dyn Iterator<Item = Result<S::Batch>> + '_> {
            match self.source.epoch(pass) {
                Ok(batches) => batches,
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        };
        // A loader has at least one batch a pass, so that small corpora are passed over as often as a chunk takes.
        Ok(Box::new((first / whole..).flat_map(pass).skip((first % whole) as usize).take(self.chunk as usize)))
    }
}
