//! How a layer asks its block's gate.

use super::{Decision, DfqOption, Gates};
use crate::fractrain::{Bits, Result};
use tch::Tensor;

/// A layer's tie to the gate of its block.
#[derive(Debug, Clone)]
pub(in crate::fractrain) struct Link {
    pub(super) gates: Gates,
    pub(super) block: usize,
    /// Whether the gate looks at this layer's input: the block's first layer.
    pub(super) leads: bool,
    /// Whether the layer carries the block's shortcut, which a skipped block still needs.
    pub(super) shortcut: bool,
}

/// Bits of a skipped block's shortcut.
const SHORTCUT_BITS: u32 = 8;

impl Link {
    /// The block's decision for this batch; made now if this layer leads. `weight` are the bits that its weight has.
    pub(in crate::fractrain) fn decide(&self, input: &Tensor, weight: Option<Bits>) -> Result<Decision> {
        let mut state = self.gates.lock();
        state.weight = weight;
        let mut decision = state.decide(self.block, self.leads, input)?;
        drop(state);
        if self.shortcut && decision.options.contains(&DfqOption::Skip) {
            let carried = DfqOption::bits(SHORTCUT_BITS, SHORTCUT_BITS)?;
            let options =
                decision.options.iter().map(|option| if *option == DfqOption::Skip { carried } else { *option });
            decision.options = options.collect();
        }
        Ok(decision)
    }

    /// The decision already made in this pass.
    pub(in crate::fractrain) fn decided(&self) -> Option<Decision> {
        self.gates.lock().pass.decisions.get(self.block).cloned().flatten()
    }

    /// What the block may choose.
    pub(in crate::fractrain) fn options(&self) -> Vec<DfqOption> {
        self.gates.lock().config.options.clone()
    }

    /// Adds a layer's multiply-accumulates to the block's in this pass; comes before [`decide`](Self::decide).
    pub(in crate::fractrain) fn count_macs(&self, macs: u64) {
        let mut state = self.gates.lock();
        if self.leads && state.pass.decisions.get(self.block).is_some_and(Option::is_some) {
            state.begin();
        }
        let blocks = state.blocks.len();
        state.pass.macs.resize(blocks, 0);
        state.pass.macs[self.block] += macs;
    }
}
