//! Codes numbered by the rungs in use, so that they take few bits.

use crate::smartdeal::ladder::code_of_exponent;

/// Symbol of each code byte; with `zero` the symbol 0 is the zero code and the others move up by one.
pub(super) fn symbols(exponents: &[i8], zero: bool) -> [u16; 256] {
    let mut table = [0; 256];
    for (rank, exponent) in exponents.iter().enumerate() {
        for negative in [false, true] {
            let symbol = (rank as u16) << 1 | u16::from(negative);
            table[code_of_exponent(*exponent, negative) as u8 as usize] = symbol + u16::from(zero);
        }
    }
    table
}

/// Code of each symbol; symbols that no code has map to `i8::MIN`, which a layer refuses.
pub(super) fn codes_of_symbols(exponents: &[i8], zero: bool) -> [i8; 256] {
    let mut table = [i8::MIN; 256];
    let mut next = 0;
    let mut put = |code| {
        table[next] = code;
        next += 1;
    };
    if zero {
        put(0);
    }
    for exponent in exponents {
        put(code_of_exponent(*exponent, false));
        put(code_of_exponent(*exponent, true));
    }
    table
}
