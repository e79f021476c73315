//! No byte string may make a reader panic: `cargo +nightly fuzz run parse` in this crate's folder.
#![no_main]

use hw_sim::Accelerator;
use hw_sim::scalesim::{ScaleSimConfig, Topology, TopologyKind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = ScaleSimConfig::parse("fuzz.cfg", &text);
    let _ = Accelerator::from_toml("fuzz.toml", &text);
    for kind in [TopologyKind::Conv, TopologyKind::Gemm, TopologyKind::detect(&text)] {
        if let Ok(net) = Topology::parse("fuzz.csv", &text, kind) {
            let _ = net.to_workload().validate();
        }
    }
});
