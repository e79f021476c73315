//! Attacks on classifiers: how robust is a model really?
//!
//! Everything takes any tch model: a closure, a `core_tensor` network behind [`EvalMode`], or your own [`Classifier`]. A
//! [`Ball`] says what the attacker may do.
//!
//! | you want | take |
//! |---|---|
//! | one gradient attack | [`Pgd`]: FGSM, BIM, PGD with restarts, momentum, averaging over random passes |
//! | an attack that goes on from given points | [`Pgd::perturb_from`], [`Apgd::run_from`] |
//! | examples against your own loss | [`Pgd::perturb`], or [`Loss::custom`] |
//! | an attack without settings | [`Apgd`], [`ApgdTargeted`] |
//! | the least perturbation | [`Fab`], [`CwL2`] |
//! | an attack without gradients | [`Square`], [`RandomPoints`] |
//! | the number that robustness is ranked by | [`AutoAttack::standard`] |
//! | a report with intervals, classes, curves, and a look for masked gradients | [`Evaluator`] |
//! | two models compared on the same examples | [`paired`] |
//! | a proof instead of a test | [`smoothing::Smoothed`]; to attack such a model, its [`soft`](smoothing::Smoothed::soft) twin |
//! | images to look at or to store | [`Pictures`], [`to_bytes`] |
//!
//! Every attack promises the same: examples lie in ball and box; a budget of 0 returns the images bit for bit; the model
//! sees evaluation mode only, and no parameter, statistic or gradient of it changes; a seed fixes the result, and an
//! example's random numbers depend on its own pixels, not on the batch around it.

mod apgd;
mod auto_attack;
mod ball;
mod classifier;
mod cw;
mod error;
mod fab;
mod gaussian;
mod goal;
mod loss;
mod masking;
mod noise;
mod pgd;
mod pgd_attack;
mod pictures;
pub mod projection;
mod report;
mod rows;
mod run;
pub mod smoothing;
mod square;
mod streams;

pub use apgd::{Apgd, ApgdTargeted};
pub use auto_attack::{AutoAttack, Interim, Stage, Version};
pub use ball::{Ball, Norm};
pub use classifier::{Classifier, EvalMode, Normalized, Stochastic};
pub use cw::{CwL2, Variable};
pub use error::{Error, Result};
pub use fab::{Aim, Fab};
pub(crate) use gaussian::gaussian;
pub use goal::Goal;
pub use loss::{CustomLoss, Loss};
pub use masking::{Check, MaskingConfig, gradient_masking};
pub use noise::RandomPoints;
pub use pgd::{Pgd, Start};
pub use pictures::{Pictures, to_bytes};
pub use report::{Accuracy, AttackOutcome, CurvePoint, Evaluator, Paired, RobustnessReport, paired};
pub use run::{Adversarial, Attack};
pub use square::Square;

#[cfg(test)]
mod tests;
