use super::*;
use crate::attack::Start;
use proptest::prelude::*;

fn matrix(values: &[f64], classes: i64) -> Tensor {
    Tensor::from_slice(values).view([-1, classes])
}

fn value(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}

/// The reference runs (PyTorch, f64) are given to 10 digits.
fn close(found: &Tensor, expected: f64) -> bool {
    (value(found) - expected).abs() < 1e-9
}

fn example() -> (Tensor, Tensor, Tensor) {
    let clean = matrix(&[2.0, 0.0, -1.0, 0.0, 1.0, 0.0], 3);
    let attacked = matrix(&[1.0, 0.5, -1.0, 0.5, 0.5, 0.0], 3);
    (clean, attacked, Tensor::from_slice(&[0_i64, 1]))
}

#[test]
fn trades_of_a_reference_run() {
    let (clean, attacked, labels) = example();
    let loss = trades_loss(&clean, &attacked, &labels, 6.0).unwrap();
    assert!(close(&loss.accuracy, 0.3606453667) && close(&loss.robustness, 0.1302355362));
    assert!(close(&loss.total, 1.1420585845));
    // By hand: CE of the first row is log(1 + e^−2 + e^−3), of the second log(1 + 2·e^−1).
    let by_hand = ((1.0 + (-2.0_f64).exp() + (-3.0_f64).exp()).ln() + (1.0 + 2.0 * (-1.0_f64).exp()).ln()) / 2.0;
    assert!(close(&loss.accuracy, by_hand));
}

#[test]
fn mart_of_a_reference_run_with_a_tie() {
    // Row 2 has equal logits for the label 1 and for 0: the most likely *wrong* class is 0.
    let (clean, attacked, labels) = example();
    let loss = mart_loss(&clean, &attacked, &labels, 6.0).unwrap();
    assert!(close(&loss.accuracy, 1.2123166880), "{}", value(&loss.accuracy));
    assert!(close(&loss.robustness, 0.0322100552), "{}", value(&loss.robustness));
    assert!(close(&loss.total, 1.4055770189));
}

#[test]
fn the_target_distribution_of_trades_gets_a_gradient_too() {
    let (clean, attacked, labels) = example();
    let (clean, attacked) = (clean.set_requires_grad(true), attacked.set_requires_grad(true));
    trades_loss(&clean, &attacked, &labels, 6.0).unwrap().robustness.backward();
    assert!(value(&clean.grad().abs().max()) > 1e-3 && value(&attacked.grad().abs().max()) > 1e-3);
}

/// A linear classifier of 3 pixels.
fn linear() -> (Tensor, Tensor) {
    let weight = Tensor::from_slice(&[1.0_f32, -2.0, 0.5, -0.5, 0.25, 1.0]).view([2, 3]).set_requires_grad(true);
    (weight, Tensor::from_slice(&[0.1_f32, -0.1]))
}

fn images() -> (Tensor, Tensor) {
    (Tensor::from_slice(&[0.5_f32, 0.4, 0.6, 0.02, 0.99, 0.5]).view([2, 3]), Tensor::from_slice(&[0_i64, 1]))
}

#[test]
fn training_images_of_a_linear_model_go_to_their_closed_form() {
    let (weight, bias) = linear();
    let logits: Logits = Box::new(|x, _| x.linear(&weight, Some(&bias)));
    let (images, labels) = images();
    let attack = Pgd::new(Ball::linf(0.1)).with_steps(10).with_start(Start::Image);
    let moved = attack_labels(&logits, &attack, &images, &labels, 0).unwrap();
    // w_other − w_label = (−1.5, 2.25, .5) for the first, its negative for the second; clipped to the box.
    let expected = Tensor::from_slice(&[0.4_f32, 0.5, 0.7, 0.12, 0.89, 0.4]).view([2, 3]);
    assert!(value(&(&moved - expected).abs().max()) < 1e-6);
    // log(1 + e^−m) of the margins m by hand: −.25 and 2.2475 before, −.675 and 1.8225 after.
    let loss = |x: &Tensor| {
        Vec::<f64>::try_from(
            logits(x, false)
                .cross_entropy_loss(&labels, None::<Tensor>, Reduction::None, -100, 0.0)
                .to_kind(Kind::Double),
        )
        .unwrap()
    };
    for (found, expected) in
        loss(&images).iter().zip([0.825939, 0.100445]).chain(loss(&moved).iter().zip([1.086551, 0.149817]))
    {
        // Six digits are given.
        assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
    }
}

#[test]
fn the_divergence_attack_leaves_the_image_and_raises_the_divergence() {
    let (weight, bias) = linear();
    let logits: Logits = Box::new(|x, _| x.linear(&weight, Some(&bias)));
    let (images, _) = images();
    let attack = RobustConfig::trades(0.1).attack;
    let moved = attack_divergence(&logits, &attack, &images, 0).unwrap();
    let rise = divergence(&logits(&images, false), &logits(&moved, false)).unwrap();
    // The first image's logit is −.25 and can be moved by .425 to either side: divergences of .0216 and .0224 by hand. The second
    // is near corners of the box, and one of its two maxima is small.
    assert!(rise.double_value(&[0]) > 0.0216 && rise.double_value(&[1]) > 1e-5, "{rise}");
    assert!(!weight.grad().defined());
}

#[test]
fn trades_starts_a_thousandth_away_from_the_image() {
    let images = Tensor::full([1, 4096], 0.5, (Kind::Double, tch::Device::Cpu));
    let attack = RobustConfig::trades(0.1).attack.with_steps(1).with_step_size(0.0);
    let moved = attack.perturb(&images, |x: &Tensor| Ok::<_, Error>(x.sum(Kind::Double)), 0).unwrap();
    // A standard deviation of 4,096 draws has a relative standard error of 1 / √8192 = 1.1 %.
    let deviation = value(&(moved - &images).std(true));
    assert!((deviation / 1e-3 - 1.0).abs() < 0.05, "{deviation}");
}

#[test]
fn every_defence_trains_in_training_mode_and_attacks_in_evaluation_mode() {
    let seen = std::cell::RefCell::new(Vec::new());
    let (weight, bias) = linear();
    let (images, labels) = images();
    let batch = Batch { input: images, target: labels, index: vec![0, 1] };
    let small = |config: RobustConfig| RobustConfig { attack: config.attack.with_steps(2), ..config };
    for (config, train, evaluation) in [
        (RobustConfig::standard(), 1, 0),
        (small(RobustConfig::pgd_at(0.1)), 1, 2),
        (RobustConfig::fast_at(0.1), 1, 1),
        (small(RobustConfig::trades(0.1)), 2, 3),
        (small(RobustConfig::mart(0.1)), 2, 2),
        (RobustConfig::noisy(0.1), 1, 0),
    ] {
        seen.borrow_mut().clear();
        let logits: Logits = Box::new(|x, train| {
            seen.borrow_mut().push(train);
            x.linear(&weight, Some(&bias))
        });
        let mut objective = RobustTraining::of(logits, config.clone(), 0).unwrap();
        let loss = objective.loss(&batch, &Progress::default()).unwrap();
        loss.total.backward();
        let modes = seen.borrow();
        let count = |mode: bool| modes.iter().filter(|train| **train == mode).count();
        assert_eq!((count(true), count(false)), (train, evaluation), "{config:?}");
        // First all attack passes, then the training ones.
        assert!(modes.is_sorted());
        assert!(loss.parts.iter().any(|(name, _)| *name == "train_accuracy"));
    }
}

#[test]
fn settings_and_shapes_that_do_not_fit_are_refused() {
    let refuse = |config: RobustConfig| config.validate().unwrap_err();
    let trades = |beta| RobustConfig { defence: Defence::Trades { beta }, ..RobustConfig::default() };
    assert!(matches!(refuse(trades(-1.0)), Error::Setting { setting: "beta", .. }));
    let mart = RobustConfig { defence: Defence::Mart { lambda: f64::NAN }, ..RobustConfig::default() };
    assert!(matches!(refuse(mart), Error::Setting { setting: "lambda", .. }));
    for deviation in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(matches!(refuse(RobustConfig::noisy(deviation)), Error::Setting { setting: "deviation", .. }));
    }
    assert!(matches!(refuse(RobustConfig::pgd_at(-0.1)), Error::Attack(_)));
    let still = RobustConfig::trades(0.1);
    let still = RobustConfig { attack: still.attack.with_start(Start::Image), ..still };
    assert!(matches!(refuse(still), Error::Setting { setting: "attack.start", .. }));
    let (clean, _, labels) = example();
    assert!(matches!(trades_loss(&clean, &matrix(&[0.0; 4], 2), &labels, 6.0), Err(Error::Mismatch { .. })));
}

#[test]
fn noise_has_its_deviation_is_drawn_anew_and_is_not_clipped() {
    let batch = || {
        let input = Tensor::full([8, 512], 0.9_f32 as f64, (Kind::Float, tch::Device::Cpu));
        Batch { input, target: Tensor::zeros([8], (Kind::Int64, tch::Device::Cpu)), index: (0..8).collect() }
    };
    let seen = std::cell::RefCell::new(Vec::new());
    let train = |deviation, seed, step| {
        let logits: Logits = Box::new(|x, _| {
            seen.borrow_mut().push(x - 0.9);
            x.slice(1, 0, 2, 1)
        });
        let mut objective = RobustTraining::of(logits, RobustConfig::noisy(deviation), seed).unwrap();
        objective.loss(&batch(), &Progress { epoch: 0, step }).unwrap();
        seen.borrow_mut().pop().unwrap()
    };
    let noise = train(0.5, 0, 0);
    // 4,096 draws: a relative standard error of 1.1 % of the deviation, 0.008 of the mean.
    assert!((value(&noise.std(true)) / 0.5 - 1.0).abs() < 0.05 && value(&noise.mean(Kind::Double)).abs() < 0.03);
    assert!(value(&noise.max()) > 0.1 + 0.9, "pixels above white stay as they are");
    assert!(!noise.get(0).equal(&noise.get(1)), "every image has noise of its own");
    assert!(noise.equal(&train(0.5, 0, 0)));
    assert!(!noise.equal(&train(0.5, 0, 1)) && !noise.equal(&train(0.5, 1, 0)));
    assert_eq!(value(&train(0.0, 0, 0).abs().max()), 0.0, "without noise images are what they were");
}

#[test]
fn noise_on_bytes_or_on_no_batch_is_refused() {
    let refuse = |input: Tensor| {
        let batch = Batch { input, target: Tensor::zeros([2], (Kind::Int64, tch::Device::Cpu)), index: vec![0, 1] };
        let logits: Logits = Box::new(|x, _| x.to_kind(Kind::Float));
        let mut objective = RobustTraining::of(logits, RobustConfig::noisy(64.0), 0).unwrap();
        objective.loss(&batch, &Progress::default()).unwrap_err().to_string()
    };
    let options = |kind| (kind, tch::Device::Cpu);
    assert!(refuse(Tensor::zeros([2, 3], options(Kind::Uint8))).contains("[2, 3] of kind Uint8"));
    assert!(refuse(Tensor::zeros([0; 0], options(Kind::Float))).contains("[] of kind Float"));
}

#[test]
fn a_base_does_not_learn_from_the_noise_that_certifies_it() {
    use crate::attack::smoothing::{Smoothed, SmoothingConfig};
    use crate::attack::{Classifier, gaussian};
    // Rows of noise, in bits, that training under seed 0 sees in its first steps and that certificates of seed 0 take.
    let rows = |noise: &Tensor| -> Vec<Vec<u32>> {
        let flat = noise.reshape([-1, 8]).to_kind(Kind::Float);
        let row = |row: i64| Vec::<f32>::try_from(flat.get(row)).unwrap().into_iter().map(f32::to_bits).collect();
        (0..flat.size()[0]).map(row).collect()
    };
    let seen = std::cell::RefCell::new(Vec::new());
    let zeros = |rows: i64| Tensor::zeros([rows, 8], (Kind::Float, tch::Device::Cpu));
    for step in 0..6 {
        let logits: Logits = Box::new(|x, _| {
            seen.borrow_mut().extend(rows(x));
            x.slice(1, 0, 2, 1)
        });
        let batch = Batch {
            input: zeros(20),
            target: Tensor::zeros([20], (Kind::Int64, tch::Device::Cpu)),
            index: (0..20).collect(),
        };
        let mut objective = RobustTraining::of(logits, RobustConfig::noisy(0.25), 0).unwrap();
        objective.loss(&batch, &Progress { epoch: 0, step }).unwrap();
    }
    let learned = seen.take();
    let base = |x: &Tensor| {
        seen.borrow_mut().extend(rows(x));
        x.slice(1, 0, 2, 1)
    };
    let smoothed = Smoothed::new(&base, 0.25, 20).unwrap();
    let config = SmoothingConfig { selection: 20, certification: 20, alpha: 0.001 };
    let image = zeros(1).get(0);
    smoothed.certify(&image, &config, 0).unwrap();
    smoothed.predict(&image, 20, 0.001, 0).unwrap();
    let _ = smoothed.soft(20, 0).unwrap().logits(&zeros(1));
    let certified = seen.take();
    assert_eq!((learned.len(), certified.len()), (120, 80));
    assert!(certified.iter().all(|row| !learned.contains(row)));
    // Nor from each other's: and such rows are told apart, since the same seed has the same.
    assert!((0..80).all(|row| !certified[..row].contains(&certified[row])));
    let again = gaussian(&zeros(20), 20, 0.25, derive(0, Purpose::Noise, 0), 0);
    assert_eq!(rows(&again), learned[..20]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn properties_of_the_losses(
        clean in prop::collection::vec(-4.0..4.0_f64, 12), other in prop::collection::vec(-4.0..4.0_f64, 12),
        labels in prop::collection::vec(0_i64..4, 3), shift in -5.0..5.0_f64,
    ) {
        let (clean, other, labels) = (matrix(&clean, 4), matrix(&other, 4), Tensor::from_slice(&labels));
        // β = 0 leaves cross-entropy.
        let plain = value(&cross_entropy(&clean, &labels).unwrap());
        prop_assert_eq!(value(&trades_loss(&clean, &other, &labels, 0.0).unwrap().total), plain);
        // The divergence is never negative, and 0 for logits that differ by a constant.
        prop_assert!(value(&divergence(&clean, &other).unwrap().min()) >= -1e-12);
        prop_assert!(value(&divergence(&clean, &(&clean + shift)).unwrap().abs().max()) < 1e-12);
        // MART's weight of robustness is in (0, 1], so its term is below the divergence's mean.
        let mart = mart_loss(&clean, &other, &labels, 6.0).unwrap();
        let mean = value(&divergence(&clean, &other).unwrap().mean(Kind::Double));
        prop_assert!(value(&mart.robustness) >= -1e-12 && value(&mart.robustness) <= mean * (1.0 + 1e-6) + 1e-12);
    }
}
