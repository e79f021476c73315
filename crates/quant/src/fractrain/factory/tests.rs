use super::*;
use crate::fractrain::{Affine, Bits, CostLedger, Error, GridKind, RangeRule, Rounding};
use core_tensor::networks::{
    Architecture, ConvNetConfig, LanguageModel, LanguageModelConfig, MobileNetV2Config, ResNetConfig,
};
use core_tensor::nn::Network;
use core_tensor::text::corpus::LanguageBatch;
use core_tensor::workload::Operator;
use tch::{Device, Kind, Reduction, nn};

fn bits(bits: u32) -> Bits {
    Bits::new(bits).unwrap()
}

fn waves(shape: &[i64]) -> Tensor {
    let count = shape.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Float, Device::Cpu)) * 0.713).sin() + 0.2).view(shape)
}

/// Weights that depend on nothing but their shape.
fn fill(store: &nn::VarStore) {
    tch::no_grad(|| {
        for (name, mut variable) in store.variables() {
            if name.ends_with("weight") && variable.dim() > 1 {
                let values = waves(&variable.size()) * 0.3;
                variable.copy_(&values);
            } else if name.ends_with("bias") {
                let _ = variable.zero_();
            }
        }
    });
}

fn network(factory: &dyn LayerFactory) -> (nn::VarStore, Box<dyn Network>) {
    let store = nn::VarStore::new(Device::Cpu);
    let net = Architecture::cifar_resnet(8, 3).unwrap().build(&store.root(), factory).unwrap();
    fill(&store);
    (store, net)
}

/// Logits and all gradients, by name, of a training step.
fn step(store: &nn::VarStore, net: &dyn Network) -> Vec<(String, Tensor)> {
    let logits = net.forward(&waves(&[4, 3, 8, 8]), true);
    let target = Tensor::from_slice(&[0_i64, 1, 2, 1]);
    for (_, mut variable) in core_tensor::optim::named_trainable(store) {
        variable.zero_grad();
    }
    logits.cross_entropy_loss::<Tensor>(&target, None, Reduction::Mean, -100, 0.0).backward();
    let mut found = vec![("logits".to_owned(), logits.detach())];
    found.extend(
        core_tensor::optim::named_trainable(store).into_iter().map(|(name, variable)| (name, variable.grad().copy())),
    );
    found
}

fn assert_equal(a: &[(String, Tensor)], b: &[(String, Tensor)]) {
    assert_eq!(a.len(), b.len());
    for ((name, a), (_, b)) in a.iter().zip(b) {
        assert!(a.equal(b), "{name} differs by {}", (a - b).abs().max().double_value(&[]));
    }
}

fn quantised(config: QuantConfig, precision: Precision) -> (nn::VarStore, Box<dyn Network>, QuantHandle) {
    let factory = QuantFactory::new(config, precision).unwrap();
    let handle = factory.handle();
    let (store, net) = network(&factory);
    (store, net, handle)
}

#[test]
fn full_precision_is_the_plain_network_bit_for_bit() {
    let (plain_store, plain) = network(&Standard);
    let (store, net, handle) = quantised(QuantConfig::default(), Precision::FULL);
    // Stem, three blocks of two, two shortcuts.
    assert_eq!(handle.layers().len(), 9);
    assert_equal(&step(&store, net.as_ref()), &step(&plain_store, plain.as_ref()));
    // And a low precision is another one.
    handle.set_precision(Precision::new(3, 6).unwrap());
    let (low, full) = (step(&store, net.as_ref()), step(&plain_store, plain.as_ref()));
    assert!(!low[0].1.equal(&full[0].1));
}

#[test]
fn names_are_those_of_the_plain_network_and_one_more_a_layer() {
    let (plain, _) = network(&Standard);
    let (store, ..) = quantised(QuantConfig::default(), Precision::FULL);
    let names = |store: &nn::VarStore| store.variables().into_keys().collect::<std::collections::BTreeSet<_>>();
    let added: Vec<_> = names(&store).difference(&names(&plain)).cloned().collect();
    assert_eq!(added.len(), 9);
    assert!(added.iter().all(|name| name.ends_with("input_range")));
    assert!(names(&plain).is_subset(&names(&store)));
}

/// One convolution of one channel and one tap: its gradients show what reached it.
fn tap(config: QuantConfig, precision: Precision) -> (nn::VarStore, Module, QuantHandle) {
    let store = nn::VarStore::new(Device::Cpu);
    let factory = QuantFactory::new(config, precision).unwrap();
    let conv = factory.conv2d(&(store.root() / "conv"), Conv2dConfig::new(1, 1, 1, 1));
    (store, conv, factory.handle())
}

#[test]
fn layers_whose_store_was_cast_are_quantised_too() {
    let (mut store, conv, handle) = tap(QuantConfig::default(), Precision::new(4, 8).unwrap());
    store.double();
    let x = waves(&[2, 1, 4, 4]).to_kind(Kind::Double).set_requires_grad(true);
    let y = conv.forward_t(&x, true);
    y.square().sum(Kind::Double).backward();
    assert_eq!((y.kind(), x.grad().kind()), (Kind::Double, Kind::Double));
    handle.check_finite(0).unwrap();
    let (low, width) = handle.input_range("conv").unwrap();
    let x = x.detach();
    // Ranges are kept in single precision.
    assert!((f64::from(low) - x.min().double_value(&[])).abs() < 1e-5);
    assert!((f64::from(low + width) - x.max().double_value(&[])).abs() < 1e-5);
}

#[test]
fn gradients_that_reach_a_layer_take_at_most_as_many_values_as_bits_allow() {
    for (width, at_most) in [(1, 2), (2, 4), (3, 8), (5, 32)] {
        let precision = Precision { gradient: Some(bits(width)), ..Precision::FULL };
        let (_store, conv, _) = tap(QuantConfig::default(), precision);
        let x = waves(&[2, 1, 16, 16]).set_requires_grad(true);
        (conv.forward_t(&x, true) * waves(&[2, 1, 16, 16]).flip([0])).sum(Kind::Float).backward();
        let distinct = x.grad().view(-1).unique_dim(0, true, false, false).0.size()[0];
        assert!(distinct <= at_most && distinct > at_most / 2, "{width} bits: {distinct} values");
    }
}

#[test]
fn a_backward_pass_equals_the_one_written_by_hand() {
    let store = nn::VarStore::new(Device::Cpu);
    let config = QuantConfig { linear: true, stochastic_gradients: false, ..QuantConfig::default() };
    let factory = QuantFactory::new(config, Precision::new(4, 3).unwrap()).unwrap();
    let linear = factory.linear(&(store.root() / "hidden"), LinearConfig { bias: false, ..LinearConfig::new(5, 4) });
    fill(&store);
    let x = waves(&[6, 5]).set_requires_grad(true);
    let upstream = waves(&[6, 4]).flip([0]);
    (linear.forward_t(&x, true) * &upstream).sum(Kind::Float).backward();

    let weight = &store.variables()["hidden.weight"];
    let four = Affine::per_tensor(bits(4));
    let input = four.round(&x, Rounding::Nearest).unwrap();
    let rounded = Affine::per_channel(bits(4)).round(weight, Rounding::Nearest).unwrap();
    let gradient = Affine::per_tensor(bits(3)).round(&upstream, Rounding::Nearest).unwrap();
    assert!(x.grad().equal(&gradient.mm(&rounded)));
    assert!(weight.grad().equal(&gradient.transpose(0, 1).mm(&input)));
}

#[test]
fn two_layers_and_a_relu_are_as_worked_by_hand() {
    let store = nn::VarStore::new(Device::Cpu);
    let config = QuantConfig { linear: true, stochastic_gradients: false, ..QuantConfig::default() };
    let factory = QuantFactory::new(config, Precision::new(2, 2).unwrap()).unwrap();
    let layer = |name: &str, inputs, outputs| {
        factory.linear(&(store.root() / name), LinearConfig { bias: false, ..LinearConfig::new(inputs, outputs) })
    };
    let (first, second) = (layer("first", 3, 2), layer("second", 2, 2));
    let variables = store.variables();
    let set = |name: &str, values: &[f32]| {
        let mut weight = variables[name].shallow_clone();
        tch::no_grad(|| weight.copy_(&Tensor::from_slice(values).view_as(&weight)));
    };
    let floats = |tensor: &Tensor| Vec::<f32>::try_from(tensor.detach().view(-1)).unwrap();
    // Rows of a range of 3, four levels a distance of 1 apart: 1.8 → 2, −0.4 → 0. The second layer's are levels.
    set("first.weight", &[0.0, 3.0, 1.8, 1.0, -2.0, -0.4]);
    set("second.weight", &[1.0, 4.0, -2.0, 1.0]);
    // Rounded: [0, 1, 3], [3, 1, 1].
    let x = Tensor::from_slice(&[0.0_f32, 1.4, 3.0, 3.0, 0.6, 1.0]).view([2, 3]).set_requires_grad(true);
    // [9, −2], [5, 1]; after the ReLU [9, 0], [5, 1], a range of 9: rounded [9, 0], [6, 0].
    let hidden = first.forward_t(&x, true);
    assert_eq!(floats(&hidden), [9.0, -2.0, 5.0, 1.0]);
    let output = second.forward_t(&hidden.relu(), true);
    assert_eq!(floats(&output), [9.0, -18.0, 6.0, -12.0]);
    // The output's gradient, rounded: [0, 1], [3, 1].
    (&output * Tensor::from_slice(&[0.0_f32, 1.4, 3.0, 0.7]).view([2, 2])).sum(Kind::Float).backward();
    assert_eq!(floats(&variables["second.weight"].grad()), [18.0, 0.0, 15.0, 0.0]);
    // Of the second layer's input [−2, 1], [1, 13]; through the ReLU [−2, 0], [1, 13], a range of 15, four levels a distance
    // of 5 apart: rounded [−2, −2], [3, 13].
    assert_eq!(floats(&variables["first.weight"].grad()), [9.0, 1.0, -3.0, 39.0, 11.0, 7.0]);
    assert_eq!(floats(&x.grad()), [-2.0, -2.0, -4.0, 13.0, -17.0, 6.0]);
}

/// A convolution that is none of the factory's.
#[derive(Debug)]
struct Own {
    weight: Tensor,
    site: QuantSite,
}

impl ModuleT for Own {
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        let side = |axis| input.size()[axis] as u64;
        let operator = || Operator::conv2d(4, 6, 3, 1, 1, [side(2), side(3)]);
        self.site.forward(input, (&self.weight, None), train, operator, |input, weight, bias| {
            input.conv2d(weight, bias, [1, 1], [1, 1], [1, 1], 1)
        })
    }
}

#[test]
fn a_convolution_of_ones_own_is_the_factorys_bit_for_bit_and_in_the_ledger() {
    let run = |own: bool, gated: bool| {
        let store = nn::VarStore::new(Device::Cpu);
        let dfq = DfqConfig { hidden: 4, embedding: 4, ..DfqConfig::default() };
        let factory = match gated {
            true => QuantFactory::gated(QuantConfig::default(), dfq, store.root() / "gates").unwrap(),
            false => QuantFactory::new(QuantConfig::default(), Precision::new(4, 6).unwrap()).unwrap(),
        };
        let (root, path) = (store.root(), store.root() / "own");
        let stem = factory.conv2d(&(root / "stem"), Conv2dConfig::new(1, 4, 3, 1));
        let second: Module = match own {
            true => {
                let weight = path.var("weight", &[6, 4, 3, 3], nn::Init::Const(0.0));
                Box::new(Own { weight, site: factory.site(&path, 4) })
            }
            false => factory.conv2d(&path, Conv2dConfig::new(4, 6, 3, 1)),
        };
        fill(&store);
        // Of a gate, what `fill` leaves as it was drawn.
        let gates = store.variables().into_iter().filter(|(name, _)| name.starts_with("gates"));
        gates.for_each(|(_, mut variable)| tch::no_grad(|| variable.copy_(&waves(&variable.size()))));
        let forward = |train| second.forward_t(&stem.forward_t(&waves(&[5, 1, 6, 6]), train).relu(), train);
        let workload = core_tensor::nn::trace("net", || drop(forward(false))).unwrap();
        let (handle, gates) = (factory.handle(), factory.gates());
        let mut ledger = CostLedger::new(&workload, &handle, gates.as_ref()).unwrap();
        let output = forward(true);
        output.square().sum(Kind::Float).backward();
        gates.iter().for_each(|gates| drop(gates.finish().unwrap()));
        ledger.step().unwrap();
        let mut found = vec![("output".to_owned(), output.detach()), ("evaluated".to_owned(), forward(false).detach())];
        let trained = core_tensor::optim::named_trainable(&store).into_iter();
        found.extend(trained.map(|(name, variable)| (name, variable.grad().copy())));
        (found, handle.layers(), ledger.reference_macs(), ledger.effective_macs())
    };
    for gated in [false, true] {
        let ((ours, layers, reference, effective), theirs) = (run(true, gated), run(false, gated));
        assert_equal(&ours, &theirs.0);
        assert!(reference > 0.0 && layers.contains(&"own".to_owned()), "{layers:?}");
        assert_eq!((layers, reference, effective), (theirs.1, theirs.2, theirs.3), "gated: {gated}");
    }
}

#[test]
fn a_bifurcated_gradient_of_equal_bits_is_the_single_one() {
    let config = QuantConfig { stochastic_gradients: false, ..QuantConfig::default() };
    let single = Precision::new(4, 5).unwrap();
    let double = Precision { weight_gradient: single.gradient, ..single };
    let run = |precision| {
        let (store, net, _) = quantised(config.clone(), precision);
        step(&store, net.as_ref())
    };
    let (single, double) = (run(single), run(double));
    for ((name, a), (_, b)) in single.iter().zip(&double) {
        // Both convolutions may sum in another order than the fused backward pass.
        let (distance, scale) = ((a - b).abs().max().double_value(&[]), a.abs().max().double_value(&[]));
        assert!(distance <= 1e-5 * (1.0 + scale), "{name}: {distance}");
    }
}

#[test]
fn a_bifurcated_gradient_reaches_the_bias_once() {
    let config = QuantConfig { linear: true, stochastic_gradients: false, ..QuantConfig::default() };
    let run = |precision, needs_gradient| {
        let store = nn::VarStore::new(Device::Cpu);
        let factory = QuantFactory::new(config.clone(), precision).unwrap();
        let conv = Conv2dConfig { bias: true, ..Conv2dConfig::new(2, 3, 3, 2) };
        let layers = [
            (factory.conv2d(&(store.root() / "conv"), conv), vec![2, 2, 6, 6]),
            (factory.linear(&(store.root() / "hidden"), LinearConfig::new(5, 4)), vec![6, 5]),
        ];
        fill(&store);
        tch::no_grad(|| {
            let biases = store.variables().into_iter().filter(|(name, _)| name.ends_with("bias"));
            biases.for_each(|(_, mut bias)| bias.copy_(&waves(&bias.size())));
        });
        let mut found = Vec::new();
        for (layer, shape) in layers {
            let x = waves(&shape).set_requires_grad(needs_gradient);
            let y = layer.forward_t(&x, true);
            (&y * waves(&y.size()).flip([0])).sum(Kind::Float).backward();
            found.push(("output".to_owned(), y.detach()));
            found.extend(needs_gradient.then(|| ("input".to_owned(), x.grad())));
        }
        let trained = core_tensor::optim::named_trainable(&store).into_iter();
        found.extend(trained.map(|(name, variable)| (name, variable.grad().copy())));
        (found, factory.handle().idle_gradient_sites())
    };
    let single = Precision::new(4, 5).unwrap();
    let double = Precision { weight_gradient: single.gradient, ..single };
    for needs_gradient in [true, false] {
        let ((single, _), (double, idle)) = (run(single, needs_gradient), run(double, needs_gradient));
        assert_eq!((single.len(), idle), (if needs_gradient { 8 } else { 6 }, 0));
        for ((name, a), (_, b)) in single.iter().zip(&double) {
            // Sums in another order, as above.
            let (distance, scale) = ((a - b).abs().max().double_value(&[]), a.abs().max().double_value(&[]));
            assert!(scale > 0.0 && distance <= 1e-5 * (1.0 + scale), "{name}: {distance}");
        }
    }
    // With bits of its own, the bias's gradient has those of the weight's.
    let wide = run(Precision { gradient: Some(bits(1)), ..double }, true).0;
    let narrow = run(double, true).0;
    let of = |found: &[(String, Tensor)], name: &str| found.iter().find(|(other, _)| other == name).unwrap().1.copy();
    assert!(of(&wide, "hidden.bias").equal(&of(&narrow, "hidden.bias")));
    assert!(!of(&wide, "input").equal(&of(&narrow, "input")));
}

/// Gradient of the first weight under two layers with a norm between, 2-bit gradients, for pass after pass.
fn first_gradients(stochastic: bool, gradient: Option<Bits>, passes: usize) -> Vec<Vec<f32>> {
    let store = nn::VarStore::new(Device::Cpu);
    let config = QuantConfig { stochastic_gradients: stochastic, ..QuantConfig::default() };
    let factory = QuantFactory::new(config, Precision { gradient, ..Precision::FULL }).unwrap();
    let root = store.root();
    let first = factory.conv2d(&(&root / "a"), Conv2dConfig::new(1, 2, 3, 1));
    let norm = factory.batch_norm2d(&(&root / "n"), BatchNormConfig::new(2));
    let second = factory.conv2d(&(&root / "b"), Conv2dConfig::new(2, 2, 3, 1));
    fill(&store);
    let (x, upstream) = (waves(&[2, 1, 6, 6]), waves(&[2, 2, 6, 6]).flip([1]));
    let weight = &mut store.variables().remove("a.weight").unwrap();
    let once = |_| {
        weight.zero_grad();
        let hidden = norm.forward_t(&first.forward_t(&x, true), true).relu();
        (second.forward_t(&hidden, true) * &upstream).sum(Kind::Float).backward();
        Vec::<f32>::try_from(weight.grad().view(-1)).unwrap()
    };
    (0..passes).map(once).collect()
}

#[test]
fn stochastic_gradients_are_unbiased_through_layers_and_nearest_ones_are_not() {
    let exact = &first_gradients(true, None, 1)[0];
    let passes = 400;
    let drawn = first_gradients(true, Some(bits(2)), passes);
    let nearest = &first_gradients(false, Some(bits(2)), 1)[0];
    let (mut unbiased, mut biased) = (true, false);
    for (index, exact) in exact.iter().enumerate() {
        let values = drawn.iter().map(|pass| f64::from(pass[index]));
        let mean = values.clone().sum::<f64>() / passes as f64;
        let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / (passes - 1) as f64;
        // Each site is unbiased given what arrives, and the backward pass is linear in it: five standard errors.
        let bound = 5.0 * (variance / passes as f64).sqrt();
        assert!(bound > 0.0);
        unbiased &= (mean - f64::from(*exact)).abs() <= bound;
        biased |= (f64::from(nearest[index]) - f64::from(*exact)).abs() > bound;
    }
    assert!(unbiased);
    assert!(biased, "rounding to the nearest level is the negative control");
}

#[test]
fn evaluation_rounds_over_the_average_range_and_samples_do_not_see_each_other() {
    let (store, net, handle) = quantised(QuantConfig::default(), Precision::new(4, 8).unwrap());
    assert!(matches!(handle.check_calibrated(), Err(Error::Uncalibrated { layer }) if layer == "conv1"));
    for _ in 0..3 {
        step(&store, net.as_ref());
    }
    handle.check_calibrated().unwrap();
    let images = waves(&[4, 3, 8, 8]);
    let range = handle.input_range("layer1.0.conv1").unwrap();
    let together = tch::no_grad(|| net.forward(&images, false));
    // Other company, in a batch of the same size so that matrix products are blocked alike.
    let company = Tensor::cat(&[images.narrow(0, 0, 2) * 5.0, images.narrow(0, 2, 1), images.narrow(0, 0, 1)], 0);
    let in_company = tch::no_grad(|| net.forward(&company, false));
    assert!(together.narrow(0, 2, 1).equal(&in_company.narrow(0, 2, 1)));
    assert_eq!(handle.input_range("layer1.0.conv1").unwrap(), range);
    handle.reset_ranges();
    assert!(handle.check_calibrated().is_err());
    assert!(matches!(handle.input_range("nobody"), Err(Error::Config { .. })));
}

#[test]
fn percentiles_clip_and_stop_the_gradient_of_what_they_clip() {
    let rule = RangeRule::Percentile { share: 0.25, momentum: 0.9 };
    let config = QuantConfig { activation_range: rule, ..QuantConfig::default() };
    let precision = Precision { activation: Some(bits(1)), ..Precision::FULL };
    let (store, conv, _) = tap(config, precision);
    let _ = tch::no_grad(|| store.variables().remove("conv.weight").unwrap().fill_(1.0));
    let x = Tensor::from_slice(&[-100.0_f32, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 90.0])
        .view([1, 1, 2, 4])
        .set_requires_grad(true);
    let y = conv.forward_t(&x, true);
    // Two of eight are cut off on each side: the range is 1 … 4, at one bit its two ends.
    assert_eq!(Vec::<f32>::try_from(y.detach().view(-1)).unwrap(), [1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 4.0, 4.0]);
    y.sum(Kind::Float).backward();
    assert_eq!(Vec::<f32>::try_from(x.grad().view(-1)).unwrap(), [0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
}

#[test]
fn what_is_clipped_on_a_grid_wider_than_the_percentiles_lies_beyond_its_levels() {
    // The range is 1 … 4, as above; levels are −4, 0, 4 and 0, 4.
    for (activation_grid, width, rounded) in [
        (GridKind::Symmetric, 2, [-4.0, 0.0, 0.0, 4.0, 4.0, 4.0, 4.0, 4.0]),
        (GridKind::IntegerZeroPoint, 1, [0.0, 0.0, 0.0, 0.0, 4.0, 4.0, 4.0, 4.0]),
    ] {
        let rule = RangeRule::Percentile { share: 0.25, momentum: 0.9 };
        let config = QuantConfig { activation_grid, activation_range: rule, ..QuantConfig::default() };
        let (store, conv, _) = tap(config, Precision { activation: Some(bits(width)), ..Precision::FULL });
        let _ = tch::no_grad(|| store.variables().remove("conv.weight").unwrap().fill_(1.0));
        let x = Tensor::from_slice(&[-100.0_f32, 0.25, 1.0, 2.0, 3.0, 4.0, 5.0, 90.0]);
        let x = x.view([1, 1, 2, 4]).set_requires_grad(true);
        let y = conv.forward_t(&x, true);
        y.sum(Kind::Float).backward();
        assert_eq!(Vec::<f32>::try_from(y.detach().view(-1)).unwrap(), rounded, "{activation_grid:?}");
        let passes = Vec::<f32>::try_from(x.grad().view(-1)).unwrap();
        assert_eq!(passes, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0], "{activation_grid:?}");
    }
}

#[test]
fn what_is_not_finite_passes_and_is_named() {
    let (store, net, handle) = quantised(QuantConfig::default(), Precision::new(4, 8).unwrap());
    step(&store, net.as_ref());
    assert!(handle.check_finite(0).is_ok());
    let images = waves(&[4, 3, 8, 8]);
    let _ = images.narrow(0, 1, 1).fill_(f64::NAN);
    let logits = net.forward(&images, true);
    assert!(logits.isnan().any().int64_value(&[]) == 1);
    let error = handle.check_finite(3).unwrap_err().to_string();
    assert_eq!(error, "step 3: the activation at `conv1` holds a NaN or an infinity");

    let (_store, conv, handle) = tap(QuantConfig::default(), Precision { gradient: Some(bits(8)), ..Precision::FULL });
    let x = waves(&[1, 1, 2, 2]).set_requires_grad(true);
    (conv.forward_t(&x, true) * f64::INFINITY).sum(Kind::Float).backward();
    assert!(handle.check_finite(0).unwrap_err().to_string().contains("gradient at `conv`"));
}

#[test]
fn gradient_sites_without_gradient_are_counted() {
    let (store, conv, handle) = tap(QuantConfig::default(), Precision::new(4, 8).unwrap());
    for (_, variable) in store.variables() {
        let _ = variable.set_requires_grad(false);
    }
    let _ = conv.forward_t(&waves(&[1, 1, 4, 4]), true);
    assert_eq!(handle.idle_gradient_sites(), 1);
    // Bifurcated, the site of the weight's gradient is idle; with data that need none, both.
    let eight = Precision::new(4, 8).unwrap();
    handle.set_precision(Precision { weight_gradient: eight.gradient, ..eight });
    let _ = conv.forward_t(&waves(&[1, 1, 4, 4]).set_requires_grad(true), true);
    assert_eq!(handle.idle_gradient_sites(), 2);
    let _ = conv.forward_t(&waves(&[1, 1, 4, 4]), true);
    assert_eq!(handle.idle_gradient_sites(), 4);
}

#[test]
fn stems_and_named_layers_stay_in_full_precision() {
    let config = QuantConfig {
        full_precision_stem: true,
        full_precision: vec!["layer2".into()],
        linear: true,
        ..QuantConfig::default()
    };
    let (_, _, handle) = quantised(config, Precision::new(4, 8).unwrap());
    let layers = handle.layers();
    assert!(!layers.contains(&"conv1".to_owned()) && layers.contains(&"fc".to_owned()));
    assert!(layers.iter().all(|name| !name.starts_with("layer2")));
}

#[test]
fn other_networks_and_range_norms_run_too() {
    let config = QuantConfig { range_batch_norm: true, ..QuantConfig::default() };
    let factory = QuantFactory::new(config, Precision::new(6, 8).unwrap()).unwrap();
    let store = nn::VarStore::new(Device::Cpu);
    let net = ConvNetConfig { in_channels: 3, widths: vec![4, 6], classes: 3 };
    let net = Architecture::ConvNet(net).build(&store.root(), &factory).unwrap();
    let logits = net.forward(&waves(&[4, 3, 8, 8]), true);
    assert!(logits.isfinite().all().int64_value(&[]) == 1);
    let error = QuantFactory::new(
        QuantConfig { activation_range: RangeRule::MovingAverage { momentum: 2.0 }, ..QuantConfig::default() },
        Precision::FULL,
    );
    assert!(error.is_err());
}

#[test]
fn one_bit_on_a_symmetric_grid_is_refused_before_there_is_a_layer() {
    fn named(made: Result<QuantFactory>) -> &'static str {
        match made {
            Err(Error::Config { name, .. }) => name,
            other => panic!("{other:?}"),
        }
    }
    let symmetric = QuantConfig { activation_grid: GridKind::Symmetric, ..QuantConfig::default() };
    let one = Precision::new(1, 8).unwrap();
    assert_eq!(named(QuantFactory::new(symmetric.clone(), one)), "activation_grid");
    let weights = QuantConfig { weight_grid: GridKind::Symmetric, ..QuantConfig::default() };
    assert_eq!(named(QuantFactory::new(weights.clone(), one)), "weight_grid");
    assert!(QuantFactory::new(symmetric.clone(), Precision::new(2, 1).unwrap()).is_ok());

    let store = nn::VarStore::new(Device::Cpu);
    let gated = |config: &QuantConfig, dfq| QuantFactory::gated(config.clone(), dfq, store.root() / "gates");
    let option = |bits| DfqConfig { options: vec![DfqOption::bits(bits, 1).unwrap()], ..DfqConfig::default() };
    assert_eq!(named(gated(&symmetric, option(1))), "activation_grid");
    assert_eq!(named(gated(&weights, DfqConfig { weight: bits(1), ..option(2) })), "weight_grid");
    assert!(store.variables().is_empty());
    assert!(gated(&symmetric, option(2)).is_ok());
}

#[test]
fn layers_with_gates_may_be_given_one_bit_for_activations_that_they_do_not_take() {
    let config = QuantConfig { activation_grid: GridKind::Symmetric, ..QuantConfig::default() };
    let one = Precision::new(1, 8).unwrap();
    let store = nn::VarStore::new(Device::Cpu);
    let dfq = DfqConfig { hidden: 4, embedding: 4, ..DfqConfig::default() };
    let gated = QuantFactory::gated(config.clone(), dfq, store.root() / "gates").unwrap();
    let _net = network(&gated);
    assert!(!gated.handle().layers().is_empty());
    assert!(gated.handle().check_precision(one).is_ok());
    let (_store, _net, plain) = quantised(config, Precision::FULL);
    assert!(matches!(plain.check_precision(one), Err(Error::Config { name: "activation_grid", .. })));
}

#[test]
fn in_evaluation_a_nan_reaches_the_logits() {
    let (_store, net, _) = quantised(QuantConfig::default(), Precision::new(8, 8).unwrap());
    let images = waves(&[4, 3, 8, 8]);
    let _ = net.forward(&images, true);
    let logits = net.forward(&(&images * f64::NAN), false);
    assert_eq!(logits.isnan().all().int64_value(&[]), 1);
}

/// The paper's networks with the number of convolutions that are quantised, shortcuts' and the stem among them.
fn papers_networks() -> Vec<(Architecture, usize)> {
    let cifar = |depth| Architecture::cifar_resnet(depth, 10).unwrap();
    let wide = |depth| Architecture::ResNet(ResNetConfig::imagenet(depth, 10).unwrap().with_cifar_stem());
    let mobilenet = MobileNetV2Config { early_strides: [1, 1, 2], classes: 10 };
    // 6n + 1 convolutions and two shortcuts; 2·8 + 1 and 2·16 + 1 and three; 17 blocks of three but the first of two,
    // stem and head.
    vec![(cifar(38), 39), (cifar(74), 75), (wide(18), 20), (wide(34), 36), (Architecture::MobileNetV2(mobilenet), 52)]
}

#[test]
fn the_papers_networks_are_quantised_in_every_convolution_and_train() {
    for (architecture, convolutions) in papers_networks() {
        let factory = QuantFactory::new(QuantConfig::default(), Precision::new(4, 6).unwrap()).unwrap();
        let store = nn::VarStore::new(Device::Cpu);
        let net = architecture.build(&store.root(), &factory).unwrap();
        assert_eq!(factory.handle().layers().len(), convolutions, "{architecture:?}");
        net.forward(&waves(&[2, 3, 8, 8]), true).square().sum(Kind::Float).backward();
        factory.handle().check_calibrated().unwrap();
        factory.handle().check_finite(0).unwrap();
        let trained = core_tensor::optim::named_trainable(&store);
        assert!(trained.iter().all(|(_, variable)| variable.grad().defined()), "{architecture:?}");
    }
}

#[test]
fn the_papers_networks_take_gates_in_every_block() {
    // ResNet-38 has 18 blocks, ResNet-18 eight; MobileNetV2 17, and its head is a block of its own.
    let blocks = [(0, 18), (2, 8), (4, 18)];
    let networks = papers_networks();
    for (index, blocks) in blocks {
        let store = nn::VarStore::new(Device::Cpu);
        let dfq = DfqConfig { hidden: 4, embedding: 4, ..DfqConfig::default() };
        let factory = QuantFactory::gated(QuantConfig::default(), dfq, store.root() / "gates").unwrap();
        let net = networks[index].0.build(&store.root(), &factory).unwrap();
        let gates = factory.gates().unwrap();
        assert_eq!(gates.blocks().len(), blocks, "{:?}", gates.blocks());
        let loss = net.forward(&waves(&[2, 3, 8, 8]), true).square().sum(Kind::Float);
        (loss + gates.finish().unwrap().cost).backward();
        let projection = &store.variables()["gates.projection.weight"];
        assert!(projection.grad().abs().max().double_value(&[]) > 0.0);
    }
}

/// Loss and all gradients, by name, of a training step of a language model.
fn language_step(factory: &dyn LayerFactory) -> Vec<(String, Tensor)> {
    let store = nn::VarStore::new(Device::Cpu);
    let config = LanguageModelConfig { width: 16, heads: 2, neurons: 24, ..LanguageModelConfig::small(13) };
    let model = LanguageModel::new(&store.root(), factory, config).unwrap();
    fill(&store);
    let words = (Tensor::arange(30, (Kind::Int64, Device::Cpu)) * 5).remainder(13).view([3, 10]);
    let batch = LanguageBatch { input: words.narrow(1, 0, 9), target: words.narrow(1, 1, 9).contiguous() };
    let loss = model.loss(&batch, true).unwrap();
    loss.backward();
    let gradients = core_tensor::optim::named_trainable(&store).into_iter();
    let gradients = gradients.map(|(name, variable)| (name, variable.grad().copy()));
    std::iter::once(("loss".to_owned(), loss.detach())).chain(gradients).collect()
}

#[test]
fn a_transformer_in_full_precision_is_the_plain_one_bit_for_bit() {
    let config = || QuantConfig { linear: true, ..QuantConfig::default() };
    let full = QuantFactory::new(config(), Precision::FULL).unwrap();
    let plain = language_step(&Standard);
    assert_equal(&language_step(&full), &plain);
    // Four projections and two of the feed-forward layer, in two layers; the output layer is the table of words.
    assert_eq!(full.handle().layers().len(), 12);
    let low = language_step(&QuantFactory::new(config(), Precision::new(3, 6).unwrap()).unwrap());
    for (name, gradient) in low.iter().filter(|(name, _)| name.ends_with("weight")) {
        let exact = &plain.iter().find(|(other, _)| other == name).unwrap().1;
        assert!(!gradient.equal(exact) && gradient.isfinite().all().int64_value(&[]) == 1, "{name}");
    }
}
