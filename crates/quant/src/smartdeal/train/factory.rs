//! Layers that keep their weights in SmartDeal form while they learn.

use std::cell::RefCell;

use core_tensor::autograd::register_hook;
use core_tensor::nn::{
    BatchNormConfig, Conv2d, Conv2dConfig, LayerFactory, Linear, LinearConfig, Module, Standard, record,
};
use core_tensor::optim::{Parameter, parameters};
use core_tensor::seed::{Purpose, derive};
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{self, Path, VarStore};

use super::SdWeight;
use crate::fractrain::{self, Affine, Bits, Rounding};
use crate::smartdeal::factory::{conv_operator, linear_operator};
use crate::smartdeal::model::floats;
use crate::smartdeal::{CompressPolicy, DenseTensor, Ladder, LayerShape, MAX_EXPONENT, Record, SdLayer, SdzModel};
use crate::{Error, Result};

/// The variable that counts a layer's training passes where gradients are rounded.
const PASSES: &str = "gradient_passes";

/// How layers in SmartDeal form compute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SdTrainConfig {
    /// The rungs that coefficients may take. Published: up to 2^5, the lowest found between 2^-10 and 2^0 by the threshold,
    /// as [`for_model`](Self::for_model) does. Default: 2^-10 to 2^5.
    pub ladder: Ladder,
    /// Round each layer's input to so many bits, 2 to 16, over the range of its batch, in evaluation too; `None` leaves it.
    /// The published training code leaves it.
    pub activation_bits: Option<u8>,
    /// Round the gradient that reaches each layer's output to so many bits, stochastically, so that it stays unbiased; as
    /// above.
    pub gradient_bits: Option<u8>,
    /// Fixes the noise of rounded gradients.
    pub seed: u64,
}

impl Default for SdTrainConfig {
    fn default() -> Self {
        Self { ladder: Ladder::new(-10, 5), activation_bits: None, gradient_bits: None, seed: 0 }
    }
}

impl SdTrainConfig {
    /// The defaults for going on from a model that was compressed at the threshold `theta`: the lowest rung is the first that
    /// is no smaller, `2^⌈log2 θ⌉`, or the model's lowest where that is lower still.
    pub fn for_model(model: &SdzModel, theta: f64) -> Self {
        let default = Self::default();
        let Ladder { p_max, tie, .. } = default.ladder;
        let first = (theta.log2().ceil() as i32).clamp(-MAX_EXPONENT, p_max);
        let used = || model.layers().flat_map(|(_, layer)| layer.exponents()).map(i32::from);
        let ladder = Ladder { p_min: used().fold(first, i32::min), p_max: used().fold(p_max, i32::max), tie };
        Self { ladder, ..default }
    }

    /// Refuses what cannot run, naming the setting.
    ///
    /// # Errors
    /// [`Error::Config`] for an empty ladder or one beyond 2^±63, and for bits outside 2 to 16.
    pub fn validate(&self) -> Result<()> {
        self.ladder.validate()?;
        for (name, bits) in [("activation_bits", self.activation_bits), ("gradient_bits", self.gradient_bits)] {
            if let Some(bits) = bits.filter(|bits| !(2..=16).contains(bits)) {
                return Err(Error::Config { name, expected: "2 to 16, or none", found: bits.to_string() });
            }
        }
        Ok(())
    }
}

/// Where a network in SmartDeal form begins.
#[derive(Debug)]
enum Start<'a> {
    /// From the layers of a compressed model; those it lacks are dense.
    Model(&'a SdzModel),
    /// From each layer's usual random weights, decomposed.
    Random(CompressPolicy),
}

/// Makes layers whose parameters are `coefficient`, `basis` and a fixed `mask` instead of `weight`.
///
/// Build the network, then call [`finish`](Self::finish) for the handle on its weights; see the crate's README for a
/// whole training.
///
/// The variables must stay in single precision: coefficients are rounded by their bits.
#[derive(Debug)]
pub struct SdTrainingFactory<'a> {
    start: Start<'a>,
    config: SdTrainConfig,
    weights: RefCell<Vec<SdWeight>>,
    problems: RefCell<Vec<Error>>,
}

impl<'a> SdTrainingFactory<'a> {
    /// Layers that start as those of `model`.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn from_model(model: &'a SdzModel, config: SdTrainConfig) -> Result<Self> {
        Self::new(Start::Model(model), config)
    }

    /// Layers that start from their usual random weights, decomposed by `policy`; those it does not decompose are
    /// dense. Biases of layers in this form start at 0, those of linear layers too, which PyTorch's default draws.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn from_scratch(policy: CompressPolicy, config: SdTrainConfig) -> Result<Self> {
        policy.validate()?;
        Self::new(Start::Random(policy), config)
    }

    fn new(start: Start<'a>, config: SdTrainConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self { start, config, weights: RefCell::default(), problems: RefCell::default() })
    }

    /// The network's weights in SmartDeal form. Starting from a model, loads its dense tensors into the store too.
    ///
    /// # Errors
    /// The first layer that could not be made as asked; a compressed layer of the model that the network has no place
    /// for; a dense tensor of the model without a variable; a prefix of [`CompressPolicy::keep_dense`] that no name
    /// begins with.
    pub fn finish(self, store: &VarStore) -> Result<SdWeights> {
        if let Some(problem) = self.problems.into_inner().into_iter().next() {
            return Err(problem);
        }
        let weights = self.weights.into_inner();
        match &self.start {
            Start::Model(model) => {
                let used = |name: &str| weights.iter().any(|own| name.strip_suffix(".weight") == Some(own.name()));
                // It would learn from random weights otherwise.
                if let Some((name, _)) = model.layers().find(|entry| !used(entry.0)) {
                    return Err(Error::Missing { name: name.into(), place: "the network".into() });
                }
                model.write_dense_into(store)?;
            }
            // A layer that is kept dense has its `weight` in the store.
            Start::Random(policy) => policy.check_prefixes(store.variables().keys())?,
        }
        Ok(SdWeights { weights })
    }

    /// The weight for a path, or nothing where the layer stays dense. `random` draws its usual weight.
    fn weight(&self, path: &Path, dims: &[i64], random: impl FnOnce() -> Tensor) -> Option<SdWeight> {
        let made = self
            .layer(path, dims, random)
            .and_then(|layer| layer.map(|layer| SdWeight::new(path, &layer, self.config.ladder)).transpose());
        let weight = made.unwrap_or_else(|problem| {
            self.problems.borrow_mut().push(problem);
            None
        })?;
        self.weights.borrow_mut().push(weight.shallow_clone());
        Some(weight)
    }

    fn layer(&self, path: &Path, dims: &[i64], random: impl FnOnce() -> Tensor) -> Result<Option<SdLayer>> {
        let name = format!("{}.weight", path.components().collect::<Vec<_>>().join("."));
        match &self.start {
            Start::Model(model) => match model.layer(&name) {
                Some(layer) if !layer.shape().dims().iter().map(|d| *d as i64).eq(dims.iter().copied()) => {
                    Err(Error::Shape {
                        what: format!("`{name}`"),
                        expected: format!("{dims:?}"),
                        found: format!("{:?}", layer.shape().dims()),
                    })
                }
                found => Ok(found.cloned()),
            },
            Start::Random(policy) => {
                let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
                match policy.decomposable(&name, &dims)? {
                    Some(shape) => self.decompose_random(policy, shape, random).map(Some),
                    None => Ok(None),
                }
            }
        }
    }

    fn decompose_random(
        &self,
        policy: &CompressPolicy,
        shape: LayerShape,
        random: impl FnOnce() -> Tensor,
    ) -> Result<SdLayer> {
        let mut policy = policy.clone();
        // The decomposition's rungs must be the training's.
        policy.decompose.projection = crate::smartdeal::Projection::PowersOfTwo(self.config.ladder);
        policy.compress_layer(floats(&random())?, shape)
    }

    fn numerics(&self, path: &Path) -> Numerics {
        // The widths were validated.
        let bits = |width: Option<u8>| width.and_then(|width| Bits::new(width.into()).ok());
        let place = self.weights.borrow().len() as u64;
        let gradient = bits(self.config.gradient_bits).map(|bits| GradientRounding {
            layer: path.components().collect::<Vec<_>>().join("."),
            bits,
            seed: derive(self.config.seed, Purpose::Noise, place),
            passes: path.zeros_no_train(PASSES, &[1]),
        });
        Numerics { activation: bits(self.config.activation_bits), gradient }
    }
}

impl LayerFactory for SdTrainingFactory<'_> {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        let dims = [config.out_channels, config.in_channels / config.groups.max(1), config.kernel, config.kernel];
        // Drawn from a model too, which has its own weight, so that what is drawn next does not depend on the start.
        let drawn = Conv2d::new(&VarStore::new(path.device()).root(), Conv2dConfig { bias: false, ..config }).weight;
        match self.weight(path, &dims, || drawn.detach()) {
            None => Standard.conv2d(path, config),
            Some(weight) => Box::new(SdConv2d {
                bias: config.bias.then(|| path.var("bias", &dims[..1], nn::Init::Const(0.0))),
                config,
                weight,
                numerics: self.numerics(path),
            }),
        }
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        let dims = [config.out_features, config.in_features];
        let drawn = Linear::new(&VarStore::new(path.device()).root(), LinearConfig { bias: false, ..config }).weight;
        match self.weight(path, &dims, || drawn.detach()) {
            None => Standard.linear(path, config),
            Some(weight) => Box::new(SdLinear {
                bias: config.bias.then(|| path.var("bias", &dims[..1], nn::Init::Const(0.0))),
                config,
                weight,
                numerics: self.numerics(path),
            }),
        }
    }

    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
        Standard.batch_norm2d(path, config)
    }
}

/// How a layer rounds its input and the gradient of its output.
#[derive(Debug)]
struct Numerics {
    activation: Option<Bits>,
    gradient: Option<GradientRounding>,
}

#[derive(Debug)]
struct GradientRounding {
    layer: String,
    bits: Bits,
    /// Of this layer's noise.
    seed: u64,
    /// Training passes so far, saved with the network: no two passes share noise, those of a resumed training included.
    passes: Tensor,
}

impl Numerics {
    fn input(&self, input: &Tensor) -> Result<Tensor> {
        match self.activation {
            Some(bits) => Ok(finite(input, Affine::per_tensor(bits).fake_quant(input, Rounding::Nearest))?),
            None => Ok(input.shallow_clone()),
        }
    }

    fn output(&self, output: Tensor) -> Result<Tensor> {
        if let Some(gradient) = self.gradient.as_ref().filter(|_| output.requires_grad()) {
            gradient.hook(&output)?;
        }
        Ok(output)
    }
}

impl GradientRounding {
    /// Has the gradient of `output` rounded when it arrives.
    fn hook(&self, output: &Tensor) -> Result<()> {
        let mut passes = self.passes.shallow_clone();
        let pass = passes.f_double_value(&[0])? as u64;
        let _ = tch::no_grad(|| passes.f_add_scalar_(1.0))?;
        let (quantiser, layer) = (Affine::per_tensor(self.bits), self.layer.clone());
        let rounding = Rounding::Stochastic { seed: derive(self.seed, Purpose::Noise, pass) };
        register_hook(output, move |gradient| {
            let rounded = finite(gradient, quantiser.round(gradient, rounding));
            rounded.unwrap_or_else(|error| panic!("gradient at `{layer}`: {error}"))
        })?;
        Ok(())
    }
}

/// What was rounded; values that are not finite as they came, for the loss or the coefficients' update to stop the training.
fn finite(values: &Tensor, rounded: fractrain::Result<Tensor>) -> fractrain::Result<Tensor> {
    match rounded {
        Err(fractrain::Error::NotFinite { .. }) => Ok(values.shallow_clone()),
        rounded => rounded,
    }
}

#[derive(Debug)]
struct SdConv2d {
    config: Conv2dConfig,
    weight: SdWeight,
    bias: Option<Tensor>,
    numerics: Numerics,
}

impl nn::Module for SdConv2d {
    /// # Panics
    /// Like every tch layer, on an input that does not fit.
    fn forward(&self, input: &Tensor) -> Tensor {
        record(self.weight.name(), || {
            let size = input.size();
            let side = |from_end: usize| size[size.len() - from_end] as u64;
            conv_operator(&self.config, [side(2), side(1)])
        });
        let Conv2dConfig { stride, padding, groups, .. } = self.config;
        let run = || {
            let (input, weight) = (self.numerics.input(input)?, self.weight.weight()?);
            let bias = self.bias.as_ref();
            self.numerics.output(input.f_conv2d(&weight, bias, [stride; 2], [padding; 2], [1, 1], groups)?)
        };
        run().unwrap_or_else(|error| panic!("`{}`: {error}", self.weight.name()))
    }
}

#[derive(Debug)]
struct SdLinear {
    config: LinearConfig,
    weight: SdWeight,
    bias: Option<Tensor>,
    numerics: Numerics,
}

impl nn::Module for SdLinear {
    /// # Panics
    /// Like every tch layer, on an input that does not fit.
    fn forward(&self, input: &Tensor) -> Tensor {
        record(self.weight.name(), || linear_operator(&self.config, &input.size()));
        let run = || {
            let (input, weight) = (self.numerics.input(input)?, self.weight.weight()?);
            self.numerics.output(input.f_linear(&weight, self.bias.as_ref())?)
        };
        run().unwrap_or_else(|error| panic!("`{}`: {error}", self.weight.name()))
    }
}

/// All weights of a network in SmartDeal form: those that a factory made, or any others, of layers of one's own.
///
/// ```
/// use quant::smartdeal::train::{SdWeight, SdWeights};
/// use quant::smartdeal::{DecomposeConfig, Ladder, LayerShape, SdLayer};
/// use tch::{nn, Device, Kind, Tensor};
/// // A convolution of 1 × 7 with holes, which no factory makes.
/// let shape = LayerShape::Conv { out_channels: 4, in_channels: 8, kernel: [1, 7] };
/// let start: Vec<f32> = (0..shape.weights()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 500.0).collect();
/// let layer = SdLayer::decompose(&start, shape, &DecomposeConfig::with_theta(0.02))?;
/// let store = nn::VarStore::new(Device::Cpu);
/// let weight = SdWeight::new(&(store.root() / "wide"), &layer, Ladder::new(-6, 5))?;
/// let input = Tensor::zeros([2, 8, 1, 32], (Kind::Float, Device::Cpu));
/// let output = input.f_conv2d(&weight.weight()?, None::<Tensor>, [1, 1], [0, 6], [1, 2], 1)?;
/// assert_eq!(output.size(), [2, 4, 1, 32]);
/// let weights = SdWeights::from(vec![weight]);
/// assert_eq!(weights.trainable(&store, 5e-4).len(), 1);
/// # Ok::<(), quant::Error>(())
/// ```
#[derive(Debug)]
pub struct SdWeights {
    weights: Vec<SdWeight>,
}

impl From<Vec<SdWeight>> for SdWeights {
    fn from(weights: Vec<SdWeight>) -> Self {
        Self { weights }
    }
}

impl SdWeights {
    /// The trainable variables of a store that an optimizer may own: all but the coefficients of these weights, which
    /// [`CoefficientUpdate`](super::CoefficientUpdate) moves. Whatever their names: another variable called
    /// `coefficient` is among them.
    pub fn trainable(&self, store: &VarStore, weight_decay: f64) -> Vec<Parameter> {
        let all = parameters(store, weight_decay);
        all.into_iter()
            .filter(|parameter| !self.weights.iter().any(|own| own.has_coefficients(&parameter.tensor)))
            .collect()
    }

    /// Handles on the live weights.
    pub fn to_vec(&self) -> Vec<SdWeight> {
        self.weights.iter().map(SdWeight::shallow_clone).collect()
    }

    /// How many layers are in SmartDeal form.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether no layer is.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// The network as it stands: layers in SmartDeal form compressed, every other variable dense, names as in a dense
    /// network. [`load_network`](crate::smartdeal::load_network) runs it.
    ///
    /// # Errors
    /// A basis that is not finite.
    pub fn export(&self, store: &VarStore) -> Result<SdzModel> {
        let mut model = SdzModel::default();
        let mut variables: Vec<(String, Tensor)> = store.variables().into_iter().collect();
        variables.sort_by(|a, b| a.0.cmp(&b.0));
        let of_a_weight = |name: &str| {
            let own = |weight: &SdWeight| {
                let part = name.strip_prefix(weight.name()).and_then(|rest| rest.strip_prefix('.'));
                part.is_some_and(|part| ["coefficient", "basis", "mask", PASSES].contains(&part))
            };
            self.weights.iter().any(own)
        };
        for (name, tensor) in variables.into_iter().filter(|(name, _)| !of_a_weight(name)) {
            let dims = tensor.size().iter().map(|d| *d as usize).collect();
            model.records.insert(name, Record::Dense(DenseTensor { dims, values: floats(&tensor)? }));
        }
        for weight in &self.weights {
            model.records.insert(format!("{}.weight", weight.name()), Record::Layer(weight.to_layer()?));
        }
        model.records.sort_keys();
        Ok(model)
    }
}

#[cfg(test)]
mod tests;
