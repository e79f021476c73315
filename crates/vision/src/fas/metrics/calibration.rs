//! Whether scores mean what they say as probabilities.

use crate::fas::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// How far probabilities are from frequencies.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Expected calibration error: over 15 equal bins of `max(p, 1 − p)`, the mean gap between confidence and accuracy.
    pub ece: f64,
    /// Mean confidence `max(p, 1 − p)` less accuracy at 0.5: above 0 scores promise too much, below 0 too little.
    pub overconfidence: f64,
    /// Mean negative log-likelihood, nats; probabilities clipped to [1e-7, 1 − 1e-7].
    pub nll: f64,
    /// Mean squared distance from the label.
    pub brier: f64,
}

/// Of probabilities of being live and labels.
///
/// # Errors
/// [`Error::LengthMismatch`], [`Error::EmptyClass`] of nothing, [`Error::BadParam`] for a probability outside [0, 1].
pub fn calibration(probabilities: &[f64], live: &[bool]) -> Result<Calibration> {
    if probabilities.len() != live.len() {
        let (left, right) = (probabilities.len(), live.len());
        return Err(Error::LengthMismatch { what: "probabilities and labels", left, right });
    }
    if live.is_empty() {
        return Err(Error::EmptyClass { class: "bona fide or attack" });
    }
    if let Some(&value) = probabilities.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(Error::BadParam { name: "probability", expected: "in [0, 1]", value });
    }
    const BINS: usize = 15;
    let (mut confidence, mut correct) = ([0.0; BINS], [0.0; BINS]);
    let (mut nll, mut brier) = (0.0, 0.0);
    for (&p, &live) in probabilities.iter().zip(live) {
        let sure = p.max(1.0 - p);
        let bin = ((sure * BINS as f64) as usize).min(BINS - 1);
        confidence[bin] += sure;
        correct[bin] += f64::from(u8::from((p >= 0.5) == live));
        let clipped = p.clamp(1e-7, 1.0 - 1e-7);
        nll -= if live { clipped.ln() } else { (1.0 - clipped).ln() };
        brier += (p - f64::from(u8::from(live))).powi(2);
    }
    let count = live.len() as f64;
    let gaps = || confidence.iter().zip(&correct).map(|(confidence, correct)| confidence - correct);
    let (gap, excess): (f64, f64) = (gaps().map(f64::abs).sum(), gaps().sum());
    Ok(Calibration { ece: gap / count, overconfidence: excess / count, nll: nll / count, brier: brier / count })
}
