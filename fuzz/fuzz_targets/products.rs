//! Stanford Online Products' lists.
#![no_main]

use fuzz::Folder;
use libfuzzer_sys::fuzz_target;
use vision::grouping::data::stanford_online_products;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    folder.put("Ebay_train.txt", bytes);
    folder.put("Ebay_test.txt", "image_id class_id super_class_id path\n1 1 1 a.jpg\n");
    for name in ["a.jpg", "b.jpg", "c/d.jpg"] {
        folder.put(name, "");
    }
    if let Ok(split) = stanford_online_products(&folder.root()) {
        assert_eq!(split.train.files().len(), split.train.labels().len());
    }
});
