//! What a study asks of a network.

use super::{Error, Result};
use core_tensor::nn::Network;
use serde::{Deserialize, Serialize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tch::{Device, Kind, Tensor, no_grad_guard};

/// Features of a batch of images: `[batch, length]` tensors by layer, the same layers in the same order for every batch.
///
/// A closure will do: `|images: &Tensor| Ok(vec![("fc".to_owned(), model.forward(images))])`.
pub trait FeatureExtractor {
    /// The features of `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// What keeps the network from running.
    fn features(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>>;
}

impl<F: Fn(&Tensor) -> Result<Vec<(String, Tensor)>>> FeatureExtractor for F {
    fn features(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        self(images)
    }
}

/// How a map `[batch, channels, height, width]` becomes a feature vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapFeature {
    /// Means over all places: what is in the picture, not where.
    #[default]
    GlobalAverage,
    /// All values: what is where.
    Flatten,
}

/// Named layers of a [`Network`], in evaluation mode, without gradients.
#[derive(Debug)]
pub struct NetworkProbe<'a> {
    network: &'a dyn Network,
    layers: Vec<String>,
    maps: MapFeature,
    device: Device,
}

/// The name of the classifier's output in a [`NetworkProbe`].
pub const LOGITS: &str = "logits";

impl<'a> NetworkProbe<'a> {
    /// Probes these layers; [`LOGITS`] is the classifier's output. `sample` is `[channels, height, width]` of an image,
    /// which is run once to see what layers there are.
    ///
    /// # Errors
    /// A layer that the network does not have (the error lists those that it has) or that is asked for twice, no layer
    /// at all, or a sample that does not fit the network.
    pub fn new(network: &'a dyn Network, layers: &[&str], sample: [i64; 3]) -> Result<Self> {
        Self::on(Device::Cpu, network, layers, sample)
    }

    /// As [`new`](Self::new), for a network on `device`: images are moved there, features come back to the CPU.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on(device: Device, network: &'a dyn Network, layers: &[&str], sample: [i64; 3]) -> Result<Self> {
        let known = Self::layers(network, sample, device)?;
        if layers.is_empty() {
            return Err(Error::setting("layers", format!("at least one of {known:?}"), "none"));
        }
        if let Some(name) = layers.iter().find(|name| !known.iter().any(|known| known == *name)) {
            return Err(Error::UnknownLayer { name: (*name).into(), known });
        }
        if let Some((_, twice)) = layers.iter().enumerate().find(|(at, name)| layers[..*at].contains(*name)) {
            return Err(Error::setting("layers", "each once", format!("`{twice}` twice")));
        }
        let layers = layers.iter().map(|name| (*name).into()).collect();
        Ok(Self { network, layers, maps: MapFeature::default(), device })
    }

    /// With another way from maps to vectors.
    #[must_use]
    pub fn with_maps(mut self, maps: MapFeature) -> Self {
        self.maps = maps;
        self
    }

    /// The names that [`on`](Self::on) accepts for a network on `device`.
    ///
    /// # Errors
    /// A sample that does not fit the network.
    pub fn layers(network: &dyn Network, sample: [i64; 3], device: Device) -> Result<Vec<String>> {
        let refused = || Error::shape("sample", "sizes that the network accepts", format!("{sample:?}"));
        if sample.iter().any(|side| *side < 1) {
            return Err(refused());
        }
        let mut names = Vec::new();
        let zeros = Tensor::f_zeros([1, sample[0], sample[1], sample[2]], (Kind::Float, device))?;
        let mut tap = |name: &str, _: &Tensor| names.push(name.to_owned());
        let _ = evaluated(network, &zeros, &mut tap).ok_or_else(refused)?;
        names.push(LOGITS.into());
        Ok(names)
    }
}

impl FeatureExtractor for NetworkProbe<'_> {
    fn features(&self, images: &Tensor) -> Result<Vec<(String, Tensor)>> {
        let mut found: Vec<Option<Result<Tensor>>> = self.layers.iter().map(|_| None).collect();
        let mut keep = |name: &str, tensor: &Tensor| {
            if let Some(place) = self.layers.iter().position(|layer| layer == name) {
                found[place] = Some(vectors(tensor, self.maps).and_then(|made| Ok(made.f_to_device(Device::Cpu)?)));
            }
        };
        let images = images.f_to_device(self.device)?;
        let refused = || Error::shape("images", "sizes that the network accepts", format!("{:?}", images.size()));
        let logits = evaluated(self.network, &images, &mut keep).ok_or_else(refused)?;
        keep(LOGITS, &logits);
        let named = self.layers.iter().zip(found).map(|(layer, tensor)| {
            let missing = || Error::UnknownLayer { name: layer.clone(), known: Vec::new() };
            Ok((layer.clone(), tensor.ok_or_else(missing)??))
        });
        named.collect()
    }
}

/// The network's logits in evaluation mode, without gradients; nothing where it cannot take the images.
fn evaluated(network: &dyn Network, images: &Tensor, tap: &mut dyn FnMut(&str, &Tensor)) -> Option<Tensor> {
    // tch turns libtorch's exceptions into panics; here they mean that the images do not fit.
    let run = AssertUnwindSafe(|| {
        // Dropped by a panic too: `no_grad` would leave gradients off.
        let _off = no_grad_guard();
        network.forward_tapped(images, false, tap)
    });
    catch_unwind(run).ok()
}

fn vectors(tensor: &Tensor, maps: MapFeature) -> Result<Tensor> {
    Ok(match (tensor.dim(), maps) {
        (4, MapFeature::GlobalAverage) => tensor.f_mean_dim([2_i64, 3].as_slice(), false, Kind::Float)?,
        (2, _) => tensor.f_detach()?.copy(),
        // Batch first, whatever the layout in memory.
        (dims, _) if dims > 2 => tensor.f_detach()?.f_contiguous()?.f_flatten(1, -1)?,
        _ => return Err(Error::shape("layer", "a batch of vectors or maps", format!("{:?}", tensor.size()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::networks::{Architecture, ConvNetConfig};
    use core_tensor::nn::Standard;
    use tch::nn;

    fn network() -> (nn::VarStore, Box<dyn Network>) {
        let store = nn::VarStore::new(Device::Cpu);
        let config = ConvNetConfig { in_channels: 1, widths: vec![3, 4], classes: 2 };
        let network = Architecture::ConvNet(config).build(&store.root(), &Standard).unwrap();
        (store, network)
    }

    #[test]
    fn layers_come_in_the_order_asked_for() {
        let (_store, network) = network();
        let images = Tensor::rand([5, 1, 8, 8], (Kind::Float, Device::Cpu));
        let probe = NetworkProbe::new(network.as_ref(), &[LOGITS, "conv1", "conv2"], [1, 8, 8]).unwrap();
        let sizes = |probe: &NetworkProbe| {
            let found = probe.features(&images).unwrap();
            found.into_iter().map(|(name, tensor)| (name, tensor.size())).collect::<Vec<_>>()
        };
        let expected = |conv1, conv2| vec![(LOGITS, 2), ("conv1", conv1), ("conv2", conv2)];
        let named = |list: Vec<(&str, i64)>| -> Vec<(String, Vec<i64>)> {
            list.into_iter().map(|(name, length)| (name.to_owned(), vec![5, length])).collect()
        };
        assert_eq!(sizes(&probe), named(expected(3, 4)));
        assert_eq!(sizes(&probe.with_maps(MapFeature::Flatten)), named(expected(3 * 64, 4 * 16)));
    }

    #[test]
    fn an_unknown_layer_lists_the_known_ones() {
        let (_store, network) = network();
        let error = NetworkProbe::new(network.as_ref(), &["conv9"], [1, 8, 8]).unwrap_err();
        assert_eq!(error.to_string(), r#"no layer `conv9`; the layers are ["conv1", "conv2", "avgpool", "logits"]"#);
        assert!(NetworkProbe::new(network.as_ref(), &[], [1, 8, 8]).is_err());
        let twice = NetworkProbe::new(network.as_ref(), &["conv1", LOGITS, "conv1"], [1, 8, 8]).unwrap_err();
        assert_eq!(twice.to_string(), "layers is `conv1` twice, expected each once");
        assert!(NetworkProbe::new(network.as_ref(), &["conv1"], [3, 8, 8]).unwrap_err().to_string().contains("sample"));
        assert!(NetworkProbe::new(network.as_ref(), &["conv1"], [1, 0, 8]).is_err());
    }

    #[test]
    fn what_a_network_cannot_take_is_refused_and_leaves_gradients_on() {
        let (_store, network) = network();
        let probe = NetworkProbe::new(network.as_ref(), &["conv1"], [1, 8, 8]).unwrap();
        let colour = Tensor::zeros([2, 3, 8, 8], (Kind::Float, Device::Cpu));
        let error = probe.features(&colour).unwrap_err().to_string();
        assert_eq!(error, "images: expected sizes that the network accepts, found [2, 3, 8, 8]");
        assert!(NetworkProbe::new(network.as_ref(), &["conv1"], [3, 8, 8]).is_err());
        let weight = Tensor::ones([1], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        assert!((&weight * 2.0).requires_grad());
    }
}
