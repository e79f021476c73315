//! Settings of the gates.

use super::{CostController, CpTarget, DfqOption};
use crate::fractrain::{Bits, Error, Result, Warning};
use serde::{Deserialize, Serialize};

/// Settings of the gates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DfqConfig {
    /// What there is to choose from. Published for CIFAR: (3,6), (4,6), (4,8), (6,8), (6,12); for ImageNet (3,6), (4,8),
    /// (6,12), (8,16).
    pub options: Vec<DfqOption>,
    /// Bits of all gated weights, until the [`QuantHandle`](crate::fractrain::QuantHandle) is set to others. Published: 4 for
    /// ResNet-74 on CIFAR-100, 6 for ResNet-18 on ImageNet.
    pub weight: Bits,
    /// Width of a gate's first layer. Published: 32 (CIFAR ResNets), 64 (MobileNetV2).
    pub hidden: i64,
    /// Width of a gate's second layer and of the LSTM. Published: 16 and 32.
    pub embedding: i64,
    /// A block is what shares this many leading components of its name: 2 for ResNets (`layer1.0`) and MobileNetV2
    /// (`features.3`). Layers with shorter names are blocks of their own.
    pub block_depth: usize,
    /// The cost to steer to, in percent of full precision. Published: 3; FracTrain 1.5, 2, 2.5, 3.
    pub target: CpTarget,
    /// Weight of the mean cost of a sample in the loss. Published: 1e-3 for the sum over a batch of 128, that is 0.128.
    pub beta: f64,
    /// How the sign and strength of the cost's weight follow the distance from the target. Published: the sign alone.
    pub controller: CostController,
    /// Keeps the cost term below this share of the loss proper. Published: 0.1 as an option, off by default.
    pub limit: Option<f64>,
}

impl Default for DfqConfig {
    fn default() -> Self {
        let bits = |bits: u32| Bits::new(bits).unwrap_or_else(|_| unreachable!("between 1 and 24"));
        let option = |activation, gradient| DfqOption::Bits { activation: bits(activation), gradient: bits(gradient) };
        Self {
            options: vec![option(3, 6), option(4, 6), option(4, 8), option(6, 8), option(6, 12)],
            weight: bits(4),
            hidden: 32,
            embedding: 16,
            block_depth: 2,
            target: CpTarget::default(),
            beta: 0.128,
            controller: CostController::default(),
            limit: None,
        }
    }
}

impl DfqConfig {
    /// Refuses what cannot run, naming the setting.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        if self.options.is_empty() {
            return Err(Error::config("options", "at least one", "none"));
        }
        for (name, width) in [("hidden", self.hidden), ("embedding", self.embedding)] {
            if width < 1 {
                return Err(Error::config(name, "at least 1", width));
            }
        }
        if self.block_depth == 0 {
            return Err(Error::config("block_depth", "at least 1", 0));
        }
        if !(self.beta.is_finite() && self.beta >= 0.0) {
            return Err(Error::config("beta", "a finite number, not negative", self.beta));
        }
        if let Some(limit) = self.limit.filter(|limit| !(limit.is_finite() && *limit > 0.0)) {
            return Err(Error::config("limit", "above 0, or none", limit));
        }
        self.controller.validate()
    }

    /// The cost of each option in the three passes together, relative to full precision: `b_w·b_a + b_w·b_g + b_a·b_g`
    /// over 32², 0 for a skip.
    pub fn option_costs(&self) -> Vec<f64> {
        self.costs_at(Some(self.weight))
    }

    /// The same with weights of other bits, none for full precision.
    pub(super) fn costs_at(&self, weight: Option<Bits>) -> Vec<f64> {
        let cost =
            |option: &DfqOption| option.precision_at(weight).map_or(0.0, |precision| precision.cost().iter().sum());
        self.options.iter().map(cost).collect()
    }

    /// A target that no mix of options reaches. Those of [`FollowTarget`](super::FollowTarget) have
    /// [warnings](super::FollowTarget::warnings) of their own.
    pub fn warning(&self) -> Option<Warning> {
        self.unreachable(self.target, Some(self.weight))
    }

    /// A target that no mix of options reaches with such weights.
    pub(super) fn unreachable(&self, target: CpTarget, weight: Option<Bits>) -> Option<Warning> {
        let (floor, ceiling) = self.reach(weight);
        let target = target.percent();
        (!(floor..=ceiling).contains(&target)).then_some(Warning::TargetUnreachable { target, floor, ceiling })
    }

    /// Costs of the cheapest and of the dearest option with such weights, in percent of full precision.
    pub(super) fn reach(&self, weight: Option<Bits>) -> (f64, f64) {
        let percent = self.costs_at(weight).into_iter().map(|cost| 100.0 * cost / 3.0);
        percent.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), cost| (low.min(cost), high.max(cost)))
    }

    /// The block that a layer of this name belongs to.
    pub(super) fn block_of(&self, name: &str) -> String {
        let components: Vec<&str> = name.split('.').collect();
        let depth = if components.len() > self.block_depth { self.block_depth } else { components.len() };
        components[..depth].join(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_outside_their_range_are_refused_and_lost_targets_warned_of() {
        let valid = DfqConfig::default();
        assert!(valid.validate().is_ok() && valid.warning().is_none());
        let target = |percent| DfqConfig { target: CpTarget::new(percent).unwrap(), ..DfqConfig::default() };
        // W4 with the published options costs 1.7578 % to 4.6875 %: the published first stage of 1.5 % is out of reach.
        let warning = target(1.5).warning().unwrap();
        let Warning::TargetUnreachable { floor, ceiling, .. } = warning else { panic!("{warning}") };
        assert!((floor - 1.7578).abs() < 5e-5 && (ceiling - 4.6875).abs() < 5e-5);
        assert!(target(4.69).warning().is_some() && target(1.76).warning().is_none());
        for percent in [0.0, -1.0, 100.1, f64::NAN] {
            assert!(CpTarget::new(percent).is_err());
        }
        let refused = |config: DfqConfig| config.validate().unwrap_err().to_string();
        assert!(refused(DfqConfig { options: Vec::new(), ..valid.clone() }).contains("options"));
        assert!(refused(DfqConfig { hidden: 0, ..valid.clone() }).contains("hidden"));
        assert!(refused(DfqConfig { beta: -1.0, ..valid.clone() }).contains("beta"));
        assert!(refused(DfqConfig { block_depth: 0, ..valid.clone() }).contains("block_depth"));
        assert!(refused(DfqConfig { limit: Some(0.0), ..valid.clone() }).contains("limit"));
        assert!(refused(DfqConfig { controller: CostController::Relax { rho: f64::NAN }, ..valid }).contains("rho"));
        // An option without gradient bits is no option.
        assert!(serde_json::from_str::<DfqOption>(r#"{"bits":{"activation":4}}"#).is_err());
        assert!(serde_json::from_str::<DfqConfig>(r#"{"target":0.0}"#).is_err());
    }
}
