//! Networks without batch norms, for evaluation: what a batch norm does with running statistics is linear, so the convolution
//! before it can do it too.

use super::Architecture;
use crate::checkpoint::{LoadPolicy, load_state};
use crate::nn::{BatchNormConfig, Conv2dConfig, LayerFactory, LinearConfig, Module, Network, Standard};
use crate::optim::NamedTensors;
use crate::{Error, Result};
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor, no_grad};

/// What the workspace's batch norms and torchvision's add to the variance.
const EPS: f64 = 1e-5;

/// Standard layers, but every convolution has a bias and batch norms do nothing.
#[derive(Debug, Clone, Copy)]
struct Folded;

impl LayerFactory for Folded {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        Standard.conv2d(path, Conv2dConfig { bias: true, ..config })
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        Standard.linear(path, config)
    }

    fn batch_norm2d(&self, _path: &Path, _config: BatchNormConfig) -> Module {
        Box::new(tch::nn::func(Tensor::shallow_clone))
    }
}

impl Architecture {
    /// The network in evaluation mode with its batch norms folded into the convolutions before them: the same function to
    /// rounding, in fewer passes over memory. For what goes through a trained network many times, such as attacks.
    ///
    /// `state` has the weights of the network as [`build`](Self::build) makes it, such as
    /// [`state_of`](crate::checkpoint::state_of) its variables. The weights are constants: gradients flow to the images
    /// alone. There are no statistics left to train, so `train` makes no difference to the convolutions. Building draws from
    /// libtorch's generator, although nothing of it stays.
    ///
    /// ```
    /// use core_tensor::checkpoint::state_of;
    /// use core_tensor::networks::{Architecture, ConvNetConfig};
    /// use core_tensor::nn::Standard;
    /// use tch::{Device, Kind, Tensor, nn};
    ///
    /// let architecture = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![4, 8], classes: 3 });
    /// let store = nn::VarStore::new(Device::Cpu);
    /// let network = architecture.build(&store.root(), &Standard)?;
    /// let folded = architecture.folded(&state_of(&store))?;
    /// let images = Tensor::rand([2, 1, 8, 8], (Kind::Float, Device::Cpu));
    /// let gap = (network.forward(&images, false) - folded.forward(&images, false)).abs().max();
    /// assert!(gap.double_value(&[]) < 1e-5);
    /// # Ok::<(), core_tensor::Error>(())
    /// ```
    ///
    /// # Errors
    /// A state that does not fit, a configuration outside its range.
    pub fn folded(&self, state: &NamedTensors) -> Result<Box<dyn Network>> {
        let device = state.values().next().map_or(Device::Cpu, Tensor::device);
        let mut store = VarStore::new(device);
        let network = self.build(&store.root(), &Folded)?;
        load_state(&store, &no_grad(|| fold(state))?, &LoadPolicy::strict())?;
        store.freeze();
        Ok(network)
    }
}

/// The state of the network without norms. The convolution before `bn1` is `conv1`, that before `downsample.1`
/// `downsample.0`.
fn fold(state: &NamedTensors) -> Result<NamedTensors> {
    let mut folded: NamedTensors = state.iter().map(|(name, tensor)| (name.clone(), tensor.detach())).collect();
    let norms = state.keys().filter_map(|name| name.strip_suffix(".running_mean"));
    for norm in norms {
        let mut take = |part: &str| {
            let name = format!("{norm}.{part}");
            let missing = || Error::Names { missing: vec![name.clone()], unexpected: Vec::new() };
            folded.shift_remove(&name).map(|tensor| tensor.to_kind(Kind::Double)).ok_or_else(missing)
        };
        let (scale, shift) = (take("weight")?, take("bias")?);
        let (mean, variance) = (take("running_mean")?, take("running_var")?);
        folded.shift_remove(&format!("{norm}.num_batches_tracked"));
        let parts = [&scale, &shift, &mean, &variance].map(Tensor::size);
        if parts[0].len() != 1 || parts.iter().any(|size| *size != parts[0]) {
            return Err(Error::tensor(norm, "four vectors of one length", format!("{parts:?}")));
        }
        let scale = scale / (variance + EPS).f_sqrt()?;
        let before = convolution_before(norm);
        let (weight_name, bias_name) = (format!("{before}.weight"), format!("{before}.bias"));
        let weight = folded.get(&weight_name).filter(|weight| weight.dim() == 4 && weight.size()[0] == scale.size()[0]);
        let Some(weight) = weight else {
            return Err(Error::Names { missing: vec![weight_name], unexpected: Vec::new() });
        };
        let kind = weight.kind();
        let weight = (weight.to_kind(Kind::Double) * scale.reshape([-1, 1, 1, 1])).to_kind(kind);
        let centred = match folded.get(&bias_name) {
            Some(bias) if bias.size() == mean.size() => bias.to_kind(Kind::Double) - mean,
            Some(bias) => {
                let (expected, found) = (format!("{:?}", mean.size()), format!("{:?}", bias.size()));
                return Err(Error::tensor(bias_name, expected, found));
            }
            None => -mean,
        };
        folded.insert(bias_name, (shift + centred * scale).to_kind(kind));
        folded.insert(weight_name, weight);
    }
    // A convolution without a norm has no bias in the state.
    let bare: Vec<(String, Tensor)> = folded
        .iter()
        .filter(|(_, tensor)| tensor.dim() == 4)
        .filter_map(|(name, tensor)| Some((format!("{}.bias", name.strip_suffix(".weight")?), tensor)))
        .filter(|(bias, _)| !folded.contains_key(bias))
        .map(|(bias, tensor)| (bias, Tensor::zeros([tensor.size()[0]], (tensor.kind(), tensor.device()))))
        .collect();
    folded.extend(bare);
    Ok(folded)
}

/// The name of the convolution whose output a batch norm takes: `conv2` of `bn2`, `3` of `4`.
fn convolution_before(norm: &str) -> String {
    let (path, last) = norm.rsplit_once('.').map_or(("", norm), |(path, last)| (path, last));
    let conv = match last.parse::<usize>() {
        Ok(number) => number.saturating_sub(1).to_string(),
        Err(_) => last.replacen("bn", "conv", 1),
    };
    if path.is_empty() { conv } else { format!("{path}.{conv}") }
}

#[cfg(test)]
mod tests {
    use super::super::{BlockKind, ConvNetConfig, MobileNetV2Config, ResNetConfig, Shortcut, Stem, Vgg16Head};
    use super::*;
    use crate::checkpoint::state_of;
    use crate::seed::{Purpose, generator};
    use rand::Rng;
    use std::collections::BTreeMap;

    /// Numbers of a test's own: libtorch's generator is shared with the tests beside it.
    fn draw(rng: &mut impl Rng, shape: &[i64], range: std::ops::Range<f32>) -> Tensor {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_: i64| rng.random_range(range.clone())).collect();
        Tensor::from_slice(&values).reshape(shape)
    }

    /// A network whose weights keep the size of what passes through (He et al. 2015), and whose norms have scales, shifts and
    /// statistics of their own.
    fn trained(architecture: &Architecture) -> (VarStore, Box<dyn Network>) {
        let store = VarStore::new(Device::Cpu);
        let network = architecture.build(&store.root(), &Standard).unwrap();
        let mut rng = generator(1, Purpose::Initialisation, 0);
        let variables: BTreeMap<_, _> = store.variables().into_iter().collect();
        no_grad(|| {
            for (name, mut tensor) in variables {
                let shape = tensor.size();
                let range = match shape.len() {
                    1 if name.ends_with("running_var") || name.ends_with("weight") => 0.5..1.5,
                    1 => -0.5..0.5,
                    _ => {
                        let bound = (6.0 / (tensor.numel() as f32 / shape[0] as f32)).sqrt();
                        -bound..bound
                    }
                };
                tensor.copy_(&draw(&mut rng, &shape, range));
            }
        });
        (store, network)
    }

    fn resnet(stem: Stem, block: BlockKind, shortcut: Shortcut) -> Architecture {
        Architecture::ResNet(ResNetConfig {
            in_channels: 1,
            stem,
            block,
            widths: vec![4, 6],
            blocks: vec![1, 2],
            shortcut,
            classes: 3,
        })
    }

    #[test]
    fn folded_networks_give_the_same_logits_and_gradients() {
        let convnet = Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![4, 6], classes: 3 });
        for (architecture, sample) in [
            (convnet, [2_i64, 1, 8, 8]),
            (resnet(Stem::Cifar, BlockKind::Basic, Shortcut::Projection), [2, 1, 8, 8]),
            (resnet(Stem::Strided, BlockKind::Basic, Shortcut::Projection), [2, 1, 8, 8]),
            (resnet(Stem::Cifar, BlockKind::Bottleneck, Shortcut::Projection), [2, 1, 8, 8]),
            (resnet(Stem::Cifar, BlockKind::Basic, Shortcut::ZeroPadding), [2, 1, 8, 8]),
            (Architecture::LeNet5 { classes: 3 }, [2, 1, 28, 28]),
            (Architecture::MobileNetV2(MobileNetV2Config { early_strides: [1, 1, 1], classes: 3 }), [2, 3, 16, 16]),
        ] {
            let (store, network) = trained(&architecture);
            let folded = architecture.folded(&state_of(&store)).unwrap();
            let images = draw(&mut generator(1, Purpose::Data, 0), &sample, 0.0..1.0);
            let run = |network: &dyn Network| {
                let images = images.copy().set_requires_grad(true);
                let logits = network.forward(&images, false);
                let gradient = Tensor::run_backward(&[logits.select(1, 0).sum(Kind::Float)], &[&images], false, false);
                [logits.detach(), gradient[0].shallow_clone()]
            };
            // A gradient jumps where rounding carries a unit over the kink of its activation. Of MobileNetV2's many units some
            // lie that close; its logits are continuous.
            let compared = if matches!(architecture, Architecture::MobileNetV2(_)) { 1 } else { 2 };
            for (expected, found) in run(network.as_ref()).iter().zip(run(folded.as_ref())).take(compared) {
                // Single precision over at most 53 layers.
                let gap = (expected - found).abs().max().double_value(&[]);
                let size = expected.abs().max().double_value(&[]);
                assert!(gap <= 1e-4 * size, "{architecture:?}: {gap:e} of {size:e}");
            }
        }
    }

    #[test]
    fn names_of_every_network_are_paired() {
        for (norm, conv) in
            [("bn1", "conv1"), ("layer1.0.downsample.1", "layer1.0.downsample.0"), ("features.4", "features.3")]
        {
            assert_eq!(convolution_before(norm), conv);
        }
        // VGG-16 is large: that every norm finds its convolution is enough.
        let store = VarStore::new(Device::Cpu);
        let vgg = Architecture::Vgg16 { head: Vgg16Head::Cifar, classes: 2 };
        let _network = vgg.build(&store.root(), &Standard).unwrap();
        let folded = fold(&state_of(&store)).unwrap();
        assert!(folded.keys().all(|name| !name.contains("running")));
        assert_eq!(folded.len(), 13 * 2 + 2);
    }

    #[test]
    fn a_state_that_does_not_fit_is_refused() {
        let architecture = resnet(Stem::Cifar, BlockKind::Basic, Shortcut::Projection);
        let (store, _network) = trained(&architecture);
        for gone in ["bn1.weight", "conv1.weight", "fc.weight"] {
            let mut state = state_of(&store);
            state.shift_remove(gone);
            let refused = architecture.folded(&state);
            assert!(matches!(refused, Err(Error::Names { .. })), "{gone}");
        }
        for shape in [&[][..], &[3], &[4, 1]] {
            let mut state = state_of(&store);
            state.insert("bn1.running_mean".into(), Tensor::zeros(shape, (Kind::Float, Device::Cpu)));
            let refused = architecture.folded(&state).err().map(|error| error.to_string());
            assert!(refused.is_some_and(|words| words.contains("bn1")), "{shape:?}");
        }
    }

    #[test]
    fn a_bias_of_another_length_is_refused_and_not_spread() {
        for length in [1, 3] {
            let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
            let norm =
                ["weight", "bias", "running_mean", "running_var"].map(|part| (format!("bn1.{part}"), ones(&[4])));
            let mut state = NamedTensors::from_iter(norm);
            state.insert("conv1.weight".into(), ones(&[4, 1, 3, 3]));
            state.insert("conv1.bias".into(), ones(&[length]));
            let refused = fold(&state).unwrap_err().to_string();
            assert_eq!(refused, format!("`conv1.bias`: expected [4], found [{length}]"));
        }
    }
}
