//! Whole words as tokens, as language models of WikiText are compared with.

use std::collections::HashMap;

use crate::Result;
use crate::text::TextError;

/// The token that ends a line.
const END: &str = "<eos>";
/// The token of a word that is not in the vocabulary; WikiText already spells rare words so.
const UNKNOWN: &str = "<unk>";

/// The words of a text, the most frequent first.
///
/// Words are what spaces separate, and every line ends with `<eos>`, which is how perplexities of WikiText are counted.
///
/// ```
/// use core_tensor::text::corpus::WordVocabulary;
/// let words = WordVocabulary::of("the cat\nthe <unk>", 1)?;
/// assert_eq!(words.words(), ["<eos>", "the", "<unk>", "cat"]);
/// assert_eq!(words.ids("the dog"), [1, 2, 0]);
/// # Ok::<(), core_tensor::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordVocabulary {
    words: Vec<String>,
    ids: HashMap<String, u32>,
    unknown: u32,
}

impl WordVocabulary {
    /// The words that `text` has at least `least` times, by count and then by alphabet.
    ///
    /// # Errors
    /// A text without a word.
    pub fn of(text: &str, least: usize) -> Result<Self> {
        let mut counts = HashMap::<&str, usize>::new();
        for word in words(text) {
            *counts.entry(word).or_default() += 1;
        }
        counts.retain(|word, count| *count >= least || *word == END || *word == UNKNOWN);
        if counts.keys().all(|word| *word == END) {
            return Err(TextError::Empty { what: "the text to take words from".to_owned() }.into());
        }
        counts.entry(UNKNOWN).or_default();
        let mut ranked: Vec<_> = counts.into_iter().collect();
        ranked.sort_by_key(|&(word, count)| (std::cmp::Reverse(count), word));
        let words: Vec<_> = ranked.into_iter().map(|(word, _)| word.to_owned()).collect();
        // A text of more than u32::MAX distinct words does not fit in memory.
        let ids: HashMap<_, _> = words.iter().enumerate().map(|(id, word)| (word.clone(), id as u32)).collect();
        let unknown = ids[UNKNOWN];
        Ok(Self { words, ids, unknown })
    }

    /// The words; a word's id is its position.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The ids of a text's words and line ends; `<unk>`'s where a word is not known.
    pub fn ids(&self, text: &str) -> Vec<u32> {
        words(text).map(|word| self.ids.get(word).copied().unwrap_or(self.unknown)).collect()
    }
}

/// Words, and `<eos>` at the end of each line.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split_whitespace().chain([END]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_words_are_unknown() {
        let words = WordVocabulary::of("b a b\nc a b", 2).unwrap();
        // b 3, <eos> 2 and a 2 in the order of their characters, <unk> not seen.
        assert_eq!(words.words(), ["b", "<eos>", "a", "<unk>"]);
        assert_eq!(words.ids("c b\n\n"), [3, 0, 1, 1]);
        assert!(WordVocabulary::of("\n\n", 1).is_err());
    }
}
