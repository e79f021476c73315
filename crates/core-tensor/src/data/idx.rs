//! IDX, the format of MNIST and the sets that follow it: plain or gzipped, recognised by its first bytes.
//!
//! A file is a four-byte magic (two zeros, an element type, the number of dimensions), one big-endian `u32` a dimension,
//! then the elements in row-major order, and nothing after them.

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::{Dataset, ImageShape, Splits};
use crate::{Error, Result};

/// An array of bytes as an IDX file holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdxArray {
    /// Length of each dimension.
    pub shape: Vec<usize>,
    /// The elements, row-major.
    pub values: Vec<u8>,
}

/// Reads one IDX file of unsigned bytes, plain or gzipped.
///
/// # Errors
/// A file that cannot be read; a magic, element type or dimension that is not IDX's; content that is corrupt, shorter or
/// longer than its header says. The error names the file and the offset in the uncompressed content.
pub fn read_idx(path: &Path) -> Result<IdxArray> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    parse_idx(path, &bytes)
}

/// As [`read_idx`] for bytes already in memory; `path` is for errors only.
///
/// # Errors
/// As [`read_idx`].
pub fn parse_idx(path: &Path, bytes: &[u8]) -> Result<IdxArray> {
    if bytes.starts_with(&GZIP_MAGIC) {
        // Deflate never shrinks by more than 1032:1, so a header that promises more is refused before memory is.
        parse(path, MultiGzDecoder::new(bytes), bytes.len().saturating_mul(1032))
    } else {
        parse(path, bytes, bytes.len())
    }
}

/// Reads the four files of Fashion-MNIST: `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, and `t10k-…`, with or
/// without `.gz`.
///
/// # Errors
/// As [`read_labelled`], or a missing file.
pub fn fashion_mnist(folder: &Path) -> Result<Splits> {
    const CLASSES: [&str; 10] =
        ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];
    mnist_layout(folder, &CLASSES, "Fashion-MNIST")
}

/// Reads the four files of MNIST, named as in [`fashion_mnist`].
///
/// # Errors
/// As [`read_labelled`], or a missing file.
pub fn mnist(folder: &Path) -> Result<Splits> {
    mnist_layout(folder, &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "MNIST")
}

/// Reads a file of images `[n, height, width]` and one of labels `[n]` as a data set of grey images.
///
/// # Errors
/// As [`read_idx`]; other numbers of dimensions; counts that disagree; a label that is not below `classes.len()`.
pub fn read_labelled(images: &Path, labels: &Path, classes: Vec<String>, origin: &str) -> Result<Dataset> {
    let (pixels, numbers) = rayon::join(|| read_idx(images), || read_idx(labels));
    let (pixels, numbers) = (pixels?, numbers?);
    let &[n, height, width] = pixels.shape.as_slice() else {
        let reason = format!("expected 3 dimensions (images, rows, columns), found {}", pixels.shape.len());
        return Err(Error::malformed(images, 3, reason));
    };
    if numbers.shape.len() != 1 {
        let reason = format!("expected 1 dimension (labels), found {}", numbers.shape.len());
        return Err(Error::malformed(labels, 3, reason));
    }
    if numbers.values.len() != n {
        let reason =
            format!("expected {n} labels, one for each image in {}, found {}", images.display(), numbers.values.len());
        return Err(Error::malformed(labels, 4, reason));
    }
    if let Some(position) = numbers.values.iter().position(|&label| usize::from(label) >= classes.len()) {
        let reason =
            format!("label {} at position {position}, expected below {}", numbers.values[position], classes.len());
        // The labels start after the magic and one dimension.
        return Err(Error::malformed(labels, 8 + position as u64, reason));
    }
    let labels = numbers.values.into_iter().map(i64::from).collect();
    Dataset::new(pixels.values, ImageShape::new(1, height, width), labels, classes, origin)
}

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const UNSIGNED_BYTE: u8 = 0x08;

/// `limit` bounds what the content can hold.
fn parse(path: &Path, mut content: impl Read, limit: usize) -> Result<IdxArray> {
    let mut magic = [0; 4];
    read_exact(path, &mut content, &mut magic, 0, "the magic number")?;
    let [0, 0, kind, dimensions] = magic else {
        return Err(Error::malformed(path, 0, format!("expected an IDX magic number, found {magic:02x?}")));
    };
    if kind != UNSIGNED_BYTE {
        return Err(Error::malformed(
            path,
            2,
            format!("expected element type 0x08 (unsigned byte), found 0x{kind:02x}"),
        ));
    }
    if dimensions == 0 {
        return Err(Error::malformed(path, 3, "expected at least 1 dimension, found 0"));
    }
    let header = 4 + 4 * usize::from(dimensions);
    let mut shape = Vec::with_capacity(usize::from(dimensions));
    for offset in (4..header as u64).step_by(4) {
        let mut length = [0; 4];
        read_exact(path, &mut content, &mut length, offset, "a dimension")?;
        shape.push(u32::from_be_bytes(length) as usize);
    }
    let promised = shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length));
    let Some(expected) = promised.filter(|&expected| expected <= limit) else {
        let reason = format!("dimensions {shape:?} promise more elements than the file can hold");
        return Err(Error::malformed(path, 4, reason));
    };
    let mut values = Vec::with_capacity(expected);
    let outcome = content.by_ref().take(expected as u64).read_to_end(&mut values);
    let end = (header + values.len()) as u64;
    outcome.map_err(|error| corrupt(path, end, &error))?;
    if values.len() != expected {
        let reason = format!("the file ends after {} elements, expected {expected} for {shape:?}", values.len());
        return Err(Error::malformed(path, end, reason));
    }
    // Asking for one byte more also makes the decoder check the gzip trailer.
    match content.read(&mut [0]) {
        Ok(0) => Ok(IdxArray { shape, values }),
        Ok(_) => Err(Error::malformed(path, end, format!("bytes follow the {expected} elements of {shape:?}"))),
        Err(error) => Err(corrupt(path, end, &error)),
    }
}

fn read_exact(path: &Path, content: &mut impl Read, into: &mut [u8], offset: u64, what: &str) -> Result<()> {
    content.read_exact(into).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::malformed(path, offset, format!("the file ends within {what}")),
        _ => corrupt(path, offset, &error),
    })
}

/// The bytes are in memory, so only the decoder can fail.
fn corrupt(path: &Path, offset: u64, error: &std::io::Error) -> Error {
    Error::malformed(path, offset, format!("the gzip stream is corrupt or truncated: {error}"))
}

fn mnist_layout(folder: &Path, classes: &[&str], origin: &str) -> Result<Splits> {
    let part = |prefix: &str| {
        let images = gz_or_plain(folder, &format!("{prefix}-images-idx3-ubyte"));
        let labels = gz_or_plain(folder, &format!("{prefix}-labels-idx1-ubyte"));
        read_labelled(&images, &labels, classes.iter().map(|&name| name.to_owned()).collect(), origin)
    };
    let (train, test) = rayon::join(|| part("train"), || part("t10k"));
    Ok(Splits { train: train?, test: test? })
}

/// The gzipped file, which is the one that is published and checked, or the plain one where only that is there.
fn gz_or_plain(folder: &Path, name: &str) -> PathBuf {
    let (gz, plain) = (folder.join(format!("{name}.gz")), folder.join(name));
    if !gz.exists() && plain.exists() { plain } else { gz }
}

#[cfg(test)]
mod tests;
