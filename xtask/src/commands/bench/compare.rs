//! What the rounds of a peer say together.

use serde::Serialize;

use super::agreement::{Agreement, Same, worst};
use super::manifest::{Manifest, Peer};
use super::median::{median, range};
use super::rounds::{Log, Outcome, Pair, Round};

/// A row of the report: a peer beside our bench.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) name: String,
    /// Criterion's id of our bench.
    pub(super) ours: String,
    pub(super) want: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<String>,
    #[serde(flatten)]
    pub(super) summary: Summary,
    pub(super) rounds: Vec<Round>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Summary {
    Compared(Figures),
    /// No round gave a ratio.
    NotRun {
        not_run: String,
    },
}

/// Of the rounds that gave a ratio.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    /// The median of the rounds' medians.
    pub(super) our_seconds: f64,
    pub(super) our_samples: usize,
    pub(super) their_seconds: f64,
    pub(super) their_samples: usize,
    /// The median of the rounds' ratios, ours ÷ theirs.
    pub(super) ratio: f64,
    /// The lowest and the highest of the rounds' ratios.
    pub(super) range: [f64; 2],
    pub(super) verdict: Verdict,
    /// Of the round that agrees least; of a peer that says on what to agree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agreement: Option<Agreement>,
    #[serde(skip)]
    pub(super) results: Vec<Same>,
}

/// Whether what is wanted was reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// In every round.
    Yes,
    /// In no round.
    No,
    /// In some rounds.
    Open,
}

/// A row for every peer of the manifest, in its order.
pub(super) fn compare(manifest: &Manifest, log: &mut Log) -> Vec<Comparison> {
    let mut row = |(place, peer): (usize, &Peer)| {
        let rounds = log.peers.remove(&place).unwrap_or_default();
        Comparison {
            name: peer.name.clone(),
            ours: peer.ours.clone(),
            want: peer.want,
            note: peer.note.clone(),
            summary: summary(peer, &rounds),
            rounds,
        }
    };
    manifest.peers.iter().enumerate().map(&mut row).collect()
}

fn summary(peer: &Peer, rounds: &[Round]) -> Summary {
    let pairs: Vec<&Pair> = rounds
        .iter()
        .filter_map(|round| match &round.outcome {
            Outcome::Compared(pair) => Some(pair),
            _ => None,
        })
        .collect();
    figures(peer.want, &pairs).map_or_else(|| Summary::NotRun { not_run: reasons(peer, rounds) }, Summary::Compared)
}

fn figures(want: f64, pairs: &[&Pair]) -> Option<Figures> {
    let ratios = || pairs.iter().map(|pair| pair.ratio);
    let results = pairs.iter().map(|pair| &pair.results);
    // Of equally bad rounds the first.
    let results = results.rev().max_by_key(|results| worst(results))?;
    Some(Figures {
        our_seconds: median(pairs.iter().map(|pair| pair.ours.seconds))?,
        our_samples: pairs.iter().map(|pair| pair.ours.samples).sum(),
        their_seconds: median(pairs.iter().map(|pair| pair.theirs.seconds))?,
        their_samples: pairs.iter().map(|pair| pair.theirs.samples).sum(),
        ratio: median(ratios())?,
        range: range(ratios())?,
        verdict: Verdict::of(want, ratios()),
        agreement: worst(results),
        results: results.clone(),
    })
}

/// Why no round gave a ratio, each reason once.
fn reasons(peer: &Peer, rounds: &[Round]) -> String {
    let mut reasons: Vec<String> = rounds.iter().filter_map(|round| round.outcome.loss()).collect();
    reasons.dedup();
    if reasons.is_empty() { no_bench(&peer.ours) } else { reasons.join("; ") }
}

/// Said where our side is missing.
pub(super) fn no_bench(id: &str) -> String {
    format!("no bench `{id}`")
}

impl Outcome {
    /// Why there is no ratio.
    pub(super) fn loss(&self) -> Option<String> {
        match self {
            Self::Compared(_) => None,
            Self::NoBench { no_bench: id } => Some(no_bench(id)),
            Self::Failed { failed } => Some(failed.clone()),
        }
    }
}

impl Verdict {
    fn of(want: f64, ratios: impl Iterator<Item = f64>) -> Self {
        let met: Vec<bool> = ratios.map(|ratio| ratio <= want).collect();
        match (met.contains(&true), met.contains(&false)) {
            (_, false) => Self::Yes,
            (false, true) => Self::No,
            (true, true) => Self::Open,
        }
    }
}

impl Comparison {
    /// Whether their side failed in a round.
    pub(super) fn lost_a_round(&self) -> bool {
        self.rounds.iter().any(|round| matches!(round.outcome, Outcome::Failed { .. }))
    }

    /// Whether both sides had the same results, as far as the manifest says on what to agree.
    pub(super) fn agrees(&self) -> bool {
        match &self.summary {
            Summary::Compared(figures) => figures.agreement.is_none_or(|agreement| agreement == Agreement::Agrees),
            Summary::NotRun { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::Timing;
    use super::*;

    fn manifest() -> Manifest {
        let peer = "[[peer]]\nname = 'x'\nscript = 'p.py'\nours = 'forest/fit'\nwant = 0.5\n";
        Manifest::parse(&format!("[environments]\ndefault = []\n{peer}")).unwrap()
    }

    fn compared(ours: f64, theirs: f64) -> Outcome {
        let timing = |seconds, samples| Timing { seconds, samples };
        Outcome::Compared(Pair {
            ours: timing(ours, 10),
            theirs: timing(theirs, 3),
            ratio: ours / theirs,
            results: Vec::new(),
        })
    }

    fn failed(why: &str) -> Outcome {
        Outcome::Failed { failed: why.to_owned() }
    }

    fn rows(outcomes: Vec<Outcome>) -> Comparison {
        let rounds = (1..).zip(outcomes).map(|(round, outcome)| Round { round, outcome }).collect();
        let mut log = Log::default();
        log.peers.insert(0, rounds);
        compare(&manifest(), &mut log).remove(0)
    }

    fn figures_of(outcomes: Vec<Outcome>) -> Figures {
        match rows(outcomes).summary {
            Summary::Compared(figures) => figures,
            Summary::NotRun { not_run } => panic!("{not_run}"),
        }
    }

    #[test]
    fn times_and_ratios_are_medians_over_the_rounds() {
        // Ratios 0.25, 0.5 and 0.3: their median is not the quotient of the times' medians, 2 ÷ 4.
        let found = figures_of(vec![compared(1.0, 4.0), compared(2.0, 4.0), compared(3.0, 10.0)]);
        assert_eq!((found.our_seconds, found.their_seconds, found.ratio), (2.0, 4.0, 0.3));
        assert_eq!(found.range, [0.25, 0.5]);
        assert_eq!((found.our_samples, found.their_samples), (30, 9));
    }

    #[test]
    fn a_verdict_needs_every_round() {
        let verdict = |ours: &[f64]| figures_of(ours.iter().map(|&ours| compared(ours, 1.0)).collect()).verdict;
        assert_eq!(verdict(&[0.4, 0.5, 0.3]), Verdict::Yes);
        assert_eq!(verdict(&[0.6, 0.7, 0.8]), Verdict::No);
        assert_eq!(verdict(&[0.4, 0.4, 0.6]), Verdict::Open);
        assert_eq!(verdict(&[0.5]), Verdict::Yes);
        assert_eq!(verdict(&[0.51]), Verdict::No);
    }

    #[test]
    fn a_round_that_failed_is_kept_and_the_others_are_judged() {
        let row = rows(vec![compared(0.4, 1.0), failed("p.py failed"), compared(0.2, 1.0)]);
        assert!(row.lost_a_round() && row.rounds.len() == 3);
        let Summary::Compared(found) = row.summary else { panic!("two rounds went well") };
        assert_eq!((found.verdict, found.our_samples), (Verdict::Yes, 20));
        assert!((found.ratio - 0.3).abs() < 1e-12);
    }

    #[test]
    fn a_peer_without_a_good_round_says_why() {
        let not_run = |outcomes| match rows(outcomes).summary {
            Summary::NotRun { not_run } => not_run,
            Summary::Compared(figures) => panic!("{figures:?}"),
        };
        assert_eq!(not_run(vec![failed("no vocabulary"), failed("no vocabulary")]), "no vocabulary");
        assert_eq!(not_run(vec![failed("slow"), failed("gone")]), "slow; gone");
    }

    #[test]
    fn a_peer_whose_bench_did_not_run_is_a_row_that_says_so() {
        let rows = compare(&manifest(), &mut Log::default());
        assert!(matches!(&rows[0].summary, Summary::NotRun { not_run } if not_run == "no bench `forest/fit`"));
        // Data that are not there are no failure.
        assert!(!rows[0].lost_a_round() && rows[0].agrees());
    }

    #[test]
    fn results_are_those_of_the_round_that_agrees_least() {
        let with = |ours: Option<f64>| {
            let Outcome::Compared(mut pair) = compared(0.4, 1.0) else { unreachable!() };
            pair.results = vec![Same { name: "accuracy".to_owned(), ours, theirs: Some(0.5), tolerance: 0.1 }];
            Outcome::Compared(pair)
        };
        let found = figures_of(vec![with(Some(0.5)), with(Some(0.9)), with(None)]);
        assert_eq!((found.agreement, found.results[0].ours), (Some(Agreement::Differs), Some(0.9)));
        let found = figures_of(vec![with(Some(0.5)), with(Some(0.51))]);
        assert_eq!((found.agreement, found.results[0].ours), (Some(Agreement::Agrees), Some(0.5)));
        assert!(rows(vec![with(Some(0.5))]).agrees());
        assert!(!rows(vec![with(Some(0.5)), with(None)]).agrees());
        assert!(!rows(vec![with(Some(0.9))]).agrees());
    }
}
