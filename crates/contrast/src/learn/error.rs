//! What can go wrong in learning, each variant naming the thing, what was expected and what was found.

/// The module's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in contrastive learning, robust fine-tuning and their evaluation.
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
    /// A temperature that is not a number above 0.
    #[error("temperature is {found}, expected a finite number above 0")]
    InvalidTemperature {
        /// What was given.
        found: f64,
    },
    /// Embeddings that are not two views of at least two images.
    #[error(
        "views are {found:?}, expected [2 · images, features] of at least 2 images, since negatives are other images"
    )]
    ViewsLayout {
        /// The shape found.
        found: Vec<i64>,
    },
    /// A tensor of the wrong shape or kind.
    #[error("`{name}`: expected {expected}, found {found}")]
    Mismatch {
        /// The tensor's name.
        name: String,
        /// The expected shape or kind.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Labels that do not fit the images or the classes.
    #[error("labels: expected {expected}, found {found}")]
    LabelMismatch {
        /// What fits.
        expected: String,
        /// What was given.
        found: String,
    },
    /// A set of batch-norm statistics that a network does not have.
    #[error("no batch-norm branch `{found}`; there are {known:?}")]
    NoSuchBranch {
        /// The branch asked for.
        found: String,
        /// The branches there are.
        known: Vec<String>,
    },
    /// Sets of positions that must be disjoint and are not.
    #[error("image {index} is both labelled and unlabelled")]
    SplitOverlap {
        /// The first position in both.
        index: usize,
    },
    /// A number that is NaN or infinite.
    #[error("`{name}` is not finite at row {row}")]
    NotFinite {
        /// The tensor's name.
        name: String,
        /// The first row with such a number.
        row: i64,
    },
    /// An attack that could not be made.
    #[error(transparent)]
    Attack(#[from] crate::attack::Error),
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

    /// As the error of a training step, which has `core-tensor`'s type.
    pub(crate) fn in_step(self) -> core_tensor::Error {
        match self {
            Self::Core(error) => error,
            Self::Torch(error) => error.into(),
            other => core_tensor::Error::Observer { observer: "contrastive objective".into(), source: Box::new(other) },
        }
    }
}

/// A temperature must be finite and above 0.
pub(crate) fn check_temperature(temperature: f64) -> Result<()> {
    if temperature > 0.0 && temperature.is_finite() {
        return Ok(());
    }
    Err(Error::InvalidTemperature { found: temperature })
}
