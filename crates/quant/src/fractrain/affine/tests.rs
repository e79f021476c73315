use super::*;
use crate::fractrain::composed;
use proptest::prelude::*;
use tch::Device;

fn bits(bits: u32) -> Bits {
    Bits::new(bits).unwrap()
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.contiguous().view([-1])).unwrap()
}

fn nearest(values: &[f32], width: u32) -> Vec<f32> {
    floats(&Affine::per_tensor(bits(width)).round(&Tensor::from_slice(values), Rounding::Nearest).unwrap())
}

/// Close by a few units in the last place of the largest number: what `k·s + m` may differ by.
fn close(found: &[f32], expected: &[f32]) -> bool {
    let scale = expected.iter().fold(0.0_f32, |scale, value| scale.max(value.abs()));
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 4.0 * f32::EPSILON * scale)
}

#[test]
fn the_hand_computed_vector_rounds_as_worked_by_hand() {
    // s = 2.1/(2^b − 1): 0.7, 0.3, 0.14; levels [0,1,1,2,3], [0,2,3,4,7], [0,4,7,9,15], and at 8 bits [0,73,121,158,255].
    let x = [-1.0, -0.4, 0.0, 0.3, 1.1];
    assert!(close(&nearest(&x, 2), &[-1.0, -0.3, -0.3, 0.4, 1.1]));
    assert!(close(&nearest(&x, 3), &[-1.0, -0.4, -0.1, 0.2, 1.1]));
    assert!(close(&nearest(&x, 4), &[-1.0, -0.44, -0.02, 0.26, 1.1]));
    let params = Affine::per_tensor(bits(8)).params(&Tensor::from_slice(&x)).unwrap();
    assert!((params.steps()[0] - 0.008_235_29).abs() < 1e-8);
    let levels = params.quantize(&Tensor::from_slice(&x)).unwrap();
    assert_eq!(Vec::<i32>::try_from(&levels).unwrap(), [0, 73, 121, 158, 255]);
    assert!(close(&floats(&params.dequantize(&levels).unwrap()), &nearest(&x, 8)));
}

#[test]
fn ties_go_to_even_levels() {
    // Range 0 to 15 at 4 bits: the step is 1.
    assert_eq!(nearest(&[0.0, 0.5, 1.5, 2.5, 3.5, 15.0], 4), [0.0, 0.0, 2.0, 2.0, 4.0, 15.0]);
}

#[test]
fn stochastic_rounding_is_unbiased_with_the_variance_of_a_coin() {
    // Value 2.3 on levels 0 … 15: 3 with probability 0.3, variance 0.21; bounds of four standard errors.
    let n = 200_000;
    let mut x = vec![2.3_f32; n];
    (x[0], x[1]) = (0.0, 15.0);
    let affine = Affine::per_tensor(bits(4));
    let rounded = floats(&affine.round(&Tensor::from_slice(&x), Rounding::Stochastic { seed: 5 }).unwrap());
    assert_eq!(rounded[..2], [0.0, 15.0]);
    let rest = &rounded[2..];
    assert!(rest.iter().all(|value| *value == 2.0 || *value == 3.0));
    let mean = rest.iter().map(|value| f64::from(*value)).sum::<f64>() / rest.len() as f64;
    assert!((mean - 2.3).abs() < 4.0 * (0.21 / rest.len() as f64).sqrt(), "{mean}");
    // A seed is a stream, another seed another one.
    let again = floats(&affine.round(&Tensor::from_slice(&x), Rounding::Stochastic { seed: 5 }).unwrap());
    let other = floats(&affine.round(&Tensor::from_slice(&x), Rounding::Stochastic { seed: 6 }).unwrap());
    assert!(again == rounded && other != rounded);
}

#[test]
fn channels_have_ranges_of_their_own_along_any_axis() {
    let x = Tensor::from_slice(&[0.0_f32, 0.4, 1.0, 0.0, 40.0, 100.0]).view([2, 3]);
    let one_bit = |axis| Affine { granularity: Granularity::Channel(axis), ..Affine::per_tensor(bits(1)) };
    let rows = one_bit(0).round(&x, Rounding::Nearest).unwrap();
    assert_eq!(floats(&rows), [0.0, 0.0, 1.0, 0.0, 0.0, 100.0]);
    let turned = one_bit(1).round(&x.transpose(0, 1).contiguous(), Rounding::Nearest).unwrap();
    assert_eq!(floats(&turned.transpose(0, 1)), floats(&rows));
    let params = one_bit(0).params(&x).unwrap();
    assert_eq!(Vec::<i32>::try_from(params.quantize(&x).unwrap().view(-1)).unwrap(), [0, 0, 1, 0, 0, 1]);
}

#[test]
fn grids_that_hold_zero_keep_it_exactly() {
    let x = Tensor::from_slice(&[-0.31_f32, 0.0, 0.123, 0.977]);
    for grid in [GridKind::IntegerZeroPoint, GridKind::Symmetric] {
        for width in 2..12 {
            let rounded = Affine { grid, ..Affine::per_tensor(bits(width)) }.round(&x, Rounding::Nearest).unwrap();
            assert_eq!(floats(&rounded)[1], 0.0, "{grid:?}, {width} bits");
        }
    }
    // Symmetric, 2 bits: −0.977, 0, 0.977.
    let two = Affine { grid: GridKind::Symmetric, ..Affine::per_tensor(bits(2)) };
    assert!(close(&floats(&two.round(&x, Rounding::Nearest).unwrap()), &[0.0, 0.0, 0.0, 0.977]));
}

#[test]
fn samples_of_one_width_are_the_whole_tensor_at_that_width() {
    let x = (Tensor::arange(24, (Kind::Float, tch::Device::Cpu)) * 0.37).sin().view([4, 6]);
    let together = Affine::per_tensor(bits(3)).round(&x, Rounding::Nearest).unwrap();
    assert_eq!(floats(&round_per_sample(&x, &[bits(3); 4], Rounding::Nearest).unwrap()), floats(&together));
    let mixed = round_per_sample(&x, &[bits(3), bits(5), bits(3), bits(5)], Rounding::Nearest).unwrap();
    assert_eq!(floats(&mixed.select(0, 2)), floats(&together.select(0, 2)));
    assert!(matches!(round_per_sample(&x, &[bits(3)], Rounding::Nearest), Err(Error::Shape { .. })));
}

#[test]
fn the_gradient_passes_as_it_came_and_the_value_is_the_rounded_one() {
    let x = Tensor::from_slice(&[1000.0_f32, 0.7, -3.3]).set_requires_grad(true);
    let y = Affine::per_tensor(bits(3)).fake_quant(&x, Rounding::Nearest).unwrap();
    assert_eq!(floats(&y.detach()), nearest(&[1000.0, 0.7, -3.3], 3));
    let upstream = Tensor::from_slice(&[0.1_f32, -7.0, 1e-9]);
    (&y * &upstream).sum(Kind::Float).backward();
    assert_eq!(floats(&x.grad()), floats(&upstream));
}

#[test]
fn a_nan_stays_one_on_a_grid_that_was_chosen_before() {
    let grid = QParams::from_range(0.0, 1.0, bits(4), GridKind::MinMax).unwrap();
    for rounding in [Rounding::Nearest, Rounding::Stochastic { seed: 1 }] {
        let rounded = floats(&grid.round(&Tensor::from_slice(&[f32::NAN, 0.5]), rounding).unwrap());
        assert!(rounded[0].is_nan() && rounded[1].is_finite(), "{rounded:?}");
    }
}

#[test]
fn what_has_no_range_is_refused_or_comes_back() {
    let affine = Affine::per_tensor(bits(4));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let x = Tensor::from_slice(&[1.0, bad, 2.0]);
        assert!(matches!(affine.round(&x, Rounding::Nearest), Err(Error::NotFinite { .. })));
    }
    let empty = Tensor::zeros([0, 3], (Kind::Float, tch::Device::Cpu));
    assert_eq!(affine.round(&empty, Rounding::Nearest).unwrap().size(), [0, 3]);
    assert!(matches!(affine.params(&empty), Err(Error::Shape { .. })));
    let no_channels = Affine::per_channel(bits(4)).params(&empty);
    assert!(matches!(no_channels, Err(Error::Shape { .. })));
    let axis = Affine { granularity: Granularity::Channel(2), ..affine }.params(&Tensor::from_slice(&[1.0_f32]));
    assert!(axis.unwrap_err().to_string().contains("channel axis"));
    assert!(QParams::from_range(f32::NAN, 1.0, bits(4), GridKind::MinMax).is_err());
    assert!(QParams::from_range(2.0, 1.0, bits(4), GridKind::MinMax).is_err());
    let symmetric = QParams::from_range(-1.0, 1.0, bits(1), GridKind::Symmetric);
    assert!(matches!(symmetric, Err(Error::BitsOutOfRange { found: 1 })));
    // A constant comes back, also one whose range is no normal number.
    assert_eq!(nearest(&[0.7, 0.7, 0.7], 3), [0.7, 0.7, 0.7]);
    // A range wider than single precision has no step.
    let wide = Tensor::from_slice(&[-f32::MAX, 0.0, f32::MAX]);
    for x in [&wide, &wide.to_kind(Kind::Double)] {
        assert!(matches!(affine.round(x, Rounding::Nearest), Err(Error::NotFinite { .. })));
    }
    let range = QParams::from_range(-f32::MAX, f32::MAX, bits(4), GridKind::MinMax);
    assert!(matches!(range, Err(Error::Config { name: "range", .. })));
    assert!(!memory::scan(&empty).unwrap().finite && !composed::scan(&empty).unwrap().finite);
    let hollow = Tensor::zeros([2, 0], (Kind::Float, tch::Device::Cpu));
    let rows = memory::scan_rows(&hollow).unwrap();
    assert!(rows.len() == 2 && rows.iter().all(|row| !row.finite));
    assert_eq!(memory::products(&hollow, &hollow, &[]).unwrap().size(), [2, 0]);
}

#[test]
fn integers_are_refused_and_their_levels_are_not() {
    let (per_tensor, rounding) = (Affine::per_tensor(bits(8)), Rounding::Nearest);
    let params = QParams::from_range(0.0, 255.0, bits(8), GridKind::MinMax).unwrap();
    for kind in [Kind::Int64, Kind::Uint8, Kind::Bool] {
        let x = Tensor::from_slice(&[0.0_f32, 252.0, 255.0]).to_kind(kind);
        let refusals = [
            per_tensor.params(&x).map(drop),
            Affine::per_channel(bits(8)).params(&x).map(drop),
            per_tensor.round(&x, rounding).map(drop),
            per_tensor.round(&x.narrow(0, 0, 0), rounding).map(drop),
            per_tensor.fake_quant(&x, rounding).map(drop),
            round_per_sample(&x, &[bits(8); 3], rounding).map(drop),
            params.round(&x, rounding).map(drop),
            params.quantize(&x).map(drop),
        ];
        for refused in refusals {
            let Err(Error::Shape { found, .. }) = refused else { panic!("{kind:?}: {refused:?}") };
            assert_eq!(found, format!("{kind:?}"));
        }
    }
    let levels = Tensor::from_slice(&[0_i64, 252, 255]);
    assert_eq!(floats(&params.dequantize(&levels).unwrap()), [0.0, 252.0, 255.0]);
}

#[test]
fn layout_in_memory_changes_nothing_but_itself() {
    let x = (Tensor::arange(2 * 3 * 4 * 5, (Kind::Float, tch::Device::Cpu)) * 0.7).sin().view([2, 3, 4, 5]);
    let last = core_tensor::nn::channels_last(&x);
    let affine = Affine::per_tensor(bits(3));
    let (a, b) = (affine.round(&x, Rounding::Nearest).unwrap(), affine.round(&last, Rounding::Nearest).unwrap());
    assert_eq!(floats(&a), floats(&b));
    assert_eq!(b.stride(), last.stride());
    let sliced = affine.round(&x.slice(3, 0, 5, 2), Rounding::Nearest).unwrap();
    let copied = affine.round(&x.slice(3, 0, 5, 2).contiguous(), Rounding::Nearest).unwrap();
    assert_eq!(floats(&sliced), floats(&copied));
}

#[test]
fn half_kinds_are_rounded_to_the_grid_of_single_precision() {
    let ramp = Tensor::arange(101, (Kind::Float, Device::Cpu)) * 0.06 - 3.0;
    for (kind, width, scale) in [(Kind::Half, 16, 1.0), (Kind::Half, 8, 1e-6), (Kind::BFloat16, 8, 1.0)] {
        let x = (&ramp * scale).to_kind(kind);
        let affine = Affine::per_tensor(bits(width));
        let found = affine.round(&x, Rounding::Nearest).unwrap();
        let expected = affine.round(&x.to_kind(Kind::Float), Rounding::Nearest).unwrap().to_kind(kind);
        assert!(found.kind() == kind && found.equal(&expected), "{kind:?} at {width} bits");
    }
    // 0.3 lies at 165.75 of 255 steps: in eight binary digits there is nothing between 165 and 166.
    let x =
        Tensor::cat(&[Tensor::from_slice(&[-1.0_f32, 1.0]), Tensor::full([200], 0.3, (Kind::Float, Device::Cpu))], 0);
    let x = x.to_kind(Kind::BFloat16);
    let drawn = Affine::per_tensor(bits(8)).round(&x, Rounding::Stochastic { seed: 0 }).unwrap().narrow(0, 2, 200);
    assert!(drawn.min().double_value(&[]) < drawn.max().double_value(&[]));
}

proptest! {
    #[test]
    fn nearest_rounding_keeps_its_invariants(values in proptest::collection::vec(-1e4_f32..1e4, 2..40), width in 1_u32..17) {
        let rounded = nearest(&values, width);
        let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(*x), high.max(*x)));
        let step = (high - low) / bits(width).steps();
        // The rounding of v, k·s and the sum in single precision: a few units in the last place of the largest number.
        let slack = 8.0 * f32::EPSILON * low.abs().max(high.abs());
        for (x, q) in values.iter().zip(&rounded) {
            prop_assert!((x - q).abs() <= step / 2.0 + slack, "{x} → {q}, step {step}");
            if *x == low || *x == high {
                prop_assert!((x - q).abs() <= slack);
            }
        }
        let mut pairs: Vec<_> = values.iter().zip(&rounded).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(b.0));
        prop_assert!(pairs.windows(2).all(|pair| pair[0].1 <= pair[1].1));
        let mut distinct = rounded.clone();
        distinct.sort_by(f32::total_cmp);
        distinct.dedup();
        prop_assert!(distinct.len() as f32 <= bits(width).steps() + 1.0);
        // The grid of the rounded values is the same but for its last bits.
        prop_assert!(nearest(&rounded, width).iter().zip(&rounded).all(|(a, b)| (a - b).abs() <= slack));
    }

    #[test]
    fn on_the_widest_grid_values_come_back_to_a_few_units_in_the_last_place(values in proptest::collection::vec(-1e4_f32..1e4, 2..40)) {
        let largest = values.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        let rounded = nearest(&values, Bits::MAX);
        // Half a step, and the rounding of three operations on numbers of up to twice the largest.
        let slack = 6.0 * f32::EPSILON * largest;
        prop_assert!(values.iter().zip(&rounded).all(|(x, q)| (x - q).abs() <= slack), "{values:?} → {rounded:?}");
    }

    #[test]
    fn shift_and_scale_go_through(values in proptest::collection::vec(-10.0_f32..10.0, 3..20), width in 1_u32..7, scale in 0.125_f32..8.0, shift in -8.0_f32..8.0) {
        let moved: Vec<f32> = values.iter().map(|x| scale * x + shift).collect();
        let (ours, theirs) = (nearest(&moved, width), nearest(&values, width));
        let step = (values.iter().copied().fold(f32::MIN, f32::max) - values.iter().copied().fold(f32::MAX, f32::min)) / bits(width).steps();
        for ((a, b), x) in ours.iter().zip(&theirs).zip(&values) {
            let expected = scale * b + shift;
            // Rounding errors may push a value that lies all but half-way to the other side.
            let halfway = ((x - b).abs() - step / 2.0).abs() < 1e-3 * step + 1e-5;
            prop_assert!((a - expected).abs() <= 1e-5 * (1.0 + expected.abs() + scale * 10.0) || halfway, "{a} against {expected}");
        }
    }

    #[test]
    fn the_kernel_equals_plain_tensor_operations(values in proptest::collection::vec(-1e3_f32..1e3, 1..300), width in 1_u32..17, kind in 0..3) {
        let grid = [GridKind::MinMax, GridKind::IntegerZeroPoint, GridKind::Symmetric][kind as usize];
        prop_assume!(width > 1 || grid != GridKind::Symmetric);
        let x = Tensor::from_slice(&values);
        let extent = composed::scan(&x).unwrap();
        prop_assert_eq!(memory::scan(&x).unwrap(), extent);
        let grid = grid.of(extent, bits(width), "x").unwrap();
        let (kernel, plain) = (memory::round(&x, &[grid], Mode::Nearest).unwrap(), composed::round(&x, &[grid], Mode::Nearest).unwrap());
        prop_assert_eq!(floats(&kernel), floats(&plain));
        let gradient = x.flip([0]);
        let rows = x.view([1, -1]);
        let product = memory::products(&rows, &gradient.view([1, -1]), &[grid]).unwrap().double_value(&[0, 0]);
        let expected = (plain.to_kind(Kind::Double) * gradient).sum(Kind::Double).double_value(&[]);
        // Sums of up to 300 products of 10^6 in single precision.
        prop_assert!((product - expected).abs() <= 300.0 * 1e6 * 1e-6, "{} against {}", product, expected);
    }

    #[test]
    fn stochastic_rounding_goes_to_a_neighbour_and_keeps_the_grid(values in proptest::collection::vec(-5.0_f32..5.0, 2..60), width in 1_u32..9, seed: u64) {
        let x = Tensor::from_slice(&values);
        let affine = Affine::per_tensor(bits(width));
        let params = affine.params(&x).unwrap();
        let rounded = affine.round(&x, Rounding::Stochastic { seed }).unwrap();
        let step = params.steps()[0];
        for (x, q) in values.iter().zip(floats(&rounded)) {
            prop_assert!((x - q).abs() <= step + 1e-5);
        }
        let on_grid = floats(&params.round(&rounded, Rounding::Nearest).unwrap());
        prop_assert_eq!(on_grid, floats(&rounded));
    }
}
