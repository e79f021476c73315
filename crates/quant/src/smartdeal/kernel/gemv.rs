//! A vector times a layer, straight from codes.
//!
//! Within a block `y = Σ_r Σ_k c[r,k] · (B[k,:]·x[r,:])`. Summed the other way round, `Σ_k B[k,:] · Σ_r c[r,k]·x[r,:]`,
//! the basis is used once a block, and a kept row costs one multiply-add of its coefficients (powers of two) with its
//! three inputs: nine lanes of one 512-bit register. Weights are never rebuilt and zero rows never touched.

use super::packed::{Packed, coefficients};

/// One filter's product with `inputs`, four lanes a row, the fourth ignored.
pub(super) type Dot = fn(&Packed, usize, &[[f32; 4]]) -> f32;

/// The fastest [`Dot`] this machine runs.
pub(super) fn detect() -> Dot {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512dq") {
            return dot_avx512_detected;
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            return dot_avx2_detected;
        }
    }
    dot_scalar
}

/// The plain twin of the vector kernels.
pub(super) fn dot_scalar(packed: &Packed, filter: usize, inputs: &[[f32; 4]]) -> f32 {
    let mut sum = 0.0;
    for (first, words, basis) in packed.blocks(filter) {
        let mut gathered = [[0f32; 3]; 3];
        let mut next = first;
        for word in words {
            let row = next + (word & 31) as usize;
            next = row + 1;
            for (gathered, c) in gathered.iter_mut().zip(coefficients(*word)) {
                for (g, x) in gathered.iter_mut().zip(&inputs[row]) {
                    *g += c * x;
                }
            }
        }
        for (k, gathered) in gathered.iter().enumerate() {
            sum += gathered.iter().zip(&basis[4 * k..]).map(|(g, b)| g * b).sum::<f32>();
        }
    }
    sum
}

#[cfg(target_arch = "x86_64")]
fn dot_avx512_detected(packed: &Packed, filter: usize, inputs: &[[f32; 4]]) -> f32 {
    // SAFETY: only `detect` hands this function out, after it found the features.
    unsafe { dot_avx512(packed, filter, inputs) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn dot_avx512(packed: &Packed, filter: usize, inputs: &[[f32; 4]]) -> f32 {
    use std::arch::x86_64::*;
    // Lane 4k + j meets coefficient k and input j; a shift by 32 clears the last four lanes.
    let shifts = _mm512_setr_epi32(0, 0, 0, 0, 9, 9, 9, 9, 18, 18, 18, 18, 32, 32, 32, 32);
    let top = _mm512_set1_epi32(0xff80_0000u32 as i32);
    let mut sum = _mm512_setzero_ps();
    for (first, words, basis) in packed.blocks(filter) {
        let mut gathered = [_mm512_setzero_ps(); 4];
        let mut next = first;
        let mut step = |word: u32, gathered: &mut __m512| {
            let row = next + (word & 31) as usize;
            next = row + 1;
            let input: &[f32; 4] = &inputs[row];
            // SAFETY: `input` is four floats.
            let x = _mm512_broadcast_f32x4(unsafe { _mm_loadu_ps(input.as_ptr()) });
            let c = _mm512_and_si512(_mm512_sllv_epi32(_mm512_set1_epi32(word as i32), shifts), top);
            *gathered = _mm512_fmadd_ps(_mm512_castsi512_ps(c), x, *gathered);
        };
        let (fours, rest) = words.as_chunks::<4>();
        for four in fours {
            for (word, gathered) in four.iter().zip(&mut gathered) {
                step(*word, gathered);
            }
        }
        for word in rest {
            step(*word, &mut gathered[0]);
        }
        let all = _mm512_add_ps(_mm512_add_ps(gathered[0], gathered[1]), _mm512_add_ps(gathered[2], gathered[3]));
        // SAFETY: `basis` is sixteen floats.
        sum = _mm512_fmadd_ps(all, unsafe { _mm512_loadu_ps(basis.as_ptr()) }, sum);
    }
    _mm512_reduce_add_ps(sum)
}

#[cfg(target_arch = "x86_64")]
fn dot_avx2_detected(packed: &Packed, filter: usize, inputs: &[[f32; 4]]) -> f32 {
    // SAFETY: only `detect` hands this function out, after it found the features.
    unsafe { dot_avx2(packed, filter, inputs) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn dot_avx2(packed: &Packed, filter: usize, inputs: &[[f32; 4]]) -> f32 {
    use std::arch::x86_64::*;
    let shifts = _mm256_setr_epi32(0, 0, 0, 0, 9, 9, 9, 9);
    let top = _mm256_set1_epi32(0xff80_0000u32 as i32);
    let (mut sum, mut sum_third) = (_mm256_setzero_ps(), _mm_setzero_ps());
    for (first, words, basis) in packed.blocks(filter) {
        let (mut pair, mut third) = ([_mm256_setzero_ps(); 2], [_mm_setzero_ps(); 2]);
        let mut next = first;
        for (i, word) in words.iter().enumerate() {
            let row = next + (word & 31) as usize;
            next = row + 1;
            let input: &[f32; 4] = &inputs[row];
            // SAFETY: `input` is four floats.
            let x = unsafe { _mm_loadu_ps(input.as_ptr()) };
            let c = _mm256_and_si256(_mm256_sllv_epi32(_mm256_set1_epi32(*word as i32), shifts), top);
            let c_third = _mm_set1_epi32(((word << 18) & 0xff80_0000) as i32);
            let chain = i % 2;
            pair[chain] = _mm256_fmadd_ps(_mm256_castsi256_ps(c), _mm256_set_m128(x, x), pair[chain]);
            third[chain] = _mm_fmadd_ps(_mm_castsi128_ps(c_third), x, third[chain]);
        }
        // SAFETY: `basis` is sixteen floats: eight for the pair, four for the third.
        let (b, b_third) = unsafe { (_mm256_loadu_ps(basis.as_ptr()), _mm_loadu_ps(basis[8..].as_ptr())) };
        sum = _mm256_fmadd_ps(_mm256_add_ps(pair[0], pair[1]), b, sum);
        sum_third = _mm_fmadd_ps(_mm_add_ps(third[0], third[1]), b_third, sum_third);
    }
    let mut lanes = [0f32; 12];
    // SAFETY: twelve floats take eight and four.
    unsafe {
        _mm256_storeu_ps(lanes.as_mut_ptr(), sum);
        _mm_storeu_ps(lanes[8..].as_mut_ptr(), sum_third);
    }
    lanes.iter().sum()
}

#[cfg(test)]
pub(super) fn every_dot() -> Vec<(&'static str, Dot)> {
    let mut all: Vec<(&'static str, Dot)> = vec![("scalar", dot_scalar)];
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512dq") {
            all.push(("avx512", dot_avx512_detected));
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            all.push(("avx2", dot_avx2_detected));
        }
    }
    all
}
