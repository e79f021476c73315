//! Batches of sequences of similar length.

use std::sync::Arc;

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::{Encoded, TextError, TokenBatch};
use crate::data::{BatchSource, prefetch};
use crate::seed::{Purpose, generator};
use crate::{Error, Result};

/// One input of a set, and how several become a batch.
pub trait Example: Send + Sync + 'static {
    /// One step's worth of data.
    type Batch: Send + 'static;

    /// The tokens.
    fn encoded(&self) -> &Encoded;

    /// A batch of `examples`, whose tokens are already padded in `input`; `index` are their positions in the set.
    fn collate(examples: &[&Self], input: TokenBatch, index: Vec<usize>) -> Self::Batch;
}

/// How a [`TokenLoader`] walks through a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenLoaderConfig {
    /// Sequences a batch, at least 1. BERT is fine-tuned with 32 (Devlin et al., arXiv 1810.04805, appendix A.3).
    pub batch_size: usize,
    /// A new order every epoch, drawn from the seed; otherwise the set's own order.
    pub shuffle: bool,
    /// Leaves out the last batch of an epoch when it is smaller than the others.
    pub drop_last: bool,
    /// Batches whose sequences are sorted by length together, at least 1. 1 leaves the order as it is drawn; more brings
    /// sequences of similar length together, so that less padding is computed. Hugging Face's `group_by_length` uses 50.
    pub pool: usize,
    /// Pads every batch to at least this many tokens; 0 pads each to its longest sequence.
    #[serde(default)]
    pub least_tokens: usize,
    /// Batches prepared ahead; 0 prepares each when it is asked for. Changes the time taken and nothing else.
    #[serde(default = "two")]
    pub prefetch: usize,
}

impl TokenLoaderConfig {
    /// Shuffled, every sequence once an epoch, 50 batches sorted together.
    pub fn training(batch_size: usize) -> Self {
        Self { batch_size, shuffle: true, drop_last: false, pool: 50, least_tokens: 0, prefetch: two() }
    }

    /// Every sequence once, not shuffled, 50 batches sorted together: look at a batch's `index` for the order.
    pub fn evaluation(batch_size: usize) -> Self {
        Self { shuffle: false, ..Self::training(batch_size) }
    }

    /// # Errors
    /// A batch size or a pool of 0.
    pub fn validate(&self) -> Result<()> {
        for (setting, value) in [("batch_size", self.batch_size), ("pool", self.pool)] {
            if value == 0 {
                return Err(Error::setting(setting, "at least 1", 0));
            }
        }
        Ok(())
    }

    /// Batches of an epoch over `len` sequences.
    pub(super) fn batches(&self, len: usize) -> usize {
        if self.drop_last { len / self.batch_size } else { len.div_ceil(self.batch_size) }
    }

    /// The positions of each batch of an epoch, from a generator that is the epoch's own.
    pub(super) fn plan(
        &self,
        len: usize,
        length: impl Fn(usize) -> usize,
        rng: &mut impl rand::Rng,
    ) -> Vec<Vec<usize>> {
        let mut order: Vec<_> = (0..len).collect();
        if self.shuffle {
            order.shuffle(rng);
        }
        // Left out before sorting: afterwards it would always be the longest.
        order.truncate(self.batches(len).saturating_mul(self.batch_size));
        for pool in order.chunks_mut(self.batch_size.saturating_mul(self.pool)) {
            if self.pool > 1 {
                pool.sort_by_key(|&position| length(position));
            }
        }
        let mut batches: Vec<_> = order.chunks(self.batch_size).map(<[_]>::to_vec).collect();
        if self.shuffle && self.pool > 1 {
            batches.shuffle(rng);
        }
        batches
    }
}

/// The batches of a tokenised set: shuffled, of similar length, padded and prefetched.
///
/// The same seed and epoch give the same batches.
///
/// ```
/// use core_tensor::data::BatchSource;
/// use core_tensor::text::{Casing, Label, Labelled, TokenLoader, TokenLoaderConfig, WordPiece};
///
/// let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "##ly"];
/// let pieces = WordPiece::from_tokens(tokens.map(str::to_owned).to_vec(), Casing::Lower, "example")?;
/// let labelled = |text, class| -> core_tensor::Result<_> {
///     Ok(Labelled { encoded: pieces.encode(text, 16)?, label: Label::Class(class) })
/// };
/// let set = vec![labelled("Good", 1)?, labelled("badly bad", 0)?, labelled("bad", 0)?];
/// let loader = TokenLoader::new(set, pieces.special().pad, TokenLoaderConfig::training(2), 0)?;
/// assert_eq!(loader.batches_per_epoch(), 2);
/// for batch in loader.epoch(0)? {
///     let batch = batch?;
///     assert_eq!(batch.input.len(), batch.target.size()[0]);
/// }
/// # Ok::<(), core_tensor::Error>(())
/// ```
#[derive(Debug)]
pub struct TokenLoader<E> {
    examples: Arc<Vec<E>>,
    pad: u32,
    config: TokenLoaderConfig,
    seed: u64,
}

impl<E: Example> TokenLoader<E> {
    /// `pad` is the vocabulary's padding token, `seed` fixes the order.
    ///
    /// # Errors
    /// A config out of range, a set without a sequence, an epoch without a batch, or a sequence with another number of
    /// types than of tokens.
    pub fn new(examples: impl Into<Arc<Vec<E>>>, pad: u32, config: TokenLoaderConfig, seed: u64) -> Result<Self> {
        config.validate()?;
        let examples = examples.into();
        if examples.is_empty() {
            return Err(TextError::Empty { what: "the set of sequences".to_owned() }.into());
        }
        if config.batches(examples.len()) == 0 {
            let expected = format!("at most the set's {} sequences", examples.len());
            return Err(Error::setting("batch_size", expected, config.batch_size));
        }
        for (position, example) in examples.iter().enumerate() {
            // Which embeddings will look the tokens up is not known here.
            example.encoded().check(position, usize::MAX, usize::MAX)?;
        }
        Ok(Self { examples, pad, config, seed })
    }

    /// The sequences it reads.
    pub fn examples(&self) -> &[E] {
        &self.examples
    }

    /// How it walks through them.
    pub fn config(&self) -> &TokenLoaderConfig {
        &self.config
    }

    /// Share of an epoch's tokens that is padding, in `[0, 1)`.
    pub fn padding(&self, epoch: u64) -> f64 {
        let (mut real, mut all) = (0, 0);
        for batch in self.plan(epoch) {
            let lengths = batch.iter().map(|&position| self.examples[position].encoded().len());
            all += batch.len() * lengths.clone().max().unwrap_or(0).max(self.config.least_tokens);
            real += lengths.sum::<usize>();
        }
        1.0 - real as f64 / all as f64
    }

    fn plan(&self, epoch: u64) -> Vec<Vec<usize>> {
        let mut rng = generator(self.seed, Purpose::Order, epoch);
        self.config.plan(self.examples.len(), |position| self.examples[position].encoded().len(), &mut rng)
    }
}

impl<E: Example> BatchSource for TokenLoader<E> {
    type Batch = E::Batch;

    fn batches_per_epoch(&self) -> u64 {
        self.config.batches(self.examples.len()) as u64
    }

    fn epoch(&self, epoch: u64) -> Result<Box<dyn Iterator<Item = Result<E::Batch>> + '_>> {
        let (examples, pad, least) = (self.examples.clone(), self.pad, self.config.least_tokens);
        let work = self.plan(epoch).into_iter().map(move |index| {
            let chosen: Vec<_> = index.iter().map(|&position| &examples[position]).collect();
            let sequences: Vec<_> = chosen.iter().map(|example| example.encoded()).collect();
            Ok(E::collate(&chosen, TokenBatch::pad(&sequences, pad, least), index))
        });
        prefetch(self.config.prefetch, work).map(|batches| batches as _)
    }
}

fn two() -> usize {
    2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Label, Labelled};
    use proptest::prelude::*;

    fn set(lengths: &[usize]) -> Vec<Labelled> {
        lengths
            .iter()
            .map(|&length| Labelled {
                encoded: Encoded { ids: vec![7; length], types: vec![0; length] },
                label: Label::Class(length as i64),
            })
            .collect()
    }

    fn loader(lengths: &[usize], config: TokenLoaderConfig) -> TokenLoader<Labelled> {
        TokenLoader::new(set(lengths), 0, config, 3).unwrap()
    }

    fn indices(loader: &TokenLoader<Labelled>, epoch: u64) -> Vec<Vec<usize>> {
        loader.epoch(epoch).unwrap().map(|batch| batch.unwrap().index).collect()
    }

    #[test]
    fn pools_bring_similar_lengths_together() {
        let lengths: Vec<_> = (0..64).map(|position| 1 + position * 37 % 64).collect();
        let pooled = loader(&lengths, TokenLoaderConfig { pool: 16, ..TokenLoaderConfig::training(4) });
        let plain = loader(&lengths, TokenLoaderConfig { pool: 1, ..TokenLoaderConfig::training(4) });
        // One pool of all 64: batch b holds the lengths 4b + 1 to 4b + 4, so each row wastes 0, 1, 2 or 3 of 4b + 4.
        let expected = 1.0 - (64.0 * 65.0 / 2.0) / (4.0 * (4.0 * 16.0 * 17.0 / 2.0));
        assert!((pooled.padding(0) - expected).abs() < 1e-12, "{} {expected}", pooled.padding(0));
        assert!(plain.padding(0) > 4.0 * expected, "{}", plain.padding(0));
    }

    #[test]
    fn an_evaluation_comes_in_the_order_of_length_and_says_where_it_was() {
        let loader = loader(&[5, 1, 4, 2], TokenLoaderConfig::evaluation(2));
        assert_eq!(indices(&loader, 0), [[1, 3], [2, 0]]);
        assert_eq!(indices(&loader, 9), [[1, 3], [2, 0]]);
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let refused = |lengths: &[usize], config| TokenLoader::new(set(lengths), 0, config, 0).unwrap_err().to_string();
        let training = TokenLoaderConfig::training;
        assert_eq!(refused(&[1], training(0)), "batch_size is 0, expected at least 1");
        assert_eq!(refused(&[1], TokenLoaderConfig { pool: 0, ..training(1) }), "pool is 0, expected at least 1");
        assert_eq!(refused(&[], training(1)), "the set of sequences is empty");
        let found = refused(&[1], TokenLoaderConfig { drop_last: true, ..training(2) });
        assert_eq!(found, "batch_size is 2, expected at most the set's 1 sequences");
    }

    #[test]
    fn a_sequence_without_a_type_for_every_token_is_refused_rather_than_padded_over() {
        let mut sequences = set(&[2, 3]);
        sequences[1].encoded = Encoded { ids: vec![7; 3], ..Encoded::default() };
        let refused = TokenLoader::new(sequences, 0, TokenLoaderConfig::training(1), 0).unwrap_err().to_string();
        assert_eq!(refused, "sequence 1: 3 tokens, but types for 0");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn an_epoch_visits_every_sequence_once(
            lengths in prop::collection::vec(1_usize..30, 1..60), batch in 1_usize..9, pool in 1_usize..5,
            shuffle: bool, ahead in 0_usize..3, epoch in 0_u64..5,
        ) {
            let config = TokenLoaderConfig { batch_size: batch, shuffle, drop_last: false, pool, least_tokens: 0, prefetch: ahead };
            let loader = loader(&lengths, config);
            let batches = indices(&loader, epoch);
            prop_assert_eq!(batches.len() as u64, loader.batches_per_epoch());
            prop_assert_eq!(&batches, &indices(&loader, epoch));
            let mut seen = batches.concat();
            seen.sort_unstable();
            prop_assert!(seen.into_iter().eq(0..lengths.len()));
        }
    }
}
