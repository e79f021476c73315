//! Masks made from masks: intersections, differences, complements, and the random controls.

use super::{Mask, MaskSet};
use crate::bits::Bits;
use crate::{Error, Result};
use core_tensor::seed::{Purpose, generator};
use rand::Rng;
use rand::seq::SliceRandom;

impl MaskSet {
    /// Keeps what both keep.
    ///
    /// # Errors
    /// Masks of different tensors.
    pub fn and(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| a & b)
    }

    /// Keeps what one of the two keeps and the other drops. Of a mask and its [`flip`](Self::flip) these are the flips, which
    /// the same call takes back: `flipped.xor(&flips)` is the mask.
    ///
    /// # Errors
    /// Masks of different tensors.
    pub fn xor(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| a ^ b)
    }

    fn zip(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Result<Self> {
        let both = |(name, a, b): (&str, &Mask, &Mask)| {
            (name.to_owned(), Mask::new(a.shape.clone(), a.bits.zip(&b.bits, &combine)))
        };
        Ok(Self::from_layers(self.pairs(other)?.into_iter().map(both)))
    }

    /// Keeps what this drops. The densities of the two sum to 1.
    #[must_use]
    pub fn complement(&self) -> Self {
        self.map(|mask| mask.bits.complement())
    }

    /// Whether everything that this keeps is kept by `other`.
    ///
    /// # Errors
    /// Masks of different tensors.
    pub fn is_subset_of(&self, other: &Self) -> Result<bool> {
        Ok(self.pairs(other)?.into_iter().all(|(_, a, b)| a.bits.zip_count(&b.bits, |a, b| a & !b) == 0))
    }

    /// The random-ticket control: each tensor keeps as many weights as before, at random places. Masks of the same
    /// tensors shuffled with one seed keep their overlap; give each a seed of its own.
    #[must_use]
    pub fn shuffle_within_layers(&self, seed: u64) -> Self {
        let mut random = generator(seed, Purpose::Mask, 0);
        self.map(|mask| shuffled(&mask.bits, &mut random))
    }

    /// A random mask of the same overall density, each weight equally likely to survive whatever its tensor. Masks of
    /// the same tensors shuffled with one seed keep their overlap; give each a seed of its own.
    #[must_use]
    pub fn shuffle_globally(&self, seed: u64) -> Self {
        let all =
            Bits::from_bools(self.layers.values().flat_map(|mask| mask.bits.iter()).collect::<Vec<_>>().into_iter());
        let all = shuffled(&all, &mut generator(seed, Purpose::Mask, 1));
        let mut start = 0;
        self.map(|mask| {
            let range = start..start + mask.weights();
            start = range.end;
            Bits::from_bools(range.map(|index| all.get(index)))
        })
    }

    /// Flips a random `fraction` of the ones and the same fraction of the zeros, rounded half to even, over all tensors
    /// together: the perturbation of Chen et al. (arXiv 2012.06908). The density `d` becomes `(1 − f)·d + f·(1 − d)`.
    ///
    /// # Errors
    /// A fraction outside `[0, 1]`.
    pub fn flip(&self, fraction: f64, seed: u64) -> Result<Self> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(Error::setting("fraction", "in [0, 1]", fraction));
        }
        let mut random = generator(seed, Purpose::Mask, 2);
        let mut choose = |from: usize| {
            let count = (fraction * from as f64).round_ties_even() as usize;
            shuffled(&Bits::from_bools((0..from).map(|place| place < count)), &mut random)
        };
        let (ones, zeros) = (choose(self.survivors()), choose(self.weights() - self.survivors()));
        let (mut one, mut zero) = (0, 0);
        Ok(self.map(|mask| {
            Bits::from_bools(mask.bits.iter().collect::<Vec<_>>().into_iter().map(|kept| {
                let (flips, place) = if kept { (&ones, &mut one) } else { (&zeros, &mut zero) };
                *place += 1;
                kept != flips.get(*place - 1)
            }))
        }))
    }

    fn map(&self, mut change: impl FnMut(&Mask) -> Bits) -> Self {
        let layers = self.layers.iter();
        Self::from_layers(layers.map(|(name, mask)| (name.clone(), Mask::new(mask.shape.clone(), change(mask)))))
    }
}

fn shuffled(bits: &Bits, random: &mut impl Rng) -> Bits {
    let mut bools: Vec<bool> = bits.iter().collect();
    bools.shuffle(random);
    Bits::from_bools(bools.into_iter())
}
