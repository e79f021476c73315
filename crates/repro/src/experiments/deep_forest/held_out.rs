//! What is chosen on training rows that the fits before it did not see: the price of a node, and the rows of a greedy tree's leaf.

use super::ImageSet;
use super::models::{Fitted, Model, UNDECIDED, greedy, soft};
use crate::Metrics;
use forest::Leafness;
use ndarray::{Array1, Array2, s};
use serde::{Deserialize, Serialize};

/// What may be chosen, and how; the description of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Candidates {
    pub(super) data: ImageSet,
    pub(super) train_images: usize,
    /// So many of the last training rows judge the fits on those before them.
    pub(super) held_out: usize,
    /// Prices of a node, rising from 0.
    pub(super) prices: Vec<f32>,
    /// The largest price is chosen up to which all cost at most so many points against the full shape.
    pub(super) tolerance: f64,
    /// Least rows of a greedy tree's leaf; the most accurate is chosen, of equals the first.
    pub(super) leaves: Vec<usize>,
}

/// What was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Chosen {
    pub(super) size: f32,
    pub(super) min_samples_leaf: usize,
}

/// Fits that judge settings have a seed that no run has by default.
const SEED: u64 = 1 << 32;

const SIZE: &str = "size";
const LEAF: &str = "min_samples_leaf";
/// The metric of the full shape's accuracy.
pub(super) const FULL: &str = "full shape, accuracy";

/// The metric of a price's accuracy or nodes.
pub(super) fn priced(price: f32, what: &str) -> String {
    format!("price {price:e}, {what}")
}

/// The metric of the accuracy with so many rows a leaf.
pub(super) fn leaved(rows: usize) -> String {
    format!("{rows} rows a leaf, accuracy")
}

impl Chosen {
    /// From the metrics of a finished run.
    pub(super) fn of(metric: impl Fn(&str) -> crate::Result<f64>) -> crate::Result<Self> {
        Ok(Self { size: metric(SIZE)? as f32, min_samples_leaf: metric(LEAF)? as usize })
    }
}

impl Candidates {
    pub(super) fn new(data: ImageSet, train_images: usize) -> Self {
        Self {
            data,
            train_images,
            held_out: train_images / 6,
            prices: vec![0.0, 1e-4, 3e-4, 1e-3, 3e-3],
            tolerance: 0.25,
            leaves: vec![1, 5, 20, 50],
        }
    }

    /// Seconds on one core, roughly.
    pub(super) fn effort(&self) -> f64 {
        let rows = self.train_images - self.held_out;
        let priced = Model::Soft(Box::new(soft(rows, 15, UNDECIDED, 0.0))).effort(rows);
        let grown = Model::Hard(greedy(1)).effort(rows);
        (self.prices.len() + 1) as f64 * priced + self.leaves.len() as f64 * grown
    }

    /// Fits every candidate on the rows before those held out.
    pub(super) fn run(
        &self,
        x: &Array2<f32>,
        y: &Array1<usize>,
        mut progress: impl FnMut(u64, u64),
    ) -> anyhow::Result<Metrics> {
        anyhow::ensure!(y.len() == self.train_images, "{} training rows, expected {}", y.len(), self.train_images);
        let kept = self.train_images - self.held_out;
        let steps = (1 + self.prices.len() + self.leaves.len()) as u64;
        let mut done = 0;
        let mut metrics = Metrics::new();
        let mut judged = |model: Model| -> anyhow::Result<(f64, f64)> {
            let fitted: Fitted = model.fit(x.slice(s![..kept, ..]), y.slice(s![..kept]), SEED, 0.0)?;
            let found = (fitted.accuracy(x.slice(s![kept.., ..]), y.slice(s![kept..]))?, fitted.nodes_per_tree());
            done += 1;
            progress(done, steps);
            Ok(found)
        };
        let layer = |leafness, price| Model::Soft(Box::new(soft(kept, 15, leafness, price)));
        let (full, _) = judged(layer(Leafness::Fixed, 0.0))?;
        metrics.insert(FULL.into(), full);
        let mut prices = Vec::new();
        for &price in &self.prices {
            let (accuracy, nodes) = judged(layer(UNDECIDED, price))?;
            metrics.insert(priced(price, "accuracy"), accuracy);
            metrics.insert(priced(price, "nodes a tree"), nodes);
            prices.push((price, accuracy));
        }
        let mut leaves = Vec::new();
        for &rows in &self.leaves {
            let (accuracy, _) = judged(Model::Hard(greedy(rows)))?;
            metrics.insert(leaved(rows), accuracy);
            leaves.push((rows, accuracy));
        }
        metrics.insert(SIZE.into(), f64::from(largest_within(&prices, full - self.tolerance)));
        metrics.insert(LEAF.into(), most_accurate(&leaves) as f64);
        Ok(metrics)
    }
}

/// The last of the prices that keep at least this accuracy from the first one on: one that does after another did not is luck. 0,
/// which asks nothing for a node, where the first one does not.
fn largest_within(prices: &[(f32, f64)], least: f64) -> f32 {
    prices.iter().take_while(|(_, accuracy)| *accuracy >= least).last().map_or(0.0, |(price, _)| *price)
}

fn most_accurate(leaves: &[(usize, f64)]) -> usize {
    let better = |best: (usize, f64), next: &(usize, f64)| if next.1 > best.1 { *next } else { best };
    leaves.iter().fold((1, f64::MIN), better).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::deep_forest::{Setting, models::arms};

    #[test]
    fn the_largest_price_that_costs_little_is_chosen() {
        let prices = [(0.0, 87.5), (1e-4, 87.4), (3e-4, 87.2), (1e-3, 87.3)];
        assert_eq!(largest_within(&prices, 87.25), 1e-4);
        assert_eq!(largest_within(&prices, 87.0), 1e-3);
        assert_eq!(largest_within(&prices, 87.5), 0.0);
        assert_eq!(largest_within(&prices, 90.0), 0.0);
        assert_eq!(most_accurate(&[(1, 79.0), (5, 80.0), (20, 80.0), (50, 78.0)]), 5);
    }

    #[test]
    fn choices_reach_the_models_that_they_are_for() {
        let setting = Setting {
            sets: Vec::new(),
            train_images: 60_000,
            hard_trees: 3,
            soft_cascade: true,
            chosen: true,
            seeds: [1, 1],
        };
        let chosen = Chosen { size: 0.5, min_samples_leaf: 7 };
        let changed: Vec<_> = arms(&setting).into_iter().filter(|(_, model)| model.is_chosen()).collect();
        let names: Vec<_> = changed.iter().map(|(arm, _)| *arm).collect();
        let expected = ["15 soft trees, learned shape", "1 greedy tree", "up to 2 layers of 15 soft trees"];
        assert_eq!(names, expected);
        for (_, model) in changed {
            match model.with(&chosen) {
                Model::Soft(params) => assert_eq!(params.regularisers.size, 0.5),
                Model::Hard(params) => assert_eq!(params.min_samples_leaf, 7),
                Model::Cascade(params) => {
                    let forest::Forest::Soft(params) = &params.forests[0] else { panic!("a soft cascade") };
                    assert_eq!(params.regularisers.size, 0.5);
                }
                Model::RandomShape(_) => panic!("its shape is drawn"),
            }
        }
    }

    #[test]
    fn every_candidate_is_judged_on_rows_that_it_did_not_see() -> anyhow::Result<()> {
        let (x, y) = forest::synthetic::blobs(120, 4, 2, 4.0, 1);
        let candidates =
            Candidates { prices: vec![0.0, 1e-2], leaves: vec![1, 30], ..Candidates::new(ImageSet::Mnist, 120) };
        let mut seen = Vec::new();
        let metrics = candidates.run(&x, &Array1::from(y), |done, all| seen.push((done, all)))?;
        assert_eq!(seen, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);
        let chosen = Chosen::of(|name| Ok(metrics[name]))?;
        assert!(chosen.size == 0.0 || chosen.size == 1e-2);
        assert!([1, 30].contains(&chosen.min_samples_leaf));
        // A hundredth of 20 rows is no accuracy: only whole rows count.
        for name in [FULL.to_owned(), priced(1e-2, "accuracy"), leaved(30)] {
            assert!((metrics[&name] / 5.0).fract().abs() < 1e-9, "{name}: {}", metrics[&name]);
        }
        Ok(())
    }
}
