//! BERT: a training step of a 4 × 256 network, full and cut by a ticket, and inference of BERT-base's shape.
//!
//! The peers are `peers/bert_training_step.py` and `peers/bert_inference.py`: Hugging Face transformers on PyTorch. A
//! classifier reads the first token only, so ours computes the last layer for that token alone and theirs for all; the
//! benches `…_all_rows` compute all, as theirs do. The weights and the batch lie in
//! `target/bert_train_tiny*.safetensors`.

mod case;

use benches::record;
use core_tensor::checkpoint::state_of;
use core_tensor::networks::bert::{BertConfig, BertForSequenceClassification, BertInput, load_state_into};
use core_tensor::nn::Standard;
use core_tensor::optim::{Adam, AdamConfig, Optimizer};
use core_tensor::seed::{Purpose, seed_libtorch};
use criterion::{Criterion, criterion_group, criterion_main};
use lth::structured::{DrawConfig, bert_groups, prune, pruned_config, slim_parameters};
use std::time::Duration;
use tch::{Device, Kind, Tensor, nn};

fn fresh(config: &BertConfig) -> (nn::VarStore, BertForSequenceClassification) {
    seed_libtorch(0, Purpose::Initialisation, 0);
    let store = nn::VarStore::new(Device::Cpu);
    let model = BertForSequenceClassification::new(&store.root(), &Standard, config, 2).unwrap();
    (store, model)
}

fn tokens(rows: i64, length: i64, words: i64) -> Tensor {
    Tensor::randint_low(5, words, [rows, length], (Kind::Int64, Device::Cpu))
}

/// Half of the heads and 40 % of the neurons gone.
fn cut(config: &BertConfig) -> (nn::VarStore, BertForSequenceClassification) {
    let (store, _model) = fresh(config);
    let groups = bert_groups(config, "bert.");
    let ticket = DrawConfig::ratios(0.5, 0.4).random(&groups, 0).unwrap();
    let (weights, _) = prune(&state_of(&store), &groups, &ticket).unwrap();
    let (store, model) = fresh(&pruned_config(config, &groups, &ticket).unwrap());
    load_state_into(&store, &weights).unwrap();
    (store, model)
}

/// Logits with every row of the last layer computed.
fn all_rows(model: &BertForSequenceClassification, classifier: [&Tensor; 2], input: &BertInput, train: bool) -> Tensor {
    let hidden = model.bert().hidden(input, train).unwrap();
    let pooled = model.bert().pool(&hidden, train).unwrap();
    pooled.dropout(model.bert().config().hidden_dropout_prob, train).linear(classifier[0], Some(classifier[1]))
}

fn training_steps(criterion: &mut Criterion) {
    let config = BertConfig::tiny(8192);
    let mut group = criterion.benchmark_group("bert");
    group.sample_size(10).measurement_time(Duration::from_secs(12));
    let ids = tokens(32, 128, 8192);
    let (input, target) = (BertInput::new(ids.shallow_clone()), Tensor::randint(2, [32], (Kind::Int64, Device::Cpu)));
    for (cutting, (store, model)) in [("", fresh(&config)), ("_cut", cut(&config))] {
        case::leave(&format!("bert_train_tiny{cutting}"), state_of(&store), &[("ids", &ids), ("labels", &target)]);
        let loss = |logits: &Tensor| model.loss(logits, &target).unwrap();
        let variables = store.variables();
        let classifier = ["weight", "bias"].map(|part| &variables[&format!("classifier.{part}")]);
        let first_row = |train| model.forward(&input, train).unwrap();
        let every_row = |train| all_rows(&model, classifier, &input, train);
        let both: [(&str, &dyn Fn(bool) -> Tensor); 2] = [("", &first_row), ("_all_rows", &every_row)];
        let name = |rows: &str| format!("train_tiny_32x128{cutting}{rows}");
        // Before any is timed, which trains.
        for (rows, logits) in &both {
            let undisturbed = tch::no_grad(|| loss(&logits(false))).double_value(&[]);
            record(&format!("bert/{}", name(rows)), "loss", undisturbed);
        }
        for (rows, logits) in both {
            let mut optimizer = Adam::new(slim_parameters(&store, 0.01), AdamConfig::decoupled()).unwrap();
            group.bench_function(name(rows), |bencher| {
                bencher.iter(|| {
                    optimizer.zero_grad().unwrap();
                    loss(&logits(true)).backward();
                    optimizer.step(1e-5).unwrap();
                })
            });
        }
    }
    group.finish();
}

fn inference(criterion: &mut Criterion) {
    let (_store, model) = fresh(&BertConfig::base());
    let input = BertInput::new(tokens(8, 128, 30_522));
    let mut group = criterion.benchmark_group("bert");
    group.sample_size(10).measurement_time(Duration::from_secs(12));
    group.bench_function("classify_base_8x128", |bencher| {
        bencher.iter(|| tch::no_grad(|| model.forward(&input, false).unwrap()))
    });
    group.bench_function("hidden_base_8x128", |bencher| {
        bencher.iter(|| tch::no_grad(|| model.bert().hidden(&input, false).unwrap()))
    });
    group.finish();
}

criterion_group!(benches, training_steps, inference);
criterion_main!(benches);
