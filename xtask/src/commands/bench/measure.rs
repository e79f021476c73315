//! What criterion measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One of our benches in one round: median seconds of an iteration, with criterion's interval.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measurement {
    #[serde(skip)]
    pub(super) id: String,
    pub(super) seconds: f64,
    pub(super) interval: [f64; 2],
    pub(super) confidence: f64,
    pub(super) samples: usize,
}

/// The benches that lie in criterion's folder, by the last file that it writes of each, and when that was.
#[derive(Default)]
pub(super) struct Written(BTreeMap<PathBuf, SystemTime>);

impl Written {
    pub(super) fn now(folder: &Path) -> Self {
        let mut written = BTreeMap::new();
        let mut folders = vec![folder.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            folders.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
            let path = folder.join("benchmark.json");
            if let (true, Ok(time)) = (folder.ends_with("new"), path.metadata().and_then(|about| about.modified())) {
                written.insert(path, time);
            }
        }
        Self(written)
    }
}

/// What criterion measured since what was there `before`; a bench that was broken off is not there yet, or as it was.
pub(super) fn measurements(folder: &Path, before: &Written) -> Result<Vec<Measurement>> {
    #[derive(Deserialize)]
    struct Benchmark {
        full_id: String,
    }
    #[derive(Deserialize)]
    struct Estimates {
        median: Estimate,
    }
    #[derive(Deserialize)]
    struct Estimate {
        point_estimate: f64,
        confidence_interval: Interval,
    }
    #[derive(Deserialize)]
    struct Interval {
        confidence_level: f64,
        lower_bound: f64,
        upper_bound: f64,
    }
    #[derive(Deserialize)]
    struct Sample {
        times: Vec<f64>,
    }
    /// Criterion writes nanoseconds.
    const NANO: f64 = 1e-9;

    let mut found = Vec::new();
    for (path, time) in Written::now(folder).0 {
        if before.0.get(&path) == Some(&time) {
            continue;
        }
        let folder = path.parent().unwrap_or(folder);
        let benchmark: Benchmark = read_json(&path)?;
        let Estimates { median } = read_json(&folder.join("estimates.json"))?;
        let Sample { times } = read_json(&folder.join("sample.json"))?;
        let interval = median.confidence_interval;
        found.push(Measurement {
            id: benchmark.full_id,
            seconds: median.point_estimate * NANO,
            interval: [interval.lower_bound * NANO, interval.upper_bound * NANO],
            confidence: interval.confidence_level,
            samples: times.len(),
        });
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not criterion's", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_runs_measurements_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let new = folder.path().join("group/function/new");
        fs::create_dir_all(&new).unwrap();
        fs::write(
            new.join("sample.json"),
            r#"{"sampling_mode": "Flat", "iters": [1, 2, 3], "times": [2e9, 4e9, 6e9]}"#,
        )
        .unwrap();
        fs::write(
            new.join("estimates.json"),
            r#"{"median": {"point_estimate": 2e9,
                "confidence_interval": {"confidence_level": 0.95, "lower_bound": 1e9, "upper_bound": 3e9}}}"#,
        )
        .unwrap();
        let all = || measurements(folder.path(), &Written::default()).unwrap();
        // Broken off before the last file was written.
        assert!(all().is_empty());
        fs::write(new.join("benchmark.json"), r#"{"full_id": "group/function"}"#).unwrap();
        let found = all();
        assert_eq!((found[0].id.as_str(), found[0].samples), ("group/function", 3));
        assert!((found[0].seconds - 2.0).abs() < 1e-9 && (found[0].interval[1] - 3.0).abs() < 1e-9);

        let before = Written::now(folder.path());
        assert!(measurements(folder.path(), &before).unwrap().is_empty());
        let later = SystemTime::now() + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(new.join("benchmark.json")).unwrap().set_modified(later).unwrap();
        assert_eq!(measurements(folder.path(), &before).unwrap().len(), 1);
    }
}
