//! Which network, data and methods each tier runs.

use super::{CYCLIC_REVISION, EXPORT_REVISION, REVISION};
use crate::experiments::images::ImageSet;
use crate::experiments::training::{DataChoice, Recipe};
use crate::{Ask, DataUse, Tier};
use core_tensor::networks::{Architecture, ConvNetConfig};
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
    Dfq(DfqConfig),
    /// Each sample's option drawn at random, with the shares that the learned gates had.
    RandomGates(DfqConfig),
    FracTrain(DfqConfig, Vec<CpTarget>, PlateauConfig),
}

/// A network with its data, and everything that is compared on it.
pub(super) struct Case {
    pub(super) network: &'static str,
    pub(super) recipe: Recipe,
    halved: bool,
    /// Width of the gates' recurrent state.
    hidden: i64,
    plateau: PlateauConfig,
    /// Seeds of the claims.
    pub(super) seeds: u64,
    /// Seeds of the claim on the order of stages, whose effect is small.
    pub(super) order_seeds: u64,
    /// How far below static 8-bit training an accuracy may be, in points.
    pub(super) margin: f64,
    /// Whether cyclic precision is compared too.
    cycles: bool,
    /// Whether the published controller is.
    sign_rule: bool,
    /// Targets of the controller besides that of the claims, in percent, for one seed.
    pub(super) other_targets: &'static [f64],
}

/// The published stages for a final precision of 8/8.
const STAGES: [(u32, u32); 4] = [(3, 6), (4, 6), (6, 8), (8, 8)];
/// The same stages in another order, with the same last one.
const PERMUTED: [(u32, u32); 4] = [(6, 8), (4, 6), (3, 6), (8, 8)];

/// The target of input-adaptive precision, in percent of full precision.
const TARGET: f64 = 3.0;
/// The published rule.
pub(super) const PLATEAU: PlateauConfig =
    PlateauConfig { threshold: 0.05, decay: 0.3, window: 5, scale_epochs: 10, turning_points: 3 };
/// Of the small network: when a stage ends, and the width of the gates' recurrent state.
pub(super) const SMALL_PLATEAU: PlateauConfig = PlateauConfig { threshold: 0.3, decay: 0.5, window: 2, ..PLATEAU };
pub(super) const SMALL_HIDDEN: i64 = 16;

/// The case of a tier with the data at hand; none where it needs more than there is.
pub(super) fn of(ask: &Ask) -> anyhow::Result<Option<Case>> {
    Ok(match ask.tier {
        Tier::Quick => Some(small(ImageSet::grey(&ask.data)?)),
        Tier::Standard => Some(match ImageSet::cifar(&ask.data)? {
            Some(set) => resnet20(set)?,
            None => small_on_more(ImageSet::grey(&ask.data)?),
        }),
        Tier::Paper => ImageSet::cifar(&ask.data)?.map(resnet74).transpose()?,
    })
}

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
            _ => REVISION,
        }
    }

    /// Time compared with full precision.
    fn slower(&self) -> f64 {
        match self {
            Self::FullPrecision => 1.0,
            _ if self.gates().is_some() => 1.5,
            _ => 1.15,
        }
    }
}

impl Case {
    pub(super) fn describe_data(&self) -> DataUse {
        let mut data = match self.recipe.data {
            DataChoice::Plain(set) | DataChoice::Augmented(set) => set.describe(self.recipe.train_images),
            DataChoice::ImageNet => DataUse { set: "ImageNet".into(), source: crate::DataSource::Files },
        };
        if self.halved {
            data.set.push_str(", averaged down to half their height and width");
        }
        data
    }

    pub(super) fn params(&self, arm: &Arm) -> TrainParams {
        TrainParams { recipe: self.recipe.clone(), halved: self.halved, arm: arm.clone() }
    }

    /// Seconds of a training on one core, roughly.
    pub(super) fn effort(&self, arm: &Arm) -> f64 {
        // A quarter of the pixels.
        let size = if self.halved { 0.25 } else { 1.0 };
        // Networks of 8 bits are exported, and the whole test set goes through plain integer loops.
        let export = if *arm == Arm::Static(8, 8) { 8.0 } else { 0.0 };
        self.recipe.steps() as f64 * self.recipe.step_seconds() * size * arm.slower() + export
    }

    /// The arms of a seed.
    pub(super) fn arms(&self, seed: u64) -> Vec<Arm> {
        let mut arms = vec![self.fixed(), self.permuted()];
        if seed < self.seeds {
            arms.extend([self.static_bits(8, 8), self.pfq(), self.dfq_arm(), self.fractrain(), self.random_gates()]);
            arms.extend([Arm::Static(3, 6), Arm::Static(4, 6), Arm::FullPrecision]);
            arms.extend(self.cycles.then(|| self.cyclic()));
        }
        if seed == 0 {
            arms.extend(self.other_targets());
            arms.extend(self.sign_rule());
        }
        arms
    }

    pub(super) fn static_bits(&self, forward: u32, gradient: u32) -> Arm {
        Arm::Static(forward, gradient)
    }

    pub(super) fn pfq(&self) -> Arm {
        pfq(self.plateau)
    }

    /// Switches at a quarter, half and three quarters of the epochs: the first three stages are equally long, so that their
    /// order does not change the cost.
    fn switches(&self) -> Vec<u64> {
        let stage = self.recipe.epochs / 4;
        vec![stage, 2 * stage, 3 * stage]
    }

    pub(super) fn fixed(&self) -> Arm {
        Arm::Fixed(STAGES.to_vec(), self.switches())
    }

    pub(super) fn permuted(&self) -> Arm {
        Arm::Fixed(PERMUTED.to_vec(), self.switches())
    }

    pub(super) fn cyclic(&self) -> Arm {
        // The published 32 cycles, or one an epoch where there are fewer epochs.
        let cycles = self.recipe.epochs.min(32);
        Arm::Cyclic(Cyclic { low: 3, high: 8, gradient: 8, steps: self.recipe.steps(), cycles })
    }

    fn dfq_at(&self, percent: f64) -> DfqConfig {
        dfq_at(percent, self.hidden)
    }

    pub(super) fn dfq_arm(&self) -> Arm {
        Arm::Dfq(self.dfq_at(TARGET))
    }

    pub(super) fn random_gates(&self) -> Arm {
        Arm::RandomGates(self.dfq_at(TARGET))
    }

    /// Gates steered towards the other targets.
    pub(super) fn other_targets(&self) -> Vec<Arm> {
        self.other_targets.iter().map(|percent| Arm::Dfq(self.dfq_at(*percent))).collect()
    }

    /// All targets in percent, ascending.
    pub(super) fn targets(&self) -> Vec<String> {
        let mut all = vec![TARGET];
        all.extend(self.other_targets);
        all.sort_by(f64::total_cmp);
        all.into_iter().map(|percent| percent.to_string()).collect()
    }

    /// The published controller, beside the other targets.
    pub(super) fn sign_rule(&self) -> Option<Arm> {
        let rule = || Arm::Dfq(DfqConfig { controller: CostController::Sign { band: 0.0 }, ..self.dfq_at(2.5) });
        self.sign_rule.then(rule)
    }

    pub(super) fn fractrain(&self) -> Arm {
        fractrain(self.hidden, self.plateau)
    }
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

fn dfq_at(percent: f64, hidden: i64) -> DfqConfig {
    DfqConfig {
        target: CpTarget::new(percent).unwrap_or_default(),
        hidden,
        weight: Bits::new(4).unwrap_or(DfqConfig::default().weight),
        ..DfqConfig::default()
    }
}

/// A small network on grey images.
pub(super) fn small(set: ImageSet) -> Case {
    let mut recipe = Recipe {
        architecture: Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![8, 16, 32, 32], classes: 10 }),
        data: DataChoice::Plain(set),
        train_images: 896,
        batch_size: 64,
        epochs: 12,
        peak: 0.1,
        milestones: Vec::new(),
        warm_up: 0,
        weight_decay: 1e-4,
        evaluate_every: 12,
    };
    recipe.milestones = drops(&recipe);
    Case {
        network: "ConvNet",
        recipe,
        halved: false,
        hidden: SMALL_HIDDEN,
        plateau: SMALL_PLATEAU,
        seeds: 3,
        order_seeds: 5,
        margin: 1.5,
        cycles: false,
        sign_rule: false,
        other_targets: &[2.0, 4.0],
    }
}

/// The same network on more images, where CIFAR-10 is not at hand.
fn small_on_more(set: ImageSet) -> Case {
    let few = small(set);
    let mut recipe = Recipe { train_images: 12_000, ..few.recipe.clone() };
    recipe.milestones = drops(&recipe);
    Case { network: "ConvNet, more images", recipe, cycles: true, other_targets: &[], ..few }
}

/// ResNet-20 on a tenth of CIFAR-10, images averaged down to 16 × 16.
fn resnet20(set: ImageSet) -> anyhow::Result<Case> {
    let mut recipe = Recipe {
        architecture: Architecture::cifar_resnet(20, 10)?,
        data: DataChoice::Augmented(set),
        train_images: 5_000,
        batch_size: 128,
        epochs: 15,
        peak: 0.1,
        milestones: Vec::new(),
        warm_up: 0,
        weight_decay: 1e-4,
        evaluate_every: 5,
    };
    recipe.milestones = drops(&recipe);
    Ok(Case {
        network: "ResNet-20",
        recipe,
        halved: true,
        hidden: 32,
        plateau: PlateauConfig { threshold: 0.2, decay: 0.5, window: 2, ..PLATEAU },
        seeds: 3,
        order_seeds: 3,
        margin: 1.0,
        cycles: true,
        sign_rule: false,
        other_targets: &[],
    })
}

/// The reference scripts' setting: 164 epochs, drops at 50 and 75 %.
fn resnet74(set: ImageSet) -> anyhow::Result<Case> {
    let mut recipe = Recipe {
        architecture: Architecture::cifar_resnet(74, 10)?,
        data: DataChoice::Augmented(set),
        train_images: 50_000,
        batch_size: 128,
        epochs: 164,
        peak: 0.1,
        milestones: Vec::new(),
        warm_up: 0,
        weight_decay: 1e-4,
        evaluate_every: 1,
    };
    recipe.milestones = drops(&recipe);
    Ok(Case {
        network: "ResNet-74",
        recipe,
        halved: false,
        hidden: 32,
        plateau: PLATEAU,
        seeds: 3,
        order_seeds: 3,
        margin: 0.5,
        cycles: true,
        sign_rule: true,
        other_targets: &[2.0, 2.5, 4.0],
    })
}

/// Steps at 50 and 75 % of a training.
pub(super) fn drops(recipe: &Recipe) -> Vec<u64> {
    vec![recipe.steps() / 2, recipe.steps() * 3 / 4]
}
