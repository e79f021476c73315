//! How a network's layers are quantised.

use super::{Error, GridKind, Precision, Result};
use serde::{Deserialize, Serialize};

/// Settings of a [`QuantFactory`](super::QuantFactory). The defaults are those of FracTrain's reference code unless said
/// otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuantConfig {
    /// Grid of weights, which always have a range for each output channel. A symmetric one needs 2 bits at least.
    pub weight_grid: GridKind,
    /// Grid of activations, which have one range for the whole batch. A symmetric one needs 2 bits at least.
    pub activation_grid: GridKind,
    /// Where the range of activations comes from. Published: the batch in training, a moving average in evaluation.
    pub activation_range: RangeRule,
    /// Whether gradients are rounded stochastically. Published: yes. The nearest level is a biased gradient.
    pub stochastic_gradients: bool,
    /// Whether the network's first convolution stays in full precision. Published: no for PFQ, yes for DFQ.
    pub full_precision_stem: bool,
    /// Whether linear layers are quantised too. Published: no. A Transformer wants it.
    pub linear: bool,
    /// Layers that stay in full precision, by name or by the name of what holds them. Ours: `fc` and `classifier`.
    pub full_precision: Vec<String>,
    /// Whether norms are those of [`RangeBatchNorm`](super::RangeBatchNorm). The SBM paper has them; FracTrain's code does
    /// not.
    pub range_batch_norm: bool,
    /// The reference's numerics where they are known to hurt: no bias correction of moving averages, and no step below
    /// 1e-8, which leaves small gradients fewer levels than their bits say. Off by default.
    pub reference_compat: bool,
    /// Fixes the noise of stochastic rounding in single precision on the CPU; elsewhere libtorch's generator does.
    /// [`core_tensor::seed::derive`] of a run's seed keeps it apart from what else draws from that one.
    pub seed: u64,
}

impl Default for QuantConfig {
    fn default() -> Self {
        Self {
            weight_grid: GridKind::MinMax,
            activation_grid: GridKind::MinMax,
            activation_range: RangeRule::default(),
            stochastic_gradients: true,
            full_precision_stem: false,
            linear: false,
            full_precision: vec!["fc".into(), "classifier".into()],
            range_batch_norm: false,
            reference_compat: false,
            seed: 0,
        }
    }
}

/// Where the range of a layer's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RangeRule {
    /// The least and greatest value of the batch, in evaluation too.
    Batch,
    /// The same in training; in evaluation `m̄ ← μ·m̄ + (1 − μ)·m` over training steps. (PyTorch's averaging constant is
    /// 1 − μ.)
    MovingAverage {
        /// μ in `[0, 1)`. Published: 0.9.
        momentum: f64,
    },
    /// The values that cut off `share` of the batch on each side; what lies outside, and beyond the levels of a grid
    /// that is wider, is clipped and gets no gradient. In evaluation their moving average.
    Percentile {
        /// In `[0, 0.5)`.
        share: f64,
        /// As above.
        momentum: f64,
    },
}

impl Default for RangeRule {
    fn default() -> Self {
        Self::MovingAverage { momentum: 0.9 }
    }
}

impl QuantConfig {
    /// Refuses what cannot run, naming the setting.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        let momentum = match self.activation_range {
            RangeRule::Batch => 0.0,
            RangeRule::MovingAverage { momentum } => momentum,
            RangeRule::Percentile { share, momentum } => {
                if !(0.0..0.5).contains(&share) {
                    return Err(Error::config("activation_range.share", "in [0, 0.5)", share));
                }
                momentum
            }
        };
        if !(0.0..1.0).contains(&momentum) {
            return Err(Error::config("activation_range.momentum", "in [0, 1)", momentum));
        }
        Ok(())
    }

    /// Refuses a precision of fewer bits than a grid can have. Gradients are always on a grid that takes one bit.
    ///
    /// # Errors
    /// [`Error::Config`], naming the grid.
    pub(super) fn check_precision(&self, precision: Precision) -> Result<()> {
        let grids = [
            ("weight_grid", self.weight_grid, precision.weight),
            ("activation_grid", self.activation_grid, precision.activation),
        ];
        for (name, grid, bits) in grids {
            if let Some(bits) = bits.filter(|bits| grid == GridKind::Symmetric && bits.get() < 2) {
                return Err(Error::config(name, "2 bits at least on a symmetric grid", bits.get()));
            }
        }
        Ok(())
    }

    /// Whether a layer stays in full precision by name.
    pub(super) fn leaves_out(&self, name: &str) -> bool {
        self.full_precision
            .iter()
            .any(|kept| name.strip_prefix(kept.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_outside_their_range_are_refused_by_name() {
        let with = |activation_range| QuantConfig { activation_range, ..QuantConfig::default() }.validate();
        assert!(with(RangeRule::MovingAverage { momentum: 1.0 }).unwrap_err().to_string().contains("momentum"));
        assert!(with(RangeRule::MovingAverage { momentum: f64::NAN }).is_err());
        assert!(with(RangeRule::Percentile { share: 0.5, momentum: 0.9 }).unwrap_err().to_string().contains("share"));
        assert!(QuantConfig::default().validate().is_ok());
    }

    #[test]
    fn one_bit_is_refused_on_a_symmetric_grid_and_on_no_other() {
        let one = Precision::new(1, 1).unwrap();
        let with = |weight_grid, activation_grid, precision| {
            let config = QuantConfig { weight_grid, activation_grid, ..QuantConfig::default() };
            config.check_precision(precision).map_err(|error| error.to_string())
        };
        let refused = |grid: &str| Err(format!("`{grid}`: expected 2 bits at least on a symmetric grid, found 1"));
        assert_eq!(with(GridKind::Symmetric, GridKind::MinMax, one), refused("weight_grid"));
        assert_eq!(with(GridKind::MinMax, GridKind::Symmetric, one), refused("activation_grid"));
        assert_eq!(with(GridKind::MinMax, GridKind::IntegerZeroPoint, one), Ok(()));
        assert_eq!(with(GridKind::Symmetric, GridKind::Symmetric, Precision::new(2, 1).unwrap()), Ok(()));
        assert_eq!(with(GridKind::Symmetric, GridKind::Symmetric, Precision::FULL), Ok(()));
    }

    #[test]
    fn names_match_whole_components() {
        let config = QuantConfig::default();
        assert!(config.leaves_out("fc") && config.leaves_out("classifier.1") && !config.leaves_out("fc2"));
    }
}
