//! Characters among scraps of other characters, where it matters to look at the right place.

use core_tensor::data::{Batch, BatchSource, Dataset, ImageShape};
use core_tensor::seed::{Purpose, derive, generator};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;
use vision::grouping::PkSampler;

/// Side of the canvas and of the character on it.
pub(super) const CANVAS: usize = 32;
pub(super) const GLYPH: usize = 20;
const SCRAP: usize = 6;
const SCRAPS: usize = 3;

/// Scenes that are drawn anew every time.
pub(super) struct SceneSource<'a> {
    pub(super) glyphs: &'a Dataset,
    pub(super) sampler: PkSampler,
    pub(super) seed: u64,
}

/// Scenes drawn once.
pub(super) struct FixedScenes {
    pub(super) images: Dataset,
    /// Top and left of each character.
    pub(super) corners: Vec<[usize; 2]>,
}

impl FixedScenes {
    /// Scraps come from `scraps`, which holds the training characters.
    pub(super) fn draw(glyphs: &Dataset, scraps: &Dataset, seed: u64) -> anyhow::Result<Self> {
        let mut rng = generator(seed, Purpose::Data, 2);
        let (mut pixels, mut corners) = (Vec::new(), Vec::new());
        for position in 0..glyphs.targets().len() {
            let (scene, corner) = scene(glyph(glyphs, position), scraps, &mut rng);
            pixels.extend(scene);
            corners.push(corner);
        }
        let (labels, names) = (glyphs.targets().to_vec(), glyphs.classes().to_vec());
        let images = Dataset::new(pixels, ImageShape::new(1, CANVAS, CANVAS), labels, names, glyphs.origin())?;
        Ok(Self { images, corners })
    }
}

impl BatchSource for SceneSource<'_> {
    type Batch = Batch;

    fn batches_per_epoch(&self) -> u64 {
        self.sampler.batches_per_epoch(self.glyphs.targets().len()) as u64
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<Batch>> + '_>> {
        let batches = self.sampler.batches(self.glyphs.targets(), self.seed, epoch);
        let batches = batches
            .map_err(|error| core_tensor::Error::Observer { observer: "scenes".into(), source: Box::new(error) })?;
        let seed = derive(self.seed, Purpose::Augmentation, epoch);
        Ok(Box::new(batches.into_iter().enumerate().map(move |(number, index)| {
            let mut rng = generator(seed, Purpose::Augmentation, number as u64);
            let mut values: Vec<f32> = Vec::with_capacity(index.len() * CANVAS * CANVAS);
            for &position in &index {
                let (scene, _) = scene(glyph(self.glyphs, position), self.glyphs, &mut rng);
                values.extend(scene.into_iter().map(|byte| f32::from(byte) / 255.0));
            }
            let labels: Vec<i64> = index.iter().map(|&position| self.glyphs.targets()[position]).collect();
            let input = Tensor::from_slice(&values).view([index.len() as i64, 1, CANVAS as i64, CANVAS as i64]);
            Ok(Batch { input, target: Tensor::from_slice(&labels), index })
        })))
    }
}

fn glyph(set: &Dataset, position: usize) -> &[u8] {
    &set.pixels()[position * GLYPH * GLYPH..(position + 1) * GLYPH * GLYPH]
}

/// A canvas and where the character's top-left corner is.
fn scene(glyph_pixels: &[u8], scraps: &Dataset, rng: &mut ChaCha8Rng) -> (Vec<u8>, [usize; 2]) {
    let mut canvas = vec![0; CANVAS * CANVAS];
    let corner = [0, 1].map(|_| rng.random_range(0..=CANVAS - GLYPH));
    paste(&mut canvas, corner, glyph_pixels, [0, 0], GLYPH);
    for _ in 0..SCRAPS {
        let other = glyph(scraps, rng.random_range(0..scraps.targets().len()));
        let cut = [0, 1].map(|_| rng.random_range(0..=GLYPH - SCRAP));
        let to = [0, 1].map(|_| rng.random_range(0..=CANVAS - SCRAP));
        paste(&mut canvas, to, other, cut, SCRAP);
    }
    (canvas, corner)
}

/// The brighter of both, over `side` × `side` pixels of a glyph.
fn paste(canvas: &mut [u8], to: [usize; 2], glyph: &[u8], from: [usize; 2], side: usize) {
    for y in 0..side {
        for x in 0..side {
            let pixel = &mut canvas[(to[0] + y) * CANVAS + to[1] + x];
            *pixel = (*pixel).max(glyph[(from[0] + y) * GLYPH + from[1] + x]);
        }
    }
}

/// Share of the character's box in each cell of an attention map of `side` × `side`, `[side²]`.
pub(super) fn box_mask([top, left]: [usize; 2], side: usize) -> Vec<f64> {
    let cell = CANVAS / side;
    let overlap = |start: usize, at: usize| -> usize {
        let (from, to) = (start.max(at * cell), (start + GLYPH).min((at + 1) * cell));
        to.saturating_sub(from)
    };
    let share = |y: usize, x: usize| (overlap(top, y) * overlap(left, x)) as f64 / (cell * cell) as f64;
    (0..side).flat_map(|y| (0..side).map(move |x| share(y, x))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_holds_the_area_of_the_box() {
        for corner in [[0, 0], [5, 12], [3, 7]] {
            let area: f64 = box_mask(corner, 8).iter().sum::<f64>() * 16.0;
            assert_eq!(area, 400.0);
        }
        assert_eq!(box_mask([2, 0], 8)[0], 0.5);
    }

    #[test]
    fn scenes_hold_their_character_and_repeat() {
        let pixels: Vec<u8> = (0..4).flat_map(|at| vec![at * 60 + 1; GLYPH * GLYPH]).collect();
        let names = vec!["a".to_owned(), "b".to_owned()];
        let set = Dataset::new(pixels, ImageShape::new(1, GLYPH, GLYPH), vec![0, 0, 1, 1], names, "four").unwrap();
        let fixed = FixedScenes::draw(&set, &set, 1).unwrap();
        for (position, [top, left]) in fixed.corners.iter().enumerate() {
            let image = &fixed.images.pixels()[position * CANVAS * CANVAS..][..CANVAS * CANVAS];
            assert!(image[top * CANVAS + left] > position as u8 * 60);
        }
        let source = SceneSource { glyphs: &set, sampler: PkSampler::new(2, 2), seed: 3 };
        let first = |epoch| source.epoch(epoch).unwrap().next().unwrap().unwrap().input;
        assert_eq!(first(0), first(0));
        assert_ne!(first(0), first(1));
    }
}
