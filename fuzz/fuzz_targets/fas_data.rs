//! Sets of faces with their targets (`header ff data`). What is read can be written, cut and batched.
#![no_main]

use fuzz::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;
use vision::fas::model::FasData;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("set.safetensors", safetensors(bytes));
    if let Ok(data) = FasData::load(&path) {
        data.save(&path).expect("a set that was read");
        assert_eq!(FasData::load(&path).expect("what was written").len(), data.len());
        if data.len() > 0 {
            let _ = data.subset(&[0]).batch(&[0]);
        }
    }
});
