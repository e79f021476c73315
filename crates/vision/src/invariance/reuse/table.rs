//! A layer's activations over all positions: one row a distinct cell.

use super::axis::{Axis, Name, Windows, cell, cell_count, pixel_axis};
use crate::invariance::scene::Background;
use crate::invariance::{Placer, Result, ShiftGrid, Sprite};
use rayon::prelude::*;
use tch::{Kind, Tensor};

/// Distinct cells with their channels.
pub(super) struct Table {
    rows: Axis,
    columns: Axis,
    /// `[cells + 1, channels]`; the last row is zero, for what lies beyond the border.
    values: Tensor,
}

/// Values gathered at a time: 8 MB, which stays in the caches while it is multiplied.
const GATHERED: usize = 1 << 21;

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

    /// A convolution: windows are gathered and multiplied, some at a time.
    pub(super) fn conv(&self, weight: &Tensor, bias: Option<&Tensor>, stride: usize, padding: usize) -> Result<Self> {
        let size = weight.size();
        let (outputs, kernel) = (size[0], size[2]);
        // [taps · inputs, outputs], taps row by row as windows are gathered.
        let matrix = weight.f_permute([2, 3, 1, 0])?.f_reshape([-1, outputs])?.f_contiguous()?;
        self.windowed(kernel as usize, stride, padding, outputs, |gathered, count, _, values| {
            let flat = gathered.f_view([count, -1])?;
            Ok(match bias {
                Some(bias) => bias.f_addmm_out(values, &flat, &matrix)?,
                None => flat.f_mm_out(values, &matrix)?,
            })
        })
    }

    /// Max pooling: what lies beyond the border is replaced by something in the window.
    pub(super) fn max_pool(&self, kernel: usize, stride: usize, padding: usize) -> Result<Self> {
        let channels = self.values.size()[1];
        let beyond = cell_count(&self.rows, &self.columns) as i64;
        self.windowed(kernel, stride, padding, channels, |gathered, count, index, values| {
            let windows = gathered.f_view([count, (kernel * kernel) as i64, channels])?;
            let outside = index.f_eq(beyond)?.f_view([count, (kernel * kernel) as i64, 1])?;
            Ok(windows.f_masked_fill(&outside, f64::NEG_INFINITY)?.f_amax_out(values, [1_i64], false)?)
        })
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

    /// Applies `compute` to gathered windows `[count · taps, channels]`, their number, and the cells that they were gathered from
    /// `[count · taps]`, the cell after the last being what lies outside; it writes to `[count, outputs]`.
    fn windowed(
        &self,
        kernel: usize,
        stride: usize,
        padding: usize,
        outputs: i64,
        compute: impl Fn(&Tensor, i64, &Tensor, &Tensor) -> Result<Tensor>,
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
        let values = Tensor::f_zeros([count as i64 + 1, outputs], (Kind::Float, self.values.device()))?;
        let chunk = (GATHERED / (taps * self.values.size()[1] as usize)).max(1);
        for start in (0..count).step_by(chunk) {
            let some = chunk.min(count - start);
            let index = Tensor::f_from_slice(&index[start * taps..(start + some) * taps])?;
            let gathered = self.values.f_index_select(0, &index)?;
            let _ = compute(&gathered, some as i64, &index, &values.f_narrow(0, start as i64, some as i64)?)?;
        }
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
