//! Normalised mutual information of a clustering with the classes.

use super::super::{Distance, Error, Result, RetrievalIndex};
use core_tensor::seed::{Purpose, generator};
use rand::seq::index;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use tch::{Kind, Tensor};

/// k-means with as many clusters as there are classes, from randomly chosen points (Lloyd's algorithm).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KMeans {
    /// Rounds of assignment and averaging. Published protocols: 20.
    pub iterations: usize,
    /// Independent starts; NMI depends on them, so report mean and spread of several.
    pub starts: usize,
    /// Fixes the starts.
    pub seed: u64,
}

impl Default for KMeans {
    /// 20 iterations, 5 starts.
    fn default() -> Self {
        Self { iterations: 20, starts: 5, seed: 0 }
    }
}

impl KMeans {
    /// The cluster of each row of `points` `[n, d]`, for one start. A cluster that loses all its points keeps its centre.
    ///
    /// # Errors
    /// No cluster, more clusters than points, points that are not finite.
    pub fn assign(&self, points: &Tensor, clusters: usize, start: u64) -> Result<Vec<u32>> {
        let count = points.size().first().copied().unwrap_or(0) as usize;
        if clusters == 0 || clusters > count {
            return Err(Error::setting("clusters", format!("1 to {count} points"), clusters));
        }
        let points = points.detach().to_kind(Kind::Float);
        let mut rng = generator(self.seed, Purpose::Noise, start);
        let chosen: Vec<i64> = index::sample(&mut rng, count, clusters).into_iter().map(|at| at as i64).collect();
        let mut centres = points.index_select(0, &Tensor::from_slice(&chosen).to_device(points.device()));
        let mut assigned: Vec<u32> = Vec::new();
        for _ in 0..self.iterations.max(1) {
            let nearest = RetrievalIndex::exact(&centres, Distance::Euclidean)?.search(&points, 1)?;
            let next: Vec<u32> = (0..count).map(|point| nearest.of(point).0[0]).collect();
            if next == assigned {
                break;
            }
            assigned = next;
            let to: Vec<i64> = assigned.iter().map(|&cluster| i64::from(cluster)).collect();
            let to = Tensor::from_slice(&to).to_device(points.device());
            let sums = centres.zeros_like().index_add(0, &to, &points);
            let sizes = to.bincount(None::<Tensor>, clusters as i64).unsqueeze(1);
            let means = sums / sizes.clamp_min(1);
            centres = means.where_self(&sizes.gt(0), &centres);
        }
        Ok(assigned)
    }

    /// NMI of each start.
    pub(super) fn information(&self, points: &Tensor, labels: &[i64]) -> Result<Vec<f64>> {
        if self.starts == 0 {
            return Err(Error::setting("starts", "at least 1", 0));
        }
        let classes = labels.iter().collect::<std::collections::HashSet<_>>().len();
        (0..self.starts as u64)
            .map(|start| {
                let clusters = self.assign(points, classes, start)?;
                let clusters: Vec<i64> = clusters.into_iter().map(i64::from).collect();
                normalised_mutual_information(&clusters, labels)
            })
            .collect()
    }
}

/// `I(C; Y) / ((H(C) + H(Y)) / 2)`; 1 when both are a single group.
///
/// # Errors
/// Lengths that differ, or nothing.
pub fn normalised_mutual_information(clusters: &[i64], labels: &[i64]) -> Result<f64> {
    if clusters.len() != labels.len() {
        let (expected, found) = (format!("{}, one a label", labels.len()), clusters.len().to_string());
        return Err(Error::shape("clusters", expected, found));
    }
    if labels.is_empty() {
        return Err(Error::Empty("labels"));
    }
    let n = labels.len() as f64;
    let entropy = |counts: Vec<u64>| -> f64 {
        counts.into_iter().map(|count| count as f64 / n).map(|share| -share * share.ln()).sum()
    };
    let pairs: Vec<(i64, i64)> = clusters.iter().copied().zip(labels.iter().copied()).collect();
    let (a, b) = (entropy(counts(clusters)), entropy(counts(labels)));
    let joint = entropy(counts(&pairs));
    let mean = (a + b) / 2.0;
    Ok(if mean == 0.0 { 1.0 } else { ((a + b - joint) / mean).max(0.0) })
}

/// How often each value comes, in the order of the values, so that sums of floats do not depend on a hash.
fn counts<T: std::hash::Hash + Eq + Ord + Copy>(values: &[T]) -> Vec<u64> {
    let mut counts: HashMap<T, u64> = HashMap::new();
    values.iter().for_each(|value| *counts.entry(*value).or_default() += 1);
    let mut sorted: Vec<_> = counts.into_iter().collect();
    sorted.sort_unstable();
    sorted.into_iter().map(|(_, count)| count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn information_worked_by_hand() {
        // I = ln 2 − ⅔·ln 3·½ …: the arithmetic mean of the entropies, as scikit-learn's default.
        let found = normalised_mutual_information(&[0, 0, 1, 1, 1, 2], &[0, 0, 0, 1, 1, 1]).unwrap();
        assert!((found - 0.439870).abs() < 1e-6, "{found}");
        assert!((normalised_mutual_information(&[3, 3, 9], &[1, 1, 0]).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(normalised_mutual_information(&[0, 0], &[5, 5]).unwrap(), 1.0);
        assert!(normalised_mutual_information(&[0, 1, 0, 1], &[0, 0, 1, 1]).unwrap() < 1e-12);
        assert!(normalised_mutual_information(&[0], &[0, 1]).is_err());
        assert!(normalised_mutual_information(&[], &[]).is_err());
    }

    #[test]
    fn separated_clouds_are_found() {
        let points: Vec<f32> = (0..60).map(|i| (i % 3) as f32 * 100.0 + (i / 3) as f32 * 0.1).collect();
        let points = Tensor::from_slice(&points).view([60, 1]);
        let labels: Vec<i64> = (0..60).map(|i| i % 3).collect();
        // Some starts take two centres from one cloud and stay there; the best of five does not.
        let found = KMeans::default().information(&points, &labels).unwrap();
        assert_eq!(found.len(), 5);
        assert!(found.iter().copied().fold(0.0, f64::max) > 1.0 - 1e-9, "{found:?}");
        assert!(KMeans::default().assign(&points, 61, 0).is_err());
        assert!(KMeans { starts: 0, ..Default::default() }.information(&points, &labels).is_err());
    }

    proptest! {
        #[test]
        fn information_is_symmetric_and_ignores_names(labels in prop::collection::vec(0_i64..4, 1..40), seed in 0_i64..4) {
            let other: Vec<i64> = labels.iter().enumerate().map(|(i, label)| (label * seed + i as i64) % 3).collect();
            let renamed: Vec<i64> = other.iter().map(|value| 10 - value).collect();
            let found = normalised_mutual_information(&other, &labels).unwrap();
            prop_assert!((0.0..=1.0 + 1e-12).contains(&found));
            prop_assert!((found - normalised_mutual_information(&labels, &other).unwrap()).abs() < 1e-12);
            prop_assert!((found - normalised_mutual_information(&renamed, &labels).unwrap()).abs() < 1e-12);
        }
    }
}
