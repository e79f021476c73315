//! What can go wrong: every variant names the thing, what was expected and what was found.

use core_tensor::workload::WorkloadError;

/// Why a cost could not be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HwError {
    /// The workload itself makes no sense.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A field of an accelerator, a mapping or a layer is outside its range.
    #[error("{thing}: {field} is {found}, expected {expected}")]
    Field {
        /// The accelerator, level or layer.
        thing: String,
        /// The offending field.
        field: String,
        /// What would have been right.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A file that does not parse.
    #[error("{file}:{line}:{column}: {message}")]
    Parse {
        /// The file's name, or what stands for it.
        file: String,
        /// 1-based line.
        line: usize,
        /// 1-based column, in bytes.
        column: usize,
        /// What was expected and found.
        message: String,
    },
    /// A layer that no mapping fits.
    #[error("layer `{layer}`: the smallest tile of {operand} needs {needed} bits, `{level}` offers {available}")]
    NoFit {
        /// The layer.
        layer: String,
        /// `input`, `weight`, `output` or `all operands`.
        operand: &'static str,
        /// The memory level.
        level: String,
        /// Bits of the smallest tile.
        needed: u64,
        /// Bits that a tile may use (half the level when double-buffered).
        available: u64,
    },
    /// A count that does not fit 64 bits, or is past the 2^56 words and MACs of a layer that engines count with.
    #[error("layer `{layer}`: its {quantity} do not fit in 64 bits")]
    Overflow {
        /// The layer.
        layer: String,
        /// What was counted.
        quantity: &'static str,
    },
    /// An exact emulation that would take too much time or memory.
    #[error("layer `{layer}`: {quantity} is {found}, the emulation takes at most {limit}")]
    TooLarge {
        /// The layer.
        layer: String,
        /// Demands, addresses or bytes.
        quantity: &'static str,
        /// How many there would be.
        found: u128,
        /// How many are allowed.
        limit: u64,
    },
    /// Something that the model does not cover.
    #[error("{thing} is not supported: {reason}")]
    Unsupported {
        /// The option or operator.
        thing: String,
        /// Why.
        reason: String,
    },
    /// A name that nothing answers to.
    #[error("no {kind} named `{name}`; known: {known}")]
    Unknown {
        /// `accelerator`, `network`, `layer`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
}

impl HwError {
    pub(crate) fn field(
        thing: impl Into<String>,
        field: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::Field { thing: thing.into(), field: field.into(), expected: expected.into(), found: found.to_string() }
    }
}

/// Narrows an exact count to 64 bits.
pub(crate) fn narrow(value: u128, layer: &str, quantity: &'static str) -> Result<u64, HwError> {
    u64::try_from(value).map_err(|_| HwError::Overflow { layer: layer.to_owned(), quantity })
}
