//! Packing values of a few bits, lowest bit first.

/// Appends values of up to 57 bits to a byte buffer.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// A writer that goes on at the end of `bytes`.
    pub(super) fn onto(bytes: Vec<u8>) -> Self {
        Self { bytes, pending: 0, count: 0 }
    }

    /// Appends the lowest `bits` of `value`; higher ones must be zero.
    #[inline]
    pub(super) fn push(&mut self, value: u64, bits: u32) {
        self.pending |= value << self.count;
        self.count += bits;
        if self.count >= 8 {
            let whole = (self.count / 8) as usize;
            self.bytes.extend_from_slice(&self.pending.to_le_bytes()[..whole]);
            self.pending = if whole == 8 { 0 } else { self.pending >> (8 * whole) };
            self.count %= 8;
        }
    }

    /// Fills the last byte with zero bits and gives the buffer back.
    pub(super) fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.pending as u8);
        }
        self.bytes
    }
}

/// Bits of a section; `bytes` must hold at least eight bytes beyond the section, so that reading past its end
/// is harmless.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    len: u64,
}

impl<'a> Bits<'a> {
    /// The first `len` bits of `bytes`; `None` where the slack is missing.
    pub(super) fn new(bytes: &'a [u8], len: u64) -> Option<Self> {
        let needed = usize::try_from(len.div_ceil(8)).ok()?.checked_add(8)?;
        (bytes.len() >= needed).then_some(Self { bytes, len })
    }

    /// At least 57 bits from position `at`; beyond the section's end whatever follows it.
    #[inline(always)]
    pub(super) fn peek(&self, at: u64) -> u64 {
        let byte = ((at / 8) as usize).min(self.bytes.len() - 8);
        let mut word = [0; 8];
        word.copy_from_slice(&self.bytes[byte..byte + 8]);
        u64::from_le_bytes(word) >> (at % 8)
    }

    /// The value of `bits` bits at position `at`.
    #[inline(always)]
    pub(super) fn get(&self, at: u64, bits: u32) -> u64 {
        self.peek(at) & ((1 << bits) - 1)
    }

    /// Ones between two positions.
    pub(super) fn ones(&self, from: u64, to: u64) -> u64 {
        let (mut at, mut ones) = (from, 0);
        while at < to {
            let step = (to - at).min(56);
            ones += u64::from(self.get(at, step as u32).count_ones());
            at += step;
        }
        ones
    }

    /// Whether the bits that fill the last byte are zero, as the writer leaves them.
    pub(super) fn padding_is_zero(&self) -> bool {
        let spare = (8 - self.len % 8) % 8;
        self.get(self.len, spare as u32) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_pushed_is_read_back(values in prop::collection::vec((0u32..=57, any::<u64>()), 0..200)) {
            let mut writer = BitWriter::onto(vec![7]);
            let mut len = 0u64;
            for (bits, value) in &values {
                writer.push(value & ((1 << bits) - 1), *bits);
                len += u64::from(*bits);
            }
            let mut bytes = writer.finish();
            prop_assert_eq!(bytes.remove(0), 7);
            prop_assert_eq!(bytes.len() as u64, len.div_ceil(8));
            bytes.extend([0xff; 8]);
            let bits = Bits::new(&bytes, len).unwrap();
            prop_assert!(bits.padding_is_zero());
            let (mut at, mut ones) = (0, 0);
            for (width, value) in &values {
                let expected = value & ((1 << width) - 1);
                prop_assert_eq!(bits.get(at, *width), expected);
                at += u64::from(*width);
                ones += u64::from(expected.count_ones());
            }
            prop_assert_eq!(bits.ones(0, len), ones);
        }
    }
}
