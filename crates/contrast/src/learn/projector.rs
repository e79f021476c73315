//! The head that a contrastive loss looks through, and that is thrown away afterwards.

use super::error::{Error, Result};
use core_tensor::nn::{BatchNormConfig, LayerFactory, LinearConfig, Module, Network};
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

/// A stack of linear layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectorConfig {
    /// Outputs of each linear layer, such as `[512, 512, 512]` (ACL on ResNet-18) or `[2048, 128]` (SimCLR and MoCo v2 on
    /// ResNet-50).
    pub widths: Vec<i64>,
    /// Batch norm after every layer; then only the first layer has a bias. ACL and later SimCLR: yes; SimCLR v1 and
    /// MoCo v2: no.
    pub batch_norm: bool,
}

impl ProjectorConfig {
    /// ACL's head: `features → features → features → features` with batch norm, no ReLU at the end.
    pub fn acl(features: i64) -> Self {
        Self { widths: vec![features; 3], batch_norm: true }
    }

    /// SimCLR's first and MoCo v2's head: `features → features → outputs`, with biases, no batch norm.
    pub fn plain(features: i64, outputs: i64) -> Self {
        Self { widths: vec![features, outputs], batch_norm: false }
    }

    /// # Errors
    /// No layer, or one without outputs.
    pub fn validate(&self) -> Result<()> {
        if self.widths.is_empty() || self.widths.iter().any(|width| *width < 1) {
            let found = format!("{:?}", self.widths);
            return Err(Error::setting("projector.widths", "at least one layer, each of at least 1 output", found));
        }
        Ok(())
    }
}

/// See [`ProjectorConfig`]: linear, batch norm, ReLU, repeated, without the last ReLU. Names `fc{i}` and `bn{i}`
/// from 1, under the path it was built at.
#[derive(Debug)]
pub struct Projector {
    layers: Vec<(Module, Option<Module>)>,
}

impl Projector {
    /// Builds the head under `path` for vectors of `features`. With the factory of dual batch norm its norms are dual
    /// too.
    ///
    /// # Errors
    /// A configuration outside its range.
    pub fn new(path: &nn::Path, factory: &dyn LayerFactory, features: i64, config: &ProjectorConfig) -> Result<Self> {
        config.validate()?;
        let mut inputs = features;
        let layers = config.widths.iter().enumerate().map(|(index, &outputs)| {
            let bias = !config.batch_norm || index == 0;
            let linear = LinearConfig { bias, ..LinearConfig::new(inputs, outputs) };
            inputs = outputs;
            let linear = factory.linear(&(path / format!("fc{}", index + 1)), linear);
            let norm = config
                .batch_norm
                .then(|| factory.batch_norm2d(&(path / format!("bn{}", index + 1)), BatchNormConfig::new(outputs)));
            (linear, norm)
        });
        Ok(Self { layers: layers.collect() })
    }

    /// `[rows, features] → [rows, outputs]`.
    pub fn forward(&self, features: &Tensor, train: bool) -> Tensor {
        let last = self.layers.len() - 1;
        let mut vectors = features.shallow_clone();
        for (index, (linear, norm)) in self.layers.iter().enumerate() {
            vectors = linear.forward_t(&vectors, train);
            if let Some(norm) = norm {
                vectors = norm.forward_t(&vectors, train);
            }
            if index < last {
                vectors = vectors.relu();
            }
        }
        vectors
    }
}

/// Images and training mode → embeddings `[images, outputs]`: what a contrastive objective trains.
///
/// Any closure will do, so any encoder will; [`projected`] makes one from a [`Network`] and a [`Projector`].
pub type Embed<'a> = Box<dyn Fn(&Tensor, bool) -> Tensor + 'a>;

/// The pooled features of a network, seen through a head.
pub fn projected<'a>(network: &'a dyn Network, projector: &'a Projector) -> Embed<'a> {
    Box::new(move |images, train| projector.forward(&network.features(images, train), train))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::nn::Standard;
    use tch::{Device, Kind, no_grad};

    #[test]
    fn of_layers_with_a_norm_only_the_first_has_a_bias() {
        let names = |config: &ProjectorConfig| {
            let store = nn::VarStore::new(Device::Cpu);
            let _head = Projector::new(&store.root(), &Standard, 3, config).unwrap();
            let mut names: Vec<String> = store.variables().into_keys().collect();
            names.retain(|name| name.starts_with("fc"));
            names.sort();
            names
        };
        assert_eq!(names(&ProjectorConfig::acl(3)), ["fc1.bias", "fc1.weight", "fc2.weight", "fc3.weight"]);
        assert_eq!(names(&ProjectorConfig::plain(3, 2)), ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight"]);
    }

    #[test]
    fn every_layer_but_the_last_is_rectified() {
        let store = nn::VarStore::new(Device::Cpu);
        let head = Projector::new(&store.root(), &Standard, 2, &ProjectorConfig::plain(2, 2)).unwrap();
        // The identity, then its negative, without biases: (1, −1) → (1, 0) → (−1, 0).
        let eye = Tensor::eye(2, (Kind::Float, Device::Cpu));
        for (name, mut variable) in store.variables() {
            let value = match name.as_str() {
                "fc1.weight" => eye.shallow_clone(),
                "fc2.weight" => eye.neg(),
                _ => variable.zeros_like(),
            };
            no_grad(|| variable.copy_(&value));
        }
        let found = head.forward(&Tensor::from_slice(&[1.0_f32, -1.0]).view([1, 2]), false);
        assert_eq!([0, 1].map(|place| found.double_value(&[0, place])), [-1.0, 0.0]);
    }
}
