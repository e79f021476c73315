//! Seeded augmentation: a list of transforms as data, checked once, then run image by image.
//!
//! What happens to an image depends on the run's seed, the epoch, the image's position in its set and the stream, and on
//! nothing else: not on the batch it is in, nor on the thread that works on it.

mod blur;
mod colour;
mod cutout;
mod pipeline;
mod placement;
mod resized_crop;

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
    /// Cuts a random part and resizes it with an anti-aliased bilinear filter, as torchvision's `RandomResizedCrop`.
    ResizedCrop {
        /// `[height, width]` of the result. ImageNet: 224 × 224.
        size: [usize; 2],
        /// Smallest and largest share of the image's area, in `(0, 1]`. ImageNet and SimCLR (Chen et al.,
        /// arXiv 2002.05709, appendix A): 0.08 to 1.
        scale: [f64; 2],
        /// Smallest and largest width over height. Usually 3/4 to 4/3.
        ratio: [f64; 2],
    },
    /// Changes brightness, contrast, saturation and hue, in a random order, as torchvision's `ColorJitter`. Grey images
    /// have no saturation or hue. Comes before `Normalise`.
    ///
    /// SimCLR with strength s (Chen et al., arXiv 2002.05709, appendix A): 0.8 s, 0.8 s, 0.8 s, 0.2 s, probability 0.8;
    /// s is 1 on ImageNet and 0.5 on CIFAR-10.
    ColourJitter {
        /// Factors are drawn from `[max(0, 1 − b), 1 + b]`; b is at most 100.
        brightness: f64,
        /// As `brightness`, about the image's mean lightness.
        contrast: f64,
        /// As `brightness`, about the pixel's lightness.
        saturation: f64,
        /// Shares of the colour circle are drawn from `[−hue, hue]`, at most 0.5.
        hue: f64,
        /// How often, in `[0, 1]`.
        probability: f64,
    },
    /// Takes the colour away, keeping three channels. Comes before `Normalise`.
    Grey {
        /// How often, in `[0, 1]`. SimCLR: 0.2.
        probability: f64,
    },
    /// Gaussian blur with mirrored borders, as torchvision's `GaussianBlur`.
    Blur {
        /// Pixels the kernel spans, odd; half of it must be below both sides. SimCLR: a tenth of the side.
        kernel: usize,
        /// Smallest and largest standard deviation in pixels, above 0. SimCLR: 0.1 to 2.
        sigma: [f64; 2],
        /// How often, in `[0, 1]`. SimCLR: 0.5.
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
    /// Checks what does not depend on the images' size.
    fn validate(&self, channels: usize, normalised: bool) -> Result<()> {
        match self {
            Self::PadCrop { .. } => Ok(()),
            Self::HorizontalFlip { probability } => in_range("horizontal_flip.probability", *probability, 1.0),
            Self::ResizedCrop { size, scale, ratio } => {
                sides("resized_crop.size", *size)?;
                ordered("resized_crop.scale", *scale, 1.0)?;
                ordered("resized_crop.ratio", *ratio, f64::MAX)
            }
            Self::ColourJitter { brightness, contrast, saturation, hue, probability } => {
                before_normalise("colour_jitter", channels, normalised)?;
                in_range("colour_jitter.brightness", *brightness, STRONGEST)?;
                in_range("colour_jitter.contrast", *contrast, STRONGEST)?;
                in_range("colour_jitter.saturation", *saturation, STRONGEST)?;
                in_range("colour_jitter.hue", *hue, 0.5)?;
                in_range("colour_jitter.probability", *probability, 1.0)
            }
            Self::Grey { probability } => {
                before_normalise("grey", channels, normalised)?;
                in_range("grey.probability", *probability, 1.0)
            }
            Self::Blur { kernel, sigma, probability } => {
                if kernel % 2 == 0 {
                    return Err(Error::setting("blur.kernel", "an odd number of pixels", kernel));
                }
                ordered("blur.sigma", *sigma, f64::MAX)?;
                in_range("blur.probability", *probability, 1.0)
            }
            Self::Cutout { side } => sides("cutout.side", [*side; 2]),
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
        let shortest = size.map(|[height, width]| height.min(width));
        match (self, shortest) {
            (Self::ResizedCrop { size, .. }, _) => Ok(Some(*size)),
            (Self::PadCrop { .. }, None) => {
                Err(Error::setting("pad_crop", "images of one size", "images of different sizes"))
            }
            (Self::PadCrop { padding }, Some(shortest)) if *padding > shortest => {
                Err(Error::setting("pad_crop.padding", format!("at most {shortest}, the shorter side"), padding))
            }
            // Images of different sizes may be a pixel wide.
            (Self::Blur { kernel, .. }, _) if kernel / 2 >= shortest.unwrap_or(1) => {
                let expected = format!("half of it below {}, the shorter side", shortest.unwrap_or(1));
                Err(Error::setting("blur.kernel", expected, kernel))
            }
            _ => Ok(size),
        }
    }
}

/// Factors beyond this leave black and white only, and far beyond it would not be finite in `f32`.
const STRONGEST: f64 = 100.0;

/// Longest side that an image is resized to; keeps a typing error from asking for terabytes.
const LONGEST: usize = 1 << 14;

/// A number from 0 to `most`; NaN is refused as well.
fn in_range(setting: &'static str, found: f64, most: f64) -> Result<()> {
    if (0.0..=most).contains(&found) {
        return Ok(());
    }
    Err(Error::setting(setting, format!("0 to {most}"), found))
}

/// Two numbers above 0, the first not above the second, the second not above `most`.
fn ordered(setting: &'static str, [low, high]: [f64; 2], most: f64) -> Result<()> {
    if low > 0.0 && low <= high && high <= most {
        return Ok(());
    }
    let expected =
        if most == f64::MAX { "0 < low ≤ high".to_owned() } else { format!("0 < low ≤ high ≤ {most}") };
    Err(Error::setting(setting, expected, format!("[{low}, {high}]")))
}

fn sides(setting: &'static str, sides: [usize; 2]) -> Result<()> {
    match sides.into_iter().find(|side| !(1..=LONGEST).contains(side)) {
        Some(found) => Err(Error::setting(setting, format!("1 to {LONGEST}"), found)),
        None => Ok(()),
    }
}

/// Colours have a meaning for grey and RGB images with values in `[0, 1]`.
fn before_normalise(transform: &'static str, channels: usize, normalised: bool) -> Result<()> {
    if normalised {
        return Err(Error::setting(transform, "a place before normalise", "one after it"));
    }
    if channels != 1 && channels != 3 {
        return Err(Error::setting(transform, "images of 1 or 3 channels", channels));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
