//! Random numbers by purpose: a new consumer shifts nobody else's.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::sync::LazyLock;

/// A stream of random numbers named by (master seed, purpose, two counters).
#[derive(Debug)]
pub(crate) struct Stream(ChaCha8Rng);

impl Stream {
    pub(crate) fn new(master: u64, purpose: &str, a: u64, b: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(hash(master, purpose, a, b)))
    }

    /// Uniform in `[low, high)`.
    pub(crate) fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.0.random::<f32>()
    }

    /// Standard normal by Box–Muller, clipped at ±2.5.
    pub(crate) fn normal(&mut self) -> f32 {
        self.pair()[0].clamp(-2.5, 2.5)
    }

    /// `scale` times a clipped standard normal: the `n(s)` of the model's tables.
    pub(crate) fn n(&mut self, scale: f32) -> f32 {
        scale * self.normal()
    }

    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.0.random::<f32>() < probability
    }

    pub(crate) fn index(&mut self, count: usize) -> usize {
        ((self.0.random::<f32>() * count as f32) as usize).min(count.saturating_sub(1))
    }

    /// A standard normal by table: the middle of one of 4096 equally likely slices, within ±3.7.
    pub(crate) fn sensor_noise(&mut self) -> f32 {
        NORMALS[(self.0.next_u32() >> 20) as usize]
    }

    /// Two independent standard normals, unclipped.
    pub(crate) fn pair(&mut self) -> [f32; 2] {
        let radius = (-2.0 * (1.0 - self.0.random::<f32>()).ln()).sqrt();
        let (sin, cos) = (std::f32::consts::TAU * self.0.random::<f32>()).sin_cos();
        [radius * cos, radius * sin]
    }
}

/// Middles of 4096 equally likely slices of the standard normal distribution.
static NORMALS: LazyLock<Vec<f32>> = LazyLock::new(|| {
    // Simpson's rule on the density from −6 up, read off where the sum passes the middle of each slice.
    let density = |x: f64| (-0.5 * x * x).exp() / std::f64::consts::TAU.sqrt();
    let step = 1e-4;
    let (mut x, mut below) = (-6.0, 0.0);
    (0..4096)
        .map(|slice| {
            let middle = (f64::from(slice) + 0.5) / 4096.0;
            while below < middle {
                below += step / 6.0 * (density(x) + 4.0 * density(x + 0.5 * step) + density(x + step));
                x += step;
            }
            x as f32
        })
        .collect()
});

/// FNV-1a over the purpose, SplitMix64 over the numbers.
pub(crate) fn hash(master: u64, purpose: &str, a: u64, b: u64) -> u64 {
    let name = purpose
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    [name, a, b].into_iter().fold(master, |state, word| mix(state ^ mix(word)))
}

fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bilinear value noise on `width × height` texels with cells of 1 / `cells` of the width, values within ±1.
pub(crate) fn value_noise(stream: &mut Stream, width: usize, height: usize, cells: usize) -> Vec<f32> {
    let columns = cells + 2;
    let rows = cells * height / width + 3;
    let lattice: Vec<f32> = (0..columns * rows).map(|_| stream.uniform(-1.0, 1.0)).collect();
    let scale = cells as f32 / width as f32;
    let places: Vec<(usize, f32)> = (0..width).map(|i| i as f32 * scale).map(|x| (x as usize, x.fract())).collect();
    let mut out = Vec::with_capacity(width * height);
    for j in 0..height {
        let y = j as f32 * scale;
        let (row, fy) = (y as usize, y.fract());
        let (upper, lower) = (&lattice[row * columns..], &lattice[(row + 1) * columns..]);
        for &(column, fx) in &places {
            let top = upper[column] + fx * (upper[column + 1] - upper[column]);
            let bottom = lower[column] + fx * (lower[column + 1] - lower[column]);
            out.push(top + fy * (bottom - top));
        }
    }
    out
}

/// A smooth step from 0 at `from` to 1 at `to`, which may be smaller.
pub(crate) fn smooth_step(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_and_counters_give_streams_of_their_own() {
        let first = |purpose: &str, a, b| Stream::new(7, purpose, a, b).uniform(0.0, 1.0);
        assert_eq!(first("light", 1, 2), first("light", 1, 2));
        let others = [first("pose", 1, 2), first("light", 2, 1), first("light", 1, 3)];
        assert!(others.iter().all(|&other| other != first("light", 1, 2)));
    }

    #[test]
    fn normals_are_clipped_and_centred() {
        let mut stream = Stream::new(1, "test", 0, 0);
        let draws: Vec<f32> = (0..20_000).map(|_| stream.normal()).collect();
        let mean = draws.iter().sum::<f32>() / 20_000.0;
        assert!(draws.iter().all(|draw| draw.abs() <= 2.5));
        // Four standard errors, 4 / √20000.
        assert!(mean.abs() < 0.029, "{mean}");
    }

    #[test]
    fn sensor_noise_is_normal() {
        // Φ(−1) = 0.158655, Φ(1.959964) = 0.975; slices are 1/4096 wide and steps 1e-4.
        let quantile = |p: f64| f64::from(NORMALS[(p * 4096.0) as usize]);
        assert!((quantile(0.158_655) + 1.0).abs() < 2e-3 && (quantile(0.975) - 1.959_964).abs() < 5e-3);
        let variance = NORMALS.iter().map(|x| f64::from(x * x)).sum::<f64>() / 4096.0;
        assert!((variance - 1.0).abs() < 2e-3, "{variance}");
    }

    #[test]
    fn a_smooth_step_also_runs_downwards() {
        assert_eq!(
            [smooth_step(0.0, 2.0, 1.0), smooth_step(0.0, 2.0, 3.0), smooth_step(2.0, 0.0, 2.5)],
            [0.5, 1.0, 0.0]
        );
    }
}
