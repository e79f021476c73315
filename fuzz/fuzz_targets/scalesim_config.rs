//! SCALE-Sim's configuration files. What is read describes an accelerator that is valid.
#![no_main]

use hw_sim::scalesim::{ScaleSimConfig, Topology, TopologyKind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = ScaleSimConfig::parse("a.cfg", &String::from_utf8_lossy(bytes)) {
        let accelerator = config.to_accelerator().expect("a configuration that was read");
        let again = ScaleSimConfig::from_accelerator(&accelerator).expect("what it was made from");
        assert_eq!((again.array, again.buffer_kb), (config.array, config.buffer_kb));
        let topology = Topology::parse("t", "h\nc, 4, 4, 3, 3, 2, 2, 1,\n", TopologyKind::Conv).expect("a layer");
        let _ = accelerator.cost(&topology.to_workload());
    }
});
