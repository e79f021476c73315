//! A task's scores.

use super::{Metric, Task};
use crate::text::{Label, TextError, metrics};

/// What a network answers, in the order of the set's rows.
#[derive(Debug, Clone, Copy)]
pub enum Predictions<'a> {
    /// Class numbers.
    Classes(&'a [i64]),
    /// Scores, for [`Task::StsB`].
    Scores(&'a [f64]),
}

/// A task's metrics, as fractions.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Each metric of the task with its value.
    pub values: Vec<(Metric, f64)>,
}

impl Scores {
    /// The mean of the task's metrics, which is what the GLUE score averages over tasks.
    pub fn mean(&self) -> f64 {
        self.values.iter().map(|(_, value)| value).sum::<f64>() / self.values.len() as f64
    }

    /// The value of one of the task's metrics.
    pub fn get(&self, metric: Metric) -> Option<f64> {
        self.values.iter().find(|(found, _)| *found == metric).map(|(_, value)| *value)
    }
}

impl Task {
    /// Compares predictions with labels by the task's own metrics.
    ///
    /// # Errors
    /// Predictions or labels of the wrong kind, unequal numbers of them, none at all, a class that the task does not have,
    /// or a correlation of values that are all equal, which is not defined.
    pub fn score(self, predictions: Predictions<'_>, labels: &[Label]) -> Result<Scores, TextError> {
        let wrong = |reason: String| TextError::Metric { metric: self.metrics()[0].name(), reason };
        let value = |metric: Metric| match predictions {
            Predictions::Classes(predicted) if !self.labels().is_empty() => {
                let actual = classes(labels).ok_or_else(|| wrong(format!("{self} needs classes as labels")))?;
                let classes = 0..self.labels().len() as i64;
                if let Some(outside) = predicted.iter().chain(&actual).find(|class| !classes.contains(class)) {
                    return Err(wrong(format!("class {outside} of {self}, which has {}", classes.end)));
                }
                match metric {
                    Metric::F1 => metrics::f1(predicted, &actual),
                    Metric::Matthews => metrics::matthews(predicted, &actual),
                    _ => metrics::accuracy(predicted, &actual),
                }
            }
            Predictions::Scores(predicted) if self.labels().is_empty() => {
                let actual = scores(labels).ok_or_else(|| wrong(format!("{self} needs scores as labels")))?;
                match metric {
                    Metric::Spearman => metrics::spearman(predicted, &actual),
                    _ => metrics::pearson(predicted, &actual),
                }
            }
            Predictions::Classes(_) => Err(wrong(format!("{self} needs scores as predictions, found classes"))),
            Predictions::Scores(_) => Err(wrong(format!("{self} needs classes as predictions, found scores"))),
        };
        let values = self.metrics().iter().map(|&metric| Ok((metric, value(metric)?))).collect::<Result<_, _>>()?;
        Ok(Scores { values })
    }
}

fn classes(labels: &[Label]) -> Option<Vec<i64>> {
    labels.iter().map(|label| if let Label::Class(class) = label { Some(*class) } else { None }).collect()
}

fn scores(labels: &[Label]) -> Option<Vec<f64>> {
    labels.iter().map(|label| if let Label::Score(score) = label { Some(f64::from(*score)) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_majority_class_scores_its_published_floor() {
        // Labels of the published dev sets, counted: (task, ones, rows, metric, value of always answering the commonest).
        let cases = [
            (Task::Sst2, 444, 872, Metric::Accuracy, 50.92),
            (Task::Mrpc, 279, 408, Metric::Accuracy, 68.38),
            (Task::Mrpc, 279, 408, Metric::F1, 81.22),
            (Task::Cola, 721, 1043, Metric::Matthews, 0.0),
            (Task::Rte, 131, 277, Metric::Accuracy, 52.71),
            (Task::Wnli, 31, 71, Metric::Accuracy, 56.34),
        ];
        for (task, ones, rows, metric, expected) in cases {
            let labels: Vec<_> = (0..rows).map(|row| Label::Class(i64::from(row < ones))).collect();
            let predicted = vec![i64::from(2 * ones > rows); rows as usize];
            let scores = task.score(Predictions::Classes(&predicted), &labels).unwrap();
            // The floors are given to two decimals.
            assert!((100.0 * scores.get(metric).unwrap() - expected).abs() < 0.005, "{task} {scores:?}");
        }
    }

    #[test]
    fn two_metrics_are_averaged() {
        let labels = [1, 0, 1, 1].map(Label::Class);
        let scores = Task::Mrpc.score(Predictions::Classes(&[1, 1, 1, 0]), &labels).unwrap();
        // Two of four right; TP 2, FP 1, FN 1: F1 = 4/6.
        assert_eq!(scores.values, [(Metric::Accuracy, 0.5), (Metric::F1, 4.0 / 6.0)]);
        assert!((scores.mean() - 7.0 / 12.0).abs() < 1e-15);
        let labels = [1.0, 2.0, 4.0].map(Label::Score);
        let scores = Task::StsB.score(Predictions::Scores(&[0.1, 0.2, 0.4]), &labels).unwrap();
        // A straight line and its order; 0.1, 0.2, 0.4 are not exact in binary.
        assert!((scores.mean() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn predictions_of_the_wrong_kind_are_refused() {
        let refused =
            |task: Task, predictions, labels: &[Label]| task.score(predictions, labels).unwrap_err().to_string();
        let (class, score) = ([Label::Class(1)], [Label::Score(1.0)]);
        let found = refused(Task::StsB, Predictions::Classes(&[1]), &score);
        assert_eq!(found, "pearson: STS-B needs scores as predictions, found classes");
        let found = refused(Task::Rte, Predictions::Scores(&[1.0]), &class);
        assert_eq!(found, "accuracy: RTE needs classes as predictions, found scores");
        assert_eq!(refused(Task::Rte, Predictions::Classes(&[1]), &score), "accuracy: RTE needs classes as labels");
        assert_eq!(refused(Task::Rte, Predictions::Classes(&[2]), &class), "accuracy: class 2 of RTE, which has 2");
        assert_eq!(refused(Task::Rte, Predictions::Classes(&[1, 0]), &class), "accuracy: 2 predictions for 1 values");
    }
}
