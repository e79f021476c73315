//! Inner products of a block of rows with a strip of columns, and the comparison that throws nearly all of them away.
//!
//! Each product is one chain of fused multiply-adds from the first dimension to the last, starting from zero. All versions
//! give the same bits; the plain one is what the others are tested against.

use super::STRIP;
use super::panels::PANEL;

/// What the processor offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// 512-bit registers.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 256-bit registers with fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Anything; slow where fused multiply-adds are emulated.
    Plain,
}

impl Level {
    /// The best that this processor has.
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Plain
    }

    /// All that this processor can run.
    #[cfg(test)]
    pub(super) fn available() -> Vec<Self> {
        let mut levels = vec![Self::Plain];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Self::Avx2);
            }
            if is_x86_feature_detected!("avx512f") {
                levels.push(Self::Avx512);
            }
        }
        levels
    }
}

/// Products of the vectors in `rows` (whole panels) with the three panels in `strip`: `output[row · STRIP + column]`.
pub(super) fn products(level: Level, rows: &[f32], strip: &[f32], dim: usize, output: &mut [f32]) {
    assert!(
        strip.len() == STRIP * dim
            && rows.len().is_multiple_of(PANEL * dim)
            && output.len() * dim == rows.len() * STRIP,
        "panels, strip and output fit each other"
    );
    for (panel, output) in rows.chunks_exact(PANEL * dim).zip(output.chunks_exact_mut(PANEL * STRIP)) {
        match level {
            // SAFETY: the level says that the processor has these instructions, and the lengths were checked above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { panel_avx512(panel, strip, dim, output) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => unsafe { panel_avx2(panel, strip, dim, output) },
            Level::Plain => panel_plain(panel, strip, dim, output),
        }
    }
}

fn panel_plain(panel: &[f32], strip: &[f32], dim: usize, output: &mut [f32]) {
    for (row, output) in output.chunks_exact_mut(STRIP).enumerate() {
        for (columns, output) in strip.chunks_exact(PANEL * dim).zip(output.chunks_exact_mut(PANEL)) {
            output.fill(0.0);
            for (a, b) in panel.chunks_exact(PANEL).zip(columns.chunks_exact(PANEL)) {
                output.iter_mut().zip(b).for_each(|(sum, b)| *sum = a[row].mul_add(*b, *sum));
            }
        }
    }
}

/// Eight rows by three registers at a time: 24 sums, 3 columns, 1 row value in 32 registers.
///
/// # Safety
/// AVX-512F; `panel` holds `16 · dim` numbers, `strip` `48 · dim`, `output` `16 · 48`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn panel_avx512(panel: &[f32], strip: &[f32], dim: usize, output: &mut [f32]) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps};
    const ROWS: usize = 8;
    let (a, b, out) = (panel.as_ptr(), strip.as_ptr(), output.as_mut_ptr());
    for first in [0, ROWS] {
        let mut sums = [[_mm512_setzero_ps(); 3]; ROWS];
        for k in 0..dim {
            // SAFETY: k < dim, so all reads lie within the lengths that the caller vouches for.
            unsafe {
                let columns = [0, 1, 2].map(|column| _mm512_loadu_ps(b.add((column * dim + k) * PANEL)));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let value = _mm512_set1_ps(*a.add(k * PANEL + first + row));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = _mm512_fmadd_ps(value, column, *sum);
                    }
                }
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (column, sum) in sums.into_iter().enumerate() {
                // SAFETY: the row is below 16 and the column below 3 registers.
                unsafe { _mm512_storeu_ps(out.add((first + row) * STRIP + column * PANEL), sum) };
            }
        }
    }
}

/// Four rows by two registers at a time.
///
/// # Safety
/// AVX2 and FMA; lengths as for [`panel_avx512`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn panel_avx2(panel: &[f32], strip: &[f32], dim: usize, output: &mut [f32]) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps};
    const ROWS: usize = 4;
    let (a, b, out) = (panel.as_ptr(), strip.as_ptr(), output.as_mut_ptr());
    for column in 0..STRIP / PANEL {
        for first in (0..PANEL).step_by(ROWS) {
            let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
            for k in 0..dim {
                // SAFETY: k < dim, so all reads lie within the lengths that the caller vouches for.
                unsafe {
                    let columns = [0, 8].map(|half| _mm256_loadu_ps(b.add((column * dim + k) * PANEL + half)));
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let value = _mm256_set1_ps(*a.add(k * PANEL + first + row));
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum = _mm256_fmadd_ps(value, column, *sum);
                        }
                    }
                }
            }
            for (row, sums) in sums.into_iter().enumerate() {
                for (half, sum) in sums.into_iter().enumerate() {
                    // SAFETY: the row is below 16 and the register within the strip.
                    unsafe { _mm256_storeu_ps(out.add((first + row) * STRIP + column * PANEL + half * 8), sum) };
                }
            }
        }
    }
}

/// Bit `i` says whether `products[i] − half_norms[i] ≥ floors[i]`.
#[inline]
pub(super) fn reaching(level: Level, products: &[f32; PANEL], half_norms: &[f32; PANEL], floors: &[f32; PANEL]) -> u16 {
    match level {
        // SAFETY: the level says that the processor has these instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { reaching_avx512(products, half_norms, floors) },
        _ => {
            let mut bits = 0;
            for lane in 0..PANEL {
                bits |= u16::from(products[lane] - half_norms[lane] >= floors[lane]) << lane;
            }
            bits
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
fn reaching_avx512(products: &[f32; PANEL], half_norms: &[f32; PANEL], floors: &[f32; PANEL]) -> u16 {
    use std::arch::x86_64::{_CMP_GE_OQ, _mm512_cmp_ps_mask, _mm512_loadu_ps, _mm512_sub_ps};
    // SAFETY: each array holds sixteen numbers.
    unsafe {
        let scores = _mm512_sub_ps(_mm512_loadu_ps(products.as_ptr()), _mm512_loadu_ps(half_norms.as_ptr()));
        _mm512_cmp_ps_mask::<_CMP_GE_OQ>(scores, _mm512_loadu_ps(floors.as_ptr()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::seed::{Purpose, generator};
    use proptest::prelude::*;
    use rand::Rng;

    fn random(count: usize, seed: u64) -> Vec<f32> {
        let mut rng = generator(seed, Purpose::Data, 0);
        (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn all_versions_give_the_same_bits(dim in 1_usize..70, panels in 1_usize..4, seed in 0_u64..1000) {
            let (rows, strip) = (random(panels * PANEL * dim, seed), random(STRIP * dim, seed + 1));
            let run = |level| {
                let mut output = vec![f32::NAN; panels * PANEL * STRIP];
                products(level, &rows, &strip, dim, &mut output);
                output.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let plain = run(Level::Plain);
            for level in Level::available() {
                prop_assert_eq!(run(level), plain.clone(), "{:?}", level);
            }
        }

        #[test]
        fn comparisons_agree(seed in 0_u64..1000) {
            let numbers = random(3 * PANEL, seed);
            let lanes = |part: usize| -> [f32; PANEL] { std::array::from_fn(|lane| numbers[part * PANEL + lane]) };
            let (products, half_norms, mut floors) = (lanes(0), lanes(1), lanes(2));
            // An exact tie reaches its floor; what is infinitely far does not, unless the floor is as low.
            floors[3] = products[3] - half_norms[3];
            let plain = reaching(Level::Plain, &products, &half_norms, &floors);
            prop_assert!(plain & (1 << 3) != 0);
            for level in Level::available() {
                prop_assert_eq!(reaching(level, &products, &half_norms, &floors), plain);
            }
        }
    }
}
