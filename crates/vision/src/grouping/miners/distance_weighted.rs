//! Negatives drawn evenly over distances.

use super::{Matrix, Miner, partition};
use crate::grouping::{Embedded, Error, Mined, Result};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// One triplet an anchor: the positive drawn uniformly, the negative with a weight inverse to how many points of a sphere
/// lie at its distance (Wu, Manmatha, Smola and Krähenbühl, arXiv 1706.07567, section 4):
///
/// ```text
/// q(D) ∝ D^(d−2) · (1 − D²/4)^((d−3)/2)      w(D) = 1/q(D), D cut below at 0.5
/// ```
///
/// Uniform negatives of many dimensions all lie near √2 and teach little; these come from everywhere. Works on unit vectors.
/// Anchors without a positive are left out (the published code makes them their own positive).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistanceWeighted {
    /// Shorter distances weigh like this one, so that noise near the anchor is not all that is drawn. Published: 0.5.
    pub cut_below: f64,
    /// Negatives further away are never drawn. The paper has 1.4, which the grouping code leaves out; so do we.
    pub cut_above: Option<f64>,
}

impl Default for DistanceWeighted {
    fn default() -> Self {
        Self { cut_below: 0.5, cut_above: None }
    }
}

/// How far from 1 the norm of an embedding may be: thousands of f32 roundings.
const UNIT_TOLERANCE: f64 = 1e-3;

impl Miner for DistanceWeighted {
    fn mine(&self, batch: &Embedded, rng: &mut ChaCha8Rng) -> Result<Mined> {
        if !(self.cut_below > 0.0 && self.cut_below < 2.0) {
            return Err(Error::setting("cut_below", "above 0 and below 2", self.cut_below));
        }
        if let Some(cut) = self.cut_above.filter(|cut| cut.is_nan() || *cut <= 0.0) {
            return Err(Error::setting("cut_above", "above 0", cut));
        }
        // Without references these are the same rows twice.
        for (what, rows) in [("embedding", batch.anchors()), ("reference", batch.references())] {
            let norms = Matrix::new(&rows.norm_scalaropt_dim(2, [-1], true))?.values;
            if let Some(position) = norms.iter().position(|norm| (norm - 1.0).abs() > UNIT_TOLERANCE) {
                return Err(Error::NotUnit { what, position, norm: norms[position] });
            }
        }
        let distances = Matrix::new(&batch.distances())?;
        let mut triplets = Vec::new();
        for anchor in 0..batch.labels().len() {
            let row = distances.row(anchor);
            let (positives, mut negatives) = partition(batch, anchor);
            negatives.retain(|&other| self.cut_above.is_none_or(|cut| row[other] <= cut));
            let Some(&positive) = positives.choose(rng) else { continue };
            let far: Vec<f64> = negatives.iter().map(|&other| row[other]).collect();
            let weights = negative_weights(&far, batch.dim(), self.cut_below);
            if let Some(chosen) = draw(&weights, rng) {
                triplets.push([anchor, positive, negatives[chosen]]);
            }
        }
        Ok(Mined::Triplets(triplets))
    }
}

/// The probabilities of [`DistanceWeighted`] for negatives at these distances on the unit sphere of `dim` dimensions:
/// `1/q(D)`, normalised.
pub fn negative_weights(distances: &[f64], dim: i64, cut_below: f64) -> Vec<f64> {
    let d = dim as f64;
    let log_weight = |distance: f64| {
        let distance = distance.max(cut_below);
        // Opposite points have 1 − D²/4 = 0, and rounding can pass it.
        let rest = (1.0 - distance * distance / 4.0).max(1e-8);
        (2.0 - d) * distance.ln() - (d - 3.0) / 2.0 * rest.ln()
    };
    let logs: Vec<f64> = distances.iter().map(|&distance| log_weight(distance)).collect();
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// A position with these probabilities; `None` of nothing.
fn draw(weights: &[f64], rng: &mut ChaCha8Rng) -> Option<usize> {
    let mut left = rng.random_range(0.0..1.0);
    for (position, weight) in weights.iter().enumerate() {
        left -= weight;
        if left < 0.0 {
            return Some(position);
        }
    }
    // Rounding may leave a sum just below 1.
    weights.len().checked_sub(1)
}
