use super::*;
use crate::params::{LeafModel, Mix, Optimiser, Regularisers};
use crate::recursion;
use crate::topology::Topology;
use proptest::prelude::{prop_assert, proptest};

const STEP: Step =
    Step { rate: 0.01, inverse_temperature: 1.3, progress: 0.5, learn_shape: true, learn_responses: true };

/// The parameters of a tree in double precision.
#[derive(Clone)]
struct Exact {
    weights: Vec<f64>,
    bias: Vec<f64>,
    leafness: Vec<f64>,
    responses: Vec<f64>,
    slopes: Vec<f64>,
}

impl Exact {
    fn of(tree: &Tree) -> Self {
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect();
        Self {
            weights: wide(&tree.weights),
            bias: wide(&tree.bias),
            leafness: wide(&tree.leafness),
            responses: wide(&tree.responses),
            slopes: wide(&tree.slopes),
        }
    }
}

fn softmax64(logits: &[f64]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|l| l.exp()).sum();
    logits.iter().map(|l| l.exp() / sum).collect()
}

/// The whole training loss of one tree, written straight from its definition.
fn loss(
    exact: &Exact,
    topology: &Topology,
    x: &Array2<f32>,
    targets: &Targets,
    weights: &[f32],
    params: &SoftForestParams,
) -> f64 {
    let (inputs, outputs) = (x.ncols(), exact.responses.len() / topology.nodes());
    let r = &params.regularisers;
    let mut total = 0.0;
    let mut cost = 0.0;
    for (i, row) in x.rows().into_iter().enumerate() {
        let p: Vec<f64> = (0..exact.bias.len())
            .map(|g| {
                let w = &exact.weights[g * inputs..(g + 1) * inputs];
                let z: f64 = w.iter().zip(&row).map(|(w, &x)| w * f64::from(x)).sum();
                let beta = f64::from(STEP.inverse_temperature);
                params.gate.evaluate(beta * (z + exact.bias[g])).0
            })
            .collect();
        let stop = recursion::reach(topology, &p, &exact.leafness).stop;
        cost += recursion::expected_gates(topology, &p, &exact.leafness);
        let mut said = exact.responses.clone();
        for (said, slope) in said.iter_mut().zip(exact.slopes.chunks_exact(inputs)) {
            *said += slope.iter().zip(&row).map(|(s, &x)| s * f64::from(x)).sum::<f64>();
        }
        let responses: Vec<&[f64]> = said.chunks_exact(outputs).collect();
        let mixed = |values: &dyn Fn(&[f64]) -> Vec<f64>| -> Vec<f64> {
            let mut out = vec![0.0; outputs];
            for (a, response) in stop.iter().zip(&responses) {
                out.iter_mut().zip(values(response)).for_each(|(o, v)| *o += a * v);
            }
            out
        };
        let own = match targets {
            Targets::Classes(labels) if params.loss == Loss::LeafCrossEntropy => {
                stop.iter().zip(&responses).map(|(a, q)| -a * softmax64(q)[labels[i]].ln()).sum()
            }
            Targets::Classes(labels) => {
                let out = match params.mix {
                    Mix::Probabilities => mixed(&|q| softmax64(q)),
                    Mix::Logits => softmax64(&mixed(&|q| q.to_vec())),
                };
                -out[labels[i]].ln()
            }
            Targets::Values(values) => {
                let out = mixed(&|q| q.to_vec());
                out.iter().zip(values.row(i)).map(|(o, &v)| (o - f64::from(v)).powi(2) / outputs as f64).sum()
            }
        };
        total += f64::from(weights[i]) * own;
    }
    let rows = x.nrows() as f64;
    let g = &exact.leafness;
    let mut sizes = vec![1.0; topology.nodes()];
    for (gate, g) in topology.gates().iter().zip(g).rev() {
        sizes[gate.node as usize] = 1.0 + (1.0 - g) * (sizes[gate.left as usize] + sizes[gate.right as usize]);
    }
    let open: f64 = g.iter().map(|g| 1.0 - g).sum();
    total / rows + f64::from(r.path) * cost / rows + f64::from(r.size) * sizes[0] + f64::from(r.leafness) * open
}

fn random_case(seed: u64, params: &SoftForestParams, regression: bool) -> (Tree, Array2<f32>, Targets, Vec<f32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (inputs, outputs, rows) = (3, 3, 7);
    let mut tree = Tree::random(params, inputs, outputs, &mut rng);
    let mut shake = |values: &mut [f32], lo: f32, hi: f32| {
        values.iter_mut().for_each(|v| *v = rng.random_range(lo..hi));
    };
    shake(&mut tree.leafness, 0.05, 0.95);
    shake(&mut tree.responses, -2.0, 2.0);
    shake(&mut tree.bias, -0.5, 0.5);
    shake(&mut tree.slopes, -0.5, 0.5);
    let mut x = Array2::zeros((rows, inputs));
    x.iter_mut().for_each(|v| *v = rng.random_range(-2.0..2.0));
    let targets = if regression {
        let mut values = Array2::zeros((rows, outputs));
        values.iter_mut().for_each(|v| *v = rng.random_range(-1.0..1.0));
        Targets::Values(values)
    } else {
        Targets::Classes((0..rows).map(|_| rng.random_range(0..outputs)).collect())
    };
    let weights = (0..rows).map(|_| rng.random_range(0.0..2.0)).collect();
    (tree, x, targets, weights)
}

proptest! {
    /// Every gradient of every loss against central differences of the definition in double precision. The pass itself is in
    /// single precision: gradients of order 1 carry errors of order 1e-6.
    #[test]
    fn gradients_match_finite_differences_of_the_definition(seed: u64, which in 0usize..6, penalised: bool, steep: bool) {
        let mut params = SoftForestParams::default().depth(3).leafness(Leafness::Clamped { init: 0.5 });
        match which {
            1 => params.mix = Mix::Logits,
            2 => params.loss = Loss::LeafCrossEntropy,
            4 | 5 => {
                params.mix = Mix::Logits;
                params.leaf = LeafModel::Linear;
            }
            _ => {}
        }
        if steep {
            // Wide enough that no score sits on a kink of the cubic.
            params.gate = crate::gate::Gate::SmoothStep { width: 40.0 };
        }
        if penalised {
            params.regularisers = Regularisers { size: 0.02, path: 0.05, leafness: 0.03, ..Regularisers::default() };
        }
        let (tree, x, targets, weights) = random_case(seed, &params, which == 3 || which == 5);
        let topology = tree.topology.clone();
        let exact = Exact::of(&tree);
        let mut trainer = TreeTrainer::new(tree, &params, None);
        let classes = targets.is_classes();
        trainer.forward(x.view(), &params, classes, STEP.inverse_temperature);
        let found_loss = trainer.own_loss(&targets, &weights, &params) / x.nrows() as f64;
        let leafness = trainer.gradients(x.view(), &params, classes, STEP, &vec![1.0; x.nrows()]);
        let (slope, weight, bias, response) = trainer.gradient_parts();
        if !penalised {
            prop_assert!((found_loss - loss(&exact, &topology, &x, &targets, &weights, &params)).abs() < 1e-5);
        }
        let h = 1e-5;
        #[allow(clippy::type_complexity)]
        let parts: [(&[f32], fn(&mut Exact) -> &mut Vec<f64>); 5] = [
            (&weight, |e| &mut e.weights),
            (&bias, |e| &mut e.bias),
            (&leafness, |e| &mut e.leafness),
            (&response, |e| &mut e.responses),
            (&slope, |e| &mut e.slopes),
        ];
        for (found, part) in parts {
            for (i, &g) in found.iter().enumerate() {
                let at = |delta: f64| {
                    let mut moved = exact.clone();
                    part(&mut moved)[i] += delta;
                    loss(&moved, &topology, &x, &targets, &weights, &params)
                };
                let numeric = (at(h) - at(-h)) / (2.0 * h);
                prop_assert!((f64::from(g) - numeric).abs() < 1e-5 * (1.0 + numeric.abs()), "{g} {numeric}");
            }
        }
    }
}

/// Half-way through training 0.2 x 0.5 x e (1 - 2 g), with existence e of 1, 0.9 and 0.9 at these leafnesses.
#[test]
fn polarising_pushes_leafness_away_from_one_half() {
    let mut params = SoftForestParams::default().depth(2).leafness(Leafness::Clamped { init: 0.5 });
    let gradient = |params: &SoftForestParams| {
        let (mut tree, x, targets, weights) = random_case(1, params, false);
        tree.leafness = vec![0.1, 0.3, 0.6];
        let mut trainer = TreeTrainer::new(tree, params, None);
        trainer.forward(x.view(), params, true, STEP.inverse_temperature);
        trainer.own_loss(&targets, &weights, params);
        trainer.gradients(x.view(), params, true, STEP, &vec![1.0; x.nrows()])
    };
    let plain = gradient(&params);
    params.regularisers.polarise = 0.2;
    for ((with, without), wanted) in gradient(&params).iter().zip(&plain).zip([0.08, 0.036, -0.018]) {
        assert!((with - without - wanted).abs() < 1e-6, "{with} {without} {wanted}");
    }
}

/// A random tree of half-open gates, the same after some steps on one batch, and the last gradient of its weights.
fn stepped(seed: u64, steps: usize, rate: f32, weight_decay: f32) -> (Tree, Tree, Vec<f32>) {
    let mut params = SoftForestParams::default().depth(2).leafness(Leafness::Clamped { init: 0.5 });
    params.optimiser.weight_decay = weight_decay;
    let (mut tree, x, targets, weights) = random_case(seed, &params, false);
    tree.leafness.fill(0.5);
    let start = tree.clone();
    let mut trainer = TreeTrainer::new(tree, &params, None);
    for _ in 0..steps {
        trainer.forward(x.view(), &params, true, STEP.inverse_temperature);
        trainer.own_loss(&targets, &weights, &params);
        let step = Step { rate, learn_shape: false, ..STEP };
        trainer.step(x.view(), &params, true, step, &vec![1.0; x.nrows()]);
    }
    let (_, gradient, _, _) = trainer.gradient_parts();
    (start, trainer.tree, gradient)
}

#[test]
fn moments_are_corrected_for_their_start_at_zero() {
    let rate = 1e-4;
    let mut compared = 0;
    for seed in 0..5 {
        let (start, after, gradient) = stepped(seed, 2, rate, 0.0);
        for ((old, new), g) in start.weights.iter().zip(&after.weights).zip(&gradient) {
            // Steps this small leave such a gradient all but the same, and its moments' ratio is its sign.
            if g.abs() > 1e-2 {
                assert!((new - old + 2.0 * rate * g.signum()).abs() < 0.02 * rate, "{old} {new} {g}");
                compared += 1;
            }
        }
    }
    assert!(compared > 0);
}

#[test]
fn weights_decay_by_the_existence_of_their_gate() {
    let (rate, decay) = (0.1, 0.5);
    let (start, plain, _) = stepped(1, 1, rate, 0.0);
    let (_, decayed, _) = stepped(1, 1, rate, decay);
    // Half of what gets to the root goes on.
    for (gate, existence) in [1.0, 0.5, 0.5].into_iter().enumerate() {
        let ends = plain.gate_weights(gate).iter().zip(decayed.gate_weights(gate));
        for (w, (p, d)) in start.gate_weights(gate).iter().zip(ends) {
            assert!((p - d - rate * decay * existence * w).abs() < 1e-6, "{w} {p} {d}");
        }
    }
    assert_eq!((plain.bias, plain.responses), (decayed.bias, decayed.responses));
}

/// By the rate times the decay times themselves, at whatever node they are.
#[test]
fn slopes_of_linear_leaves_decay_unscaled() {
    let (rate, decay) = (0.1, 0.5);
    let stepped = |weight_decay: f32| {
        let mut params = SoftForestParams::default().depth(2).mix(Mix::Logits).leaf(LeafModel::Linear);
        params.optimiser.weight_decay = weight_decay;
        let (tree, x, targets, weights) = random_case(1, &params, false);
        let start = tree.clone();
        let mut trainer = TreeTrainer::new(tree, &params, None);
        trainer.forward(x.view(), &params, true, STEP.inverse_temperature);
        trainer.own_loss(&targets, &weights, &params);
        let step = Step { rate, learn_shape: false, ..STEP };
        trainer.step(x.view(), &params, true, step, &vec![1.0; x.nrows()]);
        (start, trainer.tree)
    };
    let ((start, plain), (_, decayed)) = (stepped(0.0), stepped(decay));
    assert!(!start.slopes.is_empty() && start.leafness.iter().all(|&g| g > 0.0));
    for (s, (p, d)) in start.slopes.iter().zip(plain.slopes.iter().zip(&decayed.slopes)) {
        assert!((p - d - rate * decay * s).abs() < 1e-6, "{s} {p} {d}");
    }
}

#[test]
fn an_output_that_is_no_number_has_no_loss() {
    for mix in [Mix::Probabilities, Mix::Logits] {
        let label = Targets::Classes(vec![0]);
        assert!(output_loss(&[f32::NAN, 0.5], &label, &[1.0], mix, 1.0, &mut [0.0; 2]).is_nan());
        // Where a probability is too small for its logarithm, there is one all the same.
        let tiny = output_loss(&[0.0, 1.0], &label, &[1.0], mix, 1.0, &mut [0.0; 2]);
        assert!((tiny - 1e7f64.ln()).abs() < 1e-6, "{tiny}");
    }
}

fn identity_encoder(x: &Array2<f32>, params: &SoftForestParams) -> Result<Encoder> {
    Encoder::fit(x.view(), params)
}

fn plan(rows: usize, epochs: usize) -> Plan<'static> {
    Plan {
        epochs,
        rows: (0..rows).collect(),
        rate_factor: 1.0,
        decay: true,
        learn_shape: true,
        inverse_temperature: [1.0, 1.0],
        first_epoch: 0,
        bag: 0,
        validate: None,
    }
}

/// Two rotated half planes and their exclusive or.
fn oblique(rows: usize) -> (Array2<f32>, Vec<usize>) {
    crate::synthetic::oblique_xor(rows, 4, 0.6, 3)
}

fn trained(params: &SoftForestParams, rows: usize) -> Result<(Vec<Tree>, Vec<Epoch>)> {
    let (x, labels) = oblique(rows);
    trained_on(params, &x, labels)
}

fn trained_on(params: &SoftForestParams, x: &Array2<f32>, labels: Vec<usize>) -> Result<(Vec<Tree>, Vec<Epoch>)> {
    let encoder = identity_encoder(x, params)?;
    let mut trees = fresh_trees(params, encoder.inputs(), 2);
    let set = set(x, labels);
    let training = train(&mut trees, &set, &encoder, params, &plan(x.nrows(), params.epochs))?;
    Ok((trees, training.history))
}

fn set(x: &Array2<f32>, labels: Vec<usize>) -> TrainingSet<'_> {
    let weights = vec![1.0; labels.len()];
    TrainingSet { x: x.view(), targets: Targets::Classes(labels), weights, tree_weights: None, forests: 1 }
}

fn small() -> SoftForestParams {
    SoftForestParams::default()
        .depth(3)
        .trees(4)
        .epochs(3)
        .batch(32)
        .optimiser(Optimiser { rate: 0.05, ..Optimiser::default() })
}

#[test]
fn a_tree_learns_the_same_whatever_the_number_of_trees() -> Result<()> {
    let (alone, _) = trained(&small().trees(1), 200)?;
    let (among, _) = trained(&small().trees(4), 200)?;
    assert_eq!(alone[0], among[0]);
    Ok(())
}

#[test]
fn the_number_of_threads_changes_nothing() -> Result<()> {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.map(|pool| pool.install(|| trained(&small(), 200))).map_err(|e| ForestError::Malformed(e.to_string()))?
    };
    assert_eq!(run(1)?.0, run(3)?.0);
    Ok(())
}

#[test]
fn bagging_and_feature_subsets_make_trees_differ_and_respect_the_subset() -> Result<()> {
    let constant = small().bagging(true).feature_fraction(0.5);
    let linear = constant.clone().mix(Mix::Logits).leaf(LeafModel::Linear);
    for params in [constant, linear] {
        let (trees, _) = trained(&params, 100)?;
        for (t, tree) in trees.iter().enumerate() {
            let mask = feature_mask(&params, t, 4).unwrap_or_default();
            assert_eq!(mask.iter().sum::<f32>(), 2.0);
            for row in tree.weights.chunks_exact(4).chain(tree.slopes.chunks_exact(4)) {
                for (w, m) in row.iter().zip(&mask) {
                    assert!(*m > 0.0 || *w == 0.0);
                }
            }
        }
        assert!(trees.windows(2).all(|pair| pair[0] != pair[1]));
    }
    Ok(())
}

#[test]
fn a_tree_learns_nothing_from_rows_outside_its_bag() -> Result<()> {
    let (x, labels) = oblique(100);
    for loss in [Loss::PerTree, Loss::Joint] {
        // Alone, as the mean of a joint loss is of other trees too.
        let params = small().trees(1).bagging(true).loss(loss);
        let Some(bags) = tree_weights(&set(&x, labels.clone()), &params, 0, 1) else {
            return Err(ForestError::Malformed("no bags".to_owned()));
        };
        // A Poisson(1) weight is 0 with probability 0.37.
        let outside = bags.iter().filter(|&&bag| bag == 0).count();
        assert!((20..60).contains(&outside), "{outside}");
        let flipped = |flip: &dyn Fn(u8) -> bool| -> Vec<usize> {
            labels.iter().zip(&bags).map(|(&label, &bag)| if flip(bag) { 1 - label } else { label }).collect()
        };
        let (tree, _) = trained_on(&params, &x, labels.clone())?;
        assert_eq!(trained_on(&params, &x, flipped(&|bag| bag == 0))?.0, tree);
        assert_ne!(trained_on(&params, &x, flipped(&|bag| bag == 1))?.0, tree);
        assert_ne!(trained_on(&params.bagging(false), &x, labels.clone())?.0, tree);
    }
    Ok(())
}

#[test]
fn no_two_steps_of_a_stream_draw_the_same() {
    // A fit of 3 epochs of 4 steps and 1 of fine-tuning, then calls of 1, 4, 2 and 4 steps; then one that learns from a
    // stream from the start.
    for streams in [
        &[(0, 0, 3, 4), (3, 0, 1, 4), (4, 4, 1, 1), (5, 5, 1, 4), (6, 6, 1, 2), (7, 7, 1, 4)][..],
        &[(0, 0, 1, 3), (1, 1, 1, 2), (2, 2, 1, 1)],
    ] {
        let mut seen = std::collections::BTreeSet::new();
        for &(first_epoch, bag, epochs, steps) in streams {
            let plan = Plan { first_epoch, bag, ..plan(1, epochs) };
            for (epoch, step) in (0..epochs).flat_map(|epoch| (0..steps).map(move |step| (epoch, step))) {
                assert!(seen.insert(plan.serial(epoch, steps, step)), "{bag} {epoch} {step}");
            }
        }
    }
}

#[test]
fn early_stopping_keeps_the_best_epoch_with_its_temperature() -> Result<()> {
    let (x, y) = crate::synthetic::blobs(300, 4, 3, 1.5, 1);
    let patience = 2;
    let params = small()
        .leafness(Leafness::Fixed)
        .epochs(60)
        .anneal_to(Some(8.0))
        .early_stopping(Some(crate::params::EarlyStopping { fraction: 0.3, patience }))
        .fine_tune(0);
    let forest = params.fit(x.view(), ndarray::aview1(&y))?;
    let scores: Vec<f64> = forest.history().iter().filter_map(|epoch| epoch.validation).collect();
    let best = (0..scores.len()).fold(0, |best, epoch| if scores[epoch] > scores[best] { epoch } else { best });
    assert_eq!(scores.len(), best + patience + 2, "{scores:?}");
    assert_eq!(forest.ensemble.inverse_temperature, annealed([1.0, 8.0], best, 60));
    let (_, held) = holdout(300, 0.3, params.seed);
    let (held_x, held_y): (Array2<f32>, Vec<usize>) =
        (x.select(ndarray::Axis(0), &held), held.iter().map(|&row| y[row]).collect());
    assert_eq!(forest.score(held_x.view(), ndarray::aview1(&held_y))?, scores[best]);
    Ok(())
}

#[test]
fn given_shapes_are_trained_for_as_long_as_learned_ones() -> Result<()> {
    let (x, y) = oblique(60);
    for leafness in [Leafness::Logit { init: 0.0 }, Leafness::Fixed, Leafness::Random { nodes: 7 }] {
        let params = small().leafness(leafness).fine_tune(2);
        assert_eq!(params.fit(x.view(), ndarray::aview1(&y))?.history().len(), 5);
        assert_eq!(params.harden(false).fit(x.view(), ndarray::aview1(&y))?.history().len(), 3);
    }
    Ok(())
}

#[test]
fn closed_form_rounds_never_raise_the_loss() -> Result<()> {
    // The step size is 0, so only the closed-form update moves anything; alpha = 0.1 / K of smoothing can cost at most
    // about 0.1 log K per node and 400 rows, far below 1e-3.
    let params = small()
        .leaf_update(LeafUpdate::ClosedForm { rounds: 1, leafness: true })
        .optimiser(Optimiser { rate: f32::MIN_POSITIVE, ..Optimiser::default() })
        .epochs(8);
    let (_, history) = trained(&params, 400)?;
    for pair in history.windows(2) {
        assert!(pair[1].loss <= pair[0].loss + 1e-3, "{history:?}");
    }
    assert!(history[7].loss < history[0].loss);
    Ok(())
}

proptest! {
    /// On 7 rows, where 0.1 rows a node are much: the likelihood alone would fall.
    #[test]
    fn closed_form_rounds_never_lower_the_likelihood_with_its_prior(seed: u64, logits: bool) {
        let leafness = if logits { Leafness::Logit { init: 0.0 } } else { Leafness::Clamped { init: 0.5 } };
        let params = SoftForestParams::default().depth(3).leafness(leafness).scaling(crate::params::Scaling::None);
        let (tree, x, targets, weights) = random_case(seed, &params, false);
        let encoder = identity_encoder(&x, &params)?;
        let Targets::Classes(labels) = &targets else { return Ok(()) };
        let rows: Vec<usize> = (0..labels.len()).collect();
        let data = closed_form::Data { x: x.view(), labels, weights: &weights, tree_weights: None, rows: &rows };
        let mut trainers = vec![TreeTrainer::new(tree, &params, None)];
        let objective = |tree: &Tree| {
            let exact = Exact::of(tree);
            let classes = tree.outputs;
            let of_nodes = exact.responses.chunks_exact(classes).flat_map(softmax64).map(f64::ln).sum::<f64>();
            let log_likelihood = -loss(&exact, &tree.topology, &x, &targets, &weights, &params) * rows.len() as f64;
            log_likelihood + 0.1 / classes as f64 * of_nodes
        };
        let mut before = objective(&trainers[0].tree);
        for _ in 0..8 {
            closed_form::update(&mut trainers, &data, &encoder, &params, STEP.inverse_temperature, 1, true);
            let after = objective(&trainers[0].tree);
            // Sums of some twenty numbers in single precision.
            prop_assert!(after >= before - 2e-5, "{before} {after}");
            before = after;
        }
    }
}

#[test]
fn the_size_penalty_makes_trees_smaller() -> Result<()> {
    let size = |penalty: f32| -> Result<f32> {
        let params = small()
            .leafness(Leafness::Logit { init: 0.0 })
            .regularisers(Regularisers { size: penalty, ..Regularisers::default() });
        let (_, history) = trained(&params, 200)?;
        Ok(history[2].expected_nodes)
    };
    assert!(size(0.1)? < size(0.0)?);
    Ok(())
}

#[test]
fn annealing_goes_geometrically_from_first_to_last() {
    assert_eq!(annealed([1.0, 4.0], 0, 3), 1.0);
    assert!((annealed([1.0, 4.0], 1, 3) - 2.0).abs() < 1e-6);
    assert!((annealed([1.0, 4.0], 2, 3) - 4.0).abs() < 1e-6);
}

#[test]
fn an_image_moves_and_mirrors_as_drawn() {
    let augment = Augment { height: 2, width: 3, shift: 1, mirror: true };
    let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let moved = |down, right, mirror| Move { augment, down, right, mirror }.apply(&image);
    assert_eq!(moved(0, 0, false), image);
    assert_eq!(moved(0, 0, true), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
    assert_eq!(moved(1, 1, false), [0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
}

#[test]
fn a_joint_loss_trains_the_mean() -> Result<()> {
    for mix in [Mix::Probabilities, Mix::Logits] {
        let params = small().loss(Loss::Joint).mix(mix).epochs(6);
        let (_, history) = trained(&params, 300)?;
        assert!(history[5].loss < history[0].loss, "{history:?}");
    }
    Ok(())
}
