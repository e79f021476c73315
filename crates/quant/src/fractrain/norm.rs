//! Range batch norm (Banner et al., arXiv 1805.11046): the spread of a channel from its extremes instead of its variance,
//! which low precision disturbs less.

use core_tensor::nn::{BatchNormConfig, Module};
use tch::nn::{Init, ModuleT, Path};
use tch::{Kind, Tensor};

/// Parts that a channel's values are cut into; their extremes are averaged.
const CHUNKS: i64 = 16;

/// Batch norm whose standard deviation is estimated from the range.
///
/// ```text
/// R = mean over chunks of max − mean over chunks of min,   σ̂ = R · 0.5·0.35·(1 + √(π ln 4)) / √(2 ln n)
/// y = γ·(x − μ)/(σ̂ + ε) + β
/// ```
///
/// n is the length of a chunk. Variables as those of an ordinary batch norm; `running_var` holds σ̂².
#[derive(Debug)]
pub struct RangeBatchNorm {
    config: BatchNormConfig,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

impl RangeBatchNorm {
    /// Creates `weight`, `bias`, `running_mean` and `running_var` under `path`.
    pub fn new(path: &Path, config: BatchNormConfig) -> Self {
        let shape = [config.channels];
        Self {
            config,
            weight: path.var("weight", &shape, Init::Const(config.scale)),
            bias: path.var("bias", &shape, Init::Const(0.0)),
            running_mean: path.zeros_no_train("running_mean", &shape),
            running_var: path.ones_no_train("running_var", &shape),
        }
    }

    /// For a layer factory.
    pub(super) fn module(path: &Path, config: BatchNormConfig) -> Module {
        Box::new(Self::new(path, config))
    }
}

/// The factor from a range over chunks of `length` numbers to a standard deviation.
fn spread(length: f64) -> f64 {
    0.5 * 0.35 * (1.0 + (std::f64::consts::PI * 4_f64.ln()).sqrt()) / (2.0 * length.ln()).sqrt()
}

impl ModuleT for RangeBatchNorm {
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        let channels = self.config.channels;
        let (mean, deviation) = if train {
            let rows = input.transpose(0, 1).reshape([channels, -1]);
            let mean = rows.mean_dim([1_i64].as_slice(), false, Kind::Float);
            let total = rows.size()[1];
            // Fewer numbers than chunks: one chunk. What does not fill the last chunk is left out of the range.
            let chunks = if total >= 2 * CHUNKS { CHUNKS } else { 1 };
            let length = (total / chunks).max(1);
            let parts = rows.slice(1, 0, chunks * length, 1).reshape([channels, chunks, length]);
            let high = parts.amax([2_i64].as_slice(), false).mean_dim([1_i64].as_slice(), false, Kind::Float);
            let low = parts.amin([2_i64].as_slice(), false).mean_dim([1_i64].as_slice(), false, Kind::Float);
            let deviation = (high - low) * spread(length.max(2) as f64);
            tch::no_grad(|| {
                let momentum = self.config.momentum;
                let update = |running: &Tensor, now: &Tensor| {
                    let mixed = running * (1.0 - momentum) + now * momentum;
                    running.shallow_clone().copy_(&mixed);
                };
                update(&self.running_mean, &mean);
                update(&self.running_var, &deviation.square());
            });
            (mean, deviation)
        } else {
            (self.running_mean.shallow_clone(), self.running_var.sqrt())
        };
        let mut shape = vec![1; input.dim()];
        shape[1] = channels;
        let along = |values: Tensor| values.view(&shape[..]);
        let scale = &self.weight / (deviation + self.config.eps);
        let shift = &self.bias - mean * &scale;
        input * along(scale) + along(shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::distr::{Distribution, Uniform};
    use tch::{Device, nn};

    #[test]
    fn the_factors_are_those_of_the_closed_form() {
        // Evaluated by hand at two lengths.
        assert!((spread(512.0) - 0.152_937).abs() < 1e-6 && (spread(8192.0) - 0.127_251).abs() < 1e-6);
    }

    #[test]
    fn normal_data_come_out_with_about_unit_spread_and_running_statistics_follow() {
        // On N(0, 1) the estimate is 0.93 ± 0.02 at chunks of 512 (closed form of the expected range): y has σ ≈ 1/0.93.
        let rng = &mut rand_chacha::ChaCha8Rng::seed_from_u64(4);
        let uniform = Uniform::new(0.0_f32, 1.0).unwrap();
        let values: Vec<f32> = (0..16 * 512).map(|_| (0..12).map(|_| uniform.sample(rng)).sum::<f32>() - 6.0).collect();
        let x = Tensor::from_slice(&values).view([8, 1, 32, 32]);
        let store = nn::VarStore::new(Device::Cpu);
        let config = BatchNormConfig { momentum: 1.0, ..BatchNormConfig::new(1) };
        let norm = RangeBatchNorm::new(&store.root(), config);
        let y = norm.forward_t(&(&x * 3.0 + 5.0), true);
        let spread = y.std(false).double_value(&[]);
        // A sum of twelve uniforms has shorter tails than a normal, hence a smaller range: a band of 10 % around 1/0.93.
        assert!((spread * 0.93 - 1.0).abs() < 0.1, "{spread}");
        assert!(y.mean(Kind::Float).double_value(&[]).abs() < 1e-4);
        let again = norm.forward_t(&(&x * 3.0 + 5.0), false);
        assert!((again - y).abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn inputs_of_other_ranks_are_normalised_along_their_second_axis() {
        let store = nn::VarStore::new(Device::Cpu);
        let norm = RangeBatchNorm::new(&store.root(), BatchNormConfig::new(3));
        let x = (Tensor::arange(12, (Kind::Float, Device::Cpu)) * 0.7).sin().view([4, 3]);
        let images = norm.forward_t(&x.view([4, 3, 1, 1]), true);
        assert_eq!(norm.forward_t(&x, true), images.view([4, 3]));
    }
}
