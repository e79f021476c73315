//! Running a network compressed: a layer factory whose layers compute from codes.

use std::cell::RefCell;
use std::collections::HashSet;

use core_tensor::networks::Architecture;
use core_tensor::nn::{BatchNormConfig, Conv2dConfig, LayerFactory, LinearConfig, Module, Network, Standard, record};
use core_tensor::workload::Operator;
use tch::nn::{Path, VarStore};
use tch::{Tensor, nn};

use super::model::{floats, tensor_of};
use super::{ConvGeometry, SdConv2dKernel, SdLayer, SdLinearKernel, SdzModel};
use crate::{Error, Result};

/// Gives every layer that a model holds compressed a kernel that runs from codes, and every other layer its standard
/// form. The weights of the former exist nowhere in memory at full size.
///
/// Build the network, then call [`finish`](Self::finish), which loads biases, norms and dense layers and reports
/// anything that did not fit. [`load_network`] does all of it for a named architecture.
///
/// Such layers run on the CPU, in single precision, forward only.
#[derive(Debug)]
pub struct CompressedFactory<'a> {
    model: &'a SdzModel,
    used: RefCell<HashSet<String>>,
    problems: RefCell<Vec<Error>>,
}

impl<'a> CompressedFactory<'a> {
    /// A factory of the layers of `model`.
    pub fn new(model: &'a SdzModel) -> Self {
        Self { model, used: RefCell::default(), problems: RefCell::default() }
    }

    /// Loads the dense tensors into the network's variables.
    ///
    /// # Errors
    /// The first layer whose shape the network did not expect; a compressed layer that it has no place for; a variable
    /// that the model does not hold, or the other way round.
    pub fn finish(self, store: &VarStore) -> Result<()> {
        if let Some(problem) = self.problems.into_inner().into_iter().next() {
            return Err(problem);
        }
        let used = self.used.into_inner();
        if let Some((name, _)) = self.model.layers().find(|(name, _)| !used.contains(*name)) {
            return Err(Error::Missing { name: name.into(), place: "the network".into() });
        }
        let variables = store.variables();
        let mut names: Vec<&String> = variables.keys().filter(|name| !self.model.records.contains_key(*name)).collect();
        names.sort();
        if let Some(name) = names.first() {
            return Err(Error::Missing { name: (*name).clone(), place: "the compressed model".into() });
        }
        self.model.write_dense_into(store)
    }

    /// The compressed layer for a path, if there is one; what its kernel refuses is kept for `finish`.
    fn kernel<K>(&self, path: &Path, dims: &[i64], make: impl FnOnce(&SdLayer) -> Result<K>) -> Option<K> {
        let name = format!("{}.weight", layer_name(path));
        let layer = self.model.layer(&name)?;
        self.used.borrow_mut().insert(name.clone());
        let expected = layer.shape().dims();
        let made = if expected.iter().map(|d| *d as i64).eq(dims.iter().copied()) {
            make(layer)
        } else {
            Err(Error::Shape {
                what: format!("`{name}`"),
                expected: format!("{dims:?}"),
                found: format!("{expected:?}"),
            })
        };
        made.map_err(|problem| self.problems.borrow_mut().push(problem)).ok()
    }
}

fn layer_name(path: &Path) -> String {
    path.components().collect::<Vec<_>>().join(".")
}

impl LayerFactory for CompressedFactory<'_> {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        let Conv2dConfig { in_channels, out_channels, kernel, stride, padding, groups, .. } = config;
        let geometry = ConvGeometry {
            stride: [stride as usize; 2],
            padding: [padding as usize; 2],
            groups: groups as usize,
            ..ConvGeometry::default()
        };
        let dims = [out_channels, in_channels / groups.max(1), kernel, kernel];
        match self.kernel(path, &dims, |layer| SdConv2dKernel::new(layer, geometry)) {
            Some(kernel) => Box::new(CompressedConv2d {
                name: layer_name(path),
                config,
                kernel,
                bias: config.bias.then(|| path.zeros_no_train("bias", &[out_channels])),
            }),
            None => Standard.conv2d(path, config),
        }
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        let LinearConfig { in_features, out_features, .. } = config;
        match self.kernel(path, &[out_features, in_features], SdLinearKernel::new) {
            Some(kernel) => Box::new(CompressedLinear {
                name: layer_name(path),
                config,
                kernel,
                bias: config.bias.then(|| path.zeros_no_train("bias", &[out_features])),
            }),
            None => Standard.linear(path, config),
        }
    }

    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
        Standard.batch_norm2d(path, config)
    }
}

#[derive(Debug)]
struct CompressedConv2d {
    name: String,
    config: Conv2dConfig,
    kernel: SdConv2dKernel,
    bias: Option<Tensor>,
}

impl nn::Module for CompressedConv2d {
    /// # Panics
    /// Like every tch layer, on an input that does not fit.
    fn forward(&self, input: &Tensor) -> Tensor {
        let size = input.size();
        let &[batch, _, height, width] = &size[..] else {
            panic!("`{}` takes [batch, channels, height, width], not {size:?}", self.name)
        };
        record(&self.name, || conv_operator(&self.config, [height as u64, width as u64]));
        let size = [height as usize, width as usize];
        let run = || -> Result<Tensor> {
            let bias = self.bias.as_ref().map(floats).transpose()?;
            let out = self.kernel.forward(&floats(input)?, batch as usize, size, bias.as_deref())?;
            let [out_height, out_width] = self.kernel.output_size(size).unwrap_or_default();
            let dims = [batch as usize, self.config.out_channels as usize, out_height, out_width];
            Ok(tensor_of(&out, &dims)?.f_to_device(input.device())?)
        };
        run().unwrap_or_else(|error| panic!("`{}`: {error}", self.name))
    }
}

/// What a convolution computes on an input of that height and width.
pub(super) fn conv_operator(config: &Conv2dConfig, input: [u64; 2]) -> Operator {
    let Conv2dConfig { in_channels, out_channels, kernel, stride, padding, groups, .. } = *config;
    Operator::Conv2d {
        in_channels: in_channels as u64,
        out_channels: out_channels as u64,
        kernel: [kernel as u64; 2],
        stride: [stride as u64; 2],
        padding: [padding as u64; 2],
        dilation: [1, 1],
        groups: groups as u64,
        input,
    }
}

/// What a linear layer computes on an input of that size, `[batch, …, in_features]`.
pub(super) fn linear_operator(config: &LinearConfig, size: &[i64]) -> Operator {
    let rows: i64 = size.iter().skip(1).rev().skip(1).product();
    Operator::Linear {
        in_features: config.in_features as u64,
        out_features: config.out_features as u64,
        rows: rows as u64,
    }
}

#[derive(Debug)]
struct CompressedLinear {
    name: String,
    config: LinearConfig,
    kernel: SdLinearKernel,
    bias: Option<Tensor>,
}

impl nn::Module for CompressedLinear {
    /// # Panics
    /// Like every tch layer, on an input that does not fit.
    fn forward(&self, input: &Tensor) -> Tensor {
        let mut dims: Vec<usize> = input.size().iter().map(|d| *d as usize).collect();
        record(&self.name, || linear_operator(&self.config, &input.size()));
        if let Some(last) = dims.last_mut() {
            assert_eq!(*last as i64, self.config.in_features, "`{}`: length of an input vector", self.name);
            *last = self.config.out_features as usize;
        }
        let run = || -> Result<Tensor> {
            let bias = self.bias.as_ref().map(floats).transpose()?;
            Ok(tensor_of(&self.kernel.forward(&floats(input)?, bias.as_deref())?, &dims)?
                .f_to_device(input.device())?)
        };
        run().unwrap_or_else(|error| panic!("`{}`: {error}", self.name))
    }
}

/// Builds an architecture under `store` so that it runs from the codes of `model`.
///
/// ```
/// use core_tensor::networks::Architecture;
/// use core_tensor::nn::Standard;
/// use quant::smartdeal::{compress, load_network, CompressPolicy};
/// use tch::{nn, Device, Kind, Tensor};
/// let architecture = Architecture::LeNet300100 { classes: 10 };
/// let dense = nn::VarStore::new(Device::Cpu);
/// architecture.build(&dense.root(), &Standard)?;
/// let (model, _) = compress(&dense, &CompressPolicy::with_theta(0.02))?;
///
/// let store = nn::VarStore::new(Device::Cpu);
/// let network = load_network(&model, &architecture, &store)?;
/// let logits = network.forward(&Tensor::zeros([5, 1, 28, 28], (Kind::Float, Device::Cpu)), false);
/// assert_eq!(logits.size(), [5, 10]);
/// # Ok::<(), quant::Error>(())
/// ```
///
/// # Errors
/// As [`CompressedFactory::finish`], and an architecture that refuses its own settings.
pub fn load_network(model: &SdzModel, architecture: &Architecture, store: &VarStore) -> Result<Box<dyn Network>> {
    let factory = CompressedFactory::new(model);
    let network = architecture.build(&store.root(), &factory)?;
    factory.finish(store)?;
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smartdeal::{CompressPolicy, Record, compress};
    use core_tensor::nn::trace_workload;
    use tch::{Device, Kind};

    fn difference(architecture: &Architecture, sample: &[i64]) -> f64 {
        tch::manual_seed(1);
        let dense = VarStore::new(Device::Cpu);
        let network = architecture.build(&dense.root(), &Standard).unwrap();
        let (model, _) = compress(&dense, &CompressPolicy::with_theta(0.02)).unwrap();
        model.write_into(&dense).unwrap();
        let store = VarStore::new(Device::Cpu);
        let compressed = load_network(&model, architecture, &store).unwrap();
        let input = Tensor::randn([&[3], sample].concat(), (Kind::Float, Device::Cpu));
        tch::no_grad(|| {
            let (expected, found) = (network.forward(&input, false), compressed.forward(&input, false));
            let far = (&expected - found).abs().max().double_value(&[]);
            let traced = trace_workload("c", compressed.as_ref(), sample, Device::Cpu).unwrap();
            assert_eq!(traced, trace_workload("c", network.as_ref(), sample, Device::Cpu).unwrap());
            far / expected.abs().max().double_value(&[])
        })
    }

    #[test]
    fn networks_run_from_codes_as_from_rebuilt_weights() {
        // Products differ in the order of their sums only.
        assert!(difference(&Architecture::LeNet300100 { classes: 10 }, &[1, 28, 28]) < 1e-4);
        assert!(difference(&Architecture::LeNet5 { classes: 10 }, &[1, 28, 28]) < 1e-4);
        assert!(difference(&Architecture::cifar_resnet(8, 10).unwrap(), &[3, 16, 16]) < 1e-4);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let architecture = Architecture::LeNet300100 { classes: 10 };
        let dense = VarStore::new(Device::Cpu);
        architecture.build(&dense.root(), &Standard).unwrap();
        let (mut model, _) = compress(&dense, &CompressPolicy::with_theta(0.02)).unwrap();
        let load = |model: &SdzModel, classes| {
            load_network(model, &Architecture::LeNet300100 { classes }, &VarStore::new(Device::Cpu)).map(drop)
        };
        assert!(matches!(load(&model, 7), Err(Error::Shape { .. })));
        let bias = model.records.keys().find(|name| name.ends_with("bias")).unwrap().clone();
        let removed = model.records.shift_remove(&bias).unwrap();
        assert!(matches!(load(&model, 10), Err(Error::Missing { name, .. }) if name == bias));
        model.records.insert(bias, removed);
        let layer = model.layers().next().unwrap().1.clone();
        model.records.insert("elsewhere.weight".into(), Record::Layer(layer));
        assert!(matches!(load(&model, 10), Err(Error::Missing { name, .. }) if name == "elsewhere.weight"));
    }
}
