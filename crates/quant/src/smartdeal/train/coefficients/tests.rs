use super::*;
use crate::smartdeal::{Basis, BlockRule, LayerShape, Layout, SdLayer, encode_coefficient};
use core_tensor::optim::{Sgd, SgdConfig};
use proptest::prelude::*;
use tch::{Device, nn::VarStore};

const LADDER: Ladder = Ladder { p_min: -7, p_max: 5, tie: crate::smartdeal::Tie::Down };
const FREE: BucketSwitch = BucketSwitch { bar: 1, step_threshold: 0.0, max_update_fraction: 1.0 };

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(tensor).unwrap()
}

fn one(coefficient: f32, wish: f32, mask: f32) -> f32 {
    let tensor = |v: f32| Tensor::from_slice(&[v]);
    let (next, ..) =
        switch(&tensor(coefficient), &tensor(wish), &tensor(0.0), &tensor(mask), &LADDER, &FREE, 1).unwrap();
    floats(&next)[0]
}

#[test]
fn the_truth_table_of_switching() {
    let p = |e: i32| 2f32.powi(e);
    assert_eq!(one(p(-7), -1.0, 1.0), 0.0);
    assert_eq!(one(0.0, -1.0, 1.0), -p(-7));
    assert_eq!(one(0.0, 1.0, 1.0), p(-7));
    assert_eq!(one(p(-5), 1.0, 1.0), p(-4));
    assert_eq!(one(-p(-5), 1.0, 1.0), -p(-6));
    assert_eq!(one(-p(-5), -1.0, 1.0), -p(-4));
    assert_eq!(one(0.0, 1.0, 0.0), 0.0);
    assert_eq!(one(p(5), 1.0, 1.0), p(5));
    assert_eq!(one(-p(5), -1.0, 1.0), -p(5));
    assert_eq!(one(p(-3), 0.0, 1.0), p(-3));
}

#[test]
fn a_bar_asks_for_as_many_like_signs() {
    let rule = BucketSwitch { bar: 3, ..FREE };
    let (mut c, mut counter) = (Tensor::from_slice(&[0.5f32]), Tensor::from_slice(&[0f32]));
    let mask = Tensor::from_slice(&[1f32]);
    let mut seen = Vec::new();
    for wish in [1.0f32, 1.0, -1.0, 1.0, 1.0, 1.0] {
        (c, counter, _) = switch(&c, &Tensor::from_slice(&[wish]), &counter, &mask, &LADDER, &rule, 1).unwrap();
        seen.push((floats(&c)[0], floats(&counter)[0]));
    }
    assert_eq!(seen, [(0.5, 1.0), (0.5, 2.0), (0.5, 1.0), (0.5, 2.0), (1.0, 0.0), (1.0, 1.0)]);
}

#[test]
fn small_wishes_do_not_count() {
    let rule = BucketSwitch { step_threshold: 0.1, ..FREE };
    let t = |v: &[f32]| Tensor::from_slice(v);
    let (next, _, changed) =
        switch(&t(&[0.5, 0.5]), &t(&[0.1, 0.2]), &t(&[0.0, 0.0]), &t(&[1.0, 1.0]), &LADDER, &rule, 2).unwrap();
    assert_eq!((floats(&next), changed), (vec![0.5, 1.0], 1));
}

#[test]
fn the_guard_lets_the_largest_wishes_through() {
    let t = |v: &[f32]| Tensor::from_slice(v);
    let (next, counter, changed) =
        switch(&t(&[0.5; 4]), &t(&[0.1, -0.4, 0.3, 0.2]), &t(&[0.0; 4]), &t(&[1.0; 4]), &LADDER, &FREE, 2).unwrap();
    assert_eq!((floats(&next), changed), (vec![0.5, 0.25, 1.0, 0.5], 2));
    // Those held back keep their count.
    assert_eq!(floats(&counter), [1.0, 0.0, 0.0, 1.0]);
}

#[test]
fn the_guard_prefers_wishes_that_are_much_of_their_jump() {
    let t = |v: &[f32]| Tensor::from_slice(v);
    // 0.01 of 16, and 0.009 of 0.125.
    let (next, counter, changed) =
        switch(&t(&[16.0, 0.125]), &t(&[0.010, 0.009]), &t(&[0.0; 2]), &t(&[1.0; 2]), &LADDER, &FREE, 1).unwrap();
    assert_eq!((floats(&next), floats(&counter), changed), (vec![16.0, 0.25], vec![1.0, 0.0], 1));
}

#[test]
fn a_coefficient_at_the_highest_rung_takes_nobodys_place() {
    let t = |v: &[f32]| Tensor::from_slice(v);
    let (c, wish, mask) = (t(&[32.0, 0.5, -32.0]), t(&[0.9, 0.3, -0.8]), t(&[1.0; 3]));
    let (next, counter, changed) = switch(&c, &wish, &t(&[0.0; 3]), &mask, &LADDER, &FREE, 1).unwrap();
    assert_eq!((floats(&next), changed), (vec![32.0, 1.0, -32.0], 1));
    // It counts anew, as if it had moved, and so comes back with its first wish inwards.
    assert_eq!(floats(&counter), [0.0; 3]);
    let (next, ..) = switch(&next, &t(&[-0.9, 0.3, 0.8]), &counter, &mask, &LADDER, &FREE, 3).unwrap();
    assert_eq!(floats(&next), [16.0, 2.0, -16.0]);
}

#[test]
fn what_was_held_back_does_not_move_against_its_wish() {
    let t = |v: &[f32]| Tensor::from_slice(v);
    let (mut c, mut counter, mask) = (t(&[0.5, 0.5]), t(&[0.0; 2]), t(&[1.0; 2]));
    // The first moves each time; the second is held back, then wishes for the other side by far the most.
    let mut seen = Vec::new();
    for wish in [[0.4, -0.01], [0.4, -0.01], [0.4, -0.01], [0.1, 0.9], [0.1, 0.9]] {
        (c, counter, _) = switch(&c, &t(&wish), &counter, &mask, &LADDER, &FREE, 1).unwrap();
        seen.push((floats(&c)[1], floats(&counter)[1]));
    }
    assert_eq!(seen, [(0.5, -1.0), (0.5, -1.0), (0.5, -1.0), (0.5, 0.0), (1.0, 0.0)]);
}

proptest! {
    #[test]
    fn whatever_is_wished_for_the_structure_stays(
        exponents in prop::collection::vec(-8i32..6, 1..40), seed in any::<u64>(), most in 0i64..40,
    ) {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let mask: Vec<f32> = exponents.iter().map(|_| f32::from(u8::from(rng.random_bool(0.7)))).collect();
        let c: Vec<f32> = exponents.iter().zip(&mask)
            .map(|(e, m)| if *e < -7 { 0.0 } else { m * 2f32.powi(*e) * if rng.random() { 1.0 } else { -1.0 } }).collect();
        let wish: Vec<f32> = mask.iter().map(|_| rng.random_range(-1f32..1.0)).collect();
        let t = |v: &[f32]| Tensor::from_slice(v);
        let zero = vec![0f32; mask.len()];
        let (next, _, changed) = switch(&t(&c), &t(&wish), &t(&zero), &t(&mask), &LADDER, &FREE, most).unwrap();
        prop_assert!(changed <= most);
        for ((after, before), mask) in floats(&next).into_iter().zip(&c).zip(&mask) {
            prop_assert_eq!(LADDER.project(f64::from(after)), f64::from(after));
            prop_assert!(*mask == 1.0 || after == 0.0);
            // One rung at most.
            let rung = |v: f32| if v == 0.0 { 0.0 } else { v.signum() * (v.abs().log2() + 8.0) };
            prop_assert!((rung(after) - rung(*before)).abs() <= 1.0);
        }
    }
}

/// Two linear layers in this form, each coefficient 1 where the mask is.
fn two_layers(store: &VarStore) -> SdWeights {
    let make = |name: &str| {
        let shape = LayerShape::Linear { out_features: 2, in_features: 9 };
        let layout = Layout::new(shape, BlockRule::Reference).unwrap();
        let codes = (0..18).map(|i| if i % 3 == 2 { 0 } else { encode_coefficient(1.0, &LADDER).unwrap() }).collect();
        let layer = SdLayer::from_parts(layout, codes, Basis::Float(vec![0.5; 18])).unwrap();
        SdWeight::new(&(store.root() / name), &layer, LADDER).unwrap()
    };
    SdWeights::from(vec![make("first"), make("second")])
}

/// Gives every coefficient that gradient, and takes a step at rate 1.
fn step(update: &mut CoefficientUpdate, gradients: [f64; 2]) -> Result<()> {
    for (layer, gradient) in update.layers.iter().zip(gradients) {
        (layer.weight.coefficient.sum(Kind::Float) * gradient).backward();
    }
    tch::no_grad(|| update.update(1.0, 7))
}

#[test]
fn a_gradient_that_is_not_finite_leaves_every_layer_as_it_was() {
    for mode in [CoefficientMode::Requantise, CoefficientMode::Switch(FREE)] {
        let store = VarStore::new(Device::Cpu);
        let config = UpdateConfig { mode, ..UpdateConfig::default() };
        let mut update = CoefficientUpdate::new(&two_layers(&store), config).unwrap();
        let before = |update: &CoefficientUpdate| {
            let first = &update.layers[0];
            [&first.weight.coefficient, &first.momentum, &first.counter].map(|tensor| floats(&tensor.flatten(0, -1)))
        };
        let start = before(&update);
        let error = step(&mut update, [-1.0, f64::NAN]).unwrap_err().to_string();
        assert_eq!(error, "step 7: gradient of `second.coefficient` is not finite");
        assert_eq!(before(&update), start, "{mode:?}");
    }
}

#[test]
fn an_epochs_report_has_the_mean_share_of_coefficients_that_a_step_changed() {
    for mode in [CoefficientMode::Requantise, CoefficientMode::Switch(FREE), CoefficientMode::Frozen] {
        let store = VarStore::new(Device::Cpu);
        let weights = two_layers(&store);
        let config = UpdateConfig { mode, momentum: 0.0, weight_decay: 0.0 };
        let mut update = CoefficientUpdate::new(&weights, config).unwrap();
        let mut optimizer = Sgd::new(Vec::new(), SgdConfig::default()).unwrap();
        // Twelve of each layer's eighteen can move: those of both in the first step, none, none, of one.
        let mut shares = Vec::new();
        for gradients in [[[-1.0, -1.0], [0.0, 0.0]], [[0.0, 0.0], [-2.0, 0.0]]] {
            update.before_epoch(Progress::default(), &mut optimizer).unwrap();
            for gradients in gradients {
                step(&mut update, gradients).unwrap();
                shares.push(update.changed_fraction());
            }
            let metrics = indexmap::IndexMap::new();
            let mut report = EpochReport { epoch: 0, step: 0, learning_rate: 1.0, metrics };
            update.after_epoch(&mut report, &mut optimizer).unwrap();
            shares.push(report.metrics["smartdeal/changed_fraction"]);
        }
        let of_36 = if mode == CoefficientMode::Frozen { [0.0; 6] } else { [24.0, 0.0, 12.0, 0.0, 12.0, 6.0] };
        assert_eq!(shares, of_36.map(|count| count / 36.0), "{mode:?}");
    }
}

#[test]
fn bad_settings_are_named() {
    let with = |mode| UpdateConfig { mode, ..UpdateConfig::default() }.validate();
    let switch = |rule| with(CoefficientMode::Switch(rule));
    assert!(matches!(switch(BucketSwitch { bar: 0, ..FREE }), Err(Error::Config { name: "bar", .. })));
    assert!(switch(BucketSwitch { step_threshold: f64::NAN, ..FREE }).is_err());
    assert!(switch(BucketSwitch { max_update_fraction: 0.0, ..FREE }).is_err());
    let bad = UpdateConfig { momentum: 1.0, ..UpdateConfig::default() };
    assert!(matches!(bad.validate(), Err(Error::Config { name: "momentum", .. })));
}
