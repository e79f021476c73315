//! Text: WordPiece, the GLUE tasks and SQuAD with their metrics, corpora for masked and causal language models.
//!
//! ```text
//! file ─reader→ sentences ─WordPiece→ Encoded ─TokenLoader→ batches padded to their longest sequence
//! ```
//!
//! | module | one job |
//! |---|---|
//! | [`WordPiece`] | published vocabularies, or one trained here; single texts, pairs, pre-split words |
//! | [`glue`] | the tasks' files, labels and scores |
//! | [`squad`] | questions and paragraphs, windows, decoding, EM and F1 |
//! | [`corpus`] | WikiText and plain text as documents, sentences, words, blocks for causal language models |
//! | [`masked`] | masked language modelling: inputs, sentence pairs, shards on disk, masking |
//! | [`metrics`] | accuracy, F1, Matthews, Pearson, Spearman |
//! | [`TokenLoader`] | batches of similar length, the same ones for the same seed and epoch |
//!
//! Everything that is wrong with a file is a [`TextError`] that names the file and the line.

mod batch;
pub mod corpus;
mod encoded;
mod error;
pub mod glue;
mod lines;
mod loader;
pub mod masked;
pub mod metrics;
pub mod squad;
mod train;
mod wordpiece;

pub use batch::{Label, Labelled, LabelledBatch, TokenBatch};
pub use encoded::Encoded;
pub use error::{Place, TextError};
pub use loader::{Example, TokenLoader, TokenLoaderConfig};
pub use train::VocabularyConfig;
pub use wordpiece::{Casing, Pieces, SpecialTokens, WordPiece};
