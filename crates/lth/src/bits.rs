//! A fixed-length sequence of bits in machine words.

/// Bits in words of 64, the first in the lowest place. Bits beyond `len` are always 0, so that words can be compared
/// and counted whole.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Bits {
    len: usize,
    words: Vec<u64>,
}

impl Bits {
    pub(crate) fn ones(len: usize) -> Self {
        Self::from_words(len, vec![u64::MAX; len.div_ceil(64)])
    }

    pub(crate) fn zeros(len: usize) -> Self {
        Self { len, words: vec![0; len.div_ceil(64)] }
    }

    /// Takes words as they are, but for the bits beyond `len`, which it clears.
    pub(crate) fn from_words(len: usize, mut words: Vec<u64>) -> Self {
        debug_assert_eq!(words.len(), len.div_ceil(64));
        if let Some(last) = words.last_mut()
            && !len.is_multiple_of(64)
        {
            *last &= (1 << (len % 64)) - 1;
        }
        Self { len, words }
    }

    pub(crate) fn from_bools(bools: impl ExactSizeIterator<Item = bool>) -> Self {
        let mut bits = Self::zeros(bools.len());
        for (index, _) in bools.enumerate().filter(|(_, value)| *value) {
            bits.set(index, true);
        }
        bits
    }

    /// Eight bits a byte, the first in the lowest place. `None` if the number of bytes is wrong or a bit beyond `len`
    /// is set.
    pub(crate) fn from_bytes(len: usize, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != len.div_ceil(8) {
            return None;
        }
        let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let words: Vec<u64> = bytes.chunks(8).map(word).collect();
        let bits = Self::from_words(len, words.clone());
        (bits.words == words).then_some(bits)
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.len.div_ceil(8));
        bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(crate) fn get(&self, index: usize) -> bool {
        self.words[index / 64] >> (index % 64) & 1 == 1
    }

    pub(crate) fn set(&mut self, index: usize, value: bool) {
        let bit = 1 << (index % 64);
        if value { self.words[index / 64] |= bit } else { self.words[index / 64] &= !bit }
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = bool> + '_ {
        (0..self.len).map(|index| self.get(index))
    }

    pub(crate) fn count_ones(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// How many of the bits of one group of `unit` are set, for every group.
    pub(crate) fn counts(&self, unit: usize) -> Vec<usize> {
        let mut counts = vec![0; self.len.div_ceil(unit)];
        for (index, _) in self.iter().enumerate().filter(|(_, value)| *value) {
            counts[index / unit] += 1;
        }
        counts
    }

    /// Combines two sequences of equal length word by word.
    pub(crate) fn zip(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        debug_assert_eq!(self.len, other.len);
        let words = self.words.iter().zip(&other.words).map(|(a, b)| combine(*a, *b)).collect();
        Self::from_words(self.len, words)
    }

    /// Counts the bits of a combination without making it.
    pub(crate) fn zip_count(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> usize {
        let pairs = self.words.iter().zip(&other.words);
        pairs.map(|(a, b)| combine(*a, *b).count_ones() as usize).sum()
    }

    pub(crate) fn complement(&self) -> Self {
        Self::from_words(self.len, self.words.iter().map(|word| !word).collect())
    }
}

impl std::fmt::Debug for Bits {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.debug_list().entries(self.iter().map(u8::from)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_behave_as_a_sequence_of_booleans(a in prop::collection::vec(any::<bool>(), 1..300), seed: u64) {
            let b: Vec<bool> = (0..a.len()).map(|i| (seed >> (i % 64)) & 1 == 1).collect();
            let (x, y) = (Bits::from_bools(a.iter().copied()), Bits::from_bools(b.iter().copied()));
            prop_assert_eq!(x.iter().collect::<Vec<_>>(), a.clone());
            prop_assert_eq!(x.count_ones(), a.iter().filter(|v| **v).count());
            prop_assert_eq!(x.complement().iter().collect::<Vec<_>>(), a.iter().map(|v| !v).collect::<Vec<_>>());
            prop_assert_eq!(&x.complement().complement(), &x);
            prop_assert_eq!(x.zip_count(&y, |p, q| p ^ q), a.iter().zip(&b).filter(|(p, q)| p != q).count());
            prop_assert_eq!(Bits::from_bytes(a.len(), &x.to_bytes()), Some(x));
        }

        #[test]
        fn bytes_with_a_bit_beyond_the_end_are_refused(len in 1_usize..100) {
            prop_assume!(!len.is_multiple_of(8));
            let bytes = vec![0xFF; len.div_ceil(8)];
            prop_assert_eq!(Bits::from_bytes(len, &bytes), None);
        }
    }
}
