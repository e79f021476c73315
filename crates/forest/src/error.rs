//! What can go wrong, named: the thing, what was expected, what was found.

use std::path::PathBuf;

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForestError {
    /// A setting lies outside its range.
    #[error("setting `{name}`: expected {expected}, found {found}")]
    Setting {
        /// Field name.
        name: &'static str,
        /// Allowed range.
        expected: &'static str,
        /// Value given.
        found: String,
    },
    /// There is nothing to learn from or to predict.
    #[error("{what}: expected at least one row and one column, found {rows} rows and {columns} columns")]
    Empty {
        /// Which table.
        what: &'static str,
        /// Rows given.
        rows: usize,
        /// Columns given.
        columns: usize,
    },
    /// A feature or a target is NaN or infinite, and missing values were not enabled for it.
    #[error("{what} at row {row}, column {column}: expected a finite number, found {value}")]
    NotFinite {
        /// Which table.
        what: &'static str,
        /// Row of the first offender.
        row: usize,
        /// Column of the first offender.
        column: usize,
        /// The value.
        value: f32,
    },
    /// All labels agree, so there is nothing to tell apart.
    #[error("labels: expected at least two classes, found only class {class}")]
    OneClass {
        /// The only class.
        class: usize,
    },
    /// A label is not below the number of classes.
    #[error("label at row {row}: expected less than {classes}, found {label}")]
    Label {
        /// Row of the label.
        row: usize,
        /// The label.
        label: usize,
        /// Number of classes.
        classes: usize,
    },
    /// The number of columns is not the one the model was fitted on.
    #[error("features: expected {expected} columns, found {found}")]
    Width {
        /// Columns at fitting.
        expected: usize,
        /// Columns now.
        found: usize,
    },
    /// Two tables that describe the same samples have different numbers of rows.
    #[error("{what}: expected {expected} rows, found {found}")]
    Rows {
        /// Which table.
        what: &'static str,
        /// Rows of the features.
        expected: usize,
        /// Rows of this table.
        found: usize,
    },
    /// A sample weight or class weight is negative, not finite, or all of them are zero.
    #[error("{what}: expected finite, non-negative weights with a positive sum, found {found}")]
    Weight {
        /// Which weights.
        what: &'static str,
        /// What is wrong with them.
        found: String,
    },
    /// A categorical column holds a value that was not seen at fitting.
    #[error("column {column}, row {row}: expected one of the {known} categories seen at fitting, found {value}")]
    Category {
        /// Column.
        column: usize,
        /// Row.
        row: usize,
        /// The value.
        value: f32,
        /// Number of known categories.
        known: usize,
    },
    /// The rarest class has fewer rows than there are folds.
    #[error("folds: expected at most {rows} (the rows of class {class}), found {folds}")]
    Folds {
        /// Folds asked for.
        folds: usize,
        /// The rarest class.
        class: usize,
        /// Its rows.
        rows: usize,
    },
    /// The training loss stopped being a number.
    #[error("training diverged at epoch {epoch}, step {step}: expected a finite loss, found {loss}")]
    Diverged {
        /// Epoch, from 0.
        epoch: usize,
        /// Step within the epoch, from 0.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// A tree or node number is not in the model.
    #[error("{what}: expected less than {expected}, found {found}")]
    Index {
        /// Which number.
        what: &'static str,
        /// How many there are.
        expected: usize,
        /// The number asked for.
        found: usize,
    },
    /// The operating system refused.
    #[error("file {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a model of this crate.
    #[error("model file: expected it to begin with {expected:?}, found {found:?}")]
    Foreign {
        /// The magic bytes.
        expected: [u8; 8],
        /// The first bytes of the file.
        found: Vec<u8>,
    },
    /// The file ends too early, or goes on too long.
    #[error("model file: expected {expected} bytes, found {found}")]
    Length {
        /// Bytes promised by the header.
        expected: u64,
        /// Bytes there.
        found: u64,
    },
    /// The file was written by a newer version of the format.
    #[error("model file: expected format version {supported} or older, found {found}")]
    Version {
        /// Newest version this build reads.
        supported: u32,
        /// Version of the file.
        found: u32,
    },
    /// The file is damaged.
    #[error("model file: expected checksum {stored:08x}, found {computed:08x}")]
    Checksum {
        /// Written in the file.
        stored: u32,
        /// Of the bytes read.
        computed: u32,
    },
    /// The file holds another kind of model.
    #[error("model file: expected a {expected}, found a {found}")]
    Kind {
        /// Kind asked for.
        expected: &'static str,
        /// Kind in the file.
        found: String,
    },
    /// The header of the file and its numbers contradict each other.
    #[error("model file: {0}")]
    Malformed(String),
    /// libtorch refused, or returned what it should not.
    #[error("libtorch: {0}")]
    Libtorch(String),
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, ForestError>;
