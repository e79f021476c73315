//! Batches of P classes with K images each.

use super::{Error, Result};
use core_tensor::data::{Augmentation, Batch, BatchSource, Draw, Pipeline, Samples, prefetch};
use core_tensor::seed::{Purpose, generator};
use rand::Rng;
use rand::seq::{SliceRandom, index};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::Tensor;

/// P classes, K images of each, so that every batch has positives and negatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PkSampler {
    /// Classes in a batch, P, at least 2. Published: 56.
    pub classes: usize,
    /// Images of each, K, at least 2. Published: 2.
    pub images: usize,
    /// Whether an image may come twice into a batch, from [`PkLoader`] as the same picture, augmentation included.
    /// Without it, every class must have K images. (The published code draws with replacement, so that a positive may be
    /// the same photograph.)
    #[serde(default)]
    pub replacement: bool,
}

impl PkSampler {
    /// Without replacement.
    pub fn new(classes: usize, images: usize) -> Self {
        Self { classes, images, replacement: false }
    }

    /// Images in a batch.
    pub fn batch_size(&self) -> usize {
        self.classes * self.images
    }

    /// Batches in an epoch over `samples` images: `floor(samples / batch size)`, at least 1.
    pub fn batches_per_epoch(&self, samples: usize) -> usize {
        (samples / self.batch_size().max(1)).max(1)
    }

    /// The batches of an epoch: positions into `labels`. Classes take turns in a new order each round, so that all are seen
    /// equally often; the same seed and epoch give the same batches.
    ///
    /// # Errors
    /// Fewer than two classes or images asked for, more classes than there are, or, without replacement, a class with fewer
    /// images than a batch takes.
    pub fn batches(&self, labels: &[i64], seed: u64, epoch: u64) -> Result<Vec<Vec<usize>>> {
        let by_class = self.check(labels)?;
        let mut rng = generator(seed, Purpose::Order, epoch);
        let mut turns: Vec<usize> = Vec::new();
        let mut batches = Vec::new();
        for _ in 0..self.batches_per_epoch(labels.len()) {
            let mut batch = Vec::with_capacity(self.batch_size());
            let mut chosen = Vec::with_capacity(self.classes);
            while chosen.len() < self.classes {
                if turns.iter().all(|class| chosen.contains(class)) {
                    let mut round: Vec<usize> = (0..by_class.len()).collect();
                    round.shuffle(&mut rng);
                    // What is left of the last round is popped first.
                    round.append(&mut turns);
                    turns = round;
                }
                // In range: the round just added holds every class.
                let Some(next) = turns.iter().rposition(|class| !chosen.contains(class)) else { break };
                chosen.push(turns.remove(next));
            }
            for class in chosen {
                let members = &by_class[class].1;
                if self.replacement {
                    batch.extend((0..self.images).map(|_| members[rng.random_range(0..members.len())]));
                } else {
                    batch.extend(index::sample(&mut rng, members.len(), self.images).into_iter().map(|at| members[at]));
                }
            }
            batches.push(batch);
        }
        Ok(batches)
    }

    fn check(&self, labels: &[i64]) -> Result<Vec<(i64, Vec<usize>)>> {
        if self.classes < 2 {
            return Err(Error::setting("classes", "at least 2", self.classes));
        }
        if self.images < 2 {
            return Err(Error::setting("images", "at least 2", self.images));
        }
        let mut by_class: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (position, &label) in labels.iter().enumerate() {
            by_class.entry(label).or_default().push(position);
        }
        if by_class.len() < self.classes {
            return Err(Error::setting("classes", format!("at most the set's {}", by_class.len()), self.classes));
        }
        if !self.replacement
            && let Some((&class, few)) = by_class.iter().find(|(_, members)| members.len() < self.images)
        {
            return Err(Error::ClassTooSmall { class, found: few.len(), needed: self.images });
        }
        Ok(by_class.into_iter().collect())
    }
}

/// A [`BatchSource`] whose batches a [`PkSampler`] chooses: augmented as a [`core_tensor::data::Loader`] would, two ahead.
#[derive(Debug)]
pub struct PkLoader<S> {
    samples: Arc<S>,
    labels: Vec<i64>,
    pipeline: Arc<Pipeline>,
    sampler: PkSampler,
    seed: u64,
}

impl<S: Samples> PkLoader<S> {
    /// Prepares `augmentation` for the set. `seed` fixes batches and augmentation.
    ///
    /// # Errors
    /// What the sampler or the augmentation refuse.
    pub fn new(samples: impl Into<Arc<S>>, augmentation: &Augmentation, sampler: PkSampler, seed: u64) -> Result<Self> {
        let samples = samples.into();
        let labels: Vec<i64> = (0..samples.len()).map(|position| samples.label(position)).collect();
        sampler.check(&labels)?;
        let pipeline = Arc::new(augmentation.prepare(samples.channels(), samples.size())?);
        Ok(Self { samples, labels, pipeline, sampler, seed })
    }
}

impl<S: Samples + 'static> BatchSource for PkLoader<S> {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        self.sampler.batches_per_epoch(self.labels.len()) as u64
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        let batches = self.sampler.batches(&self.labels, self.seed, epoch).map_err(Error::into_core)?;
        let (samples, pipeline, seed) = (self.samples.clone(), self.pipeline.clone(), self.seed);
        let work = batches.into_iter().enumerate().map(move |(number, index)| {
            // Streams keep draws of one image in two batches apart; in one batch they are the same picture.
            let input = pipeline.batch(&*samples, &index, Draw { seed, epoch, stream: number as u64 })?;
            let labels: Vec<_> = index.iter().map(|&position| samples.label(position)).collect();
            Ok(Batch { input, target: Tensor::from_slice(&labels), index })
        });
        prefetch(2, work).map(|batches| batches as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::data::{Dataset, ImageShape};
    use proptest::prelude::*;

    #[test]
    fn classes_with_too_few_images_are_named() {
        let refused = PkSampler::new(2, 3).batches(&[5, 5, 5, 7, 7], 0, 0);
        assert!(matches!(refused, Err(Error::ClassTooSmall { class: 7, found: 2, needed: 3 })), "{refused:?}");
        let allowed = PkSampler { replacement: true, ..PkSampler::new(2, 3) }.batches(&[5, 5, 5, 7], 0, 0).unwrap();
        assert_eq!(allowed[0].iter().filter(|&&position| position == 3).count(), 3);
    }

    #[test]
    fn settings_that_make_no_batch_are_refused() {
        let refuse = |sampler: PkSampler| sampler.batches(&[0, 0, 1, 1], 0, 0).unwrap_err().to_string();
        assert!(refuse(PkSampler::new(1, 2)).contains("classes"));
        assert!(refuse(PkSampler::new(2, 1)).contains("images"));
        assert!(refuse(PkSampler::new(3, 2)).contains("at most the set's 2"));
    }

    #[test]
    fn loaded_batches_carry_the_labels_of_their_images() {
        let pixels: Vec<u8> = (0..8).collect();
        let names = vec!["a".to_owned(), "b".to_owned()];
        let set = Dataset::new(pixels, ImageShape::new(1, 1, 1), vec![0, 0, 0, 0, 1, 1, 1, 1], names, "eight").unwrap();
        let loader = PkLoader::new(set, &Augmentation::default(), PkSampler::new(2, 2), 3).unwrap();
        assert_eq!(loader.batches_per_epoch(), 2);
        for batch in loader.epoch(1).unwrap() {
            let batch = batch.unwrap();
            for (row, &position) in batch.index.iter().enumerate() {
                assert_eq!(batch.target.int64_value(&[row as i64]), (position / 4) as i64);
                // Pixel 4 of 255 is position 4.
                let pixel = batch.input.double_value(&[row as i64, 0, 0, 0]) * 255.0;
                assert!((pixel - position as f64).abs() < 1e-4);
            }
        }
    }

    proptest! {
        #[test]
        fn batches_hold_k_different_images_of_p_classes(
            sizes in prop::collection::vec(3_usize..9, 3..8), seed in 0_u64..1000, epoch in 0_u64..5,
        ) {
            let labels: Vec<i64> =
                sizes.iter().enumerate().flat_map(|(class, &size)| vec![class as i64 * 10; size]).collect();
            let sampler = PkSampler::new(3, 3);
            let batches = sampler.batches(&labels, seed, epoch).unwrap();
            prop_assert_eq!(batches.len(), sampler.batches_per_epoch(labels.len()));
            prop_assert_eq!(&batches, &sampler.batches(&labels, seed, epoch).unwrap());
            let mut turns = BTreeMap::new();
            for batch in &batches {
                let mut by_class: BTreeMap<i64, std::collections::BTreeSet<usize>> = BTreeMap::new();
                batch.iter().for_each(|&position| { by_class.entry(labels[position]).or_default().insert(position); });
                prop_assert_eq!(by_class.len(), 3);
                prop_assert!(by_class.values().all(|members| members.len() == 3));
                by_class.keys().for_each(|&class| *turns.entry(class).or_insert(0_usize) += 1);
            }
            // Every class has its turn in each round, so that counts differ by two at most.
            let (most, least) = (turns.values().max(), turns.values().min());
            let seen_all = turns.len() == sizes.len();
            prop_assert!(!seen_all || most.unwrap() - least.unwrap() <= 2);
        }
    }
}
