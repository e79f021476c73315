//! An operator in its place in the network: the density and precision of its three operands, and which of them each pass
//! of a training step multiplies.

use super::{Operator, WorkloadError};
use serde::{Deserialize, Serialize};

/// Bits of the full-precision format that effective MACs are relative to.
pub const FULL_PRECISION_BITS: u8 = 32;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
