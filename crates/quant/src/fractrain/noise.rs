//! Random numbers by position: the n-th of a stream needs no other, so that threads and vector lanes draw at once.

use core_tensor::seed::derive_at;

/// A stream of uniform numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stream {
    before: u32,
    between: u32,
}

impl Stream {
    /// The stream of a seed, a place (a layer, say) and a counter (a step, say), by [`derive_at`].
    pub(super) fn new(seed: u64, place: u64, counter: u64) -> Self {
        let key = derive_at(seed, place, counter);
        Self { before: key as u32, between: (key >> 32) as u32 }
    }

    /// Number `position` of the stream, in `[0, 1)`, a multiple of 2^-24.
    ///
    /// Two multiplicative rounds of 32 bits with half of the key before each, so that keys give different permutations and
    /// not only shifted ones. Vectorises.
    #[inline(always)]
    pub(super) fn uniform(self, position: u32) -> f32 {
        let mut x = position.wrapping_add(self.before);
        x ^= x >> 16;
        x = x.wrapping_mul(0x7feb_352d) ^ self.between;
        x ^= x >> 15;
        x = x.wrapping_mul(0x846c_a68b);
        x ^= x >> 16;
        // Through i32, whose conversion every vector unit has.
        (x >> 8) as i32 as f32 * (1.0 / 16_777_216.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chi_square(counts: &[u64]) -> f64 {
        let expected = counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum()
    }

    #[test]
    fn numbers_of_a_stream_and_numbers_at_a_position_across_streams_are_uniform() {
        // 64 cells: χ² has mean 63 and standard deviation √126 = 11.2; 63 + 5·11.2 = 119.
        let cell = |u: f32| (u * 64.0) as usize;
        let mut along = [0; 64];
        (0..1 << 16).for_each(|position| along[cell(Stream::new(7, 0, 0).uniform(position))] += 1);
        assert!(chi_square(&along) < 119.0, "{}", chi_square(&along));
        let mut across = [0; 64];
        (0..1 << 16).for_each(|counter| across[cell(Stream::new(7, 3, counter).uniform(5))] += 1);
        assert!(chi_square(&across) < 119.0, "{}", chi_square(&across));
    }

    #[test]
    fn neighbours_and_neighbouring_streams_are_independent() {
        // Pairs in 8 × 8 cells, as above.
        let pair = |a: f32, b: f32| (a * 8.0) as usize * 8 + (b * 8.0) as usize;
        let (first, second) = (Stream::new(1, 0, 0), Stream::new(1, 0, 1));
        let (mut next, mut other) = ([0; 64], [0; 64]);
        for position in 0..1 << 16 {
            next[pair(first.uniform(position), first.uniform(position + 1))] += 1;
            other[pair(first.uniform(position), second.uniform(position))] += 1;
        }
        assert!(chi_square(&next) < 119.0 && chi_square(&other) < 119.0);
    }
}
