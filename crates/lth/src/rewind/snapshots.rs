//! Weights kept from the way.

use super::copies;
use crate::{Error, Result};
use core_tensor::optim::{NamedTensors, Optimizer};
use core_tensor::train::{Control, Observer, Progress, StepContext};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Tensor, nn};

/// Keeps copies of all variables, running statistics included, as they are after given numbers of optimizer steps: step
/// 0 is the initialisation, step `T` the end of the training.
///
/// Its copies are part of the training's saved state, so that a resumed training still has them.
#[derive(Debug)]
pub struct Snapshots {
    variables: Vec<(String, Tensor)>,
    wanted: BTreeSet<u64>,
    taken: BTreeMap<u64, NamedTensors>,
}

impl Snapshots {
    /// Watches a store; nothing is taken yet.
    pub fn new(store: &nn::VarStore, steps: impl IntoIterator<Item = u64>) -> Self {
        let mut variables: Vec<_> = store.variables().into_iter().collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        Self { variables, wanted: steps.into_iter().collect(), taken: BTreeMap::new() }
    }

    /// The variables after `step` optimizer steps.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`] if that step was not asked for or has not been reached.
    pub fn get(&self, step: u64) -> Result<&NamedTensors> {
        let missing = || Error::NoSnapshot { step, known: self.taken.keys().copied().collect() };
        self.taken.get(&step).ok_or_else(missing)
    }

    /// Takes a snapshot now if this step is wanted: for training loops of one's own.
    pub fn reached(&mut self, step: u64) {
        if self.wanted.contains(&step) {
            let current = self.variables.iter().map(|(name, tensor)| (name, tensor));
            self.taken.entry(step).or_insert_with(|| copies(current));
        }
    }
}

impl Observer for Snapshots {
    fn name(&self) -> &str {
        "snapshots"
    }

    fn before_epoch(&mut self, progress: Progress, _: &mut dyn Optimizer) -> core_tensor::Result<()> {
        if progress.step == 0 {
            self.reached(0);
        }
        Ok(())
    }

    fn after_step(&mut self, step: &StepContext, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        self.reached(step.progress.step + 1);
        Ok(Control::Continue)
    }

    fn state(&self) -> NamedTensors {
        let flat = |(step, tensors): (&u64, &NamedTensors)| {
            let prefix = format!("{step}/");
            let named = tensors.iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor.shallow_clone()));
            named.collect::<Vec<_>>()
        };
        self.taken.iter().flat_map(flat).collect()
    }

    fn load_state(&mut self, state: &NamedTensors) -> core_tensor::Result<()> {
        let mut taken: BTreeMap<u64, NamedTensors> = BTreeMap::new();
        for (key, tensor) in state {
            let parsed = key.split_once('/').and_then(|(step, name)| Some((step.parse::<u64>().ok()?, name)));
            let known = parsed.and_then(|(step, name)| {
                let variable = self.variables.iter().find(|(variable, _)| variable == name)?;
                Some((step, variable))
            });
            let Some((step, (name, variable))) = known else {
                let unexpected = vec![key.clone()];
                return Err(core_tensor::Error::Names { missing: Vec::new(), unexpected });
            };
            if variable.size() != tensor.size() {
                let (expected, found) = (format!("{:?}", variable.size()), format!("{:?}", tensor.size()));
                return Err(core_tensor::Error::tensor(key, expected, found));
            }
            taken.entry(step).or_default().insert(name.clone(), tensor.copy());
        }
        for (step, tensors) in &taken {
            let absent = |(name, _): &&(String, Tensor)| !tensors.contains_key(name);
            let missing: Vec<_> =
                self.variables.iter().filter(absent).map(|(name, _)| format!("{step}/{name}")).collect();
            if !missing.is_empty() {
                return Err(core_tensor::Error::Names { missing, unexpected: Vec::new() });
            }
        }
        self.taken = taken;
        Ok(())
    }
}
