//! The control that keeps a ticket's mask and throws away its luck.

use super::copies;
use crate::mask::MaskSet;
use crate::{Error, Result};
use core_tensor::optim::NamedTensors;
use core_tensor::seed::{Purpose, generator};
use rand_distr::{Distribution, StandardNormal};
use tch::Tensor;

/// `start` with the masked tensors drawn anew: each from `N(0, 2/n_eff)`, `n_eff` = survivors / input channels, the mean
/// number of live weights that an input channel feeds (the reference code of KD tickets). All else is copied.
///
/// Input channels are the tensor's second axis. In a convolution of `g` groups that is the channels of *one* group, so
/// that `n_eff` comes out `g` times too large and the weights `√g` times too small; most of all in depthwise layers,
/// with as many groups as channels.
///
/// The random-mask control is [`MaskSet::shuffle_within_layers`].
///
/// # Errors
/// [`Error::Mismatch`] for a masked tensor that `start` lacks, [`Error::EmptiedLayer`] for one without survivors.
pub fn reinitialise(start: &NamedTensors, mask: &MaskSet, seed: u64) -> Result<NamedTensors> {
    let mut random = generator(seed, Purpose::Initialisation, 0);
    let mut fresh = copies(start);
    for (name, layer) in mask.iter() {
        let tensor = fresh.get_mut(name).ok_or_else(|| Error::mismatch(name, "a tensor to draw anew", "none"))?;
        if tensor.size() != layer.shape() {
            return Err(Error::mismatch(name, format!("{:?}", layer.shape()), format!("{:?}", tensor.size())));
        }
        if layer.survivors() == 0 {
            return Err(Error::EmptiedLayer { layer: name.to_owned(), weights: layer.weights() });
        }
        let inputs = layer.shape().get(1).copied().unwrap_or(1);
        let std = (2.0 * inputs as f64 / layer.survivors() as f64).sqrt() as f32;
        let draws: Vec<f32> = (0..layer.weights())
            .map(|_| {
                let normal: f32 = StandardNormal.sample(&mut random);
                std * normal
            })
            .collect();
        *tensor = Tensor::from_slice(&draws).view(layer.shape()).to_kind(tensor.kind()).to_device(tensor.device());
    }
    Ok(fresh)
}
