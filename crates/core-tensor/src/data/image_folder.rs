//! Folders of JPEG or PNG files, one folder a class: the layout of ImageNet.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use image::ImageReader;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::resample::Resampler;
use super::{Dataset, Image, ImageShape, Samples, Splits, decode_image};
use crate::{Error, Result};

/// A folder `<class>/<image>.{jpg,jpeg,png}`: its files are listed at once and decoded when asked for.
///
/// Classes are numbered in the order of their names, and images sorted by class and name. Images are read as red,
/// green, blue, whatever they are stored as. Files of other kinds and names that start with a dot are left aside.
#[derive(Debug, Clone)]
pub struct ImageFolder {
    files: Vec<PathBuf>,
    labels: Vec<i64>,
    classes: Vec<String>,
    framing: Framing,
    size: Option<[usize; 2]>,
    origin: String,
}

/// How images of a folder come to their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Framing {
    /// All images must have the size of the first.
    Same,
    /// Resizes the shorter side, keeping proportions, and cuts out the centre. ImageNet evaluation: 256, then 224 ×
    /// 224.
    Centre {
        /// Length of the shorter side after resizing.
        shorter: usize,
        /// `[height, width]` cut out, at most `shorter` each.
        size: [usize; 2],
    },
    /// Every image keeps its own size, for an augmentation that gives them a common one. Works with a loader only.
    Native,
}

impl ImageFolder {
    /// Lists a folder's classes and files. `origin` says what the set is, for reports.
    ///
    /// # Errors
    /// A folder that cannot be read, has no class, or has a class without an image; a framing that makes no sense; with
    /// [`Framing::Same`] a first image that cannot be read.
    pub fn open(folder: &Path, framing: Framing, origin: impl Into<String>) -> Result<Self> {
        framing.validate()?;
        let folders = entries(folder, Path::is_dir)?;
        let mut listed = Self {
            files: Vec::new(),
            labels: Vec::new(),
            classes: Vec::new(),
            framing,
            size: None,
            origin: origin.into(),
        };
        for (label, class) in folders.iter().enumerate() {
            let files = entries(class, is_image)?;
            if files.is_empty() {
                return Err(Error::malformed(
                    class,
                    0,
                    "expected .jpg, .jpeg or .png files in a class's folder, found none",
                ));
            }
            listed.labels.resize(listed.labels.len() + files.len(), label as i64);
            listed.files.extend(files);
            listed.classes.push(name(class)?.to_owned());
        }
        let Some(first) = listed.files.first() else {
            return Err(Error::malformed(folder, 0, "expected a folder for each class, found none"));
        };
        listed.size = match framing {
            Framing::Same => {
                let (width, height) = reader(first)?.into_dimensions().map_err(undecodable(first))?;
                Some([height as usize, width as usize])
            }
            Framing::Centre { size, .. } => Some(size),
            Framing::Native => None,
        };
        Ok(listed)
    }

    /// Decodes everything, on all threads.
    ///
    /// # Errors
    /// An image that cannot be decoded or has another size than the first; [`Framing::Native`].
    pub fn load(&self) -> Result<Dataset> {
        let Some([height, width]) = self.size else {
            return Err(Error::setting("framing", "same or centre, for images kept in memory", "native"));
        };
        let shape = ImageShape::new(3, height, width);
        if self.framing == Framing::Same {
            // So far the size is but what a header says.
            self.decode(&self.files[0])?;
        }
        let values = 3 * height * width;
        let mut pixels = Vec::new();
        let room = values.checked_mul(self.files.len()).filter(|&all| pixels.try_reserve_exact(all).is_ok());
        let Some(all) = room else {
            let reason = format!("{} images of {height} × {width} do not fit into memory", self.files.len());
            return Err(Error::malformed(&self.files[0], 0, reason));
        };
        pixels.resize(all, 0);
        let images = pixels.par_chunks_exact_mut(values).zip(&self.files);
        images.try_for_each(|(pixels, file)| {
            pixels.copy_from_slice(&self.decode(file)?.pixels);
            Ok::<_, Error>(())
        })?;
        Dataset::new(pixels, shape, self.labels.clone(), self.classes.clone(), self.origin.clone())
    }

    /// The classes' names; a label is a position in it.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The image files, in the order of the samples.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// What the set is, for reports.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn decode(&self, file: &Path) -> Result<Image<'static>> {
        let decoded = decode_image(file)?.into_rgb8();
        let (width, height) = (decoded.width() as usize, decoded.height() as usize);
        if width == 0 || height == 0 {
            return Err(Error::malformed(file, 0, "the image is empty"));
        }
        let interleaved = decoded.into_raw();
        let mut pixels = Vec::with_capacity(interleaved.len());
        for channel in 0..3 {
            pixels.extend(interleaved.iter().skip(channel).step_by(3));
        }
        let image = Image { pixels: Cow::Owned(pixels), shape: ImageShape::new(3, height, width) };
        match (self.framing, self.size) {
            (Framing::Same, Some(size)) if size != image.shape.size() => {
                let reason =
                    format!("expected {} × {} pixels like the first image, found {height} × {width}", size[0], size[1]);
                Err(Error::malformed(file, 0, reason))
            }
            _ => Ok(self.framing.frame(image)),
        }
    }
}

impl Samples for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn channels(&self) -> usize {
        3
    }

    fn size(&self) -> Option<[usize; 2]> {
        self.size
    }

    fn label(&self, index: usize) -> i64 {
        self.labels[index]
    }

    fn image(&self, index: usize) -> Result<Image<'_>> {
        self.decode(&self.files[index])
    }
}

/// Longest side that an image is resized to; keeps a typing error from asking for terabytes.
const LONGEST: usize = 1 << 14;

impl Framing {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// [`Framing::Centre`] that cuts out nothing, more than there is, or resizes to more than 16,384 pixels.
    pub fn validate(self) -> Result<()> {
        match self {
            Self::Centre { shorter, .. } if shorter > LONGEST => {
                Err(Error::setting("framing.shorter", format!("at most {LONGEST}"), shorter))
            }
            Self::Centre { shorter, size: [height, width] }
                if height.min(width) == 0 || height.max(width) > shorter =>
            {
                Err(Error::setting("framing.size", format!("1 to {shorter} (shorter)"), format!("{height} × {width}")))
            }
            _ => Ok(()),
        }
    }

    /// An image that is not empty as a [valid](Self::validate) framing has it: resized and cut by [`Framing::Centre`],
    /// as it is by the others.
    #[must_use]
    pub fn frame(self, image: Image<'_>) -> Image<'_> {
        match self {
            Self::Centre { shorter, size } => centre(&image.pixels, image.shape, shorter, size),
            Self::Same | Self::Native => image,
        }
    }
}

/// Reads `folder/train` and `folder/test` (or `folder/val`), which must have the same classes, into memory.
///
/// # Errors
/// As [`ImageFolder::open`] and [`ImageFolder::load`], and classes that differ.
pub fn image_folders(folder: &Path, framing: Framing, origin: &str) -> Result<Splits> {
    let train = ImageFolder::open(&folder.join("train"), framing, origin)?;
    let held_out = ["test", "val"].map(|name| folder.join(name));
    let held_out = held_out.iter().find(|path| path.is_dir()).unwrap_or(&held_out[0]);
    let test = ImageFolder::open(held_out, framing, origin)?;
    if train.classes != test.classes {
        let differs = |a: &ImageFolder, b: &ImageFolder| {
            let only: Vec<_> = a.classes.iter().filter(|class| !b.classes.contains(class)).cloned().collect();
            only.join(", ")
        };
        let reason = format!(
            "expected the classes of train; missing: [{}], unexpected: [{}]",
            differs(&train, &test),
            differs(&test, &train)
        );
        return Err(Error::malformed(held_out, 0, reason));
    }
    Ok(Splits { train: train.load()?, test: test.load()? })
}

/// Resizes the shorter side to `shorter` and cuts `size` out of the centre, rounding to bytes once.
fn centre(pixels: &[u8], shape: ImageShape, shorter: usize, size: [usize; 2]) -> Image<'static> {
    let resized = shorter_side(shape.size(), shorter);
    let [top, left] = centre_offset(resized, size);
    let kept = [top..top + size[0], left..left + size[1]];
    let resampler = Resampler::part([0..shape.height, 0..shape.width], resized, kept);
    let mut between = Vec::new();
    let mut plane = vec![0.0; size[0] * size[1]];
    let mut cut = Vec::with_capacity(shape.channels * plane.len());
    for source in pixels.chunks_exact(shape.height * shape.width) {
        resampler.run(source, shape.width, &mut between, &mut plane);
        // A weighted mean of bytes, so it fits a byte; the cast saturates all the same.
        cut.extend(plane.iter().map(|value| value.round() as u8));
    }
    Image { pixels: Cow::Owned(cut), shape: ImageShape::new(shape.channels, size[0], size[1]) }
}

/// `[height, width]` when the shorter side becomes `shorter`; the longer one is rounded down, as torchvision does.
fn shorter_side([height, width]: [usize; 2], shorter: usize) -> [usize; 2] {
    if height < width { [shorter, shorter * width / height] } else { [shorter * height / width, shorter] }
}

/// The top-left corner of `size` in the middle of `whole`, which is at least as large; halves go to the even number, as
/// torchvision's do.
fn centre_offset(whole: [usize; 2], size: [usize; 2]) -> [usize; 2] {
    std::array::from_fn(|axis| {
        let spare = whole[axis] - size[axis];
        spare / 2 + usize::from(spare % 4 == 3)
    })
}

/// The entries of a folder that `wanted` accepts, sorted, without hidden ones.
fn entries(folder: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    let listing = std::fs::read_dir(folder).map_err(Error::io(folder, "list"))?;
    let mut paths = Vec::new();
    for entry in listing {
        let path = entry.map_err(Error::io(folder, "list"))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && wanted(&path) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known))
}

fn name(folder: &Path) -> Result<&str> {
    let found = folder.file_name().and_then(OsStr::to_str);
    found.ok_or_else(|| Error::malformed(folder, 0, "expected a class name in UTF-8"))
}

/// The format is told by the content, because ImageNet has PNG files that are called JPEG.
fn reader(path: &Path) -> Result<ImageReader<std::io::Cursor<Vec<u8>>>> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    ImageReader::new(std::io::Cursor::new(bytes)).with_guessed_format().map_err(Error::io(path, "read"))
}

/// Image decoders do not say where they stopped.
fn undecodable(path: &Path) -> impl FnOnce(image::ImageError) -> Error {
    let path = path.to_path_buf();
    move |error| Error::malformed(&path, 0, format!("the image cannot be decoded: {error}"))
}

#[cfg(test)]
mod tests;
