//! The ways to choose precision that are compared.

use super::{CYCLIC_REVISION, EXPORT_REVISION, GATED_REVISION, REVISION};
use crate::experiments::training::Recipe;
use quant::fractrain::{Bits, CostController, CpTarget, Cyclic, DfqConfig, PlateauConfig};
use serde::{Deserialize, Serialize};

/// A training: part of a run's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrainParams {
    pub(super) recipe: Recipe,
    /// Whether images are averaged down to half their sides.
    pub(super) halved: bool,
    pub(super) arm: Arm,
}

/// How precision is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Arm {
    FullPrecision,
    /// Forward and gradient bits.
    Static(u32, u32),
    /// Stages with the rule that ends them.
    Pfq(Vec<(u32, u32)>, PlateauConfig),
    /// Stages that end after fixed epochs.
    Fixed(Vec<(u32, u32)>, Vec<u64>),
    Cyclic(Cyclic),
    /// Weight, activation and gradient bits of one of the gates' options, for all inputs; the first convolution stays in full
    /// precision, as it does beside gates.
    SingleOption(u32, u32, u32),
    Dfq(DfqConfig),
    /// Each sample's option drawn at random, with the shares that the learned gates had.
    RandomGates(DfqConfig),
    FracTrain(DfqConfig, Vec<CpTarget>, PlateauConfig),
}

/// The published stages for a final precision of 8/8.
pub(super) const STAGES: [(u32, u32); 4] = [(3, 6), (4, 6), (6, 8), (8, 8)];

/// What static training reaches at a cost is interpolated between these.
pub(super) const FRONTIER: [(u32, u32); 6] = [(3, 6), (4, 6), (4, 8), (5, 8), (6, 8), (8, 8)];

/// The published rule.
pub(super) const PLATEAU: PlateauConfig =
    PlateauConfig { threshold: 0.05, decay: 0.3, window: 5, scale_epochs: 10, turning_points: 3 };
/// Of the small network: when a stage ends, and the width of the gates' recurrent state. The last stage is meant to begin at
/// 60 to 80 % of the epochs.
pub(super) const SMALL_PLATEAU: PlateauConfig = PlateauConfig { threshold: 0.2, decay: 0.5, window: 2, ..PLATEAU };
pub(super) const SMALL_HIDDEN: i64 = 16;

impl Arm {
    /// As reports name it.
    pub(super) fn label(&self) -> String {
        let stages =
            |stages: &[(u32, u32)]| stages.iter().map(|(forward, _)| forward.to_string()).collect::<Vec<_>>().join("-");
        match self {
            Self::FullPrecision => "full precision".into(),
            Self::Static(forward, gradient) => format!("static {forward}/{gradient}"),
            Self::Pfq(list, _) => format!("PFQ {}", stages(list)),
            Self::Fixed(list, _) => format!("fixed stages {}", stages(list)),
            Self::Cyclic(_) => "CPT".into(),
            Self::SingleOption(weight, activation, gradient) => {
                format!("one option W{weight}/A{activation}/G{gradient}")
            }
            Self::Dfq(dfq) => match dfq.controller {
                CostController::Sign { .. } => format!("DFQ cp {} (sign rule)", dfq.target.percent()),
                _ => format!("DFQ cp {}", dfq.target.percent()),
            },
            Self::RandomGates(dfq) => format!("random gates, shares of cp {}", dfq.target.percent()),
            Self::FracTrain(..) => "FracTrain".into(),
        }
    }

    /// The gates' settings, if it has any.
    pub(super) fn gates(&self) -> Option<&DfqConfig> {
        match self {
            Self::Dfq(dfq) | Self::RandomGates(dfq) | Self::FracTrain(dfq, ..) => Some(dfq),
            _ => None,
        }
    }

    /// Of the code that runs it.
    pub(super) fn revision(&self) -> u32 {
        match self {
            Self::Cyclic(_) => CYCLIC_REVISION,
            Self::FullPrecision | Self::Static(8, 8) => EXPORT_REVISION,
            _ if self.gates().is_some() => GATED_REVISION,
            _ => REVISION,
        }
    }

    /// Time compared with full precision.
    pub(super) fn slower(&self) -> f64 {
        match self {
            Self::FullPrecision => 1.0,
            _ if self.gates().is_some() => 1.5,
            _ => 1.15,
        }
    }
}

/// Static trainings of these forward and gradient bits.
pub(super) fn statics(bits: &[(u32, u32)]) -> Vec<Arm> {
    bits.iter().map(|(forward, gradient)| Arm::Static(*forward, *gradient)).collect()
}

/// The published stages, ended by this rule.
pub(super) fn pfq(plateau: PlateauConfig) -> Arm {
    Arm::Pfq(STAGES.to_vec(), plateau)
}

/// Gates whose target rises stage by stage.
pub(super) fn fractrain(hidden: i64, plateau: PlateauConfig) -> Arm {
    let targets = [2.0, 2.33, 2.67, 3.0].map(|percent| CpTarget::new(percent).unwrap_or_default());
    Arm::FracTrain(dfq_at(2.0, hidden), targets.to_vec(), plateau)
}

pub(super) fn dfq_at(percent: f64, hidden: i64) -> DfqConfig {
    DfqConfig {
        target: CpTarget::new(percent).unwrap_or_default(),
        hidden,
        weight: Bits::new(4).unwrap_or(DfqConfig::default().weight),
        ..DfqConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gated_trainings_have_a_revision_of_their_own() {
        assert_eq!(fractrain(SMALL_HIDDEN, SMALL_PLATEAU).revision(), GATED_REVISION);
        assert_eq!((pfq(SMALL_PLATEAU).revision(), Arm::SingleOption(4, 6, 8).revision()), (REVISION, REVISION));
    }
}
