//! Mappings whose tiles change at level boundaries, their cost, and the search over them.
//!
//! A mapping splits each loop over the memory levels and over the two axes of the array. Loops of a level fall into
//! three groups that leave one operand alone each: N, Y, X the weight, K the input, C, R, S the output. Only the order
//! of the groups matters to the counts, so the search orders groups, not loops. Small spaces are enumerated; larger ones
//! are sampled with a seed. Results do not depend on the number of threads.

mod space;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Dim;
use super::nest::footprint;
use crate::accelerator::{Accelerator, MemoryLevel};
use crate::engine::{Activity, Flow, passes, side, width};
use crate::error::HwError;
use crate::task::{OperandKind, Shape, Task};
use space::Space;

/// A `rows × cols` array under any memory levels, mapped by search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopNestEngine {
    /// Rows of processing elements.
    pub rows: u64,
    /// Columns of processing elements.
    pub cols: u64,
    /// Levels from this index on lie in each element; those before are shared.
    pub first_private_level: usize,
    /// Bits of partial sums on chip.
    pub partial_sum_bits: u8,
    /// Energy of moving one bit into or between elements, in pJ.
    #[serde(default)]
    pub hop_pj_per_bit: f64,
    /// Bits of a multiplier; wider operands take several passes.
    pub multiplier_bits: u8,
    /// What to minimise.
    #[serde(default)]
    pub objective: Objective,
    /// Mappings to try a layer; a space that is no larger is enumerated instead.
    #[serde(default = "ten_thousand")]
    pub candidates: usize,
    /// Seed of the sampling.
    #[serde(default)]
    pub seed: u64,
}

fn ten_thousand() -> usize {
    10_000
}

/// What a mapping is chosen for; ties are broken by the other quantity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Fewest cycles.
    #[default]
    Cycles,
    /// Least energy.
    Energy,
    /// Least product of both.
    EnergyDelay,
}

const MAX_LEVELS: usize = 8;
/// Loops of a level by group; the group leaves one operand alone.
const GROUPS: [&[Dim]; 3] = [&[Dim::N, Dim::Y, Dim::X], &[Dim::K], &[Dim::C, Dim::R, Dim::S]];
/// Orders of the groups, outermost first.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
const INPUT: usize = OperandKind::Input as usize;
const WEIGHT: usize = OperandKind::Weight as usize;
const OUTPUT: usize = OperandKind::Output as usize;

/// A loop and its bound.
type Bound = (Dim, u64);

/// A mapping in compact form: what the search works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factors {
    /// Bounds of each loop at each level, outermost first.
    pub temporal: [[u64; 7]; MAX_LEVELS],
    /// Order of the groups at each level: an index into the six orders.
    pub order: [u8; MAX_LEVELS],
    /// The loop over the rows and its bound.
    pub rows: (Dim, u64),
    /// The loop over the columns and its bound.
    pub cols: (Dim, u64),
}

/// A mapping for people: loops of more than one iteration, outermost first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// Loops at each memory level.
    pub levels: Vec<Vec<(Dim, u64)>>,
    /// The loop over the rows.
    pub rows: (Dim, u64),
    /// The loop over the columns.
    pub cols: (Dim, u64),
}

/// Everything about the machine and the layer that does not change from mapping to mapping.
struct Problem<'a> {
    engine: &'a LoopNestEngine,
    levels: &'a [MemoryLevel],
    shape: Shape,
    sizes: [u64; 7],
    bits: [u64; 3],
    output_bits: u64,
    repeats: u64,
    holds: [[bool; 3]; MAX_LEVELS],
    /// pJ a bit read and written.
    energy: [[f64; 2]; MAX_LEVELS],
    room: [u64; MAX_LEVELS],
}

/// Words read from and written to each level by each operand, of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    reads: [[u64; 3]; MAX_LEVELS],
    writes: [[u64; 3]; MAX_LEVELS],
    /// Words into, out of and between elements, by operand.
    network: [u64; 3],
    cycles: u64,
    /// Words of the first tiles from DRAM, and of the last output tile.
    ends: [u64; 2],
    /// Whether partial sums return to DRAM.
    spills: bool,
}

#[derive(Debug, Clone, Copy)]
struct Scored {
    primary: f64,
    secondary: f64,
    index: u64,
    factors: Factors,
}

impl Scored {
    fn better(self, other: Self) -> Self {
        let key = |a: &Self, b: &Self| {
            a.primary.total_cmp(&b.primary).then(a.secondary.total_cmp(&b.secondary)).then(a.index.cmp(&b.index))
        };
        if key(&other, &self).is_lt() { other } else { self }
    }
}

impl LoopNestEngine {
    pub(crate) fn validate(&self) -> Result<(), HwError> {
        side("loop_nest", &[("rows", self.rows), ("cols", self.cols)])?;
        width("loop_nest", "multiplier_bits", self.multiplier_bits)?;
        width("loop_nest", "partial_sum_bits", self.partial_sum_bits)?;
        if self.first_private_level == 0 {
            return Err(HwError::field("engine loop_nest", "first_private_level", "at least 1: DRAM is shared", 0));
        }
        if !(1..=10_000_000).contains(&self.candidates) {
            return Err(HwError::field("engine loop_nest", "candidates", "1 to 10 000 000", self.candidates));
        }
        if !(self.hop_pj_per_bit.is_finite() && self.hop_pj_per_bit >= 0.0) {
            return Err(HwError::field("engine loop_nest", "hop_pj_per_bit", "not negative", self.hop_pj_per_bit));
        }
        Ok(())
    }

    /// The best mapping of a task.
    ///
    /// # Errors
    /// A task that fits no mapping.
    pub fn map(&self, accelerator: &Accelerator, task: &Task) -> Result<Mapping, HwError> {
        let problem = Problem::new(self, accelerator, task)?;
        Ok(problem.describe(&problem.search(&task.name)?))
    }

    /// The mapping that everything is compared with: each loop at DRAM, tiles of one word, the array filled.
    ///
    /// # Errors
    /// A level that does not hold one word of each operand.
    pub fn default_cycles(&self, accelerator: &Accelerator, task: &Task) -> Result<u64, HwError> {
        let problem = Problem::new(self, accelerator, task)?;
        let factors = problem.trivial();
        let counts = problem.count(&factors).ok_or_else(|| problem.no_fit(&task.name))?;
        Ok(problem.cycles_and_energy(&counts).0)
    }

    pub(crate) fn activity(&self, accelerator: &Accelerator, task: &Task) -> Result<Activity, HwError> {
        let problem = Problem::new(self, accelerator, task)?;
        let factors = problem.search(&task.name)?;
        let counts = problem.count(&factors).ok_or_else(|| problem.no_fit(&task.name))?;
        Ok(problem.activity(accelerator, task, &counts))
    }
}

impl<'a> Problem<'a> {
    fn new(engine: &'a LoopNestEngine, accelerator: &'a Accelerator, task: &Task) -> Result<Self, HwError> {
        let shape = task.shape;
        let levels = &accelerator.memory;
        let mut problem = Self {
            engine,
            levels,
            shape,
            sizes: [shape.n, shape.k, shape.c, shape.y, shape.x, shape.r, shape.s],
            bits: [u64::from(task.input.bits), u64::from(task.weight.bits), u64::from(engine.partial_sum_bits)],
            output_bits: u64::from(task.output_bits),
            repeats: u64::try_from(passes(task, engine.multiplier_bits)).unwrap_or(u64::MAX),
            holds: [[false; 3]; MAX_LEVELS],
            energy: [[0.0; 2]; MAX_LEVELS],
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
        let bound =
            padded.saturating_mul(reach[0]).saturating_mul(reach[1]).saturating_mul(u128::from(problem.repeats));
        if bound > 1 << 62 {
            return Err(HwError::Overflow { layer: task.name.clone(), quantity: "accesses" });
        }
        Ok(problem)
    }

    fn no_fit(&self, name: &str) -> HwError {
        let word: u64 = self.bits.iter().max().copied().unwrap_or(0);
        let tightest = (1..self.levels.len()).min_by_key(|&level| self.room[level]).unwrap_or(0);
        let needed =
            OperandKind::ALL.iter().filter(|&&op| self.holds[tightest][op as usize]).map(|&op| self.bits[op as usize]);
        HwError::NoFit {
            layer: name.to_owned(),
            operand: "all operands",
            level: self.levels[tightest].name.clone(),
            needed: needed.sum::<u64>().max(word.min(1)),
            available: self.room[tightest],
        }
    }

    /// Candidate loops and bounds of one axis: as much as fits, for each loop that is worth spreading.
    fn axis(&self, side: u64) -> Vec<(Dim, u64)> {
        let mut choices: Vec<(Dim, u64)> = [Dim::K, Dim::C, Dim::Y, Dim::X, Dim::R, Dim::N]
            .into_iter()
            .filter(|&dim| self.sizes[dim as usize] > 1)
            .map(|dim| (dim, self.sizes[dim as usize].min(side)))
            .collect();
        if choices.is_empty() {
            choices.push((Dim::K, 1));
        }
        choices
    }

    /// Iterations left of each loop once the array is filled.
    fn remaining(&self, rows: (Dim, u64), cols: (Dim, u64)) -> [u64; 7] {
        let mut left = self.sizes;
        for (dim, bound) in [rows, cols] {
            left[dim as usize] = left[dim as usize].div_ceil(bound);
        }
        left
    }

    fn trivial(&self) -> Factors {
        let busiest = |rows: (Dim, u64), cols: (Dim, u64)| self.remaining(rows, cols).iter().product::<u64>();
        let pairs = self.pairs();
        let (rows, cols) =
            pairs.into_iter().min_by_key(|&(rows, cols)| busiest(rows, cols)).unwrap_or(((Dim::K, 1), (Dim::K, 1)));
        let mut temporal = [[1; 7]; MAX_LEVELS];
        temporal[0] = self.remaining(rows, cols);
        Factors { temporal, order: [0; MAX_LEVELS], rows, cols }
    }

    fn pairs(&self) -> Vec<(Bound, Bound)> {
        let (rows, cols) = (self.axis(self.engine.rows), self.axis(self.engine.cols));
        let mut pairs: Vec<_> = rows.iter().flat_map(|&row| cols.iter().map(move |&col| (row, col))).collect();
        pairs.retain(|&((a, _), (b, _))| a != b || self.sizes[a as usize] == 1);
        if pairs.is_empty() {
            // One loop alone is worth spreading: it takes the rows, or what is left of it the columns.
            pairs.extend(rows.iter().map(|&row| (row, (Dim::K, 1))));
            pairs.extend(cols.iter().map(|&col| ((Dim::K, 1), col)));
        }
        pairs
    }

    fn search(&self, name: &str) -> Result<Factors, HwError> {
        let pairs = self.pairs();
        let score = |index: u64, factors: Factors| -> Option<Scored> {
            let counts = self.count(&factors)?;
            let (cycles, energy) = self.cycles_and_energy(&counts);
            let (primary, secondary) = match self.engine.objective {
                Objective::Cycles => (cycles as f64, energy),
                Objective::Energy => (energy, cycles as f64),
                Objective::EnergyDelay => (energy * cycles as f64, energy),
            };
            Some(Scored { primary, secondary, index, factors })
        };
        let space = Space::new(self, &pairs);
        let best = if space.size <= self.engine.candidates as u128 {
            let all = (0..space.size as u64).into_par_iter();
            all.filter_map(|index| score(index + 1, space.nth(index))).reduce_with(Scored::better)
        } else {
            const CHUNK: u64 = 256;
            let chunks = (self.engine.candidates as u64).div_ceil(CHUNK);
            let sampled = (0..chunks).into_par_iter().filter_map(|chunk| {
                let mut random =
                    ChaCha8Rng::seed_from_u64(self.engine.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ chunk);
                let count = CHUNK.min(self.engine.candidates as u64 - chunk * CHUNK);
                let drawn = (0..count).filter_map(|index| {
                    let factors = space.draw(&mut random);
                    score(1 + chunk * CHUNK + index, factors)
                });
                drawn.reduce(Scored::better)
            });
            sampled.reduce_with(Scored::better)
        };
        let trivial = score(0, self.trivial());
        let best = match (trivial, best) {
            (Some(a), Some(b)) => Some(a.better(b)),
            (a, b) => a.or(b),
        };
        best.map(|scored| scored.factors).ok_or_else(|| self.no_fit(name))
    }

    /// Accesses of a mapping; `None` when a tile exceeds its level.
    fn count(&self, factors: &Factors) -> Option<Counts> {
        let depth = self.levels.len();
        let private = self.engine.first_private_level.min(depth);
        // What lies at a level spans all loops at it and inside it; the array's loops lie inside the shared levels.
        let mut extent = [1_u64; 7];
        let mut tiles = [[0_u64; 3]; MAX_LEVELS];
        for level in (1..depth).rev() {
            for (total, bound) in extent.iter_mut().zip(factors.temporal[level]) {
                *total *= bound;
            }
            if level + 1 == private {
                for (dim, bound) in [factors.rows, factors.cols] {
                    extent[dim as usize] *= bound;
                }
            }
            let mut used = 0_u64;
            for operand in OperandKind::ALL {
                let words = footprint(operand, &extent, self.shape.stride, self.shape.dilation);
                tiles[level][operand as usize] = words;
                if self.holds[level][operand as usize] {
                    used = used.saturating_add(words.saturating_mul(self.bits[operand as usize]));
                }
            }
            if used > self.room[level] {
                return None;
            }
        }

        let mut counts = Counts { cycles: 1, ..Counts::default() };
        for level in &factors.temporal[..depth] {
            counts.cycles *= level.iter().product::<u64>();
        }
        let spread = |operand: OperandKind| {
            let (mut distinct, mut shared) = (1, 1);
            for (dim, bound) in [factors.rows, factors.cols] {
                if dim.concerns(operand) {
                    distinct *= bound;
                } else {
                    shared *= bound;
                }
            }
            (distinct, shared)
        };
        for operand in OperandKind::ALL {
            let index = operand as usize;
            let (distinct, shared) = spread(operand);
            let mut outer = 0;
            for level in (1..depth).filter(|&level| self.holds[level][index]) {
                let (fills, reductions) = self.fills(factors, operand, level);
                let crosses = level >= private && outer < private;
                let copies = if level >= private { distinct } else { 1 };
                let words = fills * tiles[level][index] * copies;
                let sharers = if level >= private { shared } else { 1 };
                // Levels inside the array exchange with each element's own next level.
                let outer_words = if crosses { words } else { words * sharers };
                match operand {
                    OperandKind::Output => {
                        let returned = outer_words - outer_words / reductions;
                        counts.writes[outer][index] += outer_words;
                        counts.reads[outer][index] += returned;
                        counts.reads[level][index] += words * sharers;
                        counts.writes[level][index] += returned;
                        counts.spills |= outer == 0 && reductions > 1;
                    }
                    _ => {
                        counts.reads[outer][index] += outer_words;
                        counts.writes[level][index] += words * sharers;
                    }
                }
                if crosses {
                    counts.network[index] += words * sharers;
                }
                if outer == 0 {
                    counts.ends[0] += if operand == OperandKind::Output { 0 } else { tiles[level][index] * copies };
                    counts.ends[1] += if operand == OperandKind::Output { tiles[level][index] * copies } else { 0 };
                }
                outer = level;
            }
            // The multipliers themselves: a shared level serves all elements that want the same word at once.
            let macs = self.shape.macs() / self.shape.groups;
            let served = if outer >= private { macs } else { macs.div_ceil(shared) };
            counts.reads[outer][index] += served;
            if operand == OperandKind::Output {
                counts.writes[outer][index] += served;
            }
            if outer < private {
                counts.network[index] += macs;
            }
        }
        Some(counts)
    }

    /// Tiles that a level gets of an operand, and how many of them add to the same outputs.
    fn fills(&self, factors: &Factors, operand: OperandKind, level: usize) -> (u64, u64) {
        let (mut fills, mut reductions) = (1, 1);
        let mut free = true;
        for outer in (0..level).rev() {
            let bounds = &factors.temporal[outer];
            for &group in ORDERS[factors.order[outer] as usize].iter().rev() {
                let product: u64 = GROUPS[group].iter().map(|&dim| bounds[dim as usize]).product();
                let concerned: u64 =
                    GROUPS[group].iter().filter(|dim| dim.concerns(operand)).map(|&dim| bounds[dim as usize]).product();
                if free && concerned == 1 {
                    continue;
                }
                free = false;
                fills *= product;
                if operand == OperandKind::Output && group == 2 {
                    reductions *= product;
                }
            }
        }
        (fills, reductions)
    }

    /// Bits of one operand at one level.
    fn word_bits(&self, counts: &Counts, level: usize, operand: usize) -> u64 {
        if level == 0 && operand == OUTPUT && !counts.spills { self.output_bits } else { self.bits[operand] }
    }

    fn cycles_and_energy(&self, counts: &Counts) -> (u64, f64) {
        let groups = self.shape.groups;
        let compute = counts.cycles * groups * self.repeats;
        let mut stall = 0;
        let mut energy = 0.0;
        for (level, description) in self.levels.iter().enumerate() {
            let mut bits = 0;
            for operand in [INPUT, WEIGHT, OUTPUT] {
                let width = self.word_bits(counts, level, operand);
                let (reads, writes) = (counts.reads[level][operand] * width, counts.writes[level][operand] * width);
                bits += reads + writes;
                energy += reads as f64 * self.energy[level][0] + writes as f64 * self.energy[level][1];
            }
            if let Some(bandwidth) = description.bandwidth_bits {
                let ends = if level == 0 { self.end_bits(counts) } else { [0, 0] };
                let traffic = bits * groups;
                let boundary = crate::stall::DoubleBuffer {
                    compute,
                    traffic,
                    first_load: ends[0].min(traffic),
                    last_store: ends[1].min(traffic),
                };
                stall = stall.max(boundary.stall(bandwidth));
            }
        }
        let hops: f64 = (0..3).map(|operand| counts.network[operand] as f64 * self.bits[operand] as f64).sum();
        let total = (energy + hops * self.engine.hop_pj_per_bit) * groups as f64;
        (compute + stall, total)
    }

    fn end_bits(&self, counts: &Counts) -> [u64; 2] {
        let widest = self.bits[INPUT].max(self.bits[WEIGHT]);
        [counts.ends[0] * widest, counts.ends[1] * self.word_bits(counts, 0, OUTPUT)]
    }

    fn activity(&self, accelerator: &Accelerator, task: &Task, counts: &Counts) -> Activity {
        let groups = u128::from(self.shape.groups);
        let mut flows = Vec::with_capacity(3 * self.levels.len());
        for level in 0..self.levels.len() {
            for operand in OperandKind::ALL {
                let index = operand as usize;
                let (reads, writes) = (counts.reads[level][index], counts.writes[level][index]);
                if reads + writes > 0 {
                    let bits = self.word_bits(counts, level, index) as u8;
                    let words = |count: u64| u128::from(count) * groups;
                    flows.push(Flow::words(level, operand, words(reads), words(writes), bits));
                }
            }
        }
        let hops: f64 = (0..3).map(|operand| counts.network[operand] as f64 * self.bits[operand] as f64).sum();
        let ends = self.end_bits(counts);
        Activity {
            compute_cycles: u128::from(counts.cycles) * groups * u128::from(self.repeats),
            peak_macs: self.engine.rows as f64 * self.engine.cols as f64 / self.repeats as f64,
            mac_pj: task.shape.macs() as f64 * accelerator.mac_pj(task.input.bits, task.weight.bits),
            network_pj: hops * self.engine.hop_pj_per_bit * groups as f64,
            flows,
            first_load_bits: u128::from(ends[0]),
            last_store_bits: u128::from(ends[1]),
            ..Activity::default()
        }
    }

    fn describe(&self, factors: &Factors) -> Mapping {
        let levels = (0..self.levels.len()).map(|level| {
            let order = ORDERS[factors.order[level] as usize];
            let dims = order.iter().flat_map(|&group| GROUPS[group]);
            dims.map(|&dim| (dim, factors.temporal[level][dim as usize])).filter(|&(_, bound)| bound > 1).collect()
        });
        Mapping { levels: levels.collect(), rows: factors.rows, cols: factors.cols }
    }
}

#[cfg(test)]
mod tests;
