//! One training and what it retrieves among characters never seen.

use super::arms::{Head, LossChoice, Scene, TrainParams};
use super::glyphs::Glyphs;
use super::invariance::permuted;
use super::scenes::{FixedScenes, GLYPH, Parts, SceneSource};
use super::{attended, moved};
use crate::{Metrics, RunContext};
use core_tensor::data::{Augmentation, Batch, BatchSource, Dataset, OnDevice, Transform};
use core_tensor::nn::Standard;
use core_tensor::optim::{Adam, AdamConfig, Schedule, parameters_with};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{TrainConfig, Trainer};
use std::time::{Duration, Instant};
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};
use vision::grouping::{
    AttentiveGrouping, AttentiveGroupingConfig, Baseline, BaselineConfig, Contrastive, Conv4, DistanceWeighted,
    DiversityConfig, Evaluator, GroupEmbedding, GroupLoss, GroupingHead, GroupingObjective, Margin, MarginConfig,
    MetricLoss, MultiSimilarity, Padding, PkLoader, PkSampler, RetrievalIndex, Role, SemiHard, Triplet,
    attention_sheet, neighbour_sheet,
};

pub(super) const ATTENTION: &str = "attention.png";
pub(super) const NEIGHBOURS: &str = "neighbours.png";
/// Fixes the scenes of validation and test, which are the same for all runs.
const SCENES_SEED: u64 = 7;

struct Model {
    store: VarStore,
    backbone: Conv4,
    head: Box<dyn GroupingHead>,
    loss: GroupLoss,
}

/// A set to retrieve in, and the parts of its images where they are cluttered.
struct Gallery {
    images: Dataset,
    parts: Option<Vec<Parts>>,
}

pub(super) fn measure(params: &TrainParams, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let side = if params.scene == Scene::Plain { 28 } else { GLYPH };
    let glyphs = Glyphs::load(params.source, context.data(), side, params.held_out)?;
    let device: Device = context.device().into();
    let model = Model::new(params, glyphs.train.classes().len() as i64, seed, device)?;
    let sampler = PkSampler::new(params.batch[0], params.batch[1]);
    let (validation, test) = match params.scene {
        Scene::Plain => {
            // A shift of at most two pixels.
            let shifts = Augmentation::new([Transform::PadCrop { padding: 2 }]);
            let loader = PkLoader::new(glyphs.train.clone(), &shifts, sampler, seed)?;
            train(params, seed, &model, &OnDevice::new(loader, device), context)?;
            let gallery = |images: &Dataset| Gallery { images: images.clone(), parts: None };
            (gallery(&glyphs.validation), gallery(&glyphs.test))
        }
        Scene::Cluttered => {
            let source = SceneSource { glyphs: &glyphs.train, sampler, seed };
            train(params, seed, &model, &OnDevice::new(source, device), context)?;
            let gallery = |set: &Dataset, seed| {
                let FixedScenes { images, parts } = FixedScenes::draw(set, &glyphs.train, seed)?;
                anyhow::Ok(Gallery { images, parts: Some(parts) })
            };
            (gallery(&glyphs.validation, SCENES_SEED)?, gallery(&glyphs.test, SCENES_SEED + 1)?)
        }
    };
    let held_out = model.embed(&inputs(&validation.images))?.concat();
    let chosen = Evaluator::new([1]).evaluate(&held_out, validation.images.targets())?;
    let mut metrics = model.examine(&test, seed)?;
    metrics.insert("validation_r1".into(), chosen.recall[0].1);
    if seed == 0 {
        model.draw(&test, context)?;
    }
    Ok(metrics)
}

fn train(
    params: &TrainParams,
    seed: u64,
    model: &Model,
    source: &dyn BatchSource<Batch = Batch>,
    context: &mut RunContext,
) -> anyhow::Result<()> {
    let backbone = |images: &Tensor| Ok(model.backbone.forward(images, true));
    let mut objective = GroupingObjective::new(&backbone, model.head.as_ref(), &model.loss, seed);
    let parameters = parameters_with(&model.store, |parameter| {
        let learned_by_loss = Role::of(&parameter.name, "head", "loss") == Role::Loss;
        parameter.weight_decay = if learned_by_loss { 0.0 } else { params.weight_decay };
    });
    let mut optimizer = Adam::new(parameters, AdamConfig::default())?;
    let steps = params.epochs * source.batches_per_epoch();
    let schedule = Schedule::OneCycle { peak: params.peak, steps, rise: 0.3 };
    let config = TrainConfig { epochs: params.epochs, seed, schedule };
    let mut trainer = Trainer::new(config, &mut objective, &mut optimizer)?;
    if let Some(checkpoint) = context.checkpoint() {
        trainer.restore::<()>(&checkpoint.path.clone(), &model.store)?;
    }
    let mut last_saved = Instant::now();
    while trainer.progress().epoch < params.epochs {
        let (_, report) = trainer.fit_epoch(source)?;
        let epoch = report.epoch + 1;
        let row: Vec<(&str, f64)> = report.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        context.log(epoch, &row)?;
        if epoch < params.epochs && last_saved.elapsed() >= Duration::from_secs(2) {
            context.save_checkpoint(epoch, |path| Ok(trainer.save(path, &model.store, &())?))?;
            last_saved = Instant::now();
        }
        context.progress(epoch, params.epochs, "");
    }
    Ok(())
}

impl Model {
    /// With this seed's initial weights, on `device`.
    fn new(params: &TrainParams, classes: i64, seed: u64, device: Device) -> anyhow::Result<Self> {
        seed_libtorch(seed, Purpose::Initialisation, 0);
        // Drawn on the CPU, so that a seed means the same weights on every device.
        let mut store = VarStore::new(Device::Cpu);
        let root = store.root();
        let backbone = Conv4::new(&(&root / "backbone"), &Standard, 1, Padding::Zeros);
        let (in_channels, embed_dim) = (Conv4::CHANNELS, params.embed_dim);
        let head: Box<dyn GroupingHead> = match params.head {
            Head::Attentive { groups } => {
                let config = AttentiveGroupingConfig::new(in_channels, groups, embed_dim);
                let config = AttentiveGroupingConfig { reduction: 4, ..config };
                Box::new(AttentiveGrouping::new(&(&root / "head"), config)?)
            }
            Head::Baseline { how, groups } => {
                let config = BaselineConfig { kind: how, in_channels, groups, embed_dim };
                Box::new(Baseline::new(&(&root / "head"), config)?)
            }
        };
        let make = |group: i64| metric_loss(params.loss, &(&root / "loss" / group), classes);
        let loss = GroupLoss::new(head.groups(), DiversityConfig::weighted(params.lambda), make)?;
        let loss = match params.loss {
            LossChoice::Margin => loss.with_miner(DistanceWeighted::default()),
            LossChoice::Triplet => loss.with_miner(SemiHard::default()),
            LossChoice::MultiSimilarity | LossChoice::Contrastive => loss,
        };
        store.set_device(device);
        Ok(Self { store, backbone, head, loss })
    }

    fn map(&self, images: &Tensor) -> Tensor {
        tch::no_grad(|| self.backbone.forward(&images.to_device(self.store.device()), false))
    }

    /// Embeddings of `[n, 1, height, width]`, on the CPU, where they are compared and drawn.
    fn embed(&self, images: &Tensor) -> anyhow::Result<GroupEmbedding> {
        let (mut groups, mut maps) = (Vec::new(), Vec::new());
        for start in (0..images.size()[0]).step_by(200) {
            let count = (images.size()[0] - start).min(200);
            let seen = tch::no_grad(|| self.head.forward(&self.map(&images.narrow(0, start, count))))?;
            groups.push(seen.groups().shallow_clone());
            maps.extend(seen.attention().map(Tensor::shallow_clone));
        }
        let joined = |parts: &[Tensor]| Tensor::cat(parts, 0).to_device(Device::Cpu);
        let attention = (!maps.is_empty()).then(|| joined(&maps));
        Ok(GroupEmbedding::normalised(&joined(&groups), attention)?)
    }

    fn examine(&self, test: &Gallery, seed: u64) -> anyhow::Result<Metrics> {
        let (images, labels) = (inputs(&test.images), test.images.targets());
        let seen = self.embed(&images)?;
        let evaluator = Evaluator::new([1]);
        let whole = evaluator.evaluate(&seen.concat(), labels)?;
        let mut metrics = Metrics::from([
            ("r1".into(), whole.recall[0].1),
            ("map_at_r".into(), whole.map_at_r),
            ("r_precision".into(), whole.r_precision),
        ]);
        let mut best = 0.0_f64;
        for group in 0..self.head.groups() {
            best = best.max(evaluator.evaluate(&seen.group(group)?, labels)?.recall[0].1);
        }
        metrics.insert("best_group_r1".into(), best);
        let optional = [
            ("between_groups", seen.similarity_between_groups()),
            ("overlap", seen.attention_overlap()),
            ("entropy", seen.attention_entropy()),
        ];
        metrics.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        match (&test.parts, seen.attention()) {
            (Some(parts), Some(attention)) => metrics.extend(attended::measure(attention, parts)?),
            (Some(_), None) => {}
            (None, _) => {
                let embed = |images: &Tensor| anyhow::Ok(self.embed(images)?.concat());
                metrics.extend(moved::measure(&images, labels, &embed)?);
            }
        }
        if seen.attention().is_some() {
            let map = self.map(&inputs(&test.images.take(20)?));
            let embed = |map: &Tensor| anyhow::Ok(tch::no_grad(|| self.head.forward(map))?.concat());
            metrics.insert("permutation".into(), permuted(&map, &embed(&map)?, 100, seed, &embed)?);
        }
        Ok(metrics)
    }

    /// Pictures for the report: the first drawing of some characters.
    fn draw(&self, test: &Gallery, context: &mut RunContext) -> anyhow::Result<()> {
        let images = inputs(&test.images);
        let seen = self.embed(&images)?;
        let labels = test.images.targets();
        let first = |class: i64| labels.iter().position(|&label| label == class);
        let shown: Vec<usize> = (0..8).filter_map(|row| first(row * 13)).collect();
        let picks = Tensor::from_slice(&shown.iter().map(|&position| position as i64).collect::<Vec<_>>());
        if let Some(attention) = seen.attention() {
            let sheet = attention_sheet(&images.index_select(0, &picks), &attention.index_select(0, &picks), 3)?;
            context.save_artifact(ATTENTION, |path| Ok(std::fs::write(path, &sheet)?))?;
        }
        let neighbours = RetrievalIndex::exact(&seen.concat(), Default::default())?.search_itself(8)?;
        let sheet = neighbour_sheet(&images, labels, &neighbours, &shown, 2)?;
        context.save_artifact(NEIGHBOURS, |path| Ok(std::fs::write(path, &sheet)?))
    }
}

fn metric_loss(choice: LossChoice, path: &Path, classes: i64) -> vision::grouping::Result<Box<dyn MetricLoss>> {
    Ok(match choice {
        LossChoice::Margin => Box::new(Margin::new(path, MarginConfig::new(classes))?),
        LossChoice::MultiSimilarity => Box::new(MultiSimilarity { beta: 10.0, ..MultiSimilarity::default() }),
        LossChoice::Contrastive => Box::new(Contrastive::default()),
        LossChoice::Triplet => Box::new(Triplet::default()),
    })
}

/// `[n, 1, height, width]` in `[0, 1]`, as training sees them.
fn inputs(set: &Dataset) -> Tensor {
    set.images().to_kind(Kind::Float) / 255.0
}
