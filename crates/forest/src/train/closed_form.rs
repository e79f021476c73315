//! Expectation-maximisation of responses and leafness with the gates held fixed.
//!
//! With h_n(i) the posterior that sample i stopped at node n, and H_n the sum of h over the subtree of n,
//! `q_nk = (a + sum_(i: y_i = k) h_n(i)) / (K a + sum_i h_n(i))` with a = 0.1 / K, and `leafness_n = sum_i h_n(i) / sum_i
//! H_n(i)`: a round never lowers `log likelihood + a sum_nk log q_nk`. At leafness 0 and a = 0 this is the leaf rule of deep
//! neural decision forests (Kontschieder et al. 2015).

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use crate::encoder::Encoder;
use crate::params::SoftForestParams;
use crate::train::pass::normalise;
use crate::train::tree::TreeTrainer;

/// Below this posterior mass a node keeps what it has.
const ENOUGH: f64 = 1e-8;

pub(crate) struct Data<'a> {
    pub(crate) x: ArrayView2<'a, f32>,
    pub(crate) labels: &'a [usize],
    pub(crate) weights: &'a [f32],
    pub(crate) tree_weights: Option<&'a Array2<u8>>,
    pub(crate) rows: &'a [usize],
}

/// `rounds` rounds for every tree.
pub(crate) fn update(
    trainers: &mut [TreeTrainer],
    data: &Data,
    encoder: &Encoder,
    params: &SoftForestParams,
    inverse_temperature: f32,
    rounds: usize,
    leafness: bool,
) {
    trainers.par_iter_mut().enumerate().for_each(|(t, trainer)| {
        for _ in 0..rounds {
            let mass = expectation(trainer, t, data, encoder, params, inverse_temperature);
            maximise(trainer, &mass, leafness);
        }
    });
}

/// Posterior mass of each node and class, `[nodes, classes]`.
fn expectation(
    trainer: &mut TreeTrainer,
    tree: usize,
    data: &Data,
    encoder: &Encoder,
    params: &SoftForestParams,
    inverse_temperature: f32,
) -> Vec<f64> {
    let mut mass = vec![0.0; trainer.tree.responses.len()];
    for rows in data.rows.chunks(256) {
        let mut batch = Array2::zeros((rows.len(), encoder.inputs()));
        for (mut out, &row) in batch.rows_mut().into_iter().zip(rows) {
            let source = data.x.row(row).to_vec();
            if let Some(out) = out.as_slice_mut() {
                normalise(&source, encoder.mean(), encoder.inverse_scale(), out);
            }
        }
        trainer.forward(batch.view(), params, true, inverse_temperature);
        let labels: Vec<usize> = rows.iter().map(|&r| data.labels[r]).collect();
        let weights: Vec<f32> = rows
            .iter()
            .map(|&r| {
                let bag = data.tree_weights.map_or(1, |b| b[[tree, r]]);
                data.weights[r] * f32::from(bag)
            })
            .collect();
        trainer.posterior(&labels, &weights, &mut mass);
    }
    mass
}

fn maximise(trainer: &mut TreeTrainer, mass: &[f64], leafness: bool) {
    let classes = trainer.tree.outputs;
    let smoothing = 0.1 / classes as f64;
    let own: Vec<f64> = mass.chunks_exact(classes).map(|m| m.iter().sum()).collect();
    for (node, (mass, &total)) in mass.chunks_exact(classes).zip(&own).enumerate() {
        if total < ENOUGH {
            continue;
        }
        let response = &mut trainer.tree.responses[node * classes..(node + 1) * classes];
        for (r, m) in response.iter_mut().zip(mass) {
            *r = ((m + smoothing) / (total + 0.1)).ln() as f32;
        }
    }
    if !leafness {
        return;
    }
    let mut below = own.clone();
    let gates = trainer.tree.topology.gates().to_vec();
    for (index, gate) in gates.iter().enumerate().rev() {
        let node = gate.node as usize;
        below[node] += below[gate.left as usize] + below[gate.right as usize];
        if below[node] > ENOUGH {
            trainer.set_leafness(index, (own[node] / below[node]) as f32);
        }
    }
}
