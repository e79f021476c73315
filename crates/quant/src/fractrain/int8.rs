//! Running a statically quantised network with 8-bit integers.
//!
//! A layer's input becomes levels `q` on a grid that holds zero (`x = s·(q − z)`), its weight levels on each output channel's
//! own grid (`w = t·p + m`); a product of levels is exact in 32-bit integers, and the rest is three numbers a channel:
//!
//! ```text
//! Σ x·w = s·t·(Σ q·p − z·Σ p) + s·m·(Σ q − n·z)
//! ```
//!
//! Weights keep the grids that they were trained on. So do inputs, but that a grid without zero, which padding adds, is widened
//! and shifted to hold it.

mod product;

use self::product::product;
use super::affine::QParams;
use super::{Affine, Bits, Error, GridKind, QuantHandle, Result};
use core_tensor::checkpoint::{Header, LoadPolicy, SafetensorsFile, load_state, state_of, write_safetensors};
use core_tensor::networks::Architecture;
use core_tensor::nn::{
    BatchNormConfig, Conv2d, Conv2dConfig, LayerFactory, LinearConfig, Module, Network, Standard, record,
};
use core_tensor::optim::NamedTensors;
use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path as FilePath;
use tch::nn::{self, Path, VarStore};
use tch::{Device, Kind, Tensor};

const SCHEMA: &str = "quant.int8";
const VERSION: u32 = 1;
/// Levels 0 … 255 are kept as signed bytes, less this.
const SHIFT: f64 = 128.0;
/// Bytes that a convolution's windows may take in single precision: images whose windows are more take turns.
const WINDOW_BYTES: i64 = 16 << 20;

/// A network's weights: quantised convolutions as bytes, everything else as it was.
///
/// Made by [`export_int8`] or [`read`](Self::read); [`build`](Self::build) makes the network that runs on it, and
/// [`Int8Factory`] the layers of a network of one's own.
#[derive(Debug)]
pub struct Int8Model {
    tensors: NamedTensors,
    layers: Vec<String>,
}

/// Turns the quantised convolutions of a trained network into bytes, at the handle's precision and with the ranges that its
/// inputs had.
///
/// # Errors
/// [`Error::Uncalibrated`] for a layer that has seen no training step; [`Error::Export`] for one that is not a convolution in
/// one group, has gates, is in full precision or has more than 8 bits, or is your own ([`QuantFactory::site`]).
///
/// A network with gates goes through one without: built with [`QuantFactory::new`] at the precision of one option, the first
/// convolution in full precision, and loaded with the gated network's variables but those of the gates.
///
/// [`QuantFactory::site`]: super::QuantFactory::site
/// [`QuantFactory::new`]: super::QuantFactory::new
pub fn export_int8(store: &VarStore, handle: &QuantHandle) -> Result<Int8Model> {
    let mut tensors = state_of(store);
    tensors.retain(|name, _| !name.ends_with("input_range"));
    // What runs on integers runs on the CPU.
    tensors.values_mut().for_each(|tensor| *tensor = tensor.to_device(Device::Cpu));
    let refuse = |layer: &str, reason: &str| Err(Error::Export { layer: layer.into(), reason: reason.into() });
    let layers = handle.layers();
    for layer in &layers {
        if handle.is_gated(layer) {
            let way = "load its weights into a network from `QuantFactory::new` at the precision of one option";
            return refuse(layer, &format!("its bits depend on the input: {way}"));
        }
        match handle.groups(layer) {
            Some(1) => {}
            Some(_) => return refuse(layer, "it is a convolution in several groups"),
            None => return refuse(layer, "it is not a layer of the factory's own"),
        }
        let precision = handle.precision();
        let narrow = |bits: Option<Bits>| bits.filter(|bits| bits.get() <= 8);
        let (Some(weight_bits), Some(input_bits)) = (narrow(precision.weight), narrow(precision.activation)) else {
            return refuse(layer, "weight and input need at most 8 bits");
        };
        let name = format!("{layer}.weight");
        let Some(weight) = tensors.get(&name).filter(|weight| weight.dim() == 4) else {
            return refuse(layer, "it is not a convolution");
        };
        let (low, width) = handle.input_range(layer)?;
        let config = handle.config(layer);
        let (grid, top) = match config.activation_grid {
            GridKind::Symmetric => (GridKind::Symmetric, input_bits.steps() - 1.0),
            GridKind::MinMax | GridKind::IntegerZeroPoint => (GridKind::IntegerZeroPoint, input_bits.steps()),
        };
        let input = QParams::from_range(low, low + width, input_bits, grid)?;
        let params = Affine { grid: config.weight_grid, ..Affine::per_channel(weight_bits) }.params(weight)?;
        let levels = params.quantize(weight)?.f_sub_scalar(SHIFT)?.f_to_kind(Kind::Int8)?;
        let (step, zero) = (f64::from(input.steps()[0]), -f64::from(input.mins()[0]) / f64::from(input.steps()[0]));
        let input = Tensor::from_slice(&[step, zero, f64::from(top)]);
        tensors.insert(name, levels);
        tensors.insert(format!("{layer}.weight_min"), Tensor::from_slice(&params.mins()));
        tensors.insert(format!("{layer}.weight_step"), Tensor::from_slice(&params.steps()));
        tensors.insert(format!("{layer}.input"), input);
    }
    Ok(Int8Model { tensors, layers })
}

impl Int8Model {
    /// Bytes of all tensors.
    pub fn bytes(&self) -> u64 {
        self.tensors.values().map(|tensor| tensor.numel() as u64 * tensor.kind().elt_size_in_bytes() as u64).sum()
    }

    /// Writes a safetensors file, replaced as a whole.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, path: &FilePath) -> Result<()> {
        let header = Header::new(SCHEMA, VERSION, &self.layers);
        Ok(write_safetensors(path, &self.tensors, &header.to_metadata()?)?)
    }

    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// A file that is missing, malformed or of something else.
    pub fn read(path: &FilePath) -> Result<Self> {
        let mut file = SafetensorsFile::open(path)?;
        let layers = Header::<Vec<String>>::from_metadata(file.metadata(), SCHEMA, VERSION, path)?.content;
        let names: Vec<String> = file.tensors().keys().cloned().collect();
        let tensors = names.into_iter().map(|name| file.tensor(&name).map(|tensor| (name, tensor)));
        Ok(Self { tensors: tensors.collect::<core_tensor::Result<_>>()?, layers })
    }

    /// The network of this architecture, running its quantised convolutions in integers on the CPU, forward only. The other
    /// variables go into `store`.
    ///
    /// # Errors
    /// As [`Int8Factory::finish`], and an architecture that refuses its own settings.
    pub fn build(&self, architecture: &Architecture, store: &VarStore) -> Result<Box<dyn Network>> {
        let factory = Int8Factory::new(self);
        let network = architecture.build(&store.root(), &factory)?;
        factory.finish(store)?;
        Ok(network)
    }

    /// Whether a layer's four tensors are there and what a convolution reads.
    fn check(&self, layer: &str) -> Result<()> {
        let parts = ["weight", "weight_min", "weight_step", "input"].map(|part| format!("{layer}.{part}"));
        if let Some(missing) = parts.iter().find(|name| !self.tensors.contains_key(*name)) {
            return Err(Error::Export { layer: layer.into(), reason: format!("`{missing}` is missing") });
        }
        let of = |part: &str| {
            let tensor = &self.tensors[&format!("{layer}.{part}")];
            (tensor.size(), tensor.kind())
        };
        let (shape, kind) = of("weight");
        let refuse = |part: &str, expected: String, found: String| {
            let reason = format!("`{layer}.{part}`: expected {expected}, found {found}");
            Err(Error::Export { layer: layer.into(), reason })
        };
        if shape.len() != 4 || kind != Kind::Int8 {
            let expected = "Int8 [out_channels, in_channels, height, width]".to_owned();
            return refuse("weight", expected, format!("{kind:?} {shape:?}"));
        }
        for part in ["weight_min", "weight_step"] {
            let (found, kind) = of(part);
            if found != shape[..1] {
                return refuse(part, format!("[{}]", shape[0]), format!("{kind:?} {found:?}"));
            }
        }
        let (found, kind) = of("input");
        if found != [3] || kind != Kind::Double {
            return refuse("input", "Double [3]".to_owned(), format!("{kind:?} {found:?}"));
        }
        Ok(())
    }
}

/// Gives every convolution that a model holds as bytes a kernel that runs on them, and every other layer its standard form.
///
/// Build the network, then call [`finish`](Self::finish), which loads norms, biases and the layers in full precision and
/// reports anything that did not fit. [`Int8Model::build`] does all of it for a named architecture.
///
/// Such layers run on the CPU, forward only.
///
/// ```
/// use core_tensor::nn::{Conv2dConfig, LayerFactory, Module};
/// use quant::fractrain::{Int8Factory, Precision, QuantConfig, QuantFactory, export_int8};
/// use tch::{Device, Kind, Tensor, nn};
///
/// // A network of one's own, written against any factory.
/// fn layers(path: &nn::Path, factory: &dyn LayerFactory) -> [Module; 2] {
///     let first = factory.conv2d(&(path / "first"), Conv2dConfig::new(3, 8, 3, 1));
///     [first, factory.conv2d(&(path / "second"), Conv2dConfig::new(8, 4, 3, 2))]
/// }
/// fn forward([first, second]: &[Module; 2], images: &Tensor, train: bool) -> Tensor {
///     tch::no_grad(|| second.forward_t(&first.forward_t(images, train).relu(), train))
/// }
///
/// let store = nn::VarStore::new(Device::Cpu);
/// let factory = QuantFactory::new(QuantConfig::default(), Precision::new(8, 8)?)?;
/// let trained = layers(&store.root(), &factory);
/// // Instead of a training: after one pass the ranges are known.
/// let images = Tensor::rand([4, 3, 8, 8], (Kind::Float, Device::Cpu));
/// let _ = forward(&trained, &images, true);
/// let model = export_int8(&store, &factory.handle())?;
///
/// let (store, factory) = (nn::VarStore::new(Device::Cpu), Int8Factory::new(&model));
/// let integers = layers(&store.root(), &factory);
/// factory.finish(&store)?;
/// let (rounded, ours) = (forward(&trained, &images, false), forward(&integers, &images, false));
/// assert!((ours - &rounded).abs().max().double_value(&[]) < 0.05 * rounded.abs().max().double_value(&[]));
/// # Ok::<(), quant::fractrain::Error>(())
/// ```
#[derive(Debug)]
pub struct Int8Factory<'a> {
    model: &'a Int8Model,
    used: RefCell<HashSet<String>>,
    problems: RefCell<Vec<Error>>,
}

impl<'a> Int8Factory<'a> {
    /// A factory of the layers of `model`.
    pub fn new(model: &'a Int8Model) -> Self {
        Self { model, used: RefCell::default(), problems: RefCell::default() }
    }

    /// Loads everything but the bytes into the network's variables.
    ///
    /// # Errors
    /// [`Error::Export`] for the first convolution whose tensors are missing or do not fit, and for one that the network
    /// did not ask for; [`Error::Core`] for any other variable that the model does not hold, or the other way round.
    pub fn finish(self, store: &VarStore) -> Result<()> {
        if let Some(problem) = self.problems.into_inner().into_iter().next() {
            return Err(problem);
        }
        let (model, used) = (self.model, self.used.into_inner());
        if let Some(layer) = model.layers.iter().find(|layer| !used.contains(*layer)) {
            let reason = "the network has no convolution of this name".into();
            return Err(Error::Export { layer: layer.clone(), reason });
        }
        let own = |name: &str| {
            let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
            used.contains(layer) && !name.ends_with(".bias")
        };
        let others = model.tensors.iter().filter(|(name, _)| !own(name));
        let others: NamedTensors = others.map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        load_state(store, &others, &LoadPolicy { strip: Vec::new(), ..LoadPolicy::strict() })?;
        Ok(())
    }

    fn convolution(&self, name: &str, path: &Path, config: Conv2dConfig) -> Result<Int8Conv2d> {
        self.model.check(name)?;
        let part = |part: &str| self.model.tensors[&format!("{name}.{part}")].shallow_clone();
        let levels = part("weight");
        let Conv2dConfig { in_channels, out_channels, kernel, groups, .. } = config;
        let (expected, found) = ([out_channels, in_channels, kernel, kernel], levels.size());
        if groups != 1 || found != expected {
            let reason =
                format!("the network's weight is {expected:?} in {groups} group(s), the file's {found:?} in 1");
            return Err(Error::Export { layer: name.into(), reason });
        }
        let filters = levels.flatten(1, -1);
        let (step, min) = (part("weight_step").to_kind(Kind::Float), part("weight_min").to_kind(Kind::Float));
        let sums = filters.to_kind(Kind::Float).sum_dim_intlist([1_i64].as_slice(), false, Kind::Float);
        let input = Vec::<f64>::try_from(part("input")).unwrap_or_default();
        let at = |index: usize| input.get(index).copied().unwrap_or(1.0);
        Ok(Int8Conv2d {
            shape: Conv2d::new(&VarStore::new(Device::Cpu).root(), Conv2dConfig { bias: false, ..config }),
            config,
            bias: config.bias.then(|| path.var("bias", &[config.out_channels], nn::Init::Const(0.0))),
            filters: filters.transpose(0, 1).contiguous(),
            offset: &min + &step * SHIFT,
            step,
            sums,
            name: name.into(),
            input_step: at(0),
            input_zero: at(1).round(),
            input_steps: at(2),
        })
    }
}

impl LayerFactory for Int8Factory<'_> {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        let name = path.components().collect::<Vec<_>>().join(".");
        if !self.model.layers.contains(&name) {
            return Standard.conv2d(path, config);
        }
        let made = self.convolution(&name, path, config);
        self.used.borrow_mut().insert(name);
        match made {
            Ok(layer) => Box::new(layer),
            Err(problem) => {
                self.problems.borrow_mut().push(problem);
                Standard.conv2d(path, config)
            }
        }
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        Standard.linear(path, config)
    }

    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
        Standard.batch_norm2d(path, config)
    }
}

/// A convolution of bytes.
#[derive(Debug)]
struct Int8Conv2d {
    /// Describes the operator; its own weight is never used.
    shape: Conv2d,
    config: Conv2dConfig,
    name: String,
    /// `[taps, out_channels]`, signed levels.
    filters: Tensor,
    /// `[out_channels]`: Σ of a filter's signed levels.
    sums: Tensor,
    step: Tensor,
    /// `m + 128·t`: the value of signed level 0.
    offset: Tensor,
    bias: Option<Tensor>,
    input_step: f64,
    input_zero: f64,
    input_steps: f64,
}

impl nn::Module for Int8Conv2d {
    /// # Panics
    /// Like every tch layer, on an input that does not fit.
    fn forward(&self, input: &Tensor) -> Tensor {
        record(&self.name, || self.shape.operator(input));
        let [height, width] = self.shape.operator(input).output_size().map(|side| side as i64);
        let of_image = height * width * self.filters.size()[0] * Kind::Float.elt_size_in_bytes() as i64;
        self.in_turns(input, (WINDOW_BYTES / of_image.max(1)).max(1))
    }
}

impl Int8Conv2d {
    /// The output, from so many images at once: the same whatever the number.
    fn in_turns(&self, input: &Tensor, images: i64) -> Tensor {
        let parts: Vec<Tensor> = input.split(images, 0).iter().map(|part| self.rows(part)).collect();
        let rows = match &parts[..] {
            [whole] => whole.shallow_clone(),
            parts => Tensor::cat(parts, 0),
        };
        let [height, width] = self.shape.operator(input).output_size().map(|side| side as i64);
        rows.view([input.size()[0], height, width, -1]).permute([0, 3, 1, 2])
    }

    /// `[images · pixels, out_channels]`: the output pixel by pixel.
    fn rows(&self, input: &Tensor) -> Tensor {
        let Conv2dConfig { kernel, stride, padding, .. } = self.config;
        let zero = self.input_zero - SHIFT;
        let levels = (input / self.input_step + self.input_zero).round().clamp(0.0, self.input_steps) - SHIFT;
        // Padding adds zeros, which are the level `zero`.
        let padded = (levels.contiguous() - zero).constant_pad_nd([padding; 4]) + zero;
        let columns = padded.im2col([kernel; 2], [1, 1], [0, 0], [stride; 2]);
        let taps = columns.size()[1];
        let rows = columns.transpose(1, 2).reshape([-1, taps]);
        let row_sums = rows.sum_dim_intlist([1_i64].as_slice(), true, Kind::Float);
        let scale = &self.step * self.input_step;
        let mut output = (product(&rows, &self.filters) - &self.sums * zero) * scale;
        output += (row_sums - zero * taps as f64) * self.input_step * &self.offset;
        if let Some(bias) = &self.bias {
            output += bias;
        }
        output
    }
}

#[cfg(test)]
mod tests;
