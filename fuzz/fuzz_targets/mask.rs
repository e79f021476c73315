//! Masks in files (`header ff data`). What is read is written and read again.
#![no_main]

use fuzz::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;
use lth::MaskSet;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("mask.safetensors", safetensors(bytes));
    if let Ok((mask, record)) = MaskSet::load(&path) {
        mask.save(&path, &record).expect("a mask that was read");
        assert_eq!(MaskSet::load(&path).expect("what was written"), (mask, record));
    }
});
