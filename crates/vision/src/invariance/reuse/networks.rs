//! The workspace's networks as lists of steps.

use super::{ConvProgram, Step};
use crate::invariance::{Error, Result};
use core_tensor::networks::{Architecture, BlockKind, ConvNetConfig, ResNetConfig, Shortcut, Stem};
use indexmap::IndexMap;
use tch::{Device, Tensor, no_grad};

/// A linear classifier on pooled features.
#[derive(Debug)]
pub struct Head {
    /// `[classes, features]`.
    pub weight: Tensor,
    /// `[classes]`.
    pub bias: Option<Tensor>,
}

impl Head {
    /// The same head on the same tensors.
    pub(super) fn shared(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), bias: self.bias.as_ref().map(Tensor::shallow_clone) }
    }

    /// `[images, classes]` of features `[images, features]`.
    pub(super) fn logits(&self, features: &Tensor) -> Result<Tensor> {
        Ok(features.f_linear(&self.weight, self.bias.as_ref())?)
    }

    /// `features`: channels of the last map, where they are known.
    pub(super) fn check(&self, features: Option<i64>) -> Result<()> {
        let size = self.weight.size();
        let &[classes, inputs] = size.as_slice() else {
            return Err(Error::shape("head", "[classes, features]", format!("{size:?}")));
        };
        if let Some(features) = features.filter(|features| *features != inputs) {
            return Err(Error::shape("head", format!("[{classes}, {features}]"), format!("{size:?}")));
        }
        match self.bias.as_ref().map(Tensor::size) {
            Some(found) if found != [classes] => {
                Err(Error::shape("bias of the head", format!("[{classes}]"), format!("{found:?}")))
            }
            _ => Ok(()),
        }
    }
}

impl ConvProgram {
    /// A ConvNet or a ResNet with projection shortcuts, with the weights of a state dictionary in torchvision's names
    /// ([`state_of`](core_tensor::checkpoint::state_of) a store, or
    /// [`read_state`](core_tensor::checkpoint::read_state) of a file). Batch norms are folded into the convolutions.
    ///
    /// Taps: those of the network outside blocks (`conv1`, `layer1`, …; `conv{i}` of a ConvNet).
    ///
    /// # Errors
    /// Another network, a tensor that is missing or has another shape.
    pub fn from_state(architecture: &Architecture, state: &IndexMap<String, Tensor>) -> Result<Self> {
        no_grad(|| match architecture {
            Architecture::ConvNet(config) => conv_net(config, state),
            Architecture::ResNet(config) if config.shortcut == Shortcut::Projection => resnet(config, state),
            other => Err(Error::NotConvolutional {
                network: format!("{other:?}"),
                reason: "only ConvNets and ResNets with projection shortcuts are taken apart; run it naively".into(),
            }),
        })
    }
}

fn get(state: &IndexMap<String, Tensor>, name: &str) -> Result<Tensor> {
    let missing = || core_tensor::Error::Names { missing: vec![name.into()], unexpected: Vec::new() };
    // The programme reads weights in the processor's memory.
    Ok(state.get(name).ok_or_else(missing)?.detach().f_to_device(Device::Cpu)?)
}

/// A convolution without bias and the batch norm after it, as one convolution.
fn folded(state: &IndexMap<String, Tensor>, conv: &str, norm: &str, shape: [i64; 4], stride: usize) -> Result<Step> {
    let weight = get(state, &format!("{conv}.weight"))?;
    if weight.size() != shape {
        let (expected, found) = (format!("{shape:?}"), format!("{:?}", weight.size()));
        return Err(core_tensor::Error::tensor(format!("{conv}.weight"), expected, found).into());
    }
    let part = |name: &str| {
        let tensor = get(state, &format!("{norm}.{name}"))?;
        if tensor.size() != [shape[0]] {
            let (expected, found) = (format!("[{}]", shape[0]), format!("{:?}", tensor.size()));
            return Err(Error::from(core_tensor::Error::tensor(format!("{norm}.{name}"), expected, found)));
        }
        Ok(tensor.to_kind(tch::Kind::Double))
    };
    // The workspace's batch norms and torchvision's add 1e-5.
    let scale = part("weight")? / (part("running_var")? + 1e-5).f_sqrt()?;
    let bias = part("bias")? - part("running_mean")? * &scale;
    let weight = weight.to_kind(tch::Kind::Double) * scale.f_view([-1, 1, 1, 1])?;
    Ok(Step::Conv {
        // As libtorch's convolutions on maps with channels last want it.
        weight: core_tensor::nn::channels_last(&weight.to_kind(tch::Kind::Float)),
        bias: Some(bias.to_kind(tch::Kind::Float)),
        stride,
        padding: shape[2] as usize / 2,
    })
}

fn head(state: &IndexMap<String, Tensor>) -> Result<Option<Head>> {
    // Features are of single precision, whatever the file is of.
    let single = |name: &str| -> Result<Tensor> { Ok(get(state, name)?.f_to_kind(tch::Kind::Float)?) };
    let bias = state.contains_key("fc.bias").then(|| single("fc.bias")).transpose()?;
    Ok(Some(Head { weight: single("fc.weight")?, bias }))
}

fn conv_net(config: &ConvNetConfig, state: &IndexMap<String, Tensor>) -> Result<ConvProgram> {
    let mut steps = Vec::new();
    let mut inputs = config.in_channels;
    for (index, &width) in config.widths.iter().enumerate() {
        let (conv, norm) = (format!("conv{}", index + 1), format!("bn{}", index + 1));
        steps.push(folded(state, &conv, &norm, [width, inputs, 3, 3], if index == 0 { 1 } else { 2 })?);
        steps.extend([Step::Relu, Step::Tap(conv)]);
        inputs = width;
    }
    ConvProgram::new(steps, head(state)?)
}

fn resnet(config: &ResNetConfig, state: &IndexMap<String, Tensor>) -> Result<ConvProgram> {
    let stem_width = config.widths.first().copied().unwrap_or(0);
    let (side, stride) = match config.stem {
        Stem::Cifar => (3, 1),
        Stem::Strided => (3, 2),
        Stem::Imagenet => (7, 2),
    };
    let mut steps =
        vec![folded(state, "conv1", "bn1", [stem_width, config.in_channels, side, side], stride)?, Step::Relu];
    if config.stem == Stem::Imagenet {
        steps.push(Step::MaxPool { kernel: 3, stride: 2, padding: 1 });
    }
    steps.push(Step::Tap("conv1".into()));
    let mut inputs = stem_width;
    for (stage, (&width, &blocks)) in config.widths.iter().zip(&config.blocks).enumerate() {
        for block in 0..blocks {
            let name = format!("layer{}.{block}", stage + 1);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let (shapes, outputs) = match config.block {
                BlockKind::Basic => (vec![([width, inputs, 3, 3], stride), ([width, width, 3, 3], 1)], width),
                BlockKind::Bottleneck => (
                    vec![([width, inputs, 1, 1], 1), ([width, width, 3, 3], stride), ([4 * width, width, 1, 1], 1)],
                    4 * width,
                ),
            };
            let mut branch = Vec::new();
            for (index, (shape, stride)) in shapes.into_iter().enumerate() {
                if index > 0 {
                    branch.push(Step::Relu);
                }
                let part = |kind: &str| format!("{name}.{kind}{}", index + 1);
                branch.push(folded(state, &part("conv"), &part("bn"), shape, stride)?);
            }
            let mut shortcut = Vec::new();
            if stride != 1 || inputs != outputs {
                let part = |number: u8| format!("{name}.downsample.{number}");
                shortcut.push(folded(state, &part(0), &part(1), [outputs, inputs, 1, 1], stride)?);
            }
            steps.extend([Step::Sum { branch, shortcut }, Step::Relu]);
            inputs = outputs;
        }
        steps.push(Step::Tap(format!("layer{}", stage + 1)));
    }
    ConvProgram::new(steps, head(state)?)
}
