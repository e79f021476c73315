//! Masks changed on purpose, to see whether their structure matters.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::mask::MaskSet;

/// A change to a mask's structure. A ticket whose score falls under it owed something to that structure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Perturbation {
    /// Keeps what was dropped: density `1 − d`.
    Complement,
    /// Random places, as many in each tensor. Masks that are given one seed keep their overlap; give each its own.
    Random,
    /// Random places, as many in all tensors together. Seeds as for [`Random`](Self::Random).
    RandomGlobally,
    /// A random share of the ones and of the zeros changed: density `(1 − f)·d + f·(1 − d)`. The paper flips 0.1.
    Flip(f64),
}

impl Perturbation {
    /// The changed mask. Flips and random places are fixed by the seed.
    ///
    /// # Errors
    /// A share outside `[0, 1]`.
    pub fn apply(self, mask: &MaskSet, seed: u64) -> Result<MaskSet> {
        match self {
            Self::Complement => Ok(mask.complement()),
            Self::Random => Ok(mask.shuffle_within_layers(seed)),
            Self::RandomGlobally => Ok(mask.shuffle_globally(seed)),
            Self::Flip(share) => mask.flip(share, seed),
        }
    }

    /// As reports name it.
    pub fn name(self) -> String {
        match self {
            Self::Complement => "complement".to_owned(),
            Self::Random => "random".to_owned(),
            Self::RandomGlobally => "random, globally".to_owned(),
            Self::Flip(share) => format!("{} % flipped", 100.0 * share),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Tensor;

    #[test]
    fn densities_are_the_papers() {
        for (density, flipped) in [(0.2, 0.26), (0.1, 0.18)] {
            let bits: Vec<u8> = (0..1000).map(|i| u8::from(f64::from(i) < 1000.0 * density)).collect();
            let mask = MaskSet::from_tensors(&[("x".into(), Tensor::from_slice(&bits))]).unwrap();
            let after = |perturbation: Perturbation| perturbation.apply(&mask, 3).unwrap();
            assert_eq!(after(Perturbation::Flip(0.1)).density(), flipped);
            assert_eq!(after(Perturbation::Complement).survivors(), 1000 - mask.survivors());
            for same in [Perturbation::Random, Perturbation::RandomGlobally] {
                assert_eq!(after(same).density(), density);
                assert_ne!(after(same), mask);
            }
        }
        assert_eq!(Perturbation::Flip(0.1).name(), "10 % flipped");
    }
}
