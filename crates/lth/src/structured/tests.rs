use super::*;
use crate::early_bird::EarlyBirdConfig;
use crate::mask::MaskSet;
use crate::prunable::NamedTensor;
use crate::selector::Scope;
use crate::{Error, restore};
use core_tensor::checkpoint::state_of;
use core_tensor::data::BatchSource;
use core_tensor::networks::bert::{BertConfig, BertForSequenceClassification, BertInput, load_state_into};
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

#[test]
fn coefficients_of_one_change_nothing() {
    let groups = bert_groups(&small(), "bert.");
    let (slim_store, slim) = built(&Slimming(Standard), &small());
    let (plain_store, plain) = built(&Standard, &small());
    let state: NamedTensors = state_of(&slim_store);
    let plain_state = NamedTensors::from_iter(
        state.iter().filter(|(name, _)| !name.ends_with("slimming_coef")).map(|(n, t)| (n.clone(), t.shallow_clone())),
    );
    restore(&plain_state, &plain_store).unwrap();
    assert!(logits(&slim).equal(&logits(&plain)));
    let shapes: Vec<Vec<i64>> =
        coefficients(&slim_store, &groups).unwrap().iter().map(|(_, tensor)| tensor.size()).collect();
    assert_eq!(shapes, [vec![1, 4, 1, 1], vec![1, 12], vec![1, 4, 1, 1], vec![1, 12]]);
    assert_eq!(groups[0].coefficient, "bert.encoder.layer.0.attention.self.slimming_coef");
    assert_eq!(groups[3].coefficient, "bert.encoder.layer.1.slimming_coef");
}

#[test]
fn a_pruned_model_equals_the_masked_one_and_is_ordinary() {
    let groups = bert_groups(&small(), "bert.");
    let (slim_store, slim) = built(&Slimming(Standard), &small());
    let full = logits(&slim);
    let ticket = random_ticket(1, 0.5, 0.4);
    let theta: NamedTensors = crate::copies(&state_of(&slim_store));
    apply(&slim_store, &groups, &ticket);
    let masked = logits(&slim);
    assert!(difference(&full, &masked) > 1e-2, "the mask must matter for this test to say something");

    let plain = fold(&theta, &groups).unwrap();
    let (smaller, report) = prune(&plain, &groups, &ticket).unwrap();
    let config = pruned_config(&small(), &groups, &ticket).unwrap();
    let (store, model) = built(&Standard, &config);
    load_state_into(&store, &smaller).unwrap();
    assert!(difference(&logits(&model), &masked) < 1e-5);

    // 2 of 4 heads in both layers, round(0.4 · 24) = 10 neurons of the whole: 3(16·4 + 4) + 4·16 a head, 2·16 + 1 a
    // neuron.
    assert_eq!(report.parameters_before - report.parameters_after, 4 * (3 * (16 * 4 + 4) + 4 * 16) + 10 * 33);
    assert_eq!(report.cuts.iter().filter(|cut| cut.heads).map(|cut| cut.kept).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(groups[0].unit_parameters(&plain).unwrap(), 268);
    assert_eq!(groups[1].unit_parameters(&plain).unwrap(), 33);

    // Rewinding is bit for bit: every surviving weight is theta's own.
    for (name, tensor) in &smaller {
        if tensor.size() == theta[name].size() {
            assert!(tensor.equal(&theta[name]), "{name}");
        }
    }
    let kept = ticket.kept(&groups[1]).unwrap();
    let bias = "bert.encoder.layer.0.intermediate.dense.bias";
    let rows = Tensor::from_slice(&kept.iter().map(|unit| *unit as i64).collect::<Vec<_>>());
    assert!(smaller[bias].equal(&theta[bias].index_select(0, &rows)));
}

#[test]
fn folding_coefficients_away_keeps_the_function() {
    let groups = bert_groups(&small(), "bert.");
    let (slim_store, slim) = built(&Slimming(Standard), &small());
    set(&slim_store, &groups, |number, unit| 0.5 + 0.1 * ((number * 7 + unit * 3) % 11) as f64);
    let expected = logits(&slim);
    let folded = fold(&state_of(&slim_store), &groups).unwrap();
    let (store, model) = built(&Standard, &small());
    load_state_into(&store, &folded).unwrap();
    // The same products in another order.
    assert!(difference(&logits(&model), &expected) < 1e-5);
    assert!(folded.keys().all(|name| !name.ends_with("slimming_coef")));
}

#[test]
fn pruning_twice_is_pruning_once_with_original_numbers() {
    let groups = bert_groups(&small(), "bert.");
    let (store, _model) = built(&Standard, &small());
    let state: NamedTensors = crate::copies(&state_of(&store));
    let ticket = |keep: &dyn Fn(&SlimGroup, usize) -> bool, groups: &[SlimGroup]| {
        let of = |gated| {
            let named: Vec<NamedTensor> = groups
                .iter()
                .filter(|group| group.gated == gated)
                .map(|group| {
                    let bits: Vec<u8> = (0..group.units).map(|unit| u8::from(keep(group, unit))).collect();
                    (group.coefficient.clone(), Tensor::from_slice(&bits))
                })
                .collect();
            MaskSet::from_tensors(&named).unwrap()
        };
        TicketMask { heads: of(Gated::Heads), neurons: of(Gated::Neurons) }
    };
    let heads = |group: &SlimGroup| group.gated == Gated::Heads;
    // Head 1, then original head 3, which is number 2 by then; neurons 0 and then original 5, number 4 by then.
    let first = ticket(&|group, unit| unit != if heads(group) { 1 } else { 0 }, &groups);
    let (once, _) = prune(&state, &groups, &first).unwrap();
    let config = pruned_config(&small(), &groups, &first).unwrap();
    let smaller_groups = bert_groups(&config, "bert.");
    let second = ticket(&|group, unit| unit != if heads(group) { 2 } else { 4 }, &smaller_groups);
    let (twice, _) = prune(&once, &smaller_groups, &second).unwrap();
    let config = pruned_config(&config, &smaller_groups, &second).unwrap();
    assert_eq!(config.pruned_heads, [(0, vec![1, 3]), (1, vec![1, 3])].into());
    assert_eq!(config.pruned_neurons, [(0, vec![0, 5]), (1, vec![0, 5])].into());
    let at_once =
        ticket(&|group, unit| if heads(group) { unit != 1 && unit != 3 } else { unit != 0 && unit != 5 }, &groups);
    let (expected, _) = prune(&state, &groups, &at_once).unwrap();
    assert!(twice.iter().all(|(name, tensor)| tensor.equal(&expected[name])));
    // Pruning nothing is the identity.
    let (same, report) = prune(&state, &groups, &ticket(&|_, _| true, &groups)).unwrap();
    assert!(same.iter().all(|(name, tensor)| tensor.equal(&state[name])));
    assert_eq!(report.parameters_before, report.parameters_after);
}

#[test]
fn the_gradient_of_a_coefficient_is_a_central_difference() {
    let groups = bert_groups(&small(), "bert.");
    let (mut store, model) = built(&Slimming(Standard), &small());
    store.double();
    let targets = Tensor::from_slice(&[1_i64, 0]);
    let loss = || model.loss(&model.forward(&input(), true).unwrap(), &targets).unwrap();
    loss().backward();
    let live = coefficients(&store, &groups).unwrap();
    let step = 1e-5;
    let mut checked = 0;
    for (_, tensor) in &live {
        let gradient = tensor.grad().reshape([-1]);
        let flat = tensor.detach().view([-1]);
        for unit in (0..tensor.numel() as i64).step_by(2) {
            let at = |shift: f64| {
                no_grad(|| {
                    let _ = flat.get(unit).g_add_scalar_(shift);
                    let value = loss().double_value(&[]);
                    let _ = flat.get(unit).g_sub_scalar_(shift);
                    value
                })
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            // f64; the error of a central difference is of order step².
            assert!((slope - gradient.double_value(&[unit])).abs() < 1e-7, "{slope}");
            checked += 1;
        }
    }
    assert!(checked >= 16);
}

/// A loss of nothing, so that the penalty alone acts.
struct Nothing;

impl Objective<()> for Nothing {
    fn loss(&mut self, (): &(), _: &Progress) -> core_tensor::Result<Loss> {
        Ok(Loss::single("nothing", Tensor::zeros([], (Kind::Double, Device::Cpu))))
    }
}

/// Ten batches of nothing an epoch.
struct Ten;

impl BatchSource for Ten {
    type Batch = ();

    fn batches_per_epoch(&self) -> u64 {
        10
    }

    fn epoch(&self, _: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<()>> + '_>> {
        Ok(Box::new((0..10).map(|_| Ok(()))))
    }
}

#[test]
fn a_dead_structure_sinks_by_the_closed_form() {
    // Only the penalty acts: AdamW moves c by lr·λ/(λ + ε) a step, SGD by lr·λ.
    let after = |adam: bool| {
        let groups = bert_groups(&small(), "bert.");
        let (mut store, _model) = built(&Slimming(Standard), &small());
        store.double();
        let live = coefficients(&store, &groups).unwrap();
        let mut task = Nothing;
        let mut objective = SlimmedObjective::new(&mut task, &live, SlimConfig::default()).unwrap();
        let config = TrainConfig { epochs: 1, seed: 0, schedule: Schedule::Constant { peak: 1e-3 } };
        let parameters = slim_parameters(&store, 0.0);
        if adam {
            let mut optimizer = Adam::new(parameters, AdamConfig::decoupled()).unwrap();
            Trainer::new(config, &mut objective, &mut optimizer).unwrap().fit(&Ten).unwrap();
        } else {
            let plain = SgdConfig { momentum: 0.0, ..SgdConfig::default() };
            let mut optimizer = Sgd::new(parameters, plain).unwrap();
            Trainer::new(config, &mut objective, &mut optimizer).unwrap().fit(&Ten).unwrap();
        }
        let values: Vec<f64> = live.iter().map(|(_, tensor)| tensor.mean(Kind::Double).double_value(&[])).collect();
        assert!(values.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 1e-12));
        values[0]
    };
    assert!((after(true) - 0.990_000_999_900).abs() < 1e-10);
    assert!((after(false) - (1.0 - 1e-3 * 10.0 * 1e-4)).abs() < 1e-12);
}

#[test]
fn the_penalty_is_a_sum_with_a_weight_a_kind() {
    let groups = bert_groups(&small(), "bert.");
    let (store, _model) = built(&Slimming(Standard), &small());
    set(&store, &groups, |_, unit| if unit == 0 { -2.0 } else { 1.0 });
    let live = coefficients(&store, &groups).unwrap();
    let config = SlimConfig { lambda_heads: 0.5, lambda_neurons: 0.25 };
    let penalty = slim_penalty(&live, config).unwrap();
    // Heads: 2 layers of 2 + 1 + 1 + 1; neurons: 2 layers of 2 + 11.
    assert!((penalty.double_value(&[]) - (0.5 * 10.0 + 0.25 * 26.0)).abs() < 1e-6);
    assert!(matches!(slim_penalty(&[], config), Err(Error::NothingToPrune { .. })));
    let refuse =
        |lambda_heads: f64| SlimConfig { lambda_heads, ..SlimConfig::default() }.validate().unwrap_err().to_string();
    assert!(refuse(-1.0).contains("lambda_heads") && refuse(f64::INFINITY).contains("lambda_heads"));
}

#[test]
fn both_rules_draw_what_was_worked_by_hand() {
    let group = SlimGroup {
        coefficient: "c".into(),
        layer: 0,
        gated: Gated::Heads,
        units: 12,
        followers: vec![Follower::new("w", 0, 1)],
    };
    let values = [0.90, 0.95, 0.97, 0.99, 1.0, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07];
    let kept = |values: &dyn Fn(usize) -> f32, threshold, ratio| -> Result<Vec<usize>, Error> {
        let cut = Cut { scope: Scope::PerLayer, ratio };
        let config = DrawConfig { heads: cut.clone(), neurons: cut, threshold, min_per_layer: 0 };
        let drawn = config.draw(&scores(std::slice::from_ref(&group), |_, unit| values(unit)))?;
        drawn.mask.kept(&group)
    };
    let given = |unit: usize| values[unit];
    let last_eight: Vec<usize> = (4..12).collect();
    // The quantile at 1/3 is 0.996667.
    assert_eq!(kept(&given, Threshold::BottomK, 1.0 / 3.0).unwrap(), last_eight);
    assert_eq!(kept(&given, Threshold::StrictQuantile, 1.0 / 3.0).unwrap(), last_eight);
    // All equal: exact counts drop the first, the strict rule drops all.
    assert_eq!(kept(&|_| 1.0, Threshold::BottomK, 1.0 / 3.0).unwrap(), last_eight);
    assert!(kept(&|_| 1.0, Threshold::StrictQuantile, 1.0 / 3.0).unwrap().is_empty());
    // Ratio 0 prunes nothing, and one by the strict rule.
    assert_eq!(kept(&given, Threshold::BottomK, 0.0).unwrap().len(), 12);
    assert_eq!(kept(&given, Threshold::StrictQuantile, 0.0).unwrap().len(), 11);
    assert_eq!(kept(&given, Threshold::StrictQuantile, 0.5).unwrap().len(), 6);
}

#[test]
fn a_floor_keeps_every_layer_alive_and_says_so() {
    let groups = bert_groups(&small(), "bert.");
    // Layer 0's neurons are all worse than layer 1's: a global cut of half would empty it.
    let uneven = scores(&groups, |number, unit| number as f32 + 0.01 * unit as f32);
    let drawn = DrawConfig::ratios(0.5, 0.5).draw(&uneven).unwrap();
    assert!(drawn.floored);
    assert_eq!(drawn.mask.kept(&groups[1]).unwrap(), [11]);
    assert_eq!(drawn.mask.kept(&groups[3]).unwrap().len(), 11);
    let free = DrawConfig { min_per_layer: 0, ..DrawConfig::ratios(0.5, 0.5) }.draw(&uneven).unwrap();
    assert!(!free.floored && free.mask.kept(&groups[1]).unwrap().is_empty());
    let (store, _model) = built(&Standard, &small());
    let refused = prune(&state_of(&store), &groups, &free.mask).unwrap_err();
    assert!(matches!(refused, Error::EmptiedLayer { .. }));
    assert!(pruned_config(&small(), &groups, &free.mask).unwrap_err().to_string().contains("layer 0 emptied"));
}

#[test]
fn mask_distances_are_those_worked_by_hand() {
    let a = masks(&[&[1, 1, 0, 0], &[1, 0, 1, 0]]);
    let b = masks(&[&[1, 0, 1, 0], &[1, 0, 1, 0]]);
    assert_eq!(a.hamming(&b).unwrap(), 0.25);
    assert_eq!(a.hamming(&a).unwrap(), 0.0);
    assert_eq!(a.hamming(&a.complement()).unwrap(), 1.0);
    assert_eq!(mask_distances(&[a, b]).unwrap(), [[0.0, 0.25], [0.25, 0.0]]);
    assert_eq!(chance_distance(0.5), 0.5);
    assert!((chance_distance(0.4) - 0.48).abs() < 1e-12);
    let ticket = random_ticket(0, 0.5, 0.4);
    assert_eq!(ticket.distance(&ticket).unwrap(), [0.0, 0.0]);
    assert_eq!(ticket.distance(&ticket.complement()).unwrap(), [1.0, 1.0]);
}

#[test]
fn random_tickets_are_of_the_asked_size_and_repeat_for_a_seed() {
    let groups = bert_groups(&small(), "bert.");
    let ticket = random_ticket(3, 0.25, 0.5);
    assert_eq!(ticket, random_ticket(3, 0.25, 0.5));
    assert_ne!(ticket, random_ticket(4, 0.25, 0.5));
    assert_eq!(
        groups.iter().filter(|g| g.gated == Gated::Heads).map(|g| ticket.kept(g).unwrap().len()).sum::<usize>(),
        6
    );
    assert_eq!(ticket.neurons.survivors(), 12);
    let matched = ticket.random_matched(9);
    for group in &groups {
        assert_eq!(matched.kept(group).unwrap().len(), ticket.kept(group).unwrap().len());
    }
    assert_ne!(matched.neurons, ticket.neurons);
}

#[test]
fn magnitude_is_the_product_of_the_two_norms() {
    let groups = bert_groups(&small(), "bert.");
    let (store, _model) = built(&Standard, &small());
    let state = state_of(&store);
    let found = magnitude(&state, &groups).unwrap();
    let norm = |tensor: Tensor| tensor.norm().double_value(&[]);
    let root = "bert.encoder.layer.1";
    for unit in [0_i64, 3] {
        let value = norm(state[&format!("{root}.attention.self.value.weight")].narrow(0, unit * 4, 4));
        let output = norm(state[&format!("{root}.attention.output.dense.weight")].narrow(1, unit * 4, 4));
        assert!((found.heads[1].1.view([-1]).double_value(&[unit]) - value * output).abs() < 1e-5);
        let inner = norm(state[&format!("{root}.intermediate.dense.weight")].get(unit));
        let outer = norm(state[&format!("{root}.output.dense.weight")].select(1, unit));
        assert!((found.neurons[1].1.view([-1]).double_value(&[unit]) - inner * outer).abs() < 1e-5);
    }
}

#[test]
fn first_order_importance_is_the_mean_gradient_at_one() {
    let groups = bert_groups(&small(), "bert.");
    let (store, model) = built(&Slimming(Standard), &small());
    let live = coefficients(&store, &groups).unwrap();
    let loss = |target: i64| Ok(model.loss(&model.forward(&input(), true)?, &Tensor::from_slice(&[target, target]))?);
    let both = first_order(&groups, &live, [loss(0), loss(1)]).unwrap();
    let each = [first_order(&groups, &live, [loss(0)]).unwrap(), first_order(&groups, &live, [loss(1)]).unwrap()];
    let mean = (&each[0].heads[0].1 + &each[1].heads[0].1) / 2.0;
    assert!(difference(&both.heads[0].1, &mean) < 1e-6);
    assert!(both.neurons[1].1.min().double_value(&[]) >= 0.0);
    assert!(first_order(&groups, &live, []).unwrap_err().to_string().contains("at least one"));
}

#[test]
fn whole_layers_can_go_instead() {
    let config = BertConfig { num_hidden_layers: 4, ..small() };
    let (store, _model) = built(&Standard, &config);
    let state = state_of(&store);
    assert_eq!(every_other(4, 2), [0, 2]);
    assert_eq!(every_other(12, 8), [0, 1, 3, 4, 6, 7, 9, 10]);
    let (shallow, shape) = keep_layers(&state, &config, "bert.", &[0, 2]).unwrap();
    assert_eq!(shape.num_hidden_layers, 2);
    let (smaller, _model) = built(&Standard, &shape);
    load_state_into(&smaller, &shallow).unwrap();
    let name = |layer: usize| format!("bert.encoder.layer.{layer}.output.dense.weight");
    assert!(smaller.variables()[&name(1)].equal(&state[&name(2)]));
    for kept in [&[][..], &[1, 1], &[2, 0], &[4]] {
        assert!(keep_layers(&state, &config, "bert.", kept).unwrap_err().to_string().contains("kept layers"));
    }
}

/// Coefficients of one group of eight neurons, moved by hand.
fn watched(config: SearchConfig) -> (Search, Tensor, SlimGroup) {
    let group = SlimGroup {
        coefficient: "c".into(),
        layer: 0,
        gated: Gated::Neurons,
        units: 8,
        followers: vec![Follower::new("w", 0, 1)],
    };
    let head = SlimGroup { coefficient: "h".into(), gated: Gated::Heads, units: 2, ..group.clone() };
    let live = Tensor::ones([1, 8], (Kind::Float, Device::Cpu));
    let heads = Tensor::from_slice(&[0.9_f32, 1.0]).view([1, 2, 1, 1]);
    let named = [("c".to_owned(), live.shallow_clone()), ("h".to_owned(), heads)];
    (Search::new(&[group.clone(), head], &named, config).unwrap(), live, group)
}

fn move_to(live: &Tensor, values: [f32; 8]) {
    no_grad(|| live.shallow_clone().copy_(&Tensor::from_slice(&values).view([1, 8])));
}

#[test]
fn a_search_draws_at_its_step_and_not_before() {
    let (mut search, live, group) = watched(SearchConfig { rule: DrawRule::AtFraction(0.2), ..Default::default() });
    // 0.2 of 12 steps is 2.4: step 2.
    assert!(!search.see(1, 12).unwrap());
    move_to(&live, [1.0, 0.9, 1.1, 0.8, 1.2, 0.7, 1.3, 0.6]);
    assert!(search.see(2, 12).unwrap());
    let found = search.found().unwrap();
    assert_eq!((found.step, found.drawn.distinct), (2, [1.0, 1.0]));
    // round(0.4 · 8) = 3 neurons go.
    assert_eq!(found.drawn.mask.kept(&group).unwrap(), [0, 1, 2, 4, 6]);
    assert_eq!(search.trace().steps.keys().collect::<Vec<_>>(), [&2]);
}

#[test]
fn a_stable_mask_is_found_only_once_scores_are_distinct() {
    let rule = DrawRule::Stable(EarlyBirdConfig { window: 3, threshold: 0.1 });
    let (mut search, live, _) = watched(SearchConfig { rule, every: 2, ..Default::default() });
    // Two values among eight: ties decide, and five equal masks mean nothing.
    move_to(&live, [1.0, 1.0, 0.9, 0.9, 1.0, 0.9, 1.0, 0.9]);
    let ties: Vec<bool> = (1..=10).map(|step| search.see(step, 100).unwrap()).collect();
    assert!(ties.iter().all(|found| !found));
    move_to(&live, [1.0, 0.9, 1.1, 0.8, 1.2, 0.7, 1.3, 0.6]);
    let steps: Vec<bool> = (11..=16).map(|step| search.see(step, 100).unwrap()).collect();
    // Masks at 12, 14 and 16: the third fills the window.
    assert_eq!(steps, [false, false, false, false, false, true]);
    assert_eq!(search.found().unwrap().step, 16);
}

#[test]
fn a_model_with_neurons_alone_settles_too() {
    let (_, live, group) = watched(SearchConfig::default());
    let rule = DrawRule::Stable(EarlyBirdConfig { window: 2, threshold: 0.1 });
    let config = SearchConfig { rule, every: 1, ..Default::default() };
    let named = [("c".to_owned(), live.shallow_clone())];
    let mut search = Search::new(&[group], &named, config).unwrap();
    move_to(&live, [1.0, 0.9, 1.1, 0.8, 1.2, 0.7, 1.3, 0.6]);
    assert_eq!([1, 2].map(|step| search.see(step, 100).unwrap()), [false, true]);
    let mask = &search.found().unwrap().drawn.mask;
    assert_eq!(mask.distance(mask).unwrap(), [0.0, 0.0]);
}

#[test]
fn a_search_goes_on_where_its_saved_state_left_it() {
    use core_tensor::train::Observer;
    for rule in [DrawRule::AtStep(3), DrawRule::Stable(EarlyBirdConfig { window: 2, threshold: 0.1 })] {
        let config = SearchConfig { rule, every: 1, ..Default::default() };
        let (mut search, live, _) = watched(config.clone());
        move_to(&live, [1.0, 0.9, 1.1, 0.8, 1.2, 0.7, 1.3, 0.6]);
        for step in 1..=3 {
            search.see(step, 100).unwrap();
        }
        let (mut resumed, _, _) = watched(config);
        resumed.load_state(&search.state()).unwrap();
        assert_eq!(resumed.found(), search.found());
        assert!(resumed.found().is_some());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.safetensors");
        search.trace().save(&path).unwrap();
        let trace = CoefficientTrace::load(&path).unwrap();
        assert_eq!(trace.steps.len(), search.trace().steps.len());
        assert!(trace.steps[&2]["c"].equal(&search.trace().steps[&2]["c"]));
    }
}

#[test]
fn what_makes_no_search_or_draw_is_refused_by_name() {
    let refuse = |change: &dyn Fn(&mut SearchConfig)| {
        let mut config = SearchConfig::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    };
    assert!(refuse(&|config| config.rule = DrawRule::AtStep(0)).contains("draw step"));
    assert!(refuse(&|config| config.rule = DrawRule::AtFraction(-0.2)).contains("draw fraction"));
    assert!(refuse(&|config| config.rule = DrawRule::AtFraction(f64::NAN)).contains("draw fraction"));
    assert!(refuse(&|config| config.every = 0).contains("every"));
    assert!(refuse(&|config| config.draw.heads.ratio = 1.0).contains("heads.ratio"));
    assert!(refuse(&|config| config.draw.neurons.ratio = f64::NAN).contains("neurons.ratio"));
    let groups = bert_groups(&small(), "bert.");
    let broken = scores(&groups, |number, unit| if number == 1 && unit == 3 { f32::NAN } else { unit as f32 });
    let error = DrawConfig::default().draw(&broken).unwrap_err();
    assert!(matches!(error, Error::NotFinite { index: 3, .. }), "{error}");
    let short = [("bert.encoder.layer.0.slimming_coef".to_owned(), Tensor::ones([11], (Kind::Float, Device::Cpu)))];
    assert!(Scores::of(&groups[1..2], &short).unwrap_err().to_string().contains("12 scores"));
    let (plain, _model) = built(&Standard, &small());
    assert!(coefficients(&plain, &groups).unwrap_err().to_string().contains("no such variable"));
    assert!(fold(&state_of(&plain), &groups).unwrap_err().to_string().contains("expected 4 coefficients, found none"));
    let (search, _, _) = watched(SearchConfig::default());
    assert!(matches!(search.trace().scores(7, &groups), Err(Error::NoSnapshot { step: 7, .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn draws_prune_exactly_what_was_asked_and_are_nested(
        seed: u64, heads in 0.0..0.75_f64, neurons in 0.0..0.9_f64, less in 0.0..1.0_f64,
    ) {
        let groups = bert_groups(&small(), "bert.");
        let random = DrawConfig { min_per_layer: 0, ..DrawConfig::ratios(heads, neurons) };
        let ticket = random.random(&groups, seed).unwrap();
        for group in groups.iter().filter(|group| group.gated == Gated::Heads) {
            prop_assert_eq!(4 - ticket.kept(group).unwrap().len(), (4.0 * heads).round_ties_even() as usize);
        }
        prop_assert_eq!(24 - ticket.neurons.survivors(), (24.0 * neurons).round_ties_even() as usize);
        // The same scores with less pruned keep at least as much.
        let fewer = DrawConfig { min_per_layer: 0, ..DrawConfig::ratios(heads * less, neurons * less) };
        let larger = fewer.random(&groups, seed).unwrap();
        prop_assert!(ticket.heads.is_subset_of(&larger.heads).unwrap());
        prop_assert!(ticket.neurons.is_subset_of(&larger.neurons).unwrap());
    }

    #[test]
    fn ranks_decide_and_nothing_else(seed: u64, scale in 0.1..3.0_f64, lift in 0.5..2.0_f64) {
        let groups = bert_groups(&small(), "bert.");
        let mut random = core_tensor::seed::generator(seed, Purpose::Mask, 0);
        let raw: Vec<Vec<f32>> = groups
            .iter()
            .map(|group| (0..group.units).map(|_| rand::Rng::random::<f32>(&mut random)).collect())
            .collect();
        let config = DrawConfig { min_per_layer: 0, ..DrawConfig::ratios(0.5, 0.4) };
        let plain = config.draw(&scores(&groups, |number, unit| raw[number][unit])).unwrap().mask;
        // A strictly increasing map of all scores (f64 arithmetic may merge neighbours, hence well-separated ranks).
        let mapped = scores(&groups, |number, unit| (f64::from(raw[number][unit]).powi(3) * scale) as f32);
        let same = config.draw(&mapped).unwrap();
        if same.distinct == [1.0, 1.0] {
            prop_assert_eq!(&same.mask, &plain);
        }
        // A constant on one layer leaves the layer-wise mask alone.
        let lifted = scores(&groups, |number, unit| raw[number][unit] + if number < 2 { lift as f32 } else { 0.0 });
        prop_assert_eq!(config.draw(&lifted).unwrap().mask.heads, plain.heads);
    }

    #[test]
    fn distances_are_a_metric(a: u64, b: u64, c: u64) {
        let [a, b, c] = [a, b, c].map(|seed| random_ticket(seed, 0.5, 0.4));
        let distance = |x: &TicketMask, y: &TicketMask| x.distance(y).unwrap();
        for kind in 0..2 {
            prop_assert_eq!(distance(&a, &b)[kind], distance(&b, &a)[kind]);
            prop_assert!(distance(&a, &c)[kind] <= distance(&a, &b)[kind] + distance(&b, &c)[kind] + 1e-12);
            let share = [0.5, 10.0 / 24.0][kind];
            prop_assert!(distance(&a, &b)[kind] <= 2.0 * f64::min(share, 1.0 - share) + 1e-12);
        }
    }

    #[test]
    fn permuting_heads_changes_nothing_but_their_numbers(order in Just([0_i64, 1, 2, 3]).prop_shuffle()) {
        let groups = bert_groups(&small(), "bert.");
        let (store, model) = built(&Standard, &small());
        let before = logits(&model);
        let scored = magnitude(&state_of(&store), &groups).unwrap();
        let rows: Vec<i64> = order.iter().flat_map(|head| (0..4).map(move |row| head * 4 + row)).collect();
        let rows = Tensor::from_slice(&rows);
        let variables = store.variables();
        for follower in &groups[0].followers {
            let mut tensor = variables[&follower.tensor].shallow_clone();
            let moved = tensor.index_select(follower.axis, &rows).detach();
            no_grad(|| tensor.copy_(&moved));
        }
        prop_assert!(difference(&logits(&model), &before) < 1e-5);
        let after = magnitude(&state_of(&store), &groups).unwrap();
        let expected = scored.heads[0].1.index_select(1, &Tensor::from_slice(&order));
        prop_assert!(difference(&after.heads[0].1, &expected) < 1e-5);
    }
}
