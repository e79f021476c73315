//! Convolutions and linear layers whose three operands are rounded.

use super::config::RangeRule;
use super::gate::{Decision, Link};
use super::handle::{QuantHandle, RangeBuffer};
use super::kernel::{Extent, Grid, Mode};
use super::noise::Stream;
use super::{Bits, Error, GridKind, Operand, Precision, QuantConfig, Result, affine, memory};
use core_tensor::autograd::{register_hook, with_backward};
use core_tensor::nn::{Conv2d, Conv2dConfig, Linear, record};
use core_tensor::workload::Operator;
use std::sync::Arc;
use tch::{Kind, Tensor, nn};

/// A quantised convolution.
#[derive(Debug)]
pub(super) struct QuantConv2d {
    pub(super) conv: Conv2d,
    pub(super) config: Conv2dConfig,
    pub(super) site: QuantSite,
}

/// A quantised linear layer.
#[derive(Debug)]
pub(super) struct QuantLinear {
    pub(super) linear: Linear,
    pub(super) site: QuantSite,
}

impl nn::ModuleT for QuantConv2d {
    /// # Panics
    /// Like every tch layer, on an input that does not fit; at one bit on a symmetric grid.
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        let Conv2dConfig { stride, padding, groups, .. } = self.config;
        let apply = |input: &Tensor, weight: &Tensor, bias: Option<&Tensor>| {
            input.conv2d(weight, bias, [stride; 2], [padding; 2], [1, 1], groups)
        };
        let Conv2d { weight, bias, .. } = &self.conv;
        self.site.forward(input, (weight, bias.as_ref()), train, || self.conv.operator(input), apply)
    }
}

impl nn::ModuleT for QuantLinear {
    /// # Panics
    /// Like every tch layer, on an input that does not fit; at one bit on a symmetric grid.
    fn forward_t(&self, input: &Tensor, train: bool) -> Tensor {
        let Linear { weight, bias, .. } = &self.linear;
        let apply = |input: &Tensor, weight: &Tensor, bias: Option<&Tensor>| input.linear(weight, bias);
        self.site.forward(input, (weight, bias.as_ref()), train, || self.linear.operator(input), apply)
    }
}

/// A layer's place in a quantised network: its precision, its range, its gate and its count in the ledger. The factory's
/// layers have one each; [`QuantFactory::site`](super::QuantFactory::site) gives one to a layer of your own.
#[derive(Debug)]
pub struct QuantSite {
    pub(super) name: String,
    /// Its number among the network's quantised layers; tells apart their streams of noise.
    pub(super) place: u64,
    pub(super) config: Arc<QuantConfig>,
    pub(super) handle: QuantHandle,
    pub(super) range: RangeBuffer,
    pub(super) gate: Option<Link>,
}

/// The range that an input is rounded over.
struct InputRange {
    extent: Extent,
    /// Whether values outside are clipped, and get no gradient.
    clips: bool,
    /// Training passes before this one.
    pass: u64,
}

impl QuantSite {
    /// The layer's output: `apply` of the rounded input and weight, and of the bias as it is. In training the gradient of
    /// that output is rounded when it arrives.
    ///
    /// The input's first axis holds samples, the weight's first axis output channels, each of which has a range of its own.
    /// `operator` is what a sample costs, for workloads and gates. `apply` must be linear in each of input and weight, and
    /// is called twice where [`Precision::weight_gradient`] is set.
    ///
    /// # Panics
    /// As `apply` does; where libtorch refuses the tensors; at one bit on a symmetric grid.
    pub fn forward(
        &self,
        input: &Tensor,
        (weight, bias): (&Tensor, Option<&Tensor>),
        train: bool,
        operator: impl Fn() -> Operator,
        apply: impl Fn(&Tensor, &Tensor, Option<&Tensor>) -> Tensor,
    ) -> Tensor {
        record(&self.name, &operator);
        if let Some(link) = &self.gate {
            link.count_macs(operator().macs().unwrap_or(0));
        }
        let run = || self.try_forward(input, weight, bias, train, &apply);
        run().unwrap_or_else(|error| panic!("`{}`: {error}", self.name))
    }

    fn try_forward(
        &self,
        input: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        train: bool,
        apply: &dyn Fn(&Tensor, &Tensor, Option<&Tensor>) -> Tensor,
    ) -> Result<Tensor> {
        let precision = self.handle.precision();
        if train {
            let batch = input.size().first().copied().unwrap_or(0) as u64;
            self.handle.note_forward(self.place, batch, precision);
        }
        let weight = self.weight(weight, precision.weight)?;
        let decision = self.gate.as_ref().map(|link| link.decide(input, precision.weight)).transpose()?;
        let quantised = decision.is_some() || precision.activation.is_some();
        let rounds_gradient = decision.is_some() || precision.gradient.is_some() || precision.weight_gradient.is_some();
        // Passes are counted whenever noise will be drawn, so that no two passes share it.
        let range = if quantised || (train && rounds_gradient) { Some(self.input_range(input, train)?) } else { None };
        let pass = range.as_ref().map_or(0, |range| range.pass);
        let rounded = match (&decision, precision.activation, &range) {
            (Some(decision), _, Some(range)) => self.gated_input(input, range, decision)?,
            (None, Some(bits), Some(range)) => self.input(input, range, bits)?,
            _ => input.shallow_clone(),
        };
        if !train {
            return Ok(apply(&rounded, &weight, bias));
        }
        match (decision, precision) {
            (Some(decision), _) => {
                let output = apply(&rounded, &weight, bias);
                self.hook(&output, GradientBits::Samples(decision), pass, 0)?;
                Ok(output)
            }
            (None, Precision { gradient, weight_gradient: Some(bits), .. }) => {
                // The bias is in one of the two, or it would get its gradient twice.
                let error = apply(&rounded, &weight.detach(), None);
                let gradient_of_weight = apply(&rounded.detach(), &weight, bias);
                // Nothing is frozen where only the input needs no gradient: the network's first layer.
                let reads_data = !error.requires_grad() && gradient_of_weight.requires_grad();
                if let Some(bits) = gradient.filter(|_| !reads_data) {
                    self.hook(&error, GradientBits::All(bits), pass, 0)?;
                }
                self.hook(&gradient_of_weight, GradientBits::All(bits), pass, 1)?;
                let value = gradient_of_weight.detach();
                let both = |gradient: &Tensor| vec![Some(gradient.shallow_clone()), Some(gradient.shallow_clone())];
                Ok(with_backward(&[&error, &gradient_of_weight], &value, both)?)
            }
            (None, Precision { gradient: Some(bits), .. }) => {
                let output = apply(&rounded, &weight, bias);
                self.hook(&output, GradientBits::All(bits), pass, 0)?;
                Ok(output)
            }
            (None, _) => Ok(apply(&rounded, &weight, bias)),
        }
    }

    /// The weight, each output channel rounded over its own range; the gradient passes straight through.
    fn weight(&self, weight: &Tensor, bits: Option<Bits>) -> Result<Tensor> {
        let Some(bits) = bits else { return Ok(weight.shallow_clone()) };
        let extents = memory::scan_rows(&weight.detach())?;
        if extents.iter().any(|extent| !extent.finite) {
            self.handle.note_problem(&self.name, Operand::Weight);
            return Ok(weight.shallow_clone());
        }
        let grids = extents.into_iter().map(|extent| self.grid(self.config.weight_grid, extent, bits));
        let rounded = memory::round(weight, &grids.collect::<Result<Vec<_>>>()?, Mode::Nearest)?;
        affine::straight_through(weight, &rounded)
    }

    /// The range to round over: in training the batch's own, averaged in; in evaluation the average.
    fn input_range(&self, input: &Tensor, train: bool) -> Result<InputRange> {
        let raw = self.config.reference_compat;
        let momentum = match self.config.activation_range {
            RangeRule::Batch => None,
            RangeRule::MovingAverage { momentum } | RangeRule::Percentile { momentum, .. } => Some(momentum),
        };
        if !train
            && momentum.is_some()
            && let Some((low, width)) = self.range.average(raw)
        {
            let extent = Extent { low, high: low + width, finite: true };
            return Ok(InputRange { extent, clips: false, pass: 0 });
        }
        let clips = matches!(self.config.activation_range, RangeRule::Percentile { share, .. } if share > 0.0);
        let extent = match self.config.activation_range {
            RangeRule::Percentile { share, .. } if share > 0.0 => percentiles(&input.detach(), share)?,
            _ => memory::scan(&input.detach())?,
        };
        if !extent.finite {
            self.handle.note_problem(&self.name, Operand::Activation);
            return Ok(InputRange { extent, clips: false, pass: 0 });
        }
        let pass = match train {
            true => self.range.update(extent.low, extent.high - extent.low, momentum.unwrap_or(0.0)),
            false => 0,
        };
        Ok(InputRange { extent, clips, pass })
    }

    fn input(&self, input: &Tensor, range: &InputRange, bits: Bits) -> Result<Tensor> {
        if !range.extent.finite {
            return Ok(input.shallow_clone());
        }
        let grid = self.grid(self.config.activation_grid, range.extent, bits)?;
        let rounded = memory::round(input, &[grid], Mode::Nearest)?;
        if !range.clips {
            return affine::straight_through(input, &rounded);
        }
        let Extent { low, high, .. } = range.extent;
        let (low, high) = match self.config.activation_grid {
            GridKind::MinMax => (low, high),
            // Levels reach beyond the range, to zero or to its mirror image.
            _ => (low.min(grid.min), high.max(grid.min + grid.steps * grid.step)),
        };
        let saved = input.detach();
        let inside = move |gradient: &Tensor| {
            let inside = saved.ge(f64::from(low)).logical_and(&saved.le(f64::from(high)));
            vec![Some(gradient * inside.to_kind(gradient.kind()))]
        };
        Ok(with_backward(&[input], &rounded, inside)?)
    }

    /// Each sample rounded to the width that its gate chose. The gate's gradient is that of `Σ mask·Q(x)`.
    fn gated_input(&self, input: &Tensor, range: &InputRange, decision: &Decision) -> Result<Tensor> {
        if !range.extent.finite {
            return Ok(input.shallow_clone());
        }
        let grids: Vec<Grid> = decision
            .options
            .iter()
            .map(|option| match option.activation() {
                Some(bits) => self.grid(self.config.activation_grid, range.extent, bits),
                None => Ok(Grid::constant(0.0)),
            })
            .collect::<Result<_>>()?;
        let chosen: Vec<Grid> = decision.choice.iter().map(|choice| grids[*choice]).collect();
        if chosen.len() as i64 != input.size()[0] {
            return Err(Error::shape("samples that the gate decided for", input.size()[0], chosen.len()));
        }
        let rounded = memory::round(input, &chosen, Mode::Nearest)?;
        let (saved, keep, name) = (input.detach(), decision.keep(input), self.name.clone());
        let backward = move |gradient: &Tensor| {
            let masks = memory::products(&saved, gradient, &grids).unwrap_or_else(|error| panic!("`{name}`: {error}"));
            let input = match &keep {
                Some(keep) => gradient * keep,
                None => gradient.shallow_clone(),
            };
            vec![Some(input), Some(masks)]
        };
        Ok(with_backward(&[input, &decision.mask], &rounded, backward)?)
    }

    /// Has the gradient of `output` rounded when it arrives. `stream` tells apart several sites of a layer.
    fn hook(&self, output: &Tensor, bits: GradientBits, pass: u64, stream: u64) -> Result<()> {
        if !output.requires_grad() {
            self.handle.note_idle_gradient();
            return Ok(());
        }
        let mode = match self.config.stochastic_gradients {
            true => Mode::Stochastic(Stream::new(self.config.seed, 2 * self.place + stream, pass)),
            false => Mode::Nearest,
        };
        let (name, handle, compat) = (self.name.clone(), self.handle.clone(), self.config.reference_compat);
        register_hook(output, move |gradient| {
            let round = || -> Result<Tensor> {
                let extent = memory::scan(gradient)?;
                if !extent.finite {
                    handle.note_problem(&name, Operand::Gradient);
                    return Ok(gradient.shallow_clone());
                }
                let grid = |bits: Bits| floored(GridKind::MinMax.of(extent, bits, &name)?, extent, compat, bits);
                let grids = match &bits {
                    GradientBits::All(bits) => vec![grid(*bits)?],
                    GradientBits::Samples(decision) => {
                        let one = |choice: &usize| match decision.options[*choice].gradient() {
                            Some(bits) => grid(bits),
                            None => Ok(Grid::constant(0.0)),
                        };
                        decision.choice.iter().map(one).collect::<Result<_>>()?
                    }
                };
                memory::round(gradient, &grids, mode)
            };
            round().unwrap_or_else(|error| panic!("`{name}`: {error}"))
        })?;
        Ok(())
    }

    fn grid(&self, kind: GridKind, extent: Extent, bits: Bits) -> Result<Grid> {
        floored(kind.of(extent, bits, &self.name)?, extent, self.config.reference_compat, bits)
    }
}

/// The reference's absolute floor of a step, where asked for.
fn floored(grid: Grid, extent: Extent, compat: bool, bits: Bits) -> Result<Grid> {
    Ok(match compat {
        true if extent.low == extent.high => Grid { min: extent.low, step: 1e-8, steps: bits.steps() },
        true => Grid { step: grid.step.max(1e-8), ..grid },
        false => grid,
    })
}

/// The bits of a gradient.
enum GradientBits {
    All(Bits),
    Samples(Decision),
}

/// The values that cut off `share` on each side.
fn percentiles(values: &Tensor, share: f64) -> Result<Extent> {
    let flat = values.f_reshape([-1])?;
    let whole = memory::scan(&flat)?;
    if !whole.finite {
        return Ok(whole);
    }
    let count = flat.numel() as i64;
    let cut = ((count as f64 * share) as i64).clamp(0, (count - 1) / 2);
    let at = |rank: i64| -> Result<f32> {
        Ok(flat.f_kthvalue(rank, 0, false)?.0.f_to_kind(Kind::Double)?.double_value(&[]) as f32)
    };
    Ok(Extent { low: at(cut + 1)?, high: at(count - cut)?, finite: true })
}
