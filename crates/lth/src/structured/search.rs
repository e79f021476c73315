//! The search: recording coefficients, noticing that the ticket has settled, stopping.

use super::{DrawConfig, Drawn, Scores, SlimGroup};
use crate::early_bird::{EarlyBird, EarlyBirdConfig};
use crate::prunable::NamedTensor;
use crate::{Error, Result};
use core_tensor::checkpoint::{Header, SafetensorsFile, write_safetensors};
use core_tensor::optim::{NamedTensors, Optimizer};
use core_tensor::train::{Control, Observer, StepContext};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Tensor};

/// When the ticket is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrawRule {
    /// After so many steps, or the first that is looked at from then on.
    AtStep(u64),
    /// After this share of the first epoch, in `(0, 1]`, rounded, at least one step; or the first that is looked at
    /// from then on. Reference scripts: 0.2.
    AtFraction(f64),
    /// When the last masks agree (You et al., arXiv 1909.11957): heads and neurons each within the threshold of every
    /// other mask of the window.
    Stable(EarlyBirdConfig),
}

/// What a [`Search`] records and when it stops.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchConfig {
    /// How tickets are drawn.
    pub draw: DrawConfig,
    /// When the ticket is drawn. Default: after 0.2 of the first epoch.
    pub rule: DrawRule,
    /// Coefficients are recorded, and a mask drawn, every so many steps. Default 10; a window of masks spans `window`
    /// times this.
    pub every: u64,
    /// Masks do not count for [`DrawRule::Stable`] while more than this share of heads or of neurons is
    /// [tied](Drawn::tied), in `[0, 1]`: ties draw them then. Default 0.1.
    pub ignore_while_tied: f64,
    /// Whether the training goes on after the draw, to watch what becomes of the mask. Default false.
    pub keep_going: bool,
}

impl Default for SearchConfig {
    fn default() -> Self {
        Self {
            draw: DrawConfig::default(),
            rule: DrawRule::AtFraction(0.2),
            every: 10,
            ignore_while_tied: 0.1,
            keep_going: false,
        }
    }
}

impl SearchConfig {
    /// # Errors
    /// A setting outside its range.
    pub fn validate(&self) -> Result<()> {
        self.draw.validate()?;
        match self.rule {
            DrawRule::AtStep(0) => return Err(Error::setting("draw step", "at least 1", 0)),
            DrawRule::AtFraction(share) if !(share > 0.0 && share <= 1.0) => {
                return Err(Error::setting("draw fraction", "in (0, 1]", share));
            }
            _ => {}
        }
        if self.every == 0 {
            return Err(Error::setting("every", "at least 1", 0));
        }
        if !(0.0..=1.0).contains(&self.ignore_while_tied) {
            return Err(Error::setting("ignore_while_tied", "in [0, 1]", self.ignore_while_tied));
        }
        Ok(())
    }
}

/// The ticket that a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Optimizer steps taken when it was drawn.
    pub step: u64,
    /// The ticket.
    pub drawn: Drawn,
}

/// Watches the coefficients of a slimmed network, draws a ticket by its rule, and stops the training then.
///
/// Its record is part of the training's saved state.
#[derive(Debug)]
pub struct Search {
    config: SearchConfig,
    groups: Vec<SlimGroup>,
    live: Vec<NamedTensor>,
    trace: CoefficientTrace,
    detectors: Option<[EarlyBird; 2]>,
    found: Option<Found>,
    looked_at: Option<u64>,
}

impl Search {
    /// Watches these [coefficients](super::coefficients) of these groups.
    ///
    /// # Errors
    /// A config outside its range, or coefficients of other groups.
    pub fn new(groups: &[SlimGroup], coefficients: &[NamedTensor], config: SearchConfig) -> Result<Self> {
        config.validate()?;
        Scores::of(groups, coefficients)?;
        let detectors = match config.rule {
            DrawRule::Stable(rule) => Some([EarlyBird::new(rule)?, EarlyBird::new(rule)?]),
            _ => None,
        };
        let live = coefficients.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let (groups, trace) = (groups.to_vec(), CoefficientTrace::default());
        Ok(Self { config, groups, live, trace, detectors, found: None, looked_at: None })
    }

    /// The ticket, once it was drawn.
    pub fn found(&self) -> Option<&Found> {
        self.found.as_ref()
    }

    /// The ticket of a search that is over.
    ///
    /// # Errors
    /// [`Error::Setting`] where none was drawn, with the rule and the last step looked at.
    pub fn ticket(&self) -> Result<&Found> {
        let none = || {
            let looked_at =
                self.looked_at.map_or("any step".to_owned(), |step| format!("step {step}, the last looked at"));
            Error::setting("ticket", format!("one drawn by {:?}", self.config.rule), format!("none after {looked_at}"))
        };
        self.found.as_ref().ok_or_else(none)
    }

    /// What was recorded.
    pub fn trace(&self) -> &CoefficientTrace {
        &self.trace
    }

    /// Takes coefficients as they are after `step` steps: for training loops of one's own, which may look at some steps
    /// only. True once the ticket is there.
    ///
    /// # Errors
    /// Coefficients that cannot be ranked.
    pub fn see(&mut self, step: u64, steps_per_epoch: u64) -> Result<bool> {
        self.looked_at = Some(step);
        let at = match self.config.rule {
            DrawRule::AtStep(at) => Some(at),
            DrawRule::AtFraction(share) => Some(((share * steps_per_epoch as f64).round() as u64).max(1)),
            DrawRule::Stable(_) => None,
        };
        // Not the very step: a loop that looks at every tenth would pass it by.
        let due = self.found.is_none() && at.is_some_and(|at| step >= at);
        if due || step.is_multiple_of(self.config.every) {
            // On the host, where they are ranked: a record on the device would be read back at every draw.
            let host = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).copy();
            let values: NamedTensors = self.live.iter().map(|(name, tensor)| (name.clone(), host(tensor))).collect();
            self.take(step, values, due)?;
        }
        Ok(self.found.is_some())
    }

    fn take(&mut self, step: u64, values: NamedTensors, due: bool) -> Result<()> {
        let named: Vec<NamedTensor> =
            values.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let scores = Scores::of(&self.groups, &named)?;
        self.trace.steps.insert(step, values);
        if self.found.is_some() {
            return Ok(());
        }
        let mut settled = due;
        if let Some([heads, neurons]) = &mut self.detectors {
            let Drawn { mask, tied, .. } = self.config.draw.draw(&scores)?;
            if tied.iter().all(|share| *share <= self.config.ignore_while_tied) {
                // Both see every mask; neither may be skipped when the other has not settled.
                settled = heads.see(mask.heads)?.found & neurons.see(mask.neurons)?.found;
            }
        }
        if settled {
            self.found = Some(Found { step, drawn: self.config.draw.draw(&scores)? });
        }
        Ok(())
    }
}

impl Observer for Search {
    fn name(&self) -> &str {
        "early-bird-search"
    }

    fn after_step(&mut self, step: &StepContext, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        let found =
            self.see(step.progress.step + 1, step.steps_per_epoch).map_err(|error| refused(self.name(), error))?;
        Ok(if found && !self.config.keep_going { Control::Stop } else { Control::Continue })
    }

    fn state(&self) -> NamedTensors {
        self.trace.flat(self.found.as_ref().map(|found| found.step))
    }

    fn load_state(&mut self, state: &NamedTensors) -> core_tensor::Result<()> {
        let (trace, drawn_at) = CoefficientTrace::from_flat(state)?;
        (self.trace, self.found) = (CoefficientTrace::default(), None);
        self.looked_at = trace.steps.keys().next_back().copied();
        if let DrawRule::Stable(rule) = self.config.rule {
            let detector = || EarlyBird::new(rule).map_err(|error| refused("early-bird-search", error));
            self.detectors = Some([detector()?, detector()?]);
        }
        for (step, values) in trace.steps {
            let due = drawn_at == Some(step) && self.detectors.is_none();
            self.take(step, values, due).map_err(|error| refused("early-bird-search", error))?;
        }
        Ok(())
    }
}

fn refused(observer: &str, error: Error) -> core_tensor::Error {
    core_tensor::Error::Observer { observer: observer.to_owned(), source: Box::new(error) }
}

/// Coefficients along a search, every digit kept.
#[derive(Debug, Default)]
pub struct CoefficientTrace {
    /// By optimizer steps taken.
    pub steps: BTreeMap<u64, NamedTensors>,
}

const SCHEMA: &str = "lth.coefficient-trace";

impl CoefficientTrace {
    /// The scores recorded after `step` steps.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`] for a step that was not recorded, or coefficients of other groups.
    pub fn scores(&self, step: u64, groups: &[SlimGroup]) -> Result<Scores> {
        let known = || self.steps.keys().copied().collect();
        let values = self.steps.get(&step).ok_or_else(|| Error::NoSnapshot { step, known: known() })?;
        let named: Vec<NamedTensor> =
            values.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        Scores::of(groups, &named)
    }

    /// Writes everything to a safetensors file, atomically.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn save(&self, path: &Path) -> Result<()> {
        Ok(write_safetensors(path, &self.flat(None), &Header::new(SCHEMA, 1, ()).to_metadata()?)?)
    }

    /// Reads back what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// A file that is none.
    pub fn load(path: &Path) -> Result<Self> {
        let mut file = SafetensorsFile::open(path)?;
        Header::<()>::from_metadata(file.metadata(), SCHEMA, 1, path)?;
        let names: Vec<String> = file.tensors().keys().cloned().collect();
        let mut flat = NamedTensors::new();
        for name in names {
            flat.insert(name.clone(), file.tensor(&name)?);
        }
        Ok(Self::from_flat(&flat)?.0)
    }

    fn flat(&self, drawn_at: Option<u64>) -> NamedTensors {
        let mut flat = NamedTensors::new();
        for (step, values) in &self.steps {
            for (name, tensor) in values {
                let mark = if drawn_at == Some(*step) { "drawn/" } else { "" };
                flat.insert(format!("{step}/{mark}{name}"), tensor.shallow_clone());
            }
        }
        flat
    }

    fn from_flat(flat: &NamedTensors) -> core_tensor::Result<(Self, Option<u64>)> {
        let (mut steps, mut drawn_at) = (BTreeMap::<u64, NamedTensors>::new(), None);
        for (key, tensor) in flat {
            let parsed = key.split_once('/').and_then(|(step, name)| Some((step.parse::<u64>().ok()?, name)));
            let Some((step, name)) = parsed else {
                let unexpected = vec![key.clone()];
                return Err(core_tensor::Error::Names { missing: Vec::new(), unexpected });
            };
            let plain = name.strip_prefix("drawn/");
            if plain.is_some() {
                drawn_at = Some(step);
            }
            steps.entry(step).or_default().insert(plain.unwrap_or(name).to_owned(), tensor.copy());
        }
        Ok((Self { steps }, drawn_at))
    }
}
