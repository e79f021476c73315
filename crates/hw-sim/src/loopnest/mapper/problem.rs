//! What a mapping has to do: one layer on one machine.

use super::LoopNestEngine;
use super::mapping::MAX_LEVELS;
use crate::accelerator::{Accelerator, MemoryLevel};
use crate::engine::passes;
use crate::error::HwError;
use crate::task::{OperandKind, OutputRatio, Shape, Task};

/// Everything about the machine and the layer that does not change from mapping to mapping.
pub(super) struct Problem<'a> {
    pub(super) engine: &'a LoopNestEngine,
    pub(super) levels: &'a [MemoryLevel],
    pub(super) shape: Shape,
    pub(super) sizes: [u64; 7],
    pub(super) outputs: OutputRatio,
    pub(super) bits: [u64; 3],
    pub(super) output_bits: u64,
    pub(super) repeats: u64,
    pub(super) holds: [[bool; 3]; MAX_LEVELS],
    /// pJ a bit read and written.
    pub(super) energy: [[f64; 2]; MAX_LEVELS],
    /// pJ of all MACs, which every mapping pays.
    pub(super) mac_pj: f64,
    pub(super) static_pj_per_cycle: f64,
    pub(super) room: [u64; MAX_LEVELS],
}

impl<'a> Problem<'a> {
    pub(super) fn new(engine: &'a LoopNestEngine, accelerator: &'a Accelerator, task: &Task) -> Result<Self, HwError> {
        let shape = task.shape;
        let levels = &accelerator.memory;
        let mut problem = Self {
            engine,
            levels,
            shape,
            sizes: [shape.n, shape.k, shape.c, shape.y, shape.x, shape.r, shape.s],
            outputs: shape.outputs(),
            bits: [u64::from(task.input.bits), u64::from(task.weight.bits), u64::from(engine.partial_sum_bits)],
            output_bits: u64::from(task.output_bits),
            repeats: u64::try_from(passes(task, engine.multiplier_bits)).unwrap_or(u64::MAX),
            holds: [[false; 3]; MAX_LEVELS],
            energy: [[0.0; 2]; MAX_LEVELS],
            mac_pj: shape.macs() as f64 * accelerator.mac_pj(task.input.bits, task.weight.bits),
            static_pj_per_cycle: accelerator.static_pj_per_cycle,
            room: [u64::MAX; MAX_LEVELS],
        };
        for (index, level) in levels.iter().enumerate() {
            problem.holds[index] = OperandKind::ALL.map(|operand| level.holds(operand));
            let per_bit = f64::from(level.access_bits);
            problem.energy[index] = [level.read_pj / per_bit, level.write_pj / per_bit];
            let halves = if level.double_buffered { 2 } else { 1 };
            problem.room[index] = level.capacity_bytes.map_or(u64::MAX, |bytes| bytes * 8 / halves);
        }
        // Padding to the array at most doubles a loop; halos are within stride and dilation of it.
        let padded: u128 = problem.sizes.iter().map(|&size| u128::from(size) * 2).product();
        let reach = [0, 1].map(|axis| u128::from(shape.stride[axis].max(shape.dilation[axis])));
        let words = u128::from(problem.outputs.of(1));
        let product = |factors: [u128; 3]| factors.into_iter().fold(padded.saturating_mul(words), u128::saturating_mul);
        let accesses = product([reach[0], reach[1], u128::from(problem.repeats)]);
        // Cycles and bits of all groups: a word has 32 bits at most, and a level sees each a few times.
        let total = product([u128::from(shape.groups), u128::from(problem.repeats.max(32)), 1]);
        if accesses.max(total) > 1 << 62 {
            return Err(HwError::Overflow { layer: task.name.clone(), quantity: "accesses" });
        }
        Ok(problem)
    }

    /// Where a task of which no mapping fits is short of room: by how much the one with all its loops at DRAM exceeds a level.
    pub(super) fn no_fit(&self, name: &str) -> HwError {
        let (level, needed) = self.tiles(&self.trivial()).err().unwrap_or_default();
        HwError::NoFit {
            layer: name.to_owned(),
            operand: "all operands",
            level: self.levels[level].name.clone(),
            needed,
            available: self.room[level],
        }
    }
}
