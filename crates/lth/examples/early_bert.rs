//! A small BERT, searched for a few steps, cut, and trained from where it began.
//!
//! `cargo run --release -p lth --example early_bert`
//!
//! A folder with a published `config.json` and `model.safetensors` may follow: the search then begins at these weights.

use core_tensor::checkpoint::state_of;
use core_tensor::data::BatchSource;
use core_tensor::networks::bert::{
    BertConfig, BertForSequenceClassification, BertInput, load_state_into, load_weights_keeping, save_pretrained,
};
use core_tensor::nn::Standard;
use core_tensor::optim::{Adam, AdamConfig, Schedule};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{ClipNorm, Loss, Objective, Observer, Progress, TrainConfig, Trainer};
use lth::structured::{
    COEFFICIENT, DrawConfig, DrawRule, Search, SearchConfig, SlimConfig, SlimmedObjective, Slimming, bert_groups,
    coefficients, fold, prune, pruned_config, slim_parameters,
};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor, nn::VarStore};

/// Steps of an epoch.
const STEPS: u64 = 100;

/// Token sequences, and whether token 7 is more frequent in them than token 9.
type Batch = (BertInput, Tensor);

struct Counting;

impl BatchSource for Counting {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        STEPS
    }

    fn epoch(&self, _: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        Ok(Box::new((0..STEPS).map(|_| {
            let ids = Tensor::randint_low(5, 12, [64, 16], (Kind::Int64, Device::Cpu));
            let count = |token: i64| ids.eq(token).sum_dim_intlist([1_i64].as_slice(), false, Kind::Int64);
            let target = count(7).gt_tensor(&count(9)).to_kind(Kind::Int64);
            Ok((BertInput::new(ids), target))
        })))
    }
}

struct Classify<'a>(&'a BertForSequenceClassification);

impl Objective<Batch> for Classify<'_> {
    fn loss(&mut self, (input, target): &Batch, _: &Progress) -> core_tensor::Result<Loss> {
        let logits = self.0.forward(input, true)?;
        let right = logits.argmax(-1, false).eq_tensor(target).to_kind(Kind::Float).mean(Kind::Float);
        Ok(Loss { total: self.0.loss(&logits, target)?, parts: vec![("accuracy", right)] })
    }
}

/// Trains by the published recipe, gradients clipped at 1, and says how often the last epoch was right.
fn train(
    objective: &mut dyn Objective<Batch>,
    store: &VarStore,
    epochs: u64,
    search: Option<&mut Search>,
) -> Result<f64, Box<dyn std::error::Error>> {
    let mut optimizer = Adam::new(slim_parameters(store, 0.0), AdamConfig::decoupled())?;
    let config = TrainConfig { epochs, seed: 0, schedule: Schedule::Constant { peak: 1e-3 } };
    let mut trainer = Trainer::new(config, objective, &mut optimizer)?;
    let mut clip = ClipNorm(1.0);
    trainer.observe(&mut clip);
    if let Some(search) = search {
        trainer.observe(search as &mut dyn Observer);
    }
    let mut accuracy = 0.0;
    for _ in 0..epochs {
        let (_, report) = trainer.fit_epoch(&Counting)?;
        accuracy = report.metrics["accuracy"];
    }
    Ok(accuracy)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let published = std::env::args().nth(1).map(PathBuf::from);
    seed_libtorch(0, Purpose::Initialisation, 0);
    let config = match &published {
        Some(folder) => BertConfig::from_file(&folder.join("config.json"))?,
        None => BertConfig { hidden_size: 64, intermediate_size: 256, num_hidden_layers: 2, ..BertConfig::nano(12) },
    };
    let groups = bert_groups(&config, "bert.");

    // Search: coefficients on every head and neuron, pressed by λ·|c|.
    let slim_store = VarStore::new(Device::Cpu);
    let slim = BertForSequenceClassification::new(&slim_store.root(), &Slimming(Standard), &config, 2)?;
    if let Some(folder) = &published {
        // A published file has neither coefficients, which stay at 1, nor always a classifier.
        let load = load_weights_keeping(&folder.join("model.safetensors"), &slim_store, &[COEFFICIENT])?;
        println!("{} tensors loaded, {} begin as made", load.report.loaded.len(), load.report.missing.len());
    }
    let theta_0 = lth::copies(&state_of(&slim_store));
    let live = coefficients(&slim_store, &groups)?;
    let draw = DrawConfig::ratios(0.5, 0.4);
    let rule = DrawRule::AtStep(60);
    let mut search = Search::new(&groups, &live, SearchConfig { draw, rule, ..SearchConfig::default() })?;
    let mut task = Classify(&slim);
    let mut pressed = SlimmedObjective::new(&mut task, &live, SlimConfig::default())?;
    train(&mut pressed, &slim_store, 1, Some(&mut search))?;
    let found = search.ticket()?;
    println!("ticket after {} steps", found.step);

    // Cut the weights from before the search, and train what is left as an ordinary BERT.
    let (weights, report) = prune(&fold(&theta_0, &groups)?, &groups, &found.drawn.mask)?;
    for cut in &report.cuts {
        println!("layer {}: {} of {} {}", cut.layer, cut.kept, cut.of, if cut.heads { "heads" } else { "neurons" });
    }
    let smaller = pruned_config(&config, &groups, &found.drawn.mask)?;
    let store = VarStore::new(Device::Cpu);
    let model = BertForSequenceClassification::new(&store.root(), &Standard, &smaller, 2)?;
    load_state_into(&store, &weights)?;
    let share = smaller.workload("smaller", 16)?.macs()? as f64 / config.workload("full", 16)?.macs()? as f64;
    println!("{:.0} % of the multiply-accumulates", 100.0 * share);
    println!("accuracy in the last of 3 epochs: {:.2}", train(&mut Classify(&model), &store, 3, None)?);
    let folder = std::env::temp_dir().join("early-bert-example");
    save_pretrained(&folder, &store, &smaller)?;
    found.drawn.mask.save(&folder.join("ticket.safetensors"))?;
    println!("saved to {}", folder.display());
    Ok(())
}
