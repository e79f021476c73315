//! The training loop.

use super::{Control, EpochReport, Objective, Observer, Progress, StepContext};
use crate::data::BatchSource;
use crate::optim::{NamedTensors, Optimizer, Schedule};
use crate::seed::{Purpose, seed_libtorch};
use crate::{Error, Result};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// How long, how fast, and with which random numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Passes over the data.
    pub epochs: u64,
    /// Fixes what libtorch draws during training; re-applied at each epoch's start, so that a resumed run is the same.
    pub seed: u64,
    /// Learning rate by step.
    pub schedule: Schedule,
}

/// Runs an objective through an optimizer, with observers around.
pub struct Trainer<'a, B> {
    config: TrainConfig,
    objective: &'a mut dyn Objective<B>,
    optimizer: &'a mut dyn Optimizer,
    observers: Vec<&'a mut dyn Observer>,
    progress: Progress,
}

impl<B> std::fmt::Debug for Trainer<'_, B> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("Trainer").field("config", &self.config).field("progress", &self.progress).finish()
    }
}

impl<'a, B> Trainer<'a, B> {
    /// A training that has not begun.
    ///
    /// # Errors
    /// A schedule that makes no sense.
    pub fn new(
        config: TrainConfig,
        objective: &'a mut dyn Objective<B>,
        optimizer: &'a mut dyn Optimizer,
    ) -> Result<Self> {
        config.schedule.validate()?;
        Ok(Self { config, objective, optimizer, observers: Vec::new(), progress: Progress::default() })
    }

    /// Adds an observer; they run in the order added.
    pub fn observe(&mut self, observer: &'a mut dyn Observer) -> &mut Self {
        self.observers.push(observer);
        self
    }

    /// How far the training has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Trains from the current progress to the last epoch, or until an observer says stop.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a NaN or infinite loss, [`Error::Tensor`] for a loss or a part of it that is not one
    /// value, [`Error::Torch`] for a backward pass that fails (a hook that panics, say), and whatever data, objective,
    /// optimizer or observers refuse.
    ///
    /// # Panics
    /// Where the objective panics: a network's [`forward`](crate::nn::Network::forward) does on images of other
    /// channels or on another device.
    pub fn fit(&mut self, source: &dyn BatchSource<Batch = B>) -> Result<Progress> {
        while self.progress.epoch < self.config.epochs {
            if self.fit_epoch(source)?.0 == Control::Stop {
                break;
            }
        }
        Ok(self.progress)
    }

    /// Trains one epoch, so that a caller can keep what it needs between epochs. Says whether to go on, and what the
    /// epoch came to.
    ///
    /// # Errors
    /// As [`fit`](Self::fit).
    ///
    /// # Panics
    /// As [`fit`](Self::fit).
    pub fn fit_epoch(&mut self, source: &dyn BatchSource<Batch = B>) -> Result<(Control, EpochReport)> {
        let epoch = self.progress.epoch;
        let steps_per_epoch = source.batches_per_epoch();
        let mut means = Means::default();
        let mut control = Control::Continue;
        let mut learning_rate = self.config.schedule.learning_rate(self.progress.step);
        seed_libtorch(self.config.seed, Purpose::Noise, epoch);
        for observer in &mut self.observers {
            observer.before_epoch(self.progress, self.optimizer)?;
        }
        for batch in source.epoch(epoch)? {
            let batch = batch?;
            self.optimizer.zero_grad()?;
            let loss = self.objective.loss(&batch, &self.progress)?;
            loss.check()?;
            // Before the values are read: the device works on while it is told the backward pass.
            loss.total.f_backward()?;
            let (total, parts) = loss.values(self.progress.step)?;
            means.add("loss", total);
            loss.parts.iter().zip(parts).for_each(|((name, _), value)| means.add(name, value));

            learning_rate = self.config.schedule.learning_rate(self.progress.step);
            let mut step = StepContext { progress: self.progress, steps_per_epoch, loss: total, learning_rate };
            for observer in &mut self.observers {
                observer.after_backward(&mut step, self.optimizer)?;
            }
            // What the observers left of it.
            learning_rate = step.learning_rate;
            self.optimizer.step(learning_rate)?;
            for observer in &mut self.observers {
                control = control.or(observer.after_step(&step, self.optimizer)?);
            }
            self.progress.step += 1;
            if control == Control::Stop {
                break;
            }
        }
        self.progress.epoch += 1;
        let mut report = EpochReport { epoch, step: self.progress.step, learning_rate, metrics: means.take() };
        for observer in &mut self.observers {
            control = control.or(observer.after_epoch(&mut report, self.optimizer)?);
        }
        Ok((control, report))
    }

    /// Optimizer and observer state, live: with the model's weights and [`progress`](Self::progress), all that a
    /// resumed training needs.
    pub fn state(&self) -> NamedTensors {
        let mut state = NamedTensors::new();
        for (name, tensor) in self.optimizer.state() {
            state.insert(format!("optimizer/{name}"), tensor);
        }
        for observer in &self.observers {
            for (name, tensor) in observer.state() {
                state.insert(format!("observer/{}/{name}", observer.name()), tensor);
            }
        }
        state
    }

    /// Refuses an observer that keeps something under a name that another one has, too: both would be given it.
    pub(super) fn check_observers(&self) -> Result<()> {
        for observer in &self.observers {
            let namesakes = self.observers.iter().filter(|other| other.name() == observer.name()).count();
            if namesakes > 1 && !observer.state().is_empty() {
                return Err(Error::setting(
                    "observers",
                    "a name of its own for each that keeps state",
                    observer.name(),
                ));
            }
        }
        Ok(())
    }

    /// Takes back [`state`](Self::state) and the progress at which it was taken. The same observers must have been
    /// added.
    ///
    /// # Errors
    /// Names or shapes that do not fit.
    pub fn resume(&mut self, progress: Progress, state: &NamedTensors) -> Result<()> {
        let under = |prefix: &str| -> NamedTensors {
            let strip = |(name, tensor): (&String, &tch::Tensor)| {
                name.strip_prefix(prefix).map(|name| (name.to_owned(), tensor.shallow_clone()))
            };
            state.iter().filter_map(strip).collect()
        };
        self.optimizer.load_state(&under("optimizer/"))?;
        let mut known = self.optimizer.state().len();
        for observer in &mut self.observers {
            let own = under(&format!("observer/{}/", observer.name()));
            known += own.len();
            observer.load_state(&own)?;
        }
        if known != state.len() {
            let expected = |name: &&String| {
                let observed =
                    |observer: &&mut dyn Observer| name.starts_with(&format!("observer/{}/", observer.name()));
                name.starts_with("optimizer/") || self.observers.iter().any(observed)
            };
            let unexpected = state.keys().filter(|name| !expected(name)).cloned().collect();
            return Err(Error::Names { missing: Vec::new(), unexpected });
        }
        self.progress = progress;
        Ok(())
    }
}

impl Control {
    /// Stop if either says stop.
    fn or(self, other: Self) -> Self {
        if self == Self::Stop { self } else { other }
    }
}

/// Means by name, in the order first seen.
#[derive(Default)]
struct Means(IndexMap<String, (f64, u64)>);

impl Means {
    fn add(&mut self, name: &str, value: f64) {
        if let Some((sum, count)) = self.0.get_mut(name) {
            (*sum, *count) = (*sum + value, *count + 1);
        } else {
            self.0.insert(name.to_owned(), (value, 1));
        }
    }

    fn take(self) -> IndexMap<String, f64> {
        self.0.into_iter().map(|(name, (sum, count))| (name, sum / count as f64)).collect()
    }
}

#[cfg(test)]
mod tests;
