//! Criterion benches live in `benches/`; scripts against Python peers in `peers/`.
//!
//! Beside its time, a bench can [`record`] what it computed, and `cargo xtask bench --peers` checks that a peer computed
//! the same.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;

use serde_json::{Value, json};

/// Records the result `name` of the bench with criterion's id `id`, such as its accuracy: what the entry of a peer in
/// `peers/peers.toml` names in `agree`.
///
/// Called once where the benches are set up, outside what is timed. The values of a bench go into one JSON file in the folder
/// that the environment variable `BENCH_RESULTS` names: `{"id": …, "values": {name: value}}`, with `null` for a value that
/// is not finite. A name recorded again has its last value. Without the variable nothing is done.
///
/// # Panics
/// If the file cannot be read or written: a run that is to be checked must not go on unchecked.
pub fn record(id: &str, name: &str, value: f64) {
    let Some(folder) = env::var_os("BENCH_RESULTS").filter(|folder| !folder.is_empty()) else { return };
    let folder = Path::new(&folder);
    if let Err(error) = record_in(folder, id, name, value) {
        panic!("cannot record {name:?} of {id:?} in {}: {error}", folder.display());
    }
}

fn record_in(folder: &Path, id: &str, name: &str, value: f64) -> io::Result<()> {
    let path = folder.join(file_name(id));
    let mut values: BTreeMap<String, Value> = match fs::read(&path) {
        Ok(text) => serde_json::from_value(serde_json::from_slice::<Value>(&text)?["values"].take())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => return Err(error),
    };
    values.insert(name.to_owned(), value.into());
    fs::create_dir_all(folder)?;
    fs::write(&path, json!({ "id": id, "values": values }).to_string())
}

/// Readable, safe on every file system, and another for every id.
fn file_name(id: &str) -> String {
    let readable: String =
        id.chars().take(60).map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    format!("{readable}-{:016x}.json", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_bench_lie_in_one_file_under_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("made");
        let id = "checkpoint of 100 MB/PyTorch zip: read";
        for (name, value) in [("accuracy", 0.1), ("loss", f64::NAN), ("accuracy", 0.2)] {
            record_in(&folder, id, name, value).unwrap();
        }
        record_in(&folder, "another", "accuracy", 0.3).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        let text = fs::read(folder.join(file_name(id))).unwrap();
        let record: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(record, json!({"id": id, "values": {"accuracy": 0.2, "loss": null}}));
    }

    #[test]
    fn file_names_are_safe_and_tell_ids_apart() {
        let names = ["a/b", "a b", "a_b", "../é", &"x".repeat(500)].map(file_name);
        for name in &names {
            assert!(
                name.len() < 100 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
            );
        }
        assert_ne!(names[0], names[1]);
        assert_ne!(names[1], names[2]);
    }

    #[test]
    fn a_broken_file_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(file_name("x")), "{").unwrap();
        assert!(record_in(folder.path(), "x", "accuracy", 0.5).is_err());
    }
}
