//! One of our programs and its peers, in turn: a machine's speed is not the same half an hour later.

use std::collections::BTreeMap;

use serde::Serialize;

use super::agreement::{Recorded, Same, beside};
use super::manifest::{Manifest, Peer};
use super::measure::Measurement;
use super::output::{Figures, Timing, read_figures};

/// What one run of one of our programs gave.
#[derive(Default)]
pub(super) struct Run {
    pub(super) measured: Vec<Measurement>,
    pub(super) recorded: Recorded,
    /// Why it ended before its time; what it had measured until then is there.
    pub(super) failure: Option<String>,
}

/// A run of one of our programs that failed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct FailedRun {
    pub(super) program: String,
    pub(super) round: usize,
    pub(super) why: String,
}

/// A round of a peer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Round {
    pub(super) round: usize,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    Compared(Pair),
    /// Ours was not measured.
    NoBench {
        no_bench: String,
    },
    /// Theirs gave no time.
    Failed {
        failed: String,
    },
}

/// Both sides of one round.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Pair {
    pub(super) ours: Timing,
    pub(super) theirs: Timing,
    /// Ours ÷ theirs: below 1 we are faster.
    pub(super) ratio: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) results: Vec<Same>,
}

/// All that the rounds gave.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// Our benches by their ids: a measurement a round.
    pub(super) benches: BTreeMap<String, Vec<Measurement>>,
    /// The rounds of each peer, by its place in the manifest.
    pub(super) peers: BTreeMap<usize, Vec<Round>>,
    pub(super) failed: Vec<FailedRun>,
}

impl Log {
    /// Runs the whole program and then its peers' scripts; in the rounds behind the first, only the benches that a peer
    /// of that round is compared with. `ours` runs the program, `theirs` a peer's script, whose output it returns.
    ///
    /// A script that fails costs its own peers a round, and a program of ours what it had left to measure, nobody else.
    pub(super) fn take_turns(
        &mut self,
        manifest: &Manifest,
        rounds: usize,
        program: &str,
        mut ours: impl FnMut(Option<&[&str]>) -> Run,
        mut theirs: impl FnMut(&Peer) -> Result<String, String>,
    ) {
        let mut compared: Vec<(usize, &Peer)> = Vec::new();
        for round in 1..=rounds {
            compared.retain(|(_, peer)| peer.rounds(rounds) >= round);
            if round > 1 && compared.is_empty() {
                return;
            }
            let mut only: Vec<&str> = compared.iter().map(|(_, peer)| peer.ours.as_str()).collect();
            only.sort_unstable();
            only.dedup();
            let Run { mut measured, recorded, failure } = ours((round > 1).then_some(&only));
            if let Some(why) = failure {
                self.failed.push(FailedRun { program: program.to_owned(), round, why });
            }
            if round == 1 {
                measured.retain(|new| !self.benches.contains_key(&new.id));
                let is_here = |peer: &Peer| measured.iter().any(|bench| bench.id == peer.ours);
                compared = manifest.peers.iter().enumerate().filter(|(_, peer)| is_here(peer)).collect();
            } else {
                measured.retain(|again| only.contains(&again.id.as_str()));
            }
            let mut outputs = BTreeMap::new();
            for &(place, peer) in &compared {
                let outcome = match measured.iter().find(|bench| bench.id == peer.ours) {
                    None => Outcome::NoBench { no_bench: peer.ours.clone() },
                    Some(bench) => {
                        let output = outputs.entry(peer.invocation()).or_insert_with(|| theirs(peer));
                        pair(bench, output, peer, &recorded)
                    }
                };
                self.peers.entry(place).or_default().push(Round { round, outcome });
            }
            for bench in measured {
                self.benches.entry(bench.id.clone()).or_default().push(bench);
            }
        }
    }
}

fn pair(bench: &Measurement, output: &Result<String, String>, peer: &Peer, recorded: &Recorded) -> Outcome {
    let output = output.as_ref().map_err(Clone::clone);
    match output.and_then(|output| read_figures(output, peer).map_err(|error| error.to_string())) {
        Ok(Figures { timing: theirs, results }) => Outcome::Compared(Pair {
            ours: Timing { seconds: bench.seconds, samples: bench.samples },
            theirs,
            ratio: bench.seconds / theirs.seconds,
            results: beside(&peer.agree, recorded.get(&peer.ours), &results),
        }),
        Err(failed) => Outcome::Failed { failed },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(peers: &str) -> Manifest {
        Manifest::parse(&format!("[environments]\ndefault = []\nold = []\n{peers}")).unwrap()
    }

    fn peer(script: &str, ours: &str, more: &str) -> String {
        format!("[[peer]]\nname = 'x'\nscript = '{script}'\nours = '{ours}'\nwant = 1.0\n{more}\n")
    }

    fn bench(id: &str, seconds: f64) -> Measurement {
        Measurement { id: id.into(), seconds, interval: [seconds, seconds], confidence: 0.95, samples: 10 }
    }

    fn ran(benches: &[(&str, f64)]) -> Run {
        Run { measured: benches.iter().map(|(id, seconds)| bench(id, *seconds)).collect(), ..Run::default() }
    }

    /// The ratios of a peer's rounds; nothing for a round without.
    fn ratios(log: &Log, place: usize) -> Vec<Option<f64>> {
        let ratio = |round: &Round| match &round.outcome {
            Outcome::Compared(pair) => Some(pair.ratio),
            _ => None,
        };
        log.peers[&place].iter().map(ratio).collect()
    }

    #[test]
    fn the_whole_program_runs_once_and_then_only_what_is_compared_each_time_before_the_scripts() {
        let manifest = manifest(&(peer("p.py", "b", "") + &peer("q.py", "a", "") + &peer("q.py", "a", "")));
        let (mut log, order) = (Log::default(), std::cell::RefCell::new(Vec::new()));
        log.take_turns(
            &manifest,
            3,
            "forest",
            |only| {
                order.borrow_mut().push(only.map_or_else(|| "all".to_owned(), |ids| ids.join("+")));
                ran(&[("a", 1.0), ("b", 1.0), ("alone", 1.0)])
            },
            |peer| {
                order.borrow_mut().push(peer.script.clone());
                Ok("{\"seconds\": 2.0}".to_owned())
            },
        );
        assert_eq!(order.into_inner(), ["all", "p.py", "q.py", "a+b", "p.py", "q.py", "a+b", "p.py", "q.py"]);
        assert_eq!((log.benches["a"].len(), log.benches["alone"].len()), (3, 1));
    }

    #[test]
    fn every_round_has_a_ratio_of_its_own() {
        let manifest = manifest(&peer("p.py", "x", ""));
        let (mut log, mut ours, mut theirs) = (Log::default(), [1.0, 2.0, 3.0].iter(), [2.0, 2.0, 4.0].iter());
        log.take_turns(
            &manifest,
            3,
            "forest",
            |_| ran(&[("x", *ours.next().unwrap())]),
            |_| Ok(format!("{{\"seconds\": {}}}", theirs.next().unwrap())),
        );
        assert_eq!(ratios(&log, 0), [Some(0.5), Some(1.0), Some(0.75)]);
    }

    #[test]
    fn a_peer_with_one_round_has_one_and_its_bench_is_not_run_again_for_it() {
        let manifest = manifest(&(peer("slow.py", "x", "rounds = 1") + &peer("p.py", "y", "rounds = 2")));
        let (mut log, mut filters, mut scripts) = (Log::default(), Vec::new(), Vec::new());
        log.take_turns(
            &manifest,
            3,
            "forest",
            |only| {
                filters.push(only.map(|ids| ids.join("+")));
                ran(&[("x", 1.0), ("y", 1.0)])
            },
            |peer| {
                scripts.push(peer.script.clone());
                Ok("{\"seconds\": 1.0}".to_owned())
            },
        );
        assert_eq!(filters, [None, Some("y".to_owned())]);
        assert_eq!(scripts, ["slow.py", "p.py", "p.py"]);
        assert_eq!(log.benches["x"].len(), 1);
    }

    #[test]
    fn peers_of_one_invocation_share_its_run_and_another_environment_or_argument_has_its_own() {
        let peers = ["", "select = { model = 'rf' }", "environment = 'old'", "args = ['1']"].map(|more| {
            // All fields of the peers' tables; the scripts are one.
            peer("p.py", "x", more)
        });
        let (mut log, mut runs) = (Log::default(), 0);
        log.take_turns(
            &manifest(&peers.concat()),
            1,
            "forest",
            |_| ran(&[("x", 1.0)]),
            |_| {
                runs += 1;
                Ok(format!("{{\"model\": \"rf\", \"seconds\": {runs}.0}}"))
            },
        );
        assert_eq!(runs, 3);
        assert_eq!(ratios(&log, 0), ratios(&log, 1));
        assert_eq!(ratios(&log, 2), [Some(0.5)]);
    }

    #[test]
    fn a_peer_whose_bench_did_not_run_has_no_round_and_its_script_is_left_alone() {
        let manifest = manifest(&(peer("p.py", "absent", "") + &peer("q.py", "x", "")));
        let mut log = Log::default();
        log.take_turns(
            &manifest,
            2,
            "forest",
            |_| ran(&[("x", 1.0)]),
            |peer| {
                assert_eq!(peer.script, "q.py");
                Ok("{\"seconds\": 1.0}".to_owned())
            },
        );
        assert!(!log.peers.contains_key(&0) && log.peers[&1].len() == 2);
    }

    #[test]
    fn a_script_that_fails_costs_its_own_peers_that_round() {
        let manifest = manifest(&(peer("bad.py", "x", "") + &peer("good.py", "x", "")));
        let (mut log, mut runs) = (Log::default(), 0);
        log.take_turns(
            &manifest,
            2,
            "forest",
            |_| ran(&[("x", 1.0)]),
            |peer| {
                runs += 1;
                match peer.script.as_str() {
                    "bad.py" if runs == 1 => Err("bad.py failed".to_owned()),
                    _ => Ok("{\"seconds\": 2.0}".to_owned()),
                }
            },
        );
        assert_eq!(ratios(&log, 0), [None, Some(0.5)]);
        assert!(matches!(&log.peers[&0][0].outcome, Outcome::Failed { failed } if failed == "bad.py failed"));
        assert_eq!(ratios(&log, 1), [Some(0.5), Some(0.5)]);
    }

    #[test]
    fn a_program_that_fails_keeps_what_it_measured_and_the_rounds_go_on() {
        let manifest = manifest(&(peer("p.py", "x", "") + &peer("p.py", "y", "")));
        let (mut log, mut round) = (Log::default(), 0);
        log.take_turns(
            &manifest,
            3,
            "forest",
            |_| {
                round += 1;
                match round {
                    2 => Run { failure: Some("exit status: 101".to_owned()), ..ran(&[("x", 1.0)]) },
                    _ => ran(&[("x", 1.0), ("y", 1.0)]),
                }
            },
            |_| Ok("{\"seconds\": 2.0}".to_owned()),
        );
        assert_eq!((log.failed[0].program.as_str(), log.failed[0].round), ("forest", 2));
        assert_eq!(ratios(&log, 0), [Some(0.5); 3]);
        assert_eq!(ratios(&log, 1), [Some(0.5), None, Some(0.5)]);
        assert!(matches!(&log.peers[&1][1].outcome, Outcome::NoBench { no_bench } if no_bench == "y"));
    }

    #[test]
    fn results_of_both_sides_are_paired_in_their_round() {
        let manifest = manifest(&peer("p.py", "x", "agree = { accuracy = 0.01 }"));
        let mut log = Log::default();
        log.take_turns(
            &manifest,
            1,
            "forest",
            |_| Run {
                recorded: Recorded::from([("x".to_owned(), BTreeMap::from([("accuracy".to_owned(), 0.5)]))]),
                ..ran(&[("x", 1.0)])
            },
            |_| Ok("{\"seconds\": 2.0, \"accuracy\": 0.505}".to_owned()),
        );
        let Outcome::Compared(pair) = &log.peers[&0][0].outcome else { panic!("no figures") };
        assert_eq!((pair.results[0].ours, pair.results[0].theirs), (Some(0.5), Some(0.505)));
    }
}
