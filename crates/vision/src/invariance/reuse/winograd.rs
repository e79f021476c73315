//! Convolutions of 3 × 3 by fewer multiplications (Winograd 1980; Lavin and Gray, arXiv 1509.09308).
//!
//! Nine outputs of a 3 × 3 window over 5 × 5 inputs take 81 multiplications a pair of channels, and 25 when inputs and weights are
//! taken to another basis first: polynomials of degree 4 are known by their values at 0, 1, −1, 2 and ∞. The basis change is paid
//! once a channel, not once a pair of channels, so that many channels gain most. Small integers as points keep rounding within a
//! few times that of the plain sum.

use crate::invariance::Result;
use tch::{Device, Kind, Tensor};

/// Outputs of a tile, along each axis.
const TILE: usize = 3;
/// Inputs of a tile, along each axis.
const INPUTS: usize = 5;
/// Values of the transformed input that are worked on at a time: 8 MB.
const VALUES: i64 = 1 << 21;

/// To the coefficients that weigh each point's value.
const INPUT: [[f64; INPUTS]; INPUTS] = [
    [2.0, -1.0, -2.0, 1.0, 0.0],
    [0.0, -2.0, -1.0, 1.0, 0.0],
    [0.0, 2.0, -3.0, 1.0, 0.0],
    [0.0, -1.0, 0.0, 1.0, 0.0],
    [0.0, 2.0, -1.0, -2.0, 1.0],
];
/// A window's values at the points, divided by the products of the points' differences.
const WEIGHT: [[f64; 3]; INPUTS] = [
    [1.0 / 2.0, 0.0, 0.0],
    [-1.0 / 2.0, -1.0 / 2.0, -1.0 / 2.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 6.0, 2.0 / 6.0, 4.0 / 6.0],
    [0.0, 0.0, 1.0],
];
/// Powers of the points.
const OUTPUT: [[f64; INPUTS]; TILE] =
    [[1.0, 1.0, 1.0, 1.0, 0.0], [0.0, 1.0, -1.0, 2.0, 0.0], [0.0, 1.0, 1.0, 4.0, 1.0]];

/// A convolution of 3 × 3 with stride 1 and one zero around, made ready.
pub(super) struct Winograd {
    /// `[25, inputs, outputs]`.
    weight: Tensor,
    bias: Option<Tensor>,
    /// `[25, 25]` and `[9, 25]`.
    input: Tensor,
    output: Tensor,
}

/// Multiply-accumulates on a map of `[height, width]`, changes of basis included.
pub(super) fn macs([outputs, inputs]: [usize; 2], [height, width]: [usize; 2]) -> f64 {
    let tiles = height.div_ceil(TILE) * width.div_ceil(TILE);
    let (points, places) = (INPUTS * INPUTS, TILE * TILE);
    (tiles * points * (inputs * outputs + points * inputs + places * outputs)) as f64
}

impl Winograd {
    /// From a weight `[outputs, inputs, 3, 3]`.
    pub(super) fn new(weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        let [outputs, inputs] = [0, 1].map(|axis| weight.size()[axis]);
        let taps = weight.f_to_kind(Kind::Double)?.f_permute([2, 3, 1, 0])?.f_reshape([9, inputs * outputs])?;
        let device = weight.device();
        let weight = squared(&WEIGHT, device)?.f_matmul(&taps)?.f_to_kind(Kind::Float)?;
        Ok(Self {
            weight: weight.f_view([-1, inputs, outputs])?,
            bias: bias.map(Tensor::shallow_clone),
            input: squared(&INPUT, device)?.f_to_kind(Kind::Float)?,
            output: squared(&OUTPUT, device)?.f_to_kind(Kind::Float)?,
        })
    }

    /// `[images, channels, height, width]`, channels last in memory, as the result is.
    pub(super) fn forward(&self, map: &Tensor) -> Result<Tensor> {
        let size = map.size();
        let [images, inputs, height, width] = [0, 1, 2, 3].map(|axis| size[axis]);
        let [rows, columns] = [height, width].map(|side| (side as usize).div_ceil(TILE) as i64);
        let outputs = self.weight.size()[2];
        let chunk = (VALUES / (rows * columns * (INPUTS * INPUTS) as i64 * inputs)).clamp(1, images.max(1));
        let tile = TILE as i64;
        let whole = [images, rows, tile, columns, tile, outputs];
        let result = Tensor::f_empty(whole, (map.kind(), map.device()))?;
        let around = [0, 0, 1, tile * columns + 1 - width, 1, tile * rows + 1 - height];
        for start in (0..images).step_by(chunk as usize) {
            let some = chunk.min(images - start);
            let padded = map.f_narrow(0, start, some)?.f_permute([0, 2, 3, 1])?.f_constant_pad_nd(around)?;
            let side = INPUTS as i64;
            // [images, rows, columns, channels, 5, 5], then places first.
            let tiles = padded.f_unfold(1, side, tile)?.f_unfold(2, side, tile)?.f_permute([4, 5, 0, 1, 2, 3])?;
            let tiles = tiles.f_reshape([side * side, -1])?;
            let points = self.input.f_mm(&tiles)?.f_view([side * side, -1, inputs])?;
            let points = points.f_bmm(&self.weight)?.f_view([side * side, -1])?;
            let places = self.output.f_mm(&points)?.f_view([tile, tile, some, rows, columns, outputs])?;
            let places = places.f_permute([2, 3, 0, 4, 1, 5])?;
            let mut target = result.f_narrow(0, start, some)?;
            match &self.bias {
                Some(bias) => drop(places.f_add_out(&target, bias)?),
                None => target.f_copy_(&places)?,
            }
        }
        let result = result.f_view([images, rows * tile, columns * tile, outputs])?;
        let result = result.f_narrow(1, 0, height)?.f_narrow(2, 0, width)?.f_contiguous()?;
        Ok(result.f_permute([0, 3, 1, 2])?)
    }
}

/// A change of basis along both axes of a square.
fn squared<const COLUMNS: usize>(matrix: &[[f64; COLUMNS]], device: Device) -> Result<Tensor> {
    let one = Tensor::f_from_slice(&matrix.concat())?.f_view([-1, COLUMNS as i64])?.f_to_device(device)?;
    Ok(one.f_kron(&one)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::nn::channels_last;

    #[test]
    fn maps_of_any_size_are_convolved_as_by_definition() {
        tch::manual_seed(3);
        let normal = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        for (height, width) in [(1, 1), (3, 3), (6, 6), (7, 4), (2, 13)] {
            let (map, weight, bias) = (normal(&[5, 24, height, width]), normal(&[10, 24, 3, 3]), normal(&[10]));
            for bias in [Some(bias), None] {
                let quick = Winograd::new(&weight, bias.as_ref()).unwrap().forward(&channels_last(&map)).unwrap();
                let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
                let bias = bias.as_ref().map(double);
                let exact = double(&map).f_conv2d(&double(&weight), bias.as_ref(), [1, 1], [1, 1], [1, 1], 1).unwrap();
                assert_eq!(quick.size(), exact.size());
                assert!(quick.permute([0, 2, 3, 1]).is_contiguous());
                // Sums of 216 products of order 1, so of order 15; 1e-6 of them.
                let gap = (double(&quick) - exact).abs().max().double_value(&[]);
                assert!(gap < 1e-4, "{height} × {width}: {gap}");
            }
        }
    }

    #[test]
    fn large_batches_are_done_in_parts() {
        let map = Tensor::rand([300, 64, 3, 3], (Kind::Float, Device::Cpu));
        let weight = Tensor::rand([8, 64, 3, 3], (Kind::Float, Device::Cpu)) - 0.5;
        // 1600 values an image: 1500 images are more than one part.
        const { assert!(VALUES < 1500 * 1600) };
        let map = channels_last(&map.repeat([5, 1, 1, 1]));
        let all = Winograd::new(&weight, None).unwrap().forward(&map).unwrap();
        let exact = map.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
        assert!((all - exact).abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn multiplications_are_counted_by_hand() {
        // Two tiles of 25 points: 4 · 8 products, 25 · 4 to change the inputs' basis and 9 · 8 to change the outputs'.
        assert_eq!(macs([8, 4], [3, 6]), f64::from(2 * 25 * (32 + 100 + 72)));
    }
}
