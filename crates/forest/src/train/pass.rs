//! One tree's forward and backward pass over a batch, in single precision, all samples of the batch side by side.
//!
//! Buffers are `[nodes or gates][batch]`, so that every step of the recursion is an element-wise loop over the batch. The
//! plain form is [`crate::recursion`].

use crate::gate::Gate;
use crate::simd::{madd, multiversion, sigmoid, smooth_step};
use crate::topology::GateNode;

/// Constants of one backward pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    /// Added to the value below every gate: the price of evaluating it for one sample.
    pub(crate) path: f32,
    /// Strength of the balance term.
    pub(crate) balance: f32,
}

multiversion! {
    /// Top-down pass. On entry `z` holds w . x per gate; on exit the derivative of the gate's probability with respect to
    /// it. Fills `p` (probability of left), `reach` and `stop`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn route(
        gates: &[GateNode],
        gate: Gate,
        inverse_temperature: f32,
        bias: &[f32],
        leafness: &[f32],
        batch: usize,
        z: &mut [f32],
        p: &mut [f32],
        reach: &mut [f32],
        stop: &mut [f32],
    ) = route_body
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn route_body<const FUSED: bool>(
    gates: &[GateNode],
    gate: Gate,
    inverse_temperature: f32,
    bias: &[f32],
    leafness: &[f32],
    batch: usize,
    z: &mut [f32],
    p: &mut [f32],
    reach: &mut [f32],
    stop: &mut [f32],
) {
    for ((z, p), &bias) in z.chunks_exact_mut(batch).zip(p.chunks_exact_mut(batch)).zip(bias) {
        match gate {
            Gate::Sigmoid => {
                for (z, p) in z.iter_mut().zip(p) {
                    *p = sigmoid(inverse_temperature * (*z + bias));
                    *z = inverse_temperature * *p * (1.0 - *p);
                }
            }
            Gate::SmoothStep { width } => {
                let scale = inverse_temperature / width;
                for (z, p) in z.iter_mut().zip(p) {
                    let t = scale * (*z + bias);
                    *p = smooth_step(t);
                    *z = if t.abs() < 0.5 { scale * (1.5 - 6.0 * t * t) } else { 0.0 };
                }
            }
        }
    }
    reach[..batch].fill(1.0);
    for ((node, &leafness), p) in gates.iter().zip(leafness).zip(p.chunks_exact(batch)) {
        let (above, below) = reach.split_at_mut(node.left as usize * batch);
        let here = &above[node.node as usize * batch..][..batch];
        let (left, right) = below[..2 * batch].split_at_mut(batch);
        for i in 0..batch {
            let through = here[i] * (1.0 - leafness);
            left[i] = through * p[i];
            right[i] = through - left[i];
        }
    }
    stop.copy_from_slice(reach);
    for (node, &leafness) in gates.iter().zip(leafness) {
        for stop in &mut stop[node.node as usize * batch..][..batch] {
            *stop *= leafness;
        }
    }
}

multiversion! {
    /// Bottom-up pass. On entry `value` holds each node's own scalar value, on exit V_n. `derivative` comes from [`route`];
    /// on exit it holds the gradient with respect to w . x + b of each gate. Costs are of samples as often as `seen`
    /// `[batch]` has them. Adds to `leafness_gradient`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn backward(
        gates: &[GateNode],
        depths: &[usize],
        existence: &[f32],
        leafness: &[f32],
        costs: Costs,
        seen: &[f32],
        p: &[f32],
        reach: &[f32],
        value: &mut [f32],
        derivative: &mut [f32],
        leafness_gradient: &mut [f32],
    ) = backward_body
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn backward_body<const FUSED: bool>(
    gates: &[GateNode],
    depths: &[usize],
    existence: &[f32],
    leafness: &[f32],
    costs: Costs,
    seen: &[f32],
    p: &[f32],
    reach: &[f32],
    value: &mut [f32],
    derivative: &mut [f32],
    leafness_gradient: &mut [f32],
) {
    let batch = seen.len();
    for (index, gate) in gates.iter().enumerate().rev() {
        let node = gate.node as usize;
        let g = leafness[index];
        let p = &p[index * batch..][..batch];
        let reach = &reach[node * batch..][..batch];
        let derivative = &mut derivative[index * batch..][..batch];
        let (above, below) = value.split_at_mut(gate.left as usize * batch);
        let here = &mut above[node * batch..][..batch];
        let (left, right) = below[..2 * batch].split_at(batch);
        // d(balance term)/d(share sent left), and what it adds to the gradient of each p and of each sample's share.
        let (slope, share, inverse_mass) = if costs.balance > 0.0 {
            balance(costs.balance, depths[node], existence[node], g, (p, reach, seen))
        } else {
            (0.0, 0.0, 0.0)
        };
        let per_mass = slope * inverse_mass;
        let mut gradient = [0.0f32; 16];
        let mut step = |i: usize, lane: usize| {
            let difference = left[i] - right[i];
            let (path, per_mass) = (seen[i] * costs.path, seen[i] * per_mass);
            let below = madd::<FUSED>(p[i], difference, right[i]) + path + per_mass * (p[i] - share);
            gradient[lane] = madd::<FUSED>(reach[i], here[i] - below, gradient[lane]);
            derivative[i] *= reach[i] * (1.0 - g) * (difference + per_mass);
            here[i] = g * here[i] + (1.0 - g) * below;
        };
        let whole = batch / 16 * 16;
        for start in (0..whole).step_by(16) {
            for lane in 0..16 {
                step(start + lane, lane);
            }
        }
        for i in whole..batch {
            step(i, 0);
        }
        leafness_gradient[index] += gradient.iter().sum::<f32>();
    }
}

/// The balance term of one gate, -balance 2^-depth e (log a + log (1 - a)) / 2 with a the share of the arriving mass that
/// goes left: its slope in a, a itself, and 1 / (arriving mass). The share is kept within [1e-4, 1 - 1e-4].
#[inline(always)]
fn balance(
    strength: f32,
    depth: usize,
    existence: f32,
    g: f32,
    (p, reach, seen): (&[f32], &[f32], &[f32]),
) -> (f32, f32, f32) {
    let (mut mass, mut left) = (0.0f32, 0.0f32);
    for ((p, reach), seen) in p.iter().zip(reach).zip(seen) {
        let through = seen * (reach * (1.0 - g));
        mass += through;
        left += through * p;
    }
    if mass < 1e-6 {
        return (0.0, 0.0, 0.0);
    }
    let share = left / mass;
    let clamped = share.clamp(1e-4, 1.0 - 1e-4);
    let weight = -strength * 0.5f32.powi(depth as i32) * existence * 0.5;
    let slope = weight * (1.0 / clamped - 1.0 / (1.0 - clamped));
    (slope, share, 1.0 / mass)
}

multiversion! {
    /// Linear leaves, forward. On entry `said` holds slope . x per node and output; adds the constants, and mixes into `output`.
    pub(crate) fn mix_linear(
        constants: &[f32],
        stop: &[f32],
        batch: usize,
        said: &mut [f32],
        output: &mut [f32],
    ) = mix_linear_body
}

#[inline(always)]
fn mix_linear_body<const FUSED: bool>(
    constants: &[f32],
    stop: &[f32],
    batch: usize,
    said: &mut [f32],
    output: &mut [f32],
) {
    output.fill(0.0);
    let outputs = output.len() / batch;
    for (row, (said, &constant)) in said.chunks_exact_mut(batch).zip(constants).enumerate() {
        let stop = &stop[row / outputs * batch..][..batch];
        let output = &mut output[row % outputs * batch..][..batch];
        for i in 0..batch {
            said[i] += constant;
            output[i] = madd::<FUSED>(stop[i], said[i], output[i]);
        }
    }
}

multiversion! {
    /// Linear leaves, backward: each node's value s_n = sum_k u_k said_nk, then `said` becomes its own gradient stop_n u_k.
    pub(crate) fn linear_values(
        upstream: &[f32],
        stop: &[f32],
        batch: usize,
        said: &mut [f32],
        node_value: &mut [f32],
    ) = linear_values_body
}

#[inline(always)]
fn linear_values_body<const FUSED: bool>(
    upstream: &[f32],
    stop: &[f32],
    batch: usize,
    said: &mut [f32],
    node_value: &mut [f32],
) {
    node_value.fill(0.0);
    let outputs = upstream.len() / batch;
    for (row, said) in said.chunks_exact_mut(batch).enumerate() {
        let node = row / outputs * batch;
        let stop = &stop[node..][..batch];
        let value = &mut node_value[node..][..batch];
        let upstream = &upstream[row % outputs * batch..][..batch];
        for i in 0..batch {
            value[i] = madd::<FUSED>(upstream[i], said[i], value[i]);
            said[i] = stop[i] * upstream[i];
        }
    }
}

multiversion! {
    /// One Adam step with decoupled decay. `correction` = [1 / (1 - 0.9^t), 1 / (1 - 0.999^t)].
    pub(crate) fn adam(
        parameter: &mut [f32],
        gradient: &[f32],
        first: &mut [f32],
        second: &mut [f32],
        rate: f32,
        decay: f32,
        correction: [f32; 2],
    ) = adam_body
}

#[inline(always)]
fn adam_body<const FUSED: bool>(
    parameter: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    rate: f32,
    decay: f32,
    correction: [f32; 2],
) {
    let n = parameter.len();
    let (gradient, first, second) = (&gradient[..n], &mut first[..n], &mut second[..n]);
    for i in 0..n {
        let g = gradient[i];
        first[i] = 0.9 * first[i] + 0.1 * g;
        second[i] = 0.999 * second[i] + 0.001 * g * g;
        let step = first[i] * correction[0] / ((second[i] * correction[1]).sqrt() + 1e-8);
        parameter[i] -= rate * (step + decay * parameter[i]);
    }
}

multiversion! {
    /// out = (x - mean) * inverse_scale.
    pub(crate) fn normalise(x: &[f32], mean: &[f32], inverse_scale: &[f32], out: &mut [f32]) = normalise_body
}

#[inline(always)]
fn normalise_body<const FUSED: bool>(x: &[f32], mean: &[f32], inverse_scale: &[f32], out: &mut [f32]) {
    let n = out.len();
    let (x, mean, inverse_scale) = (&x[..n], &mean[..n], &inverse_scale[..n]);
    for i in 0..n {
        out[i] = (x[i] - mean[i]) * inverse_scale[i];
    }
}

#[cfg(test)]
#[allow(clippy::needless_range_loop)] // Gates and samples index several buffers at once.
mod tests {
    use super::*;
    use crate::recursion;
    use crate::topology::Topology;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn column(buffer: &[f32], batch: usize, i: usize) -> Vec<f64> {
        buffer.iter().skip(i).step_by(batch).map(|&v| f64::from(v)).collect()
    }

    /// Once, twice, not at all, and so on.
    fn times_seen(batch: usize) -> Vec<f32> {
        [1.0, 2.0, 0.0].into_iter().cycle().take(batch).collect()
    }

    /// -1/2 (log 0.3 + log 0.7) = 0.7803238741, whose slope in the share is -1/2 (1/0.3 - 1/0.7).
    #[test]
    fn balance_slope_matches_the_hand_computed_node() {
        let (slope, share, inverse_mass) = balance(1.0, 0, 1.0, 0.0, (&[0.3, 0.3], &[1.0; 2], &[1.0; 2]));
        assert!((share - 0.3).abs() < 1e-6 && (inverse_mass - 0.5).abs() < 1e-6);
        assert!((slope + 0.5 * (1.0 / 0.3 - 1.0 / 0.7)).abs() < 1e-5);
        let half = balance(1.0, 1, 1.0, 0.0, (&[0.3], &[1.0], &[1.0])).0;
        assert!((half - slope / 2.0).abs() < 1e-6);
        // Two of one sample and none of another.
        let seen = balance(1.0, 0, 1.0, 0.0, (&[0.3, 0.9], &[1.0; 2], &[2.0, 0.0]));
        assert!((seen.0 - slope).abs() < 1e-5 && (seen.2 - 0.5).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn batched_passes_equal_the_plain_recursion(seed: u64, depth in 1usize..5, batch in 1usize..40, steep: bool) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let tree = Topology::random(depth, 40, &mut rng);
            let (gates, nodes) = (tree.gates().len(), tree.nodes());
            let gate = if steep { Gate::SmoothStep { width: 2.0 } } else { Gate::Sigmoid };
            let mut draw = |n: usize, lo: f32, hi: f32| -> Vec<f32> { (0..n).map(|_| rng.random_range(lo..hi)).collect() };
            let scores = draw(gates * batch, -3.0, 3.0);
            let bias = draw(gates, -1.0, 1.0);
            let leafness = draw(gates, 0.0, 1.0);
            let own = draw(nodes * batch, -2.0, 2.0);
            let (mut z, mut p) = (scores.clone(), vec![0.0; gates * batch]);
            let (mut reach, mut stop) = (vec![0.0; nodes * batch], vec![0.0; nodes * batch]);
            route(tree.gates(), gate, 1.3, &bias, &leafness, batch, &mut z, &mut p, &mut reach, &mut stop);
            let mut value = own.clone();
            let mut gradient = vec![0.0; gates];
            let costs = Costs { path: 0.01, balance: 0.0 };
            let seen = times_seen(batch);
            backward(tree.gates(), &tree.depths(), &tree.existence(&leafness), &leafness, costs, &seen, &p, &reach, &mut value, &mut z, &mut gradient);
            let g: Vec<f64> = leafness.iter().map(|&v| f64::from(v)).collect();
            let mut total = vec![0.0; gates];
            for i in 0..batch {
                let routed: Vec<(f64, f64)> = column(&scores, batch, i).iter().zip(&bias)
                    .map(|(z, &b)| gate.evaluate(f64::from(1.3f32) * (z + f64::from(b)))).collect();
                let exact: Vec<f64> = routed.iter().map(|r| r.0).collect();
                let pass = recursion::reach(&tree, &exact, &g);
                for (found, wanted) in column(&stop, batch, i).iter().zip(&pass.stop) {
                    prop_assert!((found - wanted).abs() < 2e-6);
                }
                let back = recursion::value_gradient(&tree, &exact, &g, &column(&own, batch, i));
                // The path cost is linear: its part of the root value is 0.01 times the expected gates, as often as seen.
                let path = 0.01 * f64::from(seen[i]);
                let root = back.value[0] + path * recursion::expected_gates(&tree, &exact, &g);
                prop_assert!((f64::from(value[i]) - root).abs() < 1e-5);
                let with_cost = |p: &[f64], g: &[f64]| recursion::value_gradient(&tree, p, g, &column(&own, batch, i)).value[0]
                    + path * recursion::expected_gates(&tree, p, g);
                for n in 0..gates {
                    let h = 1e-5;
                    let (mut up, mut down) = (exact.clone(), exact.clone());
                    up[n] += h;
                    down[n] -= h;
                    let dp = (with_cost(&up, &g) - with_cost(&down, &g)) / (2.0 * h);
                    let dz = dp * routed[n].1 * f64::from(1.3f32);
                    prop_assert!((column(&z, batch, i)[n] - dz).abs() < 2e-5);
                    let (mut up, mut down) = (g.clone(), g.clone());
                    up[n] += h;
                    down[n] -= h;
                    total[n] += (with_cost(&exact, &up) - with_cost(&exact, &down)) / (2.0 * h);
                }
            }
            for (found, wanted) in gradient.iter().zip(&total) {
                prop_assert!((f64::from(*found) - wanted).abs() < 1e-5 * batch as f64);
            }
        }

        /// The gradient of the balance term alone, against finite differences of its definition.
        #[test]
        fn balance_gradient_matches_finite_differences(seed: u64, batch in 4usize..20) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let tree = Topology::full(2);
            let scores: Vec<f32> = (0..3 * batch).map(|_| rng.random_range(-2.0f32..2.0)).collect();
            let leafness: Vec<f32> = (0..3).map(|_| rng.random_range(0.1f32..0.8)).collect();
            let existence = tree.existence(&leafness);
            let seen = times_seen(batch);
            let penalty = |scores: &[f64], g: &[f64]| -> f64 {
                let mut mass = [0.0; 3];
                let mut left = [0.0; 3];
                for i in 0..batch {
                    let p: Vec<f64> = (0..3).map(|n| Gate::Sigmoid.evaluate(scores[n * batch + i]).0).collect();
                    let pass = recursion::reach(&tree, &p, g);
                    for n in 0..3 {
                        let through = f64::from(seen[i]) * pass.reach[n] * (1.0 - g[n]);
                        mass[n] += through;
                        left[n] += through * p[n];
                    }
                }
                (0..3).map(|n| {
                    let a: f64 = left[n] / mass[n];
                    // Existence is held fixed, as in the training loss.
                    -0.7 * 0.5f64.powi(i32::from(n > 0)) * f64::from(existence[n]) * 0.5 * (a.ln() + (1.0 - a).ln())
                }).sum()
            };
            let (mut z, mut p) = (scores.clone(), vec![0.0; 3 * batch]);
            let (mut reach, mut stop) = (vec![0.0; 7 * batch], vec![0.0; 7 * batch]);
            route(tree.gates(), Gate::Sigmoid, 1.0, &[0.0; 3], &leafness, batch, &mut z, &mut p, &mut reach, &mut stop);
            let mut gradient = vec![0.0; 3];
            let costs = Costs { path: 0.0, balance: 0.7 };
            backward(tree.gates(), &tree.depths(), &existence, &leafness, costs, &seen, &p, &reach, &mut vec![0.0; 7 * batch], &mut z, &mut gradient);
            let exact: Vec<f64> = scores.iter().map(|&v| f64::from(v)).collect();
            let g: Vec<f64> = leafness.iter().map(|&v| f64::from(v)).collect();
            let h = 1e-5;
            for n in 0..3 * batch {
                let (mut up, mut down) = (exact.clone(), exact.clone());
                up[n] += h;
                down[n] -= h;
                let numeric = (penalty(&up, &g) - penalty(&down, &g)) / (2.0 * h);
                prop_assert!((f64::from(z[n]) - numeric).abs() < 1e-5, "{} {numeric}", z[n]);
            }
            for n in 0..3 {
                let (mut up, mut down) = (g.clone(), g.clone());
                up[n] += h;
                down[n] -= h;
                let numeric = (penalty(&exact, &up) - penalty(&exact, &down)) / (2.0 * h);
                prop_assert!((f64::from(gradient[n]) - numeric).abs() < 2e-5, "{} {numeric}", gradient[n]);
            }
        }
    }
}
