mod draw;
mod properties;
mod pruning;
mod search;
mod slimming;

use super::*;
use crate::early_bird::EarlyBirdConfig;
use crate::mask::MaskSet;
use crate::prunable::NamedTensor;
use crate::selector::Scope;
use crate::{Error, restore};
use core_tensor::checkpoint::state_of;
use core_tensor::data::BatchSource;
use core_tensor::networks::bert::{
    Bert, BertConfig, BertForSequenceClassification, BertInput, load_state_into, load_weights, load_weights_keeping,
    save_pretrained,
};
use core_tensor::nn::{Gated, LayerFactory, Standard};
use core_tensor::optim::{Adam, AdamConfig, NamedTensors, Schedule, Sgd, SgdConfig};
use core_tensor::seed::{Purpose, seed_libtorch};
use core_tensor::train::{Loss, Objective, Progress, TrainConfig, Trainer};
use proptest::prelude::*;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

fn small() -> BertConfig {
    BertConfig {
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 12,
        max_position_embeddings: 8,
        hidden_dropout_prob: 0.0,
        attention_probs_dropout_prob: 0.0,
        // Larger than published, so that logits depend visibly on every head and neuron.
        initializer_range: 0.3,
        ..BertConfig::nano(20)
    }
}

fn built(factory: &dyn LayerFactory, config: &BertConfig) -> (VarStore, BertForSequenceClassification) {
    seed_libtorch(5, Purpose::Initialisation, 0);
    let store = VarStore::new(Device::Cpu);
    let model = BertForSequenceClassification::new(&store.root(), factory, config, 2).unwrap();
    (store, model)
}

fn input() -> BertInput {
    let ids = Tensor::from_slice(&[2_i64, 7, 11, 4, 3, 2, 19, 5, 3, 0]).view([2, 5]);
    BertInput::new(ids).with_mask(Tensor::from_slice(&[1_i64, 1, 1, 1, 1, 1, 1, 1, 1, 0]).view([2, 5]))
}

fn logits(model: &BertForSequenceClassification) -> Tensor {
    no_grad(|| model.forward(&input(), false).unwrap())
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

fn set(store: &VarStore, groups: &[SlimGroup], value: impl Fn(usize, usize) -> f64) {
    for (number, (_, mut tensor)) in coefficients(store, groups).unwrap().into_iter().enumerate() {
        let values: Vec<f64> = (0..tensor.numel()).map(|unit| value(number, unit)).collect();
        no_grad(|| tensor.copy_(&Tensor::from_slice(&values).view(tensor.size().as_slice())));
    }
}

/// Scores under the groups' names.
fn scores(groups: &[SlimGroup], value: impl Fn(usize, usize) -> f32) -> Scores {
    let of = |(number, group): (usize, &SlimGroup)| {
        let values: Vec<f32> = (0..group.units).map(|unit| value(number, unit)).collect();
        (group.coefficient.clone(), Tensor::from_slice(&values))
    };
    Scores::of(groups, &groups.iter().enumerate().map(of).collect::<Vec<_>>()).unwrap()
}

fn masks(rows: &[&[u8]]) -> MaskSet {
    let named: Vec<NamedTensor> =
        rows.iter().enumerate().map(|(row, bits)| (format!("{row}"), Tensor::from_slice(bits))).collect();
    MaskSet::from_tensors(&named).unwrap()
}

fn random_ticket(seed: u64, heads: f64, neurons: f64) -> TicketMask {
    DrawConfig::ratios(heads, neurons).random(&bert_groups(&small(), "bert."), seed).unwrap()
}

/// A mask of ones and zeros as coefficients.
fn apply(store: &VarStore, groups: &[SlimGroup], ticket: &TicketMask) {
    let kept: Vec<Vec<usize>> = groups.iter().map(|group| ticket.kept(group).unwrap()).collect();
    set(store, groups, |number, unit| f64::from(kept[number].contains(&unit)));
}
