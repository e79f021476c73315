//! Labelled image sets as runs name them: read from files where these are, generated otherwise.

use crate::{DataRoot, DataSource, DataUse};
use core_tensor::data::{
    Augmentation, ChannelStatistics, Framing, ImageFolder, Samples, ShapeGenerator, Splits, Transform, cifar10,
    fashion_mnist, image_folders, mnist,
};
use serde::{Deserialize, Serialize};

/// A set and where it comes from; part of a run's description, so that a substitute is another run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ImageSet {
    /// 60,000 and 10,000 grey images of 28 × 28.
    FashionMnist,
    /// As many grey images of handwritten digits.
    Mnist,
    /// Shapes in the format of Fashion-MNIST.
    GeneratedGrey,
    /// 50,000 and 10,000 colour images of 32 × 32, the published binary files.
    Cifar10,
    /// The same from a copy stored as JPEG files, slightly lossy.
    Cifar10Jpeg,
}

/// The seed of generated sets: like a published set, they are the same for every run.
const GENERATOR_SEED: u64 = 2021;

/// Whether a set in MNIST's layout is there, gzipped as it is published or plain.
fn idx(data: &DataRoot, folder: &str) -> anyhow::Result<bool> {
    let plain = ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte"];
    let gz = plain.map(|name| format!("{name}.gz"));
    Ok(data.find(folder, &gz.each_ref().map(String::as_str))?.is_some() || data.find(folder, &plain)?.is_some())
}

impl ImageSet {
    /// Fashion-MNIST, or generated shapes in its format.
    pub(crate) fn grey(data: &DataRoot) -> anyhow::Result<Self> {
        Ok(if idx(data, "fashion-mnist")? { Self::FashionMnist } else { Self::GeneratedGrey })
    }

    /// MNIST, where it is there.
    pub(crate) fn digits(data: &DataRoot) -> anyhow::Result<Option<Self>> {
        Ok(idx(data, "mnist")?.then_some(Self::Mnist))
    }

    /// CIFAR-10 in whichever form is there.
    pub(crate) fn cifar(data: &DataRoot) -> anyhow::Result<Option<Self>> {
        if data.find("cifar-10-batches-bin", &["data_batch_1.bin", "test_batch.bin"])?.is_some() {
            return Ok(Some(Self::Cifar10));
        }
        Ok(data.find("cifar-10-jpeg", &[])?.map(|_| Self::Cifar10Jpeg))
    }

    /// The set's first `train` training images (with as many of each class, for CIFAR) and all test images.
    pub(crate) fn load(self, data: &DataRoot, train: usize) -> anyhow::Result<Splits> {
        let folder = |name: &str| data.path().join(name);
        let all = match self {
            Self::FashionMnist => fashion_mnist(&folder("fashion-mnist"))?,
            Self::Mnist => mnist(&folder("mnist"))?,
            Self::GeneratedGrey => ShapeGenerator::fashion_mnist().splits(train, 10_000, GENERATOR_SEED)?,
            Self::Cifar10 => cifar10(&folder("cifar-10-batches-bin"))?,
            Self::Cifar10Jpeg => image_folders(&folder("cifar-10-jpeg"), Framing::Same, "CIFAR-10 (JPEG)")?,
        };
        if train >= all.train.len() {
            return Ok(all);
        }
        let train = match self {
            Self::FashionMnist | Self::Mnist | Self::GeneratedGrey => all.train.take(train)?,
            Self::Cifar10 | Self::Cifar10Jpeg => all.train.balanced(train / all.train.classes().len())?,
        };
        Ok(Splits { train, test: all.test })
    }

    /// Pixels to zero mean and unit variance by the published statistics.
    pub(crate) fn normalise(self) -> Transform {
        match self {
            Self::FashionMnist | Self::GeneratedGrey => ChannelStatistics::fashion_mnist(),
            Self::Mnist => ChannelStatistics::mnist(),
            Self::Cifar10 | Self::Cifar10Jpeg => ChannelStatistics::cifar10(),
        }
        .normalise()
    }

    /// Pad by 4 and crop, flip, normalise: the usual CIFAR augmentation. Digits are not flipped.
    pub(crate) fn crop_and_flip(self) -> Augmentation {
        let probability = if self == Self::Mnist { 0.0 } else { 0.5 };
        let flip = Transform::HorizontalFlip { probability };
        Augmentation::new([Transform::PadCrop { padding: 4 }, flip, self.normalise()])
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FashionMnist => "Fashion-MNIST",
            Self::Mnist => "MNIST",
            Self::GeneratedGrey => "generated shapes in place of Fashion-MNIST",
            Self::Cifar10 => "CIFAR-10",
            Self::Cifar10Jpeg => "CIFAR-10 (JPEG)",
        }
    }

    /// For the report.
    pub(crate) fn describe(self, train: usize) -> DataUse {
        let source = if self == Self::GeneratedGrey { DataSource::Generator } else { DataSource::Files };
        DataUse { set: format!("{}, {train} training images, 10000 test images", self.name()), source }
    }
}

/// The folder of ImageNet, `train/<class>/*.JPEG` and `val/<class>/*.JPEG`, decoded when asked for.
pub(crate) fn imagenet(data: &DataRoot, split: &str, framing: Framing) -> anyhow::Result<ImageFolder> {
    Ok(ImageFolder::open(&data.path().join("imagenet").join(split), framing, "ImageNet")?)
}
