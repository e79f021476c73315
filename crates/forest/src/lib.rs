//! Deep forests of probabilistic trees that learn their routing and their shape.

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
mod params;
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
    Augment, ClassWeights, EarlyStopping, LeafUpdate, Leafness, Loss, Missing, Mix, Optimiser, Regularisers, Scaling,
    SoftForestParams,
};
pub use regressor::SoftForestRegressor;
pub use topology::Topology;
pub use train::Epoch;
pub use tree::Tree;
