//! A run's folder (`run.json ff done.json ff metrics.jsonl`), with the rows' fingerprint made right.
#![no_main]

use fuzz::{Folder, parts};
use libfuzzer_sys::fuzz_target;
use repro::{DeviceKind, Run, RunStore};
use sha2::{Digest, Sha256};

fuzz_target!(|bytes: &[u8]| {
    let [description, done, rows] = parts(bytes);
    let run = Run::new("toy", "arm", 0, &serde_json::json!({"width": 3}), DeviceKind::Cpu).expect("a run");
    let folder = Folder::new();
    let put = |name: &str, bytes: &[u8]| folder.put(&format!("{}/{name}", run.id().as_str()), bytes);
    put("run.json", description);
    put("metrics.jsonl", rows);
    if let Ok(mut done) = serde_json::from_slice::<serde_json::Value>(done) {
        if done["rows"].is_null() && done.is_object() {
            let digest: String = Sha256::digest(rows).iter().map(|byte| format!("{byte:02x}")).collect();
            done["rows"] = serde_json::json!({"bytes": rows.len(), "sha256": digest});
        }
        put("done.json", &serde_json::to_vec(&done).expect("JSON"));
    }
    if let Ok(Some(finished)) = RunStore::at(&folder.root()).home(&run.id()).finished(&run) {
        assert_eq!(finished.run, run);
        assert!(finished.rows.is_sorted_by(|a, b| a.epoch < b.epoch));
    }
});
