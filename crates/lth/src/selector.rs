//! From scores to masks.

mod n_of_m;

pub use n_of_m::{Indivisible, NOfM};

use crate::bits::Bits;
use crate::criterion::{LayerScores, Scores};
use crate::mask::{Mask, MaskSet};
use crate::memory::HostValues;
use crate::select::{Candidates, Unrankable, drop_smallest};
use crate::{Error, Result};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Within what scores are ranked, and what a layer may lose.
///
/// Exactly the asked number of weights is dropped, `round(share · weights)` with halves to even as
/// `torch.nn.utils.prune` does; equal scores go in (tensor, flat index) order, so that a mask is a function of the
/// scores alone. Scores are ranked as `f32`: `f64` ones that round to the same are equal, those beyond its range not
/// finite. Weights that an earlier mask dropped stay dropped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Selector {
    /// Within what scores are ranked.
    pub scope: Scope,
    /// Every layer keeps at least this many of its best weights (or filters): in the global scope at the cost of other
    /// layers, else at the cost of the amount asked for. Default 0.
    #[serde(default)]
    pub min_per_layer: usize,
    /// What to do about a layer that would keep nothing. Default: refuse.
    #[serde(default)]
    pub empty_layer: EmptyLayer,
}

/// Within what scores are ranked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All tensors together.
    #[default]
    Global,
    /// Each tensor by itself, all to the same share.
    PerLayer,
    /// Each tensor by itself, to its own density, as with [`MaskSet::layer_densities`]. Takes no further amount than
    /// [`Amount::AsScoped`]. So it is for [`Selector::prune`] alone: [`Imp`](crate::Imp) and
    /// [`PruningSchedule`](crate::PruningSchedule) bring amounts of their own and refuse it.
    LayerDensities(IndexMap<String, f64>),
    /// The same number of every few neighbours. Takes no other amount than [`Amount::AsScoped`], like the densities of single
    /// tensors, and [`Selector::min_per_layer`] has no say.
    NOfM(NOfM),
}

/// What to do about a layer that would keep nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmptyLayer {
    /// [`Error::EmptiedLayer`]: no gradient passes such a layer.
    #[default]
    Refuse,
    /// Let it go; a residual network lives on through its shortcuts.
    Allow,
}

/// How much to prune.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Amount {
    /// Until this share of *all* weights is left, in `(0, 1]`.
    Density(f64),
    /// This share of the *survivors*, in `[0, 1)`.
    Rate(f64),
    /// This many of the survivors (of each tensor, in the per-layer scope).
    Count(usize),
    /// What [`Scope::LayerDensities`] or [`Scope::NOfM`] says.
    AsScoped,
}

impl Selector {
    /// All tensors ranked together.
    pub fn global() -> Self {
        Self::default()
    }

    /// Each tensor ranked by itself.
    pub fn per_layer() -> Self {
        Self { scope: Scope::PerLayer, ..Self::default() }
    }

    /// Each tensor ranked by itself, pruned to its own density: see [`Scope::LayerDensities`] for who takes it.
    pub fn layer_densities(densities: IndexMap<String, f64>) -> Self {
        Self { scope: Scope::LayerDensities(densities), ..Self::default() }
    }

    /// The best `keep` of every `of` consecutive input channels: see [`NOfM`]. It refuses layers that do not divide; the first
    /// convolution on an image is one.
    ///
    /// ```
    /// use lth::{Amount, Selector, criterion::{Criterion, Magnitude}};
    /// use tch::Tensor;
    ///
    /// let weight = Tensor::from_slice(&[0.1_f32, -0.9, 0.5, 0.3, 2.0, 1.0, -3.0, 0.0]).view([2, 4]);
    /// let scores = Magnitude.score(&[("fc.weight".to_owned(), weight)], None)?;
    /// let mask = Selector::n_of_m(2, 4).prune(&scores, Amount::AsScoped, None)?;
    /// let kept: Vec<_> = (0..8).filter(|index| mask["fc.weight"].keeps(*index) == Some(true)).collect();
    /// assert_eq!(kept, [1, 2, 4, 6]);
    /// # Ok::<(), lth::Error>(())
    /// ```
    pub fn n_of_m(keep: usize, of: usize) -> Self {
        Self { scope: Scope::NOfM(NOfM { keep, of, indivisible: Indivisible::Refuse }), ..Self::default() }
    }

    /// A short name for records: `global`, `per_layer`, `layer_densities`, `n_of_m`.
    pub fn name(&self) -> &'static str {
        match self.scope {
            Scope::Global => "global",
            Scope::PerLayer => "per_layer",
            Scope::LayerDensities(_) => "layer_densities",
            Scope::NOfM(_) => "n_of_m",
        }
    }

    /// The mask that keeps the best scores among what `within` keeps (everything, without one).
    ///
    /// # Errors
    /// [`Error::NotFinite`] for a score that cannot be ranked, [`Error::Setting`] for an amount outside its range or
    /// beyond what is left (in the global scope, beyond what the minimum leaves), [`Error::UnknownName`] for densities of
    /// tensors that were not scored, [`Error::Mismatch`] for two tensors of one name or an earlier mask of others, and
    /// [`Error::EmptiedLayer`].
    pub fn prune(&self, scores: &Scores, amount: Amount, within: Option<&MaskSet>) -> Result<MaskSet> {
        if scores.layers.is_empty() {
            return Err(Error::NothingToPrune { tensors: 0, predicate: "the criterion".into() });
        }
        let mut names = HashSet::new();
        if let Some(layer) = scores.layers.iter().find(|layer| !names.insert(layer.name.as_str())) {
            return Err(Error::mismatch(&layer.name, "one tensor of that name", "two"));
        }
        let layers = scores.layers.iter().map(|layer| Layer::new(layer, within)).collect::<Result<Vec<_>>>()?;
        if let Some(within) = within
            && let Some((name, _)) = within.iter().find(|(name, _)| !layers.iter().any(|layer| layer.name == *name))
        {
            return Err(Error::mismatch(name, "a score for every masked tensor", "none"));
        }
        let kept = match &self.scope {
            Scope::Global => self.drop_together(&layers, scores, amount, Beyond::Refused)?,
            Scope::PerLayer => self.drop_each(&layers, scores, |_| Ok(amount))?,
            Scope::LayerDensities(densities) => {
                self.takes(amount)?;
                let known = || layers.iter().map(|layer| layer.name.to_owned()).collect();
                if let Some(name) = densities.keys().find(|name| !layers.iter().any(|layer| layer.name == **name)) {
                    return Err(Error::UnknownName { pattern: name.clone(), known: known() });
                }
                self.drop_each(&layers, scores, |name| {
                    let density = densities.get(name).copied();
                    let density = density.ok_or_else(|| Error::mismatch(name, "a density", "none"))?;
                    Ok(Amount::Density(density))
                })?
            }
            Scope::NOfM(pattern) => {
                self.takes(amount)?;
                pattern.validate()?;
                layers.iter().map(|layer| pattern.kept(layer, scores.rank)).collect::<Result<Vec<_>>>()?
            }
        };
        let masks = layers.iter().zip(kept).map(|(layer, kept)| layer.mask(&kept));
        let mask = MaskSet::from_layers(masks);
        // A filter that survives does not bring back the weights it had lost.
        let mask = within.map_or(Ok(mask.clone()), |within| mask.and(within))?;
        if self.empty_layer == EmptyLayer::Refuse
            && let Some((name, mask)) = mask.iter().find(|(_, mask)| mask.survivors() == 0)
        {
            return Err(Error::EmptiedLayer { layer: name.to_owned(), weights: mask.weights() });
        }
        Ok(mask)
    }

    /// Checks that the scope can be asked for an amount.
    ///
    /// # Errors
    /// [`Error::Setting`] for given densities, or so many of a group, with another amount than theirs.
    pub(crate) fn takes(&self, amount: Amount) -> Result<()> {
        let expected = match self.scope {
            Scope::LayerDensities(_) => "`AsScoped` with given densities",
            Scope::NOfM(_) => "`AsScoped` with so many of a group",
            Scope::Global | Scope::PerLayer => return Ok(()),
        };
        if amount == Amount::AsScoped {
            return Ok(());
        }
        Err(Error::setting("amount", expected, format!("{amount:?}")))
    }

    /// How many units [`prune`](Self::prune) drops in all, which can be told without scores.
    ///
    /// # Errors
    /// [`Error::Setting`] for an amount that `prune` refuses, and for given densities.
    pub(crate) fn dropped(&self, layers: &[Units], amount: Amount) -> Result<usize> {
        self.takes(amount)?;
        if self.scope == Scope::Global {
            return self.count(layers, amount, Beyond::Refused);
        }
        layers.iter().map(|layer| self.count(std::slice::from_ref(layer), amount, Beyond::Spared)).sum()
    }

    /// How many units to drop from layers that are ranked together.
    fn count(&self, layers: &[Units], amount: Amount, beyond: Beyond) -> Result<usize> {
        let all: usize = layers.iter().map(|layer| layer.all).sum();
        let alive: usize = layers.iter().map(|layer| layer.alive).sum();
        let count = amount.dropped(all, alive)?;
        let left: usize = layers.iter().map(|layer| layer.alive.saturating_sub(self.min_per_layer)).sum();
        if count > left && beyond == Beyond::Refused {
            let expected = format!("at most {left} to drop, with {} kept in each layer", self.min_per_layer);
            return Err(Error::setting("amount", expected, count));
        }
        Ok(count.min(left))
    }

    fn drop_each(
        &self,
        layers: &[Layer],
        scores: &Scores,
        amount: impl Fn(&str) -> Result<Amount>,
    ) -> Result<Vec<Bits>> {
        let each = |layer: &Layer| {
            let layer_alone = std::slice::from_ref(layer);
            let mut kept = self.drop_together(layer_alone, scores, amount(layer.name)?, Beyond::Spared)?;
            Ok(kept.remove(0))
        };
        layers.iter().map(each).collect()
    }

    /// Drops from all layers together, but for the protected best of each.
    fn drop_together(&self, layers: &[Layer], scores: &Scores, amount: Amount, beyond: Beyond) -> Result<Vec<Bits>> {
        let units: Vec<Units> =
            layers.iter().map(|layer| Units { all: layer.units, alive: layer.alive_units() }).collect();
        let count = self.count(&units, amount, beyond)?;
        let rank = |candidates: &[Candidates], count: usize| {
            drop_smallest(candidates, scores.rank, count).map_err(|found| layers[found.tensor].unrankable(&found))
        };
        let candidates: Vec<_> = layers.iter().map(Layer::candidates).collect();
        if self.min_per_layer == 0 {
            return rank(&candidates, count);
        }
        let best = |layer: &Layer| -> Result<Bits> {
            let spare = layer.alive_units().saturating_sub(self.min_per_layer);
            let mut kept =
                drop_smallest(&[layer.candidates()], scores.rank, spare).map_err(|found| layer.unrankable(&found))?;
            Ok(kept.remove(0))
        };
        let protected = layers.iter().map(best).collect::<Result<Vec<_>>>()?;
        let open: Vec<Bits> = layers
            .iter()
            .zip(&protected)
            .map(|(layer, protected)| match &layer.alive {
                Some(alive) => alive.zip(protected, |alive, protected| alive & !protected),
                None => protected.complement(),
            })
            .collect();
        let candidates: Vec<_> = candidates
            .iter()
            .zip(&open)
            .map(|(candidate, open)| Candidates { values: candidate.values, alive: Some(open) })
            .collect();
        let kept = rank(&candidates, count)?;
        Ok(kept.iter().zip(&protected).map(|(kept, protected)| kept.zip(protected, |a, b| a | b)).collect())
    }
}

/// How many units a layer has, and how many an earlier mask left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Units {
    pub(crate) all: usize,
    pub(crate) alive: usize,
}

/// What becomes of an amount that would leave a layer less than its minimum.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beyond {
    /// It is an error: there are no layers left to take it from.
    Refused,
    /// Less is dropped: no other layer could pay.
    Spared,
}

impl Amount {
    /// How many of `alive` units to drop, of `all` there ever were.
    fn dropped(self, all: usize, alive: usize) -> Result<usize> {
        match self {
            Self::Density(density) if density > 0.0 && density <= 1.0 => {
                let gone = all - alive;
                let dropped = ((1.0 - density) * all as f64).round_ties_even() as usize;
                dropped.checked_sub(gone).ok_or_else(|| {
                    let left = alive as f64 / all as f64;
                    Error::setting("density", format!("at most the {left} that an earlier mask left"), density)
                })
            }
            Self::Density(density) => Err(Error::setting("density", "in (0, 1]", density)),
            Self::Rate(rate) if (0.0..1.0).contains(&rate) => Ok((rate * alive as f64).round_ties_even() as usize),
            Self::Rate(rate) => Err(Error::setting("rate", "in [0, 1)", rate)),
            Self::Count(count) if count <= alive => Ok(count),
            Self::Count(count) => Err(Error::setting("count", format!("at most the {alive} survivors"), count)),
            Self::AsScoped => Err(Error::setting("amount", "a density, rate or count in this scope", "`AsScoped`")),
        }
    }
}

/// One tensor's scores ready to be ranked. A unit is a weight, or a group of consecutive weights scored as one.
struct Layer<'a> {
    name: &'a str,
    shape: &'a [i64],
    values: HostValues,
    units: usize,
    unit: usize,
    alive: Option<Bits>,
}

impl<'a> Layer<'a> {
    fn new(scores: &'a LayerScores, within: Option<&MaskSet>) -> Result<Self> {
        let LayerScores { name, shape, values } = scores;
        let weights = shape.iter().product::<i64>() as usize;
        let units = values.numel();
        if weights == 0 || units == 0 || !weights.is_multiple_of(units) {
            return Err(Error::mismatch(name, format!("scores that divide shape {shape:?}"), format!("{units}")));
        }
        let unit = weights / units;
        let alive = match within {
            None => None,
            Some(within) => {
                let mask = within.get(name).ok_or_else(|| Error::mismatch(name, "an earlier mask", "none"))?;
                if mask.shape() != shape {
                    let expected = format!("an earlier mask of shape {shape:?}");
                    return Err(Error::mismatch(name, expected, format!("{:?}", mask.shape())));
                }
                let some_kept = |kept: usize| kept > 0;
                Some(match unit {
                    1 => mask.bits().clone(),
                    _ => Bits::from_bools(mask.bits().counts(unit).into_iter().map(some_kept)),
                })
            }
        };
        Ok(Self { name, shape, values: HostValues::new(name, values)?, units, unit, alive })
    }

    fn alive_units(&self) -> usize {
        self.alive.as_ref().map_or(self.units, Bits::count_ones)
    }

    fn unrankable(&self, found: &Unrankable) -> Error {
        let value = self.values.values()[found.index];
        Error::NotFinite { tensor: self.name.to_owned(), index: found.index, value }
    }

    fn candidates(&self) -> Candidates<'_> {
        Candidates { values: self.values.values(), alive: self.alive.as_ref() }
    }

    fn mask(&self, kept: &Bits) -> (String, Mask) {
        let bits = match self.unit {
            1 => kept.clone(),
            unit => Bits::from_bools((0..self.units * unit).map(|weight| kept.get(weight / unit))),
        };
        (self.name.to_owned(), Mask::new(self.shape.to_vec(), bits))
    }
}

#[cfg(test)]
mod tests;
