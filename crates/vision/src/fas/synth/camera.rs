//! From radiance to an 8-bit picture: exposure, optics, noise, mosaic, white balance, tone, sharpening, JPEG.

use super::domain::CameraModel;
use super::jpeg;
use super::periodic::{Harmonic, pattern_at};
use super::plane::{Raster, Rgb, gaussian};
use super::random::Stream;
use super::render::{Scene, luminance};
use std::sync::LazyLock;

/// What the picture was taken of.
pub(crate) struct Exposure<'a> {
    pub(crate) model: &'a CameraModel,
    /// Colour that white balance takes for white.
    pub(crate) illuminant: Rgb,
    /// The face in scene pixels, for metering.
    pub(crate) face: &'a [bool],
    /// Pixel grid or halftone that the camera still sees.
    pub(crate) harmonics: &'a [Harmonic],
    /// Rolling bands of a display: amplitude and period in pixels.
    pub(crate) bands: Option<[f32; 2]>,
}

/// A picture in sRGB with values in [0, 1], twice as large as the scene, and the gain that metering chose.
pub(crate) struct Shot {
    pub(crate) picture: Raster<Rgb>,
    pub(crate) gain: f32,
}

pub(crate) fn shoot(scene: &Scene, exposure: &Exposure, draw: &mut Stream) -> Shot {
    let model = exposure.model;
    let (mut sum, mut count) = (0.0, 0.0_f32);
    for (&radiance, _) in scene.radiance.data.iter().zip(exposure.face).filter(|(_, inside)| **inside) {
        sum += luminance(radiance);
        count += 1.0;
    }
    let metered = if count > 0.0 { sum / count } else { 0.18 };
    let gain = model.key * draw.n(0.25).exp() / metered.max(1e-4);

    let mut image = scene.radiance.doubled();
    interfere(&mut image, scene, exposure);
    image.data.iter_mut().for_each(|pixel| *pixel = pixel.map(|c| c * gain));
    let mut spare = Raster { width: 0, height: 0, data: Vec::new() };
    image.blur(model.blur, &mut spare);
    let motion = draw.uniform(0.0, model.motion);
    let upright = draw.chance(0.5);
    if motion > 0.3 {
        image.convolve(&smear(motion), upright, &mut spare);
        std::mem::swap(&mut image, &mut spare);
    }
    let mut image = demosaiced(&mosaic(&image, model, draw));
    develop(&mut image, exposure, draw);
    if model.denoise > 0.0 {
        image.blur(model.denoise, &mut spare);
    }
    sharpen(&mut image, model.sharpen, &mut spare);
    let mut picture = jpeg::round_trip(&image, model.quality + draw.n(4.0));
    picture.data.iter_mut().for_each(|pixel| *pixel = pixel.map(|c| ((c * 255.0 + 0.5) as u8) as f32 / 255.0));
    Shot { picture, gain }
}

/// Moiré and rolling bands, on the object only.
fn interfere(image: &mut Raster<Rgb>, scene: &Scene, exposure: &Exposure) {
    if exposure.harmonics.is_empty() && exposure.bands.is_none() {
        return;
    }
    let coordinates = scene.coordinates.doubled();
    let width = image.width;
    for (at, pixel) in image.data.iter_mut().enumerate() {
        let half = (at / width / 2) * scene.object.width + (at % width) / 2;
        if scene.object.data[half] == 0.0 {
            continue;
        }
        let emitted = scene.emitted.data[half] > 0.0;
        if !exposure.harmonics.is_empty() {
            let [x, y] = coordinates.data[at];
            let pattern = pattern_at(exposure.harmonics, x, y);
            for c in 0..3 {
                let depth = if emitted {
                    scene.emitted.data[half]
                } else {
                    let share = pixel[c].clamp(0.0, 1.0);
                    share * (1.0 - share)
                };
                pixel[c] = (pixel[c] + 0.5 * pattern[c] * depth).max(0.0);
            }
        }
        if let Some([amplitude, period]) = exposure.bands {
            let wave = 1.0 + amplitude * (std::f32::consts::TAU * (at / width) as f32 / period).cos();
            *pixel = pixel.map(|c| c * wave);
        }
    }
}

/// A box of fractional width.
fn smear(width: f32) -> Vec<f32> {
    let radius = (0.5 * width).ceil() as i32;
    let weights: Vec<f32> = (-radius..=radius)
        .map(|k| {
            let (low, high) = ((k as f32 - 0.5).max(-0.5 * width - 0.25), (k as f32 + 0.5).min(0.5 * width + 0.25));
            (high - low).max(0.0)
        })
        .collect();
    let sum: f32 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// Clipping, noise and the RGGB mosaic.
fn mosaic(image: &Raster<Rgb>, model: &CameraModel, draw: &mut Stream) -> Raster<f32> {
    let width = image.width;
    let mut out = Raster::filled(width, image.height, 0.0);
    for (at, (value, pixel)) in out.data.iter_mut().zip(&image.data).enumerate() {
        let channel = ((at / width) % 2) + (at % width) % 2;
        let signal = pixel[channel].clamp(0.0, 1.0);
        *value = signal + (model.shot * signal + model.read * model.read).sqrt() * draw.sensor_noise();
    }
    out
}

/// Bilinear interpolation of an RGGB mosaic.
fn demosaiced(raw: &Raster<f32>) -> Raster<Rgb> {
    let (width, height) = (raw.width, raw.height);
    let mut out = Raster::filled(width, height, [0.0; 3]);
    // Reflects at borders, which keeps the parity and so the colour.
    let around = |x: usize, size: usize| {
        [if x == 0 { 1 } else { x - 1 }, x, if x + 1 == size { size.saturating_sub(2) } else { x + 1 }]
    };
    for j in 0..height {
        let rows = around(j, height).map(|row| &raw.data[row * width..(row + 1) * width]);
        for (i, value) in out.data[j * width..(j + 1) * width].iter_mut().enumerate() {
            let columns = around(i, width);
            let at = |row: usize, column: usize| rows[row][columns[column]];
            let here = at(1, 1);
            let sides = 0.5 * (at(1, 0) + at(1, 2));
            let ends = 0.5 * (at(0, 1) + at(2, 1));
            let cross = 0.5 * (sides + ends);
            let corners = 0.25 * (at(0, 0) + at(0, 2) + at(2, 0) + at(2, 2));
            *value = match (j % 2, i % 2) {
                (0, 0) => [here, cross, corners],
                (0, _) => [sides, here, ends],
                (_, 0) => [ends, here, sides],
                _ => [corners, cross, here],
            };
        }
    }
    out
}

/// White balance, saturation, the sRGB curve and contrast.
fn develop(image: &mut Raster<Rgb>, exposure: &Exposure, draw: &mut Stream) {
    let model = exposure.model;
    let balance: Rgb = std::array::from_fn(|c| {
        let jitter = if c == 1 { 1.0 } else { draw.n(model.white_jitter).exp() };
        model.white_balance[c] * jitter / exposure.illuminant[c].max(0.05).powf(0.85)
    });
    for pixel in &mut image.data {
        let balanced: Rgb = std::array::from_fn(|c| pixel[c] * balance[c]);
        let grey = luminance(balanced);
        *pixel = balanced.map(|c| {
            let s = to_srgb_fast(grey + model.saturation * (c - grey));
            (s + model.contrast * (s - 0.5) * (1.0 - (2.0 * s - 1.0).abs())).clamp(0.0, 1.0)
        });
    }
}

/// Unsharp masking with a Gaussian of 1.2 pixels.
fn sharpen(image: &mut Raster<Rgb>, gain: f32, spare: &mut Raster<Rgb>) {
    if gain <= 0.0 {
        return;
    }
    let kernel = gaussian(1.2);
    image.convolve(&kernel, true, spare);
    let smooth = spare.convolved(&kernel, false);
    for (pixel, smooth) in image.data.iter_mut().zip(&smooth.data) {
        *pixel = std::array::from_fn(|c| (pixel[c] + gain * (pixel[c] - smooth[c])).clamp(0.0, 1.0));
    }
}

/// The sRGB curve of a linear value.
pub(crate) fn to_srgb(linear: f32) -> f32 {
    if linear <= 0.003_130_8 { 12.92 * linear.max(0.0) } else { 1.055 * linear.powf(1.0 / 2.4) - 0.055 }
}

/// The linear value of an sRGB one.
pub(crate) fn to_linear(srgb: f32) -> f32 {
    if srgb <= 0.040_45 { srgb / 12.92 } else { ((srgb + 0.055) / 1.055).powf(2.4) }
}

/// The sRGB curve at 4097 equally spaced values of √linear.
static CURVE: LazyLock<Vec<f32>> = LazyLock::new(|| (0..=4096).map(|i| to_srgb((i as f32 / 4096.0).powi(2))).collect());

/// The sRGB curve by table, within 1e-5; values are clipped to [0, 1].
fn to_srgb_fast(linear: f32) -> f32 {
    let position = linear.clamp(0.0, 1.0).sqrt() * 4096.0;
    let index = (position as usize).min(4095);
    let (from, to) = (CURVE[index], CURVE[index + 1]);
    from + (position - index as f32) * (to - from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_srgb_curve_is_the_standards() {
        assert!((to_linear(0.5) - 0.214_041).abs() < 1e-6);
        assert!((to_srgb(0.18) - 0.461_356).abs() < 1e-6);
        for i in 0..=1000 {
            let linear = i as f32 / 1000.0;
            assert!((to_srgb_fast(linear) - to_srgb(linear)).abs() < 1e-5);
            assert!((to_linear(to_srgb(linear)) - linear).abs() < 1e-5);
        }
    }

    #[test]
    fn a_grey_scene_comes_grey_out_of_the_mosaic() {
        let raw = Raster::filled(9, 8, 0.3);
        assert!(demosaiced(&raw).data.iter().flatten().all(|value| (value - 0.3).abs() < 1e-6));
    }

    #[test]
    fn the_mosaic_keeps_a_colours_mean() {
        let image = Raster::filled(16, 16, [0.2, 0.4, 0.6]);
        let silent = CameraModel { shot: 0.0, read: 0.0, ..CameraModel::enrolment() };
        let found = demosaiced(&mosaic(&image, &silent, &mut Stream::new(0, "noise", 0, 0)));
        for pixel in &found.data {
            assert!(pixel.iter().zip([0.2, 0.4, 0.6]).all(|(found, expected)| (found - expected).abs() < 1e-6));
        }
    }

    #[test]
    fn a_motion_kernel_sums_to_one() {
        for width in [0.4, 1.0, 2.7] {
            assert!((smear(width).iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
    }
}
