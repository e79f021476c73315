//! Which networks, data, forms of pre-training and fine-tuning each tier runs.

use super::certify::Certified;
use super::evaluate::{Ladder, Measure, Shift};
use super::fine_tune::{Labels, Rate, Tuning, TuningParams};
use super::pretrain::{Norms, PretrainParams, Setting};
use crate::experiments::images::ImageSet;
use crate::{Ask, DataUse, Tier};
use contrast::attack::smoothing::SmoothingConfig;
use contrast::attack::{Ball, Pgd, Start};
use contrast::learn::{
    AclConfig, Branch, Defence, Formulation, ProjectorConfig, RobustConfig, SemiConfig, SimClrAugmentation,
};
use core_tensor::networks::{Architecture, BlockKind, ConvNetConfig, ResNetConfig, Shortcut, Stem};

/// What a tier compares.
pub(super) struct Case {
    /// For the report.
    pub(super) network: &'static str,
    pub(super) seeds: u64,
    pub(super) setting: Setting,
    pub(super) pretrainings: Vec<Pretraining>,
    pub(super) tunings: Vec<Fine>,
}

/// A pre-training with its name.
pub(super) struct Pretraining {
    pub(super) label: String,
    pub(super) params: PretrainParams,
}

/// A fine-tuning with its name, and which pre-training it starts from.
pub(super) struct Fine {
    pub(super) label: String,
    pub(super) encoder: Option<usize>,
    pub(super) params: TuningParams,
}

/// The budget of the paper.
pub(super) const RADIUS: f64 = 8.0 / 255.0;
/// A budget beyond what was trained for.
pub(super) const BEYOND: f64 = 0.1;

pub(super) const RANDOM: &str = "pre-training none";
pub(super) const SIMCLR: &str = "pre-training SimCLR";
pub(super) const DUAL: &str = "pre-training ACL, dual stream";
pub(super) const BOTH: &str = "pre-training ACL, adversarial to adversarial";
pub(super) const ONE: &str = "pre-training ACL, adversarial to standard";
pub(super) const SHARED: &str = "pre-training ACL, dual stream, one batch norm";
pub(super) const WIDE: &str = "pre-training ACL, dual stream, budget 0.1";
/// Controls with as many streams: random points of the adversary's ball in its place, and of one that is as wide as
/// [`NOISE_RADIUS`].
pub(super) const NOISE: &str = "pre-training dual stream, noise of 8/255";
pub(super) const WIDE_NOISE: &str = "pre-training dual stream, noise of 0.43";
/// Uniform noise of this radius has the deviation, 0.25, of the noise that smoothed networks are trained under, before it is
/// clipped to the box, which that one is not.
const NOISE_RADIUS: f64 = 0.43;
/// The pseudo-labelled stage, and its loss without its pseudo-labels.
pub(super) const SEMI: &str = "semi-supervised";
pub(super) const LABELS_ALONE: &str = "cross-entropy and divergence";

/// Whether a run of this kind pre-trains.
pub(super) fn is_pretraining(kind: &str) -> bool {
    kind.starts_with("pre-training")
}

/// Deviations of the noise that networks are trained and smoothed under, and the one at which training without noise is, too.
pub(super) const SIGMAS: [f64; 3] = [0.12, SIGMA, 0.5];
pub(super) const SIGMA: f64 = 0.25;

/// Training under noise of this deviation.
pub(super) fn noise_method(sigma: f64) -> String {
    format!("noise {sigma}")
}

/// The label of a fine-tuning.
pub(super) fn tuning_label(method: &str, encoder: &str, labels: usize) -> String {
    let encoder = encoder.trim_start_matches("pre-training ");
    format!("{method} from {encoder}, {labels} labels")
}

/// The case of a tier with the data at hand; none where data is missing.
pub(super) fn of(ask: &Ask) -> anyhow::Result<Option<Case>> {
    Ok(match ask.tier {
        Tier::Quick => Some(quick(ImageSet::grey(&ask.data)?)),
        Tier::Standard => Some(standard(ImageSet::grey(&ask.data)?)),
        Tier::Paper => ImageSet::cifar(&ask.data)?.map(paper),
    })
}

impl Case {
    pub(super) fn describe_data(&self) -> DataUse {
        let Setting { set, unlabelled, probe, .. } = &self.setting;
        let DataUse { source, .. } = set.describe(unlabelled + probe);
        let name = set.name();
        let halved = if self.setting.halve { " at half their height and width" } else { "" };
        let tested = self.setting.measure.attacked;
        let set = format!(
            "{name}{halved}: {unlabelled} training images without labels, {probe} others with labels for probes, 10000 test images, \
             of which {tested} are attacked, others for every seed"
        );
        DataUse { set, source }
    }

    /// Position of a pre-training.
    fn encoder(&self, label: &str) -> Option<usize> {
        self.pretrainings.iter().position(|pretraining| pretraining.label == label)
    }

    fn pretrain(&mut self, label: &str, params: PretrainParams) {
        self.pretrainings.push(Pretraining { label: label.into(), params });
    }

    /// Adversarial full fine-tuning, and the like, from a pre-training (from scratch for [`RANDOM`]).
    fn tune(&mut self, method: &str, encoder: &str, params: TuningParams) {
        let label = tuning_label(method, encoder, params.labels.count());
        let encoder = self.encoder(encoder);
        self.tunings.push(Fine { label, encoder, params });
    }
}

fn attack(radius: f64, steps: usize) -> Pgd {
    Pgd::new(Ball::linf(radius)).with_steps(steps)
}

/// The contrastive attack has 5 steps of a quarter of the radius, as the paper's.
fn acl(formulation: Formulation, radius: f64) -> AclConfig {
    AclConfig { formulation, attack: attack(radius, 5), ..AclConfig::default() }
}

/// The dual stream with random points of a ball for adversarial ones: a step of no length.
fn noisy(radius: f64) -> AclConfig {
    AclConfig { attack: attack(radius, 1).with_step_size(0.0), ..acl(Formulation::DUAL_STREAM, radius) }
}

/// A three-layer convolutional net on grey images of 14 × 14.
fn quick(set: ImageSet) -> Case {
    let features = 64;
    let setting = Setting {
        set,
        architecture: Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![16, 32, 64], classes: 10 }),
        projector: ProjectorConfig { widths: vec![features, 64], batch_norm: true },
        normalise: false,
        halve: true,
        unlabelled: 6400,
        probe: 5000,
        views: SimClrAugmentation::small_grey([14, 14]),
        measure: Measure {
            attacked: 300,
            budgets: vec![RADIUS, 0.05, BEYOND],
            steps: 20,
            // Euclidean budgets of 0.5 and 1 at 28 × 28: with a quarter of the pixels the same change has half the length.
            shifts: vec![Shift::L2(0.25), Shift::L2(0.5), Shift::Noise(0.3), Shift::Contrast(0.5)],
        },
    };
    let base = PretrainParams::small(&setting, 2, 64);
    let mut case =
        Case { network: "ConvNet 16-32-64", seeds: 3, setting, pretrainings: Vec::new(), tunings: Vec::new() };
    case.pretrain(SIMCLR, base.with(acl(Formulation::StandardToStandard, RADIUS)));
    case.pretrain(DUAL, base.with(acl(Formulation::DUAL_STREAM, RADIUS)));
    let aff = TuningParams {
        setting: case.setting.clone(),
        branch: Branch::Adversarial,
        labels: Labels { per_class: 60 },
        tuning: Tuning::Robust(RobustConfig {
            attack: attack(RADIUS, 5).with_start(Start::Nearby),
            ..RobustConfig::trades(RADIUS)
        }),
        epochs: 12,
        batch_size: 60,
        padding: 2,
        rate: Rate::Cosine,
        peak: 0.1,
        weight_decay: 2e-4,
        ladder: None,
        certified: None,
    };
    case.tune("AFF", RANDOM, aff.clone());
    let ladder = Ladder { images: 300, auto_attack: false, masking: 0 };
    case.tune("AFF", DUAL, TuningParams { ladder: Some(ladder), ..aff });
    case
}

/// A narrow ResNet on whole images, all formulations, both label budgets, pseudo-labels. Every fine-tuning takes some 300 steps,
/// with few labels in batches of half the size; the pseudo-labelled stage has another loss too.
fn standard(set: ImageSet) -> Case {
    let features = 32;
    let resnet = ResNetConfig {
        in_channels: 1,
        stem: Stem::Strided,
        block: BlockKind::Basic,
        widths: vec![8, 16, 32],
        blocks: vec![1, 1, 1],
        shortcut: Shortcut::Projection,
        classes: 10,
    };
    let shifts = vec![
        Shift::L2(0.5),
        Shift::L2(1.0),
        Shift::Noise(0.1),
        Shift::Noise(0.2),
        Shift::Noise(0.3),
        Shift::Blur,
        Shift::Contrast(0.5),
        Shift::Brightness(0.2),
    ];
    let setting = Setting {
        set,
        architecture: Architecture::ResNet(resnet),
        projector: ProjectorConfig { widths: vec![features, 64], batch_norm: true },
        normalise: false,
        halve: false,
        unlabelled: 15_360,
        probe: 5000,
        views: SimClrAugmentation::small_grey([28, 28]),
        measure: Measure { attacked: 1000, budgets: vec![RADIUS, 0.05, BEYOND], steps: 20, shifts },
    };
    let base = PretrainParams::small(&setting, 2, 64);
    let mut case = Case { network: "ResNet 8-16-32", seeds: 5, setting, pretrainings: Vec::new(), tunings: Vec::new() };
    let ladder = Some(Ladder { images: 200, auto_attack: true, masking: 0 });
    case.pretrain(SIMCLR, PretrainParams { ladder, ..base.with(acl(Formulation::StandardToStandard, RADIUS)) });
    case.pretrain(DUAL, PretrainParams { ladder, ..base.with(acl(Formulation::DUAL_STREAM, RADIUS)) });
    case.pretrain(BOTH, base.with(acl(Formulation::AdversarialToAdversarial, RADIUS)));
    case.pretrain(ONE, base.with(acl(Formulation::AdversarialToStandard, RADIUS)));
    case.pretrain(SHARED, PretrainParams { norms: Norms::Shared, ..base.with(acl(Formulation::DUAL_STREAM, RADIUS)) });
    case.pretrain(WIDE, base.with(acl(Formulation::DUAL_STREAM, BEYOND)));
    case.pretrain(NOISE, base.with(noisy(RADIUS)));
    case.pretrain(WIDE_NOISE, base.with(noisy(NOISE_RADIUS)));
    let aff = TuningParams {
        setting: case.setting.clone(),
        branch: Branch::Adversarial,
        labels: Labels { per_class: 60 },
        tuning: Tuning::Robust(RobustConfig::trades(RADIUS)),
        epochs: 30,
        batch_size: 60,
        padding: 2,
        rate: Rate::Cosine,
        peak: 0.1,
        weight_decay: 2e-4,
        ladder: None,
        certified: None,
    };
    for encoder in [RANDOM, SIMCLR, DUAL] {
        let branch = if encoder == SIMCLR { Branch::Normal } else { Branch::Adversarial };
        let ladder = ladder.filter(|_| encoder == DUAL).map(|ladder| Ladder { masking: 100, ..ladder });
        case.tune("AFF", encoder, TuningParams { branch, ladder, ..aff.clone() });
    }
    for encoder in [RANDOM, DUAL] {
        let (labels, ladder) = (Labels { per_class: 600 }, ladder.filter(|_| encoder == RANDOM));
        case.tune("AFF", encoder, TuningParams { labels, ladder, epochs: 6, batch_size: 120, ..aff.clone() });
    }
    let semi = SemiConfig { attack: attack(RADIUS, 10), ..SemiConfig::default() };
    let labels_alone = Tuning::LabelsAlone(SemiConfig { alpha: 0.0, ..semi.clone() });
    let stage = Tuning::Semi { config: semi, guesser_epochs: 30, unlabelled_batch: 90 };
    for encoder in [RANDOM, DUAL] {
        case.tune(SEMI, encoder, TuningParams { tuning: stage.clone(), epochs: 2, batch_size: 10, ..aff.clone() });
    }
    // As many images a batch, and 330 steps for its 328.
    case.tune(LABELS_ALONE, DUAL, TuningParams { tuning: labels_alone, epochs: 55, batch_size: 100, ..aff.clone() });
    let supervised = TuningParams { labels: Labels { per_class: 600 }, epochs: 6, batch_size: 120, ..aff };
    for (method, config) in baselines() {
        let certified = (config.defence == Defence::None).then(|| smoothing(SIGMA));
        let tuning = Tuning::Robust(config);
        case.tune(method, RANDOM, TuningParams { tuning, certified, ..supervised.clone() });
    }
    for sigma in SIGMAS {
        let (tuning, certified) = (Tuning::Robust(RobustConfig::noisy(sigma)), Some(smoothing(sigma)));
        case.tune(&noise_method(sigma), RANDOM, TuningParams { tuning, certified, ..supervised.clone() });
    }
    case
}

/// Certificates of a tenth of the published passes, on 100 images a seed.
fn smoothing(sigma: f64) -> Certified {
    Certified {
        images: 100,
        sigma,
        smoothing: SmoothingConfig { selection: 100, certification: 10_000, alpha: 0.001 },
        radii: vec![0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5],
        attacked: vec![0.25, 0.5, 1.0],
        steps: 20,
        passes: 16,
        predictions: 1000,
    }
}

/// Supervised training from scratch beside TRADES with β 6, each with the attack of its own paper: from a random start for
/// PGD-AT and fast AT, from next to the image for the others.
fn baselines() -> [(&'static str, RobustConfig); 5] {
    [
        ("standard training", RobustConfig::standard()),
        ("PGD-AT", RobustConfig::pgd_at(RADIUS)),
        ("fast AT", RobustConfig::fast_at(RADIUS)),
        ("MART", RobustConfig::mart(RADIUS)),
        ("TRADES 1", RobustConfig { defence: Defence::Trades { beta: 1.0 }, ..RobustConfig::trades(RADIUS) }),
    ]
}

/// ResNet-18 on CIFAR-10 as published: a day on a GPU.
pub(super) fn paper(set: ImageSet) -> Case {
    let resnet = ResNetConfig {
        in_channels: 3,
        stem: Stem::Cifar,
        block: BlockKind::Basic,
        widths: vec![64, 128, 256, 512],
        blocks: vec![2, 2, 2, 2],
        shortcut: Shortcut::Projection,
        classes: 10,
    };
    let setting = Setting {
        set,
        architecture: Architecture::ResNet(resnet),
        projector: ProjectorConfig::acl(512),
        normalise: true,
        halve: false,
        unlabelled: 45_000,
        probe: 5000,
        views: SimClrAugmentation::cifar([32, 32]),
        measure: Measure {
            attacked: 10_000,
            budgets: vec![4.0 / 255.0, RADIUS, 16.0 / 255.0, BEYOND],
            steps: 20,
            shifts: vec![Shift::L2(0.5), Shift::L2(1.0), Shift::Noise(0.1), Shift::Contrast(0.5)],
        },
    };
    let base = PretrainParams::published(&setting);
    let mut case = Case { network: "ResNet-18", seeds: 1, setting, pretrainings: Vec::new(), tunings: Vec::new() };
    case.pretrain(SIMCLR, base.with(acl(Formulation::StandardToStandard, RADIUS)));
    case.pretrain(DUAL, base.with(acl(Formulation::DUAL_STREAM, RADIUS)));
    let aff = TuningParams {
        setting: case.setting.clone(),
        branch: Branch::Adversarial,
        labels: Labels { per_class: 4500 },
        tuning: Tuning::Robust(RobustConfig::trades(RADIUS)),
        epochs: 25,
        batch_size: 128,
        padding: 4,
        rate: Rate::Step { after: vec![14, 19] },
        peak: 0.1,
        weight_decay: 2e-4,
        ladder: Some(Ladder { images: 1000, auto_attack: true, masking: 0 }),
        certified: None,
    };
    for encoder in [RANDOM, SIMCLR, DUAL] {
        let branch = if encoder == SIMCLR { Branch::Normal } else { Branch::Adversarial };
        case.tune("AFF", encoder, TuningParams { branch, ..aff.clone() });
    }
    case
}
