//! What can go wrong in face anti-spoofing: every variant names the thing, what was expected, and what was found.

use std::path::{Path, PathBuf};

/// What can go wrong in this module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A score set holds no sample of one class.
    #[error("no {class} sample among the scores: both classes are needed")]
    EmptyClass {
        /// `bona fide` or `attack`.
        class: &'static str,
    },
    /// A score is NaN or infinite and failures to acquire were not allowed.
    #[error("the score at index {index} is {value}; allow failures to acquire or give finite scores")]
    NonFiniteScore {
        /// Position in the score set.
        index: usize,
        /// The offending score.
        value: f64,
    },
    /// Two things that belong together differ in length.
    #[error("{what}: {left} against {right}")]
    LengthMismatch {
        /// What was compared.
        what: &'static str,
        /// The first length.
        left: usize,
        /// The second length.
        right: usize,
    },
    /// A label is neither 0 (attack) nor 1 (live).
    #[error("the label at index {index} is {value}, expected 0 (attack) or 1 (live)")]
    BadLabel {
        /// Position in the batch.
        index: usize,
        /// The offending label.
        value: f64,
    },
    /// A tensor or image has the wrong shape, type or range.
    #[error("{what}: expected {expected}, found {found}")]
    BadShape {
        /// The tensor.
        what: &'static str,
        /// What was needed.
        expected: String,
        /// What came.
        found: String,
    },
    /// A target map has another raster than the head that predicts it.
    #[error("{map} map: the head gives {want:?}, the target is {got:?}")]
    MapShape {
        /// Which map.
        map: &'static str,
        /// Shape of the prediction.
        want: Vec<i64>,
        /// Shape of the target.
        got: Vec<i64>,
    },
    /// A material target does not sum to 1 over its classes.
    #[error("material target {index}: the classes of a pixel sum to {sum}, expected 1 within 1e-3")]
    NotADistribution {
        /// Sample in the batch.
        index: usize,
        /// The sum farthest from 1.
        sum: f64,
    },
    /// A protocol, fold or species that does not exist.
    #[error("protocol {found}: expected {expected}")]
    BadProtocol {
        /// What was asked for.
        found: String,
        /// What exists.
        expected: &'static str,
    },
    /// A line of a list file, box file or annotation cannot be read.
    #[error("{}, line {line}: {reason}", file.display())]
    Parse {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Files that the data set should have.
    #[error("{} missing: {}", files.len(), listed(files))]
    MissingFiles {
        /// All of them.
        files: Vec<PathBuf>,
    },
    /// A file is there and is not what its name says.
    #[error("{}: {reason}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A face box that does not lie in its frame.
    #[error("{}: box {found} does not overlap the frame of {frame:?} pixels", file.display())]
    BoxOutside {
        /// The file that gives the box.
        file: PathBuf,
        /// The box.
        found: String,
        /// Width and height.
        frame: (u32, u32),
    },
    /// People who appear both in training and in test.
    #[error("{} identities in more than one split: {ids:?}", ids.len())]
    IdentityLeak {
        /// All of them.
        ids: Vec<String>,
    },
    /// A parameter outside its range.
    #[error("`{name}`: expected {expected}, found {value}")]
    BadParam {
        /// The parameter.
        name: &'static str,
        /// What would have been accepted.
        expected: &'static str,
        /// What was given.
        value: f64,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// libtorch refused.
    #[error(transparent)]
    Tensor(#[from] tch::TchError),
    /// The tensor core refused.
    #[error(transparent)]
    Core(#[from] core_tensor::Error),
}

/// What functions of this module return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err` on operations of the file system.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { path: path.into(), action, source }
    }

    /// A file that is there and cannot be used.
    pub(crate) fn unreadable(file: &Path, reason: impl ToString) -> Self {
        Self::Unreadable { file: file.into(), reason: reason.to_string() }
    }
}

/// The first ten files by name.
fn listed(files: &[PathBuf]) -> String {
    let shown: Vec<String> = files.iter().take(10).map(|file| file.display().to_string()).collect();
    let rest = if files.len() > 10 { ", …" } else { "" };
    format!("{}{rest}", shown.join(", "))
}
