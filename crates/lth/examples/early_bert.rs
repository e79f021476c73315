//! A small BERT, searched for a few steps, cut, and trained from where it began.
//!
//! `cargo run --release -p lth --example early_bert`

use core_tensor::checkpoint::state_of;
use core_tensor::networks::bert::{
    BertConfig, BertForSequenceClassification, BertInput, load_state_into, save_pretrained,
};
use core_tensor::nn::Standard;
use core_tensor::optim::{Adam, AdamConfig, Optimizer};
use core_tensor::seed::{Purpose, seed_libtorch};
use lth::structured::{
    DrawConfig, DrawRule, Search, SearchConfig, SlimConfig, Slimming, bert_groups, coefficients, fold, prune,
    pruned_config, slim_parameters, slim_penalty,
};
use tch::{Device, Kind, Tensor, nn::VarStore};

/// Is token 7 more frequent than token 9?
fn batch() -> (BertInput, Tensor) {
    let ids = Tensor::randint_low(5, 12, [64, 16], (Kind::Int64, Device::Cpu));
    let count = |token: i64| ids.eq(token).sum_dim_intlist([1_i64].as_slice(), false, Kind::Int64);
    let target = count(7).gt_tensor(&count(9)).to_kind(Kind::Int64);
    (BertInput::new(ids), target)
}

/// Trains, and says how often the last batch was right.
fn train(
    model: &BertForSequenceClassification,
    store: &VarStore,
    steps: u64,
) -> Result<f64, Box<dyn std::error::Error>> {
    let mut optimizer = Adam::new(slim_parameters(store, 0.0), AdamConfig::decoupled())?;
    let mut accuracy = 0.0;
    for _ in 0..steps {
        let (input, target) = batch();
        optimizer.zero_grad()?;
        let logits = model.forward(&input, true)?;
        model.loss(&logits, &target)?.backward();
        optimizer.step(1e-3)?;
        accuracy = logits.argmax(-1, false).eq_tensor(&target).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    }
    Ok(accuracy)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    seed_libtorch(0, Purpose::Initialisation, 0);
    let config = BertConfig { hidden_size: 64, intermediate_size: 256, num_hidden_layers: 2, ..BertConfig::nano(12) };
    let groups = bert_groups(&config, "bert.");

    // Search: coefficients on every head and neuron, pressed by λ·|c|.
    let slim_store = VarStore::new(Device::Cpu);
    let slim = BertForSequenceClassification::new(&slim_store.root(), &Slimming(Standard), &config, 2)?;
    let theta_0 = lth::copies(&state_of(&slim_store));
    let live = coefficients(&slim_store, &groups)?;
    let draw = DrawConfig::ratios(0.5, 0.4);
    let rule = DrawRule::AtStep(60);
    let mut search = Search::new(&groups, &live, SearchConfig { draw, rule, ..SearchConfig::default() })?;
    let mut optimizer = Adam::new(slim_parameters(&slim_store, 0.0), AdamConfig::decoupled())?;
    for step in 1.. {
        let (input, target) = batch();
        optimizer.zero_grad()?;
        let loss = slim.loss(&slim.forward(&input, true)?, &target)? + slim_penalty(&live, SlimConfig::default())?;
        loss.backward();
        optimizer.step(1e-3)?;
        if search.see(step, 100)? {
            break;
        }
    }
    let found = search.found().ok_or("the search ended without a ticket")?;
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
    println!("accuracy after 300 steps: {:.2}", train(&model, &store, 300)?);
    let folder = std::env::temp_dir().join("early-bert-example");
    save_pretrained(&folder, &store, &smaller)?;
    println!("saved to {}", folder.display());
    Ok(())
}
