//! Presentation-attack detection measured as ISO/IEC 30107-3 says, on plain slices.
//!
//! A score says how live a presentation looks; it is **accepted as bona fide if score ≥ τ**. For attacks of a species
//! `p`, `APCER_p` is the share accepted, and `APCER` the worst of them. `BPCER` is the share of bona fide presentations
//! rejected, `ACER` the mean of the two. `FAR` pools all attacks, `FRR = BPCER`, `HTER` is their mean.
//!
//! Where a threshold comes from weighs more than most architectures do, so the types keep it apart: [`DevScores`]
//! chooses a [`Threshold<Dev>`], and [`evaluate`] takes nothing else. What the literature often prints, the test set's
//! own best threshold, is there as [`evaluate_oracle`] and is labelled so.
//!
//! ```
//! use vision::fas::metrics::{Criterion, DevScores, EvalOptions, Scored, TestScores, evaluate};
//! let dev = [0.9, 0.8, 0.4].map(Scored::live).into_iter().chain([0.1, 0.5].map(|s| Scored::attack(s, "print")));
//! let test = [0.7, 0.3].map(Scored::live).into_iter().chain([0.2, 0.6].map(|s| Scored::attack(s, "print")));
//! let threshold = DevScores::new(dev.collect())?.threshold(Criterion::Eer)?;
//! let report = evaluate(&TestScores::new(test.collect())?, &threshold, &EvalOptions::default())?;
//! println!("{report}");
//! # Ok::<(), vision::fas::Error>(())
//! ```
//!
//! A threshold from the test set is another type, so that this does not compile:
//!
//! ```compile_fail
//! use vision::fas::metrics::{EvalOptions, Scored, TestScores, evaluate};
//! let test = TestScores::new(vec![Scored::live(0.7), Scored::attack(0.2, "print")]).unwrap();
//! evaluate(&test, &test.oracle_threshold().unwrap(), &EvalOptions::default()).unwrap();
//! ```

mod bootstrap;
mod calibration;
mod curves;
mod report;
mod scored;
mod sorted;
mod threshold;

pub use calibration::{Calibration, calibration};
pub use curves::{Curve, CurveKind};
pub use report::{EvalOptions, Intervals, PadReport, SpeciesRate, evaluate, evaluate_oracle, wilson};
pub use scored::{Pool, Scored, pool_videos};
pub use sorted::{Eer, EerRule, Scores};
pub use threshold::{Criterion, Dev, DevScores, Source, TargetOracle, TestScores, Threshold};

#[cfg(test)]
mod tests;
