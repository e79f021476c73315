//! Every query meets every vector of the gallery once, block by block.

use super::kernel::{Level, products, reaching};
use super::panels::{PANEL, Panels};
use rayon::prelude::*;
use std::sync::{Mutex, PoisonError};

/// Vectors of the gallery that a kernel call takes: three registers of sixteen.
pub(in super::super) const STRIP: usize = 48;

/// Queries in a block: their panels at 512 dimensions fill a megabyte, about a core's second cache.
pub(in super::super) const BLOCK: usize = 10 * STRIP;

/// What a block of queries keeps of the vectors that it has met.
pub(in super::super) trait BlockState: Send {
    /// For each of the block's [`BLOCK`] rows the score that a vector must reach to be offered; ∞ for rows that want nothing.
    fn floors(&self) -> &[f32];

    /// A vector of the gallery, by its position in the packed order, that reached the row's floor. It may be one of those
    /// that the gallery was filled up with, with a score of −∞.
    fn offer(&mut self, row: usize, position: usize, score: f32);
}

/// All queries against all of the gallery. A block's state is made, filled and finished by one thread, so that only as many
/// are alive as there are threads. The results are in the order of the blocks.
pub(in super::super) fn sweep_gallery<S: BlockState, T: Send>(
    queries: &Panels,
    gallery: &Panels,
    make: impl Fn(usize) -> S + Sync,
    finish: impl Fn(usize, S) -> T + Sync,
) -> Vec<T> {
    let level = Level::detect();
    let blocks = queries.rows().div_ceil(BLOCK);
    let one = |scores: &mut Vec<f32>, block: usize| {
        let mut state = make(block);
        let rows = rows_of(queries, block);
        for column in (0..gallery.filled()).step_by(STRIP) {
            strip(level, queries, rows, gallery, column, scores);
            offer_rows(level, &mut state, scores, gallery, column);
        }
        finish(block, state)
    };
    (0..blocks).into_par_iter().map_init(Vec::new, one).collect()
}

/// A set against itself: the product of two blocks is offered to both. All states are alive at once.
pub(in super::super) fn sweep_itself<S: BlockState>(set: &Panels, make: impl Fn(usize) -> S + Sync) -> Vec<S> {
    let level = Level::detect();
    let blocks = set.rows().div_ceil(BLOCK);
    let states: Vec<Mutex<S>> = (0..blocks).into_par_iter().map(|block| Mutex::new(make(block))).collect();
    // A panic of another thread is about to end this one too; what it left behind is not read.
    let lock = |block: usize| states[block].lock().unwrap_or_else(PoisonError::into_inner);
    let pairs: Vec<[usize; 2]> = (0..blocks).flat_map(|a| (a..blocks).map(move |b| [a, b])).collect();
    pairs.into_par_iter().for_each_init(Vec::new, |scores, [a, b]| {
        let (rows, columns) = (rows_of(set, a), rows_of(set, b));
        for column in (columns[0]..columns[1]).step_by(STRIP) {
            strip(level, set, rows, set, column, scores);
            offer_rows(level, &mut *lock(a), scores, set, column);
            if a != b {
                offer_columns(level, &mut *lock(b), scores, set, rows[0], column - columns[0]);
            }
        }
    });
    states.into_iter().map(|state| state.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// Scores of a block's rows with the strip at `column`, for the callers that need all of them: `[row · STRIP + lane]`.
pub(in super::super) fn strip_scores(
    queries: &Panels,
    block: usize,
    gallery: &Panels,
    column: usize,
    scores: &mut Vec<f32>,
) {
    strip(Level::detect(), queries, rows_of(queries, block), gallery, column, scores);
    let half_norms = gallery.half_norms(column, column + STRIP);
    for line in scores.chunks_exact_mut(STRIP) {
        line.iter_mut().zip(half_norms).for_each(|(score, half)| *score -= half);
    }
}

/// First and last row of a block, in whole panels.
fn rows_of(set: &Panels, block: usize) -> [usize; 2] {
    [block * BLOCK, ((block + 1) * BLOCK).min(set.filled())]
}

fn strip(level: Level, queries: &Panels, rows: [usize; 2], gallery: &Panels, column: usize, scores: &mut Vec<f32>) {
    scores.resize((rows[1] - rows[0]) * STRIP, 0.0);
    let (rows, strip) = (queries.panels(rows[0], rows[1]), gallery.panels(column, column + STRIP));
    products(level, rows, strip, queries.dim(), scores);
}

fn offer_rows<S: BlockState>(level: Level, state: &mut S, scores: &[f32], gallery: &Panels, column: usize) {
    let half_norms = gallery.half_norms(column, column + STRIP);
    for (row, line) in scores.chunks_exact(STRIP).enumerate() {
        let floors = [state.floors()[row]; PANEL];
        for (part, (line, half_norms)) in lanes(line).zip(lanes(half_norms)).enumerate() {
            let mut bits = reaching(level, line, half_norms, &floors);
            while bits != 0 {
                let lane = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let score = line[lane] - half_norms[lane];
                // The floor may have risen since.
                if score >= state.floors()[row] {
                    state.offer(row, column + part * PANEL + lane, score);
                }
            }
        }
    }
}

/// The same scores seen from the columns: rows `first_row…` of the set are what is offered.
fn offer_columns<S: BlockState>(
    level: Level,
    state: &mut S,
    scores: &[f32],
    set: &Panels,
    first_row: usize,
    first_column: usize,
) {
    for (row, line) in scores.chunks_exact(STRIP).enumerate() {
        let half_norm = set.half_norm(first_row + row);
        let half_norms = [half_norm; PANEL];
        for (part, line) in lanes(line).enumerate() {
            let at = first_column + part * PANEL;
            let floors: &[f32; PANEL] = match state.floors()[at..at + PANEL].try_into() {
                Ok(floors) => floors,
                Err(_) => continue,
            };
            let mut bits = reaching(level, line, &half_norms, floors);
            while bits != 0 {
                let lane = bits.trailing_zeros() as usize;
                bits &= bits - 1;
                // Each lane is another query, so no floor moves in between.
                state.offer(at + lane, first_row + row, line[lane] - half_norm);
            }
        }
    }
}

/// Whole registers of a line.
fn lanes(line: &[f32]) -> impl Iterator<Item = &[f32; PANEL]> {
    line.as_chunks::<PANEL>().0.iter()
}
