//! Demand-by-demand emulation of the operand buffers, equal to SCALE-Sim 3.0.0 in its bandwidth-estimating mode.
//!
//! The array demands addresses in a fixed order: folds run over columns outside and rows inside; within a fold the
//! skewed operand's element `(t, port)` is demanded in cycle `t + port`, and a stationary tile is loaded row by row,
//! last row first. Each operand has a buffer that remembers the addresses since its last flush. A demand for a
//! remembered address is free, any other is one DRAM read; when `50·⌊words/100⌋` addresses are remembered, all are
//! forgotten. Outputs fill lines of `columns` words that drain half a buffer at a time.
//!
//! The rule is the tool's, quirks included: a larger buffer may read *more* (the flush falls elsewhere). The models
//! under [`crate::accelerator`] do not use it.

mod buffers;

use serde::Serialize;

use super::{Dataflow, NmRatio, SystolicArray};
use crate::error::{HwError, narrow};
use buffers::{LATENCY, ReadBuffer, Stalls, WriteBuffer, first_prefetch};
pub use buffers::{ReadStream, WriteStream};

/// Most demands that one emulation walks through: minutes of work.
const MAX_DEMANDS: u64 = 1 << 37;
/// Most distinct addresses of an operand, and most words of a size.
const MAX_ADDRESSES: u64 = 1 << 28;
/// Most bytes that one emulation sets aside.
const MAX_BYTES: u64 = 1 << 31;

/// A layer as addresses: a convolution without padding (`kh = 1, kw = K, w = K` makes a matrix product).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operands {
    /// Input height and width.
    pub input: [u64; 2],
    /// Kernel height and width.
    pub kernel: [u64; 2],
    /// Channels.
    pub channels: u64,
    /// Filters.
    pub filters: u64,
    /// Vertical and horizontal stride.
    pub stride: [u64; 2],
    /// Structured sparsity of the filters.
    pub sparsity: Option<NmRatio>,
}

/// The three streams of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Emulation {
    /// Input reads.
    pub input: ReadStream,
    /// Weight reads.
    pub weight: ReadStream,
    /// Output writes.
    pub output: WriteStream,
    /// Cycles in which a full write buffer held the array up.
    pub stall_cycles: u64,
}

/// Walks every demand of a layer. `buffer_kb` are the sizes of the input, weight and output buffers; words are bytes.
///
/// A layer may have 2^37 demands (minutes of work), 2^28 addresses an operand, and take 2 GiB of memory: 4 bytes an address
/// of the larger of inputs and weights, 12 bytes an output pixel and a window element.
///
/// # Errors
/// Sizes that make no sense, or more demands, addresses or memory than that.
pub fn emulate(
    layer: &str,
    array: &SystolicArray,
    operands: &Operands,
    buffer_kb: [u64; 3],
) -> Result<Emulation, HwError> {
    array.validate()?;
    let walk = Walk::new(layer, array, operands)?;
    for (name, kb) in ["input", "weight", "output"].into_iter().zip(buffer_kb) {
        if !(1..=1 << 30).contains(&kb) {
            return Err(HwError::field("operand buffers", format!("{name} size in KiB"), "1 to 2^30", kb));
        }
    }
    let (output, stalls) = walk.outputs(buffer_kb[2]);
    Ok(Emulation {
        input: walk.reads(Stream::Input, buffer_kb[0], &stalls),
        weight: walk.reads(Stream::Weight, buffer_kb[1], &stalls),
        output,
        stall_cycles: stalls.last().map_or(0, |&(_, total)| total as u64),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Input,
    Weight,
}

struct Walk {
    array: SystolicArray,
    m: u64,
    n: u64,
    /// Kept window elements.
    k: u64,
    folds: [u64; 2],
    cycles_per_fold: i64,
    /// Address of a pixel's window origin, and its row and column in the input.
    pixel: Vec<Place>,
    /// Offset of a window element, and its row and column in the window.
    window: Vec<Place>,
    /// Words of a dense filter.
    filter_words: u64,
    input: [u32; 2],
    /// Whether some window reaches past the input's edge.
    ragged: bool,
    /// Distinct input addresses.
    input_words: u64,
    input_space: usize,
}

#[derive(Clone, Copy)]
struct Place {
    address: u32,
    row: u32,
    col: u32,
}

impl Walk {
    fn new(layer: &str, array: &SystolicArray, operands: &Operands) -> Result<Self, HwError> {
        let Operands { input, kernel, channels, filters, stride, sparsity } = *operands;
        let thing = || format!("layer `{layer}`");
        let sizes = [input[0], input[1], kernel[0], kernel[1], channels, filters, stride[0], stride[1]];
        if let Some(position) = sizes.iter().position(|&size| size == 0) {
            let fields = ["input height", "input width", "kernel height", "kernel width"];
            let field = fields.get(position).copied().unwrap_or("channels, filters or stride");
            return Err(HwError::field(thing(), field, "at least 1", 0));
        }
        for axis in 0..2 {
            if kernel[axis] > input[axis] {
                return Err(HwError::field(
                    thing(),
                    "kernel",
                    format!("at most the input {input:?}"),
                    format!("{kernel:?}"),
                ));
            }
        }
        if let Some(ratio) = sparsity {
            ratio.validate(layer)?;
        }
        // A partial last window counts: ⌈(input − kernel + stride) / stride⌉ positions an axis.
        let outputs: [u64; 2] = std::array::from_fn(|axis| (input[axis] - kernel[axis]).div_ceil(stride[axis]) + 1);
        let wide = |a: u64, b: u64, c: u64| u128::from(a) * u128::from(b) * u128::from(c);
        let within = |limit: u64, quantity, found: u128| {
            if found > u128::from(limit) {
                return Err(HwError::TooLarge { layer: layer.to_owned(), quantity, found, limit });
            }
            Ok(found as u64)
        };
        let addresses = |quantity, found: u128| within(MAX_ADDRESSES, quantity, found);
        for size in sizes {
            addresses("size", size.into())?;
        }
        let input_space = addresses("input words", wide(input[0], input[1], channels))?;
        let filter_words = addresses("filter words", wide(kernel[0], kernel[1], channels))?;
        let weight_words = addresses("weight words", wide(filter_words, filters, 1))?;
        let m = addresses("output pixels", wide(outputs[0], outputs[1], 1))?;
        addresses("output words", wide(m, filters, 1))?;
        let k = sparsity.map_or(filter_words, |ratio| ratio.kept(filter_words));
        let (stamps, places) = (input_space.max(weight_words), m + k);
        let bytes = stamps * size_of::<u32>() as u64 + places * size_of::<Place>() as u64;
        within(MAX_BYTES, "memory in bytes", bytes.into())?;
        let gemm = super::Gemm { m, n: filters, k };
        let cost = array.cost(layer, gemm)?;
        let demands = u128::from(cost.input_reads) + u128::from(cost.weight_reads) + u128::from(cost.output_writes);
        within(MAX_DEMANDS, "demands", demands)?;
        let cycles_per_fold = i64::try_from(narrow(u128::from(cost.cycles_per_fold), layer, "cycles")?)
            .map_err(|_| HwError::Overflow { layer: layer.to_owned(), quantity: "cycles" })?;

        let place = |row: u64, col: u64, channel: u64| Place {
            address: ((row * input[1] + col) * channels + channel) as u32,
            row: row as u32,
            col: col as u32,
        };
        let pixel =
            (0..m).map(|index| place(index / outputs[1] * stride[0], index % outputs[1] * stride[1], 0)).collect();
        let window = (0..k)
            .map(|index| sparsity.map_or(index, |ratio| ratio.position(index)))
            .map(|index| {
                let tap = index / channels;
                place(tap / kernel[1], tap % kernel[1], index % channels)
            })
            .collect();
        let reach: [u64; 2] = std::array::from_fn(|axis| (outputs[axis] - 1) * stride[axis] + kernel[axis]);
        let ragged = reach[0] > input[0] || reach[1] > input[1];
        let touched: [u64; 2] = std::array::from_fn(|axis| reach[axis].min(outputs[axis] * kernel[axis]));
        Ok(Self {
            array: *array,
            m,
            n: filters,
            k,
            folds: cost.folds,
            cycles_per_fold,
            pixel,
            window,
            filter_words,
            input: [input[0] as u32, input[1] as u32],
            ragged: ragged || sparsity.is_some(),
            input_words: touched[0] * touched[1] * channels,
            input_space: input_space as usize,
        })
    }

    /// `(first cycle, row range, column range)` of every fold, in demand order.
    fn each_fold(&self, mut visit: impl FnMut(i64, std::ops::Range<u64>, std::ops::Range<u64>)) {
        let [down, across, _] = self.array.layout(super::Gemm { m: self.m, n: self.n, k: self.k });
        let mut base = 0;
        for fold_col in 0..self.folds[1] {
            for fold_row in 0..self.folds[0] {
                let rows = fold_row * self.array.rows..((fold_row + 1) * self.array.rows).min(down);
                let cols = fold_col * self.array.cols..((fold_col + 1) * self.array.cols).min(across);
                visit(base, rows, cols);
                base += self.cycles_per_fold;
            }
        }
    }

    fn reads(&self, stream: Stream, buffer_kb: u64, stalls: &Stalls) -> ReadStream {
        let distinct = match stream {
            Stream::Input => self.input_words,
            Stream::Weight => self.n * self.k,
        };
        let capacity = 50 * (1024 * buffer_kb / 100);
        let never_flushed = distinct < capacity && stalls.is_empty();
        if never_flushed && (stream == Stream::Weight || !self.ragged) {
            return self.resident(stream, buffer_kb, distinct);
        }
        let space = match stream {
            Stream::Input => self.input_space,
            Stream::Weight => (self.n * self.filter_words) as usize,
        };
        let mut buffer = ReadBuffer::new(space, buffer_kb, stalls);
        let rows = self.array.rows as i64;
        self.each_fold(|base, down, across| match (self.array.dataflow, stream) {
            (Dataflow::OutputStationary, Stream::Input) => {
                self.walk_input_skewed(&mut buffer, base, &self.window, slice(&self.pixel, &down));
            }
            (Dataflow::OutputStationary, Stream::Weight) => {
                self.walk_weight_skewed(&mut buffer, base, 0..self.k, across, true);
            }
            (Dataflow::WeightStationary, Stream::Input) => {
                self.walk_input_skewed(&mut buffer, base + rows, &self.pixel, slice(&self.window, &down));
            }
            (Dataflow::WeightStationary, Stream::Weight) => {
                for element in down.clone().rev() {
                    let cycle = base + rows - 1 - (element - down.start) as i64;
                    for filter in across.clone() {
                        buffer.demand(self.weight_address(filter, element), cycle);
                    }
                    buffer.served(cycle);
                }
            }
            (Dataflow::InputStationary, Stream::Weight) => {
                self.walk_weight_skewed(&mut buffer, base + rows, 0..self.n, down, false);
            }
            (Dataflow::InputStationary, Stream::Input) => {
                for element in down.clone().rev() {
                    let cycle = base + rows - 1 - (element - down.start) as i64;
                    let tap = self.window[element as usize];
                    let mut any = false;
                    for &pixel in slice(&self.pixel, &across) {
                        if self.inside(pixel, tap) {
                            buffer.demand(pixel.address + tap.address, cycle);
                            any = true;
                        }
                    }
                    if any {
                        buffer.served(cycle);
                    }
                }
            }
        });
        buffer.finish()
    }

    /// The stream of an operand that never fills its buffer: nothing is read twice, so nothing needs walking.
    fn resident(&self, stream: Stream, buffer_kb: u64, distinct: u64) -> ReadStream {
        let rows = self.array.rows as i64;
        let (first, last) = match (self.array.dataflow, stream) {
            (Dataflow::WeightStationary, Stream::Weight) | (Dataflow::InputStationary, Stream::Input) => {
                (rows - self.array.rows.min(self.k) as i64, rows - 1)
            }
            (Dataflow::OutputStationary, _) => (0, 0),
            _ => (rows, rows),
        };
        let [down, across, streamed] = self.array.layout(super::Gemm { m: self.m, n: self.n, k: self.k });
        let tail = |size: u64, side: u64| (size - (size.div_ceil(side) - 1) * side) as i64;
        let last_base = self.cycles_per_fold * (self.folds[0] * self.folds[1] - 1) as i64;
        let skewed_end = |ports: i64| streamed as i64 - 1 + ports - 1;
        let last = last_base
            + match (self.array.dataflow, stream) {
                (Dataflow::OutputStationary, Stream::Weight) => last + skewed_end(tail(across, self.array.cols)),
                (Dataflow::WeightStationary, Stream::Weight) | (Dataflow::InputStationary, Stream::Input) => last,
                _ => last + skewed_end(tail(down, self.array.rows)),
            };
        ReadStream {
            sram_cycles: [first + LATENCY, last + LATENCY],
            dram_cycles: [first_prefetch(-LATENCY - 1, distinct, buffer_kb) + LATENCY, -LATENCY - 1 + LATENCY],
            dram_reads: distinct,
        }
    }

    #[inline]
    fn inside(&self, pixel: Place, tap: Place) -> bool {
        !self.ragged || (pixel.row + tap.row < self.input[0] && pixel.col + tap.col < self.input[1])
    }

    #[inline]
    fn weight_address(&self, filter: u64, element: u64) -> u32 {
        // Kept elements are numbered densely: the buffer only tells addresses apart.
        (filter * self.k + element) as u32
    }

    /// Element `(t, port)` in cycle `t + port`; one of the two slices holds pixels, the other window elements.
    fn walk_input_skewed(&self, buffer: &mut ReadBuffer, base: i64, time: &[Place], ports: &[Place]) {
        for diagonal in 0..time.len() + ports.len() - 1 {
            let cycle = base + diagonal as i64;
            let first = diagonal.saturating_sub(time.len() - 1);
            let last = diagonal.min(ports.len() - 1);
            let along = time[diagonal - last..=diagonal - first].iter().rev();
            if self.ragged {
                let mut any = false;
                for (&port, &element) in ports[first..=last].iter().zip(along) {
                    if self.inside(port, element) {
                        buffer.demand(port.address + element.address, cycle);
                        any = true;
                    }
                }
                if any {
                    buffer.served(cycle);
                }
            } else {
                for (port, element) in ports[first..=last].iter().zip(along) {
                    buffer.demand(port.address + element.address, cycle);
                }
                buffer.served(cycle);
            }
        }
    }

    /// The weight's skewed walk: ports are filters and time window elements (`filters_are_ports`), or the reverse.
    fn walk_weight_skewed(
        &self,
        buffer: &mut ReadBuffer,
        base: i64,
        time: std::ops::Range<u64>,
        ports: std::ops::Range<u64>,
        filters_are_ports: bool,
    ) {
        let (steps, width) = (time.end - time.start, ports.end - ports.start);
        for diagonal in 0..steps + width - 1 {
            let cycle = base + diagonal as i64;
            let first = diagonal.saturating_sub(steps - 1);
            let last = diagonal.min(width - 1);
            for port in first..=last {
                let (port, element) = (ports.start + port, time.start + diagonal - port);
                let address = if filters_are_ports {
                    self.weight_address(port, element)
                } else {
                    self.weight_address(element, port)
                };
                buffer.demand(address, cycle);
            }
            buffer.served(cycle);
        }
    }

    fn outputs(&self, buffer_kb: u64) -> (WriteStream, Stalls) {
        let mut buffer = WriteBuffer::new(buffer_kb, self.array.cols);
        let rows = self.array.rows as i64;
        self.each_fold(|base, down, across| {
            let width = (across.end - across.start) as i64;
            // Rows of results leave one a cycle, skewed over the columns.
            let (first, steps) = match self.array.dataflow {
                // Bottom rows first; the idle rows of an edge tile are below its busy ones.
                Dataflow::OutputStationary => {
                    let used = (down.end - down.start) as i64;
                    (base + self.k as i64 - 1 + rows - used, used)
                }
                Dataflow::WeightStationary => (base + 2 * rows - 1, self.m as i64),
                Dataflow::InputStationary => (base + 2 * rows - 1, self.n as i64),
            };
            for diagonal in 0..steps + width - 1 {
                let words = diagonal.min(width - 1) - (diagonal - steps + 1).max(0) + 1;
                buffer.write(first + diagonal, words);
            }
        });
        let last_cycle = self.cycles_per_fold * (self.folds[0] * self.folds[1]) as i64 - 1;
        buffer.finish(last_cycle)
    }
}

fn slice<'a>(places: &'a [Place], range: &std::ops::Range<u64>) -> &'a [Place] {
    &places[range.start as usize..range.end as usize]
}

#[cfg(test)]
mod tests;
