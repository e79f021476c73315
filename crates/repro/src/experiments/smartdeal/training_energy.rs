//! What a training step takes on the accelerator model: dense in full precision, dense in 8 bits, in SmartDeal form.
//!
//! All run on the same chip, forward, input gradient and weight gradient. In SmartDeal form the first two fetch
//! coefficients and bases and skip zero rows; the weight gradient is priced dense. Then the optimizer: full-precision
//! weights and momentum in DRAM, read and written once a step, or what the form keeps instead.

use super::{energy, first_weights};
use crate::Metrics;
use core_tensor::networks::{Architecture, BlockKind, ResNetConfig, Shortcut, Stem};
use core_tensor::workload::{FULL_PRECISION_BITS, Pass, Workload};
use hw_sim::engine::Engine;
use hw_sim::task::Task;
use hw_sim::{Accelerator, NetworkCost};
use quant::smartdeal::train::BucketSwitch;
use quant::smartdeal::{
    CompressPolicy, SdzModel, VectorPruning, compress, compressed_workload, smallest_scheme, storage,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    theta: f64,
    /// Share of kernel rows pruned first.
    pruned_rows: f64,
    /// Images a step. Published: 128.
    batch: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self { theta: 4e-3, pruned_rows: 0.5, batch: 128 }
    }
}

/// Networks by the start of their metrics' names, and as tables name them.
pub(super) const NETWORKS: [(&str, &str); 2] = [("resnet20", "ResNet-20"), ("resnet18", "ResNet-18")];
/// Forms of training, the same.
pub(super) const FORMS: [(&str, &str); 5] = [
    ("dense32", "dense, full precision"),
    ("switched32", "SmartDeal, activations and gradients in full precision"),
    ("dense8", "dense, 8 bits"),
    ("switched", "SmartDeal, coefficients switched"),
    ("bases", "SmartDeal, coefficients fixed"),
];
/// What a step's energy is made of, the same.
pub(super) const PARTS: [(&str, &str); 4] =
    [("compute", "arithmetic"), ("sram", "on-chip memory"), ("dram", "DRAM"), ("state", "DRAM, optimizer")];

const BITS: u8 = 8;
const FULL: u64 = FULL_PRECISION_BITS as u64;
/// Bits of an optimizer's step for a parameter in full precision: its gradient read, value and momentum read and written.
const UPDATE: u64 = 5 * FULL;

/// The energy of a step, in pJ, in the order of [`PARTS`].
type Step = [f64; PARTS.len()];

pub(super) fn measure(params: &Params, seed: u64) -> anyhow::Result<Metrics> {
    let mut metrics = Metrics::new();
    for (network, _) in NETWORKS {
        let architecture = architecture(network)?;
        let store = first_weights(&architecture, seed)?;
        let policy = CompressPolicy {
            vector_pruning: Some(VectorPruning::Share(params.pruned_rows)),
            ..CompressPolicy::with_theta(params.theta)
        };
        let (model, _) = compress(&store, &policy)?;
        let mut workload = architecture.workload(network, &[3, 32, 32])?;
        workload.batch = params.batch;
        let steps = [
            dense(&workload, FULL_PRECISION_BITS)?,
            compressed(&workload, &model, FULL_PRECISION_BITS, Some(BucketSwitch::default()))?,
            dense(&workload, BITS)?,
            compressed(&workload, &model, BITS, Some(BucketSwitch::default()))?,
            compressed(&workload, &model, BITS, None)?,
        ];
        for ((form, _), step) in FORMS.iter().zip(steps) {
            // Microjoules an image.
            let an_image = 1e-6 / params.batch as f64;
            metrics.insert(format!("{network}_{form}"), step.iter().sum::<f64>() * an_image);
            for ((part, _), energy) in PARTS.iter().zip(step) {
                metrics.insert(format!("{network}_{form}_{part}"), energy * an_image);
            }
        }
    }
    Ok(metrics)
}

pub(super) fn architecture(network: &str) -> anyhow::Result<Architecture> {
    if network == "resnet20" {
        return Ok(Architecture::cifar_resnet(20, 10)?);
    }
    // As for ImageNet, with the stem for small images.
    Ok(Architecture::ResNet(ResNetConfig {
        in_channels: 3,
        stem: Stem::Cifar,
        block: BlockKind::Basic,
        widths: vec![64, 128, 256, 512],
        blocks: vec![2; 4],
        shortcut: Shortcut::Projection,
        classes: 10,
    }))
}

/// The chip, with weights dense in memory or in SmartDeal form.
fn chip(dense: bool) -> anyhow::Result<Accelerator> {
    let mut chip = Accelerator::preset("smartdeal")?;
    if let Engine::SmartDeal(engine) = &mut chip.engine {
        engine.dense_weights = dense;
    }
    Ok(chip)
}

fn at_bits(workload: &Workload, bits: u8) -> Workload {
    let mut changed = workload.clone();
    for layer in &mut changed.layers {
        (layer.weight.bits, layer.activation.bits, layer.gradient.bits) = (bits, bits, bits);
    }
    changed
}

fn dense(workload: &Workload, bits: u8) -> anyhow::Result<Step> {
    let (chip, workload) = (chip(true)?, at_bits(workload, bits));
    let step = parts(&chip.cost_tasks(&workload.name, &tasks(&workload, &Pass::TRAINING)?)?);
    Ok(with_state(step, &chip, workload.weights()? * (UPDATE + copy(bits))))
}

/// In SmartDeal form, rebuilt weights of 8 bits, with activations and gradients of so many; coefficients move by counters,
/// or not at all.
fn compressed(workload: &Workload, model: &SdzModel, bits: u8, switch: Option<BucketSwitch>) -> anyhow::Result<Step> {
    let (rebuilding, dense) = (chip(false)?, chip(true)?);
    let mut workload = at_bits(workload, bits);
    workload.layers.iter_mut().for_each(|layer| layer.weight.bits = BITS);
    let sparse = compressed_workload(&workload, model, BITS)?;
    let fetching = tasks(&sparse, &[Pass::Forward, Pass::InputGradient])?;
    let fetched = parts(&energy::cost(&rebuilding, &workload.name, fetching, model)?);
    let gradients = parts(&dense.cost_tasks(&workload.name, &tasks(&workload, &[Pass::WeightGradient])?)?);
    let mut state = 0;
    for layer in &workload.layers {
        let weights = layer.op.weights().unwrap_or(0);
        let Some(compressed) = model.layer(&format!("{}.weight", layer.name)) else {
            state += weights * (UPDATE + copy(BITS));
            continue;
        };
        // The weight's gradient is read to make those of basis and coefficients.
        state += weights * FULL;
        let bases = (compressed.layout().blocks() * compressed.layout().basis_len()) as u64;
        state += bases * (UPDATE - FULL + copy(BITS));
        if let Some(switch) = switch {
            // Zeros are outside the mask and keep neither momentum nor counter.
            let moved = compressed.stats().non_zeros as u64;
            state += moved * 2 * (FULL + counter_bits(switch.bar));
            let code = storage(compressed, smallest_scheme(compressed)?)?.coefficient_bits as f64;
            state += (switch.max_update_fraction * code).ceil() as u64;
        }
    }
    let both = std::array::from_fn(|part| fetched[part] + gradients[part]);
    Ok(with_state(both, &dense, state))
}

/// Bits of a counter of −bar … bar.
fn counter_bits(bar: u32) -> u64 {
    u64::from((2 * bar + 1).next_power_of_two().ilog2())
}

/// Bits of the rounded copy that a step writes beside the full-precision value.
fn copy(bits: u8) -> u64 {
    if bits == FULL_PRECISION_BITS { 0 } else { u64::from(bits) }
}

/// The passes of every layer, without the input gradient of the first, which nobody computes.
fn tasks(workload: &Workload, passes: &[Pass]) -> anyhow::Result<Vec<Task>> {
    let mut tasks = Task::of_workload(workload, passes)?;
    if let Some(first) = tasks.iter().position(|task| task.pass == Pass::InputGradient) {
        tasks.remove(first);
    }
    Ok(tasks)
}

/// Arithmetic (rebuilding included), on-chip memories, DRAM, and nothing yet for the optimizer.
fn parts(cost: &NetworkCost) -> Step {
    let mut step = Step::default();
    for layer in &cost.layers {
        step[0] += layer.energy_pj() - layer.memory_pj();
        for traffic in &layer.traffic {
            step[if traffic.level == 0 { 2 } else { 1 }] += traffic.energy_pj;
        }
    }
    step
}

/// With so many bits of an optimizer across DRAM; reads and writes cost the same there.
fn with_state(mut step: Step, chip: &Accelerator, bits: u64) -> Step {
    let dram = &chip.memory[0];
    step[3] = bits as f64 / f64::from(dram.access_bits) * dram.read_pj;
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::workload::{Layer, Operator};

    #[test]
    fn a_counter_takes_the_bits_of_its_values() {
        // Three, five and 41 values.
        assert_eq!([1, 2, 20].map(counter_bits), [2, 3, 6]);
    }

    #[test]
    fn a_dense_step_is_the_simulators_and_the_optimizers() {
        let layers =
            vec![Layer::new("a", Operator::conv2d(3, 8, 3, 1, 1, [8, 8])), Layer::new("b", Operator::linear(512, 10))];
        let workload = Workload { batch: 4, ..Workload::new("two", layers) };
        let step = dense(&workload, BITS).unwrap();
        let simulated = hw_sim::training::step(&chip(true).unwrap(), &at_bits(&workload, BITS)).unwrap();
        let sum: f64 = step[..3].iter().sum();
        assert!((sum / simulated.energy_pj() - 1.0).abs() < 1e-12);
        // 216 and 5,120 weights; 160 bits of the optimizer and 8 of the copy; 100 pJ for 8 bits.
        assert!((step[3] - 5336.0 * 168.0 / 8.0 * 100.0).abs() < 1e-3);
        let full = dense(&workload, FULL_PRECISION_BITS).unwrap();
        assert!((0..3).all(|part| full[part] > step[part]) && full[3] < step[3]);
    }

    #[test]
    fn what_the_form_keeps_is_counted_by_hand() {
        let architecture = Architecture::LeNet300100 { classes: 10 };
        let store = first_weights(&architecture, 0).unwrap();
        let (model, _) = compress(&store, &CompressPolicy::with_theta(0.02)).unwrap();
        let workload = architecture.workload("mlp", &[1, 28, 28]).unwrap();
        let [bases, switched] =
            [None, Some(BucketSwitch::default())].map(|switch| compressed(&workload, &model, BITS, switch).unwrap());
        let (mut entries, mut moved, mut codes) = (0, 0, 0.0);
        for (_, layer) in model.layers() {
            entries += layer.layout().blocks() * 9;
            moved += layer.stats().non_zeros;
            let bits = storage(layer, smallest_scheme(layer).unwrap()).unwrap().coefficient_bits;
            codes += (bits as f64 * 1e-3).ceil();
        }
        // All weights' gradients; a basis entry's value and momentum twice and its copy.
        let expected = 266_200 * 32 + entries * (4 * 32 + 8);
        let bits = |step: Step| step[3] / 100.0 * 8.0;
        assert!((bits(bases) - expected as f64).abs() < 1e-3, "{}", bits(bases));
        // Momentum and two bits of a counter, read and written.
        assert!((bits(switched) - bits(bases) - (moved * 2 * 34) as f64 - codes).abs() < 1e-3);
        assert_eq!(bases[..3], switched[..3]);
    }
}
