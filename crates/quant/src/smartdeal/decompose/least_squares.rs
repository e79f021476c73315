//! Minimum-norm least squares by singular values.

use nalgebra::{DMatrix, DVector};

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
    let svd = small.svd(true, true);
    let (Some(u), Some(v_t)) = (&svd.u, &svd.v_t) else {
        return DMatrix::zeros(n, y.ncols());
    };
    let largest = svd.singular_values.max();
    let inverse = DVector::from_iterator(
        svd.singular_values.len(),
        svd.singular_values.iter().map(|s| if *s > rcond * largest { 1.0 / s } else { 0.0 }),
    );
    let mut scaled = u.transpose() * projected;
    for (mut row, factor) in scaled.row_iter_mut().zip(inverse.iter()) {
        row *= *factor;
    }
    v_t.transpose() * scaled
}

#[cfg(test)]
mod tests {
    use super::*;

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
