//! SCALE-Sim's topology files. What is read costs what it costs when it is written and read again.
#![no_main]

use hw_sim::Accelerator;
use hw_sim::scalesim::{Topology, TopologyKind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    for kind in [TopologyKind::detect(&text), TopologyKind::Conv, TopologyKind::Gemm] {
        let Ok(topology) = Topology::parse("t.csv", &text, kind) else { continue };
        let again = Topology::parse("t.csv", &topology.to_csv(), TopologyKind::Conv).expect("what was written");
        assert!(
            again.layers.iter().map(|layer| layer.operands()).eq(topology.layers.iter().map(|layer| layer.operands()))
        );
        let _ = Accelerator::preset("tpu-like").and_then(|accelerator| accelerator.cost(&topology.to_workload()));
    }
});
