//! The shape of a binary tree: who is whose child, in breadth-first order.

use rand::Rng;
use serde::{Deserialize, Serialize};

/// One gate: an inner node and its two children, as node numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateNode {
    /// Node this gate sits at.
    pub node: u32,
    /// Child taken with the gate's probability.
    pub left: u32,
    /// Child taken with the complement.
    pub right: u32,
}

/// Shape of a binary tree. Nodes are numbered breadth first from the root 0, so that a parent's number is always
/// smaller than its children's; gates are listed in the order of their nodes, so the children of the i-th gate are the nodes
/// 2 i + 1 and 2 i + 2. Every node that has no gate is a leaf. Serialised as the list of nodes that have a gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<u32>", try_from = "Vec<u32>")]
pub struct Topology {
    gates: Vec<GateNode>,
    nodes: u32,
}

impl Topology {
    /// The full tree whose leaves all lie at `depth`: 2^depth - 1 gates, 2^(depth+1) - 1 nodes, in heap order.
    #[must_use]
    pub fn full(depth: usize) -> Self {
        let gates = (1u32 << depth) - 1;
        Self {
            gates: (0..gates).map(|n| GateNode { node: n, left: 2 * n + 1, right: 2 * n + 2 }).collect(),
            nodes: 2 * gates + 1,
        }
    }

    /// A random tree of at most `depth` levels of gates with at most `nodes` nodes: leaves drawn uniformly are split
    /// until the budget is spent.
    #[must_use]
    pub fn random(depth: usize, nodes: usize, rng: &mut impl Rng) -> Self {
        let mut inner = std::collections::BTreeSet::new();
        let mut open: Vec<u64> = vec![0];
        let mut count = 1;
        while count + 2 <= nodes && !open.is_empty() {
            let heap = open.swap_remove(rng.random_range(0..open.len()));
            inner.insert(heap);
            count += 2;
            for child in [2 * heap + 1, 2 * heap + 2] {
                if (child + 1).ilog2() < depth as u32 {
                    open.push(child);
                }
            }
        }
        // A heap number grows with the breadth-first number, so numbering heap slots in order is breadth first.
        let mut alive: Vec<u64> = inner.iter().flat_map(|n| [2 * n + 1, 2 * n + 2]).collect();
        alive.push(0);
        alive.sort_unstable();
        let number = |heap: u64| alive.partition_point(|&a| a < heap) as u32;
        Self {
            gates: (0u32..)
                .zip(&inner)
                .map(|(i, &heap)| GateNode { node: number(heap), left: 2 * i + 1, right: 2 * i + 2 })
                .collect(),
            nodes: alive.len() as u32,
        }
    }

    /// The gates, parents before children.
    #[must_use]
    pub fn gates(&self) -> &[GateNode] {
        &self.gates
    }

    /// Number of nodes, gates and leaves together.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes as usize
    }

    /// Depth of every node; the root's is 0.
    #[must_use]
    pub fn depths(&self) -> Vec<usize> {
        let mut depths = vec![0; self.nodes()];
        for gate in &self.gates {
            let below = depths[gate.node as usize] + 1;
            depths[gate.left as usize] = below;
            depths[gate.right as usize] = below;
        }
        depths
    }

    /// Number of the gate that sits at each node; `None` for leaves.
    #[must_use]
    pub fn gate_of(&self) -> Vec<Option<usize>> {
        let mut gate_of = vec![None; self.nodes()];
        for (index, gate) in self.gates.iter().enumerate() {
            gate_of[gate.node as usize] = Some(index);
        }
        gate_of
    }

    /// Existence of every node: e_root = 1, e_child = e_parent (1 - leafness of the parent). It is the probability that
    /// a topology sampled from the leafness contains the node.
    #[must_use]
    pub fn existence(&self, leafness: &[f32]) -> Vec<f32> {
        let mut existence = vec![1.0; self.nodes()];
        for (gate, &leaf) in self.gates.iter().zip(leafness) {
            let below = existence[gate.node as usize] * (1.0 - leaf);
            existence[gate.left as usize] = below;
            existence[gate.right as usize] = below;
        }
        existence
    }

    /// Expected number of nodes below and including each node: E_n = 1 + (1 - leafness) (E_left + E_right).
    #[must_use]
    pub fn expected_sizes(&self, leafness: &[f32]) -> Vec<f32> {
        let mut sizes = vec![1.0; self.nodes()];
        for (gate, &leaf) in self.gates.iter().zip(leafness).rev() {
            sizes[gate.node as usize] = 1.0 + (1.0 - leaf) * (sizes[gate.left as usize] + sizes[gate.right as usize]);
        }
        sizes
    }

    /// Cuts off everything below the gates for which `is_leaf` holds. Returns the smaller shape with, for each of its
    /// gates and nodes, the old number.
    #[must_use]
    pub fn pruned(&self, is_leaf: impl Fn(usize) -> bool) -> (Self, Vec<usize>, Vec<usize>) {
        let mut alive = vec![false; self.nodes()];
        alive[0] = true;
        let mut kept_gates = Vec::new();
        for (index, gate) in self.gates.iter().enumerate() {
            if alive[gate.node as usize] && !is_leaf(index) {
                alive[gate.left as usize] = true;
                alive[gate.right as usize] = true;
                kept_gates.push(index);
            }
        }
        let kept_nodes: Vec<usize> = (0..self.nodes()).filter(|&n| alive[n]).collect();
        let number = |old: u32| kept_nodes.partition_point(|&n| n < old as usize) as u32;
        let gates = (0u32..)
            .zip(&kept_gates)
            .map(|(i, &index)| GateNode { node: number(self.gates[index].node), left: 2 * i + 1, right: 2 * i + 2 })
            .collect();
        let shape = Self { gates, nodes: kept_nodes.len() as u32 };
        (shape, kept_gates, kept_nodes)
    }

    /// The tree whose gates sit at the given nodes, in increasing order. Returns `None` when they form no tree.
    #[must_use]
    pub fn from_gate_nodes(nodes: &[u32]) -> Option<Self> {
        let count = u32::try_from(nodes.len()).ok()?.checked_mul(2)?.checked_add(1)?;
        let mut gates = Vec::with_capacity(nodes.len());
        for (i, &node) in (0u32..).zip(nodes) {
            // A gate's node must have been made by an earlier gate, and come after the gate before it.
            if node > 2 * i || (i > 0 && node <= nodes[i as usize - 1]) {
                return None;
            }
            gates.push(GateNode { node, left: 2 * i + 1, right: 2 * i + 2 });
        }
        Some(Self { gates, nodes: count })
    }
}

impl From<Topology> for Vec<u32> {
    fn from(topology: Topology) -> Self {
        topology.gates.iter().map(|g| g.node).collect()
    }
}

impl TryFrom<Vec<u32>> for Topology {
    type Error = String;

    fn try_from(nodes: Vec<u32>) -> Result<Self, Self::Error> {
        Self::from_gate_nodes(&nodes).ok_or_else(|| format!("gates at {nodes:?} form no tree"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    /// Expected nodes of full trees at constant leafness, by the recursion E_d = 1 + 2 (1 - leafness) E_(d-1), done by
    /// hand for depth 2 and in double precision for depth 6.
    #[test]
    fn expected_size_of_full_trees_follows_the_closed_form() {
        for (depth, leafness, expected) in
            [(2, 0.0, 7.0), (2, 0.25, 4.75), (2, 0.5, 3.0), (6, 0.0, 127.0), (6, 0.25, 32.171_875), (6, 0.5, 7.0)]
        {
            let tree = Topology::full(depth);
            let sizes = tree.expected_sizes(&vec![leafness; tree.gates().len()]);
            assert!((sizes[0] - expected).abs() < 1e-4, "{depth} {leafness}");
            let existence = tree.existence(&vec![leafness; tree.gates().len()]);
            assert!((existence.iter().sum::<f32>() - expected).abs() < 1e-4);
        }
    }

    #[test]
    fn existence_matches_the_hand_computed_depth_two_tree() {
        let existence = Topology::full(2).existence(&[0.1, 0.3, 0.6]);
        let expected = [1.0, 0.9, 0.9, 0.63, 0.63, 0.36, 0.36];
        for (found, wanted) in existence.iter().zip(expected) {
            assert!((found - wanted).abs() < 1e-6);
        }
        assert!((existence.iter().sum::<f32>() - 4.78).abs() < 1e-5);
    }

    #[test]
    fn lists_that_form_no_tree_are_refused() {
        assert!(Topology::from_gate_nodes(&[0, 1, 2]).is_some());
        assert!(Topology::from_gate_nodes(&[]).is_some());
        for bad in [&[1][..], &[0, 3], &[0, 0], &[0, 2, 1], &[0, 1, u32::MAX]] {
            assert!(Topology::from_gate_nodes(bad).is_none(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn random_and_pruned_trees_stay_valid(seed: u64, depth in 1usize..7, nodes in 1usize..60) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let tree = Topology::random(depth, nodes, &mut rng);
            let numbers = Vec::from(tree.clone());
            prop_assert_eq!(Topology::from_gate_nodes(&numbers), Some(tree.clone()));
            prop_assert!(tree.nodes() <= nodes.max(1));
            prop_assert!(tree.depths().into_iter().max().unwrap_or(0) <= depth);
            let leaf: Vec<bool> = tree.gates().iter().map(|_| rng.random_bool(0.3)).collect();
            let (small, gates, kept) = tree.pruned(|g| leaf[g]);
            prop_assert_eq!(Topology::from_gate_nodes(&Vec::from(small.clone())), Some(small.clone()));
            prop_assert_eq!(gates.len(), small.gates().len());
            prop_assert_eq!(kept.len(), small.nodes());
            // The existence at 0/1 leafness is exactly membership in the pruned tree.
            let gamma: Vec<f32> = leaf.iter().map(|&l| f32::from(u8::from(l))).collect();
            let alive = tree.existence(&gamma).iter().filter(|&&e| e > 0.0).count();
            prop_assert_eq!(alive, small.nodes());
        }
    }
}
