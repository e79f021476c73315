//! The loss of a JPEG round trip: blocks, quantisation, halved chroma. No bitstream is made.

use super::plane::{Raster, Rgb, between};
use std::sync::LazyLock;

/// ITU-T T.81, annex K: luminance and chrominance, in rows.
const LUMINANCE: [u8; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
];
const CHROMINANCE: [u8; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99,
];

/// The orthonormal 8-point DCT: row `k` holds `c_k cos((2n + 1) k π / 16)`.
static COSINES: LazyLock<[[f32; 8]; 8]> = LazyLock::new(|| {
    std::array::from_fn(|k| {
        let norm = if k == 0 { (0.125_f64).sqrt() } else { 0.5 };
        std::array::from_fn(|n| (norm * ((2 * n + 1) as f64 * k as f64 * std::f64::consts::PI / 16.0).cos()) as f32)
    })
});

/// Encodes and decodes sRGB values in [0, 1] at a quality from 1 to 100, with 4:2:0 chroma.
pub(crate) fn round_trip(image: &Raster<Rgb>, quality: f32) -> Raster<Rgb> {
    let quality = quality.round().clamp(1.0, 100.0);
    let scale = if quality < 50.0 { 5000.0 / quality } else { 200.0 - 2.0 * quality };
    let steps = |table: &[u8; 64]| -> [f32; 64] {
        std::array::from_fn(|i| ((f32::from(table[i]) * scale + 50.0) / 100.0).floor().clamp(1.0, 255.0))
    };
    let (width, height) = (image.width, image.height);
    let mut luma = Raster::filled(width, height, 0.0);
    let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
    let mut blue = Raster::filled(half_width, half_height, 0.0);
    let mut red = Raster::filled(half_width, half_height, 0.0);
    let mut count = vec![0.0_f32; half_width * half_height];
    for j in 0..height {
        for i in 0..width {
            let [r, g, b] = image.data[j * width + i].map(|value| value * 255.0);
            luma.data[j * width + i] = 0.299 * r + 0.587 * g + 0.114 * b - 128.0;
            let at = (j / 2) * half_width + i / 2;
            blue.data[at] += -0.168_736 * r - 0.331_264 * g + 0.5 * b;
            red.data[at] += 0.5 * r - 0.418_688 * g - 0.081_312 * b;
            count[at] += 1.0;
        }
    }
    for plane in [&mut blue, &mut red] {
        plane.data.iter_mut().zip(&count).for_each(|(value, count)| *value /= count);
    }
    quantise(&mut luma, &steps(&LUMINANCE));
    quantise(&mut blue, &steps(&CHROMINANCE));
    quantise(&mut red, &steps(&CHROMINANCE));
    let mut out = Raster::filled(width, height, [0.0; 3]);
    let columns: Vec<_> = (0..width).map(|i| between(i as f32 * 0.5 - 0.25, half_width)).collect();
    for j in 0..height {
        let row = between(j as f32 * 0.5 - 0.25, half_height);
        for (i, &column) in columns.iter().enumerate() {
            let y = luma.data[j * width + i] + 128.0;
            let (cb, cr) = (blue.mixed(column, row), red.mixed(column, row));
            let rgb = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
            out.data[j * width + i] = rgb.map(|value| (value / 255.0).clamp(0.0, 1.0));
        }
    }
    out
}

/// Transforms, rounds to multiples of `steps` and transforms back, block by block; borders repeated.
fn quantise(plane: &mut Raster<f32>, steps: &[f32; 64]) {
    let cosines = &*COSINES;
    let transposed: Block = std::array::from_fn(|j| std::array::from_fn(|i| cosines[i][j]));
    for top in (0..plane.height).step_by(8) {
        for left in (0..plane.width).step_by(8) {
            let mut block = [[0.0_f32; 8]; 8];
            for (j, row) in block.iter_mut().enumerate() {
                let y = (top + j).min(plane.height - 1) * plane.width;
                for (i, value) in row.iter_mut().enumerate() {
                    *value = plane.data[y + (left + i).min(plane.width - 1)];
                }
            }
            let mut spectrum = product(&product(cosines, &block), &transposed);
            for (value, step) in spectrum.iter_mut().flatten().zip(steps) {
                // Adding and taking away 1.5 · 2²³ rounds to the nearest integer.
                *value = ((*value / step + ROUNDING) - ROUNDING) * step;
            }
            let block = product(&product(&transposed, &spectrum), cosines);
            for (j, row) in block.iter().enumerate().take(plane.height - top) {
                for (i, &value) in row.iter().enumerate().take(plane.width - left) {
                    plane.data[(top + j) * plane.width + left + i] = value;
                }
            }
        }
    }
}

type Block = [[f32; 8]; 8];

const ROUNDING: f32 = 12_582_912.0;

/// The matrix product.
fn product(a: &Block, b: &Block) -> Block {
    let mut out = [[0.0_f32; 8]; 8];
    for (out, row) in out.iter_mut().zip(a) {
        for (&weight, other) in row.iter().zip(b) {
            out.iter_mut().zip(other).for_each(|(out, &other)| *out += weight * other);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_grey_block_stays_that_grey() {
        for (grey, quality) in [(0.5, 90.0), (0.2, 75.0), (0.81, 50.0)] {
            let image = Raster::filled(16, 16, [grey; 3]);
            // A mean is off by half a DC step over 8: 16 · scale / 100 / 16, at most one level from quality 50 on.
            let found = round_trip(&image, quality);
            assert!(found.data.iter().flatten().all(|value| (value - grey).abs() <= 1.01 / 255.0));
        }
    }

    #[test]
    fn the_transform_is_orthonormal() {
        let transposed: Block = std::array::from_fn(|j| std::array::from_fn(|i| COSINES[i][j]));
        let unit = product(&COSINES, &transposed);
        for (j, row) in unit.iter().enumerate() {
            for (i, value) in row.iter().enumerate() {
                assert!((value - f32::from(u8::from(i == j))).abs() < 1e-6);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn quality_100_keeps_grey_pictures_within_two_levels(values in prop::collection::vec(0.0_f32..1.0, 100)) {
            let image = Raster { width: 10, height: 10, data: values.iter().map(|&v| [v; 3]).collect::<Vec<Rgb>>() };
            let found = round_trip(&image, 100.0);
            // Steps of 1 on an orthonormal transform: a pixel's error is a mean of 64 half steps, rarely 1.
            for (a, b) in image.data.iter().zip(&found.data) {
                prop_assert!((a[1] - b[1]).abs() <= 2.0 / 255.0);
            }
        }
    }
}
