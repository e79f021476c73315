//! From scores to tickets.

use super::{SlimGroup, TicketMask};
use crate::criterion::{LayerScores, Rank};
use crate::mask::{Mask, MaskSet};
use crate::memory::HostValues;
use crate::prunable::NamedTensor;
use crate::selector::{Amount, EmptyLayer, Scope, Selector};
use crate::{Error, Result};
use core_tensor::nn::Gated;
use core_tensor::seed::{Purpose, generator};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// A score a head and a neuron; the higher, the longer it is kept. Signed: a coefficient of −0.5 is worse than one of 0.1.
#[derive(Debug)]
pub struct Scores {
    /// Of heads, layer by layer, under the groups' names.
    pub heads: Vec<NamedTensor>,
    /// Of neurons.
    pub neurons: Vec<NamedTensor>,
}

impl Scores {
    /// Sorts scores given in the groups' order into heads and neurons, copied.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for scores of other groups or another number of units.
    pub fn of(groups: &[SlimGroup], scores: &[NamedTensor]) -> Result<Self> {
        let (mut heads, mut neurons) = (Vec::new(), Vec::new());
        for group in groups {
            let name = &group.coefficient;
            let expected = || format!("{} scores", group.units);
            let found = scores.iter().find(|(candidate, _)| candidate == name);
            let (_, values) = found.ok_or_else(|| Error::mismatch(name, expected(), "none"))?;
            if values.numel() != group.units {
                return Err(Error::mismatch(name, expected(), format!("{:?}", values.size())));
            }
            let values = values.detach().copy().f_reshape(group.shape())?;
            match group.gated {
                Gated::Heads => heads.push((name.clone(), values)),
                Gated::Neurons => neurons.push((name.clone(), values)),
            }
        }
        Ok(Self { heads, neurons })
    }

    /// The worst first: draws from these give the inverse ticket, a control that should lose.
    #[must_use]
    pub fn inverted(&self) -> Self {
        let invert = |scores: &[NamedTensor]| scores.iter().map(|(name, values)| (name.clone(), -values)).collect();
        Self { heads: invert(&self.heads), neurons: invert(&self.neurons) }
    }

    /// Share of distinct values among heads, and among neurons. After the first step of Adam every coefficient is 1 ± lr,
    /// so that few values exist and ties decide.
    ///
    /// It cannot tell whether ties decide otherwise: numbers of `f32` are 6e-8 apart just below 1 and 1.2e-7 above, so
    /// that of many thousand scores near 1 most share theirs with another, wherever the cut is. That is what
    /// [`Drawn::tied`] says.
    ///
    /// # Errors
    /// Scores that are no floating-point numbers, or not finite.
    pub fn distinct(&self) -> Result<[f64; 2]> {
        let share = |scores: &[NamedTensor]| -> Result<f64> {
            let values = flat(scores)?;
            let mut bits: Vec<u32> = values.iter().map(|value| (value + 0.0).to_bits()).collect();
            bits.sort_unstable();
            bits.dedup();
            Ok(if values.is_empty() { 1.0 } else { bits.len() as f64 / values.len() as f64 })
        };
        Ok([share(&self.heads)?, share(&self.neurons)?])
    }
}

/// How much of one kind goes, and within what it is ranked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// [`Scope::PerLayer`] or [`Scope::Global`].
    pub scope: Scope,
    /// Share pruned, in `[0, 1)`.
    pub ratio: f64,
}

/// Where the line between kept and pruned is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Threshold {
    /// The `round(ratio · n)` smallest go, halves to even; of equal ones those of lower (layer, number) first.
    #[default]
    BottomK,
    /// What is not above the linearly interpolated quantile goes: the reference code. Prunes `⌊(n − 1)·ratio⌋ + 1` of
    /// distinct scores, one even at ratio 0, and everything where all are equal.
    StrictQuantile,
}

/// How a ticket is drawn from scores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrawConfig {
    /// Heads. Reference scripts: a third, layer by layer.
    pub heads: Cut,
    /// Neurons. Reference scripts: 0.4, over all layers.
    pub neurons: Cut,
    /// Where the line is. Default: exact counts.
    #[serde(default)]
    pub threshold: Threshold,
    /// What every layer keeps of each kind. Ranked layer by layer, less is pruned for its sake; over all layers, others
    /// pay. Default 1; with 0 a layer may lose its attention or its feed-forward part.
    #[serde(default = "one")]
    pub min_per_layer: usize,
}

impl Default for DrawConfig {
    fn default() -> Self {
        Self {
            heads: Cut { scope: Scope::PerLayer, ratio: 1.0 / 3.0 },
            neurons: Cut { scope: Scope::Global, ratio: 0.4 },
            threshold: Threshold::BottomK,
            min_per_layer: 1,
        }
    }
}

/// A ticket, and what a careful reader wants to know about how it came to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    /// The ticket.
    pub mask: TicketMask,
    /// Share of distinct scores among heads, and among neurons.
    pub distinct: [f64; 2],
    /// Share of all heads, and of all neurons, whose score is the highest of those dropped, where a kept one has it
    /// too: among these it was the number that decided. 0 where the scores tell kept from dropped. Layer by layer, the
    /// layers' counts add up.
    pub tied: [f64; 2],
    /// Whether keeping `min_per_layer` changed it.
    pub floored: bool,
}

impl DrawConfig {
    /// With these shares of heads (layer by layer) and neurons (over all layers) pruned.
    pub fn ratios(heads: f64, neurons: f64) -> Self {
        let mut config = Self::default();
        (config.heads.ratio, config.neurons.ratio) = (heads, neurons);
        config
    }

    /// Checks shares and scopes.
    ///
    /// # Errors
    /// A share outside `[0, 1)`, or a scope that gives densities itself.
    pub fn validate(&self) -> Result<()> {
        for (setting, cut) in [("heads.ratio", &self.heads), ("neurons.ratio", &self.neurons)] {
            if !(0.0..1.0).contains(&cut.ratio) {
                return Err(Error::setting(setting, "in [0, 1)", cut.ratio));
            }
            if matches!(cut.scope, Scope::LayerDensities(_)) {
                return Err(Error::setting("scope", "per layer or global", "given densities"));
            }
        }
        Ok(())
    }

    /// The ticket of these scores.
    ///
    /// # Errors
    /// A config outside its range, [`Error::NotFinite`] for a score that cannot be ranked; where units are ranked over
    /// all layers, [`Error::Setting`] if these cannot pay for the minimum of each, and [`Error::EmptiedLayer`] for a
    /// layer without its minimum above a quantile.
    pub fn draw(&self, scores: &Scores) -> Result<Drawn> {
        self.validate()?;
        if scores.heads.is_empty() && scores.neurons.is_empty() {
            return Err(Error::NothingToPrune { tensors: 0, predicate: "the groups".into() });
        }
        let (heads, heads_floored) = self.cut(&self.heads, &scores.heads)?;
        let (neurons, neurons_floored) = self.cut(&self.neurons, &scores.neurons)?;
        let tied = [tied(&self.heads, &scores.heads, &heads)?, tied(&self.neurons, &scores.neurons, &neurons)?];
        let mask = TicketMask { heads, neurons };
        Ok(Drawn { mask, distinct: scores.distinct()?, tied, floored: heads_floored || neurons_floored })
    }

    /// The ticket of scores drawn from `U(0, 1)`: of this one's merit, what is in how much is cut.
    ///
    /// # Errors
    /// As [`draw`](Self::draw).
    pub fn random(&self, groups: &[SlimGroup], seed: u64) -> Result<TicketMask> {
        let mut random = generator(seed, Purpose::Mask, 3);
        let mut score = |group: &SlimGroup| {
            let values: Vec<f32> = (0..group.units).map(|_| random.random()).collect();
            (group.coefficient.clone(), Tensor::from_slice(&values))
        };
        let scores: Vec<NamedTensor> = groups.iter().map(&mut score).collect();
        Ok(self.draw(&Scores::of(groups, &scores)?)?.mask)
    }

    fn cut(&self, cut: &Cut, scores: &[NamedTensor]) -> Result<(MaskSet, bool)> {
        if scores.is_empty() {
            return Ok((MaskSet::from_layers([]), false));
        }
        match self.threshold {
            Threshold::BottomK => {
                let select = |min_per_layer, empty_layer| {
                    let selector = Selector { scope: cut.scope.clone(), min_per_layer, empty_layer };
                    selector.prune(&ranked(scores), Amount::Rate(cut.ratio), None)
                };
                let free = select(0, EmptyLayer::Allow)?;
                if free.iter().all(|(_, mask)| mask.survivors() >= self.min_per_layer) {
                    return Ok((free, false));
                }
                let held = select(self.min_per_layer, EmptyLayer::Refuse)?;
                let floored = held != free;
                Ok((held, floored))
            }
            Threshold::StrictQuantile if cut.scope == Scope::Global => {
                let masks = above_quantile(scores, cut.ratio)?;
                let short = |mask: &Mask| mask.survivors() < self.min_per_layer.min(mask.weights());
                if let Some((layer, mask)) = masks.iter().find(|(_, mask)| short(mask)) {
                    return Err(Error::EmptiedLayer { layer: layer.clone(), weights: mask.weights() });
                }
                Ok((MaskSet::from_layers(masks), false))
            }
            Threshold::StrictQuantile => {
                let (mut masks, mut floored) = (Vec::with_capacity(scores.len()), false);
                for layer in scores {
                    let layer = std::slice::from_ref(layer);
                    let mut mask = MaskSet::from_layers(above_quantile(layer, cut.ratio)?);
                    let least = self.min_per_layer.min(mask.weights());
                    if mask.survivors() < least {
                        let count = Amount::Count(mask.weights() - least);
                        mask = Selector::per_layer().prune(&ranked(layer), count, None)?;
                        floored = true;
                    }
                    masks.extend(mask.iter().map(|(name, mask)| (name.to_owned(), mask.clone())));
                }
                Ok((MaskSet::from_layers(masks), floored))
            }
        }
    }
}

fn ranked(scores: &[NamedTensor]) -> crate::criterion::Scores {
    let layer = |(name, values): &NamedTensor| LayerScores {
        name: name.clone(),
        shape: values.size(),
        values: values.shallow_clone(),
    };
    crate::criterion::Scores { layers: scores.iter().map(layer).collect(), rank: Rank::Value }
}

fn above_quantile(scores: &[NamedTensor], ratio: f64) -> Result<Vec<(String, Mask)>> {
    let mut sorted = flat(scores)?;
    sorted.sort_unstable_by(f32::total_cmp);
    let place = (sorted.len().saturating_sub(1)) as f64 * ratio;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let at = |index: usize| sorted.get(index).copied().map_or(0.0, f64::from);
    let threshold = at(below) + (at(above) - at(below)) * (place - place.floor());
    scores
        .iter()
        .map(|(name, values)| {
            let host = HostValues::new(name, values)?;
            let kept = host.values().iter().map(|value| f64::from(*value) > threshold);
            Ok((name.clone(), Mask::new(values.size(), crate::bits::Bits::from_bools(kept))))
        })
        .collect()
}

/// Share of units at the line, where units of one score are on both sides of it.
fn tied(cut: &Cut, scores: &[NamedTensor], mask: &MaskSet) -> Result<f64> {
    let ranked_together = if cut.scope == Scope::Global { scores.len().max(1) } else { 1 };
    let (mut at_the_line, mut all) = (0, 0);
    for together in scores.chunks(ranked_together) {
        let values = flat(together)?;
        let kept: Vec<bool> =
            together.iter().filter_map(|(name, _)| mask.get(name)).flat_map(|mask| mask.bits().iter()).collect();
        let of = |side: bool| values.iter().zip(&kept).filter(move |(_, kept)| **kept == side).map(|(value, _)| *value);
        if let Some(line) = of(false).max_by(f32::total_cmp)
            && of(true).any(|value| value == line)
        {
            at_the_line += values.iter().filter(|value| **value == line).count();
        }
        all += values.len();
    }
    Ok(if all == 0 { 0.0 } else { at_the_line as f64 / all as f64 })
}

/// All scores one after the other.
fn flat(scores: &[NamedTensor]) -> Result<Vec<f32>> {
    let mut all = Vec::new();
    for (name, values) in scores {
        let host = HostValues::new(name, values)?;
        if let Some(index) = host.values().iter().position(|value| !value.is_finite()) {
            return Err(Error::NotFinite { tensor: name.clone(), index, value: host.values()[index] });
        }
        all.extend_from_slice(host.values());
    }
    Ok(all)
}

fn one() -> usize {
    1
}
