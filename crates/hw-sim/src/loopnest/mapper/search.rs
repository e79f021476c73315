//! The best mapping of a space: enumerated where it is small, sampled where it is not.

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::Objective;
use super::mapping::Factors;
use super::problem::Problem;
use super::space::Space;
use crate::error::HwError;

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

impl Problem<'_> {
    pub(super) fn search(&self, name: &str) -> Result<Factors, HwError> {
        let pairs = self.pairs();
        let score = |index: u64, factors: Factors| -> Option<Scored> {
            let counts = self.count(&factors)?;
            let (cycles, energy) = self.cycles_and_energy(&counts);
            let delay = cycles as f64;
            let varying = energy + self.static_pj_per_cycle * delay;
            let (primary, secondary) = match self.engine.objective {
                Objective::Cycles => (delay, energy),
                Objective::Energy => (varying, delay),
                Objective::EnergyDelay => ((varying + self.mac_pj) * delay, varying),
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
}
