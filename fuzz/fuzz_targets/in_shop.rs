//! In-Shop Clothes Retrieval's partition. Items keep their numbers.
#![no_main]

use fuzz::Folder;
use libfuzzer_sys::fuzz_target;
use vision::grouping::data::in_shop;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    folder.put("list_eval_partition.txt", bytes);
    for name in ["a.jpg", "b.jpg", "c/d.jpg"] {
        folder.put(name, "");
    }
    if let Ok(parts) = in_shop(&folder.root()) {
        for (items, list) in [(parts.query_items(), &parts.query), (parts.gallery_items(), &parts.gallery)] {
            assert_eq!(items.len(), list.files().len());
            for (item, &label) in items.iter().zip(list.labels()) {
                let name = &list.classes()[label as usize];
                assert_eq!(name.strip_prefix("id_").and_then(|digits| digits.parse().ok()), Some(*item));
            }
        }
    }
});
