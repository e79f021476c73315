//! An array of bit-composable multipliers with an exhaustive tiling search, equal to BitFusion's simulator
//! (Sharma et al., arXiv 1712.01507; repository hsharma35/bitfusion).
//!
//! `rows × cols` fusion units each do one `max_bits × max_bits` MAC a cycle, or several narrower ones. Loops over
//! batch, output columns and rows, input channels and output channels are tiled; all loop orders and power-of-two tile
//! sizes are searched for the fewest cycles, then the least energy. Tiles must fit half of their buffer.
//!
//! The search visits every tile in the order of a lower bound of its cycles and stops when the bound passes the best
//! found: the result is that of the exhaustive search.

use serde::{Deserialize, Serialize};

use crate::error::HwError;
use crate::stall::DoubleBuffer;

/// The accelerator. Defaults are the published 16 × 32 configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BitFusion {
    /// Fusion units along the reduction, N.
    pub rows: u64,
    /// Fusion units along output channels, M.
    pub cols: u64,
    /// Widest operand of a fusion unit: 8, or 16 for training.
    pub max_bits: u8,
    /// Narrowest operand that still gains throughput.
    pub min_bits: u8,
    /// How a narrow operand shares a unit.
    pub fusion: Fusion,
    /// Bytes of the weight, input and output buffers.
    pub buffer_bytes: [u64; 3],
    /// DRAM bits a cycle.
    pub bandwidth_bits: u64,
    /// Bits of a partial sum and of an output.
    pub output_bits: u8,
    /// Energies.
    pub energy: BitFusionEnergy,
}

/// How many narrow MACs fit a fusion unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fusion {
    /// `⌊max/bits⌋` a side, as the public simulator counts: not always a power of two.
    #[default]
    ReferenceFloor,
    /// Operand widths round up to 2, 4, 8, 16: what bricks of 2 bits can be fused to.
    PowerOfTwo,
}

/// Energies in nJ. Defaults: 45 nm, 500 MHz, from the repository's synthesis and CACTI tables.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BitFusionEnergy {
    /// The whole array, a cycle.
    pub core_per_cycle: f64,
    /// Weight buffer, a bit read.
    pub weight_read: f64,
    /// Weight buffer, a bit written.
    pub weight_write: f64,
    /// Input buffer, a bit read.
    pub input_read: f64,
    /// Input buffer, a bit written.
    pub input_write: f64,
    /// Output buffer, a bit read.
    pub output_read: f64,
    /// Output buffer, a bit written.
    pub output_write: f64,
    /// DRAM, a bit.
    pub dram: f64,
}

impl Default for BitFusionEnergy {
    fn default() -> Self {
        Self {
            core_per_cycle: 0.235104,
            weight_read: 2.1375e-5,
            weight_write: 2.890625e-5,
            input_read: 5.9375e-5,
            input_write: 1.125e-4,
            output_read: 3.3125e-5,
            output_write: 7.3125e-5,
            dram: 0.015,
        }
    }
}

impl Default for BitFusion {
    fn default() -> Self {
        Self {
            rows: 16,
            cols: 32,
            max_bits: 8,
            min_bits: 2,
            fusion: Fusion::default(),
            buffer_bytes: [65536, 32768, 16384],
            bandwidth_bits: 192,
            output_bits: 32,
            energy: BitFusionEnergy::default(),
        }
    }
}

/// A layer: square kernel and output, or a matrix product with both of size 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusionLayer {
    /// Kernel height and width.
    pub kernel: [u64; 2],
    /// Output height and width.
    pub output: [u64; 2],
    /// Stride of both axes.
    pub stride: u64,
    /// Input channels.
    pub in_channels: u64,
    /// Output channels.
    pub out_channels: u64,
    /// Samples.
    pub batch: u64,
    /// Activation bits.
    pub input_bits: u8,
    /// Weight bits.
    pub weight_bits: u8,
    /// Whether windows are unrolled before the array, as for a first layer.
    pub im2col: bool,
}

/// The tiled loops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loop {
    /// Samples.
    Batch,
    /// Output columns.
    OutWidth,
    /// Output rows.
    OutHeight,
    /// Input channels.
    InChannels,
    /// Output channels.
    OutChannels,
}

/// Bits written into and read from a buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BufferBits {
    /// Read by the array, or drained.
    pub read: u64,
    /// Filled from DRAM, or produced.
    pub write: u64,
}

/// The best mapping and what it costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mapped {
    /// Compute and stall cycles.
    pub total_cycles: u64,
    /// Cycles in which the array waits for DRAM.
    pub stall_cycles: u64,
    /// Weight buffer.
    pub weight_buffer: BufferBits,
    /// Input buffer.
    pub input_buffer: BufferBits,
    /// Output buffer.
    pub output_buffer: BufferBits,
    /// Bits from DRAM.
    pub dram_read_bits: u64,
    /// Bits to DRAM.
    pub dram_write_bits: u64,
    /// All of it, in nJ.
    pub energy_nj: f64,
    /// Loops outermost first.
    pub order: [Loop; 5],
    /// Tile sizes: batch, output width (and height), input channels, output channels.
    pub tile: [u64; 4],
    /// Tiles that fit their buffers.
    pub feasible_tiles: usize,
}

const WGT: usize = 0;
const ACT: usize = 1;
const OUT: usize = 2;
/// Whether weight, input and output depend on the loop.
const DEPENDS: [[bool; 3]; 5] =
    [[false, true, true], [false, true, true], [false, true, true], [true, true, false], [true, false, true]];
const LOOPS: [Loop; 5] = [Loop::Batch, Loop::OutWidth, Loop::OutHeight, Loop::InChannels, Loop::OutChannels];

impl BitFusion {
    /// Checks sizes and widths.
    ///
    /// # Errors
    /// The first field out of range.
    pub fn validate(&self) -> Result<(), HwError> {
        let fail = |field: &str, expected: &str, found: String| {
            Err(HwError::field("bit-composable array", field, expected, found))
        };
        for (field, side) in [("rows", self.rows), ("cols", self.cols)] {
            if !(1..=crate::systolic::MAX_SIDE).contains(&side) {
                return fail(field, "1 to 65536", side.to_string());
            }
        }
        if !(1..=32).contains(&self.max_bits) || !(1..=self.max_bits).contains(&self.min_bits) {
            return fail("bits", "1 ≤ min_bits ≤ max_bits ≤ 32", format!("{} to {}", self.min_bits, self.max_bits));
        }
        if !(1..=64).contains(&self.output_bits) {
            return fail("output_bits", "1 to 64", self.output_bits.to_string());
        }
        if self.buffer_bytes.iter().any(|bytes| !(1..=1 << 40).contains(bytes)) {
            return fail("buffer_bytes", "1 to 2^40 each", format!("{:?}", self.buffer_bytes));
        }
        if !(1..=1 << 32).contains(&self.bandwidth_bits) {
            return fail("bandwidth_bits", "1 to 2^32", self.bandwidth_bits.to_string());
        }
        let e = &self.energy;
        let units = [
            e.core_per_cycle,
            e.weight_read,
            e.weight_write,
            e.input_read,
            e.input_write,
            e.output_read,
            e.output_write,
            e.dram,
        ];
        if let Some(bad) = units.iter().find(|unit| !(unit.is_finite() && **unit >= 0.0)) {
            return fail("energy", "finite and not negative", bad.to_string());
        }
        Ok(())
    }

    /// MACs that one fusion unit does a cycle at these widths.
    ///
    /// # Errors
    /// Bits outside 1 to `max_bits`.
    pub fn fused(&self, input_bits: u8, weight_bits: u8) -> Result<u64, HwError> {
        let side = |operand: &str, bits: u8| {
            if bits == 0 || bits > self.max_bits {
                let expected = format!("1 to {} (the array's max_bits)", self.max_bits);
                return Err(HwError::field("bit-composable array", format!("{operand} bits"), expected, bits));
            }
            let bits = bits.max(self.min_bits);
            let bits =
                if self.fusion == Fusion::PowerOfTwo { bits.next_power_of_two().min(self.max_bits) } else { bits };
            Ok(u64::from(self.max_bits / bits))
        };
        Ok(side("input", input_bits)? * side("weight", weight_bits)?)
    }

    /// The best tiling and loop order of one layer.
    ///
    /// # Errors
    /// Impossible sizes or widths, counts past 64 bits, or a layer whose smallest tile exceeds half a buffer.
    pub fn search(&self, name: &str, layer: &FusionLayer) -> Result<Mapped, HwError> {
        self.validate()?;
        let problem = Problem::new(self, name, layer)?;
        let mut tiles = problem.tiles();
        if tiles.is_empty() {
            return Err(problem.no_fit(name));
        }
        tiles.sort_by_key(|tile| tile.least_cycles);
        let mut best: Option<(u64, f64, &Tile, [usize; 5], Traffic)> = None;
        for tile in &tiles {
            if best.as_ref().is_some_and(|&(cycles, ..)| tile.least_cycles > cycles) {
                break;
            }
            for order in problem.orders(tile) {
                let traffic = problem.traffic(tile, &order);
                let (stall, total) = problem.cycles(tile, &traffic);
                if best.as_ref().is_some_and(|&(cycles, ..)| total > cycles) {
                    continue;
                }
                let energy = problem.energy(tile, &traffic, total - stall);
                if best.as_ref().is_none_or(|&(cycles, least, ..)| total < cycles || energy < least) {
                    best = Some((total, energy, tile, order, traffic));
                }
            }
        }
        let Some((total_cycles, energy_nj, tile, order, traffic)) = best else { return Err(problem.no_fit(name)) };
        let (stall_cycles, _) = problem.cycles(tile, &traffic);
        let output = traffic.bits[OUT];
        Ok(Mapped {
            total_cycles,
            stall_cycles,
            weight_buffer: BufferBits { read: tile.array[WGT], write: traffic.bits[WGT] },
            input_buffer: BufferBits { read: tile.array[ACT], write: traffic.bits[ACT] },
            output_buffer: BufferBits { read: output + tile.array[OUT], write: output + tile.array[OUT] },
            dram_read_bits: traffic.bits[WGT] + traffic.bits[ACT] + output,
            dram_write_bits: output,
            energy_nj,
            order: order.map(|index| LOOPS[index]),
            tile: [tile.size[0], tile.size[1], tile.size[3], tile.size[4]],
            feasible_tiles: tiles.len(),
        })
    }
}

/// Every tile times every order is bounded by this many bits, so that 64-bit sums of a few such terms are exact.
const MAX_BITS: u128 = 1 << 56;
/// No single size may exceed this, so that their products can be formed.
const MAX_SIZE: u64 = 1 << 40;

struct Problem<'a> {
    array: &'a BitFusion,
    layer: FusionLayer,
    fused: u64,
    half: [u64; 3],
    sizes: [u64; 5],
}

struct Tile {
    size: [u64; 5],
    count: [u64; 5],
    /// Bits of one tile: weights, inputs, outputs.
    bits: [u64; 3],
    compute: u64,
    least_cycles: u64,
    /// Bits between the buffers and the array over the whole layer.
    array: [u64; 3],
}

struct Traffic {
    bits: [u64; 3],
    resident: [u64; 3],
}

impl<'a> Problem<'a> {
    fn new(array: &'a BitFusion, name: &str, layer: &FusionLayer) -> Result<Self, HwError> {
        let FusionLayer { kernel, output, stride, in_channels, out_channels, batch, .. } = *layer;
        let sizes = [kernel[0], kernel[1], output[0], output[1], stride, in_channels, out_channels, batch];
        if sizes.contains(&0) {
            return Err(HwError::field(format!("layer `{name}`"), "sizes", "at least 1 each", format!("{sizes:?}")));
        }
        if sizes.iter().any(|&size| size > MAX_SIZE) {
            return Err(HwError::Overflow { layer: name.to_owned(), quantity: "sizes" });
        }
        let fused = array.fused(layer.input_bits, layer.weight_bits)?;
        // The largest product that can appear: all loops, the halo, padding to the array, and 64 bits.
        let pad = |value: u64, step: u64| u128::from(value.div_ceil(step)) * u128::from(step);
        let factors = [
            u128::from(kernel[0]) * u128::from(kernel[1]),
            (u128::from(output[0]) + u128::from(kernel[0])) * (u128::from(output[1]) + u128::from(kernel[1])),
            u128::from(stride) * u128::from(stride),
            pad(in_channels, array.rows * fused),
            pad(out_channels, array.cols),
            u128::from(batch),
            64 * 64,
        ];
        let bound = factors.iter().try_fold(1_u128, |total, &factor| total.checked_mul(factor));
        if bound.is_none_or(|bound| bound > MAX_BITS * 64) {
            return Err(HwError::Overflow { layer: name.to_owned(), quantity: "traffic bits" });
        }
        let half = array.buffer_bytes.map(|bytes| bytes * 8 / 2);
        let sizes = [batch, output[1], output[0], in_channels, out_channels];
        Ok(Self { array, layer: *layer, fused, half, sizes })
    }

    fn candidates(size: u64, step: u64) -> Vec<u64> {
        let steps = size.div_ceil(step);
        let top = steps.next_power_of_two().trailing_zeros();
        (0..=top).map(|exponent| (step << exponent).min(size)).collect()
    }

    fn tiles(&self) -> Vec<Tile> {
        let [batch, width, height, inputs, outputs] = self.sizes;
        let output_step = if self.layer.im2col { 1 } else { self.array.cols };
        let mut tiles = Vec::new();
        let squares = Self::candidates(width.max(height), 1);
        for &b in &Self::candidates(batch, 1) {
            for &side in &squares {
                let (ow, oh) = (side.min(width), side.min(height));
                for &ic in &Self::candidates(inputs, 1) {
                    for &oc in &Self::candidates(outputs, output_step) {
                        tiles.extend(self.tile([b, ow, oh, ic, oc]).filter(|tile| self.fits(tile)));
                    }
                }
            }
        }
        tiles
    }

    fn fits(&self, tile: &Tile) -> bool {
        tile.bits.iter().zip(self.half).all(|(&bits, half)| bits <= half)
    }

    /// `None` never happens for sizes that passed `new`; it keeps the arithmetic checked.
    fn tile(&self, size: [u64; 5]) -> Option<Tile> {
        let FusionLayer { kernel, stride, input_bits, weight_bits, im2col, .. } = self.layer;
        let [b, ow, oh, ic, oc] = size;
        let (a, w, p) = (u64::from(input_bits), u64::from(weight_bits), u64::from(self.array.output_bits));
        let taps = kernel[0] * kernel[1];
        let lanes = self.array.rows * self.fused;
        let padded_oc = oc.div_ceil(self.array.cols) * self.array.cols;
        let weights = (taps * ic).div_ceil(lanes) * lanes * oc * w;
        let inputs = if im2col {
            ow * oh * taps * ic * b * a
        } else {
            (kernel[1] + (ow - 1) * stride) * (kernel[0] + (oh - 1) * stride) * ic * b * a
        };
        let outputs = ow * oh * padded_oc * b * p;
        let count: [u64; 5] = std::array::from_fn(|axis| self.sizes[axis].div_ceil(size[axis]));
        let tiles = count.iter().try_fold(1_u64, |total, &n| total.checked_mul(n))?;
        let pixels = b * oh * ow;
        let per_tile = if im2col {
            pixels * oc.div_ceil(self.array.cols) * (taps * ic).div_ceil(lanes)
        } else {
            oc.div_ceil(self.array.cols) * pixels * taps * ic.div_ceil(lanes)
        };
        let compute = tiles.checked_mul(per_tile)?;

        let padded_k = if im2col { (ic * taps).div_ceil(lanes) * lanes } else { ic.div_ceil(lanes) * lanes * taps };
        let window = taps * ic;
        // Which operand stays at the array is chosen by the padded traffic; what is then counted is unpadded.
        let stationary = |cost: u64, rest: [u64; 2]| u128::from(cost) * (u128::from(rest[0]) + u128::from(rest[1]));
        let input_stays = stationary(padded_k * pixels, [a, padded_oc * (w + p)]);
        let output_stays = stationary(padded_oc * pixels, [p, padded_k * (a + w)]);
        let weight_stays = stationary(padded_k * padded_oc, [w, pixels * (a + p)]);
        let array = if input_stays <= output_stays && input_stays <= weight_stays {
            [window * pixels * oc * w, window * pixels * a, window * pixels * oc * p]
        } else if output_stays <= weight_stays {
            [oc * pixels * window * w, oc * pixels * window * a, oc * pixels * p]
        } else {
            [window * oc * w, window * oc * pixels * a, window * oc * pixels * p]
        };
        let array = [array[0].checked_mul(tiles)?, array[1].checked_mul(tiles)?, array[2].checked_mul(tiles)?];

        let bits = [weights, inputs, outputs];
        let least: [u64; 3] = std::array::from_fn(|operand| {
            bits[operand] * (0..5).filter(|&axis| DEPENDS[axis][operand]).map(|axis| count[axis]).product::<u64>()
        });
        let bandwidth = self.array.bandwidth_bits;
        let ends = (bits[WGT] + bits[ACT] + bits[OUT]).div_ceil(bandwidth) + bits[OUT].div_ceil(bandwidth);
        let least_traffic = least[WGT] + least[ACT] + 2 * least[OUT];
        let least_cycles = (compute + ends).max(least_traffic.div_ceil(bandwidth));
        Some(Tile { size, count, bits, compute, least_cycles, array })
    }

    /// Loop orders, outermost first, that can differ: a loop of one tile changes nothing and stays outermost, and the
    /// two output axes are interchangeable when they have as many tiles.
    fn orders(&self, tile: &Tile) -> Vec<[usize; 5]> {
        let active: Vec<usize> = (0..5).filter(|&axis| tile.count[axis] > 1).collect();
        let idle: Vec<usize> = (0..5).filter(|&axis| tile.count[axis] == 1).collect();
        let mut orders = Vec::new();
        permute(&mut Vec::new(), &active, &mut |order: &[usize]| {
            let place = |axis| order.iter().position(|&found| found == axis);
            let twin = tile.count[1] == tile.count[2] && place(1) > place(2);
            if !twin {
                let mut full = [0; 5];
                for (slot, &axis) in full.iter_mut().zip(idle.iter().chain(order)) {
                    *slot = axis;
                }
                orders.push(full);
            }
        });
        orders
    }

    fn traffic(&self, tile: &Tile, order: &[usize; 5]) -> Traffic {
        let mut bits = tile.bits;
        let mut resident = tile.bits;
        let mut promoted = [true; 3];
        for &axis in order.iter().rev() {
            let n = tile.count[axis];
            for operand in [WGT, ACT, OUT] {
                if !promoted[operand] {
                    bits[operand] *= n;
                } else if DEPENDS[axis][operand] {
                    bits[operand] *= n;
                    if bits[operand] > self.half[operand] {
                        promoted[operand] = false;
                    } else {
                        resident[operand] = bits[operand];
                    }
                }
            }
        }
        Traffic { bits, resident }
    }

    fn cycles(&self, tile: &Tile, traffic: &Traffic) -> (u64, u64) {
        let boundary = DoubleBuffer {
            compute: tile.compute,
            traffic: traffic.bits[WGT] + traffic.bits[ACT] + 2 * traffic.bits[OUT],
            first_load: traffic.resident.iter().sum(),
            last_store: traffic.resident[OUT],
        };
        let stall = boundary.stall(self.array.bandwidth_bits);
        (stall, tile.compute + stall)
    }

    fn energy(&self, tile: &Tile, traffic: &Traffic, compute: u64) -> f64 {
        let e = &self.array.energy;
        let output = (traffic.bits[OUT] + tile.array[OUT]) as f64;
        let dram = traffic.bits[WGT] + traffic.bits[ACT] + 2 * traffic.bits[OUT];
        compute as f64 * e.core_per_cycle
            + tile.array[WGT] as f64 * e.weight_read
            + traffic.bits[WGT] as f64 * e.weight_write
            + tile.array[ACT] as f64 * e.input_read
            + traffic.bits[ACT] as f64 * e.input_write
            + output * (e.output_read + e.output_write)
            + dram as f64 * e.dram
    }

    fn no_fit(&self, name: &str) -> HwError {
        let step = if self.layer.im2col { 1 } else { self.array.cols.min(self.sizes[4]) };
        let smallest = self.tile([1, 1, 1, 1, step]);
        let (mut operand, mut needed) = (WGT, 0);
        if let Some(tile) = smallest {
            operand = [WGT, ACT, OUT].into_iter().find(|&index| tile.bits[index] > self.half[index]).unwrap_or(OUT);
            needed = tile.bits[operand];
        }
        HwError::NoFit {
            layer: name.to_owned(),
            operand: ["weight", "input", "output"][operand],
            level: ["weight buffer", "input buffer", "output buffer"][operand].into(),
            needed,
            available: self.half[operand],
        }
    }
}

/// Every order of `rest` appended to `prefix`.
fn permute(prefix: &mut Vec<usize>, rest: &[usize], visit: &mut impl FnMut(&[usize])) {
    if rest.is_empty() {
        return visit(prefix);
    }
    for (index, &item) in rest.iter().enumerate() {
        let mut others = rest.to_vec();
        others.remove(index);
        prefix.push(item);
        permute(prefix, &others, visit);
        prefix.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conv(in_channels: u64, out_channels: u64, output: u64, bits: [u8; 2]) -> FusionLayer {
        FusionLayer {
            kernel: [3, 3],
            output: [output; 2],
            stride: 1,
            in_channels,
            out_channels,
            batch: 1,
            input_bits: bits[0],
            weight_bits: bits[1],
            im2col: false,
        }
    }

    /// Every tile and all 120 orders, without bounds, shortcuts or symmetry.
    fn exhaustive(array: &BitFusion, layer: &FusionLayer) -> Option<(u64, f64)> {
        let problem = Problem::new(array, "l", layer).unwrap();
        let mut best: Option<(u64, f64)> = None;
        for tile in problem.tiles() {
            permute(&mut Vec::new(), &[0, 1, 2, 3, 4], &mut |order: &[usize]| {
                let order: [usize; 5] = order.try_into().unwrap();
                let traffic = problem.traffic(&tile, &order);
                let (stall, total) = problem.cycles(&tile, &traffic);
                let energy = problem.energy(&tile, &traffic, total - stall);
                if best.is_none_or(|(cycles, least)| total < cycles || (total == cycles && energy < least)) {
                    best = Some((total, energy));
                }
            });
        }
        best
    }

    #[test]
    fn narrower_operands_fuse_as_published() {
        let array = BitFusion::default();
        let pairs = [(8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (3, 6), (5, 5)];
        assert_eq!(pairs.map(|(a, w)| array.fused(a, w).unwrap()), [1, 2, 4, 8, 16, 2, 1]);
        let training = BitFusion { max_bits: 16, ..array.clone() };
        let pairs = [(3, 6), (4, 6), (4, 8), (8, 8), (8, 12), (8, 16)];
        assert_eq!(pairs.map(|(a, w)| training.fused(a, w).unwrap()), [10, 8, 8, 4, 2, 2]);
        let bricks = BitFusion { fusion: Fusion::PowerOfTwo, ..training };
        assert_eq!(bricks.fused(3, 6).unwrap(), 4 * 2);
        assert!(array.fused(16, 8).is_err());
    }

    #[test]
    fn compute_cycles_are_those_of_the_closed_form() {
        // 64→64, 3×3 on 8×8: ⌈64/32⌉·64·9·⌈64/(16·f)⌉ = 4608 at 8/8, 1152 at 4/4, 2304 at 3/6, 1152 at 2/2.
        let array = BitFusion::default();
        for (bits, cycles) in [([8, 8], 4608), ([4, 4], 1152), ([3, 6], 2304), ([2, 2], 1152)] {
            let found = array.search("c", &conv(64, 64, 8, bits)).unwrap();
            // Halved channel tiles cannot compute faster than the whole layer.
            assert_eq!(found.total_cycles - found.stall_cycles, cycles, "{bits:?}");
        }
    }

    #[test]
    fn a_layer_that_fits_no_buffer_names_the_operand() {
        let array = BitFusion { buffer_bytes: [65536, 4, 16384], ..BitFusion::default() };
        let error = array.search("conv7", &conv(64, 64, 8, [8, 8])).unwrap_err();
        assert!(matches!(error, HwError::NoFit { operand: "input", .. }), "{error}");
        assert!(error.to_string().contains("conv7"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_pruned_search_equals_the_exhaustive_one(
            ic in 1_u64..40, oc in 1_u64..80, side in 1_u64..18, batch in 1_u64..5, stride in 1_u64..3, k in 1_u64..4,
            a in 1_u8..9, w in 1_u8..9, im2col in any::<bool>(), bandwidth in 1_u64..400, kib in 1_u64..16,
        ) {
            let layer = FusionLayer { kernel: [k; 2], output: [side; 2], stride, in_channels: ic, out_channels: oc, batch,
                input_bits: a, weight_bits: w, im2col };
            let array = BitFusion { rows: 8, cols: 8, bandwidth_bits: bandwidth, buffer_bytes: [1024 * kib; 3], ..BitFusion::default() };
            let found = array.search("l", &layer).ok().map(|mapped| (mapped.total_cycles, mapped.energy_nj));
            let brute = exhaustive(&array, &layer);
            prop_assert_eq!(found.map(|f| f.0), brute.map(|b| b.0));
            if let (Some((_, energy)), Some((_, least))) = (found, brute) {
                prop_assert!((energy - least).abs() <= 1e-9 * least);
            }
        }

        #[test]
        fn any_layer_gives_a_mapping_or_an_error(sizes in proptest::array::uniform7(any::<u64>()), a in any::<u8>(), w in any::<u8>()) {
            let [k, o, s, ic, oc, b, q] = sizes;
            for shrink in [1, 1 << 50, 1 << 58] {
                let layer = FusionLayer { kernel: [k / shrink, q / shrink], output: [o / shrink, o / shrink], stride: s / shrink,
                    in_channels: ic / shrink, out_channels: oc / shrink, batch: b / (1 << 61), input_bits: a % 9, weight_bits: w % 9, im2col: a > 99 };
                let _ = BitFusion { buffer_bytes: [1 << 14; 3], ..BitFusion::default() }.search("l", &layer);
            }
        }
    }
}
