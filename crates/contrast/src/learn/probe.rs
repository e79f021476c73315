//! A linear classifier on frozen features, fitted to its optimum.

use super::error::{Error, Result};
use super::evaluate::{Features, check_labels};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use tch::{Kind, Tensor, no_grad};

/// Settings of [`linear_probe`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeConfig {
    /// Weight λ of `λ/2·‖W‖²` on the weights of standardised features, above 0 so that the optimum is unique. Default 1e-4.
    pub ridge: f64,
    /// Iterations of L-BFGS at most. Default 1,000.
    pub iterations: usize,
    /// Ends when no component of the gradient is larger. Default 1e-6.
    pub tolerance: f64,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { ridge: 1e-4, iterations: 1000, tolerance: 1e-6 }
    }
}

impl ProbeConfig {
    /// # Errors
    /// The first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        let above_zero = |setting, value: f64| {
            let fine = value > 0.0 && value.is_finite();
            if fine { Ok(()) } else { Err(Error::setting(setting, "finite and above 0", value)) }
        };
        above_zero("ridge", self.ridge)?;
        above_zero("tolerance", self.tolerance)
    }
}

/// `logits = features·Wᵀ + b`.
#[derive(Debug)]
pub struct LinearHead {
    /// `[classes, features]`, `f32`.
    pub weight: Tensor,
    /// `[classes]`, `f32`.
    pub bias: Tensor,
    /// The largest component of the objective's gradient where the fit ended.
    pub residual: f64,
    /// Whether that is within [`ProbeConfig::tolerance`], or the objective could not be lowered any further in `f64`. If not,
    /// the iterations ran out, and the head is not the optimum.
    pub converged: bool,
}

impl LinearHead {
    /// `[batch, features] → [batch, classes]`; differentiable, so that an attack can go through it.
    pub fn logits(&self, features: &Tensor) -> Tensor {
        features.linear(&self.weight, Some(&self.bias))
    }

    /// Top-1 accuracy in percent.
    ///
    /// # Errors
    /// Features of another length, labels that are no class.
    pub fn accuracy(&self, test: &Features) -> Result<f64> {
        let [classes, features] = [0, 1].map(|axis| self.weight.size()[axis]);
        check_labels(test, classes)?;
        if test.vectors.size()[1] != features {
            let found = format!("{:?}", test.vectors.size());
            return Err(Error::mismatch("test features", format!("[_, {features}]"), found));
        }
        let hits = no_grad(|| self.logits(&test.vectors)).argmax(1, false).eq_tensor(&test.labels);
        Ok(100.0 * hits.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]))
    }
}

/// Multinomial logistic regression on standardised features, by L-BFGS in double precision: the standard linear evaluation of
/// frozen features, without a learning rate to choose.
///
/// The standardisation is folded into the head that is returned, so that it applies to the features as they are. Features
/// that do not vary get weight 0.
///
/// # Errors
/// Settings outside their range, no samples, labels outside `0..classes`, features that are not finite.
pub fn linear_probe(train: &Features, classes: i64, config: ProbeConfig) -> Result<LinearHead> {
    config.validate()?;
    check_labels(train, classes)?;
    no_grad(|| {
        let vectors = train.vectors.f_to_kind(Kind::Double)?;
        let mean = vectors.f_mean_dim([0].as_slice(), true, Kind::Double)?;
        let deviation = vectors.f_std_dim([0].as_slice(), false, true)?;
        let varies = deviation.f_gt(1e-12)?;
        let scale = varies.to_kind(Kind::Double) / deviation.f_clamp_min(1e-12)?;
        let problem = Regression::new(&((&vectors - &mean) * &scale), &train.labels, classes, config.ridge)?;
        let Minimum { point, residual, converged } = minimise(&problem, config)?;
        let (weight, bias) = problem.split(&point);
        let weight = weight * &scale;
        let bias = bias - (&weight * &mean).f_sum_dim_intlist([1].as_slice(), false, Kind::Double)?;
        let (weight, bias) = (weight.to_kind(Kind::Float), bias.to_kind(Kind::Float));
        Ok(LinearHead { weight, bias, residual, converged })
    })
}

/// `mean cross-entropy + λ/2·‖W‖²` of a flat vector `[classes · (features + 1)]`.
struct Regression {
    /// `[samples, features + 1]`, the last column 1.
    inputs: Tensor,
    /// `[samples, classes]`, one 1 a row.
    targets: Tensor,
    /// `[1, features + 1]`: λ, and 0 for the bias.
    ridge: Tensor,
}

impl Regression {
    fn new(inputs: &Tensor, labels: &Tensor, classes: i64, ridge: f64) -> Result<Self> {
        let [samples, features] = [0, 1].map(|axis| inputs.size()[axis]);
        let options = (Kind::Double, inputs.device());
        let ridge = Tensor::f_full([1, features + 1], ridge, options)?;
        let _ = ridge.narrow(1, features, 1).f_zero_()?;
        Ok(Self {
            inputs: Tensor::f_cat(&[inputs.shallow_clone(), Tensor::f_ones([samples, 1], options)?], 1)?,
            targets: labels.f_one_hot(classes)?.to_kind(Kind::Double),
            ridge,
        })
    }

    fn size(&self) -> [i64; 2] {
        [self.targets.size()[1], self.inputs.size()[1]]
    }

    /// Value and gradient.
    fn at(&self, point: &Tensor) -> Result<(f64, Tensor)> {
        let matrix = point.f_view(self.size())?;
        let log_probabilities = self.inputs.f_mm(&matrix.f_tr()?)?.f_log_softmax(1, Kind::Double)?;
        let samples = self.targets.size()[0] as f64;
        let weighted = &matrix * &self.ridge;
        let value = (&log_probabilities * &self.targets).f_sum(Kind::Double)? / -samples
            + (&weighted * &matrix).f_sum(Kind::Double)? / 2.0;
        let gradient = (log_probabilities.f_exp()? - &self.targets).f_tr()?.f_mm(&self.inputs)? / samples + weighted;
        Ok((value.double_value(&[]), gradient.f_view([-1])?))
    }

    /// Weights `[classes, features]` and bias `[classes]`.
    fn split(&self, point: &Tensor) -> (Tensor, Tensor) {
        let matrix = point.view(self.size());
        let features = self.size()[1] - 1;
        (matrix.narrow(1, 0, features), matrix.select(1, features))
    }
}

/// Where a minimisation ended.
struct Minimum {
    point: Tensor,
    /// Largest component of the gradient there.
    residual: f64,
    converged: bool,
}

/// Limited-memory BFGS (Nocedal and Wright, *Numerical Optimization*, algorithm 7.4) with backtracking to sufficient decrease.
fn minimise(problem: &Regression, config: ProbeConfig) -> Result<Minimum> {
    // Features of a trained network are far from independent (condition number 1,700 of 32 of them): with the usual 10 steps in memory
    // a fit takes 560 iterations, with 30 it takes 420.
    const MEMORY: usize = 30;
    let [rows, columns] = problem.size();
    let dot = |a: &Tensor, b: &Tensor| a.dot(b).double_value(&[]);
    let mut point = Tensor::f_zeros([rows * columns], (Kind::Double, problem.inputs.device()))?;
    let (mut value, mut gradient) = problem.at(&point)?;
    let largest = |gradient: &Tensor| gradient.abs().max().double_value(&[]);
    let mut exhausted = false;
    let mut history: VecDeque<(Tensor, Tensor, f64)> = VecDeque::new();
    for _ in 0..config.iterations {
        if largest(&gradient) <= config.tolerance {
            break;
        }
        let mut direction = gradient.neg();
        let mut shares = Vec::with_capacity(history.len());
        for (step, change, product) in history.iter().rev() {
            let share = dot(step, &direction) / product;
            direction -= change * share;
            shares.push(share);
        }
        if let Some((_, change, product)) = history.back() {
            direction *= product / dot(change, change);
        }
        for ((step, change, product), share) in history.iter().zip(shares.iter().rev()) {
            let back = dot(change, &direction) / product;
            direction += step * (share - back);
        }
        let slope = dot(&gradient, &direction);
        let mut length = if history.is_empty() { 1.0 / gradient.norm().double_value(&[]).max(1.0) } else { 1.0 };
        let mut reached = None;
        for _ in 0..40 {
            let next = &point + &direction * length;
            let (next_value, next_gradient) = problem.at(&next)?;
            if next_value <= value + 1e-4 * length * slope {
                reached = Some((next, next_value, next_gradient));
                break;
            }
            length /= 2.0;
        }
        // No decrease is left to the precision of f64.
        let Some((next, next_value, next_gradient)) = reached else {
            exhausted = true;
            break;
        };
        let (step, change) = (&next - &point, &next_gradient - &gradient);
        let product = dot(&step, &change);
        if product > 1e-12 * dot(&change, &change).sqrt() * dot(&step, &step).sqrt() {
            if history.len() == MEMORY {
                history.pop_front();
            }
            history.push_back((step, change, product));
        }
        (point, value, gradient) = (next, next_value, next_gradient);
    }
    let residual = largest(&gradient);
    Ok(Minimum { point, residual, converged: exhausted || residual <= config.tolerance })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::Device;

    fn features(vectors: Tensor, labels: &[i64]) -> Features {
        Features::new(vectors.to_kind(Kind::Float), Tensor::from_slice(labels)).unwrap()
    }

    /// Two classes at ±1, of which a share is mislabelled: without a ridge the optimum says exactly those log-odds.
    #[test]
    fn recovers_the_log_odds_of_a_table() {
        // At x = +1: 3 of class 1, 1 of class 0. At −1 the other way round. Log-odds at ±1 are ±ln 3.
        let vectors = Tensor::from_slice(&[1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]).view([8, 1]);
        let train = features(vectors, &[1, 1, 1, 0, 0, 0, 0, 1]);
        let head = linear_probe(&train, 2, ProbeConfig { ridge: 1e-9, ..ProbeConfig::default() }).unwrap();
        let logits = head.logits(&Tensor::from_slice(&[1.0_f32, -1.0]).view([2, 1]));
        let odds = |row: i64| logits.double_value(&[row, 1]) - logits.double_value(&[row, 0]);
        // A gradient of at most 1e-6 at a curvature of 3/16, then f32.
        assert!((odds(0) - 3.0_f64.ln()).abs() < 1e-4 && (odds(1) + 3.0_f64.ln()).abs() < 1e-4);
        assert_eq!(head.accuracy(&train).unwrap(), 75.0);
        assert!(head.converged && head.residual <= 1e-6);
    }

    #[test]
    fn a_fit_that_runs_out_of_iterations_says_so() {
        let vectors = Tensor::from_slice(&[1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0]).view([8, 1]);
        let train = features(vectors, &[1, 1, 1, 0, 0, 0, 0, 1]);
        let head = linear_probe(&train, 2, ProbeConfig { iterations: 1, ..ProbeConfig::default() }).unwrap();
        assert!(!head.converged && head.residual > 1e-6);
    }

    #[test]
    fn features_that_do_not_vary_get_no_weight() {
        let vectors = Tensor::from_slice(&[1.0, 7.0, -1.0, 7.0, 1.0, 7.0, -1.0, 7.0]).view([4, 2]);
        let head = linear_probe(&features(vectors, &[0, 1, 0, 1]), 2, ProbeConfig::default()).unwrap();
        assert_eq!(head.weight.select(1, 1).abs().max().double_value(&[]), 0.0);
        assert!(head.bias.isfinite().all().int64_value(&[]) == 1);
    }

    #[test]
    fn what_cannot_be_fitted_is_refused() {
        let good = features(Tensor::from_slice(&[1.0, -1.0]).view([2, 1]), &[0, 1]);
        let refuse = |config| linear_probe(&good, 2, config).unwrap_err();
        let flat = ProbeConfig { ridge: 0.0, ..ProbeConfig::default() };
        assert!(matches!(refuse(flat), Error::Setting { setting: "ridge", .. }));
        let never = ProbeConfig { tolerance: f64::NAN, ..ProbeConfig::default() };
        assert!(matches!(refuse(never), Error::Setting { setting: "tolerance", .. }));
        assert!(matches!(linear_probe(&good, 1, ProbeConfig::default()), Err(Error::LabelMismatch { .. })));
        let head = linear_probe(&good, 2, ProbeConfig::default()).unwrap();
        let wide = features(Tensor::zeros([1, 3], (Kind::Double, Device::Cpu)), &[0]);
        assert!(matches!(head.accuracy(&wide), Err(Error::Mismatch { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn the_gradient_vanishes_at_the_solution_and_matches_finite_differences(phase in 0.0..6.0_f64) {
            let inputs = (Tensor::arange(40 * 5, (Kind::Double, Device::Cpu)) * 1.9 + phase).sin().view([40, 5]);
            let labels: Vec<i64> = (0..40).map(|i| (i * i + i / 3) % 3).collect();
            let problem = Regression::new(&inputs, &Tensor::from_slice(&labels), 3, 1e-3).unwrap();
            // Below about 1e-8 the decrease is lost in the rounding of the value.
            let config = ProbeConfig { tolerance: 1e-7, ..ProbeConfig::default() };
            let found = minimise(&problem, config).unwrap();
            prop_assert!(found.converged && found.residual <= 1e-7);
            prop_assert!(problem.at(&found.point).unwrap().1.abs().max().double_value(&[]) <= 1e-7);
            // Anywhere: central differences of step 1e-5 have an error of about 1e-10.
            let point = Tensor::arange(18, (Kind::Double, Device::Cpu)).cos();
            let gradient = problem.at(&point).unwrap().1;
            for place in [0_i64, 7, 17] {
                let moved = |by: f64| {
                    let point = point.copy();
                    let _ = point.get(place).g_add_scalar_(by);
                    problem.at(&point).unwrap().0
                };
                let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                prop_assert!((slope - gradient.double_value(&[place])).abs() < 1e-8);
            }
        }
    }
}
