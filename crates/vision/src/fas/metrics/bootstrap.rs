//! Intervals by resampling, sorted once: a replicate is a weight a sample and one walk through the order.

use super::scored::Scored;
use crate::fas::synth::hash;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Rates of one resampled set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Replicate {
    pub(crate) hter: f64,
    pub(crate) auc: f64,
    pub(crate) acer: f64,
    pub(crate) bpcer: f64,
    pub(crate) eer: f64,
}

/// A set in the order of its scores.
pub(crate) struct Ordered {
    entries: Vec<Entry>,
    /// Entries from here on are accepted.
    accepted_from: usize,
    species: usize,
    /// For each resampled unit (a person, or a sample by itself), in what stratum it is drawn.
    strata: Vec<Vec<u32>>,
    units: usize,
}

struct Entry {
    unit: u32,
    /// 0 for live, else 1 + species.
    class: u32,
    /// Whether the next entry has a higher score.
    last_of_ties: bool,
}

impl Ordered {
    /// Orders finite scores. Units are people where every score has one, else single samples drawn within their class.
    pub(crate) fn new(scores: &[Scored], threshold: f64, level: usize) -> Self {
        let by_subject = scores.iter().all(|scored| scored.subject.is_some());
        let mut sorted: Vec<&Scored> = scores.iter().filter(|scored| scored.score.is_finite()).collect();
        sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
        let mut names: BTreeMap<String, u32> = BTreeMap::new();
        let mut people: BTreeMap<u32, u32> = BTreeMap::new();
        let mut strata = vec![Vec::new(), Vec::new()];
        let mut entries = Vec::with_capacity(sorted.len());
        for (at, scored) in sorted.iter().enumerate() {
            let class = if scored.bona_fide {
                0
            } else {
                let next = names.len() as u32 + 1;
                *names.entry(scored.species_at(level)).or_insert(next)
            };
            let unit = match scored.subject.filter(|_| by_subject) {
                Some(subject) => {
                    let next = people.len() as u32;
                    *people.entry(subject).or_insert_with(|| {
                        strata[0].push(next);
                        next
                    })
                }
                None => {
                    strata[usize::from(!scored.bona_fide)].push(at as u32);
                    at as u32
                }
            };
            let last_of_ties = sorted.get(at + 1).is_none_or(|next| next.score > scored.score);
            entries.push(Entry { unit, class, last_of_ties });
        }
        strata.retain(|stratum| !stratum.is_empty());
        let units = if by_subject { people.len() } else { entries.len() };
        let accepted_from = sorted.partition_point(|scored| scored.score < threshold);
        Self { entries, accepted_from, species: names.len(), strata, units }
    }

    /// Resamples `count` times; a draw without one of the classes is left out.
    pub(crate) fn replicates(&self, count: usize, seed: u64) -> Vec<Replicate> {
        (0..count)
            .into_par_iter()
            .map_init(
                || vec![0_u16; self.units],
                |weights, replicate| {
                    self.draw(weights, ChaCha8Rng::seed_from_u64(hash(seed, "bootstrap", replicate as u64, 0)));
                    self.walk(weights)
                },
            )
            .flatten()
            .collect()
    }

    fn draw(&self, weights: &mut [u16], mut random: ChaCha8Rng) {
        weights.fill(0);
        for stratum in &self.strata {
            let size = stratum.len() as u64;
            let mut spare = None;
            for _ in 0..stratum.len() {
                let bits: u32 = spare.take().unwrap_or_else(|| {
                    let both = random.next_u64();
                    spare = Some((both >> 32) as u32);
                    both as u32
                });
                // A multiplication instead of a division; its bias is below size / 2³².
                let which = (u64::from(bits) * size) >> 32;
                let weight = &mut weights[stratum[which as usize] as usize];
                *weight = weight.saturating_add(1);
            }
        }
    }

    /// The rates with every entry counted as often as its unit was drawn.
    pub(crate) fn walk(&self, weights: &[u16]) -> Option<Replicate> {
        let mut totals = vec![0_u64; self.species + 1];
        let mut rejected = vec![0_u64; self.species + 1];
        let (mut attacks_below, mut live_below) = (0_u64, 0_u64);
        let (mut tied_live, mut tied_attacks) = (0_u64, 0_u64);
        let mut twice_auc = 0_u128;
        let count = |class: u32| -> u64 {
            let of = self.entries.iter().filter(|entry| (entry.class == 0) == (class == 0));
            of.map(|entry| u64::from(weights[entry.unit as usize])).sum()
        };
        let (lives, attacks) = (count(0), count(1));
        if lives == 0 || attacks == 0 {
            return None;
        }
        // |FRR − FAR| in units of 1 / (lives · attacks); with it the sum of both.
        let mut best = (i128::from(lives) * i128::from(attacks), i128::from(lives) * i128::from(attacks));
        for (at, entry) in self.entries.iter().enumerate() {
            let weight = u64::from(weights[entry.unit as usize]);
            let class = entry.class as usize;
            totals[class] += weight;
            if at < self.accepted_from {
                rejected[class] += weight;
            }
            if class == 0 {
                tied_live += weight;
            } else {
                tied_attacks += weight;
            }
            if entry.last_of_ties {
                twice_auc += u128::from(tied_live) * u128::from(2 * attacks_below + tied_attacks);
                attacks_below += tied_attacks;
                live_below += tied_live;
                (tied_live, tied_attacks) = (0, 0);
                let frr = i128::from(live_below) * i128::from(attacks);
                let far = i128::from(attacks - attacks_below) * i128::from(lives);
                best = best.min(((frr - far).abs(), frr + far));
            }
        }
        let share = |part: u64, whole: u64| part as f64 / whole as f64;
        let bpcer = share(rejected[0], lives);
        let accepted: u64 = (1..=self.species).map(|s| totals[s] - rejected[s]).sum();
        let present = (1..=self.species).filter(|&s| totals[s] > 0);
        let apcer = present.map(|s| share(totals[s] - rejected[s], totals[s])).fold(0.0, f64::max);
        let pairs = lives as f64 * attacks as f64;
        Some(Replicate {
            hter: 0.5 * (share(accepted, attacks) + bpcer),
            auc: twice_auc as f64 / (2.0 * pairs),
            acer: 0.5 * (apcer + bpcer),
            bpcer,
            eer: best.1 as f64 / (2.0 * pairs),
        })
    }

    /// The rates as they are.
    #[cfg(test)]
    pub(crate) fn undisturbed(&self) -> Option<Replicate> {
        self.walk(&vec![1; self.units])
    }
}

/// The 2.5 % and 97.5 % quantiles, linear between order statistics; `None` of nothing.
pub(crate) fn percentiles(mut values: Vec<f64>) -> Option<[f64; 2]> {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let quantile = |q: f64| {
        let position = q * last as f64;
        let below = position as usize;
        let above = (below + 1).min(last);
        values[below] + (position - below as f64) * (values[above] - values[below])
    };
    Some([quantile(0.025), quantile(0.975)])
}
