use super::*;
use crate::params::{LeafModel, Scaling, SoftForestParams};
use crate::recursion;
use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Case {
    trees: Vec<Tree>,
    encoder: Encoder,
    params: SoftForestParams,
    target: Option<Vec<(f32, f32)>>,
    x: Array2<f32>,
}

/// Random trees of random shapes, leafness with exact zeros and ones, on random rows with a random scaling.
fn case(seed: u64, rows: usize, mix: Mix, gate: Gate, regression: bool) -> Result<Case> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let linear = (mix == Mix::Logits || regression) && rng.random_bool(0.5);
    let inputs = rng.random_range(1..40);
    let params = SoftForestParams::default()
        .depth(rng.random_range(1..6))
        .leafness(crate::Leafness::Random { nodes: rng.random_range(1..40) })
        .mix(mix)
        .leaf(if linear { LeafModel::Linear } else { LeafModel::Constant })
        .gate(gate)
        .scaling(Scaling::Standardise);
    let mut x = Array2::zeros((rows, inputs));
    x.iter_mut().for_each(|v| *v = rng.random_range(-2.0f32..2.0));
    let trees = (0..rng.random_range(1..5))
        .map(|_| {
            let mut tree = Tree::random(&params, inputs, 3, &mut rng);
            tree.leafness.iter_mut().for_each(|g| *g = [0.0, 1.0, rng.random_range(0.0..1.0)][rng.random_range(0..3)]);
            tree.responses.iter_mut().for_each(|r| *r *= 20.0);
            tree.slopes.iter_mut().for_each(|s| *s = rng.random_range(-0.5..0.5));
            tree.weights.iter_mut().for_each(|w| *w *= 3.0);
            tree
        })
        .collect();
    Ok(Case {
        trees,
        encoder: Encoder::fit(x.view(), &params)?,
        params,
        target: regression.then(|| vec![(2.0, -1.0), (0.5, 3.0), (1.0, 0.0)]),
        x,
    })
}

impl Case {
    fn kernel(&self) -> Kernel {
        Kernel::new(&self.trees, &self.folding(1.5))
    }

    fn folding(&self, inverse_temperature: f32) -> Folding<'_> {
        Folding {
            encoder: &self.encoder,
            gate: self.params.gate,
            inverse_temperature,
            mix: self.params.mix,
            target: self.target.as_deref(),
        }
    }

    /// The gates' scores of a row in double precision.
    fn scores(&self, tree: &Tree, row: ndarray::ArrayView1<f32>) -> Vec<f64> {
        (0..tree.bias.len())
            .map(|g| {
                let mut z = f64::from(tree.bias[g]);
                for (j, &w) in tree.gate_weights(g).iter().enumerate() {
                    let centred = f64::from(row[j]) - f64::from(self.encoder.mean()[j]);
                    z += f64::from(w) * centred * f64::from(self.encoder.inverse_scale()[j]);
                }
                z
            })
            .collect()
    }

    /// The prediction in double precision, straight from the recursion.
    fn plain(&self, inverse_temperature: f64) -> Array2<f64> {
        let mut out = Array2::zeros((self.x.nrows(), 3));
        for (row, mut out) in self.x.rows().into_iter().zip(out.rows_mut()) {
            for tree in &self.trees {
                let scores = self.scores(tree, row).into_iter();
                let p: Vec<f64> = scores.map(|z| self.params.gate.evaluate(inverse_temperature * z).0).collect();
                let g: Vec<f64> = tree.leafness.iter().map(|&g| f64::from(g)).collect();
                let stop = recursion::reach(&tree.topology, &p, &g).stop;
                let classes = self.target.is_none();
                let mut one = [0.0f64; 3];
                for (node, a) in stop.iter().enumerate() {
                    let mut q: Vec<f64> = tree.response(node).iter().map(|&r| f64::from(r)).collect();
                    for (q, slope) in q.iter_mut().zip(tree.slope(node).chunks(tree.inputs)) {
                        for (j, &s) in slope.iter().enumerate() {
                            let centred = f64::from(row[j]) - f64::from(self.encoder.mean()[j]);
                            *q += f64::from(s) * centred * f64::from(self.encoder.inverse_scale()[j]);
                        }
                    }
                    if classes && self.params.mix == Mix::Probabilities {
                        q = soft(&q);
                    }
                    if let Some(target) = &self.target {
                        for (q, (scale, offset)) in q.iter_mut().zip(target) {
                            *q = *q * f64::from(*scale) + f64::from(*offset);
                        }
                    }
                    one.iter_mut().zip(q).for_each(|(o, q)| *o += a * q);
                }
                if classes && self.params.mix == Mix::Logits {
                    let mixed = soft(&one);
                    one.copy_from_slice(&mixed);
                }
                for (o, v) in out.iter_mut().zip(one) {
                    *o += v / self.trees.len() as f64;
                }
            }
        }
        out
    }
}

fn soft(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|l| (l - max).exp()).sum();
    logits.iter().map(|l| (l - max).exp() / sum).collect()
}

fn any_mix() -> impl Strategy<Value = (Mix, Gate, bool)> {
    (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(mix, gate, regression)| {
        (
            if mix { Mix::Probabilities } else { Mix::Logits },
            if gate { Gate::Sigmoid } else { Gate::SmoothStep { width: 2.0 } },
            regression,
        )
    })
}

/// Single precision: scores of up to 40 terms of size 10 err by about 1e-5, through a slope of at most 1.
const ROUNDING: f64 = 5e-5;

proptest! {
    #[test]
    fn exact_evaluation_equals_the_plain_recursion(seed: u64, rows in 1usize..150, (mix, gate, regression) in any_mix()) {
        let case = case(seed, rows, mix, gate, regression)?;
        let found = case.kernel().predict(case.x.view(), Evaluation::Exact)?;
        let size = if regression { 10.0 } else { 1.0 };
        for (f, w) in found.output.iter().zip(&case.plain(1.5)) {
            prop_assert!((f64::from(*f) - w).abs() < ROUNDING * size, "{f} {w}");
        }
        if !regression {
            for row in found.output.rows() {
                prop_assert!((row.sum() - 1.0).abs() < 1e-5);
                prop_assert!(row.iter().all(|&p| p >= 0.0));
            }
        }
    }

    #[test]
    fn skipping_stays_within_the_bound_it_returns(seed: u64, below in 0.0f32..1.0, hard: bool, (mix, gate, regression) in any_mix()) {
        let case = case(seed, 70, mix, gate, regression)?;
        let evaluation = if hard { Evaluation::Hard } else { Evaluation::Skip { below } };
        let found = case.kernel().predict(case.x.view(), evaluation)?;
        let size = if regression { 10.0 } else { 1.0 };
        for ((f, w), bound) in found.output.rows().into_iter().zip(case.plain(1.5).rows()).zip(&found.bounds) {
            let distance = f.iter().zip(w).map(|(&f, w)| (f64::from(f) - w).abs());
            let distance = if regression { distance.fold(0.0, f64::max) } else { distance.sum() };
            prop_assert!(distance <= f64::from(*bound) + ROUNDING * size, "{distance} {bound}");
        }
    }

    #[test]
    fn integers_stay_within_the_bound_they_return(
        seed: u64,
        rows in 1usize..150,
        (mix, gate, regression) in any_mix(),
        none: bool,
        below in proptest::option::of(0.0f32..1.0),
    ) {
        let mut case = case(seed, rows, mix, gate, regression)?;
        if none {
            // Inputs that share a unit are rounded as they are.
            case.params.scaling = Scaling::Centre;
            case.encoder = Encoder::fit(case.x.view(), &case.params)?;
        }
        let kernel = case.kernel();
        let evaluation = below.map_or(Evaluation::Integer, |below| Evaluation::IntegerSkip { below });
        if case.trees.iter().any(|tree| !tree.slopes.is_empty()) {
            let refused = kernel.predict(case.x.view(), evaluation);
            prop_assert!(matches!(refused, Err(ForestError::Setting { .. })), "expected a refusal");
            return Ok(());
        }
        let found = kernel.predict(case.x.view(), evaluation)?;
        let size = if regression { 10.0 } else { 1.0 };
        for ((f, w), bound) in found.output.rows().into_iter().zip(case.plain(1.5).rows()).zip(&found.bounds) {
            let distance = f.iter().zip(w).map(|(&f, w)| (f64::from(f) - w).abs());
            let distance = if regression { distance.fold(0.0, f64::max) } else { distance.sum() };
            prop_assert!(distance <= f64::from(*bound) + ROUNDING * size, "{distance} {bound}");
            if !regression {
                prop_assert!((f.sum() - 1.0).abs() < 1e-5);
            }
        }
        for (i, row) in case.x.axis_chunks_iter(Axis(0), 1).enumerate() {
            let one = kernel.predict(row, evaluation)?;
            prop_assert_eq!(one.output.row(0), found.output.row(i));
            prop_assert_eq!(one.bounds[0], found.bounds[i]);
            if below.is_some() {
                let mut output = vec![0.0; kernel.outputs()];
                let bound = kernel.predict_one(&row.row(0).to_vec(), evaluation, &mut output)?;
                prop_assert_eq!(&output[..], found.output.row(i).to_vec());
                prop_assert_eq!(bound, found.bounds[i]);
            }
        }
    }

    /// Both add the same exact sums in other orders of the mixing.
    #[test]
    fn skipping_nothing_in_integers_equals_integers(seed: u64, rows in 1usize..300, gate in any_mix().prop_map(|m| m.1)) {
        let case = case(seed, rows, Mix::Probabilities, gate, false)?;
        let kernel = case.kernel();
        let all = kernel.predict(case.x.view(), Evaluation::Integer)?;
        let nothing = kernel.predict(case.x.view(), Evaluation::IntegerSkip { below: 0.0 })?;
        for (a, b) in all.output.iter().zip(&nothing.output) {
            prop_assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        prop_assert_eq!(
            kernel.gates_visited(case.x.view(), Evaluation::Integer)?,
            kernel.gates_visited(case.x.view(), Evaluation::IntegerSkip { below: 0.0 })?
        );
    }

    #[test]
    fn skipping_nothing_and_single_rows_equal_exact_evaluation(seed: u64, (mix, gate, regression) in any_mix()) {
        let case = case(seed, 9, mix, gate, regression)?;
        let kernel = case.kernel();
        let exact = kernel.predict(case.x.view(), Evaluation::Exact)?;
        let nothing = kernel.predict(case.x.view(), Evaluation::Skip { below: 0.0 })?;
        prop_assert!(nothing.bounds.iter().all(|&b| b == 0.0));
        let mut one = vec![0.0; 3];
        for (i, row) in case.x.rows().into_iter().enumerate() {
            let bound = kernel.predict_one(&row.to_vec(), Evaluation::Exact, &mut one)?;
            prop_assert_eq!(bound, 0.0);
            for ((e, n), o) in exact.output.row(i).iter().zip(nothing.output.row(i)).zip(&one) {
                let size = e.abs().max(1.0);
                prop_assert!((e - n).abs() < 5e-5 * size);
                prop_assert!((e - o).abs() < 5e-5 * size);
            }
        }
    }

    #[test]
    fn a_batch_predicts_bit_for_bit_as_its_rows(seed: u64, rows in 1usize..140) {
        let case = case(seed, rows, Mix::Probabilities, Gate::Sigmoid, false)?;
        let kernel = case.kernel();
        let all = kernel.predict(case.x.view(), Evaluation::Exact)?.output;
        for (i, row) in case.x.axis_chunks_iter(Axis(0), 1).enumerate() {
            let one = kernel.predict(row, Evaluation::Exact)?.output;
            prop_assert_eq!(one.row(0), all.row(i));
        }
    }

    #[test]
    fn order_of_trees_and_copies_of_a_tree_change_nothing(seed: u64) {
        let mut case = case(seed, 20, Mix::Probabilities, Gate::Sigmoid, false)?;
        let before = case.kernel().predict(case.x.view(), Evaluation::Exact)?.output;
        case.trees.reverse();
        let after = case.kernel().predict(case.x.view(), Evaluation::Exact)?.output;
        // Only the order of at most 5 additions differs.
        prop_assert!(before.iter().zip(&after).all(|(b, a)| (b - a).abs() < 1e-6));
        case.trees.truncate(1);
        let one = case.kernel().predict(case.x.view(), Evaluation::Exact)?.output;
        case.trees = vec![case.trees[0].clone(); 3];
        let three = case.kernel().predict(case.x.view(), Evaluation::Exact)?.output;
        prop_assert!(one.iter().zip(&three).all(|(b, a)| (b - a).abs() < 1e-6));
    }

    #[test]
    fn permuting_features_with_their_weights_changes_nothing(seed: u64) {
        let mut case = case(seed, 20, Mix::Probabilities, Gate::Sigmoid, false)?;
        let before = case.kernel().predict(case.x.view(), Evaluation::Exact)?.output;
        let width = case.x.ncols();
        case.x.invert_axis(Axis(1));
        case.x = case.x.as_standard_layout().to_owned();
        for tree in &mut case.trees {
            tree.weights.chunks_exact_mut(width).for_each(<[f32]>::reverse);
        }
        case.encoder = Encoder::fit(case.x.view(), &case.params)?;
        let after = case.kernel().predict(case.x.view(), Evaluation::Exact)?.output;
        prop_assert!(before.iter().zip(&after).all(|(b, a)| (b - a).abs() < 5e-5));
    }

    #[test]
    fn swapping_the_children_of_the_root_with_its_sign_changes_nothing(seed: u64) {
        let params = SoftForestParams::default().depth(1).scaling(Scaling::None);
        let mut case = case(seed, 10, Mix::Probabilities, Gate::Sigmoid, false)?;
        case.params = params.clone();
        let inputs = case.encoder.inputs();
        let tree = Tree::random(&params, inputs, 3, &mut ChaCha8Rng::seed_from_u64(seed));
        case.trees = vec![tree.clone()];
        let before = case.kernel().predict(case.x.view(), Evaluation::Exact)?.output;
        let mut swapped = tree;
        swapped.weights.iter_mut().chain(&mut swapped.bias).for_each(|w| *w = -*w);
        for k in 0..3 {
            swapped.responses.swap(3 + k, 6 + k);
        }
        case.trees = vec![swapped];
        let after = case.kernel().predict(case.x.view(), Evaluation::Exact)?.output;
        prop_assert!(before.iter().zip(&after).all(|(b, a)| (b - a).abs() < 1e-6));
    }

    #[test]
    fn a_low_temperature_routes_hard(seed: u64) {
        let case = case(seed, 20, Mix::Probabilities, Gate::Sigmoid, false)?;
        let hard_shape: Vec<Tree> = case.trees.iter().map(Tree::hardened).collect();
        let cold = Kernel::new(&hard_shape, &case.folding(1e6));
        let exact = cold.predict(case.x.view(), Evaluation::Exact)?.output;
        let hard = cold.predict(case.x.view(), Evaluation::Hard)?;
        let mut compared = 0;
        for (row, (e, h)) in exact.rows().into_iter().zip(hard.output.rows()).enumerate() {
            // So close to a gate's plane, rounding alone decides on the side, and each evaluation sums in its own order.
            let close = |tree| case.scores(tree, case.x.row(row)).iter().any(|z| z.abs() < ROUNDING);
            if hard_shape.iter().any(close) {
                continue;
            }
            compared += 1;
            let distance: f32 = e.iter().zip(h).map(|(e, h)| (e - h).abs()).sum();
            prop_assert!(distance < 1e-5 && hard.bounds[row] < 1e-5, "{distance} {}", hard.bounds[row]);
        }
        prop_assert!(compared > 0);
    }

    #[test]
    fn every_instruction_set_computes_the_same_tile(seed: u64, inputs in 1usize..60) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect() };
        let (tile, x) = (draw(inputs * TILE), draw(inputs * LANES));
        let mut plain = vec![0.0; TILE * LANES];
        dense::tile_portable(&tile, &x, &mut plain);
        let mut versions: Vec<Vec<f32>> = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                let mut z = vec![0.0; TILE * LANES];
                // SAFETY: the feature was detected and the lengths fit.
                unsafe { dense::x86::tile_avx512(&tile, &x, &mut z, inputs) };
                versions.push(z);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                let mut z = vec![0.0; TILE * LANES];
                // SAFETY: the features were detected and the lengths fit.
                unsafe { dense::x86::tile_avx2(&tile, &x, &mut z, inputs) };
                versions.push(z);
            }
        }
        for version in versions {
            // Sums of up to 60 products below 1, rounded once (fused) or twice a step.
            prop_assert!(plain.iter().zip(&version).all(|(p, v)| (p - v).abs() < 60.0 * 6e-7));
        }
    }
}

proptest! {
    /// Seconds since 1970, of which single precision has every 128th, over some days.
    #[test]
    fn columns_far_from_zero_lose_no_precision(seed: u64, (mix, gate, regression) in any_mix(), centre: bool) {
        let mut case = case(seed, 70, mix, gate, regression)?;
        let apart = case.x.ncols().div_ceil(2);
        case.x.slice_mut(ndarray::s![.., ..apart]).mapv_inplace(|v| 1.7e9 + 128.0 * (1000.0 * v).round());
        if centre {
            // Scores of size 1 from such units.
            case.params.scaling = Scaling::Centre;
            let inputs = case.x.ncols();
            for tree in &mut case.trees {
                for rows in [&mut tree.weights, &mut tree.slopes] {
                    rows.chunks_exact_mut(inputs).for_each(|row| row[..apart].iter_mut().for_each(|w| *w /= 1e5));
                }
            }
        }
        case.encoder = Encoder::fit(case.x.view(), &case.params)?;
        let (kernel, wanted) = (case.kernel(), case.plain(1.5));
        let size = if regression { 10.0 } else { 1.0 };
        let mut found = vec![kernel.predict(case.x.view(), Evaluation::Exact)?];
        found.push(kernel.predict(case.x.view(), Evaluation::Skip { below: 0.0 })?);
        if case.trees.iter().all(|tree| tree.slopes.is_empty()) {
            found.push(kernel.predict(case.x.view(), Evaluation::Integer)?);
            found.push(kernel.predict(case.x.view(), Evaluation::IntegerSkip { below: 0.1 })?);
        }
        for found in found {
            for ((f, w), bound) in found.output.rows().into_iter().zip(wanted.rows()).zip(&found.bounds) {
                let distance = f.iter().zip(w).map(|(&f, w)| (f64::from(f) - w).abs());
                let distance = if regression { distance.fold(0.0, f64::max) } else { distance.sum() };
                prop_assert!(distance <= f64::from(*bound) + ROUNDING * size, "{distance} {bound}");
            }
        }
        let trees = kernel.predict_trees(case.x.view())?;
        for (row, w) in trees.rows().into_iter().zip(wanted.rows()) {
            for (k, &w) in w.iter().enumerate() {
                let mean = row.iter().skip(k).step_by(3).map(|&v| f64::from(v)).sum::<f64>() / case.trees.len() as f64;
                prop_assert!((mean - w).abs() < ROUNDING * size, "{mean} {w}");
            }
        }
    }
}

#[test]
fn leafness_one_at_the_root_is_the_prior_whatever_comes_in() -> Result<()> {
    let mut case = case(5, 30, Mix::Probabilities, Gate::Sigmoid, false)?;
    let params = SoftForestParams::default().depth(2);
    let mut tree = Tree::random(&params, case.encoder.inputs(), 3, &mut ChaCha8Rng::seed_from_u64(1));
    tree.leafness[0] = 1.0;
    let prior = softmax_rows(tree.response(0), 3);
    case.trees = vec![tree];
    let found = case.kernel().predict(case.x.view(), Evaluation::Exact)?.output;
    for row in found.rows() {
        assert!(row.iter().zip(&prior).all(|(f, p)| (f - p).abs() < 1e-6));
    }
    Ok(())
}

#[test]
fn wrong_widths_and_thresholds_are_refused() -> Result<()> {
    let case = case(5, 3, Mix::Probabilities, Gate::Sigmoid, false)?;
    let kernel = case.kernel();
    let wide = Array2::zeros((2, kernel.inputs() + 1));
    assert!(matches!(kernel.predict(wide.view(), Evaluation::Exact), Err(ForestError::Width { .. })));
    assert!(matches!(
        kernel.predict(case.x.view(), Evaluation::Skip { below: f32::NAN }),
        Err(ForestError::Setting { .. })
    ));
    let row = vec![0.0; kernel.inputs()];
    assert!(kernel.predict_one(&row, Evaluation::Exact, &mut [0.0; 2]).is_err());
    Ok(())
}
