//! What the layers of one network share: their precision, their ranges, and what went wrong in them.

use super::{Error, Operand, Precision, QuantConfig, Result};
use indexmap::IndexMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tch::{Kind, Tensor, no_grad};

/// A handle on a quantised network, from [`QuantFactory::handle`](super::QuantFactory::handle). Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct QuantHandle(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    precision: Precision,
    layers: Vec<Layer>,
    /// Of the last training pass.
    last: Precision,
    /// The layer that samples are counted at: the first to see a training pass.
    counts: Option<u64>,
    /// Samples that it has seen in training passes, by precision.
    samples: IndexMap<Precision, u64>,
    problem: Option<(String, Operand)>,
    idle_gradient_sites: u64,
}

/// What a handle knows of a layer.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) name: String,
    pub(super) range: RangeBuffer,
    /// Whether a gate chooses its bits.
    pub(super) gated: bool,
    /// Of a convolution; 1 for a linear layer; none for a layer of the user's own, of which nothing is known.
    pub(super) groups: Option<i64>,
    pub(super) config: Arc<QuantConfig>,
}

impl QuantHandle {
    /// A handle on layers at this precision.
    pub(super) fn new(precision: Precision) -> Self {
        let handle = Self::default();
        handle.set_precision(precision);
        handle
    }

    /// The precision of the next forward pass.
    pub fn precision(&self) -> Precision {
        self.lock().precision
    }

    /// Changes the precision of all layers from the next forward pass on. Gated layers take only the weight's, instead of
    /// [`DfqConfig::weight`](super::DfqConfig::weight); what their options cost follows.
    ///
    /// # Panics
    /// Not here, but in that pass: one bit on a [symmetric](super::GridKind::Symmetric) grid, which has no such width.
    /// A [`PrecisionController`](super::PrecisionController) gives an error instead.
    pub fn set_precision(&self, precision: Precision) {
        self.lock().precision = precision;
    }

    /// Refuses a precision of fewer bits than a layer's grid can have.
    ///
    /// # Errors
    /// [`Error::Config`], naming the grid.
    pub(super) fn check_precision(&self, precision: Precision) -> Result<()> {
        let check = |layer: &Layer| match layer.gated {
            true => layer.config.check_precision(Precision { activation: None, ..precision }),
            false => layer.config.check_precision(precision),
        };
        self.lock().layers.iter().try_for_each(check)
    }

    /// The quantised layers, in the order in which they were made.
    pub fn layers(&self) -> Vec<String> {
        self.lock().layers.iter().map(|layer| layer.name.clone()).collect()
    }

    /// Forgets the moving averages of all ranges. After a switch of precision the old ones describe another network.
    pub fn reset_ranges(&self) {
        self.lock().layers.iter().for_each(|layer| layer.range.forget());
    }

    /// The range that a layer's input has in evaluation: least value and width. Under
    /// [`RangeRule::Batch`](super::RangeRule::Batch), that of the last training pass.
    ///
    /// # Errors
    /// [`Error::Uncalibrated`] before the layer's first training step. (A forward pass in evaluation then takes the range
    /// of its batch.) [`Error::Config`] for a layer that is not quantised.
    pub fn input_range(&self, layer: &str) -> Result<(f32, f32)> {
        let shared = self.lock();
        let Some(found) = shared.layers.iter().find(|found| found.name == layer) else {
            return Err(Error::config("layer", "the name of a quantised layer", layer));
        };
        found.range.average(found.config.reference_compat).ok_or_else(|| Error::Uncalibrated { layer: layer.into() })
    }

    /// Whether every layer has seen a training step.
    ///
    /// # Errors
    /// [`Error::Uncalibrated`], naming the first that has not.
    pub fn check_calibrated(&self) -> Result<()> {
        self.layers().iter().try_for_each(|layer| self.input_range(layer).map(drop))
    }

    /// Fails if a value to be rounded was NaN or infinite since the last call. Such a value passes unrounded, so that the
    /// loss shows it too.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the layer and operand that broke first.
    pub fn check_finite(&self, step: u64) -> Result<()> {
        match self.lock().problem.take() {
            None => Ok(()),
            Some((site, operand)) => Err(Error::NotFinite { site, operand, step }),
        }
    }

    /// How often a layer's gradient was to be rounded in a training pass whose output needs no gradient: a sign of frozen
    /// weights.
    pub fn idle_gradient_sites(&self) -> u64 {
        self.lock().idle_gradient_sites
    }

    /// Whether a gate chooses the layer's bits.
    pub(super) fn is_gated(&self, layer: &str) -> bool {
        self.lock().layers.iter().any(|found| found.name == layer && found.gated)
    }

    /// Groups of a layer that is a convolution; 1 for a linear one, and none for one of the user's own.
    pub(super) fn groups(&self, layer: &str) -> Option<i64> {
        self.lock().layers.iter().find(|found| found.name == layer).and_then(|found| found.groups)
    }

    /// How a layer rounds; the defaults for one that is not quantised.
    pub(super) fn config(&self, layer: &str) -> Arc<QuantConfig> {
        let shared = self.lock();
        let found = shared.layers.iter().find(|found| found.name == layer);
        found.map_or_else(Arc::default, |found| found.config.clone())
    }

    pub(super) fn add_layer(&self, layer: Layer) -> u64 {
        let mut shared = self.lock();
        shared.layers.push(layer);
        shared.layers.len() as u64
    }

    /// A training pass of the layer at `place`.
    pub(super) fn note_forward(&self, place: u64, batch: u64, precision: Precision) {
        let mut shared = self.lock();
        shared.last = precision;
        if *shared.counts.get_or_insert(place) == place {
            *shared.samples.entry(precision).or_default() += batch;
        }
    }

    /// The precision of the last training pass.
    pub(super) fn last_precision(&self) -> Precision {
        self.lock().last
    }

    /// Samples of all training passes so far, by precision.
    pub(super) fn samples(&self) -> IndexMap<Precision, u64> {
        self.lock().samples.clone()
    }

    pub(super) fn note_problem(&self, site: &str, operand: Operand) {
        self.lock().problem.get_or_insert_with(|| (site.into(), operand));
    }

    pub(super) fn note_idle_gradient(&self) {
        self.lock().idle_gradient_sites += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // No invariant spans two fields, so that a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A layer's moving range and its count of training passes, in a variable of four numbers: least value, width, the weight
/// that the average has gathered so far, and the count. It is saved and restored with the network.
#[derive(Debug)]
pub(super) struct RangeBuffer(Tensor);

impl RangeBuffer {
    /// Over a variable of four zeros.
    pub(super) fn new(variable: Tensor) -> Self {
        Self(variable)
    }

    pub(super) fn shallow_clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }

    /// Counts a training pass and averages its range in; returns the passes before it.
    pub(super) fn update(&self, low: f32, width: f32, momentum: f64) -> u64 {
        let [old_low, old_width, weight, count] = self.read();
        let mix = |old: f32, new: f32| (momentum * f64::from(old) + (1.0 - momentum) * f64::from(new)) as f32;
        self.write([mix(old_low, low), mix(old_width, width), mix(weight, 1.0), count + 1.0]);
        count as u64
    }

    /// The averaged least value and width, if any pass was averaged. `raw` leaves out the correction for the zeros that
    /// the average began with.
    pub(super) fn average(&self, raw: bool) -> Option<(f32, f32)> {
        let [low, width, weight, _] = self.read();
        let divisor = if raw { 1.0 } else { weight };
        (weight > 0.0).then(|| (low / divisor, width / divisor))
    }

    fn forget(&self) {
        let [.., count] = self.read();
        self.write([0.0, 0.0, 0.0, count]);
    }

    fn read(&self) -> [f32; 4] {
        let mut values = [0.0; 4];
        // A store that is cast takes this variable along.
        self.0.to_kind(Kind::Float).to_device(tch::Device::Cpu).copy_data(&mut values, 4);
        values
    }

    fn write(&self, values: [f32; 4]) {
        no_grad(|| self.0.shallow_clone().copy_(&Tensor::from_slice(&values)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn buffer() -> RangeBuffer {
        RangeBuffer::new(Tensor::zeros([4], (Kind::Float, Device::Cpu)))
    }

    #[test]
    fn the_moving_average_starts_at_the_first_range_unless_raw() {
        let buffer = buffer();
        assert_eq!(buffer.average(false), None);
        assert_eq!(buffer.update(-1.0, 4.0, 0.9), 0);
        // Raw: a tenth of the truth after one step, 1 − 0.9^5 = 41 % after five.
        let (low, width) = buffer.average(true).unwrap();
        assert!((low + 0.1).abs() < 1e-6 && (width - 0.4).abs() < 1e-6);
        let passes: Vec<u64> = (0..4).map(|_| buffer.update(-1.0, 4.0, 0.9)).collect();
        assert_eq!(passes, [1, 2, 3, 4]);
        assert!((buffer.average(true).unwrap().1 - 4.0 * 0.40951).abs() < 1e-4);
        let (low, width) = buffer.average(false).unwrap();
        assert!((low + 1.0).abs() < 1e-5 && (width - 4.0).abs() < 1e-5);
    }

    #[test]
    fn forgetting_keeps_the_count_of_passes() {
        let buffer = buffer();
        buffer.update(0.0, 1.0, 0.9);
        buffer.forget();
        assert_eq!((buffer.average(false), buffer.update(0.0, 1.0, 0.9)), (None, 1));
    }

    #[test]
    fn the_first_problem_is_told_once() {
        let handle = QuantHandle::default();
        handle.note_problem("conv1", Operand::Gradient);
        handle.note_problem("conv2", Operand::Weight);
        let error = handle.check_finite(7).unwrap_err().to_string();
        assert_eq!(error, "step 7: the gradient at `conv1` holds a NaN or an infinity");
        assert!(handle.check_finite(8).is_ok());
    }
}
