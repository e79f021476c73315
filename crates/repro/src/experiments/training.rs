//! Training a classifier in a run that may be killed at any moment: what image experiments share.

use super::images::{ImageSet, imagenet};
use crate::{Metrics, RunContext};
use core_tensor::data::{
    Augmentation, Batch, BatchSource, ChannelStatistics, Framing, Loader, LoaderConfig, OnDevice, Transform,
};
use core_tensor::networks::Architecture;
use core_tensor::nn::{Network, Standard};
use core_tensor::optim::{Optimizer, Schedule, Sgd, SgdConfig, parameters};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{Control, Evaluation, Objective, Observer, StepContext, TrainConfig, Trainer, evaluate};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tch::nn::VarStore;

/// A network, its data and how it is trained: part of a run's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Recipe {
    pub(crate) architecture: Architecture,
    pub(crate) data: DataChoice,
    /// Training images used.
    pub(crate) train_images: usize,
    pub(crate) batch_size: usize,
    pub(crate) epochs: u64,
    pub(crate) peak: f64,
    /// Steps at which the learning rate drops to a tenth.
    pub(crate) milestones: Vec<u64>,
    /// Epochs of linear warm-up.
    pub(crate) warm_up: u64,
    pub(crate) weight_decay: f64,
    /// The test set is looked at after every so many epochs, and after the last.
    pub(crate) evaluate_every: u64,
}

/// What a recipe trains on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DataChoice {
    /// In memory, normalised only.
    Plain(ImageSet),
    /// In memory, with random crops and flips.
    Augmented(ImageSet),
    /// Decoded on the way, with resized crops and flips.
    ImageNet,
}

/// Training and test batches on the device of the run.
pub(crate) struct Loaders {
    pub(crate) train: Box<dyn BatchSource<Batch = Batch>>,
    pub(crate) test: Box<dyn BatchSource<Batch = Batch>>,
}

/// A network with its variables.
pub(crate) struct Model {
    pub(crate) store: VarStore,
    pub(crate) network: Box<dyn Network>,
}

impl Recipe {
    /// Optimizer steps of an epoch.
    pub(crate) fn steps_per_epoch(&self) -> u64 {
        self.train_images.div_ceil(self.batch_size) as u64
    }

    /// Optimizer steps of a whole training.
    pub(crate) fn steps(&self) -> u64 {
        self.epochs * self.steps_per_epoch()
    }

    /// Seconds of a step on one core, roughly, for the forecast: images of the network's usual size.
    pub(crate) fn step_seconds(&self) -> f64 {
        let of_128 = match &self.architecture {
            Architecture::LeNet300100 { .. } => 0.004,
            Architecture::ConvNet(_) => 0.03,
            Architecture::LeNet5 { .. } => 0.07,
            // Of CIFAR's widths.
            Architecture::ResNet(network) => 0.06 * network.blocks.iter().sum::<i64>() as f64,
            _ => 1.0,
        };
        of_128 * self.batch_size as f64 / 128.0
    }

    /// The learning rate by step.
    pub(crate) fn schedule(&self) -> Schedule {
        let after_warm_up = self.warm_up * self.steps_per_epoch();
        let milestones = self.milestones.iter().map(|milestone| milestone.saturating_sub(after_warm_up)).collect();
        let steps = Schedule::Step { peak: self.peak, milestones, gamma: 0.1 };
        if after_warm_up == 0 { steps } else { Schedule::WarmUp { steps: after_warm_up, then: Box::new(steps) } }
    }

    /// The network with this seed's initial weights, on the run's device.
    pub(crate) fn build(&self, context: &RunContext, seed: u64) -> anyhow::Result<Model> {
        seed_libtorch(seed, Purpose::Initialisation, 0);
        // Drawn on the CPU, so that a seed means the same weights on every device.
        let mut store = VarStore::new(tch::Device::Cpu);
        let network = self.architecture.build(&store.root(), &Standard)?;
        store.set_device(context.device().into());
        Ok(Model { store, network })
    }

    /// Batches whose order and augmentation this seed fixes.
    pub(crate) fn loaders(&self, context: &RunContext, seed: u64) -> anyhow::Result<Loaders> {
        let (training, evaluation) = (LoaderConfig::training(self.batch_size), LoaderConfig::evaluation(500));
        let device = context.device().into();
        let (set, augmentation) = match self.data {
            DataChoice::Plain(set) => (set, Augmentation::new([set.normalise()])),
            DataChoice::Augmented(set) => (set, set.crop_and_flip()),
            DataChoice::ImageNet => return self.imagenet_loaders(context, seed, training, evaluation),
        };
        let splits = set.load(context.data(), self.train_images)?;
        let plain = Augmentation::new([set.normalise()]);
        let train = Loader::new(splits.train, &augmentation, training, seed)?;
        let test = Loader::new(splits.test, &plain, evaluation, seed)?;
        self.checked(Box::new(OnDevice::new(train, device)), Box::new(OnDevice::new(test, device)))
    }

    fn imagenet_loaders(
        &self,
        context: &RunContext,
        seed: u64,
        training: LoaderConfig,
        evaluation: LoaderConfig,
    ) -> anyhow::Result<Loaders> {
        let device = context.device().into();
        let normalise = ChannelStatistics::imagenet().normalise();
        let crop = Transform::ResizedCrop { size: [224, 224], scale: [0.1, 1.0], ratio: [0.8, 1.25] };
        let flip = Transform::HorizontalFlip { probability: 0.5 };
        let train = imagenet(context.data(), "train", Framing::Native)?;
        let train = Loader::new(train, &Augmentation::new([crop, flip, normalise.clone()]), training, seed)?;
        let test = imagenet(context.data(), "val", Framing::Centre { shorter: 256, size: [224, 224] })?;
        let test = Loader::new(test, &Augmentation::new([normalise]), evaluation, seed)?;
        self.checked(Box::new(OnDevice::new(train, device)), Box::new(OnDevice::new(test, device)))
    }

    fn checked(
        &self,
        train: Box<dyn BatchSource<Batch = Batch>>,
        test: Box<dyn BatchSource<Batch = Batch>>,
    ) -> anyhow::Result<Loaders> {
        let (found, expected) = (train.batches_per_epoch(), self.steps_per_epoch());
        anyhow::ensure!(found == expected, "the training set gives {found} batches an epoch, expected {expected}");
        Ok(Loaders { train, test })
    }

    /// SGD with momentum 0.9 over all variables.
    pub(crate) fn optimizer(&self, store: &VarStore) -> anyhow::Result<Sgd> {
        Ok(Sgd::new(parameters(store, self.weight_decay), SgdConfig::default())?)
    }
}

/// How long to train, under which schedule; differs from the recipe's own for re-training from a rewinding point.
pub(crate) struct Length {
    pub(crate) steps: u64,
    pub(crate) schedule: Schedule,
}

/// Trains for `length`, going on from the run's checkpoint if there is one, evaluating as the recipe says.
///
/// Logs an epoch's losses and, where evaluated, `test_accuracy` (%) and `test_loss` (nats). Checkpoints come at the end
/// of an epoch, at most one in two seconds: a kill loses the epoch under way, or two seconds of shorter ones.
pub(crate) fn train(
    context: &mut RunContext,
    recipe: &Recipe,
    (model, loaders): (&Model, &Loaders),
    (objective, optimizer): (&mut dyn Objective<Batch>, &mut dyn Optimizer),
    observers: Vec<&mut dyn Observer>,
    (length, seed): (Length, u64),
) -> anyhow::Result<Evaluation> {
    let epochs = length.steps.div_ceil(recipe.steps_per_epoch());
    let mut limit = StopAfter(length.steps);
    let config = TrainConfig { epochs, seed, schedule: length.schedule };
    let mut trainer = Trainer::new(config, objective, optimizer)?;
    for observer in observers {
        trainer.observe(observer);
    }
    trainer.observe(&mut limit);
    if let Some(checkpoint) = context.checkpoint() {
        trainer.restore::<()>(&checkpoint.path.clone(), &model.store)?;
    }
    let test = || evaluate(model.network.as_ref(), loaders.test.as_ref());
    let mut last_saved = Instant::now();
    while trainer.progress().epoch < epochs {
        let (_, report) = trainer.fit_epoch(loaders.train.as_ref())?;
        let epoch = report.epoch + 1;
        let mut row: Vec<(&str, f64)> = report.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        row.push(("learning_rate", report.learning_rate));
        if epoch.is_multiple_of(recipe.evaluate_every) && epoch < epochs {
            let seen = test()?;
            row.extend([("test_accuracy", seen.accuracy), ("test_loss", seen.cross_entropy)]);
        }
        if epoch < epochs {
            context.log(epoch, &row)?;
            if last_saved.elapsed() >= Duration::from_secs(2) {
                context.save_checkpoint(epoch, |path| Ok(trainer.save(path, &model.store, &())?))?;
                last_saved = Instant::now();
            }
            context.progress(epoch, epochs, "");
            continue;
        }
        let seen = test()?;
        row.extend([("test_accuracy", seen.accuracy), ("test_loss", seen.cross_entropy)]);
        context.log(epoch, &row)?;
        context.progress(epoch, epochs, "");
        return Ok(seen);
    }
    // Only a checkpoint of the last epoch could lead here, and none is written.
    Ok(test()?)
}

/// An evaluation as final metrics.
pub(crate) fn final_metrics(evaluation: Evaluation) -> Metrics {
    Metrics::from([("test_accuracy".into(), evaluation.accuracy), ("test_loss".into(), evaluation.cross_entropy)])
}

/// Stops a training after so many steps, in the middle of an epoch too.
pub(crate) struct StopAfter(pub(crate) u64);

impl Observer for StopAfter {
    fn name(&self) -> &str {
        "length"
    }

    fn after_step(&mut self, step: &StepContext, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        Ok(if step.progress.step + 1 >= self.0 { Control::Stop } else { Control::Continue })
    }
}
