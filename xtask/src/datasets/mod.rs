//! Data sets as folders of files below one root: which there are, whether they are there, and how to get them.

mod archive;
mod catalogue;
mod fetch;
mod verify;

pub(crate) use catalogue::{Catalogue, DataSet};
pub(crate) use fetch::{Outcome, fetch};
pub(crate) use verify::{State, glance, verify};
