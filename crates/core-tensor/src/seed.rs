//! One `u64` fixes everything random: data order, initialisation, augmentation, noise.
//!
//! A run's seed is split by purpose and epoch, so that adding a consumer never shifts another's stream, and so that
//! a run resumed at an epoch boundary draws what an uninterrupted one would have drawn.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// What a stream of random numbers is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Initial weights.
    Initialisation,
    /// The order of samples.
    Order,
    /// Augmentation.
    Augmentation,
    /// libtorch's own generator: dropout, stochastic rounding, attack starts.
    Noise,
    /// Masks drawn at random.
    Mask,
    /// Generated data sets.
    Data,
}

/// Derives an independent seed from a run's seed, a purpose and a counter (an epoch, a round).
pub fn derive(seed: u64, purpose: Purpose, counter: u64) -> u64 {
    derive_at(seed, purpose as u64, counter)
}

/// The same for a place (a layer, say) that tells consumers of one seed apart: SplitMix64 over the three. A purpose is a
/// place from 0 on: where both are in use, give this a seed that [`derive()`] has handed out.
pub fn derive_at(seed: u64, place: u64, counter: u64) -> u64 {
    let mixed = split_mix(seed ^ split_mix(place.wrapping_add(1)));
    split_mix(mixed ^ split_mix(counter))
}

/// A portable generator for one purpose: the same numbers on every machine and version.
pub fn generator(seed: u64, purpose: Purpose, counter: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(derive(seed, purpose, counter))
}

/// Seeds libtorch's global generator for one purpose and counter.
pub fn seed_libtorch(seed: u64, purpose: Purpose, counter: u64) {
    // libtorch takes an i64 and uses its bits as they are.
    tch::manual_seed(derive(seed, purpose, counter) as i64);
}

fn split_mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_output_of_split_mix_from_zero_is_the_published_one() {
        // Sebastiano Vigna's splitmix64.c, state 0, first output.
        assert_eq!(split_mix(0), 0xE220_A839_7B1D_CDAF);
    }

    proptest! {
        #[test]
        fn purposes_and_counters_never_share_a_stream(seed: u64, a in 0_u64..1000, b in 0_u64..1000) {
            prop_assume!(a != b);
            prop_assert_ne!(derive(seed, Purpose::Order, a), derive(seed, Purpose::Order, b));
            prop_assert_ne!(derive(seed, Purpose::Order, a), derive(seed, Purpose::Noise, a));
        }
    }
}
