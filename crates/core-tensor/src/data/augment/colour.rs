//! Colour jitter and grey, as torchvision defines them for float images in `[0, 1]`.

use rand::Rng;
use rand::seq::SliceRandom;

use super::pipeline::Planes;

/// How far each property may move; see [`Transform::ColourJitter`](super::Transform::ColourJitter).
#[derive(Debug, Clone, Copy)]
pub(super) struct Jitter {
    pub(super) brightness: f64,
    pub(super) contrast: f64,
    pub(super) saturation: f64,
    pub(super) hue: f64,
}

/// One change with the amount that was drawn for it.
#[derive(Debug, Clone, Copy)]
enum Change {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    Hue(f32),
}

/// Shares of red, green and blue in a pixel's lightness, as torchvision rounds ITU-R 601's.
const LIGHTNESS: [f32; 3] = [0.2989, 0.587, 0.114];

impl Jitter {
    /// Draws the four changes and applies them in a random order.
    pub(super) fn run(self, image: &mut Planes, rng: &mut impl Rng) {
        let mut factor = |strength: f64| rng.random_range((1.0 - strength).max(0.0)..=1.0 + strength) as f32;
        let (brightness, contrast, saturation) =
            (factor(self.brightness), factor(self.contrast), factor(self.saturation));
        let hue = rng.random_range(-self.hue..=self.hue) as f32;
        let mut changes = [
            Change::Brightness(brightness),
            Change::Contrast(contrast),
            Change::Saturation(saturation),
            Change::Hue(hue),
        ];
        changes.shuffle(rng);
        changes.into_iter().for_each(|change| change.apply(image));
    }
}

impl Change {
    fn apply(self, image: &mut Planes) {
        match self {
            Self::Brightness(factor) => image.values.iter_mut().for_each(|value| *value = (*value * factor).min(1.0)),
            Self::Contrast(factor) => {
                let mean = mean_lightness(image);
                image.values.iter_mut().for_each(|value| *value = blend(*value, mean, factor));
            }
            Self::Saturation(factor) => for_each_pixel(image, |pixel| {
                let grey = lightness(pixel);
                pixel.map(|value| blend(value, grey, factor))
            }),
            Self::Hue(0.0) => {}
            Self::Hue(turn) => for_each_pixel(image, |pixel| turn_hue(pixel, turn)),
        }
    }
}

/// Replaces all three channels by the pixel's lightness. A grey image stays as it is.
pub(super) fn to_grey(image: &mut Planes) {
    for_each_pixel(image, |pixel| [lightness(pixel); 3]);
}

/// `factor · value + (1 − factor) · other`, kept in `[0, 1]`.
fn blend(value: f32, other: f32, factor: f32) -> f32 {
    (factor * value + (1.0 - factor) * other).clamp(0.0, 1.0)
}

fn lightness(pixel: [f32; 3]) -> f32 {
    pixel[0] * LIGHTNESS[0] + pixel[1] * LIGHTNESS[1] + pixel[2] * LIGHTNESS[2]
}

fn mean_lightness(image: &Planes) -> f32 {
    let plane = image.size[0] * image.size[1];
    // Sums in f64: a large image would lose digits in f32.
    let sum = |values: &[f32]| values.iter().map(|&value| f64::from(value)).sum::<f64>();
    let total: f64 = match image.values.len() / plane {
        3 => image.values.chunks_exact(plane).zip(LIGHTNESS).map(|(plane, share)| sum(plane) * f64::from(share)).sum(),
        _ => sum(&image.values),
    };
    (total / plane as f64) as f32
}

/// Changes the pixels of a colour image; a grey image has neither saturation nor hue.
fn for_each_pixel(image: &mut Planes, change: impl Fn([f32; 3]) -> [f32; 3]) {
    let plane = image.size[0] * image.size[1];
    let (red, others) = image.values.split_at_mut(plane);
    if others.len() != 2 * plane {
        return;
    }
    let (green, blue) = others.split_at_mut(plane);
    for ((red, green), blue) in red.iter_mut().zip(green).zip(blue) {
        [*red, *green, *blue] = change([*red, *green, *blue]);
    }
}

/// Turns the hue by a share of the full circle, keeping the pixel's largest and smallest value.
fn turn_hue(pixel: [f32; 3], turn: f32) -> [f32; 3] {
    let [red, green, blue] = pixel;
    let (high, low) = (red.max(green).max(blue), red.min(green).min(blue));
    let spread = high - low;
    if spread == 0.0 {
        return pixel;
    }
    // In sixths of the circle: red 0, green 2, blue 4.
    let hue = if high == red {
        (green - blue) / spread
    } else if high == green {
        2.0 + (blue - red) / spread
    } else {
        4.0 + (red - green) / spread
    };
    let hue = (hue + 6.0 * turn).rem_euclid(6.0);
    // Each channel is high within one sixth of its own hue, low from two sixths on, and linear between.
    let channel = |centre: f32| {
        let distance = (hue - centre).abs();
        let distance = distance.min(6.0 - distance);
        low + spread * (2.0 - distance).clamp(0.0, 1.0)
    };
    [channel(0.0), channel(2.0), channel(4.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pixel(rgb: [f32; 3]) -> Planes {
        Planes { size: [1, 1], values: rgb.to_vec() }
    }

    fn changed(rgb: [f32; 3], change: Change) -> [f32; 3] {
        let mut image = pixel(rgb);
        change.apply(&mut image);
        [image.values[0], image.values[1], image.values[2]]
    }

    fn close(a: [f32; 3], b: [f32; 3]) -> bool {
        // A handful of roundings of numbers up to 6.
        a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-6)
    }

    #[test]
    fn each_change_is_its_closed_form() {
        let rgb = [0.2, 0.4, 0.8];
        assert!(close(changed(rgb, Change::Brightness(1.5)), [0.3, 0.6, 1.0]));
        // Lightness 0.2989 · 0.2 + 0.587 · 0.4 + 0.114 · 0.8 = 0.38578.
        let grey = 0.38578;
        let towards_grey = [0.5 * (0.2 + grey), 0.5 * (0.4 + grey), 0.5 * (0.8 + grey)];
        assert!(close(changed(rgb, Change::Saturation(0.5)), towards_grey));
        // The mean lightness of one pixel is its own.
        assert!(close(changed(rgb, Change::Contrast(0.5)), towards_grey));
        let mut image = pixel(rgb);
        to_grey(&mut image);
        assert!(close([image.values[0], image.values[1], image.values[2]], [grey; 3]));
    }

    #[test]
    fn a_third_of_the_hue_circle_permutes_the_channels() {
        let rgb = [0.1, 0.7, 0.4];
        assert!(close(changed(rgb, Change::Hue(1.0 / 3.0)), [0.4, 0.1, 0.7]));
        assert!(close(changed(rgb, Change::Hue(-1.0 / 3.0)), [0.7, 0.4, 0.1]));
    }

    #[test]
    fn contrast_of_a_grey_image_is_about_its_mean() {
        let mut image = Planes { size: [1, 2], values: vec![0.2, 0.6] };
        Change::Contrast(0.5).apply(&mut image);
        assert!((image.values[0] - 0.3).abs() < 1e-6 && (image.values[1] - 0.5).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn hue_agrees_with_the_textbook_round_trip(
            rgb in [0.0..1.0_f32, 0.0..1.0_f32, 0.0..1.0_f32], turn in -0.5..0.5_f32,
        ) {
            // Hue, saturation and value, and back by the six cases (Smith 1978), in f64.
            let [r, g, b] = rgb.map(f64::from);
            let (value, low) = (r.max(g).max(b), r.min(g).min(b));
            prop_assume!(value - low > 1e-3);
            let spread = value - low;
            let hue = if value == r { (g - b) / spread } else if value == g { 2.0 + (b - r) / spread } else { 4.0 + (r - g) / spread };
            let hue = (hue + 6.0 * f64::from(turn)).rem_euclid(6.0);
            let saturation = spread / value;
            let rest = hue - hue.floor();
            let (p, q, t) = (value * (1.0 - saturation), value * (1.0 - saturation * rest), value * (1.0 - saturation * (1.0 - rest)));
            let expected = match hue.floor() as u8 {
                0 => [value, t, p],
                1 => [q, value, p],
                2 => [p, value, t],
                3 => [p, q, value],
                4 => [t, p, value],
                _ => [value, p, q],
            };
            let found = changed(rgb, Change::Hue(turn));
            for (found, expected) in found.iter().zip(expected) {
                // The hue's quotient loses digits in f32 when the spread is small, but is multiplied by it again.
                prop_assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
            }
        }

        #[test]
        fn jitter_without_strength_is_the_identity_and_any_jitter_stays_in_range(
            values in prop::collection::vec(0.0..=1.0_f32, 12), seed: u64,
        ) {
            use crate::seed::{Purpose, generator};
            let original = Planes { size: [2, 2], values };
            let none = Jitter { brightness: 0.0, contrast: 0.0, saturation: 0.0, hue: 0.0 };
            let mut image = original.clone();
            none.run(&mut image, &mut generator(seed, Purpose::Augmentation, 0));
            prop_assert_eq!(&image.values, &original.values);
            let much = Jitter { brightness: 2.0, contrast: 2.0, saturation: 2.0, hue: 0.5 };
            much.run(&mut image, &mut generator(seed, Purpose::Augmentation, 0));
            // The hue may overshoot by a rounding.
            prop_assert!(image.values.iter().all(|value| (0.0..=1.000_001).contains(value)));
        }
    }
}
