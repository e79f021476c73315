//! The regressor as its users meet it.

use forest::{
    EarlyStopping, Evaluation, ForestError, LeafUpdate, Leafness, Missing, Optimiser, SoftForestParams,
    SoftForestRegressor,
};
use ndarray::{Array1, Array2};

fn ridge(rows: usize) -> (Array2<f32>, Array2<f32>) {
    let x = Array2::from_shape_fn((rows, 2), |(i, j)| {
        let t = (i * (7 + 4 * j)) as f32 * 0.618_034;
        2.0 * t.fract() - 1.0
    });
    let y = Array2::from_shape_fn((rows, 2), |(i, k)| {
        let s = x[[i, 0]] + x[[i, 1]];
        if k == 0 { 100.0 + 10.0 * s.abs() } else { s }
    });
    (x, y)
}

fn params() -> SoftForestParams {
    SoftForestParams::default()
        .trees(5)
        .depth(4)
        .epochs(40)
        .batch(32)
        .leafness(Leafness::Logit { init: 0.0 })
        .optimiser(Optimiser { rate: 0.05, ..Optimiser::default() })
}

#[test]
fn fits_a_ridge_in_its_own_units_and_survives_saving() -> Result<(), Box<dyn std::error::Error>> {
    let (x, y) = ridge(400);
    let model = params().fit_values(x.view(), y.view(), None)?;
    let score = model.score(x.view(), y.view())?;
    assert!(score > 0.9, "{score}");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ridge.forest");
    model.save(&path)?;
    let loaded = SoftForestRegressor::load(&path)?;
    assert_eq!(model.predict(x.view())?, loaded.predict(x.view())?);
    let exact = model.predict(x.view())?;
    let skipped = model.evaluate(x.view(), Evaluation::Skip { below: 0.05 })?;
    for ((e, s), bound) in exact.rows().into_iter().zip(skipped.output.rows()).zip(&skipped.bounds) {
        for (e, s) in e.iter().zip(s) {
            // Values near 100: single precision resolves 1e-5 of them.
            assert!((e - s).abs() <= bound + 1e-3);
        }
    }
    Ok(())
}

#[test]
fn partial_fit_lowers_the_error_on_new_rows() -> forest::Result<()> {
    let (x, y) = ridge(200);
    let mut model = params().epochs(1).harden(false).fit_values(x.view(), y.view(), None)?;
    let before = model.score(x.view(), y.view())?;
    for _ in 0..20 {
        model.partial_fit(x.view(), y.view())?;
    }
    assert!(model.score(x.view(), y.view())? > before);
    Ok(())
}

#[test]
fn bad_targets_are_refused() {
    let (x, mut y) = ridge(50);
    y[[4, 1]] = f32::NAN;
    assert!(matches!(
        params().fit_values(x.view(), y.view(), None),
        Err(ForestError::NotFinite { what: "targets", row: 4, column: 1, .. })
    ));
    let short = y.slice(ndarray::s![..49, ..]);
    assert!(matches!(params().fit_values(x.view(), short, None), Err(ForestError::Rows { .. })));
}

#[test]
fn a_score_against_targets_that_are_not_finite_is_refused() -> forest::Result<()> {
    let (x, mut y) = ridge(50);
    let model = params().epochs(1).fit_values(x.view(), y.view(), None)?;
    for bad in [f32::NAN, f32::INFINITY] {
        y[[4, 1]] = bad;
        let refused = model.score(x.view(), y.view());
        let named = matches!(refused, Err(ForestError::NotFinite { what: "targets", row: 4, column: 1, .. }));
        assert!(named, "{refused:?}");
    }
    Ok(())
}

#[test]
fn closed_form_updates_are_not_for_values_which_are_learned_by_gradient() -> forest::Result<()> {
    let (x, y) = ridge(100);
    let closed = LeafUpdate::ClosedForm { rounds: 2, leafness: true };
    let [closed, gradient] = [closed, LeafUpdate::Gradient].map(|update| {
        let model = params().epochs(5).leaf_update(update).fit_values(x.view(), y.view(), None)?;
        model.predict(x.view())
    });
    assert_eq!(closed?, gradient?);
    Ok(())
}

#[test]
fn a_chunk_that_diverges_leaves_the_model_as_it_was() -> forest::Result<()> {
    let (x, y) = ridge(100);
    let mut model = params().epochs(5).fit_values(x.view(), y.view(), None)?;
    let before = model.predict(x.view())?;
    // The square of 1e30 is no number in single precision.
    let huge = Array2::from_elem(y.raw_dim(), 1e30);
    assert!(matches!(model.partial_fit(x.view(), huge.view()), Err(ForestError::Diverged { epoch: 0, step: 0, .. })));
    assert_eq!(model.predict(x.view())?, before);
    assert_eq!((model.trees().len(), model.history().len()), (5, 6));
    model.partial_fit(x.view(), y.view())?;
    assert_eq!(model.history().len(), 7);
    assert_ne!(model.predict(x.view())?, before);
    Ok(())
}

#[test]
fn rows_without_weight_say_nothing() -> forest::Result<()> {
    let (x, _) = ridge(200);
    let y = Array2::from_shape_fn((200, 1), |(i, _)| if i % 2 == 0 { 1.0 } else { -1.0 });
    let weights = Array1::from_shape_fn(200, |i| if i % 2 == 0 { 3.0 } else { 0.0 });
    let model = params().harden(false).fit_values(x.view(), y.view(), Some(weights.view()))?;
    // If all rows counted, the best guess would be their mean of 0.
    assert!(model.predict(x.view())?.iter().all(|&value| (value - 1.0).abs() < 0.1));
    Ok(())
}

#[test]
fn a_single_held_out_row_tells_epochs_apart() -> forest::Result<()> {
    let (x, y) = ridge(10);
    let stop = EarlyStopping { fraction: 0.1, patience: 40 };
    let model = params().early_stopping(Some(stop)).harden(false).fit_values(x.view(), y.view(), None)?;
    let scores: Vec<f64> = model.history().iter().filter_map(|epoch| epoch.validation).collect();
    assert_eq!(scores.len(), 40);
    assert!(scores.iter().all(|score| *score < 0.0) && scores.iter().any(|score| *score > scores[0]), "{scores:?}");
    Ok(())
}

#[test]
fn one_row_is_predicted_as_in_a_table_also_without_a_value() -> forest::Result<()> {
    let (mut x, y) = ridge(200);
    x.column_mut(0).iter_mut().step_by(7).for_each(|v| *v = f32::NAN);
    let params = params().epochs(5).missing(Missing::Indicate);
    let model = params.fit_values(x.view(), y.view(), None)?;
    assert_eq!(model.params(), &params);
    let table = model.predict(x.view())?;
    for row in [0, 1, 7] {
        let mut values = [0.0; 2];
        let bound = model.predict_one(&x.row(row).to_vec(), Evaluation::Exact, &mut values)?;
        assert_eq!(bound, 0.0);
        // Values near 100: single precision resolves 1e-5 of them.
        assert!(values.iter().zip(table.row(row)).all(|(v, t)| (v - t).abs() < 1e-3), "{values:?}");
    }
    let short = model.predict_one(&[0.0; 2], Evaluation::Exact, &mut [0.0; 1]);
    assert!(matches!(short, Err(ForestError::Width { expected: 2, found: 1 })));
    let bytes = model.to_bytes()?;
    assert_eq!(SoftForestRegressor::from_bytes(&bytes)?.predict(x.view())?, table);
    assert!(matches!(forest::SoftForest::from_bytes(&bytes), Err(ForestError::Kind { .. })));
    Ok(())
}
