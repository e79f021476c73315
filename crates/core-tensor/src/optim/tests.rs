use super::*;
use tch::{Device, Kind, nn};

type Make = fn(Vec<Parameter>) -> Box<dyn Optimizer>;

/// Each optimizer with its defaults.
const OPTIMIZERS: [Make; 3] = [
    |parameters| Box::new(Sgd::new(parameters, SgdConfig::default()).unwrap()),
    |parameters| Box::new(Adam::new(parameters, AdamConfig::default()).unwrap()),
    |parameters| Box::new(Lars::new(parameters, LarsConfig::default()).unwrap()),
];

/// One scalar weight of 1 under the loss `w²/2`.
fn scalar_descent(steps: usize, make: impl Fn(Vec<Parameter>) -> Box<dyn Optimizer>, decay: f64) -> Vec<f64> {
    let store = nn::VarStore::new(Device::Cpu);
    let weight = store.root().ones("w", &[1]);
    let mut optimizer = make(parameters(&store, decay));
    let rate = 0.1;
    (0..steps)
        .map(|_| {
            optimizer.zero_grad().unwrap();
            (weight.square() / 2.0).sum(Kind::Float).backward();
            optimizer.step(rate).unwrap();
            weight.double_value(&[0])
        })
        .collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    // f32 arithmetic: a few units in the seventh digit.
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() < 2e-6, "{found:?} against {expected:?}");
    }
}

#[test]
fn sgd_decays_then_gathers_momentum_then_scales() {
    // By hand: g = 1.1, v = 1.1, w = .89; g = .979, v = 1.969, w = .6931; …
    let sgd = |parameters| Box::new(Sgd::new(parameters, SgdConfig::default()).unwrap()) as Box<dyn Optimizer>;
    assert_close(&scalar_descent(3, sgd, 0.1), &[0.89, 0.89 - 0.1969, 0.439649]);
}

#[test]
fn nesterov_looks_ahead() {
    // By hand: g = 1, v = 1, w = 1 − .1·(1 + .9) = .81; g = .81, v = 1.71, w = .81 − .1·(.81 + 1.539) = .5751.
    let config = SgdConfig { momentum: 0.9, nesterov: true };
    let sgd = |parameters| Box::new(Sgd::new(parameters, config).unwrap()) as Box<dyn Optimizer>;
    assert_close(&scalar_descent(2, sgd, 0.0), &[0.81, 0.5751]);
}

#[test]
fn adam_first_step_is_the_learning_rate_and_adamw_shrinks_first() {
    // By hand: bias-corrected m/√v is g/|g| = 1 in the first step, whatever g.
    let adam = |parameters| Box::new(Adam::new(parameters, AdamConfig::default()).unwrap()) as Box<dyn Optimizer>;
    assert_close(&scalar_descent(1, adam, 0.0), &[0.9]);
    let adamw = |parameters| Box::new(Adam::new(parameters, AdamConfig::decoupled()).unwrap()) as Box<dyn Optimizer>;
    assert_close(&scalar_descent(1, adamw, 0.5), &[1.0 * (1.0 - 0.1 * 0.5) - 0.1]);
}

#[test]
fn lars_scales_by_the_trust_ratio_unless_told_not_to() {
    // By hand: ‖w‖/‖g‖ = 1/1.1, so the step is lr·η·(1/1.1)·1.1 = 1e-4.
    let lars = |parameters| Box::new(Lars::new(parameters, LarsConfig::default()).unwrap()) as Box<dyn Optimizer>;
    assert_close(&scalar_descent(1, lars, 0.1), &[1.0 - 1e-4]);
    let plain = |mut parameters: Vec<Parameter>| {
        parameters[0].adapt = false;
        Box::new(Lars::new(parameters, LarsConfig::default()).unwrap()) as Box<dyn Optimizer>
    };
    assert_close(&scalar_descent(1, plain, 0.1), &[0.89]);
}

#[test]
fn lars_takes_its_ratio_in_double_precision() {
    // The sheet's case: w (3, 4), g (.6, .8), rate 5, decay 1e-6, trust 1e-3: the first step is (.015, .02). And where weights
    // or gradients are zero the gradient counts as it is.
    for (start, gradient) in
        [([3.0_f32, 4.0], [0.6_f32, 0.8]), ([0.3, -0.7], [0.01, 5.0]), ([0.0; 2], [1.0, 2.0]), ([1.0, 2.0], [0.0; 2])]
    {
        let store = nn::VarStore::new(Device::Cpu);
        let mut weight = store.root().zeros("w", &[2]);
        tch::no_grad(|| weight.copy_(&Tensor::from_slice(&start)));
        let config = LarsConfig { trust: 1e-3, ..LarsConfig::default() };
        let mut lars = Lars::new(parameters(&store, 1e-6), config).unwrap();
        (&weight * Tensor::from_slice(&gradient)).sum(Kind::Float).backward();
        let along = weight.grad() + weight.detach() * 1e-6;
        let [size, slope] = [weight.detach(), along.shallow_clone()].map(|tensor| tensor.norm().double_value(&[]));
        let ratio = if size > 0.0 && slope > 0.0 { 1e-3 * size / slope } else { 1.0 };
        let expected = weight.detach() - along.f_mul_scalar(ratio).unwrap() * 5.0;
        lars.step(5.0).unwrap();
        assert!(weight.detach().equal(&expected), "{weight} {expected}");
        if start == [3.0, 4.0] {
            assert!((start[0] as f64 - weight.double_value(&[0]) - 0.015).abs() < 1e-6);
        }
    }
}

#[test]
fn a_step_leaves_gradients_as_they_are() {
    for make in OPTIMIZERS {
        let store = nn::VarStore::new(Device::Cpu);
        let weight = store.root().ones("w", &[2]);
        let mut optimizer = make(parameters(&store, 0.1));
        (&weight * Tensor::from_slice(&[1_f32, -3.0])).sum(Kind::Float).backward();
        optimizer.step(0.1).unwrap();
        assert_eq!(Vec::<f32>::try_from(weight.grad()).unwrap(), [1.0, -3.0]);
    }
}

#[test]
fn saved_state_goes_on_bit_for_bit() {
    for make in OPTIMIZERS {
        let store = nn::VarStore::new(Device::Cpu);
        let weight = store.root().randn("w", &[5, 3], 0.0, 1.0);
        let target = Tensor::randn([5, 3], (Kind::Float, Device::Cpu));
        let train = |optimizer: &mut dyn Optimizer| {
            for _ in 0..4 {
                optimizer.zero_grad().unwrap();
                (&weight - &target).square().sum(Kind::Float).backward();
                optimizer.step(0.01).unwrap();
            }
        };
        let mut optimizer = make(parameters(&store, 1e-3));
        train(optimizer.as_mut());
        let saved: NamedTensors = optimizer.state().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
        let saved_weight = weight.detach().copy();
        train(optimizer.as_mut());
        let undisturbed = weight.detach().copy();

        tch::no_grad(|| weight.shallow_clone().copy_(&saved_weight));
        let mut resumed = make(parameters(&store, 1e-3));
        resumed.load_state(&saved).unwrap();
        train(resumed.as_mut());
        assert!(weight.equal(&undisturbed));

        let mut foreign = saved;
        foreign.shift_remove("w.momentum").or_else(|| foreign.shift_remove("w.mean"));
        assert!(resumed.load_state(&foreign).unwrap_err().to_string().contains("missing"));
    }
}

/// Two weights of 1 under `a²/2`, and every other step `+ b²/2`; the values of `b` after each step.
fn every_other_step(optimizer: &mut dyn Optimizer, store: &nn::VarStore, steps: std::ops::Range<usize>) -> Vec<f64> {
    let variables = store.variables();
    let (a, b) = (&variables["a"], &variables["b"]);
    steps
        .map(|step| {
            optimizer.zero_grad().unwrap();
            let loss = if step % 2 == 0 { a.square() + b.square() } else { a.square() };
            (loss / 2.0).sum(Kind::Float).backward();
            optimizer.step(0.1).unwrap();
            b.double_value(&[0])
        })
        .collect()
}

#[test]
fn a_parameter_without_a_gradient_stays_and_resumes_as_it_was() {
    for make in OPTIMIZERS {
        let fresh = || {
            let store = nn::VarStore::new(Device::Cpu);
            let _ = (store.root().ones("a", &[1]), store.root().ones("b", &[1]));
            let optimizer = make(parameters(&store, 0.1));
            (store, optimizer)
        };
        let (store, mut optimizer) = fresh();
        let values = every_other_step(optimizer.as_mut(), &store, 0..6);
        // Momentum and decay would move it otherwise.
        assert!(values[0] != values[2] && values[0] == values[1] && values[2] == values[3], "{values:?}");

        // A process that starts at a step without a gradient for `b` has seen none, and goes on as the other did.
        let (early, mut first) = fresh();
        every_other_step(first.as_mut(), &early, 0..3);
        let (late, mut second) = fresh();
        tch::no_grad(|| {
            for (name, mut tensor) in late.variables() {
                tensor.copy_(&early.variables()[&name]);
            }
        });
        second.load_state(&first.state()).unwrap();
        assert_eq!(every_other_step(second.as_mut(), &late, 3..6), values[3..]);
    }
}

#[test]
fn adam_counts_each_parameters_own_steps() {
    // The first step of a parameter is the learning rate, however many others have been taken before.
    let store = nn::VarStore::new(Device::Cpu);
    let (a, b) = (store.root().ones("a", &[1]), store.root().ones("b", &[1]));
    let mut adam = Adam::new(parameters(&store, 0.0), AdamConfig::default()).unwrap();
    for step in 0..20 {
        adam.zero_grad().unwrap();
        let loss = if step == 19 { &a + &b } else { a.shallow_clone() };
        loss.sum(Kind::Float).backward();
        adam.step(0.01).unwrap();
    }
    assert_close(&[b.double_value(&[0])], &[0.99]);
}

#[test]
fn a_parameters_own_scale_multiplies_the_rate() {
    let store = nn::VarStore::new(Device::Cpu);
    let weight = store.root().ones("w", &[1]);
    let scaled = parameters_with(&store, |parameter| parameter.learning_rate_scale = 0.5);
    let mut sgd = Sgd::new(scaled, SgdConfig::default()).unwrap();
    weight.sum(Kind::Float).backward();
    sgd.step(0.1).unwrap();
    assert_close(&[weight.double_value(&[0])], &[0.95]);
}

#[test]
fn settings_changed_on_the_way_count_from_the_next_step() {
    let ends = OPTIMIZERS.map(|make| {
        let store = nn::VarStore::new(Device::Cpu);
        let weight = store.root().ones("w", &[1]);
        let mut optimizer = make(parameters(&store, 0.1));
        assert_eq!(optimizer.parameters()[0].weight_decay, 0.1);
        let mut step = |decay: f64| {
            optimizer.parameters_mut()[0].weight_decay = decay;
            optimizer.zero_grad().unwrap();
            (&weight * 0.0).sum(Kind::Float).backward();
            optimizer.step(0.1).unwrap();
            weight.double_value(&[0])
        };
        // Without a gradient and without decay nothing moves it.
        assert_eq!(step(0.0), 1.0);
        step(0.1)
    });
    // By hand, g = .1 in the second step: .1·.1; m = .01, v = 1e-5, .1·(m/.19)/√(v/.001999); .1·η·(1/.1)·.1.
    assert_close(&ends, &[0.99, 0.925_586, 0.9999]);
}

#[test]
fn clipping_scales_the_joint_norm() {
    let store = nn::VarStore::new(Device::Cpu);
    let (a, b) = (store.root().ones("a", &[1]), store.root().ones("b", &[1]));
    (&a * 3.0 + &b * 4.0).sum(Kind::Float).backward();
    let all = parameters(&store, 0.0);
    assert!((clip_gradient_norm(&all, 1.0) - 5.0).abs() < 1e-6);
    // 3/5 and 4/5, up to the 1e-6 in the denominator.
    assert_close(&[a.grad().double_value(&[0]), b.grad().double_value(&[0])], &[0.6, 0.8]);
    assert!((clip_gradient_norm(&all, 10.0) - 1.0).abs() < 1e-6);
    // Neither infinity nor NaN touches a gradient.
    for unbounded in [f64::INFINITY, f64::NAN] {
        assert!((clip_gradient_norm(&all, unbounded) - 1.0).abs() < 1e-6);
        assert_close(&[a.grad().double_value(&[0]), b.grad().double_value(&[0])], &[0.6, 0.8]);
    }
}

type New = fn(Vec<Parameter>) -> Result<()>;

const ALL: [New; 3] = [
    |parameters| Sgd::new(parameters, SgdConfig::default()).map(drop),
    |parameters| Adam::new(parameters, AdamConfig::default()).map(drop),
    |parameters| Lars::new(parameters, LarsConfig::default()).map(drop),
];

#[test]
fn two_parameters_of_one_name_are_refused() {
    let (first, second) = (nn::VarStore::new(Device::Cpu), nn::VarStore::new(Device::Cpu));
    let _ = (first.root().ones("w", &[1]), second.root().ones("w", &[1]));
    for new in ALL {
        let both = parameters(&first, 0.0).into_iter().chain(parameters(&second, 0.0));
        let refused = new(both.collect()).unwrap_err().to_string();
        assert_eq!(refused, "`w`: expected one parameter of that name, found two");
        // Under names of their own they go together.
        let mut renamed = parameters(&second, 0.0);
        renamed[0].name = "second.w".to_owned();
        new(parameters(&first, 0.0).into_iter().chain(renamed).collect()).unwrap();
    }
}

#[test]
fn parameters_with_settings_outside_their_range_are_refused() {
    let store = nn::VarStore::new(Device::Cpu);
    let _ = store.root().ones("w", &[1]);
    for new in ALL {
        for wrong in [-1e-4, f64::NAN, f64::INFINITY] {
            let refused = new(parameters(&store, wrong)).unwrap_err().to_string();
            assert_eq!(refused, format!("weight_decay is {wrong} for `w`, expected finite and at least 0"));
            let scaled = parameters_with(&store, |parameter| parameter.learning_rate_scale = wrong);
            let refused = new(scaled).unwrap_err().to_string();
            assert_eq!(refused, format!("learning_rate_scale is {wrong} for `w`, expected finite and at least 0"));
        }
        // No decay and no learning are settings like any other.
        new(parameters_with(&store, |parameter| parameter.learning_rate_scale = 0.0)).unwrap();
    }
}

#[test]
fn settings_outside_their_range_are_refused() {
    let refuse = |result: Result<()>| result.unwrap_err().to_string();
    let momentum = SgdConfig { momentum: 1.0, nesterov: false };
    assert!(refuse(Sgd::new(Vec::new(), momentum).map(drop)).contains("momentum is 1"));
    let epsilon = |epsilon| refuse(Adam::new(Vec::new(), AdamConfig { epsilon, ..AdamConfig::default() }).map(drop));
    for wrong in [0.0, -1e-8, f64::NAN, f64::INFINITY] {
        assert_eq!(epsilon(wrong), format!("epsilon is {wrong}, expected finite and above 0"));
    }
    let beta = AdamConfig { beta2: f64::NAN, ..AdamConfig::default() };
    assert!(refuse(Adam::new(Vec::new(), beta).map(drop)).contains("beta2 is NaN"));
    assert!(refuse(Lars::new(Vec::new(), LarsConfig { trust: 0.0, momentum: 0.9 }).map(drop)).contains("trust"));
}
