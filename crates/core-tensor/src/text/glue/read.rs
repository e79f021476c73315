//! The tasks' TSV files. They know no quoting: a quotation mark is a character like any other.

use std::path::Path;

use super::{Split, Task};
use crate::Result;
use crate::text::lines::{lines, read};
use crate::text::{Encoded, Label, Labelled, Place, TextError, WordPiece};

/// A row: its texts and, unless it is a test's, its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentences {
    /// The only text, or the first of two.
    pub first: String,
    /// The second text of a pair.
    pub second: Option<String>,
    /// The label, if the split has labels.
    pub label: Option<Label>,
}

/// A split of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSet {
    /// The task.
    pub task: Task,
    /// The split.
    pub split: Split,
    /// Its rows. Copies of a set with fewer rows than the published number are about: compare.
    pub rows: Vec<Sentences>,
    /// Rows of QQP that are too short and left out, as the reference readers do; 0 for every other task.
    pub skipped: usize,
}

impl Task {
    /// Reads a split from the folder of a GLUE release, such as `glue/SST-2/train.tsv`.
    ///
    /// # Errors
    /// A split that the task does not have, and all that [`read`](Self::read) refuses.
    pub fn load(self, glue: &Path, split: Split) -> Result<TaskSet> {
        self.read(&glue.join(self.name()).join(self.file(split)?), split)
    }

    /// Reads one file.
    ///
    /// # Errors
    /// A file that cannot be read, is not UTF-8 or has no row; a header without a column that the task needs; a row with
    /// another number of columns than the header; a label outside the task's set. The errors name file and line.
    pub fn read(self, path: &Path, split: Split) -> Result<TaskSet> {
        let bytes = read(path)?;
        let mut lines = lines(path, &bytes);
        let header: Vec<&str> = match self.without_header(split) {
            Some(columns) => columns.to_vec(),
            None => match lines.next() {
                Some(line) => line?.1.split('\t').collect(),
                None => return Err(TextError::Empty { what: path.display().to_string() }.into()),
            },
        };
        let column = |name: &'static str| {
            header.iter().position(|found| *found == name).ok_or_else(|| TextError::Header {
                place: Place::new(path, 1),
                missing: name,
                found: header.iter().map(|&name| name.to_owned()).collect(),
            })
        };
        let columns = self.columns();
        let first = column(columns.first)?;
        let second = columns.second.map(column).transpose()?;
        let label = if split.is_labelled() { Some(column(columns.label)?) } else { None };
        let (mut rows, mut skipped) = (Vec::new(), 0);
        for line in lines {
            let (number, line) = line?;
            let fields: Vec<_> = line.split('\t').collect();
            if fields.len() != header.len() {
                if self == Self::Qqp && fields.len() < header.len() {
                    skipped += 1;
                    continue;
                }
                let (expected, found) = (header.len(), fields.len());
                return Err(TextError::Columns { place: Place::new(path, number), expected, found }.into());
            }
            let label = label.map(|column| self.label(fields[column], || Place::new(path, number))).transpose()?;
            let text = |column: usize| fields[column].to_owned();
            rows.push(Sentences { first: text(first), second: second.map(text), label });
        }
        if rows.is_empty() {
            return Err(TextError::Empty { what: path.display().to_string() }.into());
        }
        Ok(TaskSet { task: self, split, rows, skipped })
    }

    fn label(self, found: &str, place: impl FnOnce() -> Place) -> Result<Label, TextError> {
        let labels = self.labels();
        if labels.is_empty() {
            let score = found.parse::<f32>().ok().filter(|score| (0.0..=5.0).contains(score));
            let refused = || TextError::Label {
                place: place(),
                expected: "a score from 0 to 5".to_owned(),
                found: found.to_owned(),
            };
            return score.map(Label::Score).ok_or_else(refused);
        }
        let class = labels.iter().position(|label| *label == found);
        class.map(|class| Label::Class(class as i64)).ok_or_else(|| TextError::Label {
            place: place(),
            expected: format!("one of {labels:?}"),
            found: found.to_owned(),
        })
    }
}

impl TaskSet {
    /// The first `count` rows, or all when there are fewer.
    pub fn take(mut self, count: usize) -> Self {
        self.rows.truncate(count);
        self
    }

    /// Every row as `[CLS] first [SEP] second [SEP]`, cut to `most` tokens, on all of rayon's threads.
    ///
    /// # Errors
    /// `most` has no room for the special tokens.
    pub fn encode(&self, pieces: &WordPiece, most: usize) -> Result<Vec<Encoded>> {
        use rayon::prelude::*;
        let encode = |row: &Sentences| match &row.second {
            Some(second) => pieces.encode_pair(&row.first, second, most),
            None => pieces.encode(&row.first, most),
        };
        self.rows.par_iter().with_min_len(64).map(encode).collect()
    }

    /// The same with labels.
    ///
    /// # Errors
    /// A split without labels; `most` has no room for the special tokens.
    pub fn labelled(&self, pieces: &WordPiece, most: usize) -> Result<Vec<Labelled>> {
        let labels: Option<Vec<_>> = self.rows.iter().map(|row| row.label).collect();
        let Some(labels) = labels else {
            return Err(TextError::Empty { what: format!("labels of {} {}", self.task, self.split.name()) }.into());
        };
        let encoded = self.encode(pieces, most)?;
        Ok(encoded.into_iter().zip(labels).map(|(encoded, label)| Labelled { encoded, label }).collect())
    }
}

#[cfg(test)]
mod tests;
