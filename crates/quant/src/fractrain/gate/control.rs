//! Steering the gates to a cost: a term in the loss that pulls down above the target and up below it.

use super::Gates;
use crate::fractrain::indicator::check_reach;
use crate::fractrain::{Error, Result, StageIndicator, Warning};
use core_tensor::optim::{NamedTensors, Optimizer};
use core_tensor::train::{Control, EpochReport, Loss, Objective, Observer, Progress, StepContext};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// A cost in percent of full precision, above 0 and at most 100.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct CpTarget(f64);

impl CpTarget {
    /// `percent` of full precision.
    ///
    /// # Errors
    /// [`Error::Config`] outside (0, 100].
    pub fn new(percent: f64) -> Result<Self> {
        if percent > 0.0 && percent <= 100.0 {
            Ok(Self(percent))
        } else {
            Err(Error::config("target", "above 0 and at most 100 percent", percent))
        }
    }

    /// In percent.
    pub fn percent(self) -> f64 {
        self.0
    }
}

impl Default for CpTarget {
    /// 3 %, the published one.
    fn default() -> Self {
        Self(3.0)
    }
}

impl TryFrom<f64> for CpTarget {
    type Error = Error;

    fn try_from(percent: f64) -> Result<Self> {
        Self::new(percent)
    }
}

impl From<CpTarget> for f64 {
    fn from(target: CpTarget) -> Self {
        target.0
    }
}

/// How the weight of the cost term follows the distance from the target.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CostController {
    /// −1 below the target, +1 at or above it plus `band`, 0 between: the reference code for CIFAR, with a band of 0. It
    /// chatters around the target, and its pressure may be too weak for a short training.
    Sign {
        /// In points of percent.
        band: f64,
    },
    /// −1 below target − ρ, +1 at or above target + ρ, ±0.1 between: the reference code for ImageNet.
    Relax {
        /// In points of percent.
        rho: f64,
    },
    /// A proportional part and a multiplier that grows with the relative distance: `λ ← λ + rate·d`,
    /// `weight = gain·d + λ`, both within ±`limit`, where `d = (cp − target)/target`. Ours. A target out of reach is
    /// followed as far as options go, so that λ stands still there instead of growing to its limit.
    Adaptive {
        /// Growth of the multiplier in a step.
        rate: f64,
        /// Weight of the distance itself.
        gain: f64,
        /// Bound of both.
        limit: f64,
    },
}

impl Default for CostController {
    fn default() -> Self {
        Self::Adaptive { rate: 0.2, gain: 10.0, limit: 20.0 }
    }
}

impl CostController {
    pub(super) fn validate(&self) -> Result<()> {
        let settings = match *self {
            Self::Sign { band } => vec![("controller.band", band)],
            Self::Relax { rho } => vec![("controller.rho", rho)],
            Self::Adaptive { rate, gain, limit } => {
                vec![("controller.rate", rate), ("controller.gain", gain), ("controller.limit", limit)]
            }
        };
        match settings.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
            Some((name, value)) => Err(Error::config(name, "finite and not negative", value)),
            None => Ok(()),
        }
    }

    /// The weight of the cost term at a realised cost; moves the multiplier. `reach` are the costs of the cheapest and of the
    /// dearest option.
    pub(super) fn weight(&self, multiplier: &mut f64, cp: f64, target: f64, reach: (f64, f64)) -> f64 {
        match *self {
            Self::Sign { .. } if cp < target => -1.0,
            Self::Sign { band } => {
                if cp >= target + band {
                    1.0
                } else {
                    0.0
                }
            }
            Self::Relax { rho } if cp < target - rho => -1.0,
            Self::Relax { rho } if cp >= target + rho => 1.0,
            Self::Relax { .. } => {
                if cp < target {
                    -0.1
                } else {
                    0.1
                }
            }
            Self::Adaptive { rate, gain, limit } => {
                let distance = (cp - target.clamp(reach.0, reach.1)) / target;
                *multiplier = (*multiplier + rate * distance).clamp(-limit, limit);
                (gain * distance + *multiplier).clamp(-limit, limit)
            }
        }
    }
}

/// What [`WithGateCost`] calls the loss proper.
const TASK_LOSS: &str = "task_loss";

/// An epoch's loss proper, for indicators: with its cost term the sum may be negative.
pub(in crate::fractrain) fn loss_proper(report: &EpochReport) -> f64 {
    let loss = ["cross_entropy", TASK_LOSS, "loss"].into_iter().find_map(|name| report.metrics.get(name));
    loss.copied().unwrap_or(f64::NAN)
}

/// An objective with the gates' cost added: `loss + β·weight·cost`.
///
/// Adds the parts `cp` (percent of full precision) and `cost_weight`, and `task_loss` (the loss without the cost)
/// unless the objective has a part `cross_entropy`.
pub struct WithGateCost<'a, B> {
    inner: &'a mut dyn Objective<B>,
    gates: Gates,
}

impl<B> std::fmt::Debug for WithGateCost<'_, B> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("WithGateCost").field("gates", &self.gates).finish_non_exhaustive()
    }
}

impl<'a, B> WithGateCost<'a, B> {
    /// `inner` must run one forward pass of the gated network.
    pub fn new(inner: &'a mut dyn Objective<B>, gates: &Gates) -> Self {
        Self { inner, gates: gates.clone() }
    }
}

impl<B> Objective<B> for WithGateCost<'_, B> {
    fn loss(&mut self, batch: &B, progress: &Progress) -> core_tensor::Result<Loss> {
        self.gates.begin();
        let mut loss = self.inner.loss(batch, progress)?;
        let pass = self.gates.finish().map_err(|error| error.into_core("gates"))?;
        if !loss.parts.iter().any(|(name, _)| ["cross_entropy", TASK_LOSS].contains(name)) {
            loss.parts.push((TASK_LOSS, loss.total.detach()));
        }
        let mut state = self.gates.lock();
        let (target, mut multiplier) = (state.config.target.percent(), state.multiplier);
        let reach = state.config.reach(state.weight);
        let weight = state.config.controller.weight(&mut multiplier, pass.cp, target, reach);
        state.multiplier = multiplier;
        let mut scale = state.config.beta * weight;
        if let Some(limit) = state.config.limit {
            let most = limit * loss.total.double_value(&[]).abs() / pass.cost.double_value(&[]).max(f64::MIN_POSITIVE);
            // `clamp` panics at a NaN; the trainer stops at such a loss with an error.
            if !most.is_nan() {
                scale = scale.clamp(-most, most);
            }
        }
        drop(state);
        if scale != 0.0 && pass.cost.requires_grad() {
            loss.total = loss.total.f_add(&pass.cost.f_mul_scalar(scale)?)?;
        }
        let scalar = |value: f64| Tensor::from(value as f32);
        loss.parts.extend([("cp", scalar(pass.cp)), ("cost_weight", scalar(weight))]);
        Ok(loss)
    }
}

/// Keeps the gates' state with the training, reports what they chose, and, with stages, raises the target when an
/// indicator says so: FracTrain. The indicator is given the metric `cross_entropy` or, where there is none,
/// `task_loss`.
///
/// Adds the metrics `target_cp` and `option_0`, `option_1`, … (shares of samples and blocks).
pub struct FollowTarget {
    gates: Gates,
    targets: Vec<CpTarget>,
    indicator: Option<Box<dyn StageIndicator>>,
    stage: usize,
    counts: Vec<u64>,
}

impl std::fmt::Debug for FollowTarget {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_struct("FollowTarget").field("targets", &self.targets).field("stage", &self.stage).finish()
    }
}

impl FollowTarget {
    /// The gates keep the target of their settings: DFQ.
    pub fn constant(gates: &Gates) -> Self {
        let targets = vec![gates.config().target];
        Self { gates: gates.clone(), targets, indicator: None, stage: 0, counts: Vec::new() }
    }

    /// The target goes from one to the next whenever the indicator says so: FracTrain.
    ///
    /// # Errors
    /// [`Error::Config`] without targets, and for an indicator with too few
    /// [turning points](StageIndicator::turning_points) to come to the last one.
    pub fn staged(gates: &Gates, targets: Vec<CpTarget>, indicator: impl StageIndicator + 'static) -> Result<Self> {
        let Some(first) = targets.first() else {
            return Err(Error::config("targets", "at least one", "none"));
        };
        check_reach(&indicator, targets.len())?;
        gates.set_target(*first);
        Ok(Self { gates: gates.clone(), targets, indicator: Some(Box::new(indicator)), stage: 0, counts: Vec::new() })
    }

    /// Targets that no mix of options reaches: the gates take the cheapest or the dearest one throughout.
    pub fn warnings(&self) -> Vec<Warning> {
        let state = self.gates.lock();
        self.targets.iter().filter_map(|target| state.config.unreachable(*target, state.weight)).collect()
    }

    /// Turning points so far.
    pub fn stage(&self) -> usize {
        self.stage
    }
}

impl Observer for FollowTarget {
    fn name(&self) -> &str {
        "gates"
    }

    fn before_epoch(&mut self, _: Progress, _: &mut dyn Optimizer) -> core_tensor::Result<()> {
        self.counts.clear();
        Ok(())
    }

    fn after_step(&mut self, _: &StepContext, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        if let Some((histogram, ..)) = self.gates.last_pass() {
            self.counts.resize(histogram.first().map_or(0, Vec::len), 0);
            for row in histogram {
                self.counts.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
            }
        }
        Ok(Control::Continue)
    }

    fn after_epoch(&mut self, report: &mut EpochReport, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        let total = self.counts.iter().sum::<u64>().max(1) as f64;
        for (option, count) in self.counts.iter().enumerate() {
            report.metrics.insert(format!("option_{option}"), *count as f64 / total);
        }
        report.metrics.insert("target_cp".into(), self.targets[self.stage].percent());
        if let Some(indicator) = &mut self.indicator {
            let switches = indicator.end_of_epoch(loss_proper(report));
            if switches.map_err(|error| error.into_core("gates"))? && self.stage + 1 < self.targets.len() {
                self.stage += 1;
                self.gates.set_target(self.targets[self.stage]);
            }
        }
        Ok(Control::Continue)
    }

    fn state(&self) -> NamedTensors {
        let state = self.gates.lock();
        let draws = state.forced.as_ref().map_or(0, |forced| forced.draws);
        let mut numbers = vec![self.stage as f64, state.multiplier, draws as f64];
        numbers.extend(self.indicator.iter().flat_map(|indicator| indicator.state()));
        NamedTensors::from([("state".to_owned(), Tensor::from_slice(&numbers))])
    }

    fn load_state(&mut self, saved: &NamedTensors) -> core_tensor::Result<()> {
        let misfit =
            |found: String| core_tensor::Error::tensor("gates/state", "stage, multiplier, draws and indicator", found);
        let Some(saved) = saved.get("state") else { return Err(misfit("nothing".into())) };
        let numbers = Vec::<f64>::try_from(saved.to_kind(Kind::Double).to_device(tch::Device::Cpu).contiguous())?;
        let [stage, multiplier, draws, indicator @ ..] = &numbers[..] else {
            return Err(misfit(format!("{} numbers", numbers.len())));
        };
        let stage = *stage as usize;
        let Some(target) = self.targets.get(stage) else { return Err(misfit(format!("stage {stage}"))) };
        if let Some(own) = &mut self.indicator {
            own.load_state(indicator).map_err(|error| error.into_core("gates"))?;
        }
        self.stage = stage;
        let mut state = self.gates.lock();
        (state.multiplier, state.config.target) = (*multiplier, *target);
        if let Some(forced) = &mut state.forced {
            forced.draws = *draws as u64;
        }
        Ok(())
    }
}
