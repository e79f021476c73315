//! Whether a set is there: at a glance (files exist) or in earnest (every byte).

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::catalogue::{DataSet, Layout, PinnedFile};
use crate::digest;

/// What was found of a set below a data root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Complete in this layout's folder. `pinned` says whether checksums can vouch for it.
    Present {
        layout: String,
        folder: PathBuf,
        pinned: bool,
    },
    /// An archive is there that `data fetch` can unpack.
    Packed {
        archive: PathBuf,
    },
    /// Something is there, but not what it should be.
    Broken {
        reason: String,
    },
    Absent,
}

/// Looks whether the files exist, without reading them.
pub(crate) fn glance(set: &DataSet, root: &Path) -> State {
    find(set, root, |layout, folder| match layout {
        Layout::Files { files, .. } => files.iter().try_for_each(|file| existing(folder, file).map(|_| ())),
        Layout::Images { classes, splits, .. } => splits
            .keys()
            .flat_map(|split| classes.iter().map(move |class| folder.join(split).join(class)))
            .try_for_each(|path| exists(&path)),
        Layout::User { expect, .. } => expect.iter().try_for_each(|name| exists(&folder.join(name))),
    })
}

/// Reads everything and compares it with the pins.
pub(crate) fn verify(set: &DataSet, root: &Path) -> State {
    find(set, root, verify_layout)
}

fn find(set: &DataSet, root: &Path, check: impl Fn(&Layout, &Path) -> Result<()>) -> State {
    let mut broken = None;
    for layout in &set.layouts {
        let folder = root.join(layout.folder());
        match check(layout, &folder) {
            Ok(()) if folder.is_dir() => {
                let pinned = matches!(layout, Layout::Files { .. });
                return State::Present { layout: layout.title().to_owned(), folder, pinned };
            }
            Ok(()) => {}
            Err(error) => {
                if folder.is_dir() && broken.is_none() {
                    broken = Some(format!("{error:#}"));
                }
            }
        }
    }
    if let Some(archive) = packed(set, root) {
        return State::Packed { archive };
    }
    broken.map_or(State::Absent, |reason| State::Broken { reason })
}

/// An image archive in `folder` or in the set's own folder below it.
pub(super) fn packed(set: &DataSet, folder: &Path) -> Option<PathBuf> {
    set.layouts.iter().find_map(|layout| match layout {
        Layout::Images { archive, .. } => {
            [folder.join(archive), folder.join(&set.name).join(archive)].into_iter().find(|path| path.is_file())
        }
        _ => None,
    })
}

/// Checks a layout that lies in `folder`, byte by byte.
pub(super) fn verify_layout(layout: &Layout, folder: &Path) -> Result<()> {
    match layout {
        Layout::Files { files, .. } => {
            for file in files {
                verify_file(&existing(folder, file)?, file)?;
            }
        }
        Layout::Images { classes, splits, .. } => {
            for (split, count) in splits {
                for class in classes {
                    verify_images(&folder.join(split).join(class), *count)?;
                }
            }
        }
        Layout::User { expect, .. } => {
            for name in expect {
                exists(&folder.join(name))?;
            }
        }
    }
    Ok(())
}

/// The pinned file in `folder`, compressed or not: loaders read both.
pub(super) fn existing(folder: &Path, file: &PinnedFile) -> Result<PathBuf> {
    let named = folder.join(&file.name);
    let plain = file.name.strip_suffix(".gz").map(|stem| folder.join(stem));
    match plain {
        _ if named.is_file() => Ok(named),
        Some(plain) if plain.is_file() => Ok(plain),
        _ => bail!("{} is missing", named.display()),
    }
}

pub(super) fn verify_file(path: &Path, file: &PinnedFile) -> Result<()> {
    let found = digest::of_content(path)?;
    if found != file.sha256 {
        bail!("{} is not the published file: expected SHA-256 {}, found {found}", path.display(), file.sha256);
    }
    Ok(())
}

fn exists(path: &Path) -> Result<()> {
    if !path.exists() {
        bail!("{} is missing", path.display());
    }
    Ok(())
}

fn verify_images(folder: &Path, count: usize) -> Result<()> {
    let mut found = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("{} is missing", folder.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "jpg") {
            if !is_jpeg(&path).with_context(|| format!("cannot read {}", path.display()))? {
                bail!("{} is not a whole JPEG file", path.display());
            }
            found += 1;
        }
    }
    if found != count {
        bail!("{} holds {found} images, expected {count}", folder.display());
    }
    Ok(())
}

/// A JPEG file begins with the marker SOI (FF D8) and ends with EOI (FF D9), ITU-T T.81, annex B.
fn is_jpeg(path: &Path) -> std::io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() < 4 {
        return Ok(false);
    }
    let (mut begin, mut end) = ([0; 2], [0; 2]);
    file.read_exact(&mut begin)?;
    file.seek(SeekFrom::End(-2))?;
    file.read_exact(&mut end)?;
    Ok(begin == [0xff, 0xd8] && end == [0xff, 0xd9])
}
