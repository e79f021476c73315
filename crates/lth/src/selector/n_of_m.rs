//! N of every M neighbours: the pattern that sparse tensor cores take.

use super::Layer;
use crate::bits::Bits;
use crate::select::{Rank, drop_smallest};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The best `keep` of every `of` consecutive input channels, for every filter and tap by itself; 2 of 4 is what sparse tensor
/// cores take (Mishra et al., arXiv 2104.08378).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NOfM {
    /// Weights kept of a group, 1 to `of`.
    pub keep: usize,
    /// Input channels of a group.
    pub of: usize,
    /// What to do about a layer whose input channels are no multiple of `of`. Default: refuse.
    #[serde(default)]
    pub indivisible: Indivisible,
}

/// What to do about a layer whose input channels do not divide into groups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Indivisible {
    /// [`Error::Mismatch`].
    #[default]
    Refuse,
    /// Leave it as it is: the first convolution on an image, and depthwise ones.
    Keep,
}

impl NOfM {
    /// # Errors
    /// [`Error::Setting`] unless `keep` is 1 to `of`.
    pub fn validate(&self) -> Result<()> {
        if self.keep == 0 || self.keep > self.of {
            return Err(Error::setting("keep", format!("1 to the {} of a group", self.of), self.keep));
        }
        Ok(())
    }

    /// What is kept of a layer. Of a group that an earlier mask left `keep` weights or fewer, all of those.
    pub(super) fn kept(&self, layer: &Layer, rank: Rank) -> Result<Bits> {
        // Nothing is dropped, but what cannot be ranked is found.
        let mut alive = drop_smallest(&[layer.candidates()], rank, 0).map_err(|found| layer.unrankable(&found))?;
        let alive = alive.remove(0);
        let Some((channels, taps)) = self.grid(layer)? else { return Ok(alive) };
        let values = layer.values.values();
        let mut kept: Vec<bool> = alive.iter().collect();
        let mut group: Vec<usize> = Vec::with_capacity(self.of);
        for first in (0..values.len() / (channels * taps)).map(|filter| filter * channels * taps) {
            for (channel, tap) in (0..channels).step_by(self.of).flat_map(|at| (0..taps).map(move |tap| (at, tap))) {
                group.clear();
                let members = (channel..channel + self.of).map(|channel| first + channel * taps + tap);
                group.extend(members.filter(|&index| alive.get(index)));
                // Stable: among equals the first go.
                group.sort_by_key(|&index| rank.key(values[index]));
                let surplus = group.len().saturating_sub(self.keep);
                group[..surplus].iter().for_each(|&index| kept[index] = false);
            }
        }
        Ok(Bits::from_bools(kept.into_iter()))
    }

    /// Input channels and taps of a layer; none where it is to stay as it is.
    fn grid(&self, layer: &Layer) -> Result<Option<(usize, usize)>> {
        let Layer { name, shape, unit, .. } = *layer;
        if unit != 1 {
            return Err(Error::mismatch(name, "a score for each weight", format!("one for each {unit}")));
        }
        let divided = match *shape {
            [_, channels, ref taps @ ..] if (channels as usize).is_multiple_of(self.of) => {
                Some((channels as usize, taps.iter().product::<i64>() as usize))
            }
            _ => None,
        };
        if divided.is_none() && self.indivisible == Indivisible::Refuse {
            let expected = format!("a multiple of {} input channels, `[filters, channels, ...]`", self.of);
            return Err(Error::mismatch(name, expected, format!("shape {shape:?}")));
        }
        Ok(divided)
    }
}
