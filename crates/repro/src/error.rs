//! What can go wrong, each variant naming the thing, what was expected and what was found.

use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong around experiments. What goes wrong inside one is an [`anyhow::Error`] in its log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be opened, read or written.
    #[error("{path}: {action} failed: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted, such as `read` or `create`.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A paper that no experiment is registered for.
    #[error("unknown paper `{found}`; the papers are: {}", choices.join(", "))]
    UnknownPaper {
        /// What was asked for.
        found: String,
        /// What could be asked for.
        choices: Vec<String>,
    },
    /// A setting outside its range.
    #[error("{setting} is {found}, expected {expected}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Its range.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A run directory laid out by another version of this program. Nothing in it is touched.
    #[error(
        "{path}: written with run-directory schema {found}, this program reads schema {expected}; \
         use another folder for --runs, or the version that wrote it"
    )]
    OtherSchema {
        /// The file that says so.
        path: PathBuf,
        /// The version in the file.
        found: u64,
        /// This program's version.
        expected: u64,
    },
    /// A file whose content is not what was written into it.
    #[error("{path}: damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// A value that cannot be written as JSON, or parameters that do not fit the experiment's type.
    #[error("parameters of `{run}`: {source}")]
    Params {
        /// The run's label.
        run: String,
        /// What serde said.
        source: serde_json::Error,
    },
    /// A number that is NaN or infinite.
    #[error("{place}: `{name}` is {value}")]
    NotFinite {
        /// A run's epoch, or a claim.
        place: String,
        /// The metric or sample.
        name: String,
        /// NaN or an infinity.
        value: f64,
    },
    /// Rows of metrics must come in order.
    #[error("metrics of epoch {found} after those of epoch {last}")]
    EpochOrder {
        /// The last epoch logged.
        last: u64,
        /// The epoch that came after it.
        found: u64,
    },
    /// A name that cannot be used as a metric or a file.
    #[error("{what} name {name:?}: {reason}")]
    Name {
        /// `metric`, `artifact` or `attachment`.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A run needs another that is not planned, not finished, or not named.
    #[error("{run} needs {need}: {reason}")]
    Need {
        /// The run's label.
        run: String,
        /// The need's name or id.
        need: String,
        /// Why it cannot be met.
        reason: String,
    },
    /// Two runs that a claim cannot tell apart.
    #[error("seed {seed}: both {first} and {second} answer for `{metric}`")]
    Ambiguous {
        /// The seed they share.
        seed: u64,
        /// One run.
        first: String,
        /// The other.
        second: String,
        /// The metric asked for.
        metric: String,
    },
    /// An experiment failed outside a worker, while planning or judging.
    #[error("{paper}: {source}")]
    Experiment {
        /// The paper.
        paper: String,
        /// Why.
        source: anyhow::Error,
    },
}

impl Error {
    /// For `map_err` on a file operation: names the path and the action.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    /// A file whose content is not what was written into it.
    pub fn damaged(path: &Path, reason: impl ToString) -> Self {
        Self::Damaged { path: path.to_path_buf(), reason: reason.to_string() }
    }

    /// A setting outside its range.
    pub fn setting(setting: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Setting { setting, expected: expected.into(), found: found.to_string() }
    }
}
