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

use serde::{Deserialize, Serialize};

/// Bits of the full-precision format that effective MACs are relative to.
pub const FULL_PRECISION_BITS: u8 = 32;

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

/// One operator with the precision and density of its three operands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// The parameter prefix in the network, such as `layer1.0.conv1`.
    pub name: String,
    /// What is computed, with its shapes.
    pub op: Operator,
    /// The stationary operand: a layer's weight, or the second factor of a matrix product.
    #[serde(default)]
    pub weight: Operand,
    /// The input activation.
    #[serde(default)]
    pub activation: Operand,
    /// The gradient that arrives from the layer above in training.
    #[serde(default)]
    pub gradient: Operand,
    /// Whether the layer belongs to the network or to a method's own machinery.
    #[serde(default)]
    pub role: Role,
}

/// Why a layer is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Part of the network proper.
    #[default]
    Network,
    /// Part of a method's control, such as a precision gate: real cost that published tables often leave out.
    Control,
}

/// Density and bit width of one operand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operand {
    /// Share of non-zero elements, in `[0, 1]`.
    pub density: f64,
    /// Bits an element, 1 to 32.
    pub bits: u8,
}

impl Default for Operand {
    /// Dense, 32 bits.
    fn default() -> Self {
        Self { density: 1.0, bits: FULL_PRECISION_BITS }
    }
}

/// The operators that carry multiply-accumulates.
///
/// Normalisation, activation and pooling are left out: their cost is small and models of them disagree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operator {
    /// A 2-d convolution; `groups == in_channels` is depthwise.
    Conv2d {
        /// Channels of the input.
        in_channels: u64,
        /// Filters.
        out_channels: u64,
        /// Kernel height and width.
        kernel: [u64; 2],
        /// Vertical and horizontal stride.
        stride: [u64; 2],
        /// Zeros added on each side, vertically and horizontally.
        #[serde(default)]
        padding: [u64; 2],
        /// Distance between kernel taps.
        #[serde(default = "ones")]
        dilation: [u64; 2],
        /// Independent groups; divides both channel counts.
        #[serde(default = "one")]
        groups: u64,
        /// Input height and width, before padding.
        input: [u64; 2],
    },
    /// A linear layer applied to `rows` vectors a sample (1 for a classifier, the sequence length for a transformer).
    Linear {
        /// Length of an input vector.
        in_features: u64,
        /// Length of an output vector.
        out_features: u64,
        /// Vectors a sample.
        #[serde(default = "one")]
        rows: u64,
    },
    /// A product of two activations, `count` times `[m, k] × [k, n]` (attention scores and their application).
    MatMul {
        /// Rows of the first factor.
        m: u64,
        /// Columns of the second factor.
        n: u64,
        /// The contracted size.
        k: u64,
        /// Independent products a sample (attention heads).
        #[serde(default = "one")]
        count: u64,
    },
}

fn one() -> u64 {
    1
}

fn ones() -> [u64; 2] {
    [1, 1]
}

/// The three passes of a training step; inference is [`Pass::Forward`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pass {
    /// Output = weight × activation.
    Forward,
    /// Gradient of the input = weight × gradient.
    InputGradient,
    /// Gradient of the weight = activation × gradient.
    WeightGradient,
}

impl Pass {
    /// All three, in the order of a training step.
    pub const TRAINING: [Pass; 3] = [Pass::Forward, Pass::InputGradient, Pass::WeightGradient];
}

/// Why a workload makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WorkloadError {
    /// A size is zero, or does not fit the others.
    #[error("layer `{layer}`: {field} is {found}, expected {expected}")]
    Shape {
        /// The offending layer.
        layer: String,
        /// The offending field.
        field: &'static str,
        /// What would have been right.
        expected: String,
        /// What was there.
        found: String,
    },
    /// A bit width outside 1 to 32.
    #[error("layer `{layer}`: {operand} has {found} bits, expected 1 to 32")]
    Bits {
        /// The offending layer.
        layer: String,
        /// `weight`, `activation` or `gradient`.
        operand: &'static str,
        /// What was there.
        found: u8,
    },
    /// A density outside `[0, 1]`, or not a number.
    #[error("layer `{layer}`: {operand} density is {found}, expected a number in [0, 1]")]
    Density {
        /// The offending layer.
        layer: String,
        /// `weight`, `activation` or `gradient`.
        operand: &'static str,
        /// What was there.
        found: f64,
    },
    /// A count that does not fit 64 bits.
    #[error("layer `{layer}`: its {quantity} do not fit in 64 bits")]
    Overflow {
        /// The offending layer, or the workload's name for a sum over layers.
        layer: String,
        /// What was counted.
        quantity: &'static str,
    },
    /// The batch is zero.
    #[error("workload `{workload}`: batch is 0, expected at least 1")]
    EmptyBatch {
        /// The workload's name.
        workload: String,
    },
}

impl Operator {
    /// A square convolution: channels in and out, kernel, stride, padding, and the input's `[height, width]`.
    pub fn conv2d(
        in_channels: u64,
        out_channels: u64,
        kernel: u64,
        stride: u64,
        padding: u64,
        input: [u64; 2],
    ) -> Self {
        Self::Conv2d {
            in_channels,
            out_channels,
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [padding; 2],
            dilation: [1; 2],
            groups: 1,
            input,
        }
    }

    /// A linear layer on one vector a sample.
    pub fn linear(in_features: u64, out_features: u64) -> Self {
        Self::Linear { in_features, out_features, rows: 1 }
    }

    /// Height and width of the output: `floor((input + 2·padding − dilation·(kernel − 1) − 1) / stride) + 1` for a
    /// convolution, `[rows, 1]` otherwise. Zero where the kernel does not fit.
    pub fn output_size(&self) -> [u64; 2] {
        match *self {
            Self::Conv2d { kernel, stride, padding, dilation, input, .. } => std::array::from_fn(|axis| {
                let reach = dilation[axis].saturating_mul(kernel[axis].saturating_sub(1)).saturating_add(1);
                let padded = input[axis].saturating_add(padding[axis].saturating_mul(2));
                if stride[axis] == 0 || padded < reach { 0 } else { (padded - reach) / stride[axis] + 1 }
            }),
            Self::Linear { rows, .. } => [rows, 1],
            Self::MatMul { m, .. } => [m, 1],
        }
    }

    /// Multiply-accumulates of one sample's dense forward pass; `None` past 64 bits.
    pub fn macs(&self) -> Option<u64> {
        match *self {
            Self::Conv2d { .. } => {
                let [height, width] = self.output_size();
                self.weights()?.checked_mul(height)?.checked_mul(width)
            }
            Self::Linear { rows, .. } => self.weights()?.checked_mul(rows),
            Self::MatMul { m, n, k, count } => m.checked_mul(n)?.checked_mul(k)?.checked_mul(count),
        }
    }

    /// Learned weights (biases and normalisation left out); 0 for a product of activations; `None` past 64 bits.
    pub fn weights(&self) -> Option<u64> {
        match *self {
            Self::Conv2d { in_channels, out_channels, kernel, groups, .. } => {
                let fan_in = in_channels.checked_div(groups)?;
                out_channels.checked_mul(fan_in)?.checked_mul(kernel[0])?.checked_mul(kernel[1])
            }
            Self::Linear { in_features, out_features, .. } => in_features.checked_mul(out_features),
            Self::MatMul { .. } => Some(0),
        }
    }

    fn sizes(&self) -> Vec<(&'static str, u64)> {
        match *self {
            Self::Conv2d { in_channels, out_channels, kernel, stride, dilation, groups, input, .. } => vec![
                ("in_channels", in_channels),
                ("out_channels", out_channels),
                ("kernel height", kernel[0]),
                ("kernel width", kernel[1]),
                ("vertical stride", stride[0]),
                ("horizontal stride", stride[1]),
                ("vertical dilation", dilation[0]),
                ("horizontal dilation", dilation[1]),
                ("groups", groups),
                ("input height", input[0]),
                ("input width", input[1]),
            ],
            Self::Linear { in_features, out_features, rows } => {
                vec![("in_features", in_features), ("out_features", out_features), ("rows", rows)]
            }
            Self::MatMul { m, n, k, count } => vec![("m", m), ("n", n), ("k", k), ("count", count)],
        }
    }
}

impl Layer {
    /// A dense 32-bit layer of the network proper.
    pub fn new(name: impl Into<String>, op: Operator) -> Self {
        Self {
            name: name.into(),
            op,
            weight: Operand::default(),
            activation: Operand::default(),
            gradient: Operand::default(),
            role: Role::Network,
        }
    }

    /// The two operands that a pass multiplies.
    pub fn operands(&self, pass: Pass) -> [Operand; 2] {
        match pass {
            Pass::Forward => [self.weight, self.activation],
            Pass::InputGradient => [self.weight, self.gradient],
            Pass::WeightGradient => [self.activation, self.gradient],
        }
    }

    /// Cost of one MAC of this pass relative to a dense 32-bit one: the product of both operands' `bits / 32`.
    pub fn precision_factor(&self, pass: Pass) -> f64 {
        let full = f64::from(FULL_PRECISION_BITS);
        self.operands(pass).iter().map(|operand| f64::from(operand.bits) / full).product()
    }

    /// Share of this pass's MACs whose operands are both non-zero, were the zeros independent.
    pub fn density_factor(&self, pass: Pass) -> f64 {
        self.operands(pass).iter().map(|operand| operand.density).product()
    }

    /// Checks sizes, densities and bit widths.
    ///
    /// # Errors
    /// The first field that makes no sense, by layer and field name.
    pub fn validate(&self) -> Result<(), WorkloadError> {
        let shape = |field, expected: String, found: String| {
            Err(WorkloadError::Shape { layer: self.name.clone(), field, expected, found })
        };
        for (field, size) in self.op.sizes() {
            if size == 0 {
                return shape(field, "at least 1".into(), "0".into());
            }
        }
        if let Operator::Conv2d { in_channels, out_channels, groups, kernel, input, padding, .. } = self.op {
            if in_channels % groups != 0 || out_channels % groups != 0 {
                return shape("groups", format!("a divisor of {in_channels} and {out_channels}"), groups.to_string());
            }
            if self.op.output_size().contains(&0) {
                let room = format!("at most the padded input {input:?} + 2·{padding:?}");
                return shape("kernel", room, format!("{kernel:?}"));
            }
        }
        for (operand, value) in [("weight", self.weight), ("activation", self.activation), ("gradient", self.gradient)]
        {
            if !(1..=FULL_PRECISION_BITS).contains(&value.bits) {
                return Err(WorkloadError::Bits { layer: self.name.clone(), operand, found: value.bits });
            }
            if !(0.0..=1.0).contains(&value.density) {
                return Err(WorkloadError::Density { layer: self.name.clone(), operand, found: value.density });
            }
        }
        if self.op.macs().is_none() {
            return Err(WorkloadError::Overflow { layer: self.name.clone(), quantity: "MACs" });
        }
        Ok(())
    }
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
    fn grouped_and_strided_convolutions_count_by_hand() {
        let depthwise = Operator::Conv2d {
            in_channels: 32,
            out_channels: 32,
            kernel: [3, 3],
            stride: [2, 2],
            padding: [1, 1],
            dilation: [1, 1],
            groups: 32,
            input: [15, 14],
        };
        assert_eq!(depthwise.output_size(), [8, 7]); // floor((15+2−3)/2)+1, floor((14+2−3)/2)+1
        assert_eq!(depthwise.weights(), Some(32 * 9));
        assert_eq!(depthwise.macs(), Some(32 * 9 * 8 * 7));
    }

    #[test]
    fn bad_layers_are_refused_by_name_and_field() {
        let refuse = |change: fn(&mut Layer), needle: &str| {
            let mut layer = Layer::new("conv9", Operator::conv2d(4, 8, 3, 1, 0, [5, 5]));
            change(&mut layer);
            let message = layer.validate().unwrap_err().to_string();
            assert!(message.contains("conv9") && message.contains(needle), "{message}");
        };
        refuse(|layer| layer.op = Operator::conv2d(4, 8, 7, 1, 0, [5, 5]), "kernel");
        refuse(|layer| layer.op = Operator::conv2d(0, 8, 3, 1, 0, [5, 5]), "in_channels");
        refuse(|layer| layer.weight.bits = 0, "weight has 0 bits");
        refuse(|layer| layer.gradient.bits = 33, "gradient has 33 bits");
        refuse(|layer| layer.activation.density = f64::NAN, "activation density is NaN");
        refuse(|layer| layer.op = Operator::linear(u64::MAX, 2), "64 bits");
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
