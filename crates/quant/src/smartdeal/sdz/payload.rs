//! The body of a layer's record: shape, rungs, index, codes, basis.

use rayon::prelude::*;

use super::bits::{BitWriter, Bits};
use crate::smartdeal::ladder::code_of_exponent;
use crate::smartdeal::storage::{code_bits, position_bits, rlc_stored, validate};
use crate::smartdeal::{Basis, IndexScheme, LayerShape, Layout, MAX_EXPONENT, SdLayer};
use crate::{Error, Result};

/// Why a body cannot be understood; the reader adds where it was.
pub(super) type Parsed<T> = std::result::Result<T, String>;

/// Most coefficients of one layer.
const MOST_ENTRIES: usize = 1 << 31;
/// Schemes that store nothing for zeros let a few bytes stand for any number of them. Up to this many are believed
/// whatever the size of the body, ...
const ALWAYS_READ: usize = 1 << 26;
/// ... and beyond that up to this many a byte: thirty times what a layer of zeros in this crate's own blocks comes to.
const MOST_PER_BYTE: usize = 1 << 18;

/// Appends a layer's body to `out`.
pub(super) fn encode(layer: &SdLayer, scheme: IndexScheme, mut out: Vec<u8>) -> Result<Vec<u8>> {
    validate(scheme)?;
    let layout = layer.layout();
    if layout.entries() > MOST_ENTRIES {
        return Err(Error::Shape {
            what: "layer to write".into(),
            expected: format!("at most {MOST_ENTRIES} coefficients"),
            found: layout.entries().to_string(),
        });
    }
    let exponents = layer.exponents();
    let (kind, run_bits) = match scheme {
        IndexScheme::Bitmap => (0u8, 0u8),
        IndexScheme::RowBitmap => (1, 0),
        IndexScheme::Rlc { run_bits } => (2, run_bits),
        IndexScheme::Csr => (3, 0),
    };
    let dims = layer.shape().dims();
    out.push(dims.len() as u8);
    for dim in &dims {
        put_u32(&mut out, *dim, "a dimension")?;
    }
    out.push(layout.columns as u8);
    put_u32(&mut out, layout.rows, "rows of a filter")?;
    put_u32(&mut out, layout.block_rows, "rows of a block")?;
    out.push(kind);
    out.push(run_bits);
    out.push(exponents.len() as u8);
    out.extend(exponents.iter().map(|p| *p as u8));
    let (basis_bits, scale) = match layer.basis() {
        Basis::Float(_) => (32, 1.0),
        Basis::Fixed { bits, scale, .. } => (*bits, *scale),
    };
    out.push(basis_bits);
    out.extend(scale.to_le_bytes());
    let out = encode_codes(layer, scheme, &exponents, out);
    Ok(encode_basis(layer.basis(), out))
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: usize, what: &'static str) -> Result<()> {
    let value = u32::try_from(value).map_err(|_| Error::Shape {
        what: what.into(),
        expected: "less than 2^32".into(),
        found: value.to_string(),
    })?;
    out.extend(value.to_le_bytes());
    Ok(())
}

/// Symbol of each code byte; with `zero` the symbol 0 is the zero code and the others move up by one.
fn symbols(exponents: &[i8], zero: bool) -> [u16; 256] {
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
fn codes_of_symbols(exponents: &[i8], zero: bool) -> [i8; 256] {
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

fn encode_codes(layer: &SdLayer, scheme: IndexScheme, exponents: &[i8], mut out: Vec<u8>) -> Vec<u8> {
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

fn encode_basis(basis: &Basis, mut out: Vec<u8>) -> Vec<u8> {
    match basis {
        Basis::Float(values) => {
            out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            out
        }
        Basis::Fixed { bits, values, .. } => {
            let top = (1i32 << (bits - 1)) - 1;
            let mut writer = BitWriter::onto(out);
            for value in values {
                writer.push((i32::from(*value) + top) as u64, u32::from(*bits));
            }
            writer.finish()
        }
    }
}

/// Bytes read one after another.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or("record ends too early")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Parsed<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Parsed<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Parsed<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    pub(super) fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn f32(&mut self) -> Parsed<f32> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Parses a layer's body. `padded` holds the body, which is `len` bytes long, and at least eight bytes more.
pub(super) fn decode(padded: &[u8], len: usize) -> Parsed<SdLayer> {
    let mut cursor = Cursor::new(&padded[..len]);
    let dimensions = cursor.u8()?;
    let dims: Vec<usize> = (0..dimensions).map(|_| cursor.u32()).collect::<Parsed<_>>()?;
    let shape = LayerShape::of_weight(&dims).ok_or_else(|| format!("{dimensions} dimensions, expected 2 or 4"))?;
    dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or("weight too large")?;
    let columns = usize::from(cursor.u8()?);
    let (rows, block_rows) = (cursor.u32()?, cursor.u32()?);
    let layout = Layout::checked(shape, rows, columns, block_rows).map_err(|e| e.to_string())?;
    let most = MOST_ENTRIES.min(ALWAYS_READ.max(len.saturating_mul(MOST_PER_BYTE)));
    if layout.entries() > most {
        return Err(format!("{} coefficients in {len} bytes, at most {most} are read", layout.entries()));
    }
    let scheme = match (cursor.u8()?, cursor.u8()?) {
        (0, 0) => IndexScheme::Bitmap,
        (1, 0) => IndexScheme::RowBitmap,
        (2, run_bits @ 1..=16) => IndexScheme::Rlc { run_bits },
        (3, 0) => IndexScheme::Csr,
        (kind, run_bits) => return Err(format!("index scheme {kind} with {run_bits} run bits")),
    };
    let count = usize::from(cursor.u8()?);
    let exponents: Vec<i8> = cursor.take(count)?.iter().map(|p| *p as i8).collect();
    let in_window = |p: &i8| i32::from(*p).abs() <= MAX_EXPONENT;
    if !exponents.is_sorted_by(|a, b| a < b) || !exponents.iter().all(in_window) {
        return Err("exponents do not ascend within -63 … 63".into());
    }
    let (basis_bits, scale) = (cursor.u8()?, cursor.f32()?);
    let stored = cursor.u64()?;
    let body = Sections { padded: &padded[len - cursor.len()..], len: cursor.len() };
    let (codes, body) = decode_codes(&layout, scheme, &exponents, stored, body)?;
    let basis = decode_basis(layout.blocks() * layout.basis_len(), basis_bits, scale, body)?;
    SdLayer::from_parts(layout, codes, basis).map_err(|e| e.to_string())
}

/// What is left of a body: `len` bytes and the slack behind them.
#[derive(Clone, Copy)]
struct Sections<'a> {
    padded: &'a [u8],
    len: usize,
}

impl<'a> Sections<'a> {
    /// Splits off a section of so many bits, whole bytes.
    fn split(self, bits: u64, what: &str) -> Parsed<(Bits<'a>, Self)> {
        let bytes = usize::try_from(bits.div_ceil(8)).ok().filter(|bytes| *bytes <= self.len);
        let bytes = bytes.ok_or_else(|| format!("{what} needs {bits} bits, {} bytes are left", self.len))?;
        let section = Bits::new(self.padded, bits).ok_or("record ends too early")?;
        if !section.padding_is_zero() {
            return Err(format!("bits after the {what} are not zero"));
        }
        Ok((section, Self { padded: &self.padded[bytes..], len: self.len - bytes }))
    }
}

fn decode_codes<'a>(
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

fn decode_basis(count: usize, bits: u8, scale: f32, body: Sections<'_>) -> Parsed<Basis> {
    let width = u32::from(bits);
    if !(2..=16).contains(&bits) && bits != 32 {
        return Err(format!("basis of {bits} bits"));
    }
    let (section, rest) = body.split(count as u64 * u64::from(width), "basis")?;
    if rest.len != 0 {
        return Err(format!("{} bytes after the basis", rest.len));
    }
    let raw = (0..count as u64).map(|i| section.get(i * u64::from(width), width));
    if bits == 32 {
        if scale.to_bits() != 1f32.to_bits() {
            return Err("a floating-point basis has no scale".into());
        }
        return Ok(Basis::Float(raw.map(|v| f32::from_bits(v as u32)).collect()));
    }
    if !(scale.is_finite() && scale > 0.0) {
        return Err(format!("scale of the basis is {scale}"));
    }
    let top = (1i32 << (bits - 1)) - 1;
    let values: Vec<i16> = raw.map(|v| (v as i32 - top) as i16).collect();
    if values.iter().any(|v| i32::from(*v) > top) {
        return Err("a basis entry is beyond full scale".into());
    }
    Ok(Basis::Fixed { bits, scale, values })
}

/// Bytes of a layer's body before its sections.
#[cfg(test)]
pub(super) fn header_len(layer: &SdLayer) -> usize {
    1 + 4 * layer.shape().dims().len() + 1 + 8 + 2 + 1 + layer.exponents().len() + 5 + 8
}
