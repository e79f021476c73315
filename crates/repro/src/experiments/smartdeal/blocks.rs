//! Random matrices: what the basis is worth.

use super::blobs::normal;
use crate::Metrics;
use ndarray::Array2;
use quant::smartdeal::{DecomposeConfig, Ladder, decompose};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) blocks: usize,
    pub(super) sigma: f64,
    pub(super) thetas: Vec<f64>,
    /// Correlations between the three columns, ascending.
    pub(super) correlations: Vec<f64>,
    /// The threshold for those.
    pub(super) correlation_theta: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            blocks: 20,
            sigma: 0.0589,
            thetas: vec![0.004, 0.01, 0.02, 0.03, 0.04, 0.05],
            correlations: vec![0.0, 0.5, 0.8, 0.95],
            correlation_theta: 0.01,
        }
    }
}

pub(super) fn measure(params: &Params, seed: u64) -> anyhow::Result<Metrics> {
    let mut metrics = Metrics::new();
    let mut worst = f64::NEG_INFINITY;
    for theta in &params.thetas {
        let (joint, rounded) = errors(params, 0.0, *theta, seed)?;
        worst = worst.max(joint / rounded);
        metrics.insert(format!("error_joint_{theta}"), joint);
        metrics.insert(format!("error_rounded_{theta}"), rounded);
    }
    metrics.insert("worst_ratio".into(), worst);
    let mut by_correlation = Vec::new();
    for correlation in &params.correlations {
        let (joint, rounded) = errors(params, *correlation, params.correlation_theta, seed)?;
        metrics.insert(format!("error_correlated_{correlation}"), joint);
        by_correlation.push((joint, rounded));
    }
    let rise = by_correlation.windows(2).map(|pair| pair[1].0 - pair[0].0).fold(f64::NEG_INFINITY, f64::max);
    metrics.insert("largest_rise".into(), rise);
    let spread = |pick: fn(f64, f64) -> f64| by_correlation.iter().map(|(_, r)| *r).reduce(pick).unwrap_or(1.0);
    metrics.insert("rounded_spread".into(), spread(f64::max) / spread(f64::min) - 1.0);
    Ok(metrics)
}

/// Mean relative errors of the joint fit, and of rounding as many of the largest weights as it keeps.
fn errors(params: &Params, correlation: f64, theta: f64, seed: u64) -> anyhow::Result<(f64, f64)> {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let (mut joint, mut rounded) = (0.0, 0.0);
    for _ in 0..params.blocks {
        let w = block(params.sigma, correlation, rng);
        let factors = decompose(&w.view(), &DecomposeConfig::with_theta(theta))?;
        joint += factors.relative_error;
        let naive = round_largest(w.iter().copied(), factors.non_zeros());
        let square = |v: f64| v * v;
        let rest: f64 = w.iter().zip(naive).map(|(w, n)| square(w - n)).sum();
        rounded += (rest / w.iter().copied().map(square).sum::<f64>()).sqrt();
    }
    let blocks = params.blocks as f64;
    Ok((joint / blocks, rounded / blocks))
}

/// Rows of three, correlated pairwise: a shared part and an own part.
fn block(sigma: f64, correlation: f64, rng: &mut ChaCha8Rng) -> Array2<f64> {
    let mut w = Array2::zeros((192, 3));
    for mut row in w.rows_mut() {
        let shared = f64::from(normal(rng)) * correlation.sqrt();
        row.map_inplace(|v| *v = sigma * (shared + f64::from(normal(rng)) * (1.0 - correlation).sqrt()));
    }
    w
}

/// The `keep` largest magnitudes rounded to powers of two, the others zero.
pub(super) fn round_largest(weights: impl Iterator<Item = f64>, keep: usize) -> Vec<f64> {
    let weights: Vec<f64> = weights.collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| weights[*b].abs().total_cmp(&weights[*a].abs()));
    let mut rounded = vec![0.0; weights.len()];
    for i in order.into_iter().take(keep) {
        rounded[i] = Ladder::default().project(weights[i]);
    }
    rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_kept_and_rounded() {
        assert_eq!(round_largest([0.1, -0.7, 0.3, 0.05].into_iter(), 2), [0.0, -0.5, 0.25, 0.0]);
    }

    #[test]
    fn columns_correlate_as_asked() {
        let w = block(1.0, 0.8, &mut ChaCha8Rng::seed_from_u64(1));
        let product: f64 = w.rows().into_iter().map(|row| row[0] * row[2]).sum::<f64>() / 192.0;
        // The mean of 192 products of unit variance: standard error below 0.1.
        assert!((product - 0.8).abs() < 0.3, "{product}");
    }
}
