//! What a training minimises.

use super::Progress;
use super::metrics::check_class_numbers;
use crate::data::Batch;
use crate::nn::Network;
use crate::{Error, Result};
use tch::{Kind, Reduction, Tensor};

/// A batch goes in, a loss with named parts comes out. The batch type is the objective's own.
pub trait Objective<B> {
    /// The loss of one batch, with the network in training mode.
    ///
    /// # Errors
    /// A batch that does not fit, as far as the objective can tell.
    ///
    /// # Panics
    /// An objective that runs a [`Network`] panics where [`Network::forward`] does: on images of other channels or on
    /// another device.
    fn loss(&mut self, batch: &B, progress: &Progress) -> Result<Loss>;
}

/// A number to minimise and the parts worth recording, each a tensor of one value: `[]`, or `[1]` and the like. The
/// trainer refuses any other shape.
#[derive(Debug)]
pub struct Loss {
    /// The number whose gradient is taken.
    pub total: Tensor,
    /// Numbers by name, averaged over the epoch in the metrics: the terms of `total`, training accuracy and the like. The
    /// metrics know `total` as `loss`, so a part that is called so is averaged with it.
    pub parts: Vec<(&'static str, Tensor)>,
}

impl Loss {
    /// A loss of one part.
    pub fn single(name: &'static str, total: Tensor) -> Self {
        let part = total.detach();
        Self { total, parts: vec![(name, part)] }
    }

    /// # Errors
    /// [`Error::Tensor`], naming a part or `total` that is not one value.
    pub(crate) fn check(&self) -> Result<()> {
        let total = ("total", &self.total);
        let parts = self.parts.iter().map(|(name, part)| (*name, part));
        match parts.chain([total]).find(|(_, value)| value.numel() != 1) {
            Some((name, value)) => Err(Error::tensor(name, "a loss of one value", format!("{:?}", value.size()))),
            None => Ok(()),
        }
    }

    /// The values of `total` and of the parts, which are one each.
    ///
    /// # Errors
    /// [`Error::NotFinite`], naming the first part that is NaN or infinite, or `total` if every part is finite.
    pub(crate) fn values(&self, step: u64) -> Result<(f64, Vec<f64>)> {
        // One copy off the device, for which it has to finish.
        let device = self.total.device();
        let all = self.parts.iter().map(|(_, part)| part).chain([&self.total]);
        let all = all.map(|one| one.f_detach()?.f_reshape([1])?.f_to_kind(Kind::Double)?.f_to_device(device));
        let all = Tensor::f_cat(&all.collect::<std::result::Result<Vec<_>, _>>()?, 0)?;
        let mut parts = Vec::<f64>::try_from(all)?;
        let total = parts.pop().unwrap_or(f64::NAN);
        if total.is_finite() {
            return Ok((total, parts));
        }
        let broken = self.parts.iter().zip(&parts).find(|(_, value)| !value.is_finite());
        let (part, value) = broken.map_or(("total", total), |((name, _), value)| (name, *value));
        Err(Error::NotFinite { step, part: part.to_owned(), value })
    }
}

/// Softmax cross-entropy on class labels.
#[derive(Debug)]
pub struct CrossEntropy<'a> {
    network: &'a dyn Network,
    label_smoothing: f64,
}

impl<'a> CrossEntropy<'a> {
    /// Hard labels.
    pub fn new(network: &'a dyn Network) -> Self {
        Self { network, label_smoothing: 0.0 }
    }

    /// Labels mixed with the uniform distribution by `smoothing` (Szegedy et al., arXiv 1512.00567, section 7).
    ///
    /// # Errors
    /// A smoothing outside `[0, 1]`.
    pub fn with_label_smoothing(self, smoothing: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&smoothing) {
            return Err(Error::setting("label_smoothing", "in [0, 1]", smoothing));
        }
        Ok(Self { label_smoothing: smoothing, ..self })
    }
}

impl Objective<Batch> for CrossEntropy<'_> {
    fn loss(&mut self, batch: &Batch, _progress: &Progress) -> Result<Loss> {
        let logits = self.network.forward(&batch.input, true);
        check_class_numbers(&logits, &batch.target)?;
        let weight = None::<Tensor>;
        let loss = logits.f_cross_entropy_loss(&batch.target, weight, Reduction::Mean, -100, self.label_smoothing)?;
        let correct = logits.argmax(-1, false).f_eq_tensor(&batch.target)?.to_kind(Kind::Float).mean(Kind::Float);
        let parts = vec![("cross_entropy", loss.detach()), ("train_accuracy", correct * 100.0)];
        Ok(Loss { total: loss, parts })
    }
}
