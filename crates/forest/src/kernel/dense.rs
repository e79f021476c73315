//! Exact evaluation of a block of samples: scores of all gates by a tiled matrix product, then the path recursion with one
//! sample per vector lane.

use super::{Kernel, KernelTree, LANES, TILE};
use crate::gate::Gate;
use crate::simd::{madd, multiversion};

/// Buffers of one thread.
pub(super) struct Scratch {
    /// Inputs, transposed: `[inputs][LANES]`.
    x: Vec<f32>,
    /// Scores `[gates, rounded up to tiles][LANES]`.
    pub(super) z: Vec<f32>,
    pub(super) reach: Vec<f32>,
    /// Outputs `[outputs][LANES]`.
    pub(super) mixed: Vec<f32>,
}

/// How far scores may be off, and what follows for a tree. A score errs by at most `norm lost + residual kept`.
pub(super) struct Slack<'a> {
    /// One for each gate of the tree.
    pub(super) norm: &'a [f32],
    pub(super) residual: &'a [f32],
    /// One for each lane.
    pub(super) lost: &'a [f32],
    pub(super) kept: &'a [f32],
    /// The gate's largest derivative.
    pub(super) steepest: f32,
    /// Per lane, adds up the mass that may have gone to the wrong child.
    pub(super) moved: &'a mut [f32],
}

impl Scratch {
    pub(super) fn new(kernel: &Kernel) -> Self {
        let nodes = kernel.trees.iter().map(|t| t.gate_of.len()).max();
        Self {
            x: vec![0.0; kernel.inputs * LANES],
            z: vec![0.0; kernel.bias.len().div_ceil(TILE) * TILE * LANES],
            reach: vec![0.0; nodes.unwrap_or(0) * LANES],
            mixed: vec![0.0; kernel.outputs * LANES],
        }
    }
}

impl Kernel {
    /// Mean over trees of up to `LANES` rows.
    pub(super) fn dense_block(&self, rows: &[f32], output: &mut [f32], scratch: &mut Scratch) {
        self.scores(rows, scratch);
        let share = 1.0 / self.trees.len() as f32;
        output.fill(0.0);
        scratch.mixed.fill(0.0);
        for tree in &self.trees {
            self.add_tree(tree, scratch);
            if self.softmax {
                self.add_block(share, scratch, output);
                scratch.mixed.fill(0.0);
            }
        }
        if !self.softmax {
            self.add_block(share, scratch, output);
        }
    }

    /// Adds `share` times what was mixed, through each tree's softmax where there is one.
    pub(super) fn add_block(&self, share: f32, scratch: &Scratch, output: &mut [f32]) {
        for (lane, out) in output.chunks_exact_mut(self.outputs).enumerate() {
            let mixed = (0..self.outputs).map(|k| scratch.mixed[k * LANES + lane]);
            if self.softmax {
                let mut one: Vec<f32> = mixed.collect();
                crate::tree::softmax(&mut one);
                out.iter_mut().zip(one).for_each(|(o, v)| *o += share * v);
            } else {
                out.iter_mut().zip(mixed).for_each(|(o, v)| *o += share * v);
            }
        }
    }

    /// Every tree's own output of up to `LANES` rows: `[rows, trees, outputs]`.
    pub(super) fn dense_block_trees(&self, rows: &[f32], output: &mut [f32], scratch: &mut Scratch) {
        self.scores(rows, scratch);
        let width = self.trees.len() * self.outputs;
        for (t, tree) in self.trees.iter().enumerate() {
            self.mix_tree(tree, scratch);
            for (lane, out) in output.chunks_exact_mut(width).enumerate() {
                let out = &mut out[t * self.outputs..(t + 1) * self.outputs];
                for (k, o) in out.iter_mut().enumerate() {
                    *o = scratch.mixed[k * LANES + lane];
                }
                if self.softmax {
                    crate::tree::softmax(out);
                }
            }
        }
    }

    fn mix_tree(&self, tree: &KernelTree, scratch: &mut Scratch) {
        scratch.mixed.fill(0.0);
        self.add_tree(tree, scratch);
    }

    fn add_tree(&self, tree: &KernelTree, scratch: &mut Scratch) {
        mix(self.gate, tree, &self.bias, &scratch.z, &mut scratch.reach, &mut scratch.mixed, None);
    }

    fn scores(&self, rows: &[f32], scratch: &mut Scratch) {
        transpose(rows, self.inputs, &mut scratch.x);
        let width = TILE * self.inputs;
        for (tile, z) in self.tiles.chunks_exact(width.max(1)).zip(scratch.z.chunks_exact_mut(TILE * LANES)) {
            product_tile(tile, &scratch.x, z);
        }
    }
}

multiversion! {
    /// Rows of `width` inputs into `[inputs][LANES]`; lanes without a row become 0.
    fn transpose(rows: &[f32], width: usize, out: &mut [f32]) = transpose_body
}

#[inline(always)]
fn transpose_body<const FUSED: bool>(rows: &[f32], width: usize, out: &mut [f32]) {
    let count = rows.len() / width;
    if count < LANES {
        out.fill(0.0);
    }
    // A strip of 16 inputs is one cache line of every row.
    for start in (0..width).step_by(16) {
        let end = (start + 16).min(width);
        for (j, out) in (start..end).zip(out[start * LANES..].chunks_exact_mut(LANES)) {
            for (lane, out) in out.iter_mut().enumerate().take(count) {
                *out = rows[lane * width + j];
            }
        }
    }
}

/// `z[g][lane] = sum_j tile[j][g] x[j][lane]` with the widest instructions there are.
fn product_tile(tile: &[f32], x: &[f32], z: &mut [f32]) {
    let inputs = tile.len() / TILE;
    assert!(tile.len() == inputs * TILE && x.len() == inputs * LANES && z.len() == TILE * LANES);
    #[cfg(target_arch = "x86_64")]
    match crate::simd::level() {
        // SAFETY: the features were detected; the lengths were asserted above.
        crate::simd::Level::Avx512 => return unsafe { x86::tile_avx512(tile, x, z, inputs) },
        // SAFETY: as above.
        crate::simd::Level::Avx2 => return unsafe { x86::tile_avx2(tile, x, z, inputs) },
        crate::simd::Level::Portable => {}
    }
    tile_portable(tile, x, z);
}

/// The plain form of the tile.
pub(super) fn tile_portable(tile: &[f32], x: &[f32], z: &mut [f32]) {
    z.fill(0.0);
    for (w, x) in tile.chunks_exact(TILE).zip(x.chunks_exact(LANES)) {
        for (z, w) in z.chunks_exact_mut(LANES).zip(w) {
            for (z, x) in z.iter_mut().zip(x) {
                *z += w * x;
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod x86 {
    use super::{LANES, TILE};
    use std::arch::x86_64::*;

    /// 6 gates x 64 samples in 24 accumulators; each step loads 4 vectors of samples and broadcasts 6 weights.
    ///
    /// # Safety
    /// AVX-512F must be there; `tile` holds `inputs * TILE` numbers, `x` `inputs * LANES`, `z` `TILE * LANES`.
    #[target_feature(enable = "avx512f")]
    pub(in super::super) unsafe fn tile_avx512(tile: &[f32], x: &[f32], z: &mut [f32], inputs: usize) {
        let mut sums = [[_mm512_setzero_ps(); 4]; TILE];
        let (mut w, mut x) = (tile.as_ptr(), x.as_ptr());
        for _ in 0..inputs {
            // SAFETY: step j reads x[j * 64 .. j * 64 + 64] and tile[j * 6 .. j * 6 + 6], inside by the contract.
            unsafe {
                let lanes = [
                    _mm512_loadu_ps(x),
                    _mm512_loadu_ps(x.add(16)),
                    _mm512_loadu_ps(x.add(32)),
                    _mm512_loadu_ps(x.add(48)),
                ];
                for (gate, sums) in sums.iter_mut().enumerate() {
                    let weight = _mm512_set1_ps(*w.add(gate));
                    for (sum, lane) in sums.iter_mut().zip(lanes) {
                        *sum = _mm512_fmadd_ps(weight, lane, *sum);
                    }
                }
                w = w.add(TILE);
                x = x.add(LANES);
            }
        }
        for (sums, z) in sums.iter().zip(z.chunks_exact_mut(LANES)) {
            for (sum, z) in sums.iter().zip(z.chunks_exact_mut(16)) {
                // SAFETY: the chunk holds 16 numbers.
                unsafe { _mm512_storeu_ps(z.as_mut_ptr(), *sum) };
            }
        }
    }

    /// The same in four passes of 6 gates x 16 samples: 12 accumulators of 8 lanes.
    ///
    /// # Safety
    /// As for [`tile_avx512`], with AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(in super::super) unsafe fn tile_avx2(tile: &[f32], x: &[f32], z: &mut [f32], inputs: usize) {
        for part in 0..LANES / 16 {
            let mut sums = [[_mm256_setzero_ps(); 2]; TILE];
            for j in 0..inputs {
                // SAFETY: j < inputs and part * 16 + 15 < LANES, inside by the contract.
                unsafe {
                    let at = x.as_ptr().add(j * LANES + part * 16);
                    let lanes = [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))];
                    let w = tile.as_ptr().add(j * TILE);
                    for (gate, sums) in sums.iter_mut().enumerate() {
                        let weight = _mm256_set1_ps(*w.add(gate));
                        for (sum, lane) in sums.iter_mut().zip(lanes) {
                            *sum = _mm256_fmadd_ps(weight, lane, *sum);
                        }
                    }
                }
            }
            for (sums, z) in sums.iter().zip(z.chunks_exact_mut(LANES)) {
                let z = &mut z[part * 16..part * 16 + 16];
                for (sum, z) in sums.iter().zip(z.chunks_exact_mut(8)) {
                    // SAFETY: the chunk holds 8 numbers.
                    unsafe { _mm256_storeu_ps(z.as_mut_ptr(), *sum) };
                }
            }
        }
    }
}

multiversion! {
    /// Path recursion of one tree over a block; adds the tree's mixture to `mixed`.
    pub(super) fn mix(
        gate: Gate,
        tree: &KernelTree,
        bias: &[f32],
        z: &[f32],
        reach: &mut [f32],
        mixed: &mut [f32],
        slack: Option<Slack<'_>>,
    ) = mix_body
}

#[inline(always)]
fn mix_body<const FUSED: bool>(
    gate: Gate,
    tree: &KernelTree,
    bias: &[f32],
    z: &[f32],
    reach: &mut [f32],
    mixed: &mut [f32],
    mut slack: Option<Slack<'_>>,
) {
    reach[..LANES].fill(1.0);
    for (index, node) in tree.gates.iter().enumerate() {
        let leafness = tree.leafness[index];
        let (above, below) = reach.split_at_mut(node.left as usize * LANES);
        let here = &mut above[node.node as usize * LANES..][..LANES];
        let (left, right) = below[..2 * LANES].split_at_mut(LANES);
        let row = tree.first_gate + index;
        let z = &z[row * LANES..][..LANES];
        let bias = bias[row];
        for i in 0..LANES {
            let p = Kernel::probability(gate, z[i] + bias);
            let through = here[i] * (1.0 - leafness);
            left[i] = through * p;
            right[i] = through - left[i];
            here[i] *= leafness;
        }
        if let Some(slack) = &mut slack {
            let (norm, residual) = (slack.norm[index], slack.residual[index]);
            let (lost, kept, moved) = (&slack.lost[..LANES], &slack.kept[..LANES], &mut slack.moved[..LANES]);
            for i in 0..LANES {
                let wrong = slack.steepest * (norm * lost[i] + residual * kept[i]);
                moved[i] += (left[i] + right[i]) * if wrong < 1.0 { wrong } else { 1.0 };
            }
        }
    }
    let outputs = mixed.len() / LANES;
    for (node, values) in tree.values.chunks_exact(outputs).enumerate() {
        let gate = tree.gate_of[node];
        if gate != super::LEAF && tree.leafness[gate as usize] == 0.0 {
            continue;
        }
        let stop = &reach[node * LANES..][..LANES];
        if let Some(&Some(first)) = tree.rows_of.get(node) {
            for (k, mixed) in mixed.chunks_exact_mut(LANES).enumerate() {
                let (z, bias) = (&z[(first + k) * LANES..][..LANES], bias[first + k]);
                for i in 0..LANES {
                    mixed[i] = madd::<FUSED>(z[i] + bias, stop[i], mixed[i]);
                }
            }
            continue;
        }
        for (mixed, &value) in mixed.chunks_exact_mut(LANES).zip(values) {
            for i in 0..LANES {
                mixed[i] = madd::<FUSED>(value, stop[i], mixed[i]);
            }
        }
    }
}
