//! What a worker says on its standard output, a line a message; all other lines are its log.

use std::io::Write;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

const MARK: &str = "@repro ";

/// How often at most progress is worth a line.
const EVERY: Duration = Duration::from_millis(200);

/// A message from a worker to the executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Message {
    /// So many epochs of so many; `inherited` is the percentage of the time so far that earlier processes spent.
    Progress { done: u64, total: u64, inherited: u8, note: String },
    /// Something that the person at the terminal should read.
    Note(String),
    /// Why the run failed. The log says it too, unless the disk is full.
    Failed(String),
}

impl Message {
    /// The message in a line, if it is one.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(MARK)?).ok()
    }

    fn line(&self) -> String {
        // Strings and integers always serialise.
        format!("{MARK}{}\n", serde_json::to_string(self).unwrap_or_default())
    }
}

/// The worker's end.
pub(crate) struct Reporter {
    out: Box<dyn Write + Send>,
    last: Option<Instant>,
}

impl Reporter {
    /// Speaks on standard output.
    pub(crate) fn stdout() -> Self {
        Self { out: Box::new(std::io::stdout()), last: None }
    }

    #[cfg(test)]
    pub(crate) fn silent() -> Self {
        Self { out: Box::new(std::io::sink()), last: None }
    }

    pub(crate) fn progress(&mut self, done: u64, total: u64, inherited: u8, note: &str) {
        if done < total && self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        self.send(&Message::Progress { done, total, inherited, note: note.into() });
    }

    pub(crate) fn note(&mut self, text: &str) {
        self.send(&Message::Note(text.into()));
    }

    pub(crate) fn failed(&mut self, reason: &str) {
        self.send(&Message::Failed(reason.into()));
    }

    fn send(&mut self, message: &Message) {
        // Nobody listening is no reason to stop: the closed pipe on standard input is what ends an orphan.
        let _ = self.out.write_all(message.line().as_bytes()).and_then(|()| self.out.flush());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_that_are_no_messages_are_log() {
        for line in ["", "epoch 3", "@repro", "@repro {", "@repro {\"progress\":1}", " @repro {\"note\":\"x\"}"] {
            assert_eq!(Message::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn messages_are_one_line_and_read_back(done: u64, total: u64, inherited: u8, note in "\\PC{0,20}\n?") {
            let progress = Message::Progress { done, total, inherited, note: note.clone() };
            for message in [progress, Message::Note(note.clone()), Message::Failed(note.clone())] {
                let line = message.line();
                prop_assert_eq!(line.matches('\n').count(), 1);
                prop_assert_eq!(Message::parse(line.trim_end_matches('\n')), Some(message));
            }
        }
    }
}
