//! What is attacked.

use std::cell::RefCell;

use core_tensor::nn::Network;
use tch::Tensor;

use super::{Error, Result};

/// A differentiable classifier in evaluation mode.
///
/// Any closure `Fn(&Tensor) -> Tensor` is one: `|x: &Tensor| net.forward_t(x, false)`. With tch the mode is an argument of
/// the forward pass, so there is nothing to switch and nothing to restore.
pub trait Classifier {
    /// Logits `[batch, classes]` for images inside the box, in evaluation mode. Of any floating-point kind and on any device;
    /// of those in half precision the look for training mode allows for their rounding.
    fn logits(&self, images: &Tensor) -> Tensor;

    /// Whether the same images may get other logits the next time. False unless wrapped in [`Stochastic`].
    fn is_random(&self) -> bool {
        false
    }
}

impl<F: Fn(&Tensor) -> Tensor> Classifier for F {
    fn logits(&self, images: &Tensor) -> Tensor {
        self(images)
    }
}

/// A network of `core_tensor`, always in evaluation mode.
///
/// Attacks of many passes are faster on [`Architecture::folded`](core_tensor::networks::Architecture::folded), the same function
/// without batch norms.
#[derive(Debug, Clone, Copy)]
pub struct EvalMode<'a>(pub &'a dyn Network);

impl Classifier for EvalMode<'_> {
    fn logits(&self, images: &Tensor) -> Tensor {
        self.0.forward(images, false)
    }
}

/// A model that wants normalised images: `(x − mean) / deviation` per channel goes into it.
///
/// # Panics
/// A pass does, on images of another number of channels than there are means and deviations; one of each does for all.
#[derive(Debug)]
pub struct Normalized<M> {
    model: M,
    /// Means and deviations, as given and then as images of other kinds and devices have wanted them.
    channels: RefCell<Vec<(Tensor, Tensor)>>,
}

impl<M: Classifier> Normalized<M> {
    /// With one mean and one standard deviation a channel of `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::Setting`] for a mean that is not finite, or a deviation that is not finite and above 0.
    pub fn new(model: M, mean: &[f32], deviation: &[f32]) -> Result<Self> {
        if let Some(wrong) = mean.iter().find(|mean| !mean.is_finite()) {
            return Err(Error::setting("mean", "finite", wrong));
        }
        if let Some(wrong) = deviation.iter().find(|deviation| !(**deviation > 0.0 && deviation.is_finite())) {
            return Err(Error::setting("deviation", "finite and above 0", wrong));
        }
        let channels = |values: &[f32]| Tensor::from_slice(values).reshape([1, -1, 1, 1]);
        Ok(Self { model, channels: RefCell::new(vec![(channels(mean), channels(deviation))]) })
    }

    /// Mean and deviation of the images' kind, on their device. Brought there once: a copy to an accelerator at every pass
    /// would hold it up.
    fn like(&self, images: &Tensor) -> (Tensor, Tensor) {
        let wanted = (images.kind(), images.device());
        let mut channels = self.channels.borrow_mut();
        let at = channels.iter().position(|(mean, _)| (mean.kind(), mean.device()) == wanted).unwrap_or_else(|| {
            let like = |values: &Tensor| values.to_kind(wanted.0).to_device(wanted.1);
            let moved = (like(&channels[0].0), like(&channels[0].1));
            channels.push(moved);
            channels.len() - 1
        });
        (channels[at].0.shallow_clone(), channels[at].1.shallow_clone())
    }
}

impl<M: Classifier> Classifier for Normalized<M> {
    fn logits(&self, images: &Tensor) -> Tensor {
        let (mean, deviation) = self.like(images);
        self.model.logits(&((images - mean) / deviation))
    }

    fn is_random(&self) -> bool {
        self.model.is_random()
    }
}

/// A model that is random on purpose (noise, dropout as a defence): it is attacked rather than refused.
#[derive(Debug, Clone, Copy)]
pub struct Stochastic<M>(pub M);

impl<M: Classifier> Classifier for Stochastic<M> {
    fn logits(&self, images: &Tensor) -> Tensor {
        self.0.logits(images)
    }

    fn is_random(&self) -> bool {
        true
    }
}
