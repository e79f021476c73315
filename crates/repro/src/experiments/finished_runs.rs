//! Finished runs for tests, read from folders as a worker would have left them.

use crate::{Metrics, Outcome, Run, RunStore, SCHEMA, Timing};
use serde_json::json;
use std::fs;

/// SHA-256 of no bytes.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The outcome of a run that reported these metrics, and neither rows nor artifacts.
pub(super) fn finished(run: &Run, metrics: &Metrics) -> Outcome {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(run.id().as_str());
    fs::create_dir(&folder).unwrap();
    let description = json!({ "schema": SCHEMA, "id": run.id(), "run": run });
    let rows = json!({ "bytes": 0, "sha256": EMPTY });
    let done = json!({ "metrics": metrics, "rows": rows, "artifacts": {}, "timing": Timing::default() });
    fs::write(folder.join("run.json"), description.to_string()).unwrap();
    fs::write(folder.join("metrics.jsonl"), "").unwrap();
    fs::write(folder.join("done.json"), done.to_string()).unwrap();
    Outcome::Finished(Box::new(RunStore::at(root.path()).home(&run.id()).finished(run).unwrap().unwrap()))
}
