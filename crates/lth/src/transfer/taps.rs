//! Feature maps of a backbone, for heads that need more than its pooled vector.

use core_tensor::nn::Network;
use tch::{Device, Kind, Tensor, no_grad};

use crate::{Error, Result};

/// A named feature map and its size for a given image.
#[derive(Debug, Clone)]
pub(super) struct FeatureMap {
    pub(super) name: String,
    pub(super) channels: i64,
    /// `[height, width]`.
    pub(super) size: [i64; 2],
}

impl FeatureMap {
    /// Runs the backbone once on an empty image of `[channels, height, width]`.
    ///
    /// # Errors
    /// No feature map of that name; there is a list of those that are maps.
    pub(super) fn probe(backbone: &dyn Network, name: &str, image: [i64; 3], device: Device) -> Result<Self> {
        let input = Tensor::zeros([1, image[0], image[1], image[2]], (Kind::Float, device));
        let (mut found, mut known) = (None, Vec::new());
        let mut look = |tapped: &str, map: &Tensor| {
            if let &[_, channels, height, width] = map.size().as_slice() {
                known.push(tapped.to_owned());
                if tapped == name {
                    found = Some(Self { name: name.to_owned(), channels, size: [height, width] });
                }
            }
        };
        let _ = no_grad(|| backbone.forward_tapped(&input, false, &mut look));
        found.ok_or_else(|| Error::UnknownName { pattern: name.to_owned(), known })
    }

    /// The map of a batch.
    ///
    /// # Errors
    /// Never for the backbone that was probed.
    pub(super) fn of(&self, backbone: &dyn Network, input: &Tensor, train: bool) -> Result<Tensor> {
        let mut found = None;
        let mut take = |tapped: &str, map: &Tensor| {
            if tapped == self.name {
                found = Some(map.shallow_clone());
            }
        };
        let _ = backbone.forward_tapped(input, train, &mut take);
        found.ok_or_else(|| Error::UnknownName { pattern: self.name.clone(), known: Vec::new() })
    }
}
