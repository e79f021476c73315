//! Objects composed over backgrounds: what goes into a scene, how it is placed, and whether the parts fit one another.

mod compose;
mod picture;
mod sprite;

pub use picture::Picture;
pub(crate) use picture::floats;
pub use sprite::Sprite;

use super::{Error, Result, ShiftGrid};
use serde::{Deserialize, Serialize};

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
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn sprite(height: usize, width: usize) -> Sprite {
        let values = (1..=height * width).map(|value| value as f32).collect();
        Sprite::opaque(Picture::new(1, [height, width], values).unwrap())
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
    }
}
