//! Randomised smoothing: what is certified, and its soft twin under attack.

use super::models::{flipping, linear, points, uniform, values};
use crate::attack::smoothing::{
    Certificate, Smoothed, SmoothingConfig, certified_accuracy, certified_radius, lower_confidence_bound,
    two_sided_binomial,
};
use crate::attack::{Attack, Ball, Classifier, Error, Goal, Pgd, Stochastic};
use tch::{Kind, Tensor};

#[test]
fn certificates_take_the_published_values() {
    // Bounds and radii of the reference formulas (scipy's beta.ppf and norm.ppf), α = .001.
    let cases = [(1000, 1000, 0.993_116_048_4, 0.615_815_653_7), (990, 1000, 0.976_036_187_2, 0.494_502_395_5)];
    for (count, passes, bound, radius) in cases {
        assert!((lower_confidence_bound(count, passes, 0.001) - bound).abs() < 1e-9);
        let found = certified_radius(count, passes, 0.001, 0.25).unwrap();
        assert!((found - radius).abs() < 1e-8, "{found} is not {radius}");
    }
    assert!((certified_radius(600, 1000, 0.001, 0.25).unwrap() - 0.032_094_749_1).abs() < 1e-8);
    assert!((certified_radius(100, 100, 0.001, 0.25).unwrap() - 0.375_118_756_0).abs() < 1e-8);
    assert!((certified_radius(100_000, 100_000, 0.001, 0.25).unwrap() - 0.952_864_140_8).abs() < 1e-6);
    assert_eq!(certified_radius(520, 1000, 0.001, 0.25), None);
    assert_eq!(lower_confidence_bound(0, 1000, 0.001), 0.0);
    assert!((two_sided_binomial(60, 100) - 0.056_887_9).abs() < 1e-6);
    assert!((two_sided_binomial(70, 100) - 7.85e-5).abs() < 1e-7);
    assert_eq!(two_sided_binomial(50, 100), 1.0);
    assert_eq!(two_sided_binomial(101, 100), 0.0);
}

#[test]
fn without_a_confidence_or_noise_nothing_is_certified() {
    for alpha in [0.0, 1.0, 5.0, -0.001, f64::NAN, f64::INFINITY] {
        assert_eq!(lower_confidence_bound(60, 100, alpha), 0.0, "{alpha}");
        assert_eq!(certified_radius(60, 100, alpha, 0.25), None, "{alpha}");
    }
    for sigma in [0.0, -0.25, f64::NAN, f64::INFINITY] {
        assert_eq!(certified_radius(100, 100, 0.001, sigma), None, "{sigma}");
    }
}

#[test]
fn radii_grow_with_the_count_and_linearly_with_the_noise() {
    let radius = |count, sigma| certified_radius(count, 1000, 0.001, sigma).unwrap_or(0.0);
    assert!((0..50).all(|i| radius(950 + i, 0.25) <= radius(951 + i, 0.25)));
    assert!((radius(990, 0.5) - 2.0 * radius(990, 0.25)).abs() < 1e-12);
}

#[test]
fn a_smoothed_linear_model_is_certified_within_its_true_radius() {
    // Smoothing leaves a linear model as it is: its radius is margin / |w|₂ exactly, here |w₀ − w₁|₂ = 2.75.
    let (images, labels) = points(Kind::Float);
    let model = linear(Kind::Float);
    let smoothed = Smoothed::new(&model, 0.25, 128).unwrap();
    let config = SmoothingConfig { selection: 50, certification: 500, alpha: 0.001 };
    for place in 0..2 {
        let logits = values(&model(&images.narrow(0, place, 1)));
        let class = i64::from(logits[1] > logits[0]);
        let exact = (logits[0] - logits[1]).abs() / 2.75;
        if let Some(certificate) = smoothed.certify(&images.get(place), &config, 3).unwrap() {
            assert_eq!(certificate.class, class);
            assert!(certificate.radius <= exact && certificate.radius > 0.4 * exact, "{certificate:?} within {exact}");
        } else {
            assert!(exact < 0.1, "abstained at radius {exact}");
        }
        let batches = Smoothed::new(&model, 0.25, 7).unwrap();
        let image = images.get(place);
        assert_eq!(smoothed.certify(&image, &config, 3).unwrap(), batches.certify(&image, &config, 3).unwrap());
    }
    assert_eq!(smoothed.predict(&images.get(1), 500, 0.001, 0).unwrap(), Some(labels.int64_value(&[1])));
    // Where noise alone decides, both abstain.
    let coin = |x: &Tensor| Tensor::cat(&[x.shallow_clone(), x.neg()], 1);
    let (coin, even) = (Smoothed::new(&coin, 0.25, 128).unwrap(), Tensor::zeros([1], (Kind::Float, tch::Device::Cpu)));
    assert_eq!(coin.predict(&even, 500, 0.001, 0).unwrap(), None);
    assert_eq!(coin.certify(&even, &config, 3).unwrap(), None);
    let certificates = [Some(Certificate { class: 1, radius: 0.3 }), None, Some(Certificate { class: 0, radius: 0.9 })];
    let accuracy = |radius| certified_accuracy(&certificates, &[1, 0, 0], radius).unwrap();
    assert_eq!([accuracy(0.0), accuracy(0.5), accuracy(1.0)], [2.0 / 3.0, 1.0 / 3.0, 0.0]);
    assert!(matches!(certified_accuracy(&certificates, &[1, 0], 0.0), Err(Error::LabelMismatch { .. })));
}

#[test]
fn a_soft_smoothed_model_has_the_mean_probabilities_of_its_passes() {
    let (images, _) = points(Kind::Double);
    let model = linear(Kind::Double);
    let smoothed = Smoothed::new(&model, 0.25, 128).unwrap();
    let soft = smoothed.soft(7, 3).unwrap();
    let found = soft.logits(&images);
    assert_eq!(found.size(), [2, 2]);
    assert!(
        (found.exp().sum_dim_intlist([1].as_slice(), false, Kind::Double) - 1.0).abs().max().double_value(&[]) < 1e-12
    );
    // It is no random model, and an image's logits do not hang on the images beside it.
    assert!(!soft.is_random() && soft.logits(&images).equal(&found));
    let alone = soft.logits(&images.narrow(0, 1, 1));
    assert!((alone - found.narrow(0, 1, 1)).abs().max().double_value(&[]) < 1e-12);
    // Of one pass it is the base under one noise, of many the linear model's logistic expectation: with |w₀ − w₁| = 2.75 and
    // σ = .25, p = E logistic(m + 0.6875 z) with z normal.
    let many = smoothed.soft(20_000, 0).unwrap().logits(&images).exp();
    for place in 0..2 {
        let logits = values(&model(&images.narrow(0, place, 1)));
        let margin = logits[0] - logits[1];
        let (mut expected, mut mass) = (0.0, 0.0);
        for step in -4000..=4000 {
            let z = f64::from(step) / 500.0;
            let weight = (-0.5 * z * z).exp();
            expected += weight / (1.0 + (-(margin + 0.6875 * z)).exp());
            mass += weight;
        }
        // A standard error of at most .17 / √20,000 = .0012.
        assert!((many.double_value(&[place, 0]) - expected / mass).abs() < 0.006, "{place}");
    }
    assert_eq!(soft.logits(&images.narrow(0, 0, 0)).size(), [0, 2]);
    assert!(matches!(smoothed.soft(0, 0), Err(Error::Setting { setting: "passes", .. })));
}

#[test]
fn a_soft_twin_is_as_random_as_its_base_and_no_better_formed() {
    let images = uniform(&[4, 4], 5, (0.2, 0.8), Kind::Double);
    let goal = Goal::untargeted(&Tensor::zeros([4], (Kind::Int64, tch::Device::Cpu)));
    let random = Stochastic(flipping(0.3));
    let smoothed = Smoothed::new(&random, 0.1, 64).unwrap();
    let soft = smoothed.soft(4, 0).unwrap();
    assert!(soft.is_random());
    Pgd::new(Ball::l2(0.1)).run(&soft, &images, &goal, 0).unwrap();
    // What is no row of logits an image does not become one.
    let square = |x: &Tensor| x.reshape([-1, 2, 2]);
    let doubled = |x: &Tensor| Tensor::cat(&[x, x], 0);
    let bases: [&dyn Classifier; 2] = [&square, &doubled];
    for base in bases {
        let soft = Smoothed::new(base, 0.1, 64).unwrap().soft(3, 0).unwrap();
        let error = Pgd::new(Ball::l2(0.1)).run(&soft, &images, &goal, 0).unwrap_err();
        assert!(matches!(error, Error::LogitsShape { .. }), "{error}");
    }
}

#[test]
fn an_attack_on_a_soft_smoothed_linear_model_goes_straight_to_the_border() {
    // Every pass's gradient lies along w₀ − w₁, so the attack does, whatever the noise: it crosses where the certificate's
    // true radius, margin / |w|₂, ends.
    let (images, labels) = points(Kind::Float);
    let model = linear(Kind::Float);
    let smoothed = Smoothed::new(&model, 0.25, 128).unwrap();
    let soft = smoothed.soft(4, 0).unwrap();
    let logits = values(&model(&images.narrow(0, 1, 1)));
    let exact = (logits[0] - logits[1]).abs() / 2.75;
    for (radius, crossed) in [(0.98 * exact, false), (1.02 * exact, true)] {
        let ball = Ball { low: -10.0, high: 10.0, ..Ball::l2(radius) };
        let goal = Goal::untargeted(&labels);
        let moved = Pgd::new(ball).with_steps(40).run(&soft, &images, &goal, 0).unwrap().images;
        let after = values(&model(&moved.narrow(0, 1, 1)));
        let label = labels.int64_value(&[1]) as usize;
        assert_eq!(after[1 - label] > after[label], crossed, "{radius}: {after:?}");
    }
}

#[test]
fn smoothing_settings_outside_their_range() {
    let model = linear(Kind::Float);
    let image = points(Kind::Float).0.get(0);
    assert!(matches!(Smoothed::new(&model, 0.0, 1), Err(Error::Setting { setting: "sigma", .. })));
    assert!(matches!(Smoothed::new(&model, 0.1, 0), Err(Error::Setting { setting: "batch", .. })));
    let smoothed = Smoothed::new(&model, 0.25, 10).unwrap();
    let good = SmoothingConfig { selection: 10, certification: 20, alpha: 0.001 };
    let cases = [
        ("selection", SmoothingConfig { selection: 0, ..good }),
        ("certification", SmoothingConfig { certification: 9, ..good }),
        ("alpha", SmoothingConfig { alpha: 1.0, ..good }),
    ];
    for (name, config) in cases {
        let error = smoothed.certify(&image, &config, 0).unwrap_err();
        assert!(matches!(error, Error::Setting { setting, .. } if setting == name), "{error}");
    }
    let bytes = smoothed.certify(&image.to_kind(Kind::Uint8), &good, 0);
    assert!(matches!(bytes, Err(Error::Images { .. })));
    let broken = |x: &Tensor| linear(Kind::Float)(x) * f64::NAN;
    let smoothed = Smoothed::new(&broken, 0.25, 10).unwrap();
    assert!(matches!(smoothed.certify(&image, &good, 0), Err(Error::NonFinite { what: "logits", .. })));
}
