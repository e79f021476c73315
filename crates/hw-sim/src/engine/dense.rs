//! Dense engines: systolic arrays and DianNao's filters × channels tree.

use serde::{Deserialize, Serialize};

use super::{Activity, Flow, Flows, dense_bits, passes, side, width};
use crate::accelerator::Accelerator;
use crate::error::HwError;
use crate::systolic::{Dataflow, OsDrain, SystolicArray};
use crate::task::{OperandKind, Task};

/// A systolic array; partial sums that leave the array are written and read back at 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Systolic {
    /// Rows of processing elements.
    pub rows: u64,
    /// Columns of processing elements.
    pub cols: u64,
    /// What stays and what streams.
    pub dataflow: Dataflow,
    /// When output-stationary results leave.
    #[serde(default)]
    pub drain: OsDrain,
    /// Bits of a multiplier; wider operands take several passes.
    pub multiplier_bits: u8,
}

const PARTIAL_SUM_BITS: u8 = 32;

impl Systolic {
    pub(super) fn validate(&self) -> Result<(), HwError> {
        self.array().validate()?;
        width("systolic", "multiplier_bits", self.multiplier_bits)
    }

    fn array(&self) -> SystolicArray {
        SystolicArray { rows: self.rows, cols: self.cols, dataflow: self.dataflow, drain: self.drain }
    }

    pub(super) fn activity(&self, accelerator: &Accelerator, task: &Task) -> Result<Activity, HwError> {
        let shape = &task.shape;
        let cost = self.array().cost(&task.name, shape.gemm())?;
        let [first_inputs, first_weights] = self.array().first_words().map(u128::from);
        let groups = u128::from(shape.groups);
        let times = groups * passes(task, self.multiplier_bits);
        let total = |count: u64| u128::from(count) * groups;
        let mut flows = Flows::new(accelerator);
        flows.array(OperandKind::Input, total(cost.input_reads), 0, task.input.bits);
        flows.array(OperandKind::Weight, total(cost.weight_reads), 0, task.weight.bits);
        // The product's sums stand for more words where an input gradient spreads over the pixels between windows.
        let words = |sums: u64| u128::from(shape.outputs().of(sums.saturating_mul(shape.groups)));
        let spilled = words(cost.partial_sum_reads);
        let finished = words(cost.output_writes - cost.partial_sum_reads);
        flows.array(OperandKind::Output, spilled, spilled, PARTIAL_SUM_BITS);
        flows.array(OperandKind::Output, 0, finished, task.output_bits);
        Ok(Activity {
            compute_cycles: u128::from(cost.cycles) * times,
            peak_macs: self.rows as f64 * self.cols as f64 / passes(task, self.multiplier_bits) as f64,
            mac_pj: shape.macs() as f64 * accelerator.mac_pj(task.input.bits, task.weight.bits),
            flows: flows.memory(task, dense_bits(task)),
            first_load_bits: first_inputs * u128::from(task.input.bits) + first_weights * u128::from(task.weight.bits),
            last_store_bits: u128::from(self.cols) * u128::from(task.output_bits),
            ..Activity::default()
        })
    }
}

/// `filters × channels` multipliers with adder trees; one pixel and kernel tap a cycle
/// (DianNao, Chen et al., ASPLOS 2014). Sums stay in registers until they are finished.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DianNao {
    /// Filters at once.
    pub filters: u64,
    /// Input channels at once.
    pub channels: u64,
    /// Bits of a multiplier; wider operands take several passes.
    pub multiplier_bits: u8,
}

impl DianNao {
    pub(super) fn validate(&self) -> Result<(), HwError> {
        side("diannao", &[("filters", self.filters), ("channels", self.channels)])?;
        width("diannao", "multiplier_bits", self.multiplier_bits)
    }

    pub(super) fn activity(&self, accelerator: &Accelerator, task: &Task) -> Activity {
        let shape = &task.shape;
        let filter_groups = u128::from(shape.k.div_ceil(self.filters));
        let taps = u128::from(shape.groups) * u128::from(shape.pixels()) * u128::from(shape.r * shape.s);
        let cycles = taps * filter_groups * u128::from(shape.c.div_ceil(self.channels));
        let mut flows = Flows::new(accelerator);
        flows.array(OperandKind::Input, taps * u128::from(shape.c) * filter_groups, 0, task.input.bits);
        flows.array(OperandKind::Weight, u128::from(shape.macs()), 0, task.weight.bits);
        flows.array(OperandKind::Output, 0, u128::from(shape.words[2]), task.output_bits);
        let lanes = u128::from(self.filters) * u128::from(self.channels);
        Activity {
            compute_cycles: cycles * passes(task, self.multiplier_bits),
            peak_macs: lanes as f64 / passes(task, self.multiplier_bits) as f64,
            mac_pj: shape.macs() as f64 * accelerator.mac_pj(task.input.bits, task.weight.bits),
            flows: flows.memory(task, dense_bits(task)),
            first_load_bits: lanes * u128::from(task.weight.bits)
                + u128::from(self.channels) * u128::from(task.input.bits),
            last_store_bits: u128::from(self.filters) * u128::from(task.output_bits),
            ..Activity::default()
        }
    }
}

/// Words that pass a level in both directions without being counted twice; used by engines with their own memory model.
pub(super) fn through(level: usize, operand: OperandKind, words: u128, bits: u8) -> Flow {
    Flow::words(level, operand, words, words, bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use core_tensor::workload::{Layer, Operator, Pass};

    #[test]
    fn every_output_that_leaves_a_buffer_was_written_into_it() {
        let accelerator = Accelerator::preset("tpu-like").unwrap();
        let mut layer = Layer::new("c", Operator::conv2d(16, 32, 3, 2, 1, [32; 2]));
        (layer.weight.bits, layer.activation.bits, layer.gradient.bits) = (8, 8, 8);
        for pass in Pass::TRAINING {
            let task = Task::new(&layer, 2, pass).unwrap();
            let cost = crate::engine::price(&accelerator, &task).unwrap();
            let buffered = cost.traffic.iter().filter(|it| it.level > 0 && it.operand == OperandKind::Output);
            let [reads, writes] = buffered.fold([0, 0], |[reads, writes], it| [reads + it.reads, writes + it.writes]);
            assert_eq!((reads, writes >= task.shape.words[2]), (writes, true), "{pass:?}");
        }
    }

    #[test]
    fn the_first_tile_is_of_the_operand_that_stays() {
        let mut accelerator = Accelerator::preset("tpu-like").unwrap();
        let mut layer = Layer::new("fc1", Operator::linear(784, 300));
        (layer.weight.bits, layer.activation.bits) = (4, 8);
        let task = Task::new(&layer, 1, Pass::Forward).unwrap();
        // 256 rows and 128 columns, inputs of 8 bits and weights of 4.
        for (dataflow, bits) in [
            (Dataflow::OutputStationary, 256 * 8 + 128 * 4),
            (Dataflow::WeightStationary, 256 * 8 + 256 * 128 * 4),
            (Dataflow::InputStationary, 256 * 128 * 8 + 256 * 4),
        ] {
            let engine = Systolic { rows: 256, cols: 128, dataflow, drain: OsDrain::default(), multiplier_bits: 8 };
            assert_eq!(engine.activity(&accelerator, &task).unwrap().first_load_bits, bits, "{dataflow:?}");
        }
        // At 8 bits, output stationary: ⌈300/256⌉ = 2 folds of 784 + 256 + 256 − 2 = 1294 cycles. Of the 1 890 272 bits,
        // 256·8 + 256·8 = 4096 come first, in 11 cycles of 388 bits, and 2048 go last, in 6; between them 4856 cycles.
        layer.weight.bits = 8;
        if let Engine::Systolic(engine) = &mut accelerator.engine {
            engine.dataflow = Dataflow::OutputStationary;
        }
        let cost = crate::engine::price(&accelerator, &Task::new(&layer, 1, Pass::Forward).unwrap()).unwrap();
        assert_eq!((cost.compute_cycles, cost.stall_cycles), (2588, 4856 - 2588 + 11 + 6));
    }
}
