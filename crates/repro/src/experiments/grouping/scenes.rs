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
    /// Of each image.
    pub(super) parts: Vec<Parts>,
}

/// A scene in parts. A pixel shows the brighter of the character and the scraps, and is ink of that one alone.
pub(super) struct Parts {
    /// Top and left of the character.
    pub(super) corner: [usize; 2],
    /// The character's ink, `[CANVAS²]`, 0 where scraps show.
    pub(super) glyph_ink: Vec<u8>,
    /// The scraps' ink, `[CANVAS²]`, 0 where the character shows.
    pub(super) scrap_ink: Vec<u8>,
}

impl FixedScenes {
    /// Scraps come from `scraps`, which holds the training characters.
    pub(super) fn draw(glyphs: &Dataset, scraps: &Dataset, seed: u64) -> anyhow::Result<Self> {
        let mut rng = generator(seed, Purpose::Data, 2);
        let (mut pixels, mut parts) = (Vec::new(), Vec::new());
        for position in 0..glyphs.targets().len() {
            let drawn = scene(glyph(glyphs, position), scraps, &mut rng);
            pixels.extend(drawn.pixels());
            parts.push(drawn);
        }
        let (labels, names) = (glyphs.targets().to_vec(), glyphs.classes().to_vec());
        let images = Dataset::new(pixels, ImageShape::new(1, CANVAS, CANVAS), labels, names, glyphs.origin())?;
        Ok(Self { images, parts })
    }
}

impl Parts {
    /// What the scene shows.
    fn pixels(&self) -> impl Iterator<Item = u8> {
        self.glyph_ink.iter().zip(&self.scrap_ink).map(|(glyph, scrap)| glyph + scrap)
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
                let drawn = scene(glyph(self.glyphs, position), self.glyphs, &mut rng);
                values.extend(drawn.pixels().map(|byte| f32::from(byte) / 255.0));
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

fn scene(glyph_pixels: &[u8], scraps: &Dataset, rng: &mut ChaCha8Rng) -> Parts {
    let mut glyph_ink = vec![0_u8; CANVAS * CANVAS];
    let mut scrap_ink = glyph_ink.clone();
    let corner = [0, 1].map(|_| rng.random_range(0..=CANVAS - GLYPH));
    paste(&mut glyph_ink, corner, glyph_pixels, [0, 0], GLYPH);
    for _ in 0..SCRAPS {
        let other = glyph(scraps, rng.random_range(0..scraps.targets().len()));
        let cut = [0, 1].map(|_| rng.random_range(0..=GLYPH - SCRAP));
        let to = [0, 1].map(|_| rng.random_range(0..=CANVAS - SCRAP));
        paste(&mut scrap_ink, to, other, cut, SCRAP);
    }
    for (glyph, scrap) in glyph_ink.iter_mut().zip(&mut scrap_ink) {
        if *glyph < *scrap {
            *glyph = 0;
        } else {
            *scrap = 0;
        }
    }
    Parts { corner, glyph_ink, scrap_ink }
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

/// Ink of `[CANVAS²]` in each cell of an attention map of `side` × `side`, in full pixels, `[side²]`.
pub(super) fn ink_in_cells(ink: &[u8], side: usize) -> Vec<f64> {
    let cell = CANVAS / side;
    let mut cells = vec![0.0; side * side];
    for (position, &byte) in ink.iter().enumerate() {
        let (y, x) = (position / CANVAS, position % CANVAS);
        cells[(y / cell) * side + x / cell] += f64::from(byte) / 255.0;
    }
    cells
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
        for (position, parts) in fixed.parts.iter().enumerate() {
            let image = &fixed.images.pixels()[position * CANVAS * CANVAS..][..CANVAS * CANVAS];
            let [top, left] = parts.corner;
            assert!(image[top * CANVAS + left] > position as u8 * 60);
        }
        let source = SceneSource { glyphs: &set, sampler: PkSampler::new(2, 2), seed: 3 };
        let first = |epoch| source.epoch(epoch).unwrap().next().unwrap().unwrap().input;
        assert_eq!(first(0), first(0));
        assert_ne!(first(0), first(1));
    }

    #[test]
    fn ink_is_the_brighter_part_s_and_the_character_s_where_both_are_alike() {
        let set = |byte: u8| {
            let names = vec!["a".to_owned()];
            Dataset::new(vec![byte; GLYPH * GLYPH], ImageShape::new(1, GLYPH, GLYPH), vec![0], names, "one").unwrap()
        };
        let inked = |ink: &[u8]| ink.iter().filter(|&&byte| byte > 0).count();
        let draw = |glyphs: &Dataset, scraps: &Dataset| FixedScenes::draw(glyphs, scraps, 1).unwrap();
        let (dim, bright) = (set(100), set(200));
        let alike = draw(&dim, &dim);
        assert_eq!(inked(&alike.parts[0].glyph_ink), GLYPH * GLYPH);
        let outshone = draw(&dim, &bright);
        let parts = &outshone.parts[0];
        assert!((SCRAP * SCRAP..=SCRAPS * SCRAP * SCRAP).contains(&inked(&parts.scrap_ink)));
        let both = parts.glyph_ink.iter().zip(&parts.scrap_ink).filter(|(glyph, scrap)| **glyph > 0 && **scrap > 0);
        assert_eq!(both.count(), 0);
        assert_eq!(parts.pixels().collect::<Vec<_>>(), outshone.images.pixels());
    }

    #[test]
    fn ink_is_counted_in_its_cell() {
        let mut ink = vec![0_u8; CANVAS * CANVAS];
        // Row 5, columns 3 and 4: the second row of cells, first and second column.
        ink[5 * CANVAS + 3] = 255;
        ink[5 * CANVAS + 4] = 51;
        let cells = ink_in_cells(&ink, 8);
        assert_eq!((cells[8], cells[9], cells.iter().sum::<f64>()), (1.0, 0.2, 1.2));
    }
}
