//! What a compressed ResNet-20 saves on the accelerator model.

use super::{first_weights, training_storage};
use crate::section::{Table, cell};
use crate::{Metrics, Results};
use core_tensor::networks::Architecture;
use core_tensor::workload::Pass;
use hw_sim::engine::Engine;
use hw_sim::published::{SMARTEXCHANGE, SMARTEXCHANGE_SOURCE};
use hw_sim::task::Task;
use hw_sim::{Accelerator, NetworkCost};
use quant::smartdeal::{CompressPolicy, SdzModel, VectorPruning, compress, compressed_workload, hardware_stats};
use serde::{Deserialize, Serialize};

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
/// The accelerators that SmartExchange was compared with, by preset and as tables name them.
const RIVALS: [(&str, &str); 4] = [
    ("diannao-like", "DianNao"),
    ("scnn-like", "SCNN"),
    ("cambricon-x-like", "Cambricon-X"),
    ("bit-pragmatic-like", "Bit-pragmatic"),
];

pub(super) fn measure(params: &Params, seed: u64) -> anyhow::Result<Metrics> {
    let architecture = Architecture::cifar_resnet(20, 10)?;
    let store = first_weights(&architecture, seed)?;
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
    let sparse = compressed_workload(&workload, &model, BITS)?;
    let tasks = Task::of_workload(&sparse, &[Pass::Forward])?;
    let compressed = cost(&Accelerator::preset("smartdeal")?, &sparse.name, tasks, &model)?;
    let mut metrics = Metrics::from([("row_sparsity".into(), 100.0 * report.vector_sparsity())]);
    let mut beside = |prefix: &str, rival: &NetworkCost| {
        metrics.insert(format!("{prefix}energy_ratio"), rival.energy_pj() / compressed.energy_pj());
        metrics.insert(format!("{prefix}speedup"), rival.latency_ms() / compressed.latency_ms());
        let dram = rival.level_bits(0) as f64 / compressed.level_bits(0) as f64;
        metrics.insert(format!("{prefix}dram_ratio"), dram);
    };
    beside("", &dense);
    for (rival, _) in RIVALS {
        beside(&format!("{rival}_"), &Accelerator::preset(rival)?.cost(&sparse)?);
    }
    metrics.extend(training_storage::measure(seed)?);
    Ok(metrics)
}

/// The cost of tasks whose densities are a compressed network's, with the bits that each layer's file section takes and the
/// layer's own share of non-zeros in kept rows.
pub(super) fn cost(
    accelerator: &Accelerator,
    name: &str,
    tasks: Vec<Task>,
    model: &SdzModel,
) -> anyhow::Result<NetworkCost> {
    let stats = hardware_stats(model)?;
    let mut cost = accelerator.cost_tasks(name, &[])?;
    for mut task in tasks {
        let mut chip = accelerator.clone();
        if let Some(stats) = stats.iter().find(|stats| stats.name == task.name) {
            task.stored_weight_bits = Some(stats.stored_bits);
            if let Engine::SmartDeal(engine) = &mut chip.engine {
                engine.row_fill = stats.row_fill;
            }
        }
        cost.layers.extend(chip.cost_tasks(name, &[task])?.layers);
    }
    Ok(cost)
}

/// SmartDeal's chip beside its rivals, all modelled.
pub(super) fn table(results: &Results) -> anyhow::Result<Table> {
    let of = |metric: &str| results.samples(metric, |run| run.kind == "energy");
    let row = |label: &str, prefix: &str| -> anyhow::Result<Vec<String>> {
        let mut row = vec![label.to_owned()];
        for metric in ["energy_ratio", "speedup", "dram_ratio"] {
            row.push(cell(&of(&format!("{prefix}{metric}"))?.values(), 2));
        }
        Ok(row)
    };
    let rivals = RIVALS.iter().map(|(rival, label)| row(label, &format!("{rival}_")));
    let mut rows = rivals.collect::<anyhow::Result<Vec<_>>>()?;
    rows.push(row("the same chip, dense weights", "")?);
    let [energy, speed] = SMARTEXCHANGE.map(|ratio| format!("{ratio:.1}"));
    rows.push(vec!["published, four accelerators, up to".into(), energy, speed, "–".into()]);
    Ok(Table {
        title: "Inference on the accelerator models".into(),
        caption: format!(
            "Energy, time and DRAM bits of each over those of SmartDeal's chip: ResNet-20 on 32 × 32 at 8 bits, random weights, \
             {} % of coefficient rows zero. Accelerators that skip zero weights get that share of single zeros; activations are \
             dense. Modelled, but for the last row ({SMARTEXCHANGE_SOURCE}; seven networks, three data sets), which is context \
             and not comparable.",
            cell(&of("row_sparsity")?.values(), 1)
        ),
        header: ["", "energy, ×", "time, ×", "DRAM bits, ×"].map(String::from).into(),
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hw_sim::task::OperandKind;

    #[test]
    fn a_layer_is_priced_with_its_own_bits_and_non_zeros() {
        let architecture = Architecture::LeNet300100 { classes: 10 };
        let store = first_weights(&architecture, 0).unwrap();
        let (model, _) = compress(&store, &CompressPolicy::with_theta(0.02)).unwrap();
        let mut workload = architecture.workload("mlp", &[1, 28, 28]).unwrap();
        for layer in &mut workload.layers {
            (layer.weight.bits, layer.activation.bits) = (BITS, BITS);
        }
        let sparse = compressed_workload(&workload, &model, BITS).unwrap();
        let tasks = Task::of_workload(&sparse, &[Pass::Forward]).unwrap();
        let cost = cost(&Accelerator::preset("smartdeal").unwrap(), "mlp", tasks, &model).unwrap();
        assert_eq!(cost.layers.len(), 3);
        for stats in hardware_stats(&model).unwrap() {
            let layer = cost.layers.iter().find(|layer| layer.name == stats.name).unwrap();
            let weights = layer.traffic.iter().find(|it| it.level == 0 && it.operand == OperandKind::Weight).unwrap();
            assert_eq!(weights.read_bits, stats.stored_bits);
            // 0.019 pJ for each non-zero and column; the file may pad a neuron's rows by more than the model does, and kept
            // rows and their non-zeros may each round up by one.
            let compressed = model.layer(&format!("{}.weight", stats.name)).unwrap();
            let shape = compressed.layout().shape;
            let rows = (shape.filters() * shape.filter_len().div_ceil(3)) as f64;
            let expected = 3.0 * compressed.stats().non_zeros as f64 * rows / compressed.stats().rows as f64;
            let adds = layer.rebuild_pj / 0.019;
            assert!((adds - expected).abs() <= 12.0, "{}: {adds}, expected {expected}", stats.name);
        }
    }
}
