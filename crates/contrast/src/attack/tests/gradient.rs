//! Gradient attacks.

use super::models::{SmallNet, difference, linear, points, uniform, values};
use crate::attack::{
    Apgd, Attack, AutoAttack, Ball, Classifier, Error, Fab, Goal, Loss, Norm, Normalized, Pgd, Square, Start,
};
use tch::{Kind, Tensor};

#[test]
fn on_a_linear_model_fgsm_and_pgd_reach_the_corner() {
    // ε = .1. The gradient's sign is that of ±(w₁ − w₀) = ∓(1.5, −2.25, −.5), so x₁ goes to (.4, .5, .7) and x₂ to
    // (.12, .89, .4); cross-entropies from the logits (−.15, .525) and (−1.36, .4625).
    let (images, labels) = points(Kind::Double);
    let corner = Tensor::from_slice(&[0.4_f64, 0.5, 0.7, 0.12, 0.89, 0.4]).reshape([2, 3]);
    let ball = Ball::linf(0.1);
    for attack in [Pgd::fgsm(ball), Pgd::bim(ball, 10).with_step_size(0.025), Pgd::new(ball), Pgd::momentum(ball)] {
        let found = attack.run(&linear(Kind::Double), &images, &Goal::untargeted(&labels), 3).unwrap();
        assert!(difference(&found.images, &corner) < 1e-12, "{}: {}", attack.name(), found.images);
        assert_eq!(values(&found.success), [1.0, 0.0]);
        let loss = Tensor::from_slice(&[1.086_551_f64, 0.149_817]);
        assert!(difference(&found.loss.unwrap(), &loss) < 1e-6);
        assert!(difference(&found.distance, &Tensor::from_slice(&[0.1_f64, 0.1])) < 1e-12);
    }
}

#[test]
fn in_every_norm_pgd_reaches_the_margin_of_the_dual_norm() {
    // Binary margin m(x) = w·x + .2 with w = w₀ − w₁ = (1.5, −2.25, −.5); x₁ has m = −.25. The least reachable margin
    // is m − ε‖w‖ with the dual norm: ‖w‖₁ = 4.25, ‖w‖₂ = √(2.25 + 5.0625 + .25) = 2.75, ‖w‖∞ = 2.25.
    let (images, labels) = points(Kind::Double);
    let image = images.narrow(0, 0, 1);
    let goal = Goal::untargeted(&labels.narrow(0, 0, 1));
    for (norm, expected) in [(Norm::Linf, -0.675), (Norm::L2, -0.525), (Norm::L1, -0.475)] {
        let attack = Pgd::new(Ball::new(norm, 0.1)).with_steps(40);
        let found = attack.run(&linear(Kind::Double), &image, &goal, 0).unwrap();
        let logits = values(&linear(Kind::Double)(&found.images));
        assert!((logits[0] - logits[1] - expected).abs() < 1e-5, "{norm:?}: {logits:?}");
    }
}

#[test]
fn every_start_and_norm_stays_in_ball_and_box_and_a_budget_of_zero_changes_nothing() {
    let net = SmallNet::new(1, Kind::Float);
    let (images, labels) = net.data(6, 2, Kind::Float);
    let images = (images * 3.0 - 1.0).clamp(0.0, 1.0);
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        for radius in [0.0, 0.03, 0.4, 2.0] {
            let pgd = Pgd::new(Ball::new(norm, radius)).with_steps(4);
            let eager = pgd.clone().with_restarts(2).stopping_early();
            for attack in [Pgd::fgsm(pgd.ball), pgd.clone(), eager, Pgd { momentum: 0.9, ..pgd.clone() }] {
                let found = attack.run(&net.eval(), &images, &Goal::untargeted(&labels), 5).unwrap();
                let size = norm.size(&(&found.images - &images)).max().double_value(&[]);
                assert!(size <= radius * (1.0 + 1e-6) + 1.2e-7, "{} ε {radius}: {size}", attack.name());
                assert!(found.images.min().double_value(&[]) >= 0.0 && found.images.max().double_value(&[]) <= 1.0);
                if radius == 0.0 {
                    assert_eq!(found.images, images);
                }
            }
        }
    }
}

#[test]
fn the_model_is_left_as_it_was() {
    let net = SmallNet::new(1, Kind::Float);
    let (images, labels) = net.data(4, 2, Kind::Float);
    let before = net.fingerprint();
    Pgd::new(Ball::linf(0.1)).run(&net.eval(), &images, &Goal::untargeted(&labels), 0).unwrap();
    assert_eq!(net.fingerprint(), before);
}

#[test]
fn an_example_is_attacked_alike_in_any_batch_and_order() {
    let net = SmallNet::new(3, Kind::Double);
    let (images, labels) = net.data(6, 4, Kind::Double);
    let order = Tensor::from_slice(&[3_i64, 0, 5, 1, 4, 2]);
    for attack in [Pgd::new(Ball::linf(0.05)), Pgd::new(Ball::l2(0.3)).with_restarts(2).stopping_early()] {
        let run = |places: &Tensor| {
            let (x, y) = (images.index_select(0, places), labels.index_select(0, places));
            attack.run(&net.eval(), &x, &Goal::untargeted(&y), 9).unwrap()
        };
        let whole = run(&Tensor::arange(6, (Kind::Int64, tch::Device::Cpu)));
        assert_eq!(whole.images, run(&Tensor::arange(6, (Kind::Int64, tch::Device::Cpu))).images);
        let permuted = run(&order);
        let apart =
            (whole.images.index_select(0, &order) - &permuted.images).abs().flatten(1, -1).amax([1].as_slice(), false);
        assert!(apart.max().double_value(&[]) < 1e-12, "{}: {:?}", attack.name(), values(&apart));
        let alone = run(&Tensor::from_slice(&[4_i64]));
        assert!(difference(&whole.images.narrow(0, 4, 1), &alone.images) < 1e-12);
    }
}

#[test]
fn more_restarts_never_help_the_defender() {
    let net = SmallNet::new(5, Kind::Double);
    let (images, labels) = net.data(16, 6, Kind::Double);
    let success = |restarts| {
        let attack = Pgd::new(Ball::linf(0.03)).with_steps(3).with_restarts(restarts);
        values(&attack.run(&net.eval(), &images, &Goal::untargeted(&labels), 1).unwrap().success)
    };
    let (one, three) = (success(1), success(3));
    assert!(one.iter().zip(&three).all(|(one, three)| three >= one));
    // And the case is neither trivial nor hopeless.
    let found: f64 = three.iter().sum();
    assert!(found > 0.0 && found < 16.0, "{found}");
}

#[test]
fn stopping_early_finds_at_least_what_the_last_iterate_shows_for_fewer_passes() {
    let net = SmallNet::new(5, Kind::Double);
    let (images, labels) = net.data(16, 6, Kind::Double);
    let attack = Pgd::new(Ball::linf(0.08));
    let last = attack.run(&net.eval(), &images, &Goal::untargeted(&labels), 1).unwrap();
    let early = attack.stopping_early().run(&net.eval(), &images, &Goal::untargeted(&labels), 1).unwrap();
    assert!(values(&last.success).iter().zip(values(&early.success)).all(|(last, early)| early >= *last));
    assert!(early.forward < last.forward && early.backward < last.backward);
    // What is returned is what fools.
    let fooled = net.eval()(&early.images).argmax(-1, false).ne_tensor(&labels);
    assert_eq!(values(&fooled), values(&early.success));
}

#[test]
fn a_target_is_reached_and_counts_alone() {
    let net = SmallNet::new(5, Kind::Double);
    let (images, labels) = net.data(8, 6, Kind::Double);
    let targets = (&labels + 1).remainder(5);
    for loss in [Loss::CrossEntropy, Loss::Margin, Loss::Dlr] {
        let attack = Pgd::new(Ball::linf(0.5)).with_loss(loss).with_steps(40);
        let found = attack.run(&net.eval(), &images, &Goal::targeted(&labels, &targets), 0).unwrap();
        let predicted = net.eval()(&found.images).argmax(-1, false);
        assert_eq!(values(&predicted.eq_tensor(&targets)), values(&found.success));
        assert!(found.survivors() < 1.0, "half the pixel range reaches some targets of so small a net");
    }
}

#[test]
fn a_custom_loss_is_maximised() {
    let (images, labels) = points(Kind::Double);
    // Raises the sum of all logits: weights (.5, −1.75, 1.5).
    let attack = Pgd::new(Ball::linf(0.1))
        .with_loss(Loss::custom(|logits, _| logits.sum_dim_intlist([1].as_slice(), false, Kind::Double)));
    let found = attack.run(&linear(Kind::Double), &images, &Goal::untargeted(&labels), 0).unwrap();
    let corner = Tensor::from_slice(&[0.6_f64, 0.3, 0.7, 0.12, 0.89, 0.6]).reshape([2, 3]);
    assert!(difference(&found.images, &corner) < 1e-12);
}

#[test]
fn any_loss_of_the_batch_is_maximised_and_restarts_keep_the_best() {
    // Not concave: |x − .5|; a start left of the middle climbs left. Of many restarts one starts right, where .62 − .5 at
    // the ball's right end beats .5 − .42 at its left.
    let image = Tensor::from_slice(&[0.52_f64]).reshape([1, 1]);
    let scalar = |x: &Tensor| Ok::<_, Error>((x - 0.5).abs().sum(Kind::Double));
    let each = |x: &Tensor| Ok::<_, Error>((x - 0.5).abs().squeeze_dim(1));
    let pgd = Pgd::new(Ball::linf(0.1)).with_restarts(16);
    for moved in [pgd.perturb(&image, scalar, 4).unwrap(), pgd.perturb(&image, each, 4).unwrap()] {
        assert!((moved.double_value(&[0, 0]) - 0.62).abs() < 1e-12, "{moved}");
    }
}

#[test]
fn gradients_are_asked_for_the_images_only_and_inside_no_grad_too() {
    let net = SmallNet::new(1, Kind::Float);
    let (images, labels) = net.data(2, 2, Kind::Float);
    let moved = tch::no_grad(|| {
        let loss = |x: &Tensor| Ok::<_, Error>(net.eval()(x).cross_entropy_for_logits(&labels));
        Pgd::new(Ball::linf(0.1)).with_start(Start::Image).perturb(&images, loss, 0).unwrap()
    });
    assert!(!moved.requires_grad() && difference(&moved, &images) > 0.05);
    assert!(net.fingerprint().iter().all(|(_, _, _, has_gradient)| !has_gradient));
}

#[test]
fn a_custom_loss_may_be_of_another_kind_than_the_logits() {
    let (images, labels) = points(Kind::Float);
    let model = linear(Kind::Float);
    let goal = Goal::untargeted(&labels);
    let gap =
        |kind| Loss::custom(move |logits: &Tensor, _: &Goal| (logits.select(1, 1) - logits.select(1, 0)).to_kind(kind));
    let pgd = Pgd::new(Ball::linf(0.1)).with_restarts(2);
    let found = |attack: &dyn Attack| attack.run(&model, &images, &goal, 0).unwrap();
    for (single, double) in [
        (found(&pgd.clone().with_loss(gap(Kind::Float))), found(&pgd.with_loss(gap(Kind::Double)))),
        (
            found(&Apgd { loss: gap(Kind::Float), ..Apgd::new(Ball::linf(0.1)) }),
            found(&Apgd { loss: gap(Kind::Double), ..Apgd::new(Ball::linf(0.1)) }),
        ),
    ] {
        assert_eq!(single.images, double.images);
        assert_eq!(single.loss.unwrap(), double.loss.unwrap());
    }
}

#[test]
fn input_gradients_equal_central_differences_on_a_smooth_model() {
    let weights = uniform(&[5, 4], 1, (-1.0, 1.0), Kind::Double);
    let loss = |x: &Tensor| {
        Ok::<_, Error>(x.matmul(&weights.tr()).tanh().square().sum_dim_intlist([1].as_slice(), false, Kind::Double))
    };
    let point = uniform(&[3, 4], 2, (0.0, 1.0), Kind::Double);
    let slope = crate::attack::pgd::slope(&point, 0, &mut { loss }).unwrap();
    let h = 1e-5;
    for pixel in 0..4 {
        let mut step = Tensor::zeros([3, 4], (Kind::Double, tch::Device::Cpu));
        let _ = step.select(1, pixel).fill_(h);
        let numeric = (loss(&(&point + &step)).unwrap() - loss(&(&point - &step)).unwrap()) / (2.0 * h);
        // Truncation is of the order h² = 1e-10, rounding of 1e-16 / h = 1e-11.
        assert!(difference(&numeric, &slope.select(1, pixel)) < 1e-8);
        let _ = step.zero_();
    }
}

#[test]
fn losses_take_the_hand_computed_values() {
    let value = |loss: &Loss, logits: &[f64], goal: &Goal| {
        let logits = Tensor::from_slice(logits).reshape([1, -1]);
        loss.per_example(&logits, goal, &logits).unwrap().double_value(&[0])
    };
    let label = Tensor::from_slice(&[0_i64]);
    let untargeted = Goal::untargeted(&label);
    for (logits, expected) in
        [([3.0, 1.0, 0.5, -1.0], -0.8), ([1.0, 3.0, 0.5, -1.0], 0.8), ([2.0, 2.0, 0.0, -1.0], 0.0)]
    {
        assert!((value(&Loss::Dlr, &logits, &untargeted) - expected).abs() < 1e-9);
    }
    // (z_y − z_t) / (z₁ − (z₃ + z₄) / 2): 2 / 3.25, −2 / 3.25, and 2 / 2.5.
    let cases = [
        ([3.0, 1.0, 0.5, -1.0], 1_i64, -2.0 / 3.25),
        ([1.0, 3.0, 0.5, -1.0], 1, 2.0 / 3.25),
        ([2.0, 2.0, 0.0, -1.0], 2, -0.8),
    ];
    for (logits, target, expected) in cases {
        let goal = Goal::targeted(&label, &Tensor::from_slice(&[target]));
        assert!((value(&Loss::Dlr, &logits, &goal) - expected).abs() < 1e-9);
    }
    for (logits, expected) in [([3.0, 1.0, 0.5], -2.0), ([1.0, 3.0, 0.5], 2.0), ([-1.0, -2.0, -3.0], -1.0)] {
        assert!((value(&Loss::Margin, &logits, &untargeted) - expected).abs() < 1e-12);
    }
}

#[test]
fn margin_and_dlr_ignore_shifts_and_dlr_ignores_scales_but_cross_entropy_does_not() {
    let logits = uniform(&[8, 5], 3, (-2.0, 2.0), Kind::Double);
    let labels = Tensor::from_slice(&[0_i64, 1, 2, 3, 4, 0, 1, 2]);
    let targets = (&labels + 1).remainder(5);
    for goal in [Goal::untargeted(&labels), Goal::targeted(&labels, &targets)] {
        let value = |loss: &Loss, logits: &Tensor| loss.per_example(logits, &goal, logits).unwrap();
        for loss in [Loss::CrossEntropy, Loss::Margin, Loss::Dlr] {
            assert!(difference(&value(&loss, &logits), &value(&loss, &(&logits + 50.0))) < 1e-10, "{loss:?}");
        }
        assert!(difference(&value(&Loss::Dlr, &logits), &value(&Loss::Dlr, &(&logits * 30.0))) < 1e-9);
        assert!(difference(&value(&Loss::CrossEntropy, &logits), &value(&Loss::CrossEntropy, &(&logits * 30.0))) > 1.0);
    }
}

#[test]
fn the_divergence_of_trades_is_zero_only_at_equal_probabilities() {
    let clean = Tensor::from_slice(&[2.0, 0.0, -1.0, 0.0, 1.0, 0.0]).reshape([2, 3]);
    let moved = Tensor::from_slice(&[1.0, 0.5, -1.0, 0.5, 0.5, 0.0]).reshape([2, 3]);
    let goal = Goal::untargeted(&Tensor::from_slice(&[0_i64, 1]));
    let value = |logits: &Tensor| Loss::KullbackLeibler.per_example(logits, &goal, &clean).unwrap();
    // Mean over the two: .1302355362, from an independent computation in double precision.
    assert!((value(&moved).mean(Kind::Double).double_value(&[]) - 0.130_235_536_2).abs() < 1e-9);
    assert!(value(&(&clean + 3.0)).abs().max().double_value(&[]) < 1e-12);
}

#[test]
fn a_gradient_that_is_one_number_for_all_pixels_is_averaged_too() {
    // libtorch spreads the gradient of a sum over the pixels without storing it once for each.
    let weights = Tensor::from_slice(&[1.0, -1.0]).reshape([1, 2]);
    let model = |x: &Tensor| x.sum_dim_intlist([1].as_slice(), true, Kind::Double) * &weights;
    let (images, labels) = points(Kind::Double);
    let run = |attack: &dyn Attack| attack.run(&model, &images, &Goal::untargeted(&labels), 0).unwrap().images;
    let (pgd, apgd) = (Pgd::new(Ball::linf(0.1)), Apgd::new(Ball::linf(0.1)).with_steps(5));
    // Of a model that is not random the mean of two passes is either of them.
    assert_eq!(run(&pgd), run(&Pgd { passes: 2, ..pgd.clone() }));
    assert_eq!(run(&apgd), run(&Apgd { passes: 2, ..apgd.clone() }));
}

#[test]
fn a_model_that_wants_normalised_images_gets_them() {
    let images = Tensor::from_slice(&[0.5, 0.75, 0.2, 0.4]).reshape([1, 2, 1, 2]);
    let model = Normalized::new(|x: &Tensor| x.flatten(1, -1), &[0.5, 0.4], &[0.25, 0.2]).unwrap();
    // Of the first channel (.5 − .5) / .25 and (.75 − .5) / .25, of the second (.2 − .4) / .2 and (.4 − .4) / .2; means
    // and deviations are given in single precision.
    let expected = Tensor::from_slice(&[0.0, 1.0, -1.0, 0.0]).reshape([1, 4]);
    // Twice in either precision, whichever comes first.
    for kind in [Kind::Double, Kind::Float, Kind::Double, Kind::Float] {
        let logits = model.logits(&images.to_kind(kind));
        assert!(logits.kind() == kind && difference(&logits, &expected) < 1e-6);
    }
}

#[test]
fn crafting_in_training_mode_would_be_weaker_and_is_refused() {
    let net = SmallNet::new(1, Kind::Float);
    let (images, labels) = net.data(8, 2, Kind::Float);
    let refused = Pgd::new(Ball::linf(0.1)).run(&net.train(), &images, &Goal::untargeted(&labels), 0);
    assert!(matches!(refused, Err(Error::TrainingMode { difference }) if difference > 0.01), "{refused:?}");
}

#[test]
fn an_ascent_from_a_given_point_begins_at_its_projection() {
    let net = SmallNet::new(1, Kind::Float);
    let (images, labels) = net.data(4, 2, Kind::Float);
    let loss = |x: &Tensor| Ok::<_, Error>(net.eval()(x).cross_entropy_for_logits(&labels));
    for (norm, radius) in [(Norm::Linf, 0.05), (Norm::L2, 0.3), (Norm::L1, 1.0)] {
        let ball = Ball::new(norm, radius);
        let pgd = Pgd { momentum: 0.5, ..Pgd::new(ball).with_steps(5) };
        let at_the_image = pgd.clone().with_start(Start::Image).perturb(&images, loss, 0).unwrap();
        assert_eq!(pgd.perturb_from(&images, &images, loss).unwrap(), at_the_image, "{norm:?}");
        // Steps of no length stay at the start.
        let outside = &images + uniform(&[4, 1, 6, 6], 3, (-1.0, 1.0), Kind::Float);
        let still = pgd.clone().with_step_size(0.0).perturb_from(&images, &outside, loss).unwrap();
        // Every step projects once more, which rounds in L2 and L1.
        assert!(difference(&still, &ball.project(&images, &outside).unwrap()) < 1e-6, "{norm:?}");
        // And steps of some length climb from there.
        let moved = pgd.perturb_from(&images, &still, loss).unwrap();
        assert!(loss(&moved).unwrap().double_value(&[]) > loss(&still).unwrap().double_value(&[]), "{norm:?}");
        assert!(norm.size(&(moved - &images)).max().double_value(&[]) <= radius * (1.0 + 1e-6) + 1.2e-7);
    }
    let pgd = Pgd::new(Ball::linf(0.05));
    for wrong in [images.narrow(0, 0, 3), images.to_kind(Kind::Double), images.to_kind(Kind::Uint8)] {
        let refused = pgd.perturb_from(&images, &wrong, loss);
        assert!(matches!(refused, Err(Error::Images { .. })), "{refused:?}");
    }
    let refused = pgd.with_restarts(2).perturb_from(&images, &images, loss);
    assert!(matches!(refused, Err(Error::Setting { setting: "restarts", .. })));
}

#[test]
fn logits_of_another_kind_than_the_images_give_what_the_images_kind_gives() {
    let (single, double) = (SmallNet::new(5, Kind::Float), SmallNet::new(5, Kind::Double));
    let (images, labels) = single.data(12, 6, Kind::Float);
    let wide = |x: &Tensor| double.eval()(&x.to_kind(Kind::Double));
    let ball = Ball::linf(0.03);
    let members: Vec<Box<dyn Attack>> = vec![
        Box::new(Apgd::dlr(ball).with_steps(10)),
        Box::new(Fab { steps: 5, ..Fab::untargeted(ball) }),
        Box::new(Square::new(ball).with_queries(20)),
    ];
    let attacks: [Box<dyn Attack>; 4] = [
        Box::new(Pgd::new(ball).with_steps(5)),
        Box::new(Pgd::new(ball).with_restarts(2).with_steps(5).stopping_early()),
        Box::new(Apgd::new(ball).with_steps(10)),
        Box::new(AutoAttack::of(ball, members).unwrap()),
    ];
    for attack in attacks {
        let run = |model: &dyn Classifier| attack.run(model, &images, &Goal::untargeted(&labels), 1).unwrap();
        let (found, expected) = (run(&wide), run(&single.eval()));
        assert_eq!(values(&found.success), values(&expected.success), "{}", attack.name());
        assert_eq!(found.images.kind(), Kind::Float);
        let apart = difference(&found.images, &expected.images);
        assert!(apart < 1e-5, "{}: {apart}", attack.name());
    }
}

#[test]
fn the_look_for_training_mode_allows_for_the_rounding_of_half_precision() {
    let (images, labels) = points(Kind::Float);
    // An image alone is rounded to the next number up or down, or by far more.
    let run = |kind: Kind, share: f64| {
        let model = |x: &Tensor| {
            let factor = if x.size()[0] == 1 { 1.0 + share } else { 1.0 };
            (linear(Kind::Float)(x) * factor).to_kind(kind)
        };
        Pgd::new(Ball::linf(0.1)).with_steps(2).run(&model, &images, &Goal::untargeted(&labels), 0)
    };
    for (kind, digit) in [(Kind::BFloat16, 1.0 / 128.0), (Kind::Half, 1.0 / 1024.0), (Kind::Float, 1e-7)] {
        assert!(run(kind, digit).is_ok(), "{kind:?}");
        assert!(matches!(run(kind, 0.1), Err(Error::TrainingMode { .. })), "{kind:?}");
    }
}
