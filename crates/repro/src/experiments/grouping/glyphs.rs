//! Characters: Omniglot's, or made of random strokes.

use super::arms::Source;
use crate::DataRoot;
use core_tensor::data::{Dataset, ImageShape, OmniglotSide, omniglot};
use core_tensor::seed::{Purpose, generator};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Characters to learn from, to choose by, and never seen.
pub(super) struct Glyphs {
    pub(super) train: Dataset,
    pub(super) validation: Dataset,
    pub(super) test: Dataset,
}

/// Alphabets never seen in training.
const TEST_ALPHABETS: [&str; 3] = ["Japanese_(katakana)", "Sanskrit", "Tagalog"];
/// Fixed for all runs, as published splits are.
const SPLIT_SEED: u64 = 2021;
/// What the generator makes: as many characters and drawers as Omniglot's eight alphabets have.
const TRAIN_CLASSES: usize = 136;
const TEST_CLASSES: usize = 106;
const DRAWERS: usize = 20;

impl Glyphs {
    /// Images of `side` × `side`, ink on zero.
    pub(super) fn load(source: Source, data: &DataRoot, side: usize, held_out: usize) -> anyhow::Result<Self> {
        let all = match source {
            Source::Generated => generated(side)?,
            Source::Omniglot => {
                let folder = data.path().join("omniglot");
                if side == 28 {
                    omniglot(&folder, OmniglotSide::Small)?
                } else {
                    shrunk(&omniglot(&folder, OmniglotSide::Full)?, side)?
                }
            }
        };
        let of_test = |name: &str| TEST_ALPHABETS.iter().any(|alphabet| name.starts_with(&format!("{alphabet}/")));
        let mut names: Vec<&String> = all.classes().iter().filter(|name| !of_test(name)).collect();
        anyhow::ensure!(held_out < names.len(), "{held_out} of {} characters cannot be held out", names.len());
        names.shuffle(&mut generator(SPLIT_SEED, Purpose::Data, 0));
        let held: std::collections::HashSet<&str> = names[..held_out].iter().map(|name| name.as_str()).collect();
        Ok(Self {
            train: all.only_classes(|name| !of_test(name) && !held.contains(name))?,
            validation: all.only_classes(|name| held.contains(name))?,
            test: all.only_classes(of_test)?,
        })
    }
}

/// Each pixel of the result is the mean of the area that it covers.
fn shrunk(set: &Dataset, side: usize) -> anyhow::Result<Dataset> {
    let [height, width] = set.shape().size();
    let taps = |length: usize| -> Vec<Vec<(usize, f32)>> {
        let scale = length as f32 / side as f32;
        let covered = |at: usize| {
            let (from, to) = (at as f32 * scale, (at + 1) as f32 * scale);
            let share = |pixel: usize| ((pixel + 1) as f32).min(to) - (pixel as f32).max(from);
            (from as usize..length.min(to.ceil() as usize)).map(|pixel| (pixel, share(pixel) / scale)).collect()
        };
        (0..side).map(covered).collect()
    };
    let (rows, columns) = (taps(height), taps(width));
    let mut pixels = Vec::with_capacity(set.targets().len() * side * side);
    for image in set.pixels().chunks_exact(height * width) {
        for row in &rows {
            for column in &columns {
                let line = |y: usize| -> f32 {
                    column.iter().map(|&(x, share)| share * f32::from(image[y * width + x])).sum()
                };
                let value: f32 = row.iter().map(|&(y, share)| share * line(y)).sum();
                pixels.push(value.round() as u8);
            }
        }
    }
    let shape = ImageShape::new(1, side, side);
    Ok(Dataset::new(pixels, shape, set.targets().to_vec(), set.classes().to_vec(), set.origin())?)
}

/// Strokes of a character: quadratic curves through three points of the unit square.
type Strokes = Vec<[[f32; 2]; 3]>;

/// Characters of two to four random curves, each drawn twenty times by an unsteady hand.
fn generated(side: usize) -> anyhow::Result<Dataset> {
    let mut rng = generator(SPLIT_SEED, Purpose::Data, 1);
    let (mut pixels, mut labels, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for class in 0..TRAIN_CLASSES + TEST_CLASSES {
        let point = |rng: &mut ChaCha8Rng| [rng.random_range(0.15..0.85), rng.random_range(0.15..0.85)];
        let strokes: Strokes =
            (0..rng.random_range(2..5)).map(|_| [point(&mut rng), point(&mut rng), point(&mut rng)]).collect();
        for _ in 0..DRAWERS {
            pixels.extend(draw(&strokes, side, &mut rng));
            labels.push(class as i64);
        }
        let alphabet = if class < TRAIN_CLASSES { "generated" } else { TEST_ALPHABETS[0] };
        names.push(format!("{alphabet}/{class}"));
    }
    Ok(Dataset::new(pixels, ImageShape::new(1, side, side), labels, names, "generated characters")?)
}

fn draw(strokes: &Strokes, side: usize, rng: &mut ChaCha8Rng) -> Vec<u8> {
    let (turn, size): (f32, f32) = (rng.random_range(-0.2..0.2), rng.random_range(0.85..1.15));
    let shift = [rng.random_range(-0.05..0.05), rng.random_range(-0.05..0.05)];
    let mut dots: Vec<[f32; 2]> = Vec::new();
    for stroke in strokes {
        let hand = stroke.map(|[x, y]| {
            let (x, y) = (x + rng.random_range(-0.05..0.05) - 0.5, y + rng.random_range(-0.05..0.05) - 0.5);
            [
                0.5 + size * (x * turn.cos() - y * turn.sin()) + shift[0],
                0.5 + size * (x * turn.sin() + y * turn.cos()) + shift[1],
            ]
        });
        for step in 0..=32 {
            let t = step as f32 / 32.0;
            let mix = [(1.0 - t) * (1.0 - t), 2.0 * t * (1.0 - t), t * t];
            dots.push([0, 1].map(|axis| (0..3).map(|at| mix[at] * hand[at][axis]).sum()));
        }
    }
    // A pen of a twentieth of the image.
    let (width, pixel) = (0.05, 1.0 / side as f32);
    let mut image = Vec::with_capacity(side * side);
    for y in 0..side {
        for x in 0..side {
            let [cx, cy] = [(x as f32 + 0.5) * pixel, (y as f32 + 0.5) * pixel];
            let nearest = dots.iter().map(|[dx, dy]| (dx - cx).hypot(dy - cy)).fold(f32::INFINITY, f32::min);
            image.push((255.0 * ((width - nearest) / pixel + 0.5).clamp(0.0, 1.0)) as u8);
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_characters_split_like_omniglot_and_are_the_same_every_time() {
        let nowhere = DataRoot::at(std::path::Path::new("nowhere"));
        let load = || Glyphs::load(Source::Generated, &nowhere, 20, 27).unwrap();
        let glyphs = load();
        let classes = [&glyphs.train, &glyphs.validation, &glyphs.test].map(|set| set.classes().len());
        assert_eq!(classes, [109, 27, 106]);
        assert_eq!(glyphs.test.targets().len(), 2120);
        assert_eq!(glyphs.train.pixels(), load().train.pixels());
        let ink = glyphs.train.pixels().iter().map(|&pixel| f64::from(pixel)).sum::<f64>();
        let share = ink / 255.0 / glyphs.train.pixels().len() as f64;
        assert!((0.03..0.4).contains(&share), "{share} of the pixels are ink");
    }

    #[test]
    fn shrinking_keeps_the_mean() {
        // 5 × 5 to 2 × 2: each result covers 2.5 × 2.5 pixels. One white pixel in the middle is shared by all four.
        let mut pixels = vec![0; 25];
        pixels[12] = 250;
        let set = Dataset::new(pixels, ImageShape::new(1, 5, 5), vec![0], vec!["a".into()], "one").unwrap();
        // A quarter of 250 over an area of 6.25.
        assert_eq!(shrunk(&set, 2).unwrap().pixels(), [10; 4]);
    }
}
