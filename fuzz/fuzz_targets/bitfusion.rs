//! The description of a bit-composable array and a layer (`array ff layer`), searched for its best tiling.
#![no_main]

use fuzz::parts;
use hw_sim::bitfusion::{BitFusion, FusionLayer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let [array, layer] = parts(bytes);
    let (Ok(array), Ok(layer)) =
        (serde_json::from_slice::<BitFusion>(array), serde_json::from_slice::<FusionLayer>(layer))
    else {
        return;
    };
    if let Ok(mapped) = array.search("l", &layer) {
        assert!(mapped.total_cycles >= mapped.stall_cycles);
    }
});
