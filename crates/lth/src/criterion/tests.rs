use super::*;
use crate::schedule::PruningSchedule;
use crate::selector::{Amount, Selector};
use core_tensor::networks::Architecture;
use core_tensor::nn::Standard;
use tch::{Device, Kind, nn};

fn leaf(values: &[f64], shape: &[i64]) -> Tensor {
    Tensor::from_slice(values).view(shape).set_requires_grad(true)
}

/// Cross-entropy of `W·[1, 2]` with label 0, logits divided by a temperature.
fn loss_of(weight: &Tensor) -> impl Fn(usize, f64) -> Result<Tensor> + use<> {
    let weight = weight.shallow_clone();
    move |_, temperature| {
        let logits = weight.matmul(&Tensor::from_slice(&[1.0, 2.0])).view([1, 2]) / temperature;
        // `cross_entropy_for_logits` would go through single precision.
        Ok(logits.cross_entropy_loss(&Tensor::from_slice(&[0_i64]), None::<Tensor>, tch::Reduction::Mean, -100, 0.0))
    }
}

fn scores(scores: &Scores) -> Vec<Vec<f64>> {
    scores
        .layers
        .iter()
        .map(|layer| Vec::<f64>::try_from(layer.values.view(-1).to_kind(Kind::Double)).unwrap())
        .collect()
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found_one, expected_one) in found.iter().zip(expected) {
        assert!((found_one - expected_one).abs() < tolerance, "{found:?} instead of {expected:?}");
    }
}

#[test]
fn snip_scores_are_the_normalised_products() {
    // W = I: logits [1, 2], p = [.2689, .7311], ∂L/∂W = (p − y)·xᵀ = [[−.7311, −1.4621], [.7311, 1.4621]];
    // |W ⊙ ∂L/∂W| = [[.7311, 0], [0, 1.4621]], which normalises to thirds.
    let weight = leaf(&[1.0, 0.0, 0.0, 1.0], &[2, 2]);
    let loss = loss_of(&weight);
    assert!((loss(0, 1.0).unwrap().double_value(&[]) - 1.3132616875).abs() < 1e-10);
    let weights = [("w".to_owned(), weight)];
    for batches in [1, 3] {
        let found = Snip::new(batches, |batch| loss(batch, 1.0)).score(&weights, None).unwrap();
        close(&scores(&found)[0], &[1.0 / 3.0, 0.0, 0.0, 2.0 / 3.0], 1e-12);
    }
}

#[test]
fn snip_sums_the_gradients_of_different_batches() {
    // L₀ = w₁ and L₁ = 2·w₂ at w = (3, 2): the summed gradient is (1, 2), |w ⊙ g| = (3, 4).
    let weight = leaf(&[3.0, 2.0], &[2]);
    let live = weight.shallow_clone();
    let loss = |batch: usize| Ok(live.get(batch as i64) * (batch + 1) as f64);
    let found = Snip::new(2, loss).score(&[("w".to_owned(), weight)], None).unwrap();
    close(&scores(&found)[0], &[3.0 / 7.0, 4.0 / 7.0], 1e-12);
}

#[test]
fn grasp_scores_are_weight_times_hessian_times_gradient() {
    let weight = leaf(&[1.0, 0.5, -0.5, 1.0], &[2, 2]);
    let loss = loss_of(&weight);
    assert!((loss(0, 1.0).unwrap().double_value(&[]) - 0.4740769842).abs() < 1e-10);
    let weights = [("w".to_owned(), weight.shallow_clone())];
    let found = Grasp::new(1, &loss).with_temperature(1.0).unwrap().score(&weights, None).unwrap();
    // PyTorch's double backward in f64, printed to seven digits.
    let expected = [-0.8872346, -0.8872346, -0.4436173, 1.7744692];
    close(&scores(&found)[0], &expected, 1e-7);
    // The same batch twice doubles both the gradient and the Hessian.
    let twice = Grasp::new(2, &loss).with_temperature(1.0).unwrap().score(&weights, None).unwrap();
    close(&scores(&twice)[0], &expected.map(|score| 4.0 * score), 4e-7);

    // The same by central differences of the gradient along itself: H·g = (∇L(w + εg) − ∇L(w − εg)) / 2ε.
    let gradient_at = |at: &Tensor| {
        let at = at.detach().set_requires_grad(true);
        loss_of(&at)(0, 1.0).unwrap().backward();
        at.grad()
    };
    let (gradient, epsilon) = (gradient_at(&weight), 1e-5);
    let product = (gradient_at(&(&weight + &gradient * epsilon)) - gradient_at(&(&weight - &gradient * epsilon)))
        / (2.0 * epsilon);
    let expected = Vec::<f64>::try_from((product * &weight).detach().view(-1)).unwrap();
    // Central differences err by ε² ≈ 1e-10 times third derivatives of order 1 to 100.
    close(&scores(&found)[0], &expected, 1e-7);
}

#[test]
fn criteria_tell_how_many_weights_share_a_score() {
    let weight = leaf(&[1.0, 0.5, -0.5, 1.0], &[2, 2]);
    let loss = loss_of(&weight);
    let weights = [("w".to_owned(), weight.shallow_clone())];
    let (random, filters) = (Random { seed: 0 }, FilterNorm::default());
    let (snip, grasp) = (Snip::new(1, |batch| loss(batch, 1.0)), Grasp::new(1, &loss));
    let criteria: [(&dyn Criterion, usize); 5] =
        [(&Magnitude, 1), (&random, 1), (&filters, 2), (&snip, 1), (&grasp, 1)];
    for (criterion, unit) in criteria {
        assert_eq!(criterion.unit(&[2, 2]), Some(unit), "{}", criterion.name());
        let scores = criterion.score(&weights, None).unwrap();
        assert_eq!(scores.layers[0].values.numel() * unit, 4, "{}", criterion.name());
    }
    let (store, weights) = two_layers(1.0);
    assert_eq!(SynFlow::new(&store, &[2], forward(&weights)).unit(&[2, 2]), Some(1));
}

#[test]
fn grasp_divides_logits_by_two_hundred_unless_told_otherwise() {
    let weight = leaf(&[1.0, 0.5, -0.5, 1.0], &[2, 2]);
    let weights = [("w".to_owned(), weight.shallow_clone())];
    let seen = std::cell::RefCell::new(Vec::new());
    let loss = loss_of(&weight);
    let watch = |batch, temperature| {
        seen.borrow_mut().push((batch, temperature));
        loss(batch, temperature)
    };
    Grasp::new(2, watch).score(&weights, None).unwrap();
    assert_eq!(*seen.borrow(), [(0, 200.0), (1, 200.0), (0, 200.0), (1, 200.0)]);
    assert!(Grasp::new(1, &loss).with_temperature(0.0).is_err());
}

/// Two linear layers without biases, 2 → 2 → 1, as in the closed form below.
fn two_layers(signs: f64) -> (nn::VarStore, Vec<NamedTensor>) {
    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    let make = |name: &str, values: &[f64], shape: &[i64]| {
        let values = (Tensor::from_slice(values) * signs).view(shape).to_kind(Kind::Float);
        let variable = (&root / name).var_copy("weight", &values);
        (format!("{name}.weight"), variable)
    };
    let weights = vec![make("fc1", &[1.0, -2.0, 3.0, 4.0], &[2, 2]), make("fc2", &[-1.0, 2.0], &[1, 2])];
    (store, weights)
}

fn forward(weights: &[NamedTensor]) -> impl Fn(&Tensor) -> Tensor + use<> {
    let [first, second] = [0, 1].map(|layer| weights[layer].1.shallow_clone());
    move |input| input.linear(&first, None::<Tensor>).linear(&second, None::<Tensor>)
}

#[test]
fn synaptic_flow_is_the_closed_form_and_conserved_layer_by_layer() {
    // |W1| = [[1, 2], [3, 4]], |W2| = [1, 2], input [1, 1]: hidden [3, 7], R = 3 + 14 = 17.
    for signs in [1.0, -1.0] {
        let (store, weights) = two_layers(signs);
        let before = weights.iter().map(|(_, weight)| weight.detach().copy()).collect::<Vec<_>>();
        let synflow = SynFlow::new(&store, &[2], forward(&weights));
        let (flow, raw) = synflow.flow(&weights, None).unwrap();
        assert_eq!(flow, 17.0);
        let raw: Vec<Vec<f64>> = raw.iter().map(|score| Vec::<f64>::try_from(score.view(-1)).unwrap()).collect();
        assert_eq!(raw, [vec![1.0, 2.0, 6.0, 8.0], vec![3.0, 14.0]]);
        assert!(raw.iter().all(|layer| layer.iter().sum::<f64>() == flow));
        // As a criterion it divides by the highest score.
        let scaled = scores(&synflow.score(&weights, None).unwrap());
        assert_eq!(scaled[1], [3.0 / 14.0, 1.0]);
        // And the model is as it was: the same values in the same single precision.
        for ((_, weight), before) in weights.iter().zip(before) {
            assert!(weight.equal(&before) && weight.kind() == Kind::Float && weight.requires_grad());
        }
    }
}

#[test]
fn synaptic_flow_takes_the_absolute_values_of_a_batch_norm_and_its_statistics_too() {
    let store = nn::VarStore::new(Device::Cpu);
    let root = store.root();
    let values = Tensor::from_slice(&[1.0_f32, -2.0]).view([1, 2]);
    let weight = (&root / "fc").var_copy("weight", &values);
    let norm = nn::batch_norm1d(&root / "bn", 1, nn::BatchNormConfig::default());
    let set = |name: &str, value: f64| drop(no_grad(|| store.variables()[name].shallow_clone().fill_(value)));
    [("bn.running_mean", -3.0), ("bn.running_var", 4.0), ("bn.weight", -2.0), ("bn.bias", -1.0)]
        .into_iter()
        .for_each(|(name, value)| set(name, value));
    let forward = |input: &Tensor| nn::ModuleT::forward_t(&norm, &input.linear(&weight, None::<Tensor>), false);
    let weights = [("fc.weight".to_owned(), weight.shallow_clone())];
    // R = 2·((1 + 2) − 3)/√(4 + ε) + 1; with the mean as it is it would be 7, with the scale or offset 1 − 2 too.
    let (flow, raw) = SynFlow::new(&store, &[2], forward).flow(&weights, None).unwrap();
    assert_eq!(flow, 1.0);
    // |w|·2/√(4 + ε), ε = 1e-5.
    let slope = 2.0 / (4.0_f64 + 1e-5).sqrt();
    close(&Vec::<f64>::try_from(raw[0].view(-1)).unwrap(), &[slope, 2.0 * slope], 1e-12);
    let after = |name: &str| store.variables()[name].double_value(&[0]);
    assert_eq!(["bn.running_mean", "bn.running_var", "bn.weight", "bn.bias"].map(after), [-3.0, 4.0, -2.0, -1.0]);
}

#[test]
fn synaptic_flow_follows_the_mask() {
    let (store, weights) = two_layers(1.0);
    let mask = MaskSet::from_tensors(&[
        ("fc1.weight".into(), Tensor::from_slice(&[1_u8, 0, 1, 1]).view([2, 2])),
        ("fc2.weight".into(), Tensor::from_slice(&[1_u8, 1]).view([1, 2])),
    ])
    .unwrap();
    // Without the 2: hidden [1, 7], R = 1 + 14.
    assert_eq!(SynFlow::new(&store, &[2], forward(&weights)).flow(&weights, Some(&mask)).unwrap().0, 15.0);
    assert!(SynFlow::new(&store, &[0], forward(&weights)).score(&weights, None).is_err());
}

#[test]
fn synflow_prunes_a_residual_network_without_emptying_a_layer() {
    let store = nn::VarStore::new(Device::Cpu);
    let network = Architecture::cifar_resnet(8, 10).unwrap().build(&store.root(), &Standard).unwrap();
    let weights = crate::Prunable::conv_only().select_from(&store).unwrap();
    let synflow = SynFlow::new(&store, &[3, 8, 8], |input| network.forward(input, false));
    let schedule = PruningSchedule::Exponential { density: 0.05, rounds: 10 };
    let mask = schedule.prune(&weights, &synflow, &Selector::global()).unwrap();
    assert_eq!(mask.survivors(), mask.weights() - (0.95 * mask.weights() as f64).round_ties_even() as usize);
}

#[test]
fn scoring_under_a_mask_leaves_the_live_weights_alone() {
    let weight = leaf(&[1.0, 0.5, -0.5, 1.0], &[2, 2]);
    let weights = [("w".to_owned(), weight.shallow_clone())];
    let mask = MaskSet::from_tensors(&[("w".into(), Tensor::from_slice(&[1_u8, 0, 1, 1]).view([2, 2]))]).unwrap();
    let loss = loss_of(&weight);
    let masked = scores(&Snip::new(1, |batch| loss(batch, 1.0)).score(&weights, Some(&mask)).unwrap());
    assert_eq!(masked[0][1], 0.0);
    assert_eq!(Vec::<f64>::try_from(weight.detach().view(-1)).unwrap(), [1.0, 0.5, -0.5, 1.0]);
}

#[test]
fn grasp_follows_the_gradient_of_the_weights_left() {
    // L = w₁·w₂ + a·w₁²/2 at w = (3, 2), of which w₁ is kept: g = (3a, 3), and its second part is no part of the flow.
    // H = [[a, 1], [1, 0]], H·(3a, 0) = (3a², 3a), times (3, 0).
    let mask = MaskSet::from_tensors(&[("w".into(), Tensor::from_slice(&[1_u8, 0]))]).unwrap();
    for a in [0.0, 1.0] {
        let weight = leaf(&[3.0, 2.0], &[2]);
        let live = weight.shallow_clone();
        let loss = |_, _| Ok(live.get(0) * live.get(1) + live.get(0).square() * (0.5 * a));
        let found = Grasp::new(1, loss).score(&[("w".to_owned(), weight)], Some(&mask)).unwrap();
        close(&scores(&found)[0], &[9.0 * a * a, 0.0], 1e-12);
    }
}

#[test]
fn weights_that_the_loss_does_not_see_and_empty_settings_are_refused() {
    let (weight, idle) = (leaf(&[1.0, 0.0, 0.0, 1.0], &[2, 2]), leaf(&[1.0], &[1]));
    let loss = loss_of(&weight);
    let weights = [("w".to_owned(), weight), ("idle".to_owned(), idle)];
    let refused = Snip::new(1, |batch| loss(batch, 1.0)).score(&weights, None);
    assert!(matches!(refused, Err(Error::Mismatch { name, .. }) if name == "idle"));
    assert!(Snip::new(0, |batch| loss(batch, 1.0)).score(&weights[..1], None).is_err());
    assert!(Grasp::new(0, &loss).score(&weights[..1], None).is_err());
}

#[test]
fn scalars_without_a_graph_and_frozen_weights_are_refused() {
    let weight = leaf(&[1.0, 0.0, 0.0, 1.0], &[2, 2]);
    let loss = loss_of(&weight);
    let weights = [("w".to_owned(), weight.shallow_clone())];
    let refused = |scores: Result<Scores>| scores.unwrap_err().to_string();
    let no_graph = "`scalar to differentiate`: expected a graph back to the weights, found none";
    let said = refused(Snip::new(1, |batch| no_grad(|| loss(batch, 1.0))).score(&weights, None));
    assert!(said.starts_with(no_graph), "{said}");
    // The gradient of a sum is the same whatever the weights are, so there is no second one.
    let said = refused(Grasp::new(1, |_, _| Ok(weight.sum(Kind::Double))).score(&weights, None));
    assert!(said.starts_with(no_graph), "{said}");
    let (store, layers) = two_layers(1.0);
    let flow = forward(&layers);
    let said = refused(SynFlow::new(&store, &[2], |input: &Tensor| no_grad(|| flow(input))).score(&layers, None));
    assert!(said.starts_with(no_graph), "{said}");
    assert!(layers.iter().all(|(_, weight)| weight.kind() == Kind::Float));

    let frozen = [("fixed".to_owned(), weight.detach())];
    let said = refused(Snip::new(1, |batch| loss(batch, 1.0)).score(&frozen, None));
    assert_eq!(said, "`fixed`: expected a tensor that takes a gradient, found a frozen one");
}

#[test]
fn every_criterion_gives_a_mask_of_the_asked_size() {
    let store = nn::VarStore::new(Device::Cpu);
    let network = Architecture::LeNet300100 { classes: 10 }.build(&store.root(), &Standard).unwrap();
    let weights = crate::Prunable::default().select_from(&store).unwrap();
    let input = Tensor::arange(4 * 784, (Kind::Float, Device::Cpu)).sin().view([4, 784]);
    let target = Tensor::from_slice(&[0_i64, 3, 5, 9]);
    let loss = |temperature: f64| Ok((network.forward(&input, true) / temperature).cross_entropy_for_logits(&target));
    let snip = Snip::new(1, |_| loss(1.0));
    let grasp = Grasp::new(1, |_, temperature| loss(temperature));
    let synflow = SynFlow::new(&store, &[784], |input| network.forward(input, false));
    let criteria: [(&str, &dyn Criterion); 5] = [
        ("magnitude", &Magnitude),
        ("random", &Random { seed: 1 }),
        ("snip", &snip),
        ("grasp", &grasp),
        ("synflow", &synflow),
    ];
    for (name, criterion) in criteria {
        assert_eq!(criterion.name(), name);
        let scores = criterion.score(&weights, None).unwrap();
        let mask = Selector::global().prune(&scores, Amount::Density(0.5), None).unwrap();
        assert_eq!(mask.survivors(), mask.weights() / 2, "{name}");
    }
}
