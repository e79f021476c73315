//! Readers of published formats, generators, augmentation, and the prefetching batch loader.
//!
//! A reader makes a [`Dataset`]; a [`Loader`] walks through it epoch by epoch, applies an [`Augmentation`] and yields
//! [`Batch`]es. Everything random is fixed by a seed, the epoch and a sample's position.

mod augment;
mod batch;
mod cifar;
mod dataset;
mod decode;
mod generator;
mod idx;
mod image_folder;
mod loader;
mod omniglot;
mod on_device;
mod prefetch;
mod resample;
mod samples;
mod statistics;

pub use augment::{Augmentation, Draw, Pipeline, Transform};
pub use batch::{Batch, BatchSource};
pub use cifar::{cifar10, cifar100, read_cifar10, read_cifar100};
pub use dataset::{Dataset, Splits};
pub use decode::decode_image;
pub use generator::ShapeGenerator;
pub use idx::{IdxArray, fashion_mnist, mnist, parse_idx, read_idx, read_labelled};
pub use image_folder::{Framing, ImageFolder, image_folders};
pub use loader::{Loader, LoaderConfig, shuffled};
pub use omniglot::{OmniglotSide, omniglot};
pub use on_device::{OnDevice, ToDevice};
pub use prefetch::prefetch;
pub(crate) use prefetch::until_failure;
pub use samples::{Image, ImageShape, Samples};
pub use statistics::ChannelStatistics;
