//! Robust training with few labels, from a pre-trained encoder or from scratch.

use super::cases::RADIUS;
use super::certify::Certified;
use super::evaluate::{Ladder, Subject, measure};
use super::pretrain::{Setting, fit};
use super::{ENCODER, PICTURE, picture};
use crate::{Metrics, RunContext};
use contrast::learn::{
    Branch, BranchSwitch, Defence, DualBatchNorm, Logits, RobustConfig, RobustTraining, Scope, SemiBatch, SemiConfig,
    SemiLoader, SemiSplit, SemiSupervised, extract, fine_tuned, pseudo_label_accuracy, pseudo_labels,
};
use core_tensor::checkpoint::{LoadPolicy, load_state, read_state};
use core_tensor::data::{
    Augmentation, Batch, BatchSource, Dataset, Loader, LoaderConfig, OnDevice, Samples, Splits, Transform,
};
use core_tensor::nn::{Network, Standard};
use core_tensor::optim::{NamedTensors, Schedule, Sgd, SgdConfig};
use core_tensor::train::{Loss, Objective, Progress, TrainConfig, Trainer};
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// The metric of how many pseudo-labels are right, in percent.
pub(super) const GUESSED: &str = "pseudo_label_accuracy";

/// Of all data sets here.
const CLASSES: usize = 10;

/// A fine-tuning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TuningParams {
    pub(super) setting: Setting,
    /// Which branch of the encoder it starts from.
    pub(super) branch: Branch,
    pub(super) labels: Labels,
    pub(super) tuning: Tuning,
    pub(super) epochs: u64,
    /// Labelled images a batch.
    pub(super) batch_size: usize,
    /// Pixels by which an image is shifted at most, either way.
    pub(super) padding: usize,
    pub(super) rate: Rate,
    pub(super) peak: f64,
    pub(super) weight_decay: f64,
    /// Ever stronger attacks to compare, and a picture.
    pub(super) ladder: Option<Ladder>,
    /// Smoothed by noise, and certified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) certified: Option<Certified>,
}

/// How many labels are used; which ones, the seed draws, and all fine-tunings of a seed have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Labels {
    pub(super) per_class: usize,
}

impl Labels {
    pub(super) fn count(self) -> usize {
        CLASSES * self.per_class
    }
}

/// How the learning rate falls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rate {
    /// To zero by half a cosine.
    Cosine,
    /// To a tenth after each of these epochs.
    Step { after: Vec<u64> },
}

/// What is minimised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Tuning {
    /// On the labelled images.
    Robust(RobustConfig),
    /// On all images, after the encoder's normal branch, or a network from scratch where there is none, trained on the labels,
    /// has labelled the rest.
    Semi { config: SemiConfig, guesser_epochs: u64, unlabelled_batch: usize },
    /// The loss of that stage on the labelled images, nothing guessed.
    LabelsAlone(SemiConfig),
}

impl TuningParams {
    /// Seconds on one core, roughly.
    pub(super) fn effort(&self) -> f64 {
        let (images, steps) = match &self.tuning {
            Tuning::Robust(RobustConfig { defence: Defence::None | Defence::Noise { .. }, .. }) => {
                (self.labels.count(), 0)
            }
            Tuning::Robust(config) => (self.labels.count(), config.attack.steps),
            Tuning::Semi { config, .. } => (self.setting.unlabelled, config.attack.steps),
            Tuning::LabelsAlone(config) => (self.labels.count(), config.attack.steps),
        };
        let passes = (2.0 + 0.7 * steps as f64) / 2.0;
        // Forward, in evaluation mode.
        let certified = 0.2 * self.certified.as_ref().map_or(0.0, Certified::passes);
        (self.epochs as f64 * images as f64 * passes + certified) / 64.0 * self.setting.pass_seconds()
    }

    pub(super) fn schedule(&self, steps_per_epoch: u64, epochs: u64) -> Schedule {
        match &self.rate {
            Rate::Cosine => Schedule::Cosine { peak: self.peak, last: 0.0, steps: epochs * steps_per_epoch },
            Rate::Step { after } => {
                let milestones = after.iter().map(|epoch| epoch * steps_per_epoch).collect();
                Schedule::Step { peak: self.peak, milestones, gamma: 0.1 }
            }
        }
    }

    /// Shifted and mirrored.
    fn augmentation(&self) -> Augmentation {
        let shift = Transform::PadCrop { padding: self.padding };
        Augmentation::new([shift, Transform::HorizontalFlip { probability: 0.5 }])
    }

    fn labelled(&self, few: Dataset, batch_size: usize, seed: u64, device: Device) -> anyhow::Result<OnDevice<Loader>> {
        let loader = Loader::new(few, &self.augmentation(), LoaderConfig::training(batch_size), seed)?;
        Ok(OnDevice::new(loader, device))
    }
}

/// The pseudo-labelled stage where every image has its label, whose share of soft labels is 0.
struct LabelsAlone<'a>(SemiSupervised<'a>);

impl Objective<Batch> for LabelsAlone<'_> {
    fn loss(&mut self, batch: &Batch, progress: &Progress) -> core_tensor::Result<Loss> {
        let (input, target) = (batch.input.shallow_clone(), batch.target.shallow_clone());
        let soft = Tensor::zeros([target.size()[0], CLASSES as i64], (input.kind(), input.device()));
        self.0.loss(&SemiBatch { input, target, soft }, progress)
    }
}

pub(super) fn run(params: &TuningParams, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let setting = &params.setting;
    let data = setting.data(context)?;
    let images = setting.unlabelled(&data)?;
    let device: Device = context.device().into();
    let start = if context.needed("encoder").is_ok() { Some(encoder(context, setting)?) } else { None };
    let (store, network, _) = setting.build(context, &Standard, seed)?;
    if let Some(start) = &start {
        load_state(&store, &extract(start, params.branch)?, &LoadPolicy::strict())?;
    }
    let network = network.as_ref();
    let logits = |images: &Tensor, train: bool| network.forward(&setting.input(images), train);
    let mut metrics = Metrics::new();
    let parameters = fine_tuned(&store, network, Scope::Full, params.weight_decay)?;
    let mut optimizer = Sgd::new(parameters, SgdConfig::default())?;
    let training = |batches: u64| {
        let schedule = params.schedule(batches, params.epochs);
        TrainConfig { epochs: params.epochs, seed, schedule }
    };
    let mut on_labels = |objective: &mut dyn Objective<Batch>| {
        let few = with_labels(&images, params.labels, seed)?;
        let loader = params.labelled(few, params.batch_size, seed, device)?;
        let config = training(loader.batches_per_epoch());
        fit(context, config, (&store, &loader), (objective, &mut optimizer))
    };
    match &params.tuning {
        Tuning::Robust(config) => on_labels(&mut RobustTraining::of(Box::new(logits), config.clone(), seed)?)?,
        Tuning::LabelsAlone(config) => {
            on_labels(&mut LabelsAlone(SemiSupervised::of(Box::new(logits), config.clone(), seed)?))?;
        }
        Tuning::Semi { config, guesser_epochs, unlabelled_batch } => {
            let split = SemiSplit::draw(&images, params.labels.per_class, seed)?;
            let soft = guess(params, start.as_ref(), (&images, &split), *guesser_epochs, seed, context)?;
            metrics.insert(GUESSED.into(), pseudo_label_accuracy(&soft, &images, &split.unlabelled)?);
            let sizes = [params.batch_size, *unlabelled_batch];
            let loader = SemiLoader::new(images, split, &soft, &params.augmentation(), sizes, seed)?;
            let loader = OnDevice::new(loader, device);
            let mut objective = SemiSupervised::of(Box::new(logits), config.clone(), seed)?;
            let config = training(loader.batches_per_epoch());
            fit(context, config, (&store, &loader), (&mut objective, &mut optimizer))?;
        }
    }
    metrics.extend(judge(params, &logits, &data, seed, context)?);
    Ok(metrics)
}

/// The images whose labels are used: all of them where as many labels are asked for, balanced or not.
pub(super) fn with_labels(images: &Dataset, labels: Labels, seed: u64) -> anyhow::Result<Dataset> {
    if labels.count() >= images.len() {
        return Ok(images.clone());
    }
    Ok(images.subset(&SemiSplit::draw(images, labels.per_class, seed)?.labelled)?)
}

/// The figures of the trained network, and its picture.
fn judge(
    params: &TuningParams,
    logits: &dyn Fn(&Tensor, bool) -> Tensor,
    data: &Splits,
    seed: u64,
    context: &mut RunContext,
) -> anyhow::Result<Metrics> {
    let evaluation = |images: &Tensor| logits(images, false);
    let subject = Subject::new(&evaluation, &params.setting.measure, &data.test, seed, context.device().into())?;
    let mut metrics = measure(&subject, "tuned", false, seed)?;
    if let Some(ladder) = params.ladder {
        metrics.extend(ladder.climb(&subject, RADIUS, seed)?);
        metrics.extend(ladder.look(&subject, RADIUS, seed)?);
        picture::save(&subject, seed, PICTURE, context)?;
    }
    if let Some(certified) = &params.certified {
        metrics.extend(certified.measure(&subject, seed)?);
    }
    Ok(metrics)
}

/// The pre-trained encoder, with both branches and its head.
fn encoder(context: &RunContext, setting: &Setting) -> anyhow::Result<VarStore> {
    let weights: NamedTensors = read_state(&context.needed("encoder")?.artifact(ENCODER)?)?;
    let dual = DualBatchNorm::new(&BranchSwitch::default());
    let (store, _, _) = setting.build(context, &dual, 0)?;
    load_state(&store, &weights, &LoadPolicy::strict())?;
    Ok(store)
}

/// Standard training on the labels, of the encoder's normal branch if there is one, and what it then says about all images.
fn guess(
    params: &TuningParams,
    start: Option<&VarStore>,
    (images, split): (&Dataset, &SemiSplit),
    epochs: u64,
    seed: u64,
    context: &RunContext,
) -> anyhow::Result<Tensor> {
    let setting = &params.setting;
    let device: Device = context.device().into();
    let (store, network, _) = setting.build(context, &Standard, seed)?;
    if let Some(start) = start {
        load_state(&store, &extract(start, Branch::Normal)?, &LoadPolicy::strict())?;
    }
    let network: &dyn Network = network.as_ref();
    let logits: Logits = Box::new(|images, train| network.forward(&setting.input(images), train));
    let mut objective = RobustTraining::of(logits, RobustConfig::standard(), seed)?;
    let parameters = fine_tuned(&store, network, Scope::Full, params.weight_decay)?;
    let mut optimizer = Sgd::new(parameters, SgdConfig::default())?;
    let loader = params.labelled(images.subset(&split.labelled)?, 60, seed, device)?;
    let config = TrainConfig { epochs, seed, schedule: params.schedule(loader.batches_per_epoch(), epochs) };
    Trainer::new(config, &mut objective, &mut optimizer)?.fit(&loader)?;
    let all = Loader::new(images.clone(), &Augmentation::default(), LoaderConfig::evaluation(500), 0)?;
    Ok(pseudo_labels(|images| network.forward(&setting.input(images), false), &OnDevice::new(all, device))?)
}
