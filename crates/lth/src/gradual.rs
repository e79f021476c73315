//! Pruning in the course of one training.

use crate::criterion::Criterion;
use crate::mask::{Mask, MaskSet};
use crate::masked::MaskObserver;
use crate::prunable::{NamedTensor, Prunable};
use crate::schedule::PruningSchedule;
use crate::selector::{Amount, Selector};
use crate::{Error, Result};
use core_tensor::optim::{NamedTensors, Optimizer};
use core_tensor::train::{Control, Observer, Progress, StepContext};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, nn};

/// When a [`GradualPruner`] prunes, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradualConfig {
    /// How much is gone after each pruning. Zhu and Gupta (arXiv 1710.01878): [`PruningSchedule::Cubic`].
    pub schedule: PruningSchedule,
    /// Optimizer steps before the first pruning, `t₀`. 0 prunes before training begins.
    pub first_step: u64,
    /// Steps from one pruning to the next, `Δt`, at least 1; between them what is left is trained.
    pub every: u64,
    /// Which tensors are pruned.
    pub prunable: Prunable,
    /// Within what weights are ranked.
    pub selector: Selector,
}

/// Prunes a network while it is trained, a little at a time (Zhu and Gupta, *To prune, or not to prune*, arXiv 1710.01878), and holds
/// what it pruned as [`MaskObserver`] does. A pruned weight does not come back.
///
/// A resumed training goes on with the masks it had.
///
/// ```
/// # use core_tensor::{networks::Architecture, nn::Standard};
/// # use core_tensor::optim::{Schedule, Sgd, SgdConfig, parameters};
/// # use core_tensor::train::{CrossEntropy, TrainConfig, Trainer};
/// use lth::{GradualConfig, GradualPruner, Prunable, PruningSchedule, Selector, criterion::Magnitude};
/// # let store = tch::nn::VarStore::new(tch::Device::Cpu);
/// # let network = Architecture::LeNet300100 { classes: 10 }.build(&store.root(), &Standard)?;
/// let config = GradualConfig {
///     schedule: PruningSchedule::Cubic { initial_sparsity: 0.0, final_sparsity: 0.9, rounds: 10 },
///     first_step: 100,
///     every: 50,
///     prunable: Prunable::default(),
///     selector: Selector::global(),
/// };
/// let mut gradual = GradualPruner::new(config, &store, &Magnitude)?;
/// # let mut objective = CrossEntropy::new(network.as_ref());
/// # let mut optimizer = Sgd::new(parameters(&store, 5e-4), SgdConfig::default())?;
/// # let config = TrainConfig { epochs: 1, seed: 0, schedule: Schedule::Constant { peak: 0.05 } };
/// let mut trainer = Trainer::<core_tensor::data::Batch>::new(config, &mut objective, &mut optimizer)?;
/// trainer.observe(&mut gradual);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct GradualPruner<'a> {
    config: GradualConfig,
    amounts: Vec<Amount>,
    weights: Vec<NamedTensor>,
    criterion: &'a dyn Criterion,
    /// Prunings done.
    done: usize,
    mask: MaskSet,
    held: MaskObserver,
}

impl std::fmt::Debug for GradualPruner<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let mut fields = formatter.debug_struct("GradualPruner");
        fields.field("config", &self.config).field("done", &self.done).finish_non_exhaustive()
    }
}

impl<'a> GradualPruner<'a> {
    /// A pruner of the store's trainable variables that has pruned nothing.
    ///
    /// # Errors
    /// A setting outside its range, a selector with amounts of its own, nothing to prune.
    pub fn new(config: GradualConfig, store: &nn::VarStore, criterion: &'a dyn Criterion) -> Result<Self> {
        if config.every == 0 {
            return Err(Error::setting("every", "at least 1 step", config.every));
        }
        let amounts = config.schedule.amounts()?;
        amounts.iter().try_for_each(|amount| config.selector.takes(*amount))?;
        let weights = config.prunable.select_from(store)?;
        let mask = MaskSet::ones_like(&weights);
        let held = MaskObserver::on(&mask, &weights)?;
        Ok(Self { config, amounts, weights, criterion, done: 0, mask, held })
    }

    /// What is left by now.
    pub fn mask(&self) -> &MaskSet {
        &self.mask
    }

    /// Whether all of the schedule's prunings are done.
    pub fn is_finished(&self) -> bool {
        self.done == self.amounts.len()
    }

    /// Does what is due after so many optimizer steps, for training loops of one's own; whether anything was. Hold
    /// [`mask`](Self::mask) in between with a [`MaskObserver`].
    ///
    /// # Errors
    /// What the criterion or the selector refuses; nothing has changed then.
    pub fn prune_after(&mut self, steps: u64) -> Result<bool> {
        let (amounts, GradualConfig { first_step, every, selector, .. }) = (&self.amounts, &self.config);
        let due = |done: usize| first_step.saturating_add(every.saturating_mul(done as u64)) <= steps;
        let now: Vec<Amount> =
            (self.done..amounts.len()).take_while(|done| due(*done)).map(|done| amounts[done]).collect();
        if now.is_empty() {
            return Ok(false);
        }
        let (mut mask, done) = (self.mask.clone(), self.done + now.len());
        for amount in now {
            let scores = self.criterion.score(&self.weights, Some(&mask))?;
            mask = selector.prune(&scores, amount, Some(&mask))?;
        }
        self.held = MaskObserver::on(&mask, &self.weights)?;
        (self.done, self.mask) = (done, mask);
        Ok(true)
    }

    fn prune_and_hold(&mut self, steps: u64, optimizer: &mut dyn Optimizer) -> core_tensor::Result<()> {
        if self.prune_after(steps).map_err(refused)? {
            self.held.mask_state(optimizer).map_err(refused)?;
        }
        Ok(())
    }

    fn restored(&self, state: &NamedTensors) -> Result<(usize, MaskSet)> {
        let mismatch = |name: &str, found: &str| Error::mismatch(name, "the state of a gradual pruner", found);
        let done = state.get(DONE).ok_or_else(|| mismatch(DONE, "nothing"))?;
        let done = usize::try_from(done.f_int64_value(&[])?).ok().filter(|done| *done <= self.amounts.len());
        let done = done.ok_or_else(|| mismatch(DONE, "a number of prunings that the schedule does not have"))?;
        let masks = self.weights.iter().map(|(name, _)| {
            let mask = state.get(&format!("{MASK}{name}")).ok_or_else(|| mismatch(name, "no mask"))?;
            Ok((name.clone(), Mask::from_tensor(name, mask)?))
        });
        Ok((done, MaskSet::from_layers(masks.collect::<Result<Vec<_>>>()?)))
    }
}

/// Names in the saved state.
const DONE: &str = "done";
const MASK: &str = "mask.";

impl Observer for GradualPruner<'_> {
    fn name(&self) -> &str {
        "gradual pruning"
    }

    fn before_epoch(&mut self, progress: Progress, optimizer: &mut dyn Optimizer) -> core_tensor::Result<()> {
        self.held.before_epoch(progress, optimizer)?;
        self.prune_and_hold(progress.step, optimizer)
    }

    fn after_backward(&mut self, step: &mut StepContext, optimizer: &mut dyn Optimizer) -> core_tensor::Result<()> {
        self.held.after_backward(step, optimizer)
    }

    fn after_step(&mut self, step: &StepContext, optimizer: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        let control = self.held.after_step(step, optimizer)?;
        self.prune_and_hold(step.progress.step + 1, optimizer)?;
        Ok(control)
    }

    fn state(&self) -> NamedTensors {
        let bits = (Kind::Uint8, Device::Cpu);
        let masks = self.mask.iter().map(|(name, mask)| (format!("{MASK}{name}"), mask.to_tensor(bits)));
        masks.chain([(DONE.to_owned(), Tensor::from(self.done as i64))]).collect()
    }

    fn load_state(&mut self, state: &NamedTensors) -> core_tensor::Result<()> {
        let (done, mask) = self.restored(state).map_err(refused)?;
        self.held = MaskObserver::on(&mask, &self.weights).map_err(refused)?;
        (self.done, self.mask) = (done, mask);
        Ok(())
    }
}

fn refused(error: Error) -> core_tensor::Error {
    core_tensor::Error::Observer { observer: "gradual pruning".into(), source: Box::new(error) }
}

#[cfg(test)]
mod tests;
