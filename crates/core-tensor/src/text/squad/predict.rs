//! From logits to answers.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::final_text::final_text;
use super::{Document, Feature, FeatureSet, SquadSet};
use crate::text::WordPiece;
use crate::{Error, Result};

/// How answers are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeConfig {
    /// Starts and ends looked at in each window, and answers kept of a question. The reference: 20.
    pub best: usize,
    /// Pieces of an answer at most. The reference: 30.
    pub most_pieces: usize,
}

impl Default for DecodeConfig {
    /// The best 20, at most 30 pieces long.
    fn default() -> Self {
        Self { best: 20, most_pieces: 30 }
    }
}

impl DecodeConfig {
    /// # Errors
    /// A setting outside its range.
    pub fn validate(&self) -> Result<()> {
        for (setting, value) in [("best", self.best), ("most_pieces", self.most_pieces)] {
            if value == 0 {
                return Err(Error::setting(setting, "at least 1", 0));
            }
        }
        Ok(())
    }
}

/// A network's two numbers for every token of every feature.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanLogits {
    start: Vec<Vec<f32>>,
    end: Vec<Vec<f32>>,
}

impl SpanLogits {
    /// Room for `features` features.
    pub fn new(features: usize) -> Self {
        Self { start: vec![Vec::new(); features], end: vec![Vec::new(); features] }
    }

    /// Keeps a batch's logits, `[batch, tokens]` each, under the positions in `index`.
    ///
    /// # Errors
    /// Tensors of another shape, or a position outside the set. Nothing is kept then.
    pub fn put(&mut self, index: &[usize], start: &Tensor, end: &Tensor) -> Result<()> {
        let count = self.start.len();
        if let Some(position) = index.iter().find(|&&position| position >= count) {
            return Err(Error::setting("index", format!("positions below {count}"), position));
        }
        let rows = |name: &str, logits: &Tensor| -> Result<Vec<Vec<f32>>> {
            let size = logits.size();
            if size.len() != 2 || size[0] != index.len() as i64 {
                return Err(Error::tensor(name, format!("[{}, tokens]", index.len()), format!("{size:?}")));
            }
            Ok(logits.detach().to_kind(Kind::Float).try_into()?)
        };
        let (starts, ends) = (rows("start logits", start)?, rows("end logits", end)?);
        for ((&position, start), end) in index.iter().zip(starts).zip(ends) {
            self.start[position] = start;
            self.end[position] = end;
        }
        Ok(())
    }
}

/// An answer that might be right.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Words of the paragraph.
    pub text: String,
    /// The sum of its start's and its end's logit.
    pub score: f32,
    /// Its share among the question's candidates: the softmax of their scores.
    pub probability: f64,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The question's id.
    pub id: String,
    /// The best first; `empty` alone, as in the reference, when no span is possible.
    pub candidates: Vec<Candidate>,
}

impl Prediction {
    /// The best candidate's text.
    pub fn text(&self) -> &str {
        self.candidates.first().map_or("", |best| &best.text)
    }
}

/// A span of a feature.
#[derive(Clone, Copy)]
struct Span<'a> {
    feature: &'a Feature,
    start: usize,
    end: usize,
    score: f32,
}

impl FeatureSet {
    /// The answers of every question, in the set's order.
    ///
    /// In each window the best starts and ends are paired; a pair counts when both lie in the context, the end not before
    /// the start, and no other window shows the start with more context. The pairs of all windows of a question are sorted
    /// by the sum of their logits and become words of the paragraph; equal texts count once.
    ///
    /// # Errors
    /// A setting outside its range, or logits that are missing for a feature, fewer than its tokens, or not finite.
    pub fn predict(
        &self,
        set: &SquadSet,
        logits: &SpanLogits,
        pieces: &WordPiece,
        config: &DecodeConfig,
    ) -> Result<Vec<Prediction>> {
        config.validate()?;
        let mut spans: HashMap<usize, Vec<Span<'_>>> = HashMap::new();
        for (position, feature) in self.features.iter().enumerate() {
            let of = |name: &str, kept: &[Vec<f32>]| -> Result<Vec<(usize, f32)>> {
                let needed = feature.encoded.len();
                let refused = |found: String| {
                    let name = format!("{name} logits of feature {position}");
                    Error::tensor(name, format!("{needed} finite numbers"), found)
                };
                let row = kept.get(position).ok_or_else(|| refused("nothing".to_owned()))?;
                let row = row.get(..needed).ok_or_else(|| refused(row.len().to_string()))?;
                match row.iter().find(|logit| !logit.is_finite()) {
                    Some(logit) => Err(refused(logit.to_string())),
                    None => Ok(best(row, config.best)),
                }
            };
            let (starts, ends) = (of("start", &logits.start)?, of("end", &logits.end)?);
            let found = spans.entry(feature.question).or_default();
            for &(start, from) in &starts {
                for &(end, to) in &ends {
                    if possible(feature, start, end, config) {
                        found.push(Span { feature, start, end, score: from + to });
                    }
                }
            }
        }
        let answer = |(position, question): (usize, &super::Question)| {
            let mut found = spans.remove(&position).unwrap_or_default();
            // Stable, so that equal sums keep the order in which they were found.
            found.sort_by(|a, b| b.score.total_cmp(&a.score));
            let mut candidates = Vec::<Candidate>::new();
            if let Some(document) = self.documents.get(&question.paragraph) {
                for span in found {
                    if candidates.len() == config.best {
                        break;
                    }
                    let text = span.text(document, pieces)?;
                    if candidates.iter().all(|candidate| candidate.text != text) {
                        candidates.push(Candidate { text, score: span.score, probability: 0.0 });
                    }
                }
            }
            if candidates.is_empty() {
                candidates.push(Candidate { text: "empty".to_owned(), score: 0.0, probability: 0.0 });
            }
            let weight = |score: f32, most: f32| f64::from(score - most).exp();
            let most = candidates[0].score;
            let sum: f64 = candidates.iter().map(|candidate| weight(candidate.score, most)).sum();
            for candidate in &mut candidates {
                candidate.probability = weight(candidate.score, most) / sum;
            }
            Ok(Prediction { id: question.id.clone(), candidates })
        };
        set.questions.iter().enumerate().map(answer).collect()
    }
}

/// The positions of the largest logits, largest first, earlier ones first when equal.
fn best(logits: &[f32], count: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<_> = logits.iter().copied().enumerate().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    order.truncate(count);
    order
}

fn possible(feature: &Feature, start: usize, end: usize, config: &DecodeConfig) -> bool {
    let inside = feature.offset..feature.offset + feature.window.len();
    inside.contains(&start)
        && inside.contains(&end)
        && start <= end
        && end - start < config.most_pieces
        && feature.most_context[start - feature.offset]
}

impl Span<'_> {
    fn text(&self, document: &Document, pieces: &WordPiece) -> Result<String> {
        let piece = |token: usize| token - self.feature.offset + self.feature.window.start;
        let (start, end) = (piece(self.start), piece(self.end));
        let words = document.words[document.pieces.words[start]..=document.pieces.words[end]].join(" ");
        let joined = pieces.join(&document.pieces.ids[start..=end]);
        // A span that starts inside a word keeps its `##`, as in the reference.
        final_text(&joined.split_whitespace().collect::<Vec<_>>().join(" "), &words, pieces)
    }
}

#[cfg(test)]
mod tests;
