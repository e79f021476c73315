//! Loop nests: any tiling and loop order of a convolution over any memory levels, and a search over them.
//!
//! [`LoopNest`] counts accesses of a nest that is written out loop by loop: the plain form, for hand-written mappings
//! and for tests. [`mapper`] counts the same for nests whose tiles change at level boundaries, without allocating, and
//! searches them.

pub mod mapper;
mod nest;

pub use mapper::{Factors, LoopNestEngine, Mapping, Objective};
pub use nest::{Access, LoopNest, Step};

use serde::{Deserialize, Serialize};

use crate::task::OperandKind;

/// The seven loops of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dim {
    /// Samples.
    N,
    /// Output channels.
    K,
    /// Input channels.
    C,
    /// Output rows.
    Y,
    /// Output columns.
    X,
    /// Kernel rows.
    R,
    /// Kernel columns.
    S,
}

impl Dim {
    /// All seven; `dim as usize` indexes arrays of seven.
    pub const ALL: [Self; 7] = [Self::N, Self::K, Self::C, Self::Y, Self::X, Self::R, Self::S];

    /// Whether an operand's elements differ along the loop.
    pub fn concerns(self, operand: OperandKind) -> bool {
        match operand {
            OperandKind::Input => self != Self::K,
            OperandKind::Weight => matches!(self, Self::K | Self::C | Self::R | Self::S),
            OperandKind::Output => matches!(self, Self::N | Self::K | Self::Y | Self::X),
        }
    }
}
