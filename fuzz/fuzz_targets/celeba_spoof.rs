//! CelebA-Spoof's labels and face boxes (`labels ff box`). A box overlaps its picture.
#![no_main]

use fuzz::{Folder, parts};
use libfuzzer_sys::fuzz_target;
use vision::fas::data::celeba_spoof;

fuzz_target!(|bytes: &[u8]| {
    const BITMAP: &[u8] = include_bytes!("../seeds/image_folder/white.png");
    let [labels, face] = parts(bytes);
    let folder = Folder::new();
    let labels = folder.put("labels.json", labels);
    for name in ["live", "spoof"] {
        folder.put(&format!("1/{name}/a.png"), BITMAP);
        folder.put(&format!("1/{name}/a_BB.txt"), face);
    }
    for one in celeba_spoof(&folder.root(), &labels).unwrap_or_default() {
        let [face] = one.faces[..] else { panic!("a box a picture") };
        let inside = face.clipped((4, 3));
        assert!(inside.width > 0.0 && inside.height > 0.0, "{face:?}");
    }
});
