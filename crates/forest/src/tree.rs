//! One probabilistic tree: shape, gates, leafness, responses.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::params::{LeafModel, Leafness, SoftForestParams};
use crate::topology::Topology;

/// A tree whose nodes route softly and may each be a leaf.
///
/// Gate g has weights `weights[g]` (one an input), a bias, and a leafness in [0, 1]; node n has a response (logits of a
/// class distribution, or values for regression). At leafness 0 everywhere it is a fixed tree, at 1 in the root a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    pub(crate) topology: Topology,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// `[gates, inputs]`
    pub(crate) weights: Vec<f32>,
    /// `[gates]`
    pub(crate) bias: Vec<f32>,
    /// `[gates]`
    pub(crate) leafness: Vec<f32>,
    /// `[nodes, outputs]`
    pub(crate) responses: Vec<f32>,
    /// `[nodes x outputs, inputs]` with linear leaves, else empty.
    pub(crate) slopes: Vec<f32>,
}

impl Tree {
    /// A fresh tree: weights N(0, 1/inputs), biases 0, responses N(0, 0.1^2). Random responses are needed: a gate between
    /// two identical children has no gradient.
    #[must_use]
    pub fn random(params: &SoftForestParams, inputs: usize, outputs: usize, rng: &mut impl Rng) -> Self {
        let topology = match params.leafness {
            Leafness::Random { nodes } => Topology::random(params.depth, nodes, rng),
            _ => Topology::full(params.depth),
        };
        let leafness = match params.leafness {
            Leafness::Logit { init } => 1.0 / (1.0 + (-init).exp()),
            Leafness::Clamped { init } => init,
            Leafness::Fixed | Leafness::Random { .. } => 0.0,
        };
        let gates = topology.gates().len();
        let mut normal = |count: usize, deviation: f32| -> Vec<f32> {
            (0..count)
                .map(|_| {
                    let z: f32 = StandardNormal.sample(rng);
                    deviation * z
                })
                .collect()
        };
        Self {
            weights: normal(gates * inputs, 1.0 / (inputs as f32).sqrt()),
            bias: vec![0.0; gates],
            leafness: vec![leafness; gates],
            responses: normal(topology.nodes() * outputs, 0.1),
            slopes: match params.leaf {
                LeafModel::Constant => Vec::new(),
                LeafModel::Linear => vec![0.0; topology.nodes() * outputs * inputs],
            },
            topology,
            inputs,
            outputs,
        }
    }

    /// A tree from its parts: `weights` `[gates, inputs]`, `bias` and `leafness` `[gates]`, `responses` `[nodes, outputs]`,
    /// `slopes` `[nodes x outputs, inputs]` for linear leaves or empty.
    /// Returns `None` when the lengths do not fit the shape, a leafness lies outside [0, 1], or a number is not finite.
    #[must_use]
    #[allow(clippy::too_many_arguments)]
    pub fn from_parts(
        topology: Topology,
        inputs: usize,
        outputs: usize,
        weights: Vec<f32>,
        bias: Vec<f32>,
        leafness: Vec<f32>,
        responses: Vec<f32>,
        slopes: Vec<f32>,
    ) -> Option<Self> {
        let gates = topology.gates().len();
        let fits = weights.len() == gates.checked_mul(inputs)?
            && bias.len() == gates
            && leafness.len() == gates
            && responses.len() == topology.nodes().checked_mul(outputs)?
            && (slopes.is_empty() || slopes.len() == responses.len().checked_mul(inputs)?)
            && leafness.iter().all(|g| (0.0..=1.0).contains(g))
            && [&weights, &bias, &responses, &slopes].into_iter().all(|part| part.iter().all(|v| v.is_finite()));
        fits.then_some(Self { topology, inputs, outputs, weights, bias, leafness, responses, slopes })
    }

    /// Shape.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Number of inputs of each gate.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Length of each response.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Weights of a gate.
    #[must_use]
    pub fn gate_weights(&self, gate: usize) -> &[f32] {
        &self.weights[gate * self.inputs..(gate + 1) * self.inputs]
    }

    /// Biases, one a gate.
    #[must_use]
    pub fn biases(&self) -> &[f32] {
        &self.bias
    }

    /// Leafness, one a gate.
    #[must_use]
    pub fn leafness(&self) -> &[f32] {
        &self.leafness
    }

    /// Response of a node, before softmax.
    #[must_use]
    pub fn response(&self, node: usize) -> &[f32] {
        &self.responses[node * self.outputs..(node + 1) * self.outputs]
    }

    /// Weights of a node's linear response, `[outputs, inputs]`; empty for constant leaves.
    #[must_use]
    pub fn slope(&self, node: usize) -> &[f32] {
        let width = self.outputs * self.inputs;
        self.slopes.get(node * width..(node + 1) * width).unwrap_or_default()
    }

    /// What a node says about scaled inputs, before softmax.
    pub(crate) fn response_at(&self, node: usize, scaled: &[f32]) -> Vec<f32> {
        let mut response = self.response(node).to_vec();
        for (r, slope) in response.iter_mut().zip(self.slope(node).chunks_exact(self.inputs)) {
            *r += slope.iter().zip(scaled).map(|(s, x)| s * x).sum::<f32>();
        }
        response
    }

    /// Whether a sample can stop at each node.
    pub(crate) fn stops(&self) -> Vec<bool> {
        let gate_of = self.topology.gate_of();
        let open = |gate: Option<usize>| gate.is_none_or(|g| self.leafness[g] > 0.0);
        gate_of.into_iter().map(open).collect()
    }

    /// Part of the gates whose leafness lies in (0.1, 0.9), weighted by existence. Above 0.3, hardening changes the model
    /// noticeably: train longer, or with [`polarise`](crate::Regularisers::polarise).
    #[must_use]
    pub fn ambiguity(&self) -> f32 {
        let existence = self.topology.existence(&self.leafness);
        let (mut open, mut all) = (0.0, 0.0);
        for (gate, &leafness) in self.topology.gates().iter().zip(&self.leafness) {
            let e = existence[gate.node as usize];
            all += e;
            if (0.1..0.9).contains(&leafness) {
                open += e;
            }
        }
        if all > 0.0 { open / all } else { 0.0 }
    }

    /// Makes the shape binary: gates with leafness above 1/2 become leaves, the others stop nothing, and what can no longer
    /// be reached is dropped.
    #[must_use]
    pub fn hardened(&self) -> Self {
        let mut tree = self.pruned(|gate| self.leafness[gate] > 0.5);
        tree.leafness.fill(0.0);
        tree
    }

    /// Drops everything below gates for which `is_leaf` holds; these become leaves.
    #[must_use]
    pub fn pruned(&self, is_leaf: impl Fn(usize) -> bool) -> Self {
        let (topology, gates, nodes) = self.topology.pruned(is_leaf);
        Self {
            weights: gates.iter().flat_map(|&g| self.gate_weights(g).iter().copied()).collect(),
            bias: gates.iter().map(|&g| self.bias[g]).collect(),
            leafness: gates.iter().map(|&g| self.leafness[g]).collect(),
            responses: nodes.iter().flat_map(|&n| self.response(n).iter().copied()).collect(),
            slopes: nodes.iter().flat_map(|&n| self.slope(n).iter().copied()).collect(),
            topology,
            inputs: self.inputs,
            outputs: self.outputs,
        }
    }
}

/// Softmax of each row of `[rows, columns]`.
pub(crate) fn softmax_rows(logits: &[f32], columns: usize) -> Vec<f32> {
    let mut out = logits.to_vec();
    out.chunks_exact_mut(columns).for_each(softmax);
    out
}

/// Softmax in place.
pub(crate) fn softmax(row: &mut [f32]) {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for value in row.iter_mut() {
        *value = (*value - max).exp();
        sum += *value;
    }
    for value in row.iter_mut() {
        *value /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn hardening_keeps_what_survives_and_drops_the_rest() {
        let params = SoftForestParams::default().depth(2);
        let mut tree = Tree::random(&params, 3, 2, &mut ChaCha8Rng::seed_from_u64(1));
        tree.leafness = vec![0.1, 0.3, 0.6];
        let small = tree.hardened();
        // Gate 2 becomes the leaf node 2; gates 0 and 1 stay with nodes 0, 1, 2, 3, 4.
        assert_eq!(small.topology.gates().len(), 2);
        assert_eq!(small.topology.nodes(), 5);
        assert_eq!(small.leafness, [0.0, 0.0]);
        assert_eq!(small.gate_weights(1), tree.gate_weights(1));
        assert_eq!(small.response(2), tree.response(2));
        assert_eq!(small.response(4), tree.response(4));
    }

    /// All rows get to the root, half of them to each of the two gates below, which are as good as decided.
    #[test]
    fn ambiguity_weighs_gates_by_their_existence() {
        let params = SoftForestParams::default().depth(2);
        let mut tree = Tree::random(&params, 3, 2, &mut ChaCha8Rng::seed_from_u64(1));
        tree.leafness = vec![0.5, 0.95, 0.05];
        assert_eq!(tree.ambiguity(), 0.5);
        tree.leafness = vec![0.5, 0.2, 0.05];
        assert_eq!(tree.ambiguity(), 0.75);
    }

    #[test]
    fn a_root_that_is_a_leaf_hardens_to_a_single_node() {
        let params = SoftForestParams::default().depth(3);
        let mut tree = Tree::random(&params, 3, 2, &mut ChaCha8Rng::seed_from_u64(1));
        tree.leafness[0] = 1.0;
        assert_eq!(tree.hardened().topology.nodes(), 1);
    }
}
