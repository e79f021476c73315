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
