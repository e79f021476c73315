//! Does a feature say where the object is? Position classifiers, and arithmetic with positions.

use super::scene::floats;
use super::{Error, Result, ShiftGrid, Similarity, statistics};
use core_tensor::seed::{Purpose, generator};
use rand::Rng;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Which halves of the frame are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Halves {
    /// Rows below half of them against the rest, to which the middle one of an odd number belongs. (The authors' code counts
    /// it among the upper ones; their frames have an even number.)
    TopBottom,
    /// Columns below half of them against the rest, likewise.
    LeftRight,
}

/// How samples are divided between fitting and testing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Folds {
    /// As published: so many parts of each object's positions, each class in the grid's own order, unshuffled. Neighbouring
    /// positions are nearly equal, so that parts leak into one another where they touch.
    Contiguous(usize),
    /// Whole objects are left out, in so many parts: what is learnt has to hold for objects that were never seen.
    LeaveObjectsOut(usize),
}

/// A linear support vector machine: hinge loss, `‖w‖²/2 + C Σ max(0, 1 − y⟨w, x⟩)`, the bias as one more weight, fitted by dual
/// coordinate descent (Hsieh et al., ICML 2008).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinearSvm {
    /// Cost of a violation. Default 1, as published.
    pub cost: f64,
    /// Sweeps over the samples at most. Default 100.
    pub sweeps: usize,
    /// Stops when no dual variable's gradient violates its bounds by more. Default 0.01.
    pub tolerance: f64,
}

impl Default for LinearSvm {
    fn default() -> Self {
        Self { cost: 1.0, sweeps: 100, tolerance: 0.01 }
    }
}

impl LinearSvm {
    /// Weights with the bias last, and whether they were found to `tolerance`.
    fn fit(&self, samples: &[&[f32]], labels: &[bool], seed: u64) -> (Vec<f32>, bool) {
        let length = samples.first().map_or(0, |sample| sample.len());
        let mut weights = vec![0.0_f32; length + 1];
        let mut duals = vec![0.0_f64; samples.len()];
        let squares: Vec<f64> = samples.iter().map(|sample| f64::from(dot(sample, sample)) + 1.0).collect();
        let mut order: Vec<usize> = (0..samples.len()).collect();
        for sweep in 0..self.sweeps {
            order.shuffle(&mut generator(seed, Purpose::Order, sweep as u64));
            let mut violation = 0.0_f64;
            for &index in &order {
                let sign = if labels[index] { 1.0 } else { -1.0 };
                let margin = f64::from(dot(samples[index], &weights[..length]) + weights[length]);
                let gradient = sign * margin - 1.0;
                let old = duals[index];
                let projected = match old {
                    dual if dual <= 0.0 => gradient.min(0.0),
                    dual if dual >= self.cost => gradient.max(0.0),
                    _ => gradient,
                };
                violation = violation.max(projected.abs());
                if projected != 0.0 {
                    let new = (old - gradient / squares[index]).clamp(0.0, self.cost);
                    duals[index] = new;
                    let step = ((new - old) * sign) as f32;
                    weights.iter_mut().zip(samples[index]).for_each(|(weight, value)| *weight += step * value);
                    weights[length] += step;
                }
            }
            if violation < self.tolerance {
                return (weights, true);
            }
        }
        (weights, false)
    }

    fn says(weights: &[f32], sample: &[f32]) -> bool {
        dot(sample, &weights[..sample.len()]) + weights[sample.len()] > 0.0
    }

    /// How well halves of the frame are told apart, over folds and, with [`Folds::Contiguous`], over
    /// objects. `features` has one `[positions, length]` an object. One half is as good as the other: features that do not
    /// depend on position give about a half.
    ///
    /// # Errors
    /// No object; features of another number of positions or lengths that differ; fewer than two positions a half; folds that
    /// leave nothing to fit or test; a cost that is not above 0; no sweep.
    pub fn separability(
        &self,
        features: &[&Tensor],
        grid: &ShiftGrid,
        halves: Halves,
        folds: Folds,
    ) -> Result<Separability> {
        let (values, length) = checked_features(features, grid)?;
        let objects: Vec<Vec<&[f32]>> = values.iter().map(|values| values.chunks_exact(length).collect()).collect();
        if self.cost.is_nan() || self.cost <= 0.0 {
            return Err(Error::setting("cost", "above 0", self.cost));
        }
        if self.sweeps == 0 {
            return Err(Error::setting("sweeps", "at least 1", self.sweeps));
        }
        let along = if halves == Halves::TopBottom { grid.rows() } else { grid.columns() };
        let labels: Vec<bool> = (0..grid.len())
            .map(|index| {
                let [row, column] = grid.position(index);
                (if halves == Halves::TopBottom { row } else { column }) < along / 2
            })
            .collect();
        let smaller = (along / 2) * (grid.len() / along.max(1));
        if smaller < 2 {
            return Err(Error::setting("positions in a half", "at least 2", smaller));
        }
        let few = |expected: String, found: usize| Err(Error::setting("folds", expected, found));
        match folds {
            Folds::Contiguous(count) => {
                if count < 2 || count > smaller {
                    return few(format!("2 to {smaller}"), count);
                }
                let fold = stratified(&labels, count);
                let scores: Vec<Separability> =
                    objects.par_iter().map(|object| self.cross_validate(object, &labels, &fold, count)).collect();
                Ok(Separability::mean(&scores))
            }
            Folds::LeaveObjectsOut(count) => {
                if count < 2 || count > objects.len() {
                    return few(format!("2 to {}, the number of objects", objects.len()), count);
                }
                let fold: Vec<usize> =
                    (0..objects.len()).flat_map(|object| vec![object * count / objects.len(); grid.len()]).collect();
                let labels = labels.repeat(objects.len());
                let samples: Vec<&[f32]> = objects.iter().flatten().copied().collect();
                Ok(self.cross_validate(&samples, &labels, &fold, count))
            }
        }
    }

    /// Mean over folds.
    fn cross_validate(&self, samples: &[&[f32]], labels: &[bool], fold: &[usize], count: usize) -> Separability {
        let score = |held: usize| {
            let fitted: Vec<usize> = (0..samples.len()).filter(|&index| fold[index] != held).collect();
            let some: Vec<&[f32]> = fitted.iter().map(|&index| samples[index]).collect();
            let known: Vec<bool> = fitted.iter().map(|&index| labels[index]).collect();
            let (weights, converged) = self.fit(&some, &known, held as u64);
            let tested: Vec<usize> = (0..samples.len()).filter(|&index| fold[index] == held).collect();
            let right = tested.iter().filter(|&&index| Self::says(&weights, samples[index]) == labels[index]).count();
            Separability { accuracy: right as f64 / tested.len() as f64, converged }
        };
        let scores: Vec<Separability> = (0..count).into_par_iter().map(score).collect();
        Separability::mean(&scores)
    }
}

/// How well a position can be read off a feature: see [`LinearSvm::separability`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Separability {
    /// Mean share of positions whose half is found, 0 to 1.
    pub accuracy: f64,
    /// Whether every machine was fitted to [`LinearSvm::tolerance`] within [`LinearSvm::sweeps`]. Where one was not, more sweeps may
    /// separate better.
    pub converged: bool,
}

impl Separability {
    fn mean(scores: &[Self]) -> Self {
        let accuracies: Vec<f64> = scores.iter().map(|score| score.accuracy).collect();
        Self { accuracy: statistics::mean(&accuracies), converged: scores.iter().all(|score| score.converged) }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums at a time, so that it can be done in a register.
    let mut sums = [0.0_f32; 8];
    let (chunks_a, chunks_b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = chunks_a.remainder().iter().zip(chunks_b.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in chunks_a.zip(chunks_b) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Each class in its own order, cut into `count` runs: unshuffled stratified folds.
fn stratified(labels: &[bool], count: usize) -> Vec<usize> {
    let totals = [false, true].map(|class| labels.iter().filter(|label| **label == class).count());
    let mut seen = [0; 2];
    labels
        .iter()
        .map(|&label| {
            let class = usize::from(label);
            let fold = seen[class] * count / totals[class];
            seen[class] += 1;
            fold
        })
        .collect()
}

/// Every object's features, row after row, and a row's length. Refuses other shapes and what is not finite.
fn checked_features(features: &[&Tensor], grid: &ShiftGrid) -> Result<(Vec<Vec<f32>>, usize)> {
    let length = features.first().map_or(0, |first| first.size().get(1).copied().unwrap_or(0));
    if length == 0 {
        return Err(Error::shape("features", "one [positions, length] an object, at least one", "none"));
    }
    let expected = [grid.len() as i64, length];
    let objects = features.iter().enumerate().map(|(object, tensor)| {
        if tensor.size() != expected {
            return Err(Error::shape("features of an object", format!("{expected:?}"), format!("{:?}", tensor.size())));
        }
        let values = floats(tensor)?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            let position = grid.position(at / length as usize);
            return Err(Error::NotFinite { layer: format!("features of object {object}"), position });
        }
        Ok(values)
    });
    Ok((objects.collect::<Result<_>>()?, length as usize))
}

/// Whether positions add up: see [`arithmetic`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arithmetic {
    /// Mean cosine of the predicted with the true feature.
    pub predicted: f64,
    /// Mean cosine of the feature at the other position with the true feature.
    pub baseline: f64,
    /// Mean of predicted − baseline.
    pub difference: f64,
    /// Its 95 % bootstrap interval over samples.
    pub interval: [f64; 2],
}

/// Our reading of the paper's third experiment, whose code is not published: for objects A ≠ B and positions p ≠ q at least half
/// the grid apart (Chebyshev), predicts `f(A, p) − f(A, q) + f(B, q)` and compares it with `f(B, p)`; the baseline is `f(B, q)`.
/// Were position an additive code that does not depend on the object, the prediction would be the closer one.
///
/// # Errors
/// Fewer than two objects, features that do not fit the grid, a grid of one position, no sample; features of norm 0.
pub fn arithmetic(features: &[&Tensor], grid: &ShiftGrid, samples: usize, seed: u64) -> Result<Arithmetic> {
    let (objects, length) = checked_features(features, grid)?;
    if objects.len() < 2 {
        return Err(Error::setting("objects", "at least 2", objects.len()));
    }
    let apart = grid.rows().max(grid.columns()) / 2;
    if apart == 0 || samples == 0 {
        let found = format!("{samples} samples, {} positions", grid.len());
        return Err(Error::setting("samples and positions", "at least 1 and 2", found));
    }
    let mut rng = generator(seed, Purpose::Noise, 0);
    let (mut predicted, mut baseline) = (Vec::new(), Vec::new());
    while predicted.len() < samples {
        let [a, b] = [0; 2].map(|_| rng.random_range(0..objects.len()));
        let [p, q] = [0; 2].map(|_| rng.random_range(0..grid.len()));
        let ([p_row, p_column], [q_row, q_column]) = (grid.position(p), grid.position(q));
        if a == b || p_row.abs_diff(q_row).max(p_column.abs_diff(q_column)) < apart {
            continue;
        }
        let feature = |object: usize, at: usize| &objects[object][at * length..][..length];
        let guess: Vec<f32> = (0..length).map(|i| feature(a, p)[i] - feature(a, q)[i] + feature(b, q)[i]).collect();
        predicted.push(Similarity::Cosine.of(&guess, feature(b, p))?);
        baseline.push(Similarity::Cosine.of(feature(b, q), feature(b, p))?);
    }
    let differences: Vec<f64> = predicted.iter().zip(&baseline).map(|(a, b)| a - b).collect();
    Ok(Arithmetic {
        predicted: statistics::mean(&predicted),
        baseline: statistics::mean(&baseline),
        difference: statistics::mean(&differences),
        interval: statistics::bootstrap_interval(&differences, 1000, seed)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn grid() -> ShiftGrid {
        ShiftGrid::new([10, 10], [3, 3], 1).unwrap()
    }

    /// `[64, 2]`: a constant and the row, centred.
    fn rows() -> Tensor {
        let values: Vec<f32> = (0..64).flat_map(|index| [1.0, (index / 8) as f32 - 3.5]).collect();
        Tensor::from_slice(&values).view([64, 2])
    }

    #[test]
    fn features_that_hold_the_row_tell_top_from_bottom_and_not_left_from_right() {
        let (features, svm) = (rows(), LinearSvm::default());
        let objects = [&features, &features, &features];
        for folds in [Folds::Contiguous(5), Folds::LeaveObjectsOut(3)] {
            let found = svm.separability(&objects, &grid(), Halves::TopBottom, folds).unwrap();
            assert_eq!(found, Separability { accuracy: 1.0, converged: true });
            let sideways = svm.separability(&objects, &grid(), Halves::LeftRight, folds).unwrap().accuracy;
            assert!((sideways - 0.5).abs() < 0.2, "{sideways}");
        }
    }

    #[test]
    fn features_without_position_are_right_half_the_time() {
        let constant = Tensor::ones([64, 3], (Kind::Float, Device::Cpu));
        let found = LinearSvm::default()
            .separability(&[&constant, &constant], &grid(), Halves::TopBottom, Folds::LeaveObjectsOut(2))
            .unwrap();
        assert_eq!(found.accuracy, 0.5);
    }

    #[test]
    fn machines_that_run_out_of_sweeps_say_so() {
        let features = rows();
        let hasty = LinearSvm { sweeps: 1, tolerance: 1e-9, ..LinearSvm::default() };
        for folds in [Folds::Contiguous(2), Folds::LeaveObjectsOut(2)] {
            let found = hasty.separability(&[&features, &features], &grid(), Halves::TopBottom, folds).unwrap();
            assert!(!found.converged, "{folds:?}");
        }
    }

    #[test]
    fn a_machine_finds_the_widest_margin() {
        // Two points at ±2 on a line: w = 1/2, bias 0, with both on the margin (α = 1/8 < C; the bias counts in the norm).
        let svm = LinearSvm { tolerance: 1e-6, sweeps: 1000, ..LinearSvm::default() };
        let (weights, converged) = svm.fit(&[&[2.0], &[-2.0]], &[true, false], 0);
        assert!(converged && (weights[0] - 0.5).abs() < 1e-4 && weights[1].abs() < 1e-4, "{weights:?}");
    }

    #[test]
    fn folds_are_runs_of_each_class() {
        assert_eq!(stratified(&[true, false, true, false, true, true], 2), [0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn an_additive_position_code_is_predicted_exactly() {
        // f(object, position) = own direction + position's direction: the prediction is the feature itself.
        let code = rows();
        let object = |values: [f32; 2]| &code + Tensor::from_slice(&values);
        let (a, b) = (object([2.0, 0.3]), object([-1.0, 0.7]));
        let found = arithmetic(&[&a, &b], &grid(), 200, 1).unwrap();
        // Differences of 32-bit numbers below 10.
        assert!((found.predicted - 1.0).abs() < 1e-6 && found.interval[0] > 0.0, "{found:?}");
        let still = Tensor::from_slice(&[1.0_f32, 2.0]).repeat([64, 1]);
        let other = Tensor::from_slice(&[2.0_f32, 1.0]).repeat([64, 1]);
        let none = arithmetic(&[&still, &other], &grid(), 100, 1).unwrap();
        assert!(none.difference.abs() < 1e-12);
    }

    #[test]
    fn too_little_to_learn_from_is_refused() {
        let (features, svm) = (rows(), LinearSvm::default());
        let refused = |features: &[&Tensor], grid: &ShiftGrid, folds| {
            svm.separability(features, grid, Halves::TopBottom, folds).unwrap_err().to_string()
        };
        assert!(refused(&[], &grid(), Folds::Contiguous(5)).starts_with("features"));
        assert!(refused(&[&features], &grid(), Folds::Contiguous(1)).starts_with("folds"));
        assert!(refused(&[&features], &grid(), Folds::LeaveObjectsOut(2)).contains("number of objects"));
        let line = ShiftGrid::new([3, 10], [3, 3], 1).unwrap();
        assert!(refused(&[&features.narrow(0, 0, 8)], &line, Folds::Contiguous(2)).contains("half"));
        assert!(refused(&[&features.narrow(0, 0, 8)], &grid(), Folds::Contiguous(2)).contains("object"));
        assert!(
            LinearSvm { cost: 0.0, ..svm }
                .separability(&[&features], &grid(), Halves::TopBottom, Folds::Contiguous(2))
                .is_err()
        );
        let idle = LinearSvm { sweeps: 0, ..svm };
        let error = idle.separability(&[&features], &grid(), Halves::TopBottom, Folds::Contiguous(2)).unwrap_err();
        assert_eq!(error.to_string(), "sweeps is 0, expected at least 1");
        let broken = features.copy();
        let _ = broken.get(9).fill_(f64::NAN);
        let found = arithmetic(&[&features, &broken], &grid(), 10, 0);
        assert!(matches!(found, Err(Error::NotFinite { position: [1, 1], .. })));
        assert!(arithmetic(&[&features], &grid(), 10, 0).is_err());
        assert!(arithmetic(&[&features, &features], &grid(), 0, 0).is_err());
    }
}
