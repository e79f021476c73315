//! Published weights of backbones, by the layout of their file.

use std::path::Path;

use core_tensor::checkpoint::{LoadPolicy, LoadReport, Tolerance, load_state, read_state};
use core_tensor::optim::NamedTensors;
use serde::{Deserialize, Serialize};
use tch::nn;

use crate::{Error, Result};

/// How a file names the tensors of a backbone.
///
/// | layout | names | head |
/// |---|---|---|
/// | torchvision | `conv1.weight`, `layer1.0.conv1.weight`, … | `fc.*` |
/// | MoCo v1, v2 | `module.encoder_q.` before each; `encoder_k.*` and the queue are left out | `fc.*` (v1), `fc.0.*`, `fc.2.*` (v2) |
/// | SimCLR | torchvision's, or under `backbone.`, `encoder.`, `convnet.` | `fc.*`, `projector.*`, `projection_head.*` |
///
/// `module.` and `model.` before any of them are taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pretrained {
    /// As torchvision and timm save their ResNets.
    Torchvision,
    /// As the reference code of MoCo saves a training.
    Moco,
    /// As converted SimCLR weights, and the usual PyTorch re-implementations, are saved.
    SimClr,
}

/// Where re-implementations of SimCLR put the backbone.
const BACKBONES: [&str; 3] = ["backbone.", "encoder.", "convnet."];
/// Where they put the projection head.
const PROJECTORS: [&str; 4] = ["projector.", "projection_head.", "projection.", "contrastive_head."];
/// The encoder of MoCo's queries, whose weights are the result.
const QUERY: &str = "encoder_q.";

impl Pretrained {
    /// The layout that these names have.
    ///
    /// # Errors
    /// Names of none of them.
    pub fn detect<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<Self> {
        // In this order and once each, as a `LoadPolicy` does.
        let plain = |name: &'a String| {
            ["module.", "model."]
                .into_iter()
                .fold(name.as_str(), |name, prefix| name.strip_prefix(prefix).unwrap_or(name))
        };
        let names: Vec<&str> = names.into_iter().map(plain).collect();
        let any = |prefixes: &[&str]| names.iter().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        if any(&[QUERY]) {
            Ok(Self::Moco)
        } else if any(&PROJECTORS) || any(&BACKBONES) {
            Ok(Self::SimClr)
        } else if any(&["conv1.", "layer1."]) {
            Ok(Self::Torchvision)
        } else {
            let known = names.iter().take(4).map(|name| (*name).to_owned()).collect();
            Err(Error::UnknownName { pattern: "conv1.*, layer1.* or encoder_q.*".to_owned(), known })
        }
    }

    /// What is taken from a file, what keeps the model's own values: everything under a prefix of `own`, such as `fc.` for
    /// a new head and `conv1.` for a stem of another size.
    pub fn policy<S: Into<String>>(self, own: impl IntoIterator<Item = S>) -> LoadPolicy {
        let policy = LoadPolicy::without(own);
        match self {
            Self::Torchvision => policy,
            Self::Moco => LoadPolicy { select: Some(QUERY.to_owned()), ..policy },
            Self::SimClr => LoadPolicy {
                strip: policy.strip.iter().cloned().chain(BACKBONES.map(str::to_owned)).collect(),
                unexpected: Tolerance::Under(PROJECTORS.map(str::to_owned).to_vec()),
                ..policy
            },
        }
    }

    /// Reads a checkpoint (safetensors or PyTorch's zip, of which nothing is executed) into a model's backbone and reports
    /// every name: what was loaded, left alone, ignored.
    ///
    /// # Errors
    /// A file that cannot be read or asks for something to be executed; tensors of the backbone that are missing, surplus or
    /// of another shape, listed by name. The model is as it was then.
    pub fn load<S: Into<String>>(
        self,
        path: &Path,
        store: &nn::VarStore,
        own: impl IntoIterator<Item = S>,
    ) -> Result<LoadReport> {
        self.load_state(&read_state(path)?, store, own)
    }

    /// The same from named tensors.
    ///
    /// # Errors
    /// As [`load`](Self::load), but for the reading.
    pub fn load_state<S: Into<String>>(
        self,
        state: &NamedTensors,
        store: &nn::VarStore,
        own: impl IntoIterator<Item = S>,
    ) -> Result<LoadReport> {
        Ok(load_state(store, state, &self.policy(own))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::checkpoint::state_of;
    use core_tensor::networks::{Architecture, ConvNetConfig, ResNetConfig};
    use core_tensor::nn::Standard;
    use tch::{Device, Kind, Tensor};

    /// A ResNet of torchvision's names, small.
    fn small(stem: bool) -> (nn::VarStore, Box<dyn core_tensor::nn::Network>) {
        let store = nn::VarStore::new(Device::Cpu);
        let config = ResNetConfig {
            widths: vec![4, 4, 8, 8],
            blocks: vec![1; 4],
            classes: 3,
            ..ResNetConfig::imagenet(50, 3).unwrap()
        };
        let config = if stem { config } else { config.with_cifar_stem() };
        let network = Architecture::ResNet(config).build(&store.root(), &Standard).unwrap();
        (store, network)
    }

    /// What the store holds, as a file of this layout would name it. Values tell where they come from.
    fn published(layout: Pretrained, value: f64) -> NamedTensors {
        let (store, _network) = small(true);
        let body = state_of(&store).into_iter().filter(|(name, _)| !name.starts_with("fc."));
        let body: Vec<_> = body.map(|(name, tensor)| (name, tensor.full_like(value))).collect();
        let rename = |prefix: &str| {
            body.iter()
                .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.shallow_clone()))
                .collect::<NamedTensors>()
        };
        let other = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
        let mut state = match layout {
            Pretrained::Torchvision => rename(""),
            Pretrained::Moco => rename("module.encoder_q."),
            Pretrained::SimClr => rename("backbone."),
        };
        let extra: &[(&str, &[i64])] = match layout {
            Pretrained::Torchvision => &[("fc.weight", &[1000, 32]), ("fc.bias", &[1000])],
            Pretrained::Moco => &[
                ("module.encoder_q.fc.0.weight", &[32, 32]),
                ("module.encoder_q.fc.2.weight", &[16, 32]),
                ("module.encoder_k.conv1.weight", &[4, 3, 7, 7]),
                ("module.queue", &[16, 64]),
                ("module.queue_ptr", &[1]),
            ],
            Pretrained::SimClr => &[("projector.0.weight", &[32, 32]), ("projector.2.weight", &[16, 32])],
        };
        state.extend(extra.iter().map(|(name, size)| ((*name).to_owned(), other(size))));
        state
    }

    const ALL: [Pretrained; 3] = [Pretrained::Torchvision, Pretrained::Moco, Pretrained::SimClr];

    #[test]
    fn every_layout_is_recognised_and_fills_the_backbone() {
        let prefixes = ["", "module.", "model.", "module.model."];
        for (layout, prefix) in ALL.into_iter().flat_map(|layout| prefixes.map(|prefix| (layout, prefix))) {
            let state = published(layout, 0.5).into_iter().map(|(name, tensor)| {
                let plain = name.strip_prefix("module.").unwrap_or(&name);
                (format!("{prefix}{plain}"), tensor)
            });
            let state: NamedTensors = state.collect();
            assert_eq!(Pretrained::detect(state.keys()).unwrap(), layout, "{prefix}");
            let (store, _network) = small(true);
            let before = crate::copies(&state_of(&store));
            let report = layout.load_state(&state, &store, ["fc."]).unwrap();
            assert!(report.missing.is_empty() && report.mismatched.is_empty(), "{layout:?} {prefix} {report:?}");
            for (name, tensor) in store.variables() {
                let same = tensor.equal(&before[&name]);
                assert_eq!(same, name.starts_with("fc."), "{layout:?} {prefix} {name}");
                assert_eq!(report.loaded.contains(&name), !same);
            }
        }
    }

    #[test]
    fn a_stem_of_another_size_and_the_head_stay_the_models_own() {
        for layout in ALL {
            let (store, _network) = small(false);
            let before = crate::copies(&state_of(&store));
            layout.load_state(&published(layout, 0.5), &store, ["fc.", "conv1."]).unwrap();
            let changed = store.variables().into_iter().filter(|(name, tensor)| !tensor.equal(&before[name]));
            let mut kept: Vec<_> = store.variables().into_keys().collect();
            let changed: Vec<_> = changed.map(|(name, _)| name).collect();
            kept.retain(|name| !changed.contains(name));
            kept.sort();
            assert_eq!(kept, ["conv1.weight", "fc.bias", "fc.weight"], "{layout:?}");
        }
    }

    #[test]
    fn missing_surplus_and_misshapen_tensors_are_listed() {
        let (store, _network) = small(true);
        let refused = |change: &dyn Fn(&mut NamedTensors)| {
            let mut state = published(Pretrained::Moco, 0.5);
            change(&mut state);
            let before = crate::copies(&state_of(&store));
            let error = Pretrained::Moco.load_state(&state, &store, ["fc."]).unwrap_err().to_string();
            assert!(
                store.variables().into_iter().all(|(name, tensor)| tensor.equal(&before[&name])),
                "something was copied"
            );
            error
        };
        let error = refused(&|state| drop(state.shift_remove("module.encoder_q.layer1.0.bn1.weight")));
        assert!(error.contains("layer1.0.bn1.weight"), "{error}");
        let surplus =
            |state: &mut NamedTensors| drop(state.insert("module.encoder_q.layer5.weight".into(), Tensor::from(1.0)));
        assert!(refused(&surplus).contains("layer5.weight"));
        let shape = |state: &mut NamedTensors| {
            drop(state.insert(
                "module.encoder_q.conv1.weight".into(),
                Tensor::zeros([4, 3, 3, 3], (Kind::Float, Device::Cpu)),
            ));
        };
        let error = refused(&shape);
        assert!(
            error.contains("conv1.weight") && error.contains("[4, 3, 7, 7]") && error.contains("[4, 3, 3, 3]"),
            "{error}"
        );
        // A file of another layout: nothing lies under `encoder_q.`.
        assert!(Pretrained::Moco.load_state(&published(Pretrained::Torchvision, 0.5), &store, ["fc."]).is_err());
        let names = ["features.0.weight".to_owned()];
        let error = Pretrained::detect(&names).unwrap_err().to_string();
        assert!(error.contains("features.0.weight"), "{error}");
    }

    #[test]
    fn a_network_of_another_kind_is_refused() {
        let store = nn::VarStore::new(Device::Cpu);
        let config = ConvNetConfig { in_channels: 3, widths: vec![4, 8], classes: 3 };
        let _network = Architecture::ConvNet(config).build(&store.root(), &Standard).unwrap();
        assert!(Pretrained::Torchvision.load_state(&published(Pretrained::Torchvision, 0.5), &store, ["fc."]).is_err());
    }

    #[test]
    fn a_file_that_is_no_checkpoint_is_refused() {
        let (store, _network) = small(true);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("moco.pth");
        // A bare pickle, which could only be loaded by running it.
        std::fs::write(&path, b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00echo\x85R.").unwrap();
        assert!(Pretrained::Moco.load(&path, &store, ["fc."]).is_err());
    }
}
