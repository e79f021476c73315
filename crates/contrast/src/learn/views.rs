//! Two augmented views of every image of a batch.

use super::error::{Error, Result};
use core_tensor::data::{
    Augmentation, BatchSource, Dataset, Draw, LoaderConfig, Pipeline, Samples, ToDevice, Transform, prefetch, shuffled,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tch::{Device, Tensor};

/// Two views of each image, without labels.
#[derive(Debug)]
pub struct ViewBatch {
    /// `[2 · images, channels, height, width]`, `f32`: all first views, then all second views
    /// ([`Layout::Stacked`](super::Layout::Stacked)).
    pub views: Tensor,
    /// Positions of the images in their set.
    pub index: Vec<usize>,
}

impl ToDevice for ViewBatch {
    fn to_device(self, device: Device) -> Self {
        Self { views: self.views.to_device(device), index: self.index }
    }
}

impl ViewBatch {
    /// The first and the second views, each `[images, channels, height, width]`.
    pub fn halves(&self) -> (Tensor, Tensor) {
        let images = self.views.size()[0] / 2;
        (self.views.narrow(0, 0, images), self.views.narrow(0, images, images))
    }

    /// [`halves`](Self::halves), of which no view is left over.
    pub(crate) fn pairs(&self) -> Result<(Tensor, Tensor)> {
        match self.views.size().first() {
            Some(rows) if rows % 2 == 0 => Ok(self.halves()),
            _ => Err(Error::ViewsLayout { found: self.views.size() }),
        }
    }
}

/// SimCLR's augmentation, as data. Values stay in `[0, 1]`: nothing is normalised here, so that a perturbation's budget
/// means pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimClrAugmentation {
    /// Height and width of a view.
    pub size: [usize; 2],
    /// Smallest share of the area that a crop keeps; the largest is 1. SimCLR: 0.08; ACL: 0.1.
    pub smallest_crop: f64,
    /// How often a view is mirrored. Both papers: 0.5.
    pub flip: f64,
    /// Brightness, contrast, saturation, hue. Both papers on CIFAR: 0.4, 0.4, 0.4, 0.1.
    pub jitter: [f64; 4],
    /// How often colours are changed. Both papers: 0.8.
    pub jitter_probability: f64,
    /// How often colours are taken away (of images with three channels). Both papers: 0.2.
    pub grey: f64,
    /// How often a view is blurred, with a kernel of a tenth of the side and σ of 0.1 to 2. SimCLR on ImageNet: 0.5; on
    /// CIFAR, and ACL: 0.
    pub blur: f64,
}

impl SimClrAugmentation {
    /// As on CIFAR-10 in ACL's reference code: crops of 0.1 to 1 of the area, flip, jitter, grey, no blur.
    pub fn cifar(size: [usize; 2]) -> Self {
        let jitter = [0.4, 0.4, 0.4, 0.1];
        Self { size, smallest_crop: 0.1, flip: 0.5, jitter, jitter_probability: 0.8, grey: 0.2, blur: 0.0 }
    }

    /// For small grey images: crops of 0.3 to 1 of the area, flip, brightness and contrast always.
    pub fn small_grey(size: [usize; 2]) -> Self {
        let jitter = [0.4, 0.4, 0.0, 0.0];
        Self { smallest_crop: 0.3, jitter, jitter_probability: 1.0, grey: 0.0, ..Self::cifar(size) }
    }

    /// Weaker by `strength` in `[0, 1]`: crops keep at least `1 − 0.9·s` of the area (for ACL's 0.1), ranges and
    /// probabilities of colour changes are multiplied by `s`, the flip stays (Luo et al., *DynACL*, arXiv 2303.01289).
    ///
    /// # Errors
    /// A strength outside `[0, 1]`.
    pub fn with_strength(&self, strength: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&strength) {
            return Err(Error::setting("strength", "in [0, 1]", strength));
        }
        Ok(Self {
            size: self.size,
            smallest_crop: (1.0 - strength) + self.smallest_crop * strength,
            flip: self.flip,
            jitter: self.jitter.map(|range| range * strength),
            jitter_probability: self.jitter_probability * strength,
            grey: self.grey * strength,
            blur: self.blur * strength,
        })
    }

    /// The transforms, for images of `channels`.
    pub fn transforms(&self, channels: usize) -> Augmentation {
        let [brightness, contrast, saturation, hue] = self.jitter;
        let probability = self.jitter_probability;
        let mut transforms = vec![
            Transform::ResizedCrop { size: self.size, scale: [self.smallest_crop, 1.0], ratio: [0.75, 4.0 / 3.0] },
            Transform::HorizontalFlip { probability: self.flip },
            Transform::ColourJitter { brightness, contrast, saturation, hue, probability },
        ];
        if channels == 3 && self.grey > 0.0 {
            transforms.push(Transform::Grey { probability: self.grey });
        }
        if self.blur > 0.0 {
            let kernel = (self.size[0].min(self.size[1]) / 10) | 1;
            transforms.push(Transform::Blur { kernel, sigma: [0.1, 2.0], probability: self.blur });
        }
        Augmentation::new(transforms)
    }
}

/// Batches of two independently augmented views, shuffled and prepared ahead.
///
/// What happens to a view depends on (seed, epoch, image, which view), not on its batch: the two views are two streams of
/// one draw.
///
/// ```
/// use contrast::learn::{SimClrAugmentation, TwoViews};
/// use core_tensor::data::{BatchSource, LoaderConfig, ShapeGenerator};
///
/// let images = ShapeGenerator::fashion_mnist().splits(10, 1, 0)?.train;
/// let augmentation = SimClrAugmentation::small_grey([28, 28]).transforms(1);
/// let views = TwoViews::new(images, &augmentation, LoaderConfig::training(4), 0)?;
/// // The last 2 images make no batch of their own: every batch has the same negatives.
/// assert_eq!(views.batches_per_epoch(), 2);
/// for batch in views.epoch(0)? {
///     assert_eq!(batch?.views.size(), [8, 1, 28, 28]);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TwoViews<S = Dataset> {
    samples: Arc<S>,
    pipelines: [Arc<Pipeline>; 2],
    config: LoaderConfig,
    seed: u64,
}

impl<S: Samples> TwoViews<S> {
    /// Both views from the same augmentation. Incomplete batches are left out whatever `config` says, since the loss
    /// depends on the number of negatives.
    ///
    /// # Errors
    /// Fewer than 2 images a batch or in the set, or an augmentation that does not fit the images.
    pub fn new(
        samples: impl Into<Arc<S>>,
        augmentation: &Augmentation,
        config: LoaderConfig,
        seed: u64,
    ) -> Result<Self> {
        let samples = samples.into();
        let pipeline = Arc::new(augmentation.prepare(samples.channels(), samples.size())?);
        if !(2..=samples.len()).contains(&config.batch_size) {
            let expected = format!("2 to the set's {} images", samples.len());
            return Err(Error::setting("batch_size", expected, config.batch_size));
        }
        let pipelines = [pipeline.clone(), pipeline];
        Ok(Self { samples, pipelines, config, seed })
    }
}

impl<S: Samples> BatchSource for TwoViews<S> {
    type Batch = ViewBatch;

    fn batches_per_epoch(&self) -> u64 {
        (self.samples.len() / self.config.batch_size) as u64
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<ViewBatch>> + '_>> {
        let order = if self.config.shuffle {
            shuffled(self.samples.len(), self.seed, epoch)
        } else {
            (0..self.samples.len()).collect()
        };
        let (samples, pipelines, size) = (self.samples.clone(), self.pipelines.clone(), self.config.batch_size);
        let (seed, batches) = (self.seed, self.batches_per_epoch() as usize);
        let work = (0..batches).map(move |batch| {
            let index = order[batch * size..(batch + 1) * size].to_vec();
            let view =
                |stream: usize| pipelines[stream].batch(&*samples, &index, Draw { seed, epoch, stream: stream as u64 });
            let views = Tensor::f_cat(&[view(0)?, view(1)?], 0)?;
            Ok(ViewBatch { views, index })
        });
        Ok(Box::new(prefetch(self.config.prefetch, work)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::data::{ImageShape, ShapeGenerator};
    use proptest::prelude::*;

    fn batches(views: &TwoViews, epoch: u64) -> Vec<ViewBatch> {
        views.epoch(epoch).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn without_augmentation_both_views_are_the_image() {
        let images = ShapeGenerator::cifar10().splits(7, 1, 3).unwrap().train;
        let expected = images.images().to_kind(tch::Kind::Float) / 255.0;
        let config = LoaderConfig { shuffle: false, ..LoaderConfig::training(3) };
        let views = TwoViews::new(images, &Augmentation::default(), config, 0).unwrap();
        let found = batches(&views, 0);
        assert_eq!(found.iter().map(|batch| batch.index.clone()).collect::<Vec<_>>(), [[0, 1, 2], [3, 4, 5]]);
        for batch in &found {
            let (first, second) = batch.halves();
            assert!(first.equal(&second));
            let own = expected.narrow(0, batch.index[0] as i64, 3);
            // Multiplying by 1/255 and dividing by 255 differ in the last place.
            assert!((first - own).abs().max().double_value(&[]) < 1e-6);
        }
    }

    #[test]
    fn views_differ_within_an_image_and_between_epochs_and_stay_in_the_box() {
        for (images, channels) in [
            (ShapeGenerator::cifar10().splits(8, 1, 0).unwrap().train, 3),
            (ShapeGenerator::fashion_mnist().splits(8, 1, 0).unwrap().train, 1),
        ] {
            let size = [images.shape().height, images.shape().width];
            let augmentation = SimClrAugmentation::cifar(size).transforms(channels);
            let views = TwoViews::new(images, &augmentation, LoaderConfig::training(8), 5).unwrap();
            let (first, again, later) = (batches(&views, 0), batches(&views, 0), batches(&views, 1));
            let halves = first[0].halves();
            assert!(!halves.0.equal(&halves.1));
            assert!(first[0].views.equal(&again[0].views));
            assert!(!first[0].views.equal(&later[0].views));
            assert!(first[0].views.min().double_value(&[]) >= 0.0 && first[0].views.max().double_value(&[]) <= 1.0);
        }
    }

    #[test]
    fn strength_zero_leaves_the_flip_alone() {
        let weakest = SimClrAugmentation::cifar([32, 32]).with_strength(0.0).unwrap();
        assert_eq!((weakest.smallest_crop, weakest.flip, weakest.jitter_probability), (1.0, 0.5, 0.0));
        let whole = SimClrAugmentation::cifar([32, 32]);
        assert_eq!(whole.with_strength(1.0).unwrap(), whole);
        // DynACL: scale (1 − 0.9·s, 1).
        assert!((whole.with_strength(0.5).unwrap().smallest_crop - 0.55).abs() < 1e-12);
        assert!(matches!(whole.with_strength(1.5), Err(Error::Setting { setting: "strength", .. })));
    }

    #[test]
    fn batches_without_negatives_are_refused() {
        let set = |n: usize| {
            Dataset::new(vec![0; n], ImageShape::new(1, 1, 1), vec![0; n], vec!["one".into()], "set").unwrap()
        };
        for (images, batch_size) in [(4, 1), (4, 0), (4, 5), (1, 2)] {
            let refused = TwoViews::new(set(images), &Augmentation::default(), LoaderConfig::training(batch_size), 0);
            assert!(matches!(refused, Err(Error::Setting { setting: "batch_size", .. })), "{images} {batch_size}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn a_view_does_not_depend_on_its_batch(seed: u64, batch_size in 2_usize..6, epoch in 0_u64..3) {
            let images = ShapeGenerator::fashion_mnist().splits(12, 1, 0).unwrap().train;
            let augmentation = SimClrAugmentation::small_grey([28, 28]).transforms(1);
            let make = |size| TwoViews::new(images.clone(), &augmentation, LoaderConfig::training(size), seed).unwrap();
            let whole = batches(&make(12), epoch).remove(0);
            for batch in batches(&make(batch_size), epoch) {
                for (row, image) in batch.index.iter().enumerate() {
                    let there = whole.index.iter().position(|other| other == image).unwrap();
                    for (half, other) in [(0, 0), (batch_size, 12)] {
                        let (here, there) = ((half + row) as i64, (other + there) as i64);
                        prop_assert!(batch.views.get(here).equal(&whole.views.get(there)));
                    }
                }
            }
        }
    }
}
