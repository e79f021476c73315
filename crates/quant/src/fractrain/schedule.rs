//! Precision over time: progressive (PFQ), cyclic (CPT), static, or a closure; and the observer that applies it.

use super::gate::loss_proper;
use super::indicator::check_reach;
use super::{Error, Precision, QuantHandle, Result, StageIndicator, Warning};
use core_tensor::optim::{NamedTensors, Optimizer};
use core_tensor::train::{Control, EpochReport, Observer, Progress, StepContext};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use tch::{Kind, Tensor};

/// The precision of every step. A door for schedules of one's own.
pub trait PrecisionSchedule: Debug {
    /// The precision of the step at this progress.
    fn precision(&self, progress: Progress) -> Precision;

    /// Refuses settings that cannot run. [`PrecisionController`] asks before every epoch.
    ///
    /// # Errors
    /// A setting outside its range.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Takes the mean training loss of an epoch just finished; true if the precision changes for good now.
    ///
    /// # Errors
    /// A loss that is not a number.
    fn end_of_epoch(&mut self, _loss: f64) -> Result<bool> {
        Ok(false)
    }

    /// Everything that the next answers depend on besides progress.
    fn state(&self) -> Vec<f64> {
        Vec::new()
    }

    /// Takes back what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// Numbers that do not fit.
    fn load_state(&mut self, state: &[f64]) -> Result<()> {
        if state.is_empty() { Ok(()) } else { Err(Error::shape("state of a schedule", "nothing", state.len())) }
    }
}

/// The same precision throughout: SBM-style static low precision, or none.
impl PrecisionSchedule for Precision {
    fn precision(&self, _: Progress) -> Precision {
        *self
    }
}

/// A precision computed from the progress.
pub struct ByProgress<F>(pub F);

impl<F> Debug for ByProgress<F> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("ByProgress")
    }
}

impl<F: Fn(Progress) -> Precision> PrecisionSchedule for ByProgress<F> {
    fn precision(&self, progress: Progress) -> Precision {
        (self.0)(progress)
    }
}

/// Progressive fractional quantisation: stages of growing precision, the next one whenever an indicator says so.
///
/// ```
/// use quant::fractrain::{PlateauConfig, PlateauIndicator, Pfq};
///
/// // The reference's command for ResNet-74 on CIFAR-100.
/// let pfq = Pfq::new(&[(3, 6), (4, 6), (6, 8), (8, 8)], PlateauIndicator::new(PlateauConfig::default())?)?;
/// assert!(pfq.warnings().is_empty());
/// # Ok::<(), quant::fractrain::Error>(())
/// ```
#[derive(Debug)]
pub struct Pfq {
    stages: Vec<Precision>,
    indicator: Box<dyn StageIndicator>,
    stage: usize,
}

impl Pfq {
    /// Stages of (forward, gradient) bits.
    ///
    /// # Errors
    /// [`Error::BitsOutOfRange`]; as [`with_precisions`](Self::with_precisions).
    pub fn new(stages: &[(u32, u32)], indicator: impl StageIndicator + 'static) -> Result<Self> {
        let stages = stages.iter().map(|&(forward, gradient)| Precision::new(forward, gradient));
        Self::with_precisions(stages.collect::<Result<_>>()?, indicator)
    }

    /// Stages of the reference code's two lists.
    ///
    /// # Errors
    /// [`Error::Shape`] for lists of unequal length; as [`new`](Self::new).
    pub fn from_lists(forward: &[u32], gradient: &[u32], indicator: impl StageIndicator + 'static) -> Result<Self> {
        if forward.len() != gradient.len() {
            return Err(Error::shape("gradient bits of stages", forward.len(), gradient.len()));
        }
        let stages: Vec<_> = forward.iter().copied().zip(gradient.iter().copied()).collect();
        Self::new(&stages, indicator)
    }

    /// Stages of any precision, full precision among them.
    ///
    /// # Errors
    /// [`Error::Config`] without stages, and for an indicator with too few
    /// [turning points](StageIndicator::turning_points) for the last one to begin.
    pub fn with_precisions(stages: Vec<Precision>, indicator: impl StageIndicator + 'static) -> Result<Self> {
        if stages.is_empty() {
            return Err(Error::config("stages", "at least one", "none"));
        }
        check_reach(&indicator, stages.len())?;
        Ok(Self { stages, indicator: Box::new(indicator), stage: 0 })
    }

    /// Stages that have fewer bits than those before them: allowed, since that is a control worth running.
    pub fn warnings(&self) -> Vec<Warning> {
        let falls = |(index, pair): (usize, &[Precision])| {
            pair[1].is_below(&pair[0]).then_some(Warning::NonMonotonic { stage: index + 1 })
        };
        self.stages.windows(2).enumerate().filter_map(falls).collect()
    }

    /// Turning points so far.
    pub fn stage(&self) -> usize {
        self.stage
    }
}

impl PrecisionSchedule for Pfq {
    fn precision(&self, _: Progress) -> Precision {
        self.stages[self.stage]
    }

    fn end_of_epoch(&mut self, loss: f64) -> Result<bool> {
        let switches = self.indicator.end_of_epoch(loss)? && self.stage + 1 < self.stages.len();
        self.stage += usize::from(switches);
        Ok(switches)
    }

    fn state(&self) -> Vec<f64> {
        let mut state = vec![self.stage as f64];
        state.extend(self.indicator.state());
        state
    }

    fn load_state(&mut self, state: &[f64]) -> Result<()> {
        let [stage, indicator @ ..] = state else {
            return Err(Error::shape("state of a staged schedule", "at least 1 number", 0));
        };
        if *stage as usize >= self.stages.len() {
            return Err(Error::shape("stage", format!("below {}", self.stages.len()), stage));
        }
        self.indicator.load_state(indicator)?;
        self.stage = *stage as usize;
        Ok(())
    }
}

/// Cyclic precision training (Fu et al., arXiv 2101.09868): `b = round(lo + ½·(hi − lo)·(1 − cos(π·(t mod T)/T)))`, a
/// saw-tooth of half cosines, `T = steps / cycles` long, which need be no whole number.
///
/// Nothing is checked when one is made; [`validate`](Self::validate) does it, and a [`PrecisionController`] calls it
/// before a training's first step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cyclic {
    /// Forward bits at the start of a cycle, 1 to `high`. Published: 3.
    pub low: u32,
    /// Forward bits towards its end, `low` to 24. Published: 8.
    pub high: u32,
    /// Gradient bits throughout, 1 to 24. Published: 8.
    pub gradient: u32,
    /// Steps of the whole training, at least one a cycle.
    pub steps: u64,
    /// Cycles of the whole training, 1 to `steps`. Published: 32.
    pub cycles: u64,
}

impl Cyclic {
    /// Refuses what cannot run, naming the setting.
    ///
    /// # Errors
    /// [`Error::BitsOutOfRange`]; [`Error::Config`] for bits upside down, no cycle, or cycles shorter than a step.
    pub fn validate(&self) -> Result<()> {
        Precision::new(self.low, self.gradient)?;
        Precision::new(self.high, self.gradient)?;
        if self.low > self.high {
            return Err(Error::config("low", format!("at most high ({})", self.high), self.low));
        }
        if self.cycles == 0 || self.steps < self.cycles {
            return Err(Error::config("cycles", format!("1 to the number of steps ({})", self.steps), self.cycles));
        }
        Ok(())
    }

    /// The forward bits at a step.
    pub fn forward_bits(&self, step: u64) -> u32 {
        let steps = self.steps.max(1);
        // Cycles begin where `step · cycles / steps` reaches a whole number, so that there are as many as asked for.
        let done = u128::from(step) * u128::from(self.cycles) % u128::from(steps);
        let phase = done as f64 / steps as f64;
        let (low, high) = (f64::from(self.low), f64::from(self.high));
        (low + 0.5 * (high - low) * (1.0 - (std::f64::consts::PI * phase).cos())).round_ties_even() as u32
    }
}

impl PrecisionSchedule for Cyclic {
    fn precision(&self, progress: Progress) -> Precision {
        // Bits that are out of range were refused by `validate`; unvalidated, they mean full precision.
        Precision::new(self.forward_bits(progress.step), self.gradient).unwrap_or(Precision::FULL)
    }

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

/// Applies a schedule to a network, step by step, and stops a training in which a rounded value was not finite.
///
/// Before an epoch begins it refuses a schedule that cannot run ([`PrecisionSchedule::check`]), and before a step a
/// precision of fewer bits than a layer's grid can have.
///
/// Adds the metrics `forward_bits` and `gradient_bits` (of the epoch's last step, 32 for full precision) and `switched` (1
/// where the precision changes for good after the epoch). The schedule is given the metric `cross_entropy` or, where there is
/// none, `task_loss` (of [`WithGateCost`](super::WithGateCost)), or else `loss`.
///
/// A restored training has the precision again that it was saved at, for evaluations before its next step or after its
/// last.
#[derive(Debug)]
pub struct PrecisionController<S> {
    handle: QuantHandle,
    schedule: S,
    resets_ranges: bool,
    switches: Vec<u64>,
}

impl<S: PrecisionSchedule> PrecisionController<S> {
    /// Sets the precision of the first step already. Nothing is refused here, but before the first step of a training.
    pub fn new(handle: &QuantHandle, schedule: S) -> Self {
        handle.set_precision(schedule.precision(Progress::default()));
        Self { handle: handle.clone(), schedule, resets_ranges: true, switches: Vec::new() }
    }

    /// Keeps the moving averages of ranges when the precision changes for good. By default they start anew, since they
    /// describe the network before.
    #[must_use]
    pub fn keeping_ranges(self) -> Self {
        Self { resets_ranges: false, ..self }
    }

    /// The schedule.
    pub fn schedule(&self) -> &S {
        &self.schedule
    }

    /// Epochs, from 0, after which the precision changed for good.
    pub fn switches(&self) -> &[u64] {
        &self.switches
    }

    /// Sets the precision of a step, unless a layer's grid cannot have it.
    fn set_precision(&self, progress: Progress) -> core_tensor::Result<()> {
        let precision = self.schedule.precision(progress);
        self.handle.check_precision(precision).map_err(|error| error.into_core("precision"))?;
        self.handle.set_precision(precision);
        Ok(())
    }

    /// A precision from its saved widths, unless a layer's grid cannot have it.
    fn saved_precision(&self, widths: Vec<f64>) -> Result<Precision> {
        let widths = <[f64; 4]>::try_from(widths);
        let widths = widths.map_err(|found| Error::shape("saved precision", "4 widths", found.len()))?;
        let precision = Precision::from_numbers(widths)?;
        self.handle.check_precision(precision)?;
        Ok(precision)
    }
}

impl<S: PrecisionSchedule> Observer for PrecisionController<S> {
    fn name(&self) -> &str {
        "precision"
    }

    fn before_epoch(&mut self, progress: Progress, _: &mut dyn Optimizer) -> core_tensor::Result<()> {
        self.schedule.check().map_err(|error| error.into_core("precision"))?;
        self.set_precision(progress)?;
        let switched = progress.epoch > 0 && self.switches.last() == Some(&(progress.epoch - 1));
        if switched && self.resets_ranges {
            self.handle.reset_ranges();
        }
        Ok(())
    }

    fn after_backward(&mut self, step: &mut StepContext, _: &mut dyn Optimizer) -> core_tensor::Result<()> {
        self.handle.check_finite(step.progress.step).map_err(|error| error.into_core("precision"))
    }

    fn after_step(&mut self, step: &StepContext, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        let next = Progress { step: step.progress.step + 1, ..step.progress };
        // After an epoch's last step the precision stays, for evaluations between epochs.
        if !next.step.is_multiple_of(step.steps_per_epoch.max(1)) {
            self.set_precision(next)?;
        }
        Ok(Control::Continue)
    }

    fn after_epoch(&mut self, report: &mut EpochReport, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        let [forward, _, gradient] = self.handle.last_precision().widths();
        report.metrics.insert("forward_bits".into(), forward.into());
        report.metrics.insert("gradient_bits".into(), gradient.into());
        let switched = self.schedule.end_of_epoch(loss_proper(report));
        let switched = switched.map_err(|error| error.into_core("precision"))?;
        report.metrics.insert("switched".into(), f64::from(u8::from(switched)));
        if switched {
            self.switches.push(report.epoch);
        }
        Ok(Control::Continue)
    }

    fn state(&self) -> NamedTensors {
        let mut numbers = vec![self.switches.len() as f64];
        numbers.extend(self.switches.iter().map(|epoch| *epoch as f64));
        numbers.extend(self.schedule.state());
        NamedTensors::from([
            ("state".to_owned(), Tensor::from_slice(&numbers)),
            ("precision".to_owned(), Tensor::from_slice(&self.handle.precision().to_numbers())),
        ])
    }

    fn load_state(&mut self, saved: &NamedTensors) -> core_tensor::Result<()> {
        let misfit = |found: String| core_tensor::Error::tensor("precision/state", "switches and schedule", found);
        let numbers_of = |tensor: &Tensor| {
            Vec::<f64>::try_from(tensor.to_kind(Kind::Double).to_device(tch::Device::Cpu).contiguous())
        };
        let Some(state) = saved.get("state") else { return Err(misfit("nothing".into())) };
        let numbers = numbers_of(state)?;
        let count = numbers.first().copied().unwrap_or(0.0) as usize;
        if numbers.len() <= count {
            return Err(misfit(format!("{} numbers", numbers.len())));
        }
        let precision = match saved.get("precision") {
            Some(widths) => {
                Some(self.saved_precision(numbers_of(widths)?).map_err(|error| error.into_core("precision"))?)
            }
            // Not every saved training has it.
            None => None,
        };
        self.schedule.load_state(&numbers[count + 1..]).map_err(|error| error.into_core("precision"))?;
        self.switches = numbers[1..=count].iter().map(|epoch| *epoch as u64).collect();
        if let Some(precision) = precision {
            self.handle.set_precision(precision);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fractrain::{AtEpochs, PlateauConfig, PlateauIndicator};

    #[test]
    fn stages_follow_their_indicator_and_stay_at_the_last() {
        let mut pfq = Pfq::new(&[(3, 6), (4, 6), (8, 8)], AtEpochs::new(vec![1, 3, 4]).unwrap()).unwrap();
        let bits = |pfq: &Pfq| pfq.precision(Progress::default()).widths();
        let seen: Vec<_> = (0..5)
            .map(|_| {
                let now = bits(&pfq);
                pfq.end_of_epoch(1.0).unwrap();
                now
            })
            .collect();
        assert_eq!(seen, [[3, 3, 6], [4, 4, 6], [4, 4, 6], [8, 8, 8], [8, 8, 8]]);
        let mut restored = Pfq::new(&[(3, 6), (4, 6), (8, 8)], AtEpochs::new(vec![1, 3]).unwrap()).unwrap();
        restored.load_state(&pfq.state()).unwrap();
        assert_eq!(restored.stage(), 2);
        assert!(restored.load_state(&[7.0, 0.0]).is_err());
    }

    #[test]
    fn lists_that_do_not_fit_are_refused_and_falling_bits_are_warned_of() {
        let at = || AtEpochs::new(vec![1]).unwrap();
        assert!(matches!(Pfq::from_lists(&[3, 4], &[6], at()), Err(Error::Shape { .. })));
        assert!(matches!(Pfq::new(&[], at()), Err(Error::Config { .. })));
        assert!(matches!(Pfq::new(&[(3, 0)], at()), Err(Error::BitsOutOfRange { .. })));
        let thrice = AtEpochs::new(vec![1, 2, 3]).unwrap();
        let permuted = Pfq::from_lists(&[6, 4, 3, 8], &[8, 6, 6, 8], thrice).unwrap();
        let falls: Vec<String> = permuted.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(falls.len(), 2);
        assert!(falls[0].contains("stage 1"));
    }

    #[test]
    fn stages_that_would_never_begin_are_refused() {
        // The published rule ends three stages.
        let plateau = || PlateauIndicator::new(PlateauConfig::default()).unwrap();
        let stages = [(3, 6), (4, 6), (5, 8), (6, 8), (8, 8)];
        assert!(matches!(Pfq::new(&stages, plateau()), Err(Error::Config { name: "turning_points", .. })));
        assert!(Pfq::new(&stages[1..], plateau()).is_ok() && Pfq::new(&stages[3..], plateau()).is_ok());
        let twice = || AtEpochs::new(vec![2, 5]).unwrap();
        assert!(matches!(Pfq::new(&stages[1..], twice()), Err(Error::Config { name: "turning_points", .. })));
        assert!(Pfq::new(&stages[2..], twice()).is_ok());
    }

    #[test]
    fn a_restored_controller_has_the_precision_that_it_was_saved_at() {
        let (from, to) = (QuantHandle::default(), QuantHandle::default());
        let four = Precision::new(4, 8).unwrap();
        let by_step = || ByProgress(|_: Progress| Precision::FULL);
        let saving = PrecisionController::new(&from, by_step());
        from.set_precision(four);
        let mut saved = saving.state();
        let mut restored = PrecisionController::new(&to, by_step());
        restored.load_state(&saved).unwrap();
        assert_eq!(to.precision(), four);
        // Too few widths, or one that is none, change nothing; a file without them is none the worse.
        to.set_precision(Precision::FULL);
        for widths in [&[4.0_f64, 8.0][..], &[4.0, 4.0, 99.0, 0.0]] {
            saved.insert("precision".into(), Tensor::from_slice(widths));
            assert!(restored.load_state(&saved).is_err());
        }
        saved.shift_remove("precision");
        restored.load_state(&saved).unwrap();
        assert_eq!(to.precision(), Precision::FULL);
    }

    #[test]
    fn cycles_rise_from_the_low_end_with_the_published_histogram() {
        let cyclic = Cyclic { low: 3, high: 8, gradient: 8, steps: 10_000, cycles: 1 };
        cyclic.validate().unwrap();
        let bits: Vec<u32> = (0..10_000).map(|step| cyclic.forward_bits(step)).collect();
        assert_eq!(bits[0], 3);
        assert!(bits.windows(2).all(|pair| pair[0] <= pair[1]));
        // Closed form: b where 3 + 2.5·(1 − cos πx) rounds to b, for instance x < acos(0.8)/π = 20.5 % for b = 3.
        for (width, percent) in [(3, 20.48), (4, 16.46), (5, 13.06), (6, 13.06), (7, 16.46), (8, 20.48)] {
            let found = bits.iter().filter(|bits| **bits == width).count() as f64 / 100.0;
            assert!((found - percent).abs() < 0.05, "{width}: {found}");
        }
        // Mean cost against full precision: published recipe, 3.9579 %.
        let mean =
            (0..10_000).map(|step| cyclic.precision(Progress { epoch: 0, step }).cost_percent()).sum::<f64>() / 1e4;
        assert!((mean - 3.9579).abs() < 2e-3, "{mean}");
        assert_eq!(Cyclic { cycles: 2, ..cyclic }.forward_bits(5_000), 3);
        // Three cycles in ten steps begin at 0, 4 and 7: the bits fall twice.
        let uneven = Cyclic { steps: 10, cycles: 3, ..cyclic };
        let bits: Vec<u32> = (0..10).map(|step| uneven.forward_bits(step)).collect();
        let falls: Vec<usize> = (1..10).filter(|step| bits[*step] < bits[step - 1]).collect();
        assert_eq!(falls, [4, 7], "{bits:?}");
        assert!(Cyclic { low: 9, ..cyclic }.validate().is_err() && Cyclic { cycles: 0, ..cyclic }.validate().is_err());
        assert!(Cyclic { high: 99, ..cyclic }.validate().is_err());
    }
}
