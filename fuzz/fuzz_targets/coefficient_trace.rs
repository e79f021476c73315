//! The coefficients along a search for structured tickets (`header ff data`).
#![no_main]

use fuzz::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;
use lth::structured::CoefficientTrace;

fuzz_target!(|bytes: &[u8]| {
    let folder = Folder::new();
    let path = folder.put("trace.safetensors", safetensors(bytes));
    if let Ok(trace) = CoefficientTrace::load(&path) {
        trace.save(&path).expect("a trace that was read");
        let again = CoefficientTrace::load(&path).expect("what was written");
        assert!(again.steps.keys().eq(trace.steps.keys()));
    }
});
