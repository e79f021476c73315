//! Whether both sides of a comparison computed the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What our benches recorded, by their ids and the results' names: see `record` in benches/src/lib.rs.
pub(super) type Recorded = BTreeMap<String, BTreeMap<String, f64>>;

/// The variable that names the folder in which our benches record their results.
pub(super) const FOLDER_VARIABLE: &str = "BENCH_RESULTS";

/// Reads the folder: a JSON file a bench.
pub(super) fn recorded(folder: &Path) -> Result<Recorded> {
    #[derive(Deserialize)]
    struct Record {
        id: String,
        /// A number that is not finite is `null`.
        values: BTreeMap<String, Option<f64>>,
    }
    let mut found = Recorded::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let record: Record =
            serde_json::from_slice(&text).with_context(|| format!("{} holds no results", path.display()))?;
        found.insert(record.id, record.values.into_iter().filter_map(|(name, value)| Some((name, value?))).collect());
    }
    Ok(found)
}

/// A result of both sides in one round.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Same {
    pub(super) name: String,
    pub(super) ours: Option<f64>,
    pub(super) theirs: Option<f64>,
    /// How far they may lie apart.
    pub(super) tolerance: f64,
}

/// From best to worst.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Agreement {
    Agrees,
    /// A side lacks a result.
    NotChecked,
    Differs,
}

/// Both sides' results, in the order of their names.
pub(super) fn beside(
    tolerances: &BTreeMap<String, f64>,
    ours: Option<&BTreeMap<String, f64>>,
    theirs: &BTreeMap<String, f64>,
) -> Vec<Same> {
    let same = |(name, tolerance): (&String, &f64)| Same {
        name: name.clone(),
        ours: ours.and_then(|ours| ours.get(name)).copied(),
        theirs: theirs.get(name).copied(),
        tolerance: *tolerance,
    };
    tolerances.iter().map(same).collect()
}

impl Same {
    fn agreement(&self) -> Agreement {
        // Two decimals a tolerance apart, such as 0.87 and 0.88, are a little further apart in binary.
        const ROUNDING: f64 = 1e-9;
        match (self.ours, self.theirs) {
            (Some(ours), Some(theirs)) if (ours - theirs).abs() <= self.tolerance * (1.0 + ROUNDING) => {
                Agreement::Agrees
            }
            (Some(_), Some(_)) => Agreement::Differs,
            _ => Agreement::NotChecked,
        }
    }
}

/// The worst of a round's results; nothing to say where none were to be compared.
pub(super) fn worst(results: &[Same]) -> Option<Agreement> {
    results.iter().map(Same::agreement).max()
}

/// For a reader: each result's name, our value, and theirs.
pub(super) fn describe(results: &[Same]) -> String {
    let one = |same: &Same| {
        let value = |value: Option<f64>| value.map_or_else(|| "missing".to_owned(), |value| written(value, same));
        let apart = match same.agreement() {
            Agreement::Differs => format!(" (at most {} apart)", same.tolerance),
            _ => String::new(),
        };
        format!("{} {}, {}{apart}", same.name, value(same.ours), value(same.theirs))
    };
    let text = results.iter().map(one).collect::<Vec<_>>().join("; ");
    match worst(results) {
        Some(Agreement::Differs) => format!("**differs**: {text}"),
        Some(Agreement::NotChecked) => format!("**not checked**: {text}"),
        Some(Agreement::Agrees) => text,
        None => "–".to_owned(),
    }
}

/// The value to one digit more than the tolerance has.
fn written(value: f64, same: &Same) -> String {
    let decimals = (-same.tolerance.log10()).ceil() + 1.0;
    if same.tolerance > 0.0 && decimals <= 12.0 {
        // At least none: a tolerance of 100 makes it negative.
        format!("{value:.*}", decimals.max(0.0) as usize)
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(ours: Option<f64>, theirs: Option<f64>, tolerance: f64) -> Same {
        Same { name: "accuracy".to_owned(), ours, theirs, tolerance }
    }

    #[test]
    fn values_within_the_tolerance_agree() {
        for (ours, theirs, tolerance) in [(0.871, 0.872, 0.01), (0.87, 0.88, 0.01), (7.0, 7.0, 0.0), (-1.0, 1.0, 2.0)] {
            assert_eq!(same(Some(ours), Some(theirs), tolerance).agreement(), Agreement::Agrees);
        }
        for (ours, theirs, tolerance) in [(0.86, 0.872, 0.01), (7.0, 7.000001, 0.0), (0.0, f64::INFINITY, 1.0)] {
            assert_eq!(same(Some(ours), Some(theirs), tolerance).agreement(), Agreement::Differs);
        }
        assert_eq!(same(None, Some(1.0), 9.0).agreement(), Agreement::NotChecked);
        assert_eq!(same(Some(1.0), None, 9.0).agreement(), Agreement::NotChecked);
    }

    #[test]
    fn a_round_is_as_good_as_its_worst_result() {
        let (good, missing, bad) =
            (same(Some(1.0), Some(1.0), 0.1), same(None, Some(1.0), 0.1), same(Some(1.0), Some(2.0), 0.1));
        assert_eq!(worst(&[good.clone(), missing.clone()]), Some(Agreement::NotChecked));
        assert_eq!(worst(&[bad, missing, good]), Some(Agreement::Differs));
        assert_eq!(worst(&[]), None);
    }

    #[test]
    fn a_reader_sees_both_values_and_what_is_wrong() {
        assert_eq!(describe(&[same(Some(0.8712), Some(0.8716), 0.01)]), "accuracy 0.871, 0.872");
        assert_eq!(
            describe(&[same(Some(0.871), Some(0.9), 0.01)]),
            "**differs**: accuracy 0.871, 0.900 (at most 0.01 apart)"
        );
        assert_eq!(describe(&[same(None, Some(0.9), 0.01)]), "**not checked**: accuracy missing, 0.900");
        assert_eq!(describe(&[same(Some(1234.6), Some(1200.0), 100.0)]), "accuracy 1235, 1200");
        // No digit may be hidden of what must be equal.
        assert_eq!(describe(&[same(Some(60000.0), Some(60000.0), 0.0)]), "accuracy 60000, 60000");
        assert_eq!(describe(&[]), "–");
    }

    #[test]
    fn both_sides_are_paired_by_the_results_names() {
        let map = |pairs: &[(&str, f64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let tolerances = map(&[("accuracy", 0.1), ("loss", 0.2)]);
        let ours: BTreeMap<_, _> = map(&[("loss", 3.0), ("unrelated", 1.0)]);
        let found = beside(&tolerances, Some(&ours), &map(&[("accuracy", 2.0), ("loss", 3.1)]));
        assert_eq!((found[0].ours, found[0].theirs), (None, Some(2.0)));
        assert_eq!((found[1].ours, found[1].theirs), (Some(3.0), Some(3.1)));
        // A bench that recorded nothing.
        assert_eq!(beside(&tolerances, None, &BTreeMap::new()).len(), 2);
    }

    #[test]
    fn what_benches_recorded_is_read_by_their_ids() {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"id": "a/b c", "values": {"accuracy": 0.5, "loss": null}}"#;
        fs::write(folder.path().join("a_b_c-1.json"), text).unwrap();
        let found = recorded(folder.path()).unwrap();
        assert_eq!(found["a/b c"], BTreeMap::from([("accuracy".to_owned(), 0.5)]));
        fs::write(folder.path().join("broken.json"), "{").unwrap();
        assert!(recorded(folder.path()).unwrap_err().to_string().contains("broken.json"));
    }
}
