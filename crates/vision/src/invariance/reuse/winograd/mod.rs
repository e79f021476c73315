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

//!
//! A table of distinct cells is convolved in the same way: tiles then follow the lines of the positions ([`Cover`](cover::Cover)), as many as hold
//! every distinct cell. A map is a table of one position at which every cell is distinct.

mod basis;
mod cover;
mod kernel;
mod layout;
mod memory;
mod panels;
mod scheme;
mod widest;

pub(super) use memory::Room;

use super::axis::Axis;
use super::workers::{self, Pieces};
use crate::invariance::Result;
use basis::{Basis, FromPoints, ToPoints};
use cover::{Cover, Sort};
use layout::{Layout, Piece};
use memory::{numbers, unwritten};
use panels::Panels;
use scheme::Scheme;
use tch::{Device, Kind, Tensor};

/// Values of the transformed input that are worked on at a time: 1 MB.
const VALUES: usize = 1 << 18;

/// Rows and columns before a convolution and behind it.
#[derive(Clone, Copy)]
pub(super) struct Axes<'a> {
    pub(super) from: [&'a Axis; 2],
    pub(super) to: [&'a Axis; 2],
}

impl Axes<'_> {
    /// The cheapest pair of schemes, and its multiply-accumulates, changes of basis included.
    fn cheapest(self, [outputs, inputs]: [usize; 2]) -> ([Scheme; 2], f64) {
        let [rows, columns] = [0, 1].map(|axis| {
            let (from, to) = (self.from[axis], self.to[axis]);
            let count = |scheme: Scheme| {
                let tiles = [Sort::Objects, Sort::Backgrounds].map(|sort| Cover::new(&scheme, from, to, sort).tiles());
                (scheme, tiles)
            };
            Scheme::all(from.cells()).into_iter().map(count).collect::<Vec<_>>()
        });
        let cost = |[(row, row_tiles), (column, column_tiles)]: [&(Scheme, [usize; 2]); 2]| {
            let tiles: usize = row_tiles.iter().zip(column_tiles).map(|(rows, columns)| rows * columns).sum();
            let [points, windows, places] =
                [Scheme::points, Scheme::window, Scheme::tile].map(|part| [part(row), part(column)]);
            // Columns first, then rows.
            let change = |from: [usize; 2], to: [usize; 2]| from[0] * to[1] * (from[1] + to[0]);
            let changes = change(windows, points) * inputs + change(points, places) * outputs;
            (tiles * (points[0] * points[1] * inputs * outputs + changes)) as f64
        };
        let pairs = rows.iter().flat_map(|row| columns.iter().map(move |column| [row, column]));
        let best = pairs.min_by(|first, second| cost(*first).total_cmp(&cost(*second))).expect("an axis has schemes");
        (best.map(|(scheme, _)| scheme.clone()), cost(best))
    }

    /// Multiply-accumulates of a convolution with `[outputs, inputs]` channels, changes of basis included.
    pub(super) fn macs(self, channels: [usize; 2]) -> f64 {
        self.cheapest(channels).1
    }
}

/// The rows and columns of a map by itself, `[height, width]`, before a convolution and behind it.
pub(super) struct MapAxes([Axis; 2], [Axis; 2]);

impl MapAxes {
    pub(super) fn new(side: [usize; 2]) -> Result<Self> {
        let from = side.map(Axis::plain);
        let [rows, columns] = from.each_ref().map(|axis| axis.windows(3, 1, 1));
        let to = [rows?.0, columns?.0];
        Ok(Self(from, to))
    }

    pub(super) fn axes(&self) -> Axes<'_> {
        Axes { from: self.0.each_ref(), to: self.1.each_ref() }
    }
}

/// A convolution of 3 × 3 with stride 1 and one zero around, made ready for tables with the same axes.
pub(super) struct Winograd {
    layout: Layout,
    input: Basis,
    weight: Panels,
    output: Basis,
    bias: Vec<f32>,
}

impl Winograd {
    /// From a weight `[outputs, inputs, 3, 3]` of single precision.
    pub(super) fn new(weight: &Tensor, bias: Option<&Tensor>, axes: Axes) -> Result<Self> {
        let channels = [0, 1].map(|axis| weight.size()[axis] as usize);
        let (schemes, _) = axes.cheapest(channels);
        let bias = match bias {
            Some(bias) => Vec::<f32>::try_from(&bias.f_contiguous()?)?,
            None => vec![0.0; channels[0]],
        };
        Ok(Self {
            layout: Layout::new(&schemes, axes.from, axes.to),
            input: Basis::new(schemes.each_ref().map(|scheme| &scheme.input)),
            weight: Panels::new(numbers(&weight.f_contiguous()?)?, channels, &schemes),
            output: Basis::new(schemes.each_ref().map(|scheme| &scheme.output)),
            bias,
        })
    }

    /// Channels that it makes.
    pub(super) fn outputs(&self) -> i64 {
        self.bias.len() as i64
    }

    /// `[images, channels, height, width]` of the size it was made for, channels last in memory, as the result is.
    pub(super) fn on_maps(&self, maps: &Tensor, room: &mut Room) -> Result<Tensor> {
        let maps = maps.f_permute([0, 2, 3, 1])?.f_contiguous()?;
        let (size, outputs) = (maps.size(), self.outputs());
        let cells = maps.f_view([size[0], size[1] * size[2], size[3]])?;
        let result = Tensor::f_empty([size[0], size[1], size[2], outputs], (Kind::Float, Device::Cpu))?;
        let written = result.f_view([size[0], size[1] * size[2], outputs])?;
        for piece in self.pieces(size[0]) {
            self.on_piece(&piece, &cells, &written, room)?;
        }
        Ok(result.f_permute([0, 3, 1, 2])?)
    }

    /// From a table `[cells, channels]` to the first rows of another, on all cores.
    pub(super) fn on_table(&self, from: &Tensor, to: &Tensor) -> Result<()> {
        let cells = self.layout.cells();
        let (from, to) = (from.f_unsqueeze(0)?, to.f_narrow(0, 0, cells as i64)?.f_unsqueeze(0)?);
        let pieces = self.pieces(1);
        let states = (0..workers::count(pieces.len())).map(|_| (from.shallow_clone(), to.shallow_clone()));
        workers::run(states.collect(), pieces.len(), |(from, to): (Tensor, Tensor), numbers: Pieces| {
            let mut room = Room::default();
            numbers.map(|number| Ok((number, self.on_piece(&pieces[number], &from, &to, &mut room)?))).collect()
        })?;
        Ok(())
    }

    fn pieces(&self, images: i64) -> Vec<Piece> {
        let tiles = VALUES / (self.weight.points() * self.weight.inputs());
        self.layout.pieces(images as usize, tiles.max(1))
    }

    /// From `[images, cells, inputs]` to `[images, cells, outputs]`.
    fn on_piece(&self, piece: &Piece, from: &Tensor, to: &Tensor, room: &mut Room) -> Result<()> {
        let Self { layout, input, weight, output, bias } = self;
        let (channels, width) = (weight.inputs(), weight.width());
        let [values, products] = room.of([channels, width].map(|columns| weight.points() * piece.rows() * columns));
        let image = from.size()[1] as usize * channels;
        let map = numbers(from)?;
        widest::run(ToPoints { basis: input, layout, piece, channels, image, map, values: &mut *values });
        weight.multiply(values, products);
        let images = to.f_narrow(0, piece.images.start as i64, piece.images.len() as i64)?;
        let mut cells = images.f_narrow(1, piece.cells.start as i64, piece.cells.len() as i64)?;
        let cells = unwritten(&mut cells)?;
        widest::run(FromPoints { basis: output, layout, piece, width, values: products, bias, cells });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::nn::channels_last;

    fn on_map(weight: &Tensor, bias: Option<&Tensor>, side: [usize; 2]) -> Winograd {
        Winograd::new(weight, bias, MapAxes::new(side).unwrap().axes()).unwrap()
    }

    fn macs(channels: [usize; 2], side: [usize; 2]) -> f64 {
        MapAxes::new(side).unwrap().axes().macs(channels)
    }

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
                let quick = on_map(&weight, bias.as_ref(), [height, width].map(|side| side as usize));
                let quick = quick.on_maps(&channels_last(&map), &mut Room::default()).unwrap();
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
        let quick = on_map(&weight, None, [3, 3]);
        assert_eq!(quick.weight.points(), 16);
        let (quick, plain) = (error(quick.on_maps(&map, &mut Room::default()).unwrap()), error(conv(&map, &weight)));
        assert!(quick < 2.0 * plain, "{quick:.1e}, {plain:.1e}");
    }

    #[test]
    fn large_batches_are_done_in_parts() {
        let map = Tensor::rand([300, 64, 3, 3], (Kind::Float, Device::Cpu));
        let weight = Tensor::rand([8, 64, 3, 3], (Kind::Float, Device::Cpu)) - 0.5;
        // 16 · 64 values an image: 1050 images are more than one part.
        const { assert!(VALUES < 1050 * 16 * 64) };
        let map = channels_last(&map.repeat([4, 1, 1, 1]));
        let all = on_map(&weight, None, [3, 3]).on_maps(&map, &mut Room::default()).unwrap();
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
