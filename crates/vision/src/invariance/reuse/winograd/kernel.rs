//! Some rows times some columns of a matrix, with the sums in registers.
//!
//! Written in the processor's own instructions: left to the compiler, the sums went to memory and back, ten times as slow.

use super::basis::Lanes;

/// `ROWS` rows times the columns of a panel from `first` on, as many as the function says; `products` begins with the first row's.
macro_rules! kernel {
    ($name:ident, $feature:literal, $lanes:literal, $vector:ty, $zero:ident, $splat:ident, $load:ident, $fused:ident, $store:ident) => {
        #[cfg(target_arch = "x86_64")]
        // Iterators over such small arrays are not always compiled away.
        #[allow(clippy::needless_range_loop)]
        #[target_feature(enable = $feature)]
        #[inline]
        pub(super) fn $name<const ROWS: usize>(
            rows: &[f32],
            panel: &[Lanes],
            first: usize,
            products: &mut [f32],
            width: usize,
        ) {
            use std::arch::x86_64::*;
            let inputs = panel.len();
            let mut lines: [&[f32]; ROWS] = [&[]; ROWS];
            for row in 0..ROWS {
                lines[row] = &rows[row * inputs..][..inputs];
            }
            let mut sums: [[$vector; 2]; ROWS] = [[$zero(); 2]; ROWS];
            for input in 0..inputs {
                let weights = &panel[input][first..first + 2 * $lanes];
                // SAFETY: the slice has as many numbers as are read.
                let (left, right) = unsafe { ($load(weights.as_ptr()), $load(weights.as_ptr().add($lanes))) };
                for row in 0..ROWS {
                    let value = $splat(lines[row][input]);
                    sums[row][0] = $fused(value, left, sums[row][0]);
                    sums[row][1] = $fused(value, right, sums[row][1]);
                }
            }
            for row in 0..ROWS {
                let products = &mut products[row * width..][..2 * $lanes];
                // SAFETY: the slice has as many numbers as are written.
                unsafe {
                    $store(products.as_mut_ptr(), sums[row][0]);
                    $store(products.as_mut_ptr().add($lanes), sums[row][1]);
                }
            }
        }
    };
}

kernel!(
    avx512,
    "avx512f",
    16,
    __m512,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_fmadd_ps,
    _mm512_storeu_ps
);
kernel!(
    avx2,
    "avx2,fma",
    8,
    __m256,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_fmadd_ps,
    _mm256_storeu_ps
);

/// The same for every processor, with eight columns.
pub(super) fn plain<const ROWS: usize>(
    rows: &[f32],
    panel: &[Lanes],
    first: usize,
    products: &mut [f32],
    width: usize,
) {
    let mut sums = [[0.0_f32; 8]; ROWS];
    for (input, weights) in panel.iter().enumerate() {
        for (row, sums) in sums.iter_mut().enumerate() {
            let value = rows[row * panel.len() + input];
            sums.iter_mut().zip(&weights[first..]).for_each(|(sum, weight)| *sum += value * weight);
        }
    }
    for (row, sums) in sums.iter().enumerate() {
        products[row * width..][..8].copy_from_slice(sums);
    }
}
