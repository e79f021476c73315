//! A run is a description; the hash of the description names its folder.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::device::DeviceKind;
use crate::error::{Error, Result};

/// Everything that decides a run's metrics. Two runs with equal descriptions are one run, whoever asks for it.
///
/// ```
/// # use repro::{DeviceKind, Run};
/// let a = Run::new("kd-ticket", "dense", 0, &serde_json::json!({"epochs": 30, "lr": 0.05}), DeviceKind::Cpu)?;
/// let b = Run::new("kd-ticket", "dense", 0, &serde_json::json!({"lr": 0.05, "epochs": 30}), DeviceKind::Cpu)?;
/// assert_eq!(a.id(), b.id(), "the order of keys is no part of a description");
/// # Ok::<(), repro::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Which experiment computes it.
    pub paper: String,
    /// The arm or method, such as `dense` or `kd`.
    pub kind: String,
    /// Raised by the experiment when its code changes what a run computes, so that old results are not taken for new.
    pub revision: u32,
    /// Fixes everything random.
    pub seed: u64,
    /// CPU and GPU round differently, so they are different runs.
    pub device: DeviceKind,
    /// The experiment's own settings.
    pub params: Value,
    /// Runs whose artifacts this one reads, under the names by which it asks for them.
    pub needs: BTreeMap<String, RunId>,
}

impl Run {
    /// A run of revision 1 that needs no other.
    ///
    /// # Errors
    /// Parameters that JSON cannot hold. NaN and infinities are not among them: they become `null` there, all of one identity,
    /// so let parameters be finite.
    pub fn new(paper: &str, kind: &str, seed: u64, params: &impl Serialize, device: DeviceKind) -> Result<Self> {
        let mut run = Self {
            paper: paper.into(),
            kind: kind.into(),
            revision: 1,
            seed,
            device,
            params: Value::Null,
            needs: BTreeMap::new(),
        };
        run.params = serde_json::to_value(params).map_err(|source| Error::Params { run: run.label(), source })?;
        Ok(run)
    }

    /// Reads the artifacts of `other`, which must be planned too, as `name`.
    #[must_use]
    pub fn needing(mut self, name: &str, other: &Run) -> Self {
        self.needs.insert(name.into(), other.id());
        self
    }

    /// With the experiment's revision.
    #[must_use]
    pub fn at_revision(mut self, revision: u32) -> Self {
        self.revision = revision;
        self
    }

    /// The first 16 hexadecimal digits of the SHA-256 of the canonical JSON.
    pub fn id(&self) -> RunId {
        let mut digits = hex(&Sha256::digest(self.canonical().as_bytes()));
        digits.truncate(RunId::LEN);
        RunId(digits)
    }

    /// The description as JSON with sorted keys and no white space.
    pub fn canonical(&self) -> String {
        // A `Value` always serialises, and so do the strings and integers around it.
        let value = serde_json::to_value(self).unwrap_or(Value::Null);
        let mut text = String::new();
        write_canonical(&value, &mut text);
        text
    }

    /// The parameters as the experiment's type.
    ///
    /// # Errors
    /// Parameters that do not fit the type.
    pub fn params<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.params).map_err(|source| Error::Params { run: self.label(), source })
    }

    /// For people: paper, kind and seed.
    pub fn label(&self) -> String {
        format!("{} {} seed {}", self.paper, self.kind, self.seed)
    }
}

/// A run's name: 16 lower-case hexadecimal digits, and therefore safe as a folder's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

impl RunId {
    const LEN: usize = 16;

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RunId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == Self::LEN && text.bytes().all(digit) {
            Ok(Self(text))
        } else {
            Err(Error::setting("run id", "16 lower-case hexadecimal digits", format!("{text:?}")))
        }
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (position, (key, value)) in entries.into_iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        leaf => out.push_str(&leaf.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn run(params: Value) -> Run {
        Run::new("toy", "arm", 3, &params, DeviceKind::Cpu).unwrap()
    }

    #[test]
    fn canonical_json_is_sorted_at_every_depth_and_the_id_is_its_sha256() {
        let run = run(json!({"b": 1, "a": {"d": [1.5, {"z": null, "y": "ü"}], "c": true}}));
        let expected = r#"{"device":"cpu","kind":"arm","needs":{},"paper":"toy","params":{"a":{"c":true,"d":[1.5,{"y":"ü","z":null}]},"b":1},"revision":1,"seed":3}"#;
        assert_eq!(run.canonical(), expected);
        // printf '%s' "$expected" | sha256sum | cut -c1-16
        assert_eq!(run.id().as_str(), "08c006fecdce3b94");
    }

    #[test]
    fn a_need_is_part_of_the_description() {
        let dense = run(json!({"lr": 0.1}));
        let other = run(json!({"lr": 0.2}));
        let ticket = run(json!({}));
        assert_ne!(ticket.clone().needing("dense", &dense).id(), ticket.clone().needing("dense", &other).id());
        assert_ne!(ticket.clone().at_revision(2).id(), ticket.id());
    }

    #[test]
    fn parameters_of_another_type_name_the_run() {
        let error = run(json!({"lr": "fast"})).params::<BTreeMap<String, f64>>().unwrap_err();
        assert!(error.to_string().contains("toy arm seed 3"), "{error}");
    }

    #[test]
    fn an_id_is_never_a_path() {
        for bad in ["", "../../etc/passwd", "0123456789ABCDEF", "0123456789abcdef0"] {
            assert!(RunId::try_from(bad.to_string()).is_err(), "{bad}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e12_f64..1e12).prop_map(Value::from),
            "[a-zé\"\\\\ ]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn reversed(value: &Value) -> Value {
        match value {
            Value::Object(map) => Value::Object(map.iter().rev().map(|(k, v)| (k.clone(), reversed(v))).collect()),
            Value::Array(items) => Value::Array(items.iter().map(reversed).collect()),
            leaf => leaf.clone(),
        }
    }

    proptest! {
        #[test]
        fn canonical_json_reads_back_and_ignores_key_order(params in any_json()) {
            let run = run(params);
            prop_assert_eq!(&serde_json::from_str::<Run>(&run.canonical()).unwrap(), &run);
            let turned: Run = serde_json::from_value(reversed(&serde_json::to_value(&run).unwrap())).unwrap();
            prop_assert_eq!(turned.id(), run.id());
        }
    }
}
