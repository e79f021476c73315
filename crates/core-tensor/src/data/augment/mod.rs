//! Seeded augmentation: a list of transforms as data, checked once, then run image by image.
//!
//! What happens to an image depends on the run's seed, the epoch, the image's position in its set and the stream, and on
//! nothing else: not on the batch it is in, nor on the thread that works on it.

mod cutout;
mod pipeline;
mod placement;

use serde::{Deserialize, Serialize};

pub use pipeline::{Draw, Pipeline};

use crate::{Error, Result};

/// A list of transforms, applied from first to last.
///
/// Images enter as `u8` and are scaled to `[0, 1]`. An empty list does only that.
///
/// ```
/// use core_tensor::data::{Augmentation, ChannelStatistics, Dataset, Draw, ImageShape, Transform};
///
/// let augmentation = Augmentation::new([
///     Transform::PadCrop { padding: 4 },
///     Transform::HorizontalFlip { probability: 0.5 },
///     ChannelStatistics::cifar10().normalise(),
/// ]);
/// let images = Dataset::new(vec![128; 3 * 32 * 32], ImageShape::new(3, 32, 32), vec![0], vec!["grey".into()], "one")?;
/// let pipeline = augmentation.prepare(3, Some([32, 32]))?;
///
/// // Two views of one image are two streams of the same draw.
/// let draw = Draw { seed: 0, epoch: 0, stream: 0 };
/// let first = pipeline.batch(&images, &[0], draw)?;
/// let second = pipeline.batch(&images, &[0], Draw { stream: 1, ..draw })?;
/// assert_eq!(first.size(), [1, 3, 32, 32]);
/// assert_eq!(second.size(), first.size());
/// # Ok::<(), core_tensor::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Augmentation {
    /// In order of application.
    pub transforms: Vec<Transform>,
}

/// One step of an [`Augmentation`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Transform {
    /// Pads every side with black and crops the original size at a random place. CIFAR: 4 pixels (He et al.,
    /// arXiv 1512.03385, §4.2).
    PadCrop {
        /// Pixels added to each side; at most the smaller of height and width.
        padding: usize,
    },
    /// Mirrors left and right.
    HorizontalFlip {
        /// How often, in `[0, 1]`. Usually 0.5.
        probability: f64,
    },
    /// Zeroes a square around a random pixel: the mean colour when it follows `Normalise` (DeVries and Taylor,
    /// arXiv 1708.04552; 16 pixels for CIFAR-10, 8 for CIFAR-100).
    Cutout {
        /// Height and width of the square, at least 1.
        side: usize,
    },
    /// Subtracts the channel's mean and divides by its standard deviation, both of pixels in `[0, 1]`.
    Normalise {
        /// One a channel.
        mean: Vec<f32>,
        /// One a channel, above 0.
        std: Vec<f32>,
    },
}

impl Augmentation {
    /// From first to last.
    pub fn new(transforms: impl IntoIterator<Item = Transform>) -> Self {
        Self { transforms: transforms.into_iter().collect() }
    }

    /// Checks the transforms against the images they will get: `channels`, and `[height, width]` unless it varies.
    ///
    /// # Errors
    /// A setting outside its range, statistics for another number of channels, a second `Normalise`, or images that
    /// still have no common size at the end.
    pub fn prepare(&self, channels: usize, size: Option<[usize; 2]>) -> Result<Pipeline> {
        if channels == 0 || size.is_some_and(|size| size.contains(&0)) {
            return Err(Error::setting(
                "image",
                "at least one channel, row and column",
                format!("{channels}, {size:?}"),
            ));
        }
        let mut reached = size;
        let mut normalised = false;
        for transform in &self.transforms {
            transform.validate(channels, normalised)?;
            reached = transform.output_size(reached)?;
            normalised |= matches!(transform, Transform::Normalise { .. });
        }
        let Some(output) = reached else {
            let found = "images of different sizes";
            return Err(Error::setting("augmentation", "a transform that gives all images one size", found));
        };
        Ok(Pipeline::new(&self.transforms, channels, size, output))
    }
}

impl Transform {
    fn validate(&self, channels: usize, normalised: bool) -> Result<()> {
        match self {
            Self::PadCrop { .. } => Ok(()),
            Self::HorizontalFlip { probability } => probability_in_range("horizontal_flip.probability", *probability),
            Self::Cutout { side: 0 } => Err(Error::setting("cutout.side", "at least 1", 0)),
            Self::Cutout { .. } => Ok(()),
            Self::Normalise { mean, std } => {
                if normalised {
                    return Err(Error::setting("augmentation", "at most one normalise", "a second one"));
                }
                if mean.len() != channels || std.len() != channels {
                    let found = format!("{} means and {} deviations", mean.len(), std.len());
                    return Err(Error::setting("normalise", format!("one of each for {channels} channels"), found));
                }
                if mean.iter().any(|mean| !mean.is_finite()) {
                    return Err(Error::setting("normalise.mean", "finite numbers", format!("{mean:?}")));
                }
                if std.iter().any(|&std| !std.is_finite() || std <= 0.0) {
                    return Err(Error::setting("normalise.std", "finite numbers above 0", format!("{std:?}")));
                }
                Ok(())
            }
        }
    }

    /// `[height, width]` after the transform, from that before it; `None` while images differ.
    fn output_size(&self, size: Option<[usize; 2]>) -> Result<Option<[usize; 2]>> {
        match self {
            Self::PadCrop { padding } => match size {
                Some([height, width]) if *padding <= height.min(width) => Ok(size),
                Some([height, width]) => {
                    Err(Error::setting("pad_crop.padding", format!("at most {}", height.min(width)), padding))
                }
                None => Err(Error::setting("pad_crop", "images of one size", "images of different sizes")),
            },
            Self::HorizontalFlip { .. } | Self::Cutout { .. } | Self::Normalise { .. } => Ok(size),
        }
    }
}

fn probability_in_range(setting: &'static str, found: f64) -> Result<()> {
    // Written so that NaN is refused as well.
    if (0.0..=1.0).contains(&found) { Ok(()) } else { Err(Error::setting(setting, "0 to 1", found)) }
}

#[cfg(test)]
mod tests;
