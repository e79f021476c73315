//! Changes of basis of whole maps: from windows to points, and from points to places.
//!
//! Both take small squares of cells, some channels at a time, through a matrix along the rows and one along the columns. The
//! squares stay in the innermost cache, so that a map is read once and written once; as products of large matrices libtorch
//! takes three times as long, most of it for packing.

use super::scheme::Scheme;
use crate::invariance::Result;
use std::mem::MaybeUninit;
use tch::{Device, Kind, Tensor};

/// Channels that are worked on at a time.
const LANES: usize = 32;
type Lanes = [f32; LANES];

/// How tiles lie on a map.
pub(super) struct Layout {
    /// Height and width.
    side: [usize; 2],
    tile: [usize; 2],
    window: [usize; 2],
    /// Cells before the first that its windows hold.
    before: [usize; 2],
}

impl Layout {
    pub(super) fn new(side: [usize; 2], schemes: &[Scheme; 2]) -> Self {
        let of = |part: fn(&Scheme) -> usize| schemes.each_ref().map(part);
        Self {
            side,
            tile: of(Scheme::tile),
            window: of(Scheme::window),
            before: of(|scheme| usize::from(scheme.padded)),
        }
    }

    /// Tiles of a map.
    pub(super) fn tiles(&self) -> usize {
        self.along(0) * self.along(1)
    }

    fn along(&self, axis: usize) -> usize {
        self.side[axis].div_ceil(self.tile[axis])
    }

    /// Row and column of the first cell of each tile.
    fn corners(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        let columns = self.along(1);
        (0..self.tiles()).map(move |tile| [tile / columns * self.tile[0], tile % columns * self.tile[1]])
    }

    /// For each cell of a tile's window its place on the map, or nothing beyond the border.
    fn window(&self, corner: [usize; 2]) -> impl Iterator<Item = Option<usize>> + '_ {
        let at = move |axis: usize, step: usize| {
            (corner[axis] + step).checked_sub(self.before[axis]).filter(|place| *place < self.side[axis])
        };
        let pairs = (0..self.window[0]).flat_map(|row| (0..self.window[1]).map(move |column| [row, column]));
        pairs.map(move |[row, column]| Some(at(0, row)? * self.side[1] + at(1, column)?))
    }

    /// For each cell of a tile its place on the map, or nothing beyond the border.
    fn cells(&self, corner: [usize; 2]) -> impl Iterator<Item = Option<usize>> + '_ {
        let pairs = (0..self.tile[0]).flat_map(|row| (0..self.tile[1]).map(move |column| [row, column]));
        pairs.map(move |[row, column]| {
            let [row, column] = [corner[0] + row, corner[1] + column];
            (row < self.side[0] && column < self.side[1]).then_some(row * self.side[1] + column)
        })
    }
}

/// A matrix by rows, without its zeros.
type Sparse = Vec<Vec<(usize, f32)>>;

/// A change of basis along rows and columns.
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

    /// `to = rows · from · columnsᵀ`, by the widest instructions there are.
    fn apply(&self, scratch: &mut Scratch) {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                // SAFETY: the instructions that the function asks for were just found.
                return unsafe { self.apply_avx512(scratch) };
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: as above.
                return unsafe { self.apply_avx2(scratch) };
            }
        }
        self.apply_plain(scratch);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn apply_avx512(&self, scratch: &mut Scratch) {
        self.apply_plain(scratch);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn apply_avx2(&self, scratch: &mut Scratch) {
        self.apply_plain(scratch);
    }

    #[inline(always)]
    fn apply_plain(&self, scratch: &mut Scratch) {
        let columns = self.columns.len();
        for (half, from) in scratch.half.chunks_exact_mut(columns).zip(scratch.from.chunks_exact(self.from[1])) {
            half.iter_mut()
                .zip(&self.columns)
                .for_each(|(half, entries)| *half = weighed(entries, |index| &from[index]));
        }
        for (to, entries) in scratch.to.chunks_exact_mut(columns).zip(&self.rows) {
            for (column, to) in to.iter_mut().enumerate() {
                *to = weighed(entries, |index| &scratch.half[index * columns + column]);
            }
        }
    }
}

/// A sum of lanes by a sparse row.
#[inline(always)]
fn weighed<'a>(entries: &[(usize, f32)], lanes: impl Fn(usize) -> &'a Lanes) -> Lanes {
    let mut sum = [0.0; LANES];
    for (index, weight) in entries {
        sum.iter_mut().zip(lanes(*index)).for_each(|(sum, value)| *sum += weight * value);
    }
    sum
}

/// What a change of basis works in.
struct Scratch {
    from: Vec<Lanes>,
    half: Vec<Lanes>,
    to: Vec<Lanes>,
}

/// Windows of `map`, `[images, height, width, channels]`, to `values`, `[points, images · tiles, channels]`.
pub(super) fn to_points(basis: &Basis, layout: &Layout, map: &Tensor, values: &mut Tensor) -> Result<()> {
    let channels = map.size()[3] as usize;
    if map.numel() == 0 {
        return Ok(());
    }
    let plane = values.numel() / values.size()[0] as usize;
    let values = room(values)?;
    let image = layout.side[0] * layout.side[1] * channels;
    let (mut scratch, mut places) = (basis.scratch(), Vec::new());
    for (index, image) in numbers(map)?.chunks_exact(image).enumerate() {
        for (tile, corner) in layout.corners().enumerate() {
            let row = (index * layout.tiles() + tile) * channels;
            places.clear();
            places.extend(layout.window(corner));
            for start in (0..channels).step_by(LANES) {
                let some = LANES.min(channels - start);
                for (lanes, place) in scratch.from.iter_mut().zip(&places) {
                    match place {
                        Some(place) => read(lanes, &image[place * channels + start..][..some]),
                        None => lanes.fill(0.0),
                    }
                }
                basis.apply(&mut scratch);
                for (plane, lanes) in values.chunks_exact_mut(plane).zip(&scratch.to) {
                    write(&mut plane[row + start..][..some], lanes);
                }
            }
        }
    }
    Ok(())
}

/// `values`, `[points, images · tiles, channels]`, and a bias to tiles of `map`, `[images, height, width, channels]`.
pub(super) fn from_points(
    basis: &Basis,
    layout: &Layout,
    values: &Tensor,
    bias: &[f32],
    map: &mut Tensor,
) -> Result<()> {
    let channels = bias.len();
    if map.numel() == 0 {
        return Ok(());
    }
    let values = numbers(values)?;
    let plane = values.len() / (basis.from[0] * basis.from[1]);
    let image = layout.side[0] * layout.side[1] * channels;
    let (mut scratch, mut places) = (basis.scratch(), Vec::new());
    for (index, image) in room(map)?.chunks_exact_mut(image).enumerate() {
        for (tile, corner) in layout.corners().enumerate() {
            let row = (index * layout.tiles() + tile) * channels;
            places.clear();
            places.extend(layout.cells(corner));
            for start in (0..channels).step_by(LANES) {
                let some = LANES.min(channels - start);
                for (lanes, plane) in scratch.from.iter_mut().zip(values.chunks_exact(plane)) {
                    read(lanes, &plane[row + start..][..some]);
                }
                basis.apply(&mut scratch);
                for (lanes, place) in scratch.to.iter_mut().zip(&places) {
                    let Some(place) = place else { continue };
                    lanes.iter_mut().zip(&bias[start..]).for_each(|(value, bias)| *value += bias);
                    write(&mut image[place * channels + start..][..some], lanes);
                }
            }
        }
    }
    Ok(())
}

/// Whole lanes, as most are, in a few instructions and without a call.
#[inline]
fn read(lanes: &mut Lanes, values: &[f32]) {
    match values.try_into() {
        Ok(whole) => *lanes = whole,
        Err(_) => lanes[..values.len()].copy_from_slice(values),
    }
}

#[inline]
fn write(room: &mut [MaybeUninit<f32>], lanes: &Lanes) {
    let lanes = lanes.map(MaybeUninit::new);
    match <&mut [_; LANES]>::try_from(&mut *room) {
        Ok(whole) => *whole = lanes,
        Err(_) => room.copy_from_slice(&lanes[..room.len()]),
    }
}

fn check(tensor: &Tensor) -> Result<()> {
    if tensor.kind() == Kind::Float && tensor.device() == Device::Cpu && tensor.is_contiguous() {
        return Ok(());
    }
    let found = format!("{:?} on {:?}", tensor.kind(), tensor.device());
    Err(crate::invariance::Error::shape("map", "contiguous single precision on the CPU", found))
}

/// A tensor's numbers in the order of memory.
fn numbers(tensor: &Tensor) -> Result<&[f32]> {
    check(tensor)?;
    // SAFETY: `numel` numbers of this kind lie one after the other from `data_ptr` on, and live as long as the tensor that the
    // slice borrows from. Nobody writes to them: libtorch's operations run in between, never at the same time.
    Ok(unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) })
}

/// A tensor's memory, to be written.
fn room(tensor: &mut Tensor) -> Result<&mut [MaybeUninit<f32>]> {
    check(tensor)?;
    // SAFETY: as above; the tensors that come here were made a moment ago and are known to their maker alone.
    Ok(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) })
}
