//! Images, labels and class names, checked and kept in memory.

use std::borrow::Cow;
use std::sync::Arc;

use rand::seq::SliceRandom;
use tch::{Kind, Tensor};

use super::{ChannelStatistics, Image, ImageShape, Samples};
use crate::seed::{Purpose, generator};
use crate::{Error, Result};

/// Images of one shape, their class numbers, the classes' names, and what the set is.
///
/// Pixels stay `u8`: CIFAR-10's training set is 154 MB that way, and 614 MB as `f32`. Cloning shares them.
///
/// ```
/// use core_tensor::data::{Dataset, ImageShape};
///
/// let names = vec!["dark".to_owned(), "bright".to_owned()];
/// let pixels = vec![0, 1, 2, 3, 200, 210, 220, 230];
/// let set = Dataset::new(pixels, ImageShape::new(1, 2, 2), vec![0, 1], names, "two squares")?;
/// assert_eq!(set.images().size(), [2, 1, 2, 2]);
///
/// // A label without a class is refused.
/// let error = Dataset::new(vec![0; 4], ImageShape::new(1, 2, 2), vec![7], vec!["only".to_owned()], "one").unwrap_err();
/// assert!(error.to_string().contains("label 7"));
/// # Ok::<(), core_tensor::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dataset {
    pixels: Arc<Vec<u8>>,
    shape: ImageShape,
    labels: Arc<Vec<i64>>,
    classes: Arc<Vec<String>>,
    origin: String,
}

/// The two halves that published sets come in.
#[derive(Debug, Clone)]
pub struct Splits {
    /// For fitting.
    pub train: Dataset,
    /// For the figure that is reported.
    pub test: Dataset,
}

impl Dataset {
    /// Takes images that lie one after the other in `pixels`, each `[channels, height, width]`.
    ///
    /// `origin` says what the set is, for reports: `Fashion-MNIST`, or `generated shapes, stand-in for Fashion-MNIST`.
    ///
    /// # Errors
    /// No image, an empty shape, counts that disagree, or a label outside `0..classes.len()`.
    pub fn new(
        pixels: Vec<u8>,
        shape: ImageShape,
        labels: Vec<i64>,
        classes: Vec<String>,
        origin: impl Into<String>,
    ) -> Result<Self> {
        let origin = origin.into();
        let expected = shape.values().and_then(|values| values.checked_mul(labels.len()));
        if labels.is_empty() || expected.is_none_or(|expected| expected == 0 || expected != pixels.len()) {
            return Err(Error::tensor(
                format!("images of {origin}"),
                format!("{} images of {shape}, at least one, none empty", labels.len()),
                format!("{} bytes", pixels.len()),
            ));
        }
        if let Some((position, label)) = out_of_range(&labels, classes.len()) {
            return Err(Error::tensor(
                format!("labels of {origin}"),
                format!("class numbers below {}", classes.len()),
                format!("label {label} at position {position}"),
            ));
        }
        Ok(Self { pixels: Arc::new(pixels), shape, labels: Arc::new(labels), classes: Arc::new(classes), origin })
    }

    /// Takes images `[n, channels, height, width]` of kind `u8` and labels `[n]` of kind `i64`.
    ///
    /// # Errors
    /// As [`Dataset::new`], and tensors of another shape or kind.
    pub fn from_tensors(
        images: &Tensor,
        labels: &Tensor,
        classes: Vec<String>,
        origin: impl Into<String>,
    ) -> Result<Self> {
        let origin = origin.into();
        let (&[n, channels, height, width], Kind::Uint8) = (images.size().as_slice(), images.kind()) else {
            let found = format!("{:?} {:?}", images.kind(), images.size());
            return Err(Error::tensor(format!("images of {origin}"), "Uint8 [n, channels, height, width]", found));
        };
        if labels.size() != [n] || labels.kind() != Kind::Int64 {
            let found = format!("{:?} {:?}", labels.kind(), labels.size());
            return Err(Error::tensor(format!("labels of {origin}"), format!("Int64 [{n}]"), found));
        }
        // Sizes of a tensor are never negative.
        let shape = ImageShape::new(channels as usize, height as usize, width as usize);
        let mut pixels = vec![0; images.numel()];
        images.f_contiguous()?.f_to_device(tch::Device::Cpu)?.f_copy_data(&mut pixels, images.numel())?;
        let mut numbers = vec![0; labels.numel()];
        labels.f_contiguous()?.f_to_device(tch::Device::Cpu)?.f_copy_data(&mut numbers, labels.numel())?;
        Self::new(pixels, shape, numbers, classes, origin)
    }

    /// All images as one tensor, `[n, channels, height, width]`, `u8`. Copies.
    pub fn images(&self) -> Tensor {
        let ImageShape { channels, height, width } = self.shape;
        Tensor::from_slice(&self.pixels).view([self.len() as i64, channels as i64, height as i64, width as i64])
    }

    /// All class numbers, `[n]`, `i64`. Copies.
    pub fn labels(&self) -> Tensor {
        Tensor::from_slice(&self.labels)
    }

    /// All pixels, image after image, in `[channels, height, width]` order.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// All class numbers.
    pub fn targets(&self) -> &[i64] {
        &self.labels
    }

    /// Shape of every image.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// The classes' names; a label is a position in it.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// What the set is, for reports.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Mean and standard deviation of each channel over all pixels, for [`Transform::Normalise`](super::Transform).
    pub fn statistics(&self) -> ChannelStatistics {
        ChannelStatistics::measure(&self.pixels, self.shape)
    }

    /// The images at `indices`, in that order, repeats allowed.
    ///
    /// # Errors
    /// No index, or one that is not in the set.
    pub fn subset(&self, indices: &[usize]) -> Result<Self> {
        if let Some(outside) = indices.iter().find(|&&index| index >= self.len()) {
            return Err(Error::setting("indices", format!("positions below {}", self.len()), outside));
        }
        let pixels = indices.iter().flat_map(|&index| self.bytes(index)).copied().collect();
        let labels = indices.iter().map(|&index| self.labels[index]).collect();
        Self::new(pixels, self.shape, labels, self.classes.to_vec(), self.origin.clone())
    }

    /// The first `count` images, or all when there are fewer.
    ///
    /// # Errors
    /// `count` is 0.
    pub fn take(&self, count: usize) -> Result<Self> {
        self.subset(&(0..count.min(self.len())).collect::<Vec<_>>())
    }

    /// The first `per_class` images of every class, in their order; of a class with fewer, all.
    ///
    /// Unlike [`take`](Self::take) it works on sets that are sorted by class, as image folders are.
    ///
    /// # Errors
    /// `per_class` is 0.
    pub fn balanced(&self, per_class: usize) -> Result<Self> {
        let mut taken = vec![0; self.classes.len()];
        let kept: Vec<_> = (0..self.len())
            .filter(|&index| {
                // Labels were checked when the set was made.
                let count = &mut taken[self.labels[index] as usize];
                *count += 1;
                *count <= per_class
            })
            .collect();
        self.subset(&kept)
    }

    /// The images of the classes whose name `keep` accepts. The classes that are left are numbered anew, in their order.
    ///
    /// # Errors
    /// No image is left.
    pub fn only_classes(&self, keep: impl Fn(&str) -> bool) -> Result<Self> {
        let mut classes = Vec::new();
        let numbers: Vec<Option<i64>> = self
            .classes
            .iter()
            .map(|name| {
                keep(name).then(|| {
                    classes.push(name.clone());
                    classes.len() as i64 - 1
                })
            })
            .collect();
        let (kept, labels): (Vec<_>, Vec<_>) =
            (0..self.len()).filter_map(|index| Some((index, numbers[self.labels[index] as usize]?))).unzip();
        let set = self.subset(&kept)?;
        Ok(Self { labels: Arc::new(labels), classes: Arc::new(classes), ..set })
    }

    /// Sets `held_out` images aside, drawn at random by `seed`: the rest, then those. Both keep the set's order.
    ///
    /// # Errors
    /// `held_out` is 0 or leaves nothing.
    pub fn split(&self, held_out: usize, seed: u64) -> Result<(Self, Self)> {
        if held_out == 0 || held_out >= self.len() {
            return Err(Error::setting("held_out", format!("1 to {}", self.len() - 1), held_out));
        }
        let mut order: Vec<_> = (0..self.len()).collect();
        order.shuffle(&mut generator(seed, Purpose::Data, 0));
        let (aside, rest) = order.split_at_mut(held_out);
        aside.sort_unstable();
        rest.sort_unstable();
        Ok((self.subset(rest)?, self.subset(aside)?))
    }

    fn bytes(&self, index: usize) -> &[u8] {
        let values = self.pixels.len() / self.labels.len();
        &self.pixels[index * values..(index + 1) * values]
    }
}

impl Samples for Dataset {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn channels(&self) -> usize {
        self.shape.channels
    }

    fn size(&self) -> Option<[usize; 2]> {
        Some(self.shape.size())
    }

    fn label(&self, index: usize) -> i64 {
        self.labels[index]
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        Ok(Image { pixels: Cow::Borrowed(self.bytes(index)), shape: self.shape })
    }
}

/// The first label that names no class, with its position.
fn out_of_range(labels: &[i64], classes: usize) -> Option<(usize, i64)> {
    labels.iter().copied().enumerate().find(|(_, label)| usize::try_from(*label).map_or(true, |label| label >= classes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class {class}")).collect()
    }

    /// `n` one-pixel images whose pixel is their position, in `classes` classes in turn.
    fn numbered(n: usize, classes: usize) -> Dataset {
        let pixels = (0..n).map(|position| position as u8).collect();
        let labels = (0..n).map(|position| (position % classes) as i64).collect();
        Dataset::new(pixels, ImageShape::new(1, 1, 1), labels, names(classes), "numbers").unwrap()
    }

    #[test]
    fn counts_that_disagree_are_refused() {
        let shape = ImageShape::new(1, 2, 2);
        for (bytes, labels) in [(7, 2), (8, 1), (0, 0), (4, 0)] {
            let set = Dataset::new(vec![0; bytes], shape, vec![0; labels], names(1), "set");
            assert!(matches!(set, Err(Error::Tensor { .. })), "{bytes} bytes, {labels} labels");
        }
        assert!(Dataset::new(vec![], ImageShape::new(1, 0, 2), vec![0], names(1), "set").is_err());
        assert!(Dataset::new(vec![], ImageShape::new(usize::MAX, 2, 2), vec![0], names(1), "set").is_err());
    }

    #[test]
    fn labels_outside_the_classes_are_named_with_their_position() {
        for label in [-1, 2] {
            let set = Dataset::new(vec![0; 2], ImageShape::new(1, 1, 1), vec![1, label], names(2), "set");
            assert!(set.unwrap_err().to_string().contains(&format!("label {label} at position 1")));
        }
    }

    #[test]
    fn tensors_go_in_and_come_out_unchanged() {
        let images = Tensor::from_slice(&[1_u8, 2, 3, 4, 5, 6, 7, 8]).view([2, 2, 1, 2]);
        let labels = Tensor::from_slice(&[1_i64, 0]);
        let set = Dataset::from_tensors(&images, &labels, names(2), "set").unwrap();
        assert_eq!(set.images(), images);
        assert_eq!(set.labels(), labels);
        assert!(Dataset::from_tensors(&images.to_kind(Kind::Float), &labels, names(2), "set").is_err());
        assert!(Dataset::from_tensors(&images.view([4, 2]), &labels, names(2), "set").is_err());
        assert!(Dataset::from_tensors(&images, &labels.to_kind(Kind::Int), names(2), "set").is_err());
    }

    #[test]
    fn a_subset_follows_its_indices() {
        let set = numbered(5, 2).subset(&[4, 1, 1]).unwrap();
        assert_eq!(set.pixels(), [4, 1, 1]);
        assert_eq!(set.targets(), [0, 1, 1]);
        assert!(numbered(5, 2).subset(&[5]).is_err());
        assert!(numbered(5, 2).subset(&[]).is_err());
        assert_eq!(numbered(5, 2).take(9).unwrap().len(), 5);
    }

    #[test]
    fn balanced_takes_the_first_of_each_class() {
        // Sorted by class, as folders are: 0 0 0 1 1.
        let set = Dataset::new(vec![9, 8, 7, 6, 5], ImageShape::new(1, 1, 1), vec![0, 0, 0, 1, 1], names(2), "sorted");
        assert_eq!(set.unwrap().balanced(2).unwrap().pixels(), [9, 8, 6, 5]);
    }

    #[test]
    fn kept_classes_are_numbered_anew() {
        let set = numbered(6, 3).only_classes(|name| name != "class 1").unwrap();
        assert_eq!((set.pixels(), set.targets()), (&[0, 2, 3, 5][..], &[0, 1, 0, 1][..]));
        assert_eq!(set.classes(), ["class 0", "class 2"]);
        assert!(numbered(6, 3).only_classes(|_| false).is_err());
    }

    proptest! {
        #[test]
        fn a_split_shares_every_image_out_once(n in 2_usize..60, part in 0.0..1.0_f64, seed: u64) {
            let held_out = 1 + ((n - 2) as f64 * part) as usize;
            let set = numbered(n, 1);
            let (rest, aside) = set.split(held_out, seed).unwrap();
            prop_assert_eq!(aside.len(), held_out);
            let mut all = [rest.pixels(), aside.pixels()].concat();
            all.sort_unstable();
            prop_assert_eq!(&all[..], set.pixels());
            let (_, again) = set.split(held_out, seed).unwrap();
            prop_assert_eq!(again.pixels(), aside.pixels());
        }
    }
}
