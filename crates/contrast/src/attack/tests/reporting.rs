//! Reports, the looks for masked gradients, pictures.

use super::models::{SmallNet, linear, uniform, values};
use crate::attack::{
    Accuracy, Adversarial, Apgd, ApgdTargeted, Attack, AutoAttack, Ball, Classifier, Error, Evaluator, Goal, Loss,
    MaskingConfig, Paired, Pgd, Pictures, RandomPoints, Result, RobustnessReport, Square, Stage, Stochastic,
    gradient_masking, paired, to_bytes,
};
use tch::{Kind, Tensor};

/// Fools exactly the examples it was told to, without looking.
#[derive(Debug)]
struct Scripted {
    fooled: Vec<bool>,
}

impl Attack for Scripted {
    fn name(&self) -> String {
        "scripted".to_owned()
    }

    fn ball(&self) -> Ball {
        Ball::linf(0.1)
    }

    fn with_radius(&self, _: f64) -> Box<dyn Attack> {
        Box::new(Self { fooled: self.fooled.clone() })
    }

    fn run(&self, _: &dyn Classifier, images: &Tensor, _: &Goal, _: u64) -> Result<Adversarial> {
        let success = Tensor::from_slice(&self.fooled).narrow(0, 0, images.size()[0]);
        let distance = Tensor::zeros([images.size()[0]], (Kind::Double, tch::Device::Cpu));
        Ok(Adversarial { images: images.copy(), success, distance, loss: None, forward: 0, backward: 0 })
    }
}

#[test]
fn the_worst_case_is_the_mean_of_minima() {
    // Right under three attacks: 1100, 1010, 1110. Means .5, .5, .75; the mean of the minima is .25.
    let scripted = |right: [u8; 4]| Scripted { fooled: right.map(|right| right == 0).to_vec() };
    let images = uniform(&[4, 3], 0, (0.0, 1.0), Kind::Double);
    let labels = tch::no_grad(|| linear(Kind::Double)(&images)).argmax(-1, false);
    let model = linear(Kind::Double);
    let report = Evaluator::new(&model, 0)
        .attack(scripted([1, 1, 0, 0]))
        .attack(scripted([1, 0, 1, 0]))
        .attack(scripted([1, 1, 1, 0]))
        .run(&images, &labels)
        .unwrap();
    let shares: Vec<f64> = report.attacks.iter().map(|attack| attack.robust.share()).collect();
    assert_eq!((shares, report.worst.share(), report.clean.share()), (vec![0.5, 0.5, 0.75], 0.25, 1.0));
    // Only the first example stands against all three.
    let labels = Vec::<i64>::try_from(&labels).unwrap();
    assert_eq!(report.worst_per_class.len(), 2);
    for (class, found) in (0_i64..).zip(&report.worst_per_class) {
        let of = labels.iter().filter(|label| **label == class).count();
        assert_eq!(*found, Accuracy { correct: usize::from(labels[0] == class), of }, "class {class} of {labels:?}");
    }
}

#[test]
fn intervals_are_wilsons() {
    // 500 of 1000: 46.9 to 53.1 %.
    let (low, high) = Accuracy { correct: 500, of: 1000 }.interval();
    assert!((low - 0.4691).abs() < 1e-4 && (high - 0.5309).abs() < 1e-4, "{low} {high}");
    let (low, high) = Accuracy { correct: 0, of: 20 }.interval();
    assert!(low.abs() < 1e-12 && high > 0.1);
    assert_eq!(Accuracy { correct: 0, of: 0 }.interval(), (0.0, 1.0));
}

#[test]
fn a_report_holds_curves_that_never_rise_and_survives_json() {
    let net = SmallNet::new(5, Kind::Double);
    let (images, labels) = net.data(20, 6, Kind::Double);
    let model = net.eval();
    let report = Evaluator::new(&model, 1)
        .attack(Pgd::new(Ball::linf(0.03)))
        .attack(Square::new(Ball::linf(0.03)).with_queries(50))
        .curve(&[0.1, 0.0, 0.02, 0.5])
        .batch(7)
        .run(&images, &labels)
        .unwrap();
    let pgd: Vec<_> = report.curves.iter().filter(|point| point.attack == "pgd-20-linf").collect();
    assert_eq!(pgd.iter().map(|point| point.radius).collect::<Vec<_>>(), [0.0, 0.02, 0.1, 0.5]);
    assert_eq!(pgd[0].robust.share(), 1.0);
    assert!(pgd.windows(2).all(|pair| pair[1].robust.correct <= pair[0].robust.correct));
    assert_eq!(pgd[3].robust.share(), 0.0);
    assert!(report.worst.correct <= report.attacks.iter().map(|attack| attack.robust.correct).min().unwrap());
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<RobustnessReport>(&json).unwrap(), report);
}

#[test]
fn a_report_tells_how_its_attacks_were_run_and_older_reports_can_be_read() {
    let net = SmallNet::new(5, Kind::Double);
    let (images, labels) = net.data(6, 6, Kind::Double);
    let (model, pgd) = (net.eval(), Pgd::new(Ball::linf(0.03)).with_steps(3));
    let report = Evaluator::new(&model, 7)
        .attack(pgd.clone())
        .attack(pgd.clone().with_loss(Loss::Margin))
        .curve(&[0.01, 0.02])
        .run(&images, &labels)
        .unwrap();
    assert_eq!(report.seed, 7);
    let [first, second] = report.attacks.as_slice() else { panic!("{:?}", report.attacks) };
    assert_eq!(first.attack, second.attack);
    assert!(first.settings.contains("CrossEntropy") && second.settings.contains("Margin"), "{}", second.settings);
    let places: Vec<_> = report.curves.iter().map(|point| (point.place, point.radius)).collect();
    assert_eq!(places, [(Some(0), 0.01), (Some(0), 0.02), (Some(1), 0.01), (Some(1), 0.02)]);

    // As they were stored before: without these.
    let mut json = serde_json::to_value(&report).unwrap();
    let without =
        |value: &mut serde_json::Value, key: &str| assert!(value.as_object_mut().unwrap().remove(key).is_some());
    without(&mut json, "seed");
    json["attacks"].as_array_mut().unwrap().iter_mut().for_each(|outcome| without(outcome, "settings"));
    json["curves"].as_array_mut().unwrap().iter_mut().for_each(|point| without(point, "place"));
    let read: RobustnessReport = serde_json::from_value(json).unwrap();
    assert_eq!((read.seed, read.attacks[0].settings.as_str(), read.curves[0].place), (0, "", None));
    assert_eq!((read.worst, &read.attacks[0].standing), (report.worst, &first.standing));

    let ensemble = AutoAttack::of(pgd.ball, vec![Box::new(pgd.clone())]).unwrap();
    let (_, stages) = ensemble.run_in_stages(&model, &images, &Goal::untargeted(&labels), 0).unwrap();
    assert_eq!(stages[0].settings, format!("{pgd:?}"));
    let mut json = serde_json::to_value(&stages[0]).unwrap();
    without(&mut json, "settings");
    assert_eq!(serde_json::from_value::<Stage>(json).unwrap(), Stage { settings: String::new(), ..stages[0].clone() });
}

#[test]
fn two_models_are_compared_by_the_examples_that_only_one_withstood() {
    // 60 that only the first withstood, 40 that only the second did, and more on which they agree.
    let flags = |parts: [(bool, usize); 4]| -> Vec<bool> {
        parts.iter().flat_map(|&(flag, count)| std::iter::repeat_n(flag, count)).collect()
    };
    let first = flags([(true, 60), (false, 40), (true, 25), (false, 9)]);
    let second = flags([(false, 60), (true, 40), (true, 25), (false, 9)]);
    let found = paired(&first, &second).unwrap();
    assert_eq!((found.only_first, found.only_second), (60, 40));
    assert!((found.p - 0.056_887_9).abs() < 1e-6, "{}", found.p);
    let turned = paired(&second, &first).unwrap();
    assert_eq!((turned.only_first, turned.only_second, turned.p), (40, 60, found.p));
    let alike = Paired { only_first: 0, only_second: 0, p: 1.0 };
    assert_eq!((paired(&first, &first).unwrap(), paired(&[], &[]).unwrap()), (alike, alike));
    // Five against none: 2 · 2⁻⁵.
    assert!((paired(&[true; 5], &[false; 5]).unwrap().p - 0.0625).abs() < 1e-12);
    assert!(matches!(paired(&first, &second[1..]), Err(Error::Setting { .. })));
}

#[test]
fn what_is_probably_not_meant_is_said_once_of_attacks_curves_and_looks() {
    let model = |x: &Tensor| {
        let halves = x.flatten(1, -1).reshape([x.size()[0], 2, -1]);
        halves.mean_dim([2].as_slice(), false, Kind::Float)
    };
    let warnings = |evaluator: Evaluator, size: [i64; 2]| {
        let images = uniform(&[2, 1, size[0], size[1]], 1, (0.0, 1.0), Kind::Float);
        let labels = model(&images).argmax(-1, false);
        evaluator.run(&images, &labels).unwrap().warnings
    };
    let begun = || Evaluator::new(&model, 0);
    let square = |radius| Square::new(Ball::linf(radius)).with_queries(3);
    assert_eq!(warnings(begun().attack(square(0.1)), [28, 28]), [""; 0]);
    let oblong = warnings(begun().attack(square(0.1)).attack(Pgd::new(Ball::linf(0.1))), [28, 14]);
    assert!(oblong.len() == 1 && oblong[0].contains("28 × 14"), "{oblong:?}");
    // An ensemble speaks for its members; every budget of a curve counts.
    let members: Vec<Box<dyn Attack>> = vec![Box::new(square(0.1)), Box::new(Pgd::new(Ball::linf(0.1)))];
    let ensemble = AutoAttack::of(Ball::linf(0.1), members).unwrap();
    let curve = warnings(begun().attack(ensemble).curve(&[0.1, 4.0, 8.0]), [28, 14]);
    assert!(curve.len() == 3 && curve[0] == oblong[0] && curve[1].contains("4/255"), "{curve:?}");
    let config = MaskingConfig { queries: 3, points: 2, apgd_steps: 2, steps: 2, ..MaskingConfig::default() };
    let looks = warnings(begun().look_for_masking(Ball::linf(8.0), config), [28, 14]);
    assert!(looks.len() == 2 && looks[0].contains("8/255") && looks[1] == oblong[0], "{looks:?}");
}

#[test]
fn numbers_beyond_what_a_tensor_counts_mean_all_and_a_batch_of_none_is_refused() {
    let net = SmallNet::new(5, Kind::Float);
    let (images, labels) = net.data(3, 6, Kind::Float);
    let pictures = Pictures::new(&Ball::linf(0.1), &images, &images, usize::MAX, 1.0).unwrap();
    assert_eq!(pictures.clean.size(), images.size());
    let model = net.eval();
    let report = Evaluator::new(&model, 0).batch(usize::MAX).run(&images, &labels).unwrap();
    assert_eq!(report.clean.of, 3);
    let config = MaskingConfig { batch: 0, ..MaskingConfig::default() };
    let refused = gradient_masking(&model, None, &images, &labels, Ball::linf(0.1), &config, 0);
    assert!(matches!(refused, Err(Error::Setting { setting: "batch", .. })));
}

#[test]
fn what_a_later_attack_would_refuse_is_refused_before_the_model_is_asked() {
    let net = SmallNet::new(5, Kind::Double);
    let (images, labels) = net.data(3, 6, Kind::Double);
    let asked = std::cell::Cell::new(0);
    let model = |x: &Tensor| {
        asked.set(asked.get() + 1);
        net.eval()(x)
    };
    let ball = Ball::linf(0.1);
    let no_steps = || Pgd::new(ball).with_steps(0);
    let ensemble = || AutoAttack::of(ball, vec![Box::new(Pgd::new(ball)), Box::new(no_steps())]).unwrap();
    let begun = || Evaluator::new(&model, 0).attack(Pgd::new(ball));
    let looking = |config| begun().look_for_masking(ball, config);
    let usual = MaskingConfig::default;
    let cases = [
        ("batch", begun().batch(0)),
        ("steps", begun().attack(no_steps())),
        ("rho", begun().attack(Apgd { rho: 2.0, ..Apgd::new(ball) })),
        ("targets", begun().attack(ApgdTargeted { targets: 0, ..ApgdTargeted::new(ball) })),
        ("queries", begun().attack(Square::new(ball).with_queries(0))),
        ("points", begun().attack(RandomPoints::new(ball, 0))),
        ("steps", begun().attack(ensemble())),
        ("batch", looking(MaskingConfig { batch: 0, ..usual() })),
        ("steps", looking(MaskingConfig { steps: 0, ..usual() })),
        ("restarts", looking(MaskingConfig { restarts: 0, ..usual() })),
        ("queries", looking(MaskingConfig { queries: 0, ..usual() })),
        ("points", looking(MaskingConfig { points: 0, ..usual() })),
        ("apgd_steps", looking(MaskingConfig { apgd_steps: 0, ..usual() })),
        ("box", begun().look_for_masking(ball.within(1.0, 0.0), usual())),
    ];
    for (name, evaluator) in cases {
        let error = evaluator.run(&images, &labels).unwrap_err();
        assert!(matches!(error, Error::Setting { setting, .. } if setting == name), "{name}: {error}");
    }
    for radius in [-0.1, f64::NAN, f64::INFINITY] {
        let error = begun().curve(&[0.1, radius]).run(&images, &labels).unwrap_err();
        assert!(matches!(error, Error::InvalidBudget { .. }), "{radius}: {error}");
    }
    let narrow = ball.within(0.49, 0.51);
    for evaluator in [begun().attack(Pgd::new(narrow)), begun().look_for_masking(narrow, usual())] {
        let error = evaluator.run(&images, &labels).unwrap_err();
        assert!(matches!(error, Error::InputOutOfBounds { .. }), "{error}");
    }
    let error = ensemble().run(&model, &images, &Goal::untargeted(&labels), 0).unwrap_err();
    assert!(matches!(error, Error::Setting { setting: "steps", .. }), "{error}");
    assert_eq!(asked.get(), 0);
}

fn looks(model: &dyn Classifier, data: &(Tensor, Tensor)) -> RobustnessReport {
    let config = MaskingConfig { queries: 300, points: 20, apgd_steps: 20, ..MaskingConfig::default() };
    Evaluator::new(model, 2).look_for_masking(Ball::linf(0.04), config).run(&data.0, &data.1).unwrap()
}

#[test]
fn looks_alone_take_their_box_from_their_ball_and_vectors_have_no_windows() {
    // Six pixels in [−1, 1], five classes.
    let weights = uniform(&[5, 6], 1, (-1.0, 1.0), Kind::Double);
    let model = |x: &Tensor| x.matmul(&weights.tr());
    let images = uniform(&[8, 6], 2, (-1.0, 1.0), Kind::Double);
    let labels = model(&images).argmax(-1, false);
    let config = MaskingConfig { queries: 10, points: 5, apgd_steps: 5, ..MaskingConfig::default() };
    let ball = Ball::l2(0.3).within(-1.0, 1.0);
    let report = Evaluator::new(&model, 2).look_for_masking(ball, config).run(&images, &labels).unwrap();
    let not_run = report.masking.iter().filter(|check| check.evidence.contains("3 × 3"));
    assert!(not_run.clone().count() == 2 && not_run.into_iter().all(|check| check.passed.is_none()));
}

fn flags(report: &RobustnessReport) -> Vec<&str> {
    report.flags().map(|check| check.name.as_str()).collect()
}

#[test]
fn an_honest_model_passes_every_look() {
    let net = SmallNet::new(5, Kind::Float);
    let data = net.data(24, 6, Kind::Float);
    let report = looks(&net.eval(), &data);
    assert_eq!(flags(&report), [""; 0], "{:#?}", report.masking);
    // Without a twin the transfer check says that it did not run.
    assert_eq!(report.masking.iter().filter(|check| check.passed.is_none()).count(), 1);
}

#[test]
fn logits_times_a_million_kill_the_gradient_and_are_caught() {
    let net = SmallNet::new(5, Kind::Float);
    let data = net.data(24, 6, Kind::Float);
    let masked = |x: &Tensor| net.eval()(x) * 1e6;
    let report = looks(&masked, &data);
    assert!(flags(&report).contains(&"the gradient is alive"), "{:#?}", report.masking);
    // The scale of the logits means nothing to the difference of logits ratio.
    let ball = Ball::linf(0.04);
    let standing = |attack: Apgd, model: &dyn Classifier| {
        attack.run(model, &data.0, &Goal::untargeted(&data.1), 0).unwrap().survivors()
    };
    let honest = standing(Apgd::dlr(ball), &net.eval());
    assert!((standing(Apgd::dlr(ball), &masked) - honest).abs() < 0.05);
    let blinded = standing(Apgd::new(ball), &masked);
    assert!(blinded > honest, "{blinded} {honest}");
}

#[test]
fn rounded_inputs_are_caught_by_the_attack_without_gradients() {
    let net = SmallNet::new(5, Kind::Float);
    let images = uniform(&[24, 1, 6, 6], 6, (0.0, 1.0), Kind::Float);
    let masked = |x: &Tensor| net.eval()(&((x * 15.0).round() / 15.0));
    let labels = tch::no_grad(|| masked(&images)).argmax(-1, false);
    let report = looks(&masked, &(images, labels));
    for name in ["the gradient is alive", "white box beats black box"] {
        assert!(flags(&report).contains(&name), "{name}: {:#?}", report.masking);
    }
}

#[test]
fn a_random_model_and_probabilities_are_caught() {
    let net = SmallNet::new(5, Kind::Float);
    let data = net.data(12, 6, Kind::Float);
    let pass = std::cell::Cell::new(0_u64);
    let noisy = Stochastic(|x: &Tensor| {
        pass.set(pass.get() + 1);
        let logits = net.eval()(x);
        let noise = uniform(&logits.size(), pass.get(), (-0.2, 0.2), Kind::Float);
        logits + noise
    });
    assert!(flags(&looks(&noisy, &data)).contains(&"the model is deterministic"));
    // Unless it is declared, a random model is refused.
    let undeclared = |x: &Tensor| noisy.logits(x);
    let refused = Pgd::new(Ball::linf(0.1)).run(&undeclared, &data.0, &Goal::untargeted(&data.1), 0);
    assert!(matches!(refused, Err(Error::TrainingMode { .. })));
    let softmax = |x: &Tensor| net.eval()(x).softmax(-1, Kind::Float);
    assert!(flags(&looks(&softmax, &data)).contains(&"the output is logits"));
}

#[test]
fn a_twin_that_transfers_better_than_the_models_own_gradients_is_caught() {
    let net = SmallNet::new(5, Kind::Float);
    let data = net.data(24, 6, Kind::Float);
    let honest = net.eval();
    let masked = |x: &Tensor| net.eval()(x) * 1e6;
    let config = MaskingConfig { queries: 20, points: 5, apgd_steps: 5, ..MaskingConfig::default() };
    let report = Evaluator::new(&masked, 2)
        .look_for_masking(Ball::linf(0.04), config)
        .transfer_from(&honest)
        .run(&data.0, &data.1)
        .unwrap();
    assert!(flags(&report).contains(&"white box beats transfer"), "{:#?}", report.masking);
}

#[test]
fn random_points_are_a_weak_attack() {
    let net = SmallNet::new(5, Kind::Double);
    let (images, labels) = net.data(24, 6, Kind::Double);
    let standing =
        |attack: &dyn Attack| attack.run(&net.eval(), &images, &Goal::untargeted(&labels), 0).unwrap().survivors();
    let ball = Ball::linf(0.03);
    assert!(standing(&RandomPoints::new(ball, 20)) >= standing(&Pgd::new(ball).stopping_early()));
    assert!(standing(&RandomPoints::new(ball, 20)) <= standing(&RandomPoints::new(ball, 2)));
}

#[test]
fn crafting_in_training_mode_moves_the_statistics_and_is_weaker() {
    // What a library that forgets the mode would do, done on purpose.
    let net = SmallNet::new(5, Kind::Float);
    let (images, labels) = net.data(64, 8, Kind::Float);
    let attack = Pgd::bim(Ball::linf(0.04), 10);
    let careful = attack.run(&net.eval(), &images, &Goal::untargeted(&labels), 0).unwrap();
    let before = net.fingerprint();
    let loss = |x: &Tensor| Ok::<_, Error>(net.train()(x).cross_entropy_for_logits(&labels));
    let careless = attack.perturb(&images, loss, 0).unwrap();
    assert_ne!(net.fingerprint(), before, "batch norm in training mode moves its statistics");
    // Judged by the model as it was.
    let judge = SmallNet::new(5, Kind::Float);
    let standing =
        |x: &Tensor| judge.eval()(x).argmax(-1, false).eq_tensor(&labels).to_kind(Kind::Float).mean(Kind::Float);
    let (careless, careful) = (standing(&careless).double_value(&[]), standing(&careful.images).double_value(&[]));
    assert!(careless > careful, "{careless} after crafting in training mode, {careful} in evaluation mode");
}

#[test]
fn stored_in_eight_bits_a_perturbation_keeps_its_budget() {
    let ball = Ball::linf(8.0 / 255.0);
    let clean = uniform(&[2, 1, 5, 5], 1, (0.0, 1.0), Kind::Float);
    let attacked = ball.project(&clean, &(&clean + uniform(&[2, 1, 5, 5], 2, (-0.2, 0.2), Kind::Float))).unwrap();
    let (clean_bytes, attacked_bytes) = to_bytes(&ball, &clean, &attacked).unwrap();
    let levels = (attacked_bytes.to_kind(Kind::Int) - clean_bytes.to_kind(Kind::Int)).abs().max();
    // Eight levels are reached (most random changes are cut by the ball), never nine.
    assert_eq!(levels.int64_value(&[]), 8);
    let pictures = Pictures::new(&ball, &clean, &attacked, 1, 10.0).unwrap();
    assert_eq!((pictures.clean.size(), pictures.difference.kind()), (vec![1, 1, 5, 5], Kind::Uint8));
    // No change is a middle grey; the whole budget times ten is 80 levels up or down.
    let grey = Pictures::new(&ball, &clean, &clean, 1, 10.0).unwrap().difference;
    assert_eq!(values(&grey), [128.0; 25]);
    assert_eq!(pictures.difference.to_kind(Kind::Int).max().int64_value(&[]), 208);
}

#[test]
fn whole_levels_are_stored_whole_and_a_budget_just_below_one_is_not_rounded_up() {
    let wide = |kind| uniform(&[4, 1, 32, 32], 3, (0.0, 1.0), kind);
    for (kind, low, high) in [(Kind::Float, 0.0, 1.0), (Kind::Double, 0.0, 1.0), (Kind::Float, -1.0, 1.0)] {
        let levels = |radius: f64| {
            let ball = Ball::linf(radius).within(low, high);
            // All move by the whole budget, up or down, and none leaves the box.
            let clean = (wide(kind) * 0.8 + 0.1) * (high - low) + low;
            let (up, down) = (ball.project(&clean, &(&clean + 9.0)), ball.project(&clean, &(&clean - 9.0)));
            [up, down].map(|moved| {
                let (clean, moved) = to_bytes(&ball, &clean, &moved.unwrap()).unwrap();
                let change = (moved.to_kind(Kind::Int) - clean.to_kind(Kind::Int)).abs();
                (change.min().int64_value(&[]), change.max().int64_value(&[]))
            })
        };
        for whole in [1, 2, 4, 8, 16] {
            let radius = whole as f64 / 255.0 * (high - low);
            assert_eq!(levels(radius), [(whole, whole); 2], "{kind:?} in [{low}, {high}]");
        }
        // .9996 of a level.
        assert_eq!(levels(0.00392 * (high - low)), [(0, 0); 2], "{kind:?} in [{low}, {high}]");
    }
}
