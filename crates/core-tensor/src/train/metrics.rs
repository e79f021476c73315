//! How good a classifier is.

use crate::data::{Batch, BatchSource};
use crate::nn::Network;
use crate::{Error, Result};
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
/// Data that cannot be read, or labels that do not fit the logits. An empty source gives NaN figures over 0 samples.
///
/// # Panics
/// As [`Network::forward`], on images that the network cannot take: of other channels, say, or on another device.
pub fn evaluate(network: &dyn Network, source: &dyn BatchSource<Batch = Batch>) -> Result<Evaluation> {
    let (mut correct, mut cross_entropy, mut samples) = (0_i64, 0.0, 0_i64);
    for batch in source.epoch(0)? {
        let batch = batch?;
        let logits = {
            // Gives gradients back also when the network panics, which `tch::no_grad` does not.
            let _no_gradients = tch::no_grad_guard();
            network.forward(&batch.input, false)
        };
        check_class_numbers(&logits, &batch.target)?;
        let hits = logits.argmax(-1, false).f_eq_tensor(&batch.target)?.sum(Kind::Int64);
        let sum = logits.f_cross_entropy_loss(&batch.target, None::<Tensor>, Reduction::Sum, -100, 0.0)?;
        correct += hits.int64_value(&[]);
        cross_entropy += sum.double_value(&[]);
        samples += batch.target.size()[0];
    }
    let count = samples as f64;
    let accuracy = 100.0 * correct as f64 / count;
    Ok(Evaluation { accuracy, cross_entropy: cross_entropy / count, samples: samples as u64 })
}

/// Refuses targets that are not one class number a row of logits. Cross-entropy also takes shares of classes, and a comparison
/// with them broadcasts into nonsense where there are as many rows as classes.
pub(super) fn check_class_numbers(logits: &Tensor, target: &Tensor) -> Result<()> {
    let mut rows = logits.size();
    rows.pop();
    if target.kind() != Kind::Int64 || target.size() != rows {
        let found = format!("{:?} {:?}", target.kind(), target.size());
        return Err(Error::tensor("target", format!("class numbers, Int64 {rows:?}"), found));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::{Architecture, ConvNetConfig};
    use crate::nn::Standard;
    use tch::{Device, nn};

    /// One batch of four images, with these labels.
    struct Labels(Tensor);

    impl BatchSource for Labels {
        type Batch = Batch;

        fn batches_per_epoch(&self) -> u64 {
            1
        }

        fn epoch(&self, _: u64) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
            let input = Tensor::zeros([4, 1, 28, 28], (Kind::Float, Device::Cpu));
            Ok(Box::new(std::iter::once(Ok(Batch { input, target: self.0.shallow_clone(), index: (0..4).collect() }))))
        }
    }

    #[test]
    fn labels_that_do_not_fit_their_images_are_an_error() {
        let store = nn::VarStore::new(Device::Cpu);
        // As many classes as images: shares of classes would be compared with them column by column.
        let network = Architecture::LeNet300100 { classes: 4 }.build(&store.root(), &Standard).unwrap();
        let evaluated =
            |size: &[i64], kind| evaluate(network.as_ref(), &Labels(Tensor::zeros(size, (kind, Device::Cpu))));
        assert_eq!(evaluated(&[4], Kind::Int64).unwrap().samples, 4);
        for (size, kind) in
            [(&[3][..], Kind::Int64), (&[4, 4], Kind::Float), (&[4, 1], Kind::Int64), (&[4], Kind::Float)]
        {
            let refused = evaluated(size, kind).unwrap_err().to_string();
            assert!(refused.starts_with("`target`: expected class numbers, Int64 [4]"), "{refused}");
        }
    }

    #[test]
    fn images_that_do_not_fit_leave_gradients_as_they_were() {
        let store = nn::VarStore::new(Device::Cpu);
        let config = ConvNetConfig { in_channels: 3, widths: vec![4], classes: 10 };
        let network = Architecture::ConvNet(config).build(&store.root(), &Standard).unwrap();
        let labels = Labels(Tensor::zeros([4], (Kind::Int64, Device::Cpu)));
        let run = std::panic::AssertUnwindSafe(|| evaluate(network.as_ref(), &labels));
        assert!(std::panic::catch_unwind(run).is_err());
        assert!((&store.variables()["conv1.weight"] * 2.0).requires_grad());
    }
}
