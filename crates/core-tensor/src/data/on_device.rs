//! Batches moved to where the network lives.

use super::{Batch, BatchSource};
use crate::Result;
use tch::Device;

/// A batch that can go to where the network lives. On the device that it lies on already, nothing is copied.
///
/// ```
/// use core_tensor::data::ToDevice;
/// use tch::{Device, Tensor};
///
/// struct Pairs {
///     left: Tensor,
///     right: Tensor,
/// }
///
/// impl ToDevice for Pairs {
///     fn to_device(self, device: Device) -> Self {
///         Self { left: self.left.to_device(device), right: self.right.to_device(device) }
///     }
/// }
/// ```
pub trait ToDevice {
    /// The same batch on `device`.
    #[must_use]
    fn to_device(self, device: Device) -> Self;
}

impl ToDevice for Batch {
    fn to_device(self, device: Device) -> Self {
        let Self { input, target, index } = self;
        Self { input: input.to_device(device), target: target.to_device(device), index }
    }
}

/// A source whose batches lie on a given device. On the CPU it changes nothing.
///
/// ```
/// use core_tensor::data::{Augmentation, BatchSource, Loader, LoaderConfig, OnDevice, ShapeGenerator};
/// use tch::Device;
///
/// let images = ShapeGenerator::fashion_mnist().splits(8, 1, 0)?.train;
/// let loader = Loader::new(images, &Augmentation::default(), LoaderConfig::training(4), 0)?;
/// let batches = OnDevice::new(&loader, Device::Cpu);
/// for batch in batches.epoch(0)? {
///     assert_eq!(batch?.input.device(), Device::Cpu);
/// }
/// # Ok::<(), core_tensor::Error>(())
/// ```
#[derive(Debug)]
pub struct OnDevice<S> {
    source: S,
    device: Device,
}

impl<S: BatchSource<Batch: ToDevice>> OnDevice<S> {
    /// The batches of `source`, a source or a reference to one, on `device`.
    pub fn new(source: S, device: Device) -> Self {
        Self { source, device }
    }
}

impl<S: BatchSource<Batch: ToDevice>> BatchSource for OnDevice<S> {
    type Batch = S::Batch;

    fn batches_per_epoch(&self) -> u64 {
        self.source.batches_per_epoch()
    }

    fn epoch(&self, epoch: u64) -> Result<Box<dyn Iterator<Item = Result<S::Batch>> + '_>> {
        let device = self.device;
        Ok(Box::new(self.source.epoch(epoch)?.map(move |batch| Ok(batch?.to_device(device)))))
    }
}
