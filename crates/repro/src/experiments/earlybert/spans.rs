//! Questions answered by a span: generated contexts in SQuAD's format, through the whole path of features, network,
//! decoding and score.
//!
//! A context holds four entities of different types, each a span of one to three words of its type, between fillers; the
//! question names a type, and the answer is that entity. One hop of attention finds it.

use super::training::{Recorded, stretch_means};
use crate::experiments::training::StopAfter;
use crate::{Metrics, RunContext};
use core_tensor::checkpoint::state_of;
use core_tensor::data::{BatchSource, OnDevice};
use core_tensor::networks::bert::{
    BertConfig, BertForQuestionAnswering, BertInput, load_state_into, load_state_keeping,
};
use core_tensor::nn::{LayerFactory, Standard};
use core_tensor::optim::{Adam, AdamConfig, NamedTensors, Schedule};
use core_tensor::seed::{Purpose, derive, generator, seed_libtorch};
use core_tensor::text::squad::{DecodeConfig, Feature, FeatureConfig, FeatureSet, SpanBatch, SpanLogits, SquadSet};
use core_tensor::text::{Casing, TokenLoader, TokenLoaderConfig, WordPiece};
use core_tensor::train::{ClipNorm, Loss, Objective, Observer, Progress, TrainConfig, Trainer};
use lth::structured::{
    COEFFICIENT, DrawConfig, DrawRule, Search, SearchConfig, SlimConfig, SlimmedObjective, Slimming, TicketMask,
    bert_groups, coefficients, prune, pruned_config, slim_parameters,
};
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;
use tch::nn::VarStore;
use tch::{Device, no_grad};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) batch: usize,
    /// Steps that the task is learned in.
    pub(super) steps: u64,
    /// Steps of tickets, and of the full model that they are compared with.
    pub(super) ticket_steps: u64,
    pub(super) search_steps: u64,
    pub(super) warm_up: u64,
    pub(super) learning_rate: f64,
    pub(super) ratio: f64,
    pub(super) lambda: f64,
    pub(super) test: usize,
    pub(super) random_tickets: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            batch: 32,
            steps: 1000,
            ticket_steps: 800,
            search_steps: 400,
            warm_up: 100,
            learning_rate: 1e-3,
            ratio: 0.75,
            lambda: 1e-4,
            test: 500,
            random_tickets: 3,
        }
    }
}

/// Entities of a context, and most words of one.
const ENTITIES: usize = 4;
const MOST_WORDS: usize = 3;
const TYPES: usize = 8;
const WORDS: usize = 40;
const FILLERS: usize = 100;
const LENGTH: usize = 48;

fn vocabulary() -> anyhow::Result<WordPiece> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let entities = (0..TYPES).flat_map(|kind| (0..WORDS).map(move |word| entity(kind, word)));
    let fillers = (0..FILLERS).map(|word| format!("f{word}"));
    let questions = (0..TYPES).map(|kind| format!("q{kind}"));
    let tokens = special.into_iter().chain(entities).chain(fillers).chain(questions).collect();
    Ok(WordPiece::from_tokens(tokens, Casing::Lower, "generated")?)
}

/// The loss, in nats, of pointing at all words of entities alike, whatever is asked: the mean logarithm of their number.
pub(super) fn any_entity_word() -> f64 {
    let mut ways = vec![1_u32];
    for _ in 0..ENTITIES {
        let mut longer = vec![0; ways.len() + MOST_WORDS];
        for (words, count) in ways.iter().enumerate() {
            (1..=MOST_WORDS).for_each(|more| longer[words + more] += count);
        }
        ways = longer;
    }
    let total: u32 = ways.iter().sum();
    let logarithms = ways.iter().enumerate().skip(1).map(|(words, count)| f64::from(*count) * (words as f64).ln());
    logarithms.sum::<f64>() / f64::from(total)
}

fn entity(kind: usize, word: usize) -> String {
    format!("e{kind}w{word}")
}

/// `count` questions as a SQuAD file.
fn questions(count: usize, random: &mut impl Rng) -> anyhow::Result<SquadSet> {
    let mut paragraphs = Vec::with_capacity(count);
    for number in 0..count {
        let mut kinds: Vec<usize> = (0..TYPES).collect();
        let (chosen, _) = kinds.partial_shuffle(random, ENTITIES);
        let asked = random.random_range(0..ENTITIES);
        let (mut words, mut answer) = (Vec::<String>::new(), (0, String::new()));
        for (place, kind) in chosen.iter().enumerate() {
            words.extend((0..random.random_range(2..=6)).map(|_| format!("f{}", random.random_range(0..FILLERS))));
            let span: Vec<String> = (0..random.random_range(1..=MOST_WORDS))
                .map(|_| entity(*kind, random.random_range(0..WORDS)))
                .collect();
            if place == asked {
                answer = (words.iter().map(|word| word.len() + 1).sum(), span.join(" "));
            }
            words.extend(span);
        }
        let (answer_start, text) = answer;
        paragraphs.push(json!({
            "context": words.join(" "),
            "qas": [{
                "id": format!("{number}"),
                "question": format!("q{}", chosen[asked]),
                "answers": [{"text": text, "answer_start": answer_start}],
            }],
        }));
    }
    let file = json!({"version": "1.1", "data": [{"title": "generated", "paragraphs": paragraphs}]});
    Ok(SquadSet::parse("generated.json".as_ref(), &file.to_string())?)
}

struct Spans<'a>(&'a BertForQuestionAnswering);

impl Objective<SpanBatch> for Spans<'_> {
    fn loss(&mut self, batch: &SpanBatch, _: &Progress) -> core_tensor::Result<Loss> {
        let [start, end] = self.0.forward(&BertInput::from(&batch.input), true)?;
        Ok(Loss::single("span", self.0.loss([&start, &end], [&batch.start, &batch.end])?))
    }
}

struct Model {
    store: VarStore,
    network: BertForQuestionAnswering,
}

impl Model {
    fn fresh(factory: &dyn LayerFactory, config: &BertConfig, seed: u64, device: Device) -> anyhow::Result<Self> {
        seed_libtorch(seed, Purpose::Initialisation, 0);
        // Drawn on the CPU, so that a seed means the same weights on every device.
        let mut store = VarStore::new(Device::Cpu);
        let network = BertForQuestionAnswering::new(&store.root(), factory, config)?;
        store.set_device(device);
        Ok(Self { store, network })
    }
}

/// Questions to learn from, each once, and questions to be asked.
struct Task<'a> {
    params: &'a Params,
    seed: u64,
    device: Device,
    pieces: WordPiece,
    config: BertConfig,
    train: TokenLoader<Feature>,
    test: SquadSet,
    features: FeatureSet,
    test_loader: TokenLoader<Feature>,
}

impl<'a> Task<'a> {
    fn new(params: &'a Params, seed: u64, device: Device) -> anyhow::Result<Self> {
        let pieces = vocabulary()?;
        let settings = FeatureConfig { most_tokens: LENGTH, stride: 16, most_question: 4 };
        let mut random = generator(seed, Purpose::Data, 0);
        let train = questions(params.steps as usize * params.batch, &mut random)?;
        let train = train.training_features(&pieces, &settings)?.features;
        let test = questions(params.test, &mut random)?;
        let features = test.features(&pieces, &settings)?;
        let pad = pieces.special().pad;
        let loader = |features: Vec<Feature>, config| TokenLoader::new(features, pad, config, seed);
        let test_loader = loader(features.features.clone(), TokenLoaderConfig::evaluation(100))?;
        let train = loader(train, TokenLoaderConfig::training(params.batch))?;
        let config = BertConfig {
            hidden_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 8,
            intermediate_size: 256,
            max_position_embeddings: LENGTH as i64,
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            // 0.02 belongs to a width of 768; at 64 it leaves the task at chance.
            initializer_range: 0.02 * (768.0_f64 / 64.0).sqrt(),
            ..BertConfig::nano(pieces.len() as i64)
        };
        Ok(Self { params, seed, device, pieces, config, train, test, features, test_loader })
    }

    fn draw(&self) -> DrawConfig {
        DrawConfig::ratios(self.params.ratio, self.params.ratio)
    }

    fn schedule(&self) -> Schedule {
        let constant = Schedule::Constant { peak: self.params.learning_rate };
        Schedule::WarmUp { steps: self.params.warm_up, then: Box::new(constant) }
    }

    fn train(
        &self,
        objective: &mut dyn Objective<SpanBatch>,
        store: &VarStore,
        watch: &mut dyn Observer,
    ) -> anyhow::Result<()> {
        let mut optimizer = Adam::new(slim_parameters(store, 0.0), AdamConfig::decoupled())?;
        let mut clip = ClipNorm(1.0);
        let train = TrainConfig { epochs: 1, seed: self.seed, schedule: self.schedule() };
        let mut trainer = Trainer::new(train, objective, &mut optimizer)?;
        trainer.observe(&mut clip).observe(watch);
        trainer.fit(&OnDevice::new(&self.train, self.device))?;
        Ok(())
    }

    /// Exact match and F1 in percent.
    fn score(&self, model: &Model) -> anyhow::Result<[f64; 2]> {
        let mut logits = SpanLogits::new(self.features.features.len());
        let test = OnDevice::new(&self.test_loader, self.device);
        for batch in test.epoch(0)? {
            let batch = batch?;
            let [start, end] = no_grad(|| model.network.forward(&BertInput::from(&batch.input), false))?;
            logits.put(&batch.index, &start, &end)?;
        }
        let predicted = self.features.predict(&self.test, &logits, &self.pieces, &DecodeConfig::default())?;
        let answers: HashMap<String, String> =
            predicted.iter().map(|prediction| (prediction.id.clone(), prediction.text().to_owned())).collect();
        let scores = self.test.evaluate(&answers)?;
        Ok([scores.exact_match, scores.f1])
    }

    fn finish(&self, config: &BertConfig, weights: &NamedTensors, steps: u64) -> anyhow::Result<[f64; 2]> {
        let model = Model::fresh(&Standard, config, self.seed, self.device)?;
        load_state_into(&model.store, weights)?;
        self.train(&mut Spans(&model.network), &model.store, &mut StopAfter(steps))?;
        self.score(&model)
    }

    fn ticket(&self, theta: &NamedTensors, ticket: &TicketMask) -> anyhow::Result<[f64; 2]> {
        let groups = bert_groups(&self.config, "bert.");
        let (weights, _) = prune(theta, &groups, ticket)?;
        self.finish(&pruned_config(&self.config, &groups, ticket)?, &weights, self.params.ticket_steps)
    }

    /// The mean of random tickets.
    fn random(&self, theta: &NamedTensors) -> anyhow::Result<[f64; 2]> {
        let groups = bert_groups(&self.config, "bert.");
        let mut sums = [0.0; 2];
        for number in 0..self.params.random_tickets {
            let ticket = self.draw().random(&groups, derive(self.seed, Purpose::Mask, number))?;
            let [exact_match, f1] = self.ticket(theta, &ticket)?;
            sums = [sums[0] + exact_match, sums[1] + f1];
        }
        Ok(sums.map(|sum| sum / self.params.random_tickets as f64))
    }

    /// Trains weights with coefficients on every head and neuron as far as the draw.
    fn search(&self, theta: &NamedTensors) -> anyhow::Result<Searched> {
        let groups = bert_groups(&self.config, "bert.");
        let slim = Model::fresh(&Slimming(Standard), &self.config, self.seed, self.device)?;
        load_state_keeping(&slim.store, theta, &[COEFFICIENT])?;
        let live = coefficients(&slim.store, &groups)?;
        let rule = DrawRule::AtStep(self.params.search_steps);
        let settings = SearchConfig { draw: self.draw(), rule, ..SearchConfig::default() };
        let mut search = Search::new(&groups, &live, settings)?;
        let mut spans = Recorded::new(Spans(&slim.network));
        let penalty = SlimConfig { lambda_heads: self.params.lambda, lambda_neurons: self.params.lambda };
        let mut objective = SlimmedObjective::<SpanBatch>::new(&mut spans, &live, penalty)?;
        self.train(&mut objective, &slim.store, &mut search)?;
        drop(objective);
        let found = search.found().ok_or_else(|| anyhow::anyhow!("the search ended without a ticket"))?;
        Ok(Searched {
            ticket: found.drawn.mask.clone(),
            losses: stretch_means(spans.losses(), STRETCH),
            scores: self.score(&slim)?,
        })
    }
}

/// Steps of a search over which its loss is averaged.
pub(super) const STRETCH: usize = 20;

/// What a search came to.
struct Searched {
    ticket: TicketMask,
    /// Means over stretches, under the step that each ends with.
    losses: Vec<(u64, f64)>,
    /// Exact match and F1 in percent of the whole network after the search: what it has learned of the task by then.
    scores: [f64; 2],
}

/// Multiply-accumulates of a sequence as long as the longest.
fn macs(config: &BertConfig) -> anyhow::Result<f64> {
    Ok(config.workload("spans", LENGTH as i64)?.macs()? as f64)
}

pub(super) fn measure(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let device = context.device().into();
    let task = Task::new(params, seed, device)?;
    let theta = lth::copies(&state_of(&Model::fresh(&Standard, &task.config, seed, device)?.store));
    let mut metrics = Metrics::new();
    let mut keep = |arm: &str, [exact_match, f1]: [f64; 2]| {
        metrics.insert(format!("{arm}_exact_match"), exact_match);
        metrics.insert(format!("{arm}_f1"), f1);
    };
    keep("full", task.finish(&task.config, &theta, params.steps)?);
    keep("full_short", task.finish(&task.config, &theta, params.ticket_steps)?);
    context.progress(1, 3, "searching");

    let searched = task.search(&theta)?;
    for (step, loss) in &searched.losses {
        context.log(*step, &[("search_loss", *loss)])?;
    }
    keep("searched", searched.scores);
    context.progress(2, 3, "re-training tickets");
    keep("early_bird", task.ticket(&theta, &searched.ticket)?);
    keep("random", task.random(&theta)?);
    let (_, loss) = *searched.losses.last().ok_or_else(|| anyhow::anyhow!("a search of less than {STRETCH} steps"))?;
    metrics.insert("search_loss".into(), loss);
    let pruned = pruned_config(&task.config, &bert_groups(&task.config, "bert."), &searched.ticket)?;
    metrics.insert("macs_share".into(), macs(&pruned)? / macs(&task.config)?);
    context.progress(3, 3, "");
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointing_at_any_word_of_an_entity_costs_the_logarithm_of_how_many_there_are() {
        // All 81 lengths of four entities of one to three words.
        let lengths = (0..81_u32).map(|at| (0..4).map(|place| 1 + at / 3_u32.pow(place) % 3).sum::<u32>());
        let by_hand = lengths.map(|words| f64::from(words).ln()).sum::<f64>() / 81.0;
        assert!((any_entity_word() - by_hand).abs() < 1e-12 && (by_hand - 2.057).abs() < 1e-3, "{by_hand}");
    }

    #[test]
    fn the_labelled_span_of_every_feature_is_the_answer() {
        let pieces = vocabulary().unwrap();
        let set = questions(40, &mut generator(0, Purpose::Data, 0)).unwrap();
        let settings = FeatureConfig { most_tokens: LENGTH, stride: 16, most_question: 4 };
        let features = set.training_features(&pieces, &settings).unwrap();
        assert!(features.dropped.is_empty() && features.features.len() == 40, "a context fits one window");
        for feature in &features.features {
            let (first, last) = feature.answer;
            assert_eq!(
                pieces.join(&feature.encoded.ids[first..=last]),
                set.questions[feature.question].answers[0].text
            );
        }
    }
}
