//! JPEG and PNG files, decoded, resized and cut. Whatever their shape, so many pixels come out.
#![no_main]

use core_tensor::data::{Framing, ImageFolder, Samples};
use fuzz::Folder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    folder.put("class/image.png", bytes);
    let framing = Framing::Centre { shorter: 12, size: [8, 10] };
    if let Ok(set) = ImageFolder::open(&folder.root(), framing, "fuzz").and_then(|images| images.load()) {
        assert_eq!(set.pixels().len(), 3 * 8 * 10);
    }
    if let Ok(set) = ImageFolder::open(&folder.root(), Framing::Same, "fuzz").and_then(|images| images.load()) {
        assert_eq!(set.pixels().len(), 3 * set.shape().height * set.shape().width);
    }
    if let Ok(image) = ImageFolder::open(&folder.root(), Framing::Native, "fuzz").and_then(|images| {
        images.image(0).map(|image| image.pixels.len() == 3 * image.shape.height * image.shape.width)
    }) {
        assert!(image);
    }
});
