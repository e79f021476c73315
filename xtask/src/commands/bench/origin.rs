//! Where a report's figures come from.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use super::machine::{machine, said, unknown};

/// When, where, of what and how the figures were measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Origin {
    /// As in Git, with `-dirty` when tracked files differ.
    pub(super) commit: String,
    /// Year-month-day, of Greenwich.
    pub(super) date: String,
    pub(super) machine: BTreeMap<&'static str, String>,
    /// Of either side.
    pub(super) threads: usize,
    /// The most that a comparison has.
    pub(super) rounds: usize,
    /// Handed to `cargo bench` by who made the report.
    pub(super) arguments: Vec<String>,
}

impl Origin {
    /// Of the checkout at `root`, as it is before the benches are built.
    pub(super) fn now(root: &Path, threads: usize, rounds: usize, arguments: Vec<String>) -> Self {
        let git = |arguments: &[&str]| said(Command::new("git").arg("-C").arg(root).args(arguments));
        let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|lines| !lines.is_empty());
        let commit = git(&["rev-parse", "HEAD"]).map(|commit| commit + if changed { "-dirty" } else { "" });
        let date = said(Command::new("date").args(["-u", "+%Y-%m-%d"]));
        Self {
            commit: commit.unwrap_or_else(unknown),
            date: date.unwrap_or_else(unknown),
            machine: machine(),
            threads,
            rounds,
            arguments,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_a_checkout_there_is_no_commit() {
        let folder = tempfile::tempdir().unwrap();
        let origin = Origin::now(folder.path(), 2, 3, Vec::new());
        assert_eq!(origin.commit, "unknown");
        assert!(origin.machine.contains_key("vector units"));
    }
}
