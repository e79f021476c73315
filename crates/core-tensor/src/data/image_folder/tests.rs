//! Folders made by hand, pixels that survive, and files that are refused by name.

use image::{ImageFormat, Rgb, RgbImage};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::data::{Augmentation, BatchSource, Loader, LoaderConfig};

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// `width × height`, red = 10 · column, green = 10 · row, blue = `blue`.
fn ramp(width: u32, height: u32, blue: u8) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([10 * x as u8, 10 * y as u8, blue]))
}

fn folder(files: &[(&str, Vec<u8>)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    root
}

fn png(width: u32, height: u32, blue: u8) -> Vec<u8> {
    encoded(&ramp(width, height, blue), ImageFormat::Png)
}

#[test]
fn classes_and_images_come_sorted_and_planar() {
    let root = folder(&[
        ("b/2.png", png(3, 2, 7)),
        ("b/1.PNG", png(3, 2, 6)),
        ("a/x.png", png(3, 2, 5)),
        ("a/.hidden.png", vec![1]),
        ("a/notes.txt", vec![1]),
        ("readme.txt", vec![1]),
    ]);
    let set = ImageFolder::open(root.path(), Framing::Same, "tiny").unwrap().load().unwrap();
    assert_eq!(set.classes(), ["a", "b"]);
    assert_eq!(set.targets(), [0, 1, 1]);
    assert_eq!(set.shape(), ImageShape::new(3, 2, 3));
    assert_eq!(set.image(1).unwrap().pixels[..], [0, 10, 20, 0, 10, 20, 0, 0, 0, 10, 10, 10, 6, 6, 6, 6, 6, 6]);
    assert_eq!(set.origin(), "tiny");
}

#[test]
fn the_content_tells_the_format_and_grey_becomes_colour() {
    let grey = image::GrayImage::from_pixel(8, 8, image::Luma([90]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    grey.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    // A JPEG that is called PNG.
    let root = folder(&[("a/1.png", bytes.into_inner())]);
    let set = ImageFolder::open(root.path(), Framing::Same, "grey").unwrap().load().unwrap();
    // A constant block survives JPEG to within its rounding.
    assert!(set.pixels().iter().all(|&pixel| pixel.abs_diff(90) <= 1), "{:?}", set.pixels());
    assert_eq!(set.pixels().len(), 3 * 64);
}

#[test]
fn train_and_test_must_have_the_same_classes() {
    let root =
        folder(&[("train/a/1.png", png(2, 2, 0)), ("train/b/1.png", png(2, 2, 0)), ("val/a/1.png", png(2, 2, 0))]);
    let error = image_folders(root.path(), Framing::Same, "tiny").unwrap_err().to_string();
    assert!(error.contains("missing: [b]") && error.contains("val"), "{error}");
    std::fs::create_dir(root.path().join("val/b")).unwrap();
    std::fs::write(root.path().join("val/b/1.png"), png(2, 2, 0)).unwrap();
    let Splits { train, test } = image_folders(root.path(), Framing::Same, "tiny").unwrap();
    assert_eq!((train.len(), test.len()), (2, 2));
}

#[test]
fn a_header_cannot_ask_for_memory_for_the_whole_set() {
    // The header of a PNG of 2³¹ − 1 rows, whose pixels are not there.
    let mut tall = png(2, 2, 0);
    tall[20..24].copy_from_slice(&(i32::MAX as u32).to_be_bytes());
    let mut check = flate2::Crc::new();
    check.update(&tall[12..29]);
    tall[29..33].copy_from_slice(&check.sum().to_be_bytes());
    let root = folder(&[("a/1.png", tall.clone()), ("a/2.png", tall)]);
    let loaded = ImageFolder::open(root.path(), Framing::Same, "tall").and_then(|set| set.load());
    match loaded.unwrap_err() {
        Error::Malformed { path, .. } => assert!(path.ends_with("a/1.png"), "{path:?}"),
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_missing_or_empty_is_named() {
    let root = tempfile::tempdir().unwrap();
    let open = |path: &Path| ImageFolder::open(path, Framing::Same, "tiny").map(|_| ()).unwrap_err();
    assert!(matches!(open(&root.path().join("nowhere")), Error::Io { action: "list", .. }));
    assert!(open(root.path()).to_string().contains("a folder for each class"));
    std::fs::create_dir(root.path().join("empty")).unwrap();
    let error = open(root.path()).to_string();
    assert!(error.contains("empty") && error.contains("found none"), "{error}");
}

#[test]
fn an_image_of_another_size_is_refused_by_name_unless_framed() {
    let root = folder(&[("a/1.png", png(4, 4, 0)), ("a/2.png", png(6, 4, 0))]);
    let error = ImageFolder::open(root.path(), Framing::Same, "tiny").unwrap().load().unwrap_err().to_string();
    assert!(error.contains("2.png") && error.contains("found 4 × 6"), "{error}");
    let framed = Framing::Centre { shorter: 4, size: [2, 2] };
    let set = ImageFolder::open(root.path(), framed, "tiny").unwrap().load().unwrap();
    // 4 × 6 keeps its size and loses its border: columns 2 and 3, rows 1 and 2.
    assert_eq!(set.image(1).unwrap().pixels[..8], [20, 30, 20, 30, 10, 10, 20, 20]);
    let native = ImageFolder::open(root.path(), Framing::Native, "tiny").unwrap();
    assert!(native.load().is_err());
    assert_eq!(native.image(1).unwrap().shape, ImageShape::new(3, 4, 6));
}

#[test]
fn a_frame_larger_than_the_resized_image_is_refused() {
    let root = folder(&[("a/1.png", png(4, 4, 0))]);
    for size in [[5, 4], [4, 5], [0, 1]] {
        let framing = Framing::Centre { shorter: 4, size };
        assert!(matches!(ImageFolder::open(root.path(), framing, "tiny"), Err(Error::Setting { .. })), "{size:?}");
    }
}

#[test]
fn sizes_and_corners_are_torchvisions() {
    // torchvision.transforms.Resize(256) of 375 × 500 gives 256 × 341; CenterCrop rounds 0.5 to 0, 1.5 to 2, 2.5 to 2.
    assert_eq!(shorter_side([375, 500], 256), [256, 341]);
    assert_eq!(shorter_side([500, 375], 256), [341, 256]);
    let spare = |spare: usize| centre_offset([10 + spare, 10], [10, 10])[0];
    assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(spare), [0, 0, 1, 2, 2, 2, 3, 4]);
}

#[test]
fn every_truncation_of_an_image_is_an_error_or_an_image_and_never_a_panic() {
    let decode = |bytes: &[u8]| {
        let root = folder(&[("a/1.jpg", bytes.to_vec())]);
        ImageFolder::open(root.path(), Framing::Same, "cut").and_then(|folder| folder.load())
    };
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let whole = encoded(&ramp(9, 8, 40), format);
        let original = decode(&whole).unwrap();
        let pixels = original.pixels();
        for length in 0..whole.len() {
            match decode(&whole[..length]) {
                Err(error) => assert!(error.to_string().contains("1.jpg"), "{error}"),
                // A JPEG decoder fills in what is missing; a PNG may lack what follows its pixels, not the pixels.
                Ok(set) if format == ImageFormat::Png => assert_eq!(set.pixels(), pixels, "cut at {length}"),
                Ok(set) => assert_eq!(set.pixels().len(), pixels.len()),
            }
        }
    }
}

#[test]
fn a_broken_file_reaches_the_reader_of_a_loader() {
    let root = folder(&[("a/1.png", png(4, 4, 0)), ("a/2.png", png(4, 4, 0)[..40].to_vec())]);
    let images = ImageFolder::open(root.path(), Framing::Same, "tiny").unwrap();
    let loader = Loader::new(images, &Augmentation::default(), LoaderConfig::evaluation(1), 0).unwrap();
    let batches: Vec<_> = loader.epoch(0).unwrap().collect();
    assert!(batches[0].is_ok());
    assert!(batches[1].as_ref().unwrap_err().to_string().contains("2.png"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), magic in 0_usize..3) {
        let magic: &[u8] = [&b""[..], &[0xff, 0xd8, 0xff, 0xe0], b"\x89PNG\r\n\x1a\n"][magic];
        let root = folder(&[("a/1.png", [magic, &bytes].concat())]);
        let loaded = ImageFolder::open(root.path(), Framing::Same, "noise").and_then(|folder| folder.load());
        prop_assert!(loaded.is_err());
    }
}
