//! Computer vision that explains itself: [`fas`], [`grouping`], [`invariance`].

pub mod fas;
pub mod grouping;
pub mod invariance;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
