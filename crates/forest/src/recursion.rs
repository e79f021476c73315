//! The path recursion and its exact gradient, one sample at a time in double precision.
//!
//! This is the plain form that everything fast in the crate is tested against. For a node n with leafness g_n, gate
//! probability p_n (of the left child) and scalar value s_n:
//!
//! ```text
//! reach_root = 1                     stop_n = reach_n g_n (reach_n at a leaf)
//! reach_left = reach_n (1 - g_n) p_n     reach_right = reach_n (1 - g_n) (1 - p_n)
//! V_n = g_n s_n + (1 - g_n) (p_n V_left + (1 - p_n) V_right),   V_n = s_n at a leaf
//! V_root = sum_n stop_n s_n
//! dV_root/dg_n = reach_n (s_n - p_n V_left - (1 - p_n) V_right)
//! dV_root/dp_n = reach_n (1 - g_n) (V_left - V_right)
//! dV_root/ds_n = stop_n
//! ```
//!
//! Any loss of the tree's output o = sum_n stop_n q_n follows with s_n = (dL/do) . q_n.

use crate::topology::Topology;

/// Top-down pass: how much of a sample reaches and stops at each node.
#[derive(Clone, Debug, PartialEq)]
pub struct Reach {
    /// Probability of visiting each node.
    pub reach: Vec<f64>,
    /// Probability of stopping at each node; sums to 1.
    pub stop: Vec<f64>,
}

/// Gradient of the root value.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueGradient {
    /// V_n of each node.
    pub value: Vec<f64>,
    /// dV_root/dg per gate.
    pub leafness: Vec<f64>,
    /// dV_root/dp per gate.
    pub probability: Vec<f64>,
}

/// Reach and stop mass of every node, for gate probabilities `p` and leafness `g` (one number a gate each).
#[must_use]
pub fn reach(topology: &Topology, p: &[f64], g: &[f64]) -> Reach {
    let mut reach = vec![0.0; topology.nodes()];
    reach[0] = 1.0;
    let mut stop = vec![f64::NAN; topology.nodes()];
    for ((gate, p), g) in topology.gates().iter().zip(p).zip(g) {
        let here = reach[gate.node as usize];
        stop[gate.node as usize] = here * g;
        reach[gate.left as usize] = here * (1.0 - g) * p;
        reach[gate.right as usize] = here * (1.0 - g) * (1.0 - p);
    }
    for (stop, reach) in stop.iter_mut().zip(&reach) {
        if stop.is_nan() {
            *stop = *reach;
        }
    }
    Reach { reach, stop }
}

/// Bottom-up pass: the value of every node given the nodes' own values `s`, and the gradient of the root's value.
#[must_use]
pub fn value_gradient(topology: &Topology, p: &[f64], g: &[f64], s: &[f64]) -> ValueGradient {
    let reach = reach(topology, p, g).reach;
    let mut value = s.to_vec();
    let mut leafness = vec![0.0; p.len()];
    let mut probability = vec![0.0; p.len()];
    for (index, gate) in topology.gates().iter().enumerate().rev() {
        let (left, right) = (value[gate.left as usize], value[gate.right as usize]);
        let node = gate.node as usize;
        let below = p[index] * left + (1.0 - p[index]) * right;
        leafness[index] = reach[node] * (s[node] - below);
        probability[index] = reach[node] * (1.0 - g[index]) * (left - right);
        value[node] = g[index] * s[node] + (1.0 - g[index]) * below;
    }
    ValueGradient { value, leafness, probability }
}

/// Expected number of gates evaluated for the sample, the sum over gates of reach (1 - leafness).
#[must_use]
pub fn expected_gates(topology: &Topology, p: &[f64], g: &[f64]) -> f64 {
    let reach = reach(topology, p, g).reach;
    topology.gates().iter().zip(g).map(|(gate, g)| reach[gate.node as usize] * (1.0 - g)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::Gate;
    use proptest::prelude::*;

    /// Depth-2 tree worked out in double precision outside this crate (by the equations above and by finite differences).
    struct Worked {
        topology: Topology,
        z: [f64; 3],
        p: Vec<f64>,
        g: Vec<f64>,
        q: [[f64; 2]; 7],
    }

    fn worked() -> Worked {
        let x = [1.0, 2.0];
        let w = [[1.0, -0.5], [0.5, 0.5], [-1.0, 1.0]];
        let b = [0.2, -1.0, 0.0];
        let z = [0, 1, 2].map(|n| w[n][0] * x[0] + w[n][1] * x[1] + b[n]);
        Worked {
            topology: Topology::full(2),
            z,
            p: z.iter().map(|&z| Gate::Sigmoid.evaluate(z).0).collect(),
            g: vec![0.1, 0.3, 0.6],
            q: [[0.5, 0.5], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.05, 0.95]],
        }
    }

    fn close(found: &[f64], wanted: &[f64], tolerance: f64) {
        assert_eq!(found.len(), wanted.len());
        for (f, w) in found.iter().zip(wanted) {
            assert!((f - w).abs() < tolerance, "{found:?} {wanted:?}");
        }
    }

    #[test]
    fn worked_tree_has_the_known_values_loss_and_gradients() {
        let tree = worked();
        let s: Vec<f64> = tree.q.iter().map(|q| q[0]).collect();
        let back = value_gradient(&tree.topology, &tree.p, &tree.g, &s);
        close(
            &back.value,
            &[0.540_087_669_786_472_3, 0.790_716_459_552_389_5, 0.243_863_514_717_800_3, 0.9, 0.6, 0.2, 0.05],
            1e-12,
        );
        let v0 = back.value[0];
        assert!((-v0.ln() - 0.616_023_801_144_958_5).abs() < 1e-12);
        let scale = |d: &f64| -d / v0;
        let gamma: Vec<f64> = back.leafness.iter().map(scale).collect();
        close(&gamma, &[0.082_471_53, -0.012_151_38, -0.105_277_65], 1e-8);
        let dz: Vec<f64> =
            back.probability.iter().zip(&tree.z).map(|(d, &z)| -d / v0 * Gate::Sigmoid.evaluate(z).1).collect();
        close(&dz, &[-0.225_555_33, -0.045_217_22, -0.008_849_36], 1e-8);
    }

    #[test]
    fn worked_tree_has_the_known_posterior_cost_and_bound() {
        let tree = worked();
        let pass = reach(&tree.topology, &tree.p, &tree.g);
        let v0: f64 = pass.stop.iter().zip(&tree.q).map(|(a, q)| a * q[0]).sum();
        let posterior: Vec<f64> = pass.stop.iter().zip(&tree.q).map(|(a, q)| a * q[0] / v0).collect();
        close(
            &posterior,
            &[0.092_577_56, 0.219_897_9, 0.135_027_88, 0.359_303_43, 0.145_285_7, 0.043_872_57, 0.004_034_95],
            1e-8,
        );
        assert!((posterior.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let gates = expected_gates(&tree.topology, &tree.p, &tree.g);
        assert!((gates - 1.408_455_179_274_369_1).abs() < 1e-12);
        let leaf: f64 = pass.stop.iter().zip(&tree.q).map(|(a, q)| -a * q[0].ln()).sum();
        assert!((leaf - 0.805_883_496_487_065_8).abs() < 1e-12);
        // Jensen: the path-weighted cross-entropy bounds the loss of the mixture from above.
        assert!(leaf >= -v0.ln());
        let hard = reach(&tree.topology, &tree.p, &[0.0, 0.0, 1.0]);
        let output: Vec<f64> = (0..2).map(|k| hard.stop.iter().zip(&tree.q).map(|(a, q)| a * q[k]).sum()).collect();
        close(&output, &[0.567_624_99, 0.432_375_01], 1e-8);
        let most = (0..7).max_by(|&a, &b| pass.stop[a].total_cmp(&pass.stop[b])).unwrap_or(0);
        assert_eq!(most, 2);
    }

    #[test]
    fn expected_gates_of_full_trees_follow_the_closed_form() {
        // sum over levels l < depth of (1 - g)^(l + 1), whatever the gates do.
        for (depth, g, wanted) in [
            (2, 0.0, 2.0),
            (2, 0.25, 1.3125),
            (2, 0.5, 0.75),
            (6, 0.0, 6.0),
            (6, 0.25, 2.466_064_453_125),
            (6, 0.5, 0.984_375),
        ] {
            let tree = Topology::full(depth);
            let n = tree.gates().len();
            let p: Vec<f64> = (0..n).map(|i| (i as f64 * 0.37).fract()).collect();
            assert!((expected_gates(&tree, &p, &vec![g; n]) - wanted).abs() < 1e-12);
        }
    }

    proptest! {
        #[test]
        fn stop_masses_sum_to_one_at_any_depth_and_leafness(
            depth in 1usize..9,
            numbers in proptest::collection::vec((0.0f64..=1.0, 0.0f64..=1.0), 255),
        ) {
            let tree = Topology::full(depth);
            let (p, g): (Vec<f64>, Vec<f64>) = numbers.into_iter().take(tree.gates().len()).unzip();
            let stop = reach(&tree, &p, &g).stop;
            prop_assert!((stop.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            prop_assert!(stop.iter().all(|&a| a >= 0.0));
        }

        #[test]
        fn gradients_match_finite_differences(
            depth in 1usize..5,
            numbers in proptest::collection::vec((0.05f64..0.95, 0.05f64..0.95), 15),
            s in proptest::collection::vec(-2.0f64..2.0, 31),
        ) {
            let tree = Topology::full(depth);
            let n = tree.gates().len();
            let (p, g): (Vec<f64>, Vec<f64>) = numbers.into_iter().take(n).unzip();
            let s = &s[..tree.nodes()];
            let back = value_gradient(&tree, &p, &g, s);
            let root = |p: &[f64], g: &[f64]| value_gradient(&tree, p, g, s).value[0];
            let h = 1e-5;
            for i in 0..n {
                let mut up = g.clone();
                let mut down = g.clone();
                up[i] += h;
                down[i] -= h;
                // The root value is linear in each leafness and each gate: central differences are exact to rounding.
                prop_assert!(((root(&p, &up) - root(&p, &down)) / (2.0 * h) - back.leafness[i]).abs() < 1e-9);
                let mut up = p.clone();
                let mut down = p.clone();
                up[i] += h;
                down[i] -= h;
                prop_assert!(((root(&up, &g) - root(&down, &g)) / (2.0 * h) - back.probability[i]).abs() < 1e-9);
            }
        }
    }
}
