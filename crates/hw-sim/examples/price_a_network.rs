//! Your own network on three accelerators, and what halving its bits saves.

use core_tensor::workload::{Layer, Operator, Workload};
use hw_sim::{Accelerator, HwError, networks::with_bits};

fn main() -> Result<(), HwError> {
    let net = Workload::new(
        "tiny",
        vec![
            Layer::new("conv1", Operator::conv2d(3, 32, 3, 1, 1, [32, 32])),
            Layer::new("conv2", Operator::conv2d(32, 64, 3, 2, 1, [32, 32])),
            Layer::new("fc", Operator::linear(64 * 256, 10)),
        ],
    );
    println!("{:<16} {:>5} {:>10} {:>12}", "accelerator", "bits", "ms", "µJ");
    for name in ["tpu-like", "stripes-like", "bitfusion-like"] {
        let accelerator = Accelerator::preset(name)?;
        for bits in [8, 4] {
            let cost = accelerator.cost(&with_bits(net.clone(), [bits; 3]))?;
            println!("{name:<16} {bits:>5} {:>10.4} {:>12.3}", cost.latency_ms(), cost.energy_pj() * 1e-6);
        }
    }
    Ok(())
}
