//! Eight f64 at a time, with the same result to the last bit on every instruction set: no operation here is fused,
//! and sums over lanes are added up in one order.

/// Eight numbers and what the fit does with them.
///
/// # Safety of the implementors
/// Methods may use instructions that the processor lacks; whoever picks an implementor has checked.
pub(super) trait Lanes: Copy {
    /// All lanes equal.
    fn splat(value: f64) -> Self;
    fn load(values: &[f64; 8]) -> Self;
    fn store(self, values: &mut [f64; 8]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn abs(self) -> Self;
    /// `self` in the lanes where `measure < limit` does not hold, 0 in the others.
    fn zero_below(self, measure: Self, limit: Self) -> Self;
    /// 1 in the lanes that are not 0, 0 in the others.
    fn ones_where_nonzero(self) -> Self;
    /// The nearest rung of a ladder, whose half step, lowest and highest rung these are; see [`Rungs`].
    fn project(self, rungs: &Rungs) -> Self;
}

/// A ladder as the kernels need it.
#[derive(Debug, Clone, Copy)]
pub(in crate::smartdeal) struct Rungs {
    /// Added to the bits of a magnitude it carries into the exponent when the mantissa passes one half.
    pub(in crate::smartdeal) half: i64,
    pub(in crate::smartdeal) lowest: f64,
    pub(in crate::smartdeal) highest: f64,
}

/// Adds up the lanes, always in the same order.
#[inline(always)]
pub(super) fn total<L: Lanes>(lanes: L) -> f64 {
    let mut l = [0.0; 8];
    lanes.store(&mut l);
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

const EXPONENT: i64 = 0x7ff0_0000_0000_0000;

/// Eight numbers in an array: every machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portable([f64; 8]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        Self(std::array::from_fn(|l| f(self.0[l], other.0[l])))
    }
}

impl Lanes for Portable {
    #[inline(always)]
    fn splat(value: f64) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    fn load(values: &[f64; 8]) -> Self {
        Self(*values)
    }

    #[inline(always)]
    fn store(self, values: &mut [f64; 8]) {
        *values = self.0;
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.map(f64::abs))
    }

    #[inline(always)]
    fn zero_below(self, measure: Self, limit: Self) -> Self {
        Self(std::array::from_fn(|l| if measure.0[l] < limit.0[l] { 0.0 } else { self.0[l] }))
    }

    #[inline(always)]
    fn ones_where_nonzero(self) -> Self {
        Self(self.0.map(|v| if v != 0.0 { 1.0 } else { 0.0 }))
    }

    #[inline(always)]
    fn project(self, rungs: &Rungs) -> Self {
        Self(self.0.map(|v| {
            let power = f64::from_bits(((v.abs().to_bits() as i64 + rungs.half) & EXPONENT) as u64).min(rungs.highest);
            if power < rungs.lowest { 0.0 } else { power.copysign(v) }
        }))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::{EXPONENT, Lanes, Rungs};
    use std::arch::x86_64::*;

    /// One 512-bit register; needs AVX-512 F and DQ.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx512(__m512d);

    // SAFETY of every block below: the type is only used inside functions compiled for, and called after detecting,
    // AVX-512 F and DQ; loads and stores are of eight f64 behind a reference.
    impl Lanes for Avx512 {
        #[inline(always)]
        fn splat(value: f64) -> Self {
            Self(unsafe { _mm512_set1_pd(value) })
        }

        #[inline(always)]
        fn load(values: &[f64; 8]) -> Self {
            Self(unsafe { _mm512_loadu_pd(values.as_ptr()) })
        }

        #[inline(always)]
        fn store(self, values: &mut [f64; 8]) {
            unsafe { _mm512_storeu_pd(values.as_mut_ptr(), self.0) }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            Self(unsafe { _mm512_add_pd(self.0, other.0) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            Self(unsafe { _mm512_sub_pd(self.0, other.0) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            Self(unsafe { _mm512_mul_pd(self.0, other.0) })
        }

        #[inline(always)]
        fn abs(self) -> Self {
            Self(unsafe { _mm512_abs_pd(self.0) })
        }

        #[inline(always)]
        fn zero_below(self, measure: Self, limit: Self) -> Self {
            unsafe {
                let keep = _mm512_cmp_pd_mask::<_CMP_NLT_UQ>(measure.0, limit.0);
                Self(_mm512_maskz_mov_pd(keep, self.0))
            }
        }

        #[inline(always)]
        fn ones_where_nonzero(self) -> Self {
            unsafe {
                let live = _mm512_cmp_pd_mask::<_CMP_NEQ_UQ>(self.0, _mm512_setzero_pd());
                Self(_mm512_maskz_mov_pd(live, _mm512_set1_pd(1.0)))
            }
        }

        #[inline(always)]
        fn project(self, rungs: &Rungs) -> Self {
            unsafe {
                let bits = _mm512_castpd_si512(_mm512_abs_pd(self.0));
                let carried = _mm512_add_epi64(bits, _mm512_set1_epi64(rungs.half));
                let power = _mm512_castsi512_pd(_mm512_and_si512(carried, _mm512_set1_epi64(EXPONENT)));
                let clipped = _mm512_min_pd(power, _mm512_set1_pd(rungs.highest));
                let keep = _mm512_cmp_pd_mask::<_CMP_NLT_UQ>(clipped, _mm512_set1_pd(rungs.lowest));
                let sign = _mm512_and_pd(self.0, _mm512_set1_pd(-0.0));
                Self(_mm512_maskz_or_pd(keep, clipped, sign))
            }
        }
    }

    /// Two 256-bit registers; needs AVX2.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Avx2(__m256d, __m256d);

    impl Avx2 {
        #[inline(always)]
        fn zip(self, other: Self, f: impl Fn(__m256d, __m256d) -> __m256d) -> Self {
            Self(f(self.0, other.0), f(self.1, other.1))
        }

        #[inline(always)]
        fn map(self, f: impl Fn(__m256d) -> __m256d) -> Self {
            Self(f(self.0), f(self.1))
        }
    }

    // SAFETY of every block below: the type is only used inside functions compiled for, and called after detecting,
    // AVX2; loads and stores are of eight f64 behind a reference.
    impl Lanes for Avx2 {
        #[inline(always)]
        fn splat(value: f64) -> Self {
            let half = unsafe { _mm256_set1_pd(value) };
            Self(half, half)
        }

        #[inline(always)]
        fn load(values: &[f64; 8]) -> Self {
            unsafe { Self(_mm256_loadu_pd(values.as_ptr()), _mm256_loadu_pd(values.as_ptr().add(4))) }
        }

        #[inline(always)]
        fn store(self, values: &mut [f64; 8]) {
            unsafe {
                _mm256_storeu_pd(values.as_mut_ptr(), self.0);
                _mm256_storeu_pd(values.as_mut_ptr().add(4), self.1);
            }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            self.zip(other, |a, b| unsafe { _mm256_add_pd(a, b) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            self.zip(other, |a, b| unsafe { _mm256_sub_pd(a, b) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            self.zip(other, |a, b| unsafe { _mm256_mul_pd(a, b) })
        }

        #[inline(always)]
        fn abs(self) -> Self {
            self.map(|v| unsafe { _mm256_andnot_pd(_mm256_set1_pd(-0.0), v) })
        }

        #[inline(always)]
        fn zero_below(self, measure: Self, limit: Self) -> Self {
            let keep = measure.zip(limit, |m, l| unsafe { _mm256_cmp_pd::<_CMP_NLT_UQ>(m, l) });
            self.zip(keep, |v, k| unsafe { _mm256_and_pd(v, k) })
        }

        #[inline(always)]
        fn ones_where_nonzero(self) -> Self {
            self.map(|v| unsafe {
                let live = _mm256_cmp_pd::<_CMP_NEQ_UQ>(v, _mm256_setzero_pd());
                _mm256_and_pd(live, _mm256_set1_pd(1.0))
            })
        }

        #[inline(always)]
        fn project(self, rungs: &Rungs) -> Self {
            self.map(|v| unsafe {
                let sign = _mm256_set1_pd(-0.0);
                let bits = _mm256_castpd_si256(_mm256_andnot_pd(sign, v));
                let carried = _mm256_add_epi64(bits, _mm256_set1_epi64x(rungs.half));
                let power = _mm256_castsi256_pd(_mm256_and_si256(carried, _mm256_set1_epi64x(EXPONENT)));
                let clipped = _mm256_min_pd(power, _mm256_set1_pd(rungs.highest));
                let keep = _mm256_cmp_pd::<_CMP_NLT_UQ>(clipped, _mm256_set1_pd(rungs.lowest));
                _mm256_and_pd(keep, _mm256_or_pd(clipped, _mm256_and_pd(v, sign)))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smartdeal::{Ladder, Tie};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lanes_are_projected_as_numbers_are(values in prop::array::uniform8(-50f64..50.0), p_min in -8i32..1, up in any::<bool>()) {
            let ladder = Ladder { p_min, p_max: 5, tie: if up { Tie::Up } else { Tie::Down } };
            let mut found = [0.0; 8];
            Portable::load(&values).project(&ladder.rungs_of_lanes()).store(&mut found);
            prop_assert_eq!(found, values.map(|v| ladder.project(v)));
        }
    }
}
