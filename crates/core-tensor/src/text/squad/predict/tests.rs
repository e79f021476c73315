//! Decoding against the reference (transformers 4.57.6, `compute_predictions_logits`) on the windows of the features' tests.

use super::super::features::tests::{asked, shopping, vocabulary};
use super::*;
use crate::text::squad::FeatureConfig;

/// The logits that the reference was given: multiples of 1/8, so that sums are exact and ties are ties.
fn logits(made: &FeatureSet) -> SpanLogits {
    let row = |feature: usize, length: usize, factor: usize, step: usize, modulus: usize| {
        (0..length).map(|token| ((token * factor + step * feature) % modulus) as f32 / 8.0).collect::<Vec<_>>()
    };
    let lengths = made.features.iter().map(|feature| feature.encoded.len()).enumerate();
    SpanLogits {
        start: lengths.clone().map(|(feature, length)| row(feature, length, 37, 11, 23)).collect(),
        end: lengths.map(|(feature, length)| row(feature, length, 29, 7, 19)).collect(),
    }
}

#[test]
fn answers_are_those_of_the_reference() {
    let (set, pieces, config) = shopping();
    let made = set.features(&pieces, &config).unwrap();
    let found = made.predict(&set, &logits(&made), &pieces, &DecodeConfig::default()).unwrap();
    let expected = [
        [
            ("and bought a gallon of", 0.07642550499189338, 2.625 + 2.25),
            ("and bought a", 0.06744527143380945, 2.625 + 2.125),
            ("man went to the store and bought a gallon of", 0.06744527143380945, 2.5 + 2.25),
            ("and", 0.05952024313431412, 2.625 + 2.0),
        ],
        [
            ("the store and bought a", 0.08535184062329135, 2.625 + 2.25),
            ("the store and", 0.07532273497994867, 2.625 + 2.125),
            ("the", 0.06647208031400505, 2.625 + 2.0),
            ("home to cook a late dinner", 0.06647208031400505, 2.375 + 2.25),
        ],
    ];
    for (prediction, expected) in found.iter().zip(expected) {
        assert_eq!(prediction.candidates.len(), 20);
        assert_eq!(prediction.text(), expected[0].0);
        for (candidate, (text, probability, score)) in prediction.candidates.iter().zip(expected) {
            assert_eq!((candidate.text.as_str(), candidate.score), (text, score));
            // Both are f64 sums of 20 exponentials.
            assert!((candidate.probability - probability).abs() < 1e-12, "{candidate:?}");
        }
        let sum: f64 = prediction.candidates.iter().map(|candidate| candidate.probability).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }
}

/// Logits that point at one span of one feature.
fn pointing(made: &FeatureSet, feature: usize, start: usize, end: usize) -> SpanLogits {
    let mut logits = SpanLogits::new(made.features.len());
    for (position, found) in made.features.iter().enumerate() {
        let row = |at: usize| {
            let mut row = vec![0.0; found.encoded.len()];
            if position == feature {
                row[at] = 9.0;
            }
            row
        };
        (logits.start[position], logits.end[position]) = (row(start), row(end));
    }
    logits
}

#[test]
fn the_words_of_the_paragraph_come_back() {
    let context = "It was Steve Smith's résumé, in the U.S.";
    let pieces = vocabulary(&["it was steve smith ' s resume , in the u . s . whose ?"]);
    let set = asked(context, &[("whose ?", "Steve Smith")]);
    let made = set.training_features(&pieces, &FeatureConfig::default()).unwrap();
    let (start, end) = made.features[0].answer;
    let text = |start, end| {
        let logits = pointing(&made, 0, start, end);
        made.predict(&set, &logits, &pieces, &DecodeConfig::default()).unwrap()[0].text().to_owned()
    };
    assert_eq!(text(start, end), "Steve Smith");
    assert_eq!(text(end + 3, end + 3), "résumé");
    assert_eq!(text(end + 7, end + 9), "U.S");
    // The question, the special tokens and spans that run backwards are no answers, however high their logits.
    for (start, end) in [(1, 2), (0, 0), (end, start)] {
        let found = made.predict(&set, &pointing(&made, 0, start, end), &pieces, &DecodeConfig::default()).unwrap();
        for candidate in &found[0].candidates {
            assert!(context.contains(&candidate.text), "{candidate:?}");
        }
    }
}

#[test]
fn no_possible_span_is_called_empty() {
    let (set, pieces, config) = shopping();
    let made = set.features(&pieces, &config).unwrap();
    // Only `[CLS]` and the question are looked at.
    let decode = DecodeConfig { best: 1, most_pieces: 30 };
    let found = made.predict(&set, &pointing(&made, 0, 0, 1), &pieces, &decode).unwrap();
    assert_eq!(found[0].text(), "empty");
    assert_eq!(found[0].candidates[0].probability, 1.0);
}

#[test]
fn gold_answers_score_100() {
    let (set, pieces, config) = shopping();
    let made = set.training_features(&pieces, &config).unwrap();
    let mut logits = SpanLogits::new(made.features.len());
    for (position, feature) in made.features.iter().enumerate() {
        let row = |at: usize| {
            let mut row = vec![0.0; feature.encoded.len()];
            // A window that does not hold the answer points at `[CLS]`.
            row[at] = if at == 0 { 1.0 } else { 9.0 };
            row
        };
        (logits.start[position], logits.end[position]) = (row(feature.answer.0), row(feature.answer.1));
    }
    let found = made.predict(&set, &logits, &pieces, &DecodeConfig::default()).unwrap();
    let texts = found.into_iter().map(|prediction| (prediction.id.clone(), prediction.text().to_owned())).collect();
    let scores = set.evaluate(&texts).unwrap();
    assert_eq!((scores.exact_match, scores.f1, scores.missing), (100.0, 100.0, 0));
}

#[test]
fn logits_come_from_batches_in_any_order() {
    let mut logits = SpanLogits::new(3);
    let tensor = |values: &[f32]| Tensor::from_slice(values).view([2, -1]);
    logits.put(&[2, 0], &tensor(&[1.0, 2.0, 3.0, 4.0]), &tensor(&[5.0, 6.0, 7.0, 8.0])).unwrap();
    assert_eq!(logits.start, [vec![3.0, 4.0], vec![], vec![1.0, 2.0]]);
    assert_eq!(logits.end[2], [5.0, 6.0]);
    let before = logits.clone();
    let found = logits.put(&[1, 0], &tensor(&[0.0; 2]), &tensor(&[0.0; 2]).view([1, 2])).unwrap_err().to_string();
    assert_eq!(found, "`end logits`: expected [2, tokens], found [1, 2]");
    assert_eq!(logits, before);
    let found = logits.put(&[3, 0], &tensor(&[0.0; 2]), &tensor(&[0.0; 2])).unwrap_err().to_string();
    assert_eq!(found, "index is 3, expected positions below 3");
    let found = logits.put(&[0], &tensor(&[0.0; 2]), &tensor(&[0.0; 2])).unwrap_err().to_string();
    assert_eq!(found, "`start logits`: expected [1, tokens], found [2, 1]");
}

#[test]
fn missing_short_and_broken_logits_are_refused() {
    let (set, pieces, config) = shopping();
    let made = set.features(&pieces, &config).unwrap();
    let refused = |change: &dyn Fn(&mut SpanLogits)| {
        let mut logits = logits(&made);
        change(&mut logits);
        made.predict(&set, &logits, &pieces, &DecodeConfig::default()).unwrap_err().to_string()
    };
    let found = refused(&|logits| logits.end.truncate(1));
    assert_eq!(found, "`end logits of feature 1`: expected 24 finite numbers, found nothing");
    let found = refused(&|logits| logits.start[2].truncate(3));
    assert_eq!(found, "`start logits of feature 2`: expected 20 finite numbers, found 3");
    let found = refused(&|logits| logits.start[0][7] = f32::NAN);
    assert_eq!(found, "`start logits of feature 0`: expected 24 finite numbers, found NaN");
    let found = refused(&|logits| logits.end[0][7] = f32::INFINITY);
    assert_eq!(found, "`end logits of feature 0`: expected 24 finite numbers, found inf");
    let none = |config: DecodeConfig| made.predict(&set, &logits(&made), &pieces, &config).unwrap_err().to_string();
    assert_eq!(none(DecodeConfig { best: 0, most_pieces: 30 }), "best is 0, expected at least 1");
    assert_eq!(none(DecodeConfig { best: 20, most_pieces: 0 }), "most_pieces is 0, expected at least 1");
}
