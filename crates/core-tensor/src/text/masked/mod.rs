//! Masked language modelling with next-sentence prediction (Devlin et al., arXiv 1810.04805).
//!
//! ```text
//! documents ─inputs→ PretrainingInput ─(shards on disk)→ MaskedLoader: masks anew each epoch → MaskedBatch
//! ```

mod inputs;
mod loader;
mod masking;
mod shards;

pub use inputs::{NextSentence, NextSentenceConfig, PretrainingInput, full_sequences, sentence_pairs};
pub use loader::{MaskedBatch, MaskedLoader};
pub use masking::{IGNORED, Masking};
pub use shards::{Shards, write_shards};
