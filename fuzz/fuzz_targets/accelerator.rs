//! Accelerators in TOML. What is read prices a small network or says why it cannot.
#![no_main]

use core_tensor::workload::{Layer, Operator, Pass, Workload};
use hw_sim::Accelerator;
use hw_sim::engine::Engine;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(accelerator) = Accelerator::from_toml("a.toml", &String::from_utf8_lossy(bytes)) {
        // As many mappings are tried as the file asks for, which is no fault.
        if matches!(&accelerator.engine, Engine::LoopNest(engine) if engine.candidates > 1000) {
            return;
        }
        let conv = Operator::conv2d(2, 4, 3, 1, 1, [4, 4]);
        let layers = vec![Layer::new("a", conv), Layer::new("b", Operator::linear(64, 4))];
        if let Ok(cost) = accelerator.cost_of(&Workload::new("n", layers), &Pass::TRAINING) {
            assert!(cost.energy_pj().is_finite() && cost.energy_pj() >= 0.0);
        }
    }
});
