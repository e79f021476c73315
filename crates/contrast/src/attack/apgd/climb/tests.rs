use super::*;
use crate::attack::tests::models::{SmallNet, values};
use crate::attack::{Ball, Loss};
use proptest::prelude::*;
use tch::Device;

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// Of images of one pixel: the first logit is `−(x − 0.53)²`, the second 0.
fn hill(images: &Tensor) -> Tensor {
    Tensor::cat(&[(images - 0.53).square().neg(), images.zeros_like()], 1)
}

/// Climbs the first logit.
fn hill_climb(ball: Ball) -> Apgd {
    Apgd { loss: Loss::custom(|logits, _| logits.select(1, 0)), ..Apgd::new(ball) }
}

fn all_of_class_0(count: usize) -> Goal {
    Goal::untargeted(&Tensor::from_slice(&vec![0_i64; count]))
}

#[test]
fn step_sizes_of_one_pixel_worked_out_by_hand() {
    let config = hill_climb(Ball::linf(0.1)).with_steps(10);
    let (clean, goal) = (Tensor::full([1, 1], 0.5, DOUBLE), all_of_class_0(1));
    let subject = Subject::new(&hill, &config.ball, &clean, &goal).unwrap();
    let climber = Climber { config: &config, subject: &subject, count_success: false, fresh: false };
    let (mut state, _) = climber.begin(&clean, clean.shallow_clone(), &goal).unwrap();
    // The summit is at .53, the ball ends at .4 and .6. In the first row a whole step, .5 + .2 cut to .6; then three quarters
    // of a step and a quarter of the last one: .6 + .75 (.4 − .6) + .25 (.6 − .5) = .475. Up to there the loss rose once in two
    // steps, so the next starts from the best point, .5, with half the step: .5 + .75 · .1 + .25 (.5 − .6) = .55. And so on.
    let expected = [
        (0.2, 0.6),
        (0.2, 0.475),
        (0.1, 0.55),
        (0.1, 0.4875),
        (0.05, 0.5125),
        (0.05, 0.540_625),
        (0.05, 0.510_156_25),
        (0.025, 0.521_875),
        (0.025, 0.535_937_5),
        (0.025, 0.520_703_125),
    ];
    let mut before = 0;
    for (step, (eta, point)) in expected.into_iter().enumerate() {
        if config.checkpoints().contains(&step) {
            climber.review(&mut state, step - before);
            before = step;
        }
        // Halving is exact.
        assert_eq!(values(&state.eta), [eta], "step {step}");
        let _ = climber.advance(&mut state, &goal, step).unwrap();
        let found = state.point.double_value(&[0, 0]);
        assert!((found - point).abs() < 1e-12, "step {step}: {found} for {point}");
    }
}

#[test]
fn a_step_is_halved_where_the_loss_oscillates_or_is_stuck() {
    // (rises in a window of four, whether the step was reduced before, the best loss then and now), and whether it is halved.
    let cases = [
        (4_i64, false, 1.0, 2.0, false),
        // Three is not more than ρ · 4.
        (3, false, 1.0, 2.0, true),
        (0, true, 1.0, 2.0, true),
        // Rising from below a best point that did not get better.
        (4, false, 1.0, 1.0, true),
        // The same, but the step has just been reduced.
        (4, true, 1.0, 1.0, false),
    ];
    let config = hill_climb(Ball::linf(0.1));
    let (clean, goal) = (Tensor::full([5, 1], 0.5, DOUBLE), all_of_class_0(5));
    let subject = Subject::new(&hill, &config.ball, &clean, &goal).unwrap();
    let climber = Climber { config: &config, subject: &subject, count_success: false, fresh: false };
    let (mut state, _) = climber.begin(&clean, clean.shallow_clone(), &goal).unwrap();
    state.rises = Tensor::from_slice(&cases.map(|case| case.0));
    state.reduced = Tensor::from_slice(&cases.map(|case| case.1));
    state.best_then = Tensor::from_slice(&cases.map(|case| case.2));
    state.best_loss = Tensor::from_slice(&cases.map(|case| case.3));
    (state.point, state.gradient) = (Tensor::full([5, 1], 0.55, DOUBLE), Tensor::ones([5, 1], DOUBLE));
    (state.best, state.best_gradient) = (Tensor::full([5, 1], 0.45, DOUBLE), Tensor::full([5, 1], -1.0, DOUBLE));

    climber.review(&mut state, 4);
    let halved = cases.map(|case| case.4);
    assert_eq!(values(&state.eta), halved.map(|halved| if halved { 0.1 } else { 0.2 }));
    assert_eq!(values(&state.point), halved.map(|halved| if halved { 0.45 } else { 0.55 }));
    assert_eq!(values(&state.gradient), halved.map(|halved| if halved { -1.0 } else { 1.0 }));
    assert_eq!(values(&state.reduced), halved.map(f64::from));
    assert_eq!(values(&state.best_then), [2.0, 2.0, 2.0, 1.0, 1.0]);
    assert_eq!(values(&state.rises), [0.0; 5]);

    // Four more rises that lead to nothing better: stuck, but for those whose step has just been halved.
    state.rises = Tensor::full([5], 4_i64, (Kind::Int64, Device::Cpu));
    climber.review(&mut state, 4);
    assert_eq!(values(&state.reduced), halved.map(|halved| f64::from(!halved)));
    assert_eq!(values(&state.eta), [0.1; 5]);
}

#[test]
fn in_the_l1_ball_a_step_shrinks_until_fewer_pixels_move() {
    let config = hill_climb(Ball::l1(1.0));
    let (clean, goal) = (Tensor::full([1, 4], 0.5, DOUBLE), all_of_class_0(1));
    let model = |images: &Tensor| images.narrow(1, 0, 2);
    let subject = Subject::new(&model, &config.ball, &clean, &goal).unwrap();
    let climber = Climber { config: &config, subject: &subject, count_success: false, fresh: true };
    let (mut state, _) = climber.begin(&clean, clean.shallow_clone(), &goal).unwrap();
    assert_eq!((values(&state.eta), values(&state.share)), (vec![1.0], vec![0.2]));
    // The best point moves two of the four pixels: a whole step again, of a third of the pixels, from there.
    state.best = Tensor::from_slice(&[0.6, 0.6, 0.5, 0.5]).view([1, 4]);
    climber.review(&mut state, 4);
    assert_eq!((values(&state.eta), values(&state.point)), (vec![1.0], vec![0.6, 0.6, 0.5, 0.5]));
    assert!((state.share.double_value(&[0]) - 1.0 / 3.0).abs() < 1e-15);
    // As many as before: two thirds of the step each time, down to a tenth of the budget, and on from where it is.
    state.point = clean.shallow_clone();
    for reviews in 1..=7 {
        climber.review(&mut state, 4);
        let expected = 1.5_f64.powi(-reviews).max(0.1);
        assert!((state.eta.double_value(&[0]) - expected).abs() < 1e-15, "{reviews}: {}", state.eta);
        assert_eq!(state.point, clean);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_best_loss_never_falls_and_steps_are_only_halved(seed in 0_u64..1000, euclidean in proptest::bool::ANY, steps in 1_usize..40) {
        let net = SmallNet::new(seed, Kind::Double);
        let (clean, labels) = net.data(3, seed, Kind::Double);
        let ball = if euclidean { Ball::l2(0.4) } else { Ball::linf(0.05) };
        let config = Apgd::new(ball).with_steps(steps);
        let goal = Goal::untargeted(&labels);
        let model = net.eval();
        let subject = Subject::new(&model, &ball, &clean, &goal).unwrap();
        let climber = Climber { config: &config, subject: &subject, count_success: false, fresh: false };
        let (mut state, _) = climber.begin(&clean, clean.shallow_clone(), &goal).unwrap();
        let (checkpoints, mut last) = (config.checkpoints(), 0);
        let mut highest = values(&state.loss);
        for step in 0..=steps {
            let (eta, best) = (values(&state.eta), values(&state.best_loss));
            if checkpoints.contains(&step) {
                climber.review(&mut state, step - last);
                last = step;
            }
            prop_assert_eq!(&values(&state.best_loss), &best);
            for (example, (&now, &before)) in values(&state.eta).iter().zip(&eta).enumerate() {
                let halved = now == before / 2.0;
                prop_assert!(halved || now == before);
                prop_assert!(!halved || last == step);
                let at = example as i64;
                prop_assert!(!halved || state.point.get(at) == state.best.get(at));
            }
            if step == steps {
                break;
            }
            let eta = values(&state.eta);
            let _ = climber.advance(&mut state, &goal, step).unwrap();
            prop_assert_eq!(values(&state.eta), eta);
            highest.iter_mut().zip(values(&state.loss)).for_each(|(highest, loss)| *highest = highest.max(loss));
            prop_assert_eq!(&values(&state.best_loss), &highest);
        }
        // And that is what the climb itself comes to.
        let mut found = Found::new(&clean);
        let all = Standing::all(3, Device::Cpu);
        climber.climb(all, &clean, goal.shallow_clone(), goal.shallow_clone(), clean.shallow_clone(), &mut found).unwrap();
        prop_assert_eq!(&values(&found.loss), &highest);
        prop_assert_eq!(&found.images, &state.best);
    }
}
