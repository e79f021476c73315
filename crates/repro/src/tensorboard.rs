//! Scalars in the format that TensorBoard reads.
//!
//! An event file is a sequence of records. A record is a little-endian `u64` length, the masked CRC-32C of those eight
//! bytes, the data, and the data's masked CRC-32C, where `mask(c) = rotate_right(c, 15) + 0xa282ead8`. The data is a
//! protocol buffer `Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }` with
//! `Summary { repeated Value value = 1; }` and `Value { string tag = 1; float simple_value = 2; }`: few enough fields
//! to write by hand.

use std::time::{SystemTime, UNIX_EPOCH};

/// The record that every event file begins with.
pub(crate) fn header() -> Vec<u8> {
    let mut event = Vec::new();
    put_wall_time(&mut event);
    put_bytes(&mut event, 3, b"brain.Event:2");
    record(&event)
}

/// A record with the scalars of one step.
pub(crate) fn scalars<'a>(step: u64, values: impl IntoIterator<Item = (&'a str, f64)>) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, tag.as_bytes());
        entry.push(2 << 3 | 5);
        entry.extend((value as f32).to_le_bytes());
        put_bytes(&mut summary, 1, &entry);
    }
    let mut event = Vec::new();
    put_wall_time(&mut event);
    event.push(2 << 3);
    put_varint(&mut event, step);
    put_bytes(&mut event, 5, &summary);
    record(&event)
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(data.len() + 16);
    out.extend(length);
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked_crc(data).to_le_bytes());
    out
}

fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn put_wall_time(out: &mut Vec<u8>) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    out.push(1 << 3 | 1);
    out.extend(seconds.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_and_fields_are_those_of_the_format() {
        // RFC 3720, B.4: the CRC-32C of 32 zero bytes is 0x8a9136aa; masked by hand:
        // rotate_right(0x8a9136aa, 15) = 0x6d551522, + 0xa282ead8 = 0x10fd7fffa, of which 32 bits are kept.
        assert_eq!(masked_crc(&[0; 32]), 0x0fd7_fffa);

        let bytes = scalars(300, [("loss", 0.5)]);
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), length + 16);
        let data = &bytes[12..12 + length];
        // Field 1, eight bytes of time; field 2 = 300 = 0xac 0x02; field 5 of 13 bytes: field 1 of 11 bytes:
        // tag "loss" and the f32 0.5 = 0x3f000000.
        assert_eq!(data[0], 0x09);
        let rest = b"\x10\xac\x02\x2a\x0d\x0a\x0b\x0a\x04loss\x15\x00\x00\x00\x3f";
        assert_eq!(&data[9..], rest);
    }
}
