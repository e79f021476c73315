//! One file a command: its arguments, and what it does.

pub(crate) mod bench;
pub(crate) mod ci;
pub(crate) mod data;
pub(crate) mod doc;
pub(crate) mod repro;
pub(crate) mod setup;
pub(crate) mod test;
