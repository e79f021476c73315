//! Image files, decoded by what they contain.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageReader};

use crate::{Error, Result};

/// Bytes of pixels that a byte of a file can stand for. Deflate makes at most 1032 of one, and PNG three values of a bit;
/// JPEG needs a bit for a block of 64.
const MOST_PER_BYTE: u64 = 1032 * 24;

/// Reads a JPEG or PNG file. The content tells the format, not the name: ImageNet has PNG files that are called JPEG.
///
/// # Errors
/// A file that cannot be read or decoded, or whose header promises more pixels than a file of its length can hold, for
/// which no memory is taken.
pub fn decode_image(path: &Path) -> Result<DynamicImage> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let most = MOST_PER_BYTE.saturating_mul(bytes.len() as u64);
    // Decoders do not say where they stopped.
    let refuse = |error: image::ImageError| Error::malformed(path, 0, format!("the image cannot be decoded: {error}"));
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(Error::io(path, "read"))?;
    let decoder = reader.into_decoder().map_err(refuse)?;
    let ((width, height), needed) = (decoder.dimensions(), decoder.total_bytes());
    if needed > most {
        let reason =
            format!("{width} × {height} pixels take {needed} bytes, a file of this length holds at most {most}");
        return Err(Error::malformed(path, 0, reason));
    }
    DynamicImage::from_decoder(decoder).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_cannot_ask_for_more_than_its_file_holds() {
        // What a fuzzer found: 150 bytes, of which the header says 33,554,692 × 3 pixels with four channels.
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        let header = [&b"IHDR"[..], &33_554_692_u32.to_be_bytes(), &3_u32.to_be_bytes(), &[8, 6, 0, 0, 0]].concat();
        for chunk in [&header[..], b"IDAT\x78\x01"] {
            file.extend((chunk.len() as u32 - 4).to_be_bytes());
            file.extend(chunk);
            file.extend(crc32(chunk).to_be_bytes());
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wide.png");
        std::fs::write(&path, file).unwrap();
        let refused = decode_image(&path).unwrap_err().to_string();
        assert!(refused.contains("33554692 × 3 pixels take 402656304 bytes"), "{refused}");
    }

    #[test]
    fn a_blank_picture_is_no_bomb() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blank.png");
        image::GrayImage::new(4000, 4000).save(&path).unwrap();
        let (length, decoded) = (std::fs::metadata(&path).unwrap().len(), decode_image(&path).unwrap());
        assert!(length < 100_000 && decoded.width() == 4000, "{length} bytes");
    }

    /// PNG's checksum, bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
        !bytes.iter().fold(u32::MAX, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), step))
    }
}
