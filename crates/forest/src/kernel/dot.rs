//! Inner products of one gate with one sample or with four.

use crate::simd::multiversion;

/// `[w . row for row in rows]` with the widest instructions there are. All slices have the length of `w`.
pub(super) fn dots<const N: usize>(w: &[f32], rows: [&[f32]; N]) -> [f32; N] {
    assert!(rows.iter().all(|row| row.len() == w.len()));
    #[cfg(target_arch = "x86_64")]
    match crate::simd::level() {
        // SAFETY: the features were detected; the lengths were asserted above.
        crate::simd::Level::Avx512 => return unsafe { x86::dots_avx512(w, rows) },
        // SAFETY: as above.
        crate::simd::Level::Avx2 => return unsafe { x86::dots_avx2(w, rows) },
        crate::simd::Level::Portable => {}
    }
    dots_portable(w, rows)
}

/// Codes that [`dots_integer`] takes at a time.
pub(super) const CODES: usize = 32;

/// The same of integers, exactly. All slices have the length of `w`, a multiple of [`CODES`], and no sum passes 32 bits.
pub(super) fn dots_integer<const N: usize>(w: &[i16], rows: [&[u8]; N]) -> [i32; N] {
    assert!(w.len().is_multiple_of(CODES) && rows.iter().all(|row| row.len() == w.len()));
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the features were detected; the lengths were asserted above.
        return unsafe { x86::dots_vnni(w, rows) };
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the feature was detected; the lengths were asserted above.
        return unsafe { x86::dots_madd(w, rows) };
    }
    rows.map(|row| dot_integer(w, row))
}

multiversion! {
    /// The plain form for one row.
    fn dot_integer(w: &[i16], row: &[u8]) -> i32 = dot_integer_body
}

#[inline(always)]
fn dot_integer_body<const FUSED: bool>(w: &[i16], row: &[u8]) -> i32 {
    w.iter().zip(row).map(|(&w, &x)| i32::from(w) * i32::from(i16::from(x))).sum()
}

/// The plain form, in 16 lanes.
pub(super) fn dots_portable<const N: usize>(w: &[f32], rows: [&[f32]; N]) -> [f32; N] {
    rows.map(|row| {
        let mut lanes = [0.0f32; 16];
        for (w, x) in w.chunks(16).zip(row.chunks(16)) {
            for ((lane, w), x) in lanes.iter_mut().zip(w).zip(x) {
                *lane += w * x;
            }
        }
        lanes.iter().sum()
    })
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use std::arch::x86_64::*;

    /// Two accumulators of 16 lanes a row, so that four rows keep eight sums in flight; masked loads at the end.
    ///
    /// # Safety
    /// AVX-512F must be there; every row is as long as `w`.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn dots_avx512<const N: usize>(w: &[f32], rows: [&[f32]; N]) -> [f32; N] {
        let mut sums = [[_mm512_setzero_ps(); 2]; N];
        let n = w.len();
        let mut at = 0;
        while at + 32 <= n {
            // SAFETY: at + 32 <= n, the length of every slice.
            unsafe {
                let w0 = _mm512_loadu_ps(w.as_ptr().add(at));
                let w1 = _mm512_loadu_ps(w.as_ptr().add(at + 16));
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let x = row.as_ptr().add(at);
                    sums[0] = _mm512_fmadd_ps(w0, _mm512_loadu_ps(x), sums[0]);
                    sums[1] = _mm512_fmadd_ps(w1, _mm512_loadu_ps(x.add(16)), sums[1]);
                }
            }
            at += 32;
        }
        while at < n {
            let left = (n - at).min(16);
            let mask = (0xffff_u32 >> (16 - left)) as u16;
            // SAFETY: masked lanes are not read, and at + left <= n.
            unsafe {
                let w = _mm512_maskz_loadu_ps(mask, w.as_ptr().add(at));
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let x = _mm512_maskz_loadu_ps(mask, row.as_ptr().add(at));
                    sums[0] = _mm512_fmadd_ps(w, x, sums[0]);
                }
            }
            at += left;
        }
        sums.map(|[a, b]| _mm512_reduce_add_ps(_mm512_add_ps(a, b)))
    }

    /// 32 products of 16 bits at a time, pairs of them summed in 32 bits.
    ///
    /// # Safety
    /// AVX-512 BW and VNNI must be there; `w` holds a multiple of 32 numbers, every row as many.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(in super::super) unsafe fn dots_vnni<const N: usize>(w: &[i16], rows: [&[u8]; N]) -> [i32; N] {
        let mut sums = [_mm512_setzero_si512(); N];
        for at in (0..w.len()).step_by(super::CODES) {
            // SAFETY: at + 32 <= the length of every slice.
            unsafe {
                let w = _mm512_loadu_si512(w.as_ptr().add(at).cast());
                for (sum, row) in sums.iter_mut().zip(rows) {
                    let x = _mm512_cvtepu8_epi16(_mm256_loadu_si256(row.as_ptr().add(at).cast()));
                    *sum = _mm512_dpwssd_epi32(*sum, x, w);
                }
            }
        }
        sums.map(|sum| _mm512_reduce_add_epi32(sum))
    }

    /// The same, 16 products at a time.
    ///
    /// # Safety
    /// AVX2 must be there; `w` holds a multiple of 32 numbers, every row as many.
    #[target_feature(enable = "avx2")]
    pub(in super::super) unsafe fn dots_madd<const N: usize>(w: &[i16], rows: [&[u8]; N]) -> [i32; N] {
        let mut sums = [_mm256_setzero_si256(); N];
        for at in (0..w.len()).step_by(16) {
            // SAFETY: at + 16 <= the length of every slice.
            unsafe {
                let w = _mm256_loadu_si256(w.as_ptr().add(at).cast());
                for (sum, row) in sums.iter_mut().zip(rows) {
                    let x = _mm256_cvtepu8_epi16(_mm_loadu_si128(row.as_ptr().add(at).cast()));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(x, w));
                }
            }
        }
        sums.map(|sum| {
            let mut lanes = [0i32; 8];
            // SAFETY: the array holds 8 numbers of 32 bits.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sum) };
            lanes.iter().sum()
        })
    }

    /// Products of floats with two accumulators of 8 lanes a row and a scalar end.
    ///
    /// # Safety
    /// AVX2 and FMA must be there; every row is as long as `w`.
    #[target_feature(enable = "avx2,fma")]
    pub(in super::super) unsafe fn dots_avx2<const N: usize>(w: &[f32], rows: [&[f32]; N]) -> [f32; N] {
        let mut sums = [[_mm256_setzero_ps(); 2]; N];
        let n = w.len();
        let mut at = 0;
        while at + 16 <= n {
            // SAFETY: at + 16 <= n, the length of every slice.
            unsafe {
                let w0 = _mm256_loadu_ps(w.as_ptr().add(at));
                let w1 = _mm256_loadu_ps(w.as_ptr().add(at + 8));
                for (sums, row) in sums.iter_mut().zip(rows) {
                    let x = row.as_ptr().add(at);
                    sums[0] = _mm256_fmadd_ps(w0, _mm256_loadu_ps(x), sums[0]);
                    sums[1] = _mm256_fmadd_ps(w1, _mm256_loadu_ps(x.add(8)), sums[1]);
                }
            }
            at += 16;
        }
        let mut out = [0.0; N];
        for ((out, [a, b]), row) in out.iter_mut().zip(sums).zip(rows) {
            let mut lanes = [0.0f32; 8];
            // SAFETY: the array holds 8 numbers.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_add_ps(a, b)) };
            *out = lanes.iter().sum();
            for (w, x) in w[at..].iter().zip(&row[at..]) {
                *out += w * x;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    proptest! {
        #[test]
        fn every_instruction_set_sums_integers_exactly(seed: u64, chunks in 0usize..30) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let length = chunks * CODES;
            // 29 x 32 products of at most 255 x 9,000 stay below 2^31.
            let w: Vec<i16> = (0..length).map(|_| rng.random_range(-9_000..=9_000)).collect();
            let rows: [Vec<u8>; 4] = std::array::from_fn(|_| (0..length).map(|_| rng.random()).collect());
            let found = dots_integer(&w, rows.each_ref().map(|row| row.as_slice()));
            for (row, found) in rows.iter().zip(found) {
                let exact: i64 = w.iter().zip(row).map(|(&w, &x)| i64::from(w) * i64::from(x)).sum();
                prop_assert_eq!(i64::from(found), exact);
                prop_assert_eq!(i64::from(dot_integer(&w, row)), exact);
                prop_assert_eq!(i64::from(dots_integer(&w, [row])[0]), exact);
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the feature was detected, and all lengths agree.
                    prop_assert_eq!(i64::from(unsafe { x86::dots_madd(&w, [row.as_slice()]) }[0]), exact);
                }
            }
        }

        #[test]
        fn every_instruction_set_matches_double_precision(
            columns in proptest::collection::vec(proptest::array::uniform5(-1.0f32..1.0), 1..200),
        ) {
            let pick = |i: usize| -> Vec<f32> { columns.iter().map(|c| c[i]).collect() };
            let (w, rows) = (pick(0), [pick(1), pick(2), pick(3), pick(4)]);
            let rows = [&rows[0][..], &rows[1], &rows[2], &rows[3]];
            let mut versions = vec![dots_portable(&w, rows), dots(&w, rows)];
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the features were detected, and all lengths agree.
                versions.push(unsafe { x86::dots_avx2(&w, rows) });
            }
            for (k, row) in rows.into_iter().enumerate() {
                let exact: f64 = w.iter().zip(row).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
                for version in &versions {
                    // At most 200 / 8 terms a lane plus the final sum, each rounding half an ulp of at most 200.
                    prop_assert!((f64::from(version[k]) - exact).abs() < 40.0 * 6e-8 * 200.0);
                }
                prop_assert!((f64::from(dots(&w, [row])[0]) - exact).abs() < 40.0 * 6e-8 * 200.0);
            }
        }
    }
}
