//! How good a classifier is.

use crate::Result;
use crate::data::{Batch, BatchSource};
use crate::nn::Network;
use tch::{Kind, Reduction, Tensor};

/// A classifier on a labelled set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Top-1 accuracy in percent.
    pub accuracy: f64,
    /// Mean cross-entropy in nats.
    pub cross_entropy: f64,
    /// Samples seen.
    pub samples: u64,
}

/// Runs the network in evaluation mode, without gradients, over epoch 0 of a source.
///
/// # Errors
/// Data that cannot be read. An empty source gives NaN figures over 0 samples.
pub fn evaluate(network: &dyn Network, source: &dyn BatchSource<Batch = Batch>) -> Result<Evaluation> {
    let (mut correct, mut cross_entropy, mut samples) = (0_i64, 0.0, 0_i64);
    for batch in source.epoch(0)? {
        let batch = batch?;
        let logits = tch::no_grad(|| network.forward(&batch.input, false));
        let hits = logits.argmax(-1, false).eq_tensor(&batch.target).sum(Kind::Int64);
        let sum = logits.f_cross_entropy_loss(&batch.target, None::<Tensor>, Reduction::Sum, -100, 0.0)?;
        correct += hits.int64_value(&[]);
        cross_entropy += sum.double_value(&[]);
        samples += batch.target.size()[0];
    }
    let count = samples as f64;
    let accuracy = 100.0 * correct as f64 / count;
    Ok(Evaluation { accuracy, cross_entropy: cross_entropy / count, samples: samples as u64 })
}
