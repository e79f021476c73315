//! What a model costs: counted in every unit that papers count in.

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::classifier::SoftForest;
use crate::error::Result;
use crate::explain::leafness;
use crate::kernel::Evaluation;
use crate::params::LeafModel;
use crate::recursion::expected_gates;

/// Size and cost of a soft forest. A soft gate stores as many numbers as there are inputs, a hard split about four, so trees
/// alone compare nothing: read trees, scalars and multiply-accumulates together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Complexity {
    /// Number of trees.
    pub trees: usize,
    /// Gates of all trees.
    pub gates: usize,
    /// Nodes without a gate.
    pub leaves: usize,
    /// Depth of the deepest node.
    pub max_depth: usize,
    /// Mean depth of the leaves.
    pub mean_depth: f64,
    /// Numbers that prediction needs: weights and bias of each gate, the response of each node that can be stopped at, and
    /// the leafness of gates that are neither open nor closed.
    pub scalars: usize,
    /// Bytes of the stored model.
    pub bytes: usize,
    /// Multiply-accumulates per row of an exact evaluation, the mixing of responses included.
    pub macs: usize,
}

/// Gates that a row's evaluation passes, per tree, averaged over rows and trees.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GatesPerTree {
    /// Evaluated by exact evaluation: all that exist.
    pub exact: f64,
    /// Evaluated by hard routing.
    pub hard: f64,
    /// Expected of a row that is routed, and stops, as probabilities say: the sum over gates of the probability of
    /// arriving and going on. What [`Regularisers::path`](crate::Regularisers::path) asks a price for.
    pub soft: f64,
}

impl SoftForest {
    /// Counts everything.
    #[must_use]
    pub fn complexity(&self) -> Complexity {
        let (mut gates, mut leaves, mut stops, mut between) = (0, 0, 0, 0);
        let (mut max_depth, mut depth_sum) = (0, 0);
        for tree in self.trees() {
            let topology = tree.topology();
            gates += topology.gates().len();
            leaves += topology.nodes() - topology.gates().len();
            stops += topology.nodes() - topology.gates().len();
            for &g in tree.leafness() {
                stops += usize::from(g > 0.0);
                between += usize::from(g > 0.0 && g < 1.0);
            }
            for (depth, gate) in topology.depths().into_iter().zip(topology.gate_of()) {
                max_depth = max_depth.max(depth);
                if gate.is_none() {
                    depth_sum += depth;
                }
            }
        }
        let inputs = self.kernel().inputs();
        let linear = self.params().leaf == LeafModel::Linear;
        // A linear response holds a weight per input beside its constant.
        let responses = stops * self.classes() * if linear { inputs + 1 } else { 1 };
        Complexity {
            trees: self.trees().len(),
            gates,
            leaves,
            max_depth,
            mean_depth: depth_sum as f64 / leaves.max(1) as f64,
            scalars: gates * (inputs + 1) + responses + between,
            bytes: self.to_bytes().map_or(0, |b| b.len()),
            // One for each input of a linear response; and to mix, one for each response.
            macs: gates * inputs + responses,
        }
    }

    /// Gates evaluated per row and tree on the given rows.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba).
    pub fn gates_per_tree(&self, x: ArrayView2<f32>) -> Result<GatesPerTree> {
        let expanded = self.ensemble.encoder.expand(x)?;
        let all: usize = self.trees().iter().map(|t| t.topology().gates().len()).sum();
        Ok(GatesPerTree {
            exact: all as f64 / self.trees().len() as f64,
            hard: self.kernel().gates_visited(expanded.view(), Evaluation::Hard)?,
            soft: self.expected_gates(expanded.view()),
        })
    }

    /// Mean over unscaled rows and over trees of the expected number of gates.
    fn expected_gates(&self, x: ArrayView2<f32>) -> f64 {
        // Added up in order, so that the number of threads changes nothing.
        let rows: Vec<f64> = x
            .axis_iter(Axis(0))
            .into_par_iter()
            .map(|row| {
                let inputs = row.to_vec();
                let routed = self.trees().iter().map(|tree| (tree, self.route_row(tree, &inputs).p));
                routed.map(|(tree, p)| expected_gates(tree.topology(), &p, &leafness(tree))).sum()
            })
            .collect();
        rows.iter().sum::<f64>() / (rows.len() * self.trees().len()) as f64
    }
}
