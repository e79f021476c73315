//! One pass of one layer as loop bounds: what every engine runs.

use core_tensor::workload::{FULL_PRECISION_BITS, Layer, Operand, Operator, Pass, Role, Workload};
use serde::{Deserialize, Serialize};

use crate::error::{HwError, narrow};
use crate::systolic::Gemm;

/// The three operands of a pass, by what they are to the array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperandKind {
    /// What streams through the windows: activations, or gradients in the input-gradient pass.
    Input,
    /// What is reused across pixels: weights, or gradients in the weight-gradient pass.
    Weight,
    /// What is accumulated.
    Output,
}

impl OperandKind {
    /// All three; `kind as usize` indexes arrays of three.
    pub const ALL: [Self; 3] = [Self::Input, Self::Weight, Self::Output];

    /// `input`, `weight` or `output`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Weight => "weight",
            Self::Output => "output",
        }
    }
}

/// Loop bounds of a (grouped) convolution; a matrix product has `y = r = s = 1`.
///
/// Counts of a shape that [`validate`](Self::validate) refuses stop at `u64::MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Independent copies: groups, or matrix products.
    pub groups: u64,
    /// Samples.
    pub n: u64,
    /// Output channels of a group.
    pub k: u64,
    /// Input channels of a group.
    pub c: u64,
    /// Output rows.
    pub y: u64,
    /// Output columns.
    pub x: u64,
    /// Kernel rows.
    pub r: u64,
    /// Kernel columns.
    pub s: u64,
    /// Vertical and horizontal stride.
    pub stride: [u64; 2],
    /// Vertical and horizontal distance between taps.
    pub dilation: [u64; 2],
    /// Rows and columns of a map of the input, without padding, whether windows reach all of it or not.
    pub input: [u64; 2],
    /// Distinct words of input, weight and output over all groups and samples; padding zeros are not words, and what lies between
    /// windows is none.
    pub words: [u64; 3],
}

/// One pass of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// The layer's name.
    pub name: String,
    /// Which pass.
    pub pass: Pass,
    /// The network's own layer, or a method's control.
    pub role: Role,
    /// Loop bounds.
    pub shape: Shape,
    /// Bits and density of what streams.
    pub input: Operand,
    /// Bits and density of what is reused.
    pub weight: Operand,
    /// Bits of a finished output in memory.
    pub output_bits: u8,
    /// Bits that the weights take in DRAM, where they were measured; otherwise the engine counts them itself, as the searching
    /// engines, `loop_nest` and `bit_composable`, always do.
    pub stored_weight_bits: Option<u64>,
}

/// Largest number of words of an operand, and of MACs.
const MAX_WORDS: u128 = 1 << 56;

impl Shape {
    /// Checks loop bounds, strides, dilations and words; `layer` is named in errors. What a new [`Task`] holds passes, until a
    /// field is changed.
    ///
    /// # Errors
    /// The first size of 0, or MACs or words past 2^56, the most that engines count with.
    pub fn validate(&self, layer: &str) -> Result<(), HwError> {
        let nothing = |field: &str| HwError::field(format!("layer `{layer}`"), field, "at least 1", 0);
        let Self { groups, n, k, c, y, x, r, s, stride, dilation, input, words } = *self;
        let bounds = [groups, n, k, c, y, x, r, s];
        let steps = [
            ("input rows", input[0]),
            ("input columns", input[1]),
            ("vertical stride", stride[0]),
            ("horizontal stride", stride[1]),
            ("vertical dilation", dilation[0]),
            ("horizontal dilation", dilation[1]),
        ];
        let names = ["groups", "n", "k", "c", "y", "x", "r", "s"];
        if let Some((field, _)) = names.into_iter().zip(bounds).chain(steps).find(|&(_, size)| size == 0) {
            return Err(nothing(field));
        }
        product(layer, &bounds, "MACs")?;
        product(layer, &[groups, n, c, input[0], input[1]], "input pixels")?;
        for (quantity, count) in ["input words", "weight words", "output words"].into_iter().zip(words) {
            if count == 0 {
                return Err(nothing(quantity));
            }
            product(layer, &[count], quantity)?;
        }
        Ok(())
    }

    /// Multiply-accumulates.
    pub fn macs(&self) -> u64 {
        let Self { groups, n, k, c, y, x, r, s, .. } = *self;
        [groups, n, k, c, y, x, r, s].into_iter().fold(1, u64::saturating_mul)
    }

    /// Each group as a matrix product over all samples.
    pub fn gemm(&self) -> Gemm {
        Gemm { m: self.pixels(), n: self.k, k: self.c.saturating_mul(self.r).saturating_mul(self.s) }
    }

    /// Output pixels of all samples of a group.
    pub fn pixels(&self) -> u64 {
        self.n.saturating_mul(self.y).saturating_mul(self.x)
    }

    /// How many output words the loops over samples, output channels and pixels stand for.
    pub(crate) fn outputs(&self) -> OutputRatio {
        OutputRatio { words: self.words[2], iterations: self.groups * self.n * self.k * self.y * self.x }
    }
}

/// Output words to an iteration of the loops over samples, output channels and pixels.
///
/// One, but for input gradients of convolutions: their pixels are those of the gradient that is read, each of which stands for
/// as many of the input as lie between two windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutputRatio {
    pub(crate) words: u64,
    pub(crate) iterations: u64,
}

impl OutputRatio {
    /// A word an iteration.
    pub(crate) const ONE: Self = Self { words: 1, iterations: 1 };

    /// Words of so many iterations, rounded up.
    pub(crate) fn of(self, iterations: u64) -> u64 {
        if self.words == self.iterations {
            return iterations;
        }
        let words = u128::from(iterations) * u128::from(self.words);
        u64::try_from(words.div_ceil(u128::from(self.iterations))).unwrap_or(u64::MAX)
    }
}

/// Words that windows touch along one axis, padding left out.
fn touched(outputs: u64, kernel: u64, stride: u64, dilation: u64, input: u64) -> u64 {
    let reach =
        (outputs - 1).saturating_mul(stride).saturating_add((kernel - 1).saturating_mul(dilation)).saturating_add(1);
    reach.min(outputs.saturating_mul(kernel)).min(input)
}

impl Task {
    /// One pass of a layer over a batch.
    ///
    /// The input-gradient pass is taken with its channels swapped and as many MACs as the forward pass: zeros that a
    /// stride would insert are skipped. Its pixels are those of the gradient it reads, one beside the other whatever the
    /// stride; the words of its output are those of the input. The weight-gradient pass is a matrix product that contracts
    /// pixels.
    ///
    /// # Errors
    /// A layer that does not validate, a batch of 0, or sizes past 64 bits.
    pub fn new(layer: &Layer, batch: u64, pass: Pass) -> Result<Self, HwError> {
        layer.validate()?;
        if batch == 0 {
            return Err(HwError::field(format!("layer `{}`", layer.name), "batch", "at least 1", batch));
        }
        let forward = forward_shape(layer, batch)?;
        let shape = match pass {
            Pass::Forward => forward,
            Pass::InputGradient => {
                let [input, weight, output] = forward.words;
                let Shape { k: c, c: k, y, x, .. } = forward;
                Shape { k, c, stride: [1; 2], input: [y, x], words: [output, weight, input], ..forward }
            }
            Pass::WeightGradient => {
                let [input, weight, output] = forward.words;
                Shape {
                    n: 1,
                    c: forward.n * forward.y * forward.x,
                    x: forward.c * forward.r * forward.s,
                    y: 1,
                    r: 1,
                    s: 1,
                    stride: [1; 2],
                    dilation: [1; 2],
                    input: [1, forward.c * forward.r * forward.s],
                    words: [input, output, weight],
                    ..forward
                }
            }
        };
        let [first, second] = layer.operands(pass);
        let (weight, input, output_bits) = match pass {
            Pass::Forward => (first, second, layer.activation.bits),
            Pass::InputGradient => (first, second, layer.gradient.bits),
            // Weight gradients are accumulated and kept in full precision.
            Pass::WeightGradient => (second, first, FULL_PRECISION_BITS),
        };
        Ok(Self {
            name: layer.name.clone(),
            pass,
            role: layer.role,
            shape,
            input,
            weight,
            output_bits,
            stored_weight_bits: None,
        })
    }

    /// Checks the shape, bit widths and densities. What [`new`](Self::new) makes passes, until a field is changed.
    ///
    /// # Errors
    /// The first field that makes no sense, or sizes past those of [`Shape::validate`].
    pub fn validate(&self) -> Result<(), HwError> {
        self.shape.validate(&self.name)?;
        let fail = |field: &str, expected: &str, found: String| {
            Err(HwError::field(format!("layer `{}`", self.name), field, expected, found))
        };
        let widths =
            [("input bits", self.input.bits), ("weight bits", self.weight.bits), ("output bits", self.output_bits)];
        for (field, bits) in widths {
            if !(1..=FULL_PRECISION_BITS).contains(&bits) {
                return fail(field, "1 to 32", bits.to_string());
            }
        }
        for (field, density) in [("input density", self.input.density), ("weight density", self.weight.density)] {
            if !(0.0..=1.0).contains(&density) {
                return fail(field, "a number in [0, 1]", density.to_string());
            }
        }
        Ok(())
    }

    /// The passes of every layer, layer by layer.
    ///
    /// # Errors
    /// The first layer that does not validate.
    pub fn of_workload(workload: &Workload, passes: &[Pass]) -> Result<Vec<Self>, HwError> {
        workload.validate()?;
        let layers = workload.layers.iter();
        layers.flat_map(|layer| passes.iter().map(|&pass| Self::new(layer, workload.batch, pass))).collect()
    }
}

/// A product of sizes that engines can count with.
fn product(layer: &str, factors: &[u64], quantity: &'static str) -> Result<u128, HwError> {
    let total = factors.iter().try_fold(1_u128, |total, &factor| total.checked_mul(u128::from(factor)));
    total.filter(|&total| total <= MAX_WORDS).ok_or_else(|| HwError::Overflow { layer: layer.to_owned(), quantity })
}

fn forward_shape(layer: &Layer, batch: u64) -> Result<Shape, HwError> {
    let name = &layer.name;
    let wide = |factors: &[u64], quantity: &'static str| product(name, factors, quantity);
    let [y, x] = layer.op.output_size();
    let shape = match layer.op {
        Operator::Conv2d { in_channels, out_channels, kernel, stride, dilation, groups, input, .. } => {
            let height = touched(y, kernel[0], stride[0], dilation[0], input[0]);
            let width = touched(x, kernel[1], stride[1], dilation[1], input[1]);
            let words = [
                wide(&[batch, in_channels, height, width], "input words")?,
                wide(&[out_channels, in_channels / groups, kernel[0], kernel[1]], "weight words")?,
                wide(&[batch, out_channels, y, x], "output words")?,
            ];
            Shape {
                groups,
                n: batch,
                k: out_channels / groups,
                c: in_channels / groups,
                y,
                x,
                r: kernel[0],
                s: kernel[1],
                stride,
                dilation,
                input,
                words: words.map(|count| count as u64),
            }
        }
        Operator::Linear { in_features, out_features, rows } => {
            let words = [
                wide(&[batch, rows, in_features], "input words")?,
                wide(&[in_features, out_features], "weight words")?,
                wide(&[batch, rows, out_features], "output words")?,
            ];
            product_shape(1, batch, rows, out_features, in_features, words)
        }
        Operator::MatMul { m, n, k, count } => {
            // Both factors are activations: every sample has its own.
            let groups = narrow(wide(&[batch, count], "matrix products")?, name, "matrix products")?;
            let words = [
                wide(&[groups, m, k], "input words")?,
                wide(&[groups, k, n], "weight words")?,
                wide(&[groups, m, n], "output words")?,
            ];
            product_shape(groups, 1, m, n, k, words)
        }
    };
    let Shape { groups, n, k, c, y, x, r, s, input, .. } = shape;
    wide(&[groups, n, k, c, y, x, r, s], "MACs")?;
    wide(&[groups, n, c, input[0], input[1]], "input pixels")?;
    Ok(shape)
}

fn product_shape(groups: u64, n: u64, rows: u64, k: u64, c: u64, words: [u128; 3]) -> Shape {
    let (stride, dilation) = ([1; 2], [1; 2]);
    let (input, words) = ([1, rows], words.map(|count| count as u64));
    Shape { groups, n, k, c, y: 1, x: rows, r: 1, s: 1, stride, dilation, input, words }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_passes_of_a_strided_convolution_have_equal_macs_and_swapped_operands() {
        let layer = Layer::new("c", Operator::conv2d(3, 8, 3, 2, 1, [9, 9]));
        let [forward, backward, gradient] = Pass::TRAINING.map(|pass| Task::new(&layer, 4, pass).unwrap());
        assert_eq!(forward.shape.macs(), 4 * 8 * 3 * 9 * 25); // 5 × 5 outputs
        assert_eq!((backward.shape.macs(), gradient.shape.macs()), (forward.shape.macs(), forward.shape.macs()));
        assert_eq!(forward.shape.words, [4 * 3 * 81, 8 * 27, 4 * 8 * 25]);
        assert_eq!(backward.shape.words, [4 * 8 * 25, 8 * 27, 4 * 3 * 81]);
        assert_eq!((forward.shape.stride, backward.shape.stride), ([2, 2], [1, 1]));
        // 4·3·25 iterations write 4·3·81 words, a pixel of three channels ⌈3·81/25⌉; in the other passes an iteration is a word.
        assert_eq!([1, 3, 300].map(|points| backward.shape.outputs().of(points)), [4, 10, 972]);
        assert_eq!((forward.shape.outputs().of(300), gradient.shape.outputs().of(7)), (300, 7));
        assert_eq!(gradient.shape.words, [4 * 3 * 81, 4 * 8 * 25, 8 * 27]);
        assert_eq!(gradient.shape.gemm(), Gemm { m: 27, n: 8, k: 100 });
    }

    #[test]
    fn a_pointwise_stride_touches_only_the_pixels_it_reads() {
        let layer = Layer::new("c", Operator::conv2d(4, 4, 1, 2, 0, [8, 8]));
        assert_eq!(Task::new(&layer, 1, Pass::Forward).unwrap().shape.words[0], 4 * 16);
    }

    #[test]
    fn sizes_past_64_bits_are_refused() {
        let layer = Layer::new("big", Operator::linear(1 << 31, 1 << 31));
        let error = Task::new(&layer, 1, Pass::Forward).unwrap_err();
        assert!(matches!(error, HwError::Overflow { .. }), "{error}");
    }

    #[test]
    fn a_task_of_no_sample_is_refused() {
        let error = Task::new(&Layer::new("fc", Operator::linear(4, 4)), 0, Pass::Forward).unwrap_err();
        assert_eq!(error.to_string(), "layer `fc`: batch is 0, expected at least 1");
    }

    #[test]
    fn a_shape_made_by_hand_is_checked_and_its_counts_stop_at_64_bits() {
        let good = Task::new(&Layer::new("fc", Operator::linear(4, 5)), 1, Pass::Forward).unwrap().shape;
        assert_eq!(good.validate("fc"), Ok(()));
        let huge = Shape { n: 1 << 40, y: 1 << 40, ..good };
        for (shape, message) in [
            (Shape { r: 0, ..good }, "layer `fc`: r is 0, expected at least 1"),
            (Shape { input: [0, 1], ..good }, "layer `fc`: input rows is 0, expected at least 1"),
            (Shape { stride: [1, 0], ..good }, "layer `fc`: horizontal stride is 0, expected at least 1"),
            (Shape { words: [4, 0, 5], ..good }, "layer `fc`: weight words is 0, expected at least 1"),
            (huge, "layer `fc`: its MACs do not fit in 64 bits"),
        ] {
            assert_eq!(shape.validate("fc").unwrap_err().to_string(), message);
        }
        assert_eq!([huge.macs(), huge.pixels(), huge.gemm().m], [u64::MAX; 3]);
    }

    proptest! {
        #[test]
        fn any_sizes_give_a_task_or_an_error(sizes in proptest::array::uniform8(any::<u64>()), shrink in 0_u32..64) {
            let [a, b, c, d, e, f, g, h] = sizes.map(|size| size >> shrink);
            let conv = Operator::Conv2d { in_channels: a, out_channels: b, kernel: [c, d], stride: [e, f],
                padding: [g, h], dilation: [1, g], groups: 1, input: [a, d] };
            for op in [conv, Operator::MatMul { m: a, n: b, k: c, count: d }, Operator::Linear { in_features: a, out_features: b, rows: c }] {
                for pass in Pass::TRAINING {
                    if let Ok(task) = Task::new(&Layer::new("l", op.clone()), h, pass) {
                        prop_assert_eq!(task.validate(), Ok(()));
                    }
                }
            }
        }
    }
}
