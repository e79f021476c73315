//! Dynamic fractional quantisation (DFQ): small recurrent gates that choose, for every sample and every block, the bits of
//! activations and gradients (FracTrain, arXiv 2012.13113, as its reference code has it).
//!
//! ```text
//! f = average over the block's input map           e = W₂·relu(W₁·f + b₁) + b₂       (a pair of layers a block)
//! (h, c) = LSTM(e, (h, c))                          p = softmax(P·h + b)               (shared by all blocks)
//! mask = onehot(argmax p) + (p − stopgrad p)
//! ```

mod config;
mod control;
mod decision;
mod link;
mod network;
mod option;
mod pass;
mod random;

pub use config::DfqConfig;
pub(super) use control::loss_proper;
pub use control::{CostController, CpTarget, FollowTarget, WithGateCost};
pub(super) use decision::Decision;
pub(super) use link::Link;
pub use option::DfqOption;
pub use pass::GatePass;

use super::{Bits, Error, Result};
use core_tensor::workload::{Layer, Operator, Role};
use network::GateNetwork;
use pass::Pass;
use random::Forced;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::nn::Path;

/// A handle on the gates of one network, from [`QuantFactory::gates`](super::QuantFactory::gates). Clones are the same.
#[derive(Debug, Clone)]
pub struct Gates(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    config: DfqConfig,
    blocks: Vec<Block>,
    network: GateNetwork,
    /// Of the gated layers, as they last ran; none in full precision.
    weight: Option<Bits>,
    pass: Pass,
    last: Option<GatePass>,
    /// The controller's memory.
    multiplier: f64,
    forced: Option<Forced>,
}

#[derive(Debug)]
struct Block {
    name: String,
    layers: Vec<String>,
    channels: i64,
}

impl Gates {
    pub(super) fn new(path: &Path, config: DfqConfig) -> Self {
        let network = GateNetwork::new(path, config.embedding, config.options.len() as i64);
        let (weight, pass, multiplier) = (Some(config.weight), Pass::default(), 0.0);
        Self(Arc::new(Mutex::new(State {
            config,
            blocks: Vec::new(),
            network,
            weight,
            pass,
            last: None,
            multiplier,
            forced: None,
        })))
    }

    /// The settings.
    pub fn config(&self) -> DfqConfig {
        self.lock().config.clone()
    }

    /// The target, to be followed by [`FollowTarget`] or moved by hand.
    pub fn set_target(&self, target: CpTarget) {
        self.lock().config.target = target;
    }

    /// Names of the blocks, in the order of the histogram.
    pub fn blocks(&self) -> Vec<String> {
        self.lock().blocks.iter().map(|block| block.name.clone()).collect()
    }

    /// The layers of each block.
    pub fn block_layers(&self) -> Vec<Vec<String>> {
        self.lock().blocks.iter().map(|block| block.layers.clone()).collect()
    }

    /// The gates' own layers for a sample, full precision, marked as control: for a
    /// [`Workload`](core_tensor::workload::Workload).
    pub fn control_layers(&self) -> Vec<Layer> {
        let state = self.lock();
        let (hidden, embedding) = (state.config.hidden as u64, state.config.embedding as u64);
        let options = state.config.options.len() as u64;
        let control = |name: String, inputs, outputs| {
            let mut layer = Layer::new(name, Operator::linear(inputs, outputs));
            layer.role = Role::Control;
            layer
        };
        let of_block = |block: &Block| {
            let name = |part: &str| format!("gates.{}.{part}", block.name);
            [
                control(name("first"), block.channels as u64, hidden),
                control(name("second"), hidden, embedding),
                control(name("lstm"), 2 * embedding, 4 * embedding),
                control(name("projection"), embedding, options),
            ]
        };
        state.blocks.iter().flat_map(of_block).collect()
    }

    /// From now on every block draws each sample's option at random with these shares, whatever the sample: the control for
    /// whether adapting to inputs matters.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is a row a block and a share an option; [`Error::Config`] for shares that are no
    /// distribution.
    pub fn draw_at_random(&self, shares: Vec<Vec<f64>>, seed: u64) -> Result<()> {
        let mut state = self.lock();
        if shares.len() != state.blocks.len() {
            return Err(Error::shape("shares of blocks", state.blocks.len(), shares.len()));
        }
        for row in &shares {
            if row.len() != state.config.options.len() {
                return Err(Error::shape("shares of options", state.config.options.len(), row.len()));
            }
            if row.iter().any(|share| share.is_nan() || *share < 0.0) || (row.iter().sum::<f64>() - 1.0).abs() > 1e-6 {
                return Err(Error::config("shares", "a distribution", format!("{row:?}")));
            }
        }
        state.forced = Some(Forced { shares, seed, draws: 0 });
        Ok(())
    }

    /// Forgets the decisions of the pass under way. A pass also begins by itself when a block decides for the second time.
    pub fn begin(&self) {
        self.lock().begin();
    }

    /// Sums up the pass since [`begin`](Self::begin).
    ///
    /// # Errors
    /// [`Error::Shape`] if no gate decided anything, or for an empty batch.
    pub fn finish(&self) -> Result<GatePass> {
        self.lock().finish()
    }

    /// Histogram and cost of the last finished pass: `(histogram, macs, cp)`.
    pub fn last_pass(&self) -> Option<(Vec<Vec<u64>>, Vec<u64>, f64)> {
        self.lock().last.as_ref().map(|pass| (pass.histogram.clone(), pass.macs.clone(), pass.cp))
    }

    /// The block of a layer, made with its gate if it is new.
    pub(super) fn join(&self, path: &Path, name: &str, in_channels: i64, shortcut: bool) -> Link {
        let mut state = self.lock();
        let block = state.config.block_of(name);
        let known = state.blocks.iter().position(|found| found.name == block);
        let (index, leads) = match known {
            Some(index) => (index, false),
            None => {
                let (hidden, embedding) = (state.config.hidden, state.config.embedding);
                state.network.add_block(&(path / block.replace('.', "_")), in_channels, hidden, embedding);
                state.blocks.push(Block { name: block, layers: Vec::new(), channels: in_channels });
                (state.blocks.len() - 1, true)
            }
        };
        state.blocks[index].layers.push(name.into());
        drop(state);
        Link { gates: self.clone(), block: index, leads, shortcut }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
