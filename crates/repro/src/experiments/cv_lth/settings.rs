//! What each tier trains, on what, how long.

use crate::experiments::images::ImageSet;
use crate::{Ask, DataRoot, DataUse, Tier};
use core_tensor::data::{Dataset, ImageShape};
use core_tensor::networks::{Architecture, ConvNetConfig, ResNetConfig};
use core_tensor::seed::{Purpose, generator};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// What a backbone is pre-trained by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Objective {
    /// Class labels.
    Supervised,
    /// Two views of an image agree, those of different images do not.
    SimClr,
    /// The same against a queue of keys.
    MoCo,
}

/// Everything that decides a run's numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) architecture: Architecture,
    pub(super) images: ImageSet,
    /// Images are averaged over 2 × 2 pixels.
    pub(super) halved: bool,
    pub(super) objectives: Vec<Objective>,
    /// Those of them whose backbones and masks are transferred.
    pub(super) transfers: Vec<Objective>,
    /// Classes of the pre-training, by number.
    pub(super) source: Vec<usize>,
    /// Classes of the downstream task: others.
    pub(super) target: Vec<usize>,
    pub(super) source_images: usize,
    pub(super) pretraining_steps: u64,
    /// Steps of each round of pruning on the pre-training task.
    pub(super) round_steps: u64,
    /// Learning rate of all of these steps.
    pub(super) round_rate: f64,
    pub(super) rounds: u32,
    /// Rounds whose masks are tried on the pre-training task itself, beside the dense network, random masks and those of one-shot
    /// pruning.
    pub(super) controls: Vec<u32>,
    pub(super) batch_size: usize,
    /// Labels of each class of a downstream draw.
    pub(super) labels: usize,
    pub(super) draws: u64,
    /// Steps of a downstream training.
    pub(super) fine_steps: u64,
    pub(super) test_images: usize,
    /// Rounds whose masks are transferred.
    pub(super) transferred: Vec<u32>,
    /// Rounds whose masks are found on the downstream task itself.
    pub(super) found: Vec<u32>,
    /// Training scenes, test scenes, steps, repeats, side of a scene; none where scenes are left out.
    pub(super) scenes: Option<[usize; 5]>,
    /// The feature map that segmentation and detection look at: the last, so that every pruned layer is in use.
    pub(super) tap: String,
}

impl Objective {
    pub(super) const ALL: [Self; 3] = [Self::Supervised, Self::SimClr, Self::MoCo];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Supervised => "supervised",
            Self::SimClr => "simclr",
            Self::MoCo => "moco",
        }
    }

    pub(super) fn pretraining(self) -> &'static str {
        match self {
            Self::Supervised => "supervised pre-training",
            Self::SimClr => "simclr pre-training",
            Self::MoCo => "moco pre-training",
        }
    }

    pub(super) fn transfer(self) -> &'static str {
        match self {
            Self::Supervised => "supervised transfer",
            Self::SimClr => "simclr transfer",
            Self::MoCo => "moco transfer",
        }
    }
}

/// Pre-trainings of each objective. No run depends on it, so that more of them leave finished ones valid.
pub(super) fn seeds(tier: Tier) -> u64 {
    if tier == Tier::Standard { 6 } else { 3 }
}

/// Seconds of a run on one core, roughly: the networks of a tier differ too much for steps to tell. A third of a
/// pre-training's are its controls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seconds {
    /// By objective: supervised, SimCLR, MoCo.
    pub(super) pretraining: [f64; 3],
    pub(super) transfer: f64,
    pub(super) scenes: f64,
    pub(super) fresh: f64,
}

impl Seconds {
    pub(super) fn of(tier: Tier) -> Self {
        match tier {
            Tier::Quick => Self { pretraining: [9.0, 14.0, 14.0], transfer: 17.0, scenes: 0.0, fresh: 11.0 },
            _ => Self { pretraining: [470.0, 600.0, 290.0], transfer: 230.0, scenes: 65.0, fresh: 90.0 },
        }
    }
}

impl Settings {
    /// The tier's settings; none where its data are not there.
    pub(super) fn of(ask: &Ask) -> anyhow::Result<Option<Self>> {
        let quick = Self {
            architecture: Architecture::ConvNet(ConvNetConfig {
                in_channels: 1,
                widths: vec![16, 32, 64, 64],
                classes: 5,
            }),
            images: ImageSet::grey(&ask.data)?,
            halved: true,
            objectives: vec![Objective::Supervised, Objective::SimClr],
            transfers: vec![Objective::Supervised],
            source: vec![0, 2, 4, 6, 5],
            target: vec![1, 3, 7, 8, 9],
            source_images: 6000,
            pretraining_steps: 250,
            round_steps: 30,
            round_rate: 0.05,
            rounds: 10,
            controls: vec![3, 4, 5, 10],
            batch_size: 64,
            labels: 10,
            draws: 3,
            fine_steps: 50,
            test_images: 1000,
            transferred: vec![3, 5, 10],
            found: vec![6, 10],
            scenes: None,
            tap: "conv4".to_owned(),
        };
        match ask.tier {
            Tier::Quick => Ok(Some(quick)),
            Tier::Standard => Ok(Some(Self::standard(&ask.data, quick)?)),
            Tier::Paper => Ok(None),
        }
    }

    fn standard(data: &DataRoot, quick: Self) -> anyhow::Result<Self> {
        let longer = Self {
            objectives: Objective::ALL.to_vec(),
            transfers: Objective::ALL.to_vec(),
            source_images: 15_000,
            pretraining_steps: 800,
            round_steps: 100,
            batch_size: 128,
            draws: 10,
            fine_steps: 120,
            test_images: 4000,
            transferred: vec![1, 3, 5, 6, 8, 10],
            scenes: Some([1000, 300, 200, 3, 64]),
            ..quick
        };
        let Some(images) = ImageSet::cifar(data)? else { return Ok(longer) };
        let network = ResNetConfig { widths: vec![8, 16, 32], ..ResNetConfig::cifar(20, 5)? };
        Ok(Self {
            architecture: Architecture::ResNet(network),
            images,
            halved: false,
            source_images: 5000,
            pretraining_steps: 300,
            round_steps: 30,
            draws: 4,
            labels: 50,
            fine_steps: 60,
            test_images: 1000,
            transferred: vec![3, 5, 10],
            scenes: Some([500, 200, 100, 3, 32]),
            tap: "layer3".to_owned(),
            ..longer
        })
    }

    /// As reports name it.
    pub(super) fn describe_data(&self) -> DataUse {
        let classes = |of: &[usize]| of.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let (train, test) = (self.source_images, self.test_images);
        let halves = format!(
            "about {train} training images and {test} test images of classes {}; few labels, and {test} test images, of \
             classes {}",
            classes(&self.source),
            classes(&self.target)
        );
        let DataUse { source, .. } = self.images.describe(train);
        DataUse { set: format!("{}, {halves}", self.images.name()), source }
    }

    /// Channels, height and width of an image.
    pub(super) fn image_shape(&self) -> [i64; 3] {
        let [channels, side] = match self.images {
            ImageSet::FashionMnist | ImageSet::Mnist | ImageSet::GeneratedGrey => [1, 28],
            ImageSet::Cifar10 | ImageSet::Cifar10Jpeg => [3, 32],
        };
        let side = if self.halved { side / 2 } else { side };
        [channels, side, side]
    }

    /// As many images of each class, about `count` in all: some sets are sorted by class.
    pub(super) fn some(set: &Dataset, count: usize) -> anyhow::Result<Dataset> {
        Ok(set.balanced(count / set.classes().len())?)
    }

    /// Training and test images of some classes, numbered anew.
    pub(super) fn images_of(&self, data: &DataRoot, classes: &[usize]) -> anyhow::Result<[Dataset; 2]> {
        // Of a generated set only what is used: half of its classes are the source's.
        let generated = self.images == ImageSet::GeneratedGrey;
        let splits = self.images.load(data, if generated { 2 * self.source_images } else { usize::MAX })?;
        let of = |set: &Dataset| -> anyhow::Result<Dataset> {
            let names: Vec<String> = classes.iter().map(|&class| set.classes()[class].clone()).collect();
            let set = set.only_classes(|name| names.iter().any(|wanted| wanted == name))?;
            if self.halved { halved(&set) } else { Ok(set) }
        };
        Ok([of(&splits.train)?, of(&splits.test)?])
    }

    /// The labels of one downstream draw.
    pub(super) fn draw(&self, train: &Dataset, seed: u64, draw: u64) -> anyhow::Result<Dataset> {
        let mut order: Vec<usize> = (0..train.targets().len()).collect();
        order.shuffle(&mut generator(seed, Purpose::Data, draw));
        let mut taken = vec![0; train.classes().len()];
        order.retain(|&position| {
            let count = &mut taken[train.targets()[position] as usize];
            *count += 1;
            *count <= self.labels
        });
        Ok(train.subset(&order)?)
    }
}

/// Images of half the height and width, each pixel the mean of four.
fn halved(set: &Dataset) -> anyhow::Result<Dataset> {
    let ImageShape { channels, height, width } = set.shape();
    let (rows, columns) = (height / 2, width / 2);
    let mut pixels = Vec::with_capacity(set.targets().len() * channels * rows * columns);
    for plane in set.pixels().chunks_exact(height * width) {
        for row in 0..rows {
            for column in 0..columns {
                let at = 2 * row * width + 2 * column;
                let sum: u32 = [at, at + 1, at + width, at + width + 1].iter().map(|&at| u32::from(plane[at])).sum();
                // The mean of four bytes, rounded.
                pixels.push(((sum + 2) / 4) as u8);
            }
        }
    }
    let shape = ImageShape::new(channels, rows, columns);
    Ok(Dataset::new(pixels, shape, set.targets().to_vec(), set.classes().to_vec(), set.origin())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halving_averages_four_pixels() {
        let set =
            Dataset::new(vec![0, 4, 10, 10, 8, 4, 10, 13], ImageShape::new(1, 2, 4), vec![0], vec!["a".into()], "x")
                .unwrap();
        let half = halved(&set).unwrap();
        assert_eq!(half.pixels(), [4, 11]);
        assert_eq!(half.shape(), ImageShape::new(1, 1, 2));
    }

    #[test]
    fn settings_survive_json_and_source_and_target_share_no_class() {
        let folder = tempfile::tempdir().unwrap();
        let ask = Ask { tier: Tier::Quick, seeds: None, device: crate::Device::Cpu, data: DataRoot::at(folder.path()) };
        for tier in [Tier::Quick, Tier::Standard] {
            let settings = Settings::of(&Ask { tier, ..ask.clone() }).unwrap().unwrap();
            let json = serde_json::to_string(&settings).unwrap();
            assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);
            assert!(settings.source.iter().all(|class| !settings.target.contains(class)));
            let mut rounds = settings.transferred.iter().chain(&settings.found).chain(&settings.controls);
            assert!(rounds.all(|round| *round <= settings.rounds));
        }
    }
}
