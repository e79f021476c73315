//! The same code for the widest instructions that the processor has.

/// Work on many numbers side by side. It has to be inlined, or it is compiled for the instructions that every processor has.
pub(super) trait Work {
    /// `FUSED`: whether a multiplication and an addition are one instruction.
    fn run<const FUSED: bool>(self);
}

pub(super) fn run(work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the instructions that the function asks for were just found.
            return unsafe { avx512(work) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return unsafe { avx2(work) };
        }
    }
    plain(work);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(work: impl Work) {
    work.run::<true>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(work: impl Work) {
    work.run::<true>();
}

/// Where there is no fused instruction it would be a call, and slow.
fn plain(work: impl Work) {
    if cfg!(target_arch = "aarch64") {
        work.run::<true>();
    } else {
        work.run::<false>();
    }
}

/// `sum + a · b`.
#[inline(always)]
pub(super) fn add_product<const FUSED: bool>(sum: f32, a: f32, b: f32) -> f32 {
    if FUSED { a.mul_add(b, sum) } else { sum + a * b }
}
