//! Our benches over their rounds.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measure::Measurement;
use super::median::{median, range};

/// One of our benches, over its rounds.
#[derive(Debug, Serialize)]
pub(super) struct Bench {
    pub(super) id: String,
    /// The median of the rounds' medians.
    pub(super) seconds: f64,
    /// Spans criterion's intervals of the rounds' medians.
    pub(super) interval: [f64; 2],
    pub(super) samples: usize,
    pub(super) rounds: Vec<Measurement>,
}

/// Sorted by their ids.
pub(super) fn benches(measured: BTreeMap<String, Vec<Measurement>>) -> Vec<Bench> {
    measured.into_iter().filter_map(|(id, rounds)| Bench::over(id, rounds)).collect()
}

impl Bench {
    fn over(id: String, rounds: Vec<Measurement>) -> Option<Self> {
        Some(Self {
            id,
            seconds: median(rounds.iter().map(|round| round.seconds))?,
            interval: range(rounds.iter().flat_map(|round| round.interval))?,
            samples: rounds.iter().map(|round| round.samples).sum(),
            rounds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(seconds: f64, interval: [f64; 2]) -> Measurement {
        Measurement { id: String::new(), seconds, interval, confidence: 0.95, samples: 10 }
    }

    #[test]
    fn a_bench_of_several_rounds_has_the_median_of_medians_and_spans_their_intervals() {
        let found = benches(BTreeMap::from([
            ("b".to_owned(), vec![measured(2.0, [1.9, 2.1])]),
            ("a".to_owned(), vec![measured(1.0, [0.9, 1.1]), measured(3.0, [2.5, 3.5]), measured(1.2, [1.0, 1.3])]),
        ]));
        assert_eq!((found[0].id.as_str(), found[0].seconds, found[0].samples), ("a", 1.2, 30));
        assert_eq!(found[0].interval, [0.9, 3.5]);
        assert_eq!((found[1].seconds, found[1].interval), (2.0, [1.9, 2.1]));
    }
}
