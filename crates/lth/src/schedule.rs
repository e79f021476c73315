//! How pruning is spread over rounds.

use crate::criterion::Criterion;
use crate::mask::MaskSet;
use crate::prunable::NamedTensor;
use crate::selector::{Amount, Selector};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The density after `rounds` rounds that each drop a fifth of the survivors, `0.8^rounds`: the ladder of the
/// lottery-ticket papers. Multiplied out one by one, so that every build has the same bits: those of `powi` depend on how
/// well the compiler optimises, and a density is part of a run's name.
///
/// ```
/// let percent: Vec<String> = [1, 2, 10, 16].map(|k| format!("{:.4}", 100. * (1. - lth::ladder_density(k)))).into();
/// assert_eq!(percent, ["20.0000", "36.0000", "89.2626", "97.1853"]);
/// ```
pub fn ladder_density(rounds: u32) -> f64 {
    (0..rounds).fold(1.0, |density, _| 0.8 * density)
}

/// The density at each round of pruning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum PruningSchedule {
    /// At once.
    OneShot {
        /// Share of the weights kept, in `(0, 1]`.
        density: f64,
    },
    /// A share of the survivors in each round: iterative magnitude pruning.
    Iterative {
        /// Share of the survivors dropped, in `[0, 1)`; 0.2 in the papers.
        rate: f64,
        /// Number of rounds.
        rounds: u32,
    },
    /// `density^((e + 1) / rounds)` after round `e`, counted from 0 (SynFlow, algorithm 1, with 100 rounds).
    Exponential {
        /// Share of the weights kept at the end, in `(0, 1]`.
        density: f64,
        /// Number of rounds.
        rounds: u32,
    },
    /// Sparsity `s_f + (s_i − s_f)·(1 − t/n)³` at `t = 0…n` (Zhu and Gupta, arXiv 1710.01878, equation 1).
    Cubic {
        /// Sparsity at the start, in `[0, 1)`; 0 in the paper.
        initial_sparsity: f64,
        /// Sparsity at the end, in `[0, 1)`, not below the initial one.
        final_sparsity: f64,
        /// Number of rounds after the first, `n`.
        rounds: u32,
    },
}

impl PruningSchedule {
    /// How much to prune in each round, in order.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn amounts(&self) -> Result<Vec<Amount>> {
        let check = |setting, value: f64, fine: bool, range: &str| {
            if fine { Ok(()) } else { Err(Error::setting(setting, range, value)) }
        };
        let some = |rounds: u32| check("rounds", rounds.into(), rounds > 0, "at least 1");
        let density = |value: f64| check("density", value, value > 0.0 && value <= 1.0, "in (0, 1]");
        match *self {
            Self::OneShot { density: kept } => {
                density(kept)?;
                Ok(vec![Amount::Density(kept)])
            }
            Self::Iterative { rate, rounds } => {
                check("rate", rate, (0.0..1.0).contains(&rate), "in [0, 1)")?;
                some(rounds)?;
                Ok(vec![Amount::Rate(rate); rounds as usize])
            }
            Self::Exponential { density: kept, rounds } => {
                density(kept)?;
                some(rounds)?;
                let at = |round: u32| Amount::Density(kept.powf(f64::from(round) / f64::from(rounds)));
                Ok((1..=rounds).map(at).collect())
            }
            Self::Cubic { initial_sparsity: initial, final_sparsity: last, rounds } => {
                check("initial_sparsity", initial, (0.0..1.0).contains(&initial), "in [0, 1)")?;
                check("final_sparsity", last, last >= initial && last < 1.0, "in [initial_sparsity, 1)")?;
                some(rounds)?;
                let sparsity = |round: u32| {
                    let left = 1.0 - f64::from(round) / f64::from(rounds);
                    last + (initial - last) * left.powi(3)
                };
                Ok((0..=rounds).map(|round| Amount::Density(1.0 - sparsity(round))).collect())
            }
        }
    }

    /// Runs all rounds on weights that are not trained in between: one-shot pruning, SNIP, GraSP, SynFlow.
    ///
    /// # Errors
    /// A setting outside its range, a selector with densities of its own ([`Selector::layer_densities`]), and what the
    /// criterion or the selector refuses.
    pub fn prune(&self, weights: &[NamedTensor], criterion: &dyn Criterion, selector: &Selector) -> Result<MaskSet> {
        let amounts = self.amounts()?;
        amounts.iter().try_for_each(|amount| selector.takes(*amount))?;
        let mut mask = MaskSet::ones_like(weights);
        for amount in amounts {
            let scores = criterion.score(weights, Some(&mask))?;
            mask = selector.prune(&scores, amount, Some(&mask))?;
        }
        Ok(mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criterion::Scores;

    /// Must not be asked.
    struct Unasked;

    impl Criterion for Unasked {
        fn name(&self) -> String {
            "unasked".into()
        }

        fn score(&self, _: &[NamedTensor], _: Option<&MaskSet>) -> Result<Scores> {
            panic!("scored")
        }
    }

    #[test]
    fn a_selector_with_densities_of_its_own_is_refused_before_anything_is_scored() {
        let weights = [("w".to_owned(), tch::Tensor::from_slice(&[1_f32, 2.0]))];
        let selector = Selector::layer_densities([("w".to_owned(), 0.5)].into_iter().collect());
        let refuse = |schedule: PruningSchedule| schedule.prune(&weights, &Unasked, &selector).unwrap_err().to_string();
        assert_eq!(
            refuse(PruningSchedule::OneShot { density: 0.5 }),
            "amount is Density(0.5), expected `AsScoped` with given densities"
        );
        assert_eq!(
            refuse(PruningSchedule::Iterative { rate: 0.2, rounds: 3 }),
            "amount is Rate(0.2), expected `AsScoped` with given densities"
        );
    }

    fn densities(schedule: PruningSchedule) -> Vec<f64> {
        let density = |amount| if let Amount::Density(density) = amount { density } else { f64::NAN };
        schedule.amounts().unwrap().into_iter().map(density).collect()
    }

    #[test]
    fn cubic_schedule_follows_zhu_and_gupta() {
        // s(t) for 0 → 0.9 in 10 steps, at t = 0, 2, …, 10, from the closed form.
        let schedule = PruningSchedule::Cubic { initial_sparsity: 0.0, final_sparsity: 0.9, rounds: 10 };
        let sparsities: Vec<f64> = densities(schedule).iter().step_by(2).map(|density| 1.0 - density).collect();
        for (found, expected) in sparsities.iter().zip([0.0, 0.4392, 0.7056, 0.8424, 0.8928, 0.9]) {
            assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
        }
        assert_eq!(sparsities.len(), 6);
    }

    #[test]
    fn exponential_schedule_follows_synflow() {
        // 0.01^(k/5), to the five digits printed.
        let found = densities(PruningSchedule::Exponential { density: 0.01, rounds: 5 });
        for (found, expected) in found.iter().zip([0.39811, 0.15849, 0.06310, 0.02512, 0.01]) {
            assert!((found - expected).abs() < 5e-6, "{found} instead of {expected}");
        }
    }

    #[test]
    fn a_ladder_has_the_same_bits_in_every_build() {
        // The product of twenty 0.8, each rounded, by another language.
        assert_eq!(ladder_density(20).to_bits(), 0x3f87_9ca1_0c92_422b);
    }

    #[test]
    fn ladder_is_that_of_the_lottery_ticket_papers() {
        let expected = [
            20.00, 36.00, 48.80, 59.04, 67.232, 73.7856, 79.0285, 83.2228, 86.5782, 89.2626, 91.4101, 93.1281, 94.5024,
            95.6020, 96.4816, 97.1853,
        ];
        for (rounds, expected) in (1..).zip(expected) {
            // Printed to four digits.
            assert!((100.0 * (1.0 - ladder_density(rounds)) - expected).abs() < 5.1e-5);
        }
    }

    #[test]
    fn settings_outside_their_range_are_refused() {
        let refuse = |schedule: PruningSchedule| schedule.amounts().unwrap_err().to_string();
        for density in [0.0, -0.1, 1.1, f64::NAN] {
            assert!(refuse(PruningSchedule::OneShot { density }).contains("density"));
            assert!(refuse(PruningSchedule::Exponential { density, rounds: 3 }).contains("density"));
        }
        for rate in [-0.1, 1.0, f64::NAN] {
            assert!(refuse(PruningSchedule::Iterative { rate, rounds: 3 }).contains("rate"));
        }
        assert!(refuse(PruningSchedule::Iterative { rate: 0.2, rounds: 0 }).contains("rounds"));
        let cubic =
            |initial_sparsity, final_sparsity| PruningSchedule::Cubic { initial_sparsity, final_sparsity, rounds: 2 };
        assert!(refuse(cubic(1.0, 0.9)).contains("initial_sparsity"));
        assert!(refuse(cubic(0.5, 0.4)).contains("final_sparsity"));
        assert!(refuse(cubic(0.5, 1.0)).contains("final_sparsity"));
    }
}
