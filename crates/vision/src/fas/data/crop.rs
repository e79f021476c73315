//! Cutting the face out of a frame.

use super::PixelBox;
use crate::fas::error::{Error, Result};
use image::{Rgb, RgbImage};

/// How a picture becomes a network's input: the square around the face, resampled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    /// Side of the square, as a multiple of the longer side of the face box.
    pub scale: f64,
    /// Pixels across of the input, 1 to 4096.
    pub size: u32,
}

impl Crop {
    /// The square around a face, whose middle is the box's, as `size` × `size` pixels; the picture's border is repeated
    /// outside it. Without a box, the largest square in the middle of the picture.
    ///
    /// # Errors
    /// [`Error::BadParam`] for a scale or size out of range, [`Error::BadShape`] for an empty picture or a box that is not
    /// finite, [`Error::BoxOutside`] for a box that does not overlap the picture.
    pub fn cut(self, picture: &RgbImage, face: Option<PixelBox>) -> Result<RgbImage> {
        Ok(self.resample(picture, self.square(picture.dimensions(), face)?))
    }

    /// Left edge, upper edge and side of the square in a frame of some width and height.
    ///
    /// # Errors
    /// As [`cut`](Self::cut).
    pub(crate) fn square(self, frame: (u32, u32), face: Option<PixelBox>) -> Result<[f64; 3]> {
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return Err(Error::BadParam { name: "scale", expected: "finite and above 0", value: self.scale });
        }
        if !(1..=4096).contains(&self.size) {
            return Err(Error::BadParam { name: "size", expected: "1 to 4096", value: f64::from(self.size) });
        }
        let (width, height) = (f64::from(frame.0), f64::from(frame.1));
        if frame.0 == 0 || frame.1 == 0 {
            let (expected, found) = ("at least one pixel".into(), format!("{frame:?}"));
            return Err(Error::BadShape { what: "picture", expected, found });
        }
        let Some(face) = face else {
            let side = width.min(height);
            return Ok([0.5 * (width - side), 0.5 * (height - side), side]);
        };
        if !face.is_finite() {
            let (expected, found) = ("finite numbers".into(), format!("{face:?}"));
            return Err(Error::BadShape { what: "face box", expected, found });
        }
        let inside = face.clipped(frame);
        if !(inside.width > 0.0 && inside.height > 0.0) {
            let (file, found) = ("the picture given".into(), format!("{face:?}"));
            return Err(Error::BoxOutside { file, found, frame });
        }
        let side = self.scale * face.width.max(face.height);
        Ok([face.x + 0.5 * (face.width - side), face.y + 0.5 * (face.height - side), side])
    }

    /// Means over the area of each pixel of the input, by up to 16 × 16 of the picture's pixels.
    pub(crate) fn resample(self, picture: &RgbImage, [left, top, side]: [f64; 3]) -> RgbImage {
        let (width, height) = (i64::from(picture.width()), i64::from(picture.height()));
        let step = side / f64::from(self.size);
        let samples = (step.ceil() as u32).clamp(1, 16);
        let at = |start: f64, cell: u32, part: u32, pixels: i64| {
            let place = start + (f64::from(cell) + (f64::from(part) + 0.5) / f64::from(samples)) * step;
            (place.floor() as i64).clamp(0, pixels - 1) as u32
        };
        let count = samples * samples;
        RgbImage::from_fn(self.size, self.size, |i, j| {
            let mut sum = [0_u32; 3];
            for b in 0..samples {
                for a in 0..samples {
                    let pixel = picture.get_pixel(at(left, i, a, width), at(top, j, b, height)).0;
                    (0..3).for_each(|c| sum[c] += u32::from(pixel[c]));
                }
            }
            Rgb(sum.map(|value| ((value + count / 2) / count) as u8))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Red tells the column, green the row.
    fn picture() -> RgbImage {
        RgbImage::from_fn(60, 40, |x, y| Rgb([4 * x as u8, 5 * y as u8, 90]))
    }

    #[test]
    fn the_square_around_the_box_is_averaged_and_the_border_repeated() {
        let face = PixelBox { x: 20.0, y: 12.0, width: 8.0, height: 4.0 };
        let cut = |scale, face| Crop { scale, size: 4 }.cut(&picture(), face).unwrap();
        // Middle (24, 14), side 8: columns 20 to 28 and rows 10 to 18, two by two.
        let plain = cut(1.0, Some(face));
        assert_eq!(plain.get_pixel(0, 0).0, [82, 53, 90]);
        assert_eq!(plain.get_pixel(3, 3).0, [106, 83, 90]);
        // Side 16: columns 16 to 32 and rows 6 to 22, four by four.
        assert_eq!(cut(2.0, Some(face)).get_pixel(0, 0).0, [70, 38, 90]);
        // Columns −4 to 4, of which the negative ones repeat the first.
        let corner = PixelBox { x: -4.0, y: 0.0, width: 8.0, height: 8.0 };
        assert_eq!(cut(1.0, Some(corner)).get_pixel(0, 0).0, [0, 3, 90]);
        assert_eq!(cut(1.0, Some(corner)).get_pixel(2, 0).0, [2, 3, 90]);
        // Columns 10 to 50 and all rows, ten by ten.
        assert_eq!(cut(7.0, None).get_pixel(0, 0).0, [58, 23, 90]);
    }

    #[test]
    fn crops_that_cannot_be_are_refused() {
        let face = PixelBox { x: 0.0, y: 0.0, width: 8.0, height: 8.0 };
        let crop = Crop { scale: 1.0, size: 4 };
        for (crop, refused) in [
            (Crop { scale: f64::NAN, ..crop }, "scale"),
            (Crop { scale: 0.0, ..crop }, "scale"),
            (Crop { size: 0, ..crop }, "size"),
            (Crop { size: 4097, ..crop }, "size"),
        ] {
            let cut = crop.cut(&picture(), Some(face));
            assert!(matches!(cut, Err(Error::BadParam { name, .. }) if name == refused), "{cut:?}");
        }
        let outside = crop.cut(&picture(), Some(PixelBox { x: 60.0, ..face }));
        assert!(matches!(outside, Err(Error::BoxOutside { frame: (60, 40), .. })), "{outside:?}");
        let endless = crop.cut(&picture(), Some(PixelBox { x: f64::INFINITY, ..face }));
        assert!(matches!(endless, Err(Error::BadShape { what: "face box", .. })), "{endless:?}");
        assert!(matches!(crop.cut(&RgbImage::new(0, 3), None), Err(Error::BadShape { what: "picture", .. })));
    }
}
