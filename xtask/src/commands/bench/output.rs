//! What a peer's script prints: JSON objects, one a line, among whatever else it says.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use serde::Serialize;
use serde_json::Value;

use super::manifest::Peer;
use super::median::median;

/// The time of an iteration: a median, and of how many.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Timing {
    pub(super) seconds: f64,
    pub(super) samples: usize,
}

/// What a peer's object holds.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) timing: Timing,
    /// Of the results that the peer must agree on, those that are there.
    pub(super) results: BTreeMap<String, f64>,
}

/// The peer's figures: of the last object that it selects.
pub(super) fn read_figures(output: &str, peer: &Peer) -> Result<Figures> {
    let line = output
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|value| value.is_object() && peer.select.iter().all(|(key, wanted)| value.get(key) == Some(wanted)))
        .ok_or_else(|| anyhow!("{} printed no JSON object for {:?}", peer.script, peer.name))?;
    let timing = line.get(&peer.field).and_then(timing).ok_or_else(|| {
        let found = line.get(&peer.field).map_or_else(|| "missing".to_owned(), beginning);
        anyhow!("{}: {:?} is {found}, neither a number of seconds nor a list of such", peer.script, peer.field)
    })?;
    let result = |name: &String| Some((name.clone(), line.get(name)?.as_f64()?));
    Ok(Figures { timing, results: peer.agree.keys().filter_map(result).collect() })
}

/// Of a number, which may be a median already, or of a list with the seconds of every iteration.
fn timing(value: &Value) -> Option<Timing> {
    let one = std::slice::from_ref(value);
    let seconds: Vec<f64> =
        value.as_array().map_or(one, Vec::as_slice).iter().map(positive_seconds).collect::<Option<_>>()?;
    Some(Timing { seconds: median(seconds.iter().copied())?, samples: seconds.len() })
}

/// Enough of it to see what it is.
fn beginning(value: &Value) -> String {
    const LETTERS: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn positive_seconds(value: &Value) -> Option<f64> {
    value.as_f64().filter(|seconds| seconds.is_finite() && *seconds > 0.0)
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Manifest;
    use super::*;

    fn peer(more: &str) -> Peer {
        let peer = format!("[[peer]]\nname = 'x'\nscript = 'p.py'\nours = 'x'\nwant = 1.0\n{more}");
        Manifest::parse(&format!("[environments]\ndefault = []\n{peer}")).unwrap().peers.remove(0)
    }

    fn read(output: &str, more: &str) -> Result<Figures> {
        read_figures(output, &peer(more))
    }

    #[test]
    fn the_object_and_the_field_are_those_that_the_peer_names() {
        let output = "warming up\n{\"model\": \"rf\", \"fit_s\": 8.0}\n{\"model\": \"df\", \"seconds\": 1.5}\n";
        let timing = |more| read(output, more).unwrap().timing;
        assert_eq!(timing("select = { model = 'rf' }\nfield = 'fit_s'"), Timing { seconds: 8.0, samples: 1 });
        assert_eq!(timing(""), Timing { seconds: 1.5, samples: 1 });
    }

    #[test]
    fn a_list_gives_its_median_and_its_length() {
        let timing = |output| read(output, "").unwrap().timing;
        assert_eq!(timing("{\"seconds\": [3.0, 1, 8]}"), Timing { seconds: 3.0, samples: 3 });
        assert_eq!(timing("{\"seconds\": [1.0, 2.0]}"), Timing { seconds: 1.5, samples: 2 });
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for seconds in ["\"fast\"", "0", "-1", "null", "[]", "[1.0, 0]", "[1.0, \"fast\"]", "[[1.0]]", "{}", "1e999"] {
            let error = read(&format!("{{\"seconds\": {seconds}}}"), "").unwrap_err().to_string();
            assert!(error.contains("p.py"), "{error}");
        }
        for output in ["", "[1]", "{\"s\": 1.0}", "{\"seconds\": NaN}"] {
            assert!(read(output, "").is_err(), "{output}");
        }
    }

    #[test]
    fn what_was_found_instead_of_a_time_is_quoted_in_part() {
        let said = |seconds: &str| read(&format!("{{\"seconds\": {seconds}}}"), "").unwrap_err().to_string();
        assert_eq!(said("[1, 0]"), "p.py: \"seconds\" is [1,0], neither a number of seconds nor a list of such");
        assert!(said(&format!("[{}0]", "1,".repeat(1000))).len() < 120);
        let missing = read("{\"s\": 1}", "").unwrap_err().to_string();
        assert!(missing.starts_with("p.py: \"seconds\" is missing"), "{missing}");
    }

    #[test]
    fn results_to_agree_on_are_read_from_the_same_object() {
        let figures = read("{\"seconds\": 1, \"accuracy\": 0.5, \"loss\": null}", "agree = { accuracy = 0, loss = 0 }");
        assert_eq!(figures.unwrap().results, BTreeMap::from([("accuracy".to_owned(), 0.5)]));
    }
}
