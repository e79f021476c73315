//! Means, and intervals by resampling.

use super::{Error, Result};
use core_tensor::seed::{Purpose, generator};
use rand::Rng;

/// The arithmetic mean; 0 of nothing.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The sample standard deviation (n − 1); 0 of fewer than two values.
pub(crate) fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64).sqrt()
}

/// The 95 % percentile interval of the mean of `values` over `resamples` bootstrap samples.
///
/// ```
/// // No spread, no width.
/// assert_eq!(vision::invariance::bootstrap_interval(&[0.5; 8], 1000, 0)?, [0.5, 0.5]);
/// # Ok::<(), vision::invariance::Error>(())
/// ```
///
/// # Errors
/// No value, one that is not finite, or fewer than 40 resamples, of which no 2.5 % can be cut off.
pub fn bootstrap_interval(values: &[f64], resamples: usize, seed: u64) -> Result<[f64; 2]> {
    if values.is_empty() {
        return Err(Error::setting("values", "at least one", 0));
    }
    if let Some(index) = values.iter().position(|value| !value.is_finite()) {
        return Err(Error::setting("values", "finite", format!("{} at index {index}", values[index])));
    }
    if resamples < 40 {
        return Err(Error::setting("resamples", "at least 40", resamples));
    }
    let mut rng = generator(seed, Purpose::Noise, 0);
    let mut means: Vec<f64> = (0..resamples)
        .map(|_| {
            (0..values.len()).map(|_| values[rng.random_range(0..values.len())]).sum::<f64>() / values.len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let cut = resamples / 40;
    Ok([means[cut], means[resamples - 1 - cut]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_about_as_wide_as_the_normal_one() {
        // Values 0 to 99: deviation 29.011, so that ± 1.96 · 29.011 / 10 = 5.69; 10 % for 1000 resamples.
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let [low, high] = bootstrap_interval(&values, 1000, 7).unwrap();
        assert!(((high - low) / 2.0 - 5.69).abs() < 0.57, "{low} {high}");
        assert!(low < 49.5 && 49.5 < high);
        assert_eq!(bootstrap_interval(&values, 1000, 7).unwrap(), [low, high]);
        assert!((deviation(&values) - 29.011).abs() < 1e-3 && deviation(&[1.0]) == 0.0);
    }

    #[test]
    fn what_has_no_interval_is_refused_and_says_why() {
        let refused = |values: &[f64], resamples| bootstrap_interval(values, resamples, 0).unwrap_err().to_string();
        assert_eq!(refused(&[], 1000), "values is 0, expected at least one");
        assert_eq!(refused(&[1.0], 39), "resamples is 39, expected at least 40");
        assert_eq!(refused(&[1.0, f64::NAN, 2.0], 1000), "values is NaN at index 1, expected finite");
        assert_eq!(refused(&[f64::NEG_INFINITY], 1000), "values is -inf at index 0, expected finite");
    }
}
