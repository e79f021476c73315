//! Cars-196's table. The first 98 classes train, the others test.
#![no_main]

use fuzz::Folder;
use libfuzzer_sys::fuzz_target;
use vision::grouping::data::cars196;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    folder.put("cars_annos.csv", bytes);
    for name in ["a.jpg", "b.jpg", "c/d.jpg"] {
        folder.put(name, "");
    }
    if let Ok(split) = cars196(&folder.root()) {
        let numbers = |classes: &[String]| classes.iter().map(|name| name.parse().unwrap()).collect::<Vec<u32>>();
        assert!(numbers(split.train.classes()).into_iter().all(|class| class <= 98));
        assert!(numbers(split.test.classes()).into_iter().all(|class| class > 98));
    }
});
