//! Batches moved to where the network lives.

use super::{Batch, BatchSource};
use crate::Result;
use tch::Device;

/// A source whose labelled batches lie on a given device. On the CPU it changes nothing.
#[derive(Debug)]
pub struct OnDevice<S> {
    source: S,
    device: Device,
}

impl<S: BatchSource<Batch = Batch>> OnDevice<S> {
    /// The batches of `source`, on `device`.
    pub fn new(source: S, device: Device) -> Self {
        Self { source, device }
    }
}

impl<S: BatchSource<Batch = Batch>> BatchSource for OnDevice<S> {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        self.source.batches_per_epoch()
    }

    fn epoch(&self, epoch: u64) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        let device = self.device;
        let moved = move |batch: Result<Batch>| {
            batch.map(|Batch { input, target, index }| Batch {
                input: input.to_device(device),
                target: target.to_device(device),
                index,
            })
        };
        Ok(Box::new(self.source.epoch(epoch)?.map(moved)))
    }
}
