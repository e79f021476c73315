//! BERT: a training step of a 4 × 256 network, full and cut by a ticket, and inference of BERT-base's shape.
//!
//! The peers are `peers/bert_training_step.py` and `peers/bert_inference.py`: Hugging Face transformers on PyTorch.

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

fn tokens(rows: i64, length: i64, words: i64) -> BertInput {
    BertInput::new(Tensor::randint_low(5, words, [rows, length], (Kind::Int64, Device::Cpu)))
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

fn training_steps(criterion: &mut Criterion) {
    let config = BertConfig::tiny(8192);
    let mut group = criterion.benchmark_group("bert");
    group.sample_size(10).measurement_time(Duration::from_secs(12));
    let input = tokens(32, 128, 8192);
    let target = Tensor::randint(2, [32], (Kind::Int64, Device::Cpu));
    for (name, (store, model)) in [("train_tiny_32x128", fresh(&config)), ("train_tiny_32x128_cut", cut(&config))] {
        let mut optimizer = Adam::new(slim_parameters(&store, 0.01), AdamConfig::decoupled()).unwrap();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                optimizer.zero_grad().unwrap();
                let logits = model.forward(&input, true).unwrap();
                model.loss(&logits, &target).unwrap().backward();
                optimizer.step(1e-5).unwrap();
            })
        });
    }
    group.finish();
}

fn inference(criterion: &mut Criterion) {
    let (_store, model) = fresh(&BertConfig::base());
    let input = tokens(8, 128, 30_522);
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
