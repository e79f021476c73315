//! MSU-MFSD's list of subjects and places of faces (`list ff faces`). A face has an area.
#![no_main]

use fuzz::{Folder, parts};
use libfuzzer_sys::fuzz_target;
use vision::fas::data::{Split, msu_mfsd};

fuzz_target!(|bytes: &[u8]| {
    let [list, faces] = parts(bytes);
    let folder = Folder::new();
    folder.put("train_sub_list.txt", list);
    if !faces.is_empty() {
        folder.put("scene01/real/real_client001_a.face", faces);
    }
    for name in ["real/real_client001_a", "attack/attack_client001_a_SD_ipad_video", "real/real_client002_a"] {
        folder.put(&format!("scene01/{name}/0.png"), "");
    }
    if let Ok(found) = msu_mfsd(&folder.root(), Split::Train) {
        assert!(found.iter().all(|one| ["001", "002"].contains(&one.subject.as_str())));
        assert!(found.iter().flat_map(|one| &one.faces).all(|face| face.width > 0.0 && face.height > 0.0));
    }
});
