//! Means and 95 % intervals.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// The confidence of every interval in a report.
pub const CONFIDENCE: f64 = 0.95;

/// A closed interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct Interval {
    /// Lower end.
    pub lo: f64,
    /// Upper end.
    pub hi: f64,
}

impl From<[f64; 2]> for Interval {
    fn from([lo, hi]: [f64; 2]) -> Self {
        Self { lo, hi }
    }
}

impl From<Interval> for [f64; 2] {
    fn from(interval: Interval) -> Self {
        [interval.lo, interval.hi]
    }
}

/// The arithmetic mean; `None` of nothing. That of equal samples is their value, to the bit.
pub fn mean(samples: &[f64]) -> Option<f64> {
    let first = *samples.first()?;
    Some(first + samples.iter().map(|sample| sample - first).sum::<f64>() / samples.len() as f64)
}

/// The 95 % interval of the mean of normal samples of unknown variance,
/// `mean ± t(0.975, n − 1) · s / √n`; `None` of fewer than two samples.
///
/// ```
/// // n = 3, mean 2, s = 1: half width 4.302653 / √3 = 2.484138.
/// let interval = repro::statistics::t_interval(&[1.0, 2.0, 3.0]).unwrap();
/// assert!((interval.lo - (2.0 - 2.484138)).abs() < 1e-6);
/// ```
pub fn t_interval(samples: &[f64]) -> Option<Interval> {
    let n = samples.len();
    if n < 2 {
        return None;
    }
    let mean = mean(samples)?;
    let variance = samples.iter().map(|sample| (sample - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
    // Location 0, scale 1 and at least one degree of freedom are always accepted.
    let quantile = StudentsT::new(0.0, 1.0, (n - 1) as f64).ok()?.inverse_cdf(0.5 + CONFIDENCE / 2.0);
    let half = quantile * (variance / n as f64).sqrt();
    Some(Interval { lo: mean - half, hi: mean + half })
}

/// The smallest interval that holds every sample; `None` of nothing.
pub fn range(samples: &[f64]) -> Option<Interval> {
    let first = *samples.first()?;
    Some(samples.iter().fold(Interval { lo: first, hi: first }, |range, &sample| Interval {
        lo: range.lo.min(sample),
        hi: range.hi.max(sample),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `t(0.975, df)` of printed tables, six digits.
    const TABLE: [(usize, f64); 6] =
        [(1, 12.706205), (2, 4.302653), (4, 2.776445), (9, 2.262157), (29, 2.045230), (99, 1.984217)];

    #[test]
    fn half_widths_are_those_of_printed_t_tables() {
        for (df, t) in TABLE {
            // n samples, half at −1 and half at +1 (one at 0 when n is odd): s² = (n or n−1) / (n−1), by hand.
            let n = df + 1;
            let mut samples: Vec<f64> = (0..n / 2).flat_map(|_| [-1.0, 1.0]).collect();
            if n % 2 == 1 {
                samples.push(0.0);
            }
            let sum_of_squares = (n / 2 * 2) as f64;
            let expected = t * (sum_of_squares / df as f64 / n as f64).sqrt();
            let interval = t_interval(&samples).unwrap();
            // The table's six decimals.
            assert!((interval.hi - expected).abs() < 1e-6, "df {df}: {} against {expected}", interval.hi);
            assert!((interval.lo + interval.hi).abs() < 1e-12);
        }
    }

    #[test]
    fn one_sample_has_no_interval_and_none_has_no_mean() {
        assert_eq!(t_interval(&[1.0]), None);
        assert_eq!(mean(&[]), None);
        assert_eq!(range(&[]), None);
    }

    #[test]
    fn equal_samples_have_an_interval_of_no_width() {
        // Three times 0.1, added up, are more than 0.3.
        for (value, count) in [(0.5, 3), (0.1, 3), (99.337, 7)] {
            assert_eq!(t_interval(&vec![value; count]), Some(Interval { lo: value, hi: value }));
        }
    }

    proptest! {
        #[test]
        fn intervals_hold_their_mean_and_move_with_the_samples(
            samples in prop::collection::vec(-1e3_f64..1e3, 2..20), shift in -1e3_f64..1e3,
        ) {
            let here = t_interval(&samples).unwrap();
            let mean = mean(&samples).unwrap();
            prop_assert!(here.lo <= mean && mean <= here.hi);
            let moved: Vec<f64> = samples.iter().map(|sample| sample + shift).collect();
            let there = t_interval(&moved).unwrap();
            // Rounding of values up to 2e3 in f64, times the largest quantile 12.7.
            prop_assert!((there.lo - here.lo - shift).abs() < 1e-8 && (there.hi - here.hi - shift).abs() < 1e-8);
        }
    }
}
