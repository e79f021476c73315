//! The classifier as its users meet it.

use forest::synthetic::{blobs, oblique_xor};
use forest::{
    ClassWeights, EarlyStopping, Evaluation, ForestError, LeafModel, LeafUpdate, Leafness, Loss, Missing, Mix,
    Optimiser, Regularisers, SoftForest, SoftForestParams,
};
use ndarray::{Array1, Array2, Axis, aview1};

fn quick() -> SoftForestParams {
    SoftForestParams::default()
        .trees(5)
        .depth(3)
        .epochs(30)
        .batch(32)
        .optimiser(Optimiser { rate: 0.05, ..Optimiser::default() })
}

fn accuracy(forest: &SoftForest, rows: usize, seed: u64) -> forest::Result<f64> {
    let (x, y) = oblique_xor(rows, 4, 0.6, seed);
    forest.score(x.view(), aview1(&y))
}

#[test]
fn learns_what_axis_aligned_trees_find_hard() -> forest::Result<()> {
    let (x, y) = oblique_xor(800, 4, 0.6, 1);
    let forest = quick().fit(x.view(), aview1(&y))?;
    // Two planes decide; a soft tree of depth 2 can draw them, so only the blurred band along them is lost.
    assert!(accuracy(&forest, 500, 2)? > 0.9);
    Ok(())
}

#[test]
fn every_way_of_shaping_and_updating_learns() -> forest::Result<()> {
    let (x, y) = blobs(400, 6, 4, 4.0, 1);
    let (test_x, test_y) = blobs(200, 6, 4, 4.0, 2);
    for params in [
        quick().leafness(Leafness::Fixed),
        quick().leafness(Leafness::Clamped { init: 0.8 }),
        quick().leafness(Leafness::Random { nodes: 9 }),
        quick().anneal_to(Some(4.0)),
        quick().loss(Loss::LeafCrossEntropy),
        quick().mix(forest::Mix::Logits),
        quick().mix(forest::Mix::Logits).leaf(forest::LeafModel::Linear),
        quick().gate(forest::Gate::SmoothStep { width: 4.0 }),
        quick().leaf_update(LeafUpdate::ClosedForm { rounds: 2, leafness: true }),
    ] {
        let forest = params.fit(x.view(), aview1(&y))?;
        // Blobs four deviations out on their own axes: the Bayes error is about 1 %.
        let score = forest.score(test_x.view(), aview1(&test_y))?;
        assert!(score > 0.9, "{params:?}: {score}");
    }
    Ok(())
}

#[test]
fn hardening_keeps_the_accuracy_and_shrinks_the_model() -> forest::Result<()> {
    let (x, y) = blobs(500, 6, 4, 4.0, 1);
    let soft = quick().harden(false).fit(x.view(), aview1(&y))?;
    let mut hard = soft.clone();
    hard.harden();
    assert!(hard.complexity().scalars < soft.complexity().scalars);
    let (before, after) = (soft.score(x.view(), aview1(&y))?, hard.score(x.view(), aview1(&y))?);
    assert!(after > before - 0.02, "{before} {after}");
    assert!(hard.complexity().bytes < soft.complexity().bytes);
    Ok(())
}

#[test]
fn one_seed_is_one_model_and_another_seed_another() -> forest::Result<()> {
    let (x, y) = oblique_xor(200, 4, 0.6, 1);
    let bytes = |seed| quick().epochs(3).seed(seed).fit(x.view(), aview1(&y))?.to_bytes();
    assert_eq!(bytes(1)?, bytes(1)?);
    assert_ne!(bytes(1)?, bytes(2)?);
    Ok(())
}

#[test]
fn a_saved_model_predicts_bit_for_bit() -> Result<(), Box<dyn std::error::Error>> {
    let (mut x, y) = oblique_xor(300, 4, 0.6, 1);
    x.column_mut(3).mapv_inplace(|v| (v > 0.0).into());
    x[[5, 2]] = f32::NAN;
    for (harden, linear) in [(true, false), (false, false), (true, true), (false, true)] {
        let params = if linear { quick().mix(forest::Mix::Logits).leaf(forest::LeafModel::Linear) } else { quick() };
        let forest = params
            .epochs(4)
            .harden(harden)
            .missing(Missing::Indicate)
            .categorical(vec![3])
            .fit(x.view(), aview1(&y))?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("model.forest");
        forest.save(&path)?;
        let loaded = SoftForest::load(&path)?;
        assert_eq!(forest.predict_proba(x.view())?, loaded.predict_proba(x.view())?);
        assert_eq!(forest.to_bytes()?, loaded.to_bytes()?);
        let skip = Evaluation::Skip { below: 0.05 };
        assert_eq!(forest.evaluate(x.view(), skip)?, loaded.evaluate(x.view(), skip)?);
        let bytes = forest.to_bytes()?;
        assert!(matches!(SoftForest::from_bytes(&bytes[..bytes.len() / 2]), Err(ForestError::Length { .. })));
        assert!(matches!(forest::SoftForestRegressor::load(&path), Err(ForestError::Kind { .. })));
    }
    assert!(matches!(SoftForest::load("no/such/file"), Err(ForestError::Io { .. })));
    Ok(())
}

#[test]
fn missing_values_are_learned_from_when_enabled() -> forest::Result<()> {
    // The label is whether the value is missing: only the indicator can tell.
    let mut x = Array2::from_elem((200, 2), 0.5f32);
    let y: Vec<usize> = (0..200).map(|i| i % 2).collect();
    for (mut row, &label) in x.rows_mut().into_iter().zip(&y) {
        if label == 1 {
            row[0] = f32::NAN;
        }
    }
    let forest = quick().missing(Missing::Indicate).fit(x.view(), aview1(&y))?;
    assert_eq!(forest.score(x.view(), aview1(&y))?, 1.0);
    Ok(())
}

#[test]
fn a_sample_weight_of_two_equals_the_sample_twice_in_full_batches() -> forest::Result<()> {
    let (x, y) = oblique_xor(40, 4, 0.6, 1);
    let params = quick().epochs(3).batch(1000).scaling(forest::Scaling::None);
    let weights: Array1<f32> = (0..40).map(|i| if i < 20 { 2.0 } else { 1.0 }).collect();
    let weighted = params.fit_weighted(x.view(), aview1(&y), Some(weights.view()))?;
    let rows: Vec<usize> = (0..40).chain(0..20).collect();
    let doubled_y: Vec<usize> = rows.iter().map(|&r| y[r]).collect();
    let doubled = params.fit(x.select(Axis(0), &rows).view(), aview1(&doubled_y))?;
    let (a, b) = (weighted.predict_proba(x.view())?, doubled.predict_proba(x.view())?);
    // The same sums in another order, through a few Adam steps.
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 2e-3));
    Ok(())
}

#[test]
fn balanced_class_weights_raise_the_recall_of_a_rare_class() -> forest::Result<()> {
    let (x, y) = blobs(600, 3, 2, 1.5, 1);
    let keep: Vec<usize> = (0..600).filter(|&i| y[i] == 0 || i % 10 == 1).collect();
    let (x, y): (Array2<f32>, Vec<usize>) = (x.select(Axis(0), &keep), keep.iter().map(|&i| y[i]).collect());
    let recall = |weights| -> forest::Result<usize> {
        let forest = quick().class_weights(weights).fit(x.view(), aview1(&y))?;
        let predicted = forest.predict(x.view())?;
        Ok(predicted.iter().zip(&y).filter(|(p, y)| **p == 1 && **y == 1).count())
    };
    assert!(recall(ClassWeights::Balanced)? > recall(ClassWeights::Uniform)?);
    Ok(())
}

#[test]
fn early_stopping_records_validation_and_may_stop_early() -> forest::Result<()> {
    let (x, y) = blobs(300, 4, 3, 4.0, 1);
    let forest = quick()
        .epochs(200)
        .early_stopping(Some(EarlyStopping { fraction: 0.2, patience: 3 }))
        .fit(x.view(), aview1(&y))?;
    let epochs = forest.history();
    assert!(epochs.len() < 200, "{}", epochs.len());
    assert!(epochs[0].validation.is_some());
    Ok(())
}

#[test]
fn training_may_be_left_to_early_stopping_alone() -> forest::Result<()> {
    let (x, y) = blobs(100, 4, 3, 4.0, 1);
    let stop = EarlyStopping { fraction: 0.3, patience: 2 };
    let forest = quick().epochs(usize::MAX).early_stopping(Some(stop)).fit(x.view(), aview1(&y))?;
    // The accuracy on 30 rows can rise 30 times, at most 3 epochs apart.
    assert!(forest.history().len() < 100, "{}", forest.history().len());
    Ok(())
}

/// A response that grows beyond single precision, as those of the roots do in two steps, has no softmax.
#[test]
fn a_loss_that_is_no_number_is_an_error() {
    let (x, y) = oblique_xor(60, 4, 0.6, 1);
    for loss in [Loss::PerTree, Loss::Joint] {
        let params = quick().loss(loss).optimiser(Optimiser { rate: f32::MAX, ..Optimiser::default() });
        assert!(matches!(params.fit(x.view(), aview1(&y)), Err(ForestError::Diverged { .. })), "{loss:?}");
    }
}

#[test]
fn a_tree_that_sees_no_row_stays_as_it_began() -> forest::Result<()> {
    let (x, y) = blobs(200, 4, 3, 2.0, 1);
    let mut masks = Array2::ones((5, 200));
    masks.row_mut(0).fill(0);
    for loss in [Loss::PerTree, Loss::Joint, Loss::LeafCrossEntropy] {
        let params = quick().loss(loss).leafness(Leafness::Clamped { init: 0.5 }).epochs(3).harden(false);
        let start = params.clone().epochs(0).fit(x.view(), aview1(&y))?;
        let masked = params.fit_masked(x.view(), aview1(&y), None, Some(masks.clone()))?;
        assert_eq!(masked.trees()[0], start.trees()[0]);
        for (tree, began) in masked.trees().iter().zip(start.trees()).skip(1) {
            assert_ne!(tree, began);
        }
        // The others learn as if it were not there.
        if loss == Loss::PerTree {
            let open = params.fit(x.view(), aview1(&y))?;
            assert_eq!(masked.trees()[1..], open.trees()[1..]);
        }
    }
    Ok(())
}

#[test]
fn no_penalty_sees_a_row_that_is_hidden_from_a_tree() -> forest::Result<()> {
    let (x, y) = blobs(80, 4, 2, 2.0, 1);
    let mut moved = x.clone();
    moved.row_mut(7).fill(3.0);
    let hidden = Array2::from_shape_fn((1, 80), |(_, row)| u8::from(row != 7));
    for loss in [Loss::PerTree, Loss::Joint] {
        let penalties = Regularisers { path: 0.1, balance: 0.1, ..Regularisers::default() };
        let params = quick().trees(1).loss(loss).regularisers(penalties).scaling(forest::Scaling::None);
        let params = params.epochs(3).harden(false);
        let fit = |x: &Array2<f32>, mask: &Array2<u8>| -> forest::Result<Vec<forest::Tree>> {
            Ok(params.fit_masked(x.view(), aview1(&y), None, Some(mask.clone()))?.trees().to_vec())
        };
        let all = Array2::ones((1, 80));
        assert_eq!(fit(&x, &hidden)?, fit(&moved, &hidden)?);
        assert_ne!(fit(&x, &all)?, fit(&moved, &all)?);
        // What all rows see alike is what there is without weights.
        assert_eq!(fit(&x, &all)?, params.fit(x.view(), aview1(&y))?.trees());
    }
    Ok(())
}

#[test]
fn a_joint_loss_is_of_the_trees_that_see_a_row() -> forest::Result<()> {
    let (x, y) = blobs(120, 4, 3, 2.0, 1);
    let params = quick().loss(Loss::Joint).epochs(1).batch(1000);
    // Before its only step, on all rows: the loss is that of fresh trees.
    let fresh = params.clone().epochs(0).fit(x.view(), aview1(&y))?.predict_trees(x.view())?;
    let weights = Array2::from_shape_fn((5, 120), |(tree, row)| if row < 20 { 0 } else { ((tree + row) % 3) as u8 });
    let mut wanted = 0.0;
    for row in 20..120 {
        let of = |tree: usize| (f64::from(weights[[tree, row]]), f64::from(fresh[[row, 3 * tree + y[row]]]));
        let (sum, total) = (0..5).map(of).fold((0.0, 0.0), |(sum, total), (w, p)| (sum + w * p, total + w));
        wanted -= (sum / total).ln() / 120.0;
    }
    let found = params.fit_masked(x.view(), aview1(&y), None, Some(weights))?.history()[0].loss;
    // Probabilities in single precision.
    assert!((found - wanted).abs() < 1e-5, "{found} {wanted}");
    Ok(())
}

#[test]
fn partial_fit_learns_from_a_stream() -> forest::Result<()> {
    let (x, y) = blobs(100, 4, 3, 4.0, 1);
    let mut forest = quick().epochs(0).fit(x.view(), aview1(&y))?;
    let before = forest.score(x.view(), aview1(&y))?;
    for chunk in 0..30 {
        let (x, y) = blobs(100, 4, 3, 4.0, 10 + chunk);
        forest.partial_fit(x.view(), aview1(&y))?;
    }
    let after = forest.score(x.view(), aview1(&y))?;
    assert!(after > 0.9 && after > before, "{before} {after}");
    assert_eq!(forest.history().len(), 30);
    Ok(())
}

/// The mean weight of the classes is 2, so that rows of a class weigh 1/2 and 3/2 whatever a chunk holds.
#[test]
fn given_class_weights_hold_in_a_chunk_of_one_class() -> forest::Result<()> {
    let (x, y) = blobs(60, 4, 2, 2.0, 1);
    let rows: [Vec<usize>; 2] = [0, 1].map(|class| (0..60).filter(|&row| y[row] == class).collect());
    let streamed = |weights: ClassWeights, class: usize| -> forest::Result<f64> {
        let mut forest = quick().class_weights(weights).epochs(0).fit(x.view(), aview1(&y))?;
        let chunk = x.select(Axis(0), &rows[class]);
        forest.partial_fit(chunk.view(), aview1(&vec![class; chunk.nrows()]))?;
        // One batch: its loss is of the trees before the step.
        Ok(forest.history()[0].loss)
    };
    for (class, weight) in [(0, 0.5), (1, 1.5)] {
        let plain = streamed(ClassWeights::Uniform, class)?;
        let weighted = streamed(ClassWeights::Given(vec![1.0, 3.0]), class)?;
        assert!((weighted - weight * plain).abs() < 1e-6, "{weighted} {plain}");
    }
    let nothing = streamed(ClassWeights::Given(vec![0.0, 1.0]), 0);
    assert!(matches!(nothing, Err(ForestError::Weight { .. })));
    Ok(())
}

#[test]
fn bags_of_a_stream_leave_out_other_trees_each_time() -> forest::Result<()> {
    let (x, y) = blobs(60, 4, 2, 4.0, 1);
    let params = quick().trees(40).leafness(Leafness::Fixed).bagging(true).epochs(0);
    let mut forest = params.fit(x.view(), aview1(&y))?;
    let start = forest.predict_trees(x.view())?;
    let untouched = |forest: &SoftForest| -> forest::Result<usize> {
        let now = forest.predict_trees(x.view())?;
        Ok((0..40).filter(|tree| (2 * tree..2 * tree + 2).all(|k| now.column(k) == start.column(k))).count())
    };
    for row in 0..12 {
        forest.partial_fit(x.slice(ndarray::s![row..=row, ..]), aview1(&y[row..=row]))?;
        if row == 0 {
            // A bag has none of a row with a chance of 1/e.
            assert!((5..25).contains(&untouched(&forest)?));
        }
    }
    assert_eq!(untouched(&forest)?, 0);
    Ok(())
}

#[test]
fn bad_input_is_a_typed_error_everywhere() -> forest::Result<()> {
    let (x, y) = oblique_xor(60, 4, 0.6, 1);
    let labels = aview1(&y);
    let params = quick().epochs(1);
    let mut holed = x.clone();
    holed[[7, 2]] = f32::NAN;
    assert!(matches!(params.fit(holed.view(), labels), Err(ForestError::NotFinite { row: 7, column: 2, .. })));
    holed[[7, 2]] = f32::INFINITY;
    let tolerant = params.clone().missing(Missing::Indicate);
    assert!(matches!(tolerant.fit(holed.view(), labels), Err(ForestError::NotFinite { .. })));
    let none = Array2::<f32>::zeros((0, 4));
    assert!(matches!(params.fit(none.view(), aview1(&[])), Err(ForestError::Empty { .. })));
    assert!(matches!(params.fit(x.view(), aview1(&[1; 60])), Err(ForestError::OneClass { class: 1 })));
    assert!(matches!(
        params.clone().classes(Some(2)).fit(x.view(), aview1(&[&y[..59], &[2]].concat())),
        Err(ForestError::Label { row: 59, label: 2, classes: 2 })
    ));
    assert!(matches!(params.fit(x.view(), aview1(&y[..59])), Err(ForestError::Rows { .. })));
    for bad in [-1.0, f32::NAN] {
        let mut weights = vec![1.0; 60];
        weights[3] = bad;
        assert!(matches!(
            params.fit_weighted(x.view(), labels, Some(aview1(&weights))),
            Err(ForestError::Weight { .. })
        ));
    }
    let zeros = [0.0; 60];
    assert!(matches!(params.fit_weighted(x.view(), labels, Some(aview1(&zeros))), Err(ForestError::Weight { .. })));
    let transposed = params.fit_masked(x.view(), labels, None, Some(Array2::ones((60, 5))));
    assert!(matches!(transposed, Err(ForestError::Setting { name: "tree_weights", .. })));
    let mut forest = params.fit(x.view(), labels)?;
    let narrow = x.slice(ndarray::s![.., ..3]);
    assert!(matches!(forest.predict(narrow), Err(ForestError::Width { expected: 4, found: 3 })));
    assert!(matches!(forest.predict_one(&[0.0; 3], Evaluation::Exact, &mut [0.0; 2]), Err(ForestError::Width { .. })));
    assert!(matches!(forest.predict_proba(none.view()), Err(ForestError::Empty { .. })));
    assert!(matches!(forest.partial_fit(x.view(), aview1(&[5; 60])), Err(ForestError::Label { .. })));
    assert!(matches!(forest.partial_fit(none.view(), aview1(&[])), Err(ForestError::Empty { .. })));
    let huge = Array2::from_elem((2, 4), f32::MAX);
    let out = forest.predict_proba(huge.view())?;
    assert!(out.iter().all(|p| p.is_finite()));
    Ok(())
}

#[test]
fn scores_and_losses_are_what_they_say() -> forest::Result<()> {
    let (x, y) = blobs(100, 4, 3, 4.0, 1);
    let forest = quick().fit(x.view(), aview1(&y))?;
    let proba = forest.predict_proba(x.view())?;
    let by_hand: f64 = proba.rows().into_iter().zip(&y).map(|(p, &y)| -f64::from(p[y]).ln()).sum::<f64>() / 100.0;
    assert!((forest.log_loss(x.view(), aview1(&y))? - by_hand).abs() < 1e-6);
    let trees = forest.predict_trees(x.view())?;
    for (all, mean) in trees.rows().into_iter().zip(proba.rows()) {
        for k in 0..3 {
            let of_trees: f32 = all.iter().skip(k).step_by(3).sum::<f32>() / 5.0;
            assert!((of_trees - mean[k]).abs() < 1e-5);
        }
    }
    Ok(())
}

#[test]
fn complexity_counts_what_prediction_needs() -> forest::Result<()> {
    let (x, y) = blobs(60, 4, 2, 4.0, 1);
    let fresh = |leafness| quick().trees(2).depth(2).leafness(leafness).epochs(0).fit(x.view(), aview1(&y));
    let fixed = fresh(Leafness::Fixed)?;
    let cost = fixed.complexity();
    assert_eq!((cost.trees, cost.gates, cost.leaves, cost.max_depth, cost.mean_depth), (2, 6, 8, 2, 2.0));
    // Per tree 3 gates of 4 weights and a bias, and 4 leaves of 2 classes.
    assert_eq!((cost.scalars, cost.macs), (2 * (3 * 5 + 4 * 2), 2 * (3 * 4 + 4 * 2)));
    let passed = fixed.gates_per_tree(x.view())?;
    assert_eq!((passed.exact, passed.hard), (3.0, 2.0));
    assert!((passed.soft - 2.0).abs() < 1e-12, "{passed:?}");
    // Where rows may stop at the gates too, these have responses and a leafness each.
    let open = fresh(Leafness::Logit { init: 0.0 })?.complexity();
    assert_eq!((open.scalars, open.macs), (2 * (3 * 5 + 7 * 2 + 3), 2 * (3 * 4 + 7 * 2)));
    // A linear leaf has a weight an input beside its constant, and multiplies by each.
    let linear = quick().trees(2).depth(2).leafness(Leafness::Fixed).epochs(0).mix(Mix::Logits).leaf(LeafModel::Linear);
    let sloped = linear.fit(x.view(), aview1(&y))?.complexity();
    assert_eq!((sloped.scalars, sloped.macs), (2 * (3 * 5 + 4 * 2 * 5), 2 * (3 * 4 + 4 * 2 * 5)));
    Ok(())
}

#[test]
fn other_trees_are_refused_unless_they_fit() -> forest::Result<()> {
    let (x, y) = blobs(60, 4, 2, 4.0, 1);
    let params = quick().trees(2).depth(2).epochs(1);
    let fit = |params: &SoftForestParams, columns: usize| {
        params.fit(x.slice(ndarray::s![.., ..columns]), aview1(&y)).map(|forest| forest.trees().to_vec())
    };
    let model = params.fit(x.view(), aview1(&y))?;
    let linear = params.clone().mix(Mix::Logits).leaf(LeafModel::Linear);
    let narrow = fit(&params, 3)?;
    let more_classes = fit(&params.clone().classes(Some(3)), 4)?;
    for trees in [Vec::new(), narrow, more_classes, fit(&linear, 4)?] {
        assert!(matches!(model.with_trees(trees), Err(ForestError::Setting { name: "trees", .. })));
    }
    let sloped = linear.fit(x.view(), aview1(&y))?;
    assert!(sloped.with_trees(model.trees().to_vec()).is_err());
    assert_eq!(sloped.with_trees(sloped.trees().to_vec())?.predict_proba(x.view())?, sloped.predict_proba(x.view())?);
    Ok(())
}

#[test]
fn other_trees_are_hardened_where_nothing_stops_at_their_gates() -> forest::Result<()> {
    let (x, y) = blobs(60, 4, 2, 4.0, 1);
    let soft = quick().harden(false).fit(x.view(), aview1(&y))?;
    let mut hard = soft.clone();
    hard.harden();
    let nodes = |forest: &SoftForest| forest.complexity().gates;
    // Soft trees in a hard model can be hardened, and go on learning their shape.
    let mut model = hard.with_trees(soft.trees().to_vec())?;
    assert_eq!(model.predict_proba(x.view())?, soft.predict_proba(x.view())?);
    assert_ne!(model.predict_proba(x.view())?, hard.predict_proba(x.view())?);
    assert_eq!(model.ambiguity(), soft.ambiguity());
    model.harden();
    assert_eq!(model.trees(), hard.trees());
    assert_eq!(model.ambiguity(), hard.ambiguity());
    // What hardened trees were before is not known of those of others.
    assert!(hard.ambiguity().is_some());
    assert_eq!(hard.with_trees(hard.trees().to_vec())?.ambiguity(), None);
    // Hard trees in a soft model keep their shape.
    let mut model = soft.with_trees(hard.trees().to_vec())?;
    assert_eq!(model.ambiguity(), None);
    model.partial_fit(x.view(), aview1(&y))?;
    assert_eq!(nodes(&model), nodes(&hard));
    assert!(model.trees().iter().all(|tree| tree.leafness().iter().all(|&g| g == 0.0)));
    Ok(())
}

#[test]
fn hardening_leaves_behind_how_much_it_had_to_decide() -> Result<(), Box<dyn std::error::Error>> {
    let (x, y) = blobs(200, 4, 3, 2.0, 1);
    let params = quick().epochs(10).leafness(Leafness::Logit { init: 0.0 });
    let mut soft = params.clone().harden(false).fit(x.view(), aview1(&y))?;
    let mean = soft.trees().iter().map(forest::Tree::ambiguity).sum::<f32>() / 5.0;
    assert!(mean > 0.0);
    assert_eq!(soft.ambiguity(), Some(mean));
    let fitted = params.fit(x.view(), aview1(&y))?;
    assert_eq!(fitted.ambiguity(), Some(mean));
    assert_eq!(SoftForest::from_bytes(&fitted.to_bytes()?)?.ambiguity(), Some(mean));
    soft.harden();
    soft.harden();
    assert_eq!(soft.ambiguity(), Some(mean));
    assert_eq!(params.leafness(Leafness::Fixed).fit(x.view(), aview1(&y))?.ambiguity(), None);
    Ok(())
}

#[test]
fn a_chunk_of_one_class_leaves_what_the_closed_form_learned_of_others() -> forest::Result<()> {
    let (x, y) = blobs(400, 4, 2, 4.0, 1);
    let closed = LeafUpdate::ClosedForm { rounds: 2, leafness: false };
    let mut forest = quick().leaf_update(closed).fit(x.view(), aview1(&y))?;
    let rows: Vec<usize> = (0..400).filter(|&row| y[row] == 0).take(10).collect();
    let before = forest.predict_proba(x.view())?;
    forest.partial_fit(x.select(Axis(0), &rows).view(), aview1(&[0; 10]))?;
    assert_ne!(forest.predict_proba(x.view())?, before);
    let score = forest.score(x.view(), aview1(&y))?;
    assert!(score > 0.9, "{score}");
    Ok(())
}

/// Whatever the gates do: sum over levels l < 6 of 0.75^(l + 1).
#[test]
fn rows_pass_as_many_soft_gates_as_the_closed_form_says() -> forest::Result<()> {
    let (x, y) = blobs(60, 4, 2, 4.0, 1);
    let params = quick().depth(6).leafness(Leafness::Clamped { init: 0.25 }).epochs(0);
    let passed = params.fit(x.view(), aview1(&y))?.gates_per_tree(x.view())?;
    assert!((passed.soft - 2.466_064_453_125).abs() < 1e-9, "{passed:?}");
    Ok(())
}
