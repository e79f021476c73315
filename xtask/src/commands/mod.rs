//! One file a command: its arguments, and what it does.

pub(crate) mod bench;
pub(crate) mod ci;
pub(crate) mod data;
pub(crate) mod doc;
pub(crate) mod repro;
pub(crate) mod setup;
pub(crate) mod test;

/// An error and, a line each, what lies behind it.
pub(crate) fn with_reasons(error: &anyhow::Error) -> String {
    let lines: Vec<String> = error.chain().map(ToString::to_string).collect();
    lines.join("\n  because: ")
}
