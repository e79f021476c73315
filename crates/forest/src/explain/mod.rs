//! Why a forest decided as it did.
//!
//! A soft tree stops everywhere a little. An explanation shows, for each tree, the path to the node where the sample most
//! probably stops, and always says how much of the sample's mass the shown paths carry: a path without that number would be
//! a story, not an explanation.

mod drawing;
mod importance;

use serde::{Deserialize, Serialize};

pub use self::drawing::Drawing;
pub use self::importance::NodeMass;

use crate::classifier::SoftForest;
use crate::ensemble::arg_max;
use crate::error::{ForestError, Result};
use crate::recursion::{reach, value_gradient};
use crate::tree::{Tree, softmax_rows};

/// Why one row got its class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Class probabilities of the forest.
    pub probabilities: Vec<f32>,
    /// Most probable class; effects refer to it.
    pub class: usize,
    /// Share of the row's mass that the shown paths carry, averaged over trees.
    pub explained_mass: f64,
    /// One path a tree.
    pub paths: Vec<Path>,
}

/// The path to the node of one tree where the row most probably stops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// Number of the tree.
    pub tree: usize,
    /// Node at the end.
    pub node: usize,
    /// Probability of stopping there.
    pub mass: f64,
    /// What that node says: class probabilities.
    pub distribution: Vec<f32>,
    /// Gates on the way, from the root.
    pub steps: Vec<PathStep>,
}

/// One gate of a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PathStep {
    /// Number of the gate in its tree.
    pub gate: usize,
    /// Whether the path goes left.
    pub left: bool,
    /// Probability of the side taken.
    pub probability: f64,
    /// Probability of getting to this gate.
    pub reach: f64,
    /// The largest contributions to the gate's score, by size.
    pub terms: Vec<Term>,
}

/// One feature's part in a gate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// Column of the user's table.
    pub column: usize,
    /// Its value in the row (after expansion: 0 or 1 for a category or a missing-value indicator).
    pub value: f32,
    /// Weight of the gate in units of the input: score per unit of value.
    pub weight: f32,
    /// What the value adds to the score, relative to the training mean; positive pushes left.
    pub contribution: f32,
    /// Change of the tree's probability of the class per unit of value, to first order and through this gate alone, reading
    /// the tree as a mixture of its nodes' distributions.
    pub effect: f64,
}

/// How columns and classes are called in texts and drawings. Missing names are numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

impl Names {
    fn column(&self, column: usize) -> String {
        let numbered = || format!("x{column}");
        self.columns.get(column).cloned().unwrap_or_else(numbered)
    }

    fn class(&self, class: usize) -> String {
        let numbered = || format!("class {class}");
        self.classes.get(class).cloned().unwrap_or_else(numbered)
    }
}

/// A row inside one tree: everything the recursion says about it.
pub(super) struct Routed {
    /// Probability of left per gate, and its derivative in w . x + b.
    pub(super) p: Vec<f64>,
    pub(super) slope: Vec<f64>,
    pub(super) reach: Vec<f64>,
    pub(super) stop: Vec<f64>,
}

impl SoftForest {
    /// Explains one row, with up to `terms` features a gate.
    ///
    /// # Errors
    /// As [`predict_proba`](Self::predict_proba).
    pub fn explain(&self, row: &[f32], terms: usize) -> Result<Explanation> {
        let inputs = self.expanded(row)?;
        let mut probabilities = vec![0.0; self.classes()];
        self.predict_one(row, crate::Evaluation::Exact, &mut probabilities)?;
        let class = arg_max(probabilities.iter().copied());
        let paths: Vec<Path> = self
            .trees()
            .iter()
            .enumerate()
            .map(|(index, tree)| self.path(index, tree, &inputs, class, terms))
            .collect();
        Ok(Explanation {
            explained_mass: paths.iter().map(|p| p.mass).sum::<f64>() / paths.len() as f64,
            probabilities,
            class,
            paths,
        })
    }

    /// A row as the gates' unscaled inputs.
    pub(super) fn expanded(&self, row: &[f32]) -> Result<Vec<f32>> {
        let table = ndarray::ArrayView2::from_shape((1, row.len()), row)
            .map_err(|_| ForestError::Width { expected: self.ensemble.encoder.width(), found: row.len() })?;
        Ok(self.ensemble.encoder.expand(table)?.row(0).to_vec())
    }

    /// What input j adds to a gate's score, relative to the training mean.
    pub(super) fn contribution(&self, tree: &Tree, gate: usize, inputs: &[f32], j: usize) -> f32 {
        let encoder = &self.ensemble.encoder;
        tree.gate_weights(gate)[j] * (inputs[j] - encoder.mean()[j]) * encoder.inverse_scale()[j]
    }

    /// Class distribution of every node for a row, `[nodes, classes]`. With mixed logits this is what a node would say alone.
    pub(super) fn distributions(&self, tree: &Tree, inputs: &[f32]) -> Vec<f32> {
        let encoder = &self.ensemble.encoder;
        let scaled: Vec<f32> =
            inputs.iter().zip(encoder.mean()).zip(encoder.inverse_scale()).map(|((x, m), s)| (x - m) * s).collect();
        let responses: Vec<f32> =
            (0..tree.topology().nodes()).flat_map(|node| tree.response_at(node, &scaled)).collect();
        softmax_rows(&responses, tree.outputs())
    }

    pub(super) fn route_row(&self, tree: &Tree, inputs: &[f32]) -> Routed {
        let beta = f64::from(self.ensemble.inverse_temperature);
        let (p, slope): (Vec<f64>, Vec<f64>) = (0..tree.biases().len())
            .map(|gate| {
                let score: f64 = (0..inputs.len()).map(|j| f64::from(self.contribution(tree, gate, inputs, j))).sum();
                let z = beta * (score + f64::from(tree.biases()[gate]));
                let (p, slope) = self.params().gate.evaluate(z);
                (p, beta * slope)
            })
            .unzip();
        let pass = reach(tree.topology(), &p, &leafness(tree));
        Routed { p, slope, reach: pass.reach, stop: pass.stop }
    }

    fn path(&self, index: usize, tree: &Tree, inputs: &[f32], class: usize, terms: usize) -> Path {
        let routed = self.route_row(tree, inputs);
        let node = (0..routed.stop.len()).max_by(|&a, &b| routed.stop[a].total_cmp(&routed.stop[b])).unwrap_or(0);
        let values = self.distributions(tree, inputs);
        let own: Vec<f64> = values.chunks_exact(tree.outputs()).map(|q| f64::from(q[class])).collect();
        let gradient = value_gradient(tree.topology(), &routed.p, &leafness(tree), &own);
        let mut steps = Vec::new();
        let mut below = node as u32;
        // Parents come before children, so one pass from the end finds the whole way up.
        for (gate, shape) in tree.topology().gates().iter().enumerate().rev() {
            if shape.left != below && shape.right != below {
                continue;
            }
            let left = shape.left == below;
            steps.push(PathStep {
                gate,
                left,
                probability: if left { routed.p[gate] } else { 1.0 - routed.p[gate] },
                reach: routed.reach[shape.node as usize],
                terms: self.terms(tree, gate, inputs, gradient.probability[gate] * routed.slope[gate], terms),
            });
            below = shape.node;
        }
        steps.reverse();
        Path {
            tree: index,
            node,
            mass: routed.stop[node],
            distribution: values[node * tree.outputs()..(node + 1) * tree.outputs()].to_vec(),
            steps,
        }
    }

    /// `slope`: change of the class probability per unit of score.
    fn terms(&self, tree: &Tree, gate: usize, inputs: &[f32], slope: f64, count: usize) -> Vec<Term> {
        let encoder = &self.ensemble.encoder;
        let sources = encoder.source_columns();
        let mut terms: Vec<Term> = (0..inputs.len())
            .map(|j| {
                let weight = tree.gate_weights(gate)[j] * encoder.inverse_scale()[j];
                Term {
                    column: sources[j],
                    value: inputs[j],
                    weight,
                    contribution: self.contribution(tree, gate, inputs, j),
                    effect: slope * f64::from(weight),
                }
            })
            .collect();
        terms.sort_by(|a, b| b.contribution.abs().total_cmp(&a.contribution.abs()));
        terms.truncate(count);
        terms
    }
}

impl Explanation {
    /// The decision in words, one line a gate.
    #[must_use]
    pub fn to_text(&self, names: &Names) -> String {
        let mut text = format!(
            "{} with probability {:.3}; the paths below carry {:.0} % of the decision.\n",
            names.class(self.class),
            self.probabilities[self.class],
            100.0 * self.explained_mass
        );
        for path in &self.paths {
            let says = arg_max(path.distribution.iter().copied());
            text += &format!(
                "tree {} stops at node {} with probability {:.2} and says {} ({:.2})\n",
                path.tree,
                path.node,
                path.mass,
                names.class(says),
                path.distribution[says]
            );
            for step in &path.steps {
                let because: Vec<String> = step
                    .terms
                    .iter()
                    .map(|t| {
                        let name = names.column(t.column);
                        format!("{name} = {:.3} adds {:+.3}", t.value, t.contribution)
                    })
                    .collect();
                text += &format!(
                    "  gate {}: {} with probability {:.2}, as {}\n",
                    step.gate,
                    if step.left { "left" } else { "right" },
                    step.probability,
                    because.join(", ")
                );
            }
        }
        text
    }

    /// Everything as JSON; a number that is not finite becomes `null`.
    ///
    /// # Errors
    /// [`ForestError::Malformed`] when it cannot be written.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| ForestError::Malformed(e.to_string()))
    }

    /// Columns named by the explanation, the ones with the largest reach-weighted contributions first.
    #[must_use]
    pub fn columns(&self) -> Vec<usize> {
        let mut sums: std::collections::BTreeMap<usize, f64> = std::collections::BTreeMap::new();
        for step in self.paths.iter().flat_map(|p| &p.steps) {
            for term in &step.terms {
                *sums.entry(term.column).or_default() += step.reach * f64::from(term.contribution.abs());
            }
        }
        let mut ordered: Vec<(usize, f64)> = sums.into_iter().collect();
        ordered.sort_by(|a, b| b.1.total_cmp(&a.1));
        ordered.into_iter().map(|(column, _)| column).collect()
    }
}

/// Leafness in double precision.
pub(super) fn leafness(tree: &Tree) -> Vec<f64> {
    tree.leafness().iter().map(|&g| f64::from(g)).collect()
}

#[cfg(test)]
mod tests;
