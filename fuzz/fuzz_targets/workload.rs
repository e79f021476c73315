//! Workloads in JSON. What is valid has a cost on the analytic accelerators, or an error that says why not.
#![no_main]

use core_tensor::workload::{Pass, Workload};
use hw_sim::Accelerator;
use hw_sim::scalesim::Topology;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(workload) = serde_json::from_slice::<Workload>(bytes) else { return };
    let again = serde_json::to_vec(&workload).expect("a workload that was read");
    assert_eq!(serde_json::from_slice::<Workload>(&again).ok().as_ref(), Some(&workload));
    if workload.validate().is_ok() {
        let _ = (workload.macs(), workload.weights(), workload.effective_macs(Pass::Forward));
        for name in ["tpu-like", "smartdeal", "bitfusion-like", "scnn-like", "stripes-like"] {
            let _ = Accelerator::preset(name).and_then(|accelerator| accelerator.cost_of(&workload, &Pass::TRAINING));
        }
        let _ = Topology::from_workload(&workload);
    }
});
