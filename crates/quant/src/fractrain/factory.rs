//! The layer factory that quantises any network.

use super::gate::{DfqConfig, DfqOption, Gates, Link};
use super::handle::{Layer, QuantHandle, RangeBuffer};
use super::layer::{QuantConv2d, QuantLinear, QuantSite};
use super::{Precision, QuantConfig, RangeBatchNorm, Result};
use core_tensor::nn::{BatchNormConfig, Conv2d, Conv2dConfig, LayerFactory, Linear, LinearConfig, Module, Standard};
use std::cell::RefCell;
use std::sync::Arc;
use tch::Tensor;
use tch::nn::{ModuleT, Path};

/// Makes layers whose weight, input and output gradient are rounded; norms, activations, pooling and the optimizer stay in
/// full precision.
///
/// Parameter names stay those of the plain network, so that its checkpoints load; each quantised layer adds a variable
/// `input_range` of four numbers.
#[derive(Debug)]
pub struct QuantFactory<'a> {
    config: Arc<QuantConfig>,
    handle: QuantHandle,
    gates: Option<(Gates, Path<'a>)>,
    made: RefCell<Made>,
}

/// What was made so far.
#[derive(Debug, Default)]
struct Made {
    convolutions: usize,
    /// The gate of the last convolution, unless that was a shortcut's: what a norm made next belongs to.
    branch: Option<Link>,
}

impl<'a> QuantFactory<'a> {
    /// Layers that all run at the handle's precision, which starts as `precision`.
    ///
    /// # Errors
    /// [`Error::Config`](super::Error::Config) for a setting outside its range, and for one bit on a symmetric grid.
    pub fn new(config: QuantConfig, precision: Precision) -> Result<Self> {
        config.validate()?;
        config.check_precision(precision)?;
        let (config, handle) = (Arc::new(config), QuantHandle::new(precision));
        Ok(Self { config, handle, gates: None, made: RefCell::default() })
    }

    /// Layers whose activations and gradients have the bits that a gate chooses for each sample. The first convolution,
    /// linear layers and whatever the settings name stay in full precision. The gates' variables live under `path`, as a
    /// rule `store.root() / "gates"`.
    ///
    /// The layer of a block that is made first asks the gate, so it must run first in its block, and once in a forward
    /// pass: where it asks again, a new pass begins and the cost counts from there.
    ///
    /// # Errors
    /// As [`new`](Self::new); one bit on a symmetric grid is refused in options too.
    pub fn gated(config: QuantConfig, dfq: DfqConfig, path: Path<'a>) -> Result<Self> {
        dfq.validate()?;
        let precision = Precision { weight: Some(dfq.weight), ..Precision::FULL };
        let config = QuantConfig { full_precision_stem: true, linear: false, ..config };
        for option in &dfq.options {
            config.check_precision(Precision { activation: option.activation(), ..precision })?;
        }
        let factory = Self::new(config, precision)?;
        let gates = Gates::new(&path, dfq);
        Ok(Self { gates: Some((gates, path)), ..factory })
    }

    /// The network's handle, once it is built.
    pub fn handle(&self) -> QuantHandle {
        self.handle.clone()
    }

    /// The network's gates, if it has any.
    pub fn gates(&self) -> Option<Gates> {
        self.gates.as_ref().map(|(gates, _)| gates.clone())
    }

    /// A place among the quantised layers for a layer of your own, whose variables live under `path` too: what the factory's
    /// layers have, so that schedules, gates, ranges and the ledger see it.
    ///
    /// With gates it asks that of its block, and asks first where it is made first; `in_channels`, the size of its input's
    /// second axis, is what a gate looks at. What keeps layers in full precision by their name or place does not hold
    /// here, and [`export_int8`](super::export_int8) refuses such a layer.
    ///
    /// ```
    /// use core_tensor::workload::Operator;
    /// use quant::fractrain::{Precision, QuantConfig, QuantFactory, QuantSite};
    /// use tch::{Device, Kind, Tensor, nn};
    ///
    /// /// A convolution of every second pixel.
    /// #[derive(Debug)]
    /// struct Dilated {
    ///     weight: Tensor,
    ///     site: QuantSite,
    /// }
    ///
    /// impl nn::ModuleT for Dilated {
    ///     fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
    ///         let operator = || {
    ///             let [height, width] = [2, 3].map(|axis| input.size()[axis] as u64);
    ///             let (kernel, ones) = ([3; 2], [1; 2]);
    ///             Operator::Conv2d {
    ///                 in_channels: 4, out_channels: 8, kernel, stride: ones, padding: [2; 2], dilation: [2; 2], groups: 1,
    ///                 input: [height, width],
    ///             }
    ///         };
    ///         self.site.forward(input, (&self.weight, None), train, operator, |input, weight, _| {
    ///             input.conv2d(weight, None::<&Tensor>, [1, 1], [2, 2], [2, 2], 1)
    ///         })
    ///     }
    /// }
    ///
    /// let store = nn::VarStore::new(Device::Cpu);
    /// let factory = QuantFactory::new(QuantConfig::default(), Precision::new(4, 8)?)?;
    /// let path = store.root() / "dilated";
    /// let layer = Dilated { weight: path.kaiming_uniform("weight", &[8, 4, 3, 3]), site: factory.site(&path, 4) };
    /// let output = nn::ModuleT::forward_t(&layer, &Tensor::rand([2, 4, 6, 6], (Kind::Float, Device::Cpu)), true);
    /// assert_eq!((output.size(), factory.handle().layers()), (vec![2, 8, 6, 6], vec!["dilated".to_owned()]));
    /// # Ok::<(), quant::fractrain::Error>(())
    /// ```
    pub fn site(&self, path: &Path, in_channels: i64) -> QuantSite {
        let name = path.components().collect::<Vec<_>>().join(".");
        let gate = self.gates.as_ref().map(|(gates, path)| gates.join(path, &name, in_channels, false));
        self.made.borrow_mut().branch = gate.clone();
        self.add(path, &name, gate, None)
    }

    fn add(&self, path: &Path, name: &str, gate: Option<Link>, groups: Option<i64>) -> QuantSite {
        let range = RangeBuffer::new(path.zeros_no_train("input_range", &[4]));
        let place = self.handle.add_layer(Layer {
            name: name.into(),
            range: range.shallow_clone(),
            gated: gate.is_some(),
            groups,
            config: self.config.clone(),
        });
        QuantSite { name: name.into(), place, config: self.config.clone(), handle: self.handle.clone(), range, gate }
    }

    fn convolution(&self, path: &Path, config: Conv2dConfig, shortcut: bool) -> Module {
        let conv = Conv2d::new(path, config);
        let name = conv.name().to_owned();
        let mut made = self.made.borrow_mut();
        made.convolutions += 1;
        made.branch = None;
        let stem = made.convolutions == 1 && self.config.full_precision_stem;
        if stem || self.config.leaves_out(&name) {
            return Box::new(conv);
        }
        let gate = self.gates.as_ref().map(|(gates, path)| gates.join(path, &name, config.in_channels, shortcut));
        if !shortcut {
            made.branch = gate.clone();
        }
        let site = self.add(path, &name, gate, Some(config.groups));
        Box::new(QuantConv2d { conv, config, site })
    }
}

impl LayerFactory for QuantFactory<'_> {
    fn conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        self.convolution(path, config, false)
    }

    fn shortcut_conv2d(&self, path: &Path, config: Conv2dConfig) -> Module {
        self.convolution(path, config, true)
    }

    fn linear(&self, path: &Path, config: LinearConfig) -> Module {
        let linear = Linear::new(path, config);
        let name = linear.name().to_owned();
        if !self.config.linear || self.config.leaves_out(&name) {
            return Box::new(linear);
        }
        let site = self.add(path, &name, None, Some(1));
        Box::new(QuantLinear { linear, site })
    }

    fn batch_norm2d(&self, path: &Path, config: BatchNormConfig) -> Module {
        let norm = match self.config.range_batch_norm {
            true => RangeBatchNorm::module(path, config),
            false => Standard.batch_norm2d(path, config),
        };
        let skips = |link: &Link| link.options().contains(&DfqOption::Skip);
        match self.made.borrow().branch.clone().filter(skips) {
            Some(link) => Box::new(SkippingNorm { norm, link }),
            None => norm,
        }
    }
}

/// A norm whose output is zero for samples that skip the block.
#[derive(Debug)]
struct SkippingNorm {
    norm: Module,
    link: Link,
}

impl ModuleT for SkippingNorm {
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        let output = self.norm.forward_t(input, train);
        match self.link.decided().and_then(|decision| decision.keep(&output)) {
            Some(keep) => output * keep,
            None => output,
        }
    }
}

#[cfg(test)]
mod tests;
