//! What matters over many rows: features, nodes, depths.

use ndarray::{ArrayView2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::leafness;
use crate::classifier::SoftForest;
use crate::ensemble::arg_max;
use crate::error::{ForestError, Result};
use crate::recursion::value_gradient;
use crate::tree::{Tree, softmax_rows};

/// Rows of one sum over rows; of 60,000 there are a thousand such sums.
const CHUNK: usize = 64;

/// How much of the data passes and stops at one node.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeMass {
    /// Mean probability of getting to the node.
    pub reach: f64,
    /// Mean probability of stopping there; sums to 1 over the nodes of a tree.
    pub stop: f64,
}

impl SoftForest {
    /// Importance of every column on the given rows, summing to 1: the mean, over rows, trees and gates, of the absolute
    /// first-order effect |dP(class)/d score| x |weight x centred value| on the row's predicted class. All zeros when no gate
    /// has any effect.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba).
    pub fn feature_importance(&self, x: ArrayView2<f32>) -> Result<Vec<f64>> {
        let predicted = self.predict(x)?;
        let expanded = self.ensemble.encoder.expand(x)?;
        let sources = self.ensemble.encoder.source_columns();
        let columns = self.ensemble.encoder.width();
        // Sums of so many rows each, in order: as many threads as there may be, the same numbers.
        let chunks: Vec<Vec<f64>> = expanded
            .axis_chunks_iter(Axis(0), CHUNK)
            .into_par_iter()
            .zip(predicted.as_slice().unwrap_or_default().par_chunks(CHUNK))
            .map(|(rows, classes)| {
                let mut sums = vec![0.0; columns];
                for (row, &class) in rows.rows().into_iter().zip(classes) {
                    let inputs = row.to_vec();
                    for tree in self.trees() {
                        self.add_effects(tree, &inputs, class, &sources, &mut sums);
                    }
                }
                sums
            })
            .collect();
        let mut total = vec![0.0; columns];
        for chunk in chunks {
            total.iter_mut().zip(chunk).for_each(|(t, c)| *t += c);
        }
        let sum: f64 = total.iter().sum();
        if sum > 0.0 {
            total.iter_mut().for_each(|t| *t /= sum);
        }
        Ok(total)
    }

    /// Adds to each column's sum what one tree says about one row of unscaled inputs.
    pub(super) fn add_effects(&self, tree: &Tree, inputs: &[f32], class: usize, sources: &[usize], sums: &mut [f64]) {
        let routed = self.route_row(tree, inputs);
        let own: Vec<f64> =
            self.distributions(tree, inputs).chunks_exact(tree.outputs()).map(|q| f64::from(q[class])).collect();
        let gradient = value_gradient(tree.topology(), &routed.p, &leafness(tree), &own);
        for (gate, (d, slope)) in gradient.probability.iter().zip(&routed.slope).enumerate() {
            let effect = (d * slope).abs();
            if effect == 0.0 {
                continue;
            }
            for (j, &column) in sources.iter().enumerate() {
                let contribution = self.contribution(tree, gate, inputs, j);
                sums[column] += effect * f64::from(contribution.abs());
            }
        }
    }

    /// Reach and stop mass of every node of a tree, averaged over rows.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba), and for a tree number out of range.
    pub fn node_importance(&self, tree: usize, x: ArrayView2<f32>) -> Result<Vec<NodeMass>> {
        let found = self.tree(tree)?;
        let expanded = self.ensemble.encoder.expand(x)?;
        let rows = expanded.nrows() as f64;
        let empty = NodeMass { reach: 0.0, stop: 0.0 };
        let mut masses = vec![empty; found.topology().nodes()];
        for row in expanded.rows() {
            let routed = self.route_row(found, &row.to_vec());
            for (mass, (reach, stop)) in masses.iter_mut().zip(routed.reach.iter().zip(&routed.stop)) {
                mass.reach += reach / rows;
                mass.stop += stop / rows;
            }
        }
        Ok(masses)
    }

    /// For every depth, the probability that a node which exists there is a leaf, over all trees.
    #[must_use]
    pub fn leafness_by_depth(&self) -> Vec<f64> {
        let mut sums: Vec<(f64, f64)> = Vec::new();
        for tree in self.trees() {
            let topology = tree.topology();
            let existence = topology.existence(tree.leafness());
            let gate_of = topology.gate_of();
            for (node, depth) in topology.depths().into_iter().enumerate() {
                if sums.len() <= depth {
                    sums.resize(depth + 1, (0.0, 0.0));
                }
                let leaf = gate_of[node].map_or(1.0, |g| tree.leafness()[g]);
                let exists = f64::from(existence[node]);
                sums[depth].0 += exists * f64::from(leaf);
                sums[depth].1 += exists;
            }
        }
        sums.into_iter().map(|(leaves, all)| if all > 0.0 { leaves / all } else { 1.0 }).collect()
    }

    /// Weights of a gate in units of the user's columns, one a column (categories and indicators of a column summed): for
    /// image rows, the picture of what the gate looks for. Positive pushes left.
    ///
    /// # Errors
    /// For a tree or gate number out of range.
    pub fn gate_image(&self, tree: usize, gate: usize) -> Result<Vec<f32>> {
        let found = self.tree(tree)?;
        if gate >= found.biases().len() {
            return Err(ForestError::Index { what: "gate", expected: found.biases().len(), found: gate });
        }
        let encoder = &self.ensemble.encoder;
        let mut image = vec![0.0; encoder.width()];
        for ((&w, &s), &column) in
            found.gate_weights(gate).iter().zip(encoder.inverse_scale()).zip(&encoder.source_columns())
        {
            image[column] += w * s;
        }
        Ok(image)
    }

    pub(super) fn tree(&self, tree: usize) -> Result<&Tree> {
        self.trees().get(tree).ok_or(ForestError::Index { what: "tree", expected: self.trees().len(), found: tree })
    }

    /// Class that each node of a tree says; with linear leaves, about a row that scaling turns into zeros.
    pub(super) fn says(&self, tree: &Tree) -> Vec<(usize, f32)> {
        softmax_rows(&tree.responses, tree.outputs())
            .chunks_exact(tree.outputs())
            .map(|q| {
                let class = arg_max(q.iter().copied());
                (class, q[class])
            })
            .collect()
    }
}
