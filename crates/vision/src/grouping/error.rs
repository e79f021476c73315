//! What can go wrong, each variant naming the thing, what was expected and what was found.

use std::path::PathBuf;

/// This module's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in [`grouping`](super).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
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
    /// A tensor of the wrong shape, or counts that disagree.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The tensor.
        what: String,
        /// The shape that was needed.
        expected: String,
        /// The shape that came.
        found: String,
    },
    /// A NaN or an infinity among numbers that must be finite.
    #[error("{what} {position} holds a number that is not finite")]
    NotFinite {
        /// What the rows are, such as `embedding`.
        what: &'static str,
        /// The first such row.
        position: usize,
    },
    /// A vector without a direction, where only its direction counts.
    #[error("embedding {position} has norm zero, so it has no cosine with any other")]
    ZeroNorm {
        /// The first such row.
        position: usize,
    },
    /// A vector that should lie on the unit sphere and does not.
    #[error("{what} {position} has norm {norm}; this miner works on unit vectors, normalise first")]
    NotUnit {
        /// `embedding` or `reference`.
        what: &'static str,
        /// The first such row.
        position: usize,
        /// Its norm.
        norm: f64,
    },
    /// A class number that a table of classes has no row for.
    #[error("label {label} at position {position} is outside the {classes} classes")]
    Label {
        /// The label.
        label: i64,
        /// Where it stands.
        position: usize,
        /// Rows of the table.
        classes: i64,
    },
    /// A batch in which no pair or triplet can be formed.
    #[error("no {kind} in this batch: {reason}")]
    NothingMined {
        /// `triplet`, `positive pair` and the like.
        kind: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A class with fewer samples than each batch takes from it.
    #[error("class {class} has {found} samples, {needed} are needed (or allow replacement)")]
    ClassTooSmall {
        /// The class.
        class: i64,
        /// Samples it has.
        found: usize,
        /// Samples a batch takes.
        needed: usize,
    },
    /// More neighbours asked for than there are candidates.
    #[error("{k} neighbours of a query were asked for, but the gallery offers {gallery}")]
    TooManyNeighbours {
        /// Neighbours asked for.
        k: usize,
        /// Candidates, without the query itself.
        gallery: usize,
    },
    /// Nothing to work on.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// No query has an item of its class to be found, so no ranking metric is defined.
    #[error("none of {queries} queries has another item of its class in the gallery")]
    NothingRelevant {
        /// Queries.
        queries: usize,
    },
    /// A data set's file or folder that is not there.
    #[error("{set}: {path} is missing; expected {expected}")]
    DataMissing {
        /// The data set.
        set: &'static str,
        /// What was looked for.
        path: PathBuf,
        /// The published layout.
        expected: &'static str,
    },
    /// A line of a list that is not what the published format says.
    #[error("{path}, line {line}: {reason}")]
    List {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What was expected and what was found.
        reason: String,
    },
    /// An image that could not be written as a PNG.
    #[error("drawing: {0}")]
    Drawing(#[from] image::ImageError),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// The shared core refused.
    #[error(transparent)]
    Core(#[from] core_tensor::Error),
}

impl Error {
    pub(crate) fn setting(setting: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Setting { setting, expected: expected.into(), found: found.to_string() }
    }

    pub(crate) fn shape(what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Shape { what: what.into(), expected: expected.into(), found: found.into() }
    }

    /// This error as one of the shared core's, for objectives and batch sources.
    pub(crate) fn into_core(self) -> core_tensor::Error {
        match self {
            Self::Core(error) => error,
            other => core_tensor::Error::Observer { observer: "grouping".into(), source: Box::new(other) },
        }
    }
}
