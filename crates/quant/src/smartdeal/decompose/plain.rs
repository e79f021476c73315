//! The fit as the method states it: any number of columns, a singular value decomposition at every step.

use nalgebra::DMatrix;
use ndarray::{Array2, ArrayView2};

use super::least_squares::min_norm;
use super::{Factors, ROW_FACTOR, TraceStep};
use crate::Result;
use crate::smartdeal::{DecomposeConfig, Projection};

/// Decomposes one matrix step by step as published; the vectorised path of [`decompose`](super::decompose) is
/// tested against it.
///
/// # Errors
/// As [`decompose`](super::decompose()).
pub fn decompose_plain(w: &ArrayView2<f64>, config: &DecomposeConfig) -> Result<Factors> {
    super::check(w, config)?;
    let matrix = DMatrix::from_fn(w.nrows(), w.ncols(), |i, j| w[[i, j]]);
    let mut theta = config.theta;
    // Where the weights lack rank no threshold keeps every column alive; past this many restarts a dead one stays.
    const MOST_RESTARTS: usize = 100;
    for _ in 0..MOST_RESTARTS {
        let (factors, dead_column) = attempt(&matrix, theta, config);
        if !dead_column {
            return Ok(factors);
        }
        theta *= config.scale.unwrap_or(1.0);
    }
    Ok(attempt(&matrix, theta, config).0)
}

/// One run at a given threshold, and whether column scaling met a dead column that a lower threshold might keep.
fn attempt(w: &DMatrix<f64>, theta: f64, config: &DecomposeConfig) -> (Factors, bool) {
    let n = w.ncols();
    let mut coefficients = w.clone();
    let mut previous: Option<DMatrix<f64>> = None;
    let mut trace = Vec::new();
    let mut dead_column = false;
    for _ in 0..config.max_iterations - 1 {
        let (projected, dead) = project(&coefficients, w, config);
        dead_column |= dead;
        if previous.as_ref().is_some_and(|p| (&projected - p).norm() <= config.tolerance) {
            break;
        }
        let basis = min_norm(&projected, w, config.rcond);
        trace.push(step(w, &projected, &basis));
        coefficients = min_norm(&basis.transpose(), &w.transpose(), config.rcond).transpose();
        threshold(&mut coefficients, theta, config.row_threshold);
        previous = Some(projected);
    }
    let (projected, dead) = project(&coefficients, w, config);
    dead_column |= dead;
    let basis = min_norm(&projected, w, config.rcond);
    let last = step(w, &projected, &basis);
    trace.push(last);
    let norm = w.norm();
    let factors = Factors {
        coefficients: Array2::from_shape_fn((w.nrows(), n), |(i, j)| projected[(i, j)]),
        basis: Array2::from_shape_fn((n, n), |(i, j)| basis[(i, j)]),
        trace,
        relative_error: if norm == 0.0 { 0.0 } else { last.error / norm },
    };
    (factors, dead_column)
}

fn step(w: &DMatrix<f64>, coefficients: &DMatrix<f64>, basis: &DMatrix<f64>) -> TraceStep {
    TraceStep {
        error: (w - coefficients * basis).norm(),
        non_zeros: coefficients.iter().filter(|c| **c != 0.0).count(),
    }
}

fn threshold(coefficients: &mut DMatrix<f64>, theta: f64, rows: bool) {
    if rows {
        for mut row in coefficients.row_iter_mut() {
            if row.iter().map(|c| c.abs()).sum::<f64>() < ROW_FACTOR * theta {
                row.fill(0.0);
            }
        }
    }
    coefficients.apply(|c| {
        if c.abs() < theta {
            *c = 0.0;
        }
    });
}

/// The coefficients on the ladder, and whether column scaling met a dead column.
fn project(coefficients: &DMatrix<f64>, w: &DMatrix<f64>, config: &DecomposeConfig) -> (DMatrix<f64>, bool) {
    let Projection::PowersOfTwo(ladder) = config.projection else {
        return (coefficients.clone(), false);
    };
    let mut scaled = coefficients.clone();
    let dead = config.scale.is_some() && scale_columns(&mut scaled, w);
    (scaled.map(|c| ladder.project(c)), dead)
}

/// Multiplies each column by `2^mean(round(log2|c|) − log2|c|)` over its non-zeros, halves rounded to even. Tells
/// whether some column has no non-zero left although the weights have one there.
fn scale_columns(coefficients: &mut DMatrix<f64>, w: &DMatrix<f64>) -> bool {
    let mut dead = false;
    for (mut column, weights) in coefficients.column_iter_mut().zip(w.column_iter()) {
        let (mut sum, mut count) = (0.0, 0usize);
        for c in column.iter().filter(|c| **c != 0.0) {
            let log = c.abs().log2();
            sum += log.round_ties_even() - log;
            count += 1;
        }
        match count {
            0 => dead |= weights.iter().any(|v| *v != 0.0),
            _ => column *= (sum / count as f64).exp2(),
        }
    }
    dead
}
