//! Masked words: a small BERT trained on books, whole or as a ticket, and the vocabulary that goes with it.

use super::training::{Recorded, stretch_means};
use crate::experiments::chunks::Chunks;
use crate::{DataRoot, Fingerprint, Finished, Metrics, RunContext};
use core_tensor::checkpoint::{read_state, state_of};
use core_tensor::data::{BatchSource, OnDevice};
use core_tensor::networks::bert::{
    BertConfig, BertForPreTraining, BertInput, load_state_into, load_state_keeping, save_pretrained,
};
use core_tensor::nn::{LayerFactory, Standard};
use core_tensor::optim::{Adam, AdamConfig, NamedTensors, Schedule};
use core_tensor::seed::{Purpose, derive, seed_libtorch};
use core_tensor::text::corpus::{plain_text, sentences, wikitext};
use core_tensor::text::masked::{MaskedBatch, MaskedLoader, Masking, full_sequences};
use core_tensor::text::{Casing, TokenLoaderConfig, VocabularyConfig, WordPiece};
use core_tensor::train::{ClipNorm, Loss, Objective, Progress, TrainConfig, Trainer};
use lth::structured::{
    COEFFICIENT, DrawConfig, DrawRule, Search, SearchConfig, SlimConfig, SlimmedObjective, Slimming, TicketMask,
    bert_groups, coefficients, prune, pruned_config, slim_parameters,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Instant;
use tch::nn::VarStore;
use tch::{Device, no_grad};

/// What is trained, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    pub(super) arm: Arm,
    /// What a user's books are: others make another run.
    pub(super) books: BTreeMap<String, Fingerprint>,
    pub(super) vocabulary: usize,
    /// Tokens of a sequence.
    pub(super) tokens: usize,
    pub(super) batch: usize,
    /// Steps of a training, in chunks after each of which it can go on.
    pub(super) steps: u64,
    pub(super) chunk: u64,
    pub(super) peak: f64,
    pub(super) weight_decay: f64,
    /// Steps of the search, under the schedule of the training: more than its warm-up, so that no ramp draws a ticket.
    pub(super) search_steps: u64,
    pub(super) heads: f64,
    pub(super) neurons: f64,
    pub(super) lambda: f64,
    /// Batches of the validation text looked at: of every 50, sorted by length together, the first.
    pub(super) validation: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Arm {
    Full,
    EarlyBird,
    Random,
}

impl Params {
    pub(super) fn small(arm: Arm, books: &BTreeMap<String, Fingerprint>) -> Self {
        Self {
            arm,
            books: books.clone(),
            vocabulary: 4096,
            tokens: 64,
            batch: 32,
            steps: 2000,
            chunk: 200,
            peak: 1e-3,
            weight_decay: 0.01,
            search_steps: 400,
            heads: 0.375,
            neurons: 0.4,
            lambda: 1e-4,
            validation: 40,
        }
    }

    fn config(&self) -> BertConfig {
        let nano = BertConfig::nano(self.vocabulary as i64);
        // The published 0.02 belongs to a width of 768; narrower networks need more to leave the start.
        BertConfig { initializer_range: 0.02 * (768.0 / nano.hidden_size as f64).sqrt(), ..nano }
    }

    fn warm_up(&self) -> u64 {
        self.steps / 10
    }

    fn schedule(&self) -> Schedule {
        let warm_up = self.warm_up();
        let linear = Schedule::Linear { peak: self.peak, last: 0.0, steps: self.steps - warm_up };
        Schedule::WarmUp { steps: warm_up, then: Box::new(linear) }
    }
}

/// The folders that a data root must hold for it.
pub(super) const BOOKS: &str = "books";
pub(super) const WIKITEXT: &str = "wikitext-2";

/// The books in a data root, by the names of their files: plain text or Markdown. None without such a folder.
pub(super) fn books(data: &DataRoot) -> anyhow::Result<BTreeMap<String, Fingerprint>> {
    let Some(folder) = data.find(BOOKS, &[])? else { return Ok(BTreeMap::new()) };
    let mut books = BTreeMap::new();
    for entry in std::fs::read_dir(&folder)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|end| end == "md" || end == "txt") {
            let name = entry.file_name().to_string_lossy().into_owned();
            let fingerprint = data.fingerprint(&format!("{BOOKS}/{name}"))?;
            books.insert(name, fingerprint);
        }
    }
    Ok(books)
}

/// The corpus and the validation text, masked.
struct Corpus {
    pieces: WordPiece,
    train: MaskedLoader,
    validation: MaskedLoader,
}

impl Corpus {
    fn load(params: &Params, data: &DataRoot, seed: u64) -> anyhow::Result<Self> {
        let found = books(data)?;
        anyhow::ensure!(found == params.books, "the books in the data root are not those of this run any more");
        let data = data.path();
        let mut documents = Vec::new();
        for book in found.keys() {
            documents.push(plain_text(&data.join(BOOKS).join(book))?);
        }
        let vocabulary = VocabularyConfig { size: params.vocabulary, ..VocabularyConfig::default() };
        let texts: Vec<&str> = documents.iter().flat_map(|document| &document.paragraphs).map(String::as_str).collect();
        let pieces = WordPiece::train(texts.iter(), &vocabulary)?;
        let tokenised = |documents: &[core_tensor::text::corpus::Document]| -> anyhow::Result<Vec<Vec<Vec<u32>>>> {
            let of = |document: &core_tensor::text::corpus::Document| {
                let all: Vec<&str> = document.paragraphs.iter().flat_map(|paragraph| sentences(paragraph)).collect();
                Ok(pieces.pieces_of(&all)?)
            };
            documents.iter().map(of).collect()
        };
        let masked = |documents: &[Vec<Vec<u32>>], config: TokenLoaderConfig, masking: Masking, seed: u64| {
            let inputs = full_sequences(documents, &pieces, params.tokens)?;
            MaskedLoader::new(inputs, &pieces, masking, config, seed)
        };
        let train =
            masked(&tokenised(&documents)?, TokenLoaderConfig::training(params.batch), Masking::default(), seed)?;
        let articles = wikitext(&data.join(WIKITEXT).join("valid.txt"))?;
        let fixed = Masking { dynamic: false, ..Masking::default() };
        // The same hidden words for every arm and seed.
        let validation = masked(&tokenised(&articles)?, TokenLoaderConfig::evaluation(params.batch), fixed, 0)?;
        Ok(Self { pieces, train, validation })
    }
}

struct Words<'a>(&'a BertForPreTraining);

impl Objective<MaskedBatch> for Words<'_> {
    fn loss(&mut self, batch: &MaskedBatch, _: &Progress) -> core_tensor::Result<Loss> {
        let losses = self.0.losses(&BertInput::from(&batch.input), &batch.labels, None, true)?;
        Ok(Loss::single("masked_words", losses.masked_words))
    }
}

struct Model {
    store: VarStore,
    network: BertForPreTraining,
}

impl Model {
    fn fresh(factory: &dyn LayerFactory, config: &BertConfig, seed: u64, device: Device) -> anyhow::Result<Self> {
        seed_libtorch(seed, Purpose::Initialisation, 0);
        // Drawn on the CPU, so that a seed means the same weights on every device.
        let mut store = VarStore::new(Device::Cpu);
        let network = BertForPreTraining::new(&store.root(), factory, config, false)?;
        store.set_device(device);
        Ok(Self { store, network })
    }

    fn validation_loss(&self, corpus: &Corpus, batches: usize) -> anyhow::Result<f64> {
        let (mut sum, mut count) = (0.0, 0.0);
        let validation = OnDevice::new(&corpus.validation, self.store.device());
        for batch in validation.epoch(0)?.take(batches) {
            let batch = batch?;
            let input = BertInput::from(&batch.input);
            let losses = no_grad(|| self.network.losses(&input, &batch.labels, None, false))?;
            sum += losses.masked_words.double_value(&[]);
            count += 1.0;
        }
        Ok(sum / count)
    }
}

#[derive(Serialize, Deserialize)]
struct Clock {
    train_seconds: f64,
}

pub(super) fn measure(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let corpus = Corpus::load(params, context.data(), seed)?;
    let config = BertConfig { vocab_size: corpus.pieces.len() as i64, ..params.config() };
    let device = context.device().into();
    let groups = bert_groups(&config, "bert.");
    let theta = lth::copies(&state_of(&Model::fresh(&Standard, &config, seed, device)?.store));
    let draw = DrawConfig::ratios(params.heads, params.neurons);
    let start = Instant::now();
    let (ticket, search_loss) = match params.arm {
        Arm::Full => (None, None),
        Arm::EarlyBird => {
            let (ticket, loss) = search(params, &config, &theta, &corpus, seed, context)?;
            (Some(ticket), Some(loss))
        }
        Arm::Random => (Some(draw.random(&groups, derive(seed, Purpose::Mask, 0))?), None),
    };
    let search_seconds = if params.arm == Arm::EarlyBird { start.elapsed().as_secs_f64() } else { 0.0 };
    let (weights, smaller) = match &ticket {
        None => (theta, config.clone()),
        Some(ticket) => (prune(&theta, &groups, ticket)?.0, pruned_config(&config, &groups, ticket)?),
    };
    let model = Model::fresh(&Standard, &smaller, seed, device)?;
    load_state_into(&model.store, &weights)?;

    let train = OnDevice::new(&corpus.train, device);
    let source = Chunks { source: &train, chunk: params.chunk };
    let epochs = params.steps / params.chunk;
    let mut objective = Words(&model.network);
    let mut optimizer = Adam::new(
        slim_parameters(&model.store, params.weight_decay),
        AdamConfig { beta2: 0.98, ..AdamConfig::decoupled() },
    )?;
    let mut clip = ClipNorm(1.0);
    let train = TrainConfig { epochs, seed, schedule: params.schedule() };
    let mut trainer = Trainer::new(train, &mut objective, &mut optimizer)?;
    trainer.observe(&mut clip);
    let mut clock = Clock { train_seconds: 0.0 };
    if let Some(checkpoint) = context.checkpoint() {
        clock = trainer.restore(&checkpoint.path.clone(), &model.store)?;
    }
    // The watch of the search logged rows of its own below this one.
    let offset = if params.arm == Arm::EarlyBird { params.search_steps } else { 0 };
    let mut validation = f64::NAN;
    while trainer.progress().epoch < epochs {
        let start = Instant::now();
        let (_, report) = trainer.fit_epoch(&source)?;
        clock.train_seconds += start.elapsed().as_secs_f64();
        validation = model.validation_loss(&corpus, params.validation)?;
        let loss = report.metrics.get("masked_words").copied().unwrap_or_default();
        context.log(offset + report.step, &[("train_loss", loss), ("validation_loss", validation)])?;
        let done = report.epoch + 1;
        if done < epochs {
            context.save_checkpoint(offset + report.step, |path| Ok(trainer.save(path, &model.store, &clock)?))?;
        }
        context.progress(done, epochs, "");
    }
    context.measured("search_seconds", search_seconds)?;
    context.measured("total_seconds", search_seconds + clock.train_seconds)?;
    context.save_artifact("vocab.txt", |path| Ok(corpus.pieces.save(path)?))?;
    let folder = tempfile::tempdir()?;
    save_pretrained(folder.path(), &model.store, &smaller)?;
    for name in ["config.json", "model.safetensors"] {
        context.save_artifact(name, |path| Ok(std::fs::copy(folder.path().join(name), path).map(drop)?))?;
    }
    let macs = |config: &BertConfig| -> anyhow::Result<f64> {
        Ok(config.workload("masked words", params.tokens as i64)?.macs()? as f64)
    };
    let share = macs(&smaller)? / macs(&config)?;
    let searched = if params.arm == Arm::EarlyBird { params.search_steps as f64 / params.steps as f64 } else { 0.0 };
    let mut metrics = Metrics::from([
        ("validation_loss".into(), validation),
        ("macs_share".into(), share),
        ("saved_macs".into(), 1.0 - searched - share),
    ]);
    metrics.extend(search_loss.map(|loss| ("search_loss".to_owned(), loss)));
    Ok(metrics)
}

/// Steps between two records of a search.
const EVERY: u64 = 10;

/// The ticket of a search from random weights, and the loss of its last ten steps. Logs, every ten steps, their loss and
/// how far the mask is from the one drawn in the end.
fn search(
    params: &Params,
    config: &BertConfig,
    theta: &NamedTensors,
    corpus: &Corpus,
    seed: u64,
    context: &mut RunContext,
) -> anyhow::Result<(TicketMask, f64)> {
    let groups = bert_groups(config, "bert.");
    let model = Model::fresh(&Slimming(Standard), config, seed, context.device().into())?;
    load_state_keeping(&model.store, theta, &[COEFFICIENT])?;
    let live = coefficients(&model.store, &groups)?;
    let draw = DrawConfig::ratios(params.heads, params.neurons);
    let rule = DrawRule::AtStep(params.search_steps);
    let settings = SearchConfig { draw: draw.clone(), rule, every: EVERY, ..SearchConfig::default() };
    let mut search = Search::new(&groups, &live, settings)?;
    let mut task = Recorded::new(Words(&model.network));
    let slim = SlimConfig { lambda_heads: params.lambda, lambda_neurons: params.lambda };
    let mut objective = SlimmedObjective::<MaskedBatch>::new(&mut task, &live, slim)?;
    let mut optimizer = Adam::new(
        slim_parameters(&model.store, params.weight_decay),
        AdamConfig { beta2: 0.98, ..AdamConfig::decoupled() },
    )?;
    let mut clip = ClipNorm(1.0);
    let train = TrainConfig { epochs: params.search_steps.div_ceil(params.chunk), seed, schedule: params.schedule() };
    let mut trainer = Trainer::new(train, &mut objective, &mut optimizer)?;
    trainer.observe(&mut clip).observe(&mut search);
    let source = OnDevice::new(&corpus.train, model.store.device());
    trainer.fit(&Chunks { source: &source, chunk: params.chunk })?;
    drop(trainer);
    drop(objective);
    let found = search.found().ok_or_else(|| anyhow::anyhow!("the search ended without a ticket"))?;
    let losses = stretch_means(task.losses(), EVERY as usize);
    // A resumed run has logged these already.
    if context.checkpoint().is_none() {
        for (step, loss) in &losses {
            let mask = draw.draw(&search.trace().scores(*step, &groups)?)?.mask;
            let [heads, neurons] = mask.distance(&found.drawn.mask)?;
            let row = [("search_loss", *loss), ("heads_distance", heads), ("neurons_distance", neurons)];
            context.log(*step, &row)?;
        }
    }
    let (_, loss) = *losses.last().ok_or_else(|| anyhow::anyhow!("a search of less than {EVERY} steps"))?;
    Ok((found.drawn.mask.clone(), loss))
}

/// The vocabulary, the weights and the shape that a finished run left.
pub(super) fn artifact(finished: &Finished) -> anyhow::Result<(WordPiece, NamedTensors, BertConfig)> {
    let pieces = WordPiece::from_file(&finished.artifact("vocab.txt")?, Casing::Lower)?;
    let config = BertConfig::from_file(&finished.artifact("config.json")?)?;
    Ok((pieces, read_state(&finished.artifact("model.safetensors")?)?, config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_books_are_another_run() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataRoot::at(folder.path());
        assert!(books(&data).unwrap().is_empty());
        std::fs::create_dir(folder.path().join(BOOKS)).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(BOOKS).join(name), text).unwrap();
        write("cover.png", "no text");
        assert!(books(&data).unwrap().is_empty());
        write("b.txt", "Call me Ishmael.");
        write("a.md", "It was the best of times.");
        let first = Params::small(Arm::Full, &books(&data).unwrap());
        assert_eq!(first.books.keys().collect::<Vec<_>>(), ["a.md", "b.txt"]);
        write("b.txt", "Call me Ishmaël.");
        assert_ne!(Params::small(Arm::Full, &books(&data).unwrap()), first);
        let error = Corpus::load(&first, &data, 0).err().unwrap().to_string();
        assert!(error.contains("not those of this run"), "{error}");
    }

    #[test]
    fn the_ticket_is_drawn_after_the_warm_up() {
        let params = Params::small(Arm::EarlyBird, &BTreeMap::new());
        assert_eq!(params.warm_up(), 200);
        assert!(params.search_steps >= 2 * params.warm_up() && params.search_steps < params.steps);
        assert!(params.search_steps.is_multiple_of(EVERY));
    }

    #[test]
    fn a_small_corpus_is_passed_over_as_often_as_a_chunk_takes() {
        let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"].map(str::to_owned);
        let pieces = WordPiece::from_tokens(tokens.to_vec(), Casing::Lower, "test").unwrap();
        // Twelve tokens in sequences of four, two a batch: three batches a pass.
        let inputs = full_sequences(&[vec![vec![5; 12]]], &pieces, 4).unwrap();
        let loader = MaskedLoader::new(inputs, &pieces, Masking::default(), TokenLoaderConfig::training(2), 0).unwrap();
        assert_eq!(loader.batches_per_epoch(), 3);
        let order = |batches: &mut dyn Iterator<Item = core_tensor::Result<MaskedBatch>>| -> Vec<Vec<usize>> {
            batches.map(|batch| batch.unwrap().index).collect()
        };
        let chunks = Chunks { source: &loader, chunk: 8 };
        let mut found = order(&mut chunks.epoch(0).unwrap());
        assert_eq!(found.len(), 8);
        found.extend(order(&mut chunks.epoch(1).unwrap()));
        let mut passes: Vec<_> = (0..6).flat_map(|pass| order(&mut loader.epoch(pass).unwrap())).collect();
        passes.truncate(16);
        assert_eq!(found, passes);
    }
}
