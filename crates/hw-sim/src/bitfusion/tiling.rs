//! The tiles and loop orders of one layer, and what each costs.

use super::{BitFusion, FusionLayer};
use crate::error::HwError;
use crate::stall::DoubleBuffer;
use crate::task::OutputRatio;

pub(super) const WGT: usize = 0;
pub(super) const ACT: usize = 1;
pub(super) const OUT: usize = 2;
/// Whether weight, input and output depend on the loop.
const DEPENDS: [[bool; 3]; 5] =
    [[false, true, true], [false, true, true], [false, true, true], [true, true, false], [true, false, true]];

/// Every tile times every order is bounded by this many bits, so that 64-bit sums of a few such terms are exact.
const MAX_BITS: u128 = 1 << 56;
/// No single size may exceed this, so that their products can be formed.
const MAX_SIZE: u64 = 1 << 40;

pub(super) struct Problem<'a> {
    array: &'a BitFusion,
    layer: FusionLayer,
    outputs: OutputRatio,
    fused: u64,
    half: [u64; 3],
    sizes: [u64; 5],
}

pub(super) struct Tile {
    pub(super) size: [u64; 5],
    count: [u64; 5],
    /// Bits of one tile: weights, inputs, outputs.
    bits: [u64; 3],
    pub(super) compute: u64,
    pub(super) least_cycles: u64,
    /// Bits between the buffers and the array over the whole layer.
    pub(super) array: [u64; 3],
}

pub(super) struct Traffic {
    pub(super) bits: [u64; 3],
    resident: [u64; 3],
}

impl<'a> Problem<'a> {
    pub(super) fn new(
        array: &'a BitFusion,
        name: &str,
        layer: &FusionLayer,
        outputs: OutputRatio,
    ) -> Result<Self, HwError> {
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
            u128::from(outputs.of(1)),
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
        Ok(Self { array, layer: *layer, outputs, fused, half, sizes })
    }

    fn candidates(size: u64, step: u64) -> Vec<u64> {
        let steps = size.div_ceil(step);
        let top = steps.next_power_of_two().trailing_zeros();
        (0..=top).map(|exponent| (step << exponent).min(size)).collect()
    }

    pub(super) fn tiles(&self) -> Vec<Tile> {
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
        let outputs = self.outputs.of(ow * oh * padded_oc * b) * p;
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
            [oc * pixels * window * w, oc * pixels * window * a, self.outputs.of(oc * pixels) * p]
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
    pub(super) fn orders(&self, tile: &Tile) -> Vec<[usize; 5]> {
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

    pub(super) fn traffic(&self, tile: &Tile, order: &[usize; 5]) -> Traffic {
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

    pub(super) fn cycles(&self, tile: &Tile, traffic: &Traffic) -> (u64, u64) {
        let boundary = DoubleBuffer {
            compute: tile.compute,
            traffic: traffic.bits[WGT] + traffic.bits[ACT] + 2 * traffic.bits[OUT],
            first_load: traffic.resident.iter().sum(),
            last_store: traffic.resident[OUT],
        };
        let stall = boundary.stall(self.array.bandwidth_bits);
        (stall, tile.compute + stall)
    }

    pub(super) fn energy(&self, tile: &Tile, traffic: &Traffic, compute: u64) -> f64 {
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

    pub(super) fn no_fit(&self, name: &str) -> HwError {
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
pub(super) fn permute(prefix: &mut Vec<usize>, rest: &[usize], visit: &mut impl FnMut(&[usize])) {
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
