//! Picking the widest vector instructions at run time, and the element-wise loops that everything fast is made of.
//!
//! A loop is written once as an `#[inline(always)]` body on slices. [`multiversion!`] compiles it for AVX-512, AVX2 and the
//! baseline, and picks by what the machine has. Element-wise bodies do the same operations in the same order in every
//! version; where they use [`madd`], the last bit depends on the machine, as it does in reductions and matrix products.

/// What the machine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The best level of this machine; looked up once by the standard library and cached there.
pub(crate) fn level() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            return Level::Avx512;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return Level::Avx2;
        }
    }
    Level::Portable
}

/// Defines a function that runs `$body` compiled for the best level of the machine. `$body` takes the same arguments after
/// a const generic that says whether fused multiply-add is one instruction.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $type),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $type),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                match $crate::simd::level() {
                    // SAFETY: `level` returns this only after detecting the features at run time.
                    $crate::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::simd::Level::Portable => {}
                }
            }
            $body::<false>($($arg),*)
        }
    };
}
pub(crate) use multiversion;

/// a b + c, fused where that is one instruction and not where it would be a library call.
#[inline(always)]
pub(crate) fn madd<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// 1 / (1 + exp(-z)) with relative error below 3e-7, made only of operations that vectorise, and finite for every z
/// (a NaN counts as minus infinity).
#[inline(always)]
#[allow(clippy::manual_clamp)] // `clamp` passes a NaN on; max and min replace it.
pub(crate) fn sigmoid(z: f32) -> f32 {
    // 2^23 * 1.5: adding it rounds to the nearest integer, which then sits in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    let x = -(z.max(-87.0).min(87.0));
    let t = x * std::f32::consts::LOG2_E + ROUND;
    let exponent = (t.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    // exp(x) = 2^k exp(y) with |y| <= ln 2 / 2; ln 2 in two parts, so that k ln 2 is exact to twice the precision.
    let k = t - ROUND;
    let y = (x - k * 0.693_359_4) + k * 2.121_944_4e-4;
    // Taylor to degree 6: the next term is y^7 / 7! < 1.2e-7.
    let series =
        1.0 + y * (1.0 + y * (0.5 + y * (1.0 / 6.0 + y * (1.0 / 24.0 + y * (1.0 / 120.0 + y * (1.0 / 720.0))))));
    let power = f32::from_bits((exponent.wrapping_add(127) << 23) as u32);
    1.0 / (1.0 + series * power)
}

/// The cubic smooth step of width 1.
#[inline(always)]
#[allow(clippy::manual_clamp)] // As in `sigmoid`.
pub(crate) fn smooth_step(t: f32) -> f32 {
    let t = t.max(-0.5).min(0.5);
    (1.5 - 2.0 * t * t) * t + 0.5
}

multiversion! {
    /// Whether a slice holds a NaN or an infinity.
    pub(crate) fn any_not_finite(values: &[f32]) -> bool = any_not_finite_body
}

#[inline(always)]
fn any_not_finite_body<const FUSED: bool>(values: &[f32]) -> bool {
    let mut bad = 0u32;
    for v in values {
        bad |= u32::from(v.to_bits() & 0x7f80_0000 == 0x7f80_0000);
    }
    bad != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sigmoid_is_within_its_bound_of_double_precision() {
        for step in -90_000..=90_000 {
            let z = step as f32 * 1e-3;
            let exact = 1.0 / (1.0 + f64::from(-z).exp());
            let error = (f64::from(sigmoid(z)) - exact).abs() / exact;
            assert!(error < 3e-7 || z.abs() > 87.0, "{z}: {error:e}");
        }
        assert!(sigmoid(f32::NEG_INFINITY) < 1e-37);
        assert_eq!(sigmoid(f32::INFINITY), 1.0);
        assert!(sigmoid(f32::NAN).is_finite());
    }

    proptest! {
        #[test]
        fn non_finite_values_are_found(mut values in proptest::collection::vec(-1e38f32..1e38, 1..200), at: usize, which in 0usize..3) {
            prop_assert!(!any_not_finite(&values));
            let at = at % values.len();
            values[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][which];
            prop_assert!(any_not_finite(&values));
        }
    }
}
