//! Cycles and energy of what was counted.

use super::count::Counts;
use super::problem::Problem;
use crate::engine::{Activity, Flow};
use crate::task::OperandKind;

pub(super) const INPUT: usize = OperandKind::Input as usize;
pub(super) const WEIGHT: usize = OperandKind::Weight as usize;
pub(super) const OUTPUT: usize = OperandKind::Output as usize;

impl Problem<'_> {
    /// Bits of one operand at one level.
    fn word_bits(&self, counts: &Counts, level: usize, operand: usize) -> u64 {
        if level == 0 && operand == OUTPUT && !counts.spills { self.output_bits } else { self.bits[operand] }
    }

    /// Cycles with stalls, and the energy of memories and of words on their way.
    pub(super) fn cycles_and_energy(&self, counts: &Counts) -> (u64, f64) {
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

    pub(super) fn activity(&self, counts: &Counts) -> Activity {
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
            mac_pj: self.mac_pj,
            network_pj: hops * self.engine.hop_pj_per_bit * groups as f64,
            flows,
            first_load_bits: u128::from(ends[0]),
            last_store_bits: u128::from(ends[1]),
            ..Activity::default()
        }
    }
}
