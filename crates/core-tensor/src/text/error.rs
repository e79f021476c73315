//! What can be wrong with a text, a vocabulary or a score.

use std::fmt;
use std::path::{Path, PathBuf};

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl Place {
    /// Line `line`, from 1, of `path`.
    pub fn new(path: &Path, line: usize) -> Self {
        Self { path: path.to_path_buf(), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// What can be wrong with a text, a vocabulary or a score.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// Bytes that are not UTF-8.
    #[error("{place}: not UTF-8 from byte {byte} of the line on")]
    NotUtf8 {
        /// Where.
        place: Place,
        /// The first bad byte of that line, from 0.
        byte: usize,
    },
    /// A header without a column that the task needs.
    #[error("{place}: the header has no column `{missing}`, only {found:?}")]
    Header {
        /// Where.
        place: Place,
        /// The column that is missing.
        missing: &'static str,
        /// The columns that are there.
        found: Vec<String>,
    },
    /// A row with another number of columns than the file's others.
    #[error("{place}: expected {expected} tab-separated columns, found {found}")]
    Columns {
        /// Where.
        place: Place,
        /// Columns of the format.
        expected: usize,
        /// Columns of the row.
        found: usize,
    },
    /// A label outside the task's set.
    #[error("{place}: expected {expected}, found label `{found}`")]
    Label {
        /// Where.
        place: Place,
        /// The task's labels.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// JSON that does not parse, such as an unterminated string, or lacks a field.
    #[error("{place}: column {column}: {reason}")]
    Json {
        /// Where.
        place: Place,
        /// The column, from 1.
        column: usize,
        /// What the parser said.
        reason: String,
    },
    /// An answer that is not in its context where it claims to be.
    #[error("{place}: question `{question}`: answer `{answer}` is not at character {start} of its context: {reason}")]
    Answer {
        /// Where the question stands.
        place: Place,
        /// The question's id.
        question: String,
        /// The answer's text.
        answer: String,
        /// Where it should start, in Unicode scalar values.
        start: usize,
        /// What is there instead.
        reason: String,
    },
    /// A name that must be unique and is not.
    #[error("{place}: `{name}` is there twice")]
    Twice {
        /// Where it comes again.
        place: Place,
        /// The token or id.
        name: String,
    },
    /// A vocabulary without one of the special tokens.
    #[error("{vocabulary}: no special token `{token}`")]
    SpecialToken {
        /// The file, or how the vocabulary came to be.
        vocabulary: String,
        /// The token.
        token: &'static str,
    },
    /// A vocabulary that does not match an embedding.
    #[error("the vocabulary has {tokens} tokens, the embedding {rows} rows")]
    Vocabulary {
        /// Tokens of the vocabulary.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A token id without a row in the embedding.
    #[error("sequence {sequence}: token id {id}, but the embedding has {rows} rows")]
    TokenId {
        /// The sequence's position in its set.
        sequence: usize,
        /// The id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A sequence longer than the table of positions.
    #[error("sequence {sequence}: {tokens} tokens, but the position table has {positions}")]
    TooLong {
        /// The sequence's position in its set.
        sequence: usize,
        /// Its tokens.
        tokens: usize,
        /// Rows of the position table.
        positions: usize,
    },
    /// A sequence whose tokens and types do not pair up.
    #[error("sequence {sequence}: {tokens} tokens, but types for {types}")]
    Types {
        /// The sequence's position in its set.
        sequence: usize,
        /// Its tokens.
        tokens: usize,
        /// Its types.
        types: usize,
    },
    /// A task nobody knows.
    #[error("no GLUE task `{found}`; there are {known}")]
    UnknownTask {
        /// What was asked for.
        found: String,
        /// The tasks there are.
        known: String,
    },
    /// A split that a task's release does not have.
    #[error("{task} has no split `{split}`")]
    NoSplit {
        /// The task.
        task: &'static str,
        /// The split.
        split: &'static str,
    },
    /// Nothing where something is needed.
    #[error("{what} is empty")]
    Empty {
        /// The file or the set.
        what: String,
    },
    /// A score that is not defined for these values.
    #[error("{metric}: {reason}")]
    Metric {
        /// The score.
        metric: &'static str,
        /// Why there is none.
        reason: String,
    },
    /// The tokenizer refused.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What it said.
        reason: String,
    },
}

impl TextError {
    /// For `map_err` on a call of the `tokenizers` crate, whose error type is opaque.
    pub(crate) fn tokenizer(source: impl fmt::Display) -> Self {
        Self::Tokenizer { reason: source.to_string() }
    }
}
