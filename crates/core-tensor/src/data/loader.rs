//! Batches of an epoch, prepared ahead on a thread of their own.

use std::sync::Arc;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::{Augmentation, Batch, BatchSource, Dataset, Draw, Pipeline, Samples, prefetch, until_failure};
use crate::seed::{Purpose, generator};
use crate::{Error, Result};

/// How a [`Loader`] walks through a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoaderConfig {
    /// Samples a batch, at least 1. The CIFAR ResNets train with 128 (He et al., arXiv 1512.03385, §4.2).
    pub batch_size: usize,
    /// A new order every epoch, drawn from the seed; otherwise the set's own order.
    pub shuffle: bool,
    /// Leaves out the last batch of an epoch when it is smaller than the others.
    pub drop_last: bool,
    /// Batches prepared ahead; 0 prepares each when it is asked for. Changes the time taken and nothing else.
    #[serde(default = "two")]
    pub prefetch: usize,
}

impl LoaderConfig {
    /// Shuffled, every sample once an epoch, two batches ahead.
    pub fn training(batch_size: usize) -> Self {
        Self { batch_size, shuffle: true, drop_last: false, prefetch: two() }
    }

    /// In the set's order, every sample once, two batches ahead.
    pub fn evaluation(batch_size: usize) -> Self {
        Self { shuffle: false, ..Self::training(batch_size) }
    }

    /// # Errors
    /// A batch size of 0.
    pub fn validate(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::setting("batch_size", "at least 1", 0));
        }
        Ok(())
    }
}

/// The labelled batches of a set: shuffled, augmented and prefetched.
///
/// The same seed and epoch give the same batches, whatever the number of threads and the depth of the prefetch.
///
/// ```
/// use core_tensor::data::{Augmentation, BatchSource, Dataset, ImageShape, Loader, LoaderConfig};
///
/// let set = Dataset::new(vec![0; 5 * 4], ImageShape::new(1, 2, 2), vec![0; 5], vec!["dark".into()], "five")?;
/// let loader = Loader::new(set, &Augmentation::default(), LoaderConfig::training(2), 0)?;
/// assert_eq!(loader.batches_per_epoch(), 3);
/// for batch in loader.epoch(0)? {
///     assert_eq!(batch?.input.size()[1..], [1, 2, 2]);
/// }
/// # Ok::<(), core_tensor::Error>(())
/// ```
#[derive(Debug)]
pub struct Loader<S = Dataset> {
    samples: Arc<S>,
    pipeline: Arc<Pipeline>,
    config: LoaderConfig,
    seed: u64,
}

impl<S: Samples> Loader<S> {
    /// Prepares `augmentation` for the set. `seed` fixes the order and the augmentation.
    ///
    /// # Errors
    /// A config or augmentation that does not fit the set, or an epoch without any batch.
    pub fn new(
        samples: impl Into<Arc<S>>,
        augmentation: &Augmentation,
        config: LoaderConfig,
        seed: u64,
    ) -> Result<Self> {
        config.validate()?;
        let samples = samples.into();
        let pipeline = Arc::new(augmentation.prepare(samples.channels(), samples.size())?);
        let loader = Self { samples, pipeline, config, seed };
        if loader.batches_per_epoch() == 0 {
            let (expected, found) = (format!("at most the set's {} samples", loader.samples.len()), config.batch_size);
            return Err(Error::setting("batch_size", expected, found));
        }
        Ok(loader)
    }

    /// The set it reads.
    pub fn samples(&self) -> &S {
        &self.samples
    }

    /// `[channels, height, width]` of the images it makes.
    pub fn image_shape(&self) -> [usize; 3] {
        self.pipeline.output_shape()
    }

    /// How it walks through the set.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }
}

impl<S: Samples> BatchSource for Loader<S> {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        let (samples, batch) = (self.samples.len(), self.config.batch_size);
        (if self.config.drop_last { samples / batch } else { samples.div_ceil(batch) }) as u64
    }

    fn epoch(&self, epoch: u64) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        let order = if self.config.shuffle {
            shuffled(self.samples.len(), self.seed, epoch)
        } else {
            (0..self.samples.len()).collect()
        };
        // In range: an epoch has at most as many batches as samples.
        let batches = self.batches_per_epoch() as usize;
        let (samples, pipeline, size) = (self.samples.clone(), self.pipeline.clone(), self.config.batch_size);
        let draw = Draw { seed: self.seed, epoch, stream: 0 };
        let work = (0..batches).map(move |batch| {
            let index = order[batch * size..order.len().min((batch + 1) * size)].to_vec();
            labelled(&*samples, &pipeline, index, draw)
        });
        prefetch(self.config.prefetch, until_failure(work)).map(|batches| batches as _)
    }
}

/// The order in which an epoch visits `len` samples.
pub fn shuffled(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<_> = (0..len).collect();
    order.shuffle(&mut generator(seed, Purpose::Order, epoch));
    order
}

fn labelled<S: Samples>(samples: &S, pipeline: &Pipeline, index: Vec<usize>, draw: Draw) -> Result<Batch> {
    let input = pipeline.batch(samples, &index, draw)?;
    let labels: Vec<_> = index.iter().map(|&position| samples.label(position)).collect();
    Ok(Batch { input, target: Tensor::from_slice(&labels), index })
}

fn two() -> usize {
    2
}

#[cfg(test)]
mod tests;
