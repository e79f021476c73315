//! Central-difference convolution (Yu et al., arXiv 2003.04092).

use core_tensor::nn::{BatchNormConfig, Conv2d, Conv2dConfig, LayerFactory, LinearConfig, Module, Standard};
use tch::Tensor;
use tch::nn::{self, Path};

/// A layer factory whose 3 × 3 convolutions see differences to the centre as well:
/// `y = conv(x, w) − θ · conv₁ₓ₁(x, Σ w)`. With θ = 0 they are plain.
///
/// Built with it, any network becomes a central-difference network.
#[derive(Debug, Clone, Copy)]
pub struct CentralDifference {
    /// Share of the difference term; 0.7 in the paper.
    pub theta: f64,
}

impl Default for CentralDifference {
    fn default() -> Self {
        Self { theta: 0.7 }
    }
}

impl LayerFactory for CentralDifference {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        let plain = Conv2d::new(path, config);
        if config.kernel != 3 { Box::new(plain) } else { Box::new(Convolution { plain, config, theta: self.theta }) }
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        Standard.linear(path, config)
    }

    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
        Standard.batch_norm2d(path, config)
    }
}

#[derive(Debug)]
struct Convolution {
    plain: Conv2d,
    config: Conv2dConfig,
    theta: f64,
}

impl nn::Module for Convolution {
    fn forward(&self, input: &Tensor) -> Tensor {
        nn::Module::forward(&self.plain, input) - centre_term(input, &self.plain.weight, self.config) * self.theta
    }
}

/// `conv₁ₓ₁(x, Σ w)` at the positions of the convolution's centres.
fn centre_term(input: &Tensor, weight: &Tensor, config: Conv2dConfig) -> Tensor {
    let sums = weight.sum_dim_intlist([2_i64, 3].as_slice(), true, weight.kind());
    // A "same" convolution's centres are the input's own pixels; with less padding the rim has none, with more there are
    // zeros around it. Negative padding cuts off.
    let rim = config.kernel / 2 - config.padding;
    let centres = if rim == 0 { input.shallow_clone() } else { input.constant_pad_nd([-rim; 4]) };
    centres.conv2d(&sums, None::<Tensor>, [config.stride; 2], [0, 0], [1, 1], config.groups)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, no_grad};

    fn layer(store: &nn::VarStore, padding: i64) -> Module {
        let config = Conv2dConfig { padding, ..Conv2dConfig::new(1, 1, 3, 1) };
        let layer = CentralDifference::default().conv2d(&store.root(), config);
        let mut weight = store.variables()["weight"].shallow_clone();
        no_grad(|| weight.copy_(&Tensor::arange_start(1, 10, (Kind::Float, tch::Device::Cpu)).view([1, 1, 3, 3])));
        layer
    }

    #[test]
    fn a_patch_worked_by_hand() {
        let store = nn::VarStore::new(tch::Device::Cpu);
        let patch = Tensor::from_slice(&[1.0_f32, 2.0, 0.0, 0.0, 3.0, 1.0, 2.0, 1.0, 1.0]).view([1, 1, 3, 3]);
        // Σ w x = 57, Σ w = 45, centre 3: 57 − .7 · 45 · 3.
        let found = layer(&store, 0).forward_t(&patch, false).double_value(&[0, 0, 0, 0]);
        assert!((found + 37.5).abs() < 1e-4, "{found}");
        let same = nn::VarStore::new(tch::Device::Cpu);
        let centre = layer(&same, 1).forward_t(&patch, false).double_value(&[0, 0, 1, 1]);
        assert!((centre + 37.5).abs() < 1e-4, "{centre}");
        let wide = nn::VarStore::new(tch::Device::Cpu);
        let padded = layer(&wide, 2).forward_t(&patch, false);
        assert_eq!(padded.size(), [1, 1, 5, 5]);
        // The corner sees x₀₀ = 1 alone, under w₂₂ = 9, around a centre of zero.
        let (corner, centre) = (padded.double_value(&[0, 0, 0, 0]), padded.double_value(&[0, 0, 2, 2]));
        assert!((corner - 9.0).abs() < 1e-4 && (centre + 37.5).abs() < 1e-4, "{corner}, {centre}");
    }

    #[test]
    fn a_constant_leaves_the_undifferenced_share() {
        let store = nn::VarStore::new(tch::Device::Cpu);
        let constant = Tensor::full([1, 1, 5, 5], 2.0, (Kind::Float, tch::Device::Cpu));
        let found = layer(&store, 0).forward_t(&constant, false);
        // (1 − .7) · 45 · 2.
        assert!((found - 27.0).abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn gradients_are_those_of_central_differences() {
        let config = Conv2dConfig::new(1, 1, 3, 1);
        let value = |input: &Tensor, weight: &Tensor| {
            let plain = input.conv2d(weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
            (plain - centre_term(input, weight, config) * 0.7).square().sum(Kind::Double)
        };
        let input = (Tensor::arange(16, (Kind::Double, tch::Device::Cpu)) * 0.7).sin().view([1, 1, 4, 4]);
        let weight = (Tensor::arange(9, (Kind::Double, tch::Device::Cpu)) * 1.3).cos().view([1, 1, 3, 3]);
        let (x, w) = (input.copy().set_requires_grad(true), weight.copy().set_requires_grad(true));
        value(&x, &w).backward();
        let step = 1e-5;
        for at in [0, 5, 10, 15] {
            let moved = |by: f64| {
                let shifted = input.copy();
                let _ = shifted.view([16]).get(at).g_add_scalar_(by);
                value(&shifted, &weight).double_value(&[])
            };
            let (expected, found) =
                ((moved(step) - moved(-step)) / (2.0 * step), x.grad().view([16]).double_value(&[at]));
            assert!((expected - found).abs() < 1e-5 * expected.abs().max(1.0), "{found} against {expected}");
        }
        for at in [0, 4, 8] {
            let moved = |by: f64| {
                let shifted = weight.copy();
                let _ = shifted.view([9]).get(at).g_add_scalar_(by);
                value(&input, &shifted).double_value(&[])
            };
            let (expected, found) =
                ((moved(step) - moved(-step)) / (2.0 * step), w.grad().view([9]).double_value(&[at]));
            assert!((expected - found).abs() < 1e-5 * expected.abs().max(1.0), "{found} against {expected}");
        }
    }
}
