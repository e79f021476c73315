//! What can go wrong, each variant naming the thing, what was expected and what was found.

use std::path::{Path, PathBuf};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("{path}: {action} failed: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted, such as `read` or `rename`.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's bytes are not what its format says.
    #[error("{path}: at byte {offset}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where in the (uncompressed) content.
        offset: u64,
        /// What was expected and what was found.
        reason: String,
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
    /// A tensor of the wrong shape or kind.
    #[error("`{name}`: expected {expected}, found {found}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// The expected shape or kind.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Names that two collections of tensors do not share.
    #[error("state does not fit the model: missing {missing:?}, unexpected {unexpected:?}")]
    Names {
        /// In the model, not in the file.
        missing: Vec<String>,
        /// In the file, not in the model.
        unexpected: Vec<String>,
    },
    /// A loss that is NaN or infinite.
    #[error("step {step}: loss part `{part}` is {value}")]
    NotFinite {
        /// The optimizer step, from 0.
        step: u64,
        /// The part of the loss that broke first.
        part: String,
        /// NaN or an infinity.
        value: f64,
    },
    /// A workload that makes no sense.
    #[error(transparent)]
    Workload(#[from] crate::workload::WorkloadError),
    /// A text, a vocabulary or a score that makes no sense.
    #[error(transparent)]
    Text(#[from] crate::text::TextError),
    /// An error of libtorch.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// An observer refused to go on; the observer's own error is the source.
    #[error("observer `{observer}`: {source}")]
    Observer {
        /// Which observer.
        observer: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// For `map_err` on a file operation: names the path and the action.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    /// A file whose bytes are not what its format says.
    pub fn malformed(path: &Path, offset: u64, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_path_buf(), offset, reason: reason.into() }
    }

    /// A setting outside its range.
    pub fn setting(setting: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Setting { setting, expected: expected.into(), found: found.to_string() }
    }

    /// A tensor of the wrong shape or kind.
    pub fn tensor(name: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Tensor { name: name.into(), expected: expected.into(), found: found.into() }
    }
}
