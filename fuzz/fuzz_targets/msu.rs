//! MSU-MFSD's list of subjects.
#![no_main]

use fuzz::Folder;
use libfuzzer_sys::fuzz_target;
use vision::fas::data::{Split, msu_mfsd};

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    folder.put("train_sub_list.txt", bytes);
    for name in ["real/real_client001_a", "attack/attack_client001_a_SD_ipad_video", "real/real_client002_a"] {
        folder.put(&format!("scene01/{name}/0.png"), "");
    }
    if let Ok(found) = msu_mfsd(&folder.root(), Split::Train) {
        assert!(found.iter().all(|one| ["001", "002"].contains(&one.subject.as_str())));
    }
});
