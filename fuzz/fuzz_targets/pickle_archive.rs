//! The zip around a PyTorch checkpoint.
#![no_main]

use core_tensor::checkpoint::{PickleFile, PickleLimits};
use fuzz::Folder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("model.pt", bytes);
    let limits = PickleLimits { pickle_bytes: 1 << 16, expanded_bytes: 1 << 20, depth: 16 };
    if let Ok(mut file) = PickleFile::open_within(&path, &limits) {
        let _ = file.state();
    }
});
