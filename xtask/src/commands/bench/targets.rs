//! Bounds of our own: so many seconds, or so many times another bench.

use serde::Serialize;

use super::benches::Bench;
use super::compare::{Verdict, no_bench};
use super::manifest::Target;

/// A target and what was measured.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) bench: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) of: Option<String>,
    pub(super) at_most: f64,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    /// Seconds, or times the other bench.
    Measured {
        measured: f64,
        verdict: Verdict,
    },
    NotRun {
        not_run: String,
    },
}

/// Each target, in the manifest's order.
pub(super) fn check(targets: &[Target], benches: &[Bench]) -> Vec<Checked> {
    let checked = |target: &Target| Checked {
        name: target.name.clone(),
        bench: target.bench.clone(),
        of: target.of.clone(),
        at_most: target.at_most,
        outcome: outcome(target, benches).unwrap_or_else(|id| Outcome::NotRun { not_run: no_bench(id) }),
    };
    targets.iter().map(checked).collect()
}

/// Or the id of the bench that is missing.
fn outcome<'a>(target: &'a Target, benches: &[Bench]) -> Result<Outcome, &'a str> {
    let find = |id: &'a str| benches.iter().find(|bench| bench.id == id).ok_or(id);
    let bench = find(&target.bench)?;
    let yes_or_no = |measured| if measured <= target.at_most { Verdict::Yes } else { Verdict::No };
    let (measured, verdict) = match &target.of {
        Some(other) => {
            let ratio = bench.seconds / find(other)?.seconds;
            (ratio, yes_or_no(ratio))
        }
        None => {
            let [low, high] = bench.interval;
            let covered = low <= target.at_most && target.at_most < high;
            (bench.seconds, if covered { Verdict::Open } else { yes_or_no(bench.seconds) })
        }
    };
    Ok(Outcome::Measured { measured, verdict })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(id: &str, seconds: f64, interval: [f64; 2]) -> Bench {
        Bench { id: id.to_owned(), seconds, interval, samples: 10, rounds: Vec::new() }
    }

    fn outcome_of(id: &str, of: Option<&str>, at_most: f64) -> Outcome {
        let target = Target { name: None, bench: id.to_owned(), of: of.map(str::to_owned), at_most };
        let benches = [bench("a", 1.2, [0.9, 3.5]), bench("b", 2.0, [1.9, 2.1])];
        check(&[target], &benches).remove(0).outcome
    }

    #[test]
    fn seconds_are_judged_by_the_median_unless_the_interval_covers_the_bound() {
        let verdict = |at_most| outcome_of("b", None, at_most);
        assert_eq!(verdict(2.2), Outcome::Measured { measured: 2.0, verdict: Verdict::Yes });
        assert_eq!(verdict(2.1), Outcome::Measured { measured: 2.0, verdict: Verdict::Yes });
        assert_eq!(verdict(2.05), Outcome::Measured { measured: 2.0, verdict: Verdict::Open });
        assert_eq!(verdict(1.9), Outcome::Measured { measured: 2.0, verdict: Verdict::Open });
        assert_eq!(verdict(1.8), Outcome::Measured { measured: 2.0, verdict: Verdict::No });
    }

    #[test]
    fn a_ratio_of_two_benches_is_that_of_their_medians() {
        assert_eq!(outcome_of("a", Some("b"), 0.6), Outcome::Measured { measured: 0.6, verdict: Verdict::Yes });
        assert_eq!(outcome_of("a", Some("b"), 0.5), Outcome::Measured { measured: 0.6, verdict: Verdict::No });
    }

    #[test]
    fn a_bench_that_did_not_run_is_named() {
        let missing = |id: &str| Outcome::NotRun { not_run: format!("no bench `{id}`") };
        assert_eq!(outcome_of("gone", None, 1.0), missing("gone"));
        assert_eq!(outcome_of("a", Some("gone"), 1.0), missing("gone"));
    }
}
