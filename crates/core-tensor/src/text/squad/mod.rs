//! SQuAD v1.1 (Rajpurkar et al., arXiv 1606.05250): questions whose answer is a span of a paragraph.
//!
//! ```text
//! file ─read→ SquadSet ─features→ windows of question and context ─network→ SpanLogits ─predict→ texts ─evaluate→ EM, F1
//! ```
//!
//! Features, decoding and score follow the reference code: windows by a stride, an answer only from the window that gives
//! it most context, the best of 20 starts by 20 ends, the words of the paragraph rather than the joined pieces, and the
//! official v1.1 normalisation.

mod features;
mod final_text;
mod predict;
mod read;
mod score;

pub use features::{Document, Feature, FeatureConfig, FeatureSet, SpanBatch};
pub use predict::{Candidate, DecodeConfig, Prediction, SpanLogits};
pub use read::{Answer, Paragraph, Question, SquadSet};
pub use score::{SquadScores, exact_match, f1, normalise};
