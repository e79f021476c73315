//! Evaluation that follows only where mass goes, with a bound on the error.
//!
//! At a gate, a child that would receive less than the threshold hands its mass to its sibling. Moving mass m from one
//! subtree to another changes a tree's distribution by at most 2 m in the sum of absolute differences, and a mixture of
//! values by at most m times their range; moves add up. Where a gate's probability may be off by d, the mass through it
//! times d counts as moved too.

use super::dot::dots;
use super::{Kernel, KernelTree, LEAF};

/// One sample with some mass at a node.
#[derive(Clone, Copy, Default)]
pub(super) struct Visit {
    pub(super) row: u32,
    mass: f32,
}

/// What tells a walk where samples go.
pub(super) trait Signpost {
    /// Scores of a gate for up to four visits.
    fn scores(&self, gate: usize, group: &[Visit]) -> [f32; 4];

    /// How far the probability that follows may be off.
    fn doubt(&self, _gate: usize, _row: u32) -> f32 {
        0.0
    }
}

/// Gates as they were trained.
pub(super) struct Plain<'a> {
    pub(super) kernel: &'a Kernel,
    /// `[rows, inputs]`.
    pub(super) rows: &'a [f32],
}

impl Signpost for Plain<'_> {
    fn scores(&self, gate: usize, group: &[Visit]) -> [f32; 4] {
        let width = self.kernel.inputs;
        let row = |i: usize| &self.rows[group[i].row as usize * width..][..width];
        let weights = &self.kernel.weights[gate * width..][..width];
        let mut scores = [0.0; 4];
        if group.len() == 4 {
            scores = dots(weights, [row(0), row(1), row(2), row(3)]);
        } else {
            for (i, score) in scores.iter_mut().enumerate().take(group.len()) {
                [*score] = dots(weights, [row(i)]);
            }
        }
        scores.map(|score| score + self.kernel.bias[gate])
    }
}

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Walk {
    /// Who arrives at each node, `[nodes][rows]`, and how many they are.
    arrivals: Vec<Visit>,
    counts: Vec<usize>,
    /// Mass moved to siblings, per row.
    moved: Vec<f32>,
    one_tree: Vec<f32>,
    /// What a linear leaf says.
    leaf: Vec<f32>,
}

impl Kernel {
    /// Evaluates rows (any number of them) into `output`, bounds into `bounds`; returns the number of gates evaluated.
    pub(super) fn skip_block(
        &self,
        rows: &[f32],
        signpost: &impl Signpost,
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
            visited += self.walk(tree, rows, signpost, threshold, walk);
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

    fn walk(
        &self,
        tree: &KernelTree,
        rows: &[f32],
        signpost: &impl Signpost,
        threshold: f32,
        walk: &mut Walk,
    ) -> usize {
        let (nodes, rows_here) = (tree.gate_of.len(), walk.moved.len());
        walk.arrivals.resize(nodes * rows_here, Visit::default());
        walk.counts.clear();
        walk.counts.resize(nodes, 0);
        walk.counts[0] = rows_here;
        for (row, visit) in walk.arrivals.iter_mut().enumerate().take(rows_here) {
            *visit = Visit { row: row as u32, mass: 1.0 };
        }
        let mut visited = 0;
        for node in 0..nodes {
            let gate = tree.gate_of[node];
            let leafness = match gate {
                LEAF => 1.0,
                gate => tree.leafness[gate as usize],
            };
            let (here, below) = walk.arrivals.split_at_mut((node + 1) * rows_here);
            let visits = &here[node * rows_here..][..walk.counts[node]];
            if leafness > 0.0 {
                let constant = &tree.values[node * self.outputs..][..self.outputs];
                let linear = tree.rows_of.get(node).copied().flatten();
                for visit in visits {
                    let values = match linear {
                        None => constant,
                        Some(first) => self.linear_leaf(first, rows, visit.row, &mut walk.leaf),
                    };
                    let stop = visit.mass * leafness;
                    let out = &mut walk.one_tree[visit.row as usize * self.outputs..][..self.outputs];
                    out.iter_mut().zip(values).for_each(|(o, v)| *o += stop * v);
                }
            }
            if gate == LEAF || visits.is_empty() {
                continue;
            }
            visited += visits.len();
            let left = tree.gates[gate as usize].left as usize;
            let (go_left, go_right) = below[(left - node - 1) * rows_here..].split_at_mut(rows_here);
            let (mut to_left, mut to_right) = (0, 0);
            let gate = tree.first_gate + gate as usize;
            for group in visits.chunks(4) {
                let shares = signpost.scores(gate, group).map(|score| Self::probability(self.gate, score));
                for (&Visit { row, mass }, p) in group.iter().zip(shares) {
                    let through = mass * (1.0 - leafness);
                    let (left, right) = (through * p, through - through * p);
                    // No branch depends on where a sample goes: nobody could guess it.
                    let spared = left.min(right) < threshold;
                    let moved = if spared { left.min(right) } else { 0.0 };
                    walk.moved[row as usize] += moved + through * signpost.doubt(gate, row);
                    let all_left = if right < left { through } else { 0.0 };
                    let left = if spared { all_left } else { left };
                    let right = if spared { through - all_left } else { right };
                    go_left[to_left] = Visit { row, mass: left };
                    to_left += usize::from(left > 0.0);
                    go_right[to_right] = Visit { row, mass: right };
                    to_right += usize::from(right > 0.0);
                }
            }
            (walk.counts[left], walk.counts[left + 1]) = (to_left, to_right);
        }
        visited
    }

    /// What a linear leaf says about one row.
    fn linear_leaf<'a>(&self, first: usize, rows: &[f32], row: u32, values: &'a mut Vec<f32>) -> &'a [f32] {
        let width = self.inputs;
        let x = &rows[row as usize * width..][..width];
        values.clear();
        values.extend((first..first + self.outputs).map(|leaf| {
            let [dot] = dots(&self.weights[leaf * width..][..width], [x]);
            dot + self.bias[leaf]
        }));
        values
    }
}
