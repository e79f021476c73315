//! The space of mappings: numbered one by one, or drawn from.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::mapping::{Bound, Factors, MAX_LEVELS};
use super::problem::Problem;
use crate::loopnest::Dim;

/// The mapping space: array axes, a place for every prime factor of every loop, an order at every level.
pub(super) struct Space {
    choices: Vec<Choice>,
    depth: usize,
    pub(super) size: u128,
}

struct Choice {
    rows: (Dim, u64),
    cols: (Dim, u64),
    /// `(loop, prime, how often)`.
    primes: Vec<(Dim, u64, u32)>,
    size: u128,
}

impl Space {
    pub(super) fn new(problem: &Problem<'_>, pairs: &[(Bound, Bound)]) -> Self {
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

    pub(super) fn nth(&self, index: u64) -> Factors {
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

    pub(super) fn draw(&self, random: &mut ChaCha8Rng) -> Factors {
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
pub(super) fn ways(times: u32, levels: usize) -> u128 {
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
