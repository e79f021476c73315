//! Gaussian blur: two passes of a short kernel, mirrored at the border.

use super::pipeline::Planes;

/// Weights of an odd number of taps, adding up to 1.
fn kernel(taps: usize, sigma: f64) -> Vec<f32> {
    let half = (taps / 2) as f64;
    let weight = |tap: usize| (-0.5 * ((tap as f64 - half) / sigma).powi(2)).exp();
    let total: f64 = (0..taps).map(weight).sum();
    (0..taps).map(|tap| (weight(tap) / total) as f32).collect()
}

/// Blurs every plane. `taps` is odd and `taps / 2` is below both sides, so that the mirror image reaches far enough.
pub(super) fn blur(image: &mut Planes, taps: usize, sigma: f64) {
    let kernel = kernel(taps, sigma);
    let [height, width] = image.size;
    let half = taps / 2;
    let mut padded = vec![0.0; width + 2 * half];
    let mut across = vec![0.0; height * width];
    for plane in image.values.chunks_exact_mut(height * width) {
        for (row, to) in plane.chunks_exact(width).zip(across.chunks_exact_mut(width)) {
            padded[half..half + width].copy_from_slice(row);
            for step in 1..=half {
                padded[half - step] = row[step];
                padded[half + width - 1 + step] = row[width - 1 - step];
            }
            weighted_sum(to, kernel.iter().enumerate().map(|(tap, &weight)| (&padded[tap..tap + width], weight)));
        }
        for (row, to) in plane.chunks_exact_mut(width).enumerate() {
            let source = |tap: usize| {
                let at = mirrored(row + tap, half, height);
                &across[at * width..(at + 1) * width]
            };
            weighted_sum(to, kernel.iter().enumerate().map(|(tap, &weight)| (source(tap), weight)));
        }
    }
}

/// Position `at − half`, reflected into `0..length` without repeating the border.
fn mirrored(at: usize, half: usize, length: usize) -> usize {
    if at < half {
        half - at
    } else if at - half < length {
        at - half
    } else {
        2 * (length - 1) - (at - half)
    }
}

fn weighted_sum<'a>(to: &mut [f32], terms: impl Iterator<Item = (&'a [f32], f32)>) {
    to.fill(0.0);
    for (values, weight) in terms {
        to.iter_mut().zip(values).for_each(|(sum, value)| *sum += value * weight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tch::{Kind, Tensor};

    proptest! {
        #[test]
        fn agrees_with_a_convolution_of_the_mirrored_image(
            size in [3_usize..12, 3_usize..12], half in 0_usize..3, sigma in 0.1..3.0_f64,
        ) {
            let taps = 2 * half + 1;
            let values: Vec<f32> = (0..2 * size[0] * size[1]).map(|i| (i * 7919 % 101) as f32 / 100.0).collect();
            let shape = [2, 1, size[0] as i64, size[1] as i64];
            let pad = half as i64;
            let padded = Tensor::from_slice(&values).view(shape).reflection_pad2d([pad; 4]);
            let offsets = Tensor::arange_start(-pad, pad + 1, (Kind::Double, tch::Device::Cpu));
            let weights = ((&offsets / sigma).square() * -0.5).exp();
            let weights = &weights / weights.sum(Kind::Double);
            let both = weights.outer(&weights).to_kind(Kind::Float).view([1, 1, taps as i64, taps as i64]);
            let expected = padded.conv2d(&both, None::<Tensor>, [1, 1], [0, 0], [1, 1], 1);

            let mut image = Planes { size, values };
            blur(&mut image, taps, sigma);
            let found = Tensor::from_slice(&image.values).view(shape);
            // Values up to 1, weights that add up to 1, at most 25 terms.
            prop_assert!((found - expected).abs().max().double_value(&[]) < 1e-5);
        }

        #[test]
        fn a_constant_image_stays(size in [6_usize..12, 6_usize..12], half in 0_usize..6, sigma in 0.1..5.0_f64) {
            let mut image = Planes { size, values: vec![0.7; size[0] * size[1]] };
            blur(&mut image, 2 * half + 1, sigma);
            // 11 weights, each rounded to f32, twice.
            prop_assert!(image.values.iter().all(|value| (value - 0.7).abs() < 2e-6));
        }
    }
}
