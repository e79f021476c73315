//! Row stationary: a kernel row stays in a processing element, a column of elements adds up the rows of a window, and
//! columns carry output rows (Eyeriss, Chen et al., ISCA 2016; active elements as the nn_dataflow tool counts them).

use serde::{Deserialize, Serialize};

use super::dense::through;
use super::{Activity, Flow, dense_bits, passes, rounded_up, side, unit_energy, width};
use crate::accelerator::Accelerator;
use crate::error::HwError;
use crate::task::{OperandKind, Shape, Task};

/// The array. Memory levels must be DRAM, a global buffer for inputs and outputs (weights pass it by), and a register
/// file for everything.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowStationary {
    /// Rows of elements.
    pub rows: u64,
    /// Columns of elements.
    pub cols: u64,
    /// Filters that an element interleaves in one pass.
    pub filters_per_pass: u64,
    /// Channels that an element interleaves in one pass.
    pub channels_per_pass: u64,
    /// Energy of handing one bit to a neighbouring element, in pJ.
    pub hop_pj_per_bit: f64,
    /// Bits of a multiplier; wider operands take several passes.
    pub multiplier_bits: u8,
}

impl RowStationary {
    /// Checks what is the array's own, whatever the memory.
    fn check(&self) -> Result<(), HwError> {
        let fields = [
            ("rows", self.rows),
            ("cols", self.cols),
            ("filters_per_pass", self.filters_per_pass),
            ("channels_per_pass", self.channels_per_pass),
        ];
        side("row_stationary", &fields)?;
        width("row_stationary", "multiplier_bits", self.multiplier_bits)?;
        unit_energy("row_stationary", "hop_pj_per_bit", self.hop_pj_per_bit)
    }

    pub(super) fn validate(&self, accelerator: &Accelerator) -> Result<(), HwError> {
        self.check()?;
        let thing = || format!("accelerator `{}`", accelerator.name);
        let [_, global, registers] = &accelerator.memory[..] else {
            let expected = "DRAM, a global buffer and a register file";
            let found = format!("{} levels", accelerator.memory.len());
            return Err(HwError::field(thing(), "memory", expected, found));
        };
        let levels = [
            (global, "inputs and outputs: the global buffer", &[OperandKind::Input, OperandKind::Output][..]),
            (registers, "everything: the register file", &OperandKind::ALL[..]),
        ];
        for (level, expected, operands) in levels {
            if OperandKind::ALL.iter().any(|&operand| level.holds(operand) != operands.contains(&operand)) {
                let field = format!("memory `{}` holds", level.name);
                return Err(HwError::field(thing(), field, expected, format!("{:?}", level.holds)));
            }
        }
        Ok(())
    }

    /// Elements that work, averaged over folds.
    ///
    /// `E` output rows take `E/⌈E/W⌉` columns when they do not fit, else as many copies as fit; `R` kernel rows take
    /// `R·r` rows with `r = ⌊H/R⌋` copies over channels, reduced to what divides the channels.
    ///
    /// # Errors
    /// A field of the array outside its range, or a shape that does not validate.
    pub fn active_elements(&self, shape: &Shape) -> Result<f64, HwError> {
        self.check()?;
        shape.validate("shape")?;
        Ok(self.active(shape))
    }

    /// [`active_elements`](Self::active_elements) of an array and a shape that were checked: at least 1.
    fn active(&self, shape: &Shape) -> f64 {
        let (outputs, kernel_rows) = (shape.y as f64, shape.r);
        let columns = if shape.y > self.cols {
            outputs / shape.y.div_ceil(self.cols) as f64
        } else {
            outputs * (self.cols / shape.y) as f64
        };
        let rows = if kernel_rows > self.rows {
            kernel_rows as f64 / kernel_rows.div_ceil(self.rows) as f64
        } else {
            let copies = self.rows / kernel_rows;
            let used = shape.c as f64 / shape.c.div_ceil(copies) as f64;
            kernel_rows as f64 * used.min(copies as f64)
        };
        columns * rows
    }

    pub(super) fn activity(&self, accelerator: &Accelerator, task: &Task) -> Activity {
        const DRAM: usize = 0;
        const GLOBAL: usize = 1;
        const REGISTER: usize = 2;
        let shape = &task.shape;
        let macs = u128::from(shape.macs());
        let [inputs, _, outputs] = shape.words.map(u128::from);
        let repeats = passes(task, self.multiplier_bits);
        let cycles = rounded_up(macs as f64 / self.active(shape));

        // A pass holds some filters and channels; inputs return for the other filters, sums for the other channels.
        let filter_passes = u128::from(shape.k.div_ceil(self.filters_per_pass));
        let copies = (self.rows / shape.r).max(1);
        let channel_passes = u128::from(shape.c.div_ceil(self.channels_per_pass.saturating_mul(copies)));
        let weight_fetches = u128::from(shape.y.div_ceil(self.cols)) * u128::from(shape.n);
        let [input_bits, weight_bits, output_bits] = dense_bits(task);
        let room = u128::from(accelerator.memory[GLOBAL].tile_bits().max(1));
        let resident = input_bits.div_ceil(u128::from(shape.groups)) <= room;
        let input_fetches = if resident { 1 } else { filter_passes };
        let words = |bits: u128, width: u8| bits.div_ceil(u128::from(width));

        let mut flows = Vec::with_capacity(10);
        let mut push = |level, operand, reads: u128, writes: u128, bits| {
            flows.push(Flow::words(level, operand, reads, writes, bits));
        };
        let fetched_inputs = words(input_bits * input_fetches, task.input.bits);
        push(DRAM, OperandKind::Input, fetched_inputs, 0, task.input.bits);
        push(GLOBAL, OperandKind::Input, inputs * filter_passes, fetched_inputs, task.input.bits);
        // Weights pass the global buffer by; every strip of output rows needs them again.
        push(DRAM, OperandKind::Weight, words(weight_bits * weight_fetches, task.weight.bits), 0, task.weight.bits);
        push(DRAM, OperandKind::Output, 0, words(output_bits, task.output_bits), task.output_bits);
        let spills = outputs * (channel_passes - 1);
        push(GLOBAL, OperandKind::Output, spills + outputs, spills + outputs, task.output_bits);
        push(REGISTER, OperandKind::Input, macs, 0, task.input.bits);
        push(REGISTER, OperandKind::Weight, macs, 0, task.weight.bits);
        flows.push(through(REGISTER, OperandKind::Output, macs, task.output_bits));

        // Inputs and weights are sent once into the array; sums climb the rows of a window.
        let climbs = macs / u128::from(shape.s) / u128::from(shape.r) * u128::from(shape.r - 1);
        let hop_bits = (inputs * filter_passes) as f64 * f64::from(task.input.bits)
            + (weight_bits * weight_fetches) as f64
            + climbs as f64 * f64::from(task.output_bits);
        Activity {
            compute_cycles: cycles * repeats,
            peak_macs: self.rows as f64 * self.cols as f64 / repeats as f64,
            mac_pj: macs as f64 * accelerator.mac_pj(task.input.bits, task.weight.bits),
            network_pj: hop_bits * self.hop_pj_per_bit,
            flows,
            first_load_bits: u128::from(shape.r * shape.s) * u128::from(task.weight.bits),
            last_store_bits: u128::from(self.cols) * u128::from(task.output_bits),
            ..Activity::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::price;
    use core_tensor::workload::{Layer, Operator, Pass};

    const CHIP: RowStationary = RowStationary {
        rows: 12,
        cols: 14,
        filters_per_pass: 16,
        channels_per_pass: 4,
        hop_pj_per_bit: 0.125,
        multiplier_bits: 16,
    };

    #[test]
    fn active_elements_and_cycles_of_alexnet_are_those_of_nn_dataflow() {
        // The tool's figures on a 12 × 14 array at batch 4, one group or half of the filters a row.
        let layers = [
            (3, 48, 11, 4, 0, 227, 151.25, 1_393_920.0),
            (48, 128, 5, 1, 2, 27, 135.0, 3_317_760.0),
            (256, 192, 3, 1, 1, 13, 156.0, 1_916_928.0),
            (192, 192, 3, 1, 1, 13, 156.0, 1_437_696.0),
            (192, 128, 3, 1, 1, 13, 156.0, 958_464.0),
        ];
        for (c, k, kernel, stride, padding, input, active, cycles) in layers {
            let layer = Layer::new("c", Operator::conv2d(c, k, kernel, stride, padding, [input; 2]));
            let shape = Task::new(&layer, 4, Pass::Forward).unwrap().shape;
            assert_eq!(CHIP.active_elements(&shape), Ok(active));
            assert_eq!(shape.macs() as f64 / active, cycles);
        }
    }

    /// 16 → 8 channels, 3 × 3, 13 × 13 outputs, at 8 bits.
    fn task() -> Task {
        let mut layer = Layer::new("c", Operator::conv2d(16, 8, 3, 1, 1, [13; 2]));
        (layer.weight.bits, layer.activation.bits) = (8, 8);
        Task::new(&layer, 1, Pass::Forward).unwrap()
    }

    #[test]
    fn arrays_and_shapes_made_by_hand_are_refused_by_field() {
        let good = task().shape;
        let refused = |array: RowStationary, shape: Shape| array.active_elements(&shape).unwrap_err().to_string();
        for (array, message) in [
            (RowStationary { rows: 0, ..CHIP }, "engine row_stationary: rows is 0, expected 1 to 65536"),
            (RowStationary { cols: 0, ..CHIP }, "engine row_stationary: cols is 0, expected 1 to 65536"),
            (
                RowStationary { hop_pj_per_bit: f64::NAN, ..CHIP },
                "engine row_stationary: hop_pj_per_bit is NaN, expected 0 to 1e12 pJ",
            ),
        ] {
            assert_eq!(refused(array, good), message);
        }
        for (shape, message) in [
            (Shape { y: 0, ..good }, "layer `shape`: y is 0, expected at least 1"),
            (Shape { r: 0, ..good }, "layer `shape`: r is 0, expected at least 1"),
            (Shape { c: 0, ..good }, "layer `shape`: c is 0, expected at least 1"),
            (Shape { k: u64::MAX, ..good }, "layer `shape`: its MACs do not fit in 64 bits"),
        ] {
            assert_eq!(refused(CHIP, shape), message);
        }
    }

    #[test]
    fn levels_that_hold_other_operands_than_the_array_uses_are_refused() {
        let text = Accelerator::preset_text("eyeriss-like").unwrap();
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from));
            Accelerator::from_toml("a.toml", &text.replace(from, to)).unwrap_err().to_string()
        };
        let held = r#"holds = ["input", "output"]"#;
        let global = "accelerator `eyeriss-like`: memory `glb` holds is";
        let buffer = "expected inputs and outputs: the global buffer";
        assert_eq!(refused(held, r#"holds = ["weight"]"#), format!("{global} [Weight], {buffer}"));
        assert_eq!(refused(held, r#"holds = ["input"]"#), format!("{global} [Input], {buffer}"));
        assert_eq!(refused(held, ""), format!("{global} [Input, Weight, Output], {buffer}"));
        let registers = refused("capacity_bytes = 512", "capacity_bytes = 512\nholds = [\"weight\", \"input\"]");
        assert!(registers.ends_with("memory `rf` holds is [Weight, Input], expected everything: the register file"));
        // The order is free.
        let turned = text.replace(held, r#"holds = ["output", "input"]"#);
        assert!(Accelerator::from_toml("a.toml", &turned).is_ok());
    }

    #[test]
    fn a_single_element_does_a_mac_a_cycle() {
        let mut accelerator = Accelerator::preset("eyeriss-like").unwrap();
        accelerator.engine.resize([1, 1]);
        accelerator.memory[0].bandwidth_bits = None;
        let cost = price(&accelerator, &task()).unwrap();
        assert_eq!((cost.compute_cycles, cost.stall_cycles, cost.utilisation), (cost.macs, 0, 1.0));
    }
}
