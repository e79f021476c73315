//! How coefficients learn: not at all, by rounding after every step, or one rung at a time.

use core_tensor::optim::{NamedTensors, Optimizer};
use core_tensor::train::{Control, EpochReport, Observer, Progress, StepContext};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::weight::project;
use super::{SdWeight, SdWeights};
use crate::smartdeal::Ladder;
use crate::{Error, Result};

/// What happens to the coefficients at a step. Bases, norms and biases always take the optimizer's own step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoefficientMode {
    /// Nothing.
    Frozen,
    /// A step of SGD, then rounding onto the ladder. Steps below half a rung are lost.
    Requantise,
    /// Counting the signs of wished-for steps and moving one rung when enough agree.
    Switch(BucketSwitch),
}

/// The rule of moving one rung: an integer counter a coefficient is the only error compensation there is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BucketSwitch {
    /// Net count of like signs that moves a coefficient; at least 1. Published: an option, 1 or more.
    pub bar: u32,
    /// Wished-for steps no larger than this do not count. Published: 0 (off) by default.
    pub step_threshold: f64,
    /// Most of a layer's coefficients, zeros and padding counted, that may move a step, averaged over steps; the others keep
    /// their full counter. First come those whose wished-for step is the largest share of the jump that it sets off, since a
    /// rung is many times as long as a step. The published code has no such guard (1), and diverges without one on small
    /// networks.
    pub max_update_fraction: f64,
}

impl Default for BucketSwitch {
    fn default() -> Self {
        Self { bar: 1, step_threshold: 0.0, max_update_fraction: 1e-3 }
    }
}

/// The optimizer part of coefficient updates. Defaults are the published ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateConfig {
    /// What happens to the coefficients.
    pub mode: CoefficientMode,
    /// Momentum of their wished-for steps. Published: 0.9.
    pub momentum: f64,
    /// Their weight decay. Published: 5e-4.
    pub weight_decay: f64,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self { mode: CoefficientMode::Switch(BucketSwitch::default()), momentum: 0.9, weight_decay: 5e-4 }
    }
}

impl UpdateConfig {
    /// Refuses what cannot run, naming the setting.
    ///
    /// # Errors
    /// [`Error::Config`] for the first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        let check = |ok: bool, name: &'static str, expected: &'static str, found: f64| {
            if ok { Ok(()) } else { Err(Error::Config { name, expected, found: found.to_string() }) }
        };
        check((0.0..1.0).contains(&self.momentum), "momentum", "0 ≤ momentum < 1", self.momentum)?;
        let decay = self.weight_decay;
        check(decay >= 0.0 && decay.is_finite(), "weight_decay", "a finite number ≥ 0", decay)?;
        if let CoefficientMode::Switch(BucketSwitch { bar, step_threshold, max_update_fraction }) = self.mode {
            check(bar >= 1, "bar", "at least 1", f64::from(bar))?;
            check(step_threshold >= 0.0, "step_threshold", "a number ≥ 0", step_threshold)?;
            let fraction = max_update_fraction;
            check(fraction > 0.0 && fraction <= 1.0, "max_update_fraction", "0 < fraction ≤ 1", fraction)?;
        }
        Ok(())
    }
}

/// One step of bucket switching: new coefficients and counters from coefficients on the ladder, wished-for steps,
/// counters and mask, at most `most` of them moving. Also returns how many did.
///
/// A positive wish doubles a positive coefficient and halves a negative one's magnitude; below the lowest rung lies 0,
/// below that `−2^p_min`. A coefficient outside the mask stays 0. One at the highest rung stays there, starts to count anew,
/// and takes no place of others. One that `most` holds back keeps its count, up to the bar, and moves only with its wish of
/// the moment.
///
/// # Errors
/// What libtorch refuses.
pub fn switch(
    coefficient: &Tensor,
    wish: &Tensor,
    counter: &Tensor,
    mask: &Tensor,
    ladder: &Ladder,
    rule: &BucketSwitch,
    most: i64,
) -> Result<(Tensor, Tensor, i64)> {
    let counted = wish.f_abs()?.f_gt(rule.step_threshold)?.f_to_kind(Kind::Float)?;
    let wished = wish.f_sign()?.f_mul(&counted)?.f_mul(mask)?;
    let bar = f64::from(rule.bar);
    let counter = counter.f_add(&wished)?.f_clamp(-bar, bar)?;
    let full = counter.f_mul(&wished)?.f_ge(bar)?;
    let direction = wished.f_mul(&full.f_to_kind(Kind::Float)?)?;
    // 2^±1 by the sign of the coefficient; where it is 0, the lowest rung on the side of the wish.
    let exponent = direction.f_mul(&coefficient.f_sign()?)?;
    let factor = exponent.f_gt(0.0)?.f_to_kind(Kind::Float)? - exponent.f_lt(0.0)?.f_to_kind(Kind::Float)? * 0.5 + 1.0;
    let entered = coefficient.f_eq(0.0)?.f_to_kind(Kind::Float)? * &direction * 2f64.powi(ladder.p_min);
    let moved = project(&(coefficient * factor + entered).f_mul(mask)?, ladder)?;
    let jump = moved.f_sub(coefficient)?.f_abs()?;
    // Nothing is beyond the highest rung.
    let mut moves = full.f_logical_and(&jump.f_gt(0.0)?)?;
    let stuck = full.f_logical_and(&moves.f_logical_not()?)?;
    // The guard: of those that would move, only those do whose wishes are the largest share of the jump. How many move
    // is read from the device once, and not at all where none may.
    let mut changed = 0;
    if most < 1 {
        moves = moves.f_zeros_like()?;
    } else {
        changed = moves.f_sum(Kind::Int64)?.int64_value(&[]);
        if changed > most {
            // A share too small for single precision still ranks above no move.
            let share = (wish.f_abs()? / &jump).f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
            let ranked = share.f_where_self(&moves, &jump.f_zeros_like()?)?.f_reshape([-1])?;
            let (_, chosen) = ranked.f_topk(most, 0, true, true)?;
            let allowed = ranked.f_zeros_like()?.f_index_fill(0, &chosen, 1.0)?.f_view_as(coefficient)?;
            moves = moves.f_logical_and(&allowed.f_gt(0.0)?)?;
            changed = most;
        }
    }
    let next = moved.f_where_self(&moves, coefficient)?;
    let counter = counter.f_masked_fill(&moves.f_logical_or(&stuck)?, 0.0)?;
    Ok((next, counter, changed))
}

/// Updates the coefficients of every [`SdWeight`] of a network in place of the optimizer, which must not own them:
/// see [`SdWeights::trainable`]. With one that does no epoch begins.
///
/// Adds the metric `smartdeal/changed_fraction` after each epoch: the share of all coefficients that a step changed,
/// the mean of the epoch's steps. [`changed_fraction`](Self::changed_fraction) is the last step's.
#[derive(Debug)]
pub struct CoefficientUpdate {
    layers: Vec<LayerState>,
    config: UpdateConfig,
    /// Coefficients that the last step changed.
    changed: i64,
    /// Those that the steps of this epoch changed, and how many steps there were.
    epoch: (i64, u64),
}

#[derive(Debug)]
struct LayerState {
    weight: SdWeight,
    momentum: Tensor,
    counter: Tensor,
    /// Moves saved up and not yet spent: small layers move one coefficient every few steps.
    allowance: f64,
}

impl CoefficientUpdate {
    /// An observer for these weights.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn new(weights: &SdWeights, config: UpdateConfig) -> Result<Self> {
        config.validate()?;
        let state = |weight: SdWeight| LayerState {
            momentum: weight.coefficient.detach().zeros_like(),
            counter: weight.coefficient.detach().zeros_like(),
            allowance: 0.0,
            weight,
        };
        Ok(Self { layers: weights.to_vec().into_iter().map(state).collect(), config, changed: 0, epoch: (0, 0) })
    }

    /// Share of all coefficients, zeros and padding counted, that the last step changed.
    pub fn changed_fraction(&self) -> f64 {
        self.share(self.changed as f64)
    }

    fn share(&self, changed: f64) -> f64 {
        let all: usize = self.layers.iter().map(|layer| layer.weight.coefficient.numel()).sum();
        changed / all.max(1) as f64
    }

    /// Refuses an optimizer whose own steps would take coefficients off their rungs.
    fn check_owner(&self, optimizer: &dyn Optimizer) -> Result<()> {
        let is_ours = |tensor: &Tensor| self.layers.iter().any(|layer| layer.weight.has_coefficients(tensor));
        match optimizer.parameters().iter().find(|parameter| is_ours(&parameter.tensor)) {
            None => Ok(()),
            Some(parameter) => Err(Error::Config {
                name: "optimizer",
                expected: "no coefficients, as `SdWeights::trainable` leaves them out",
                found: format!("`{}`", parameter.name),
            }),
        }
    }

    /// The gradient of each layer's coefficients with weight decay, `None` where no pass reached it.
    ///
    /// # Errors
    /// [`Error::Diverged`] with the first layer where it is not finite. One look at the device tells whether there is
    /// any.
    fn gradients(&self, step: u64) -> Result<Vec<Option<Tensor>>> {
        let (mut totals, mut finite) = (Vec::with_capacity(self.layers.len()), Vec::new());
        for LayerState { weight, .. } in &self.layers {
            let gradient = weight.coefficient.grad();
            let total = if gradient.defined() {
                Some(gradient.f_add(&(weight.coefficient.detach() * self.config.weight_decay))?)
            } else {
                None
            };
            if let Some(total) = &total {
                finite.push((weight, total.f_isfinite()?.f_all()?));
            }
            totals.push(total);
        }
        let Some((first, _)) = finite.first() else { return Ok(totals) };
        // Layers of one's own may be on other devices.
        let device = first.coefficient.device();
        let all = finite.iter().map(|(_, all)| all.f_to_device(device)).collect::<std::result::Result<Vec<_>, _>>()?;
        let all = Vec::<bool>::try_from(Tensor::f_stack(&all, 0)?)?;
        match finite.iter().zip(all).find(|(_, finite)| !finite) {
            None => Ok(totals),
            Some(((weight, _), _)) => {
                Err(Error::Diverged { step, what: format!("gradient of `{}.coefficient`", weight.name()) })
            }
        }
    }

    fn update(&mut self, learning_rate: f64, step: u64) -> Result<()> {
        let UpdateConfig { mode, momentum, .. } = self.config;
        self.changed = 0;
        // Before any is changed, so that an error leaves no layer ahead of another.
        let totals = match mode {
            CoefficientMode::Frozen => Vec::new(),
            _ => self.gradients(step)?,
        };
        let mut totals = totals.into_iter();
        // Counted on the device, read once.
        let mut rounded: Option<Tensor> = None;
        for layer in &mut self.layers {
            let LayerState { weight, momentum: buffer, counter, allowance } = layer;
            let mut coefficient = weight.coefficient.shallow_clone();
            if let Some(total) = totals.next().flatten() {
                *buffer = &*buffer * momentum + total;
                let wish = &*buffer * -learning_rate;
                let (next, counted, changed) = match mode {
                    CoefficientMode::Switch(rule) => {
                        *allowance += rule.max_update_fraction * coefficient.numel() as f64;
                        let most = allowance.floor() as i64;
                        let (current, ladder) = (coefficient.detach(), weight.ladder());
                        let switched = switch(&current, &wish, counter, &weight.mask, &ladder, &rule, most)?;
                        *allowance = (*allowance - switched.2 as f64).min(1.0);
                        switched
                    }
                    _ => {
                        let next = project(&(coefficient.detach() + wish), &weight.ladder())? * &weight.mask;
                        let count = next.f_ne_tensor(&coefficient.detach())?.f_sum(Kind::Int64)?;
                        rounded = Some(match rounded.take() {
                            Some(before) => before.f_add(&count.f_to_device(before.device())?)?,
                            None => count,
                        });
                        (next, counter.shallow_clone(), 0)
                    }
                };
                *counter = counted;
                self.changed += changed;
                coefficient.f_copy_(&next)?;
            }
            coefficient.zero_grad();
        }
        self.changed += rounded.map_or(0, |count| count.int64_value(&[]));
        self.epoch = (self.epoch.0 + self.changed, self.epoch.1 + 1);
        Ok(())
    }
}

impl Observer for CoefficientUpdate {
    fn name(&self) -> &str {
        "smartdeal-coefficients"
    }

    /// Counters start afresh with every epoch, as published.
    fn before_epoch(&mut self, _: Progress, optimizer: &mut dyn Optimizer) -> core_tensor::Result<()> {
        self.check_owner(optimizer).map_err(Error::into_core)?;
        for layer in &mut self.layers {
            let _ = layer.counter.f_zero_()?;
            // What earlier passes left behind would count as the first step's.
            layer.weight.coefficient.zero_grad();
        }
        self.epoch = (0, 0);
        Ok(())
    }

    fn after_step(&mut self, step: &StepContext, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        let update = || self.update(step.learning_rate, step.progress.step);
        tch::no_grad(update).map_err(Error::into_core)?;
        Ok(Control::Continue)
    }

    fn after_epoch(&mut self, report: &mut EpochReport, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        let (changed, steps) = self.epoch;
        let a_step = self.share(changed as f64 / steps.max(1) as f64);
        report.metrics.insert("smartdeal/changed_fraction".into(), a_step);
        Ok(Control::Continue)
    }

    fn state(&self) -> NamedTensors {
        let entry = |layer: &LayerState| {
            let name = layer.weight.name();
            [
                (format!("{name}.momentum"), layer.momentum.copy()),
                (format!("{name}.counter"), layer.counter.copy()),
                (format!("{name}.allowance"), Tensor::from(layer.allowance)),
            ]
        };
        self.layers.iter().flat_map(entry).collect()
    }

    fn load_state(&mut self, state: &NamedTensors) -> core_tensor::Result<()> {
        let find = |name: String, like: &Tensor| {
            let found = state
                .get(&name)
                .ok_or_else(|| core_tensor::Error::Names { missing: vec![name.clone()], unexpected: Vec::new() })?;
            if found.size() == like.size() {
                // States are read to the CPU.
                return Ok(found.copy().to_device(like.device()));
            }
            Err(core_tensor::Error::tensor(name, format!("{:?}", like.size()), format!("{:?}", found.size())))
        };
        let loaded = self.layers.iter().map(|layer| {
            let name = layer.weight.name();
            Ok((
                find(format!("{name}.momentum"), &layer.momentum)?,
                find(format!("{name}.counter"), &layer.counter)?,
                find(format!("{name}.allowance"), &Tensor::from(0.0))?.double_value(&[]),
            ))
        });
        let loaded = loaded.collect::<core_tensor::Result<Vec<_>>>()?;
        for (layer, (momentum, counter, allowance)) in self.layers.iter_mut().zip(loaded) {
            (layer.momentum, layer.counter, layer.allowance) = (momentum, counter, allowance);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
