//! What a compressed ResNet-20 saves on the accelerator model.

use crate::Metrics;
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::workload::{Pass, Workload};
use hw_sim::engine::Engine;
use hw_sim::task::Task;
use hw_sim::{Accelerator, NetworkCost};
use quant::smartdeal::{CompressPolicy, SdzModel, VectorPruning, compress, compressed_workload, hardware_stats};
use serde::{Deserialize, Serialize};
use tch::Device;
use tch::nn::VarStore;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) theta: f64,
    /// Share of kernel rows pruned first; the published lists for ResNet-18 average 0.4 to 0.5.
    pub(super) pruned_rows: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { theta: 4e-3, pruned_rows: 0.5 }
    }
}

const BITS: u8 = 8;

pub(super) fn measure(params: &Params, seed: u64) -> anyhow::Result<Metrics> {
    seed_libtorch(seed, Purpose::Initialisation, 0);
    let architecture = Architecture::cifar_resnet(20, 10)?;
    let store = VarStore::new(Device::Cpu);
    architecture.build(&store.root(), &Standard)?;
    let policy = CompressPolicy {
        vector_pruning: Some(VectorPruning::Share(params.pruned_rows)),
        ..CompressPolicy::with_theta(params.theta)
    };
    let (model, report) = compress(&store, &policy)?;
    let mut workload = architecture.workload("ResNet-20", &[3, 32, 32])?;
    for layer in &mut workload.layers {
        (layer.weight.bits, layer.activation.bits) = (BITS, BITS);
    }
    let mut ablation = Accelerator::preset("smartdeal")?;
    if let Engine::SmartDeal(engine) = &mut ablation.engine {
        engine.dense_weights = true;
    }
    let dense = ablation.cost(&workload)?;
    let compressed = cost(&Accelerator::preset("smartdeal")?, &workload, &model)?;
    Ok(Metrics::from([
        ("energy_ratio".into(), dense.energy_pj() / compressed.energy_pj()),
        ("speedup".into(), dense.latency_ms() / compressed.latency_ms()),
        ("dram_ratio".into(), dense.level_bits(0) as f64 / compressed.level_bits(0) as f64),
        ("row_sparsity".into(), 100.0 * report.vector_sparsity()),
    ]))
}

/// The cost with each layer's own row density and the bits that its file section takes.
fn cost(accelerator: &Accelerator, dense: &Workload, model: &SdzModel) -> anyhow::Result<NetworkCost> {
    let workload = compressed_workload(dense, model, BITS)?;
    let stats = hardware_stats(model)?;
    let mut tasks = Task::of_workload(&workload, &[Pass::Forward])?;
    for (task, layer) in tasks.iter_mut().zip(&workload.layers) {
        let stored = stats.iter().find(|stats| stats.name == layer.name);
        task.stored_weight_bits = stored.map(|stats| stats.stored_bits);
    }
    Ok(accelerator.cost_tasks(&workload.name, &tasks)?)
}
