//! The learning rate as a function of the step.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// A learning-rate schedule in steps. Multiply epochs by the steps of an epoch to get steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Schedule {
    /// Always `peak`.
    Constant {
        /// The learning rate.
        peak: f64,
    },
    /// `peak`, multiplied by `gamma` at each milestone.
    Step {
        /// The first learning rate.
        peak: f64,
        /// Steps at which the rate drops, ascending.
        milestones: Vec<u64>,
        /// The factor, such as 0.1.
        gamma: f64,
    },
    /// Half a cosine from `peak` to `last` over `steps`, then `last`.
    Cosine {
        /// The first learning rate.
        peak: f64,
        /// The last learning rate.
        last: f64,
        /// Length of the half wave.
        steps: u64,
    },
    /// A straight line from `peak` to `last` over `steps`, then `last`.
    Linear {
        /// The first learning rate.
        peak: f64,
        /// The last learning rate.
        last: f64,
        /// Length of the line.
        steps: u64,
    },
    /// Up from `peak / 25` to `peak` over the first `rise` share, then down to `peak / 250,000`, both half cosines
    /// (Smith and Topin, arXiv 1708.07120, with PyTorch's factors).
    OneCycle {
        /// The highest learning rate.
        peak: f64,
        /// Length of the cycle.
        steps: u64,
        /// Share of the cycle that rises, in `(0, 1)`; 0.3 in PyTorch.
        rise: f64,
    },
    /// `peak·(step + 1) / steps` of what `then` starts with, for `steps` steps; then `then` from its own beginning.
    WarmUp {
        /// Length of the ramp.
        steps: u64,
        /// What follows.
        then: Box<Schedule>,
    },
    /// `schedule` as if `steps` had already gone by: how re-training from a rewinding point sees it.
    StartingAt {
        /// Steps skipped.
        steps: u64,
        /// The schedule of the whole training.
        schedule: Box<Schedule>,
    },
}

impl Schedule {
    /// The learning rate of one step, from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let half_cosine =
            |from: f64, to: f64, share: f64| to + (from - to) * (1.0 + (std::f64::consts::PI * share).cos()) / 2.0;
        match self {
            Self::Constant { peak } => *peak,
            Self::Step { peak, milestones, gamma } => {
                let drops = milestones.iter().filter(|milestone| **milestone <= step).count();
                peak * gamma.powi(drops as i32)
            }
            Self::Cosine { peak, last, steps } => half_cosine(*peak, *last, share(step, *steps)),
            Self::Linear { peak, last, steps } => peak + (last - peak) * share(step, *steps),
            Self::OneCycle { peak, steps, rise } => {
                let top = (rise * *steps as f64).round() as u64;
                if step < top {
                    half_cosine(peak / 25.0, *peak, share(step, top))
                } else {
                    half_cosine(*peak, peak / 250_000.0, share(step - top, steps - top))
                }
            }
            Self::WarmUp { steps, then } if step < *steps => then.learning_rate(0) * (step + 1) as f64 / *steps as f64,
            Self::WarmUp { steps, then } => then.learning_rate(step - steps),
            Self::StartingAt { steps, schedule } => schedule.learning_rate(step.saturating_add(*steps)),
        }
    }

    /// The rest of this schedule after `steps` of it: milestones move, warm-up shortens or vanishes.
    pub fn starting_at(self, steps: u64) -> Self {
        if steps == 0 { self } else { Self::StartingAt { steps, schedule: Box::new(self) } }
    }

    /// Checks rates, factors and milestones.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub fn validate(&self) -> Result<()> {
        let rate = |setting, value: f64| {
            let fine = value.is_finite() && value >= 0.0;
            if fine { Ok(()) } else { Err(Error::setting(setting, "finite and at least 0", value)) }
        };
        match self {
            Self::Constant { peak } => rate("peak", *peak),
            Self::Step { peak, milestones, gamma } => {
                if !milestones.is_sorted() {
                    return Err(Error::setting("milestones", "ascending", format!("{milestones:?}")));
                }
                rate("peak", *peak).and(rate("gamma", *gamma))
            }
            Self::Cosine { peak, last, .. } | Self::Linear { peak, last, .. } => {
                rate("peak", *peak).and(rate("last", *last))
            }
            Self::OneCycle { peak, rise, .. } => {
                if !(*rise > 0.0 && *rise < 1.0) {
                    return Err(Error::setting("rise", "in (0, 1)", rise));
                }
                rate("peak", *peak)
            }
            Self::WarmUp { then, .. } => then.validate(),
            Self::StartingAt { schedule, .. } => schedule.validate(),
        }
    }
}

fn share(step: u64, steps: u64) -> f64 {
    if step >= steps { 1.0 } else { step as f64 / steps as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * b.abs().max(1.0)
    }

    #[test]
    fn rewinding_moves_milestones_as_the_reference_scripts_do() {
        // T = 182 epochs, milestones 90 and 135: (rewound to, first rate, epochs until the rate drops).
        let whole = || Schedule::Step { peak: 0.1, milestones: vec![90, 135], gamma: 0.1 };
        for (epoch, rate, drops) in [
            (13, 0.1, vec![77, 122]),
            (33, 0.1, vec![57, 102]),
            (53, 0.1, vec![37, 82]),
            (73, 0.1, vec![17, 62]),
            (93, 0.01, vec![42]),
            (113, 0.01, vec![22]),
            (133, 0.01, vec![2]),
            (153, 0.001, vec![]),
            (173, 0.001, vec![]),
        ] {
            let rest = whole().starting_at(epoch);
            assert!(close(rest.learning_rate(0), rate), "from {epoch}");
            let seen: Vec<u64> = (1..182 - epoch)
                .filter(|step| rest.learning_rate(*step) < 0.99 * rest.learning_rate(step - 1))
                .collect();
            assert_eq!(seen, drops, "from {epoch}");
        }
    }

    #[test]
    fn shapes_hit_their_end_points() {
        let cosine = Schedule::Cosine { peak: 1.0, last: 0.0, steps: 10 };
        assert!(close(cosine.learning_rate(0), 1.0) && close(cosine.learning_rate(5), 0.5));
        assert!(close(cosine.learning_rate(10), 0.0) && close(cosine.learning_rate(99), 0.0));
        let linear = Schedule::Linear { peak: 1.0, last: 0.2, steps: 4 };
        assert!(close(linear.learning_rate(1), 0.8) && close(linear.learning_rate(9), 0.2));
        // ImageNet recipe: five warm-up epochs of lr·(e+1)/5.
        let warm = Schedule::WarmUp { steps: 5, then: Box::new(Schedule::Constant { peak: 0.4 }) };
        assert!(close(warm.learning_rate(0), 0.08) && close(warm.learning_rate(4), 0.4));
        let cycle = Schedule::OneCycle { peak: 1.0, steps: 100, rise: 0.3 };
        assert!(close(cycle.learning_rate(0), 0.04) && close(cycle.learning_rate(30), 1.0));
        assert!(close(cycle.learning_rate(100), 4e-6));
    }

    #[test]
    fn settings_that_make_no_schedule_are_refused() {
        let refuse = |schedule: Schedule| schedule.validate().unwrap_err().to_string();
        assert!(refuse(Schedule::Constant { peak: f64::NAN }).contains("peak"));
        assert!(refuse(Schedule::Step { peak: 0.1, milestones: vec![5, 2], gamma: 0.1 }).contains("milestones"));
        assert!(refuse(Schedule::OneCycle { peak: 0.1, steps: 5, rise: 1.0 }).contains("rise"));
    }

    proptest! {
        #[test]
        fn starting_at_is_a_shift(skipped in 0_u64..200, step in 0_u64..200) {
            let whole = Schedule::Cosine { peak: 0.3, last: 0.01, steps: 150 };
            let rest = whole.clone().starting_at(skipped);
            prop_assert_eq!(rest.learning_rate(step), whole.learning_rate(step + skipped));
        }
    }
}
