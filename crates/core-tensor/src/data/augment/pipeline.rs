//! Transforms that were checked, ready to run.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use tch::Tensor;

use super::Transform;
use super::blur::blur;
use super::colour::{Jitter, to_grey};
use super::cutout::cut_out;
use super::placement::Placement;
use super::resized_crop::ResizedCrop;
use crate::data::{Image, Samples};
use crate::seed::{Purpose, derive, generator};
use crate::{Error, Result};

/// Checked transforms for images of a known number of channels, made by
/// [`Augmentation::prepare`](super::Augmentation::prepare).
#[derive(Debug, Clone)]
pub struct Pipeline {
    channels: usize,
    input: Option<[usize; 2]>,
    output: [usize; 2],
    /// From bytes to numbers, moving pixels on the way.
    first: Place,
    rest: Vec<Stage>,
}

/// What fixes every random choice, together with an image's position in its set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Draw {
    /// The run's seed.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Which of several independent views.
    pub stream: u64,
}

/// An image between two stages.
#[derive(Debug, Clone, Default)]
pub(super) struct Planes {
    pub(super) size: [usize; 2],
    /// One plane a channel.
    pub(super) values: Vec<f32>,
}

/// Transforms that only move pixels, then what is done to each value: together they cost one pass.
#[derive(Debug, Clone)]
struct Place {
    moves: Vec<Move>,
    /// One a channel.
    affine: Vec<Affine>,
    normalised: bool,
}

#[derive(Debug, Clone, Copy)]
enum Move {
    PadCrop { padding: usize },
    HorizontalFlip { probability: f64 },
}

/// `value · scale + bias`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) bias: f32,
}

#[derive(Debug, Clone)]
enum Stage {
    Place(Place),
    ResizedCrop(ResizedCrop),
    Jitter { jitter: Jitter, probability: f64 },
    Grey { probability: f64 },
    Blur { kernel: usize, sigma: [f64; 2], probability: f64 },
    Cutout { side: usize },
}

/// Below this many values, about 1 ms of plain copying, a hand-over to other threads costs more than it saves: a batch of
/// 128 CIFAR images stays on the loader's own thread.
const VALUES_PER_TASK: usize = 1 << 20;

impl Pipeline {
    pub(super) fn new(
        transforms: &[Transform],
        channels: usize,
        input: Option<[usize; 2]>,
        output: [usize; 2],
    ) -> Self {
        let mut first = Place::new(channels, 1.0 / 255.0);
        let mut rest = Vec::new();
        for transform in transforms {
            let stage = match *transform {
                Transform::PadCrop { padding } => {
                    // Black is not 0 any more once normalised, so padding then needs a pass of its own.
                    if last_place(&mut first, &mut rest, channels).normalised {
                        rest.push(Stage::Place(Place::new(channels, 1.0)));
                    }
                    last_place(&mut first, &mut rest, channels).moves.push(Move::PadCrop { padding });
                    continue;
                }
                Transform::HorizontalFlip { probability } => {
                    last_place(&mut first, &mut rest, channels).moves.push(Move::HorizontalFlip { probability });
                    continue;
                }
                Transform::Normalise { ref mean, ref std } => {
                    last_place(&mut first, &mut rest, channels).normalise(mean, std);
                    continue;
                }
                Transform::ResizedCrop { size, scale, ratio } => Stage::ResizedCrop(ResizedCrop { size, scale, ratio }),
                Transform::ColourJitter { brightness, contrast, saturation, hue, probability } => {
                    Stage::Jitter { jitter: Jitter { brightness, contrast, saturation, hue }, probability }
                }
                Transform::Grey { probability } => Stage::Grey { probability },
                Transform::Blur { kernel, sigma, probability } => Stage::Blur { kernel, sigma, probability },
                Transform::Cutout { side } => Stage::Cutout { side },
            };
            rest.push(stage);
        }
        Self { channels, input, output, first, rest }
    }

    /// `[channels, height, width]` of the images it makes.
    pub fn output_shape(&self) -> [usize; 3] {
        [self.channels, self.output[0], self.output[1]]
    }

    /// The images at `index`, transformed: `[index.len(), channels, height, width]`, `f32`.
    ///
    /// # Errors
    /// What keeps an image from being read; a position outside the set; images of another shape than was prepared for.
    pub fn batch<S: Samples + ?Sized>(&self, samples: &S, index: &[usize], draw: Draw) -> Result<Tensor> {
        if let Some(outside) = index.iter().find(|&&position| position >= samples.len()) {
            return Err(Error::setting("index", format!("positions below {}", samples.len()), outside));
        }
        let values: usize = self.output_shape().iter().product();
        // Work on pixels alone is cheap; anything else is worth a thread for every image.
        let images_per_task = if self.rest.is_empty() { (VALUES_PER_TASK / values).max(1) } else { 1 };
        self.in_tasks(samples, index, draw, images_per_task)
    }

    /// [`batch`](Self::batch) of positions that are there, shared among threads unless it is a single task.
    pub(super) fn in_tasks<S: Samples + ?Sized>(
        &self,
        samples: &S,
        index: &[usize],
        draw: Draw,
        images_per_task: usize,
    ) -> Result<Tensor> {
        let [channels, height, width] = self.output_shape();
        let values = channels * height * width;
        let mut output = vec![0.0_f32; index.len() * values];
        let one = |scratch: &mut Planes, (output, &position): (&mut [f32], &usize)| {
            self.transform(&samples.image(position)?, position, draw, scratch, output)
        };
        if index.len() <= images_per_task {
            let mut scratch = Planes::default();
            output.chunks_exact_mut(values).zip(index).try_for_each(|pair| one(&mut scratch, pair))?;
        } else {
            let images = output.par_chunks_exact_mut(values).zip(index).with_min_len(images_per_task);
            images.try_for_each_init(Planes::default, one)?;
        }
        let size = [index.len(), channels, height, width].map(|length| length as i64);
        Ok(Tensor::from_slice(&output).view(size))
    }

    fn transform(
        &self,
        image: &Image<'_>,
        position: usize,
        draw: Draw,
        scratch: &mut Planes,
        output: &mut [f32],
    ) -> Result<()> {
        self.check(image, position)?;
        let epoch = derive(draw.seed, Purpose::Augmentation, draw.epoch);
        let mut rng = generator(epoch, Purpose::Augmentation, position as u64);
        rng.set_stream(draw.stream);

        let placement = self.first.draw(image.shape.size(), &mut rng);
        if self.rest.is_empty() {
            self.first.run(&placement, &image.pixels, image.shape.size(), output);
            return Ok(());
        }
        scratch.size = placement.size();
        scratch.values.resize(self.channels * scratch.size[0] * scratch.size[1], 0.0);
        self.first.run(&placement, &image.pixels, image.shape.size(), &mut scratch.values);
        for stage in &self.rest {
            stage.run(scratch, &mut rng);
        }
        output.copy_from_slice(&scratch.values);
        Ok(())
    }

    fn check(&self, image: &Image<'_>, position: usize) -> Result<()> {
        let fits = image.shape.channels == self.channels
            && self.input.is_none_or(|size| size == image.shape.size())
            && image.shape.values() == Some(image.pixels.len())
            && !image.pixels.is_empty();
        if fits {
            return Ok(());
        }
        let size = self.input.map_or("any size".to_owned(), |[height, width]| format!("{height} × {width}"));
        let found = format!("{} in {} bytes", image.shape, image.pixels.len());
        Err(Error::tensor(format!("image {position}"), format!("{} channels of {size}", self.channels), found))
    }
}

/// The place at the end of the pipeline, made when something else is there.
fn last_place<'a>(first: &'a mut Place, rest: &'a mut Vec<Stage>, channels: usize) -> &'a mut Place {
    if rest.is_empty() {
        return first;
    }
    if !matches!(rest.last(), Some(Stage::Place(_))) {
        rest.push(Stage::Place(Place::new(channels, 1.0)));
    }
    match rest.last_mut() {
        Some(Stage::Place(place)) => place,
        _ => first,
    }
}

impl Place {
    fn new(channels: usize, scale: f32) -> Self {
        Self { moves: Vec::new(), affine: vec![Affine { scale, bias: 0.0 }; channels], normalised: false }
    }

    fn normalise(&mut self, mean: &[f32], std: &[f32]) {
        for (affine, (mean, std)) in self.affine.iter_mut().zip(mean.iter().zip(std)) {
            *affine = Affine { scale: affine.scale / std, bias: (affine.bias - mean) / std };
        }
        self.normalised = true;
    }

    /// Decides where this image's pixels go.
    fn draw(&self, size: [usize; 2], rng: &mut ChaCha8Rng) -> Placement {
        let mut placement = Placement::identity(size);
        for step in &self.moves {
            match *step {
                Move::PadCrop { padding } => {
                    let mut offset = || rng.random_range(0..=2 * padding as u64) as isize - padding as isize;
                    let offset = [offset(), offset()];
                    placement.crop(offset, placement.size());
                }
                Move::HorizontalFlip { probability } => {
                    if rng.random_bool(probability) {
                        placement.mirror();
                    }
                }
            }
        }
        placement
    }

    fn run<T: Copy + Into<f32>>(
        &self,
        placement: &Placement,
        source: &[T],
        source_size: [usize; 2],
        output: &mut [f32],
    ) {
        let [height, width] = placement.size();
        let sources = source.chunks_exact(source_size[0] * source_size[1]);
        let outputs = output.chunks_exact_mut(height * width);
        for ((source, output), affine) in sources.zip(outputs).zip(&self.affine) {
            placement.write(source, source_size[1], output, *affine);
        }
    }
}

impl Stage {
    fn run(&self, image: &mut Planes, rng: &mut ChaCha8Rng) {
        match self {
            Self::Place(place) => {
                let placement = place.draw(image.size, rng);
                let [height, width] = placement.size();
                let mut moved = vec![0.0; place.affine.len() * height * width];
                place.run(&placement, &image.values, image.size, &mut moved);
                *image = Planes { size: placement.size(), values: moved };
            }
            Self::ResizedCrop(crop) => crop.run(image, rng),
            Self::Jitter { jitter, probability } => {
                if rng.random_bool(*probability) {
                    jitter.run(image, rng);
                }
            }
            Self::Grey { probability } => {
                if rng.random_bool(*probability) {
                    to_grey(image);
                }
            }
            Self::Blur { kernel, sigma: [low, high], probability } => {
                if rng.random_bool(*probability) {
                    let sigma = rng.random_range(*low..=*high);
                    blur(image, *kernel, sigma);
                }
            }
            Self::Cutout { side } => cut_out(image, *side, rng),
        }
    }
}
