//! Coefficients to bits: where they are, by scheme, and which they are.

use super::symbols::symbols;
use crate::smartdeal::sdz::bits::BitWriter;
use crate::smartdeal::storage::{code_bits, position_bits, rlc_stored};
use crate::smartdeal::{IndexScheme, Layout, SdLayer};

pub(super) fn encode_codes(layer: &SdLayer, scheme: IndexScheme, exponents: &[i8], mut out: Vec<u8>) -> Vec<u8> {
    let layout = layer.layout();
    let codes = layer.codes();
    let bits = code_bits(scheme, exponents.len());
    let with_zero = matches!(scheme, IndexScheme::RowBitmap | IndexScheme::Rlc { .. });
    let symbol = symbols(exponents, with_zero);
    let symbol = |code: i8| u64::from(symbol[code as u8 as usize]);
    let non_zeros = || codes.iter().filter(|c| **c != 0);
    let is_kept = |row: &[i8]| row.iter().any(|c| *c != 0);
    let rows = || codes.chunks_exact(layout.columns);
    let stored = match scheme {
        IndexScheme::Bitmap | IndexScheme::Csr => non_zeros().count() as u64,
        IndexScheme::RowBitmap => rows().filter(|row| is_kept(row)).count() as u64 * layout.columns as u64,
        IndexScheme::Rlc { run_bits } => rlc_stored(codes, run_bits),
    };
    out.extend(stored.to_le_bytes());

    let mut index = BitWriter::onto(out);
    match scheme {
        IndexScheme::Bitmap => {
            for group in codes.chunks(32) {
                let mask = group.iter().enumerate().fold(0u64, |mask, (i, c)| mask | u64::from(*c != 0) << i);
                index.push(mask, group.len() as u32);
            }
        }
        IndexScheme::RowBitmap => rows().for_each(|row| index.push(u64::from(is_kept(row)), 1)),
        IndexScheme::Rlc { run_bits } => each_run(codes, run_bits, |run, _| index.push(run, u32::from(run_bits))),
        IndexScheme::Csr => {
            let width = position_bits(layout.filter_entries());
            let mut end = 0u64;
            for filter in filters(codes, layout) {
                end += filter.iter().filter(|c| **c != 0).count() as u64;
                index.push(end, 32);
            }
            // Filters without entries end where they begin, and are counted all the same.
            for _ in filters(codes, layout).len()..layer.shape().filters() {
                index.push(end, 32);
            }
            for filter in filters(codes, layout) {
                for (position, _) in filter.iter().enumerate().filter(|(_, c)| **c != 0) {
                    index.push(position as u64, width);
                }
            }
        }
    }
    let mut writer = BitWriter::onto(index.finish());
    match scheme {
        IndexScheme::Bitmap | IndexScheme::Csr => non_zeros().for_each(|c| writer.push(symbol(*c), bits)),
        IndexScheme::RowBitmap => {
            rows().filter(|row| is_kept(row)).flatten().for_each(|c| writer.push(symbol(*c), bits));
        }
        IndexScheme::Rlc { run_bits } => each_run(codes, run_bits, |_, code| writer.push(symbol(code), bits)),
    }
    writer.finish()
}

/// The filters of a layer; none where a filter has no entries.
fn filters<'a>(codes: &'a [i8], layout: &Layout) -> std::slice::Chunks<'a, i8> {
    codes.chunks(layout.filter_entries().max(1))
}

/// Calls `entry(zeros before it, code)` for everything that run-length coding stores.
fn each_run(codes: &[i8], run_bits: u8, mut entry: impl FnMut(u64, i8)) {
    let longest = (1u64 << run_bits) - 1;
    let mut run = 0;
    for code in codes {
        if *code == 0 {
            run += 1;
            continue;
        }
        while run > longest {
            entry(longest, 0);
            run -= longest + 1;
        }
        entry(run, *code);
        run = 0;
    }
}
