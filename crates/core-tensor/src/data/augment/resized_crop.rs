//! A random part of the image, brought to a fixed size (Szegedy et al., arXiv 1409.4842, §6; torchvision's
//! `RandomResizedCrop`).

use std::ops::Range;

use rand::Rng;

use super::pipeline::Planes;
use crate::data::resample::Resampler;

/// The random part; see [`Transform::ResizedCrop`](super::Transform::ResizedCrop).
#[derive(Debug, Clone, Copy)]
pub(super) struct ResizedCrop {
    pub(super) size: [usize; 2],
    pub(super) scale: [f64; 2],
    pub(super) ratio: [f64; 2],
}

impl ResizedCrop {
    pub(super) fn run(&self, image: &mut Planes, rng: &mut impl Rng) {
        let resampler = Resampler::new(self.window(image.size, rng), self.size);
        let [height, width] = image.size;
        let (source_plane, output_plane) = (height * width, self.size[0] * self.size[1]);
        let mut values = vec![0.0; image.values.len() / source_plane * output_plane];
        let mut between = Vec::new();
        let sources = image.values.chunks_exact(source_plane);
        for (source, output) in sources.zip(values.chunks_exact_mut(output_plane)) {
            resampler.run(source, width, &mut between, output);
            // Weights add up to 1 but for a rounding, and a white part must not come out above white.
            let (low, high) = source.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
            output.iter_mut().for_each(|value| *value = value.clamp(low, high));
        }
        *image = Planes { size: self.size, values };
    }

    /// Rows and columns of the part: an area and an aspect ratio that fit, tried ten times, or else the largest centred
    /// part whose ratio is allowed.
    fn window(&self, [height, width]: [usize; 2], rng: &mut impl Rng) -> [Range<usize>; 2] {
        let at = |rows: usize, columns: usize, top: usize, left: usize| [top..top + rows, left..left + columns];
        let (whole, log_ratio) = ((height * width) as f64, self.ratio.map(f64::ln));
        for _ in 0..10 {
            let area = whole * rng.random_range(self.scale[0]..=self.scale[1]);
            let ratio = rng.random_range(log_ratio[0]..=log_ratio[1]).exp();
            // The cast saturates, and what does not fit is drawn again.
            let columns = (area * ratio).sqrt().round() as usize;
            let rows = (area / ratio).sqrt().round() as usize;
            if (1..=height).contains(&rows) && (1..=width).contains(&columns) {
                let mut start = |spare: usize| rng.random_range(0..=spare as u64) as usize;
                return at(rows, columns, start(height - rows), start(width - columns));
            }
        }
        let shape = width as f64 / height as f64;
        let fit = |length: f64, limit: usize| (length.round() as usize).clamp(1, limit);
        let (rows, columns) = if shape < self.ratio[0] {
            (fit(width as f64 / self.ratio[0], height), width)
        } else if shape > self.ratio[1] {
            (height, fit(height as f64 * self.ratio[1], width))
        } else {
            (height, width)
        };
        at(rows, columns, (height - rows) / 2, (width - columns) / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Purpose, generator};
    use proptest::prelude::*;

    #[test]
    fn all_of_a_square_is_the_only_part_with_its_area_and_ratio() {
        let crop = ResizedCrop { size: [8, 8], scale: [1.0, 1.0], ratio: [1.0, 1.0] };
        assert_eq!(crop.window([8, 8], &mut generator(0, Purpose::Augmentation, 0)), [0..8, 0..8]);
    }

    #[test]
    fn what_never_fits_falls_back_to_the_centre() {
        // All of the area of a 4 × 16 image at ratio 1 would be 8 × 8: too high. Then the centre square is taken.
        let crop = ResizedCrop { size: [8, 8], scale: [1.0, 1.0], ratio: [1.0, 1.0] };
        let mut rng = generator(0, Purpose::Augmentation, 0);
        assert_eq!(crop.window([4, 16], &mut rng), [0..4, 6..10]);
        assert_eq!(crop.window([16, 4], &mut rng), [6..10, 0..4]);
    }

    proptest! {
        #[test]
        fn a_white_image_stays_white(
            size in [2_usize..100, 2_usize..100], to in [1_usize..40, 1_usize..40], white in 0.1_f32..1.0, seed: u64,
        ) {
            let crop = ResizedCrop { size: to, scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] };
            let mut image = Planes { size, values: vec![white; size[0] * size[1]] };
            crop.run(&mut image, &mut generator(seed, Purpose::Augmentation, 0));
            prop_assert_eq!(image.size, to);
            prop_assert!(image.values.iter().all(|value| *value == white));
        }

        #[test]
        fn a_part_lies_inside_and_has_about_the_area_and_ratio_asked_for(
            size in [20_usize..200, 20_usize..200], low in 0.08..1.0_f64, seed: u64,
        ) {
            let crop = ResizedCrop { size: [8, 8], scale: [low, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] };
            let [rows, columns] = crop.window(size, &mut generator(seed, Purpose::Augmentation, 0));
            prop_assert!(rows.end <= size[0] && columns.end <= size[1]);
            let (height, width) = (rows.len() as f64, columns.len() as f64);
            prop_assert!(height >= 1.0 && width >= 1.0);
            // Rounding moves a side by at most half a pixel.
            prop_assert!((width + 0.5) / (height - 0.5) >= 0.75 && (width - 0.5) / (height + 0.5) <= 4.0 / 3.0);
            let centred = rows.start == (size[0] - rows.len()) / 2 && columns.start == (size[1] - columns.len()) / 2;
            prop_assert!(centred || (height + 0.5) * (width + 0.5) >= low * (size[0] * size[1]) as f64);
        }
    }
}
