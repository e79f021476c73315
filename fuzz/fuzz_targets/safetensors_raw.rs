//! The bytes of a safetensors file as they come, length prefix and all, through the reader that tells formats apart.
#![no_main]

use core_tensor::checkpoint::read_state;
use fuzz::Folder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let _ = read_state(&folder.put("model.bin", bytes));
});
