//! Batches of masked inputs.

use std::sync::Arc;

use rand::seq::SliceRandom;
use tch::{Device, Tensor};

use super::{IGNORED, Masking, NextSentence, PretrainingInput, Shards};
use crate::data::{BatchSource, ToDevice, prefetch, until_failure};
use crate::seed::{Purpose, derive, generator};
use crate::text::{Encoded, SpecialTokens, TextError, TokenBatch, TokenLoaderConfig, WordPiece};
use crate::{Error, Result};

/// Inputs with tokens hidden in them.
#[derive(Debug)]
pub struct MaskedBatch {
    /// What the network sees.
    pub input: TokenBatch,
    /// `[batch, tokens]`, `i64`: what stood at the hidden places, [`IGNORED`] everywhere else.
    pub labels: Tensor,
    /// `[batch]`, `i64`: 0 when the second text follows the first, 1 when it is random; none when an input has one text.
    pub next: Option<Tensor>,
    /// Positions of the inputs among those that the loader reads.
    pub index: Vec<usize>,
}

impl ToDevice for MaskedBatch {
    fn to_device(self, device: Device) -> Self {
        let Self { input, labels, next, index } = self;
        let next = next.map(|next| next.to_device(device));
        Self { input: input.to_device(device), labels: labels.to_device(device), next, index }
    }
}

/// The batches of a corpus for masked language models, from memory or from [`Shards`].
///
/// Shards are visited in an order drawn anew every epoch, and shuffled and batched one by one; one that cannot be read ends the
/// epoch. What is hidden depends on the
/// seed, the epoch and the input's position alone.
#[derive(Debug, Clone)]
pub struct MaskedLoader {
    source: Source,
    special: SpecialTokens,
    vocabulary: usize,
    masking: Masking,
    config: TokenLoaderConfig,
    seed: u64,
}

#[derive(Debug, Clone)]
enum Source {
    Memory(Arc<Vec<PretrainingInput>>),
    Shards(Shards),
}

impl MaskedLoader {
    /// Inputs in memory.
    ///
    /// # Errors
    /// A config out of range, no input, an id outside the vocabulary, or an epoch without a batch.
    pub fn new(
        inputs: impl Into<Arc<Vec<PretrainingInput>>>,
        pieces: &WordPiece,
        masking: Masking,
        config: TokenLoaderConfig,
        seed: u64,
    ) -> Result<Self> {
        let inputs = inputs.into();
        for (position, input) in inputs.iter().enumerate() {
            input.encoded.check(position, pieces.len(), usize::MAX)?;
        }
        Self::of(Source::Memory(inputs), pieces, masking, config, seed)
    }

    /// Inputs on disk, one shard in memory at a time (and another one that is being prepared).
    ///
    /// # Errors
    /// A config out of range, shards of a vocabulary of another size, or an epoch without a batch.
    pub fn from_shards(
        shards: Shards,
        pieces: &WordPiece,
        masking: Masking,
        config: TokenLoaderConfig,
        seed: u64,
    ) -> Result<Self> {
        if shards.vocabulary() != pieces.len() {
            return Err(TextError::Vocabulary { tokens: pieces.len(), rows: shards.vocabulary() }.into());
        }
        Self::of(Source::Shards(shards), pieces, masking, config, seed)
    }

    fn of(source: Source, pieces: &WordPiece, masking: Masking, config: TokenLoaderConfig, seed: u64) -> Result<Self> {
        masking.validate()?;
        config.validate()?;
        let (special, vocabulary) = (pieces.special(), pieces.len());
        let loader = Self { source, special, vocabulary, masking, config, seed };
        if loader.batches_per_epoch() == 0 {
            let expected =
                format!("at most the {} inputs of a shard", loader.source.counts().into_iter().max().unwrap_or(0));
            return Err(Error::setting("batch_size", expected, config.batch_size));
        }
        Ok(loader)
    }
}

impl Source {
    /// Inputs of each shard.
    fn counts(&self) -> Vec<usize> {
        match self {
            Self::Memory(inputs) => vec![inputs.len()],
            Self::Shards(shards) => shards.counts(),
        }
    }

    fn read(&self, shard: usize) -> Result<Arc<Vec<PretrainingInput>>> {
        match self {
            Self::Memory(inputs) => Ok(inputs.clone()),
            Self::Shards(shards) => shards.read(shard).map(Arc::new),
        }
    }
}

impl BatchSource for MaskedLoader {
    type Batch = MaskedBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.source.counts().into_iter().map(|count| self.config.batches(count) as u64).sum()
    }

    fn epoch(&self, epoch: u64) -> Result<Box<dyn Iterator<Item = Result<MaskedBatch>> + '_>> {
        let counts = self.source.counts();
        let mut order: Vec<_> = (0..counts.len()).collect();
        if self.config.shuffle {
            order.shuffle(&mut generator(self.seed, Purpose::Order, epoch));
        }
        let this = self.clone();
        let batches =
            order.into_iter().flat_map(move |shard| -> Box<dyn Iterator<Item = Result<MaskedBatch>> + Send> {
                let inputs = match this.source.read(shard) {
                    Ok(inputs) => inputs,
                    Err(error) => return Box::new(std::iter::once(Err(error))),
                };
                let mut rng = generator(derive(this.seed, Purpose::Order, epoch), Purpose::Order, shard as u64);
                let plan = this.config.plan(inputs.len(), |position| inputs[position].encoded.len(), &mut rng);
                let before = counts[..shard].iter().sum();
                let this = this.clone();
                Box::new(plan.into_iter().map(move |index| Ok(this.batch(&inputs, before, index, epoch))))
            });
        prefetch(self.config.prefetch, until_failure(batches)).map(|batches| batches as _)
    }
}

impl MaskedLoader {
    /// `before`: inputs in the shards before this one.
    fn batch(&self, inputs: &[PretrainingInput], before: usize, index: Vec<usize>, epoch: u64) -> MaskedBatch {
        let draw = derive(self.seed, Purpose::Mask, if self.masking.dynamic { epoch } else { 0 });
        let hide = |&position: &usize| {
            let Encoded { mut ids, types } = inputs[position].encoded.clone();
            let mut rng = generator(draw, Purpose::Mask, (before + position) as u64);
            let labels = self.masking.hide(&mut ids, &self.special, self.vocabulary, &mut rng);
            (Encoded { ids, types }, labels)
        };
        let (hidden, labels): (Vec<_>, Vec<_>) = index.iter().map(hide).unzip();
        let input = TokenBatch::pad(&hidden.iter().collect::<Vec<_>>(), self.special.pad, self.config.least_tokens);
        // Never negative.
        let longest = input.tokens() as usize;
        let padded = labels.into_iter().flat_map(|mut labels| {
            labels.resize(longest, IGNORED);
            labels
        });
        let labels = Tensor::from_slice(&padded.collect::<Vec<_>>()).view(input.ids.size().as_slice());
        let next: Option<Vec<i64>> = index
            .iter()
            .map(|&position| inputs[position].next.map(|next| i64::from(next == NextSentence::Random)))
            .collect();
        let next = next.map(|next| Tensor::from_slice(&next));
        MaskedBatch { input, labels, next, index: index.into_iter().map(|position| before + position).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Casing;
    use crate::text::masked::write_shards;
    use tch::Kind;

    fn pieces(size: u32) -> WordPiece {
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].into_iter().map(str::to_owned);
        let tokens = special.chain((5..size).map(|id| format!("w{id}"))).collect();
        WordPiece::from_tokens(tokens, Casing::Lower, "words").unwrap()
    }

    fn inputs(count: u32) -> Vec<PretrainingInput> {
        let input = |number: u32| PretrainingInput {
            encoded: Encoded {
                ids: [2].into_iter().chain((0..2 + number % 7).map(|id| 5 + (id + number) % 90)).chain([3]).collect(),
                types: vec![0; 4 + number as usize % 7],
            },
            next: number.is_multiple_of(2).then_some(NextSentence::Random),
        };
        (0..count).map(input).collect()
    }

    fn rows(tensor: &Tensor) -> Vec<Vec<i64>> {
        tensor.to_kind(Kind::Int64).try_into().unwrap()
    }

    fn all(loader: &MaskedLoader, epoch: u64) -> Vec<(usize, Vec<i64>, Vec<i64>)> {
        let mut all = Vec::new();
        for batch in loader.epoch(epoch).unwrap() {
            let batch = batch.unwrap();
            for ((position, ids), labels) in batch.index.iter().zip(rows(&batch.input.ids)).zip(rows(&batch.labels)) {
                all.push((*position, ids, labels));
            }
        }
        all
    }

    #[test]
    fn labels_and_inputs_together_are_the_text() {
        let texts = inputs(40);
        let config = TokenLoaderConfig::training(8);
        let loader = MaskedLoader::new(texts.clone(), &pieces(100), Masking::default(), config, 5).unwrap();
        let mut seen = Vec::new();
        for (position, ids, labels) in all(&loader, 0) {
            let text = &texts[position].encoded.ids;
            for (column, (&id, &label)) in ids.iter().zip(&labels).enumerate() {
                let there = text.get(column).map_or(0, |&id| i64::from(id));
                assert_eq!(if label == IGNORED { id } else { label }, there);
            }
            seen.push(position);
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..40));
    }

    #[test]
    fn masks_change_with_the_epoch_only_when_they_are_dynamic() {
        let hidden = |dynamic, epoch| {
            let masking = Masking { dynamic, ..Masking::default() };
            let config = TokenLoaderConfig::evaluation(8);
            all(&MaskedLoader::new(inputs(40), &pieces(100), masking, config, 5).unwrap(), epoch)
        };
        assert_eq!(hidden(true, 3), hidden(true, 3));
        assert_ne!(hidden(true, 3), hidden(true, 4));
        assert_eq!(hidden(false, 3), hidden(false, 4));
    }

    #[test]
    fn shards_hide_what_memory_hides() {
        let folder = tempfile::tempdir().unwrap();
        let shards = write_shards(folder.path(), inputs(21).into_iter(), 8, 100).unwrap();
        let config = TokenLoaderConfig { least_tokens: 10, ..TokenLoaderConfig::training(4) };
        let masking = Masking::default();
        let on_disk = MaskedLoader::from_shards(shards.clone(), &pieces(100), masking, config, 5).unwrap();
        let in_memory = MaskedLoader::new(inputs(21), &pieces(100), masking, config, 5).unwrap();
        // 8, 8 and 5 inputs: 2 + 2 + 2 batches of at most 4.
        assert_eq!((on_disk.batches_per_epoch(), in_memory.batches_per_epoch()), (6, 6));
        let sorted = |loader| {
            let mut found = all(loader, 2);
            found.sort();
            found
        };
        assert_eq!(sorted(&on_disk), sorted(&in_memory));
        let error = MaskedLoader::from_shards(shards, &pieces(99), masking, config, 5).unwrap_err().to_string();
        assert_eq!(error, "the vocabulary has 99 tokens, the embedding 100 rows");
    }

    #[test]
    fn a_shard_that_cannot_be_read_ends_the_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let shards = write_shards(folder.path(), inputs(24).into_iter(), 8, 100).unwrap();
        let config = TokenLoaderConfig { shuffle: false, ..TokenLoaderConfig::training(4) };
        let loader = MaskedLoader::from_shards(shards, &pieces(100), Masking::default(), config, 5).unwrap();
        std::fs::remove_file(folder.path().join("inputs-00001.safetensors")).unwrap();
        let batches: Vec<_> = loader.epoch(0).unwrap().map(|batch| batch.is_ok()).collect();
        assert_eq!(batches, [true, true, false]);
    }

    #[test]
    fn next_sentences_are_there_when_every_input_has_two_texts() {
        let all = inputs(8);
        let loader = |inputs: Vec<PretrainingInput>| {
            MaskedLoader::new(inputs, &pieces(100), Masking::default(), TokenLoaderConfig::training(8), 0).unwrap()
        };
        assert!(loader(all.clone()).epoch(0).unwrap().next().unwrap().unwrap().next.is_none());
        let two: Vec<_> = all.into_iter().filter(|input| input.next.is_some()).collect();
        let next = loader(two).epoch(0).unwrap().next().unwrap().unwrap().next.unwrap();
        assert_eq!(Vec::<i64>::try_from(next).unwrap(), [1; 4]);
    }

    #[test]
    fn ids_outside_the_vocabulary_and_empty_epochs_are_refused() {
        let refused = |inputs, pieces: &WordPiece, config| {
            MaskedLoader::new(inputs, pieces, Masking::default(), config, 0).unwrap_err().to_string()
        };
        let found = refused(inputs(40), &pieces(20), TokenLoaderConfig::training(8));
        assert!(found.contains("but the embedding has 20 rows"), "{found}");
        let config = TokenLoaderConfig { drop_last: true, ..TokenLoaderConfig::training(9) };
        let found = refused(inputs(8), &pieces(100), config);
        assert_eq!(found, "batch_size is 9, expected at most the 8 inputs of a shard");
    }
}
