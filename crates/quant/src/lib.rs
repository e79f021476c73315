//! Precision as a resource: FracTrain spends bits where and when they pay, SmartDeal trades memory for cheap computation.
//!
//! | module | paper | what it does |
//! |---|---|---|
//! | [`fractrain`] | Fu et al., *FracTrain*, arXiv 2012.13113 | training in low precision that grows over time and adapts to each input, with a ledger of what it cost |
//! | [`smartdeal`] | Chen et al., *SmartDeal*, arXiv 2101.01163; Zhao et al., *SmartExchange*, arXiv 2005.03403 | weights as a small basis times sparse powers of two: decomposed, written to a `.sdz` file, run from it, re-trained, trained in that form |
//!
//! Every method takes the user's own tch model: a `VarStore`, named tensors, or plain slices. Networks are changed through
//! the layer factories of `core-tensor`, training through its observers.

mod error;
pub mod fractrain;
pub mod smartdeal;

pub use error::{Error, Result};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
