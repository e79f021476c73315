//! Cascades of soft and hard forests.

use forest::synthetic::{blobs, oblique_xor};
use forest::{
    ClassVector, DeepForest, DeepForestParams, EarlyStopping, Forest, ForestError, HardForestParams, HardKind, Loss,
    Optimiser, Scanning, SoftForestParams, Window,
};
use ndarray::{Array2, aview1};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn soft() -> Forest {
    soft_with(Loss::PerTree)
}

fn soft_with(loss: Loss) -> Forest {
    Forest::Soft(Box::new(
        SoftForestParams::default()
            .trees(3)
            .depth(3)
            .epochs(15)
            .batch(32)
            .loss(loss)
            .optimiser(Optimiser { rate: 0.05, ..Optimiser::default() }),
    ))
}

fn hard(kind: HardKind) -> Forest {
    Forest::Hard(HardForestParams { kind, trees: 10, ..HardForestParams::default() })
}

fn params(forests: Vec<Forest>) -> DeepForestParams {
    DeepForestParams { forests, max_layers: 3, patience: 1, ..DeepForestParams::default() }
}

#[test]
fn soft_hard_and_mixed_cascades_learn_and_survive_saving() -> Result<(), Box<dyn std::error::Error>> {
    let (x, y) = blobs(300, 5, 3, 4.0, 1);
    let (test_x, test_y) = blobs(200, 5, 3, 4.0, 2);
    for forests in [
        vec![soft()],
        vec![hard(HardKind::RandomForest), hard(HardKind::CompletelyRandom)],
        vec![soft(), hard(HardKind::ExtraTrees)],
    ] {
        for class_vector in [ClassVector::PerForest, ClassVector::PerTree] {
            let params = DeepForestParams { class_vector, ..params(forests.clone()) };
            let model = params.fit(x.view(), aview1(&y))?;
            let score = model.score(test_x.view(), aview1(&test_y))?;
            assert!(score > 0.9, "{score}");
            assert!(model.layers() >= 1 && model.layers() <= model.layer_scores().len());
            let loaded = DeepForest::from_bytes(&model.to_bytes()?)?;
            assert_eq!(model.predict_proba(test_x.view())?, loaded.predict_proba(test_x.view())?);
            let last = model.predict_layers(test_x.view())?.pop();
            assert_eq!(last, Some(model.predict_proba(test_x.view())?));
        }
    }
    Ok(())
}

/// On shuffled labels, vectors from the trees that saw a row would look accurate; out-of-fold ones stay at chance, in the second
/// layer too, which sees the first one's. The bound is three standard deviations of a fair coin over 300 rows,
/// 1/2 + 3 x 0.5 / sqrt(300) = 0.587.
#[test]
fn out_of_fold_scores_stay_at_chance_on_random_labels() -> forest::Result<()> {
    let (x, mut y) = oblique_xor(300, 6, 0.6, 1);
    y.shuffle(&mut ChaCha8Rng::seed_from_u64(5));
    for forests in [vec![soft()], vec![soft_with(Loss::Joint)], vec![hard(HardKind::RandomForest)]] {
        let model = DeepForestParams { max_layers: 2, ..params(forests) }.fit(x.view(), aview1(&y))?;
        let scores = model.layer_scores();
        assert_eq!(scores.len(), 2);
        assert!(scores.iter().all(|score| *score < 0.587), "{scores:?}");
        let seen = model.score(x.view(), aview1(&y))?;
        assert!(scores.iter().all(|score| seen > *score), "{seen} {scores:?}");
    }
    Ok(())
}

/// Images of 6 x 6 noise with a bright 2 x 2 square (class 1) or a bright 4 x 1 bar (class 0) somewhere: position varies, so
/// windows see what whole-image pixels do not.
fn shapes(rows: usize, seed: u64) -> (Array2<f32>, Vec<usize>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut x = Array2::zeros((rows, 36));
    let labels: Vec<usize> = (0..rows).map(|i| i % 2).collect();
    for (mut row, &label) in x.rows_mut().into_iter().zip(&labels) {
        row.iter_mut().for_each(|v| *v = rng.random_range(0.0f32..0.2));
        let (tall, wide) = if label == 1 { (2, 2) } else { (1, 4) };
        let (top, left) = (rng.random_range(0..=6 - tall), rng.random_range(0..=6 - wide));
        for r in top..top + tall {
            for c in left..left + wide {
                row[r * 6 + c] = 1.0;
            }
        }
    }
    (x, labels)
}

#[test]
fn scanning_tells_shapes_apart_wherever_they_are() -> forest::Result<()> {
    let (x, y) = shapes(240, 1);
    let (test_x, test_y) = shapes(120, 2);
    let model = DeepForestParams {
        scanning: Some(Scanning {
            height: 6,
            width: 6,
            windows: vec![Window { size: 2, stride: 1 }, Window { size: 3, stride: 1 }],
            forests: vec![hard(HardKind::RandomForest)],
            pool: 1,
            fit_windows: 25,
        }),
        ..params(vec![hard(HardKind::RandomForest)])
    }
    .fit(x.view(), aview1(&y))?;
    let score = model.score(test_x.view(), aview1(&test_y))?;
    assert!(score > 0.8, "{score}");
    let loaded = DeepForest::from_bytes(&model.to_bytes()?)?;
    assert_eq!(model.predict_proba(test_x.view())?, loaded.predict_proba(test_x.view())?);
    Ok(())
}

#[test]
fn bad_settings_and_tables_are_refused() -> forest::Result<()> {
    let (x, y) = blobs(30, 4, 3, 4.0, 1);
    let labels = aview1(&y);
    let many = DeepForestParams { folds: 11, ..params(vec![soft()]) };
    assert!(matches!(many.fit(x.view(), labels), Err(ForestError::Folds { folds: 11, rows: 10, .. })));
    assert!(params(Vec::new()).fit(x.view(), labels).is_err());
    let one = DeepForestParams { folds: 1, ..params(vec![soft()]) };
    assert!(one.fit(x.view(), labels).is_err());
    let held_out = Some(EarlyStopping { fraction: 0.2, patience: 1 });
    let early = Forest::Soft(Box::new(SoftForestParams::default().early_stopping(held_out)));
    let scanning = Scanning {
        height: 2,
        width: 2,
        windows: vec![Window { size: 2, stride: 1 }],
        forests: vec![early.clone()],
        pool: 1,
        fit_windows: 1,
    };
    let scanned = DeepForestParams { scanning: Some(scanning), ..params(vec![soft()]) };
    for early in [params(vec![soft(), early]), scanned] {
        let found = early.fit(x.view(), labels);
        assert!(matches!(found, Err(ForestError::Setting { name: "early_stopping", .. })), "{found:?}");
    }
    let model = params(vec![hard(HardKind::RandomForest)]).fit(x.view(), labels)?;
    assert!(matches!(model.predict(x.slice(ndarray::s![.., ..2])), Err(ForestError::Width { .. })));
    let bytes = model.to_bytes()?;
    assert!(DeepForest::from_bytes(&bytes[..bytes.len() - 9]).is_err());
    assert!(forest::SoftForest::from_bytes(&bytes).is_err());
    Ok(())
}
