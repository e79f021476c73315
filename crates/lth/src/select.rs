//! Dropping exactly `n` smallest of millions of numbers without sorting or copying them.
//!
//! Finite floats, mapped to integers that order as they do, are counted into histograms of their leading 11 bits, then
//! of the next 11 among those that share the threshold's leading bits, then of the last 10. Three passes over the
//! numbers find the exact threshold; a fourth writes the mask. Extra memory: the histograms and one bit a number.

use crate::bits::Bits;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How numbers are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// By their value.
    Value,
    /// By their absolute value, so that weights can stand for their own magnitude without being copied.
    Magnitude,
}

impl Rank {
    /// An integer that orders as finite numbers rank.
    pub(crate) fn key(self, value: f32) -> u32 {
        match self {
            Self::Value => value_key(value),
            Self::Magnitude => magnitude_key(value),
        }
    }
}

/// The numbers of one tensor, and which of them are in the running.
#[derive(Clone, Copy)]
pub(crate) struct Candidates<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) alive: Option<&'a Bits>,
}

/// Where the first candidate was found that cannot be ranked.
#[derive(Debug, PartialEq)]
pub(crate) struct Unrankable {
    pub(crate) tensor: usize,
    pub(crate) index: usize,
}

/// Numbers handled at a time; a multiple of 64, so that chunks own whole words of the mask.
const CHUNK: usize = 1 << 16;
/// Bins of the widest histogram.
const BINS: usize = 1 << 11;
/// Histograms counted side by side, so that equal neighbours do not wait for each other.
const LANES: usize = 4;

/// The candidates that are left when the `count` smallest have been dropped; among equals the first in (tensor, index)
/// order go first. `count` must not exceed the number of candidates.
pub(crate) fn drop_smallest(layers: &[Candidates], rank: Rank, count: usize) -> Result<Vec<Bits>, Unrankable> {
    match rank {
        Rank::Value => drop_by(layers, count, value_key),
        Rank::Magnitude => drop_by(layers, count, magnitude_key),
    }
}

/// Negative floats order in reverse of their bits. Adding 0 turns -0 into 0.
fn value_key(value: f32) -> u32 {
    let bits = (value + 0.0).to_bits();
    bits ^ ((bits as i32 >> 31) as u32 | 0x8000_0000)
}

/// Non-negative floats order as their bits do.
fn magnitude_key(value: f32) -> u32 {
    value.to_bits() & 0x7FFF_FFFF
}

fn drop_by<K: Fn(f32) -> u32 + Copy + Sync>(
    layers: &[Candidates],
    count: usize,
    key: K,
) -> Result<Vec<Bits>, Unrankable> {
    let leading = histogram(layers, key, |key| Some(key >> 21));
    // Infinities and NaN have the largest exponent: the outermost bins, on both sides for signed keys.
    let outermost = [key(f32::NEG_INFINITY), key(f32::INFINITY)].map(|key| (key >> 21) as usize);
    let below = if outermost[0] < outermost[1] { leading[..=outermost[0]].iter().sum::<u64>() } else { 0 };
    if below + leading[outermost[1]..].iter().sum::<u64>() > 0
        && let Some(found) = first_unrankable(layers)
    {
        return Err(found);
    }
    if count == 0 {
        return Ok(write_kept(layers, key, 0));
    }
    let (high, left) = locate(&leading, count as u64);
    let middle = histogram(layers, key, |key| (key >> 21 == high).then_some(key >> 10 & 0x7FF));
    let (middle, left) = locate(&middle, left);
    let prefix = high << 11 | middle;
    let last = histogram(layers, key, |key| (key >> 10 == prefix).then_some(key & 0x3FF));
    let (low, ties) = locate(&last, left);
    let threshold = prefix << 10 | low;

    let mut kept = write_kept(layers, key, threshold);
    drop_ties(layers, key, threshold, ties as usize, &mut kept);
    Ok(kept)
}

/// The bin in which the `count`-th smallest falls, and how many of that bin are among the `count` smallest.
fn locate(histogram: &[u64], count: u64) -> (u32, u64) {
    let mut left = count;
    for (bin, &size) in histogram.iter().enumerate() {
        if left <= size {
            return (bin as u32, left);
        }
        left -= size;
    }
    unreachable!("callers ask for no more than there are candidates")
}

/// The candidates of a layer in chunks: values, and the words of their `alive` bits.
fn chunks<'a>(layer: &Candidates<'a>) -> impl Iterator<Item = (&'a [f32], Option<&'a [u64]>)> {
    let words = layer.alive.map(Bits::words);
    layer.values.chunks(CHUNK).enumerate().map(move |(place, values)| {
        let first = place * CHUNK / 64;
        (values, words.map(|words| &words[first..first + values.len().div_ceil(64)]))
    })
}

fn histogram<K, D>(layers: &[Candidates], key: K, digit: D) -> Vec<u64>
where
    K: Fn(f32) -> u32 + Copy + Sync,
    D: Fn(u32) -> Option<u32> + Copy + Sync,
{
    let work: Vec<_> = layers.iter().flat_map(chunks).collect();
    // Few large pieces, so that each clears and adds up its counters seldom.
    let piece = work.len().div_ceil(4 * rayon::current_num_threads()).max(1);
    work.par_chunks(piece)
        .map(|work| {
            let mut lanes = vec![[0_u32; BINS]; LANES];
            let mut total = vec![0_u64; BINS];
            for (values, alive) in work {
                count_chunk(values, *alive, &mut lanes, key, digit);
                for lane in &mut lanes {
                    for (total, count) in total.iter_mut().zip(lane.iter_mut()) {
                        *total += u64::from(std::mem::take(count));
                    }
                }
            }
            total
        })
        .reduce(
            || vec![0; BINS],
            |mut sum, other| {
                sum.iter_mut().zip(other).for_each(|(sum, count)| *sum += count);
                sum
            },
        )
}

fn count_chunk<K, D>(values: &[f32], alive: Option<&[u64]>, lanes: &mut [[u32; BINS]], key: K, digit: D)
where
    K: Fn(f32) -> u32 + Copy,
    D: Fn(u32) -> Option<u32> + Copy,
{
    let mut count = |lane: usize, value: f32| {
        if let Some(bin) = digit(key(value)) {
            // `digit` has at most 11 bits; the mask tells the compiler.
            lanes[lane][bin as usize & (BINS - 1)] += 1;
        }
    };
    match alive {
        None => values.iter().enumerate().for_each(|(index, value)| count(index % LANES, *value)),
        Some(words) => {
            for (values, word) in values.chunks(64).zip(words) {
                let mut left = *word;
                while left != 0 {
                    let index = left.trailing_zeros() as usize;
                    count(index % LANES, values[index]);
                    left &= left - 1;
                }
            }
        }
    }
}

/// The candidates whose key is at least the threshold.
fn write_kept<K: Fn(f32) -> u32 + Copy + Sync>(layers: &[Candidates], key: K, threshold: u32) -> Vec<Bits> {
    let write = |layer: &Candidates| {
        let mut words = vec![0_u64; layer.values.len().div_ceil(64)];
        words.par_chunks_mut(CHUNK / 64).zip(layer.values.par_chunks(CHUNK)).for_each(|(words, values)| {
            for (word, values) in words.iter_mut().zip(values.chunks(64)) {
                *word = pack(values, |value| key(value) >= threshold);
            }
        });
        let kept = Bits::from_words(layer.values.len(), words);
        layer.alive.map_or_else(|| kept.clone(), |alive| kept.zip(alive, |kept, alive| kept & alive))
    };
    layers.par_iter().map(write).collect()
}

/// One bit for each of up to 64 values.
fn pack(values: &[f32], test: impl Fn(f32) -> bool) -> u64 {
    // First to bytes, which the compiler vectorises, then eight at a time to bits by a multiplication that moves the
    // lowest bit of byte i to bit 56 + i.
    let mut bytes = [0_u8; 64];
    bytes.iter_mut().zip(values).for_each(|(byte, value)| *byte = u8::from(test(*value)));
    bytes.as_chunks::<8>().0.iter().enumerate().fold(0, |word, (place, bytes)| {
        let packed = u64::from_le_bytes(*bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        word | packed << (8 * place)
    })
}

/// Drops the first `ties` of the kept candidates whose key is the threshold.
fn drop_ties(layers: &[Candidates], key: impl Fn(f32) -> u32, threshold: u32, ties: usize, kept: &mut [Bits]) {
    let mut left = ties;
    for (layer, kept) in layers.iter().zip(kept) {
        for (place, values) in layer.values.chunks(64).enumerate() {
            if left == 0 {
                return;
            }
            let mut equal = pack(values, |value| key(value) == threshold) & kept.words()[place];
            while equal != 0 && left > 0 {
                kept.set(64 * place + equal.trailing_zeros() as usize, false);
                equal &= equal - 1;
                left -= 1;
            }
        }
    }
}

fn first_unrankable(layers: &[Candidates]) -> Option<Unrankable> {
    layers.iter().enumerate().find_map(|(tensor, layer)| {
        let is_alive = |index| layer.alive.is_none_or(|alive| alive.get(index));
        let index = layer.values.iter().enumerate().position(|(index, value)| !value.is_finite() && is_alive(index))?;
        Some(Unrankable { tensor, index })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The plain version: sort all candidates by (key, tensor, index) and drop the first `count`.
    fn drop_by_sorting(layers: &[Candidates], rank: Rank, count: usize) -> Vec<Bits> {
        let mut all: Vec<(f32, usize, usize)> = Vec::new();
        let mut kept: Vec<Bits> = layers.iter().map(|layer| Bits::zeros(layer.values.len())).collect();
        for (tensor, layer) in layers.iter().enumerate() {
            for (index, &value) in layer.values.iter().enumerate() {
                if layer.alive.is_none_or(|alive| alive.get(index)) {
                    let value = if rank == Rank::Magnitude { value.abs() } else { value };
                    all.push((value, tensor, index));
                }
            }
        }
        all.sort_by(|a, b| a.partial_cmp(b).expect("finite"));
        for (_, tensor, index) in &all[count..] {
            kept[*tensor].set(*index, true);
        }
        kept
    }

    fn few_distinct_or_any() -> impl Strategy<Value = f32> {
        prop_oneof![
            (-3_i8..4).prop_map(|v| f32::from(v) * 0.5),
            Just(-0.0),
            any::<f32>().prop_filter("finite", |value| value.is_finite()),
            (1_u32..100).prop_map(f32::from_bits),
        ]
    }

    proptest! {
        #[test]
        fn selection_equals_sorting(
            layers in prop::collection::vec(prop::collection::vec((few_distinct_or_any(), any::<bool>()), 0..200), 1..5),
            share in 0.0..=1.0_f64,
            masked: bool,
            by_value: bool,
        ) {
            let rank = if by_value { Rank::Value } else { Rank::Magnitude };
            let values: Vec<Vec<f32>> = layers.iter().map(|layer| layer.iter().map(|(v, _)| *v).collect()).collect();
            let alive: Vec<Bits> = layers.iter().map(|layer| Bits::from_bools(layer.iter().map(|(_, a)| *a))).collect();
            let candidates: Vec<_> = values.iter().zip(&alive)
                .map(|(values, alive)| Candidates { values, alive: masked.then_some(alive) }).collect();
            let total: usize = candidates.iter().map(|c| c.alive.map_or(c.values.len(), Bits::count_ones)).sum();
            let count = (share * total as f64) as usize;
            let kept = drop_smallest(&candidates, rank, count).unwrap();
            prop_assert_eq!(kept, drop_by_sorting(&candidates, rank, count));
        }
    }

    #[test]
    fn selection_equals_sorting_across_chunks() {
        // More than one chunk, one of them partial, with ties on both sides of a chunk's border.
        let values: Vec<f32> = (0..CHUNK * 2 + 77).map(|i| ((i * 7919) % 1013) as f32 - 500.0).collect();
        let layers = [Candidates { values: &values, alive: None }, Candidates { values: &values[5..], alive: None }];
        for count in [0, 1, CHUNK, 3 * CHUNK + 11, 4 * CHUNK + 149] {
            let kept = drop_smallest(&layers, Rank::Magnitude, count).unwrap();
            assert_eq!(kept, drop_by_sorting(&layers, Rank::Magnitude, count), "count {count}");
        }
    }

    #[test]
    fn the_first_candidate_that_cannot_be_ranked_is_named() {
        let (clean, dirty) = (vec![1.0; 70], [1.0, f32::INFINITY, f32::NAN, f32::NEG_INFINITY]);
        let alive = Bits::from_bools([true, false, true, true].into_iter());
        for rank in [Rank::Value, Rank::Magnitude] {
            let layers = |alive| [Candidates { values: &clean, alive: None }, Candidates { values: &dirty, alive }];
            assert_eq!(drop_smallest(&layers(None), rank, 1), Err(Unrankable { tensor: 1, index: 1 }));
            assert_eq!(drop_smallest(&layers(Some(&alive)), rank, 1), Err(Unrankable { tensor: 1, index: 2 }));
            let largest = [f32::MAX, f32::MIN];
            assert!(drop_smallest(&[Candidates { values: &largest, alive: None }], rank, 1).is_ok());
        }
    }
}
