//! What a training cost, in effective multiply-accumulates: MACs weighted by both operands' `bits / 32`, summed over
//! layers, the three passes, samples and steps.

use super::gate::Gates;
use super::{Error, Precision, QuantHandle, Result};
use core_tensor::optim::{NamedTensors, Optimizer};
use core_tensor::train::{Control, EpochReport, Observer, Progress, StepContext};
use core_tensor::workload::{Layer, Pass, Workload};
use indexmap::IndexMap;
use tch::{Kind, Tensor};

/// Adds up the cost of a training, as an observer.
///
/// Adds the metrics `effective_macs` (so far, everything counted), `reference_macs` (so far, as the paper counts: all three
/// passes of the quantised layers alone) and, for ungated networks, `cp` (of this epoch, percent of full precision, as the
/// paper counts).
///
/// Samples are those of all training passes since the last step, as the layer counts them that was the first to see one.
/// With gates they are priced by the last finished pass of the step. Layers whose weights are frozen are charged
/// all three passes like any other.
///
/// A loop of your own, without a trainer, calls [`step`](Self::step).
#[derive(Debug)]
pub struct CostLedger {
    handle: QuantHandle,
    gates: Option<Gates>,
    /// MACs of a sample's forward pass: quantised layers, and the part of them whose input gradient nobody computes.
    quantised: Macs,
    /// The same of layers in full precision, gates among them.
    full: Macs,
    /// Samples seen at each precision.
    phases: IndexMap<Precision, f64>,
    /// Sums of `share·cost·MACs` of gated layers, when there are gates.
    gated: f64,
    /// Samples by block and option, when there are gates.
    options: Vec<Vec<f64>>,
    epoch: (f64, f64),
    /// What the handle had counted when that was last looked at.
    seen: IndexMap<Precision, u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Macs {
    all: f64,
    /// Of the network's first layer where its input needs no gradient.
    first: f64,
}

impl CostLedger {
    /// For a network whose single sample has this workload, as [`trace_workload`](core_tensor::nn::trace_workload) finds it
    /// after building with the factory that `handle` and `gates` are from.
    ///
    /// Quantised layers tell how many samples a step has, so that a network without one cannot be counted.
    ///
    /// # Errors
    /// [`Error::Core`] for a workload that makes no sense; [`Error::Shape`] for one that lacks a quantised layer, and
    /// for a network that has none; [`Error::Config`] for a network with gates without them.
    pub fn new(workload: &Workload, handle: &QuantHandle, gates: Option<&Gates>) -> Result<Self> {
        workload.validate().map_err(core_tensor::Error::from)?;
        let layers = handle.layers();
        if layers.is_empty() {
            return Err(Error::shape("quantised layers of the network", "at least 1, to count samples", "none"));
        }
        let missing = layers.iter().find(|name| !workload.layers.iter().any(|layer| layer.name == **name));
        if let Some(name) = missing {
            return Err(Error::shape("workload", format!("a layer `{name}`"), "none"));
        }
        // The handle's precision is not theirs.
        if let Some(name) = layers.iter().find(|name| gates.is_none() && handle.is_gated(name)) {
            return Err(Error::config("gates", format!("the network's, which choose the bits of `{name}`"), "none"));
        }
        let macs = |layer: &Layer| layer.op.macs().unwrap_or(0) as f64;
        let (mut quantised, mut full) = (Macs::default(), Macs::default());
        for (index, layer) in workload.layers.iter().enumerate() {
            let sum = if layers.contains(&layer.name) { &mut quantised } else { &mut full };
            sum.all += macs(layer);
            sum.first += if index == 0 { macs(layer) } else { 0.0 };
        }
        full.all += gates.map_or(0.0, |gates| gates.control_layers().iter().map(macs).sum());
        Ok(Self {
            handle: handle.clone(),
            gates: gates.cloned(),
            quantised,
            full,
            phases: IndexMap::new(),
            gated: 0.0,
            options: Vec::new(),
            epoch: (0.0, 0.0),
            seen: handle.samples(),
        })
    }

    /// Counts the first layer's input gradient too, in [`effective_macs`](Self::effective_macs): for a network that
    /// begins with something trained that has no multiply-accumulates, such as a table of words. A workload does not
    /// tell.
    #[must_use]
    pub fn behind_embedding(mut self) -> Self {
        (self.quantised.first, self.full.first) = (0.0, 0.0);
        self
    }

    /// Adds the training passes since the last call, or since the ledger was made. As an observer it does this itself.
    ///
    /// # Errors
    /// [`Error::Config`] for a network with gates of which no pass was ever [finished](Gates::finish).
    pub fn step(&mut self) -> Result<()> {
        let samples = self.handle.samples();
        let seen = std::mem::replace(&mut self.seen, samples.clone());
        for (precision, samples) in samples {
            let new = samples - seen.get(&precision).copied().unwrap_or(0);
            if new > 0 {
                self.add(new as f64, precision)?;
            }
        }
        Ok(())
    }

    /// Adds `batch` samples.
    ///
    /// # Errors
    /// Gates of which no pass was ever finished.
    fn add(&mut self, batch: f64, precision: Precision) -> Result<()> {
        let passed = match &self.gates {
            Some(gates) => Some(gates.last_pass().ok_or_else(|| {
                Error::config("objective", "one that finishes the gates' passes, as `WithGateCost` does", "another")
            })?),
            None => None,
        };
        *self.phases.entry(precision).or_default() += batch;
        self.epoch.1 += batch;
        let Some((histogram, macs, cp)) = passed else {
            self.epoch.0 += batch * precision.cost_percent();
            return Ok(());
        };
        self.epoch.0 += batch * cp;
        let total: u64 = macs.iter().sum();
        self.gated += batch * 3.0 * cp / 100.0 * total as f64;
        self.options.resize(histogram.len(), Vec::new());
        for (sums, row) in self.options.iter_mut().zip(histogram) {
            sums.resize(row.len(), 0.0);
            sums.iter_mut().zip(row).for_each(|(sum, count)| *sum += count as f64);
        }
        Ok(())
    }

    /// Everything so far, in full-precision MACs: layers in full precision and gates too, and without the input gradient of
    /// the first layer, which nobody computes where that layer reads the data
    /// (elsewhere: [`behind_embedding`](Self::behind_embedding)).
    pub fn effective_macs(&self) -> f64 {
        let of = |macs: Macs, [forward, input, weight]: [f64; 3]| {
            macs.all * (forward + weight) + (macs.all - macs.first) * input
        };
        let samples: f64 = self.phases.values().sum();
        let quantised = if self.gates.is_some() {
            self.gated
        } else {
            self.phases.iter().map(|(precision, samples)| samples * of(self.quantised, precision.cost())).sum()
        };
        quantised + samples * of(self.full, [1.0; 3])
    }

    /// What the paper's tables call MACs: all three passes of the quantised layers, and nothing else.
    pub fn reference_macs(&self) -> f64 {
        if self.gates.is_some() {
            return self.gated;
        }
        let cost = |precision: &Precision| precision.cost().iter().sum::<f64>();
        self.phases.iter().map(|(precision, samples)| samples * cost(precision) * self.quantised.all).sum()
    }

    /// The mean cost so far as the paper counts it, in percent of full precision; 0 before the first step.
    pub fn cp(&self) -> f64 {
        let full = 3.0 * self.phases.values().sum::<f64>() * self.quantised.all;
        if full == 0.0 { 0.0 } else { 100.0 * self.reference_macs() / full }
    }

    /// Samples seen at each precision, in the order in which the precisions first came. Gated layers' own bits are in
    /// [`option_shares`](Self::option_shares).
    pub fn phases(&self) -> impl Iterator<Item = (Precision, f64)> {
        self.phases.iter().map(|(precision, samples)| (*precision, *samples))
    }

    /// The share of samples that chose each option, by block; empty without gates.
    pub fn option_shares(&self) -> Vec<Vec<f64>> {
        let shares = |row: &Vec<f64>| {
            let total: f64 = row.iter().sum();
            row.iter().map(|count| count / total.max(1.0)).collect()
        };
        self.options.iter().map(shares).collect()
    }
}

impl Observer for CostLedger {
    fn name(&self) -> &str {
        "cost"
    }

    fn before_epoch(&mut self, _: Progress, _: &mut dyn Optimizer) -> core_tensor::Result<()> {
        // What ran since the last step belongs to none.
        self.seen = self.handle.samples();
        Ok(())
    }

    fn after_step(&mut self, _: &StepContext, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        self.step().map_err(|error| error.into_core("cost"))?;
        Ok(Control::Continue)
    }

    fn after_epoch(&mut self, report: &mut EpochReport, _: &mut dyn Optimizer) -> core_tensor::Result<Control> {
        report.metrics.insert("effective_macs".into(), self.effective_macs());
        report.metrics.insert("reference_macs".into(), self.reference_macs());
        let (sum, samples) = std::mem::take(&mut self.epoch);
        if self.gates.is_none() && samples > 0.0 {
            report.metrics.insert("cp".into(), sum / samples);
        }
        Ok(Control::Continue)
    }

    /// Phases as rows of (weight, activation, gradient, weight gradient, samples), 0 bits for none; then what gates chose.
    fn state(&self) -> NamedTensors {
        let rows = self.phases.iter().flat_map(|(precision, samples)| {
            let [weight, activation, gradient, weight_gradient] = precision.to_numbers();
            [weight, activation, gradient, weight_gradient, *samples]
        });
        let rows: Vec<f64> = rows.collect();
        let columns = self.options.first().map_or(0, Vec::len) as f64;
        let mut gated = vec![self.gated, columns];
        gated.extend(self.options.iter().flatten());
        NamedTensors::from([
            ("phases".to_owned(), Tensor::from_slice(&rows)),
            ("gated".to_owned(), Tensor::from_slice(&gated)),
        ])
    }

    fn load_state(&mut self, saved: &NamedTensors) -> core_tensor::Result<()> {
        let misfit = |found: String| core_tensor::Error::tensor("cost/state", "phases and gates", found);
        let numbers = |name: &str| -> core_tensor::Result<Vec<f64>> {
            let tensor = saved.get(name).ok_or_else(|| misfit(format!("no `{name}`")))?;
            Ok(Vec::try_from(tensor.to_kind(Kind::Double).to_device(tch::Device::Cpu).contiguous())?)
        };
        let (phases, gated) = (numbers("phases")?, numbers("gated")?);
        let [sum, columns, options @ ..] = &gated[..] else {
            return Err(misfit(format!("{} numbers on gates", gated.len())));
        };
        let mut restored = IndexMap::new();
        for row in phases.chunks(5) {
            let &[weight, activation, gradient, weight_gradient, samples] = row else {
                return Err(misfit(format!("{} numbers on phases", phases.len())));
            };
            let precision = Precision::from_numbers([weight, activation, gradient, weight_gradient]);
            restored.insert(precision.map_err(|error| error.into_core("cost"))?, samples);
        }
        self.options = match *columns as usize {
            0 => Vec::new(),
            columns => options.chunks(columns).map(<[f64]>::to_vec).collect(),
        };
        (self.phases, self.gated) = (restored, *sum);
        Ok(())
    }
}

/// The workload with the bits of a precision on the named layers, as hardware models price it. Names must be whole; one
/// that no layer of the workload has changes nothing.
///
/// A workload has one width for gradients, so that [`Precision::weight_gradient`] is left out. What a ledger counts for
/// a bifurcated precision is the forward and input-gradient passes of this workload and the weight-gradient pass of
/// another, at a `gradient` of `weight_gradient`.
pub fn at_precision(workload: &Workload, layers: &[String], precision: Precision) -> Workload {
    let [weight, activation, gradient] = precision.widths();
    let mut changed = workload.clone();
    for layer in changed.layers.iter_mut().filter(|layer| layers.contains(&layer.name)) {
        (layer.weight.bits, layer.activation.bits, layer.gradient.bits) = (weight, activation, gradient);
    }
    changed
}

/// Effective MACs of a training step of `workload`, all three passes of every layer: what a ledger is checked against,
/// unless it saw a bifurcated precision (see [`at_precision`]).
///
/// # Errors
/// A workload that makes no sense.
pub fn step_cost(workload: &Workload) -> Result<f64> {
    let passes = Pass::TRAINING.map(|pass| workload.effective_macs(pass));
    passes.into_iter().try_fold(0.0, |sum, pass| Ok(sum + pass.map_err(core_tensor::Error::from)?))
}

#[cfg(test)]
mod tests;
