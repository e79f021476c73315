//! Minimum-norm least squares by singular values.

use nalgebra::{DMatrix, DVector};
use tch::Tensor;

/// The `X` of least norm that minimises `‖Y − A·X‖_F`; singular values of `A` not above `rcond` times the largest
/// count as zero. `A` is `[m, n]`, `Y` is `[m, k]`, the result `[n, k]`.
pub(super) fn min_norm(a: &DMatrix<f64>, y: &DMatrix<f64>, rcond: f64) -> DMatrix<f64> {
    let (m, n) = a.shape();
    // The triangular factor has the singular values of the whole and is small. For a wide matrix there is no gain.
    let (small, projected) = if m > n {
        let qr = a.clone().qr();
        let mut qty = y.clone();
        qr.q_tr_mul(&mut qty);
        (qr.unpack_r(), qty.rows(0, n).into_owned())
    } else {
        (a.clone(), y.clone())
    };
    let Some((u, values, v_t)) = singular_values(&small) else {
        return DMatrix::zeros(n, y.ncols());
    };
    let largest = values.max();
    let inverse =
        DVector::from_iterator(values.len(), values.iter().map(|s| if *s > rcond * largest { 1.0 / s } else { 0.0 }));
    let mut scaled = u.transpose() * projected;
    for (mut row, factor) in scaled.row_iter_mut().zip(inverse.iter()) {
        row *= *factor;
    }
    v_t.transpose() * scaled
}

/// `U`, the singular values and `Vᵀ`.
fn singular_values(a: &DMatrix<f64>) -> Option<(DMatrix<f64>, DVector<f64>, DMatrix<f64>)> {
    let svd = a.clone().svd(true, true);
    let (u, v_t, values) = (svd.u?, svd.v_t?, svd.singular_values);
    // nalgebra's are wrong for some triangular matrices with a zero on the diagonal, and far off then. LAPACK's are not.
    let off = (&u * DMatrix::from_diagonal(&values) * &v_t - a).norm();
    if off <= 1e-12 * a.norm() { Some((u, values, v_t)) } else { by_lapack(a).or(Some((u, values, v_t))) }
}

fn by_lapack(a: &DMatrix<f64>) -> Option<(DMatrix<f64>, DVector<f64>, DMatrix<f64>)> {
    let (m, n) = a.shape();
    // Columns lie one after the other, which libtorch reads as rows: it is given the transpose, A' = V·S·U'.
    let transpose = Tensor::from_slice(a.as_slice()).f_view([n as i64, m as i64]).ok()?;
    let (v, values, u) = transpose.f_svd(true, true).ok()?;
    let read = |tensor: Tensor| Vec::<f64>::try_from(tensor.f_contiguous()?.f_reshape([-1])?);
    let (v, values, u) = (read(v).ok()?, read(values).ok()?, read(u).ok()?);
    let rank = values.len();
    let (v, u) = (DMatrix::from_row_slice(n, rank, &v), DMatrix::from_row_slice(m, rank, &u));
    Some((u, DVector::from_vec(values), v.transpose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The factor of coefficients with two columns that are opposites, as a decomposition met it. nalgebra 0.33 loses 4e-3 of it.
    fn opposites() -> DMatrix<f64> {
        let (a, b) = (0.125, 0.0625);
        DMatrix::from_row_slice(
            8,
            5,
            &[
                0.0, -a, 0.0, 0.0, 0.0, //
                0.0, 0.0, 0.0, 0.0, a, //
                a, 0.0, -a, b, 0.0, //
                0.0, 0.0, 0.0, -b, 0.0, //
                0.0, a, 0.0, 0.0, 0.0, //
                0.0, 0.0, 0.0, -b, -b, //
                0.0, 0.0, 0.0, 0.0, a, //
                0.0, -b, 0.0, 0.0, -b,
            ],
        )
    }

    #[test]
    fn opposite_columns_are_solved_by_lapack() {
        let c = opposites();
        let y = DMatrix::from_fn(8, 5, |i, j| ((7 * i + 3 * j) % 11) as f64 / 10.0 - 0.5);
        let x = min_norm(&c, &y, 1e-10);
        // The normal equations, to the rounding of eight products.
        assert!((c.transpose() * (&y - &c * &x)).amax() < 1e-14);
        // And no smaller solution: nothing of it in the direction that the columns cancel in.
        let null = DMatrix::from_row_slice(1, 5, &[1.0, 0.0, 1.0, 0.0, 0.0]);
        assert!((null * x).amax() < 1e-14);
    }

    #[test]
    fn both_ways_agree() {
        for (m, n) in [(1, 1), (3, 5), (5, 3), (4, 4)] {
            let a = DMatrix::from_fn(m, n, |i, j| ((5 * i + 3 * j + i * j) % 7) as f64 - 3.0);
            for (u, values, v_t) in [singular_values(&a).unwrap(), by_lapack(&a).unwrap()] {
                assert!((u * DMatrix::from_diagonal(&values) * v_t - &a).amax() < 1e-13, "{m} × {n}");
            }
        }
    }

    #[test]
    fn a_zero_column_gets_a_zero_row() {
        let a = DMatrix::from_row_slice(3, 2, &[1.0, 0.0, 2.0, 0.0, 3.0, 0.0]);
        let x = min_norm(&a, &(a.clone() * 2.0), 1e-10);
        assert!((x[(0, 0)] - 2.0).abs() < 1e-14);
        assert_eq!(x[(1, 0)], 0.0);
    }

    #[test]
    fn equal_columns_share_the_load() {
        // The least-norm solution of a·x = b for a = [1 1] is (b/2, b/2).
        let a = DMatrix::from_row_slice(3, 2, &[1.0, 1.0, 2.0, 2.0, -1.0, -1.0]);
        let b = DMatrix::from_row_slice(3, 1, &[4.0, 8.0, -4.0]);
        let x = min_norm(&a, &b, 1e-10);
        assert!((x[(0, 0)] - 2.0).abs() < 1e-13 && (x[(1, 0)] - 2.0).abs() < 1e-13, "{x}");
    }

    #[test]
    fn a_zero_matrix_gives_zero() {
        let x = min_norm(&DMatrix::zeros(4, 3), &DMatrix::from_element(4, 2, 1.0), 1e-10);
        assert_eq!(x, DMatrix::zeros(3, 2));
    }
}
