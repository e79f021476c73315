//! Key-value recall: tickets drawn while a trained model learns new values, re-trained from the weights before.
//!
//! A sequence is a query and six pairs of a key and a value; the class is the value of the queried key, which takes
//! attention to find. Downstream the values are renamed, and only 64 examples are there to learn the new names from.

use super::training::{Drawn, Model, Shape, Tokens};
use crate::{Metrics, RunContext};
use core_tensor::networks::bert::BertConfig;
use core_tensor::nn::Standard;
use core_tensor::optim::{NamedTensors, Schedule};
use core_tensor::seed::{Purpose, derive};
use core_tensor::train::ClipNorm;
use lth::structured::{
    DrawConfig, DrawRule, Scores, Search, SearchConfig, SlimConfig, TicketMask, coefficients, every_other, keep_layers,
    magnitude,
};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) pre_batch: usize,
    pub(super) pre_learning_rate: f64,
    pub(super) pre_warm_up: u64,
    /// Pre-training goes on until this accuracy on held-out sequences, looked at every `pre_chunk` steps.
    pub(super) pre_accuracy: f64,
    pub(super) pre_chunk: u64,
    pub(super) pre_most: u64,
    pub(super) examples: usize,
    pub(super) batch: usize,
    pub(super) learning_rate: f64,
    pub(super) steps: u64,
    pub(super) search_steps: u64,
    pub(super) lambda: f64,
    pub(super) test: usize,
    /// Shares of heads and of neurons pruned.
    pub(super) ratios: Vec<(f64, f64)>,
    pub(super) random_tickets: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            pre_batch: 64,
            pre_learning_rate: 2e-3,
            pre_warm_up: 100,
            pre_accuracy: 0.99,
            pre_chunk: 50,
            pre_most: 1000,
            examples: 64,
            batch: 32,
            learning_rate: 1e-3,
            steps: 100,
            search_steps: 20,
            lambda: 1e-4,
            test: 4000,
            ratios: vec![(0.75, 0.75), (0.875, 0.9)],
            random_tickets: 3,
        }
    }
}

const KEYS: i64 = 16;
const VALUES: i64 = 4;
/// BERT's own head for classes, as fine-tuning has it.
const HEAD: Shape = Shape { labels: VALUES, pooled: true };
const PAIRS: usize = 6;
const FIRST_PAIR: i64 = 5;
const FIRST_QUERY: i64 = FIRST_PAIR + KEYS * VALUES;
/// The new name of each value downstream.
const RENAMED: [i64; 4] = [2, 0, 3, 1];

fn shape() -> BertConfig {
    BertConfig {
        hidden_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 8,
        intermediate_size: 128,
        max_position_embeddings: PAIRS as i64 + 1,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        ..BertConfig::tiny(FIRST_QUERY + KEYS)
    }
}

/// Sequences and the value asked for.
fn draw(count: usize, rename: bool, random: &mut ChaCha8Rng) -> Tokens {
    let (mut ids, mut classes) = (Vec::with_capacity(count * (PAIRS + 1)), Vec::with_capacity(count));
    let mut keys: Vec<i64> = (0..KEYS).collect();
    for _ in 0..count {
        let (chosen, _) = keys.partial_shuffle(random, PAIRS);
        let values: Vec<i64> = (0..PAIRS).map(|_| random.random_range(0..VALUES)).collect();
        let asked = random.random_range(0..PAIRS);
        ids.push(FIRST_QUERY + chosen[asked]);
        ids.extend(chosen.iter().zip(&values).map(|(key, value)| FIRST_PAIR + VALUES * key + value));
        classes.push(if rename { RENAMED[values[asked] as usize] } else { values[asked] });
    }
    Tokens::new(&ids, &classes)
}

/// The downstream task: a few examples, a test set, and how to train on them.
struct Downstream<'a> {
    params: &'a Params,
    seed: u64,
    few: Tokens,
    test: Tokens,
    /// Pre-trained weights with a new head: what every arm starts from.
    theta: NamedTensors,
    full: Model,
}

impl Downstream<'_> {
    fn schedule(&self) -> Schedule {
        Schedule::Linear { peak: self.params.learning_rate, last: 0.0, steps: self.params.steps }
    }

    /// Batches drawn with replacement; the same ones for every arm.
    fn source(&self, steps: u64) -> Drawn<impl Fn(&mut ChaCha8Rng) -> Tokens> {
        let draw = |random: &mut ChaCha8Rng| {
            let rows: Vec<i64> =
                (0..self.params.batch).map(|_| random.random_range(0..self.params.examples as i64)).collect();
            self.few.rows(&Tensor::from_slice(&rows))
        };
        Drawn { draw, steps, seed: derive(self.seed, Purpose::Order, 1) }
    }

    /// Trains a model with the whole schedule; its test accuracy in percent.
    fn finish(&self, model: &Model) -> anyhow::Result<f64> {
        let source = self.source(self.params.steps);
        model.train(&source, (1, self.schedule(), self.seed), None, vec![&mut ClipNorm(1.0)])?;
        Ok(100.0 * model.accuracy(&self.test)?)
    }

    fn ticket(&self, ticket: &TicketMask) -> anyhow::Result<f64> {
        self.finish(&self.full.cut(&self.theta, ticket)?)
    }

    /// Coefficients after each of the first steps, under the schedule of the whole training.
    fn search(&self, lambda: f64, steps: u64) -> anyhow::Result<Vec<Scores>> {
        let model = Model::slimmed(&self.full.config, HEAD, &self.theta, self.full.device())?;
        let groups = model.groups();
        let live = coefficients(&model.store, &groups)?;
        let config = SearchConfig { rule: DrawRule::AtStep(steps), every: 1, ..SearchConfig::default() };
        let mut search = Search::new(&groups, &live, config)?;
        let slim = SlimConfig { lambda_heads: lambda, lambda_neurons: lambda };
        let source = self.source(self.params.steps);
        let mut clip = ClipNorm(1.0);
        model.train(&source, (1, self.schedule(), self.seed), Some(slim), vec![&mut search, &mut clip])?;
        (1..=steps).map(|step| Ok(search.trace().scores(step, &groups)?)).collect()
    }
}

pub(super) fn measure(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let mut metrics = Metrics::new();
    let mut random = ChaCha8Rng::seed_from_u64(derive(seed, Purpose::Data, u64::MAX));
    let held_out = draw(params.test, false, &mut random);
    let few = draw(params.examples, true, &mut random);
    let test = draw(params.test, true, &mut random);

    let device: Device = context.device().into();
    let model = Model::fresh(&Standard, &shape(), HEAD, (seed, device))?;
    let steps = pre_train(params, &model, &held_out, seed)?;
    metrics.insert("pre_training_steps".into(), steps as f64);
    metrics.insert("pre_training_accuracy".into(), 100.0 * model.accuracy(&held_out)?);

    // A new head: the fresh one of another seed.
    let head = Model::fresh(&Standard, &shape(), HEAD, (derive(seed, Purpose::Initialisation, 1), device))?.weights();
    let mut theta = model.weights();
    for (name, tensor) in head.iter().filter(|(name, _)| name.starts_with("classifier.")) {
        theta.insert(name.clone(), tensor.copy());
    }
    let full = Model::with(&shape(), HEAD, &theta, device)?;
    let task = Downstream { params, seed, few, test, theta, full };
    metrics.insert("full".into(), task.finish(&Model::with(&shape(), HEAD, &task.theta, device)?)?);
    context.progress(1, 4, "searching");

    let searched = task.search(params.lambda, params.search_steps)?;
    let unpressed = task.search(0.0, params.search_steps)?;
    let late = task.search(params.lambda, params.steps)?;
    let (last, last_unpressed, last_late) = (last(&searched)?, last(&unpressed)?, last(&late)?);
    stability(&searched, context, &mut metrics)?;
    context.progress(2, 4, "re-training tickets");

    let groups = task.full.groups();
    for (index, (heads, neurons)) in params.ratios.iter().enumerate() {
        let config = DrawConfig::ratios(*heads, *neurons);
        let key = |arm: &str| format!("{arm}_{index}");
        let ticket = config.draw(last)?.mask;
        metrics.insert(key("early_bird"), task.ticket(&ticket)?);
        metrics.insert(key("inverse"), task.ticket(&config.draw(&last.inverted())?.mask)?);
        let mut sum = 0.0;
        for number in 0..params.random_tickets {
            sum += task.ticket(&config.random(&groups, derive(seed, Purpose::Mask, number))?)?;
        }
        metrics.insert(key("random"), sum / params.random_tickets as f64);
        if index == 0 {
            metrics.insert(key("matched"), task.ticket(&ticket.random_matched(derive(seed, Purpose::Mask, 99)))?);
            metrics.insert(key("no_penalty"), task.ticket(&config.draw(last_unpressed)?.mask)?);
            metrics.insert(key("late"), task.ticket(&config.draw(last_late)?.mask)?);
            metrics.insert(key("magnitude"), task.ticket(&config.draw(&magnitude(&task.theta, &groups)?)?.mask)?);
        }
        let cut = task.full.cut(&task.theta, &ticket)?;
        let tokens = PAIRS as i64 + 1;
        let macs =
            |config: &BertConfig| -> anyhow::Result<f64> { Ok(config.workload("recall", tokens)?.macs()? as f64) };
        let share = macs(&cut.config)? / macs(&task.full.config)?;
        metrics.insert(key("macs_share"), share);
        // Search and re-training against full training of equal length, in multiply-accumulates.
        metrics.insert(key("saved_macs"), 1.0 - params.search_steps as f64 / params.steps as f64 - share);
        context.progress(3 + index as u64, 4, "re-training tickets");
    }
    metrics.insert("layer_drop".into(), task.finish(&layer_drop(&task)?)?);
    Ok(metrics)
}

/// Every other layer of the pre-trained model, which was not trained with dropped ones: half of a step's arithmetic,
/// where the larger tickets have a quarter.
fn layer_drop(task: &Downstream) -> anyhow::Result<Model> {
    let kept = every_other(task.full.config.num_hidden_layers, task.full.config.num_hidden_layers / 2);
    let (weights, config) = keep_layers(&task.theta, &task.full.config, "bert.", &kept)?;
    Model::with(&config, HEAD, &weights, task.full.device())
}

/// Share of the multiply-accumulates that every other layer takes.
pub(super) fn layer_drop_share() -> anyhow::Result<f64> {
    let full = shape();
    let kept = every_other(full.num_hidden_layers, full.num_hidden_layers / 2).len();
    let macs = |config: &BertConfig| -> anyhow::Result<f64> {
        Ok(config.workload("recall", PAIRS as i64 + 1)?.macs()? as f64)
    };
    Ok(macs(&BertConfig { num_hidden_layers: kept, ..shape() })? / macs(&full)?)
}

fn pre_train(params: &Params, model: &Model, held_out: &Tokens, seed: u64) -> anyhow::Result<u64> {
    let draw = |random: &mut ChaCha8Rng| draw(params.pre_batch, false, random);
    let source = Drawn { draw, steps: params.pre_chunk, seed };
    let constant = Schedule::Constant { peak: params.pre_learning_rate };
    let schedule = Schedule::WarmUp { steps: params.pre_warm_up, then: Box::new(constant) };
    let mut until = Until { params, model, held_out, steps: 0 };
    model.train(&source, (params.pre_most / params.pre_chunk, schedule, seed), None, vec![&mut until])?;
    Ok(until.steps)
}

/// Stops a training once the model is good enough.
struct Until<'a> {
    params: &'a Params,
    model: &'a Model,
    held_out: &'a Tokens,
    steps: u64,
}

impl core_tensor::train::Observer for Until<'_> {
    fn name(&self) -> &str {
        "until"
    }

    fn after_epoch(
        &mut self,
        report: &mut core_tensor::train::EpochReport,
        _: &mut dyn core_tensor::optim::Optimizer,
    ) -> core_tensor::Result<core_tensor::train::Control> {
        use core_tensor::train::Control;
        self.steps = report.step;
        let accuracy = self
            .model
            .accuracy(self.held_out)
            .map_err(|error| core_tensor::Error::Observer { observer: "until".into(), source: error.into() })?;
        Ok(if accuracy > self.params.pre_accuracy { Control::Stop } else { Control::Continue })
    }
}

/// Masks that You et al. compare: a mask and the four before it.
pub(super) const WINDOW: usize = 5;

/// How far the mask of each step is from the last one's and from those just before it, at half of everything pruned:
/// logged step by step.
fn stability(searched: &[Scores], context: &mut RunContext, metrics: &mut Metrics) -> anyhow::Result<()> {
    let half = DrawConfig::ratios(0.5, 0.5);
    let masks: Vec<TicketMask> =
        searched.iter().map(|scores| Ok(half.draw(scores)?.mask)).collect::<anyhow::Result<_>>()?;
    let Some(end) = masks.last() else { return Ok(()) };
    let windowed = windowed(&masks, WINDOW)?;
    let (mut settled, mut quarter) = (0.0_f64, 0.0_f64);
    for (index, mask) in masks.iter().enumerate() {
        let step = index + 1;
        let [heads, neurons] = mask.distance(end)?;
        let mut row = vec![("heads_distance", heads), ("neurons_distance", neurons)];
        if let Some([heads, neurons]) = step.checked_sub(WINDOW).and_then(|place| windowed.get(place)) {
            row.extend([("heads_window", *heads), ("neurons_window", *neurons)]);
        }
        context.log(step as u64, &row)?;
        if step >= 4 {
            settled = settled.max(heads).max(neurons);
        }
        if 4 * step > 3 * masks.len() {
            quarter = quarter.max(neurons);
        }
    }
    metrics.insert("largest_distance".into(), settled);
    metrics.insert("last_quarter_distance".into(), quarter);
    Ok(())
}

/// For each mask from the `window`-th on, its largest distance to the others of its window: of heads, and of neurons.
fn windowed(masks: &[TicketMask], window: usize) -> anyhow::Result<Vec<[f64; 2]>> {
    let of = |masks: &[TicketMask]| -> anyhow::Result<[f64; 2]> {
        let mut largest = [0.0_f64; 2];
        if let Some((newest, older)) = masks.split_last() {
            for mask in older {
                let [heads, neurons] = newest.distance(mask)?;
                largest = [largest[0].max(heads), largest[1].max(neurons)];
            }
        }
        Ok(largest)
    };
    masks.windows(window).map(of).collect()
}

fn last(scores: &[Scores]) -> anyhow::Result<&Scores> {
    scores.last().ok_or_else(|| anyhow::anyhow!("a search of no steps"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lth::MaskSet;

    #[test]
    fn a_window_holds_the_newest_mask_against_the_four_before() {
        let set = |name: &str, kept: [i64; 4]| {
            MaskSet::from_tensors(&[(name.to_owned(), Tensor::from_slice(&kept))]).unwrap()
        };
        let mask = |heads| TicketMask { heads: set("heads", heads), neurons: set("neurons", [1, 1, 0, 0]) };
        let (usual, other) = ([1, 1, 0, 0], [1, 0, 1, 0]);
        // Two of four heads differ, and the stray leaves the window after four more masks.
        let masks = [usual, other, usual, usual, usual, usual, usual].map(mask);
        assert_eq!(windowed(&masks, WINDOW).unwrap(), [[0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]);
        assert!(windowed(&masks[..4], WINDOW).unwrap().is_empty());
    }

    #[test]
    fn the_class_is_the_value_of_the_queried_key() {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        for rename in [false, true] {
            let set = draw(50, rename, &mut random);
            for row in 0..50 {
                let ids: Vec<i64> = set.input.ids.get(row).try_into().unwrap();
                let key = ids[0] - FIRST_QUERY;
                let matching: Vec<i64> =
                    ids[1..].iter().filter(|id| (*id - FIRST_PAIR) / VALUES == key).copied().collect();
                assert_eq!(matching.len(), 1, "keys are distinct and the queried one is there");
                let value = (matching[0] - FIRST_PAIR) % VALUES;
                let class = if rename { RENAMED[value as usize] } else { value };
                assert_eq!(set.target.int64_value(&[row]), class);
            }
        }
    }
}
