//! What can go wrong, each variant naming the thing, what was expected and what was found.

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
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
    /// No tensor is left to prune.
    #[error("nothing to prune: none of {tensors} tensors is chosen by {predicate}")]
    NothingToPrune {
        /// How many tensors were looked at.
        tensors: usize,
        /// The predicate, in words.
        predicate: String,
    },
    /// A name or pattern that fits no tensor.
    #[error("`{pattern}` fits no tensor; there are {known:?}")]
    UnknownName {
        /// The name or pattern.
        pattern: String,
        /// The tensors there are.
        known: Vec<String>,
    },
    /// A weight or score that is NaN or infinite, which cannot be ranked.
    #[error("`{tensor}` is {value} at flat index {index}; only finite values can be ranked")]
    NotFinite {
        /// The tensor's name.
        tensor: String,
        /// The flat index of the first such element.
        index: usize,
        /// NaN or an infinity.
        value: f32,
    },
    /// A layer that pruning would leave with too few weights.
    #[error("pruning would leave layer `{layer}` no weight of {weights}; keep a minimum per layer or allow it")]
    EmptiedLayer {
        /// The layer's weight.
        layer: String,
        /// Its number of weights.
        weights: usize,
    },
    /// Two masks, or a mask and a model, that do not fit each other.
    #[error("`{name}`: expected {expected}, found {found}")]
    Mismatch {
        /// The tensor's name.
        name: String,
        /// The expected shape, kind or presence.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A mask entry that is neither 0 nor 1.
    #[error("mask `{name}` holds {value} at flat index {index}, expected 0 or 1")]
    NotBinary {
        /// The mask's name.
        name: String,
        /// The flat index of the first such entry.
        index: usize,
        /// What it holds.
        value: f64,
    },
    /// A rewinding point that was never recorded.
    #[error("no snapshot of step {step}; there are snapshots of {known:?}")]
    NoSnapshot {
        /// The step asked for.
        step: u64,
        /// The steps recorded.
        known: Vec<u64>,
    },
    /// A ticket for a network with other names or shapes.
    #[error("the ticket is of architecture {expected}, the model of {found}: {difference}")]
    OtherArchitecture {
        /// The ticket's architecture digest.
        expected: String,
        /// The model's.
        found: String,
        /// The first difference.
        difference: String,
    },
    /// A file whose content contradicts itself.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What was expected and what was found.
        reason: String,
    },
    /// An error of the user's own training closure.
    #[error("training of round {round}: {source}")]
    Training {
        /// The round of iterative pruning, from 0.
        round: u32,
        /// What the closure said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An error of training, checkpoints or data.
    #[error(transparent)]
    Core(#[from] core_tensor::Error),
    /// An error of libtorch.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl Error {
    pub(crate) fn setting(setting: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Setting { setting, expected: expected.into(), found: found.to_string() }
    }

    pub(crate) fn mismatch(name: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Mismatch { name: name.into(), expected: expected.into(), found: found.into() }
    }

    pub(crate) fn file(path: &std::path::Path, reason: impl Into<String>) -> Self {
        Self::File { path: path.to_path_buf(), reason: reason.into() }
    }
}
