//! Sentences: a BERT pre-trained on masked words, fine-tuned in full and as tickets, search included in every clock.

use super::pre_training;
use crate::{Metrics, RunContext};
use core_tensor::checkpoint::state_of;
use core_tensor::data::{BatchSource, OnDevice};
use core_tensor::networks::bert::{BertConfig, BertForSequenceClassification, BertInput, load_state_keeping};
use core_tensor::nn::{LayerFactory, Standard};
use core_tensor::optim::{Adam, AdamConfig, NamedTensors, Schedule};
use core_tensor::seed::{Purpose, derive, seed_libtorch};
use core_tensor::text::glue::{Predictions, Split, Task};
use core_tensor::text::{Label, Labelled, LabelledBatch, TokenLoader, TokenLoaderConfig, WordPiece};
use core_tensor::train::{ClipNorm, Loss, Objective, Progress, TrainConfig, Trainer};
use lth::structured::{
    COEFFICIENT, DrawConfig, DrawRule, Search, SearchConfig, SlimConfig, SlimmedObjective, Slimming, TicketMask,
    bert_groups, coefficients, every_other, fold, keep_layers, prune, pruned_config, slim_parameters,
};
use serde::{Deserialize, Serialize};
use std::time::Instant;
use tch::nn::VarStore;
use tch::{Device, Kind, no_grad};

/// A task, an arm, and how it is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) task: Task,
    pub(super) arm: Arm,
    /// Training rows used, the first of the file.
    pub(super) train_rows: usize,
    pub(super) batch: usize,
    pub(super) longest: usize,
    pub(super) peak: f64,
    /// Share of the steps of a training that warm up; a search has no warm-up.
    pub(super) warm_up: f64,
    pub(super) dropout: f64,
    /// Epochs of the full training, which is also the horizon of the search's schedule.
    pub(super) full_epochs: u64,
    /// Epochs of a ticket's re-training.
    pub(super) ticket_epochs: u64,
    /// Share of the first epoch after which the ticket is drawn.
    pub(super) search: f64,
    pub(super) heads: f64,
    pub(super) neurons: f64,
    pub(super) lambda: f64,
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Arm {
    /// The whole model.
    Full,
    /// The whole model for as many epochs as a ticket.
    FullShort,
    /// The early-bird ticket.
    EarlyBird,
    /// A random ticket of its size.
    Random,
    /// Fewer layers of a network that was never trained with dropped ones (Sajjad et al., arXiv 2004.03844, and no
    /// LayerDrop): half of a step's arithmetic, where a ticket has 0.609.
    LayerDrop,
    /// No ticket: an epoch of search, and what its masks and coefficients look like.
    Watch,
}

impl Arm {
    pub(super) const ALL: [Self; 6] =
        [Self::Full, Self::FullShort, Self::EarlyBird, Self::Random, Self::LayerDrop, Self::Watch];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::FullShort => "full-short",
            Self::EarlyBird => "early-bird",
            Self::Random => "random",
            Self::LayerDrop => "layer-drop",
            Self::Watch => "watch",
        }
    }

    /// What tables call it.
    pub(super) fn shown(self) -> String {
        if self == Self::LayerDrop { "fewer layers".into() } else { self.label().replace('-', " ") }
    }

    /// On 20,000 phrases of SST-2 on one core, roughly.
    pub(super) fn seconds(self) -> f64 {
        match self {
            Self::Full => 115.0,
            Self::FullShort => 80.0,
            Self::EarlyBird => 63.0,
            Self::Random => 53.0,
            Self::LayerDrop => 32.0,
            Self::Watch => 42.0,
        }
    }
}

impl Params {
    /// The recipe of the small tier.
    pub(super) fn small(task: Task, arm: Arm, train_rows: usize) -> Self {
        Self {
            task,
            arm,
            train_rows,
            batch: 64,
            longest: 64,
            peak: 5e-4,
            warm_up: 0.1,
            dropout: 0.1,
            full_epochs: 3,
            ticket_epochs: 2,
            search: 0.2,
            heads: 0.375,
            neurons: 0.4,
            lambda: 1e-4,
        }
    }

    fn draw(&self) -> DrawConfig {
        DrawConfig::ratios(self.heads, self.neurons)
    }

    fn epochs(&self) -> u64 {
        match self.arm {
            Arm::Full => self.full_epochs,
            Arm::Watch => 1,
            _ => self.ticket_epochs,
        }
    }

    /// The learning rate of a training that is kept.
    fn schedule(&self, steps: u64) -> Schedule {
        let warm_up = (self.warm_up * steps as f64).round() as u64;
        let linear = Schedule::Linear { peak: self.peak, last: 0.0, steps: steps - warm_up };
        if warm_up == 0 { linear } else { Schedule::WarmUp { steps: warm_up, then: Box::new(linear) } }
    }

    /// The learning rate of a search, whose horizon is the full training: from the peak down without a warm-up, as in
    /// the reference scripts. With one, the draw would lie inside the ramp.
    fn search_schedule(&self, steps_per_epoch: u64) -> Schedule {
        Schedule::Linear { peak: self.peak, last: 0.0, steps: self.full_epochs * steps_per_epoch }
    }

    fn labels(&self) -> i64 {
        self.task.outputs() as i64
    }
}

/// Sentences as tokens.
struct Data {
    train: TokenLoader<Labelled>,
    dev: TokenLoader<Labelled>,
    /// Of the run.
    device: Device,
}

impl Data {
    fn load(params: &Params, pieces: &WordPiece, context: &RunContext, seed: u64) -> anyhow::Result<Self> {
        let glue = context.data().path().join("glue");
        let read = |split| params.task.load(&glue, split);
        let train = read(Split::Train)?.take(params.train_rows).labelled(pieces, params.longest)?;
        let dev = read(Split::Dev)?.labelled(pieces, params.longest)?;
        let pad = pieces.special().pad;
        Ok(Self {
            train: TokenLoader::new(train, pad, TokenLoaderConfig::training(params.batch), seed)?,
            dev: TokenLoader::new(dev, pad, TokenLoaderConfig::evaluation(128), seed)?,
            device: context.device().into(),
        })
    }
}

/// Cross-entropy or squared error of a classifier of sentences.
struct Sentences<'a>(&'a BertForSequenceClassification);

impl Objective<LabelledBatch> for Sentences<'_> {
    fn loss(&mut self, batch: &LabelledBatch, _: &Progress) -> core_tensor::Result<Loss> {
        let logits = self.0.forward(&BertInput::from(&batch.input), true)?;
        Ok(Loss::single("task", self.0.loss(&logits, &batch.target)?))
    }
}

struct Model {
    store: VarStore,
    network: BertForSequenceClassification,
}

impl Model {
    fn new(
        factory: &dyn LayerFactory,
        config: &BertConfig,
        labels: i64,
        weights: &NamedTensors,
        (seed, device): (u64, Device),
    ) -> anyhow::Result<Self> {
        seed_libtorch(seed, Purpose::Initialisation, 1);
        // Drawn on the CPU, so that a seed means the same weights on every device.
        let mut store = VarStore::new(Device::Cpu);
        let network = BertForSequenceClassification::new(&store.root(), factory, config, labels)?;
        // Coefficients, where the factory makes them, stay at 1.
        load_state_keeping(&store, weights, &[COEFFICIENT])?;
        store.set_device(device);
        Ok(Self { store, network })
    }

    /// The task's own metric in percent, and the mean loss.
    fn evaluate(&self, task: Task, dev: &TokenLoader<Labelled>) -> anyhow::Result<[f64; 2]> {
        let labels: Vec<Label> = dev.examples().iter().map(|example| example.label).collect();
        let (mut classes, mut scores, mut loss) = (vec![0_i64; labels.len()], vec![0_f64; labels.len()], 0.0);
        let batches = OnDevice::new(dev, self.store.device());
        for batch in batches.epoch(0)? {
            let batch = batch?;
            let logits = no_grad(|| self.network.forward(&BertInput::from(&batch.input), false))?;
            loss += self.network.loss(&logits, &batch.target)?.double_value(&[]) * batch.index.len() as f64;
            let chosen = Vec::<i64>::try_from(logits.argmax(-1, false))?;
            let first = Vec::<f64>::try_from(logits.select(1, 0).to_kind(Kind::Double))?;
            for (row, index) in batch.index.iter().enumerate() {
                (classes[*index], scores[*index]) = (chosen[row], first[row]);
            }
        }
        let predictions =
            if self.network.labels() == 1 { Predictions::Scores(&scores) } else { Predictions::Classes(&classes) };
        let score = task.score(predictions, &labels)?;
        Ok([100.0 * score.values.first().map_or(0.0, |(_, value)| *value), loss / labels.len() as f64])
    }
}

/// What a checkpoint holds beside the training.
#[derive(Serialize, Deserialize)]
struct Clock {
    train_seconds: f64,
}

pub(super) fn measure(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let (pieces, pretrained, config) = pre_training::artifact(context.needed("masked-words")?)?;
    let config =
        BertConfig { hidden_dropout_prob: params.dropout, attention_probs_dropout_prob: params.dropout, ..config };
    let data = Data::load(params, &pieces, context, seed)?;
    // What every arm of a seed starts from: the pre-trained encoder under a head of this seed.
    let theta = {
        let model = Model::new(&Standard, &config, params.labels(), &pretrained, (seed, data.device))?;
        lth::copies(&state_of(&model.store))
    };
    if params.arm == Arm::Watch {
        return watch(params, seed, context, (&config, &theta, &data));
    }
    let start = Instant::now();
    let (weights, smaller) = match params.arm {
        Arm::EarlyBird => {
            let ticket = search(params, seed, (&config, &theta, &data))?;
            cut(&config, &theta, &ticket)?
        }
        Arm::Random => {
            let groups = bert_groups(&config, "bert.");
            cut(&config, &theta, &params.draw().random(&groups, derive(seed, Purpose::Mask, 0))?)?
        }
        Arm::LayerDrop => {
            let keep = every_other(config.num_hidden_layers, config.num_hidden_layers * 5 / 8);
            keep_layers(&theta, &config, "bert.", &keep)?
        }
        _ => (theta, config.clone()),
    };
    let search_seconds = if params.arm == Arm::EarlyBird { start.elapsed().as_secs_f64() } else { 0.0 };
    let model = Model::new(&Standard, &smaller, params.labels(), &weights, (seed, data.device))?;

    let epochs = params.epochs();
    let steps = epochs * data.train.batches_per_epoch();
    let mut optimizer = Adam::new(slim_parameters(&model.store, 0.0), AdamConfig::decoupled())?;
    let mut objective = Sentences(&model.network);
    let mut clip = ClipNorm(1.0);
    let train = TrainConfig { epochs, seed, schedule: params.schedule(steps) };
    let mut trainer = Trainer::new(train, &mut objective, &mut optimizer)?;
    trainer.observe(&mut clip);
    let mut clock = Clock { train_seconds: 0.0 };
    if let Some(checkpoint) = context.checkpoint() {
        clock = trainer.restore(&checkpoint.path.clone(), &model.store)?;
    }
    let mut seen = model.evaluate(params.task, &data.dev)?;
    while trainer.progress().epoch < epochs {
        let start = Instant::now();
        let (_, report) = trainer.fit_epoch(&OnDevice::new(&data.train, data.device))?;
        clock.train_seconds += start.elapsed().as_secs_f64();
        seen = model.evaluate(params.task, &data.dev)?;
        let epoch = report.epoch + 1;
        let loss = report.metrics.get("task").copied().unwrap_or_default();
        context.log(epoch, &[("train_loss", loss), ("dev_score", seen[0]), ("dev_loss", seen[1])])?;
        if epoch < epochs {
            context.save_checkpoint(epoch, |path| Ok(trainer.save(path, &model.store, &clock)?))?;
        }
        context.progress(epoch, epochs, "");
    }
    context.measured("search_seconds", search_seconds)?;
    context.measured("total_seconds", search_seconds + clock.train_seconds)?;
    let macs = |config: &BertConfig| -> anyhow::Result<f64> { Ok(config.workload("fine-tuning", 32)?.macs()? as f64) };
    let share = macs(&smaller)? / macs(&config)?;
    let searched = if params.arm == Arm::EarlyBird { params.search } else { 0.0 };
    Ok(Metrics::from([
        ("dev_score".into(), seen[0]),
        ("dev_loss".into(), seen[1]),
        ("macs_share".into(), share),
        ("saved_macs".into(), 1.0 - (searched + share * epochs as f64) / params.full_epochs as f64),
    ]))
}

type Start<'a> = (&'a BertConfig, &'a NamedTensors, &'a Data);

/// Coefficients on every head and neuron, trained as far as the draw, or watched for all of `epochs`.
fn slimmed(
    params: &Params,
    seed: u64,
    (config, theta, data): Start<'_>,
    epochs: u64,
    keep_going: bool,
) -> anyhow::Result<(Model, Search)> {
    let groups = bert_groups(config, "bert.");
    let model = Model::new(&Slimming(Standard), config, params.labels(), theta, (seed, data.device))?;
    let live = coefficients(&model.store, &groups)?;
    let rule = DrawRule::AtFraction(params.search);
    let settings = SearchConfig { draw: params.draw(), rule, keep_going, ..SearchConfig::default() };
    let mut search = Search::new(&groups, &live, settings)?;
    let mut task = Sentences(&model.network);
    let slim = SlimConfig { lambda_heads: params.lambda, lambda_neurons: params.lambda };
    let mut objective = SlimmedObjective::new(&mut task, &live, slim)?;
    let mut optimizer = Adam::new(slim_parameters(&model.store, 0.0), AdamConfig::decoupled())?;
    let schedule = params.search_schedule(data.train.batches_per_epoch());
    let train = TrainConfig { epochs, seed, schedule };
    let mut clip = ClipNorm(1.0);
    let mut trainer = Trainer::new(train, &mut objective, &mut optimizer)?;
    trainer.observe(&mut clip).observe(&mut search);
    trainer.fit(&OnDevice::new(&data.train, data.device))?;
    drop(trainer);
    Ok((model, search))
}

fn search(params: &Params, seed: u64, start: Start<'_>) -> anyhow::Result<TicketMask> {
    let (_, search) = slimmed(params, seed, start, 1, false)?;
    let found = search.found().ok_or_else(|| anyhow::anyhow!("the search ended without a ticket"))?;
    Ok(found.drawn.mask.clone())
}

fn cut(config: &BertConfig, weights: &NamedTensors, ticket: &TicketMask) -> anyhow::Result<(NamedTensors, BertConfig)> {
    let groups = bert_groups(config, "bert.");
    Ok((prune(weights, &groups, ticket)?.0, pruned_config(config, &groups, ticket)?))
}

/// An epoch of search: how far the mask still moves after the draw, and what cutting half of the heads costs at once.
fn watch(params: &Params, seed: u64, context: &mut RunContext, start: Start<'_>) -> anyhow::Result<Metrics> {
    let (config, _, data) = start;
    let (model, search) = slimmed(params, seed, start, 1, true)?;
    let groups = bert_groups(config, "bert.");
    let found = search.found().ok_or_else(|| anyhow::anyhow!("the search ended without a ticket"))?;
    let steps: Vec<u64> = search.trace().steps.keys().copied().collect();
    let mut largest = [0.0_f64; 2];
    for step in &steps {
        let drawn = params.draw().draw(&search.trace().scores(*step, &groups)?)?;
        let distance = drawn.mask.distance(&found.drawn.mask)?;
        context.log(*step, &[("heads_distance", distance[0]), ("neurons_distance", distance[1])])?;
        if *step > found.step {
            largest = [largest[0].max(distance[0]), largest[1].max(distance[1])];
        }
    }
    // Heads alone, half of them, without re-training.
    let last = steps.last().ok_or_else(|| anyhow::anyhow!("nothing was recorded"))?;
    let scores = search.trace().scores(*last, &groups)?;
    let heads_only = DrawConfig::ratios(0.5, 0.0);
    let folded = fold(&state_of(&model.store), &groups)?;
    let loss = |ticket: &TicketMask| -> anyhow::Result<f64> {
        let (weights, config) = cut(config, &folded, ticket)?;
        Ok(Model::new(&Standard, &config, params.labels(), &weights, (seed, data.device))?
            .evaluate(params.task, &data.dev)?[1])
    };
    let mut random = 0.0;
    for number in 0..4 {
        random += loss(&heads_only.random(&groups, derive(seed, Purpose::Mask, 10 + number))?)? / 4.0;
    }
    Ok(Metrics::from([
        ("largest_heads_distance".into(), largest[0]),
        ("largest_neurons_distance".into(), largest[1]),
        ("cut_loss_early_bird".into(), loss(&heads_only.draw(&scores)?.mask)?),
        ("cut_loss_inverse".into(), loss(&heads_only.draw(&scores.inverted())?.mask)?),
        ("cut_loss_random".into(), random),
        ("uncut_loss".into(), model.evaluate(params.task, &data.dev)?[1]),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_starts_at_the_peak_where_a_training_still_warms_up() {
        let params = Params::small(Task::Sst2, Arm::EarlyBird, 20_000);
        // 20,000 phrases are 313 batches of 64.
        let (search, training) = (params.search_schedule(313), params.schedule(3 * 313));
        let draw = (params.search * 313.0).round() as u64;
        assert_eq!(search.learning_rate(0), params.peak);
        assert!(search.learning_rate(draw) > 0.9 * params.peak);
        assert!(training.learning_rate(0) < 0.02 * params.peak && training.learning_rate(draw) < 0.7 * params.peak);
        assert_eq!(search.learning_rate(3 * 313), 0.0);
    }

    #[test]
    fn tables_say_what_is_cut_and_kinds_stay_as_they_are() {
        let shown: Vec<String> = Arm::ALL.into_iter().map(Arm::shown).collect();
        assert_eq!(shown, ["full", "full short", "early bird", "random", "fewer layers", "watch"]);
        assert_eq!(Arm::LayerDrop.label(), "layer-drop");
    }
}
