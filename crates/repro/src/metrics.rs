//! One row of numbers an epoch, on disk before the next epoch starts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::durable::Fingerprint;
use crate::error::{Error, Result};
use crate::tensorboard;

/// Named numbers; names sort, so that equal numbers are equal files.
pub type Metrics = BTreeMap<String, f64>;

/// What an epoch measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The epoch, or whatever unit the experiment counts in.
    pub epoch: u64,
    /// Its numbers.
    #[serde(flatten)]
    pub values: Metrics,
}

/// `metrics.jsonl` and the TensorBoard event file beside it, open for appending.
pub(crate) struct MetricsLog {
    rows: Appended,
    events: Appended,
    last: Option<u64>,
}

/// How far both files reached when a checkpoint was taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogPosition {
    pub(crate) rows: Fingerprint,
    pub(crate) events: Fingerprint,
}

impl MetricsLog {
    /// Empties both files.
    pub(crate) fn create(rows: &Path, events: &Path) -> Result<Self> {
        let mut log = Self { rows: Appended::open(rows, &[])?, events: Appended::open(events, &[])?, last: None };
        log.events.append(&tensorboard::header())?;
        Ok(log)
    }

    /// Cuts both files back to where they were at a checkpoint.
    ///
    /// # Errors
    /// [`Error::Damaged`] when what is left is not what was written.
    pub(crate) fn resume(rows: &Path, events: &Path, position: &LogPosition) -> Result<Self> {
        let kept_rows = prefix(rows, &position.rows)?;
        let kept_events = prefix(events, &position.events)?;
        let last = parse(rows, &kept_rows)?.last().map(|row| row.epoch);
        Ok(Self { rows: Appended::open(rows, &kept_rows)?, events: Appended::open(events, &kept_events)?, last })
    }

    /// Appends a row and syncs.
    pub(crate) fn log(&mut self, epoch: u64, values: &[(&str, f64)]) -> Result<()> {
        if let Some(last) = self.last.filter(|&last| last >= epoch) {
            return Err(Error::EpochOrder { last, found: epoch });
        }
        let values = checked(&format!("epoch {epoch}"), values)?;
        self.events.append(&tensorboard::scalars(epoch, values.iter().map(|(name, &value)| (name.as_str(), value))))?;
        let mut line =
            serde_json::to_vec(&Row { epoch, values }).map_err(|reason| Error::damaged(&self.rows.path, reason))?;
        line.push(b'\n');
        self.rows.append(&line)?;
        self.last = Some(epoch);
        Ok(())
    }

    /// How far both files reach now.
    pub(crate) fn position(&self) -> LogPosition {
        LogPosition {
            rows: Fingerprint::of_bytes(&self.rows.content),
            events: Fingerprint::of_bytes(&self.events.content),
        }
    }
}

/// Finite numbers under usable names.
pub(crate) fn checked(place: &str, values: &[(&str, f64)]) -> Result<Metrics> {
    let mut metrics = Metrics::new();
    for &(name, value) in values {
        let refused = |reason| Error::Name { what: "metric", name: name.into(), reason };
        if name.is_empty() || name == "epoch" {
            return Err(refused("empty, or the name of the row's own column"));
        }
        if !value.is_finite() {
            return Err(Error::NotFinite { place: place.into(), name: name.into(), value });
        }
        if metrics.insert(name.to_string(), value).is_some() {
            return Err(refused("twice in one row"));
        }
    }
    Ok(metrics)
}

/// Reads rows that must be exactly what `fingerprint` says was written.
pub(crate) fn read(path: &Path, fingerprint: &Fingerprint) -> Result<Vec<Row>> {
    parse(path, &prefix(path, fingerprint)?)
}

fn prefix(path: &Path, expected: &Fingerprint) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
    if (bytes.len() as u64) < expected.bytes {
        return Err(Error::damaged(path, format!("{} bytes, of which {} were written", bytes.len(), expected.bytes)));
    }
    bytes.truncate(expected.bytes as usize);
    let found = Fingerprint::of_bytes(&bytes);
    if found != *expected {
        return Err(Error::damaged(path, format!("SHA-256 {}, written was {}", found.sha256, expected.sha256)));
    }
    Ok(bytes)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    for (number, line) in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).enumerate() {
        let row: Row = serde_json::from_slice(line)
            .map_err(|reason| Error::damaged(path, format!("line {}: {reason}", number + 1)))?;
        if let Some(last) = rows.last().filter(|last| last.epoch >= row.epoch) {
            return Err(Error::damaged(path, format!("line {}: epoch {} after {}", number + 1, row.epoch, last.epoch)));
        }
        rows.push(row);
    }
    Ok(rows)
}

/// A file that only grows, with its content at hand: a few kilobytes, a line an epoch.
struct Appended {
    path: PathBuf,
    file: File,
    content: Vec<u8>,
}

impl Appended {
    /// Opens a file whose first bytes are `kept`, and cuts off the rest.
    fn open(path: &Path, kept: &[u8]) -> Result<Self> {
        let mut file =
            File::options().create(true).truncate(false).write(true).open(path).map_err(Error::io(path, "open"))?;
        file.set_len(kept.len() as u64)
            .and_then(|()| file.seek(SeekFrom::End(0)))
            .and_then(|_| file.sync_all())
            .map_err(Error::io(path, "truncate"))?;
        Ok(Self { path: path.into(), file, content: kept.to_vec() })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).and_then(|()| self.file.sync_data()).map_err(Error::io(&self.path, "append"))?;
        self.content.extend(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (rows, events) = (folder.path().join("metrics.jsonl"), folder.path().join("events"));
        (folder, rows, events)
    }

    #[test]
    fn resuming_cuts_back_to_the_checkpoint_and_goes_on_to_the_same_bytes() {
        let (_folder, rows, events) = files();
        let mut log = MetricsLog::create(&rows, &events).unwrap();
        log.log(1, &[("loss", 0.1 + 0.2)]).unwrap();
        let position = log.position();
        log.log(2, &[("loss", 0.25), ("accuracy", 0.5)]).unwrap();
        let undisturbed = std::fs::read(&rows).unwrap();
        drop(log);
        // A torn third row, as a power cut leaves it.
        std::fs::write(&rows, [&undisturbed[..], b"{\"epoch\":3,\"lo"].concat()).unwrap();

        let mut log = MetricsLog::resume(&rows, &events, &position).unwrap();
        log.log(2, &[("accuracy", 0.5), ("loss", 0.25)]).unwrap();
        assert_eq!(std::fs::read(&rows).unwrap(), undisturbed);
        let read = read(&rows, &log.position().rows).unwrap();
        assert_eq!(read[0].values["loss"].to_bits(), (0.1_f64 + 0.2).to_bits());
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn rows_that_changed_on_disk_are_damaged() {
        let (_folder, rows, events) = files();
        let mut log = MetricsLog::create(&rows, &events).unwrap();
        log.log(1, &[("loss", 0.5)]).unwrap();
        let position = log.position();
        drop(log);
        for bad in [&b"{\"epoch\":1,\"loss\":0.6}\n"[..], b"{\"epoch\":1", b""] {
            std::fs::write(&rows, bad).unwrap();
            let error = MetricsLog::resume(&rows, &events, &position).err().unwrap().to_string();
            assert!(error.contains("metrics.jsonl: damaged"), "{error}");
        }
    }

    #[test]
    fn numbers_must_be_finite_in_order_and_named() {
        let (_folder, rows, events) = files();
        let mut log = MetricsLog::create(&rows, &events).unwrap();
        log.log(3, &[]).unwrap();
        let refused =
            |log: &mut MetricsLog, epoch, values: &[(&str, f64)]| log.log(epoch, values).unwrap_err().to_string();
        assert_eq!(refused(&mut log, 3, &[]), "metrics of epoch 3 after those of epoch 3");
        assert_eq!(refused(&mut log, 4, &[("loss", f64::NAN)]), "epoch 4: `loss` is NaN");
        assert!(refused(&mut log, 4, &[("epoch", 1.0)]).contains("metric name \"epoch\""));
        assert!(refused(&mut log, 4, &[("a", 1.0), ("a", 1.0)]).contains("twice"));
        log.log(4, &[("loss", 1.0)]).unwrap();
    }

    proptest! {
        #[test]
        fn any_bytes_are_rows_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(Path::new("metrics.jsonl"), &bytes);
        }

    }

    proptest! {
        // Every row is synced to disk, which takes its time.
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn numbers_read_back_to_the_bit(values in prop::collection::vec(any::<f64>().prop_filter("finite", |x| x.is_finite()), 1..20)) {
            let (_folder, rows, events) = files();
            let mut log = MetricsLog::create(&rows, &events).unwrap();
            for (epoch, &value) in values.iter().enumerate() {
                log.log(epoch as u64, &[("x", value)]).unwrap();
            }
            let read = read(&rows, &log.position().rows).unwrap();
            for (row, value) in read.iter().zip(values) {
                prop_assert_eq!(row.values["x"].to_bits(), value.to_bits());
            }
        }
    }
}
