//! Descriptions of runs. The same description has the same name, however its keys are ordered.
#![no_main]

use contrast::learn::Branch;
use libfuzzer_sys::fuzz_target;
use repro::{Device, Run, RunId};

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = (text.parse::<Device>(), RunId::try_from(text.to_string()), text.parse::<Branch>());
    if let Ok(run) = serde_json::from_slice::<Run>(bytes) {
        let again: Run = serde_json::from_str(&run.canonical()).expect("what was written");
        assert_eq!((again.id(), &again), (run.id(), &run));
    }
});
