//! Changes of basis of whole maps: from windows to points, and from points to cells.
//!
//! Both take small squares of cells, some channels at a time, through a matrix along the rows and one along the columns. The
//! squares stay in the innermost cache, so that a map is read once and written once; as products of large matrices libtorch
//! takes three times as long, most of it for packing.

use super::layout::{Layout, NOWHERE, Piece};
use super::widest::{Work, add_product};
use std::mem::MaybeUninit;

/// Channels that are worked on at a time.
pub(super) const LANES: usize = 32;
pub(super) type Lanes = [f32; LANES];

/// A matrix by rows, without its zeros.
type Sparse = Vec<Vec<(usize, f32)>>;

/// A change of basis along rows and columns.
#[derive(Clone)]
pub(super) struct Basis {
    rows: Sparse,
    columns: Sparse,
    /// Rows and columns that it takes.
    from: [usize; 2],
}

impl Basis {
    /// From a matrix for each axis, by rows.
    pub(super) fn new(matrices: [&Vec<Vec<f64>>; 2]) -> Self {
        let sparse = |matrix: &Vec<Vec<f64>>| {
            let row = |row: &Vec<f64>| {
                let entries = row.iter().enumerate().filter(|(_, value)| **value != 0.0);
                entries.map(|(index, value)| (index, *value as f32)).collect()
            };
            matrix.iter().map(row).collect()
        };
        Self { rows: sparse(matrices[0]), columns: sparse(matrices[1]), from: matrices.map(|matrix| matrix[0].len()) }
    }

    fn scratch(&self) -> Scratch {
        let lanes = |count: usize| vec![[0.0; LANES]; count];
        Scratch {
            from: lanes(self.from[0] * self.from[1]),
            half: lanes(self.from[0] * self.columns.len()),
            to: lanes(self.rows.len() * self.columns.len()),
        }
    }

    /// `to = rows · from · columnsᵀ`.
    #[inline(always)]
    fn apply<const FUSED: bool>(&self, scratch: &mut Scratch) {
        let columns = self.columns.len();
        for (half, from) in scratch.half.chunks_exact_mut(columns).zip(scratch.from.chunks_exact(self.from[1])) {
            for (half, entries) in half.iter_mut().zip(&self.columns) {
                *half = weighed::<FUSED>(entries, |index| &from[index]);
            }
        }
        for (to, entries) in scratch.to.chunks_exact_mut(columns).zip(&self.rows) {
            for (column, to) in to.iter_mut().enumerate() {
                *to = weighed::<FUSED>(entries, |index| &scratch.half[index * columns + column]);
            }
        }
    }
}

/// A sum of lanes by a sparse row.
#[inline(always)]
fn weighed<'a, const FUSED: bool>(entries: &[(usize, f32)], lanes: impl Fn(usize) -> &'a Lanes) -> Lanes {
    let mut sum = [0.0; LANES];
    for (index, weight) in entries {
        sum.iter_mut().zip(lanes(*index)).for_each(|(sum, value)| *sum = add_product::<FUSED>(*sum, *weight, *value));
    }
    sum
}

/// What a change of basis works in.
struct Scratch {
    from: Vec<Lanes>,
    half: Vec<Lanes>,
    to: Vec<Lanes>,
}

/// Windows of `map`, `[images, cells, channels]`, to `values`, `[points, images · tiles, channels]` of a piece.
pub(super) struct ToPoints<'a> {
    pub(super) basis: &'a Basis,
    pub(super) layout: &'a Layout,
    pub(super) piece: &'a Piece,
    /// Of one cell.
    pub(super) channels: usize,
    pub(super) image: usize,
    pub(super) map: &'a [f32],
    pub(super) values: &'a mut [f32],
}

impl Work for ToPoints<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { basis, layout, piece, channels, image, map, values } = self;
        let plane = piece.rows() * channels;
        let (mut scratch, mut row) = (basis.scratch(), 0);
        for image in map.chunks_exact(image).skip(piece.images.start).take(piece.images.len()) {
            for tile in piece.tiles.clone() {
                for start in (0..channels).step_by(LANES) {
                    let some = LANES.min(channels - start);
                    for (lanes, &place) in scratch.from.iter_mut().zip(layout.window(tile)) {
                        match place {
                            NOWHERE => lanes.fill(0.0),
                            place => read(lanes, &image[place as usize * channels + start..][..some]),
                        }
                    }
                    basis.apply::<FUSED>(&mut scratch);
                    for (plane, lanes) in values.chunks_exact_mut(plane).zip(&scratch.to) {
                        write(&mut plane[row + start..][..some], *lanes);
                    }
                }
                row += channels;
            }
        }
    }
}

/// `values`, `[points, images · tiles, width]`, and a bias to the cells of a piece, `[images, cells, channels]`.
pub(super) struct FromPoints<'a> {
    pub(super) basis: &'a Basis,
    pub(super) layout: &'a Layout,
    pub(super) piece: &'a Piece,
    pub(super) width: usize,
    pub(super) values: &'a [f32],
    pub(super) bias: &'a [f32],
    pub(super) cells: &'a mut [MaybeUninit<f32>],
}

impl Work for FromPoints<'_> {
    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { basis, layout, piece, width, values, bias, cells } = self;
        let channels = bias.len();
        let plane = piece.rows() * width;
        let (mut scratch, mut row) = (basis.scratch(), 0);
        for image in cells.chunks_exact_mut(piece.cells.len() * channels) {
            for tile in piece.tiles.clone() {
                for start in (0..channels).step_by(LANES) {
                    let some = LANES.min(channels - start);
                    for (lanes, plane) in scratch.from.iter_mut().zip(values.chunks_exact(plane)) {
                        read(lanes, &plane[row + start..][..LANES]);
                    }
                    basis.apply::<FUSED>(&mut scratch);
                    for (lanes, &place) in scratch.to.iter_mut().zip(layout.places(tile)) {
                        if place == NOWHERE {
                            continue;
                        }
                        lanes.iter_mut().zip(&bias[start..]).for_each(|(value, bias)| *value += bias);
                        let place = (place as usize - piece.cells.start) * channels + start;
                        write(&mut image[place..place + some], lanes.map(MaybeUninit::new));
                    }
                }
                row += width;
            }
        }
    }
}

/// Whole lanes, as most are, in a few instructions and without a call.
#[inline(always)]
fn read(lanes: &mut Lanes, values: &[f32]) {
    match values.try_into() {
        Ok(whole) => *lanes = whole,
        Err(_) => lanes[..values.len()].copy_from_slice(values),
    }
}

#[inline(always)]
fn write<T: Copy>(room: &mut [T], lanes: [T; LANES]) {
    match <&mut [T; LANES]>::try_from(&mut *room) {
        Ok(whole) => *whole = lanes,
        Err(_) => room.copy_from_slice(&lanes[..room.len()]),
    }
}
