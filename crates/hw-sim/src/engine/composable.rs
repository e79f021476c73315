//! The bit-composable array as an engine: [`crate::bitfusion`]'s search with the accelerator's own memory levels.

use serde::{Deserialize, Serialize};

use super::{Activity, Flow};
use crate::accelerator::{Accelerator, MemoryLevel};
use crate::bitfusion::{BitFusion, BitFusionEnergy, Fusion, FusionLayer};
use crate::error::HwError;
use crate::task::{OperandKind, Task};

/// The array. Memory levels must be DRAM with a bandwidth and one double buffer for each operand.
///
/// The tile search and its reuse rule are BitFusion's, quirks included: a larger buffer keeps more before the first
/// MAC, which can cost a few cycles of latency; among equally fast tilings, DRAM is taken to write at what it reads for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitComposable {
    /// Fusion units along the reduction.
    pub rows: u64,
    /// Fusion units along output channels.
    pub cols: u64,
    /// Widest operand of a unit.
    pub max_bits: u8,
    /// Narrowest operand that still gains throughput.
    pub min_bits: u8,
    /// How narrow operands share a unit.
    #[serde(default)]
    pub fusion: Fusion,
    /// Bits of partial sums and outputs.
    pub output_bits: u8,
    /// Store outputs at the width of the pass that takes them instead, sums staying in the array: the reference always
    /// moves `output_bits`.
    #[serde(default)]
    pub outputs_at_own_width: bool,
    /// Energy of the whole array, a cycle, in pJ.
    pub core_pj_per_cycle: f64,
}

impl BitComposable {
    pub(super) fn array(&self, accelerator: &Accelerator, output_bits: u8) -> Result<BitFusion, HwError> {
        let fail = |field: &str, expected: &str, found: String| {
            Err(HwError::field(format!("accelerator `{}`", accelerator.name), field, expected, found))
        };
        let Some(bandwidth_bits) = accelerator.memory[0].bandwidth_bits else {
            return fail("memory", "a bandwidth for DRAM", "none".into());
        };
        let mut buffers = [0; 3];
        for operand in OperandKind::ALL {
            let holding: Vec<_> =
                (1..accelerator.memory.len()).filter(|&i| accelerator.memory[i].holds(operand)).collect();
            let [level] = holding[..] else {
                return fail("memory", &format!("one buffer for {}", operand.name()), format!("{}", holding.len()));
            };
            let MemoryLevel { name, double_buffered, .. } = &accelerator.memory[level];
            if !double_buffered {
                let field = format!("memory `{name}` double_buffered");
                return fail(&field, "true: the search overlaps transfers with computing", "false".into());
            }
            buffers[operand as usize] = level;
        }
        let level = |operand: OperandKind| &accelerator.memory[buffers[operand as usize]];
        let bytes = |operand: OperandKind| {
            let level = level(operand);
            // The search halves a buffer for double buffering itself.
            level.capacity_bytes.map_or(1 << 40, |bytes| (bytes / level.holds.len() as u64).max(1))
        };
        let nj = |pj: f64, bits: u32| pj / f64::from(bits) / 1000.0;
        let read = |operand: OperandKind| nj(level(operand).read_pj, level(operand).access_bits);
        let write = |operand: OperandKind| nj(level(operand).write_pj, level(operand).access_bits);
        let dram = &accelerator.memory[0];
        let array = BitFusion {
            rows: self.rows,
            cols: self.cols,
            max_bits: self.max_bits,
            min_bits: self.min_bits,
            fusion: self.fusion,
            buffer_bytes: [bytes(OperandKind::Weight), bytes(OperandKind::Input), bytes(OperandKind::Output)],
            bandwidth_bits,
            output_bits,
            energy: BitFusionEnergy {
                core_per_cycle: self.core_pj_per_cycle / 1000.0,
                weight_read: read(OperandKind::Weight),
                weight_write: write(OperandKind::Weight),
                input_read: read(OperandKind::Input),
                input_write: write(OperandKind::Input),
                output_read: read(OperandKind::Output),
                output_write: write(OperandKind::Output),
                dram: nj(dram.read_pj, dram.access_bits),
            },
        };
        array.validate()?;
        Ok(array)
    }

    pub(super) fn activity(&self, accelerator: &Accelerator, task: &Task) -> Result<Activity, HwError> {
        let output_bits = if self.outputs_at_own_width { task.output_bits } else { self.output_bits };
        let array = self.array(accelerator, output_bits)?;
        let shape = &task.shape;
        let layer = FusionLayer {
            kernel: [shape.r, shape.s],
            output: [shape.y, shape.x],
            stride: shape.stride[0].max(shape.stride[1]),
            in_channels: shape.c,
            out_channels: shape.k,
            batch: shape.n,
            input_bits: task.input.bits,
            weight_bits: task.weight.bits,
            // Unrolled windows fill the array where the channels alone do not, as in a first layer.
            im2col: shape.c < self.rows && shape.r * shape.s > 1,
        };
        let found = array.search_with(&task.name, &layer, shape.outputs())?;
        let groups = u128::from(shape.groups);
        let total = |count: u64| u128::from(count) * groups;
        let level = |operand: OperandKind| {
            (1..accelerator.memory.len()).find(|&index| accelerator.memory[index].holds(operand)).unwrap_or(0)
        };
        let flow = |level: usize, operand: OperandKind, read: u64, write: u64, bits: u8| {
            let (read_bits, write_bits) = (total(read), total(write));
            let words = |count: u128| count.div_ceil(u128::from(bits));
            Flow { level, operand, reads: words(read_bits), writes: words(write_bits), read_bits, write_bits }
        };
        let buffers = [
            (OperandKind::Input, found.input_buffer, task.input.bits),
            (OperandKind::Weight, found.weight_buffer, task.weight.bits),
            (OperandKind::Output, found.output_buffer, output_bits),
        ];
        let mut flows: Vec<Flow> = buffers
            .iter()
            .map(|&(operand, bits, width)| flow(level(operand), operand, bits.read, bits.write, width))
            .collect();
        flows.push(flow(0, OperandKind::Input, found.input_buffer.write, 0, task.input.bits));
        flows.push(flow(0, OperandKind::Weight, found.weight_buffer.write, 0, task.weight.bits));
        let (back, out) = (found.dram_write_bits, found.dram_write_bits);
        flows.push(flow(0, OperandKind::Output, back, out, output_bits));
        let compute = total(found.total_cycles - found.stall_cycles);
        let fused = array.fused(task.input.bits, task.weight.bits)?;
        Ok(Activity {
            compute_cycles: compute,
            peak_macs: (self.rows * self.cols * fused) as f64,
            mac_pj: compute as f64 * self.core_pj_per_cycle,
            flows,
            stall_cycles: Some(total(found.stall_cycles)),
            ..Activity::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_cannot_be_filled_while_it_is_used_is_refused() {
        let text = Accelerator::preset_text("bitfusion-like").unwrap();
        for (level, capacity) in [("weight", 65536), ("input", 32768), ("output", 16384)] {
            let capacity = format!("capacity_bytes = {capacity}");
            assert!(text.contains(&capacity));
            let single = text.replace(&capacity, &format!("{capacity}\ndouble_buffered = false"));
            let refused = Accelerator::from_toml("a.toml", &single).unwrap_err().to_string();
            let expected = format!(
                "accelerator `bitfusion-like`: memory `{level} buffer` double_buffered is false, expected true: \
                 the search overlaps transfers with computing"
            );
            assert_eq!(refused, expected);
        }
        // DRAM never fills, so that there is nothing to double.
        let dram = text.replace("bandwidth_bits = 192", "bandwidth_bits = 192\ndouble_buffered = false");
        assert!(Accelerator::from_toml("a.toml", &dram).is_ok());
    }
}
