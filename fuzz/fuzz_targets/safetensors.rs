//! Safetensors (`header ff data`). What is read is written and read again.
#![no_main]

use core_tensor::checkpoint::{SafetensorsFile, read_safetensors, write_safetensors};
use fuzz::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("a.safetensors", safetensors(bytes));
    if let (Ok(file), Ok(tensors)) = (SafetensorsFile::open(&path), read_safetensors(&path)) {
        let again = folder.root().join("b.safetensors");
        if write_safetensors(&again, &tensors, file.metadata()).is_ok() {
            let read = read_safetensors(&again).expect("what was written");
            assert!(
                read.len() == tensors.len()
                    && read.iter().all(|(name, tensor)| {
                        let before = &tensors[name];
                        (before.kind(), before.size()) == (tensor.kind(), tensor.size())
                    })
            );
        }
    }
});
