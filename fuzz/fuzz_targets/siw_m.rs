//! SiW-M's lists of videos.
#![no_main]

use fuzz::Folder;
use libfuzzer_sys::fuzz_target;
use vision::fas::data::siw_m;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let list = folder.put("list.txt", bytes);
    for name in ["Live/Live_1", "Spoof/Print/Print_2", "Spoof/Mask/Mask_3"] {
        folder.put(&format!("{name}/0.png"), "");
    }
    if let Ok(found) = siw_m(&folder.root(), &[&list]) {
        assert!(found.iter().all(|one| one.bona_fide == one.species.is_none() && !one.frames.is_empty()));
    }
});
