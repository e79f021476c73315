//! The images that a placer makes: an object over a background at the positions of a grid, whole or a pixel at a time.

use super::sprite::Layer;
use super::{Background, Blend, Motion, Picture, Placer, Sprite};
use crate::invariance::{Error, Result, ShiftGrid};
use tch::Tensor;

impl Placer {
    /// The images of the grid indices `range`: `[range.len(), channels, height, width]`, normalised.
    ///
    /// # Errors
    /// Object, grid, background or normalisation that do not fit one another; a range outside the grid; sub-pixel steps with
    /// anything but [`Motion::Paste`] and [`Blend::Alpha`].
    pub fn images(&self, object: &Sprite, grid: &ShiftGrid, range: std::ops::Range<usize>) -> Result<Tensor> {
        self.check(object, grid)?;
        if range.is_empty() || range.end > grid.len() {
            let expected = format!("at least one position below {}", grid.len());
            return Err(Error::setting("positions", expected, format!("{range:?}")));
        }
        let channels = object.picture.channels;
        let size = self.output_size(grid);
        let canvas = self.canvas(channels, size);
        let mut values = Vec::with_capacity(range.len() * canvas.len());
        let mut layers = std::collections::HashMap::new();
        for index in range.clone() {
            let start = values.len();
            let offset = grid.offset(index);
            let (whole, rest) =
                (offset.map(|steps| steps / grid.subdivisions()), offset.map(|steps| steps % grid.subdivisions()));
            match self.motion {
                Motion::Paste => {
                    values.extend_from_slice(&canvas);
                    let fraction = rest.map(|steps| steps as f32 / grid.subdivisions() as f32);
                    let layer = layers.entry(rest).or_insert_with(|| object.moved(fraction));
                    self.paste(layer, channels, size, whole, &mut values[start..]);
                }
                Motion::Crop | Motion::Roll => self.window(&object.picture, size, whole, &mut values),
            }
        }
        if !self.normalise.is_empty() {
            let plane = size[0] * size[1];
            for (place, plane) in values.chunks_exact_mut(plane).enumerate() {
                let (mean, deviation) = self.normalise[place % channels];
                plane.iter_mut().for_each(|value| *value = (*value - mean) / deviation);
            }
        }
        let shape = [range.len() as i64, channels as i64, size[0] as i64, size[1] as i64];
        Ok(Tensor::f_from_slice(&values)?.f_view(shape)?)
    }

    /// Height and width of the images of a grid.
    pub(crate) fn output_size(&self, grid: &ShiftGrid) -> [usize; 2] {
        if self.motion == Motion::Crop { grid.object() } else { grid.canvas() }
    }

    /// The background alone, not normalised.
    fn canvas(&self, channels: usize, size: [usize; 2]) -> Vec<f32> {
        match &self.background {
            Background::Picture(picture) => picture.values.clone(),
            Background::Colour(colour) => {
                let plane = size[0] * size[1];
                (0..channels)
                    .flat_map(|channel| std::iter::repeat_n(colour.get(channel).copied().unwrap_or(0.0), plane))
                    .collect()
            }
        }
    }

    fn paste(&self, layer: &Layer, channels: usize, size: [usize; 2], at: [usize; 2], image: &mut [f32]) {
        let plane = layer.size[0] * layer.size[1];
        for channel in 0..channels {
            for row in 0..layer.size[0] {
                // In range: the last position of a grid has no fraction, and the others leave room for one more pixel.
                let line = &mut image[(channel * size[0] + at[0] + row) * size[1] + at[1]..][..layer.size[1]];
                for (column, pixel) in line.iter_mut().enumerate() {
                    let place = row * layer.size[1] + column;
                    let (opacity, colour) = (layer.alpha[place], layer.colours[channel * plane + place]);
                    match self.blend {
                        Blend::Mask if opacity >= 0.5 => *pixel = colour / opacity,
                        Blend::Mask => {}
                        Blend::Alpha => *pixel = (1.0 - opacity) * *pixel + colour,
                    }
                }
            }
        }
    }

    /// One normalised value of the image with the object at a grid `position` (row and column), at whole pixels; without
    /// `visible`, or without a position, as if the object were not there.
    pub(crate) fn pixel(
        &self,
        object: &Sprite,
        grid: &ShiftGrid,
        channel: usize,
        position: Option<[usize; 2]>,
        [row, column]: [usize; 2],
        visible: bool,
    ) -> f32 {
        let [height, width] = object.picture.size;
        let shown = |row: usize, column: usize| object.picture.values[(channel * height + row) * width + column];
        let at = position.map(|[row, column]| grid.offset(row * grid.columns() + column));
        let value = match (self.motion, at) {
            (Motion::Crop, Some(at)) => shown(row + at[0], column + at[1]),
            (Motion::Roll, Some(at)) => {
                shown((row + height - at[0] % height) % height, (column + width - at[1] % width) % width)
            }
            (_, at) => {
                let ground = match &self.background {
                    Background::Colour(colour) => colour.get(channel).copied().unwrap_or(0.0),
                    Background::Picture(picture) => {
                        picture.values[(channel * picture.size[0] + row) * picture.size[1] + column]
                    }
                };
                match at.filter(|_| visible) {
                    None => ground,
                    Some(at) => {
                        let (row, column) = (row - at[0], column - at[1]);
                        let opacity = object.alpha[row * width + column];
                        match self.blend {
                            // As in pasting: the product with the opacity, divided by it.
                            Blend::Mask if opacity >= 0.5 => shown(row, column) * opacity / opacity,
                            Blend::Mask => ground,
                            Blend::Alpha => (1.0 - opacity) * ground + shown(row, column) * opacity,
                        }
                    }
                }
            }
        };
        self.normalise.get(channel).map_or(value, |(mean, deviation)| (value - mean) / deviation)
    }

    /// A crop whose corner is at `at`, or the whole picture rolled down and right by `at`.
    fn window(&self, picture: &Picture, size: [usize; 2], at: [usize; 2], values: &mut Vec<f32>) {
        let [height, width] = picture.size;
        let from = |position: usize, at: usize, side: usize| match self.motion {
            Motion::Roll => (position + side - at % side) % side,
            _ => position + at,
        };
        for plane in picture.values.chunks_exact(height * width) {
            for row in 0..size[0] {
                let line = &plane[from(row, at[0], height) * width..][..width];
                values.extend((0..size[1]).map(|column| line[from(column, at[1], width)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{floats, tests::sprite};
    use super::*;
    use proptest::prelude::*;
    use tch::Kind;

    fn image(placer: &Placer, object: &Sprite, grid: &ShiftGrid, index: usize) -> Vec<f32> {
        floats(&placer.images(object, grid, index..index + 1).unwrap()).unwrap()
    }

    #[test]
    fn a_masked_object_covers_what_it_shows_and_nothing_else() {
        let mut object = sprite(2, 2);
        object.alpha = vec![1.0, 0.4, 0.0, 1.0];
        let grid = ShiftGrid::new([3, 3], [2, 2], 1).unwrap();
        let placer = Placer::on_colour(vec![9.0]);
        assert_eq!(image(&placer, &object, &grid, 3), [9., 9., 9., 9., 1., 9., 9., 9., 4.]);
        let soft = Placer { blend: Blend::Alpha, ..placer };
        // .6 · 9 + .4 · 2 = 6.2.
        let found = image(&soft, &object, &grid, 0);
        assert!((found[1] - 6.2).abs() < 1e-6 && found[3] == 9.0, "{found:?}");
    }

    #[test]
    fn half_a_pixel_is_the_mean_of_neighbours() {
        let object = sprite(1, 2);
        let grid = ShiftGrid::subpixel([1, 4], [1, 2], 1, 2).unwrap();
        let placer = Placer { blend: Blend::Alpha, ..Placer::on_colour(vec![0.0]) };
        assert_eq!(grid.len(), 5);
        assert_eq!(image(&placer, &object, &grid, 0), [1.0, 2.0, 0.0, 0.0]);
        assert_eq!(image(&placer, &object, &grid, 1), [0.5, 1.5, 1.0, 0.0]);
        assert_eq!(image(&placer, &object, &grid, 4), [0.0, 0.0, 1.0, 2.0]);
        let hard = Placer::on_colour(vec![0.0]);
        assert!(hard.images(&object, &grid, 0..1).unwrap_err().to_string().contains("fractions of a pixel"));
    }

    #[test]
    fn crops_and_rolls_are_those_of_libtorch() {
        let photograph = sprite(4, 5);
        let whole = Tensor::from_slice(&photograph.picture.values).view([1, 1, 4, 5]);
        let grid = ShiftGrid::crops([4, 5], [2, 3], 1).unwrap();
        let placer = Placer { motion: Motion::Crop, ..Placer::on_colour(vec![]) };
        let crops = placer.images(&photograph, &grid, 0..grid.len()).unwrap();
        assert_eq!(crops.size(), [9, 1, 2, 3]);
        assert_eq!(crops.narrow(0, 5, 1), whole.narrow(2, 1, 2).narrow(3, 2, 3));
        let grid = ShiftGrid::rolls([4, 5], 1).unwrap();
        let placer = Placer { motion: Motion::Roll, ..placer };
        let rolls = placer.images(&photograph, &grid, 0..20).unwrap();
        for index in 0..20 {
            let expected = whole.roll([index / 5, index % 5], [2, 3]);
            assert_eq!(rolls.narrow(0, index, 1), expected, "{index}");
        }
    }

    #[test]
    fn normalisation_comes_last() {
        let grid = ShiftGrid::new([1, 2], [1, 1], 1).unwrap();
        let placer = Placer { normalise: vec![(1.0, 2.0)], ..Placer::on_colour(vec![5.0]) };
        assert_eq!(image(&placer, &sprite(1, 1), &grid, 0), [0.0, 2.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_position_shows_the_whole_object(height in 1_usize..5, width in 1_usize..5, more in 0_usize..4) {
            let object = sprite(height, width);
            let grid = ShiftGrid::new([height + more, width + 3], [height, width], 1).unwrap();
            let images = Placer::on_colour(vec![0.0]).images(&object, &grid, 0..grid.len()).unwrap();
            let sum = (height * width * (height * width + 1) / 2) as f64;
            for index in 0..grid.len() {
                prop_assert_eq!(images.get(index as i64).sum(Kind::Double).double_value(&[]), sum);
            }
        }
    }
}
