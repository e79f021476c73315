//! Rounding to a uniform grid in one pass over memory, and the passes beside it.
//!
//! Each function is a plain loop that the compiler vectorises, compiled three times: for every processor, and for those
//! with AVX2 and AVX-512. All give the same bits, and so does any number of threads: noise is drawn by position.
//! `composed.rs` has the same as tensor operations, which the tests compare with.

use super::noise::Stream;
use super::threads::share;
use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

/// The levels `min + k·step`, `k` from 0 to `steps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    pub(super) min: f32,
    pub(super) step: f32,
    pub(super) steps: f32,
}

impl Grid {
    /// The one level `value`: what a constant tensor rounds to.
    pub(super) fn constant(value: f32) -> Self {
        Self { min: value, step: 1.0, steps: 0.0 }
    }
}

/// How a value between two levels goes to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// To the nearer one, ties to the even level.
    Nearest,
    /// Up with the probability of its distance from the lower one.
    Stochastic(Stream),
}

/// What a scan finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Extent {
    pub(super) low: f32,
    pub(super) high: f32,
    /// Whether there are values, all finite, and the distance from the least to the greatest is too.
    pub(super) finite: bool,
}

impl Extent {
    /// Not finite where the width is not: of no values, and of finite ones too far apart.
    pub(super) fn with_finite_width(self) -> Self {
        Self { finite: self.finite && (self.high - self.low).is_finite(), ..self }
    }
}

/// Elements that a thread takes at a time.
const CHUNK: usize = 1 << 15;

/// Whether to share work of `len` elements among threads: as libtorch is told to.
fn parallel(len: usize) -> bool {
    len >= 4 * CHUNK && tch::get_num_threads() > 1
}

/// Defines a function whose body is compiled for AVX2 and AVX-512 too.
macro_rules! vectorised {
    ($(#[$doc:meta])* $name:ident = $body:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?) => {
        $(#[$doc])*
        fn $name($($argument: $kind),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn wide($($argument: $kind),*) $(-> $result)? {
                    $body($($argument),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                fn wider($($argument: $kind),*) $(-> $result)? {
                    $body($($argument),*)
                }
                if has_avx512() {
                    // SAFETY: the processor has what the function needs.
                    return unsafe { wider($($argument),*) };
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has what the function needs.
                    return unsafe { wide($($argument),*) };
                }
            }
            $body($($argument),*)
        }
    };
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl")
}

vectorised!(nearest = nearest_body(source: &[f32], target: &mut [MaybeUninit<f32>], grid: Grid));
vectorised!(stochastic = stochastic_body(source: &[f32], target: &mut [MaybeUninit<f32>], grid: Grid, stream: Stream, first: u32));
vectorised!(extent = extent_body(values: &[f32]) -> Extent);
vectorised!(product = product_body(values: &[f32], gradient: &[f32], grid: Grid) -> f64);

// `clamp` keeps a NaN, which `max` would turn into the lowest level.
#[inline(always)]
fn nearest_body(source: &[f32], target: &mut [MaybeUninit<f32>], grid: Grid) {
    let Grid { min, step, steps } = grid;
    for (target, &value) in target.iter_mut().zip(source) {
        let level = ((value - min) / step).clamp(0.0, steps).round_ties_even();
        target.write(level * step + min);
    }
}

#[inline(always)]
fn stochastic_body(source: &[f32], target: &mut [MaybeUninit<f32>], grid: Grid, stream: Stream, first: u32) {
    let Grid { min, step, steps } = grid;
    for (index, (target, &value)) in target.iter_mut().zip(source).enumerate() {
        let position = ((value - min) / step).clamp(0.0, steps);
        let below = position.floor();
        let up = position - below > stream.uniform(first.wrapping_add(index as u32));
        target.write((below + f32::from(u8::from(up))) * step + min);
    }
}

#[inline(always)]
fn extent_body(values: &[f32]) -> Extent {
    const LANES: usize = 32;
    let (mut low, mut high, mut magnitude) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES], [0_u32; LANES]);
    let mut chunks = values.chunks_exact(LANES);
    let mut take = |lane: usize, value: f32| {
        low[lane] = if value < low[lane] { value } else { low[lane] };
        high[lane] = if value > high[lane] { value } else { high[lane] };
        magnitude[lane] = magnitude[lane].max(value.to_bits() & 0x7fff_ffff);
    };
    for chunk in &mut chunks {
        for (lane, &value) in chunk.iter().enumerate() {
            take(lane, value);
        }
    }
    for (lane, &value) in chunks.remainder().iter().enumerate() {
        take(lane, value);
    }
    Extent {
        low: low.into_iter().fold(f32::INFINITY, f32::min),
        high: high.into_iter().fold(f32::NEG_INFINITY, f32::max),
        finite: magnitude.into_iter().all(|bits| bits < f32::INFINITY.to_bits()),
    }
}

#[inline(always)]
fn product_body(values: &[f32], gradient: &[f32], grid: Grid) -> f64 {
    const LANES: usize = 16;
    let Grid { min, step, steps } = grid;
    let rounded = |value: f32| ((value - min) / step).clamp(0.0, steps).round_ties_even() * step + min;
    let mut total = 0.0;
    // A partial sum in single precision covers few enough terms to keep its digits.
    for (values, gradient) in values.chunks(64 * LANES).zip(gradient.chunks(64 * LANES)) {
        let mut sums = [0.0_f32; LANES];
        for (values, gradient) in values.chunks(LANES).zip(gradient.chunks(LANES)) {
            for ((sum, &value), &gradient) in sums.iter_mut().zip(values).zip(gradient) {
                *sum += rounded(value) * gradient;
            }
        }
        total += f64::from(sums.into_iter().sum::<f32>());
    }
    total
}

/// The least and greatest value.
pub(super) fn scan(values: &[f32]) -> Extent {
    if !parallel(values.len()) {
        return extent(values).with_finite_width();
    }
    let nothing = Extent { low: f32::INFINITY, high: f32::NEG_INFINITY, finite: true };
    let found = Mutex::new(nothing);
    share(values.chunks(CHUNK), |part| {
        let part = extent(part);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        *found = Extent {
            low: found.low.min(part.low),
            high: found.high.max(part.high),
            finite: found.finite && part.finite,
        };
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner).with_finite_width()
}

/// Rounds all of `source` to one grid. Every element of `target` is written.
pub(super) fn round(source: &[f32], target: &mut [MaybeUninit<f32>], grid: Grid, mode: Mode) {
    if parallel(source.len()) {
        let chunks = target.chunks_mut(CHUNK).zip(source.chunks(CHUNK)).enumerate();
        share(chunks, |(index, (target, source))| round_part(source, target, grid, mode, index * CHUNK));
    } else {
        round_part(source, target, grid, mode, 0);
    }
}

/// Rounds row by row, each to its own grid. Every element of `target` is written.
pub(super) fn round_rows(source: &[f32], target: &mut [MaybeUninit<f32>], grids: &[Grid], mode: Mode) {
    let length = source.len() / grids.len().max(1);
    if length == 0 {
        return;
    }
    let row = |index: usize, target: &mut [MaybeUninit<f32>]| {
        let first = index * length;
        round_part(&source[first..first + length], target, grids[index], mode, first);
    };
    if parallel(source.len()) {
        share(target.chunks_mut(length).enumerate(), |(index, target)| row(index, target));
    } else {
        target.chunks_mut(length).enumerate().for_each(|(index, target)| row(index, target));
    }
}

fn round_part(source: &[f32], target: &mut [MaybeUninit<f32>], grid: Grid, mode: Mode, first: usize) {
    match mode {
        Mode::Nearest => nearest(source, target, grid),
        // Positions wrap round after 2^32 elements, far beyond a tensor that is trained with.
        Mode::Stochastic(stream) => stochastic(source, target, grid, stream, first as u32),
    }
}

/// Per row and grid, the scalar product of the gradient with the rounded values: `[rows][grids]`, row-major.
pub(super) fn products(values: &[f32], gradient: &[f32], rows: usize, grids: &[Grid]) -> Vec<f32> {
    let length = values.len() / rows.max(1);
    let mut sums = vec![0.0; rows * grids.len()];
    if length == 0 || grids.is_empty() {
        return sums;
    }
    let row = |(sums, (values, gradient)): (&mut [f32], (&[f32], &[f32]))| {
        sums.iter_mut().zip(grids).for_each(|(sum, grid)| *sum = product(values, gradient, *grid) as f32);
    };
    let per_row = sums.chunks_mut(grids.len()).zip(values.chunks(length).zip(gradient.chunks(length)));
    if parallel(values.len()) {
        share(per_row, row);
    } else {
        per_row.for_each(row);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from −1 to 1, and a length that neither chunks nor vectors divide.
    fn noise(length: usize, key: u64) -> Vec<f32> {
        (0..length as u32).map(|position| 2.0 * Stream::new(key, 0, 0).uniform(position) - 1.0).collect()
    }

    fn written(length: usize, write: impl Fn(&mut [MaybeUninit<f32>])) -> Vec<u32> {
        let mut room = vec![MaybeUninit::new(f32::NAN); length];
        write(&mut room);
        // SAFETY: initialised above, whatever `write` left out.
        room.into_iter().map(|value| unsafe { value.assume_init() }.to_bits()).collect()
    }

    #[test]
    fn threads_that_share_a_tensor_give_the_bits_of_one_call() {
        // Of this thread and of those that begin to compute meanwhile.
        let threads = tch::get_num_threads();
        tch::set_num_threads(3);
        let (values, gradient) = (noise(200_003, 1), noise(200_003, 2));
        assert!(parallel(values.len()));
        let grid = Grid { min: -0.9, step: 0.06, steps: 31.0 };
        let modes = [Mode::Nearest, Mode::Stochastic(Stream::new(7, 3, 11))];
        for mode in modes {
            let shared = written(values.len(), |room| round(&values, room, grid, mode));
            assert_eq!(shared, written(values.len(), |room| round_part(&values, room, grid, mode, 0)), "{mode:?}");
        }
        assert_eq!(scan(&values), extent(&values));
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = values.clone();
            values[200_002] = bad;
            assert!(!scan(&values).finite);
        }
        // Seven rows of 28,571.
        let (length, grids) = (28_571, [31.0, 3.0, 7.0, 255.0, 1.0, 15.0, 63.0].map(|steps| Grid { steps, ..grid }));
        let (values, gradient) = (&values[..7 * length], &gradient[..7 * length]);
        assert!(parallel(values.len()));
        for mode in modes {
            let shared = written(values.len(), |room| round_rows(values, room, &grids, mode));
            let mut rows = Vec::new();
            for (row, grid) in grids.iter().enumerate() {
                let first = row * length;
                let part = &values[first..first + length];
                rows.extend(written(length, |room| round_part(part, room, *grid, mode, first)));
            }
            assert_eq!(shared, rows, "{mode:?}");
        }
        let shared = products(values, gradient, 7, &grids);
        let rows = values.chunks(length).zip(gradient.chunks(length));
        let expected = rows.flat_map(|(values, gradient)| grids.map(|grid| product(values, gradient, grid) as f32));
        assert_eq!(shared, expected.collect::<Vec<_>>());
        tch::set_num_threads(threads);
    }
}
