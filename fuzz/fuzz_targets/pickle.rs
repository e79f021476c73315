//! The pickle of a PyTorch checkpoint. Every tensor that it names lies within its storage.
#![no_main]

use core_tensor::checkpoint::{PickleFile, PickleLimits};
use fuzz::{Folder, checkpoint};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("model.pt", checkpoint(bytes));
    let limits = PickleLimits { pickle_bytes: 1 << 16, expanded_bytes: 1 << 16, depth: 16 };
    if let Ok(mut file) = PickleFile::open_within(&path, &limits) {
        for tensor in file.state().into_iter().flat_map(|state| state.into_values()) {
            let _ = tensor.contiguous().numel();
        }
        let _ = format!("{:?}", file.root());
    }
});
