//! What a gate chooses from.

use crate::fractrain::{Bits, Precision, Result};
use serde::{Deserialize, Serialize};

/// What a gate may choose for a sample in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DfqOption {
    /// These bits.
    Bits {
        /// Of the inputs of the block's convolutions.
        activation: Bits,
        /// Of the gradients of their outputs.
        gradient: Bits,
    },
    /// Nothing is computed: the block's branch is zero, so that only its shortcut is left (a convolution there runs with 8
    /// bits). For residual blocks. Counted as free, as the paper does.
    Skip,
}

impl DfqOption {
    /// `activation` and `gradient` bits.
    ///
    /// # Errors
    /// [`Error::BitsOutOfRange`](crate::fractrain::Error::BitsOutOfRange).
    pub fn bits(activation: u32, gradient: u32) -> Result<Self> {
        Ok(Self::Bits { activation: Bits::new(activation)?, gradient: Bits::new(gradient)? })
    }

    pub(in crate::fractrain) fn activation(self) -> Option<Bits> {
        match self {
            Self::Bits { activation, .. } => Some(activation),
            Self::Skip => None,
        }
    }

    pub(in crate::fractrain) fn gradient(self) -> Option<Bits> {
        match self {
            Self::Bits { gradient, .. } => Some(gradient),
            Self::Skip => None,
        }
    }

    /// The precision of a layer that takes this option; none where it is skipped.
    pub fn precision(self, weight: Bits) -> Option<Precision> {
        self.precision_at(Some(weight))
    }

    /// The same with a weight that may be in full precision.
    pub(super) fn precision_at(self, weight: Option<Bits>) -> Option<Precision> {
        match self {
            Self::Bits { activation, gradient } => Some(Precision {
                weight,
                activation: Some(activation),
                gradient: Some(gradient),
                weight_gradient: None,
            }),
            Self::Skip => None,
        }
    }
}
