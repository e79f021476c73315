//! The SmartExchange/SmartDeal engine (Zhao et al., arXiv 2005.03403; Chen et al., arXiv 2101.01163): weights leave
//! DRAM as a small basis and sparse power-of-two coefficients, and are rebuilt beside the multipliers by shifts and adds.
//!
//! A layer's weight density is the share of non-zero coefficient *rows*: the vector-wise sparsity that lets the array
//! skip the matching activations. The organisation follows the abstracts; what they leave open is this crate's choice.

use core_tensor::workload::Pass;
use serde::{Deserialize, Serialize};

use super::{Activity, Flows, dense_bits, rounded_up, scaled, share, side, slowest_of, unit_energy, width};
use crate::accelerator::Accelerator;
use crate::error::HwError;
use crate::task::{OperandKind, Shape, Task};

/// The engine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmartDeal {
    /// Filters at once.
    pub slices: u64,
    /// Weight rows (channel and kernel row) at once in a slice.
    pub lines: u64,
    /// Output pixels at once in a line.
    pub macs: u64,
    /// Steps that a serial activation takes.
    pub digits: Digits,
    /// Bits of a coefficient: sign and exponent.
    pub coefficient_bits: u8,
    /// Bits of a basis entry.
    pub basis_bits: u8,
    /// How zeros are stored.
    pub index: IndexScheme,
    /// Rows that share a basis, per column of it: 64 gives blocks of 192 × 3.
    pub block_rows: u64,
    /// Share of non-zero coefficients within a non-zero row.
    pub row_fill: f64,
    /// Bits of a rebuilt weight; wider ones take several passes.
    pub multiplier_bits: u8,
    /// Energy of one shift and add of the rebuilding, in pJ.
    pub adder_pj: f64,
    /// Keep weights dense in DRAM and on chip: the ablation.
    #[serde(default)]
    pub dense_weights: bool,
}

/// How activations are recoded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Digits {
    /// A step a bit.
    Plain,
    /// Radix-4 Booth: half as many steps.
    Booth,
    /// A measured mean number of non-zero Booth digits.
    Measured(f64),
}

/// How the places of coefficients are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexScheme {
    /// One bit a coefficient; non-zeros alone are stored.
    Bitmap,
    /// One bit a row; the entries of a kept row are all stored.
    RowBitmap,
}

/// Bits of one layer's weights.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SmartDealStorage {
    /// Coefficients.
    pub coefficient_bits: u64,
    /// Indices.
    pub index_bits: u64,
    /// Bases.
    pub basis_bits: u64,
    /// The same weights, dense at their own width.
    pub dense_bits: u64,
    /// Shifts and adds of one rebuilding.
    pub rebuild_adds: u64,
}

impl SmartDealStorage {
    /// What is fetched.
    pub fn total_bits(&self) -> u64 {
        self.coefficient_bits.saturating_add(self.index_bits).saturating_add(self.basis_bits)
    }
}

/// Columns of a basis.
const BASIS: u64 = 3;

impl SmartDeal {
    pub(super) fn validate(&self) -> Result<(), HwError> {
        let fields =
            [("slices", self.slices), ("lines", self.lines), ("macs", self.macs), ("block_rows", self.block_rows)];
        side("smartdeal", &fields)?;
        for (field, bits) in [
            ("coefficient_bits", self.coefficient_bits),
            ("basis_bits", self.basis_bits),
            ("multiplier_bits", self.multiplier_bits),
        ] {
            width("smartdeal", field, bits)?;
        }
        share("smartdeal", "row_fill", self.row_fill)?;
        if let Digits::Measured(steps) = self.digits
            && !(0.0..=32.0).contains(&steps)
        {
            return Err(HwError::field("engine smartdeal", "digits", "0 to 32 steps", steps));
        }
        unit_energy("smartdeal", "adder_pj", self.adder_pj)
    }

    /// Rows of a filter's coefficient matrix, for the layers that are decomposed: 3 × 3 kernels by rows, 1 × 1 and
    /// linear ones in threes. Depthwise and other kernels are not.
    pub fn rows_per_filter(&self, shape: &Shape) -> Option<u64> {
        let decomposed = shape.groups == 1 && !self.dense_weights;
        match (shape.r, shape.s) {
            (3, 3) if decomposed => Some(shape.c.saturating_mul(shape.r)),
            (1, 1) if decomposed => Some(shape.c.div_ceil(BASIS)),
            _ => None,
        }
    }

    /// Bits of a layer's weights at a row density in `[0, 1]`; `None` for layers that stay dense. Counts past 64 bits are
    /// `u64::MAX`.
    pub fn storage(&self, shape: &Shape, row_density: f64, dense_width: u8) -> Option<SmartDealStorage> {
        let rows = self.rows_per_filter(shape)?;
        let filters = u128::from(shape.k);
        let all_rows = filters * u128::from(rows);
        let kept_rows = scaled(all_rows, row_density);
        let times = |count: u128, factor: u64| count.saturating_mul(u128::from(factor));
        let nonzeros = scaled(times(kept_rows, BASIS), self.row_fill);
        let (entries, index) = match self.index {
            IndexScheme::Bitmap => (nonzeros, times(all_rows, BASIS)),
            IndexScheme::RowBitmap => (times(kept_rows, BASIS), all_rows),
        };
        let block = self.block_rows.saturating_mul(BASIS).max(1);
        let basis = times(filters * u128::from(rows.div_ceil(block)), BASIS * BASIS);
        let narrow = |bits: u128| u64::try_from(bits).unwrap_or(u64::MAX);
        Some(SmartDealStorage {
            coefficient_bits: narrow(times(entries, self.coefficient_bits.into())),
            index_bits: narrow(index),
            basis_bits: narrow(times(basis, self.basis_bits.into())),
            dense_bits: narrow(u128::from(shape.words[1]) * u128::from(dense_width)),
            rebuild_adds: narrow(times(nonzeros, BASIS)),
        })
    }

    /// The form in which a task's weights are fetched; `None` where they are not rebuilt: in layers that are not decomposed,
    /// in those that it would not make smaller, and for gradients in the place of weights.
    ///
    /// A layer is decomposed where that saves bits even without a zero row. Its form then does not depend on its density,
    /// so fewer non-zeros never cost more. The input-gradient pass fetches what the forward pass does.
    pub fn form(&self, task: &Task) -> Option<SmartDealStorage> {
        let Shape { k, c, .. } = task.shape;
        let shape = match task.pass {
            Pass::Forward => task.shape,
            Pass::InputGradient => Shape { k: c, c: k, ..task.shape },
            Pass::WeightGradient => return None,
        };
        let at = |density| self.storage(&shape, density, task.weight.bits);
        at(1.0).filter(|full| full.total_bits() < full.dense_bits)?;
        at(self.density(task))
    }

    /// Share of weight rows that are kept.
    pub(crate) fn density(&self, task: &Task) -> f64 {
        if self.dense_weights { 1.0 } else { task.weight.density }
    }

    /// Bits that a task's weights take in DRAM: those measured, those of the form, or non-zeros with a bitmap where that is
    /// smaller than dense.
    pub(crate) fn weight_bits(&self, task: &Task, form: Option<SmartDealStorage>) -> u128 {
        let words = u128::from(task.shape.words[1]);
        let width = u128::from(task.weight.bits);
        match (task.stored_weight_bits, form) {
            (Some(measured), _) => measured.into(),
            (None, Some(form)) => form.total_bits().into(),
            (None, None) => (scaled(words, self.density(task)) * width + words).min(words * width),
        }
    }

    fn steps(&self, input_bits: u8) -> f64 {
        match self.digits {
            Digits::Plain => f64::from(input_bits),
            Digits::Booth => f64::from(input_bits.div_ceil(2)),
            Digits::Measured(steps) => steps,
        }
    }

    pub(super) fn activity(&self, accelerator: &Accelerator, task: &Task) -> Activity {
        let shape = &task.shape;
        let density = self.density(task);
        let form = self.form(task);
        let steps = self.steps(task.input.bits) * f64::from(task.weight.bits.div_ceil(self.multiplier_bits));

        let rows = shape.c * shape.r;
        let groups = u128::from(shape.groups);
        let filter_groups = u128::from(shape.k.div_ceil(self.slices));
        let fullest = slowest_of(rows, density, self.slices.min(shape.k)).div_ceil(self.lines);
        let strips = u128::from(shape.n) * u128::from(shape.y) * u128::from(shape.x.div_ceil(self.macs));
        let tiles = groups * filter_groups * u128::from(fullest) * strips * u128::from(shape.s);

        let executed = scaled(u128::from(shape.macs()), density);
        let mut flows = Flows::new(accelerator);
        // A row of inputs is read when any slice keeps the matching weight row.
        let sharing = self.slices.min(shape.k).min(1 << 20) as i32;
        let union = 1.0 - (1.0 - density).powi(sharing);
        let line = u128::from(shape.x) + u128::from(shape.s - 1) * u128::from(shape.x.div_ceil(self.macs));
        let lines = groups * u128::from(shape.n) * filter_groups * u128::from(rows) * u128::from(shape.y);
        flows.array(OperandKind::Input, scaled(lines * line, union), 0, task.input.bits);
        let mut stored = dense_bits(task);
        stored[1] = self.weight_bits(task, form);
        // Weights are read compressed once a sample and stay rebuilt in registers over its pixels.
        let samples = u128::from(shape.n);
        let weight_words = (stored[1] * samples).div_ceil(u128::from(task.weight.bits));
        flows.array(OperandKind::Weight, weight_words, 0, task.weight.bits);
        flows.array(OperandKind::Output, 0, u128::from(shape.words[2]), task.output_bits);
        let adds = form.map_or(0, |form| u128::from(form.rebuild_adds)) * samples;

        let lanes = self.slices as f64 * self.lines as f64 * self.macs as f64;
        // A serial step is priced as its share of a MAC of the multiplier's width.
        let width = self.multiplier_bits;
        let step_pj = accelerator.mac_pj(width, width) / f64::from(width);
        Activity {
            compute_cycles: rounded_up(tiles as f64 * steps),
            peak_macs: lanes / steps.max(1e-9),
            mac_pj: executed as f64 * step_pj * steps,
            rebuild_pj: adds as f64 * self.adder_pj,
            flows: flows.memory(task, stored),
            first_load_bits: u128::from(self.macs) * u128::from(task.input.bits),
            last_store_bits: u128::from(self.slices) * u128::from(self.macs) * u128::from(task.output_bits),
            ..Activity::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Accelerator;
    use crate::engine::Engine;
    use core_tensor::workload::{Layer, Operator};

    fn engine() -> SmartDeal {
        match Accelerator::preset("smartdeal").unwrap().engine {
            Engine::SmartDeal(engine) => engine,
            other => panic!("the preset holds {other:?}"),
        }
    }

    #[test]
    fn one_block_takes_the_bits_of_the_published_accounting() {
        // 192 × 3, 90 % zeros, 4-bit coefficients, one bit an entry, 8-bit basis: 57.6·4 + 576 + 72 = 878.4 bits.
        let layer = Layer::new("c", Operator::conv2d(64, 1, 3, 1, 1, [8, 8]));
        let shape = Task::new(&layer, 1, Pass::Forward).unwrap().shape;
        let bitmap = SmartDeal { index: IndexScheme::Bitmap, row_fill: 1.0, ..engine() };
        let storage = bitmap.storage(&shape, 0.1, 32).unwrap();
        // 19.2 rows are kept: 20 of them, 60 coefficients.
        assert_eq!((storage.coefficient_bits, storage.index_bits, storage.basis_bits), (60 * 4, 576, 72));
        assert_eq!(storage.dense_bits, 576 * 32);
    }

    #[test]
    fn storage_of_a_shape_made_by_hand_stops_at_64_bits() {
        let layer = Layer::new("c", Operator::conv2d(64, 1, 3, 1, 1, [8, 8]));
        let shape = Task::new(&layer, 1, Pass::Forward).unwrap().shape;
        let huge = Shape { k: u64::MAX, c: u64::MAX, words: [u64::MAX; 3], ..shape };
        for index in [IndexScheme::Bitmap, IndexScheme::RowBitmap] {
            let storage = SmartDeal { index, block_rows: 0, ..engine() }.storage(&huge, 1.0, 32).unwrap();
            assert_eq!([storage.index_bits, storage.basis_bits, storage.total_bits()], [u64::MAX; 3]);
            assert_eq!((storage.dense_bits, storage.rebuild_adds), (u64::MAX, u64::MAX));
        }
    }

    /// 2 inputs and 7 filters of 1 × 1: one padded row a filter, 12 + 1 + 72 bits against 16. Found by the property test of
    /// energies: the form used to change with the density, and with it the energy of rebuilding.
    #[test]
    fn a_layer_too_small_to_gain_stays_dense_at_every_density() {
        let accelerator = Accelerator::preset("smartdeal").unwrap();
        let mut layer = Layer::new("c", Operator::conv2d(2, 7, 1, 1, 0, [4, 4]));
        for density in [1.0, 0.7, 0.5, 0.1, 0.0] {
            layer.weight.density = density;
            let task = Task::new(&layer, 1, Pass::Forward).unwrap();
            assert_eq!(engine().activity(&accelerator, &task).rebuild_pj, 0.0);
        }
    }

    #[test]
    fn gradients_are_never_rebuilt() {
        let accelerator = Accelerator::preset("smartdeal").unwrap();
        let mut layer = Layer::new("c", Operator::conv2d(64, 32, 3, 1, 1, [8, 8]));
        (layer.weight.bits, layer.activation.bits, layer.gradient.bits) = (8, 8, 8);
        let [forward, input, weight] = Pass::TRAINING.map(|pass| Task::new(&layer, 1, pass).unwrap());
        assert!(engine().form(&forward).is_some() && engine().form(&input) == engine().form(&forward));
        assert_eq!(engine().form(&weight), None);
        // The gradient of the output stands where the weights were: 32 · 64 words of 8 bits.
        assert_eq!(engine().weight_bits(&weight, None), 32 * 64 * 8);
        assert_eq!(engine().activity(&accelerator, &weight).rebuild_pj, 0.0);
    }

    #[test]
    fn depthwise_and_large_kernels_stay_dense() {
        let mut layer = Layer::new("c", Operator::conv2d(3, 8, 7, 2, 3, [32, 32]));
        let shape = |layer: &Layer| Task::new(layer, 1, Pass::Forward).unwrap().shape;
        assert_eq!(engine().rows_per_filter(&shape(&layer)), None);
        layer.op = Operator::conv2d(16, 8, 1, 1, 0, [4, 4]);
        assert_eq!(engine().rows_per_filter(&shape(&layer)), Some(6)); // 16 weights padded to 6 rows of 3
    }
}
