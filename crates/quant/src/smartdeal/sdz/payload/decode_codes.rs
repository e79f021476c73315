//! Bits to coefficients: every scheme of the index checked while it is followed.

use rayon::prelude::*;

use super::Sections;
use super::symbols::codes_of_symbols;
use crate::smartdeal::sdz::bits::Bits;
use crate::smartdeal::sdz::bytes::Parsed;
use crate::smartdeal::storage::{code_bits, position_bits};
use crate::smartdeal::{IndexScheme, Layout};

pub(super) fn decode_codes<'a>(
    layout: &Layout,
    scheme: IndexScheme,
    exponents: &[i8],
    stored: u64,
    body: Sections<'a>,
) -> Parsed<(Vec<i8>, Sections<'a>)> {
    let (entries, rows) = (layout.entries() as u64, layout.total_rows() as u64);
    let bits = code_bits(scheme, exponents.len());
    if stored > entries {
        return Err(format!("{stored} codes stored for {entries} coefficients"));
    }
    let filters = layout.shape.filters() as u64;
    let index_bits = match scheme {
        IndexScheme::Bitmap => entries,
        IndexScheme::RowBitmap => rows,
        IndexScheme::Rlc { run_bits } => stored * u64::from(run_bits),
        IndexScheme::Csr => filters * 32 + stored * u64::from(position_bits(layout.filter_entries())),
    };
    let (index, body) = body.split(index_bits, "index")?;
    let (symbols, body) = body.split(stored * u64::from(bits), "codes")?;
    if entries == 0 {
        // Any number of filters costs nothing then, so nothing may be set aside for each.
        return Ok((Vec::new(), body));
    }
    let mut codes = Vec::new();
    codes.try_reserve_exact(layout.entries()).map_err(|e| e.to_string())?;
    codes.resize(layout.entries(), 0i8);
    let with_zero = matches!(scheme, IndexScheme::RowBitmap | IndexScheme::Rlc { .. });
    let source = Source { index, symbols, bits, table: codes_of_symbols(exponents, with_zero), layout: *layout };
    match scheme {
        IndexScheme::Bitmap => source.bitmap(stored, &mut codes)?,
        IndexScheme::RowBitmap => source.row_bitmap(stored, &mut codes)?,
        IndexScheme::Rlc { run_bits } => source.runs(stored, run_bits, &mut codes)?,
        IndexScheme::Csr => source.csr(stored, &mut codes)?,
    }
    Ok((codes, body))
}

struct Source<'a> {
    index: Bits<'a>,
    symbols: Bits<'a>,
    bits: u32,
    table: [i8; 256],
    layout: Layout,
}

impl Source<'_> {
    #[inline(always)]
    fn code(&self, number: u64) -> i8 {
        self.table[self.symbols.get(number * u64::from(self.bits), self.bits) as usize]
    }

    /// Where each filter's codes begin, from the ones of the index; an error where their number is not `stored`.
    fn starts(&self, bits_per_filter: u64, codes_per_one: u64, stored: u64) -> Parsed<Vec<u64>> {
        let mut start = 0;
        let starts = (0..self.layout.shape.filters() as u64)
            .map(|filter| {
                let from = filter * bits_per_filter;
                let here = start;
                start += self.index.ones(from, from + bits_per_filter) * codes_per_one;
                here
            })
            .collect();
        if start != stored {
            return Err(format!("the index marks {start} codes, {stored} are stored"));
        }
        Ok(starts)
    }

    fn bitmap(&self, stored: u64, codes: &mut [i8]) -> Parsed<()> {
        let per_filter = self.layout.filter_entries();
        let starts = self.starts(per_filter as u64, 1, stored)?;
        let filters = codes.par_chunks_mut(per_filter.max(1)).enumerate().zip(starts.par_iter());
        filters.with_min_len(8).for_each(|((filter, codes), start)| {
            let mask = (1u64 << self.bits) - 1;
            let mut index_at = (filter * per_filter) as u64;
            let mut code_at = *start * u64::from(self.bits);
            // Four codes of at most eight bits always fit one look at the stream.
            for group in codes.chunks_mut(4) {
                let marks = self.index.peek(index_at);
                let mut stream = self.symbols.peek(code_at);
                let mut used = 0;
                for (i, code) in group.iter_mut().enumerate() {
                    let present = marks >> i & 1 == 1;
                    *code = if present { self.table[(stream & mask) as usize] } else { 0 };
                    let step = if present { self.bits } else { 0 };
                    stream >>= step;
                    used += step;
                }
                index_at += group.len() as u64;
                code_at += u64::from(used);
            }
        });
        Ok(())
    }

    fn row_bitmap(&self, stored: u64, codes: &mut [i8]) -> Parsed<()> {
        let (rows, columns) = (self.layout.rows, self.layout.columns);
        let starts = self.starts(rows as u64, columns as u64, stored)?;
        let per_filter = self.layout.filter_entries().max(1);
        let filters = codes.par_chunks_mut(per_filter).enumerate().zip(starts.par_iter());
        let mask = (1u64 << self.bits) - 1;
        let empty_rows = filters.with_min_len(8).map(|((filter, codes), start)| {
            let first = (filter * rows) as u64;
            let (mut number, mut empty) = (*start, 0usize);
            // Looks at 56 marks at a time and visits the ones among them.
            for from in (0..rows).step_by(56) {
                let width = (rows - from).min(56);
                let mut marks = self.index.get(first + from as u64, width as u32);
                while marks != 0 {
                    let row = from + marks.trailing_zeros() as usize;
                    marks &= marks - 1;
                    let row = &mut codes[row * columns..(row + 1) * columns];
                    let mut any = 0;
                    // Seven codes of at most eight bits fit one look at the stream.
                    for group in row.chunks_mut(7) {
                        let mut stream = self.symbols.peek(number * u64::from(self.bits));
                        for code in group.iter_mut() {
                            *code = self.table[(stream & mask) as usize];
                            any |= *code;
                            stream >>= self.bits;
                        }
                        number += group.len() as u64;
                    }
                    empty += usize::from(any == 0);
                }
            }
            empty
        });
        match empty_rows.sum::<usize>() {
            0 => Ok(()),
            empty => Err(format!("{empty} rows are marked as kept but hold only zeros")),
        }
    }

    fn runs(&self, stored: u64, run_bits: u8, codes: &mut [i8]) -> Parsed<()> {
        let width = u32::from(run_bits);
        let longest = (1u64 << run_bits) - 1;
        let mut place = 0u64;
        for number in 0..stored {
            let run = self.index.get(number * u64::from(width), width);
            let code = self.code(number);
            if code == 0 && (run != longest || number + 1 == stored) {
                return Err("a zero is stored where no run needed breaking".into());
            }
            place += run;
            let slot = usize::try_from(place).ok().and_then(|p| codes.get_mut(p));
            *slot.ok_or("a run leads past the last coefficient")? = code;
            place += 1;
        }
        Ok(())
    }

    fn csr(&self, stored: u64, codes: &mut [i8]) -> Parsed<()> {
        let per_filter = self.layout.filter_entries();
        let width = position_bits(per_filter);
        let filters = self.layout.shape.filters() as u64;
        let mut number = 0;
        for (filter, codes) in codes.chunks_mut(per_filter.max(1)).enumerate() {
            let end = self.index.get(filter as u64 * 32, 32);
            if end < number || end > stored {
                return Err("filter offsets do not ascend".into());
            }
            let mut next = 0;
            while number < end {
                let position = self.index.get(filters * 32 + number * u64::from(width), width) as usize;
                let slot = codes.get_mut(position).filter(|_| position >= next);
                *slot.ok_or("positions within a filter do not ascend or lead past its end")? = self.code(number);
                next = position + 1;
                number += 1;
            }
        }
        if number == stored { Ok(()) } else { Err(format!("offsets end at {number}, {stored} codes are stored")) }
    }
}
