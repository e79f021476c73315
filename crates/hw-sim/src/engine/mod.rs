//! What computes: each engine turns one [`Task`] into cycles and accesses; pricing them is common to all.

mod composable;
mod dense;
mod row_stationary;
mod serial;
mod smartdeal;
mod sparse;

pub use composable::BitComposable;
pub use dense::{DianNao, Systolic};
pub use row_stationary::RowStationary;
pub use serial::{BitPragmatic, BitSerial, SerialOperands};
pub use smartdeal::{Digits, IndexScheme, SmartDeal, SmartDealStorage};
pub use sparse::{CambriconX, Scnn};

use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::cost::{LayerCost, Traffic};
use crate::error::{HwError, narrow};
use crate::loopnest::LoopNestEngine;
use crate::stall::DoubleBuffer;
use crate::task::{OperandKind, Task};
use core_tensor::workload::Pass;

/// The kinds of array; `kind` names one in TOML.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Engine {
    /// A systolic array with one of three dataflows.
    Systolic(Systolic),
    /// Rows of a kernel stay in a column of processing elements.
    RowStationary(RowStationary),
    /// Any tiling and loop order over the memory levels, searched per layer.
    LoopNest(LoopNestEngine),
    /// Filters × channels multipliers a cycle, dense.
    #[serde(rename = "diannao")]
    DianNao(DianNao),
    /// Skips zero weights.
    CambriconX(CambriconX),
    /// Skips zero weights and activations.
    Scnn(Scnn),
    /// Skips zero bits of activations.
    BitPragmatic(BitPragmatic),
    /// Takes a cycle a bit.
    BitSerial(BitSerial),
    /// Fuses narrow multipliers into wide ones.
    BitComposable(BitComposable),
    /// Rebuilds weights from a small basis and sparse power-of-two coefficients.
    #[serde(rename = "smartdeal")]
    SmartDeal(SmartDeal),
}

impl Engine {
    pub(crate) fn validate(&self, accelerator: &Accelerator) -> Result<(), HwError> {
        let one_buffer = || {
            for operand in OperandKind::ALL {
                let buffers = accelerator.memory.iter().skip(1).filter(|level| level.holds(operand)).count();
                if buffers > 1 {
                    let field = format!("memory levels that hold {}", operand.name());
                    let thing = format!("accelerator `{}`", accelerator.name);
                    return Err(HwError::field(thing, field, "DRAM and one buffer for this engine", buffers + 1));
                }
            }
            Ok(())
        };
        match self {
            Self::Systolic(engine) => engine.validate().and_then(|()| one_buffer()),
            Self::RowStationary(engine) => engine.validate(accelerator),
            Self::LoopNest(engine) => engine.validate(),
            Self::DianNao(engine) => engine.validate().and_then(|()| one_buffer()),
            Self::CambriconX(engine) => engine.validate().and_then(|()| one_buffer()),
            Self::Scnn(engine) => engine.validate().and_then(|()| one_buffer()),
            Self::BitPragmatic(engine) => engine.validate().and_then(|()| one_buffer()),
            Self::BitSerial(engine) => engine.validate().and_then(|()| one_buffer()),
            Self::BitComposable(engine) => engine.array(accelerator, engine.output_bits).map(drop),
            Self::SmartDeal(engine) => engine.validate().and_then(|()| one_buffer()),
        }
    }

    /// Sets the two sides of the array: rows and columns, or what stands for them (filters and channels, elements and
    /// multipliers, slices and lines).
    pub fn resize(&mut self, [first, second]: [u64; 2]) {
        let (a, b) = match self {
            Self::Systolic(engine) => (&mut engine.rows, &mut engine.cols),
            Self::RowStationary(engine) => (&mut engine.rows, &mut engine.cols),
            Self::LoopNest(engine) => (&mut engine.rows, &mut engine.cols),
            Self::DianNao(engine) => (&mut engine.filters, &mut engine.channels),
            Self::CambriconX(engine) => (&mut engine.elements, &mut engine.multipliers),
            Self::Scnn(engine) => (&mut engine.rows, &mut engine.cols),
            Self::BitPragmatic(engine) => (&mut engine.filters, &mut engine.channels),
            Self::BitSerial(engine) => (&mut engine.filters, &mut engine.channels),
            Self::BitComposable(engine) => (&mut engine.rows, &mut engine.cols),
            Self::SmartDeal(engine) => (&mut engine.slices, &mut engine.lines),
        };
        (*a, *b) = (first, second);
    }

    fn activity(&self, accelerator: &Accelerator, task: &Task) -> Result<Activity, HwError> {
        match self {
            Self::Systolic(engine) => engine.activity(accelerator, task),
            Self::RowStationary(engine) => Ok(engine.activity(accelerator, task)),
            Self::LoopNest(engine) => engine.activity(accelerator, task),
            Self::DianNao(engine) => Ok(engine.activity(accelerator, task)),
            Self::CambriconX(engine) => Ok(engine.activity(accelerator, task)),
            Self::Scnn(engine) => Ok(engine.activity(accelerator, task)),
            Self::BitPragmatic(engine) => Ok(engine.activity(accelerator, task)),
            Self::BitSerial(engine) => Ok(engine.activity(accelerator, task)),
            Self::BitComposable(engine) => engine.activity(accelerator, task),
            Self::SmartDeal(engine) => Ok(engine.activity(accelerator, task)),
        }
    }
}

/// What an engine does for one task.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    pub(crate) compute_cycles: u128,
    /// Dense MACs that the array could do a cycle at these widths.
    pub(crate) peak_macs: f64,
    pub(crate) mac_pj: f64,
    pub(crate) network_pj: f64,
    pub(crate) rebuild_pj: f64,
    pub(crate) flows: Vec<Flow>,
    pub(crate) first_load_bits: u128,
    pub(crate) last_store_bits: u128,
    /// Cycles that the engine's own model waits; computed from the flows when absent.
    pub(crate) stall_cycles: Option<u128>,
}

/// Accesses of one operand at one level.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) level: usize,
    pub(crate) operand: OperandKind,
    pub(crate) reads: u128,
    pub(crate) writes: u128,
    pub(crate) read_bits: u128,
    pub(crate) write_bits: u128,
}

impl Flow {
    pub(crate) fn words(level: usize, operand: OperandKind, reads: u128, writes: u128, bits: u8) -> Self {
        let bits = u128::from(bits);
        Self { level, operand, reads, writes, read_bits: reads * bits, write_bits: writes * bits }
    }
}

/// What one task costs on an accelerator.
pub(crate) fn price(accelerator: &Accelerator, task: &Task) -> Result<LayerCost, HwError> {
    priced(accelerator, task, accelerator.engine.activity(accelerator, task)?)
}

/// What an engine's activity for one task costs.
pub(crate) fn priced(accelerator: &Accelerator, task: &Task, activity: Activity) -> Result<LayerCost, HwError> {
    let name = &task.name;
    let mut traffic: Vec<Traffic> = Vec::with_capacity(activity.flows.len());
    for flow in &activity.flows {
        let level = &accelerator.memory[flow.level];
        let per_bit = |pj: f64| pj / f64::from(level.access_bits);
        let energy_pj =
            flow.read_bits as f64 * per_bit(level.read_pj) + flow.write_bits as f64 * per_bit(level.write_pj);
        let mut new = Traffic {
            level: flow.level,
            operand: flow.operand,
            reads: narrow(flow.reads, name, "reads")?,
            writes: narrow(flow.writes, name, "writes")?,
            read_bits: narrow(flow.read_bits, name, "bits read")?,
            write_bits: narrow(flow.write_bits, name, "bits written")?,
            energy_pj,
        };
        match traffic.iter_mut().find(|known| known.level == new.level && known.operand == new.operand) {
            Some(known) => {
                let add = |a: u64, b: u64, quantity| narrow(u128::from(a) + u128::from(b), name, quantity);
                new.reads = add(known.reads, new.reads, "reads")?;
                new.writes = add(known.writes, new.writes, "writes")?;
                new.read_bits = add(known.read_bits, new.read_bits, "bits read")?;
                new.write_bits = add(known.write_bits, new.write_bits, "bits written")?;
                new.energy_pj += known.energy_pj;
                *known = new;
            }
            None => traffic.push(new),
        }
    }
    let compute_cycles = narrow(activity.compute_cycles, name, "cycles")?;
    let stall_cycles = match activity.stall_cycles {
        Some(cycles) => narrow(cycles, name, "cycles")?,
        None => stalls(accelerator, &activity, compute_cycles, name)?,
    };
    let cycles = compute_cycles as f64 + stall_cycles as f64;
    let macs = task.shape.macs();
    Ok(LayerCost {
        name: name.clone(),
        pass: task.pass,
        role: task.role,
        macs,
        compute_cycles,
        stall_cycles,
        utilisation: if cycles > 0.0 { macs as f64 / (cycles * activity.peak_macs) } else { 0.0 },
        mac_pj: activity.mac_pj,
        network_pj: activity.network_pj,
        rebuild_pj: activity.rebuild_pj,
        static_pj: accelerator.static_pj_per_cycle * cycles,
        traffic,
    })
}

/// The slowest level decides; levels work at the same time. Only DRAM's first load and last store are bare.
fn stalls(accelerator: &Accelerator, activity: &Activity, compute: u64, name: &str) -> Result<u64, HwError> {
    let mut worst = 0;
    for (index, level) in accelerator.memory.iter().enumerate() {
        let Some(bandwidth) = level.bandwidth_bits else { continue };
        let flows = activity.flows.iter().filter(|flow| flow.level == index);
        let bits: u128 = flows.map(|flow| flow.read_bits + flow.write_bits).sum();
        let bare = |bits: u128| if index == 0 { bits } else { 0 };
        let boundary = DoubleBuffer {
            compute,
            traffic: narrow(bits, name, "bits")?,
            first_load: narrow(bare(activity.first_load_bits).min(bits), name, "bits")?,
            last_store: narrow(bare(activity.last_store_bits).min(bits), name, "bits")?,
        };
        worst = worst.max(boundary.stall(bandwidth));
    }
    Ok(worst)
}

/// Collects the accesses of an engine that has at most one buffer an operand.
pub(crate) struct Flows<'a> {
    accelerator: &'a Accelerator,
    flows: Vec<Flow>,
}

impl<'a> Flows<'a> {
    pub(crate) fn new(accelerator: &'a Accelerator) -> Self {
        Self { accelerator, flows: Vec::with_capacity(8) }
    }

    fn buffer(&self, operand: OperandKind) -> usize {
        let levels = self.accelerator.memory.iter().skip(1);
        levels.clone().position(|level| level.holds(operand)).map_or(0, |index| index + 1)
    }

    /// Words between the array and the operand's buffer (DRAM where there is none).
    pub(crate) fn array(&mut self, operand: OperandKind, reads: u128, writes: u128, bits: u8) {
        let level = self.buffer(operand);
        self.flows.push(Flow::words(level, operand, reads, writes, bits));
    }

    /// Traffic between DRAM and the buffers, given the stored bits of input, weight and output over all groups.
    ///
    /// Either weights stay while inputs pass by, or the reverse, whichever moves less: an operand that does not fit its
    /// half buffer beside the other's chunks is fetched once a chunk. Outputs are finished on chip and stored once.
    ///
    /// Weight gradients are small beside the pixels that are summed over. There a third way is open: chunks of gradients
    /// stay in their buffer while both operands pass by in chunks of pixels, after each of which partial sums are read and
    /// written once more. Where all gradients fit, both operands are fetched once.
    pub(crate) fn memory(mut self, task: &Task, stored_bits: [u128; 3]) -> Vec<Flow> {
        let [input, weight, output] = stored_bits;
        let groups = u128::from(task.shape.groups);
        let (input_buffer, weight_buffer) = (self.buffer(OperandKind::Input), self.buffer(OperandKind::Weight));
        let room = |level: usize| u128::from(self.accelerator.memory[level].tile_bits().max(1));
        let chunks = |bits: u128, level: usize| bits.div_ceil(groups).div_ceil(room(level)).max(1);
        let (input_chunks, weight_chunks) = (chunks(input, input_buffer), chunks(weight, weight_buffer));
        let weights_stay = (if input_chunks == 1 { input } else { input * weight_chunks }, weight);
        let inputs_stay = (input, if weight_chunks == 1 { weight } else { weight * input_chunks });
        let output_buffer = self.buffer(OperandKind::Output);
        let mut ways = vec![weights_stay, inputs_stay];
        if task.pass == Pass::WeightGradient && output_buffer > 0 {
            let output_chunks = chunks(output, output_buffer);
            ways.extend([(input * output_chunks, weight), (input, weight * output_chunks)]);
        }
        let least = (0..ways.len()).min_by_key(|&way| ways[way].0 + ways[way].1).unwrap_or_default();
        let (input_bits, weight_bits) = ways[least];
        let pixel_chunks = if least < 2 { 1 } else { input_chunks.max(weight_chunks) };
        let fetched = [
            (OperandKind::Input, input_buffer, input_bits, task.input.bits),
            (OperandKind::Weight, weight_buffer, weight_bits, task.weight.bits),
        ];
        for (operand, level, bits, width) in fetched {
            // Without a buffer the array reads DRAM itself, which is counted already.
            if level > 0 {
                let words = bits.div_ceil(u128::from(width));
                self.flows.push(Flow { level: 0, operand, reads: words, writes: 0, read_bits: bits, write_bits: 0 });
                self.flows.push(Flow { level, operand, reads: 0, writes: words, read_bits: 0, write_bits: bits });
            }
        }
        let level = output_buffer;
        if level > 0 {
            let (operand, again) = (OperandKind::Output, output * (pixel_chunks - 1));
            let words = again.div_ceil(u128::from(task.output_bits));
            if again > 0 {
                self.flows.push(Flow {
                    level,
                    operand,
                    reads: words,
                    writes: words,
                    read_bits: again,
                    write_bits: again,
                });
            }
            let (operand, words) = (OperandKind::Output, output.div_ceil(u128::from(task.output_bits)));
            self.flows.push(Flow { level, operand, reads: words, writes: 0, read_bits: output, write_bits: 0 });
            self.flows.push(Flow { level: 0, operand, reads: 0, writes: words, read_bits: 0, write_bits: output });
        }
        self.flows
    }
}

/// Stored bits of dense operands.
pub(crate) fn dense_bits(task: &Task) -> [u128; 3] {
    let [input, weight, output] = task.shape.words.map(u128::from);
    let weight_bits = task.stored_weight_bits.map_or(weight * u128::from(task.weight.bits), u128::from);
    [input * u128::from(task.input.bits), weight_bits, output * u128::from(task.output_bits)]
}

/// How often a `width`-bit multiplier is used for wider operands.
pub(crate) fn passes(task: &Task, width: u8) -> u128 {
    u128::from(task.input.bits.div_ceil(width)) * u128::from(task.weight.bits.div_ceil(width))
}

/// The largest of `groups` counts of non-zeros among `items`, each non-zero with probability `density`:
/// the mean plus `√(2·ln groups)` standard deviations, at most all items. Exact at densities 0 and 1.
pub(crate) fn slowest_of(items: u64, density: f64, groups: u64) -> u64 {
    let mean = items as f64 * density;
    let spread = (2.0 * (groups.max(1) as f64).ln() * mean * (1.0 - density)).sqrt();
    (rounded_up(mean + spread) as u64).min(items)
}

/// A count scaled by a density, rounded up.
pub(crate) fn scaled(count: u128, share: f64) -> u128 {
    rounded_up(count as f64 * share).min(count)
}

/// A product or quotient of counts, rounded up: what stands above a whole number by the rounding of floats alone, as
/// 25 · (7 / 25) does, is that number.
pub(crate) fn rounded_up(value: f64) -> u128 {
    let whole = value.round();
    (if (value - whole).abs() <= 8.0 * f64::EPSILON * value { whole } else { value.ceil() }) as u128
}

/// Largest unit energy that is taken, in pJ: a joule, so that sums over 64-bit counts stay finite.
pub(crate) const MAX_PJ: f64 = 1e12;

pub(crate) fn unit_energy(engine: &str, field: &str, pj: f64) -> Result<(), HwError> {
    if (0.0..=MAX_PJ).contains(&pj) {
        return Ok(());
    }
    Err(HwError::field(format!("engine {engine}"), field, "0 to 1e12 pJ", pj))
}

pub(crate) fn side(engine: &str, fields: &[(&str, u64)]) -> Result<(), HwError> {
    for &(field, value) in fields {
        if !(1..=crate::systolic::MAX_SIDE).contains(&value) {
            return Err(HwError::field(format!("engine {engine}"), field, "1 to 65536", value));
        }
    }
    Ok(())
}

pub(crate) fn width(engine: &str, field: &str, bits: u8) -> Result<(), HwError> {
    if (1..=32).contains(&bits) {
        return Ok(());
    }
    Err(HwError::field(format!("engine {engine}"), field, "1 to 32", bits))
}

pub(crate) fn share(engine: &str, field: &str, value: f64) -> Result<(), HwError> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(HwError::field(format!("engine {engine}"), field, "a number in [0, 1]", value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_group_is_exact_where_nothing_varies() {
        assert_eq!(slowest_of(100, 1.0, 64), 100);
        assert_eq!(slowest_of(100, 0.0, 64), 0);
        assert_eq!(slowest_of(100, 0.5, 1), 50);
        // √(2·ln 64·25) = 14.42 above the mean of 50.
        assert_eq!(slowest_of(100, 0.5, 64), 65);
    }

    #[test]
    fn shares_of_counts_are_whole_where_they_should_be() {
        for total in 1..=300_u64 {
            for live in 0..=total {
                let density = live as f64 / total as f64;
                for times in [1, 7, 1 << 20] {
                    assert_eq!(
                        scaled(u128::from(total * times), density),
                        u128::from(live * times),
                        "{live} of {total}"
                    );
                    assert_eq!(slowest_of(total * times, density, 1), live * times, "{live} of {total}");
                }
            }
        }
        // What is not whole goes up, however little is missing or too much.
        assert_eq!((scaled(1 << 20, 1e-9), scaled(1 << 20, 0.5 + 1e-9)), (1, (1 << 19) + 1));
    }

    #[test]
    fn the_slowest_level_decides_and_only_drams_ends_are_bare() {
        use core_tensor::workload::{Layer, Operator};
        let mut accelerator = Accelerator::preset("diannao-like").unwrap();
        let task = Task::new(&Layer::new("fc", Operator::linear(64, 64)), 1, Pass::Forward).unwrap();
        let mut stalled = |bandwidths: [Option<u64>; 3]| {
            for (level, bandwidth) in accelerator.memory.iter_mut().zip(bandwidths) {
                level.bandwidth_bits = bandwidth;
            }
            price(&accelerator, &task).unwrap()
        };
        let free = stalled([None; 3]);
        let fast = Some(1 << 32);
        assert_eq!(stalled([fast, None, None]).stall_cycles, 2);
        assert_eq!((free.stall_cycles, stalled([None, fast, fast]).stall_cycles), (0, 0));
        for slow in [1, 2] {
            let mut bandwidths = [None, fast, fast];
            bandwidths[slow] = Some(1);
            assert_eq!(stalled(bandwidths).cycles(), free.level_bits(slow));
        }
    }

    #[test]
    fn weight_gradients_stay_on_chip_while_pixels_pass_by() {
        use core_tensor::workload::{Layer, Operator};
        let mut accelerator = Accelerator::preset("tpu-like").unwrap();
        // Tiles of 1,024 bits: half of 256 bytes.
        for level in &mut accelerator.memory[1..] {
            level.capacity_bytes = Some(256 * level.holds.len() as u64);
        }
        let layer = Layer::new("fc", Operator::linear(64, 64));
        // In tiles: inputs of 10, weights (here: the errors) of 4.
        let moved = |pass, output: u128| {
            let task = Task::new(&layer, 1, pass).unwrap();
            let flows = Flows::new(&accelerator).memory(&task, [10 * 1024, 4 * 1024, output]);
            let bits = |level: bool, operand, written: bool| -> u128 {
                let these = flows.iter().filter(|flow| (flow.level > 0) == level && flow.operand == operand);
                these.map(|flow| if written { flow.write_bits } else { flow.read_bits }).sum()
            };
            let fetched = bits(false, OperandKind::Input, false) + bits(false, OperandKind::Weight, false);
            (fetched / 1024, bits(true, OperandKind::Output, true), bits(false, OperandKind::Output, true))
        };
        // Weights stay, inputs pass by four times.
        assert_eq!(moved(Pass::Forward, 512), (10 * 4 + 4, 0, 512));
        // All gradients stay; after each of ten chunks of pixels but the last, partial sums are written to be read again.
        assert_eq!(moved(Pass::WeightGradient, 512), (10 + 4, 9 * 512, 512));
        // Three chunks of gradients: the errors pass by three times, the inputs once.
        assert_eq!(moved(Pass::WeightGradient, 2560), (10 + 3 * 4, 9 * 2560, 2560));
        // A hundred chunks of gradients are more than either operand has.
        assert_eq!(moved(Pass::WeightGradient, 102_400), (10 * 4 + 4, 0, 102_400));
    }
}
