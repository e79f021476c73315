//! What every attack promises, on models small enough to know the answer.

mod bad_input;
mod certificates;
mod gradient;
mod ladder;
pub(super) mod models;
mod projections;
mod reporting;
