//! The tasks: where their files lie, what their columns are called, what is measured.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::TextError;

/// A task of GLUE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Is the sentence grammatical? 8,551 / 1,043 sentences to train on and to develop with.
    Cola,
    /// Is the phrase of a film review positive? 67,349 / 872.
    #[serde(rename = "sst-2")]
    Sst2,
    /// Do two sentences mean the same? 3,668 / 408.
    Mrpc,
    /// How similar are two sentences, from 0 to 5? 5,749 / 1,500.
    StsB,
    /// Do two questions ask the same? 363,846 / 40,430.
    Qqp,
    /// Does the second sentence follow from the first, contradict it, or neither? 392,702 / 9,815 and 9,832.
    Mnli,
    /// Does the sentence answer the question? 104,743 / 5,463.
    Qnli,
    /// Does the second sentence follow from the first? 2,490 / 277.
    Rte,
    /// Does the second sentence, a pronoun resolved, follow from the first? 635 / 71.
    Wnli,
    /// The diagnostic set, answered by a model of [`Task::Mnli`]. Only a test split, without labels.
    Diagnostic,
}

/// A part of a task's release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// For fitting.
    Train,
    /// For the figures that are reported; of [`Task::Mnli`] the genres that are also in the training part.
    Dev,
    /// Of [`Task::Mnli`] only: the genres that are not in the training part.
    DevMismatched,
    /// Without labels.
    Test,
    /// Of [`Task::Mnli`] only: the test of the genres that are not in the training part.
    TestMismatched,
}

/// What a task's predictions are measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Share of right answers.
    Accuracy,
    /// F1 of class 1.
    F1,
    /// Matthews' correlation.
    Matthews,
    /// Pearson's correlation.
    Pearson,
    /// Spearman's correlation.
    Spearman,
}

impl Metric {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "accuracy",
            Self::F1 => "f1",
            Self::Matthews => "matthews",
            Self::Pearson => "pearson",
            Self::Spearman => "spearman",
        }
    }
}

/// The columns of a task's files.
pub(super) struct Columns {
    /// The sentence, or the first of two.
    pub(super) first: &'static str,
    /// The second sentence.
    pub(super) second: Option<&'static str>,
    /// The label; files without labels lack it.
    pub(super) label: &'static str,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 10] = [
        Self::Cola,
        Self::Sst2,
        Self::Mrpc,
        Self::StsB,
        Self::Qqp,
        Self::Mnli,
        Self::Qnli,
        Self::Rte,
        Self::Wnli,
        Self::Diagnostic,
    ];

    /// Its name as in the release, which is also its folder there.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cola => "CoLA",
            Self::Sst2 => "SST-2",
            Self::Mrpc => "MRPC",
            Self::StsB => "STS-B",
            Self::Qqp => "QQP",
            Self::Mnli => "MNLI",
            Self::Qnli => "QNLI",
            Self::Rte => "RTE",
            Self::Wnli => "WNLI",
            Self::Diagnostic => "diagnostic",
        }
    }

    /// The labels as they stand in the files; a class number is a position in it. Empty for scores from 0 to 5.
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Self::StsB => &[],
            Self::Cola | Self::Sst2 | Self::Mrpc | Self::Qqp | Self::Wnli => &["0", "1"],
            Self::Qnli | Self::Rte => &["entailment", "not_entailment"],
            Self::Mnli | Self::Diagnostic => &["contradiction", "entailment", "neutral"],
        }
    }

    /// Outputs that a network needs: one a class, one for a score.
    pub fn outputs(self) -> usize {
        self.labels().len().max(1)
    }

    /// An example has two texts.
    pub fn is_pair(self) -> bool {
        self.columns().second.is_some()
    }

    /// What is measured, in the order of the GLUE table.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Self::Cola | Self::Diagnostic => &[Metric::Matthews],
            Self::Sst2 | Self::Mnli | Self::Qnli | Self::Rte | Self::Wnli => &[Metric::Accuracy],
            Self::Mrpc | Self::Qqp => &[Metric::Accuracy, Metric::F1],
            Self::StsB => &[Metric::Pearson, Metric::Spearman],
        }
    }

    /// The file of a split, below the task's folder.
    ///
    /// # Errors
    /// A split that the release does not have.
    pub fn file(self, split: Split) -> Result<&'static str, TextError> {
        match (self, split) {
            (Self::Diagnostic, Split::Test) => Ok("diagnostic.tsv"),
            (Self::Mnli, Split::Dev) => Ok("dev_matched.tsv"),
            (Self::Mnli, Split::DevMismatched) => Ok("dev_mismatched.tsv"),
            (Self::Mnli, Split::Test) => Ok("test_matched.tsv"),
            (Self::Mnli, Split::TestMismatched) => Ok("test_mismatched.tsv"),
            (Self::Diagnostic, _) | (_, Split::DevMismatched | Split::TestMismatched) => {
                Err(TextError::NoSplit { task: self.name(), split: split.name() })
            }
            (_, Split::Train) => Ok("train.tsv"),
            (_, Split::Dev) => Ok("dev.tsv"),
            (_, Split::Test) => Ok("test.tsv"),
        }
    }

    pub(super) fn columns(self) -> Columns {
        let of = |first, second, label| Columns { first, second, label };
        match self {
            Self::Cola | Self::Sst2 => of("sentence", None, "label"),
            Self::Mrpc => of("#1 String", Some("#2 String"), "Quality"),
            Self::StsB => of("sentence1", Some("sentence2"), "score"),
            Self::Qqp => of("question1", Some("question2"), "is_duplicate"),
            Self::Mnli => of("sentence1", Some("sentence2"), "gold_label"),
            Self::Qnli => of("question", Some("sentence"), "label"),
            Self::Rte | Self::Wnli | Self::Diagnostic => of("sentence1", Some("sentence2"), "label"),
        }
    }

    /// The columns of files without a header: CoLA's to train on and to develop with.
    pub(super) fn without_header(self, split: Split) -> Option<&'static [&'static str]> {
        let headerless = self == Self::Cola && matches!(split, Split::Train | Split::Dev);
        headerless.then_some(&["source", "label", "author's mark", "sentence"])
    }
}

impl Split {
    /// Its name in the release.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::DevMismatched => "dev_mismatched",
            Self::Test => "test",
            Self::TestMismatched => "test_mismatched",
        }
    }

    pub(super) fn is_labelled(self) -> bool {
        matches!(self, Self::Train | Self::Dev | Self::DevMismatched)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Task {
    type Err = TextError;

    /// The release's name in any case, hyphens optional: `SST-2`, `sst2`.
    fn from_str(name: &str) -> Result<Self, TextError> {
        let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
        Self::ALL.into_iter().find(|task| plain(task.name()) == plain(name)).ok_or_else(|| TextError::UnknownTask {
            found: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_release_in_any_spelling() {
        for task in Task::ALL {
            assert_eq!(task.name().parse::<Task>().unwrap(), task);
            assert_eq!(task.name().to_lowercase().replace('-', "").parse::<Task>().unwrap(), task);
            let written = serde_json::to_string(&task).unwrap();
            assert_eq!(serde_json::from_str::<Task>(&written).unwrap(), task);
            assert_eq!(written.trim_matches('"').parse::<Task>().unwrap(), task);
        }
        let error = "SST-3".parse::<Task>().unwrap_err().to_string();
        assert!(error.starts_with("no GLUE task `SST-3`; there are CoLA, SST-2, MRPC"), "{error}");
    }

    #[test]
    fn only_mnli_has_mismatched_genres() {
        assert_eq!(Task::Mnli.file(Split::DevMismatched).unwrap(), "dev_mismatched.tsv");
        let error = Task::Rte.file(Split::DevMismatched).unwrap_err().to_string();
        assert_eq!(error, "RTE has no split `dev_mismatched`");
        assert!(Task::Diagnostic.file(Split::Train).is_err());
    }
}
