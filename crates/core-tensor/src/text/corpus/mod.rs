//! Running text: documents, paragraphs, sentences, words.

mod blocks;
mod documents;
mod words;

pub use blocks::{BlockConfig, LanguageBatch, LanguageBlocks};
pub use documents::{Document, plain_text, sentences, wikitext};
pub use words::WordVocabulary;
