//! APGD, FAB, CW, Square and their ensemble.

use super::models::{SmallNet, difference, flipping, linear, points, uniform, values};
use crate::attack::{
    Adversarial, Aim, Apgd, ApgdTargeted, Attack, AutoAttack, Ball, CwL2, Error, Evaluator, Fab, Goal, Interim, Loss,
    Norm, Pgd, RandomPoints, Result, Square, Stage, Stochastic, Variable, Version,
};
use tch::{Kind, Tensor};

fn attack(attack: &dyn Attack, net: &SmallNet, data: &(Tensor, Tensor), seed: u64) -> Adversarial {
    attack.run(&net.eval(), &data.0, &Goal::untargeted(&data.1), seed).unwrap()
}

/// Small editions of every attack of the room.
fn all(ball: Ball) -> Vec<Box<dyn Attack>> {
    let mut all: Vec<Box<dyn Attack>> = vec![
        Box::new(Pgd::new(ball).with_steps(4)),
        Box::new(Apgd::new(ball).with_steps(12)),
        Box::new(Apgd::dlr(ball).with_steps(12).with_restarts(2)),
        Box::new(ApgdTargeted { apgd: Apgd::dlr(ball).with_steps(6), targets: 2 }),
        Box::new(Fab { steps: 6, targets: 2, restarts: 2, ..Fab::new(ball) }),
        Box::new(Fab { steps: 4, restarts: 2, aim: Aim::Nearest, ..Fab::new(ball) }),
        Box::new(Square::new(ball).with_queries(30)),
        Box::new(RandomPoints::new(ball, 5)),
    ];
    if ball.norm == Norm::L2 {
        all.push(Box::new(CwL2 { ball, steps: 20, search_steps: 3, ..CwL2::new(1.0) }));
        all.push(Box::new(CwL2 { ball, steps: 20, search_steps: 3, ..CwL2::new(1.0).clipped() }));
    }
    all
}

fn radii(norm: Norm) -> [f64; 3] {
    match norm {
        Norm::Linf => [0.0, 0.04, 0.6],
        Norm::L2 => [0.0, 0.3, 4.0],
        Norm::L1 => [0.0, 1.0, 12.0],
    }
}

#[test]
fn every_attack_keeps_ball_box_and_model() {
    let net = SmallNet::new(1, Kind::Float);
    let (images, _) = net.data(5, 2, Kind::Float);
    // Some pixels lie at the ends of the box.
    let images = (images * 2.0 - 0.5).clamp(0.0, 1.0);
    let labels = net.eval()(&images).argmax(-1, false);
    let before = net.fingerprint();
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        for radius in radii(norm) {
            for attack in all(Ball::new(norm, radius)) {
                let found = attack.run(&net.eval(), &images, &Goal::untargeted(&labels), 5).unwrap();
                let name = attack.name();
                let size = norm.size(&(&found.images - &images)).max().double_value(&[]);
                assert!(size <= radius * (1.0 + 1e-6) + 1.2e-7, "{name} ε {radius}: {size}");
                assert!(found.images.min().double_value(&[]) >= 0.0 && found.images.max().double_value(&[]) <= 1.0);
                if radius == 0.0 {
                    assert_eq!(found.images, images, "{name}");
                }
                // Success is what the model says of the images that came back.
                let fooled = net.eval()(&found.images).argmax(-1, false).ne_tensor(&labels);
                assert_eq!(values(&found.success), values(&fooled), "{name} ε {radius}");
            }
        }
    }
    assert_eq!(net.fingerprint(), before);
}

#[test]
fn every_attack_repeats_itself_and_ignores_the_batch_around_an_example() {
    let net = SmallNet::new(3, Kind::Double);
    let (images, labels) = net.data(6, 4, Kind::Double);
    let order = Tensor::from_slice(&[3_i64, 0, 5, 1, 4, 2]);
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        for attack in all(Ball::new(norm, radii(norm)[1])) {
            let run = |places: &Tensor| {
                let (x, y) = (images.index_select(0, places), labels.index_select(0, places));
                attack.run(&net.eval(), &x, &Goal::untargeted(&y), 9).unwrap()
            };
            let in_order = Tensor::arange(6, (Kind::Int64, tch::Device::Cpu));
            let whole = run(&in_order);
            assert_eq!(whole.images, run(&in_order).images, "{}", attack.name());
            // Another batch size rounds otherwise, by 1e-16 a step.
            let apart = difference(&whole.images.index_select(0, &order), &run(&order).images);
            assert!(apart < 1e-11, "{}: {apart}", attack.name());
            let alone = difference(&whole.images.narrow(0, 4, 1), &run(&Tensor::from_slice(&[4_i64])).images);
            assert!(alone < 1e-11, "{}: {alone}", attack.name());
        }
    }
}

#[test]
fn apgd_reaches_the_corner_of_a_linear_model() {
    let (images, labels) = points(Kind::Double);
    let corner = Tensor::from_slice(&[0.4_f64, 0.5, 0.7, 0.12, 0.89, 0.4]).reshape([2, 3]);
    let goal = Goal::untargeted(&labels);
    for loss in [Loss::CrossEntropy, Loss::Margin] {
        let apgd = Apgd { loss, ..Apgd::new(Ball::linf(0.1)) };
        let found = apgd.run(&linear(Kind::Double), &images, &goal, 0).unwrap();
        // The first is fooled from the start on and may stop anywhere; the second withstands, at the best point.
        assert!(difference(&found.images.get(1), &corner.get(1)) < 1e-9, "{}", found.images);
        assert_eq!(values(&found.success), [1.0, 0.0]);
    }
    // m = 1.4275 − 1.0 … of x₂ is out of reach in every norm; the least margin is m − ε‖w‖ with the dual norm.
    let second = images.narrow(0, 1, 1);
    let logits = values(&linear(Kind::Double)(&second));
    for (norm, dual) in [(Norm::Linf, 4.25), (Norm::L2, 2.75), (Norm::L1, 2.25)] {
        let apgd = Apgd { loss: Loss::Margin, ..Apgd::new(Ball::new(norm, 0.1)) };
        let found = apgd.run(&linear(Kind::Double), &second, &Goal::untargeted(&labels.narrow(0, 1, 1)), 0).unwrap();
        let reached = values(&linear(Kind::Double)(&found.images));
        let expected = logits[1] - logits[0] - 0.1 * dual;
        assert!((reached[1] - reached[0] - expected).abs() < 1e-3, "{norm:?}: {reached:?} for {expected}");
    }
}

#[test]
fn apgd_looks_at_its_steps_when_the_paper_says() {
    let at = |steps| Apgd::new(Ball::linf(0.1)).with_steps(steps).checkpoints();
    assert_eq!(at(10), [2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(at(50), [11, 21, 30, 38, 45]);
    assert_eq!(at(100), [22, 41, 57, 70, 80, 87, 93, 99]);
    assert_eq!(at(20), [4, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    // p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j − p_{j−1} − 0.03, 0.06): whole steps where 100 divides their number.
    for hundreds in 1..6_u32 {
        let (mut before, mut share, mut expected) = (0.0_f64, 0.22_f64, Vec::new());
        while share < 1.0 + 1e-9 {
            expected.push((share * 100.0 * f64::from(hundreds)).round() as usize);
            (before, share) = (share, share + (share - before - 0.03).max(0.06));
        }
        assert_eq!(at(100 * hundreds as usize), expected);
    }
}

#[test]
fn minimum_norm_attacks_find_the_distance_to_the_boundary() {
    // W = [[1, −2, .5], [0, 0, 0]], b = (.3, 0), x = (.5, .25, .5): margin .55, so L∞ .55/3.5, L2 .55/√5.25, L1 .55/2.
    let weights = Tensor::from_slice(&[1.0, -2.0, 0.5, 0.0, 0.0, 0.0]).reshape([2, 3]);
    let bias = Tensor::from_slice(&[0.3, 0.0]);
    let model = |x: &Tensor| x.matmul(&weights.tr()) + &bias;
    let image = Tensor::from_slice(&[0.5, 0.25, 0.5]).reshape([1, 3]);
    let goal = Goal::untargeted(&Tensor::from_slice(&[0_i64]));
    for (norm, least) in [(Norm::Linf, 0.157_142_857_1), (Norm::L2, 0.240_039_679_6), (Norm::L1, 0.275)] {
        let found = Fab::new(Ball::new(norm, 3.0)).minimising().run(&model, &image, &goal, 0).unwrap();
        let distance = found.distance.double_value(&[0]);
        assert!(distance >= least && distance <= least * 1.01, "FAB {norm:?}: {distance} for {least}");
        // Out of reach: no success, and the image as it was.
        let found = Fab::new(Ball::new(norm, 0.9 * least)).run(&model, &image, &goal, 0).unwrap();
        assert_eq!((found.success.int64_value(&[0]), found.distance.double_value(&[0])), (0, 0.0));
    }
    for variable in [Variable::Tanh, Variable::Clipped] {
        let cw = CwL2 { variable, steps: 300, ..CwL2::new(3.0) };
        let distance = cw.run(&model, &image, &goal, 0).unwrap().distance.double_value(&[0]);
        assert!((0.240_039_67..=0.240_039_68 * 1.01).contains(&distance), "{variable:?}: {distance}");
    }
}

#[test]
fn untargeted_fab_finds_the_nearest_of_all_boundaries() {
    // z_0 = 0 and z_c = w_c · (x − ½) − m_c with m = (.2, .3, .36): the boundaries lie at m_c / ‖w_c‖ in the dual norm,
    // Linf (.2, .1, .18), L2 (.2, .3/√3, .18), L1 (.2, .3, .18). The largest wrong logit, class 1, is the nearest nowhere.
    let weights = Tensor::from_slice(&[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 2.0]).reshape([4, 3]);
    let margins = Tensor::from_slice(&[0.0, 0.2, 0.3, 0.36]);
    let model = |x: &Tensor| (x - 0.5).matmul(&weights.tr()) - &margins;
    let image = Tensor::full([1, 3], 0.5, (Kind::Double, tch::Device::Cpu));
    let goal = Goal::untargeted(&Tensor::from_slice(&[0_i64]));
    for (norm, least) in [(Norm::Linf, 0.1), (Norm::L2, 0.3 / 3.0_f64.sqrt()), (Norm::L1, 0.18)] {
        let ball = Ball::new(norm, 1.5);
        let found = Fab::untargeted(ball).minimising().run(&model, &image, &goal, 0).unwrap();
        let distance = found.distance.double_value(&[0]);
        assert!(distance >= least && distance <= least * 1.01, "{norm:?}: {distance} for {least}");
        // Three images of the first look, the clean one, and two looks a step; a step's backward pass for each class.
        assert_eq!((found.forward, found.backward), (3 + 1 + 100 * 2, 100 * 4));
        let nearest_logit = Fab { targets: 1, ..Fab::new(ball) }.minimising().run(&model, &image, &goal, 0).unwrap();
        assert!(nearest_logit.distance.double_value(&[0]) > least * 1.01, "{norm:?}");
        // A goal that names its class is attacked on that one.
        let far = Goal::targeted(goal.labels(), &Tensor::from_slice(&[1_i64]));
        let found = Fab::untargeted(ball).minimising().run(&model, &image, &far, 0).unwrap();
        let distance = found.distance.double_value(&[0]);
        assert!(distance >= 0.2, "{norm:?}: {distance}");
    }
}

#[test]
fn a_goal_that_names_its_class_is_reached_by_that_class_alone() {
    // The model of the test above: class 3 comes first where the last pixel has risen by .18. Class 2 is nearer in Linf and
    // L2, at .1 and .173; class 1 has the largest of the wrong logits.
    let weights = Tensor::from_slice(&[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 2.0]).reshape([4, 3]);
    let margins = Tensor::from_slice(&[0.0, 0.2, 0.3, 0.36]);
    let model = |x: &Tensor| (x - 0.5).matmul(&weights.tr()) - &margins;
    let image = Tensor::full([1, 3], 0.5, (Kind::Double, tch::Device::Cpu));
    let goal = Goal::targeted(&Tensor::from_slice(&[0_i64]), &Tensor::from_slice(&[3_i64]));
    let run = |attack: &dyn Attack| {
        let found = attack.run(&model, &image, &goal, 0).unwrap();
        assert_eq!(values(&found.success), [1.0], "{}", attack.name());
        assert_eq!(model(&found.images).argmax(-1, false).int64_value(&[0]), 3, "{}", attack.name());
        found.distance.double_value(&[0])
    };
    let ball = Ball::linf(0.19);
    let apgd = Apgd { loss: Loss::Margin, ..Apgd::new(ball) };
    let attacks: [Box<dyn Attack>; 6] = [
        Box::new(Pgd::new(ball).with_loss(Loss::Margin).stopping_early()),
        Box::new(apgd.clone()),
        Box::new(ApgdTargeted { apgd, targets: 9 }),
        Box::new(Fab::new(ball)),
        Box::new(Fab::untargeted(ball)),
        Box::new(Square::new(ball).with_queries(200)),
    ];
    for attack in attacks {
        let distance = run(attack.as_ref());
        assert!((0.179_999..0.190_001).contains(&distance), "{}: {distance}", attack.name());
    }
    for variable in [Variable::Tanh, Variable::Clipped] {
        // No step of Adam is much longer than its learning rate of .01.
        let distance = run(&CwL2 { variable, steps: 300, ..CwL2::new(1.0) });
        assert!((0.179_999..0.19).contains(&distance), "{variable:?}: {distance}");
    }
}

#[test]
fn the_loss_of_the_square_attack_is_that_of_the_images_it_returns() {
    // From query to query only the windows that have changed are written into the batch.
    let net = SmallNet::new(5, Kind::Float);
    let data = net.data(12, 6, Kind::Float);
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        let square = Square::new(Ball::new(norm, radii(norm)[1])).with_queries(60);
        let found = attack(&square, &net, &data, 3);
        let logits = net.eval()(&found.images);
        let expected = Loss::Margin.per_example(&logits, &Goal::untargeted(&data.1), &logits).unwrap();
        // Another batch size rounds otherwise, by some 1e-6.
        assert!(difference(&found.loss.unwrap(), &expected) < 1e-4, "{norm:?}");
    }
}

#[test]
fn only_the_clipped_variable_moves_a_pixel_off_the_end_of_the_box() {
    // One pixel at 0 must rise to .25; with tanh its gradient is 2e-6 of what it should be.
    let model = |x: &Tensor| Tensor::cat(&[Tensor::zeros_like(x), (x - 0.25) * 10.0], 1);
    let goal = Goal::untargeted(&Tensor::from_slice(&[0_i64]));
    let image = Tensor::zeros([1, 1], (Kind::Double, tch::Device::Cpu));
    let run = |cw: CwL2| CwL2 { steps: 300, ..cw }.run(&model, &image, &goal, 0).unwrap();
    let found = run(CwL2::new(1.0).clipped());
    assert!((0.25..0.2525).contains(&found.distance.double_value(&[0])), "{:?}", found.distance);
    let inside = Tensor::full([1, 1], 0.1, (Kind::Double, tch::Device::Cpu));
    let tanh = CwL2 { steps: 300, ..CwL2::new(1.0) }.run(&model, &inside, &goal, 0).unwrap();
    assert!((0.15..0.1515).contains(&tanh.distance.double_value(&[0])), "{:?}", tanh.distance);
}

#[test]
fn logits_that_are_all_negative_do_not_blunt_cw() {
    // The label's logit times zero would beat every negative logit, and the attack would think that it had won.
    let model = |x: &Tensor| linear(Kind::Double)(x) - 50.0;
    let (images, labels) = points(Kind::Double);
    let second = images.narrow(0, 1, 1);
    let goal = Goal::untargeted(&labels.narrow(0, 1, 1));
    let cw = CwL2 { steps: 200, ..CwL2::new(2.0) };
    let shifted = cw.run(&model, &second, &goal, 0).unwrap();
    let plain = cw.run(&linear(Kind::Double), &second, &goal, 0).unwrap();
    assert_eq!(values(&shifted.success), [1.0]);
    assert!(difference(&shifted.distance, &plain.distance) < 1e-6);
}

#[test]
fn windows_of_the_square_attack_shrink_as_published() {
    let square = Square::new(Ball::linf(0.1));
    let sides = [0, 11, 51, 201, 501, 1001, 2001, 4001].map(|query| square.side(query, 32, 32));
    assert_eq!(sides, [29, 20, 14, 10, 7, 5, 4, 3]);
    // The table is for 10 000 queries; rescaled to 1 000, query 401 is its 4 010th.
    let rescaled = Square { rescale: true, queries: 1000, ..square };
    assert_eq!((rescaled.side(5, 32, 32), rescaled.side(401, 32, 32)), (20, 3));
}

#[test]
fn the_square_attack_needs_no_gradient_and_reaches_the_last_row() {
    // Only the last pixel of the last row counts.
    let model = |x: &Tensor| {
        let last = x.select(3, 5).select(2, 5).detach();
        Tensor::cat(&[Tensor::zeros_like(&last), (last - 0.55) * 10.0], 1)
    };
    let images = Tensor::full([1, 1, 6, 6], 0.5, (Kind::Double, tch::Device::Cpu));
    let goal = Goal::untargeted(&Tensor::from_slice(&[0_i64]));
    let found = |seed| Square::new(Ball::linf(0.1)).with_queries(400).run(&model, &images, &goal, seed).unwrap();
    assert!((0..8).all(|seed| found(seed).survivors() == 0.0));
}

#[test]
fn stronger_attacks_leave_no_more_standing() {
    let net = SmallNet::new(5, Kind::Double);
    let data = net.data(24, 6, Kind::Double);
    let ball = Ball::linf(0.03);
    let standing = |attack_: &dyn Attack| attack(attack_, &net, &data, 0).survivors();
    let fgsm = standing(&Pgd::fgsm(ball));
    let pgd = standing(&Pgd::new(ball).stopping_early());
    let apgd = standing(&Apgd::new(ball));
    let ensemble = AutoAttack::of(
        ball,
        vec![
            Box::new(Apgd::new(ball)),
            Box::new(ApgdTargeted { targets: 4, apgd: Apgd::dlr(ball).with_steps(30) }),
            Box::new(Fab { steps: 20, ..Fab::new(ball) }),
            Box::new(Square::new(ball).with_queries(200)),
        ],
    );
    let auto = standing(&ensemble.unwrap());
    assert!(1.0 > fgsm && fgsm >= pgd && pgd >= apgd && apgd >= auto && auto > 0.0, "{fgsm} {pgd} {apgd} {auto}");
    // On so small and smooth a model the gradient attacks leave nothing for the others to find.
    assert!((apgd - auto).abs() < 0.1);
}

#[test]
fn the_ensemble_counts_what_each_attack_adds_and_gives_the_same_in_any_chunks() {
    let net = SmallNet::new(5, Kind::Double);
    let (images, mut labels) = net.data(10, 6, Kind::Double);
    // The first is wrong to begin with.
    labels = Tensor::cat(&[(labels.narrow(0, 0, 1) + 1).remainder(5), labels.narrow(0, 1, 9)], 0);
    let ball = Ball::linf(0.03);
    let run = |batch| {
        let attacks: Vec<Box<dyn Attack>> =
            vec![Box::new(Apgd::new(ball).with_steps(20)), Box::new(Square::new(ball).with_queries(50))];
        let ensemble = AutoAttack::of(ball, attacks).unwrap().with_batch(batch);
        ensemble.run_in_stages(&net.eval(), &images, &Goal::untargeted(&labels), 3).unwrap()
    };
    let (whole, stages) = run(10);
    assert_eq!((stages[0].before, stages[1].before), (9, stages[0].after));
    assert_eq!(stages[1].after as f64, 10.0 * whole.survivors());
    assert_eq!(whole.distance.double_value(&[0]), 0.0);
    assert!(whole.forward > stages.iter().map(|stage| stage.forward).sum());
    assert_eq!(values(&whole.success), values(&run(3).0.success));
}

#[test]
fn the_versions_hold_the_published_attacks() {
    let names = |version, ball| -> Vec<String> {
        AutoAttack::new(ball, version).attacks().iter().map(|attack| attack.name()).collect()
    };
    let linf = Ball::linf(8.0 / 255.0);
    assert_eq!(names(Version::Standard, linf), ["apgd-ce-linf", "apgd-t-dlr-linf", "fab-t-linf", "square-linf"]);
    let plus = ["apgd-ce-linf", "apgd-dlr-linf", "fab-linf", "square-linf", "apgd-t-dlr-linf", "fab-t-linf"];
    assert_eq!(names(Version::Plus, linf), plus);
    assert_eq!(names(Version::Random, linf), ["apgd-ce-linf", "apgd-dlr-linf"]);
    assert_eq!(AutoAttack::of(linf, Vec::new()).unwrap().name(), "ensemble-linf");
    assert_eq!(AutoAttack::standard(linf).name(), "autoattack-standard-linf");
    let other = AutoAttack::of(linf, vec![Box::new(Pgd::new(Ball::l2(1.0)))]);
    assert!(matches!(other, Err(Error::Setting { setting: "ball", .. })));
}

#[test]
fn the_versions_have_the_published_restarts_and_targets() {
    // As the reference code sets them: (restarts, targets), none where an attack has no such setting.
    let settings = |version, ball| -> Vec<(Option<u32>, Option<u32>)> {
        let after = |text: &str, name: &str| -> Option<u32> {
            let digits: String = text.split_once(name)?.1.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        let ensemble = AutoAttack::new(ball, version);
        let texts = ensemble.attacks().iter().map(|attack| format!("{attack:?}"));
        texts.map(|text| (after(&text, "restarts: "), after(&text, "targets: "))).collect()
    };
    let standard =
        |apgd: u32, targets: u32| vec![(Some(apgd), None), (Some(1), Some(targets)), (Some(1), Some(9)), (None, None)];
    for ball in [Ball::linf(0.1), Ball::l2(1.0)] {
        assert_eq!(settings(Version::Standard, ball), standard(1, 9));
    }
    assert_eq!(settings(Version::Standard, Ball::l1(1.0)), standard(5, 5));
    let plus =
        [(Some(5), None), (Some(5), None), (Some(5), Some(9)), (None, None), (Some(1), Some(9)), (Some(1), Some(9))];
    for ball in [Ball::linf(0.1), Ball::l2(1.0), Ball::l1(1.0)] {
        assert_eq!(settings(Version::Plus, ball), plus);
        assert_eq!(settings(Version::Random, ball), [(Some(1), None), (Some(1), None)]);
    }
}

#[test]
fn settings_outside_their_range() {
    let (images, labels) = points(Kind::Double);
    let ball = Ball::linf(0.1);
    let attacks: Vec<(&str, Box<dyn Attack>)> = vec![
        ("steps", Box::new(Apgd::new(ball).with_steps(0))),
        ("restarts", Box::new(Apgd::new(ball).with_restarts(0))),
        ("rho", Box::new(Apgd { rho: 1.5, ..Apgd::new(ball) })),
        ("targets", Box::new(ApgdTargeted { targets: 0, ..ApgdTargeted::new(ball) })),
        ("steps", Box::new(Fab { steps: 0, ..Fab::new(ball) })),
        ("eta", Box::new(Fab { eta: 0.9, ..Fab::new(ball) })),
        ("beta", Box::new(Fab { beta: 1.5, ..Fab::new(ball) })),
        ("queries", Box::new(Square::new(ball).with_queries(0))),
        ("share", Box::new(Square { share: 0.0, ..Square::new(ball) })),
        ("norm", Box::new(CwL2 { ball, ..CwL2::new(1.0) })),
        ("search_steps", Box::new(CwL2 { search_steps: 0, ..CwL2::new(1.0) })),
        ("learning_rate", Box::new(CwL2 { learning_rate: 0.0, ..CwL2::new(1.0) })),
        ("confidence", Box::new(CwL2 { confidence: -1.0, ..CwL2::new(1.0) })),
        ("batch", Box::new(AutoAttack::standard(ball).with_batch(0))),
    ];
    for (name, attack) in attacks {
        let error = attack.run(&linear(Kind::Double), &images, &Goal::untargeted(&labels), 0).unwrap_err();
        assert!(matches!(error, Error::Setting { setting, .. } if setting == name), "{name}: {error}");
    }
    let few = AutoAttack::standard(ball).run(
        &linear(Kind::Double),
        &images.narrow(0, 1, 1),
        &Goal::untargeted(&labels.narrow(0, 1, 1)),
        0,
    );
    assert!(matches!(few, Err(Error::TooFewClasses { needed: 4, found: 2, .. })), "{few:?}");
    let volume = uniform(&[2, 1, 2, 2, 2], 0, (0.0, 1.0), Kind::Double);
    let model = |x: &Tensor| x.flatten(1, -1).narrow(1, 0, 3);
    let error = Square::new(ball).run(&model, &volume, &Goal::untargeted(&labels), 0).unwrap_err();
    assert!(matches!(error, Error::Images { .. }), "{error}");
}

#[test]
fn a_point_that_rounding_put_outside_the_ball_fools_nobody() {
    // A model that is fooled by images more than 7e-7 of the budget outside the L2 or L1 ball, by no other. In single
    // precision a projection alone leaves some of them there.
    let images = uniform(&[24, 1, 28, 28], 3, (0.2, 0.8), Kind::Float);
    let labels = Tensor::zeros([24], (Kind::Int64, tch::Device::Cpu));
    for ball in [Ball::l2(0.5), Ball::l1(5.0)] {
        let model = |x: &Tensor| {
            // The two images of the first look, and the batch itself.
            let clean = if x.size()[0] == 24 { images.shallow_clone() } else { x.detach() };
            let change = (x.to_kind(Kind::Double) - clean.to_kind(Kind::Double)).flatten(1, -1);
            let order = if ball.norm == Norm::L2 { 2.0 } else { 1.0 };
            let size = (change + 1e-300).linalg_norm(order, [1].as_slice(), true, Kind::Double);
            let excess = size - ball.radius * (1.0 + 7e-7);
            Tensor::cat(&[excess.neg(), excess], 1).to_kind(Kind::Float)
        };
        let attacks: [Box<dyn Attack>; 3] = [
            Box::new(Pgd::new(ball).with_steps(3).stopping_early()),
            Box::new(Apgd { loss: Loss::Margin, ..Apgd::new(ball) }.with_steps(3)),
            Box::new(Square::new(ball).with_queries(10)),
        ];
        for attack in attacks {
            let found = attack.run(&model, &images, &Goal::untargeted(&labels), 1).unwrap();
            assert_eq!(found.survivors(), 1.0, "{}", attack.name());
        }
    }
}

#[test]
fn gradients_of_several_passes_are_averaged() {
    let net = SmallNet::new(5, Kind::Double);
    let data = net.data(6, 6, Kind::Double);
    // Of a model that is not random the mean of two passes is either of them: doubling and halving are exact.
    let apgd = Apgd::new(Ball::l2(0.2)).with_steps(8);
    let (once, twice) = (attack(&apgd, &net, &data, 1), attack(&Apgd { passes: 2, ..apgd.clone() }, &net, &data, 1));
    assert_eq!((once.images, once.loss.unwrap()), (twice.images, twice.loss.unwrap()));
}

#[test]
fn a_large_batch_is_attacked_in_parts_as_if_it_were_whole() {
    let net = SmallNet::new(5, Kind::Double);
    let (images, labels) = net.data(200, 6, Kind::Double);
    let attack = Pgd::new(Ball::linf(0.03)).with_steps(3);
    let whole = attack.run(&net.eval(), &images, &Goal::untargeted(&labels), 1).unwrap();
    // Two images of the first look and one more; three steps and a last look.
    assert_eq!((whole.forward, whole.backward), (3 + 200 * 4, 200 * 3));
    for start in [0, 90, 150] {
        let goal = Goal::untargeted(&labels.narrow(0, start, 50));
        let part = attack.run(&net.eval(), &images.narrow(0, start, 50), &goal, 1).unwrap();
        // Another batch size rounds otherwise, by 1e-16 a step.
        assert!(difference(&whole.images.narrow(0, start, 50), &part.images) < 1e-12);
        assert_eq!(values(&whole.success.narrow(0, start, 50)), values(&part.success));
    }
}

#[test]
fn a_random_model_is_not_broken_by_luck() {
    // No budget to speak of, so that an honest look at an image is wrong once in twenty; the attacks look thousands of times.
    let (ball, model) = (Ball::linf(1e-6), Stochastic(flipping(0.05)));
    let images = uniform(&[200, 4], 2, (0.0, 1.0), Kind::Double);
    let labels = flipping(0.0)(&images).argmax(-1, false);
    let random = AutoAttack::new(ball, Version::Random);
    let found = random.run(&model, &images, &Goal::untargeted(&labels), 0).unwrap();
    // .95³ = .857, with a standard error of .025.
    assert!(found.survivors() > 0.7, "{}", found.survivors());
    let report = Evaluator::new(&model, 0)
        .attack(Apgd::new(ball).with_steps(30))
        .attack(Square::new(ball).with_queries(30))
        .curve(&[0.0, 1e-6])
        .run(&images, &labels)
        .unwrap();
    let shares = report.attacks.iter().map(|outcome| outcome.robust).chain(report.curves.iter().map(|at| at.robust));
    assert!(shares.map(|robust| robust.share()).all(|share| share > 0.7), "{report:?}");
    // Two images of the first look, a look at the start and one a step, and the one that counts; random models get no more.
    assert_eq!(report.attacks[0].forward, 2 + 200 * (1 + 30 + 1));
}

#[test]
fn past_an_example_that_luck_has_fooled_apgd_climbs_on_to_where_it_is_fooled_for_good() {
    // The second logit is five times the mean change of ten pixels, with noise in [−1, 1): a look is wrong every other time at
    // the start, three times out of four in the corner, where every pixel has risen by .1.
    let calls = std::cell::Cell::new(0);
    let model = Stochastic(|x: &Tensor| {
        calls.set(calls.get() + 1);
        let noise = uniform(&[x.size()[0], 1], calls.get(), (-1.0, 1.0), Kind::Double);
        let second = (x - 0.5).mean_dim([1].as_slice(), true, Kind::Double) * 5.0 + noise;
        Tensor::cat(&[second.zeros_like(), second], 1)
    });
    let images = Tensor::full([40, 10], 0.5, (Kind::Double, tch::Device::Cpu));
    let goal = Goal::untargeted(&Tensor::zeros([40], (Kind::Int64, tch::Device::Cpu)));
    let found = Apgd::new(Ball::linf(0.1)).with_steps(20).run(&model, &images, &goal, 0).unwrap();
    assert_eq!(found.survivors(), 0.0);
    assert!((found.images - 0.6).abs().max().double_value(&[]) < 1e-9);
    // Where the loss leads away from what fools, below .55, an image that fooled is returned and not the best.
    let model = Stochastic(|x: &Tensor| Tensor::cat(&[x.zeros_like(), x.neg() + 0.55], 1));
    let images = Tensor::linspace(0.46, 0.54, 20, (Kind::Double, tch::Device::Cpu)).reshape([20, 1]);
    let goal = Goal::untargeted(&Tensor::zeros([20], (Kind::Int64, tch::Device::Cpu)));
    let away = Apgd { loss: Loss::custom(|logits, _| logits.select(1, 1).neg()), ..Apgd::new(Ball::linf(0.1)) };
    let found = away.with_steps(20).run(&model, &images, &goal, 0).unwrap();
    assert!(found.survivors() > 0.0 && found.survivors() < 1.0);
    assert_eq!(values(&found.success), values(&found.images.squeeze_dim(1).lt(0.55)));
}

#[test]
fn apgd_goes_on_from_a_given_point() {
    let net = SmallNet::new(5, Kind::Double);
    // More than a part.
    let (images, labels) = net.data(150, 6, Kind::Double);
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        let ball = Ball::new(norm, radii(norm)[1]);
        let pgd = Pgd::new(ball).with_steps(10).run(&net.eval(), &images, &Goal::untargeted(&labels), 3).unwrap();
        let fooled = pgd.success.nonzero().squeeze_dim(1);
        let (count, rows) = (fooled.size()[0], |whole: &Tensor| whole.index_select(0, &fooled));
        assert!(count > 10, "{norm:?}: {count}");
        let (clean, start, goal) = (rows(&images), rows(&pgd.images), Goal::untargeted(&rows(&labels)));
        let apgd = Apgd::new(ball).with_steps(5);
        let found = apgd.run_from(&net.eval(), &clean, &start, &goal, 0).unwrap();
        // Three images of the first look, and the start.
        assert_eq!((found.survivors(), found.forward), (0.0, 3 + count as u64), "{norm:?}");
        assert!(difference(&found.images, &start) < 1e-6, "{norm:?}");
        // From outside it begins where the projection is.
        let all = Goal::untargeted(&labels);
        let outside = &images + 9.0;
        let nearest = ball.project(&images, &outside).unwrap();
        let run = |start: &Tensor| apgd.run_from(&net.eval(), &images, start, &all, 0).unwrap();
        let (far, near) = (run(&outside), run(&nearest));
        // In L1 a rounding chooses among pixels of equal gradient.
        assert!(norm == Norm::L1 || difference(&far.images, &near.images) < 1e-6, "{norm:?}");
        assert!(norm.size(&(far.images - &images)).max().double_value(&[]) <= ball.radius * (1.0 + 1e-6));
        // And a second restart does as well at least.
        let again = Apgd { restarts: 2, ..apgd.clone() }.run_from(&net.eval(), &images, &images, &all, 0).unwrap();
        assert!(again.survivors() <= run(&images).survivors());
    }
    let apgd = Apgd::new(Ball::linf(0.1));
    for wrong in [images.narrow(0, 0, 149), images.to_kind(Kind::Float)] {
        let refused = apgd.run_from(&net.eval(), &images, &wrong, &Goal::untargeted(&labels), 0);
        assert!(matches!(refused, Err(Error::Images { .. })));
    }
}

/// A run was ended by the test, with what was known, or by an error.
#[derive(Debug)]
struct Ended(Result<Interim>);

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self(Err(error))
    }
}

#[test]
fn an_ensemble_goes_on_from_where_it_was_ended() {
    let net = SmallNet::new(5, Kind::Double);
    let (images, labels) = net.data(24, 6, Kind::Double);
    let (goal, ball) = (Goal::untargeted(&labels), Ball::linf(0.05));
    let ensemble = |points| {
        let attacks: Vec<Box<dyn Attack>> = vec![
            Box::new(RandomPoints::new(ball, points)),
            Box::new(Apgd::new(ball).with_steps(20)),
            Box::new(Square::new(ball).with_queries(50)),
        ];
        AutoAttack::of(ball, attacks).unwrap().with_batch(7)
    };
    let (whole, stages) = ensemble(5).run_in_stages(&net.eval(), &images, &goal, 3).unwrap();
    let counts = |stages: &[Stage]| stages.iter().map(|s| (s.before, s.after, s.forward)).collect::<Vec<_>>();
    assert!(stages[0].after < stages[0].before && stages[1].after < stages[1].before);
    for ended_after in 1..=3 {
        let ended = ensemble(5).run_resumable(&net.eval(), &images, &goal, 3, None, |now| {
            if now.stages.len() == ended_after { Err(Ended(Ok(now.copy()))) } else { Ok(()) }
        });
        let Err(Ended(Ok(interim))) = ended else { panic!("{ended:?}") };
        let mut later = Vec::new();
        let resumed = ensemble(5).run_resumable(&net.eval(), &images, &goal, 3, Some(&interim), |now| {
            later.push(now.stages.len());
            Ok::<_, Ended>(())
        });
        let (resumed, all) = resumed.unwrap();
        assert_eq!((resumed.images, resumed.success), (whole.images.copy(), whole.success.copy()));
        assert_eq!(counts(&all), counts(&stages));
        assert_eq!(later, (ended_after + 1..=3).collect::<Vec<_>>());
        assert_eq!(interim.stages.len(), ended_after);

        let refused = |ensemble: &AutoAttack, images: &Tensor, interim: &Interim| {
            let goal = Goal::untargeted(&labels.narrow(0, 0, images.size()[0]));
            let after = |_: &Interim| Ok::<_, Error>(());
            ensemble.run_resumable(&net.eval(), images, &goal, 3, Some(interim), after).unwrap_err()
        };
        // Another attack, another number of images, and other images.
        let other = refused(&ensemble(6), &images, &interim);
        assert!(matches!(other, Error::Setting { setting: "stages", .. }), "{other}");
        assert!(matches!(refused(&ensemble(5), &images.narrow(0, 0, 23), &interim), Error::Images { .. }));
        assert!(matches!(refused(&ensemble(5), &(&images * 0.5), &interim), Error::Images { .. }));
    }
}
