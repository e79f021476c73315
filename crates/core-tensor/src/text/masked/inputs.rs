//! Inputs from tokenised documents.

use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::masking::below;
use crate::seed::{Purpose, generator};
use crate::text::{Encoded, TextError, WordPiece};
use crate::{Error, Result};

/// Whether the second text follows the first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextSentence {
    /// It does. Class 0, as in published checkpoints.
    Follows,
    /// It comes from another document. Class 1.
    Random,
}

/// One input, before anything is hidden in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PretrainingInput {
    /// The tokens.
    pub encoded: Encoded,
    /// Whether the second text follows the first; none when there is only one.
    pub next: Option<NextSentence>,
}

/// Packs every document's sentences into sequences of `most` tokens, special ones included: RoBERTa's `DOC-SENTENCES`
/// (Liu et al., arXiv 1907.11692, section 4.2). Sentences go on in the next sequence, documents do not.
///
/// `documents` are lists of sentences, which are lists of pieces.
///
/// # Errors
/// `most` below 3, or documents without a piece.
pub fn full_sequences(documents: &[Vec<Vec<u32>>], pieces: &WordPiece, most: usize) -> Result<Vec<PretrainingInput>> {
    if most < 3 {
        return Err(Error::setting("longest sequence", "at least 3, one token and the special ones", most));
    }
    let mut inputs = Vec::new();
    for document in documents {
        for chunk in document.concat().chunks(most - 2) {
            inputs.push(PretrainingInput { encoded: pieces.assemble(chunk.to_vec(), None, most)?, next: None });
        }
    }
    some(inputs)
}

/// How sentence pairs are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextSentenceConfig {
    /// Tokens of a pair at most, special ones included. BERT: 128, and 512 for the last tenth of the steps.
    pub most: usize,
    /// Chance that a pair is meant to be shorter, by a uniform draw. BERT: 0.1.
    pub short: f64,
    /// Chance that the second text comes from another document. BERT: 0.5.
    pub random: f64,
}

impl Default for NextSentenceConfig {
    /// Pairs of 128 tokens, one in ten shorter, half of them from two documents.
    fn default() -> Self {
        Self { most: 128, short: 0.1, random: 0.5 }
    }
}

impl NextSentenceConfig {
    /// # Errors
    /// No room for a token in each text, or a chance outside `[0, 1]`.
    pub fn validate(&self) -> Result<()> {
        if self.most < 5 {
            return Err(Error::setting("most", "at least 5, two tokens and the special ones", self.most));
        }
        for (setting, chance) in [("short", self.short), ("random", self.random)] {
            if !(0.0..=1.0).contains(&chance) {
                return Err(Error::setting(setting, "in [0, 1]", chance));
            }
        }
        Ok(())
    }
}

/// Draws pairs of texts as BERT's reference does: sentences of a document are gathered up to the wanted length and cut in
/// two after some of them; the second part stays, or is replaced by sentences of another document, and then goes back to be
/// gathered again. Pairs that are too long lose tokens of the longer text, in front or at the end. The length that is gathered up
/// to is drawn for each pair; the reference draws it once a document, so that short pairs come in whole documents there.
///
/// # Errors
/// A config out of range, fewer than two documents (a random sentence needs another one), or documents without a piece.
pub fn sentence_pairs(
    documents: &[Vec<Vec<u32>>],
    pieces: &WordPiece,
    config: &NextSentenceConfig,
    seed: u64,
) -> Result<Vec<PretrainingInput>> {
    config.validate()?;
    let solid = |document: &Vec<Vec<u32>>| -> Vec<Vec<u32>> {
        document.iter().filter(|sentence| !sentence.is_empty()).cloned().collect()
    };
    let documents: Vec<_> = documents.iter().map(solid).filter(|document| !document.is_empty()).collect();
    if documents.len() < 2 {
        return Err(Error::setting("documents", "at least 2 with a sentence", documents.len()));
    }
    let mut inputs = Vec::new();
    for number in 0..documents.len() {
        let mut rng = generator(seed, Purpose::Data, number as u64);
        pairs_of(&documents, number, pieces, config, &mut rng, &mut inputs)?;
    }
    inputs.shuffle(&mut generator(seed, Purpose::Data, documents.len() as u64));
    some(inputs)
}

fn pairs_of(
    documents: &[Vec<Vec<u32>>],
    number: usize,
    pieces: &WordPiece,
    config: &NextSentenceConfig,
    rng: &mut impl Rng,
    inputs: &mut Vec<PretrainingInput>,
) -> Result<()> {
    let document = &documents[number];
    let room = config.most - 3;
    let mut target = length(room, config.short, rng);
    let (mut chunk, mut gathered, mut at) = (Vec::<usize>::new(), 0, 0);
    while at < document.len() {
        chunk.push(at);
        gathered += document[at].len();
        if at + 1 == document.len() || gathered >= target {
            let first = if chunk.len() >= 2 { 1 + below(chunk.len() - 1, rng) } else { 1 };
            let mut a: Vec<u32> = chunk[..first].iter().flat_map(|&sentence| document[sentence].clone()).collect();
            let (mut b, next) = if chunk.len() == 1 || rng.random_bool(config.random) {
                // The sentences that are not used go back to be gathered again.
                at -= chunk.len() - first;
                (other(documents, number, target.saturating_sub(a.len()), rng), NextSentence::Random)
            } else {
                let rest = chunk[first..].iter().flat_map(|&sentence| document[sentence].clone());
                (rest.collect(), NextSentence::Follows)
            };
            cut(&mut a, &mut b, room, rng);
            let encoded = pieces.assemble(a, Some(b), config.most)?;
            inputs.push(PretrainingInput { encoded, next: Some(next) });
            (chunk, gathered) = (Vec::new(), 0);
            target = length(room, config.short, rng);
        }
        at += 1;
    }
    Ok(())
}

/// How long a pair is to be: all of the room, or sometimes any length from 2 on.
fn length(room: usize, short: f64, rng: &mut impl Rng) -> usize {
    if rng.random_bool(short) { 2 + below(room - 1, rng) } else { room }
}

/// Sentences of another document from a random one on, until they have `wanted` tokens; at least one.
fn other(documents: &[Vec<Vec<u32>>], number: usize, wanted: usize, rng: &mut impl Rng) -> Vec<u32> {
    let drawn = below(documents.len() - 1, rng);
    let document = &documents[drawn + usize::from(drawn >= number)];
    let mut found = Vec::new();
    for sentence in &document[below(document.len(), rng)..] {
        found.extend(sentence);
        if found.len() >= wanted {
            break;
        }
    }
    found
}

/// Takes single tokens off the longer text, in front or at the end, until both fit.
fn cut(a: &mut Vec<u32>, b: &mut Vec<u32>, room: usize, rng: &mut impl Rng) {
    let mut kept = [0..a.len(), 0..b.len()];
    while kept[0].len() + kept[1].len() > room {
        let longer = usize::from(kept[0].len() <= kept[1].len());
        if rng.random_bool(0.5) {
            kept[longer].start += 1;
        } else {
            kept[longer].end -= 1;
        }
    }
    for (text, kept) in [a, b].into_iter().zip(kept) {
        text.truncate(kept.end);
        drop(text.drain(..kept.start));
    }
}

fn some(inputs: Vec<PretrainingInput>) -> Result<Vec<PretrainingInput>> {
    if inputs.is_empty() {
        return Err(TextError::Empty { what: "the corpus".to_owned() }.into());
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Casing;
    use proptest::prelude::*;
    use rand::Rng;

    fn pieces() -> WordPiece {
        let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).to_vec();
        WordPiece::from_tokens(tokens, Casing::Lower, "special").unwrap()
    }

    /// Document d's sentences are runs of the numbers from 100 d on.
    fn documents(lengths: &[Vec<usize>]) -> Vec<Vec<Vec<u32>>> {
        let document = |(number, lengths): (usize, &Vec<usize>)| {
            let mut next = 100 * (number as u32 + 1);
            let sentence = |length: &usize| {
                (0..*length)
                    .map(|_| {
                        next += 1;
                        next - 1
                    })
                    .collect()
            };
            lengths.iter().map(sentence).collect()
        };
        lengths.iter().enumerate().map(document).collect()
    }

    fn parts(input: &PretrainingInput) -> (Vec<u32>, Vec<u32>) {
        let mut parts = input.encoded.ids[1..].split(|&id| id == 3).map(<[_]>::to_vec);
        (parts.next().unwrap(), parts.next().unwrap())
    }

    #[test]
    fn sequences_are_full_and_stay_in_their_document() {
        let made = full_sequences(&documents(&[vec![2, 3], vec![1]]), &pieces(), 5).unwrap();
        let ids: Vec<_> = made.iter().map(|input| input.encoded.ids.clone()).collect();
        assert_eq!(ids, [vec![2, 100, 101, 102, 3], vec![2, 103, 104, 3], vec![2, 200, 3]]);
        assert!(full_sequences(&[vec![vec![]]], &pieces(), 5).is_err());
        assert!(full_sequences(&[], &pieces(), 2).is_err());
    }

    #[test]
    fn half_of_the_pairs_are_random_and_from_another_document() {
        let made = sentence_pairs(
            &documents(&vec![vec![4; 20]; 300]),
            &pieces(),
            &NextSentenceConfig { most: 23, ..NextSentenceConfig::default() },
            0,
        )
        .unwrap();
        let mut random = 0.0;
        for input in &made {
            let (a, b) = parts(input);
            let same = a[0] / 100 == b[0] / 100;
            assert_eq!(input.next == Some(NextSentence::Follows), same);
            if same {
                // The next sentences, up to what was cut off in front of or behind either part.
                assert!(b[0] > *a.last().unwrap());
            } else {
                random += 1.0;
            }
        }
        // A pair of one gathered sentence is always random; short targets make some: 0.1 × 3/19 of the draws gather one
        // sentence of 4. Pairs of two documents give back half of their sentences, and the last chunk may be one sentence.
        // About 1,500 pairs: a standard error of 0.013.
        let share = random / made.len() as f64;
        assert!((0.48..0.60).contains(&share), "{share} of {}", made.len());
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let two = documents(&[vec![1], vec![1]]);
        let refused = |documents: &[Vec<Vec<u32>>], config| {
            sentence_pairs(documents, &pieces(), &config, 0).unwrap_err().to_string()
        };
        let plain = NextSentenceConfig::default();
        let found = refused(&two[..1], plain);
        assert_eq!(found, "documents is 1, expected at least 2 with a sentence");
        let found = refused(&two, NextSentenceConfig { most: 4, ..plain });
        assert_eq!(found, "most is 4, expected at least 5, two tokens and the special ones");
        let found = refused(&two, NextSentenceConfig { short: 1.5, ..plain });
        assert_eq!(found, "short is 1.5, expected in [0, 1]");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pairs_fit_and_use_every_document(
            lengths in prop::collection::vec(prop::collection::vec(1_usize..9, 1..6), 2..6), most in 5_usize..30, seed: u64,
        ) {
            let config = NextSentenceConfig { most, ..NextSentenceConfig::default() };
            let documents = documents(&lengths);
            let made = sentence_pairs(&documents, &pieces(), &config, seed).unwrap();
            for input in &made {
                let (a, b) = parts(input);
                prop_assert!(input.encoded.len() <= most && !a.is_empty() && !b.is_empty());
            }
            for number in 1..=documents.len() as u32 {
                prop_assert!(made.iter().any(|input| parts(input).0[0] / 100 == number));
            }
            prop_assert_eq!(made, sentence_pairs(&documents, &pieces(), &config, seed).unwrap());
        }

        #[test]
        fn cutting_is_taking_off_one_token_at_a_time(lengths in (0_u32..40, 0_u32..40), room in 0_usize..60, seed: u64) {
            let texts = || ((0..lengths.0).collect::<Vec<_>>(), (100..100 + lengths.1).collect::<Vec<_>>());
            let (mut a, mut b) = texts();
            cut(&mut a, &mut b, room, &mut generator(seed, Purpose::Order, 0));
            let (mut slow_a, mut slow_b) = texts();
            let rng = &mut generator(seed, Purpose::Order, 0);
            while slow_a.len() + slow_b.len() > room {
                let longer = if slow_a.len() > slow_b.len() { &mut slow_a } else { &mut slow_b };
                let at = if rng.random_bool(0.5) { 0 } else { longer.len() - 1 };
                longer.remove(at);
            }
            prop_assert_eq!((a, b), (slow_a, slow_b));
        }
    }
}
