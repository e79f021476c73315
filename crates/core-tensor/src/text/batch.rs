//! Padded sequences, alone and with a label each.

use tch::{Device, Tensor};

use super::{Encoded, Example};
use crate::data::ToDevice;

/// What an encoder reads: sequences padded at their ends to one length.
#[derive(Debug)]
pub struct TokenBatch {
    /// `[batch, tokens]`, `i64`.
    pub ids: Tensor,
    /// `[batch, tokens]`, `i64`: 0 for the first text and for padding, 1 for the second.
    pub types: Tensor,
    /// `[batch, tokens]`, `bool`: true where there is a token, false where there is padding.
    pub mask: Tensor,
}

impl TokenBatch {
    /// Pads with `pad` to the longest sequence, and to at least `least` tokens.
    ///
    /// A token without a type is padded over: check sequences of your own with [`Encoded::check`], as the loaders do.
    pub fn pad(sequences: &[&Encoded], pad: u32, least: usize) -> Self {
        let longest = sequences.iter().map(|sequence| sequence.len()).max().unwrap_or(0).max(least);
        let values = sequences.len() * longest;
        let (mut ids, mut types, mut mask) = (vec![i64::from(pad); values], vec![0; values], vec![false; values]);
        for (row, sequence) in sequences.iter().enumerate() {
            for (column, (&id, &kind)) in sequence.ids.iter().zip(&sequence.types).enumerate() {
                let at = row * longest + column;
                (ids[at], types[at], mask[at]) = (i64::from(id), i64::from(kind), true);
            }
        }
        // Allocations stop far below i64::MAX.
        let shape = [sequences.len() as i64, longest as i64];
        let tensor = |values: &[i64]| Tensor::from_slice(values).view(shape);
        Self { ids: tensor(&ids), types: tensor(&types), mask: Tensor::from_slice(&mask).view(shape) }
    }

    /// Sequences.
    pub fn len(&self) -> i64 {
        self.ids.size()[0]
    }

    /// No sequence at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens of every sequence, padding included.
    pub fn tokens(&self) -> i64 {
        self.ids.size()[1]
    }
}

impl ToDevice for TokenBatch {
    fn to_device(self, device: Device) -> Self {
        let Self { ids, types, mask } = self;
        Self { ids: ids.to_device(device), types: types.to_device(device), mask: mask.to_device(device) }
    }
}

/// What a sequence is to be recognised as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Label {
    /// A class number.
    Class(i64),
    /// A number, such as a similarity from 0 to 5.
    Score(f32),
}

/// A sequence and its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// The sequence.
    pub encoded: Encoded,
    /// Its label.
    pub label: Label,
}

/// Sequences with a label each.
#[derive(Debug)]
pub struct LabelledBatch {
    /// The sequences.
    pub input: TokenBatch,
    /// `[batch]`: `i64` class numbers, or `f32` scores as soon as one label is a score.
    pub target: Tensor,
    /// Positions of the sequences in their set.
    pub index: Vec<usize>,
}

impl ToDevice for LabelledBatch {
    fn to_device(self, device: Device) -> Self {
        let Self { input, target, index } = self;
        Self { input: input.to_device(device), target: target.to_device(device), index }
    }
}

impl Example for Labelled {
    type Batch = LabelledBatch;

    fn encoded(&self) -> &Encoded {
        &self.encoded
    }

    fn collate(examples: &[&Self], input: TokenBatch, index: Vec<usize>) -> LabelledBatch {
        let classes: Option<Vec<i64>> = examples
            .iter()
            .map(|example| if let Label::Class(class) = example.label { Some(class) } else { None })
            .collect();
        let target = match classes {
            Some(classes) => Tensor::from_slice(&classes),
            None => {
                let score = |example: &&Self| match example.label {
                    Label::Class(class) => class as f32,
                    Label::Score(score) => score,
                };
                Tensor::from_slice(&examples.iter().map(score).collect::<Vec<_>>())
            }
        };
        LabelledBatch { input, target, index }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn encoded(ids: &[u32], second: usize) -> Encoded {
        let types = (0..ids.len()).map(|position| u8::from(position >= second)).collect();
        Encoded { ids: ids.to_vec(), types }
    }

    #[test]
    fn shorter_sequences_are_padded_and_masked() {
        let (a, b) = (encoded(&[2, 9, 3], 3), encoded(&[2, 8, 3, 7, 3], 3));
        let batch = TokenBatch::pad(&[&a, &b], 1, 0);
        let rows = |tensor: &Tensor| Vec::<Vec<i64>>::try_from(tensor.to_kind(Kind::Int64)).unwrap();
        assert_eq!(rows(&batch.ids), [[2, 9, 3, 1, 1], [2, 8, 3, 7, 3]]);
        assert_eq!(rows(&batch.types), [[0; 5], [0, 0, 0, 1, 1]]);
        assert_eq!(rows(&batch.mask), [[1, 1, 1, 0, 0], [1; 5]]);
        assert_eq!((batch.mask.kind(), batch.len(), batch.tokens()), (Kind::Bool, 2, 5));
        assert_eq!(TokenBatch::pad(&[&a], 1, 8).tokens(), 8);
    }

    #[test]
    fn classes_stay_whole_numbers_and_scores_do_not() {
        let of = |label| Labelled { encoded: encoded(&[2, 3], 2), label };
        let collate = |labels: [Label; 2]| {
            let examples = labels.map(of);
            let sequences: Vec<_> = examples.iter().map(|example| &example.encoded).collect();
            Labelled::collate(&examples.each_ref(), TokenBatch::pad(&sequences, 0, 0), vec![0, 1]).target
        };
        let classes = collate([Label::Class(1), Label::Class(0)]);
        assert_eq!((classes.kind(), Vec::<i64>::try_from(classes).unwrap()), (Kind::Int64, vec![1, 0]));
        let scores = collate([Label::Score(2.5), Label::Class(4)]);
        assert_eq!((scores.kind(), Vec::<f32>::try_from(scores).unwrap()), (Kind::Float, vec![2.5, 4.0]));
    }
}
