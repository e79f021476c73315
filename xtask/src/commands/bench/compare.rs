//! Our figures beside the peers'.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::{Result, anyhow};
use serde::Serialize;
use serde_json::Value;

use super::manifest::{Manifest, Peer};
use super::measure::Measurement;

/// A pair of figures, or why there is none.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) name: String,
    pub(super) ours: String,
    pub(super) our_seconds: f64,
    pub(super) want: f64,
    #[serde(flatten)]
    pub(super) outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    Compared {
        their_seconds: f64,
        /// Ours ÷ theirs: below 1 we are faster.
        ratio: f64,
        met: bool,
    },
    Failed {
        why: String,
    },
}

/// Pairs every peer with our bench; each script runs once in each environment, however many peers read its output. A
/// peer whose bench was not run this time (a filter was given) is left out. A script that fails costs its own peers
/// their figures, nobody else.
pub(super) fn compare(
    manifest: &Manifest,
    benches: &[Measurement],
    mut run: impl FnMut(&Peer) -> Result<String>,
) -> Vec<Comparison> {
    let mut outputs: BTreeMap<(&str, &str, &[String]), Result<String, String>> = BTreeMap::new();
    let mut comparisons = Vec::new();
    for peer in &manifest.peers {
        let Some(ours) = benches.iter().find(|bench| bench.id == peer.ours) else { continue };
        // Of one environment: the same script may time another version of a library in another.
        let output = match outputs.entry((peer.environment.as_str(), peer.script.as_str(), peer.args.as_slice())) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(run(peer).map_err(|error| crate::commands::with_reasons(&error))),
        };
        let theirs = output.as_ref().map_err(Clone::clone);
        let theirs = theirs.and_then(|output| read_seconds(output, peer).map_err(|error| error.to_string()));
        let outcome = match theirs {
            Ok(their_seconds) => {
                let ratio = ours.seconds / their_seconds;
                Outcome::Compared { their_seconds, ratio, met: ratio <= peer.want }
            }
            Err(why) => Outcome::Failed { why },
        };
        comparisons.push(Comparison {
            name: peer.name.clone(),
            ours: peer.ours.clone(),
            our_seconds: ours.seconds,
            want: peer.want,
            outcome,
        });
    }
    comparisons
}

/// The peer's figure in its script's output: JSON objects, one a line, among whatever else it prints.
fn read_seconds(output: &str, peer: &Peer) -> Result<f64> {
    let line = output
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|value| value.is_object() && peer.select.iter().all(|(key, wanted)| value.get(key) == Some(wanted)))
        .ok_or_else(|| anyhow!("{} printed no JSON object for {:?}", peer.script, peer.name))?;
    line.get(&peer.field)
        .and_then(Value::as_f64)
        .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
        .ok_or_else(|| anyhow!("{}: {:?} is not a number of seconds in {line}", peer.script, peer.field))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        Manifest::parse(&format!("[environments]\ndefault = []\n{text}")).unwrap()
    }

    fn bench(id: &str, seconds: f64) -> Measurement {
        Measurement { id: id.into(), seconds, interval: [seconds, seconds], confidence: 0.95 }
    }

    #[test]
    fn a_peer_is_compared_with_the_bench_it_names_and_its_script_runs_once() {
        let manifest = manifest(
            r#"
            [[peer]]
            name = "fit"
            script = "p.py"
            select = { model = "rf" }
            field = "fit_s"
            ours = "forest/fit"
            want = 0.5
            [[peer]]
            name = "predict"
            script = "p.py"
            select = { model = "df" }
            ours = "forest/predict"
            want = 0.5
            [[peer]]
            name = "not run this time"
            script = "q.py"
            ours = "other"
            want = 1.0
            "#,
        );
        let mut runs = 0;
        let output = "warming up\n{\"model\": \"rf\", \"fit_s\": 8.0}\n{\"model\": \"df\", \"seconds\": 1.5}\n";
        let compared = compare(&manifest, &[bench("forest/fit", 2.0), bench("forest/predict", 1.0)], |peer| {
            assert_eq!(peer.script, "p.py");
            runs += 1;
            Ok(output.to_owned())
        });
        assert_eq!(runs, 1);
        // 2 s against 8 s, 1 s against 1.5 s.
        assert_eq!(compared.len(), 2);
        assert!(matches!(compared[0].outcome, Outcome::Compared { ratio: 0.25, met: true, .. }));
        assert!(matches!(compared[1].outcome, Outcome::Compared { met: false, .. }));
    }

    #[test]
    fn a_script_runs_anew_in_each_environment() {
        let peer = |environment: &str| {
            format!("[[peer]]\nname = 'x'\nscript = 'p.py'\nenvironment = '{environment}'\nours = 'x'\nwant = 1.0\n")
        };
        let text = format!("[environments]\nold = []\nnew = []\n{}{}", peer("old"), peer("new"));
        let manifest = Manifest::parse(&text).unwrap();
        let compared = compare(&manifest, &[bench("x", 1.0)], |peer| {
            Ok(format!("{{\"seconds\": {}}}", if peer.environment == "old" { 4.0 } else { 2.0 }))
        });
        assert!(matches!(compared[0].outcome, Outcome::Compared { ratio: 0.25, .. }));
        assert!(matches!(compared[1].outcome, Outcome::Compared { ratio: 0.5, .. }));
    }

    #[test]
    fn a_script_that_fails_or_prints_no_figure_is_named_and_the_others_go_on() {
        let peer = |script: &str| format!("[[peer]]\nname = 'x'\nscript = '{script}'\nours = 'x'\nwant = 1.0\n");
        let manifest = manifest(&(peer("bad.py") + &peer("good.py")));
        for output in ["", "{\"seconds\": \"fast\"}", "{\"seconds\": 0}", "[1]", "crash"] {
            let compared = compare(&manifest, &[bench("x", 1.0)], |peer| match (peer.script.as_str(), output) {
                ("good.py", _) => Ok("{\"seconds\": 2.0}".to_owned()),
                (_, "crash") => Err(anyhow!("bad.py failed")),
                _ => Ok(output.to_owned()),
            });
            let Outcome::Failed { why } = &compared[0].outcome else { panic!("{output} gave a figure") };
            assert!(why.contains("bad.py"), "{output}: {why}");
            assert!(matches!(compared[1].outcome, Outcome::Compared { ratio: 0.5, met: true, .. }));
        }
    }
}
