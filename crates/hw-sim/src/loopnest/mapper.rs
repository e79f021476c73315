//! Mappings whose tiles change at level boundaries, their cost, and the search over them.
//!
//! A mapping splits each loop over the memory levels and over the two axes of the array. Loops of a level fall into
//! three groups that leave one operand alone each: N, Y, X the weight, K the input, C, R, S the output. Only the order
//! of the groups matters to the counts, so the search orders groups, not loops. Small spaces are enumerated; larger ones
//! are sampled with a seed. Results do not depend on the number of threads.

use rand::Rng as _;
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

/// The mapping space: array axes, a place for every prime factor of every loop, an order at every level.
struct Space {
    choices: Vec<Choice>,
    depth: usize,
    size: u128,
}

struct Choice {
    rows: (Dim, u64),
    cols: (Dim, u64),
    /// `(loop, prime, how often)`.
    primes: Vec<(Dim, u64, u32)>,
    size: u128,
}

impl Space {
    fn new(problem: &Problem<'_>, pairs: &[(Bound, Bound)]) -> Self {
        let depth = problem.levels.len();
        let orders = 6_u128.pow(depth as u32);
        let choices: Vec<Choice> = pairs
            .iter()
            .map(|&(rows, cols)| {
                let left = problem.remaining(rows, cols);
                let primes: Vec<_> = Dim::ALL
                    .into_iter()
                    .flat_map(|dim| factorise(left[dim as usize]).into_iter().map(move |(p, e)| (dim, p, e)))
                    .collect();
                let places =
                    primes.iter().fold(1_u128, |total, &(_, _, times)| total.saturating_mul(ways(times, depth)));
                Choice { rows, cols, primes, size: places.saturating_mul(orders) }
            })
            .collect();
        let size = choices.iter().fold(0_u128, |total, choice| total.saturating_add(choice.size));
        Self { choices, depth, size }
    }

    fn nth(&self, index: u64) -> Factors {
        let mut index = u128::from(index);
        let mut chosen = &self.choices[0];
        for choice in &self.choices {
            chosen = choice;
            if index < choice.size {
                break;
            }
            index -= choice.size;
        }
        let mut take = |radix: u128| {
            let digit = index % radix;
            index /= radix;
            digit
        };
        let mut order = [0; MAX_LEVELS];
        for slot in &mut order[..self.depth] {
            *slot = take(6) as u8;
        }
        let mut temporal = [[1_u64; 7]; MAX_LEVELS];
        for &(dim, prime, times) in &chosen.primes {
            let mut which = take(ways(times, self.depth));
            let mut left = times;
            for (level, bounds) in temporal[..self.depth].iter_mut().enumerate() {
                // The number of copies at this level, by counting how many arrangements each number leaves.
                let mut copies = 0;
                if level + 1 == self.depth {
                    copies = left;
                } else {
                    loop {
                        let rest = ways(left - copies, self.depth - level - 1);
                        if which < rest {
                            break;
                        }
                        which -= rest;
                        copies += 1;
                    }
                }
                bounds[dim as usize] *= prime.pow(copies);
                left -= copies;
            }
        }
        Factors { temporal, order, rows: chosen.rows, cols: chosen.cols }
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> Factors {
        let choice = &self.choices[random.random_range(0..self.choices.len())];
        let mut temporal = [[1_u64; 7]; MAX_LEVELS];
        // Inner levels are smaller by orders of magnitude: how much of each loop they get varies from draw to draw.
        let inner_share: f32 = random.random_range(0.0..0.9);
        let mut order = [0; MAX_LEVELS];
        for slot in &mut order[..self.depth] {
            *slot = random.random_range(0..6);
        }
        for &(dim, prime, times) in &choice.primes {
            for _ in 0..times {
                let mut level = 0;
                while level + 1 < self.depth && random.random::<f32>() < inner_share {
                    level += 1;
                }
                temporal[level][dim as usize] *= prime;
            }
        }
        Factors { temporal, order, rows: choice.rows, cols: choice.cols }
    }
}

/// Ways to spread `times` equal factors over `levels` levels.
fn ways(times: u32, levels: usize) -> u128 {
    let (top, bottom) = (u128::from(times) + levels as u128 - 1, levels as u128 - 1);
    (0..bottom).fold(1, |total, step| total * (top - step) / (step + 1))
}

/// Prime factors of a loop bound; what is left beyond 2^16 counts as one factor, so that any size is done quickly.
fn factorise(mut value: u64) -> Vec<(u64, u32)> {
    let mut factors = Vec::new();
    let mut divisor = 2;
    while divisor * divisor <= value && divisor < 1 << 16 {
        let mut times = 0;
        while value.is_multiple_of(divisor) {
            value /= divisor;
            times += 1;
        }
        if times > 0 {
            factors.push((divisor, times));
        }
        divisor += 1;
    }
    if value > 1 {
        factors.push((value, 1));
    }
    factors
}

#[cfg(test)]
mod tests {
    use super::super::nest::{Access, LoopNest, Step};
    use super::*;
    use crate::Accelerator;
    use crate::engine::Engine;
    use core_tensor::workload::{Layer, Operator, Pass};
    use proptest::prelude::*;

    fn accelerator() -> (Accelerator, LoopNestEngine) {
        let accelerator = Accelerator::preset("eyeriss-mapped").unwrap();
        match accelerator.engine {
            Engine::LoopNest(engine) => (accelerator.clone(), engine),
            ref other => panic!("the preset holds {other:?}"),
        }
    }

    fn conv(c: u64, k: u64, size: u64, kernel: u64, stride: u64) -> Task {
        let mut layer = Layer::new("c", Operator::conv2d(c, k, kernel, stride, 0, [size; 2]));
        (layer.weight.bits, layer.activation.bits) = (8, 8);
        Task::new(&layer, 1, Pass::Forward).unwrap()
    }

    /// The same nest, loop by loop.
    fn written_out(problem: &Problem<'_>, factors: &Factors) -> LoopNest {
        let mut steps = Vec::new();
        for level in 0..problem.levels.len() {
            if level == problem.engine.first_private_level {
                steps.push(Step::Spatial(factors.rows.0, factors.rows.1));
                steps.push(Step::Spatial(factors.cols.0, factors.cols.1));
            }
            if level > 0 {
                steps.extend(OperandKind::ALL.map(|operand| Step::Keep(operand, level)));
            }
            for &group in &ORDERS[factors.order[level] as usize] {
                // Loops of one iteration are no loops.
                let loops = GROUPS[group].iter().map(|&dim| (dim, factors.temporal[level][dim as usize]));
                steps.extend(loops.filter(|&(_, bound)| bound > 1).map(|(dim, bound)| Step::Loop(dim, bound)));
            }
        }
        LoopNest { steps, stride: problem.shape.stride, dilation: problem.shape.dilation }
    }

    #[test]
    fn a_register_file_is_accessed_four_times_a_mac() {
        let (accelerator, engine) = accelerator();
        let task = conv(16, 32, 14, 3, 1);
        let problem = Problem::new(&engine, &accelerator, &task).unwrap();
        let counts = problem.count(&problem.trivial()).unwrap();
        let registers = accelerator.memory.len() - 1;
        let macs = task.shape.macs();
        // One weight, one input, one partial sum read and one written, besides what moves in and out of it.
        let inner = |index: usize| counts.reads[registers][index];
        assert_eq!(inner(INPUT) + inner(WEIGHT), 2 * macs);
        assert!(inner(OUTPUT) >= macs && counts.writes[registers][OUTPUT] >= macs);
    }

    #[test]
    fn enumeration_visits_every_arrangement_once() {
        assert_eq!((ways(0, 3), ways(2, 3), ways(5, 1)), (1, 6, 1));
        let (accelerator, engine) = accelerator();
        let task = conv(2, 3, 5, 1, 1);
        let problem = Problem::new(&engine, &accelerator, &task).unwrap();
        let space = Space::new(&problem, &problem.pairs());
        let mut seen: Vec<String> = (0..space.size as u64).map(|index| format!("{:?}", space.nth(index))).collect();
        seen.sort();
        let total = seen.len();
        seen.dedup();
        assert_eq!(seen.len(), total);
    }

    #[test]
    fn a_level_too_small_for_a_word_is_named() {
        let (mut accelerator, engine) = accelerator();
        accelerator.memory[2].capacity_bytes = Some(1);
        let error = engine.map(&accelerator, &conv(4, 4, 8, 3, 1)).unwrap_err();
        assert!(error.to_string().contains("rf"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_fast_count_equals_the_written_out_nest(c in 1_u64..20, k in 1_u64..20, size in 3_u64..20, kernel in 1_u64..4, stride in 1_u64..3, seed in any::<u64>()) {
            let (accelerator, engine) = accelerator();
            let task = conv(c, k, size, kernel, stride);
            let mut problem = Problem::new(&engine, &accelerator, &task).unwrap();
            problem.room = [u64::MAX; MAX_LEVELS];
            problem.holds = [[true; 3]; MAX_LEVELS];
            let pairs = problem.pairs();
            let space = Space::new(&problem, &pairs);
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            for _ in 0..20 {
                let factors = space.draw(&mut random);
                let counts = problem.count(&factors).unwrap();
                let accesses = written_out(&problem, &factors).accesses().unwrap();
                let get = |operand: OperandKind, level: usize| -> Access {
                    *accesses.iter().find(|a| a.operand == operand && a.level == level).unwrap()
                };
                for operand in [OperandKind::Input, OperandKind::Weight] {
                    prop_assert_eq!(counts.reads[0][operand as usize], get(operand, 1).outer_words());
                    prop_assert_eq!(counts.writes[1][operand as usize], get(operand, 1).inner_words());
                    prop_assert_eq!(counts.reads[1][operand as usize], get(operand, 2).outer_words());
                    prop_assert_eq!(counts.writes[2][operand as usize], get(operand, 2).inner_words());
                }
                let output = get(OperandKind::Output, 1);
                prop_assert_eq!(counts.writes[0][OUTPUT] + counts.reads[0][OUTPUT], output.outer_words());
                let inner = get(OperandKind::Output, 2);
                let drained = output.fills * output.footprint;
                prop_assert_eq!(counts.writes[1][OUTPUT], inner.fills * inner.footprint * inner.distinct + counts.reads[0][OUTPUT]);
                prop_assert_eq!(counts.reads[1][OUTPUT], drained + inner.outer_words() - inner.fills * inner.footprint * inner.distinct);
                // Every MAC is done: iterations times the array cover the loops.
                prop_assert!(counts.cycles * factors.rows.1 * factors.cols.1 >= task.shape.macs());
                let words = task.shape.words;
                prop_assert!(counts.reads[0][INPUT] >= words[0] && counts.reads[0][WEIGHT] >= words[1]);
                prop_assert!(counts.writes[0][OUTPUT] >= words[2]);
            }
        }

        #[test]
        fn more_room_or_bandwidth_never_costs_cycles(c in 1_u64..40, k in 1_u64..40, size in 3_u64..30, grow in 1_u64..5, bandwidth in 1_u64..200) {
            let (mut accelerator, mut engine) = accelerator();
            engine.candidates = 300;
            let task = conv(c, k, size, 3, 1);
            let cycles = |accelerator: &Accelerator| {
                let problem = Problem::new(&engine, accelerator, &task).unwrap();
                let counts = problem.count(&problem.search("c").unwrap()).unwrap();
                problem.cycles_and_energy(&counts).0
            };
            accelerator.memory[0].bandwidth_bits = Some(bandwidth);
            let before = cycles(&accelerator);
            prop_assert!(before <= engine.default_cycles(&accelerator, &task).unwrap());
            let mut larger = accelerator.clone();
            larger.memory[1].capacity_bytes = larger.memory[1].capacity_bytes.map(|bytes| bytes * (1 + grow));
            larger.memory[2].capacity_bytes = larger.memory[2].capacity_bytes.map(|bytes| bytes * (1 + grow));
            prop_assert!(cycles(&larger) <= before);
            accelerator.memory[0].bandwidth_bits = Some(bandwidth + grow);
            prop_assert!(cycles(&accelerator) <= before);
        }
    }
}
