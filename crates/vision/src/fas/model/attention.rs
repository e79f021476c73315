//! How much each task's vector counts.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// A weight for each task's vector, from a mean `μ` and a log-variance `ℓ = ln σ²` that are linear in the vector.
///
/// A softmax must share one unit of weight, so that a task that does not know forces another to be trusted. Weights of
/// their own may all be near 0, and the score then near its bias, or all near 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attention {
    /// 1: plain multi-task learning.
    Concat,
    /// `softmax` over the tasks, times their number: the traditional attention.
    Softmax,
    /// `sigmoid(μ)`: independent, and blind to uncertainty.
    Sigmoid,
    /// In training `sigmoid(μ + σ ε)`, ε standard normal; afterwards the mean of that, by the probit approximation.
    #[default]
    LogitNormal,
    /// `1 / (1 + σ²)`; in training the vector itself is sampled, `g + σ ε`.
    Precision,
}

impl Attention {
    /// All modes.
    pub const ALL: [Self; 5] = [Self::Concat, Self::Softmax, Self::Sigmoid, Self::LogitNormal, Self::Precision];

    /// Whether it has a log-variance.
    pub fn knows_uncertainty(self) -> bool {
        matches!(self, Self::LogitNormal | Self::Precision)
    }
}

/// `softmax` over the tasks (axis 0) times their number.
pub fn softmax_share(mean: &Tensor) -> Tensor {
    mean.softmax(0, Kind::Float) * mean.size()[0] as f64
}

/// `sigmoid(μ + σ ε)`.
pub fn logit_normal_sample(mean: &Tensor, log_variance: &Tensor, noise: &Tensor) -> Tensor {
    (mean + (log_variance * 0.5).exp() * noise).sigmoid()
}

/// The mean of `sigmoid(μ + σ ε)` within 0.02, `sigmoid(μ / √(1 + π σ² / 8))`.
pub fn logit_normal_mean(mean: &Tensor, log_variance: &Tensor) -> Tensor {
    (mean / (log_variance.exp() * (std::f64::consts::PI / 8.0) + 1.0).sqrt()).sigmoid()
}

/// `1 / (1 + σ²) = sigmoid(−ℓ)`.
pub fn precision(log_variance: &Tensor) -> Tensor {
    (-log_variance).sigmoid()
}

/// `½ (μ² + σ² − 1 − ln σ²)`, entry by entry: nats from `N(μ, σ²)` to `N(0, 1)`.
pub fn kl_to_standard_normal(mean: &Tensor, log_variance: &Tensor) -> Tensor {
    (mean.square() + log_variance.exp() - 1.0 - log_variance) * 0.5
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    const MEAN: [f64; 4] = [1.5, 0.2, -1.0, 0.5];

    /// ln σ² of σ = .5, 1, 2, 0 (the last as −60).
    fn log_variance() -> Tensor {
        Tensor::from_slice(&[0.25_f64.ln(), 0.0, 4.0_f64.ln(), -60.0])
    }

    fn assert_close(found: &Tensor, expected: &[f64], tolerance: f64) {
        let found = Vec::<f64>::try_from(found).unwrap();
        assert_eq!(found.len(), expected.len());
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < tolerance), "{found:?} against {expected:?}");
    }

    #[test]
    fn weights_are_those_worked_by_hand() {
        let mean = Tensor::from_slice(&MEAN);
        assert_close(&mean.sigmoid(), &[0.817574, 0.549834, 0.268941, 0.622459], 1e-6);
        let softmax = mean.softmax(0, Kind::Double);
        assert_close(&softmax, &[0.580553, 0.158219, 0.047655, 0.213573], 1e-6);
        assert_close(&(softmax_share(&mean) / 4.0), &[0.580553, 0.158219, 0.047655, 0.213573], 1e-6);
        assert_close(&logit_normal_mean(&mean, &log_variance()), &[0.807117, 0.542267, 0.348944, 0.622459], 1e-6);
        let kl = kl_to_standard_normal(&mean, &log_variance());
        assert_close(&kl.narrow(0, 0, 3), &[1.443147, 0.02, 1.306853], 1e-6);
    }

    #[test]
    fn the_mean_of_samples_is_the_exact_mean_and_the_closed_form_is_near_it() {
        // E[sigmoid(μ + σε)] by numerical quadrature.
        let exact = [0.806309, 0.541241, 0.352274, 0.622459];
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let noise: Vec<f64> = (0..40_000)
            .map(|_| {
                let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
                radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
            })
            .collect();
        let noise = Tensor::from_slice(&noise).view([10_000, 4]);
        let mean = Tensor::from_slice(&MEAN);
        let samples =
            logit_normal_sample(&mean, &log_variance(), &noise).mean_dim([0_i64].as_slice(), false, Kind::Double);
        // The largest standard deviation of a sample is 0.3, so four standard errors of 10⁴ are 0.012; 0.01 is asked.
        assert_close(&samples, &exact, 0.01);
        assert_close(&logit_normal_mean(&mean, &log_variance()), &exact, 0.004);
    }

    #[test]
    fn no_uncertainty_is_a_sigmoid_and_endless_uncertainty_a_half() {
        let mean = Tensor::from_slice(&MEAN);
        let certain = logit_normal_mean(&mean, &Tensor::full([4], -40.0, (Kind::Double, tch::Device::Cpu)));
        assert_close(&certain, &[0.817574, 0.549834, 0.268941, 0.622459], 1e-6);
        let lost = logit_normal_mean(&mean, &Tensor::full([4], 40.0, (Kind::Double, tch::Device::Cpu)));
        assert_close(&lost, &[0.5; 4], 1e-6);
        assert_close(&precision(&Tensor::from_slice(&[-60.0, 0.0, 60.0])), &[1.0, 0.5, 0.0], 1e-9);
    }

    #[test]
    fn only_softmax_lets_one_task_change_anothers_weight() {
        let slope = |weigh: &dyn Fn(&Tensor) -> Tensor| {
            let mean = Tensor::from_slice(&MEAN).set_requires_grad(true);
            weigh(&mean).get(0).backward();
            Vec::<f64>::try_from(mean.grad()).unwrap()
        };
        for independent in [slope(&|m| m.sigmoid()), slope(&|m| logit_normal_mean(m, &log_variance()))] {
            assert!(independent[0] != 0.0 && independent[1..].iter().all(|&s| s == 0.0));
        }
        assert!(slope(&softmax_share)[1..].iter().all(|&s| s != 0.0));
        let total = softmax_share(&Tensor::from_slice(&MEAN)).sum(Kind::Double).double_value(&[]);
        assert!((total - 4.0).abs() < 1e-6);
    }

    #[test]
    fn gradients_are_those_of_central_differences() {
        let noise = Tensor::from_slice(&[0.3, -1.2, 0.7, 2.0]);
        let value = |log_variance: &Tensor| {
            let mean = Tensor::from_slice(&MEAN);
            (logit_normal_sample(&mean, log_variance, &noise) + kl_to_standard_normal(&mean, log_variance))
                .sum(Kind::Double)
        };
        let at = Tensor::from_slice(&[-1.0, 0.2, 0.9, -2.0]).set_requires_grad(true);
        value(&at).backward();
        let slopes = Vec::<f64>::try_from(at.grad()).unwrap();
        for (which, slope) in slopes.iter().enumerate() {
            let step = 1e-5;
            let moved = |by: f64| {
                let shift: Vec<f64> = (0..4).map(|k| if k == which { by } else { 0.0 }).collect();
                value(&(at.detach() + Tensor::from_slice(&shift))).double_value(&[])
            };
            let expected = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((slope - expected).abs() < 1e-5 * expected.abs().max(1.0), "{slope} against {expected}");
        }
    }
}
