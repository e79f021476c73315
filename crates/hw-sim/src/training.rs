//! Training as an integral over time: each phase is a workload, with its own bits and densities, for some steps.
//!
//! A step is the forward, input-gradient and weight-gradient pass of every layer; activations and gradients cross DRAM
//! at their own widths. A precision schedule (FracTrain, Fu et al., arXiv 2012.13113) is a list of phases that differ in
//! bits, a ticket drawn early (You et al., arXiv 1909.11957) one that differs in densities.

use core_tensor::workload::{Pass, Workload};
use serde::{Deserialize, Deserializer, Serialize};

use crate::accelerator::Accelerator;
use crate::cost::NetworkCost;
use crate::error::HwError;
use crate::networks::with_bits;
use crate::task::Task;

/// A stretch of training during which nothing changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Bits and densities of every layer, and the batch.
    pub workload: Workload,
    /// Steps, 0 to 1e18, not necessarily whole: a share of a schedule will do.
    pub steps: f64,
}

/// Bits for a share of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Precision {
    /// `[weight, activation, gradient]` bits.
    pub bits: [u8; 3],
    /// Steps, or share of steps, or share of samples and blocks.
    pub share: f64,
}

/// What a schedule costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingCost {
    /// Cycles.
    pub cycles: f64,
    /// Seconds at the accelerator's clock.
    pub seconds: f64,
    /// Joules.
    pub joules: f64,
    /// Bits across DRAM.
    pub dram_bits: f64,
    /// MACs weighted by both operands' `bits/32`: what FracTrain's tables call MACs.
    pub effective_macs: f64,
}

/// What a method saves against a baseline, each in `[−∞, 1]`: 0 where both cost the same, also nothing, and `−∞` where
/// the baseline alone costs nothing. JSON, whose numbers are finite, has `null` for `−∞`, and is read back so.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saving {
    /// Of effective MACs.
    #[serde(deserialize_with = "share_or_null")]
    pub effective_macs: f64,
    /// Of energy.
    #[serde(deserialize_with = "share_or_null")]
    pub energy: f64,
    /// Of latency.
    #[serde(deserialize_with = "share_or_null")]
    pub latency: f64,
}

fn share_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NEG_INFINITY))
}

/// Most steps of a phase: costs of so many are still finite.
const MAX_STEPS: f64 = 1e18;

/// One training step of a workload: three passes of every layer but the first, whose input needs no gradient.
///
/// # Errors
/// A layer that the accelerator cannot run.
pub fn step(accelerator: &Accelerator, workload: &Workload) -> Result<NetworkCost, HwError> {
    let mut tasks = Task::of_workload(workload, &Pass::TRAINING)?;
    if let Some(position) = tasks.iter().position(|task| task.pass == Pass::InputGradient) {
        tasks.remove(position);
    }
    accelerator.cost_tasks(&workload.name, &tasks)
}

/// The sum over phases.
///
/// # Errors
/// No phase, one without layers, steps outside 0 to 1e18, or a layer that the accelerator cannot run.
pub fn schedule(accelerator: &Accelerator, phases: &[Phase]) -> Result<TrainingCost, HwError> {
    if phases.is_empty() {
        return Err(HwError::field("schedule", "phases", "at least 1", 0));
    }
    let mut total = TrainingCost::default();
    for (index, phase) in phases.iter().enumerate() {
        if !(0.0..=MAX_STEPS).contains(&phase.steps) {
            return Err(HwError::field(format!("phase {index}"), "steps", "0 to 1e18", phase.steps));
        }
        if phase.workload.layers.is_empty() {
            return Err(HwError::field(format!("phase {index}"), "layers", "at least 1", 0));
        }
        let cost = step(accelerator, &phase.workload)?;
        total.cycles += phase.steps * cost.cycles() as f64;
        total.seconds += phase.steps * cost.latency_ms() * 1e-3;
        total.joules += phase.steps * cost.energy_pj() * 1e-12;
        total.dram_bits += phase.steps * cost.level_bits(0) as f64;
        for pass in Pass::TRAINING {
            total.effective_macs += phase.steps * phase.workload.effective_macs(pass)?;
        }
    }
    Ok(total)
}

/// A precision schedule of one network: [`schedule`] with the network's bits replaced in each phase.
///
/// # Errors
/// No precision, a network without layers, bits outside what the accelerator takes, or shares outside 0 to 1e18.
pub fn precision_schedule(
    accelerator: &Accelerator,
    network: &Workload,
    precisions: &[Precision],
) -> Result<TrainingCost, HwError> {
    let phases: Vec<_> = precisions
        .iter()
        .map(|precision| Phase { workload: with_bits(network.clone(), precision.bits), steps: precision.share })
        .collect();
    schedule(accelerator, &phases)
}

impl TrainingCost {
    /// What this saves against a baseline.
    pub fn saving(&self, baseline: &Self) -> Saving {
        let saved = |ours: f64, theirs: f64| if ours == theirs { 0.0 } else { 1.0 - ours / theirs };
        Saving {
            effective_macs: saved(self.effective_macs, baseline.effective_macs),
            energy: saved(self.joules, baseline.joules),
            latency: saved(self.seconds, baseline.seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::builtin;

    const STATIC: [Precision; 1] = [Precision { bits: [8, 8, 8], share: 1.0 }];

    #[test]
    fn a_step_has_three_passes_of_every_layer_but_the_first() {
        let cost = step(&Accelerator::preset("stripes-like").unwrap(), &builtin("mlp").unwrap()).unwrap();
        let passes = |name: &str| -> Vec<Pass> {
            cost.layers.iter().filter(|layer| layer.name == name).map(|layer| layer.pass).collect()
        };
        assert_eq!(passes("fc1"), [Pass::Forward, Pass::WeightGradient]);
        assert_eq!([passes("fc2"), passes("fc3")], [Pass::TRAINING; 2]);
    }

    #[test]
    fn a_schedule_is_the_sum_of_its_phases() {
        let accelerator = Accelerator::preset("bitfusion-training").unwrap();
        let net = builtin("resnet20-cifar").unwrap();
        let phases = [Precision { bits: [4, 4, 6], share: 0.25 }, Precision { bits: [8, 8, 8], share: 0.75 }];
        let whole = precision_schedule(&accelerator, &net, &phases).unwrap();
        let parts = phases.map(|phase| precision_schedule(&accelerator, &net, &[phase]).unwrap());
        assert!((whole.joules - parts[0].joules - parts[1].joules).abs() <= 1e-12 * whole.joules);
        assert!((whole.cycles - parts[0].cycles - parts[1].cycles).abs() <= 1e-12 * whole.cycles);
    }

    #[test]
    fn pfq_saves_the_hand_computed_share_of_effective_macs() {
        // 60, 40, 30, 30 epochs at 3/6, 4/6, 6/8, 8/8 bits: 3.047689 % of full precision against 6.25 %.
        let accelerator = Accelerator::preset("stripes-like").unwrap();
        let net = builtin("resnet20-cifar").unwrap();
        let stages = [([3, 3, 6], 60.0), ([4, 4, 6], 40.0), ([6, 6, 8], 30.0), ([8, 8, 8], 30.0)];
        let pfq = stages.map(|(bits, epochs)| Precision { bits, share: epochs / 160.0 });
        let cost = precision_schedule(&accelerator, &net, &pfq).unwrap();
        let saving = cost.saving(&precision_schedule(&accelerator, &net, &STATIC).unwrap());
        assert!((1.0 - saving.effective_macs - 0.48763).abs() < 5e-6, "{saving:?}");
        let full = 3.0 * net.macs().unwrap() as f64;
        assert!((100.0 * cost.effective_macs / full - 3.047_689).abs() < 5e-7);
    }

    #[test]
    fn a_fusing_array_saves_less_energy_than_macs() {
        let accelerator = Accelerator::preset("bitfusion-training").unwrap();
        let net = builtin("resnet20-cifar").unwrap();
        let baseline = precision_schedule(&accelerator, &net, &STATIC).unwrap();
        let low = [Precision { bits: [3, 3, 6], share: 1.0 }];
        let saving = precision_schedule(&accelerator, &net, &low).unwrap().saving(&baseline);
        assert!(0.0 < saving.energy && saving.energy < saving.effective_macs, "{saving:?}");
    }

    /// Why energy falls less than bit operations: what `docs/papers/hw-sim.md` says of it.
    #[test]
    fn most_energy_of_a_fusing_array_is_drams_and_few_channels_leave_its_lanes_idle() {
        let accelerator = Accelerator::preset("bitfusion-training").unwrap();
        for name in ["resnet38-cifar", "resnet74-cifar"] {
            let mut net = builtin(name).unwrap();
            net.batch = 128;
            let at = |bits| step(&accelerator, &with_bits(net.clone(), bits)).unwrap();
            let costs = [[3, 3, 6], [4, 4, 6], [6, 6, 8], [8, 8, 8]].map(at);
            for cost in &costs {
                let dram = cost.components().into_iter().filter(|part| part.name.starts_with("dram"));
                let share = dram.map(|part| part.energy_pj).sum::<f64>() / cost.energy_pj();
                assert!(share > 0.5, "{name}: {share}");
            }
            // 16 channels take a quarter of 16 · 4 lanes at 8 bits, so that 16 · 25 at 3 bits are no faster.
            let cycles = |cost: &NetworkCost| {
                let mut layers = cost.layers.iter();
                layers.find(|layer| layer.name == "layer1.0.conv1").map(|layer| layer.compute_cycles)
            };
            assert_eq!(cycles(&costs[0]), cycles(&costs[3]));
        }
    }

    #[test]
    fn a_baseline_that_costs_nothing_leaves_nothing_to_save() {
        let all = |saving: Saving| [saving.effective_macs, saving.energy, saving.latency];
        let nothing = TrainingCost::default();
        let some = TrainingCost { effective_macs: 2.0, joules: 3.0, seconds: 4.0, ..nothing };
        assert_eq!(all(nothing.saving(&nothing)), [0.0; 3]);
        assert_eq!(all(some.saving(&some)), [0.0; 3]);
        assert_eq!(all(nothing.saving(&some)), [1.0; 3]);
        assert_eq!(all(some.saving(&nothing)), [f64::NEG_INFINITY; 3]);
        for saving in [some.saving(&nothing), nothing.saving(&some)] {
            let json = serde_json::to_string(&saving).unwrap();
            assert_eq!(serde_json::from_str::<Saving>(&json).unwrap(), saving, "{json}");
        }
    }

    #[test]
    fn a_schedule_of_nothing_is_refused() {
        let accelerator = Accelerator::preset("tpu-like").unwrap();
        let refused = |phases: &[Phase]| schedule(&accelerator, phases).unwrap_err().to_string();
        assert_eq!(refused(&[]), "schedule: phases is 0, expected at least 1");
        let empty = Phase { workload: Workload::new("empty", Vec::new()), steps: 1.0 };
        assert_eq!(refused(&[empty]), "phase 0: layers is 0, expected at least 1");
    }

    #[test]
    fn steps_below_0_or_without_a_finite_cost_are_refused() {
        let accelerator = Accelerator::preset("tpu-like").unwrap();
        for (steps, found) in [(-1.0, "-1"), (1e19, "10000000000000000000"), (f64::INFINITY, "inf"), (f64::NAN, "NaN")]
        {
            let phase = Phase { workload: builtin("mlp").unwrap(), steps };
            let message = schedule(&accelerator, &[phase]).unwrap_err().to_string();
            assert_eq!(message, format!("phase 0: steps is {found}, expected 0 to 1e18"));
        }
    }
}
