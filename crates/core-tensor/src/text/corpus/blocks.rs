//! A stream of tokens as inputs and next tokens.

use std::sync::Arc;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::data::{BatchSource, ToDevice};
use crate::seed::{Purpose, generator};
use crate::{Error, Result};

/// How a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockConfig {
    /// Blocks a batch.
    pub batch_size: usize,
    /// Tokens of a block at most. The language models of WikiText-2 by Merity et al. (arXiv 1708.02182) are trained with 70.
    pub tokens: usize,
    /// Draws the order of the blocks anew every epoch. Otherwise the stream is cut into `batch_size` parts, and each block of
    /// a batch goes on where the same row of the batch before ended, as recurrent networks need.
    pub shuffle: bool,
}

impl BlockConfig {
    /// # Errors
    /// A size of 0.
    pub fn validate(&self) -> Result<()> {
        for (setting, value) in [("batch_size", self.batch_size), ("tokens", self.tokens)] {
            if value == 0 {
                return Err(Error::setting(setting, "at least 1", 0));
            }
        }
        Ok(())
    }
}

/// Tokens, and the token that follows each.
#[derive(Debug)]
pub struct LanguageBatch {
    /// `[batch, tokens]`, `i64`.
    pub input: Tensor,
    /// `[batch, tokens]`, `i64`: `input` one token later.
    pub target: Tensor,
}

impl ToDevice for LanguageBatch {
    fn to_device(self, device: Device) -> Self {
        Self { input: self.input.to_device(device), target: self.target.to_device(device) }
    }
}

/// The blocks of a tokenised text, for causal language models.
///
/// ```
/// use core_tensor::data::BatchSource;
/// use core_tensor::text::corpus::{BlockConfig, LanguageBlocks};
///
/// let config = BlockConfig { batch_size: 2, tokens: 2, shuffle: false };
/// let blocks = LanguageBlocks::new((0..9).collect::<Vec<u32>>(), config, 0)?;
/// let first = blocks.epoch(0)?.next().unwrap()?;
/// assert_eq!(Vec::<Vec<i64>>::try_from(first.input)?, [[0, 1], [4, 5]]);
/// assert_eq!(Vec::<Vec<i64>>::try_from(first.target)?, [[1, 2], [5, 6]]);
/// # Ok::<(), core_tensor::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LanguageBlocks {
    ids: Arc<Vec<u32>>,
    config: BlockConfig,
    seed: u64,
}

impl LanguageBlocks {
    /// Every token but the last is an input once an epoch, up to what does not fill `batch_size` equal parts (or, shuffled,
    /// whole batches of blocks).
    ///
    /// # Errors
    /// A size of 0, or fewer tokens than one batch needs.
    pub fn new(ids: impl Into<Arc<Vec<u32>>>, config: BlockConfig, seed: u64) -> Result<Self> {
        config.validate()?;
        let blocks = Self { ids: ids.into(), config, seed };
        if blocks.batches_per_epoch() == 0 {
            let expected = format!("few enough for the stream's {} tokens", blocks.ids.len());
            return Err(Error::setting("batch_size", expected, config.batch_size));
        }
        Ok(blocks)
    }

    /// Tokens of each of the parts that the rows of a batch walk through.
    fn part(&self) -> usize {
        self.ids.len().saturating_sub(1) / self.config.batch_size
    }

    /// Where each row of each batch starts, and how many tokens it has.
    fn plan(&self, epoch: u64) -> Vec<(Vec<usize>, usize)> {
        let BlockConfig { batch_size, tokens, shuffle } = self.config;
        if shuffle {
            let mut starts: Vec<_> =
                (0..self.ids.len().saturating_sub(1) / tokens).map(|block| block * tokens).collect();
            starts.shuffle(&mut generator(self.seed, Purpose::Order, epoch));
            return starts.chunks_exact(batch_size).map(|rows| (rows.to_vec(), tokens)).collect();
        }
        let part = self.part();
        let at = |start: usize| ((0..batch_size).map(|row| row * part + start).collect(), tokens.min(part - start));
        (0..part).step_by(tokens).map(at).collect()
    }
}

impl BatchSource for LanguageBlocks {
    type Batch = LanguageBatch;

    fn batches_per_epoch(&self) -> u64 {
        let BlockConfig { batch_size, tokens, shuffle } = self.config;
        let usable = self.ids.len().saturating_sub(1);
        (if shuffle { usable / tokens / batch_size } else { self.part().div_ceil(tokens) }) as u64
    }

    fn epoch(&self, epoch: u64) -> Result<Box<dyn Iterator<Item = Result<LanguageBatch>> + '_>> {
        let batch = |(starts, tokens): (Vec<usize>, usize)| {
            let rows = |shift: usize| {
                let row =
                    |start: &usize| self.ids[start + shift..start + shift + tokens].iter().map(|&id| i64::from(id));
                let values: Vec<_> = starts.iter().flat_map(row).collect();
                // Allocations stop far below i64::MAX.
                Tensor::from_slice(&values).view([starts.len() as i64, tokens as i64])
            };
            Ok(LanguageBatch { input: rows(0), target: rows(1) })
        };
        Ok(Box::new(self.plan(epoch).into_iter().map(batch)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(tensor: Tensor) -> Vec<Vec<i64>> {
        tensor.try_into().unwrap()
    }

    #[test]
    fn rows_go_on_from_batch_to_batch() {
        let config = BlockConfig { batch_size: 2, tokens: 3, shuffle: false };
        let blocks = LanguageBlocks::new((0..12).collect::<Vec<u32>>(), config, 0).unwrap();
        let inputs: Vec<_> = blocks.epoch(0).unwrap().map(|batch| rows(batch.unwrap().input)).collect();
        // 11 usable tokens, two parts of 5; the last block is shorter.
        assert_eq!(inputs, [vec![vec![0, 1, 2], vec![5, 6, 7]], vec![vec![3, 4], vec![8, 9]]]);
        assert_eq!(blocks.batches_per_epoch(), 2);
    }

    #[test]
    fn too_short_a_stream_is_refused() {
        let refused =
            |tokens: u32, config| LanguageBlocks::new((0..tokens).collect::<Vec<_>>(), config, 0).unwrap_err();
        let config = BlockConfig { batch_size: 4, tokens: 2, shuffle: false };
        let expected = "batch_size is 4, expected few enough for the stream's 4 tokens";
        assert_eq!(refused(4, config).to_string(), expected);
        assert_eq!(refused(4, BlockConfig { tokens: 0, ..config }).to_string(), "tokens is 0, expected at least 1");
        refused(8, BlockConfig { shuffle: true, ..config });
        refused(0, config);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_target_follows_its_input_and_no_input_comes_twice(
            count in 2_usize..80, batch_size in 1_usize..5, tokens in 1_usize..9, shuffle: bool, epoch in 0_u64..3,
        ) {
            let config = BlockConfig { batch_size, tokens, shuffle };
            let made = LanguageBlocks::new((0..count as u32).collect::<Vec<_>>(), config, 1);
            prop_assume!(made.is_ok());
            let blocks = made.unwrap();
            let mut seen = Vec::new();
            let mut batches = 0;
            for batch in blocks.epoch(epoch).unwrap() {
                let batch = batch.unwrap();
                let (input, target) = (rows(batch.input).concat(), rows(batch.target).concat());
                prop_assert!(input.iter().zip(&target).all(|(input, target)| input + 1 == *target));
                seen.extend(input);
                batches += 1;
            }
            prop_assert_eq!(batches, blocks.batches_per_epoch());
            let visited = seen.len();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), visited);
            // What is left out is less than a batch of blocks.
            prop_assert!(count - 1 - visited < batch_size * tokens);
        }
    }
}
