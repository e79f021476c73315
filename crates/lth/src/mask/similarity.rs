//! How alike two masks are.

use super::MaskSet;
use crate::Result;

impl MaskSet {
    /// Number of weights that both keep.
    ///
    /// # Errors
    /// Masks of different tensors.
    pub fn overlap(&self, other: &Self) -> Result<usize> {
        self.count(other, |a, b| a & b)
    }

    /// Share of all weights on which the two differ: the normalised Hamming distance, in `[0, 1]`; 0 for masks without a
    /// weight.
    ///
    /// # Errors
    /// Masks of different tensors.
    pub fn hamming(&self, other: &Self) -> Result<f64> {
        let differ = self.count(other, |a, b| a ^ b)?;
        Ok(if self.weights() == 0 { 0.0 } else { differ as f64 / self.weights() as f64 })
    }

    /// `|a ∩ b| / |a ∪ b|` of the kept weights: the relative mask similarity, in `[0, 1]`; 1 for two empty masks.
    ///
    /// Independent masks of density `d` score `d / (2 − d)`, nested ones the ratio of their densities.
    ///
    /// # Errors
    /// Masks of different tensors.
    pub fn jaccard(&self, other: &Self) -> Result<f64> {
        let union = self.count(other, |a, b| a | b)?;
        Ok(if union == 0 { 1.0 } else { self.overlap(other)? as f64 / union as f64 })
    }

    fn count(&self, other: &Self, combine: impl Fn(u64, u64) -> u64 + Copy) -> Result<usize> {
        Ok(self.pairs(other)?.into_iter().map(|(_, a, b)| a.bits().zip_count(b.bits(), combine)).sum())
    }
}
