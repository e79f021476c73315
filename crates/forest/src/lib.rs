//! Deep forests of probabilistic trees that learn their routing and their shape.
//!
//! # The idea
//! A node n of a tree has a gate, p_n(x) = sigmoid(beta (w_n . x + b_n)), the probability of going left; a leafness g_n, the
//! probability of stopping here; and a response q_n, a distribution over classes. The tree's prediction is the recursion
//!
//! ```text
//! y_n(x) = g_n q_n + (1 - g_n) (p_n(x) y_left(x) + (1 - p_n(x)) y_right(x))
//! ```
//!
//! from the root, a convex mixture of what its nodes say, differentiable in everything: routing, shape and responses are
//! trained together by gradient descent instead of greedily. At leafness 0 it is a fixed soft tree, at leafness 1 in the root
//! a constant, and in between the tree decides how large it wants to be. A forest is the mean of its trees. A cascade
//! stacks forests, each layer seeing the input and the class distributions of the layer before ([`DeepForest`]).
//!
//! This follows the abstract of Shen, Wang and Wang, "Growing Deep Forests Efficiently with Soft Routing and Learned
//! Connectivity" (ICDM Workshops 2018, arXiv 2012.14878), in the form of budding trees (Irsoy, Yildiz and Alpaydin 2014).
//!
//! # How it is built
//! - [`recursion`] is the mathematics in plain double precision, one sample at a time. Everything fast is tested against it.
//! - Training is two matrix products and an element-wise recursion over the batch, per tree; trees are spread over threads.
//! - [`Kernel`] is the compiled form that predicts: scaling and temperature folded into the gates, vector instructions picked
//!   at run time, and [`Evaluation`] choosing between exact evaluation and skipping with a bound.
//! - [`HardForest`] exists to be compared with.
//!
//! # Example
//! ```
//! use forest::synthetic::blobs;
//! use forest::SoftForestParams;
//!
//! let (x, y) = blobs(300, 5, 3, 4.0, 1);
//! let y = ndarray::Array1::from(y);
//! let forest = SoftForestParams::default().trees(5).depth(3).batch(32).fit(x.view(), y.view())?;
//! assert!(forest.score(x.view(), y.view())? > 0.9);
//! # Ok::<(), forest::ForestError>(())
//! ```

mod cascade;
mod classifier;
mod complexity;
mod encoder;
mod ensemble;
mod error;
mod explain;
mod gate;
mod hard;
mod kernel;
#[cfg(feature = "libtorch")]
pub mod libtorch;
#[cfg(feature = "linfa")]
pub mod linfa;
mod params;
mod prune;
pub mod recursion;
mod regressor;
mod simd;
mod store;
pub mod synthetic;
pub mod topology;
mod train;
mod tree;

pub use cascade::{ClassVector, DeepForest, DeepForestParams, Forest, Scanning, Window};
pub use classifier::SoftForest;
pub use complexity::{Complexity, GatesPerTree};
pub use error::{ForestError, Result};
pub use explain::{Drawing, Explanation, Names, NodeMass, Path, PathStep, Term};
pub use gate::Gate;
pub use hard::{HardForest, HardForestParams, HardKind};
pub use kernel::{Evaluation, Kernel, Prediction};
pub use params::{
    Augment, ClassWeights, EarlyStopping, LeafModel, LeafUpdate, Leafness, Loss, Missing, Mix, Optimiser, Regularisers,
    Scaling, SoftForestParams,
};
pub use regressor::SoftForestRegressor;
pub use topology::Topology;
pub use train::Epoch;
pub use tree::Tree;

/// The README's example must compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
