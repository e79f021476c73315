//! Images named by a list.

use super::super::{Error, Result};
use core_tensor::data::{Framing, Image, ImageShape, Samples, decode_image};
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Image files with labels, decoded as red, green, blue when asked for, each of its own size unless they are
/// [framed](Self::framed).
#[derive(Debug, Clone)]
pub struct ImageList {
    files: Vec<PathBuf>,
    labels: Vec<i64>,
    classes: Vec<String>,
    origin: String,
    framing: Framing,
}

impl ImageList {
    /// Files with the names of their classes, which are numbered in the order of their first image.
    ///
    /// # Errors
    /// No file, or one that is not there.
    pub fn new(files: Vec<(PathBuf, String)>, set: &'static str) -> Result<Self> {
        let mut list = Self {
            files: Vec::new(),
            labels: Vec::new(),
            classes: Vec::new(),
            origin: set.into(),
            framing: Framing::Native,
        };
        let mut numbers: HashMap<String, i64> = HashMap::new();
        for (path, class) in files {
            if !path.is_file() {
                return Err(Error::DataMissing { set, path, expected: "an image that the list names" });
            }
            let next = numbers.len() as i64;
            let label = *numbers.entry(class.clone()).or_insert(next);
            if label == next {
                list.classes.push(class);
            }
            list.files.push(path);
            list.labels.push(label);
        }
        if list.files.is_empty() {
            return Err(Error::Empty(set));
        }
        Ok(list)
    }

    /// The same images framed, always in the same way: for retrieval, [`Framing::Centre`] of 256 and 224 × 224 is the
    /// published one.
    ///
    /// # Errors
    /// A framing that makes no sense; [`Framing::Same`], since no list of files says what size they share.
    pub fn framed(self, framing: Framing) -> Result<Self> {
        framing.validate()?;
        if framing == Framing::Same {
            return Err(Error::setting("framing", "centre or native", "same"));
        }
        Ok(Self { framing, ..self })
    }

    /// The image files, in the order of the samples.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// One a file.
    pub fn labels(&self) -> &[i64] {
        &self.labels
    }

    /// The classes' names; a label is a position in it.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// What the set is, for reports.
    pub fn origin(&self) -> &str {
        &self.origin
    }
}

impl Samples for ImageList {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn channels(&self) -> usize {
        3
    }

    fn size(&self) -> Option<[usize; 2]> {
        match self.framing {
            Framing::Centre { size, .. } => Some(size),
            Framing::Same | Framing::Native => None,
        }
    }

    fn label(&self, index: usize) -> i64 {
        self.labels[index]
    }

    fn image(&self, index: usize) -> core_tensor::Result<Image<'_>> {
        Ok(self.framing.frame(decode(&self.files[index])?))
    }
}

fn decode(path: &Path) -> core_tensor::Result<Image<'static>> {
    let decoded = decode_image(path)?.into_rgb8();
    let shape = ImageShape::new(3, decoded.height() as usize, decoded.width() as usize);
    if shape.height == 0 || shape.width == 0 {
        return Err(core_tensor::Error::malformed(path, 0, "the image is empty"));
    }
    let interleaved = decoded.into_raw();
    let pixels: Vec<u8> = (0..3).flat_map(|channel| interleaved.iter().skip(channel).step_by(3)).copied().collect();
    Ok(Image { pixels: Cow::Owned(pixels), shape })
}
