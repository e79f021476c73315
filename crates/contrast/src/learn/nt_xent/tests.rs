use super::*;
use proptest::prelude::*;
use tch::Device;

fn rows(values: &[f64], width: i64) -> Tensor {
    Tensor::from_slice(values).view([-1, width])
}

fn loss(values: &[f64], temperature: f64) -> f64 {
    nt_xent(&rows(values, 2), temperature, Layout::Interleaved).unwrap().double_value(&[])
}

/// Sums of at most 8 terms of order 1 in f64; the constants are given to 10 digits.
const GIVEN: f64 = 1e-9;

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < GIVEN
}

/// `count` rows of `width` numbers that are no multiple of each other: sines of distinct arguments.
fn spread(count: i64, width: i64, phase: f64) -> Tensor {
    let angles = Tensor::arange(count * width, (Kind::Double, Device::Cpu));
    ((&angles * 1.7 + &angles * &angles * 0.013 + phase).sin()).view([count, width])
}

fn gradient(embeddings: &Tensor, loss: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let leaf = embeddings.detach().copy().set_requires_grad(true);
    loss(&leaf).backward();
    leaf.grad()
}

fn largest(difference: &Tensor) -> f64 {
    difference.abs().max().double_value(&[])
}

#[test]
fn values_worked_out_by_hand() {
    // Views agree, images orthogonal: each row has one similarity 1/τ = 2 and two of 0.
    assert!(close(loss(&[1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0], 0.5), (1.0 + 2.0 * (-2.0_f64).exp()).ln()));
    // Views orthogonal, other image's view equal: log(e² + 2).
    assert!(close(loss(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0], 0.5), (2.0_f64.exp() + 2.0).ln()));
    // Collapse: log of the number of other rows.
    for images in [2_usize, 3, 7] {
        let found = loss(&[0.6, -0.8].repeat(2 * images), 0.5);
        assert!(close(found, (2.0 * images as f64 - 1.0).ln()), "{images}: {found}");
    }
    // Partners (1, 0), (.6, .8) and (0, 1), (.8, .6): the mean of 1.02712306 and 1.51430446, twice each.
    let pairs = [1.0, 0.0, 0.6, 0.8, 0.0, 1.0, 0.8, 0.6];
    for (temperature, expected) in [(0.5, 1.2707137571), (0.1, 2.9668017297), (1.0, 1.1574737648)] {
        assert!(close(loss(&pairs, temperature), expected), "{temperature}");
    }
}

/// Values of a reference run in PyTorch (f64), which lightly's `NTXentLoss` shares.
#[test]
fn values_and_gradients_of_a_reference_run() {
    let embeddings = [1.0, 2.0, 2.0, 1.0, -1.0, 1.0, 0.5, -1.0];
    for (temperature, expected) in [(0.5, 1.4357652540), (0.1, 5.5371331490), (1.0, 1.1666473846)] {
        assert!(close(loss(&embeddings, temperature), expected), "{temperature}");
    }
    let expected =
        rows(&[-0.21444759, 0.10722380, 0.08942407, -0.17884815, 0.45060137, 0.45060137, 0.64976329, 0.32488165], 2);
    let found = gradient(&rows(&embeddings, 2), |z| nt_xent(z, 0.5, Layout::Interleaved).unwrap());
    // The reference has 8 digits.
    assert!(largest(&(found - expected)) < 1e-8);
}

#[test]
fn small_temperatures_stay_finite_in_single_precision() {
    // Partners agree, images are orthogonal: log(1 + (N − 2)·exp(−1/τ)), which is 0 to f32 from τ = 0.05 downwards.
    let eye = Tensor::eye(8, (Kind::Float, Device::Cpu));
    let views = Tensor::cat(&[&eye, &eye], 0);
    for temperature in [0.5_f64, 0.1, 0.05, 0.02, 0.01, 0.001] {
        let expected = (1.0 + 14.0 * (-1.0 / temperature).exp()).ln();
        let found = nt_xent(&views, temperature, Layout::Stacked).unwrap().double_value(&[]);
        // The loss is a difference of two sums over 16 rows of size 1/τ, each exact to f32's 6e-8.
        assert!((found - expected).abs() < 4e-7 / temperature, "{temperature}: {found} for {expected}");
        let slope = gradient(&views, |z| nt_xent(z, temperature, Layout::Stacked).unwrap());
        assert!(slope.isfinite().all().int64_value(&[]) == 1, "{temperature}");
    }
}

#[test]
fn a_zero_embedding_counts_as_orthogonal_to_all() {
    let embeddings = spread(6, 3, 0.0);
    let _ = embeddings.get(2).zero_();
    let value = nt_xent(&embeddings, 0.5, Layout::Stacked).unwrap();
    let plain = nt_xent_plain(&embeddings, 0.5, Layout::Stacked).unwrap();
    assert!(close(value.double_value(&[]), plain.double_value(&[])));
    let slope = gradient(&embeddings, |z| nt_xent(z, 0.5, Layout::Stacked).unwrap());
    assert_eq!(slope.isfinite().all().int64_value(&[]), 1);
}

#[test]
fn more_rows_than_a_block_give_the_plain_value_and_gradient() {
    // 5 blocks, the last a partial one.
    for layout in [Layout::Stacked, Layout::Interleaved] {
        for temperature in [0.5, 0.02] {
            let embeddings = spread(WHOLE + 14, 9, 0.3);
            let value = nt_xent(&embeddings, temperature, layout).unwrap();
            let plain = nt_xent_plain(&embeddings, temperature, layout).unwrap();
            assert!(close(value.double_value(&[]), plain.double_value(&[])));
            let ours = gradient(&embeddings, |z| nt_xent(z, temperature, layout).unwrap());
            let theirs = gradient(&embeddings, |z| nt_xent_plain(z, temperature, layout).unwrap());
            // f64; gradients of order 1/(τ·N) summed over 526 terms.
            assert!(largest(&(ours - theirs)) < 1e-12, "{layout:?} {temperature}");
        }
    }
}

#[test]
fn what_is_no_pair_of_views_is_refused() {
    let refuse = |embeddings: &Tensor| nt_xent(embeddings, 0.5, Layout::Stacked).unwrap_err();
    for bad in [spread(2, 3, 0.0), spread(5, 3, 0.0), spread(4, 3, 0.0).view([12]), spread(4, 3, 0.0).view([4, 3, 1])] {
        assert!(matches!(refuse(&bad), Error::ViewsLayout { .. }), "{:?}", bad.size());
        assert!(matches!(nt_xent_plain(&bad, 0.5, Layout::Stacked), Err(Error::ViewsLayout { .. })));
    }
    for temperature in [0.0, -0.5, f64::NAN, f64::INFINITY] {
        let refused = nt_xent(&spread(4, 3, 0.0), temperature, Layout::Stacked);
        assert!(matches!(refused, Err(Error::InvalidTemperature { .. })), "{temperature}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn symmetries(images in 2_i64..12, width in 2_i64..6, phase in 0.0..6.0_f64, seed in 0_usize..1000) {
        let z = spread(2 * images, width, phase);
        let of = |z: &Tensor| nt_xent(z, 0.5, Layout::Stacked).unwrap().double_value(&[]);
        let value = of(&z);
        let halves = z.chunk(2, 0);
        // The order of the views.
        prop_assert!(close(of(&Tensor::cat(&[&halves[1], &halves[0]], 0)), value));
        // The order of the images.
        let order: Vec<i64> = (0..images).map(|k| (k + seed as i64) % images).collect();
        let order = Tensor::from_slice(&order);
        let moved = Tensor::cat(&[halves[0].index_select(0, &order), halves[1].index_select(0, &order)], 0);
        prop_assert!(close(of(&moved), value));
        // The layout.
        let interleaved = Tensor::stack(&[&halves[0], &halves[1]], 1).view([2 * images, width]);
        prop_assert!(close(nt_xent(&interleaved, 0.5, Layout::Interleaved).unwrap().double_value(&[]), value));
        // The length of each row.
        let lengths = spread(2 * images, 1, phase + 1.0).exp();
        prop_assert!(close(of(&(&z * &lengths)), value));
        // A rotation of all rows: a Householder reflection keeps all inner products.
        let axis = spread(width, 1, phase + 2.0);
        let reflected = &z - z.mm(&axis).mm(&axis.tr()) * 2.0 / axis.square().sum(Kind::Double);
        prop_assert!(close(of(&reflected), value));
        // The gradient is orthogonal to each row.
        let slope = gradient(&z, |z| nt_xent(z, 0.5, Layout::Stacked).unwrap());
        prop_assert!(largest(&(&slope * &z).sum_dim_intlist([1].as_slice(), false, Kind::Double)) < 1e-12);
        // And the plain one's.
        let plain = gradient(&z, |z| nt_xent_plain(z, 0.5, Layout::Stacked).unwrap());
        prop_assert!(largest(&(slope - plain)) < 1e-12);
    }
}
