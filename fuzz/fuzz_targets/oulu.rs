//! OULU-NPU's protocol lists and places of eyes (`list ff eyes`). A face has an area.
#![no_main]

use fuzz::{Folder, parts};
use libfuzzer_sys::fuzz_target;
use vision::fas::data::{Fold, Split, oulu_npu};

fuzz_target!(|bytes: &[u8]| {
    let [list, eyes] = parts(bytes);
    let folder = Folder::new();
    folder.put("Protocols/Protocol_1/Train.txt", list);
    for name in ["1_1_01_1", "1_1_01_2", "2_1_02_5"] {
        folder.put(&format!("Train_files/{name}/0.png"), "");
    }
    if !eyes.is_empty() {
        folder.put("Train_files/1_1_01_1.txt", eyes);
    }
    if let Ok(found) = oulu_npu(&folder.root(), Fold { protocol: 1, fold: None }, Split::Train) {
        assert!(found.iter().all(|one| one.bona_fide == one.species.is_none() && !one.frames.is_empty()));
        assert!(found.iter().flat_map(|one| &one.faces).all(|face| face.width > 0.0 && face.height > 0.0));
    }
});
