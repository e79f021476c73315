//! Saved face detectors (`header ff data`). What is read can judge a picture.
#![no_main]

use fuzz::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;
use vision::fas::Detector;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    if let Ok(detector) = Detector::load(&folder.put("detector.safetensors", safetensors(bytes))) {
        let _ = detector.assess(&image::RgbImage::new(8, 9), None);
    }
});
