//! WordPiece (Schuster & Nakajima, 2012) as BERT uses it, through the `tokenizers` crate.

use std::io::Write;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tokenizers::decoders::wordpiece::WordPiece as Decoder;
use tokenizers::models::wordpiece::WordPiece as Model;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{
    AddedToken, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, TokenizerImpl,
};

use super::lines::{lines, read};
use super::{Encoded, Place, TextError};
use crate::checkpoint::write_atomically;
use crate::{Error, Result};

/// `[PAD]`, `[UNK]`, `[CLS]`, `[SEP]`, `[MASK]`, in the order a trained vocabulary starts with.
pub(super) const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// What happens to letters before they are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Casing {
    /// Lower case, accents removed, as `bert-base-uncased`.
    Lower,
    /// As they are, as `bert-base-cased`.
    Kept,
}

/// The ids of a vocabulary's special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// `[PAD]`: fills a batch.
    pub pad: u32,
    /// `[UNK]`: a word that the vocabulary cannot spell.
    pub unknown: u32,
    /// `[CLS]`: the place that stands for the whole input.
    pub cls: u32,
    /// `[SEP]`: ends a text.
    pub sep: u32,
    /// `[MASK]`: what a masked language model has to guess.
    pub mask: u32,
}

impl SpecialTokens {
    /// One of the five.
    pub fn contains(&self, id: u32) -> bool {
        [self.pad, self.unknown, self.cls, self.sep, self.mask].contains(&id)
    }
}

/// The pieces of a text that came split into words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pieces {
    /// Token ids, no special tokens added.
    pub ids: Vec<u32>,
    /// The word each piece comes from, in ascending order. A word that is nothing but control characters has no piece.
    pub words: Vec<usize>,
}

/// BERT's tokenizer: clean, split on spaces and punctuation, then for each word the longest pieces from the left that the
/// vocabulary has; pieces that go on a word start with `##`. A word of more than 100 characters, or with a rest that no
/// piece matches, becomes `[UNK]`.
///
/// A special token that stands literally in a text is that token, as in Hugging Face's tokenizers.
///
/// ```
/// use core_tensor::text::{Casing, VocabularyConfig, WordPiece};
///
/// let texts = ["hugs and hugging", "hugged, hugs", "hug"];
/// let config = VocabularyConfig { size: 40, least_count: 2, ..VocabularyConfig::default() };
/// let pieces = WordPiece::train(texts.iter(), &config)?;
/// let encoded = pieces.encode_pair("Hug!", "hugs", 16)?;
/// assert_eq!(pieces.tokens(&encoded.ids), ["[CLS]", "hug", "[UNK]", "[SEP]", "hugs", "[SEP]"]);
/// assert_eq!(encoded.types, [0, 0, 0, 0, 1, 1]);
/// # Ok::<(), core_tensor::Error>(())
/// ```
#[derive(Debug)]
pub struct WordPiece {
    tokenizer: TokenizerImpl<Model, BertNormalizer, BertPreTokenizer, BertProcessing, Decoder>,
    tokens: Vec<String>,
    special: SpecialTokens,
    casing: Casing,
}

impl WordPiece {
    /// A published vocabulary: one token a line, its number is the token's id.
    ///
    /// # Errors
    /// A file that cannot be read or is not UTF-8, a token that is there twice, a missing special token.
    pub fn from_file(path: &Path, casing: Casing) -> Result<Self> {
        let bytes = read(path)?;
        let tokens: Vec<_> = lines(path, &bytes)
            .map(|line| line.map(|(_, token)| token.trim_end().to_owned()))
            .collect::<Result<_>>()?;
        Self::from_tokens(tokens, casing, &path.display().to_string())
    }

    /// The same from a list; `origin` names it in errors.
    ///
    /// # Errors
    /// A token that is there twice, a missing special token.
    pub fn from_tokens(tokens: Vec<String>, casing: Casing, origin: &str) -> Result<Self> {
        let mut vocabulary = serde_json::Map::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if vocabulary.insert(token.clone(), id.into()).is_some() {
                return Err(
                    TextError::Twice { place: Place::new(Path::new(origin), id + 1), name: token.clone() }.into()
                );
            }
        }
        let id = |token: &'static str| match vocabulary.get(token).and_then(serde_json::Value::as_u64) {
            // A vocabulary of more than u32::MAX tokens does not fit in memory.
            Some(id) => Ok(id as u32),
            None => Err(TextError::SpecialToken { vocabulary: origin.to_owned(), token }),
        };
        let [pad, unknown, cls, sep, mask] = SPECIAL.map(id);
        let special = SpecialTokens { pad: pad?, unknown: unknown?, cls: cls?, sep: sep?, mask: mask? };
        // The model's builder takes a map of a crate that is not a dependency here; its serialised form is public too.
        let model: Model = serde_json::from_value(serde_json::json!({
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        }))
        .map_err(TextError::tokenizer)?;
        let mut tokenizer = TokenizerImpl::new(model);
        tokenizer.with_normalizer(Some(normalizer(casing))).with_pre_tokenizer(Some(BertPreTokenizer));
        tokenizer.add_special_tokens(&SPECIAL.map(|token| AddedToken::from(token, true)));
        Ok(Self { tokenizer, tokens, special, casing })
    }

    /// Writes the vocabulary as [`from_file`](Self::from_file) reads it.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = self.tokens.join("\n");
        text.push('\n');
        write_atomically(path, |file| file.write_all(text.as_bytes()))
    }

    /// Tokens of the vocabulary, special ones included.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Never: the special tokens are always there.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The ids of the special tokens.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// What happens to letters.
    pub fn casing(&self) -> Casing {
        self.casing
    }

    /// A token's id.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// The token of each id; `[UNK]` for an id that the vocabulary does not have.
    pub fn tokens(&self, ids: &[u32]) -> Vec<&str> {
        let unknown = &self.tokens[self.special.unknown as usize];
        ids.iter().map(|&id| self.tokens.get(id as usize).unwrap_or(unknown).as_str()).collect()
    }

    /// The pieces put together: joined by spaces, `##` and the space before it removed.
    pub fn join(&self, ids: &[u32]) -> String {
        self.tokens(ids).join(" ").replace(" ##", "")
    }

    /// Compares the vocabulary with an embedding of `rows` rows. An embedding may have more rows than tokens, as those that
    /// are padded to a multiple of 8 or 64 do, when `spare_rows` says so.
    ///
    /// # Errors
    /// Fewer rows than tokens, or more without `spare_rows`.
    pub fn check_embedding(&self, rows: usize, spare_rows: bool) -> Result<()> {
        if rows < self.len() || (rows > self.len() && !spare_rows) {
            return Err(TextError::Vocabulary { tokens: self.len(), rows }.into());
        }
        Ok(())
    }

    /// The pieces of one text, without special tokens around it.
    ///
    /// # Errors
    /// Only what the tokenizer itself refuses.
    pub fn pieces(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, false).map_err(TextError::tokenizer)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The pieces of every text, in order, on all of rayon's threads.
    ///
    /// # Errors
    /// As [`pieces`](Self::pieces).
    pub fn pieces_of<T: AsRef<str> + Sync>(&self, texts: &[T]) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().with_min_len(64).map(|text| self.pieces(text.as_ref())).collect()
    }

    /// The pieces of a text that is already split into words, and the word each comes from.
    ///
    /// # Errors
    /// As [`pieces`](Self::pieces).
    pub fn words(&self, words: &[&str]) -> Result<Pieces> {
        let encoding = self.tokenizer.encode(words.to_vec(), false).map_err(TextError::tokenizer)?;
        // Every piece has a word: none is special.
        let owners = encoding.get_word_ids().iter().map(|word| word.map_or(0, |word| word as usize)).collect();
        Ok(Pieces { ids: encoding.get_ids().to_vec(), words: owners })
    }

    /// The words that pieces are looked for in: cleaned, split on spaces and around punctuation.
    ///
    /// # Errors
    /// As [`pieces`](Self::pieces).
    pub fn basic_words(&self, text: &str) -> Result<Vec<String>> {
        basic_words(&normalizer(self.casing), text).map_err(|error| TextError::tokenizer(error).into())
    }

    /// `[CLS] text [SEP]`, cut at the end to `most` tokens.
    ///
    /// # Errors
    /// `most` below 2; what the tokenizer itself refuses.
    pub fn encode(&self, text: &str, most: usize) -> Result<Encoded> {
        let pieces = self.pieces(text)?;
        self.assemble(pieces, None, most)
    }

    /// `[CLS] first [SEP] second [SEP]`, cut to `most` tokens: one at a time from the end of the longer text, from the second
    /// when both are as long.
    ///
    /// # Errors
    /// `most` below 3; what the tokenizer itself refuses.
    pub fn encode_pair(&self, first: &str, second: &str, most: usize) -> Result<Encoded> {
        let (first, second) = (self.pieces(first)?, self.pieces(second)?);
        self.assemble(first, Some(second), most)
    }

    /// Puts special tokens around pieces, as [`encode`](Self::encode) and [`encode_pair`](Self::encode_pair) do.
    ///
    /// # Errors
    /// `most` below the number of special tokens.
    pub fn assemble(&self, mut first: Vec<u32>, second: Option<Vec<u32>>, most: usize) -> Result<Encoded> {
        let special = 2 + usize::from(second.is_some());
        let Some(room) = most.checked_sub(special) else {
            return Err(Error::setting("longest sequence", format!("at least {special}, the special tokens"), most));
        };
        let SpecialTokens { cls, sep, .. } = self.special;
        let mut second = second.unwrap_or_default();
        let paired = special == 3;
        while first.len() + second.len() > room {
            if first.len() > second.len() {
                first.pop()
            } else {
                second.pop()
            };
        }
        let mut ids = Vec::with_capacity(first.len() + second.len() + special);
        ids.push(cls);
        ids.append(&mut first);
        ids.push(sep);
        let mut types = vec![0; ids.len()];
        if paired {
            ids.append(&mut second);
            ids.push(sep);
            types.resize(ids.len(), 1);
        }
        Ok(Encoded { ids, types })
    }
}

/// BERT's cleaning of a text.
pub(super) fn normalizer(casing: Casing) -> BertNormalizer {
    BertNormalizer::new(true, true, None, casing == Casing::Lower)
}

/// A text cleaned, split on spaces and around punctuation.
pub(super) fn basic_words(normalizer: &BertNormalizer, text: &str) -> tokenizers::Result<Vec<String>> {
    let mut split = PreTokenizedString::from(text);
    split.normalize(|text| normalizer.normalize(text))?;
    BertPreTokenizer.pre_tokenize(&mut split)?;
    let words = split.get_splits(OffsetReferential::Normalized, OffsetType::None);
    Ok(words.into_iter().map(|(word, ..)| word.to_owned()).filter(|word| !word.is_empty()).collect())
}

#[cfg(test)]
mod tests;
