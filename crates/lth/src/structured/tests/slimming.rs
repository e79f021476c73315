use super::*;
use core_tensor::networks::{LanguageModel, LanguageModelConfig};
use core_tensor::nn::{BatchNormConfig, Conv2dConfig, GateConfig, LinearConfig, Module};
use tch::nn::Path;

#[test]
fn the_gradient_of_a_coefficient_is_a_central_difference() {
    let groups = bert_groups(&small(), "bert.");
    let (mut store, model) = built(&Slimming(Standard), &small());
    store.double();
    set(&store, &groups, |number, unit| 0.6 + 0.1 * ((3 * number + unit) % 7) as f64);
    let targets = Tensor::from_slice(&[1_i64, 0]);
    let loss = || model.loss(&model.forward(&input(), true).unwrap(), &targets).unwrap();
    loss().backward();
    let live = coefficients(&store, &groups).unwrap();
    let step = 1e-5;
    let mut checked = 0;
    for (group, (_, tensor)) in groups.iter().zip(&live) {
        // c scales what its unit's columns read: c · ∂L/∂c = ⟨column, ∂L/∂column⟩, which is ⟨out, ∂L/∂out⟩.
        let reader = group.followers.last().unwrap();
        let columns = store.variables().remove(&reader.tensor).unwrap();
        let shares = (columns.detach() * columns.grad()).sum_dim_intlist([0_i64].as_slice(), false, Kind::Double);
        let shares = shares.view([-1, reader.width]).sum_dim_intlist([1_i64].as_slice(), false, Kind::Double);
        assert!(difference(&(tensor.detach() * tensor.grad()).reshape([-1]), &shares) < 1e-12);
        let gradient = tensor.grad().reshape([-1]);
        let flat = tensor.detach().view([-1]);
        for unit in 0..tensor.numel() as i64 {
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
    assert_eq!(checked, 2 * (4 + 12));
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

/// Two sentences, the same in every step.
struct Sentences<'a>(&'a BertForSequenceClassification);

impl Objective<()> for Sentences<'_> {
    fn loss(&mut self, (): &(), _: &Progress) -> core_tensor::Result<Loss> {
        let loss = self.0.loss(&self.0.forward(&input(), true)?, &Tensor::from_slice(&[1_i64, 0]))?;
        Ok(Loss::single("sentences", loss))
    }
}

/// Ten steps of AdamW at 1e-3 on the sentences, pressed by λ.
fn searched(store: &VarStore, model: &BertForSequenceClassification, groups: &[SlimGroup], lambda: f64) {
    let mut task = Sentences(model);
    let slim = SlimConfig { lambda_heads: lambda, lambda_neurons: lambda };
    let live = coefficients(store, groups).unwrap();
    let mut objective = SlimmedObjective::new(&mut task, &live, slim).unwrap();
    let config = TrainConfig { epochs: 1, seed: 0, schedule: Schedule::Constant { peak: 1e-3 } };
    let mut optimizer = Adam::new(slim_parameters(store, 0.0), AdamConfig::decoupled()).unwrap();
    Trainer::new(config, &mut objective, &mut optimizer).unwrap().fit(&Ten).unwrap();
}

/// The group and the number of units that are to be dead: a head of layer 0, two neurons of layer 1.
const DEAD: [(usize, usize); 3] = [(0, 1), (3, 2), (3, 7)];

/// The slices of a unit that make it dead where they are zero: what its output is computed from, and what reads it.
fn lifelines(store: &VarStore, group: &SlimGroup, unit: usize) -> Vec<Tensor> {
    let slices = |follower: &Follower| {
        let tensor = store.variables().remove(&follower.tensor).unwrap();
        tensor.detach().narrow(follower.axis, unit as i64 * follower.width, follower.width)
    };
    // Queries and keys only say where to look.
    let looks = |follower: &&Follower| !follower.tensor.contains("query") && !follower.tensor.contains("key");
    group.followers.iter().filter(looks).map(slices).collect()
}

fn planted() -> (VarStore, BertForSequenceClassification, Vec<SlimGroup>) {
    let groups = bert_groups(&small(), "bert.");
    let (mut store, model) = built(&Slimming(Standard), &small());
    store.double();
    for (group, unit) in DEAD {
        no_grad(|| lifelines(&store, &groups[group], unit).iter_mut().for_each(|slice| drop(slice.zero_())));
    }
    (store, model, groups)
}

#[test]
fn what_is_planted_dead_stays_dead_while_the_rest_learns() {
    let (store, model, groups) = planted();
    let theta = crate::copies(&state_of(&store));
    searched(&store, &model, &groups, 1e-4);
    // 1 − 10 · lr · λ/(λ + ε): nothing but the penalty reaches them.
    let closed = 1.0 - 10.0 * 1e-3 * 1e-4 / (1e-4 + 1e-8);
    assert!((closed - 0.990_000_999_900_f64).abs() < 1e-12);
    let mut risen = 0;
    for (number, (_, tensor)) in coefficients(&store, &groups).unwrap().iter().enumerate() {
        for unit in 0..tensor.numel() {
            let value = tensor.reshape([-1]).double_value(&[unit as i64]);
            let all_zero = |slice: &Tensor| slice.abs().max().double_value(&[]) == 0.0;
            let slices = lifelines(&store, &groups[number], unit);
            if DEAD.contains(&(number, unit)) {
                assert!((value - closed).abs() < 1e-10, "{number} {unit}: {value}");
                assert!(slices.iter().all(all_zero), "{number} {unit}");
            } else {
                assert!((value - closed).abs() > 1e-9, "{number} {unit}: {value}");
                assert!(!slices.iter().any(all_zero), "{number} {unit}");
                risen += usize::from(value > 1.0);
            }
        }
    }
    assert!(risen > 0);
    let head = "classifier.weight";
    assert!(!store.variables()[head].equal(&theta[head]), "the rest must learn for this test to say something");
}

#[test]
fn without_a_penalty_the_dead_stay_and_under_a_huge_one_all_sink_alike() {
    let (store, model, groups) = planted();
    for (name, tensor) in store.variables() {
        let _ = tensor.set_requires_grad(name.ends_with(COEFFICIENT));
    }
    searched(&store, &model, &groups, 0.0);
    for (number, (_, tensor)) in coefficients(&store, &groups).unwrap().iter().enumerate() {
        for unit in 0..tensor.numel() {
            let value = tensor.reshape([-1]).double_value(&[unit as i64]);
            assert_eq!(value == 1.0, DEAD.contains(&(number, unit)), "{number} {unit}: {value}");
        }
    }

    // The published initial range, where the task says little beside λ = 1.
    let config = BertConfig { initializer_range: 0.02, ..small() };
    let (store, model) = built(&Slimming(Standard), &config);
    searched(&store, &model, &groups, 1.0);
    let live = coefficients(&store, &groups).unwrap();
    assert!(live.iter().all(|(_, tensor)| difference(tensor, &(tensor.ones_like() * 0.99)) < 1e-5));
    let drawn = DrawConfig::ratios(0.5, 0.4).draw(&Scores::of(&groups, &live).unwrap()).unwrap();
    assert!(drawn.tied.iter().all(|share| *share > 0.3), "{:?}", drawn.tied);
}

#[test]
fn decay_spares_biases_norms_and_coefficients_whatever_their_names() {
    let decayed = |store: &VarStore| -> (Vec<String>, Vec<String>) {
        let parameters = slim_parameters(store, 0.01);
        let (decayed, spared): (Vec<_>, Vec<_>) = parameters.into_iter().partition(|p| p.weight_decay == 0.01);
        assert!(spared.iter().all(|parameter| parameter.weight_decay == 0.0));
        let names = |of: Vec<core_tensor::optim::Parameter>| of.into_iter().map(|parameter| parameter.name).collect();
        (names(decayed), names(spared))
    };
    // BERT: what fine-tuning leaves out by name, and the coefficients.
    let (store, _model) = built(&Slimming(Standard), &small());
    let by_name = |name: &String| ["bias", "LayerNorm.weight", "slimming_coef"].iter().any(|end| name.ends_with(end));
    let (bert, spared) = decayed(&store);
    assert!(!bert.iter().any(by_name) && spared.iter().all(by_name));
    // Three tables, six matrices a layer, pooler and classifier.
    assert_eq!(bert.len(), 3 + 2 * 6 + 2);

    let store = VarStore::new(Device::Cpu);
    let _model = LanguageModel::new(&store.root(), &Standard, LanguageModelConfig::small(20)).unwrap();
    let (matrices, spared) = decayed(&store);
    // The table, and six matrices a layer. Of norms two a layer and one, weights and biases; six biases a layer.
    assert_eq!((matrices.len(), spared.len()), (1 + 2 * 6, 2 * (2 * 2 + 1) + 2 * 6));
    assert!(["layers.1.attention_norm.weight", "norm.weight"].iter().all(|norm| spared.contains(&norm.to_string())));
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

/// Standard layers, and gates that halve.
struct Halving;

impl LayerFactory for Halving {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        Standard.conv2d(path, config)
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        Standard.linear(path, config)
    }

    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
        Standard.batch_norm2d(path, config)
    }

    fn gate(&self, _: &Path, _: GateConfig) -> Option<Module> {
        Some(Box::new(tch::nn::func(|input| input * 0.5)))
    }
}

#[test]
fn a_gate_of_the_inner_factory_stays() {
    let store = VarStore::new(Device::Cpu);
    let config = GateConfig { gated: Gated::Neurons, units: 3 };
    let gate = Slimming(Halving).gate(&store.root(), config).unwrap();
    let mut coefficient = store.variables()["slimming_coef"].shallow_clone();
    no_grad(|| coefficient.copy_(&Tensor::from_slice(&[1_f32, 0.0, -3.0]).view([1, 3])));
    let output = gate.forward_t(&Tensor::from_slice(&[2_f32, 4.0, 6.0]).view([1, 3]), true);
    assert_eq!(Vec::<f32>::try_from(output.detach().view(-1)).unwrap(), [1.0, 0.0, -9.0]);
}
