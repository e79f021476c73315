//! What can be wrong with an attack's input, and with the model that it attacks.

/// The attacks' result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in an attack.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Images outside the box of valid pixels.
    #[error(
        "images lie in [{min}, {max}], outside the box [{low}, {high}]; were they normalised? Put the normalisation into the model"
    )]
    InputOutOfBounds {
        /// Lower bound of the box.
        low: f64,
        /// Upper bound of the box.
        high: f64,
        /// Least pixel, NaN if any is.
        min: f64,
        /// Largest pixel, NaN if any is.
        max: f64,
    },
    /// A radius that is negative or not a number.
    #[error("the budget is {found}, expected a finite number of at least 0")]
    InvalidBudget {
        /// The radius.
        found: f64,
    },
    /// A setting outside its range.
    #[error("{setting} is {found}, expected {expected}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// Its range.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// Images of a wrong shape or kind.
    #[error("images: expected {expected}, found {found}")]
    Images {
        /// The expected shape or kind.
        expected: String,
        /// What was found.
        found: String,
    },
    /// Labels or targets of a wrong number, kind or range, or on another device.
    #[error("labels: expected {expected}, found {found}")]
    LabelMismatch {
        /// The expected number, kind, range or device.
        expected: String,
        /// What was found.
        found: String,
    },
    /// An attack's target that is the image's own label.
    #[error("example {example}: the target {target} is its label")]
    BadTarget {
        /// The example's place in the batch.
        example: usize,
        /// The target.
        target: i64,
    },
    /// Logits that are not `[batch, classes]`, or whose number of classes changes.
    #[error("logits: expected {expected}, found {found}")]
    LogitsShape {
        /// The expected shape.
        expected: String,
        /// What the model returned.
        found: String,
    },
    /// A loss closure that returns neither a scalar nor one value an example.
    #[error("loss: expected a scalar or [{examples}], found {found:?}")]
    LossShape {
        /// Examples in the batch.
        examples: i64,
        /// The loss's shape.
        found: Vec<i64>,
    },
    /// Logits, a loss or a gradient that is NaN or infinite.
    #[error("step {step}: the {what} of example {example} is not finite")]
    NonFinite {
        /// `logits`, `loss` or `gradient`.
        what: &'static str,
        /// The attack's step, from 0.
        step: usize,
        /// The example's place in the batch that the model saw.
        example: usize,
    },
    /// A loss that needs more classes.
    #[error("{loss} needs at least {needed} classes, the model has {found}")]
    TooFewClasses {
        /// The loss.
        loss: &'static str,
        /// Classes needed.
        needed: i64,
        /// Classes of the model.
        found: i64,
    },
    /// A model whose answer for an image changes from pass to pass or with the other images of the batch.
    #[error(
        "the model's logits for one image differ by {difference} between two passes or two batches: it is in training mode \
         (put it into evaluation mode) or random (wrap it in `Stochastic`)"
    )]
    TrainingMode {
        /// Largest difference of a logit.
        difference: f64,
    },
    /// A model that gives no gradient to its input.
    #[error(
        "the model gives its input no gradient; attack it with `Square`, which needs none, or through a substitute"
    )]
    NoGradient,
    /// An error of libtorch.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

impl Error {
    /// A setting outside its range.
    pub(crate) fn setting(setting: &'static str, expected: &'static str, found: impl ToString) -> Self {
        Self::Setting { setting, expected, found: found.to_string() }
    }
}
