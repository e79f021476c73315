//! Accesses of a mapping, level by level, without allocating.

use super::mapping::{Factors, GROUPS, MAX_LEVELS, ORDERS};
use super::problem::Problem;
use crate::loopnest::nest::footprint;
use crate::task::OperandKind;

/// Words read from and written to each level by each operand, of one group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) reads: [[u64; 3]; MAX_LEVELS],
    pub(super) writes: [[u64; 3]; MAX_LEVELS],
    /// Words into, out of and between elements, by operand.
    pub(super) network: [u64; 3],
    pub(super) cycles: u64,
    /// Words of the first tiles from DRAM, and of the last output tile.
    pub(super) ends: [u64; 2],
    /// Whether partial sums return to DRAM.
    pub(super) spills: bool,
}

impl Problem<'_> {
    /// Words of each operand's tile at each level but DRAM, or the innermost level that its tiles exceed and their bits.
    pub(super) fn tiles(&self, factors: &Factors) -> Result<[[u64; 3]; MAX_LEVELS], (usize, u64)> {
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
                let words = match (operand, footprint(operand, &extent, self.shape.stride, self.shape.dilation)) {
                    (OperandKind::Output, iterations) => self.outputs.of(iterations),
                    (_, words) => words,
                };
                tiles[level][operand as usize] = words;
                if self.holds[level][operand as usize] {
                    used = used.saturating_add(words.saturating_mul(self.bits[operand as usize]));
                }
            }
            if used > self.room[level] {
                return Err((level, used));
            }
        }
        Ok(tiles)
    }

    /// Accesses of a mapping; `None` when a tile exceeds its level.
    pub(super) fn count(&self, factors: &Factors) -> Option<Counts> {
        let depth = self.levels.len();
        let private = self.engine.first_private_level.min(depth);
        let tiles = self.tiles(factors).ok()?;
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
}
