//! The operators that carry multiply-accumulates: their shapes, and what these make them cost.

use super::one;
use serde::{Deserialize, Serialize};

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

    pub(super) fn sizes(&self) -> Vec<(&'static str, u64)> {
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

fn ones() -> [u64; 2] {
    [1, 1]
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
