//! The data sets of metric learning in their published layouts, split by class as published.
//!
//! A reader lists files and labels; [`ImageList`] decodes them when asked for, in colour, whatever their size, so that
//! an augmentation with [`Transform::ResizedCrop`](core_tensor::data::Transform) and a loader complete it for training,
//! and [`ImageList::framed`] for retrieval, which no chance should decide. No class is on both sides of a split. For
//! sets that are in memory, [`class_split`] does the same.

mod cars;
mod cub;
mod in_shop;
mod list;
mod products;

pub use cars::cars196;
pub use cub::cub200;
pub use in_shop::{InShop, in_shop};
pub use list::ImageList;
pub use products::stanford_online_products;

use super::{Error, Result};
use core_tensor::data::Dataset;
use std::path::Path;

/// Training and test images of different classes; labels are numbered anew on each side.
#[derive(Debug)]
pub struct ClassSplit<S = ImageList> {
    /// To learn from.
    pub train: S,
    /// To retrieve in.
    pub test: S,
}

/// The first `train_classes` classes of a set for training, the others for testing: 50 and 50 of CIFAR-100, five and
/// five of Fashion-MNIST. All images of a set belong into `set`, whichever half they were published in.
///
/// # Errors
/// No class left on one side, or a side without images.
pub fn class_split(set: &Dataset, train_classes: usize) -> Result<ClassSplit<Dataset>> {
    let classes = set.classes();
    if train_classes == 0 || train_classes >= classes.len() {
        let expected = format!("1 to {}, so that both sides have classes", classes.len().saturating_sub(1));
        return Err(Error::setting("train_classes", expected, train_classes));
    }
    let first: std::collections::HashSet<&str> = classes[..train_classes].iter().map(String::as_str).collect();
    let train = set.only_classes(|name| first.contains(name))?;
    Ok(ClassSplit { train, test: set.only_classes(|name| !first.contains(name))? })
}

/// Reads a list of a data set, or says what is missing.
fn read_list(set: &'static str, path: &Path, expected: &'static str) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::DataMissing { set, path: path.to_path_buf(), expected },
        _ => core_tensor::Error::io(path, "read")(error).into(),
    })
}

fn list_error(path: &Path, line: usize, reason: impl Into<String>) -> Error {
    Error::List { path: path.to_path_buf(), line, reason: reason.into() }
}

#[cfg(test)]
mod tests;
