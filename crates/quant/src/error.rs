//! The crate's one error type: every variant names the thing, what was expected, and what was found.

use std::path::PathBuf;

/// What can go wrong in this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting lies outside its range.
    #[error("`{name}`: expected {expected}, found {found}")]
    Config {
        /// The setting.
        name: &'static str,
        /// What would have been accepted.
        expected: &'static str,
        /// The value that was given.
        found: String,
    },
    /// A tensor or matrix has the wrong shape.
    #[error("shape of {what}: expected {expected}, found {found}")]
    Shape {
        /// The tensor.
        what: String,
        /// The shape that was needed.
        expected: String,
        /// The shape that came.
        found: String,
    },
    /// A value that must be a finite number is not.
    #[error("{what} holds {value} at position {position}; every entry must be finite")]
    NotFinite {
        /// The tensor or setting.
        what: String,
        /// Position in row-major order.
        position: usize,
        /// The offending value.
        value: f64,
    },
    /// A layer cannot be cut into blocks under a strict policy.
    #[error("layer `{layer}` cannot be decomposed: {reason}")]
    NotDecomposable {
        /// The layer's name.
        layer: String,
        /// Why.
        reason: String,
    },
    /// A coefficient is no signed power of two within -2^63 … 2^63, or lies outside the ladder in use.
    #[error("{value} is not a rung of the ladder 2^{p_min} … 2^{p_max}")]
    OffLadder {
        /// The offending value.
        value: f64,
        /// Lowest exponent allowed.
        p_min: i32,
        /// Highest exponent allowed.
        p_max: i32,
    },
    /// A code width is too small for the magnitudes in use.
    #[error("{magnitudes} magnitudes need {needed} bits a code, only {bits} were allowed")]
    CodeTooWide {
        /// Distinct non-zero magnitudes.
        magnitudes: usize,
        /// Bits they need.
        needed: u32,
        /// Bits that were allowed.
        bits: u32,
    },
    /// A compressed file ended too early.
    #[error("file truncated at byte {offset} while reading {what}")]
    Truncated {
        /// Bytes read before the end came.
        offset: u64,
        /// What was being read.
        what: &'static str,
    },
    /// A compressed file's checksum does not fit its content.
    #[error("checksum of {what} at byte {offset}: expected {expected:#010x}, found {found:#010x}")]
    Checksum {
        /// What the checksum covers.
        what: &'static str,
        /// Where the covered bytes begin.
        offset: u64,
        /// The checksum in the file.
        expected: u32,
        /// The checksum of the bytes read.
        found: u32,
    },
    /// A compressed file is of a version this reader does not know.
    #[error("file format version {found}; this reader knows versions up to {supported}")]
    Version {
        /// Version in the file.
        found: u16,
        /// Newest version known.
        supported: u16,
    },
    /// A compressed file holds something that no writer writes.
    #[error("malformed file at byte {offset}: {reason}")]
    Malformed {
        /// Where the offending record begins.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that was asked for is not there.
    #[error("no tensor named `{name}` in {place}")]
    Missing {
        /// The tensor's name.
        name: String,
        /// Where it was looked for.
        place: String,
    },
    /// Training went wrong: a value became NaN or infinite.
    #[error("step {step}: {what} is not finite")]
    Diverged {
        /// The step, counted from 0.
        step: u64,
        /// Which quantity broke.
        what: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A stream given by the caller refused.
    #[error("stream: {0}")]
    Stream(#[from] std::io::Error),
    /// Rounding to a few bits was refused.
    #[error(transparent)]
    Rounding(#[from] crate::fractrain::Error),
    /// libtorch refused.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// The shared core refused.
    #[error(transparent)]
    Core(#[from] core_tensor::Error),
}

impl Error {
    /// This error as one of the shared core's, for observers.
    pub(crate) fn into_core(self) -> core_tensor::Error {
        match self {
            Self::Core(error) => error,
            other => core_tensor::Error::Observer { observer: "smartdeal".into(), source: Box::new(other) },
        }
    }
}

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;
