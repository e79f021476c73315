//! Which tokens a masked language model has to guess.

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::text::SpecialTokens;
use crate::{Error, Result};

/// The label of a token that is not to be guessed and enters no loss; libtorch's cross-entropy leaves it out.
pub const IGNORED: i64 = -100;

/// How tokens are chosen and hidden.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Masking {
    /// Chance of each token that is no special one, in `(0, 1]`. BERT: 0.15.
    pub chosen: f64,
    /// Share of the chosen that becomes `[MASK]`. BERT: 0.8.
    pub masked: f64,
    /// Share of the chosen that becomes any token of the vocabulary, each as likely. BERT: 0.1; the rest stays as it is.
    pub replaced: f64,
    /// Draws anew every epoch, as RoBERTa (Liu et al., arXiv 1907.11692, section 4.1); otherwise every epoch hides the same.
    #[serde(default = "yes")]
    pub dynamic: bool,
}

impl Default for Masking {
    /// 15 % chosen, of them 80 % masked, 10 % replaced, 10 % kept; drawn anew every epoch.
    fn default() -> Self {
        Self { chosen: 0.15, masked: 0.8, replaced: 0.1, dynamic: true }
    }
}

impl Masking {
    /// # Errors
    /// A share outside its range, or more than all of the chosen masked or replaced.
    pub fn validate(&self) -> Result<()> {
        if !(self.chosen > 0.0 && self.chosen <= 1.0) {
            return Err(Error::setting("chosen", "in (0, 1]", self.chosen));
        }
        for (setting, share) in [("masked", self.masked), ("replaced", self.replaced)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(Error::setting(setting, "in [0, 1]", share));
            }
        }
        // Room for the rounding of a sum such as 0.9 + 0.1.
        if self.masked + self.replaced > 1.0 + 1e-12 {
            return Err(Error::setting("masked + replaced", "at most 1", self.masked + self.replaced));
        }
        Ok(())
    }

    /// Hides tokens in `ids` and returns what stood there, [`IGNORED`] at every other position.
    ///
    /// Each token is chosen by itself. When none is, one is drawn, so that no sequence is without a loss; a sequence of
    /// nothing but special tokens stays as it is. For [validated](Self::validate) settings and a vocabulary of at least one
    /// token.
    pub(super) fn hide(
        &self,
        ids: &mut [u32],
        special: &SpecialTokens,
        vocabulary: usize,
        rng: &mut impl Rng,
    ) -> Vec<i64> {
        let candidates: Vec<_> = (0..ids.len()).filter(|&position| !special.contains(ids[position])).collect();
        let mut chosen: Vec<_> = candidates.iter().copied().filter(|_| rng.random_bool(self.chosen)).collect();
        if chosen.is_empty() && !candidates.is_empty() {
            chosen.push(candidates[below(candidates.len(), rng)]);
        }
        let mut labels = vec![IGNORED; ids.len()];
        for position in chosen {
            labels[position] = i64::from(ids[position]);
            let draw: f64 = rng.random();
            if draw < self.masked {
                ids[position] = special.mask;
            } else if draw < self.masked + self.replaced {
                // Ids are u32: a vocabulary has fewer than u32::MAX tokens.
                ids[position] = below(vocabulary, rng) as u32;
            }
        }
        labels
    }
}

/// A number below `end`, the same on machines of any word size.
pub(super) fn below(end: usize, rng: &mut impl Rng) -> usize {
    rng.random_range(0..end as u64) as usize
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Purpose, generator};
    use proptest::prelude::*;

    const SPECIAL: SpecialTokens = SpecialTokens { pad: 0, unknown: 1, cls: 2, sep: 3, mask: 4 };

    #[test]
    fn shares_are_those_asked_for() {
        let mut rng = generator(0, Purpose::Mask, 0);
        let (mut tokens, mut chosen, mut masked, mut replaced, mut kept) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for _ in 0..2000 {
            let before: Vec<u32> = [2].into_iter().chain((0..510).map(|i| 5 + i * 31 % 9995)).chain([3]).collect();
            let mut after = before.clone();
            let labels = Masking::default().hide(&mut after, &SPECIAL, 10_000, &mut rng);
            for ((&before, &after), &label) in before.iter().zip(&after).zip(&labels) {
                if before < 5 {
                    assert_eq!((after, label), (before, IGNORED));
                    continue;
                }
                tokens += 1.0;
                if label == IGNORED {
                    assert_eq!(after, before);
                    continue;
                }
                assert_eq!(label, i64::from(before));
                chosen += 1.0;
                *(if after == 4 {
                    &mut masked
                } else if after == before {
                    &mut kept
                } else {
                    &mut replaced
                }) += 1.0;
            }
        }
        // 1,020,000 tokens: a standard error of 0.0004 for the share chosen, of 0.0010 (0.0008) for those of the 153,000
        // chosen. The bounds are five of them. A replacement is the token itself once in 10,000.
        assert!((chosen / tokens - 0.15_f64).abs() < 0.002, "{}", chosen / tokens);
        assert!((masked / chosen - 0.8_f64).abs() < 0.005, "{}", masked / chosen);
        assert!((replaced / chosen - 0.1_f64).abs() < 0.004 && (kept / chosen - 0.1_f64).abs() < 0.004);
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let refused = |masking: Masking| masking.validate().unwrap_err().to_string();
        let plain = Masking::default();
        assert_eq!(refused(Masking { chosen: 0.0, ..plain }), "chosen is 0, expected in (0, 1]");
        assert_eq!(refused(Masking { chosen: f64::NAN, ..plain }), "chosen is NaN, expected in (0, 1]");
        assert_eq!(refused(Masking { replaced: -0.1, ..plain }), "replaced is -0.1, expected in [0, 1]");
        assert_eq!(refused(Masking { masked: 1.0, ..plain }), "masked + replaced is 1.1, expected at most 1");
    }

    proptest! {
        #[test]
        fn no_sequence_is_without_a_loss(length in 1_usize..6, seed: u64) {
            let mut ids = vec![2; 1];
            ids.extend((0..length as u32).map(|i| 5 + i));
            let labels = Masking::default().hide(&mut ids, &SPECIAL, 20, &mut generator(seed, Purpose::Mask, 0));
            prop_assert!(labels.iter().any(|label| *label != IGNORED));
            prop_assert_eq!(labels[0], IGNORED);
        }
    }
}
