//! Evaluation in integers: the inputs of a row in 256 even steps between its smallest and its largest, the weights of a gate
//! in up to 65,535, products summed exactly in 32 bits. A step of AVX-512 VNNI does twice the work of one in single precision
//! on a quarter of the memory.
//!
//! With `x = lo + step u + r` for a row and `w = scale v + s` for a gate, the score errs by `w . r + step s . u`, at most
//! `|w| |r| + step |s| |u|` in Euclidean norms. A gate's probability errs by no more than its steepest slope times that, and
//! moves that share of the mass that passes through the gate from one child to the other.

use super::dense::{Scratch, Slack, mix};
use super::dot::{CODES, dots_integer};
use super::skip::{Signpost, Visit};
use super::{Kernel, LANES, TILE};
use crate::gate::Gate;
use crate::simd::multiversion;

/// Inputs of one step: what an instruction multiplies in a 32-bit lane.
const PAIR: usize = 2;

/// A kernel's gates in integers.
#[derive(Clone, Debug)]
pub(super) struct Integer {
    /// `[gates / TILE][pairs][TILE][PAIR]`, for all gates at once.
    tiles: Vec<i16>,
    pairs: usize,
    /// The same as `[gates][padded]`, for one gate at a time.
    rows: Vec<i16>,
    /// Inputs, rounded up to a multiple of `CODES`.
    padded: usize,
    /// Per gate: size of a step, sum of the weights, bias, norms of the weights and of what rounding took from them.
    scale: Vec<f32>,
    sum: Vec<f32>,
    bias: Vec<f32>,
    norm: Vec<f32>,
    residual: Vec<f32>,
    /// What is taken from each input and what it is then multiplied with; empty where inputs share a unit already.
    scaling: Vec<(f32, f32)>,
    steepest: f32,
}

/// Rows in integers.
#[derive(Default)]
pub(super) struct Rounded {
    /// `[rows][padded]`, zeros where there is no input.
    codes: Vec<u8>,
    /// Per row: smallest input, step, norm of what rounding took, norm of the rest.
    low: Vec<f32>,
    step: Vec<f32>,
    lost: Vec<f32>,
    kept: Vec<f32>,
    /// One row, scaled.
    row: Vec<f32>,
    /// A block's codes as `[pairs][LANES][PAIR]`.
    x: Vec<i16>,
    /// Per lane, mass that errors of the gates may have moved in the current tree.
    moved: Vec<f32>,
}

/// Gates and rows in integers, for a walk.
pub(super) struct Coarse<'a> {
    pub(super) integer: &'a Integer,
    pub(super) rounded: &'a Rounded,
}

impl Signpost for Coarse<'_> {
    fn scores(&self, gate: usize, group: &[Visit]) -> [f32; 4] {
        let (integer, rounded) = (self.integer, self.rounded);
        let row = |i: usize| &rounded.codes[group[i].row as usize * integer.padded..][..integer.padded];
        let weights = &integer.rows[gate * integer.padded..][..integer.padded];
        let mut sums = [0; 4];
        if group.len() == 4 {
            sums = dots_integer(weights, [row(0), row(1), row(2), row(3)]);
        } else {
            for (i, sum) in sums.iter_mut().enumerate().take(group.len()) {
                [*sum] = dots_integer(weights, [row(i)]);
            }
        }
        let mut scores = [0.0; 4];
        for ((score, sum), visit) in scores.iter_mut().zip(sums).zip(group) {
            let row = visit.row as usize;
            let (step, low) = (rounded.step[row] * integer.scale[gate], rounded.low[row] * integer.sum[gate]);
            *score = sum as f32 * step + low + integer.bias[gate];
        }
        scores
    }

    fn doubt(&self, gate: usize, row: u32) -> f32 {
        let (integer, row) = (self.integer, row as usize);
        let off = integer.norm[gate] * self.rounded.lost[row] + integer.residual[gate] * self.rounded.kept[row];
        (integer.steepest * off).min(1.0)
    }
}

impl Integer {
    /// From a kernel with the mean and the inverse scale of each input that were folded into it.
    pub(super) fn new(kernel: &Kernel, folded: Vec<(f32, f32)>) -> Self {
        let (gates, inputs) = (kernel.bias.len(), kernel.inputs);
        let (pairs, padded) = (inputs.div_ceil(PAIR), inputs.div_ceil(CODES) * CODES);
        // Columns that were scaled one by one have units of their own. Others, such as pixels, are better left alone: their
        // values are often exact in 8 bits, which centring would spoil.
        let scaling = if folded.iter().any(|&(_, scale)| scale != 1.0) { folded } else { Vec::new() };
        let mut integer = Self {
            tiles: vec![0; gates.div_ceil(TILE) * TILE * pairs * PAIR],
            pairs,
            rows: vec![0; gates * padded],
            padded,
            scale: Vec::with_capacity(gates),
            sum: Vec::with_capacity(gates),
            bias: Vec::with_capacity(gates),
            norm: Vec::with_capacity(gates),
            residual: Vec::with_capacity(gates),
            scaling,
            steepest: match kernel.gate {
                Gate::Sigmoid => 0.25,
                // Of the step of width 1, which the kernel's folded scores go through.
                Gate::SmoothStep { .. } => 1.5,
            },
        };
        for gate in 0..gates {
            integer.push_gate(gate, &kernel.weights[gate * inputs..][..inputs], kernel.bias[gate]);
        }
        integer
    }

    fn push_gate(&mut self, gate: usize, folded: &[f32], bias: f32) {
        let mut weights: Vec<f64> = folded.iter().map(|&w| f64::from(w)).collect();
        let mut bias = f64::from(bias);
        for (w, &(mean, factor)) in weights.iter_mut().zip(&self.scaling) {
            bias += *w * f64::from(mean);
            *w /= f64::from(factor);
        }
        let largest = weights.iter().fold(0.0, |largest: f64, w| largest.max(w.abs()));
        let total: f64 = weights.iter().map(|w| w.abs()).sum();
        // The finest step with which no code passes 16 bits and no sum of products 32, rounding included.
        let room = f64::from(i32::MAX / 255) - weights.len() as f64;
        let scale = (largest / f64::from(i16::MAX)).max(total / room.max(1.0));
        let scale = if scale > 0.0 { scale } else { 1.0 };
        let mut residual = 0.0;
        let tile = &mut self.tiles[gate / TILE * TILE * self.pairs * PAIR..];
        for (j, w) in weights.iter().enumerate() {
            let code = (w / scale).round();
            residual += (w - scale * code).powi(2);
            tile[j / PAIR * TILE * PAIR + gate % TILE * PAIR + j % PAIR] = code as i16;
            self.rows[gate * self.padded + j] = code as i16;
        }
        self.scale.push(scale as f32);
        self.sum.push(weights.iter().sum::<f64>() as f32);
        self.bias.push(bias as f32);
        self.norm.push(weights.iter().map(|w| w * w).sum::<f64>().sqrt() as f32);
        self.residual.push(residual.sqrt() as f32);
    }

    /// Rows of `width` inputs in integers.
    pub(super) fn round(&self, rows: &[f32], width: usize, rounded: &mut Rounded) {
        let count = rows.len() / width;
        rounded.codes.resize(count * self.padded, 0);
        for field in [&mut rounded.low, &mut rounded.step, &mut rounded.lost, &mut rounded.kept] {
            field.resize(count, 0.0);
        }
        for (at, row) in rows.chunks_exact(width).enumerate() {
            let row = if self.scaling.is_empty() {
                row
            } else {
                rounded.row.clear();
                rounded.row.extend(row.iter().zip(&self.scaling).map(|(x, (mean, factor))| (x - mean) * factor));
                &rounded.row
            };
            let mut norms = [0.0; 2];
            let [low, step] = round_row(row, &mut rounded.codes[at * self.padded..][..width], &mut norms);
            (rounded.low[at], rounded.step[at]) = (low, step);
            (rounded.lost[at], rounded.kept[at]) = (norms[0].sqrt(), norms[1].sqrt() * step);
        }
    }

    /// The codes of up to `LANES` rows, one a lane. Lanes without a row repeat what was there: nobody reads them.
    fn spread(&self, rounded: &mut Rounded) {
        rounded.x.resize(self.pairs * LANES * PAIR, 0);
        for field in [&mut rounded.low, &mut rounded.step, &mut rounded.lost, &mut rounded.kept, &mut rounded.moved] {
            field.resize(LANES, 0.0);
        }
        for (lane, codes) in rounded.codes.chunks_exact(self.padded).enumerate() {
            for (pair, code) in codes.chunks_exact(PAIR).enumerate().take(self.pairs) {
                let at = (pair * LANES + lane) * PAIR;
                (rounded.x[at], rounded.x[at + 1]) = (i16::from(code[0]), i16::from(code[1]));
            }
        }
    }

    /// Scores of all gates, without bias: `[gates, rounded up to tiles][LANES]`.
    fn scores(&self, rounded: &Rounded, z: &mut [f32]) {
        let width = self.pairs * TILE * PAIR;
        let mut sums = [0; TILE * LANES];
        for (tile, z) in z.chunks_exact_mut(TILE * LANES).enumerate() {
            product_tile(&self.tiles[tile * width..][..width], &rounded.x, &mut sums);
            let gates = (tile * TILE)..self.scale.len().min((tile + 1) * TILE);
            for ((gate, z), sums) in gates.zip(z.chunks_exact_mut(LANES)).zip(sums.chunks_exact(LANES)) {
                unfold(sums, &rounded.step, &rounded.low, self.scale[gate], self.sum[gate], z);
            }
        }
    }
}

impl Kernel {
    /// Mean over trees of up to `LANES` rows, and per row a bound of what rounding changed.
    pub(super) fn integer_block(
        &self,
        integer: &Integer,
        rows: &[f32],
        output: &mut [f32],
        bounds: &mut [f32],
        scratch: &mut Scratch,
        rounded: &mut Rounded,
    ) {
        integer.round(rows, self.inputs, rounded);
        integer.spread(rounded);
        integer.scores(rounded, &mut scratch.z);
        output.fill(0.0);
        bounds.fill(0.0);
        let share = 1.0 / self.trees.len() as f32;
        scratch.mixed.fill(0.0);
        for tree in &self.trees {
            rounded.moved.fill(0.0);
            let gates = tree.first_gate..tree.first_gate + tree.gates.len();
            let slack = Slack {
                norm: &integer.norm[gates.clone()],
                residual: &integer.residual[gates],
                lost: &rounded.lost,
                kept: &rounded.kept,
                steepest: integer.steepest,
                moved: &mut rounded.moved,
            };
            mix(self.gate, tree, &integer.bias, &scratch.z, &mut scratch.reach, &mut scratch.mixed, Some(slack));
            if self.softmax {
                self.add_block(share, scratch, output);
                scratch.mixed.fill(0.0);
            }
            for (bound, &moved) in bounds.iter_mut().zip(&rounded.moved) {
                *bound += share * self.distance(tree, moved);
            }
        }
        if !self.softmax {
            self.add_block(share, scratch, output);
        }
    }
}

multiversion! {
    /// Codes of one row; returns its smallest value and its step, and in `norms` the squared norms of what rounding took
    /// and of the codes.
    fn round_row(row: &[f32], codes: &mut [u8], norms: &mut [f32; 2]) -> [f32; 2] = round_row_body
}

#[inline(always)]
fn round_row_body<const FUSED: bool>(row: &[f32], codes: &mut [u8], norms: &mut [f32; 2]) -> [f32; 2] {
    const WIDE: usize = 16;
    let (mut low, mut high) = ([f32::INFINITY; WIDE], [f32::NEG_INFINITY; WIDE]);
    let (chunks, rest) = row.as_chunks::<WIDE>();
    for chunk in chunks {
        for i in 0..WIDE {
            low[i] = if chunk[i] < low[i] { chunk[i] } else { low[i] };
            high[i] = if chunk[i] > high[i] { chunk[i] } else { high[i] };
        }
    }
    for &x in rest {
        low[0] = low[0].min(x);
        high[0] = high[0].max(x);
    }
    let low = low.into_iter().fold(f32::INFINITY, f32::min);
    let high = high.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let step = (high - low) / 255.0;
    let (step, inverse) = if step > 0.0 && step.is_finite() { (step, 1.0 / step) } else { (0.0, 0.0) };
    let (mut lost, mut kept) = ([0.0f32; WIDE], [0.0f32; WIDE]);
    let mut round = |i: usize, x: f32| -> u8 {
        // 2^23 * 1.5: adding it rounds to the nearest integer, which then sits in the low mantissa bits.
        const ROUND: f32 = 12_582_912.0;
        let rounded = (x - low) * inverse + ROUND;
        let value = rounded - ROUND;
        let error = x - (low + step * value);
        lost[i] += error * error;
        kept[i] += value * value;
        rounded.to_bits() as u8
    };
    let (chunks, rest) = row.as_chunks::<WIDE>();
    let (code_chunks, code_rest) = codes.as_chunks_mut::<WIDE>();
    for (chunk, codes) in chunks.iter().zip(code_chunks) {
        for i in 0..WIDE {
            codes[i] = round(i, chunk[i]);
        }
    }
    for (i, (&x, code)) in rest.iter().zip(code_rest).enumerate() {
        *code = round(i, x);
    }
    *norms = [lost.iter().sum(), kept.iter().sum()];
    [low, step]
}

multiversion! {
    /// `z[lane] = sums[lane] step[lane] scale + low[lane] weight`.
    fn unfold(sums: &[i32], step: &[f32], low: &[f32], scale: f32, weight: f32, z: &mut [f32]) = unfold_body
}

#[inline(always)]
fn unfold_body<const FUSED: bool>(sums: &[i32], step: &[f32], low: &[f32], scale: f32, weight: f32, z: &mut [f32]) {
    for i in 0..LANES {
        z[i] = sums[i] as f32 * (step[i] * scale) + low[i] * weight;
    }
}

/// `sums[g][lane] = sum_j tile[j][g] x[j][lane]`, exactly, with the widest instructions there are.
fn product_tile(tile: &[i16], x: &[i16], sums: &mut [i32; TILE * LANES]) {
    let pairs = tile.len() / (TILE * PAIR);
    assert!(tile.len() == pairs * TILE * PAIR && x.len() == pairs * LANES * PAIR);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the features were detected; the lengths were asserted above.
        return unsafe { x86::tile_vnni(tile, x, sums, pairs) };
    }
    tile_plain(tile, x, sums);
}

multiversion! {
    /// The plain form of the tile.
    fn tile_plain(tile: &[i16], x: &[i16], sums: &mut [i32; TILE * LANES]) = tile_plain_body
}

#[inline(always)]
fn tile_plain_body<const FUSED: bool>(tile: &[i16], x: &[i16], sums: &mut [i32; TILE * LANES]) {
    sums.fill(0);
    for (w, x) in tile.chunks_exact(TILE * PAIR).zip(x.chunks_exact(LANES * PAIR)) {
        for (sums, w) in sums.chunks_exact_mut(LANES).zip(w.chunks_exact(PAIR)) {
            for (sum, x) in sums.iter_mut().zip(x.chunks_exact(PAIR)) {
                for (&w, &x) in w.iter().zip(x) {
                    *sum += i32::from(w) * i32::from(x);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{LANES, PAIR, TILE};
    use std::arch::x86_64::*;

    /// 6 gates x 64 samples in 24 accumulators; each step loads 4 vectors of samples and broadcasts 6 pairs of weights.
    ///
    /// # Safety
    /// AVX-512F and VNNI must be there; `tile` holds `pairs * TILE * PAIR` numbers, `x` `pairs * LANES * PAIR`.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn tile_vnni(tile: &[i16], x: &[i16], sums: &mut [i32; TILE * LANES], pairs: usize) {
        let mut totals = [[_mm512_setzero_si512(); 4]; TILE];
        let (mut w, mut x) = (tile.as_ptr(), x.as_ptr());
        for _ in 0..pairs {
            // SAFETY: step j reads 128 numbers of x from 128 j and 12 of tile from 12 j, inside by the contract.
            unsafe {
                let lanes = [0, 32, 64, 96].map(|at| _mm512_loadu_si512(x.add(at).cast()));
                for (gate, totals) in totals.iter_mut().enumerate() {
                    let weight = _mm512_set1_epi32(w.add(gate * PAIR).cast::<i32>().read_unaligned());
                    for (total, lane) in totals.iter_mut().zip(lanes) {
                        *total = _mm512_dpwssd_epi32(*total, lane, weight);
                    }
                }
                w = w.add(TILE * PAIR);
                x = x.add(LANES * PAIR);
            }
        }
        for (totals, sums) in totals.iter().zip(sums.chunks_exact_mut(LANES)) {
            for (total, sums) in totals.iter().zip(sums.chunks_exact_mut(16)) {
                // SAFETY: the chunk holds 16 numbers.
                unsafe { _mm512_storeu_si512(sums.as_mut_ptr().cast(), *total) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    proptest! {
        #[test]
        fn every_instruction_set_sums_exactly(seed: u64, pairs in 1usize..100) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let tile: Vec<i16> = (0..pairs * TILE * PAIR).map(|_| rng.random()).collect();
            let x: Vec<i16> = (0..pairs * LANES * PAIR).map(|_| rng.random_range(0..256)).collect();
            let (mut sums, mut plain) = ([0; TILE * LANES], [0; TILE * LANES]);
            product_tile(&tile, &x, &mut sums);
            tile_plain(&tile, &x, &mut plain);
            prop_assert_eq!(sums, plain);
            let (gate, lane) = (rng.random_range(0..TILE), rng.random_range(0..LANES));
            let by_hand: i64 = (0..pairs * PAIR)
                .map(|j| {
                    let (pair, byte) = (j / PAIR, j % PAIR);
                    let w = tile[(pair * TILE + gate) * PAIR + byte];
                    i64::from(w) * i64::from(x[(pair * LANES + lane) * PAIR + byte])
                })
                .sum();
            prop_assert_eq!(i64::from(sums[gate * LANES + lane]), by_hand);
        }

        #[test]
        fn a_row_is_rounded_to_its_own_256_levels(row in proptest::collection::vec(-100.0f32..100.0, 1..70)) {
            let mut codes = vec![0; row.len()];
            let mut norms = [0.0; 2];
            let [low, step] = round_row(&row, &mut codes, &mut norms);
            let mut lost = 0.0f64;
            for (&x, &code) in row.iter().zip(&codes) {
                let error = f64::from(x) - (f64::from(low) + f64::from(step) * f64::from(code));
                // Half a step, and single precision of numbers up to 200.
                prop_assert!(error.abs() <= 0.5 * f64::from(step) + 1e-4);
                lost += error * error;
            }
            prop_assert!((f64::from(norms[0]) - lost).abs() < 1e-3 * (1.0 + lost));
        }
    }

    /// Pixels k/255 with both ends present, and a row of one value, lose nothing but single precision's rounding.
    #[test]
    fn pixels_and_constant_rows_lose_nothing() {
        let pixels: Vec<f32> = (0..=255u8).map(|k| f32::from(k) / 255.0).collect();
        for row in [pixels, vec![0.3; 7]] {
            let mut norms = [0.0; 2];
            round_row(&row, &mut vec![0; row.len()], &mut norms);
            assert!(norms[0] < 1e-11, "{norms:?}");
        }
    }
}
