//! Inputs of a pre-training on disk (`header ff data`). Every input that is read fits the vocabulary.
#![no_main]

use core_tensor::text::masked::Shards;
use fuzz::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    folder.put("inputs-00000.safetensors", safetensors(bytes));
    let Ok(shards) = Shards::open(&folder.root()) else { return };
    if let Ok(inputs) = shards.read(0) {
        assert_eq!(inputs.len(), shards.counts()[0]);
        let vocabulary = shards.vocabulary() as u64;
        assert!(inputs.iter().all(|input| input.encoded.ids.iter().all(|&id| u64::from(id) < vocabulary)));
    }
});
