//! Which network, data and methods each tier runs.

use super::arms::{
    Arm, FRONTIER, PLATEAU, SMALL_HIDDEN, SMALL_PLATEAU, STAGES, TrainParams, dfq_at, fractrain, pfq, statics,
};
use crate::experiments::images::ImageSet;
use crate::experiments::training::{DataChoice, Recipe};
use crate::{Ask, DataUse, Tier};
use core_tensor::networks::{Architecture, ConvNetConfig};
use quant::fractrain::{CostController, Cyclic, DfqConfig, PlateauConfig};

/// A network with its data, and everything that is compared on it.
pub(super) struct Case {
    pub(super) network: &'static str,
    /// Whether it carries the tier's claims. One that does not stands beside the one that does, with claims of its own.
    pub(super) leads: bool,
    pub(super) recipe: Recipe,
    halved: bool,
    /// Width of the gates' recurrent state.
    hidden: i64,
    pub(super) plateau: PlateauConfig,
    /// Seeds of the claims.
    pub(super) seeds: u64,
    /// Seeds of fixed stages and of the claim on their order, whose effect is small; not fewer than the others.
    pub(super) order_seeds: u64,
    /// How far below static 8-bit training an accuracy may be, in points.
    pub(super) margin: f64,
    /// Static precisions, ascending in cost; 8/8 is the last.
    statics: &'static [(u32, u32)],
    /// Whether one of the gates' options for all inputs is compared too.
    single: bool,
    /// Whether gated networks are cheaper than static 8/8 with everything counted. In a small one the first convolution, which they
    /// keep in full precision, costs more than that alone.
    pub(super) gates_pay: bool,
    /// Whether cyclic precision is compared too.
    cycles: bool,
    /// Whether the published controller is.
    sign_rule: bool,
    /// Targets of the controller besides that of the claims, in percent, for [`TARGET_SEEDS`].
    pub(super) other_targets: &'static [f64],
}

/// The published stages in another order, with the same last one.
const PERMUTED: [(u32, u32); 4] = [(6, 8), (4, 6), (3, 6), (8, 8)];

/// The target of input-adaptive precision, in percent of full precision.
const TARGET: f64 = 3.0;
/// A low one, which some cases have too: the paper's gates gain most at low cost.
pub(super) const LOW_TARGET: f64 = 2.0;
/// Seeds of the other targets: a claim about every seed needs two.
pub(super) const TARGET_SEEDS: u64 = 2;

/// The cases of a tier with the data at hand; none where it needs more than there is.
pub(super) fn cases(ask: &Ask) -> anyhow::Result<Vec<Case>> {
    let grey = || ImageSet::grey(&ask.data);
    Ok(match ask.tier {
        Tier::Quick => vec![small(grey()?)],
        Tier::Standard => match ImageSet::cifar(&ask.data)? {
            Some(set) => vec![resnet20(set)?, small_beside(grey()?)],
            None => vec![small_on_more(grey()?)],
        },
        Tier::Paper => ImageSet::cifar(&ask.data)?.map(resnet74).transpose()?.into_iter().collect(),
    })
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
        if !self.leads {
            data.set.push_str(" (the small network beside it)");
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
        let mut arms = vec![self.fixed()];
        arms.extend(self.leads.then(|| self.permuted()));
        if seed < self.seeds {
            arms.extend([self.pfq(), self.dfq_arm(), self.fractrain(), self.random_gates()]);
            arms.extend(self.statics());
            arms.push(Arm::FullPrecision);
            arms.extend(self.single_option());
            arms.extend(self.cycles.then(|| self.cyclic()));
        }
        if seed < TARGET_SEEDS {
            arms.extend(self.other_targets());
        }
        if seed == 0 {
            arms.extend(self.sign_rule());
        }
        arms
    }

    /// Static precisions, ascending in cost.
    pub(super) fn statics(&self) -> Vec<Arm> {
        statics(self.statics)
    }

    /// The gates' option with the most bits of activations at 8-bit gradients, for all inputs.
    pub(super) fn single_option(&self) -> Option<Arm> {
        self.single.then_some(Arm::SingleOption(4, 6, 8))
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

    /// Gates steered towards a low cost, where the case has them.
    pub(super) fn low_target(&self) -> Option<Arm> {
        self.other_targets.contains(&LOW_TARGET).then(|| Arm::Dfq(self.dfq_at(LOW_TARGET)))
    }

    /// Gates steered by the adaptive controller, towards every target.
    pub(super) fn steered(&self) -> Vec<Arm> {
        let mut arms = vec![self.dfq_arm()];
        arms.extend(self.other_targets());
        arms
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
        leads: true,
        recipe,
        halved: false,
        hidden: SMALL_HIDDEN,
        plateau: SMALL_PLATEAU,
        seeds: 3,
        order_seeds: 5,
        margin: 1.5,
        statics: &[(3, 6), (4, 6), (8, 8)],
        single: false,
        gates_pay: false,
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
    let network = "ConvNet, more images";
    Case { network, recipe, statics: &FRONTIER, single: true, cycles: true, other_targets: &[], ..few }
}

/// The same network with more seeds than a larger one can have, so that differences of a point can be told apart.
fn small_beside(set: ImageSet) -> Case {
    let few = small(set);
    let mut recipe = Recipe { train_images: 5_000, epochs: 15, evaluate_every: 15, ..few.recipe.clone() };
    recipe.milestones = drops(&recipe);
    Case {
        network: "ConvNet, 5,000 images",
        leads: false,
        recipe,
        plateau: PlateauConfig { threshold: 0.3, decay: 0.5, window: 3, ..PLATEAU },
        seeds: 6,
        order_seeds: 6,
        margin: 1.0,
        statics: &FRONTIER,
        single: true,
        other_targets: &[2.0, 2.5, 4.0],
        ..few
    }
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
        leads: true,
        recipe,
        halved: true,
        hidden: 32,
        // The threshold is the default of the reference's scripts for CIFAR.
        plateau: PlateauConfig { threshold: 0.15, decay: 0.5, window: 3, ..PLATEAU },
        seeds: 5,
        order_seeds: 6,
        margin: 1.0,
        statics: &FRONTIER,
        single: true,
        gates_pay: true,
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
        leads: true,
        recipe,
        halved: false,
        hidden: 32,
        plateau: PLATEAU,
        seeds: 3,
        order_seeds: 3,
        margin: 0.5,
        statics: &FRONTIER,
        single: true,
        gates_pay: true,
        cycles: true,
        sign_rule: true,
        other_targets: &[2.0, 2.5, 4.0],
    })
}

/// Steps at 50 and 75 % of a training.
pub(super) fn drops(recipe: &Recipe) -> Vec<u64> {
    vec![recipe.steps() / 2, recipe.steps() * 3 / 4]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataRoot, Device};
    use quant::fractrain::Precision;

    /// Every case that generated images are enough for.
    fn grey_cases() -> [Case; 3] {
        [small(ImageSet::GeneratedGrey), small_on_more(ImageSet::GeneratedGrey), small_beside(ImageSet::GeneratedGrey)]
    }

    #[test]
    fn static_precisions_ascend_in_cost_and_end_at_8_8() {
        for case in grey_cases() {
            let cost = |(forward, gradient): &(u32, u32)| Precision::new(*forward, *gradient).unwrap().cost_percent();
            let costs: Vec<f64> = case.statics.iter().map(cost).collect();
            assert!(costs.windows(2).all(|pair| pair[0] < pair[1]), "{costs:?}");
            assert_eq!(case.statics().last(), Some(&Arm::Static(8, 8)));
        }
    }

    #[test]
    fn no_arm_of_a_seed_comes_twice_and_other_targets_have_two_seeds() {
        for case in grey_cases() {
            assert!(case.order_seeds >= case.seeds);
            for seed in 0..case.order_seeds {
                let arms = case.arms(seed);
                assert!(arms.iter().enumerate().all(|(index, arm)| !arms[..index].contains(arm)), "{}", case.network);
                let others = case.other_targets().iter().all(|arm| arms.contains(arm));
                assert_eq!(others, seed < 2 || case.other_targets.is_empty());
            }
        }
    }

    #[test]
    fn the_quick_tier_has_one_case_and_the_paper_tier_none_without_data() {
        let empty = tempfile::tempdir().unwrap();
        let of = |tier| {
            let ask = Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
            cases(&ask).unwrap().len()
        };
        assert_eq!([Tier::Quick, Tier::Standard, Tier::Paper].map(of), [1, 1, 0]);
    }
}
