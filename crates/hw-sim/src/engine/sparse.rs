//! Engines that skip zeros: Cambricon-X (weights) and SCNN (weights and activations).
//!
//! Densities are averages; an imbalance term makes the slowest of the parallel units the pace (see `slowest_of`),
//! exact at density 0 and 1. An operand is stored compressed only where that is smaller, so that a dense operand
//! costs what it costs a dense engine.

use serde::{Deserialize, Serialize};

use super::{Activity, Flows, dense_bits, passes, scaled, side, slowest_of, unit_energy, width};
use crate::accelerator::Accelerator;
use crate::error::HwError;
use crate::task::{OperandKind, Task};

/// `elements` processing elements, one filter each, with `multipliers` multipliers that take only non-zero weights;
/// all wait for the fullest filter (Cambricon-X, Zhang et al., MICRO 2016).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CambriconX {
    /// Filters at once.
    pub elements: u64,
    /// Multipliers of an element.
    pub multipliers: u64,
    /// Bits of a multiplier; wider operands take several passes.
    pub multiplier_bits: u8,
    /// Index bits a weight: 1 is a bitmap.
    pub index_bits: u8,
}

/// `rows × cols` elements that own a spatial tile each and multiply every non-zero weight with every non-zero
/// activation, `weights × activations` a cycle (SCNN, Parashar et al., ISCA 2017). Kernels of 1 × 1 and linear
/// layers lose the reuse that this needs. Tiles are of input pixels, and all of them are held and multiplied: where windows do not
/// overlap in full, under a stride and at borders without padding, also those products are made that no output takes, which cost a
/// multiplication and no accumulation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scnn {
    /// Rows of elements.
    pub rows: u64,
    /// Columns of elements.
    pub cols: u64,
    /// Activations of an element at once.
    pub activations: u64,
    /// Weights of an element at once.
    pub weights: u64,
    /// Output channels of a group, which share the accumulators.
    pub filters_per_group: u64,
    /// Bits of a multiplier; wider operands take several passes.
    pub multiplier_bits: u8,
    /// Index bits of a stored non-zero: a run length.
    pub index_bits: u8,
    /// Energy of one read and write of an accumulator bank, in pJ.
    pub accumulator_pj: f64,
}

/// Bits of an operand: non-zeros and indices, or dense where that is smaller.
fn compressed(words: u64, density: f64, bits: u8, index_bits: u128) -> u128 {
    let dense = u128::from(words) * u128::from(bits);
    (scaled(u128::from(words), density) * u128::from(bits) + index_bits).min(dense)
}

impl CambriconX {
    pub(super) fn validate(&self) -> Result<(), HwError> {
        side("cambricon_x", &[("elements", self.elements), ("multipliers", self.multipliers)])?;
        width("cambricon_x", "multiplier_bits", self.multiplier_bits)?;
        width("cambricon_x", "index_bits", self.index_bits)
    }

    pub(super) fn activity(&self, accelerator: &Accelerator, task: &Task) -> Activity {
        let shape = &task.shape;
        let density = task.weight.density;
        let window = shape.c * shape.r * shape.s;
        let groups = u128::from(shape.groups);
        let filter_groups = u128::from(shape.k.div_ceil(self.elements));
        let fullest = slowest_of(window, density, self.elements.min(shape.k));
        let pixels = u128::from(shape.pixels());
        let cycles = groups * pixels * filter_groups * u128::from(fullest.div_ceil(self.multipliers));
        let executed = scaled(u128::from(shape.macs()), density);
        let mut flows = Flows::new(accelerator);
        flows.array(OperandKind::Input, groups * pixels * u128::from(window) * filter_groups, 0, task.input.bits);
        flows.array(OperandKind::Weight, executed, 0, task.weight.bits);
        flows.array(OperandKind::Output, 0, u128::from(shape.words[2]), task.output_bits);
        let mut stored = dense_bits(task);
        if task.stored_weight_bits.is_none() {
            let index = u128::from(shape.words[1]) * u128::from(self.index_bits);
            stored[1] = compressed(shape.words[1], density, task.weight.bits, index);
        }
        let lanes = u128::from(self.elements) * u128::from(self.multipliers);
        let repeats = passes(task, self.multiplier_bits);
        Activity {
            compute_cycles: cycles * repeats,
            peak_macs: lanes as f64 / repeats as f64,
            mac_pj: executed as f64 * accelerator.mac_pj(task.input.bits, task.weight.bits),
            flows: flows.memory(task, stored),
            first_load_bits: lanes * u128::from(task.weight.bits),
            last_store_bits: u128::from(self.elements) * u128::from(task.output_bits),
            ..Activity::default()
        }
    }
}

impl Scnn {
    pub(super) fn validate(&self) -> Result<(), HwError> {
        let fields = [
            ("rows", self.rows),
            ("cols", self.cols),
            ("activations", self.activations),
            ("weights", self.weights),
            ("filters_per_group", self.filters_per_group),
        ];
        side("scnn", &fields)?;
        width("scnn", "multiplier_bits", self.multiplier_bits)?;
        width("scnn", "index_bits", self.index_bits)?;
        unit_energy("scnn", "accumulator_pj", self.accumulator_pj)
    }

    pub(super) fn activity(&self, accelerator: &Accelerator, task: &Task) -> Activity {
        let shape = &task.shape;
        let elements = self.rows * self.cols;
        let groups = u128::from(shape.groups);
        let [height, width] = shape.input;
        let tile = height.div_ceil(self.rows) * width.div_ceil(self.cols);
        let group_weights = self.filters_per_group.min(shape.k).saturating_mul(shape.r * shape.s);
        let filter_groups = u128::from(shape.k.div_ceil(self.filters_per_group));
        let activations = slowest_of(tile, task.input.density, elements).div_ceil(self.activations);
        let weights = slowest_of(group_weights, task.weight.density, 1).div_ceil(self.weights);
        let maps = groups * u128::from(shape.n) * u128::from(shape.c);
        let cycles = maps * filter_groups * u128::from(activations) * u128::from(weights);
        let of_values = |products: u128| scaled(scaled(products, task.weight.density), task.input.density);
        let held = maps * u128::from(height * width);
        let products = held * u128::from(shape.k) * u128::from(shape.r * shape.s);
        // Windows that reach into padding take fewer.
        let (executed, taken) = (of_values(products), of_values(products.min(u128::from(shape.macs()))));

        let mut flows = Flows::new(accelerator);
        let input_reads = scaled(held, task.input.density) * filter_groups;
        flows.array(OperandKind::Input, input_reads, 0, task.input.bits);
        let weight_reads = maps
            * filter_groups
            * u128::from(activations)
            * u128::from(slowest_of(group_weights, task.weight.density, 1));
        flows.array(OperandKind::Weight, weight_reads, 0, task.weight.bits);
        flows.array(OperandKind::Output, 0, u128::from(shape.words[2]), task.output_bits);
        let mut stored = dense_bits(task);
        let index = |words: u64, density: f64| scaled(u128::from(words), density) * u128::from(self.index_bits);
        let (input, weight) = (held as u64, shape.words[1]);
        stored[0] = compressed(input, task.input.density, task.input.bits, index(input, task.input.density));
        if task.stored_weight_bits.is_none() {
            stored[1] = compressed(weight, task.weight.density, task.weight.bits, index(weight, task.weight.density));
        }
        let lanes = u128::from(elements) * u128::from(self.activations) * u128::from(self.weights);
        let repeats = passes(task, self.multiplier_bits);
        let multiplied_pj = executed as f64 * accelerator.mac_pj(task.input.bits, task.weight.bits);
        Activity {
            compute_cycles: cycles * repeats,
            peak_macs: lanes as f64 / repeats as f64,
            mac_pj: multiplied_pj + taken as f64 * self.accumulator_pj,
            flows: flows.memory(task, stored),
            first_load_bits: u128::from(self.weights) * u128::from(task.weight.bits),
            last_store_bits: u128::from(elements) * u128::from(task.output_bits),
            ..Activity::default()
        }
    }
}
