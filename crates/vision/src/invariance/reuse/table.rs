//! A layer's activations over all positions: one row a distinct cell.

use super::axis::{Axis, Name, Windows, cell, cell_count, pixel_axis};
use super::winograd::{Axes, Winograd};
use super::workers::{self, Pieces};
use crate::invariance::scene::Background;
use crate::invariance::{Placer, Result, ShiftGrid, Sprite};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// Distinct cells with their channels.
pub(super) struct Table {
    rows: Axis,
    columns: Axis,
    /// `[cells + 1, channels]`; the last row is zero, for what lies beyond the border.
    values: Tensor,
}

/// Values gathered at a time: 4 MB, which stays in the caches while it is multiplied.
const GATHERED: usize = 1 << 20;

/// Windows of distinct cells.
struct Gathered {
    /// `[count · taps, channels]`.
    values: Tensor,
    /// The cells that they were gathered from, `[count · taps]`; the one after the last is what lies outside.
    cells: Tensor,
    count: i64,
}

impl Table {
    /// The pixels.
    pub(super) fn of_pixels(
        [rows, columns]: [Axis; 2],
        placer: &Placer,
        grid: &ShiftGrid,
        object: &Sprite,
    ) -> Result<Self> {
        let plain = matches!(placer.background, Background::Colour(_));
        let [row_witnesses, column_witnesses] = [0, 1].map(|axis| pixel_axis(&placer.motion, plain, grid, axis).1);
        let channels = object.picture().channels();
        let mut values = vec![0.0_f32; (cell_count(&rows, &columns) + 1) * channels];
        let objects = rows.objects() * columns.objects();
        let fill = |start: usize, which: usize, values: &mut [f32]| {
            for (row, &[row_position, row_pixel]) in row_witnesses[which].iter().enumerate() {
                for (column, &[column_position, column_pixel]) in column_witnesses[which].iter().enumerate() {
                    let place = start + row * column_witnesses[which].len() + column;
                    let position = (which == 0 || row_position != usize::MAX && column_position != usize::MAX)
                        .then_some([row_position, column_position]);
                    let pixel = [row_pixel, column_pixel];
                    for channel in 0..channels {
                        values[place * channels + channel] =
                            placer.pixel(object, grid, channel, position, pixel, which == 0);
                    }
                }
            }
        };
        fill(0, 0, &mut values);
        fill(objects, 1, &mut values);
        let values = Tensor::f_from_slice(&values)?.f_view([-1, channels as i64])?;
        Ok(Self { rows, columns, values })
    }

    /// The same table; its values copied if they are to be overwritten.
    pub(super) fn shared_copy(&self, copied: bool) -> Result<Self> {
        let values = if copied { self.values.copy() } else { self.values.shallow_clone() };
        Ok(Self { rows: self.rows.clone(), columns: self.columns.clone(), values })
    }

    /// A convolution of 3 × 3 by fewer multiplications, if `make` makes one for these axes.
    pub(super) fn convolved(&self, make: impl FnOnce(Axes) -> Result<Option<Winograd>>) -> Result<Option<Self>> {
        let [rows, columns] = [&self.rows, &self.columns].map(|axis| axis.windows(3, 1, 1));
        let (rows, columns) = (rows?.0, columns?.0);
        let axes = Axes { from: [&self.rows, &self.columns], to: [&rows, &columns] };
        let Some(conv) = make(axes)? else { return Ok(None) };
        let values = room(cell_count(&rows, &columns), conv.outputs())?;
        conv.on_table(&self.values, &values)?;
        Ok(Some(Self { rows, columns, values }))
    }

    /// A convolution: windows are gathered and multiplied, some at a time.
    pub(super) fn conv(&self, weight: &Tensor, bias: Option<&Tensor>, stride: usize, padding: usize) -> Result<Self> {
        let size = weight.size();
        let (outputs, kernel) = (size[0], size[2]);
        // [taps · inputs, outputs], taps row by row as windows are gathered.
        let matrix = weight.f_permute([2, 3, 1, 0])?.f_reshape([-1, outputs])?.f_contiguous()?;
        let state = || (matrix.shallow_clone(), bias.map(Tensor::shallow_clone));
        self.windowed([kernel as usize, stride, padding], outputs, state, |(matrix, bias), gathered, values| {
            let flat = gathered.values.f_view([gathered.count, -1])?;
            Ok(match bias {
                Some(bias) => bias.f_addmm_out(values, &flat, matrix)?,
                None => flat.f_mm_out(values, matrix)?,
            })
        })
    }

    /// Max pooling: what lies beyond the border is replaced by something in the window.
    pub(super) fn max_pool(&self, kernel: usize, stride: usize, padding: usize) -> Result<Self> {
        let channels = self.values.size()[1];
        let beyond = cell_count(&self.rows, &self.columns) as i64;
        self.windowed(
            [kernel, stride, padding],
            channels,
            || (),
            |(), Gathered { values: windows, cells, count }, values| {
                let taps = (kernel * kernel) as i64;
                let windows = windows.f_view([*count, taps, channels])?;
                let outside = cells.f_eq(beyond)?.f_view([*count, taps, 1])?;
                Ok(windows.f_masked_fill(&outside, f64::NEG_INFINITY)?.f_amax_out(values, [1_i64], false)?)
            },
        )
    }

    /// In place.
    pub(super) fn relu(mut self) -> Result<Self> {
        let _ = self.values.f_relu_()?;
        Ok(self)
    }

    /// The sum of two maps.
    pub(super) fn sum(self, other: Self) -> Result<Self> {
        let (rows, row_pairs) = self.rows.joined(&other.rows);
        let (columns, column_pairs) = self.columns.joined(&other.columns);
        let side = |table: &Self, which: usize| -> Result<Tensor> {
            let (rows, columns) = (&table.rows, &table.columns);
            let total = cell_count(rows, columns);
            let mut index = every_cell(&row_pairs, &column_pairs, 1, |row, column, place| {
                place[0] = cell(rows, columns, row[which], column[which]).unwrap_or(total) as i64;
            });
            index.push(total as i64);
            if index.len() == total + 1 && index.iter().enumerate().all(|(place, at)| *at == place as i64) {
                return Ok(table.values.shallow_clone());
            }
            Ok(table.values.f_index_select(0, &Tensor::f_from_slice(&index)?)?)
        };
        let values = side(&self, 0)? + side(&other, 1)?;
        Ok(Self { rows, columns, values })
    }

    /// Gathers windows of `[kernel, stride, padding]`, some at a time and each core by itself, for `compute` to write `[count, outputs]`.
    fn windowed<S: Send>(
        &self,
        [kernel, stride, padding]: [usize; 3],
        outputs: i64,
        state: impl Fn() -> S,
        compute: impl Fn(&S, &Gathered, &Tensor) -> Result<Tensor> + Sync,
    ) -> Result<Self> {
        let (rows, row_windows) = self.rows.windows(kernel, stride, padding)?;
        let (columns, column_windows) = self.columns.windows(kernel, stride, padding)?;
        let outside = cell_count(&self.rows, &self.columns);
        let taps = kernel * kernel;
        let (old_rows, old_columns) = (&self.rows, &self.columns);
        let index = every_cell(&row_windows, &column_windows, taps, |row, column, window| {
            let mut window = window.iter_mut();
            for &r in row {
                for (&c, place) in column.iter().zip(window.by_ref()) {
                    *place = cell(old_rows, old_columns, r, c).unwrap_or(outside) as i64;
                }
            }
        });
        let count = cell_count(&rows, &columns);
        let values = room(count, outputs)?;
        let chunk = (GATHERED / (taps * self.values.size()[1] as usize)).max(1);
        let pieces = count.div_ceil(chunk);
        let states =
            (0..workers::count(pieces)).map(|_| (state(), self.values.shallow_clone(), values.shallow_clone()));
        workers::run(states.collect(), pieces, |(state, old, new): (S, Tensor, Tensor), pieces: Pieces| {
            let one = |piece: usize| {
                let (start, some) = (piece * chunk, chunk.min(count - piece * chunk));
                let cells = Tensor::f_from_slice(&index[start * taps..(start + some) * taps])?;
                let gathered = Gathered { values: old.f_index_select(0, &cells)?, cells, count: some as i64 };
                let _ = compute(&state, &gathered, &new.f_narrow(0, start as i64, some as i64)?)?;
                Ok((piece, ()))
            };
            pieces.map(one).collect()
        })?;
        Ok(Self { rows, columns, values })
    }

    /// Height and width of the map.
    pub(super) fn side(&self) -> [usize; 2] {
        [self.rows.cells(), self.columns.cells()]
    }

    /// Means over all places of the map, `[positions, channels]`.
    pub(super) fn means(&self, grid: &ShiftGrid) -> Result<Tensor> {
        let places = self.rows.cells() * self.columns.cells();
        let chunk = (GATHERED / (places * self.values.size()[1] as usize)).max(1);
        let parts = (0..grid.len()).step_by(chunk).map(|start| {
            let range = start..(start + chunk).min(grid.len());
            Ok(self.maps(grid, range)?.f_mean_dim([2_i64, 3].as_slice(), false, Kind::Float)?)
        });
        Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// The maps of some positions, `[positions, channels, height, width]` with channels last in memory.
    pub(super) fn maps(&self, grid: &ShiftGrid, range: std::ops::Range<usize>) -> Result<Tensor> {
        let places = self.rows.cells() * self.columns.cells();
        let (rows, columns) = (&self.rows, &self.columns);
        let count = range.len();
        let mut index = vec![0_i64; count * places];
        index.par_chunks_exact_mut(places).zip(range).for_each(|(index, position)| {
            let [row, column] = grid.position(position);
            let mut places = index.iter_mut();
            for &r in rows.at(row) {
                for (&c, place) in columns.at(column).iter().zip(places.by_ref()) {
                    // Cells of a map are never outside it.
                    *place = cell(rows, columns, r, c).unwrap_or(0) as i64;
                }
            }
        });
        let gathered = self.values.f_index_select(0, &Tensor::f_from_slice(&index)?)?;
        let shape = [count as i64, self.rows.cells() as i64, self.columns.cells() as i64, self.values.size()[1]];
        Ok(gathered.f_view(shape)?.f_permute([0, 3, 1, 2])?)
    }
}

/// For the values of a table, `[cells + 1, channels]`, of which the last row is set.
fn room(cells: usize, channels: i64) -> Result<Tensor> {
    let values = Tensor::f_empty([cells as i64 + 1, channels], (Kind::Float, Device::Cpu))?;
    let _ = values.f_narrow(0, cells as i64, 1)?.f_zero_()?;
    Ok(values)
}

/// `fill(row's window, column's window, places)` for every distinct cell, in the order of their numbers; `width` places a cell.
fn every_cell(
    rows: &Windows,
    columns: &Windows,
    width: usize,
    fill: impl Fn(&[Name], &[Name], &mut [i64]) + Sync,
) -> Vec<i64> {
    let mut all = Vec::new();
    let (height, side) = (rows.width, columns.width);
    for (rows, columns) in [(&rows.objects, &columns.objects), (&rows.backgrounds, &columns.backgrounds)] {
        let line = columns.len() / side * width;
        let start = all.len();
        all.resize(start + rows.len() / height * line, 0_i64);
        if line > 0 {
            all[start..].par_chunks_exact_mut(line).zip(rows.par_chunks_exact(height)).for_each(|(line, row)| {
                for (column, places) in columns.chunks_exact(side).zip(line.chunks_exact_mut(width)) {
                    fill(row, column, places);
                }
            });
        }
    }
    all
}
