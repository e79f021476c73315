//! What can go wrong, each variant naming the thing, what was expected and what was found.

use super::Operand;

/// What can go wrong in this module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A bit width outside 1 to 24. Full precision is `None`, never a number.
    #[error("{found} bits, expected 1 to 24; full precision is `None`")]
    BitsOutOfRange {
        /// What was asked for.
        found: u32,
    },
    /// A setting lies outside its range.
    #[error("`{name}`: expected {expected}, found {found}")]
    Config {
        /// The setting.
        name: &'static str,
        /// What would have been accepted.
        expected: String,
        /// The value that was given.
        found: String,
    },
    /// A tensor or list has the wrong shape, length or kind.
    #[error("{what}: expected {expected}, found {found}")]
    Shape {
        /// The tensor or list.
        what: String,
        /// What was needed.
        expected: String,
        /// What came.
        found: String,
    },
    /// A value to be rounded is NaN or infinite, or its range is: finite values may be too far apart.
    #[error("step {step}: the {operand} at `{site}` holds a NaN or an infinity")]
    NotFinite {
        /// The layer, or the name of what was given.
        site: String,
        /// Which operand.
        operand: Operand,
        /// The optimizer step, from 0; 0 outside a training.
        step: u64,
    },
    /// A layer whose input range is asked for before it saw a training step.
    #[error("layer `{layer}` has seen no training step, so the range of its input is unknown")]
    Uncalibrated {
        /// The layer.
        layer: String,
    },
    /// A layer that has no integer form.
    #[error("layer `{layer}` cannot be exported: {reason}")]
    Export {
        /// The layer.
        layer: String,
        /// Why.
        reason: String,
    },
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// The shared core refused.
    #[error(transparent)]
    Core(#[from] core_tensor::Error),
}

/// This module's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A setting outside its range.
    pub(super) fn config(name: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        Self::Config { name, expected: expected.into(), found: found.to_string() }
    }

    /// A tensor or list that does not fit.
    pub(super) fn shape(what: impl Into<String>, expected: impl ToString, found: impl ToString) -> Self {
        Self::Shape { what: what.into(), expected: expected.to_string(), found: found.to_string() }
    }

    /// This error as one of the shared core's, for observers and objectives.
    pub(super) fn into_core(self, observer: &str) -> core_tensor::Error {
        match self {
            Self::Core(error) => error,
            other => core_tensor::Error::Observer { observer: observer.into(), source: Box::new(other) },
        }
    }
}

/// Something that runs and may still not be what was meant.
#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// A stage has fewer bits than the one before.
    NonMonotonic {
        /// The stage, from 0.
        stage: usize,
    },
    /// A target cost that no mix of options reaches: the gates will saturate.
    TargetUnreachable {
        /// The target, in percent of full precision.
        target: f64,
        /// The cheapest option's cost.
        floor: f64,
        /// The dearest option's cost.
        ceiling: f64,
    },
}

impl std::fmt::Display for Warning {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::NonMonotonic { stage } => {
                write!(formatter, "stage {stage} has fewer bits than the stage before it")
            }
            Self::TargetUnreachable { target, floor, ceiling } => write!(
                formatter,
                "a cost of {target} % cannot be reached: the options cost between {floor:.4} % and {ceiling:.4} %"
            ),
        }
    }
}
