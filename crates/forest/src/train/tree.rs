//! One tree in training: its parameters, their Adam moments, and a step.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2};

use crate::params::{Leafness, Loss, Mix, SoftForestParams};
use crate::train::Targets;
use crate::train::pass::{Costs, adam, backward, linear_values, mix_linear, route};
use crate::tree::{Tree, softmax_rows};

/// Smallest probability inside a logarithm or a division: deep leaves hold masses near 2^-depth.
const TINY: f32 = 1e-7;
/// Logits of the leafness are kept in this range, where single precision still tells leafness from 0 and 1.
const LOGIT_LIMIT: f32 = 15.0;

/// What changes from step to step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Learning rate of gates and responses.
    pub(crate) rate: f32,
    /// Inverse temperature.
    pub(crate) inverse_temperature: f32,
    /// Progress of the whole training in [0, 1].
    pub(crate) progress: f32,
    /// Whether leafness may move.
    pub(crate) learn_shape: bool,
    /// Whether responses are updated by gradient.
    pub(crate) learn_responses: bool,
}

/// First and second Adam moments of one parameter array.
#[derive(Clone, Debug)]
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Moments {
    fn new(length: usize) -> Self {
        Self { first: vec![0.0; length], second: vec![0.0; length] }
    }
}

pub(crate) struct TreeTrainer {
    pub(crate) tree: Tree,
    /// Logits of the leafness; only with `Leafness::Logit`.
    logits: Vec<f32>,
    /// 0 for inputs this tree may not look at.
    mask: Option<Vec<f32>>,
    steps: i32,
    moments: [Moments; 5],
    depths: Vec<usize>,
    /// Responses after softmax (classification with mixed probabilities) or as they are.
    values: Vec<f32>,
    batch: usize,
    z: Vec<f32>,
    p: Vec<f32>,
    reach: Vec<f32>,
    stop: Vec<f32>,
    node_value: Vec<f32>,
    /// Output of the tree `[outputs][batch]`, a distribution for classification.
    pub(crate) output: Vec<f32>,
    /// Gradient of the loss with respect to the mixture `[outputs][batch]`.
    pub(crate) upstream: Vec<f32>,
    weight_gradient: Vec<f32>,
    response_gradient: Vec<f32>,
    /// With linear leaves, what every node says about every sample, `[nodes x outputs][batch]`; on the way back its gradient.
    said: Vec<f32>,
    slope_gradient: Vec<f32>,
}

impl TreeTrainer {
    pub(crate) fn new(tree: Tree, params: &SoftForestParams, mask: Option<Vec<f32>>) -> Self {
        let logits = match params.leafness {
            Leafness::Logit { .. } => {
                tree.leafness.iter().map(|&g| (g / (1.0 - g)).ln().clamp(-LOGIT_LIMIT, LOGIT_LIMIT)).collect()
            }
            _ => Vec::new(),
        };
        let lengths =
            [tree.weights.len(), tree.bias.len(), tree.leafness.len(), tree.responses.len(), tree.slopes.len()];
        let mut trainer = Self {
            logits,
            mask,
            steps: 0,
            moments: lengths.map(Moments::new),
            depths: tree.topology.depths(),
            values: Vec::new(),
            batch: 0,
            z: Vec::new(),
            p: Vec::new(),
            reach: Vec::new(),
            stop: Vec::new(),
            node_value: Vec::new(),
            output: Vec::new(),
            upstream: Vec::new(),
            weight_gradient: vec![0.0; tree.weights.len()],
            response_gradient: vec![0.0; tree.responses.len()],
            said: Vec::new(),
            slope_gradient: vec![0.0; tree.slopes.len()],
            tree,
        };
        if let Some(mask) = &trainer.mask {
            // Slopes start at 0, so only their gradients need the mask.
            for row in trainer.tree.weights.chunks_exact_mut(mask.len()) {
                row.iter_mut().zip(mask).for_each(|(w, m)| *w *= m);
            }
        }
        trainer
    }

    fn resize(&mut self, batch: usize) {
        if self.batch == batch {
            return;
        }
        self.batch = batch;
        let linear = !self.tree.slopes.is_empty();
        let (gates, nodes, outputs) = (self.tree.bias.len(), self.tree.topology.nodes(), self.tree.outputs);
        for (buffer, rows) in [
            (&mut self.z, gates),
            (&mut self.p, gates),
            (&mut self.reach, nodes),
            (&mut self.stop, nodes),
            (&mut self.node_value, nodes),
            (&mut self.output, outputs),
            (&mut self.upstream, outputs),
            (&mut self.said, if linear { nodes * outputs } else { 0 }),
        ] {
            buffer.resize(rows * batch, 0.0);
        }
    }

    /// Forward pass over `x` `[batch, inputs]`: fills `output`.
    pub(crate) fn forward(
        &mut self,
        x: ArrayView2<f32>,
        params: &SoftForestParams,
        classification: bool,
        inverse_temperature: f32,
    ) {
        self.resize(x.nrows());
        let (gates, nodes, outputs, batch) =
            (self.tree.bias.len(), self.tree.topology.nodes(), self.tree.outputs, self.batch);
        product(view(&self.tree.weights, gates, self.tree.inputs), x.t(), view_mut(&mut self.z, gates, batch));
        route(
            self.tree.topology.gates(),
            params.gate,
            inverse_temperature,
            &self.tree.bias,
            &self.tree.leafness,
            batch,
            &mut self.z,
            &mut self.p,
            &mut self.reach,
            &mut self.stop,
        );
        let softmax_first = classification && params.mix == Mix::Probabilities;
        self.values =
            if softmax_first { softmax_rows(&self.tree.responses, outputs) } else { self.tree.responses.clone() };
        if self.said.is_empty() {
            product(
                view(&self.values, nodes, outputs).t(),
                view(&self.stop, nodes, batch),
                view_mut(&mut self.output, outputs, batch),
            );
        } else {
            product(
                view(&self.tree.slopes, nodes * outputs, self.tree.inputs),
                x.t(),
                view_mut(&mut self.said, nodes * outputs, batch),
            );
            mix_linear(&self.tree.responses, &self.stop, batch, &mut self.said, &mut self.output);
        }
        if classification && !softmax_first {
            softmax_columns(&mut self.output, outputs, batch);
        }
    }

    /// Loss of this tree alone, weighted and summed over the batch; fills `upstream` with the gradient of its mean.
    pub(crate) fn own_loss(&mut self, targets: &Targets, weights: &[f32], params: &SoftForestParams) -> f64 {
        if params.loss == Loss::LeafCrossEntropy && targets.is_classes() {
            return self.leaf_loss(targets, weights);
        }
        output_loss(&self.output, targets, weights, params.mix, 1.0, &mut self.upstream)
    }

    /// Path-weighted cross-entropy: sum over nodes of stop x (-log q_y). Fills `upstream` with the weighted one-hot labels
    /// over the batch size, from which [`step`](Self::step) builds both kinds of gradient.
    fn leaf_loss(&mut self, targets: &Targets, weights: &[f32]) -> f64 {
        let Targets::Classes(labels) = targets else {
            return 0.0;
        };
        let (outputs, batch) = (self.tree.outputs, self.batch);
        self.upstream.fill(0.0);
        let mut loss = 0.0;
        for (i, (&label, &weight)) in labels.iter().zip(weights).enumerate() {
            self.upstream[label * batch + i] = weight / batch as f32;
            for (node, value) in self.values.chunks_exact(outputs).enumerate() {
                let stop = self.stop[node * batch + i];
                loss -= f64::from(weight * stop * at_least_tiny(value[label]).ln());
            }
        }
        loss
    }

    /// Backward pass from `upstream`, then one optimiser step. Penalties that depend on samples take each as often as `seen`
    /// `[batch]` says.
    pub(crate) fn step(
        &mut self,
        x: ArrayView2<f32>,
        params: &SoftForestParams,
        classification: bool,
        step: Step,
        seen: &[f32],
    ) {
        let leafness_gradient = self.gradients(x, params, classification, step, seen);
        self.steps += 1;
        let correction = [1.0 / (1.0 - 0.9f32.powi(self.steps)), 1.0 / (1.0 - 0.999f32.powi(self.steps))];
        let existence = self.tree.topology.existence(&self.tree.leafness);
        let [weights, bias, leafness, responses, slopes] = &mut self.moments;
        let inputs = self.tree.inputs;
        for (index, gate) in self.tree.topology.gates().iter().enumerate() {
            let range = index * inputs..(index + 1) * inputs;
            adam(
                &mut self.tree.weights[range.clone()],
                &self.weight_gradient[range.clone()],
                &mut weights.first[range.clone()],
                &mut weights.second[range],
                step.rate,
                params.optimiser.weight_decay * existence[gate.node as usize],
                correction,
            );
        }
        let bias_gradient: Vec<f32> = self.z.chunks_exact(self.batch).map(|row| row.iter().sum()).collect();
        adam(&mut self.tree.bias, &bias_gradient, &mut bias.first, &mut bias.second, step.rate, 0.0, correction);
        if step.learn_responses {
            adam(
                &mut self.tree.responses,
                &self.response_gradient,
                &mut responses.first,
                &mut responses.second,
                step.rate,
                0.0,
                correction,
            );
        }
        adam(
            &mut self.tree.slopes,
            &self.slope_gradient,
            &mut slopes.first,
            &mut slopes.second,
            step.rate,
            params.optimiser.weight_decay,
            correction,
        );
        if !step.learn_shape {
            return;
        }
        let rate = step.rate * params.optimiser.leafness_factor;
        match params.leafness {
            Leafness::Logit { .. } => {
                let gradient: Vec<f32> =
                    leafness_gradient.iter().zip(&self.tree.leafness).map(|(d, g)| d * g * (1.0 - g)).collect();
                adam(&mut self.logits, &gradient, &mut leafness.first, &mut leafness.second, rate, 0.0, correction);
                for (logit, g) in self.logits.iter_mut().zip(&mut self.tree.leafness) {
                    *logit = logit.clamp(-LOGIT_LIMIT, LOGIT_LIMIT);
                    *g = 1.0 / (1.0 + (-*logit).exp());
                }
            }
            Leafness::Clamped { .. } => {
                adam(
                    &mut self.tree.leafness,
                    &leafness_gradient,
                    &mut leafness.first,
                    &mut leafness.second,
                    rate,
                    0.0,
                    correction,
                );
                for g in &mut self.tree.leafness {
                    *g = g.clamp(0.0, 1.0);
                }
            }
            Leafness::Fixed | Leafness::Random { .. } => {}
        }
    }

    /// Turns the gradient with respect to the forest's mean output into this tree's `upstream`: as it is, or through the
    /// softmax when the tree mixes logits.
    pub(crate) fn take_upstream(&mut self, upstream: &[f32], classification: bool, params: &SoftForestParams) {
        self.upstream.copy_from_slice(upstream);
        if !classification || params.mix == Mix::Probabilities {
            return;
        }
        let batch = self.batch;
        for i in 0..batch {
            let outputs = 0..self.tree.outputs;
            let mean: f32 = outputs.clone().map(|k| upstream[k * batch + i] * self.output[k * batch + i]).sum();
            for k in outputs {
                let at = k * batch + i;
                self.upstream[at] = self.output[at] * (upstream[at] - mean);
            }
        }
    }

    /// Gradients of the batch loss and the penalties: those of weights and responses into their buffers, those of the
    /// biases as row sums of `z`, those of the leafness returned.
    pub(crate) fn gradients(
        &mut self,
        x: ArrayView2<f32>,
        params: &SoftForestParams,
        classification: bool,
        step: Step,
        seen: &[f32],
    ) -> Vec<f32> {
        let (gates, nodes, outputs, batch) =
            (self.tree.bias.len(), self.tree.topology.nodes(), self.tree.outputs, self.batch);
        let leaf_loss = classification && params.loss == Loss::LeafCrossEntropy;
        // s_n = (dL/d output) . q_n; for the leaf loss sum_k (-log q_nk) [k = y].
        let own_values: Vec<f32> =
            if leaf_loss { self.values.iter().map(|q| -q.max(TINY).ln()).collect() } else { Vec::new() };
        let factors = if leaf_loss { &own_values } else { &self.values };
        if self.said.is_empty() {
            product(
                view(factors, nodes, outputs),
                view(&self.upstream, outputs, batch),
                view_mut(&mut self.node_value, nodes, batch),
            );
        } else {
            linear_values(&self.upstream, &self.stop, batch, &mut self.said, &mut self.node_value);
            product(
                view(&self.said, nodes * outputs, batch),
                x,
                view_mut(&mut self.slope_gradient, nodes * outputs, self.tree.inputs),
            );
        }
        // dL/dq_nk = sum_i stop_n(i) dL/d output_k(i)
        product(
            view(&self.stop, nodes, batch),
            view(&self.upstream, outputs, batch).t(),
            view_mut(&mut self.response_gradient, nodes, outputs),
        );
        if classification && params.mix == Mix::Probabilities {
            for (gradient, q) in self.response_gradient.chunks_exact_mut(outputs).zip(self.values.chunks_exact(outputs))
            {
                if leaf_loss {
                    let mass: f32 = gradient.iter().sum();
                    for (g, q) in gradient.iter_mut().zip(q) {
                        *g = mass * q - *g;
                    }
                } else {
                    let mean: f32 = gradient.iter().zip(q).map(|(g, q)| g * q).sum();
                    for (g, q) in gradient.iter_mut().zip(q) {
                        *g = q * (*g - mean);
                    }
                }
            }
        }
        let existence = self.tree.topology.existence(&self.tree.leafness);
        let mut leafness_gradient = self.penalty_gradient(params, &existence, step.progress);
        let costs = Costs { path: params.regularisers.path / batch as f32, balance: params.regularisers.balance };
        backward(
            self.tree.topology.gates(),
            &self.depths,
            &existence,
            &self.tree.leafness,
            costs,
            seen,
            &self.p,
            &self.reach,
            &mut self.node_value,
            &mut self.z,
            &mut leafness_gradient,
        );
        product(view(&self.z, gates, batch), x, view_mut(&mut self.weight_gradient, gates, self.tree.inputs));
        if let Some(mask) = &self.mask {
            let rows = self.weight_gradient.chunks_exact_mut(mask.len());
            for row in rows.chain(self.slope_gradient.chunks_exact_mut(mask.len())) {
                row.iter_mut().zip(mask).for_each(|(g, m)| *g *= m);
            }
        }
        leafness_gradient
    }

    /// Gradient of the sample-free penalties with respect to each leafness.
    fn penalty_gradient(&self, params: &SoftForestParams, existence: &[f32], progress: f32) -> Vec<f32> {
        let r = &params.regularisers;
        let topology = &self.tree.topology;
        let sizes = topology.expected_sizes(&self.tree.leafness);
        topology
            .gates()
            .iter()
            .zip(&self.tree.leafness)
            .map(|(gate, &g)| {
                let e = existence[gate.node as usize];
                let below = sizes[gate.left as usize] + sizes[gate.right as usize];
                -r.size * e * below - r.leafness + r.polarise * progress * e * (1.0 - 2.0 * g)
            })
            .collect()
    }

    /// Posterior mass per node and class of the rows of `x`, for the closed-form update; needs a forward pass before.
    pub(crate) fn posterior(&self, labels: &[usize], weights: &[f32], into: &mut [f64]) {
        let (outputs, batch) = (self.tree.outputs, self.batch);
        for (i, (&label, &weight)) in labels.iter().zip(weights).enumerate() {
            let total = self.output[label * batch + i].max(TINY);
            for node in 0..self.tree.topology.nodes() {
                let h = self.stop[node * batch + i] * self.values[node * outputs + label] / total;
                into[node * outputs + label] += f64::from(weight * h);
            }
        }
    }

    /// Replaces leafness and brings the logits along.
    pub(crate) fn set_leafness(&mut self, gate: usize, g: f32) {
        self.tree.leafness[gate] = g;
        if let Some(logit) = self.logits.get_mut(gate) {
            *logit = (g / (1.0 - g)).ln().clamp(-LOGIT_LIMIT, LOGIT_LIMIT);
            self.tree.leafness[gate] = 1.0 / (1.0 + (-*logit).exp());
        }
    }

    #[cfg(test)]
    pub(crate) fn gradient_parts(&self) -> (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>) {
        (
            self.slope_gradient.clone(),
            self.weight_gradient.clone(),
            self.z.chunks_exact(self.batch).map(|row| row.iter().sum()).collect(),
            self.response_gradient.clone(),
        )
    }
}

/// Loss of an output `[outputs][batch]` summed over the batch with `weights`, and `scale` / batch times its gradient with
/// respect to the mixture: -log of the label's probability, or the squared error averaged over outputs.
pub(crate) fn output_loss(
    output: &[f32],
    targets: &Targets,
    weights: &[f32],
    mix: Mix,
    scale: f32,
    upstream: &mut [f32],
) -> f64 {
    let batch = weights.len();
    let scale = scale / batch as f32;
    let mut loss = 0.0;
    match targets {
        Targets::Classes(labels) => {
            upstream.fill(0.0);
            for (i, (&label, &weight)) in labels.iter().zip(weights).enumerate() {
                let p = at_least_tiny(output[label * batch + i]);
                loss -= f64::from(weight) * f64::from(p).ln();
                match mix {
                    Mix::Probabilities => upstream[label * batch + i] = -scale * weight / p,
                    Mix::Logits => {
                        for (row, out) in upstream.chunks_exact_mut(batch).zip(output.chunks_exact(batch)) {
                            row[i] = scale * weight * out[i];
                        }
                        upstream[label * batch + i] -= scale * weight;
                    }
                }
            }
        }
        Targets::Values(values) => {
            let outputs = values.ncols() as f32;
            for (k, (row, out)) in upstream.chunks_exact_mut(batch).zip(output.chunks_exact(batch)).enumerate() {
                for i in 0..batch {
                    let error = out[i] - values[[i, k]];
                    loss += f64::from(weights[i] * error * error / outputs);
                    row[i] = scale * weights[i] * 2.0 * error / outputs;
                }
            }
        }
    }
    loss
}

/// A probability of at least `TINY`. A NaN stays one, which `max` would hide from whoever looks for it in the loss.
fn at_least_tiny(p: f32) -> f32 {
    if p < TINY { TINY } else { p }
}

fn softmax_columns(values: &mut [f32], outputs: usize, batch: usize) {
    for i in 0..batch {
        let mut column: Vec<f32> = (0..outputs).map(|k| values[k * batch + i]).collect();
        crate::tree::softmax(&mut column);
        for (k, value) in column.into_iter().enumerate() {
            values[k * batch + i] = value;
        }
    }
}

/// c = a b.
fn product(a: ArrayView2<f32>, b: ArrayView2<f32>, mut c: ArrayViewMut2<f32>) {
    general_mat_mul(1.0, &a, &b, 0.0, &mut c);
}

#[allow(clippy::expect_used)]
fn view(values: &[f32], rows: usize, columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((rows, columns), values).expect("buffers are sized with the tree")
}

#[allow(clippy::expect_used)]
fn view_mut(values: &mut [f32], rows: usize, columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((rows, columns), values).expect("buffers are sized with the tree")
}
