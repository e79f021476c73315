//! Places of faces of SiW and of Replay-Attack (`plain ff numbered`). A face has an area, and every frame has one or none has.
#![no_main]

use fuzz::{Folder, parts};
use libfuzzer_sys::fuzz_target;
use vision::fas::data::{Fold, Presentation, Split, replay_attack, siw};

fn check(found: &[Presentation]) {
    for one in found {
        assert!(one.faces.is_empty() || one.faces.len() == one.frames.len());
        assert!(one.faces.iter().all(|face| face.width > 0.0 && face.height > 0.0));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let [plain, numbered] = parts(bytes);
    let folder = Folder::new();
    for video in ["Train/live/001/001-1-1-1-1", "Train/spoof/001/001-1-3-2-1"] {
        (0..3).for_each(|frame| drop(folder.put(&format!("{video}/{frame}.png"), "")));
        folder.put(&format!("{video}.face"), plain);
    }
    let videos =
        ["real/client001_a", "attack/fixed/attack_highdef_client001_a", "attack/hand/attack_mobile_client001_a"];
    for video in videos {
        (0..3).for_each(|frame| drop(folder.put(&format!("train/{video}/{frame}.png"), "")));
        folder.put(&format!("face-locations/train/{video}.face"), numbered);
    }
    if let Ok(found) = siw(&folder.root(), Fold { protocol: 1, fold: None }, Split::Train) {
        check(&found);
    }
    if let Ok(found) = replay_attack(&folder.root(), Split::Train) {
        check(&found);
    }
});
