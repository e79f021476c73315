//! What criterion measured.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// One of our benches: median seconds of an iteration, with criterion's interval.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Measurement {
    pub(super) id: String,
    pub(super) seconds: f64,
    pub(super) interval: [f64; 2],
    pub(super) confidence: f64,
}

/// What criterion measured since `begun`; older results lie in the same folder and are not this run's.
pub(super) fn measurements(folder: &Path, begun: SystemTime) -> Result<Vec<Measurement>> {
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
    /// Criterion writes nanoseconds.
    const NANO: f64 = 1e-9;

    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        folders.extend(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
        let path = folder.join("estimates.json");
        let fresh = path.metadata().and_then(|metadata| metadata.modified()).is_ok_and(|time| time >= begun);
        if !folder.ends_with("new") || !fresh {
            continue;
        }
        let benchmark: Benchmark = read_json(&folder.join("benchmark.json"))?;
        let Estimates { median } = read_json(&path)?;
        let interval = median.confidence_interval;
        found.push(Measurement {
            id: benchmark.full_id,
            seconds: median.point_estimate * NANO,
            interval: [interval.lower_bound * NANO, interval.upper_bound * NANO],
            confidence: interval.confidence_level,
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
        fs::write(new.join("benchmark.json"), r#"{"full_id": "group/function"}"#).unwrap();
        fs::write(
            new.join("estimates.json"),
            r#"{"median": {"point_estimate": 2e9,
                "confidence_interval": {"confidence_level": 0.95, "lower_bound": 1e9, "upper_bound": 3e9}}}"#,
        )
        .unwrap();
        let found = measurements(folder.path(), SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(found[0].id, "group/function");
        assert!((found[0].seconds - 2.0).abs() < 1e-9 && (found[0].interval[1] - 3.0).abs() < 1e-9);
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        assert!(measurements(folder.path(), later).unwrap().is_empty());
    }
}
