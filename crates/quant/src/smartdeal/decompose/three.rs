//! The fit for three columns, vectorised over rows.
//!
//! Rows are taken in groups of eight, column by column, the last group filled up with zeros. Every sum runs in eight
//! lanes that are added up in one fixed order, and no multiply-add is fused: the result is the same to the last
//! bit whatever instruction set runs it and however many threads there are.

use nalgebra::{DMatrix, Matrix3};
use ndarray::{Array2, ArrayView2};

#[cfg(target_arch = "x86_64")]
use super::lanes::x86::{Avx2, Avx512};
use super::lanes::{Lanes, Portable, Rungs, total};
use super::least_squares::min_norm;
use super::{Factors, ROW_FACTOR, TraceStep};
use crate::smartdeal::{DecomposeConfig, Projection};

const LANES: usize = 8;
type Basis = [[f64; 3]; 3];

/// Eight rows, column by column.
type Rows = [[f64; LANES]; 3];

/// Working memory that one thread keeps from block to block.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    rows: usize,
    weights: Vec<Rows>,
    current: Vec<Rows>,
    projected: Vec<Rows>,
}

/// What a fit leaves besides the coefficients in [`Scratch`].
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) basis: Basis,
    pub(crate) trace: Vec<TraceStep>,
    pub(crate) weight_norm: f64,
}

impl Scratch {
    /// Takes in a matrix of `rows × 3`, given entry by entry.
    #[inline(always)]
    pub(crate) fn load(&mut self, rows: usize, entry: impl Fn(usize, usize) -> f64) {
        self.rows = rows;
        let groups = rows.div_ceil(LANES);
        let empty = [[0.0; LANES]; 3];
        self.weights.clear();
        self.weights.resize(groups, empty);
        for row in 0..rows {
            let group = &mut self.weights[row / LANES];
            for (j, column) in group.iter_mut().enumerate() {
                column[row % LANES] = entry(row, j);
            }
        }
        self.current.clone_from(&self.weights);
        self.projected.clear();
        self.projected.resize(groups, empty);
    }

    /// The projected coefficient at a place.
    #[inline(always)]
    pub(crate) fn coefficient(&self, row: usize, column: usize) -> f64 {
        self.projected[row / LANES][column][row % LANES]
    }

    /// Runs the fit on what was loaded.
    pub(crate) fn fit(&mut self, config: &DecomposeConfig) -> Outcome {
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512dq") {
                // SAFETY: the features that the function asks for were just found.
                return unsafe { fit_avx512(self, config) };
            }
            if std::arch::is_x86_feature_detected!("avx2") {
                // SAFETY: as above.
                return unsafe { fit_avx2(self, config) };
            }
        }
        fit_with::<Portable>(self, config)
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn fit_avx512(scratch: &mut Scratch, config: &DecomposeConfig) -> Outcome {
    fit_with::<Avx512>(scratch, config)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fit_avx2(scratch: &mut Scratch, config: &DecomposeConfig) -> Outcome {
    fit_with::<Avx2>(scratch, config)
}

#[inline(always)]
fn fit_with<L: Lanes>(scratch: &mut Scratch, config: &DecomposeConfig) -> Outcome {
    let rungs = match config.projection {
        Projection::PowersOfTwo(ladder) => Some(ladder.rungs_of_lanes()),
        Projection::Real => None,
    };
    let row_limit = if config.row_threshold { ROW_FACTOR * config.theta } else { 0.0 };
    let mut trace = Vec::with_capacity(config.max_iterations);
    for iteration in 0..config.max_iterations - 1 {
        let sums = project_and_sum::<L>(scratch, rungs.as_ref());
        if iteration > 0 && sums.moved.sqrt() <= config.tolerance {
            break;
        }
        let basis = fit_basis(scratch, &sums, config.rcond);
        let inverse = pseudo_inverse(&basis, config.rcond);
        let error = residual_and_refit::<L>(scratch, &basis, &inverse, config.theta, row_limit);
        trace.push(TraceStep { error, non_zeros: sums.non_zeros as usize });
    }
    let sums = project_and_sum::<L>(scratch, rungs.as_ref());
    let basis = fit_basis(scratch, &sums, config.rcond);
    let error = residual::<L>(scratch, &basis);
    trace.push(TraceStep { error, non_zeros: sums.non_zeros as usize });
    Outcome { basis, trace, weight_norm: sums.weight_square.sqrt() }
}

struct Sums {
    /// `Qᵀ·Q`: 00, 01, 02, 11, 12, 22.
    gram: [f64; 6],
    /// `Qᵀ·W`.
    cross: Basis,
    /// `‖Q − Q_previous‖²`.
    moved: f64,
    non_zeros: f64,
    /// `‖W‖²`.
    weight_square: f64,
}

/// Projects the current coefficients over the previous projection and gathers every sum the basis fit needs.
#[inline(always)]
fn project_and_sum<L: Lanes>(scratch: &mut Scratch, rungs: Option<&Rungs>) -> Sums {
    let zero = L::splat(0.0);
    let (mut gram, mut cross) = ([zero; 6], [[zero; 3]; 3]);
    let (mut moved, mut non_zeros, mut square) = (zero, zero, zero);
    let Scratch { weights, current, projected, .. } = scratch;
    for ((c, w), q) in current.iter().zip(&*weights).zip(projected) {
        let mut now = [zero; 3];
        for k in 0..3 {
            let coefficient = L::load(&c[k]);
            now[k] = match rungs {
                Some(rungs) => coefficient.project(rungs),
                None => coefficient,
            };
            let step = now[k].sub(L::load(&q[k]));
            now[k].store(&mut q[k]);
            moved = moved.add(step.mul(step));
            non_zeros = non_zeros.add(now[k].ones_where_nonzero());
        }
        for (sum, (i, j)) in gram.iter_mut().zip([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]) {
            *sum = sum.add(now[i].mul(now[j]));
        }
        for j in 0..3 {
            let weight = L::load(&w[j]);
            square = square.add(weight.mul(weight));
            for (row, q) in cross.iter_mut().zip(now) {
                row[j] = row[j].add(q.mul(weight));
            }
        }
    }
    Sums {
        gram: gram.map(total),
        cross: cross.map(|row| row.map(total)),
        moved: total(moved),
        non_zeros: total(non_zeros),
        weight_square: total(square),
    }
}

/// `‖W − Q·B‖`, and the next coefficients `W·B⁺`, thresholded.
#[inline(always)]
fn residual_and_refit<L: Lanes>(
    scratch: &mut Scratch,
    basis: &Basis,
    inverse: &Basis,
    theta: f64,
    row_limit: f64,
) -> f64 {
    let (b, x) = (basis.map(|row| row.map(L::splat)), inverse.map(|row| row.map(L::splat)));
    let (theta, row_limit) = (L::splat(theta), L::splat(row_limit));
    let mut square = L::splat(0.0);
    let Scratch { weights, current, projected, .. } = scratch;
    for ((c, w), q) in current.iter_mut().zip(&*weights).zip(&*projected) {
        let (w, q) = (w.each_ref().map(L::load), q.each_ref().map(L::load));
        square = add_residual(square, &w, &q, &b);
        let next: [L; 3] = std::array::from_fn(|j| w[0].mul(x[0][j]).add(w[1].mul(x[1][j])).add(w[2].mul(x[2][j])));
        let row = next[0].abs().add(next[1].abs()).add(next[2].abs());
        for (c, next) in c.iter_mut().zip(next) {
            next.zero_below(row, row_limit).zero_below(next.abs(), theta).store(c);
        }
    }
    total(square).sqrt()
}

#[inline(always)]
fn residual<L: Lanes>(scratch: &Scratch, basis: &Basis) -> f64 {
    let b = basis.map(|row| row.map(L::splat));
    let rows = scratch.weights.iter().zip(&scratch.projected);
    let square = rows.fold(L::splat(0.0), |square, (w, q)| {
        add_residual(square, &w.each_ref().map(L::load), &q.each_ref().map(L::load), &b)
    });
    total(square).sqrt()
}

#[inline(always)]
fn add_residual<L: Lanes>(mut square: L, w: &[L; 3], q: &[L; 3], b: &[[L; 3]; 3]) -> L {
    for j in 0..3 {
        let product = q[0].mul(b[0][j]).add(q[1].mul(b[1][j])).add(q[2].mul(b[2][j]));
        let rest = w[j].sub(product);
        square = square.add(rest.mul(rest));
    }
    square
}

/// `argmin_B ‖W − Q·B‖` of least norm.
#[inline(always)]
fn fit_basis(scratch: &Scratch, sums: &Sums, rcond: f64) -> Basis {
    solve_normal(&sums.gram, &sums.cross).unwrap_or_else(|| {
        // Ill-conditioned: squaring the singular values would lose those that rcond has to judge.
        let rows = scratch.rows;
        let take = |groups: &[Rows]| DMatrix::from_fn(rows, 3, |i, j| groups[i / LANES][j][i % LANES]);
        let x = min_norm(&take(&scratch.projected), &take(&scratch.weights), rcond);
        std::array::from_fn(|i| std::array::from_fn(|j| x[(i, j)]))
    })
}

/// Pivots below this fraction of their diagonal mean a condition that the closed form should not be trusted with.
const PIVOT_FLOOR: f64 = 1e-6;
/// Columns whose squared norms differ by more than this are left to the singular values too.
const NORM_FLOOR: f64 = 1e-12;

/// Solves `G·X = H` for a symmetric positive definite `G` by `L·D·Lᵀ`. A zero diagonal is a column of zeros: its
/// row of the least-norm solution is zero. `None` where `G` is ill-conditioned.
#[inline(always)]
fn solve_normal(gram: &[f64; 6], cross: &Basis) -> Option<Basis> {
    let [g00, g01, g02, g11, g12, g22] = *gram;
    let largest = g00.max(g11).max(g22);
    let diagonal = |g: f64| if g == 0.0 { 1.0 } else { g };
    let usable = |g: f64| g == 0.0 || (g > NORM_FLOOR * largest && g > f64::MIN_POSITIVE);
    if !(usable(g00) && usable(g11) && usable(g22)) {
        return None;
    }
    let (d0, s11, s22) = (diagonal(g00), diagonal(g11), diagonal(g22));
    let (l10, l20) = (g01 / d0, g02 / d0);
    let d1 = s11 - l10 * g01;
    let l21 = (g12 - l20 * g01) / d1;
    let d2 = s22 - l20 * g02 - l21 * l21 * d1;
    // Written so that a NaN fails too.
    if !(d1 > PIVOT_FLOOR * s11 && d2 > PIVOT_FLOOR * s22) {
        return None;
    }
    let mut x = [[0.0; 3]; 3];
    for j in 0..3 {
        let y0 = cross[0][j];
        let y1 = cross[1][j] - l10 * y0;
        let y2 = cross[2][j] - l20 * y0 - l21 * y1;
        x[2][j] = y2 / d2;
        x[1][j] = y1 / d1 - l21 * x[2][j];
        x[0][j] = y0 / d0 - l10 * x[1][j] - l20 * x[2][j];
    }
    Some(x)
}

/// Largest product of Frobenius norms of a basis and its inverse that the closed form is trusted with.
const CONDITION_LIMIT: f64 = 1e6;
/// Determinants below this fraction of the product of the row lengths are mostly rounding.
const VOLUME_FLOOR: f64 = 1e-6;

/// `B⁺`, so that `W·B⁺` is the least-norm minimiser of `‖W − C·B‖`.
#[inline(always)]
fn pseudo_inverse(basis: &Basis, rcond: f64) -> Basis {
    closed_inverse(basis).or_else(|| inverse_of_live_rows(basis)).unwrap_or_else(|| {
        let b = Matrix3::from_fn(|i, j| basis[i][j]);
        let transposed = DMatrix::from_fn(3, 3, |i, j| b[(j, i)]);
        // (Bᵀ)⁺ = (B⁺)ᵀ
        let x = min_norm(&transposed, &DMatrix::identity(3, 3), rcond);
        std::array::from_fn(|i| std::array::from_fn(|j| x[(j, i)]))
    })
}

#[inline(always)]
fn closed_inverse(b: &Basis) -> Option<Basis> {
    let minor = |r0: usize, r1: usize, c0: usize, c1: usize| b[r0][c0] * b[r1][c1] - b[r0][c1] * b[r1][c0];
    let adjugate = [
        [minor(1, 2, 1, 2), -minor(0, 2, 1, 2), minor(0, 1, 1, 2)],
        [-minor(1, 2, 0, 2), minor(0, 2, 0, 2), -minor(0, 1, 0, 2)],
        [minor(1, 2, 0, 1), -minor(0, 2, 0, 1), minor(0, 1, 0, 1)],
    ];
    let determinant = b[0][0] * adjugate[0][0] + b[0][1] * adjugate[1][0] + b[0][2] * adjugate[2][0];
    let lengths = b.iter().map(|row| row.iter().map(|v| v * v).sum::<f64>()).product::<f64>().sqrt();
    if determinant.is_nan() || determinant.abs() <= VOLUME_FLOOR * lengths {
        return None;
    }
    let inverse = adjugate.map(|row| row.map(|v| v / determinant));
    (norm(b) * norm(&inverse) < CONDITION_LIMIT).then_some(inverse)
}

/// With some rows all zero and the others well-conditioned: `B⁺ = Bᵀ·(B·Bᵀ)⁻¹` over the live rows.
#[inline(always)]
fn inverse_of_live_rows(b: &Basis) -> Option<Basis> {
    let dot = |i: usize, j: usize| b[i][0] * b[j][0] + b[i][1] * b[j][1] + b[i][2] * b[j][2];
    let gram = [dot(0, 0), dot(0, 1), dot(0, 2), dot(1, 1), dot(1, 2), dot(2, 2)];
    if gram[0] != 0.0 && gram[3] != 0.0 && gram[5] != 0.0 {
        return None;
    }
    let x = solve_normal(&gram, b)?;
    Some(std::array::from_fn(|i| std::array::from_fn(|j| x[j][i])))
}

#[inline(always)]
fn norm(b: &Basis) -> f64 {
    b.iter().flatten().map(|v| v * v).sum::<f64>().sqrt()
}

/// The fit of a whole matrix as one block.
pub(super) fn decompose_three(w: &ArrayView2<f64>, config: &DecomposeConfig, scratch: &mut Scratch) -> Factors {
    scratch.load(w.nrows(), |i, j| w[[i, j]]);
    let Outcome { basis, trace, weight_norm } = scratch.fit(config);
    let error = trace.last().map_or(0.0, |step| step.error);
    Factors {
        coefficients: Array2::from_shape_fn((w.nrows(), 3), |(i, j)| scratch.coefficient(i, j)),
        basis: Array2::from_shape_fn((3, 3), |(i, j)| basis[i][j]),
        trace,
        relative_error: if weight_norm == 0.0 { 0.0 } else { error / weight_norm },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn random_matrix(seed: u64, rows: usize) -> Array2<f64> {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        Array2::from_shape_fn((rows, 3), |_| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() * 0.06 - 0.36)
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_same_bits(seed in any::<u64>(), rows in 1usize..200) {
            let config = DecomposeConfig::with_theta(0.01);
            let w = random_matrix(seed, rows);
            let mut detected = Scratch::default();
            detected.load(rows, |i, j| w[[i, j]]);
            let fast = detected.fit(&config);
            let mut portable = Scratch::default();
            portable.load(rows, |i, j| w[[i, j]]);
            let plain = fit_with::<Portable>(&mut portable, &config);
            prop_assert_eq!(fast.basis, plain.basis);
            prop_assert_eq!(fast.trace, plain.trace);
            prop_assert_eq!(&detected.projected, &portable.projected);
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                let mut narrow = Scratch::default();
                narrow.load(rows, |i, j| w[[i, j]]);
                // SAFETY: the feature was just found.
                let outcome = unsafe { fit_avx2(&mut narrow, &config) };
                prop_assert_eq!(outcome.basis, plain.basis);
                prop_assert_eq!(&narrow.projected, &portable.projected);
            }
        }
    }

    #[test]
    fn dead_rows_of_a_basis_have_dead_columns_in_its_inverse() {
        let b = [[1.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1.0]];
        let x = pseudo_inverse(&b, 1e-10);
        // B·B⁺ is the identity on the live rows.
        for (i, j, expected) in [(0, 0, 1.0), (0, 2, 0.0), (2, 0, 0.0), (2, 2, 1.0)] {
            let product: f64 = (0..3).map(|k| b[i][k] * x[k][j]).sum();
            assert!((product - expected).abs() < 1e-14);
        }
        assert!((0..3).all(|k| x[k][1] == 0.0));
    }
}
