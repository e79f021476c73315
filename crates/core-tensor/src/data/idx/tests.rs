//! Files made by hand, byte by byte, and what must be refused.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::data::Samples;

/// Two images of 2 × 3: 0 0 8 3 | 2 | 2 | 3 | twelve pixels.
const IMAGES: [u8; 28] =
    [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3, 10, 11, 12, 13, 14, 15, 20, 21, 22, 23, 24, 25];
/// Their labels: 0 0 8 1 | 2 | 1, 0.
const LABELS: [u8; 10] = [0, 0, 8, 1, 0, 0, 0, 2, 1, 0];

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn refused(bytes: &[u8]) -> (u64, String) {
    match parse_idx(Path::new("some.idx"), bytes) {
        Err(Error::Malformed { path, offset, reason }) => {
            assert_eq!(path, Path::new("some.idx"));
            (offset, reason)
        }
        other => panic!("expected a malformed file, got {other:?}"),
    }
}

fn folder_with(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn classes(count: usize) -> Vec<String> {
    (0..count).map(|class| class.to_string()).collect()
}

#[test]
fn a_plain_and_a_gzipped_file_read_the_same() {
    let expected = IdxArray { shape: vec![2, 2, 3], values: IMAGES[16..].to_vec() };
    assert_eq!(parse_idx(Path::new("p"), &IMAGES).unwrap(), expected);
    assert_eq!(parse_idx(Path::new("p"), &gz(&IMAGES)).unwrap(), expected);
}

#[test]
fn images_and_labels_become_a_data_set() {
    let folder = folder_with(&[("images", &gz(&IMAGES)), ("labels", &LABELS)]);
    let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
    let set = read_labelled(&images, &labels, classes(2), "tiny").unwrap();
    assert_eq!(set.shape(), ImageShape::new(1, 2, 3));
    assert_eq!(&*set.image(1).unwrap().pixels, [20, 21, 22, 23, 24, 25]);
    assert_eq!(set.targets(), [1, 0]);
    assert_eq!(set.origin(), "tiny");
}

#[test]
fn the_mnist_layout_is_found_plain_or_gzipped() {
    let folder = folder_with(&[
        ("train-images-idx3-ubyte.gz", &gz(&IMAGES)),
        ("train-labels-idx1-ubyte.gz", &gz(&LABELS)),
        ("t10k-images-idx3-ubyte", &IMAGES),
        ("t10k-labels-idx1-ubyte", &LABELS),
    ]);
    let Splits { train, test } = fashion_mnist(folder.path()).unwrap();
    assert_eq!(train.pixels(), test.pixels());
    assert_eq!(train.classes()[1], "Trouser");
    assert_eq!(mnist(folder.path()).unwrap().train.classes().len(), 10);
}

#[test]
fn of_two_copies_the_published_one_is_read() {
    let mut other = IMAGES.to_vec();
    *other.last_mut().unwrap() ^= 1;
    let folder = folder_with(&[
        ("train-images-idx3-ubyte", &other),
        ("train-images-idx3-ubyte.gz", &gz(&IMAGES)),
        ("train-labels-idx1-ubyte", &LABELS),
        ("t10k-images-idx3-ubyte", &IMAGES),
        ("t10k-labels-idx1-ubyte", &LABELS),
    ]);
    let Splits { train, test } = mnist(folder.path()).unwrap();
    assert_eq!(train.pixels(), test.pixels());
}

#[test]
fn a_missing_file_is_named() {
    let folder = folder_with(&[("train-images-idx3-ubyte.gz", &gz(&IMAGES))]);
    match fashion_mnist(folder.path()).unwrap_err() {
        Error::Io { path, action, .. } => {
            assert!(path.ends_with("train-labels-idx1-ubyte.gz"), "{path:?}");
            assert_eq!(action, "read");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_wrong_header_is_refused_where_it_is_wrong() {
    let changed = |position: usize, byte: u8| {
        let mut bytes = IMAGES;
        bytes[position] = byte;
        refused(&bytes)
    };
    assert_eq!(changed(0, 1).0, 0);
    let (offset, reason) = changed(2, 0x0d);
    assert_eq!(offset, 2);
    assert!(reason.contains("0x0d"), "{reason}");
    assert_eq!(changed(3, 0).0, 3);
    // One image more than there are pixels for: the file ends at its byte 28.
    assert_eq!(changed(7, 3), (28, "the file ends after 12 elements, expected 18 for [3, 2, 3]".to_owned()));
}

#[test]
fn a_header_that_promises_terabytes_is_refused_without_asking_for_them() {
    let mut bytes = IMAGES.to_vec();
    bytes[4..16].fill(0xff);
    assert!(refused(&bytes).1.contains("promise more"));
    assert!(refused(&gz(&bytes)).1.contains("promise more"));
}

#[test]
fn trailing_bytes_are_refused_where_they_start() {
    let longer = [&IMAGES[..], &[0]].concat();
    assert_eq!(refused(&longer).0, 28);
    assert_eq!(refused(&gz(&longer)).0, 28);
    // After the gzip member rather than within it.
    assert_eq!(refused(&[gz(&IMAGES), b"junk".to_vec()].concat()).0, 28);
}

#[test]
fn a_flipped_bit_in_a_gzip_stream_is_found() {
    // Every bit that carries content or checksum; bytes 3..10 of the gzip header (flags, time, system) carry neither.
    let whole = gz(&IMAGES);
    for position in 10..whole.len() {
        let mut bytes = whole.clone();
        bytes[position] ^= 0x10;
        refused(&bytes);
    }
}

#[test]
fn every_truncation_is_refused() {
    for bytes in [IMAGES.to_vec(), LABELS.to_vec(), gz(&IMAGES), gz(&LABELS)] {
        for length in 0..bytes.len() {
            refused(&bytes[..length]);
        }
    }
}

#[test]
fn images_and_labels_must_fit_each_other() {
    let three = [0, 0, 8, 1, 0, 0, 0, 3, 1, 0, 1];
    let folder = folder_with(&[("images", &IMAGES), ("labels", &LABELS), ("three", &three)]);
    let path = |name: &str| folder.path().join(name);
    let offset = |images: &str, labels: &str, count: usize| match read_labelled(
        &path(images),
        &path(labels),
        classes(count),
        "tiny",
    )
    .unwrap_err()
    {
        Error::Malformed { path, offset, .. } => (path.file_name().unwrap().to_str().unwrap().to_owned(), offset),
        other => panic!("{other}"),
    };
    assert_eq!(offset("labels", "labels", 2), ("labels".to_owned(), 3));
    assert_eq!(offset("images", "images", 2), ("images".to_owned(), 3));
    assert_eq!(offset("images", "three", 2), ("three".to_owned(), 4));
    // Label 1 at position 0 has no class when there is only one: byte 8 of the file.
    assert_eq!(offset("images", "labels", 1), ("labels".to_owned(), 8));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_idx(Path::new("p"), &bytes);
        // And past the gzip magic, and past the IDX magic.
        let _ = parse_idx(Path::new("p"), &[&[0x1f, 0x8b, 8, 0][..], &bytes].concat());
        let _ = parse_idx(Path::new("p"), &[&[0, 0, 8][..], &bytes].concat());
        let _ = parse_idx(Path::new("p"), &gz(&bytes));
    }

    #[test]
    fn what_was_written_is_read(shape in prop::collection::vec(0_usize..5, 1..4), seed: u8) {
        let count = shape.iter().product::<usize>();
        let values: Vec<u8> = (0..count).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
        let mut bytes = vec![0, 0, 8, shape.len() as u8];
        shape.iter().for_each(|&length| bytes.extend((length as u32).to_be_bytes()));
        bytes.extend(&values);
        let expected = IdxArray { shape, values };
        prop_assert_eq!(&parse_idx(Path::new("p"), &gz(&bytes)).unwrap(), &expected);
        prop_assert_eq!(&parse_idx(Path::new("p"), &bytes).unwrap(), &expected);
    }
}
