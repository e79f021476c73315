//! A vocabulary of one's own.

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};
use tokenizers::models::wordpiece::{WordPiece as Model, WordPieceTrainer};
use tokenizers::{AddedToken, Model as _, Trainer};

use super::wordpiece::{SPECIAL, basic_words, normalizer};
use super::{Casing, TextError, WordPiece};
use crate::{Error, Result};

/// How a vocabulary is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VocabularyConfig {
    /// Tokens at most, special ones included. BERT's published vocabularies have about 30,000
    /// (Devlin et al., arXiv 1810.04805, section 3).
    pub size: usize,
    /// How often two neighbouring pieces must come to become one.
    pub least_count: u64,
    /// Characters at most that get a token; the rarest are left out and their words become `[UNK]`.
    pub alphabet: usize,
    /// What happens to letters.
    pub casing: Casing,
}

impl Default for VocabularyConfig {
    /// 30,522 tokens, pieces seen at least twice, 1,000 characters, lower case.
    fn default() -> Self {
        Self { size: 30_522, least_count: 2, alphabet: 1000, casing: Casing::Lower }
    }
}

impl VocabularyConfig {
    /// # Errors
    /// No room for a character beside the special tokens, or an empty alphabet.
    pub fn validate(&self) -> Result<()> {
        if self.size <= SPECIAL.len() {
            return Err(Error::setting("size", format!("more than the {} special tokens", SPECIAL.len()), self.size));
        }
        if self.alphabet == 0 {
            return Err(Error::setting("alphabet", "at least 1", 0));
        }
        Ok(())
    }
}

/// How often a character starts a word, and how often it goes on one.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    starts: u64,
    goes_on: u64,
}

impl WordPiece {
    /// Trains a vocabulary by joining the most frequent neighbours, on all of rayon's threads.
    ///
    /// The ids are: the five special tokens, every character that starts a word or stands anywhere, every `##` character,
    /// then pieces in the order in which they were joined. The same texts give the same vocabulary, in any order.
    ///
    /// # Errors
    /// A config out of range, texts without a word, or characters that alone are more than `size` tokens.
    pub fn train<T: AsRef<str> + Send>(
        texts: impl Iterator<Item = T> + Send,
        config: &VocabularyConfig,
    ) -> Result<Self> {
        config.validate()?;
        let normalizer = normalizer(config.casing);
        let seen = Mutex::new(BTreeMap::<char, Count>::new());
        let split = |text: &str| {
            let words = basic_words(&normalizer, text)?;
            let mut own = BTreeMap::<char, Count>::new();
            for word in &words {
                for (position, character) in word.chars().enumerate() {
                    let count = own.entry(character).or_default();
                    *(if position == 0 { &mut count.starts } else { &mut count.goes_on }) += 1;
                }
            }
            // A thread that panicked while it held the lock has ended the training already.
            let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            for (character, count) in own {
                let sum = seen.entry(character).or_default();
                (sum.starts, sum.goes_on) = (sum.starts + count.starts, sum.goes_on + count.goes_on);
            }
            Ok(words)
        };
        let mut trainer = WordPieceTrainer::builder()
            .show_progress(false)
            .vocab_size(config.size)
            .min_frequency(config.least_count)
            // Characters are given below instead: the trainer numbers `##` characters in the order of a hash map, and
            // joins of equal count are settled by these numbers, so that every training would give another vocabulary.
            .limit_alphabet(0)
            .build();
        trainer.feed(texts, split).map_err(TextError::tokenizer)?;
        let seen = seen.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.is_empty() {
            return Err(TextError::Empty { what: "the text to train a vocabulary on".to_owned() }.into());
        }
        let alphabet = alphabet(seen, config.alphabet);
        let given: Vec<_> = SPECIAL.map(str::to_owned).into_iter().chain(alphabet).collect();
        if given.len() > config.size {
            let expected = format!("at least {}, the special tokens and single characters", given.len());
            return Err(Error::setting("size", expected, config.size));
        }
        trainer.set_special_tokens(given.into_iter().map(|token| AddedToken::from(token, true)).collect());
        let mut model = Model::default();
        trainer.train(&mut model).map_err(TextError::tokenizer)?;
        let mut vocabulary: Vec<_> = model.get_vocab().into_iter().map(|(token, id)| (id, token)).collect();
        vocabulary.sort_unstable();
        let tokens = vocabulary.into_iter().map(|(_, token)| token).collect();
        Self::from_tokens(tokens, config.casing, "trained vocabulary")
    }
}

/// The tokens of the most frequent characters, rarer ones losing ties by code point: plain ones, then those that go on a word.
fn alphabet(seen: BTreeMap<char, Count>, most: usize) -> Vec<String> {
    let mut ranked: Vec<_> = seen.into_iter().collect();
    ranked.sort_by_key(|(character, count)| (std::cmp::Reverse(count.starts + count.goes_on), *character));
    ranked.truncate(most);
    ranked.sort_by_key(|(character, _)| *character);
    let plain = ranked.iter().map(|(character, _)| character.to_string());
    let going_on = ranked.iter().filter(|(_, count)| count.goes_on > 0).map(|(character, _)| format!("##{character}"));
    plain.chain(going_on).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(size: usize) -> VocabularyConfig {
        VocabularyConfig { size, ..VocabularyConfig::default() }
    }

    #[test]
    fn the_most_frequent_neighbours_are_joined_first() {
        // Neighbours: a ##b 3 times, c ##d twice, e ##f once. Only the first two come twice.
        let trained = WordPiece::train(["ab ab ab cd", "cd ef"].iter(), &config(100)).unwrap();
        let expected = [
            "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e", "f", "##b", "##d", "##f", "ab", "cd",
        ];
        assert_eq!(trained.tokens(&(0..trained.len() as u32).collect::<Vec<_>>()), expected);
        assert_eq!(trained.special().mask, 4);
    }

    #[test]
    fn the_order_of_texts_and_the_threads_change_nothing() {
        let texts: Vec<String> = (0..200_u32)
            .map(|text| format!("w{} {} {}", text * 7919 % 101, text * 104_729 % 997, text * 31 % 53))
            .collect();
        let train = |texts: &[String]| WordPiece::train(texts.iter(), &config(150)).unwrap();
        let tokens = |pieces: &WordPiece| pieces.tokens(&(0..pieces.len() as u32).collect::<Vec<_>>()).join(" ");
        let first = tokens(&train(&texts));
        let backwards: Vec<_> = texts.iter().rev().cloned().collect();
        for _ in 0..3 {
            assert_eq!(tokens(&train(&texts)), first);
            assert_eq!(tokens(&train(&backwards)), first);
        }
    }

    #[test]
    fn rare_characters_are_left_out_and_their_words_unknown() {
        let trained =
            WordPiece::train(["ab ab ab z"].iter(), &VocabularyConfig { alphabet: 2, ..config(100) }).unwrap();
        assert_eq!(trained.join(&trained.pieces("AB z").unwrap()), "ab [UNK]");
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let refused = |texts: &[&str], config| WordPiece::train(texts.iter(), &config).unwrap_err().to_string();
        assert_eq!(refused(&["a"], config(5)), "size is 5, expected more than the 5 special tokens");
        let found = refused(&["abc"], config(9));
        assert_eq!(found, "size is 9, expected at least 10, the special tokens and single characters");
        assert_eq!(refused(&["", " \n"], config(9)), "the text to train a vocabulary on is empty");
        let none = VocabularyConfig { alphabet: 0, ..config(9) };
        assert_eq!(refused(&["a"], none), "alphabet is 0, expected at least 1");
    }
}
