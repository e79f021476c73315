//! Evaluation that follows only where mass goes, with a bound on the error.
//!
//! At a gate, a child that would receive less than the threshold hands its mass to its sibling. Moving mass m from one
//! subtree to another changes a tree's distribution by at most 2 m in the sum of absolute differences, and a mixture of
//! values by at most m times their range; moves add up.

use super::dot::dots;
use super::{Kernel, KernelTree, LEAF};

/// One sample with some mass at a node.
#[derive(Clone, Copy)]
struct Visit {
    row: u32,
    mass: f32,
}

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Walk {
    /// Who arrives at each node.
    arrivals: Vec<Vec<Visit>>,
    /// Mass moved to siblings, per row.
    moved: Vec<f32>,
    one_tree: Vec<f32>,
}

impl Kernel {
    /// Evaluates rows (any number of them) into `output`, bounds into `bounds`; returns the number of gates evaluated.
    pub(super) fn skip_block(
        &self,
        rows: &[f32],
        threshold: f32,
        output: &mut [f32],
        bounds: &mut [f32],
        walk: &mut Walk,
    ) -> usize {
        output.fill(0.0);
        bounds.fill(0.0);
        let share = 1.0 / self.trees.len() as f32;
        let mut visited = 0;
        for tree in &self.trees {
            walk.moved.clear();
            walk.moved.resize(bounds.len(), 0.0);
            walk.one_tree.clear();
            walk.one_tree.resize(output.len(), 0.0);
            visited += self.walk(tree, rows, threshold, walk);
            if self.softmax {
                walk.one_tree.chunks_exact_mut(self.outputs).for_each(crate::tree::softmax);
            }
            for (o, v) in output.iter_mut().zip(&walk.one_tree) {
                *o += share * v;
            }
            for (bound, &moved) in bounds.iter_mut().zip(&walk.moved) {
                if moved > 0.0 {
                    *bound += share * self.distance(tree, moved);
                }
            }
        }
        visited
    }

    /// The most that moving this mass between children of a tree can change its output.
    pub(super) fn distance(&self, tree: &KernelTree, moved: f32) -> f32 {
        // Distributions: L1 <= 2 m. Values, and softmax of them: <= m x range, as softmax's L1 change is at most the
        // largest change of a logit.
        let factor = if self.mixes_distributions { 2.0 } else { tree.range };
        // No two distributions are further apart than 2.
        let most = if self.mixes_distributions || self.softmax { 2.0 } else { f32::INFINITY };
        (factor * moved).min(most)
    }

    fn walk(&self, tree: &KernelTree, rows: &[f32], threshold: f32, walk: &mut Walk) -> usize {
        let nodes = tree.gate_of.len();
        if walk.arrivals.len() < nodes {
            walk.arrivals.resize_with(nodes, Vec::new);
        }
        walk.arrivals.iter_mut().for_each(Vec::clear);
        let count = walk.moved.len() as u32;
        walk.arrivals[0].extend((0..count).map(|row| Visit { row, mass: 1.0 }));
        let mut visited = 0;
        for node in 0..nodes {
            let gate = tree.gate_of[node];
            let leafness = match gate {
                LEAF => 1.0,
                gate => tree.leafness[gate as usize],
            };
            let (here, below) = walk.arrivals.split_at_mut(node + 1);
            let visits = &here[node];
            if leafness > 0.0 {
                let mut values = tree.values[node * self.outputs..(node + 1) * self.outputs].to_vec();
                for visit in visits {
                    if let Some(&Some(first)) = tree.rows_of.get(node) {
                        self.linear_leaf(first, rows, visit.row, &mut values);
                    }
                    let at = visit.row as usize * self.outputs;
                    let stop = visit.mass * leafness;
                    let out = &mut walk.one_tree[at..at + self.outputs];
                    out.iter_mut().zip(&values).for_each(|(o, v)| *o += stop * v);
                }
            }
            if gate == LEAF || visits.is_empty() {
                continue;
            }
            visited += visits.len();
            let left = tree.gates[gate as usize].left as usize;
            let (go_left, go_right) = below[left - node - 1..].split_at_mut(1);
            let sides = [&mut go_left[0], &mut go_right[0]];
            for group in visits.chunks(4) {
                let p = self.probabilities(tree.first_gate + gate as usize, rows, group);
                for (visit, p) in group.iter().zip(p) {
                    let through = visit.mass * (1.0 - leafness);
                    let mut masses = [through * p, through - through * p];
                    let small = usize::from(masses[1] < masses[0]);
                    if masses[small] < threshold {
                        walk.moved[visit.row as usize] += masses[small];
                        masses[small] = 0.0;
                        masses[1 - small] = through;
                    }
                    for side in 0..2 {
                        if masses[side] > 0.0 {
                            sides[side].push(Visit { row: visit.row, mass: masses[side] });
                        }
                    }
                }
            }
        }
        visited
    }

    /// What a linear leaf says about one row.
    fn linear_leaf(&self, first: usize, rows: &[f32], row: u32, values: &mut [f32]) {
        let width = self.inputs;
        let x = &rows[row as usize * width..][..width];
        for (k, value) in values.iter_mut().enumerate() {
            let weights = &self.weights[(first + k) * width..][..width];
            let [dot] = dots(weights, [x]);
            *value = dot + self.bias[first + k];
        }
    }

    /// Probabilities of going left for up to four visits of one gate.
    fn probabilities(&self, gate: usize, rows: &[f32], group: &[Visit]) -> [f32; 4] {
        let width = self.inputs;
        let row = |i: usize| {
            let at = group[i].row as usize * width;
            &rows[at..at + width]
        };
        let weights = &self.weights[gate * width..(gate + 1) * width];
        let scores = if group.len() == 4 {
            dots(weights, [row(0), row(1), row(2), row(3)])
        } else {
            let mut scores = [0.0; 4];
            for (i, score) in scores.iter_mut().enumerate().take(group.len()) {
                [*score] = dots(weights, [row(i)]);
            }
            scores
        };
        scores.map(|z| Self::probability(self.gate, z + self.bias[gate]))
    }
}
