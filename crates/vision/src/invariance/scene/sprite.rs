//! A sprite: a picture with a mask, resized, and moved by fractions of a pixel.

use super::Picture;
use crate::invariance::{Error, Result};
use std::path::Path;

/// A picture with a mask: what is moved.
#[derive(Debug, Clone, PartialEq)]
pub struct Sprite {
    pub(super) picture: Picture,
    /// Opacity of each pixel, 0 to 1.
    pub(super) alpha: Vec<f32>,
}

impl Sprite {
    /// A picture and its opacity, one value a pixel.
    ///
    /// # Errors
    /// Sizes that disagree; an opacity outside 0 to 1; a mask below one half everywhere.
    pub fn new(picture: Picture, alpha: Vec<f32>) -> Result<Self> {
        let pixels = picture.size[0] * picture.size[1];
        if alpha.len() != pixels {
            return Err(Error::shape("mask", format!("{pixels} values"), format!("{} values", alpha.len())));
        }
        if let Some(found) = alpha.iter().find(|opacity| !(0.0..=1.0).contains(*opacity)) {
            return Err(Error::setting("opacity", "0 to 1", found));
        }
        Self::visible(picture, alpha)
    }

    /// Resized opacities may lie a rounding outside 0 to 1.
    fn visible(picture: Picture, alpha: Vec<f32>) -> Result<Self> {
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
        Self::visible(Picture::new(weighted.channels, size, values)?, alpha)
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
    pub(super) fn moved(&self, [down, right]: [f32; 2]) -> Layer {
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
pub(super) struct Layer {
    pub(super) size: [usize; 2],
    pub(super) colours: Vec<f32>,
    pub(super) alpha: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::super::tests::sprite;
    use super::*;

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
    fn masks_that_do_not_fit_or_show_nothing_are_refused() {
        assert!(matches!(Sprite::new(sprite(1, 2).picture, vec![0.0, 0.4]), Err(Error::EmptyMask)));
        assert!(Sprite::new(sprite(1, 2).picture, vec![1.0]).is_err());
        for opacity in [f32::NAN, -0.1, 1.1] {
            let refused = Sprite::new(sprite(1, 2).picture, vec![1.0, opacity]);
            assert!(matches!(refused, Err(Error::Setting { setting: "opacity", .. })), "{refused:?}");
        }
        assert!(Sprite::open(Path::new("no-such-file.png")).is_err());
    }
}
