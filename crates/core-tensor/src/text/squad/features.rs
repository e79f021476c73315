//! Questions with windows of their contexts, as a network sees them.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use super::{Answer, Question, SquadSet};
use crate::data::ToDevice;
use crate::text::{Encoded, Example, Pieces, TextError, TokenBatch, WordPiece};
use crate::{Error, Result};

/// How long contexts are cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureConfig {
    /// Tokens of an input at most, special ones included. The reference: 384.
    pub most_tokens: usize,
    /// Pieces from one window's start to the next one's. The reference: 128.
    pub stride: usize,
    /// Pieces of a question at most; the rest is cut off. The reference: 64.
    pub most_question: usize,
}

impl Default for FeatureConfig {
    /// 384 tokens, stride 128, questions of 64.
    fn default() -> Self {
        Self { most_tokens: 384, stride: 128, most_question: 64 }
    }
}

/// A context as words and as pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The words, separated by white space in the context.
    pub words: Vec<String>,
    /// The pieces of all words.
    pub pieces: Pieces,
    /// The word that each character of the context belongs to; white space belongs to the word before it.
    word_of: Vec<usize>,
    /// The first piece of each word, and the number of pieces at the end.
    first: Vec<usize>,
}

/// One window: `[CLS] question [SEP] pieces of the context [SEP]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature {
    /// The question's position in the set.
    pub question: usize,
    /// The input.
    pub encoded: Encoded,
    /// The pieces of the document that it shows.
    pub window: Range<usize>,
    /// Where the window's first piece stands in the input.
    pub offset: usize,
    /// First and last token of the answer in the input; (0, 0), which is `[CLS]`, when the window does not hold all of it,
    /// and in features that are made without answers.
    pub answer: (usize, usize),
    /// For each piece of the window: no other window shows it with more context on its poorer side.
    pub most_context: Vec<bool>,
}

/// The features of a set of questions.
#[derive(Debug, Clone)]
pub struct FeatureSet {
    /// The features; a question's follow one another.
    pub features: Vec<Feature>,
    /// A document for each paragraph that a question is about.
    pub documents: HashMap<usize, Document>,
    /// Positions of the questions left out since the words around their answer do not hold it. Always empty without answers.
    pub dropped: Vec<usize>,
}

impl SquadSet {
    /// The windows of every question, to find answers with.
    ///
    /// # Errors
    /// A question that leaves no room for a window or is about no paragraph of the set, or a stride that is 0 or skips pieces.
    pub fn features(&self, pieces: &WordPiece, config: &FeatureConfig) -> Result<FeatureSet> {
        self.all(pieces, config, false)
    }

    /// The windows of every question with its first answer marked, to train on.
    ///
    /// # Errors
    /// As [`features`](Self::features), and a question without an answer or with one outside its context.
    pub fn training_features(&self, pieces: &WordPiece, config: &FeatureConfig) -> Result<FeatureSet> {
        self.all(pieces, config, true)
    }

    fn all(&self, pieces: &WordPiece, config: &FeatureConfig, answered: bool) -> Result<FeatureSet> {
        if config.stride == 0 {
            return Err(Error::setting("stride", "at least 1", 0));
        }
        let mut wanted: Vec<_> = self.questions.iter().map(|question| question.paragraph).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let document = |paragraph: usize| -> Result<(usize, Document)> {
            let known = || format!("below {}", self.paragraphs.len());
            let found =
                self.paragraphs.get(paragraph).ok_or_else(|| Error::setting("paragraph", known(), paragraph))?;
            Ok((paragraph, Document::new(&found.context, pieces)?))
        };
        let documents: HashMap<_, _> = wanted.into_par_iter().map(document).collect::<Result<_>>()?;
        let one = |(position, question): (usize, &Question)| {
            let document = &documents[&question.paragraph];
            let answer = if answered {
                let Some(answer) = question.answers.first() else {
                    let what = format!("{}: the answers of question `{}`", self.place(question), question.id);
                    return Err(TextError::Empty { what }.into());
                };
                let outside = || TextError::Answer {
                    place: self.place(question),
                    question: question.id.clone(),
                    answer: answer.text.clone(),
                    start: answer.start,
                    reason: "there is no word of the context".to_owned(),
                };
                let words = document.words_of(answer).ok_or_else(outside)?;
                match document.locate(answer, words, pieces)? {
                    Some(span) => Some(span),
                    None => return Ok(None),
                }
            } else {
                None
            };
            self.windows(position, document, answer, pieces, config).map(Some)
        };
        let made: Vec<Option<Vec<Feature>>> =
            self.questions.par_iter().enumerate().with_min_len(16).map(one).collect::<Result<_>>()?;
        let dropped =
            made.iter().enumerate().filter(|(_, made)| made.is_none()).map(|(position, _)| position).collect();
        Ok(FeatureSet { features: made.into_iter().flatten().flatten().collect(), documents, dropped })
    }

    fn windows(
        &self,
        position: usize,
        document: &Document,
        answer: Option<Range<usize>>,
        pieces: &WordPiece,
        config: &FeatureConfig,
    ) -> Result<Vec<Feature>> {
        let question = &self.questions[position];
        let mut asked = pieces.pieces(&question.text)?;
        asked.truncate(config.most_question);
        let offset = asked.len() + 2;
        let room = config.most_tokens.checked_sub(asked.len() + 3).filter(|room| *room > 0);
        let Some(room) = room.filter(|room| config.stride < *room) else {
            let (setting, expected, found) = match room {
                Some(room) => ("stride", format!("less than the {room} pieces of a window"), config.stride),
                None => ("most_tokens", format!("more than the question's {} + 3", asked.len()), config.most_tokens),
            };
            let expected = format!("{expected}, for question `{}`", question.id);
            return Err(Error::setting(setting, expected, found));
        };
        let all = document.pieces.ids.len();
        let windows = windows(all, room, config.stride);
        let make = |window: &Range<usize>| {
            let inside = answer.as_ref().filter(|span| window.start <= span.start && span.end <= window.end);
            let at = |piece: usize| piece - window.start + offset;
            Ok(Feature {
                question: position,
                encoded: pieces.assemble(
                    asked.clone(),
                    Some(document.pieces.ids[window.clone()].to_vec()),
                    usize::MAX,
                )?,
                window: window.clone(),
                offset,
                answer: inside.map_or((0, 0), |span| (at(span.start), at(span.end - 1))),
                most_context: window.clone().map(|piece| best_window(&windows, piece) == Some(window)).collect(),
            })
        };
        windows.iter().map(make).collect()
    }
}

/// Windows of at most `room` pieces that start every `stride` pieces, up to the first that reaches the end.
fn windows(pieces: usize, room: usize, stride: usize) -> Vec<Range<usize>> {
    let mut windows = Vec::new();
    let mut start = 0;
    loop {
        let end = pieces.min(start + room);
        windows.push(start..end);
        if end == pieces {
            return windows;
        }
        start += stride;
    }
}

/// The window with the most context on a piece's poorer side, longer ones first when it is the same, then earlier ones.
fn best_window(windows: &[Range<usize>], piece: usize) -> Option<&Range<usize>> {
    let mut best: Option<(f64, &Range<usize>)> = None;
    for window in windows.iter().filter(|window| window.contains(&piece)) {
        let poorer = (piece - window.start).min(window.end - 1 - piece);
        // The reference's weight for the window's length.
        let score = poorer as f64 + 0.01 * window.len() as f64;
        if best.is_none_or(|(found, _)| score > found) {
            best = Some((score, window));
        }
    }
    best.map(|(_, window)| window)
}

impl Document {
    /// Splits a context into words at space, tab, line ends and the narrow no-break space, and words into pieces.
    ///
    /// # Errors
    /// Only what the tokenizer itself refuses.
    pub fn new(context: &str, pieces: &WordPiece) -> Result<Self> {
        let (mut words, mut word_of) = (Vec::<String>::new(), Vec::new());
        let mut between = true;
        for character in context.chars() {
            if matches!(character, ' ' | '\t' | '\r' | '\n' | '\u{202f}') {
                between = true;
            } else {
                match words.last_mut().filter(|_| !between) {
                    Some(word) => word.push(character),
                    None => words.push(character.to_string()),
                }
                between = false;
            }
            word_of.push(words.len().saturating_sub(1));
        }
        let pieces = pieces.words(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        let first = (0..=words.len()).map(|word| pieces.words.partition_point(|&owner| owner < word)).collect();
        Ok(Self { words, pieces, word_of, first })
    }

    /// The first and the last word that an answer stands in; none for an empty answer or one outside the context, which no
    /// set that was read from a file has.
    fn words_of(&self, answer: &Answer) -> Option<(usize, usize)> {
        let first = *self.word_of.get(answer.start)?;
        let last = answer.start.checked_add(answer.text.chars().count().checked_sub(1)?)?;
        let last = *self.word_of.get(last.min(self.word_of.len() - 1))?;
        (last < self.words.len()).then_some((first, last))
    }

    /// The pieces of an answer, or none when the words it stands in do not hold it.
    fn locate(
        &self,
        answer: &Answer,
        (first_word, last_word): (usize, usize),
        pieces: &WordPiece,
    ) -> Result<Option<Range<usize>>> {
        let cleaned = answer.text.split_whitespace().collect::<Vec<_>>().join(" ");
        if !self.words[first_word..=last_word].join(" ").contains(&cleaned) {
            return Ok(None);
        }
        let span = self.first[first_word]..self.first[last_word + 1];
        if span.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.shrink(span, &pieces.pieces(&answer.text)?)))
    }

    /// The first part of a span that is exactly the answer's pieces: the words may carry punctuation that it has not.
    fn shrink(&self, span: Range<usize>, answer: &[u32]) -> Range<usize> {
        if answer.is_empty() {
            return span;
        }
        let found = self.pieces.ids[span.clone()].windows(answer.len()).position(|part| part == answer);
        found.map_or(span.clone(), |at| span.start + at..span.start + at + answer.len())
    }
}

/// Windows of a question with the answer's place in each.
#[derive(Debug)]
pub struct SpanBatch {
    /// The inputs.
    pub input: TokenBatch,
    /// `[batch]`, `i64`: the answer's first token; 0 when the window does not hold it.
    pub start: Tensor,
    /// `[batch]`, `i64`: the answer's last token; 0 when the window does not hold it.
    pub end: Tensor,
    /// Positions of the features in their set.
    pub index: Vec<usize>,
}

impl ToDevice for SpanBatch {
    fn to_device(self, device: Device) -> Self {
        let Self { input, start, end, index } = self;
        Self { input: input.to_device(device), start: start.to_device(device), end: end.to_device(device), index }
    }
}

impl Example for Feature {
    type Batch = SpanBatch;

    fn encoded(&self) -> &Encoded {
        &self.encoded
    }

    fn collate(examples: &[&Self], input: TokenBatch, index: Vec<usize>) -> SpanBatch {
        let places = |of: fn(&Self) -> usize| {
            // Positions are below the longest input.
            Tensor::from_slice(&examples.iter().map(|feature| of(feature) as i64).collect::<Vec<_>>())
        };
        SpanBatch { input, start: places(|feature| feature.answer.0), end: places(|feature| feature.answer.1), index }
    }
}

#[cfg(test)]
pub(super) mod tests;
