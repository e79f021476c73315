//! Objects composed over backgrounds.

use super::{Error, Result, ShiftGrid};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// A picture in `[channels, height, width]`, values as the network's data set has them before normalisation (0 to 1).
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    channels: usize,
    size: [usize; 2],
    values: Vec<f32>,
}

/// A picture with a mask: what is moved.
#[derive(Debug, Clone, PartialEq)]
pub struct Sprite {
    picture: Picture,
    /// Opacity of each pixel, 0 to 1.
    alpha: Vec<f32>,
}

/// What an object is put on.
#[derive(Debug, Clone, PartialEq)]
pub enum Background {
    /// One colour, a value a channel.
    Colour(Vec<f32>),
    /// A picture as large as the canvas.
    Picture(Picture),
}

/// How object and background mix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Blend {
    /// Opacity from a half upwards shows the object, below it the background: hard edges, as published.
    #[default]
    Mask,
    /// Object and background weighted by opacity.
    Alpha,
}

/// What moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Motion {
    /// The object, over a background at rest.
    #[default]
    Paste,
    /// The frame, over a larger photograph: content enters and leaves.
    Crop,
    /// Everything, circularly: what leaves on one side comes back on the other.
    Roll,
}

/// Makes the images of a study: composes, then normalises.
#[derive(Debug, Clone, PartialEq)]
pub struct Placer {
    /// What an object is put on; of no meaning to [`Motion::Crop`] and [`Motion::Roll`].
    pub background: Background,
    /// How they mix.
    pub blend: Blend,
    /// What moves.
    pub motion: Motion,
    /// Mean and standard deviation of each channel, subtracted and divided by; empty for neither.
    pub normalise: Vec<(f32, f32)>,
}

impl Picture {
    /// Values channel by channel, row by row.
    ///
    /// # Errors
    /// An empty size, or another number of values.
    pub fn new(channels: usize, size: [usize; 2], values: Vec<f32>) -> Result<Self> {
        let expected = channels * size[0] * size[1];
        if expected == 0 || values.len() != expected {
            let found = format!("{} values", values.len());
            return Err(Error::shape("picture", format!("{channels} × {size:?} values, at least one"), found));
        }
        Ok(Self { channels, size, values })
    }

    /// From a tensor `[channels, height, width]`, any kind.
    ///
    /// # Errors
    /// Another number of dimensions.
    pub fn from_tensor(tensor: &Tensor) -> Result<Self> {
        let size = tensor.size();
        let &[channels, height, width] = size.as_slice() else {
            return Err(Error::shape("picture", "[channels, height, width]", format!("{size:?}")));
        };
        Self::new(channels as usize, [height as usize, width as usize], floats(tensor)?)
    }

    /// Channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Height and width.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Values channel by channel, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Resized bilinearly with anti-aliasing, aspect ratio not kept.
    ///
    /// # Errors
    /// An empty size.
    pub fn resized(&self, size: [usize; 2]) -> Result<Self> {
        if size.contains(&0) {
            return Err(Error::setting("size", "sides of at least 1", format!("{size:?}")));
        }
        let tensor = Tensor::f_from_slice(&self.values)?.f_view([
            1,
            self.channels as i64,
            self.size[0] as i64,
            self.size[1] as i64,
        ])?;
        let small = tensor.f_internal_upsample_bilinear2d_aa([size[0] as i64, size[1] as i64], false, None, None)?;
        Self::from_tensor(&small.f_squeeze_dim(0)?)
    }
}

impl Sprite {
    /// A picture and its opacity, one value a pixel.
    ///
    /// # Errors
    /// Sizes that disagree; a mask below one half everywhere.
    pub fn new(picture: Picture, alpha: Vec<f32>) -> Result<Self> {
        let pixels = picture.size[0] * picture.size[1];
        if alpha.len() != pixels {
            return Err(Error::shape("mask", format!("{pixels} values"), format!("{} values", alpha.len())));
        }
        if alpha.iter().all(|&opacity| opacity < 0.5) {
            return Err(Error::EmptyMask);
        }
        Ok(Self { picture, alpha })
    }

    /// A rectangle without any transparent pixel.
    pub fn opaque(picture: Picture) -> Self {
        let alpha = vec![1.0; picture.size[0] * picture.size[1]];
        Self { picture, alpha }
    }

    /// A colour picture with transparency from a PNG or JPEG file, as three channels.
    ///
    /// # Errors
    /// A file that cannot be read or decoded, or that is transparent everywhere.
    pub fn open(path: &Path) -> Result<Self> {
        let image = core_tensor::data::decode_image(path)?.into_rgba8();
        let size = [image.height() as usize, image.width() as usize];
        let plane = |channel: usize| image.pixels().map(move |pixel| f32::from(pixel.0[channel]) / 255.0);
        let values = (0..3).flat_map(plane).collect();
        Self::new(Picture::new(3, size, values)?, plane(3).collect())
    }

    /// Resized bilinearly with anti-aliasing, colours weighted by opacity so that hidden ones do not bleed in.
    ///
    /// # Errors
    /// An empty size; nothing left of the mask.
    pub fn resized(&self, size: [usize; 2]) -> Result<Self> {
        let pixels = self.alpha.len();
        let weighted = self.picture.values.iter().enumerate().map(|(place, value)| value * self.alpha[place % pixels]);
        let weighted = Picture::new(self.picture.channels, self.picture.size, weighted.collect())?.resized(size)?;
        let alpha = Picture::new(1, self.picture.size, self.alpha.clone())?.resized(size)?.values;
        let kept = alpha.len();
        let unweigh = |(place, value): (usize, &f32)| {
            let opacity = alpha[place % kept];
            if opacity > 0.0 { value / opacity } else { 0.0 }
        };
        let values = weighted.values.iter().enumerate().map(unweigh).collect();
        Self::new(Picture::new(weighted.channels, size, values)?, alpha)
    }

    /// The picture without its mask.
    pub fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Opacity of each pixel.
    pub fn alpha(&self) -> &[f32] {
        &self.alpha
    }

    /// Values times opacity, and opacity, moved by a fraction of a pixel down and right: bilinear between neighbours, one
    /// row and column larger where there is a fraction.
    fn moved(&self, [down, right]: [f32; 2]) -> Layer {
        let [height, width] = self.picture.size;
        let size = [height + usize::from(down > 0.0), width + usize::from(right > 0.0)];
        let shift = |plane: &dyn Fn(usize, usize) -> f32| {
            let at = |row: i64, column: i64| {
                let inside = (0..height as i64).contains(&row) && (0..width as i64).contains(&column);
                if inside { plane(row as usize, column as usize) } else { 0.0 }
            };
            let mut values = Vec::with_capacity(size[0] * size[1]);
            for row in 0..size[0] as i64 {
                for column in 0..size[1] as i64 {
                    let line = |row| (1.0 - right) * at(row, column) + right * at(row, column - 1);
                    values.push((1.0 - down) * line(row) + down * line(row - 1));
                }
            }
            values
        };
        let alpha = |row: usize, column: usize| self.alpha[row * width + column];
        let mut colours = Vec::new();
        for channel in 0..self.picture.channels {
            let plane = &self.picture.values[channel * height * width..];
            colours.extend(shift(&|row, column| plane[row * width + column] * alpha(row, column)));
        }
        Layer { size, colours, alpha: shift(&alpha) }
    }
}

/// A sprite at one fraction of a pixel.
struct Layer {
    size: [usize; 2],
    colours: Vec<f32>,
    alpha: Vec<f32>,
}

impl Placer {
    /// Objects pasted with hard edges on one colour.
    pub fn on_colour(colour: Vec<f32>) -> Self {
        Self {
            background: Background::Colour(colour),
            blend: Blend::Mask,
            motion: Motion::Paste,
            normalise: Vec::new(),
        }
    }

    /// As the paper: white, normalised as torchvision's ImageNet weights expect.
    pub fn white_imagenet() -> Self {
        let normalise = vec![(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)];
        Self { normalise, ..Self::on_colour(vec![1.0; 3]) }
    }

    /// With mean and standard deviation of each channel.
    #[must_use]
    pub fn normalised(mut self, statistics: &core_tensor::data::ChannelStatistics) -> Self {
        self.normalise = statistics.mean.iter().copied().zip(statistics.std.iter().copied()).collect();
        self
    }

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

    pub(crate) fn check(&self, object: &Sprite, grid: &ShiftGrid) -> Result<()> {
        let channels = object.picture.channels;
        let expected = if self.motion == Motion::Paste { grid.object() } else { grid.canvas() };
        if object.picture.size != expected {
            let found = format!("{:?}", object.picture.size);
            return Err(Error::shape("object", format!("{expected:?} pixels, as the grid has it"), found));
        }
        let (last, unit) = (grid.offset(grid.len() - 1), grid.subdivisions());
        let (shown, canvas) = (grid.object(), grid.canvas());
        let sticks_out = (0..2).any(|axis| last[axis] + shown[axis] * unit > canvas[axis] * unit);
        if self.motion != Motion::Roll && sticks_out {
            return Err(Error::ObjectTooLarge { object: shown, canvas });
        }
        if grid.subdivisions() > 1 && (self.motion, self.blend) != (Motion::Paste, Blend::Alpha) {
            let found = format!("{:?} with {:?}", self.motion, self.blend);
            return Err(Error::setting("placement at fractions of a pixel", "Paste with Alpha", found));
        }
        let fits = |what: &str, found: usize| {
            let expected = format!("{channels} channels");
            if found == channels { Ok(()) } else { Err(Error::shape(what, expected, format!("{found}"))) }
        };
        if !self.normalise.is_empty() {
            fits("normalisation", self.normalise.len())?;
            let broken = |pair: &&(f32, f32)| !(pair.0.is_finite() && pair.1.is_finite() && pair.1 != 0.0);
            if let Some(found) = self.normalise.iter().find(broken) {
                let expected = "finite means and deviations other than 0";
                return Err(Error::setting("normalisation", expected, format!("{found:?}")));
            }
        }
        if self.motion == Motion::Paste {
            match &self.background {
                Background::Colour(colour) => fits("background colour", colour.len())?,
                Background::Picture(picture) => {
                    fits("background", picture.channels)?;
                    if picture.size != grid.canvas() {
                        let (expected, found) = (format!("{:?}", grid.canvas()), format!("{:?}", picture.size));
                        return Err(Error::shape("background", expected, found));
                    }
                }
            }
        }
        Ok(())
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

/// A tensor's values as 32-bit floats, in order.
pub(crate) fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor.f_detach()?.f_to_kind(Kind::Float)?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut values = vec![0.0; flat.numel()];
    flat.f_copy_data(&mut values, flat.numel())?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sprite(height: usize, width: usize) -> Sprite {
        let values = (1..=height * width).map(|value| value as f32).collect();
        Sprite::opaque(Picture::new(1, [height, width], values).unwrap())
    }

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

    #[test]
    fn resizing_a_constant_keeps_colour_and_opacity() {
        let picture = Picture::new(3, [5, 7], vec![0.25; 105]).unwrap();
        let small = Sprite::opaque(picture).resized([3, 2]).unwrap();
        assert_eq!(small.picture.size, [3, 2]);
        let far = |(a, b): (&f32, f32)| (a - b).abs() > 1e-6;
        assert!(!small.picture.values.iter().map(|value| (value, 0.25)).any(far));
        assert!(!small.alpha.iter().map(|value| (value, 1.0)).any(far));
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_by_name() {
        let grid = ShiftGrid::new([4, 4], [2, 2], 1).unwrap();
        let refused = |placer: &Placer, object: &Sprite| placer.images(object, &grid, 0..1).unwrap_err().to_string();
        let placer = Placer::on_colour(vec![0.0]);
        assert!(refused(&placer, &sprite(2, 3)).starts_with("object"));
        assert!(refused(&Placer::on_colour(vec![0.0; 3]), &sprite(2, 2)).starts_with("background colour"));
        let small = Background::Picture(Picture::new(1, [3, 4], vec![0.0; 12]).unwrap());
        assert!(refused(&Placer { background: small, ..placer.clone() }, &sprite(2, 2)).starts_with("background"));
        let normalise = vec![(0.0, 1.0); 2];
        assert!(refused(&Placer { normalise, ..placer.clone() }, &sprite(2, 2)).starts_with("normalisation"));
        for pair in [(0.0, 0.0), (0.0, f32::NAN), (f32::INFINITY, 1.0)] {
            let placer = Placer { normalise: vec![pair], ..placer.clone() };
            assert!(refused(&placer, &sprite(2, 2)).starts_with("normalisation"), "{pair:?}");
        }
        let rolls = ShiftGrid::rolls([2, 2], 1).unwrap();
        assert!(matches!(placer.images(&sprite(2, 2), &rolls, 0..1), Err(Error::ObjectTooLarge { .. })));
        assert!(placer.images(&sprite(2, 2), &grid, 3..10).unwrap_err().to_string().starts_with("positions"));
        assert!(matches!(Sprite::new(sprite(1, 2).picture, vec![0.0, 0.4]), Err(Error::EmptyMask)));
        assert!(Sprite::new(sprite(1, 2).picture, vec![1.0]).is_err());
        assert!(Picture::new(1, [2, 2], vec![0.0; 3]).is_err());
        assert!(Sprite::open(Path::new("no-such-file.png")).is_err());
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
