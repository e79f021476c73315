//! Convolutions of 3 × 3 by fewer multiplications (Winograd 1980; Lavin and Gray, arXiv 1509.09308).
//!
//! Inputs and weights are taken to another basis, multiplied there, and the products taken back. The change of basis is paid once a
//! channel, not once a pair of channels, so that many channels gain most. It is made along each axis by itself, by one of three
//! schemes, whichever is cheapest in total:
//!
//! | scheme | outputs | products | by definition |
//! |---|---|---|---|
//! | [`Scheme::three`] | 3 of any number | 5 | 9 |
//! | [`Scheme::six`] | 6 of any number | 8 | 18 |
//! | [`Scheme::whole`] | all of an axis of 3 cells | 4 | 7, zeros around left out |

mod basis;
mod scheme;

use crate::invariance::Result;
use basis::{Basis, Layout};
use scheme::Scheme;
use std::cell::RefCell;
use tch::{Device, Kind, Tensor};

/// Values of the transformed input that are worked on at a time: 4 MB.
const VALUES: i64 = 1 << 20;

/// The cheapest pair of schemes for a map of `[height, width]`, and its multiply-accumulates, changes of basis included.
fn cheapest([outputs, inputs]: [usize; 2], side: [usize; 2]) -> ([Scheme; 2], f64) {
    let [rows, columns] = side.map(Scheme::all);
    let cost = |pair: [&Scheme; 2]| {
        let tiles: usize = pair.iter().zip(side).map(|(scheme, cells)| cells.div_ceil(scheme.tile())).product();
        let [points, windows, places] = [Scheme::points, Scheme::window, Scheme::tile].map(|part| pair.map(part));
        // Columns first, then rows.
        let change = |from: [usize; 2], to: [usize; 2]| from[0] * to[1] * (from[1] + to[0]);
        let changes = change(windows, points) * inputs + change(points, places) * outputs;
        (tiles * (points[0] * points[1] * inputs * outputs + changes)) as f64
    };
    let pairs = rows.iter().flat_map(|row| columns.iter().map(move |column| [row, column]));
    let best = pairs.min_by(|first, second| cost(*first).total_cmp(&cost(*second))).expect("an axis has schemes");
    (best.map(Scheme::clone), cost(best))
}

/// Multiply-accumulates on a map of `[height, width]`, changes of basis included.
pub(super) fn macs(channels: [usize; 2], side: [usize; 2]) -> f64 {
    cheapest(channels, side).1
}

/// A convolution of 3 × 3 with stride 1 and one zero around, made ready for maps of one size.
pub(super) struct Winograd {
    layout: Layout,
    input: Basis,
    /// `[points, inputs, outputs]`.
    weight: Tensor,
    output: Basis,
    bias: Vec<f32>,
    /// Memory for values and products, kept from one batch to the next.
    kept: RefCell<[Tensor; 2]>,
}

impl Winograd {
    /// From a weight `[outputs, inputs, 3, 3]` of single precision, for maps of `[height, width]`.
    pub(super) fn new(weight: &Tensor, bias: Option<&Tensor>, side: [usize; 2]) -> Result<Self> {
        let [outputs, inputs] = [0, 1].map(|axis| weight.size()[axis]);
        let (schemes, _) = cheapest([outputs as usize, inputs as usize], side);
        let taps = weight.f_to_kind(Kind::Double)?.f_permute([2, 3, 1, 0])?.f_reshape([9, inputs * outputs])?;
        let [rows, columns] = schemes
            .each_ref()
            .map(|scheme| Tensor::f_from_slice(&scheme.weight.concat()).and_then(|matrix| matrix.f_view([-1, 3])));
        let weight = rows?.f_kron(&columns?)?.f_matmul(&taps)?.f_to_kind(Kind::Float)?;
        let bias = match bias {
            Some(bias) => Vec::<f32>::try_from(&bias.f_contiguous()?)?,
            None => vec![0.0; outputs as usize],
        };
        Ok(Self {
            layout: Layout::new(side, &schemes),
            input: Basis::new(schemes.each_ref().map(|scheme| &scheme.input)),
            weight: weight.f_view([-1, inputs, outputs])?,
            output: Basis::new(schemes.each_ref().map(|scheme| &scheme.output)),
            bias,
            kept: RefCell::new([empty(&[0])?, empty(&[0])?]),
        })
    }

    /// `[images, channels, height, width]` of the size it was made for, channels last in memory, as the result is.
    pub(super) fn forward(&self, map: &Tensor) -> Result<Tensor> {
        let map = map.f_permute([0, 2, 3, 1])?.f_contiguous()?;
        let size = map.size();
        let [images, height, width] = [0, 1, 2].map(|axis| size[axis]);
        let [points, inputs, outputs] = [0, 1, 2].map(|axis| self.weight.size()[axis]);
        let tiles = self.layout.tiles() as i64;
        let chunk = (VALUES / (tiles * points * inputs)).clamp(1, images.max(1));
        let result = empty(&[images, height, width, outputs])?;
        for start in (0..images).step_by(chunk as usize) {
            let some = chunk.min(images - start);
            let sizes = [inputs, outputs].map(|channels| [points, some * tiles, channels]);
            let [mut values, products] = self.room(sizes)?;
            basis::to_points(&self.input, &self.layout, &map.f_narrow(0, start, some)?, &mut values)?;
            let products = values.f_bmm_out(&products, &self.weight)?;
            let mut places = result.f_narrow(0, start, some)?;
            basis::from_points(&self.output, &self.layout, &products, &self.bias, &mut places)?;
        }
        Ok(result.f_permute([0, 3, 1, 2])?)
    }

    /// Two tensors in the memory kept for them.
    fn room(&self, sizes: [[i64; 3]; 2]) -> Result<[Tensor; 2]> {
        let mut kept = self.kept.borrow_mut();
        for (kept, size) in kept.iter_mut().zip(sizes) {
            let count = size.iter().product();
            if kept.size() < vec![count] {
                *kept = empty(&[count])?;
            }
        }
        let [values, products] = [0, 1].map(|which| {
            kept[which].f_narrow(0, 0, sizes[which].iter().product()).and_then(|part| part.f_view(sizes[which]))
        });
        Ok([values?, products?])
    }
}

fn empty(size: &[i64]) -> Result<Tensor> {
    Ok(Tensor::f_empty(size, (Kind::Float, Device::Cpu))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::nn::channels_last;

    fn double(tensor: &Tensor) -> Tensor {
        tensor.to_kind(Kind::Double)
    }

    #[test]
    fn maps_of_any_size_are_convolved_as_by_definition() {
        tch::manual_seed(3);
        let normal = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        for (height, width) in [(1, 1), (3, 3), (6, 6), (3, 6), (7, 4), (2, 13), (12, 3)] {
            let (map, weight, bias) = (normal(&[5, 24, height, width]), normal(&[10, 24, 3, 3]), normal(&[10]));
            for bias in [Some(bias), None] {
                let quick = Winograd::new(&weight, bias.as_ref(), [height, width].map(|side| side as usize)).unwrap();
                let quick = quick.forward(&channels_last(&map)).unwrap();
                let bias = bias.as_ref().map(double);
                let exact = double(&map).f_conv2d(&double(&weight), bias.as_ref(), [1, 1], [1, 1], [1, 1], 1).unwrap();
                assert_eq!(quick.size(), exact.size());
                assert!(quick.permute([0, 2, 3, 1]).is_contiguous());
                // Sums of 216 products of order 1, so of order 15; 5e-5 of them, as the widest scheme rounds.
                let gap = (double(&quick) - exact).abs().max().double_value(&[]);
                assert!(gap < 7.5e-4, "{height} × {width}: {gap}");
            }
        }
    }

    #[test]
    fn a_map_of_three_cells_rounds_no_worse_than_twice_the_plain_sum() {
        tch::manual_seed(4);
        let map = channels_last(&Tensor::rand([64, 256, 3, 3], (Kind::Float, Device::Cpu)));
        let weight = Tensor::randn([32, 256, 3, 3], (Kind::Float, Device::Cpu));
        let conv = |map: &Tensor, weight: &Tensor| map.conv2d(weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
        let exact = conv(&double(&map), &double(&weight));
        let error = |found: Tensor| (double(&found) - &exact).square().mean(Kind::Double).sqrt().double_value(&[]);
        let quick = Winograd::new(&weight, None, [3, 3]).unwrap();
        assert_eq!(quick.weight.size(), [16, 256, 32]);
        let (quick, plain) = (error(quick.forward(&map).unwrap()), error(conv(&map, &weight)));
        assert!(quick < 2.0 * plain, "{quick:.1e}, {plain:.1e}");
    }

    #[test]
    fn large_batches_are_done_in_parts() {
        let map = Tensor::rand([300, 64, 3, 3], (Kind::Float, Device::Cpu));
        let weight = Tensor::rand([8, 64, 3, 3], (Kind::Float, Device::Cpu)) - 0.5;
        // 16 · 64 values an image: 1050 images are more than one part.
        const { assert!(VALUES < 1050 * 16 * 64) };
        let map = channels_last(&map.repeat([4, 1, 1, 1]));
        let all = Winograd::new(&weight, None, [3, 3]).unwrap().forward(&map).unwrap();
        let exact = map.conv2d(&weight, None::<Tensor>, [1, 1], [1, 1], [1, 1], 1);
        assert!((all - exact).abs().max().double_value(&[]) < 1e-4);
    }

    #[test]
    fn multiplications_are_counted_by_hand() {
        // One tile of 4 · 4 points: 4 · 8 products each, and changes of basis, columns first: three rows of three inputs to four
        // points and four columns to four, four rows of four points to three places and three columns to three.
        let changes = (3 * 4 * 3 + 4 * 4 * 3) * 4 + (4 * 3 * 4 + 3 * 3 * 4) * 8;
        assert_eq!(macs([8, 4], [3, 3]), f64::from(16 * 32 + changes));
        // Many channels make the scheme with fewest products win: 8 · 8 points of 6 · 6 cells, zeros left out.
        let channels = 1 << 12;
        let changes = 6 * 8 * (6 + 8) + 8 * 6 * (8 + 6);
        assert_eq!(macs([channels; 2], [6, 6]), (64 * channels * channels + changes * channels) as f64);
    }
}
