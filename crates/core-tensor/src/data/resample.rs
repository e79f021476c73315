//! Resizing with a triangle filter that widens when it shrinks: bilinear with anti-aliasing, as Pillow, torchvision and
//! libtorch's `_upsample_bilinear2d_aa` do it.

use std::ops::Range;

/// Resizes the part of a plane that `window` names to a fixed size.
#[derive(Debug, Clone)]
pub(super) struct Resampler {
    window: [Range<usize>; 2],
    rows: Vec<Taps>,
    columns: Vec<Taps>,
}

/// The weighted source positions that make one output position.
#[derive(Debug, Clone)]
struct Taps {
    start: usize,
    weights: Vec<f32>,
}

impl Resampler {
    /// From rows `window[0]` and columns `window[1]` of a plane to `[height, width]`. Nothing may be empty.
    pub(super) fn new(window: [Range<usize>; 2], size: [usize; 2]) -> Self {
        Self::part(window, size, [0..size[0], 0..size[1]])
    }

    /// As [`new`](Self::new), but only the rows `kept[0]` and columns `kept[1]` of the result are made.
    pub(super) fn part(window: [Range<usize>; 2], size: [usize; 2], kept: [Range<usize>; 2]) -> Self {
        let [rows, columns] = kept;
        let (rows, columns) = (taps(window[0].len(), size[0], rows), taps(window[1].len(), size[1], columns));
        Self { window, rows, columns }
    }

    /// Resizes one plane of a source that is `source_width` wide; `between` is scratch space.
    pub(super) fn run<T: Copy + Into<f32>>(
        &self,
        source: &[T],
        source_width: usize,
        between: &mut Vec<f32>,
        output: &mut [f32],
    ) {
        let [rows, columns] = self.window.clone();
        let width = self.columns.len();
        between.clear();
        for row in source.chunks_exact(source_width).skip(rows.start).take(rows.len()) {
            let row = &row[columns.clone()];
            between.extend(self.columns.iter().map(|taps| {
                let pixels = &row[taps.start..taps.start + taps.weights.len()];
                pixels.iter().zip(&taps.weights).map(|(&pixel, weight)| pixel.into() * weight).sum::<f32>()
            }));
        }
        for (line, taps) in output.chunks_exact_mut(width).zip(&self.rows) {
            line.fill(0.0);
            let sources = between.chunks_exact(width).skip(taps.start);
            for (source, &weight) in sources.zip(&taps.weights) {
                line.iter_mut().zip(source).for_each(|(sum, value)| *sum += value * weight);
            }
        }
    }
}

/// Output position i looks at the source around (i + ½) · scale, as far as max(scale, 1) to each side.
fn taps(source: usize, output: usize, kept: Range<usize>) -> Vec<Taps> {
    let scale = source as f64 / output as f64;
    let reach = scale.max(1.0);
    let one = |position: usize| {
        let centre = (position as f64 + 0.5) * scale;
        // Truncation towards zero, of numbers that are kept at or above it.
        let start = (centre - reach + 0.5).max(0.0) as usize;
        let end = ((centre + reach + 0.5) as usize).min(source);
        let triangle = |at: usize| (1.0 - ((at as f64 + 0.5 - centre) / reach).abs()).max(0.0);
        let total: f64 = (start..end).map(triangle).sum();
        Taps { start, weights: (start..end).map(|at| (triangle(at) / total) as f32).collect() }
    };
    kept.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::Tensor;

    fn resize(source: &[f32], width: usize, window: [Range<usize>; 2], size: [usize; 2]) -> Vec<f32> {
        let mut output = vec![f32::NAN; size[0] * size[1]];
        Resampler::new(window, size).run(source, width, &mut Vec::new(), &mut output);
        output
    }

    #[test]
    fn halving_a_step_is_worked_out_by_hand() {
        // Scale 2, reach 2. Output 0: centre 1, sources 0, 1, 2 at distances ½, ½, 3/2 → weights ¾, ¾, ¼ over 7/4.
        // Of 0, 0, 4, 4 that is 4 · (1/7); output 1 mirrors it: 4 · (6/7).
        let found = resize(&[0.0, 0.0, 4.0, 4.0], 4, [0..1, 0..4], [1, 2]);
        // Three roundings to f32 of numbers up to 4.
        assert!((found[0] - 4.0 / 7.0).abs() < 1e-6 && (found[1] - 24.0 / 7.0).abs() < 1e-6, "{found:?}");
    }

    proptest! {
        #[test]
        fn agrees_with_libtorch(
            window in [1_usize..20, 1_usize..20], margin in [0_usize..3, 0_usize..3],
            // For results of one column libtorch 2.11 repeats the first row, so there are two at least.
            size in [1_usize..20, 2_usize..20],
        ) {
            let [height, width] = [window[0] + 2 * margin[0], window[1] + 2 * margin[1]];
            let source: Vec<f32> = (0..height * width).map(|i| (i * 7919 % 101) as f32 / 100.0).collect();
            let ranges = [margin[0]..margin[0] + window[0], margin[1]..margin[1] + window[1]];
            let cut = Tensor::from_slice(&source).view([1, 1, height as i64, width as i64])
                .narrow(2, margin[0] as i64, window[0] as i64)
                .narrow(3, margin[1] as i64, window[1] as i64)
                .contiguous();
            let expected = cut.internal_upsample_bilinear2d_aa([size[0] as i64, size[1] as i64], false, None, None);
            let found = Tensor::from_slice(&resize(&source, width, ranges, size)).view_as(&expected);
            // Values up to 1, sums of at most 40 · 40 terms whose weights add up to 1.
            prop_assert!((found - expected).abs().max().double_value(&[]) < 1e-5);
        }

        #[test]
        fn a_part_is_cut_out_of_the_whole(from in [1_usize..20, 1_usize..20], to in [1_usize..20, 1_usize..20]) {
            let source: Vec<f32> = (0..from[0] * from[1]).map(|i| (i * 7919 % 101) as f32).collect();
            let whole = resize(&source, from[1], [0..from[0], 0..from[1]], to);
            let kept = [to[0] / 3..to[0], to[1] / 2..to[1]];
            let mut part = vec![f32::NAN; kept[0].len() * kept[1].len()];
            let resampler = Resampler::part([0..from[0], 0..from[1]], to, kept.clone());
            resampler.run(&source, from[1], &mut Vec::new(), &mut part);
            let expected: Vec<f32> =
                whole.chunks(to[1]).skip(kept[0].start).flat_map(|row| &row[kept[1].clone()]).copied().collect();
            prop_assert_eq!(part, expected);
        }

        #[test]
        fn the_same_size_is_the_identity(size in [1_usize..12, 1_usize..12]) {
            let source: Vec<f32> = (0..size[0] * size[1]).map(|i| (i * 7919 % 101) as f32).collect();
            prop_assert_eq!(resize(&source, size[1], [0..size[0], 0..size[1]], size), source);
        }

        #[test]
        fn a_constant_stays_constant(from in [1_usize..30, 1_usize..30], to in [1_usize..30, 1_usize..30]) {
            let found = resize(&vec![1.0; from[0] * from[1]], from[1], [0..from[0], 0..from[1]], to);
            // Weights are rounded to f32 after they were made to add up to 1.
            prop_assert!(found.iter().all(|value| (value - 1.0).abs() < 1e-5));
        }
    }
}
