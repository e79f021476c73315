//! What a network asks of hardware: layers, shapes, densities, bit widths. No tensors, no libtorch.
//!
//! A [`Workload`] is the one currency between the methods and the hardware models: pruning lowers
//! [`Operand::density`], quantisation lowers [`Operand::bits`], an accelerator model prices the result.
//! MACs, parameters and effective MACs are computed here and nowhere else.
//!
//! ```
//! use core_tensor::workload::{Layer, Operator, Pass, Workload};
//!
//! let conv = Operator::conv2d(3, 16, 3, 1, 1, [32, 32]);
//! let mut net = Workload::new("one layer", vec![Layer::new("conv1", conv)]);
//! assert_eq!(net.macs()?, 16 * 3 * 9 * 32 * 32);
//!
//! // 8-bit weights and activations cost (8·8)/(32·32) = 1/16 of a full-precision MAC.
//! net.layers[0].weight.bits = 8;
//! net.layers[0].activation.bits = 8;
//! assert_eq!(net.effective_macs(Pass::Forward)?, net.macs()? as f64 / 16.0);
//! # Ok::<(), core_tensor::workload::WorkloadError>(())
//! ```

mod error;
mod layer;
mod operator;

pub use error::WorkloadError;
pub use layer::{FULL_PRECISION_BITS, Layer, Operand, Pass, Role};
pub use operator::Operator;

use serde::{Deserialize, Serialize};

/// An ordered list of layers, as executed for one sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// A name for reports.
    pub name: String,
    /// Samples processed together. Counts below are for the whole batch.
    #[serde(default = "one")]
    pub batch: u64,
    /// The layers in execution order.
    pub layers: Vec<Layer>,
}

impl Workload {
    /// A workload of batch 1.
    pub fn new(name: impl Into<String>, layers: Vec<Layer>) -> Self {
        Self { name: name.into(), batch: 1, layers }
    }

    /// Checks every layer and the batch.
    ///
    /// # Errors
    /// The first layer and field that make no sense.
    pub fn validate(&self) -> Result<(), WorkloadError> {
        if self.batch == 0 {
            return Err(WorkloadError::EmptyBatch { workload: self.name.clone() });
        }
        self.layers.iter().try_for_each(Layer::validate)?;
        self.macs().map(drop)
    }

    /// Dense multiply-accumulates of one forward pass of the batch.
    ///
    /// # Errors
    /// [`WorkloadError::Overflow`] past 64 bits.
    pub fn macs(&self) -> Result<u64, WorkloadError> {
        let layers = self.sum("MACs", Operator::macs)?;
        layers.checked_mul(self.batch).ok_or_else(|| self.overflow("MACs"))
    }

    /// Learned weights of convolutions and linear layers; biases and normalisation left out.
    ///
    /// # Errors
    /// [`WorkloadError::Overflow`] past 64 bits.
    pub fn weights(&self) -> Result<u64, WorkloadError> {
        self.sum("weights", Operator::weights)
    }

    /// MACs of one pass weighted by both operands' precision, in full-precision MACs: `Σ MACs · (b₁/32)·(b₂/32)`
    /// (FracTrain, arXiv 2012.13113, section 3: the cost of a b₁ × b₂ bit MAC is taken as proportional to b₁·b₂).
    ///
    /// # Errors
    /// [`WorkloadError::Overflow`] past 64 bits.
    pub fn effective_macs(&self, pass: Pass) -> Result<f64, WorkloadError> {
        self.weighted(|layer| layer.precision_factor(pass))
    }

    /// MACs of one pass that a machine skipping every zero of both operands would still do.
    ///
    /// # Errors
    /// [`WorkloadError::Overflow`] past 64 bits.
    pub fn nonzero_macs(&self, pass: Pass) -> Result<f64, WorkloadError> {
        self.weighted(|layer| layer.density_factor(pass))
    }

    /// The same network without [`Role::Control`] layers, as published cost tables count it.
    pub fn without_control(&self) -> Self {
        let layers = self.layers.iter().filter(|layer| layer.role == Role::Network).cloned().collect();
        Self { name: self.name.clone(), batch: self.batch, layers }
    }

    fn weighted(&self, factor: impl Fn(&Layer) -> f64) -> Result<f64, WorkloadError> {
        self.macs()?;
        let layer_cost = |layer: &Layer| layer.op.macs().unwrap_or(0) as f64 * factor(layer);
        Ok(self.layers.iter().map(layer_cost).sum::<f64>() * self.batch as f64)
    }

    fn sum(&self, quantity: &'static str, count: impl Fn(&Operator) -> Option<u64>) -> Result<u64, WorkloadError> {
        self.layers.iter().try_fold(0_u64, |total, layer| {
            let overflow = || WorkloadError::Overflow { layer: layer.name.clone(), quantity };
            total.checked_add(count(&layer.op).ok_or_else(overflow)?).ok_or_else(|| self.overflow(quantity))
        })
    }

    fn overflow(&self, quantity: &'static str) -> WorkloadError {
        WorkloadError::Overflow { layer: self.name.clone(), quantity }
    }
}

fn one() -> u64 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn precision(weight: u8, gradient: u8) -> Workload {
        let mut layer = Layer::new("conv", Operator::conv2d(16, 16, 3, 1, 1, [8, 8]));
        layer.weight.bits = weight;
        layer.activation.bits = weight;
        layer.gradient.bits = gradient;
        Workload::new("w", vec![layer])
    }

    #[test]
    fn training_cost_in_percent_of_full_precision_is_the_published_table() {
        // (bᵂ·bᴬ + bᵂ·bᴳ + bᴬ·bᴳ) / (3·1024), worked by hand: 3/6 → (9+18+18)/3072 = 1.4648 %.
        for (weight, gradient, percent) in [(3, 6, 1.4648), (6, 8, 4.2969), (8, 8, 6.25), (8, 16, 10.4167)] {
            let net = precision(weight, gradient);
            let passes = Pass::TRAINING.map(|pass| net.effective_macs(pass).unwrap());
            let share = 100.0 * passes.iter().sum::<f64>() / (3.0 * net.macs().unwrap() as f64);
            assert!((share - percent).abs() < 5e-5, "{weight}/{gradient}: {share}");
        }
    }

    #[test]
    fn zeros_and_batches_count_by_hand() {
        let mut net = precision(32, 32);
        let dense = net.macs().unwrap();
        net.batch = 3;
        net.layers[0].weight.density = 0.5;
        net.layers[0].activation.density = 0.25;
        net.layers[0].gradient.density = 0.125;
        assert_eq!((net.macs().unwrap(), net.weights().unwrap()), (3 * dense, 16 * 16 * 9));
        // Weight and activation, weight and gradient, activation and gradient.
        let shares = Pass::TRAINING.map(|pass| net.nonzero_macs(pass).unwrap() / (3 * dense) as f64);
        assert_eq!(shares, [0.125, 0.0625, 0.031_25]);
    }

    #[test]
    fn control_layers_can_be_left_out() {
        let mut net = precision(8, 8);
        let body = net.macs().unwrap();
        let mut gate = Layer::new("gate", Operator::linear(16, 10));
        gate.role = Role::Control;
        net.layers.push(gate);
        assert_eq!(net.macs().unwrap(), body + 160);
        assert_eq!(net.without_control().macs().unwrap(), body);
    }

    proptest! {
        #[test]
        fn json_round_trip_keeps_a_workload(channels in 1_u64..64, kernel in 1_u64..4, bits in 1_u8..33, density in 0.0_f64..1.0) {
            let mut layer = Layer::new("c", Operator::conv2d(channels, 8, kernel, 1, 1, [9, 9]));
            layer.weight = Operand { density, bits };
            let net = Workload::new("n", vec![layer]);
            net.validate().unwrap();
            let json = serde_json::to_string(&net).unwrap();
            prop_assert_eq!(serde_json::from_str::<Workload>(&json).unwrap(), net);
        }

        #[test]
        fn counts_never_panic_on_any_sizes(sizes in proptest::array::uniform8(any::<u64>())) {
            let [a, b, c, d, e, f, g, h] = sizes;
            let op = Operator::Conv2d { in_channels: a, out_channels: b, kernel: [c, d], stride: [e, f],
                padding: [g, h], dilation: [1, g], groups: c, input: [a, d] };
            let _ = Workload::new("n", vec![Layer::new("l", op)]).validate();
        }
    }
}
