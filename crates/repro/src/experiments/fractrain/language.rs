//! A small Transformer language model of WikiText-2, its linear layers quantised.

use super::arms::{self, Arm};
use super::claims::ABSTRACT;
use super::train::steering;
use super::view::CP;
use super::{PAPER, REVISION, stages};
use crate::experiments::chunks::Chunks;
use crate::section::{Table, cell};
use crate::{Ask, Claim, DataSource, DataUse, JudgedClaim, Metrics, Plan, Relation, Results, Run, RunContext, Samples};
use crate::{DataRoot, Test};
use core_tensor::data::{BatchSource, OnDevice};
use core_tensor::networks::{LanguageModel, LanguageModelConfig};
use core_tensor::optim::{Adam, AdamConfig, Schedule, parameters};
use core_tensor::seed::{Purpose, derive, seed_libtorch};
use core_tensor::text::corpus::{BlockConfig, LanguageBatch, LanguageBlocks, WordVocabulary};
use core_tensor::train::{Loss, Objective, Progress, TrainConfig, Trainer};
use quant::fractrain::{CostLedger, PlateauConfig, Precision, QuantConfig, QuantFactory};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tch::nn::VarStore;
use tch::no_grad;

const KIND: &str = "language model";
/// A perplexity at most so many times another counts as no worse.
const MARGIN: f64 = 1.015;
const SEEDS: u64 = 3;
/// Of a training on one core, roughly.
const SECONDS: f64 = 40.0;
const FOLDER: &str = "wikitext-2";
/// The text for evaluation.
const VALIDATION: &str = "valid.txt";
const NEEDS: &str =
    "needs --tier standard, and WikiText-2 under the data folder (`wikitext-2/valid.txt` and another text)";

/// A training of a language model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    /// The file trained on, and how many of its words (line ends count).
    text: String,
    words: usize,
    /// Occurrences that make a word known.
    least: usize,
    width: i64,
    layers: usize,
    heads: i64,
    neurons: i64,
    /// Words of a sequence.
    tokens: usize,
    batch_size: usize,
    /// So many steps each.
    epochs: u64,
    chunk: u64,
    peak: f64,
    arm: Arm,
}

impl Params {
    fn new(text: &str, arm: Arm) -> Self {
        let LanguageModelConfig { width, layers, heads, neurons, .. } = LanguageModelConfig::small(1);
        Self {
            text: text.into(),
            words: 240_000,
            least: 10,
            width,
            layers,
            heads,
            neurons,
            tokens: 64,
            batch_size: 16,
            epochs: 12,
            chunk: 60,
            peak: 2e-3,
            arm,
        }
    }

    fn config(&self, vocabulary: usize) -> LanguageModelConfig {
        let Self { width, layers, heads, neurons, .. } = *self;
        LanguageModelConfig { vocabulary: vocabulary as i64, width, layers, heads, neurons, dropout: 0.0 }
    }

    fn schedule(&self) -> Schedule {
        let (steps, warm_up) = (self.epochs * self.chunk, self.chunk);
        let linear = Schedule::Linear { peak: self.peak, last: 0.0, steps: steps - warm_up };
        Schedule::WarmUp { steps: warm_up, then: Box::new(linear) }
    }
}

/// Full precision, the two ends of the stages, static precision of about their cost, and the stages.
fn arms() -> [Arm; 5] {
    // Three epochs a stage at least.
    let plateau = PlateauConfig { threshold: 0.3, decay: 0.5, window: 3, ..arms::PLATEAU };
    [Arm::FullPrecision, Arm::Static(3, 6), Arm::Static(5, 8), Arm::Static(8, 8), arms::pfq(plateau)]
}

/// The text to train on: the training text, or the test text where only that is at hand.
fn text(data: &DataRoot) -> anyhow::Result<Option<&'static str>> {
    for name in ["train.txt", "test.txt"] {
        if data.find(FOLDER, &[name, VALIDATION])?.is_some() {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

pub(super) fn plan(ask: &Ask, plan: &mut Plan) -> anyhow::Result<()> {
    let Some(text) = text(&ask.data)? else { return Ok(()) };
    let words = Params::new(text, Arm::FullPrecision).words;
    plan.data.push(DataUse {
        set: format!("WikiText-2, the first {words} words of {text} to train on, {VALIDATION} to evaluate on"),
        source: DataSource::Files,
    });
    for seed in ask.seeds(SEEDS) {
        for arm in arms() {
            let kind = format!("{KIND} {}", arm.label());
            let run = ask.run(PAPER, &kind, seed, &Params::new(text, arm))?;
            plan.add_weighted(run.at_revision(REVISION), SECONDS);
        }
    }
    Ok(())
}

/// Whether a run is of this part of the experiment.
pub(super) fn owns(run: &Run) -> bool {
    run.kind.starts_with(KIND)
}

/// Predicts each next word.
struct NextWord<'a>(&'a LanguageModel);

impl Objective<LanguageBatch> for NextWord<'_> {
    fn loss(&mut self, batch: &LanguageBatch, _: &Progress) -> core_tensor::Result<Loss> {
        Ok(Loss::single("cross_entropy", self.0.loss(batch, true)?))
    }
}

pub(super) fn train(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let read = |name: &str| std::fs::read_to_string(context.data().path().join(FOLDER).join(name));
    let (text, validation) = (read(&params.text)?, read(VALIDATION)?);
    let text = first_words(&text, params.words);
    let vocabulary = WordVocabulary::of(text, params.least)?;
    let (words, held_out) = (vocabulary.ids(text), vocabulary.ids(&validation));
    let unigram = unigram_perplexity(&words, &held_out, vocabulary.words().len());
    let cut = BlockConfig { batch_size: params.batch_size, tokens: params.tokens, shuffle: true };
    let blocks = LanguageBlocks::new(words, cut, seed)?;
    let validation = LanguageBlocks::new(held_out, BlockConfig { shuffle: false, ..cut }, seed)?;

    seed_libtorch(seed, Purpose::Initialisation, 0);
    // Drawn on the CPU, so that a seed means the same weights on every device.
    let mut store = VarStore::new(tch::Device::Cpu);
    let config = QuantConfig { linear: true, seed: derive(seed, Purpose::Noise, 0), ..QuantConfig::default() };
    let factory = QuantFactory::new(config, Precision::FULL)?;
    let model = LanguageModel::new(&store.root(), &factory, params.config(vocabulary.words().len()))?;
    let device = context.device().into();
    store.set_device(device);
    let handle = factory.handle();
    let mut ledger = CostLedger::new(&model.workload("sequence", params.tokens as i64)?, &handle, None)?;
    let mut steering = steering(&params.arm, &handle, None)?;

    let [blocks, validation] = [blocks, validation].map(|blocks| OnDevice::new(blocks, device));
    let source = Chunks { source: &blocks, chunk: params.chunk };
    let mut objective = NextWord(&model);
    let mut optimizer = Adam::new(parameters(&store, 0.0), AdamConfig { beta2: 0.98, ..AdamConfig::default() })?;
    let train = TrainConfig { epochs: params.epochs, seed, schedule: params.schedule() };
    let mut trainer = Trainer::new(train, &mut objective, &mut optimizer)?;
    trainer.observe(&mut *steering).observe(&mut ledger);
    if let Some(checkpoint) = context.checkpoint() {
        trainer.restore::<()>(&checkpoint.path.clone(), &store)?;
    }
    let mut last_saved = Instant::now();
    while trainer.progress().epoch < params.epochs {
        let (_, report) = trainer.fit_epoch(&source)?;
        let epoch = report.epoch + 1;
        let row: Vec<(&str, f64)> = report.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        context.log(epoch, &row)?;
        if epoch < params.epochs && last_saved.elapsed() >= Duration::from_secs(2) {
            context.save_checkpoint(epoch, |path| Ok(trainer.save(path, &store, &())?))?;
            last_saved = Instant::now();
        }
        context.progress(epoch, params.epochs, "");
    }
    drop(trainer);
    Ok(Metrics::from([
        ("validation_perplexity".into(), loss(&model, &validation)?.exp()),
        ("unigram_perplexity".into(), unigram),
        ("cp".into(), ledger.cp()),
        ("reference_macs".into(), ledger.reference_macs()),
        ("vocabulary".into(), vocabulary.words().len() as f64),
    ]))
}

/// As many whole lines from the start of a text as hold at most so many words, line ends counted.
fn first_words(text: &str, words: usize) -> &str {
    let (mut count, mut end) = (0, 0);
    for line in text.split_inclusive('\n') {
        count += line.split_whitespace().count() + 1;
        if count > words {
            break;
        }
        end += line.len();
    }
    &text[..end]
}

/// Mean cross-entropy of a text's words, in nats.
fn loss(model: &LanguageModel, text: &OnDevice<LanguageBlocks>) -> anyhow::Result<f64> {
    let (mut sum, mut count) = (0.0, 0.0);
    for batch in text.epoch(0)? {
        let batch = batch?;
        let words = batch.target.numel() as f64;
        sum += words * no_grad(|| model.loss(&batch, false))?.double_value(&[]);
        count += words;
    }
    Ok(sum / count)
}

/// The perplexity of a model that knows how frequent words are and nothing else; each word is counted once more than it was
/// seen.
fn unigram_perplexity(train: &[u32], text: &[u32], vocabulary: usize) -> f64 {
    let mut counts = vec![1.0_f64; vocabulary];
    train.iter().for_each(|word| counts[*word as usize] += 1.0);
    let all = (train.len() + vocabulary) as f64;
    let nats: f64 = text.iter().map(|word| (all / counts[*word as usize]).ln()).sum();
    (nats / text.len() as f64).exp()
}

/// The claims, judged or not.
pub(super) fn claims(ran: bool, results: &Results) -> anyhow::Result<Vec<JudgedClaim>> {
    let [full, _, five, eight, pfq] = arms();
    let perplexity = |arm: &Arm| metric(results, "validation_perplexity", arm);
    let ratio = |of: &str, to: &str, relation| Test::mean(&format!("perplexity({of}) / perplexity({to})"), relation);
    let in_effect = stages::in_effect(results, &pfq, |run| is(run, &pfq));
    let transformer = "comparable accuracy (Transformer-base, WikiText-103; no figures at hand)";
    let claims = [
        (
            Claim::new(
                "E6a",
                &format!(
                    "Progressive precision{in_effect} leaves a Transformer language model's perplexity within 1.5 % of static \
                     8-bit training's"
                ),
            )
            .paper(transformer, ABSTRACT)
            .test(ratio("PFQ", "static 8/8", Relation::AtMost(MARGIN)), ""),
            perplexity(&pfq)?.over(&perplexity(&eight)?),
        ),
        (
            Claim::new(
                "E6b",
                &format!(
                    "Progressive precision{in_effect} is within 1.5 % of static 5/8 bits, whose quantised layers cost 0.547 of \
                     static 8/8, where four equal stages cost 0.564"
                ),
            )
            .paper(transformer, ABSTRACT)
            .test(ratio("PFQ", "static 5/8", Relation::AtMost(MARGIN)), ""),
            perplexity(&pfq)?.over(&perplexity(&five)?),
        ),
        (
            Claim::new("E6c", "Static 8-bit training is within 1.5 % of full precision there")
                .paper("the premise of low-precision training", ABSTRACT)
                .test(ratio("static 8/8", "full precision", Relation::AtMost(MARGIN)), ""),
            perplexity(&eight)?.over(&perplexity(&full)?),
        ),
        (
            Claim::new("E6d", "5/8 bits all the way, at 0.547 of static 8/8's cost, do worse than progressive precision")
                .paper("precision should grow", ABSTRACT)
                .test(ratio("static 5/8", "PFQ", Relation::Above(1.0)), ""),
            perplexity(&five)?.over(&perplexity(&pfq)?),
        ),
    ];
    let judged = claims.map(|(claim, samples)| if ran { claim.judge(&samples) } else { Ok(claim.not_run(NEEDS)) });
    Ok(judged.into_iter().collect::<crate::Result<_>>()?)
}

fn metric(results: &Results, name: &str, arm: &Arm) -> anyhow::Result<Samples> {
    Ok(results.samples(name, |run| is(run, arm))?)
}

fn is(run: &Run, arm: &Arm) -> bool {
    owns(run) && run.params::<Params>().is_ok_and(|params| params.arm == *arm)
}

/// Whether any run of a language model was asked for.
pub(super) fn asked(results: &Results) -> bool {
    results.runs().any(|(run, _)| owns(run))
}

pub(super) fn table(results: &Results) -> anyhow::Result<Table> {
    let mut rows = Vec::new();
    let [.., eight, pfq] = arms();
    for arm in arms() {
        let of = |name: &str, decimals| -> anyhow::Result<String> {
            Ok(cell(&metric(results, name, &arm)?.values(), decimals))
        };
        let relative = metric(results, CP, &arm)?.over(&metric(results, CP, &eight)?);
        rows.push(vec![
            arm.label(),
            of("validation_perplexity", 1)?,
            of(CP, 2)?,
            cell(&relative.values(), 3),
            of("unigram_perplexity", 1)?,
        ]);
    }
    let Params { layers, width, epochs, chunk, batch_size, tokens, least, .. } = Params::new("", Arm::FullPrecision);
    Ok(Table {
        title: "A Transformer language model".into(),
        caption: format!(
            "WikiText-2; {layers} layers of {width}, {} steps of {batch_size} sequences of {tokens} words, words seen {least} times \
             or more. Projections and feed-forward layers are quantised; attention's own products and the output layer are not, \
             and their cost is left out. Unigrams: a model of frequencies alone. Mean ± half the 95 % interval over seeds. An epoch \
             is {chunk} steps. {}",
            epochs * chunk,
            stages::sentence(results, &pfq, |run| is(run, &pfq))
        ),
        header: [
            "method",
            "validation perplexity",
            "cost of quantised layers (% of full precision)",
            "÷ static 8/8",
            "perplexity of unigrams",
        ]
        .map(String::from)
        .to_vec(),
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_after_a_whole_line() {
        let text = "a b\nc d e\nf\n";
        // Three, seven and nine words with the line ends.
        for (words, expected) in [(2, ""), (3, "a b\n"), (6, "a b\n"), (7, "a b\nc d e\n"), (99, text)] {
            assert_eq!(first_words(text, words), expected);
        }
    }

    #[test]
    fn unigrams_of_a_uniform_text_have_the_perplexity_of_its_vocabulary() {
        assert!((unigram_perplexity(&[0, 1, 2, 3], &[3, 1], 4) - 4.0).abs() < 1e-12);
        // Two thirds of the mass on the only word that comes: (1 + 1) of (1 + 2).
        assert!((unigram_perplexity(&[0], &[0, 0], 2) - 1.5).abs() < 1e-12);
    }
}
