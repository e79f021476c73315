//! An array of bit-composable multipliers with an exhaustive tiling search, equal to BitFusion's simulator
//! (Sharma et al., arXiv 1712.01507; repository hsharma35/bitfusion).
//!
//! `rows × cols` fusion units each do one `max_bits × max_bits` MAC a cycle, or several narrower ones. Loops over
//! batch, output columns and rows, input channels and output channels are tiled; all loop orders and power-of-two tile
//! sizes are searched for the fewest cycles, then the least energy. Tiles must fit half of their buffer.
//!
//! The search visits every tile in the order of a lower bound of its cycles and stops when the bound passes the best
//! found: the result is that of the exhaustive search.

mod tiling;

use serde::{Deserialize, Serialize};

use crate::error::HwError;
use crate::task::OutputRatio;
use tiling::{ACT, OUT, Problem, Tile, Traffic, WGT};

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

/// Energies in nJ, 0 to 1e12. Defaults: 45 nm, 500 MHz, from the repository's synthesis and CACTI tables.
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BufferBits {
    /// Read by the array, or drained.
    pub read: u64,
    /// Filled from DRAM, or produced.
    pub write: u64,
}

/// The best mapping and what it costs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
        if let Some(bad) = units.iter().find(|unit| !(0.0..=1e12).contains(*unit)) {
            return fail("energy", "0 to 1e12 nJ", bad.to_string());
        }
        Ok(())
    }

    /// MACs that one fusion unit does a cycle at these widths.
    ///
    /// # Errors
    /// An array that does not validate, or bits outside 1 to `max_bits`.
    pub fn fused(&self, input_bits: u8, weight_bits: u8) -> Result<u64, HwError> {
        self.validate()?;
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
        self.search_with(name, layer, OutputRatio::ONE)
    }

    /// [`BitFusion::search`] for a layer whose output pixels stand for more or fewer words.
    pub(crate) fn search_with(&self, name: &str, layer: &FusionLayer, outputs: OutputRatio) -> Result<Mapped, HwError> {
        self.validate()?;
        let problem = Problem::new(self, name, layer, outputs)?;
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

#[cfg(test)]
mod tests;
