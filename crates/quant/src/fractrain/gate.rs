//! Dynamic fractional quantisation (DFQ): small recurrent gates that choose, for every sample and every block, the bits of
//! activations and gradients (FracTrain, arXiv 2012.13113, as its reference code has it).
//!
//! ```text
//! f = average over the block's input map           e = W₂·relu(W₁·f + b₁) + b₂       (a pair of layers a block)
//! (h, c) = LSTM(e, (h, c))                          p = softmax(P·h + b)               (shared by all blocks)
//! mask = onehot(argmax p) + (p − stopgrad p)
//! ```

mod control;
mod network;

pub use control::{CostController, CpTarget, FollowTarget, WithGateCost};

use super::{Bits, Error, Precision, Result, Warning};
use core_tensor::workload::{Layer, Operator, Role};
use network::GateNetwork;
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::nn::Path;
use tch::{Kind, Tensor};

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
    /// [`Error::BitsOutOfRange`].
    pub fn bits(activation: u32, gradient: u32) -> Result<Self> {
        Ok(Self::Bits { activation: Bits::new(activation)?, gradient: Bits::new(gradient)? })
    }

    pub(super) fn activation(self) -> Option<Bits> {
        match self {
            Self::Bits { activation, .. } => Some(activation),
            Self::Skip => None,
        }
    }

    pub(super) fn gradient(self) -> Option<Bits> {
        match self {
            Self::Bits { gradient, .. } => Some(gradient),
            Self::Skip => None,
        }
    }

    /// The precision of a layer that takes this option; none where it is skipped.
    pub fn precision(self, weight: Bits) -> Option<Precision> {
        match self {
            Self::Bits { activation, gradient } => Some(Precision {
                weight: Some(weight),
                activation: Some(activation),
                gradient: Some(gradient),
                weight_gradient: None,
            }),
            Self::Skip => None,
        }
    }
}

/// Settings of the gates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DfqConfig {
    /// What there is to choose from. Published for CIFAR: (3,6), (4,6), (4,8), (6,8), (6,12); for ImageNet (3,6), (4,8),
    /// (6,12), (8,16).
    pub options: Vec<DfqOption>,
    /// Bits of all gated weights. Published: 4 for ResNet-74 on CIFAR-100, 6 for ResNet-18 on ImageNet.
    pub weight: Bits,
    /// Width of a gate's first layer. Published: 32 (CIFAR ResNets), 64 (MobileNetV2).
    pub hidden: i64,
    /// Width of a gate's second layer and of the LSTM. Published: 16 and 32.
    pub embedding: i64,
    /// A block is what shares this many leading components of its name: 2 for ResNets (`layer1.0`) and MobileNetV2
    /// (`features.3`). Layers with shorter names are blocks of their own.
    pub block_depth: usize,
    /// The cost to steer to, in percent of full precision. Published: 3; FracTrain 1.5, 2, 2.5, 3.
    pub target: CpTarget,
    /// Weight of the mean cost of a sample in the loss. Published: 1e-3 for the sum over a batch of 128, that is 0.128.
    pub beta: f64,
    /// How the sign and strength of the cost's weight follow the distance from the target. Published: the sign alone.
    pub controller: CostController,
    /// Keeps the cost term below this share of the loss proper. Published: 0.1 as an option, off by default.
    pub limit: Option<f64>,
}

impl Default for DfqConfig {
    fn default() -> Self {
        let bits = |bits: u32| Bits::new(bits).unwrap_or_else(|_| unreachable!("between 1 and 24"));
        let option = |activation, gradient| DfqOption::Bits { activation: bits(activation), gradient: bits(gradient) };
        Self {
            options: vec![option(3, 6), option(4, 6), option(4, 8), option(6, 8), option(6, 12)],
            weight: bits(4),
            hidden: 32,
            embedding: 16,
            block_depth: 2,
            target: CpTarget::default(),
            beta: 0.128,
            controller: CostController::default(),
            limit: None,
        }
    }
}

impl DfqConfig {
    /// Refuses what cannot run, naming the setting.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn validate(&self) -> Result<()> {
        if self.options.is_empty() {
            return Err(Error::config("options", "at least one", "none"));
        }
        for (name, width) in [("hidden", self.hidden), ("embedding", self.embedding)] {
            if width < 1 {
                return Err(Error::config(name, "at least 1", width));
            }
        }
        if self.block_depth == 0 {
            return Err(Error::config("block_depth", "at least 1", 0));
        }
        if !(self.beta.is_finite() && self.beta >= 0.0) {
            return Err(Error::config("beta", "a finite number, not negative", self.beta));
        }
        if let Some(limit) = self.limit.filter(|limit| !(limit.is_finite() && *limit > 0.0)) {
            return Err(Error::config("limit", "above 0, or none", limit));
        }
        self.controller.validate()
    }

    /// The cost of each option in the three passes together, relative to full precision: `b_w·b_a + b_w·b_g + b_a·b_g`
    /// over 32², 0 for a skip.
    pub fn option_costs(&self) -> Vec<f64> {
        let cost =
            |option: &DfqOption| option.precision(self.weight).map_or(0.0, |precision| precision.cost().iter().sum());
        self.options.iter().map(cost).collect()
    }

    /// A target that no mix of options reaches.
    pub fn warning(&self) -> Option<Warning> {
        let percent = self.option_costs().into_iter().map(|cost| 100.0 * cost / 3.0);
        let (floor, ceiling) =
            percent.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), cost| (low.min(cost), high.max(cost)));
        let target = self.target.percent();
        (!(floor..=ceiling).contains(&target)).then_some(Warning::TargetUnreachable { target, floor, ceiling })
    }
}

/// A handle on the gates of one network, from [`QuantFactory::gates`](super::QuantFactory::gates). Clones are the same.
#[derive(Debug, Clone)]
pub struct Gates(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    config: DfqConfig,
    blocks: Vec<Block>,
    network: GateNetwork,
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

/// One forward pass of the network.
#[derive(Debug, Default)]
struct Pass {
    decisions: Vec<Option<Decision>>,
    macs: Vec<u64>,
}

/// Choices drawn at random instead of learned: the control for whether it matters which sample gets the bits.
#[derive(Debug)]
struct Forced {
    shares: Vec<Vec<f64>>,
    seed: u64,
    draws: u64,
}

/// What a gate decided for a batch.
#[derive(Debug)]
pub(super) struct Decision {
    /// `[batch, options]`: one-hot, with the gradient of the probabilities.
    pub(super) mask: Tensor,
    /// The chosen option of each sample.
    pub(super) choice: Arc<[usize]>,
    pub(super) options: Arc<[DfqOption]>,
}

impl Clone for Decision {
    fn clone(&self) -> Self {
        let mask = self.mask.shallow_clone();
        Self { mask, choice: self.choice.clone(), options: self.options.clone() }
    }
}

impl Decision {
    /// 1 for samples that compute and 0 for those that skip, shaped to multiply `like`; none if nothing can be skipped.
    /// Carries the gates' gradient.
    pub(super) fn keep(&self, like: &Tensor) -> Option<Tensor> {
        let computes: Vec<f32> =
            self.options.iter().map(|option| f32::from(u8::from(*option != DfqOption::Skip))).collect();
        if computes.iter().all(|computes| *computes == 1.0) {
            return None;
        }
        let mut shape = vec![1; like.dim()];
        shape[0] = -1;
        let computes = Tensor::from_slice(&computes).to_device(self.mask.device());
        Some(self.mask.mv(&computes).view(&shape[..]).to_kind(like.kind()))
    }
}

/// What the gates did in a forward pass.
#[derive(Debug)]
pub struct GatePass {
    /// Mean cost of a sample in units of an average block at full precision, with the gates' gradient.
    pub cost: Tensor,
    /// The realised cost in percent of full precision.
    pub cp: f64,
    /// Samples by block and option.
    pub histogram: Vec<Vec<u64>>,
    /// Multiply-accumulates of a sample's forward pass by block.
    pub macs: Vec<u64>,
}

impl Gates {
    pub(super) fn new(path: &Path, config: DfqConfig) -> Self {
        let network = GateNetwork::new(path, config.embedding, config.options.len() as i64);
        let (pass, multiplier) = (Pass::default(), 0.0);
        Self(Arc::new(Mutex::new(State {
            config,
            blocks: Vec::new(),
            network,
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

impl DfqConfig {
    /// The block that a layer of this name belongs to.
    pub(super) fn block_of(&self, name: &str) -> String {
        let components: Vec<&str> = name.split('.').collect();
        let depth = if components.len() > self.block_depth { self.block_depth } else { components.len() };
        components[..depth].join(".")
    }
}

/// A layer's tie to the gate of its block.
#[derive(Debug, Clone)]
pub(super) struct Link {
    gates: Gates,
    block: usize,
    /// Whether the gate looks at this layer's input: the block's first layer.
    leads: bool,
    /// Whether the layer carries the block's shortcut, which a skipped block still needs.
    shortcut: bool,
}

/// Bits of a skipped block's shortcut.
const SHORTCUT_BITS: u32 = 8;

impl Link {
    /// The block's decision for this batch; made now if this layer leads.
    pub(super) fn decide(&self, input: &Tensor) -> Result<Decision> {
        let mut decision = self.gates.lock().decide(self.block, self.leads, input)?;
        if self.shortcut && decision.options.contains(&DfqOption::Skip) {
            let carried = DfqOption::bits(SHORTCUT_BITS, SHORTCUT_BITS)?;
            let options =
                decision.options.iter().map(|option| if *option == DfqOption::Skip { carried } else { *option });
            decision.options = options.collect();
        }
        Ok(decision)
    }

    /// The decision already made in this pass.
    pub(super) fn decided(&self) -> Option<Decision> {
        self.gates.lock().pass.decisions.get(self.block).cloned().flatten()
    }

    /// What the block may choose.
    pub(super) fn options(&self) -> Vec<DfqOption> {
        self.gates.lock().config.options.clone()
    }

    /// Adds a layer's multiply-accumulates to the block's in this pass; comes before [`decide`](Self::decide).
    pub(super) fn count_macs(&self, macs: u64) {
        let mut state = self.gates.lock();
        if self.leads && state.pass.decisions.get(self.block).is_some_and(Option::is_some) {
            state.begin();
        }
        let blocks = state.blocks.len();
        state.pass.macs.resize(blocks, 0);
        state.pass.macs[self.block] += macs;
    }
}

impl State {
    fn begin(&mut self) {
        self.pass = Pass::default();
        self.network.reset();
    }

    fn decide(&mut self, block: usize, leads: bool, input: &Tensor) -> Result<Decision> {
        self.pass.decisions.resize(self.blocks.len(), None);
        if let Some(decision) = self.pass.decisions[block].as_ref().filter(|_| !leads) {
            return Ok(decision.clone());
        }
        let mask = match self.forced.as_mut() {
            Some(forced) => forced.draw(block, input)?,
            None => self.network.decide(block, input)?,
        };
        let choice = Vec::<i64>::try_from(mask.detach().f_argmax(1, false)?)?;
        let choice = choice.into_iter().map(|option| option as usize).collect();
        let decision = Decision { mask, choice, options: self.config.options.clone().into() };
        self.pass.decisions[block] = Some(decision.clone());
        Ok(decision)
    }

    fn finish(&mut self) -> Result<GatePass> {
        let costs = self.config.option_costs();
        let pass = std::mem::take(&mut self.pass);
        self.network.reset();
        let decided = pass.decisions.iter().enumerate().filter_map(|(block, found)| Some((block, found.as_ref()?)));
        let decided: Vec<_> = decided.collect();
        let batch = decided.first().map_or(0, |(_, decision)| decision.choice.len());
        if batch == 0 {
            return Err(Error::shape("samples that gates decided for", "at least 1", 0));
        }
        let macs = |block: usize| pass.macs.get(block).copied().unwrap_or(0);
        let total: f64 = decided.iter().map(|(block, _)| macs(*block) as f64).sum();
        let mean = total / decided.len() as f64;
        let weights: Vec<f32> = costs.iter().map(|cost| *cost as f32).collect();
        let mut histogram = vec![vec![0; costs.len()]; self.blocks.len()];
        let (mut realised, mut terms) = (0.0, Vec::new());
        for (block, decision) in &decided {
            for choice in decision.choice.iter() {
                histogram[*block][*choice] += 1;
                realised += costs[*choice] * macs(*block) as f64;
            }
            let share = decision.mask.f_mean_dim([0_i64].as_slice(), false, Kind::Float)?;
            let weights = Tensor::f_from_slice(&weights)?.f_to_device(share.device())?;
            terms.push(share.f_dot(&weights)?.f_mul_scalar(macs(*block) as f64 / mean)?);
        }
        let cost = Tensor::f_stack(&terms, 0)?.f_sum(Kind::Float)?;
        let cp = 100.0 * realised / (3.0 * batch as f64 * total);
        let all_macs: Vec<u64> = (0..self.blocks.len()).map(macs).collect();
        let kept = GatePass { cost: cost.detach(), cp, histogram: histogram.clone(), macs: all_macs.clone() };
        self.last = Some(kept);
        Ok(GatePass { cost, cp, histogram, macs: all_macs })
    }
}

impl Forced {
    fn draw(&mut self, block: usize, input: &Tensor) -> Result<Tensor> {
        let (samples, options) = (input.size()[0] as usize, self.shares[block].len());
        let stream = super::noise::Stream::new(self.seed, block as u64, self.draws);
        self.draws += 1;
        let mut mask = vec![0.0_f32; samples * options];
        for sample in 0..samples {
            let (at, mut sum, mut chosen) = (f64::from(stream.uniform(sample as u32)), 0.0, options - 1);
            for (option, share) in self.shares[block].iter().enumerate() {
                sum += share;
                if at < sum {
                    chosen = option;
                    break;
                }
            }
            mask[sample * options + chosen] = 1.0;
        }
        Ok(Tensor::f_from_slice(&mask)?.f_view([samples as i64, options as i64])?.f_to_device(input.device())?)
    }
}

#[cfg(test)]
mod tests;
