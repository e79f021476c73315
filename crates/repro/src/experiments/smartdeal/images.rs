//! A convolutional network trained on images, compressed at three shares of zeros, and re-trained a little; or, at the
//! first share, trained longer in SmartDeal form, where zeros stay zero. Beside both the dense network, trained on as long.

use super::super::images::ImageSet;
use super::super::training::{self, DataChoice, Length, Loaders, Model, Recipe};
use super::learning::{moved, zeros_lost};
use super::network::saved;
use crate::{Ask, Metrics, RunContext};
use core_tensor::checkpoint::{Header, read_state, state_of, write_safetensors};
use core_tensor::networks::Architecture;
use core_tensor::optim::{Parameter, Schedule, Sgd, SgdConfig, parameters};
use core_tensor::train::{CrossEntropy, Evaluation, Observer, evaluate};
use quant::smartdeal::train::{
    AlternateRetraining, BucketSwitch, CoefficientMode, CoefficientUpdate, SdTrainConfig, SdTrainingFactory,
    UpdateConfig,
};
use quant::smartdeal::{CompressPolicy, Record, SdzModel, compress};
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;

/// The file with the trained weights.
const WEIGHTS: &str = "dense.safetensors";

/// A dense training.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trained {
    pub(super) recipe: Recipe,
}

/// A compression with so many zeros, and the re-training that follows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retrained {
    pub(super) recipe: Recipe,
    /// Share of the coefficients that are to be zero.
    pub(super) zeros: f64,
    /// Epochs of alternation.
    pub(super) epochs: u64,
    /// Their learning rate.
    pub(super) rate: f64,
}

/// A compression with so many zeros, and a training in SmartDeal form that follows it: bases, biases and norms learn;
/// coefficients stay, or move a rung at a time. No zero of the start is lost; below the lowest rung others are made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Learned {
    pub(super) recipe: Recipe,
    /// Share of the coefficients that are to be zero.
    pub(super) zeros: f64,
    pub(super) epochs: u64,
    /// Learning rate of the first half; a tenth in the second.
    pub(super) peak: f64,
    pub(super) update: UpdateConfig,
}

/// A dense training that goes on as an arm of the others does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Continued {
    pub(super) recipe: Recipe,
    pub(super) course: Course,
}

/// For how long and how fast a trained network trains on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Course {
    /// At one learning rate.
    Constant { epochs: u64, rate: f64 },
    /// At a peak in the first half, at a tenth of it in the second.
    Falling { epochs: u64, peak: f64 },
}

impl Course {
    fn length(self, recipe: &Recipe) -> Length {
        match self {
            Self::Constant { epochs, rate } => {
                Length { steps: epochs * recipe.steps_per_epoch(), schedule: Schedule::Constant { peak: rate } }
            }
            Self::Falling { epochs, peak } => {
                let steps = epochs * recipe.steps_per_epoch();
                Length { steps, schedule: Schedule::Step { peak, milestones: vec![steps / 2], gamma: 0.1 } }
            }
        }
    }
}

impl Retrained {
    pub(super) fn course(&self) -> Course {
        Course::Constant { epochs: self.epochs, rate: self.rate }
    }
}

impl Learned {
    pub(super) fn course(&self) -> Course {
        Course::Falling { epochs: self.epochs, peak: self.peak }
    }
}

/// ResNet-20 where CIFAR-10 is at hand, else LeNet-5 on grey images.
pub(super) fn recipe(ask: &Ask) -> anyhow::Result<Recipe> {
    let (architecture, data, train_images, peak) = match ImageSet::cifar(&ask.data)? {
        Some(set) => (Architecture::cifar_resnet(20, 10)?, DataChoice::Augmented(set), 20_000, 0.1),
        None => (Architecture::LeNet5 { classes: 10 }, DataChoice::Plain(ImageSet::grey(&ask.data)?), 60_000, 0.05),
    };
    let mut recipe = Recipe {
        architecture,
        data,
        train_images,
        batch_size: 128,
        epochs: 8,
        peak,
        milestones: Vec::new(),
        warm_up: 0,
        weight_decay: 5e-4,
        evaluate_every: 4,
    };
    recipe.milestones = vec![recipe.steps() * 5 / 8, recipe.steps() * 7 / 8];
    Ok(recipe)
}

/// How coefficients move: without norms a tenth as many a step as usual, since more of them make a training diverge.
pub(super) fn switch(recipe: &Recipe) -> BucketSwitch {
    let usual = BucketSwitch::default();
    let norms = !matches!(recipe.architecture, Architecture::LeNet5 { .. });
    let share = if norms { 1.0 } else { 0.1 };
    BucketSwitch { max_update_fraction: share * usual.max_update_fraction, ..usual }
}

pub(super) fn train(params: &Trained, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let recipe = &params.recipe;
    let model = recipe.build(context, seed)?;
    let loaders = recipe.loaders(context, seed)?;
    let mut objective = CrossEntropy::new(model.network.as_ref());
    let mut optimizer = recipe.optimizer(&model.store)?;
    let length = Length { steps: recipe.steps(), schedule: recipe.schedule() };
    let learner = (&mut objective as _, &mut optimizer as _);
    let seen = training::train(context, recipe, (&model, &loaders), learner, Vec::new(), (length, seed))?;
    let header = Header::new("repro.weights", 1, ()).to_metadata()?;
    context.save_artifact(WEIGHTS, |path| Ok(write_safetensors(path, &state_of(&model.store), &header)?))?;
    Ok(training::final_metrics(seen))
}

pub(super) fn retrain(params: &Retrained, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let recipe = &params.recipe;
    let (model, dense_bytes) = restored(recipe, seed, context)?;
    let policy = CompressPolicy::with_theta(theta_for(&model.store, params.zeros)?);
    let loaders = recipe.loaders(context, seed)?;

    let mut retraining = AlternateRetraining::new(&model.store, policy.clone())?;
    retraining.project()?;
    let one_shot = evaluate(model.network.as_ref(), loaders.test.as_ref())?.accuracy;
    let observers: Vec<&mut dyn Observer> = vec![&mut retraining];
    let variables = parameters(&model.store, recipe.weight_decay);
    let length = (params.course().length(recipe), seed);
    train_on(context, recipe, (&model, &loaders), (variables, observers), length)?;

    // The last projection, whose rebuilt weights the network has. Decomposing those once more would give other ones.
    let Some((_, compressed, report)) = retraining.best() else { anyhow::bail!("no epoch of re-training") };
    context.save_artifact("network.sdz", |path| Ok(compressed.write(path, None).map(drop)?))?;
    let file = saved(context, "network.sdz")?;
    SdzModel::read(&file)?.write_into(&model.store)?;
    let mut metrics = training::final_metrics(evaluate(model.network.as_ref(), loaders.test.as_ref())?);
    metrics.extend([
        ("one_shot".into(), one_shot),
        ("theta".into(), policy.decompose.theta),
        ("zeros".into(), 100.0 * report.element_sparsity()),
        ("file_ratio".into(), dense_bytes / std::fs::metadata(file)?.len() as f64),
    ]);
    Ok(metrics)
}

pub(super) fn learn(params: &Learned, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let recipe = &params.recipe;
    let (dense, dense_bytes) = restored(recipe, seed, context)?;
    // Training keeps the bases in full precision.
    let theta = theta_for(&dense.store, params.zeros)?;
    let policy = CompressPolicy { basis_bits: None, ..CompressPolicy::with_theta(theta) };
    let (start, _) = compress(&dense.store, &policy)?;

    let mut store = VarStore::new(tch::Device::Cpu);
    let factory = SdTrainingFactory::from_model(&start, SdTrainConfig::for_model(&start, theta))?;
    let network = recipe.architecture.build(&store.root(), &factory)?;
    let sd_weights = factory.finish(&store)?;
    store.set_device(context.device().into());
    let model = Model { store, network };
    let loaders = recipe.loaders(context, seed)?;
    let mut update = CoefficientUpdate::new(&sd_weights, params.update)?;
    let observers: Vec<&mut dyn Observer> = vec![&mut update];
    let length = (params.course().length(recipe), seed);
    let variables = sd_weights.trainable(&model.store, recipe.weight_decay);
    let seen = train_on(context, recipe, (&model, &loaders), (variables, observers), length)?;

    let mut compressed = sd_weights.export(&model.store)?;
    for record in compressed.records.values_mut() {
        if let Record::Layer(layer) = record {
            *layer = layer.clone().with_basis_bits(8)?;
        }
    }
    context.save_artifact("network.sdz", |path| Ok(compressed.write(path, None).map(drop)?))?;
    let file = saved(context, "network.sdz")?;
    // What the file holds, bases of 8 bits.
    SdzModel::read(&file)?.write_into(&dense.store)?;
    let from_file = evaluate(dense.network.as_ref(), loaders.test.as_ref())?;
    let mut metrics = training::final_metrics(from_file);
    let layers = || compressed.layers().map(|(_, layer)| layer.stats());
    let (entries, non_zeros) = layers().fold((0, 0), |(all, some), s| (all + s.entries, some + s.non_zeros));
    metrics.extend([
        ("float_basis_accuracy".into(), seen.accuracy),
        ("zeros".into(), 100.0 * (1.0 - non_zeros as f64 / entries as f64)),
        ("file_ratio".into(), dense_bytes / std::fs::metadata(file)?.len() as f64),
    ]);
    if params.update.mode != CoefficientMode::Frozen {
        metrics.insert("moved".into(), moved(&start, &compressed)?);
        metrics.insert("zeros_lost".into(), zeros_lost(&start, &compressed)? as f64);
    }
    Ok(metrics)
}

pub(super) fn continue_dense(params: &Continued, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let recipe = &params.recipe;
    let (model, _) = restored(recipe, seed, context)?;
    let loaders = recipe.loaders(context, seed)?;
    let length = (params.course.length(recipe), seed);
    let variables = parameters(&model.store, recipe.weight_decay);
    let seen = train_on(context, recipe, (&model, &loaders), (variables, Vec::new()), length)?;
    Ok(training::final_metrics(seen))
}

/// The network as `trained` left it, and the bytes of its file.
fn restored(recipe: &Recipe, seed: u64, context: &RunContext) -> anyhow::Result<(Model, f64)> {
    let weights = context.needed("trained")?.artifact(WEIGHTS)?;
    let model = recipe.build(context, seed)?;
    lth::restore(&read_state(&weights)?, &model.store)?;
    Ok((model, std::fs::metadata(&weights)?.len() as f64))
}

/// Trains these variables with fresh momentum; coefficients are an observer's.
fn train_on(
    context: &mut RunContext,
    recipe: &Recipe,
    (model, loaders): (&Model, &Loaders),
    (variables, observers): (Vec<Parameter>, Vec<&mut dyn Observer>),
    length: (Length, u64),
) -> anyhow::Result<Evaluation> {
    let mut objective = CrossEntropy::new(model.network.as_ref());
    let mut optimizer = Sgd::new(variables, SgdConfig::default())?;
    training::train(context, recipe, (model, loaders), (&mut objective, &mut optimizer), observers, length)
}

/// The threshold that gives this share of zeros in one shot, by bisection: zeros grow with it.
fn theta_for(store: &VarStore, zeros: f64) -> anyhow::Result<f64> {
    let (mut low, mut high) = (1e-5_f64, 1.0_f64);
    for _ in 0..16 {
        let middle = (low * high).sqrt();
        let (_, report) = compress(store, &CompressPolicy::with_theta(middle))?;
        if report.element_sparsity() < zeros {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok((low * high).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::nn::Standard;

    #[test]
    fn a_course_lasts_as_long_as_it_says_and_falls_half_way() {
        let empty = tempfile::tempdir().unwrap();
        let data = crate::DataRoot::at(empty.path());
        let ask = Ask { tier: crate::Tier::Standard, seeds: None, device: crate::Device::Cpu, data };
        let recipe = recipe(&ask).unwrap();
        // 60,000 images in batches of 128: 469 steps an epoch.
        let constant = Course::Constant { epochs: 2, rate: 0.01 }.length(&recipe);
        assert_eq!((constant.steps, constant.schedule), (938, Schedule::Constant { peak: 0.01 }));
        let falling = Course::Falling { epochs: 6, peak: 0.05 }.length(&recipe);
        let schedule = Schedule::Step { peak: 0.05, milestones: vec![1407], gamma: 0.1 };
        assert_eq!((falling.steps, falling.schedule), (2814, schedule));
    }

    #[test]
    fn the_threshold_gives_the_share_of_zeros_that_was_asked_for() {
        let store = VarStore::new(tch::Device::Cpu);
        Architecture::LeNet5 { classes: 10 }.build(&store.root(), &Standard).unwrap();
        for zeros in super::super::ZEROS {
            let policy = CompressPolicy::with_theta(theta_for(&store, zeros).unwrap());
            let found = compress(&store, &policy).unwrap().1.element_sparsity();
            // Sixteen halvings of five decades leave a factor of 1.0002; weights are dense around the threshold.
            assert!((found - zeros).abs() < 5e-3, "{zeros}: {found}");
        }
    }
}
