//! A text as a network sees it.

use super::TextError;

/// The token ids of one input, special tokens included, and which of its two texts each belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded {
    /// `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`.
    pub ids: Vec<u32>,
    /// 0 up to A's `[SEP]`, 1 after it. As long as `ids`.
    pub types: Vec<u8>,
}

impl Encoded {
    /// Tokens, special ones included.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// No token at all.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Compares the `sequence`-th input of a set with the embeddings that will look it up: `rows` for tokens, `positions`
    /// for places.
    ///
    /// # Errors
    /// An id without a row, more tokens than positions, or another number of types than of tokens.
    pub fn check(&self, sequence: usize, rows: usize, positions: usize) -> Result<(), TextError> {
        if self.types.len() != self.len() {
            return Err(TextError::Types { sequence, tokens: self.len(), types: self.types.len() });
        }
        if self.len() > positions {
            return Err(TextError::TooLong { sequence, tokens: self.len(), positions });
        }
        match self.ids.iter().find(|&&id| id as usize >= rows) {
            Some(&id) => Err(TextError::TokenId { sequence, id, rows }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_that_does_not_fit_its_embeddings_is_named() {
        let encoded = Encoded { ids: vec![2, 7, 3], types: vec![0; 3] };
        encoded.check(4, 8, 3).unwrap();
        let error = encoded.check(4, 7, 3).unwrap_err().to_string();
        assert_eq!(error, "sequence 4: token id 7, but the embedding has 7 rows");
        let error = encoded.check(4, 8, 2).unwrap_err().to_string();
        assert_eq!(error, "sequence 4: 3 tokens, but the position table has 2");
        let error = Encoded { types: vec![0; 2], ..encoded }.check(4, 8, 3).unwrap_err().to_string();
        assert_eq!(error, "sequence 4: 3 tokens, but types for 2");
    }
}
