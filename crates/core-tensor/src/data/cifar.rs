//! CIFAR-10 and CIFAR-100 in their binary form (Krizhevsky, "Learning multiple layers of features from tiny images", 2009).
//!
//! A file is a run of records without any header: the label (CIFAR-100: the coarse and then the fine one), then 1024 red,
//! 1024 green and 1024 blue bytes.

use std::path::Path;

use rayon::prelude::*;

use super::{Dataset, ImageShape, Splits};
use crate::{Error, Result};

const SHAPE: ImageShape = ImageShape::new(3, 32, 32);
const PIXELS: usize = 3 * 32 * 32;

/// Reads `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.
///
/// # Errors
/// As [`read_cifar10`], or a missing file.
pub fn cifar10(folder: &Path) -> Result<Splits> {
    let train: [_; 5] = std::array::from_fn(|batch| format!("data_batch_{}.bin", batch + 1));
    splits(folder, &train, "test_batch.bin", &CIFAR_10)
}

/// Reads `train.bin` and `test.bin`; the labels are the 100 fine ones.
///
/// # Errors
/// As [`read_cifar100`], or a missing file.
pub fn cifar100(folder: &Path) -> Result<Splits> {
    splits(folder, &["train.bin".to_owned()], "test.bin", &CIFAR_100)
}

/// Reads one binary file of CIFAR-10.
///
/// # Errors
/// A file that cannot be read, is empty, does not end with a whole record, or has a label that is not below 10. The error
/// names the file and the offset.
pub fn read_cifar10(path: &Path) -> Result<Dataset> {
    read(&[path.to_path_buf()], &CIFAR_10)
}

/// Reads one binary file of CIFAR-100 with its fine labels.
///
/// # Errors
/// As [`read_cifar10`]; a coarse label is below 20, a fine one below 100.
pub fn read_cifar100(path: &Path) -> Result<Dataset> {
    read(&[path.to_path_buf()], &CIFAR_100)
}

/// What the two sets do not share.
struct Format {
    name: &'static str,
    /// How many classes each label byte tells apart; the last byte is the label that is kept.
    labels: &'static [u8],
    classes: &'static [&'static str],
}

const CIFAR_10: Format = Format {
    name: "CIFAR-10",
    labels: &[10],
    classes: &["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
};

#[rustfmt::skip]
const CIFAR_100: Format = Format {
    name: "CIFAR-100",
    labels: &[20, 100],
    classes: &[
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
        "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
        "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish",
        "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
        "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange",
        "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine",
        "possum", "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk",
        "skyscraper", "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
        "willow_tree", "wolf", "woman", "worm",
    ],
};

fn splits(folder: &Path, train: &[String], test: &str, format: &Format) -> Result<Splits> {
    let train: Vec<_> = train.iter().map(|name| folder.join(name)).collect();
    let (train, test) = rayon::join(|| read(&train, format), || read(&[folder.join(test)], format));
    Ok(Splits { train: train?, test: test? })
}

fn read(paths: &[std::path::PathBuf], format: &Format) -> Result<Dataset> {
    let one = |path: &std::path::PathBuf| {
        let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
        parse(path, &bytes, format)
    };
    let parts: Vec<_> = paths.par_iter().map(one).collect::<Result<_>>()?;
    let (labels, pixels): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let classes = format.classes.iter().map(|&name| name.to_owned()).collect();
    Dataset::new(pixels.concat(), SHAPE, labels.concat(), classes, format.name)
}

/// Labels and pixels of one file.
fn parse(path: &Path, bytes: &[u8], format: &Format) -> Result<(Vec<i64>, Vec<u8>)> {
    let record = format.labels.len() + PIXELS;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        let whole = bytes.len() / record;
        let reason = format!(
            "expected records of {record} bytes, found {} after {whole} of them: not a whole {} file",
            bytes.len() - whole * record,
            format.name,
        );
        return Err(Error::malformed(path, (whole * record) as u64, reason));
    }
    let mut labels = Vec::with_capacity(bytes.len() / record);
    let mut pixels = Vec::with_capacity(bytes.len() / record * PIXELS);
    for (position, record_bytes) in bytes.chunks_exact(record).enumerate() {
        let (numbers, image) = record_bytes.split_at(format.labels.len());
        for (byte, (&label, &count)) in numbers.iter().zip(format.labels).enumerate() {
            if label >= count {
                let offset = (position * record + byte) as u64;
                let reason = format!("label {label} of record {position}, expected below {count}");
                return Err(Error::malformed(path, offset, reason));
            }
        }
        labels.extend(numbers.last().map(|&label| i64::from(label)));
        pixels.extend_from_slice(image);
    }
    Ok((labels, pixels))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record whose red plane is `red`, the others 0.
    fn record(labels: &[u8], red: u8) -> Vec<u8> {
        [labels, &[red; 1024], &[0; 2048]].concat()
    }

    fn write(folder: &Path, name: &str, records: &[Vec<u8>]) {
        std::fs::write(folder.join(name), records.concat()).unwrap();
    }

    fn refused(bytes: &[u8], format: &Format) -> u64 {
        match parse(Path::new("some.bin"), bytes, format) {
            Err(Error::Malformed { offset, .. }) => offset,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_names_are_all_there_in_their_order() {
        assert_eq!(CIFAR_10.classes.len(), 10);
        assert_eq!(CIFAR_100.classes.len(), 100);
        assert!(CIFAR_10.classes.is_sorted() && CIFAR_100.classes.is_sorted());
    }

    #[test]
    fn batches_are_joined_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for batch in 1..=5 {
            write(folder.path(), &format!("data_batch_{batch}.bin"), &[record(&[batch], batch), record(&[0], 100)]);
        }
        write(folder.path(), "test_batch.bin", &[record(&[9], 9)]);
        let Splits { train, test } = cifar10(folder.path()).unwrap();
        assert_eq!(train.targets(), [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
        assert_eq!((train.shape(), train.pixels()[0], train.pixels()[1023], train.pixels()[1024]), (SHAPE, 1, 1, 0));
        assert_eq!((test.targets(), test.classes()[9].as_str()), (&[9][..], "truck"));
    }

    #[test]
    fn cifar_100_keeps_the_fine_label() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "train.bin", &[record(&[4, 0], 1), record(&[19, 99], 2)]);
        write(folder.path(), "test.bin", &[record(&[0, 50], 3)]);
        let Splits { train, test } = cifar100(folder.path()).unwrap();
        assert_eq!((train.targets(), test.targets()), (&[0, 99][..], &[50][..]));
        assert_eq!(train.classes()[99], "worm");
        assert_eq!(train.pixels()[PIXELS], 2);
    }

    #[test]
    fn a_missing_batch_is_named() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "test_batch.bin", &[record(&[9], 9)]);
        assert!(cifar10(folder.path()).unwrap_err().to_string().contains("data_batch_"));
    }

    #[test]
    fn labels_out_of_range_are_refused_where_they_are() {
        let good = record(&[3], 0);
        assert_eq!(refused(&[good.clone(), record(&[10], 0)].concat(), &CIFAR_10), 3073);
        assert_eq!(refused(&record(&[20, 5], 0), &CIFAR_100), 0);
        assert_eq!(refused(&record(&[19, 100], 0), &CIFAR_100), 1);
    }

    #[test]
    fn every_truncation_is_refused_where_the_record_starts() {
        let two = [record(&[3], 1), record(&[4], 2)].concat();
        for length in (0..two.len()).filter(|&length| length != 3073) {
            assert_eq!(refused(&two[..length], &CIFAR_10), if length < 3073 { 0 } else { 3073 });
        }
        // A CIFAR-10 file is not a CIFAR-100 one.
        assert_eq!(refused(&two, &CIFAR_100), 3074);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), repeat in 1_usize..200) {
            let bytes = bytes.repeat(repeat);
            let _ = parse(Path::new("p"), &bytes, &CIFAR_10);
            let _ = parse(Path::new("p"), &bytes, &CIFAR_100);
            let whole = bytes.len() / 3073 * 3073;
            let _ = parse(Path::new("p"), &bytes[..whole], &CIFAR_10);
        }
    }
}
