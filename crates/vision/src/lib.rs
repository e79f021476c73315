//! Computer vision that explains itself: [`fas`], [`grouping`], [`invariance`].

pub mod fas;
pub mod grouping;
pub mod invariance;
