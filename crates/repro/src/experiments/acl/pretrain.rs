//! Pre-training an encoder, and what its frozen features are worth.

use super::cases::RADIUS;
use super::evaluate::{Ladder, Measure, Subject, measure};
use super::{ENCODER, PICTURE, picture};
use crate::experiments::images::ImageSet;
use crate::{Metrics, RunContext};
use contrast::learn::{
    Acl, AclConfig, Branch, BranchSwitch, DualBatchNorm, Features, Formulation, ProbeConfig, Projector,
    ProjectorConfig, SimClrAugmentation, TwoViews, linear_probe,
};
use core_tensor::checkpoint::{Header, save_variables};
use core_tensor::data::{Augmentation, BatchSource, Dataset, Loader, LoaderConfig, OnDevice, Samples, Splits};
use core_tensor::networks::Architecture;
use core_tensor::nn::{LayerFactory, Network, Standard};
use core_tensor::optim::{Lars, LarsConfig, Optimizer, Schedule, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{Objective, TrainConfig, Trainer};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// Metric of a probe: 1 where its fit came to its optimum, 0 where it was cut off before.
pub(super) const CONVERGED: &str = "probe converged";

/// What all runs of a tier share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Setting {
    pub(super) set: ImageSet,
    pub(super) architecture: Architecture,
    pub(super) projector: ProjectorConfig,
    /// Whether the network normalises its input by ImageNet's statistics, as the reference code does on CIFAR-10.
    pub(super) normalise: bool,
    /// Whether images are brought to half their height and width, by the mean of 2 × 2 pixels, before anything else.
    pub(super) halve: bool,
    /// The first training images, without labels.
    pub(super) unlabelled: usize,
    /// The training images after them, with labels, for linear probes.
    pub(super) probe: usize,
    pub(super) views: SimClrAugmentation,
    pub(super) measure: Measure,
}

/// How a pre-training goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PretrainParams {
    pub(super) setting: Setting,
    pub(super) objective: AclConfig,
    pub(super) norms: Norms,
    pub(super) epochs: u64,
    pub(super) batch_size: usize,
    pub(super) optimizer: OptimizerChoice,
    pub(super) peak: f64,
    /// Share of the steps that warm up.
    pub(super) warm_up: f64,
    pub(super) weight_decay: f64,
    /// Ever stronger attacks on the probe of the branch that counts.
    pub(super) ladder: Option<Ladder>,
}

/// Batch norms of the encoder and the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Norms {
    Dual,
    /// One set for clean and adversarial views: the ablation.
    Shared,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OptimizerChoice {
    Sgd,
    Lars,
}

impl PretrainParams {
    /// SGD at 0.2 with a short warm-up and a cosine, for small networks.
    pub(super) fn small(setting: &Setting, epochs: u64, batch_size: usize) -> Self {
        Self {
            setting: setting.clone(),
            objective: AclConfig::default(),
            norms: Norms::Dual,
            epochs,
            batch_size,
            optimizer: OptimizerChoice::Sgd,
            peak: 0.2,
            warm_up: 0.05,
            weight_decay: 1e-4,
            ladder: None,
        }
    }

    /// The paper's 1,000 epochs: LARS at 5, batches of 512, 1 % of the steps to warm up, a cosine to 1e-6.
    pub(super) fn published(setting: &Setting) -> Self {
        Self {
            optimizer: OptimizerChoice::Lars,
            peak: 5.0,
            warm_up: 0.01,
            weight_decay: 1e-6,
            ..Self::small(setting, 1000, 512)
        }
    }

    /// The same with another objective.
    pub(super) fn with(&self, objective: AclConfig) -> Self {
        Self { objective, ..self.clone() }
    }

    /// Seconds on one core, roughly.
    pub(super) fn effort(&self) -> f64 {
        let steps = self.epochs as f64 * (self.setting.unlabelled / self.batch_size) as f64;
        let attack = self.objective.attack.steps as f64 * 0.7;
        let passes = match self.objective.formulation {
            Formulation::StandardToStandard => 1.0,
            Formulation::AdversarialToAdversarial => 1.0 + attack,
            Formulation::AdversarialToStandard => 1.0 + attack / 2.0,
            Formulation::DualStream { .. } => 2.0 + attack,
        };
        steps * passes * self.setting.pass_seconds() * self.batch_size as f64 / 64.0
    }

    fn schedule(&self, steps_per_epoch: u64) -> Schedule {
        let steps = self.epochs * steps_per_epoch;
        let ramp = (self.warm_up * steps as f64).round() as u64;
        let cosine = Schedule::Cosine { peak: self.peak, last: 1e-6, steps: steps - ramp };
        if ramp == 0 { cosine } else { Schedule::WarmUp { steps: ramp, then: Box::new(cosine) } }
    }

    /// The branch whose features are used: that of adversarial images where there were any.
    pub(super) fn branch(&self) -> Branch {
        match (self.norms, self.objective.formulation) {
            (Norms::Shared, _) | (_, Formulation::StandardToStandard) => Branch::Normal,
            _ => Branch::Adversarial,
        }
    }

    /// The branches that were trained, by the names that metrics have.
    pub(super) fn branches(&self) -> Vec<(&'static str, Branch)> {
        match (self.norms, self.objective.formulation) {
            (Norms::Shared, _) | (_, Formulation::StandardToStandard) => vec![("normal", Branch::Normal)],
            (_, Formulation::AdversarialToAdversarial) => vec![("adversarial", Branch::Adversarial)],
            _ => vec![("adversarial", Branch::Adversarial), ("normal", Branch::Normal)],
        }
    }
}

impl Setting {
    /// Seconds on one core, roughly, of one of the passes through the network of 64 images that a training consists of.
    pub(super) fn pass_seconds(&self) -> f64 {
        if self.halve { 0.04 } else { 0.055 }
    }

    pub(super) fn data(&self, context: &RunContext) -> anyhow::Result<Splits> {
        let splits = self.set.load(context.data(), self.unlabelled + self.probe)?;
        let (found, wanted) = (splits.train.len(), self.unlabelled + self.probe);
        anyhow::ensure!(found == wanted, "the training set has {found} images, expected {wanted}");
        // Folders are read class after class, and the first images are taken here and there.
        let splits = match self.set {
            ImageSet::Cifar10Jpeg => Splits { train: in_turns(&splits.train)?, test: in_turns(&splits.test)? },
            _ => splits,
        };
        if !self.halve {
            return Ok(splits);
        }
        Ok(Splits { train: halved(&splits.train)?, test: halved(&splits.test)? })
    }

    /// The images without labels.
    pub(super) fn unlabelled(&self, data: &Splits) -> anyhow::Result<Dataset> {
        Ok(data.train.take(self.unlabelled)?)
    }

    /// The network with this seed's initial weights, on the run's device.
    pub(super) fn build(
        &self,
        context: &RunContext,
        layers: &dyn LayerFactory,
        seed: u64,
    ) -> anyhow::Result<(VarStore, Box<dyn Network>, Projector)> {
        seed_libtorch(seed, Purpose::Initialisation, 0);
        // Drawn on the CPU, so that a seed means the same weights on every device.
        let mut store = VarStore::new(Device::Cpu);
        let network = self.architecture.build(&store.root(), layers)?;
        let features = network.feature_size();
        let projector = Projector::new(&(store.root() / "projector"), layers, features, &self.projector)?;
        store.set_device(context.device().into());
        Ok((store, network, projector))
    }

    /// Pixels in `[0, 1]` as the network takes them: attacks see pixels, whatever happens inside.
    pub(super) fn input(&self, images: &Tensor) -> Tensor {
        if !self.normalise {
            return images.shallow_clone();
        }
        let channels = |values: [f32; 3]| Tensor::from_slice(&values).view([1, 3, 1, 1]).to_device(images.device());
        (images - channels([0.485, 0.456, 0.406])) / channels([0.229, 0.224, 0.225])
    }
}

pub(super) fn run(params: &PretrainParams, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let setting = &params.setting;
    let data = setting.data(context)?;
    let switch = BranchSwitch::default();
    let dual = DualBatchNorm::new(&switch);
    let layers: &dyn LayerFactory = match params.norms {
        Norms::Dual => &dual,
        Norms::Shared => &Standard,
    };
    let (store, network, projector) = setting.build(context, layers, seed)?;
    let device: Device = context.device().into();

    let images = setting.unlabelled(&data)?;
    let views = setting.views.transforms(images.channels());
    let views = TwoViews::new(images, &views, LoaderConfig::training(params.batch_size), seed)?;
    let views = OnDevice::new(views, device);
    let embed =
        |images: &Tensor, train: bool| projector.forward(&network.features(&setting.input(images), train), train);
    let mut objective = Acl::embedding(Box::new(embed), &switch, params.objective.clone(), seed)?;
    let mut optimizer: Box<dyn Optimizer> = match params.optimizer {
        OptimizerChoice::Sgd => Box::new(Sgd::new(parameters(&store, params.weight_decay), SgdConfig::default())?),
        OptimizerChoice::Lars => Box::new(Lars::new(parameters(&store, params.weight_decay), LarsConfig::default())?),
    };
    let schedule = params.schedule(views.batches_per_epoch());
    let config = TrainConfig { epochs: params.epochs, seed, schedule };
    fit(context, config, (&store, &views), (&mut objective, optimizer.as_mut()))?;
    drop((objective, optimizer));
    let header = Header::new("repro.acl-encoder", 1, serde_json::json!({ "seed": seed }));
    context.save_artifact(ENCODER, |path| Ok(save_variables(path, &store, &header)?))?;

    let mut metrics = Metrics::new();
    for (name, branch) in params.branches() {
        let features = |images: &Tensor| switch.during(branch, || network.features(&setting.input(images), false));
        let head = linear_probe(&probe_features(setting, &data, &features, device)?, 10, ProbeConfig::default())?;
        let logits = |images: &Tensor| head.logits(&features(images));
        let subject = Subject::new(&logits, &setting.measure, &data.test, seed, device)?;
        let main = branch == params.branch();
        metrics.extend(measure(&subject, name, main, seed)?);
        metrics.insert(format!("{name}/{CONVERGED}"), f64::from(u8::from(head.converged)));
        if main {
            if let Some(ladder) = params.ladder {
                metrics.extend(ladder.climb(&subject, RADIUS, seed)?);
            }
            picture::save(&subject, seed, PICTURE, context)?;
        }
    }
    Ok(metrics)
}

/// The first image of every class, then the second of every class, and so on: any first images are balanced, and so are those
/// after them.
pub(super) fn in_turns(set: &Dataset) -> anyhow::Result<Dataset> {
    let mut seen = vec![0_usize; set.classes().len()];
    let mut order: Vec<(usize, usize)> = Vec::with_capacity(set.len());
    for (position, &label) in set.targets().iter().enumerate() {
        let turn = &mut seen[label as usize];
        order.push((*turn, position));
        *turn += 1;
    }
    order.sort_unstable();
    let order: Vec<usize> = order.into_iter().map(|(_, position)| position).collect();
    Ok(set.subset(&order)?)
}

/// The mean of every 2 × 2 pixels, rounded.
fn halved(set: &Dataset) -> anyhow::Result<Dataset> {
    let mut images = Vec::new();
    // In parts: floats take four times the memory of bytes.
    for part in set.images().split(4096, 0) {
        let means = part.to_kind(Kind::Float).avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None);
        images.push(means.round().to_kind(Kind::Uint8));
    }
    let images = Tensor::cat(&images, 0);
    Ok(Dataset::from_tensors(&images, &set.labels(), set.classes().to_vec(), format!("{}, halved", set.origin()))?)
}

/// Frozen features of the labelled images that pre-training did not see.
fn probe_features(
    setting: &Setting,
    data: &Splits,
    features: &dyn Fn(&Tensor) -> Tensor,
    device: Device,
) -> anyhow::Result<Features> {
    let positions: Vec<usize> = (setting.unlabelled..setting.unlabelled + setting.probe).collect();
    let images = data.train.subset(&positions)?;
    let loader = Loader::new(images, &Augmentation::default(), LoaderConfig::evaluation(500), 0)?;
    Ok(Features::extract(features, &OnDevice::new(loader, device))?)
}

/// Trains to the last epoch, going on from the run's checkpoint if there is one. Logs an epoch's means. Checkpoints come at
/// the end of an epoch, at most one in two seconds, and none after the last.
pub(super) fn fit<B>(
    context: &mut RunContext,
    config: TrainConfig,
    (store, source): (&VarStore, &dyn BatchSource<Batch = B>),
    (objective, optimizer): (&mut dyn Objective<B>, &mut dyn Optimizer),
) -> anyhow::Result<()> {
    let epochs = config.epochs;
    let mut trainer = Trainer::new(config, objective, optimizer)?;
    if let Some(checkpoint) = context.checkpoint() {
        trainer.restore::<()>(&checkpoint.path.clone(), store)?;
    }
    let mut last_saved = Instant::now();
    while trainer.progress().epoch < epochs {
        let (_, report) = trainer.fit_epoch(source)?;
        let epoch = report.epoch + 1;
        let row: Vec<(&str, f64)> = report.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        context.log(epoch, &row)?;
        if epoch < epochs && last_saved.elapsed() >= Duration::from_secs(2) {
            context.save_checkpoint(epoch, |path| Ok(trainer.save(path, store, &())?))?;
            last_saved = Instant::now();
        }
        context.progress(epoch, epochs, "");
    }
    Ok(())
}
