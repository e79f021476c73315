//! Every bad input has its error.

use super::models::{linear, points};
use crate::attack::run::Subject;
use crate::attack::{Apgd, Attack, Ball, Classifier, Error, Goal, Loss, Normalized, Pgd, Result};
use tch::{Device, Kind, Tensor};

fn run(attack: &Pgd, images: &Tensor, labels: &Tensor) -> Error {
    attack.run(&linear(images.kind()), images, &Goal::untargeted(labels), 0).unwrap_err()
}

#[test]
fn images_outside_the_box() {
    let (images, labels) = points(Kind::Double);
    let error = run(&Pgd::new(Ball::linf(0.1)), &(&images * 2.0 - 1.0), &labels);
    assert!(matches!(error, Error::InputOutOfBounds { min, .. } if (min + 0.96).abs() < 1e-12), "{error}");
    assert!(error.to_string().contains("normalised"));
    let error = run(&Pgd::new(Ball::linf(0.1)), &(&images / 0.0 * 0.0), &labels);
    assert!(matches!(error, Error::InputOutOfBounds { min, .. } if min.is_nan()), "{error}");
    // A wider box takes them.
    let wide = Pgd::new(Ball::linf(0.1).within(-1.0, 1.0));
    assert!(wide.run(&linear(Kind::Double), &(&images * 2.0 - 1.0), &Goal::untargeted(&labels), 0).is_ok());
}

#[test]
fn budgets_and_settings() {
    let (images, labels) = points(Kind::Double);
    for radius in [-0.1, f64::NAN, f64::INFINITY] {
        let error = run(&Pgd::new(Ball::linf(radius)).with_step_size(0.1), &images, &labels);
        assert!(matches!(error, Error::InvalidBudget { .. }), "{error}");
    }
    let pgd = Pgd::new(Ball::linf(0.1));
    let cases = [
        ("steps", pgd.clone().with_steps(0)),
        ("restarts", pgd.clone().with_restarts(0)),
        ("restarts", Pgd::fgsm(pgd.ball).with_restarts(2)),
        ("passes", Pgd { passes: 0, ..pgd.clone() }),
        ("step_size", pgd.clone().with_step_size(f64::NAN)),
        ("momentum", Pgd { momentum: -1.0, ..pgd.clone() }),
        ("box", Pgd::new(Ball::linf(0.1).within(1.0, 0.0))),
        ("start", Pgd::fgsm(pgd.ball).with_loss(Loss::KullbackLeibler)),
    ];
    for (name, attack) in cases {
        let error = run(&attack, &images, &labels);
        assert!(matches!(error, Error::Setting { setting, .. } if setting == name), "{error}");
    }
    let climb = Apgd { loss: Loss::KullbackLeibler, ..Apgd::new(pgd.ball) };
    assert!(matches!(climb.validate(), Err(Error::Setting { setting: "loss", .. })));
    assert!(Ball::linf(8.0).advice().is_some() && Ball::linf(8.0 / 255.0).advice().is_none());
}

#[test]
fn labels_and_targets() {
    let (images, labels) = points(Kind::Double);
    let pgd = Pgd::new(Ball::linf(0.1));
    for wrong in [labels.narrow(0, 0, 1), labels.to_kind(Kind::Int), &labels + 1, &labels - 1, labels.unsqueeze(1)] {
        let error = run(&pgd, &images, &wrong);
        assert!(matches!(error, Error::LabelMismatch { .. }), "{error}");
    }
    let error = pgd.run(&linear(Kind::Double), &images, &Goal::targeted(&labels, &labels), 0).unwrap_err();
    assert!(matches!(error, Error::BadTarget { example: 0, target: 0 }), "{error}");
    let targets = Tensor::from_slice(&[1_i64, 2]);
    let error = pgd.run(&linear(Kind::Double), &images, &Goal::targeted(&labels, &targets), 0).unwrap_err();
    assert!(error.to_string().contains("targets from 0 to 1"), "{error}");
}

#[test]
fn labels_and_targets_on_another_device_than_the_images() {
    let (_, labels) = points(Kind::Double);
    let targets = Tensor::from_slice(&[1_i64, 0]);
    for goal in [Goal::untargeted(&labels), Goal::targeted(&labels, &targets)] {
        goal.check(2, 2, Device::Cpu).unwrap();
        let error = goal.check(2, 2, Device::Cuda(0)).unwrap_err().to_string();
        assert_eq!(error, "labels: expected labels on Cuda(0), where images and logits are, found Cpu");
    }
}

#[test]
fn means_and_deviations_that_normalise_nothing() {
    let model = || linear(Kind::Float);
    for deviation in [0.0, -0.25, f32::NAN, f32::INFINITY] {
        let error = Normalized::new(model(), &[0.5, 0.5], &[0.25, deviation]).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Setting { setting: "deviation", .. }), "{deviation}: {error}");
    }
    for mean in [f32::NAN, f32::NEG_INFINITY] {
        let error = Normalized::new(model(), &[0.5, mean], &[0.25]).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Setting { setting: "mean", .. }), "{mean}: {error}");
    }
}

#[test]
fn models_that_answer_wrongly() {
    let (images, labels) = points(Kind::Double);
    let goal = Goal::untargeted(&labels);
    let pgd = Pgd::new(Ball::linf(0.1));
    let flat = |x: &Tensor| x.sum(Kind::Double);
    assert!(matches!(pgd.run(&flat, &images, &goal, 0), Err(Error::LogitsShape { .. })));
    let not_a_number = |x: &Tensor| linear(Kind::Double)(x) * f64::NAN;
    assert!(matches!(pgd.run(&not_a_number, &images, &goal, 0), Err(Error::NonFinite { what: "logits", .. })));
    // Only the second image, and only once it has moved.
    let late = |x: &Tensor| {
        linear(Kind::Double)(x) / x.select(1, 1).unsqueeze(1).lt(0.9).logical_not().to_kind(Kind::Double) * 1.0
    };
    let second = images.narrow(0, 1, 1);
    let error =
        Pgd::bim(Ball::linf(0.1), 10).run(&late, &second, &Goal::untargeted(&labels.narrow(0, 1, 1)), 0).unwrap_err();
    assert!(matches!(error, Error::NonFinite { what: "logits", .. }), "{error}");
    let constant = |x: &Tensor| Tensor::zeros([x.size()[0], 2], (Kind::Double, tch::Device::Cpu));
    let error = pgd.run(&constant, &images, &goal, 0).unwrap_err();
    assert!(matches!(error, Error::NoGradient) && error.to_string().contains("Square"), "{error}");
    let error = run(&pgd.clone().with_loss(Loss::Dlr), &images, &labels);
    assert!(matches!(error, Error::TooFewClasses { needed: 3, found: 2, .. }), "{error}");
    let vector = run(&pgd, &images.get(0), &labels.narrow(0, 0, 1));
    assert!(matches!(vector, Error::Images { .. }), "{vector}");
    let half = pgd.run(&linear(Kind::Half), &images.to_kind(Kind::Half), &goal, 0).unwrap_err();
    assert!(matches!(half, Error::Images { .. }), "{half}");
}

#[test]
fn losses_of_a_wrong_shape() {
    let (images, labels) = points(Kind::Double);
    let error =
        run(&Pgd::new(Ball::linf(0.1)).with_loss(Loss::custom(|logits, _| logits.shallow_clone())), &images, &labels);
    assert!(matches!(error, Error::LossShape { examples: 2, .. }), "{error}");
    let matrix = |x: &Tensor| Ok::<_, Error>(x * 2.0);
    let error = Pgd::new(Ball::linf(0.1)).perturb(&images, matrix, 0).unwrap_err();
    assert!(matches!(error, Error::LossShape { examples: 2, .. }), "{error}");
}

#[test]
fn an_empty_batch_is_an_empty_result() {
    let (images, labels) = points(Kind::Double);
    let (none, no_labels) = (images.narrow(0, 0, 0), labels.narrow(0, 0, 0));
    let found = Pgd::new(Ball::linf(0.1)).run(&linear(Kind::Double), &none, &Goal::untargeted(&no_labels), 0).unwrap();
    assert_eq!((found.images.size(), found.success.size()), (vec![0, 3], vec![0]));
}

#[test]
fn losses_of_logits_and_labels_that_do_not_fit() {
    let logits = Tensor::from_slice(&[1.0, 0.0, 0.0, 1.0]).reshape([2, 2]);
    let labels = Tensor::from_slice(&[0_i64, 1]);
    let goal = Goal::untargeted(&labels);
    for loss in [Loss::CrossEntropy, Loss::Margin, Loss::KullbackLeibler] {
        let of = |logits: &Tensor, goal: &Goal| loss.per_example(logits, goal, &logits.detach()).unwrap_err();
        assert!(matches!(of(&logits.get(0), &goal), Error::LogitsShape { .. }), "{loss:?}");
        for wrong in [labels.narrow(0, 0, 1), &labels + 1] {
            assert!(matches!(of(&logits, &Goal::untargeted(&wrong)), Error::LabelMismatch { .. }), "{loss:?}");
        }
    }
    let fewer = Loss::KullbackLeibler.per_example(&logits, &goal, &logits.narrow(0, 0, 1));
    assert!(matches!(fewer, Err(Error::LogitsShape { .. })));
}

#[test]
fn points_of_another_shape_than_their_images() {
    let (images, _) = points(Kind::Double);
    for ball in [Ball::linf(0.1), Ball::l2(0.1), Ball::l1(0.1)] {
        let refused = ball.project(&images, &images.narrow(0, 0, 1));
        assert!(matches!(refused, Err(Error::Images { .. })), "{ball:?}");
    }
}

#[test]
fn what_nothing_can_be_projected_onto() {
    let (images, _) = points(Kind::Double);
    for ball in [Ball::linf(0.1), Ball::l2(0.1), Ball::l1(0.1)] {
        for wrong in [images.get(0), images.to_kind(Kind::Int64), images.to_kind(Kind::Half)] {
            let refused = ball.project(&wrong, &wrong);
            assert!(matches!(refused, Err(Error::Images { .. })), "{ball:?}");
        }
        let moved = ball.project(&images, &images.to_kind(Kind::Int64));
        assert!(matches!(moved, Err(Error::Images { .. })), "{ball:?}");
        for radius in [-0.1, f64::NAN, f64::INFINITY] {
            let refused = ball.with_radius(radius).project(&images, &images);
            assert!(matches!(refused, Err(Error::InvalidBudget { .. })), "{ball:?} {radius}");
        }
        let empty = ball.within(1.0, 0.0).project(&images, &images);
        assert!(matches!(empty, Err(Error::Setting { setting: "box", .. })), "{ball:?}");
    }
}

#[test]
fn of_numbers_that_are_not_finite_the_logits_are_named_first_then_the_gradient_then_the_loss() {
    let whole = Tensor::full([2, 2], 0.5, (Kind::Float, Device::Cpu));
    let goal = Goal::untargeted(&Tensor::from_slice(&[0_i64, 1]));
    // The second image's first pixel is 0, where these models and losses go wrong.
    let point = Tensor::from_slice(&[0.5_f32, 0.5, 0.0, 0.5]).reshape([2, 2]);
    let find = |model: &dyn Classifier, loss: fn(&Tensor) -> Result<Tensor>| {
        let subject = Subject::new(model, &Ball::linf(0.5), &whole, &goal).unwrap();
        match subject.evaluate(&point, 7, loss) {
            Ok(_) => "nothing",
            Err(Error::NonFinite { what, step: 7, example: 1 }) => what,
            Err(error) => panic!("{error}"),
        }
    };
    let (own, first) = (|x: &Tensor| x * 1.0, |logits: &Tensor| Ok(logits.select(1, 0)));
    let second = |logits: &Tensor| Ok(logits.select(1, 1));
    assert_eq!(find(&own, first), "nothing");
    // Finite, though no sum of them is.
    assert_eq!(find(&|x: &Tensor| x * 1e-30 + 3e38, first), "nothing");
    assert_eq!(find(&|x: &Tensor| x.sqrt(), first), "gradient");
    assert_eq!(find(&own, |logits| Ok(logits.select(1, 0).reciprocal())), "gradient");
    assert_eq!(
        find(&own, |logits| Ok(logits.select(1, 0).where_scalarother(&logits.select(1, 0).gt(0.0), f64::INFINITY))),
        "loss"
    );
    assert_eq!(find(&|x: &Tensor| x.reciprocal(), first), "logits");
    // Where neither loss nor gradient shows it, and where the loss refuses what it gets.
    assert_eq!(find(&|x: &Tensor| x.masked_fill(&x.eq(0.0), f64::NEG_INFINITY), second), "logits");
    assert_eq!(find(&|x: &Tensor| x.reciprocal(), |logits| Ok(logits.select(1, 0).detach())), "logits");
    assert_eq!(find(&|x: &Tensor| x.reciprocal(), |_| Err(Error::NoGradient)), "logits");
    // The same of a loss of the images: the gradient, then the loss, and a shape that does not fit between them.
    let perturb = |loss: fn(&Tensor) -> Tensor| {
        let ascent = Pgd::new(Ball::linf(0.5)).with_steps(1);
        ascent.perturb_from(&point, &point, |x| Ok::<_, Error>(loss(x))).unwrap_err()
    };
    let infinite = |x: &Tensor| x.select(1, 0).where_scalarother(&x.select(1, 0).gt(0.0), f64::INFINITY);
    assert!(matches!(perturb(infinite), Error::NonFinite { what: "loss", step: 0, example: 1 }));
    assert!(matches!(perturb(|x| x.sqrt()), Error::NonFinite { what: "gradient", step: 0, example: 1 }));
    assert!(matches!(perturb(|x| x + f64::NAN), Error::LossShape { .. }));
}
