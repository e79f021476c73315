//! Why a workload is refused: the layer, the field, what was expected and what was found.

/// Why a workload makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WorkloadError {
    /// A size is zero, or does not fit the others.
    #[error("layer `{layer}`: {field} is {found}, expected {expected}")]
    Shape {
        /// The offending layer.
        layer: String,
        /// The offending field.
        field: &'static str,
        /// What would have been right.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A bit width outside 1 to 32.
    #[error("layer `{layer}`: {operand} has {found} bits, expected 1 to 32")]
    Bits {
        /// The offending layer.
        layer: String,
        /// `weight`, `activation` or `gradient`.
        operand: &'static str,
        /// What was there.
        found: u8,
    },
    /// A density outside `[0, 1]`, or not a number.
    #[error("layer `{layer}`: {operand} density is {found}, expected a number in [0, 1]")]
    Density {
        /// The offending layer.
        layer: String,
        /// `weight`, `activation` or `gradient`.
        operand: &'static str,
        /// What was there.
        found: f64,
    },
    /// A count that does not fit 64 bits.
    #[error("layer `{layer}`: its {quantity} do not fit in 64 bits")]
    Overflow {
        /// The offending layer, or the workload's name for a sum over layers.
        layer: String,
        /// What was counted.
        quantity: &'static str,
    },
    /// The batch is zero.
    #[error("workload `{workload}`: batch is 0, expected at least 1")]
    EmptyBatch {
        /// The workload's name.
        workload: String,
    },
}
