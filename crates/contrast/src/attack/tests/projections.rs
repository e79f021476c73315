//! Projections against hand computations and against what defines them.

use super::models::uniform;
use crate::attack::projection::{hyperplane_and_box, l1_ball_and_box};
use crate::attack::{Ball, Error, Norm};
use proptest::prelude::*;
use tch::{Kind, Tensor};

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance, "{found:?} is not {expected:?}");
}

#[test]
fn l1_projection_meets_the_hand_computed_values() {
    // x = (.5, .5, .5, .5), δ = (.6, −.3, .2, 0). With ε = .5 the threshold is λ = .2; from ε = 1 on only the box acts.
    for (radius, expected) in [(0.5, [0.4, -0.1, 0.0, 0.0]), (1.0, [0.5, -0.3, 0.2, 0.0]), (9.0, [0.5, -0.3, 0.2, 0.0])]
    {
        let mut delta = [0.6, -0.3, 0.2, 0.0];
        l1_ball_and_box(&mut delta, &[0.5; 4], radius, 0.0, 1.0).unwrap();
        close(&delta, &expected, 1e-12);
    }
}

#[test]
fn hyperplane_projection_meets_the_hand_computed_values() {
    // t = (.2, .8, .5), w = (1, −2, .5), b = .5: w·t − b = −1.65. Linf: 1.65 / 3.5 each. L2: 1.65 w / 5.25. L1: the
    // second pixel has the largest weight and room .8, the first does the rest.
    let cases = [
        (Norm::Linf, [0.471_428_571_4, -0.471_428_571_4, 0.471_428_571_4]),
        (Norm::L2, [0.314_285_714_3, -0.628_571_428_6, 0.157_142_857_1]),
        (Norm::L1, [0.05, -0.8, 0.0]),
    ];
    for (norm, expected) in cases {
        let mut change = [f64::NAN; 3];
        hyperplane_and_box(norm, &[0.2, 0.8, 0.5], &[1.0, -2.0, 0.5], 0.5, (0.0, 1.0), &mut change).unwrap();
        close(&change, &expected, 1e-9);
    }
}

#[test]
fn a_hyperplane_that_misses_the_box_gives_the_nearest_corner() {
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        let mut change = [f64::NAN; 2];
        hyperplane_and_box(norm, &[0.25, 0.5], &[1.0, -1.0], 7.0, (0.0, 1.0), &mut change).unwrap();
        close(&change, &[0.75, -0.5], 1e-12);
    }
}

#[test]
fn a_weight_that_is_not_a_number_ends_the_search_and_slices_of_other_lengths_are_refused() {
    for norm in [Norm::Linf, Norm::L2, Norm::L1] {
        let mut change = [0.0; 2];
        hyperplane_and_box(norm, &[0.25, 0.5], &[f64::NAN, 1.0], 0.1, (0.0, 1.0), &mut change).unwrap();
        let short = hyperplane_and_box(norm, &[0.25, 0.5], &[1.0], 0.1, (0.0, 1.0), &mut change);
        assert!(matches!(short, Err(Error::Images { .. })));
    }
    assert!(matches!(l1_ball_and_box(&mut [0.1; 3], &[0.5; 2], 1.0, 0.0, 1.0), Err(Error::Images { .. })));
}

fn size(norm: Norm, change: &[f64]) -> f64 {
    match norm {
        Norm::Linf => change.iter().fold(0.0, |a: f64, b| a.max(b.abs())),
        Norm::L2 => change.iter().map(|v| v * v).sum::<f64>().sqrt(),
        Norm::L1 => change.iter().map(|v| v.abs()).sum(),
    }
}

proptest! {
    #[test]
    fn l1_projection_is_the_nearest_point(
        delta in prop::collection::vec(-1.5..1.5_f64, 5),
        image in prop::collection::vec(0.0..=1.0_f64, 5),
        radius in 0.0..2.0_f64,
        other in prop::collection::vec(-1.0..1.0_f64, 5),
    ) {
        let mut nearest = delta.clone();
        l1_ball_and_box(&mut nearest, &image, radius, 0.0, 1.0).unwrap();
        prop_assert!(size(Norm::L1, &nearest) <= radius + 1e-9);
        for (d, x) in nearest.iter().zip(&image) {
            prop_assert!((0.0..=1.0).contains(&(x + d)) || (x + d).abs() < 1e-12 || (x + d - 1.0).abs() < 1e-12);
        }
        // What defines a projection onto a convex set: (δ − p) · (q − p) ≤ 0 for every q of the set.
        let mut feasible: Vec<f64> = other.iter().zip(&image).map(|(d, x)| (x + d).clamp(0.0, 1.0) - x).collect();
        let shrink = (radius / size(Norm::L1, &feasible).max(1e-12)).min(1.0);
        feasible.iter_mut().for_each(|d| *d *= shrink);
        let product: f64 = (0..5).map(|i| (delta[i] - nearest[i]) * (feasible[i] - nearest[i])).sum();
        prop_assert!(product <= 1e-9, "{product}");
    }

    #[test]
    fn hyperplane_projection_is_feasible_and_no_other_point_is_nearer(
        image in prop::collection::vec(0.0..=1.0_f64, 5),
        other in prop::collection::vec(0.0..=1.0_f64, 5),
        normal in prop::collection::vec(-1.0..1.0_f64, 5),
    ) {
        // A hyperplane through another point of the box, so that it meets the box; that point is then no nearer.
        let offset: f64 = normal.iter().zip(&other).map(|(w, x)| w * x).sum();
        let away: Vec<f64> = other.iter().zip(&image).map(|(a, b)| a - b).collect();
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            let mut change = vec![0.0; 5];
            hyperplane_and_box(norm, &image, &normal, offset, (0.0, 1.0), &mut change).unwrap();
            let reached: f64 = (0..5).map(|i| normal[i] * (image[i] + change[i])).sum();
            prop_assert!((reached - offset).abs() < 1e-9, "{norm:?}: {reached} is not {offset}");
            prop_assert!((0..5).all(|i| (-1e-12..=1.0 + 1e-12).contains(&(image[i] + change[i]))));
            prop_assert!(size(norm, &change) <= size(norm, &away) + 1e-9);
        }
    }

    #[test]
    fn balls_project_into_themselves_and_leave_their_own_points_alone(seed: u64, radius in 0.0..3.0_f64) {
        for norm in [Norm::Linf, Norm::L2, Norm::L1] {
            let ball = Ball::new(norm, radius);
            let images = uniform(&[4, 2, 3], seed, (0.0, 1.0), Kind::Double);
            let moved = uniform(&[4, 2, 3], seed ^ 1, (-1.0, 2.0), Kind::Double);
            let once = ball.project(&images, &moved).unwrap();
            prop_assert!(norm.size(&(&once - &images)).max().double_value(&[]) <= radius + 1e-12);
            prop_assert!(once.min().double_value(&[]) >= 0.0 && once.max().double_value(&[]) <= 1.0);
            let twice = ball.project(&images, &once).unwrap();
            prop_assert!((once - twice).abs().max().double_value(&[]) <= 1e-12);
        }
    }
}

#[test]
fn sizes_are_the_norms() {
    let change = Tensor::from_slice(&[0.3_f64, -0.4, 0.0, 0.0]).reshape([2, 1, 2]);
    for (norm, expected) in [(Norm::Linf, 0.4), (Norm::L2, 0.5), (Norm::L1, 0.7)] {
        let sizes = norm.size(&change);
        close(&super::models::values(&sizes), &[expected, 0.0], 1e-12);
    }
}
