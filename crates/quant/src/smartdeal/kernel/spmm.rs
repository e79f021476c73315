//! A layer times many columns: kept rows only, a tile of the output in registers.

use rayon::prelude::*;

use super::packed::Rows;

/// Columns of a tile: four 512-bit registers.
pub(super) const TILE: usize = 64;

/// The input of a product, every (row, column) of a filter's matrix a run of `points` values.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand<'a> {
    /// Values, with a whole tile of slack behind the last run.
    pub(super) values: &'a [f32],
    /// Where a row's first column begins.
    pub(super) row_starts: &'a [usize],
    /// From one column of a row to the next.
    pub(super) column_stride: usize,
    /// From one group of filters to the next.
    pub(super) group_stride: usize,
    /// Filters of a group.
    pub(super) filters_per_group: usize,
    /// Values of a run.
    pub(super) points: usize,
}

/// Adds up `weights · runs` over the kept rows of one filter for one tile of points.
pub(super) type Tile = fn(&[u32], &[f32], usize, &Operand<'_>, usize, &mut [f32; TILE]);

/// The fastest [`Tile`] this machine runs.
pub(super) fn detect() -> Tile {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return tile_avx512_detected;
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return tile_avx2_detected;
        }
    }
    tile_scalar
}

/// The product of all filters, `[tiles, filters, TILE]`; points beyond the last are noise.
pub(super) fn multiply(rows: &Rows, operand: &Operand<'_>, tile: Tile) -> Vec<[f32; TILE]> {
    let filters = rows.ends.len();
    let mut out = vec![[0f32; TILE]; operand.points.div_ceil(TILE) * filters];
    out.par_iter_mut().with_min_len(8).enumerate().for_each(|(i, out)| {
        let (point, filter) = (i / filters * TILE, i % filters);
        let (kept, weights) = rows.filter(filter);
        let start = filter / operand.filters_per_group * operand.group_stride + point;
        tile(kept, weights, rows.columns, operand, start, out);
    });
    out
}

/// The plain twin of the vector kernels.
pub(super) fn tile_scalar(
    kept: &[u32],
    weights: &[f32],
    columns: usize,
    operand: &Operand<'_>,
    start: usize,
    out: &mut [f32; TILE],
) {
    out.fill(0.0);
    for (row, weights) in kept.iter().zip(weights.chunks_exact(columns)) {
        let mut at = start + operand.row_starts[*row as usize];
        for weight in weights {
            for (o, x) in out.iter_mut().zip(&operand.values[at..at + TILE]) {
                *o += weight * x;
            }
            at += operand.column_stride;
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn tile_avx512_detected(
    kept: &[u32],
    weights: &[f32],
    columns: usize,
    operand: &Operand<'_>,
    start: usize,
    out: &mut [f32; TILE],
) {
    // SAFETY: only `detect` hands this function out, after it found the features.
    unsafe { tile_avx512(kept, weights, columns, operand, start, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn tile_avx512(
    kept: &[u32],
    weights: &[f32],
    columns: usize,
    operand: &Operand<'_>,
    start: usize,
    out: &mut [f32; TILE],
) {
    use std::arch::x86_64::*;
    let mut sums = [_mm512_setzero_ps(); 4];
    for (row, weights) in kept.iter().zip(weights.chunks_exact(columns)) {
        let mut at = start + operand.row_starts[*row as usize];
        for weight in weights {
            let run: &[f32; TILE] = run(operand.values, at);
            let w = _mm512_set1_ps(*weight);
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `run` is four times sixteen floats.
                *sum = _mm512_fmadd_ps(w, unsafe { _mm512_loadu_ps(run.as_ptr().add(16 * v)) }, *sum);
            }
            at += operand.column_stride;
        }
    }
    for (v, sum) in sums.iter().enumerate() {
        // SAFETY: `out` is four times sixteen floats.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(16 * v), *sum) };
    }
}

#[cfg(target_arch = "x86_64")]
fn tile_avx2_detected(
    kept: &[u32],
    weights: &[f32],
    columns: usize,
    operand: &Operand<'_>,
    start: usize,
    out: &mut [f32; TILE],
) {
    // SAFETY: only `detect` hands this function out, after it found the features.
    unsafe { tile_avx2(kept, weights, columns, operand, start, out) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn tile_avx2(
    kept: &[u32],
    weights: &[f32],
    columns: usize,
    operand: &Operand<'_>,
    start: usize,
    out: &mut [f32; TILE],
) {
    use std::arch::x86_64::*;
    let mut sums = [_mm256_setzero_ps(); 8];
    for (row, weights) in kept.iter().zip(weights.chunks_exact(columns)) {
        let mut at = start + operand.row_starts[*row as usize];
        for weight in weights {
            let run: &[f32; TILE] = run(operand.values, at);
            let w = _mm256_set1_ps(*weight);
            for (v, sum) in sums.iter_mut().enumerate() {
                // SAFETY: `run` is eight times eight floats.
                *sum = _mm256_fmadd_ps(w, unsafe { _mm256_loadu_ps(run.as_ptr().add(8 * v)) }, *sum);
            }
            at += operand.column_stride;
        }
    }
    for (v, sum) in sums.iter().enumerate() {
        // SAFETY: `out` is eight times eight floats.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(8 * v), *sum) };
    }
}

/// A tile's worth of values; out of bounds it panics as any index does.
#[inline(always)]
fn run(values: &[f32], at: usize) -> &[f32; TILE] {
    match values[at..].first_chunk() {
        Some(run) => run,
        None => panic!("operand ends {} values after {at}, a tile is {TILE}", values.len() - at),
    }
}

#[cfg(test)]
pub(super) fn every_tile() -> Vec<(&'static str, Tile)> {
    let mut all: Vec<(&'static str, Tile)> = vec![("scalar", tile_scalar)];
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            all.push(("avx512", tile_avx512_detected));
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            all.push(("avx2", tile_avx2_detected));
        }
    }
    all
}
