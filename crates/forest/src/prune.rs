//! Pruning to the nodes that matter on given rows.

use ndarray::ArrayView2;

use crate::classifier::SoftForest;
use crate::error::Result;
use crate::explain::NodeMass;
use crate::params::{Mix, require};
use crate::tree::{Tree, softmax_rows};

impl SoftForest {
    /// Turns every gate that less than `below` of the rows' mass gets to into a leaf, which then says what its subtree said on
    /// average. Returns the number of gates dropped. As a leaf weighs rows by the mass that arrived, the mean of each tree's
    /// mixture over the rows stays what it was; with linear leaves only about, as slopes are averaged by themselves.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba), and for a mass outside [0, 1].
    pub fn prune(&mut self, x: ArrayView2<f32>, below: f64) -> Result<usize> {
        require((0.0..=1.0).contains(&below), "below", "a mass in [0, 1]", &below)?;
        let mut dropped = 0;
        let mut pruned = Vec::with_capacity(self.trees().len());
        for tree in 0..self.trees().len() {
            let masses = self.node_importance(tree, x)?;
            let small = prune_tree(&self.trees()[tree], &masses, self.params().mix, below);
            dropped += self.trees()[tree].biases().len() - small.biases().len();
            pruned.push(small);
        }
        self.ensemble.trees = pruned;
        self.ensemble.compile();
        Ok(dropped)
    }
}

fn prune_tree(tree: &Tree, masses: &[NodeMass], mix: Mix, below: f64) -> Tree {
    let gates = tree.topology().gates();
    let is_leaf = |gate: usize| masses[gates[gate].node as usize].reach < below;
    let mut tree = tree.clone();
    let (inputs, outputs) = (tree.inputs, tree.outputs);
    if mix == Mix::Probabilities {
        // Average what is mixed: distributions, not their logits.
        tree.responses = softmax_rows(&tree.responses, tree.outputs);
    }
    // Bottom-up, a node's response becomes the mean over its subtree, weighted by where the rows stopped.
    let mut stop: Vec<f64> = masses.iter().map(|m| m.stop).collect();
    for (index, gate) in gates.iter().enumerate().rev() {
        if !is_leaf(index) {
            continue;
        }
        let parts = [gate.node, gate.left, gate.right].map(|n| n as usize);
        let total: f64 = parts.iter().map(|&n| stop[n]).sum();
        // Rows never get here: any weights will do, equal ones of the children are the least surprising.
        let shares = if total > 0.0 { parts.map(|n| (stop[n] / total) as f32) } else { [0.0, 0.5, 0.5] };
        average(&mut tree.responses, outputs, parts, shares);
        if !tree.slopes.is_empty() {
            average(&mut tree.slopes, outputs * inputs, parts, shares);
        }
        stop[parts[0]] = total;
    }
    if mix == Mix::Probabilities {
        tree.responses.iter_mut().for_each(|q| *q = q.max(f32::MIN_POSITIVE).ln());
    }
    tree.pruned(is_leaf)
}

/// Replaces the first node's row of `values` `[nodes, width]` by the weighted mean of three nodes' rows.
fn average(values: &mut [f32], width: usize, [node, left, right]: [usize; 3], shares: [f32; 3]) {
    for k in 0..width {
        values[node * width + k] = shares[0] * values[node * width + k]
            + shares[1] * values[left * width + k]
            + shares[2] * values[right * width + k];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{LeafModel, Optimiser, SoftForestParams};
    use crate::synthetic::blobs;
    use ndarray::{Array2, aview1};

    fn model(harden: bool, linear: bool) -> Result<(SoftForest, Array2<f32>, Vec<usize>)> {
        let (x, y) = blobs(400, 5, 4, 3.0, 1);
        let mut params = SoftForestParams::default()
            .trees(3)
            .depth(5)
            .epochs(20)
            .batch(32)
            .harden(harden)
            .optimiser(Optimiser { rate: 0.05, ..Optimiser::default() });
        if linear {
            params = params.mix(Mix::Logits).leaf(LeafModel::Linear);
        }
        Ok((params.fit(x.view(), aview1(&y))?, x, y))
    }

    #[test]
    fn a_threshold_of_zero_changes_nothing() -> Result<()> {
        let (mut forest, x, _) = model(true, false)?;
        let before = forest.predict_proba(x.view())?;
        assert_eq!(forest.prune(x.view(), 0.0)?, 0);
        let after = forest.predict_proba(x.view())?;
        // Responses went through softmax and back.
        assert!(before.iter().zip(&after).all(|(b, a)| (b - a).abs() < 1e-6));
        Ok(())
    }

    #[test]
    fn a_threshold_of_one_leaves_the_mean_prediction_as_a_constant() -> Result<()> {
        let (mut forest, x, _) = model(false, false)?;
        let mean = forest.predict_proba(x.view())?.mean_axis(ndarray::Axis(0));
        forest.prune(x.view(), 1.0)?;
        // Rounding decides whether the root's own reach, a mean of ones, is below 1.
        assert!(forest.trees().iter().all(|t| t.biases().len() <= 1));
        let after = forest.predict_proba(x.view())?.mean_axis(ndarray::Axis(0));
        for (b, a) in mean.into_iter().flatten().zip(after.into_iter().flatten()) {
            // A leaf's average weighs rows as they arrive, so the mean over the rows is kept.
            assert!((b - a).abs() < 1e-4, "{b} {a}");
        }
        Ok(())
    }

    #[test]
    fn small_thresholds_drop_gates_and_keep_the_accuracy() -> Result<()> {
        for linear in [false, true] {
            let (mut forest, x, y) = model(true, linear)?;
            let (before, gates) = (forest.score(x.view(), aview1(&y))?, forest.complexity().gates);
            let dropped = forest.prune(x.view(), 0.02)?;
            assert_eq!(forest.complexity().gates, gates - dropped);
            let after = forest.score(x.view(), aview1(&y))?;
            assert!(after > before - 0.02, "{before} {after}");
        }
        let (mut forest, x, _) = model(true, false)?;
        assert!(forest.prune(x.view(), 1.5).is_err());
        Ok(())
    }
}
