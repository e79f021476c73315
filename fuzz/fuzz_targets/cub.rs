//! CUB-200-2011's two lists (`images ff classes`).
#![no_main]

use fuzz::{Folder, parts};
use libfuzzer_sys::fuzz_target;
use vision::grouping::data::cub200;

fuzz_target!(|bytes: &[u8]| {
    let [images, classes] = parts(bytes);
    let folder = Folder::new();
    folder.put("images.txt", images);
    folder.put("image_class_labels.txt", classes);
    for name in ["a.jpg", "b.jpg", "c/d.jpg"] {
        folder.put(&format!("images/{name}"), "");
    }
    if let Ok(split) = cub200(&folder.root()) {
        assert!(split.train.classes().len() <= 100 && split.test.classes().len() <= 100);
    }
});
