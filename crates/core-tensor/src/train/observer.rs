//! What watches a training and may act between its steps.

use super::Progress;
use crate::Result;
use crate::optim::{NamedTensors, Optimizer};
use indexmap::IndexMap;

/// Whether to go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Control {
    /// Go on.
    #[default]
    Continue,
    /// Finish this epoch's bookkeeping, then stop.
    Stop,
}

/// What an observer sees around a step.
#[derive(Debug)]
pub struct StepContext {
    /// The epoch and step under way, from 0.
    pub progress: Progress,
    /// Steps of an epoch.
    pub steps_per_epoch: u64,
    /// The loss of this step.
    pub loss: f64,
    /// The learning rate of this step; an observer may change it before the optimizer uses it.
    pub learning_rate: f64,
}

/// What an observer sees at the end of an epoch.
#[derive(Debug)]
pub struct EpochReport {
    /// The epoch just finished, from 0.
    pub epoch: u64,
    /// Steps taken so far.
    pub step: u64,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// The epoch's means by name: `loss`, the loss's parts, and what earlier observers added.
    pub metrics: IndexMap<String, f64>,
}

/// Called at fixed points of a training. All methods default to doing nothing.
///
/// Observers run in the order they were added, so that one that evaluates comes before one that logs.
pub trait Observer {
    /// A name, unique among the observers of a training: its state is saved under it.
    fn name(&self) -> &str;

    /// Before the first step of an epoch.
    ///
    /// # Errors
    /// What makes going on pointless.
    fn before_epoch(&mut self, _progress: Progress, _optimizer: &mut dyn Optimizer) -> Result<()> {
        Ok(())
    }

    /// Between the backward pass and the optimizer's step: the place to change gradients.
    ///
    /// # Errors
    /// What makes going on pointless.
    fn after_backward(&mut self, _step: &mut StepContext, _optimizer: &mut dyn Optimizer) -> Result<()> {
        Ok(())
    }

    /// After the optimizer's step: the place to change weights.
    ///
    /// # Errors
    /// What makes going on pointless.
    fn after_step(&mut self, _step: &StepContext, _optimizer: &mut dyn Optimizer) -> Result<Control> {
        Ok(Control::Continue)
    }

    /// After the last step of an epoch: the place to evaluate, add metrics, log.
    ///
    /// # Errors
    /// What makes going on pointless.
    fn after_epoch(&mut self, _report: &mut EpochReport, _optimizer: &mut dyn Optimizer) -> Result<Control> {
        Ok(Control::Continue)
    }

    /// What the observer needs to go on after a resume, copied.
    fn state(&self) -> NamedTensors {
        NamedTensors::new()
    }

    /// Takes back what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// A state that does not fit.
    fn load_state(&mut self, _state: &NamedTensors) -> Result<()> {
        Ok(())
    }
}

/// An observer from a closure over the end of each epoch.
pub struct EachEpoch<F>(pub &'static str, pub F);

impl<F> std::fmt::Debug for EachEpoch<F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_tuple("EachEpoch").field(&self.0).finish()
    }
}

impl<F: FnMut(&mut EpochReport) -> Result<Control>> Observer for EachEpoch<F> {
    fn name(&self) -> &str {
        self.0
    }

    fn after_epoch(&mut self, report: &mut EpochReport, _optimizer: &mut dyn Optimizer) -> Result<Control> {
        (self.1)(report)
    }
}
