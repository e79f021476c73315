//! Generated scenes of shapes with labels for every pixel and a box for every shape.

use std::sync::Arc;

use core_tensor::data::{BatchSource, Dataset, ShapeGenerator, ToDevice, prefetch, shuffled};
use core_tensor::seed::{Purpose, derive, generator};
use rand::Rng;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::Object;
use crate::{Error, Result};

/// Classes of the shape generator that are figures on a ground; the others fill their whole image.
const FIGURES: usize = 7;
/// A scene is a grid of 2 × 2 cells, each with at most one shape, so that shapes never cover one another.
const CELLS: usize = 4;

/// Draws scenes: band-limited noise with one to four of the seven figures of a [`ShapeGenerator`] on it.
///
/// A scene depends on the seed and its position alone.
///
/// ```
/// use lth::transfer::SceneGenerator;
/// let scenes = SceneGenerator::default().scenes(8, 0)?;
/// assert_eq!(scenes.images().size(), [8, 1, 64, 64]);
/// // Class 0 is the ground; shapes have the classes 1 to 7.
/// assert!(scenes.labels().max().int64_value(&[]) <= 7);
/// # Ok::<(), lth::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneGenerator {
    /// Height and width in pixels, even, 32 to 512. Default: 64.
    pub side: usize,
    /// Channels, 1 or 3. Default: 1.
    pub channels: usize,
    /// Shapes of a scene at most, 1 to 4. Default: 3.
    pub most: usize,
}

impl Default for SceneGenerator {
    fn default() -> Self {
        Self { side: 64, channels: 1, most: 3 }
    }
}

/// Scenes in memory.
#[derive(Debug, Clone)]
pub struct Scenes {
    images: Arc<Vec<u8>>,
    labels: Arc<Vec<u8>>,
    objects: Arc<Vec<Vec<Object>>>,
    side: usize,
    channels: usize,
}

impl SceneGenerator {
    /// Classes of pixels: the ground and seven shapes.
    pub const PIXEL_CLASSES: i64 = FIGURES as i64 + 1;
    /// Classes of objects: seven shapes. An object's class is its pixels' less 1.
    pub const OBJECT_CLASSES: i64 = FIGURES as i64;

    /// # Errors
    /// A setting outside its range.
    pub fn validate(&self) -> Result<()> {
        if !(32..=512).contains(&self.side) || !self.side.is_multiple_of(2) {
            return Err(Error::setting("side", "even, 32 to 512", self.side));
        }
        if self.channels != 1 && self.channels != 3 {
            return Err(Error::setting("channels", "1 or 3", self.channels));
        }
        if !(1..=CELLS).contains(&self.most) {
            return Err(Error::setting("most", "1 to 4", self.most));
        }
        Ok(())
    }

    /// Draws `count` scenes.
    ///
    /// # Errors
    /// A setting outside its range, or a count of 0.
    pub fn scenes(&self, count: usize, seed: u64) -> Result<Scenes> {
        self.validate()?;
        if count == 0 {
            return Err(Error::setting("count", "at least 1", 0));
        }
        let (side, channels) = (self.side, self.channels);
        let cell = side / 2;
        // Ten classes in turn; noise is the scene's own.
        let tiles = ShapeGenerator { channels, size: [cell; 2], noise: 0.0, stands_in_for: "scenes".to_owned() };
        let tiles = tiles.splits(10 * 64, 1, derive(seed, Purpose::Data, 0))?.train;
        let figures: Vec<Vec<Figure>> = (0..FIGURES).map(|class| figures(&tiles, class, cell, channels)).collect();
        let pixels = side * side;
        let (mut images, mut labels, mut objects) =
            (vec![0; count * channels * pixels], vec![0; count * pixels], Vec::new());
        for scene in 0..count {
            let mut rng = generator(seed, Purpose::Data, 1 + scene as u64);
            let image = &mut images[scene * channels * pixels..(scene + 1) * channels * pixels];
            ground(image, side, &mut rng);
            let label = &mut labels[scene * pixels..(scene + 1) * pixels];
            objects.push(self.place(&figures, image, label, &mut rng));
        }
        Ok(Scenes { images: Arc::new(images), labels: Arc::new(labels), objects: Arc::new(objects), side, channels })
    }

    fn place(&self, figures: &[Vec<Figure>], image: &mut [u8], label: &mut [u8], rng: &mut impl Rng) -> Vec<Object> {
        let (side, cell) = (self.side, self.side / 2);
        let count = 1 + below(self.most, rng);
        let mut free: Vec<usize> = (0..CELLS).collect();
        let mut objects = Vec::with_capacity(count);
        for _ in 0..count {
            let place = free.swap_remove(below(free.len(), rng));
            let class = below(FIGURES, rng);
            let figure = &figures[class][below(figures[class].len(), rng)];
            let (top, left) = (place / 2 * cell, place % 2 * cell);
            for (at, &change) in figure.change.iter().enumerate().filter(|(at, _)| figure.covers[at % (cell * cell)]) {
                let (plane, at) = (at / (cell * cell), at % (cell * cell));
                let pixel = (top + at / cell) * side + left + at % cell;
                let value = &mut image[plane * side * side + pixel];
                // Saturates, as a camera would.
                *value = (f32::from(*value) + change).round() as u8;
                // Seven classes.
                label[pixel] = class as u8 + 1;
            }
            let [x0, y0, x1, y1] = figure.extent.map(|edge| edge as f64);
            let (left, top) = (left as f64, top as f64);
            objects.push(Object { class, corners: [left + x0, top + y0, left + x1, top + y1] });
        }
        objects
    }
}

/// A shape cut out of its image.
struct Figure {
    /// Pixels that are the shape's.
    covers: Vec<bool>,
    /// How much lighter it is than its ground, plane after plane.
    change: Vec<f32>,
    /// `[left, top, right, bottom]`, the last two one beyond its pixels.
    extent: [usize; 4],
}

/// The figures of one class. Without noise the ground is a plane through the four corners, which no figure reaches, and a
/// pixel is the figure's when it is further from that plane than half of the furthest one.
fn figures(tiles: &Dataset, class: usize, cell: usize, channels: usize) -> Vec<Figure> {
    let area = cell * cell;
    let positions = (0..tiles.targets().len()).filter(|&at| tiles.targets()[at] == class as i64);
    let cut = |position: usize| {
        let pixels = &tiles.pixels()[position * channels * area..(position + 1) * channels * area];
        let last = (cell - 1) as f32;
        let change: Vec<f32> = pixels
            .chunks(area)
            .flat_map(|plane| {
                let corner = |row: usize, column: usize| f32::from(plane[row * cell + column]);
                let (a, b, c) = (corner(0, 0), corner(0, cell - 1), corner(cell - 1, 0));
                let flat =
                    move |at: usize| a + (b - a) * (at % cell) as f32 / last + (c - a) * (at / cell) as f32 / last;
                plane.iter().enumerate().map(move |(at, &pixel)| f32::from(pixel) - flat(at)).collect::<Vec<_>>()
            })
            .collect();
        let depth = |at: usize| (0..channels).map(|plane| change[plane * area + at].abs()).fold(0.0, f32::max);
        let most = (0..area).map(depth).fold(0.0, f32::max);
        let covers: Vec<bool> = (0..area).map(|at| depth(at) > 0.5 * most).collect();
        let rows = (0..area).filter(|&at| covers[at]).map(|at| at / cell);
        let columns = (0..area).filter(|&at| covers[at]).map(|at| at % cell);
        let extent = [columns.clone().min()?, rows.clone().min()?, columns.max()? + 1, rows.max()? + 1];
        // Faint or tiny ones would be labels without a picture.
        (most > 40.0).then_some(Figure { covers, change, extent })
    };
    positions.filter_map(cut).collect()
}

/// Noise of eight by eight numbers, drawn out to the whole image, the same in every channel, and a little of each
/// value's own.
fn ground(image: &mut [u8], side: usize, rng: &mut impl Rng) {
    const COARSE: usize = 8;
    let coarse: Vec<f32> = (0..(COARSE + 1) * (COARSE + 1)).map(|_| rng.random_range(70.0..150.0)).collect();
    for plane in image.chunks_mut(side * side) {
        for (at, pixel) in plane.iter_mut().enumerate() {
            let scale = COARSE as f32 / side as f32;
            let (y, x) = ((at / side) as f32 * scale, (at % side) as f32 * scale);
            let (row, column) = (y as usize, x as usize);
            let (dy, dx) = (y.fract(), x.fract());
            let value = |row: usize, column: usize| coarse[row * (COARSE + 1) + column];
            let top = value(row, column) * (1.0 - dx) + value(row, column + 1) * dx;
            let bottom = value(row + 1, column) * (1.0 - dx) + value(row + 1, column + 1) * dx;
            *pixel = (top * (1.0 - dy) + bottom * dy + rng.random_range(-12.0..12.0)).round() as u8;
        }
    }
}

fn below(end: usize, rng: &mut impl Rng) -> usize {
    rng.random_range(0..end as u64) as usize
}

impl Scenes {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Never: a generator draws at least one.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// `[n, channels, side, side]`, `u8`.
    pub fn images(&self) -> Tensor {
        let side = self.side as i64;
        Tensor::from_slice(&self.images).view([-1, self.channels as i64, side, side])
    }

    /// `[n, side, side]`, `i64`: each pixel's class, 0 for the ground.
    pub fn labels(&self) -> Tensor {
        let side = self.side as i64;
        Tensor::from_slice(&self.labels).view([-1, side, side]).to_kind(Kind::Int64)
    }

    /// Each scene's shapes.
    pub fn objects(&self) -> &[Vec<Object>] {
        &self.objects
    }

    fn batch(&self, index: Vec<usize>) -> SceneBatch {
        let pixels = self.side * self.side;
        let take = |all: &[u8], each: usize| -> Vec<u8> {
            index.iter().flat_map(|&scene| &all[scene * each..(scene + 1) * each]).copied().collect()
        };
        let (side, channels) = (self.side as i64, self.channels as i64);
        let input = Tensor::from_slice(&take(&self.images, self.channels * pixels)).view([-1, channels, side, side]);
        // About zero mean and unit variance: the ground's mean is 110.
        let input = (input.to_kind(Kind::Float) - 110.0) / 50.0;
        let labels = Tensor::from_slice(&take(&self.labels, pixels)).view([-1, side, side]).to_kind(Kind::Int64);
        let objects = index.iter().map(|&scene| self.objects[scene].clone()).collect();
        SceneBatch { input, labels, objects, index }
    }
}

/// Scenes with everything that there is to find in them.
#[derive(Debug)]
pub struct SceneBatch {
    /// `[batch, channels, side, side]`, `f32`.
    pub input: Tensor,
    /// `[batch, side, side]`, `i64`: each pixel's class.
    pub labels: Tensor,
    /// Each scene's shapes.
    pub objects: Vec<Vec<Object>>,
    /// Positions of the scenes in their set.
    pub index: Vec<usize>,
}

impl ToDevice for SceneBatch {
    fn to_device(self, device: Device) -> Self {
        let Self { input, labels, objects, index } = self;
        Self { input: input.to_device(device), labels: labels.to_device(device), objects, index }
    }
}

/// The batches of a set of scenes.
#[derive(Debug, Clone)]
pub struct SceneLoader {
    scenes: Scenes,
    batch_size: usize,
    shuffle: Option<u64>,
}

impl SceneLoader {
    /// Batches in an order that the seed draws anew every epoch.
    ///
    /// # Errors
    /// A batch size of 0.
    pub fn training(scenes: Scenes, batch_size: usize, seed: u64) -> Result<Self> {
        Self::new(scenes, batch_size, Some(seed))
    }

    /// Batches in the set's order.
    ///
    /// # Errors
    /// A batch size of 0.
    pub fn evaluation(scenes: Scenes, batch_size: usize) -> Result<Self> {
        Self::new(scenes, batch_size, None)
    }

    fn new(scenes: Scenes, batch_size: usize, shuffle: Option<u64>) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::setting("batch_size", "at least 1", 0));
        }
        Ok(Self { scenes, batch_size, shuffle })
    }
}

impl BatchSource for SceneLoader {
    type Batch = SceneBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.scenes.len().div_ceil(self.batch_size) as u64
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<SceneBatch>> + '_>> {
        let count = self.scenes.len();
        let order = self.shuffle.map_or_else(|| (0..count).collect(), |seed| shuffled(count, seed, epoch));
        let chunks: Vec<_> = order.chunks(self.batch_size).map(<[_]>::to_vec).collect();
        let scenes = self.scenes.clone();
        Ok(Box::new(prefetch(1, chunks.into_iter().map(move |index| Ok(scenes.batch(index))))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn boxes_are_the_extents_of_their_pixels() {
        for channels in [1, 3] {
            let generator = SceneGenerator { channels, most: 4, ..SceneGenerator::default() };
            let scenes = generator.scenes(12, 5).unwrap();
            for (scene, objects) in scenes.objects().iter().enumerate() {
                let label = &scenes.labels[scene * 4096..(scene + 1) * 4096];
                let mut boxed = 0;
                for object in objects {
                    let [left, top, right, bottom] = object.corners.map(|corner| corner as usize);
                    assert!(left < right && top < bottom && right <= 64 && bottom <= 64);
                    let inside = |at: &usize| (top..bottom).contains(&(at / 64)) && (left..right).contains(&(at % 64));
                    let own: Vec<_> = (0..4096).filter(|at| label[*at] > 0 && inside(at)).collect();
                    // Shapes lie in cells of their own, so everything in the box is this shape's.
                    assert!(own.iter().all(|at| usize::from(label[*at]) == object.class + 1));
                    let columns: BTreeSet<_> = own.iter().map(|at| at % 64).collect();
                    let rows: BTreeSet<_> = own.iter().map(|at| at / 64).collect();
                    assert_eq!((columns.first(), columns.last()), (Some(&left), Some(&(right - 1))));
                    assert_eq!((rows.first(), rows.last()), (Some(&top), Some(&(bottom - 1))));
                    boxed += own.len();
                }
                assert_eq!(boxed, label.iter().filter(|class| **class > 0).count());
            }
        }
    }

    #[test]
    fn shapes_stand_out_from_their_ground_and_every_class_is_there() {
        let scenes = SceneGenerator::default().scenes(60, 1).unwrap();
        let classes: BTreeSet<_> = scenes.objects().iter().flatten().map(|object| object.class).collect();
        assert_eq!(classes.len(), FIGURES);
        let (images, labels) = (scenes.images().to_kind(Kind::Float).squeeze_dim(1), scenes.labels());
        let mean = |mask: &Tensor| images.masked_select(mask).mean(Kind::Float).double_value(&[]);
        let (figure, ground) = (labels.gt(0), labels.eq(0));
        assert!(mean(&figure) > mean(&ground) + 20.0, "{} {}", mean(&figure), mean(&ground));
    }

    #[test]
    fn a_scene_depends_on_its_seed_and_position_alone() {
        let generator = SceneGenerator::default();
        let (few, many) = (generator.scenes(3, 7).unwrap(), generator.scenes(9, 7).unwrap());
        assert_eq!(few.images[..], many.images[..3 * 4096]);
        assert_eq!(few.objects[..], many.objects[..3]);
        assert_ne!(generator.scenes(3, 8).unwrap().images, few.images);
    }

    #[test]
    fn batches_hold_every_scene_once() {
        let scenes = SceneGenerator::default().scenes(5, 0).unwrap();
        let loader = SceneLoader::training(scenes.clone(), 2, 3).unwrap();
        let batches: Vec<_> = loader.epoch(1).unwrap().map(Result::unwrap).collect();
        assert_eq!(batches.len() as u64, loader.batches_per_epoch());
        let mut seen: Vec<_> = batches.iter().flat_map(|batch| batch.index.clone()).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4]);
        assert_eq!(batches[0].objects[0], scenes.objects()[batches[0].index[0]]);
        assert!(SceneLoader::evaluation(scenes, 0).is_err());
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let refused = |generator: SceneGenerator| generator.scenes(1, 0).unwrap_err().to_string();
        let plain = SceneGenerator::default();
        assert_eq!(refused(SceneGenerator { side: 65, ..plain }), "side is 65, expected even, 32 to 512");
        assert_eq!(refused(SceneGenerator { channels: 2, ..plain }), "channels is 2, expected 1 or 3");
        assert_eq!(refused(SceneGenerator { most: 5, ..plain }), "most is 5, expected 1 to 4");
        assert_eq!(plain.scenes(0, 0).unwrap_err().to_string(), "count is 0, expected at least 1");
    }
}
