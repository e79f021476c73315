//! Which heads and neurons are kept.

use super::SlimGroup;
use crate::mask::{Mask, MaskLayout, MaskSet};
use crate::{Error, Result};
use core_tensor::checkpoint::{Header, SafetensorsFile, write_safetensors};
use core_tensor::nn::Gated;
use serde::{Deserialize, Serialize};
use std::path::Path;

const SCHEMA: &str = "lth.ticket-mask";
const HEADS: &str = "heads/";
const NEURONS: &str = "neurons/";

/// The heads and neurons that a ticket keeps, a mask a group, under the names of the coefficients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketMask {
    /// Heads, layer by layer.
    pub heads: MaskSet,
    /// Neurons, layer by layer.
    pub neurons: MaskSet,
}

/// What a file's header says of the two sets.
#[derive(Debug, Serialize, Deserialize)]
struct Layouts {
    heads: MaskLayout,
    neurons: MaskLayout,
}

impl TicketMask {
    /// Writes both sets to one safetensors file, atomically, eight units a byte, as [`MaskSet::save`] does, under
    /// `heads/` and `neurons/`.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn save(&self, path: &Path) -> Result<()> {
        let layouts = Layouts { heads: self.heads.layout(), neurons: self.neurons.layout() };
        let mut packed = self.heads.packed(HEADS);
        packed.extend(self.neurons.packed(NEURONS));
        Ok(write_safetensors(path, &packed, &Header::new(SCHEMA, 1, layouts).to_metadata()?)?)
    }

    /// Reads back what [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// A file that is none, or whose bits, names, shapes and counts contradict each other.
    pub fn load(path: &Path) -> Result<Self> {
        let mut file = SafetensorsFile::open(path)?;
        let layouts = Header::<Layouts>::from_metadata(file.metadata(), SCHEMA, 1, path)?.content;
        let heads = MaskSet::unpack(&mut file, HEADS, &layouts.heads, path)?;
        let neurons = MaskSet::unpack(&mut file, NEURONS, &layouts.neurons, path)?;
        let (tensors, masks) = (file.tensors().len(), heads.iter().len() + neurons.iter().len());
        if tensors != masks {
            return Err(Error::file(path, format!("{tensors} tensors for {masks} masks")));
        }
        Ok(Self { heads, neurons })
    }

    /// Share of heads, and of neurons, on which two tickets differ: each in `[0, 1]`, 0 for equal ones and 1 for
    /// complements.
    ///
    /// # Errors
    /// Tickets of other groups.
    pub fn distance(&self, other: &Self) -> Result<[f64; 2]> {
        Ok([self.heads.hamming(&other.heads)?, self.neurons.hamming(&other.neurons)?])
    }

    /// A random ticket that keeps as many heads and neurons in each layer: what of this one's merit is in *how many*.
    #[must_use]
    pub fn random_matched(&self, seed: u64) -> Self {
        // Two purposes, two streams: heads and neurons must not share their shuffles.
        Self {
            heads: self.heads.shuffle_within_layers(seed),
            neurons: self.neurons.shuffle_within_layers(seed ^ 0x5EED),
        }
    }

    /// Everything that this drops, and nothing that it keeps.
    #[must_use]
    pub fn complement(&self) -> Self {
        Self { heads: self.heads.complement(), neurons: self.neurons.complement() }
    }

    /// The mask of one group.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a group without a mask, or with one for another number of units.
    pub fn of(&self, group: &SlimGroup) -> Result<&Mask> {
        let set = match group.gated {
            Gated::Heads => &self.heads,
            Gated::Neurons => &self.neurons,
        };
        let expected = || format!("a mask of {} units", group.units);
        let mask = set.get(&group.coefficient);
        let mask = mask.ok_or_else(|| Error::mismatch(&group.coefficient, expected(), "none"))?;
        if mask.weights() != group.units {
            return Err(Error::mismatch(&group.coefficient, expected(), format!("one of {}", mask.weights())));
        }
        Ok(mask)
    }

    /// Numbers of the units of a group that are kept, ascending.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn kept(&self, group: &SlimGroup) -> Result<Vec<usize>> {
        let mask = self.of(group)?;
        Ok((0..group.units).filter(|unit| mask.keeps(*unit) == Some(true)).collect())
    }
}

/// Normalised Hamming distances of all pairs, for a heat map.
///
/// # Errors
/// Masks of different groups.
pub fn mask_distances(masks: &[MaskSet]) -> Result<Vec<Vec<f64>>> {
    masks.iter().map(|row| masks.iter().map(|column| row.hamming(column)).collect()).collect()
}

/// The mean distance of two random masks with this share pruned, `2·r·(1 − r)`: what a heat map must be read against.
pub fn chance_distance(pruned: f64) -> f64 {
    2.0 * pruned * (1.0 - pruned)
}
