//! Lottery tickets: masks, pruning criteria, rewinding, knowledge-distillation tickets.
//!
//! A *ticket* is a mask over a network's weights and the weights its training starts from. Finding and testing one goes
//!
//! ```text
//! train densely (Snapshots) → rank (criterion) → select (Selector) → MaskSet
//!   → Ticket with rewound weights (Rewind) → re-train (MaskObserver; Distillation for a KD ticket)
//! ```
//!
//! Everything works on the caller's own model: a `VarStore`, or a slice of named tensors. Masks are one bit a weight, in
//! memory and on disk, and never derived from which weights happen to be zero.
//!
//! What must stay true: a mask is a function of its scores (exact counts, ties by tensor and index); a sparsity never
//! travels without the predicate that chose its denominator; a dropped weight is +0 to the bit at every forward pass.

mod bits;
pub mod criterion;
mod distill;
mod early_bird;
mod error;
mod gradual;
mod imp;
mod mask;
mod masked;
mod memory;
mod prunable;
mod rewind;
mod schedule;
mod select;
mod selector;
pub mod structured;
mod ticket;
pub mod transfer;

pub use core_tensor::optim::NamedTensors;
pub use distill::{DistillConfig, Distillation, Reduction};
pub use early_bird::{EarlyBird, EarlyBirdConfig, Sighting};
pub use error::{Error, Result};
pub use gradual::{GradualConfig, GradualPruner};
pub use imp::{FirstRound, Imp, ImpConfig};
pub use mask::{Mask, MaskRecord, MaskSet};
pub use masked::MaskObserver;
pub use prunable::{Choice, NamedTensor, Prunable, trainable_variables};
pub use rewind::{Retraining, Rewind, Snapshots, copies, reinitialise};
pub use schedule::{PruningSchedule, ladder_density};
pub use selector::{Amount, EmptyLayer, Indivisible, NOfM, Scope, Selector};
pub use ticket::{Ticket, TicketRecord, architecture_digest, restore};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
