//! Scores of predictions, as fractions. Undefined correlations are errors; [`f1`] and [`matthews`] are 0 where
//! scikit-learn's are.

use std::collections::BTreeMap;

use super::TextError;

type Result<T> = std::result::Result<T, TextError>;

/// Share of predictions that are right.
///
/// # Errors
/// No value, or unequal lengths.
pub fn accuracy(predicted: &[i64], actual: &[i64]) -> Result<f64> {
    check("accuracy", predicted.len(), actual.len())?;
    let right = predicted.iter().zip(actual).filter(|(predicted, actual)| predicted == actual).count();
    Ok(right as f64 / actual.len() as f64)
}

/// `2 TP / (2 TP + FP + FN)` of class 1; 0 when nothing is predicted and nothing is of class 1, as scikit-learn.
///
/// # Errors
/// No value, or unequal lengths.
pub fn f1(predicted: &[i64], actual: &[i64]) -> Result<f64> {
    check("F1", predicted.len(), actual.len())?;
    let count = |of: fn(bool, bool) -> bool| {
        predicted.iter().zip(actual).filter(|&(&predicted, &actual)| of(predicted == 1, actual == 1)).count() as f64
    };
    let hits = 2.0 * count(|predicted, actual| predicted && actual);
    let misses = count(|predicted, actual| predicted != actual);
    Ok(if hits + misses == 0.0 { 0.0 } else { hits / (hits + misses) })
}

/// Matthews' correlation coefficient, for any number of classes (Gorodkin, 2004); with two,
/// `(TP·TN − FP·FN) / √((TP + FP)(TP + FN)(TN + FP)(TN + FN))`. 0 when the root is 0, that is, when only one class is
/// predicted or only one is there, as scikit-learn.
///
/// # Errors
/// No value, or unequal lengths.
pub fn matthews(predicted: &[i64], actual: &[i64]) -> Result<f64> {
    check("Matthews correlation", predicted.len(), actual.len())?;
    let (mut of_predicted, mut of_actual) = (BTreeMap::<i64, f64>::new(), BTreeMap::<i64, f64>::new());
    let mut right = 0.0;
    for (&predicted, &actual) in predicted.iter().zip(actual) {
        *of_predicted.entry(predicted).or_default() += 1.0;
        *of_actual.entry(actual).or_default() += 1.0;
        right += f64::from(u8::from(predicted == actual));
    }
    let samples = actual.len() as f64;
    let both: f64 = of_predicted.iter().map(|(class, count)| count * of_actual.get(class).unwrap_or(&0.0)).sum();
    let squares = |counts: &BTreeMap<i64, f64>| counts.values().map(|count| count * count).sum::<f64>();
    let (predicted, actual) = (samples * samples - squares(&of_predicted), samples * samples - squares(&of_actual));
    if predicted == 0.0 || actual == 0.0 {
        return Ok(0.0);
    }
    Ok((right * samples - both) / (predicted * actual).sqrt())
}

/// Pearson's correlation.
///
/// # Errors
/// Fewer than two values, unequal lengths, a value that is not finite, or values that are all equal or so large or small
/// that their squares leave the range of `f64`: then there is none.
pub fn pearson(predicted: &[f64], actual: &[f64]) -> Result<f64> {
    correlation("Pearson correlation", predicted, actual)
}

/// Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs.
///
/// # Errors
/// As [`pearson`].
pub fn spearman(predicted: &[f64], actual: &[f64]) -> Result<f64> {
    const NAME: &str = "Spearman correlation";
    check(NAME, predicted.len(), actual.len())?;
    check_finite(NAME, predicted, actual)?;
    correlation(NAME, &ranks(predicted), &ranks(actual))
}

fn correlation(metric: &'static str, predicted: &[f64], actual: &[f64]) -> Result<f64> {
    check(metric, predicted.len(), actual.len())?;
    check_finite(metric, predicted, actual)?;
    if actual.len() < 2 {
        return Err(TextError::Metric { metric, reason: "needs at least two values, found 1".to_owned() });
    }
    let centred = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|value| value - mean).collect::<Vec<_>>()
    };
    let constant = |values: &[f64]| values.iter().all(|value| *value == values[0]);
    for (which, values) in [("predicted", predicted), ("actual", actual)] {
        if constant(values) {
            return Err(TextError::Metric { metric, reason: format!("undefined: the {which} values are all equal") });
        }
    }
    let (predicted, actual) = (centred(predicted), centred(actual));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norm = dot(&predicted, &predicted).sqrt() * dot(&actual, &actual).sqrt();
    let found = dot(&predicted, &actual) / norm;
    // Squares that leave the range make the norm infinite or 0.
    if norm.is_infinite() || !found.is_finite() {
        return Err(TextError::Metric { metric, reason: format!("values whose norm is {norm}") });
    }
    // Rounding can carry a perfect correlation past 1.
    Ok(found.clamp(-1.0, 1.0))
}

/// Ranks from 1, equal values sharing the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<_> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    // `==` and not `total_cmp`, so that 0 and −0 share a rank.
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = start as f64 + (group.len() + 1) as f64 / 2.0;
        for &position in group {
            ranks[position] = mean;
        }
        start += group.len();
    }
    ranks
}

fn check(metric: &'static str, predicted: usize, actual: usize) -> Result<()> {
    if actual == 0 {
        return Err(TextError::Metric { metric, reason: "no value".to_owned() });
    }
    if predicted != actual {
        let reason = format!("{predicted} predictions for {actual} values");
        return Err(TextError::Metric { metric, reason });
    }
    Ok(())
}

fn check_finite(metric: &'static str, predicted: &[f64], actual: &[f64]) -> Result<()> {
    for (which, values) in [("prediction", predicted), ("value", actual)] {
        if let Some(position) = values.iter().position(|value| !value.is_finite()) {
            let reason = format!("{which} {position} is {}", values[position]);
            return Err(TextError::Metric { metric, reason });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(found: f64, expected: f64) {
        // Golden values carry 12 digits.
        assert!((found - expected).abs() < 5e-13, "{found} {expected}");
    }

    #[test]
    fn two_classes_score_as_counted_by_hand() {
        // TP 3, FP 2, FN 2, TN 1 of eight: accuracy 4/8. MCC = (3·1 − 2·2)/√(5·5·3·3) = −1/15. F1 = 6/10.
        let (actual, predicted) = ([1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 1, 1, 0]);
        close(accuracy(&predicted, &actual).unwrap(), 0.5);
        close(f1(&predicted, &actual).unwrap(), 0.6);
        close(matthews(&predicted, &actual).unwrap(), -1.0 / 15.0);
    }

    #[test]
    fn scores_are_those_of_scikit_learn_and_scipy() {
        // scikit-learn 1.9.1 and scipy 1.17.1: accuracy_score, f1_score, matthews_corrcoef, pearsonr, spearmanr.
        let (actual, predicted) = ([1, 1, 1, 0, 0, 1, 0, 1], [1, 0, 1, 0, 1, 1, 0, 1]);
        close(accuracy(&predicted, &actual).unwrap(), 0.75);
        close(f1(&predicted, &actual).unwrap(), 0.8);
        close(matthews(&predicted, &actual).unwrap(), 0.466_666_666_666_7);
        let (actual, predicted) = ([0, 1, 2, 2, 1, 0, 2, 1, 0, 0], [0, 2, 2, 1, 1, 0, 2, 0, 0, 1]);
        close(matthews(&predicted, &actual).unwrap(), 0.393_939_393_939_4);
        let (predicted, actual) = ([0.0, 1.5, 2.0, 2.0, 5.0], [0.3, 1.0, 2.5, 1.9, 4.0]);
        close(pearson(&predicted, &actual).unwrap(), 0.958_437_059_168_1);
        close(spearman(&predicted, &actual).unwrap(), 0.974_679_434_480_9);
    }

    #[test]
    fn one_class_alone_correlates_with_nothing() {
        assert_eq!(matthews(&[1, 1, 1], &[1, 0, 1]).unwrap(), 0.0);
        assert_eq!(matthews(&[1, 0, 1], &[1, 1, 1]).unwrap(), 0.0);
        assert_eq!(f1(&[0, 0], &[0, 0]).unwrap(), 0.0);
    }

    #[test]
    fn scores_without_a_meaning_are_errors() {
        assert_eq!(accuracy(&[], &[]).unwrap_err().to_string(), "accuracy: no value");
        assert_eq!(f1(&[1], &[1, 0]).unwrap_err().to_string(), "F1: 1 predictions for 2 values");
        let reason = |predicted: &[f64], actual: &[f64]| spearman(predicted, actual).unwrap_err().to_string();
        assert_eq!(reason(&[1.0, f64::NAN], &[1.0, 2.0]), "Spearman correlation: prediction 1 is NaN");
        assert_eq!(
            reason(&[1.0, 2.0], &[3.0, 3.0]),
            "Spearman correlation: undefined: the actual values are all equal"
        );
        assert_eq!(reason(&[1.0], &[3.0]), "Spearman correlation: needs at least two values, found 1");
        for far in [1e200, 1e-200] {
            assert!(pearson(&[far, -far], &[1.0, 2.0]).unwrap_err().to_string().contains("values whose norm is"));
        }
    }

    proptest! {
        #[test]
        fn a_rising_map_leaves_spearman_alone(pairs in prop::collection::vec((-5_i8..5, -5_i8..5), 2..30)) {
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().map(|&(a, b)| (f64::from(a), f64::from(b))).unzip();
            if let Ok(plain) = spearman(&a, &b) {
                let mapped: Vec<_> = a.iter().map(|value| value.exp()).collect();
                prop_assert!((spearman(&mapped, &b).unwrap() - plain).abs() < 1e-12);
                prop_assert!((spearman(&b, &a).unwrap() - plain).abs() < 1e-12);
            }
        }

        #[test]
        fn with_two_classes_the_general_matthews_is_the_textbook_one(
            pairs in prop::collection::vec((0_i64..2, 0_i64..2), 1..40),
        ) {
            let (p, a): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
            let count = |x, y| p.iter().zip(&a).filter(|&(&p, &a)| (p, a) == (x, y)).count() as f64;
            let (tp, tn, fp, fn_) = (count(1, 1), count(0, 0), count(1, 0), count(0, 1));
            let root = ((tp + fp) * (tp + fn_) * (tn + fp) * (tn + fn_)).sqrt();
            let expected = if root == 0.0 { 0.0 } else { (tp * tn - fp * fn_) / root };
            prop_assert!((matthews(&p, &a).unwrap() - expected).abs() < 1e-12);
        }
    }
}
