//! How weights start.

use serde::{Deserialize, Serialize};
use tch::nn::Init as TchInit;
use tch::nn::init::{FanInOut, NonLinearity, NormalOrUniform};

/// How a weight tensor starts. Drawn from libtorch's generator; seed it with [`crate::seed::seed_libtorch`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// `N(0, 2 / (outputs · kernel area))`: He et al. for convolutions followed by ReLU, keeping the backward scale.
    KaimingNormalFanOut,
    /// `N(0, 2 / (inputs · kernel area))`: keeps the forward scale.
    KaimingNormalFanIn,
    /// `U(−b, b)`, `b = 1/√(inputs · kernel area)`: PyTorch's default for convolutions and linear layers.
    PyTorchDefault,
    /// `N(0, std²)`.
    Normal {
        /// The standard deviation.
        std: f64,
    },
    /// All zeros.
    Zeros,
}

impl Init {
    /// The tch form for a weight whose outputs come first: `[outputs, inputs, …kernel]`.
    pub(crate) fn for_weight(self, shape: &[i64]) -> TchInit {
        let kaiming = |fan| TchInit::Kaiming { dist: NormalOrUniform::Normal, fan, non_linearity: NonLinearity::ReLU };
        match self {
            Self::KaimingNormalFanOut => kaiming(FanInOut::FanOut),
            Self::KaimingNormalFanIn => kaiming(FanInOut::FanIn),
            Self::PyTorchDefault => {
                let bound = 1.0 / (FanInOut::FanIn.for_weight_dims(shape) as f64).sqrt();
                TchInit::Uniform { lo: -bound, up: bound }
            }
            Self::Normal { std } => TchInit::Randn { mean: 0.0, stdev: std },
            Self::Zeros => TchInit::Const(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Linear, LinearConfig};
    use tch::{Device, Kind, nn};

    #[test]
    fn weights_start_with_their_published_spread() {
        let store = nn::VarStore::new(Device::Cpu);
        // 64 outputs of 16 inputs, 3 × 3: fans of 576 outwards and 144 inwards.
        let shape = [64, 16, 3, 3];
        for (name, init, deviation) in [
            ("fan_out", Init::KaimingNormalFanOut, (2.0_f64 / 576.0).sqrt()),
            ("fan_in", Init::KaimingNormalFanIn, (2.0_f64 / 144.0).sqrt()),
            // Uniform between ±1/12.
            ("default", Init::PyTorchDefault, (1.0_f64 / 432.0).sqrt()),
            ("normal", Init::Normal { std: 0.3 }, 0.3),
        ] {
            let weight = store.root().var(name, &shape, init.for_weight(&shape));
            let (mean, found) = (weight.mean(Kind::Double), weight.std(true));
            let (mean, found) = (mean.double_value(&[]) / deviation, found.double_value(&[]) / deviation);
            // 9,216 draws: standard errors of 0.0104 for the mean and of at most 0.0074 for the deviation. Six of them.
            assert!(mean.abs() < 0.063 && (found - 1.0).abs() < 0.045, "{name}: {mean} {found}");
        }
        let zeros = store.root().var("zeros", &shape, Init::Zeros.for_weight(&shape));
        assert_eq!(zeros.abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn a_bias_starts_at_zero_unless_its_weight_starts_as_pytorchs_does() {
        let largest = |init| {
            let store = nn::VarStore::new(Device::Cpu);
            let layer = Linear::new(&store.root(), LinearConfig { init, ..LinearConfig::new(16, 4096) });
            layer.bias.unwrap().abs().max().double_value(&[])
        };
        // Uniform between ±1/√16: that none of 4,096 comes near the ends has probability 0.96^4096.
        assert!((0.24..=0.25).contains(&largest(Init::PyTorchDefault)));
        for init in [Init::KaimingNormalFanIn, Init::Normal { std: 1.0 }, Init::Zeros] {
            assert_eq!(largest(init), 0.0);
        }
    }
}
