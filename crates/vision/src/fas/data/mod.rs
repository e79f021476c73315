//! Published data sets as their authors lay them out, and protocols on generated domains.
//!
//! Video sets are read from frames extracted beforehand: where a set has `…/name.avi`, there is a folder `…/name/` with
//! frames as PNG or JPEG files that sort in their order in time. Each set needs a licence signed with its owners; none is
//! part of this project.

mod celeba_spoof;
mod open;
mod protocol;

pub use celeba_spoof::celeba_spoof;
pub use open::{Fold, casia_mfsd, msu_mfsd, oulu_npu, replay_attack, siw, siw_m};
pub use protocol::{Protocol, SplitPlan};

use super::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Which part of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// For training.
    Train,
    /// For choosing thresholds.
    Dev,
    /// For reporting.
    Test,
}

/// A presentation: a video's frames, or a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presentation {
    /// Its name in the set.
    pub name: String,
    /// Frames in the order of time.
    pub frames: Vec<PathBuf>,
    /// Whether a living person was in front of the camera.
    pub bona_fide: bool,
    /// Species with its instrument, such as `print/2`; `None` for bona fide.
    pub species: Option<String>,
    /// Who, in the set's own words.
    pub subject: String,
}

/// Which frames of a video are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frames {
    /// All.
    All,
    /// Frame 6, as cross-database trainings have it.
    One,
    /// Frames 6 and 6 + ⌊n / 2⌋, as cross-database tests have it.
    Two,
    /// This many, evenly spread.
    Evenly(usize),
}

impl Frames {
    /// Positions among `count` frames, clipped to the last.
    pub fn of(self, count: usize) -> Vec<usize> {
        let Some(last) = count.checked_sub(1) else { return Vec::new() };
        match self {
            Self::All => (0..count).collect(),
            Self::One => vec![6.min(last)],
            Self::Two => vec![6.min(last), (6 + count / 2).min(last)],
            Self::Evenly(wanted) => {
                let wanted = wanted.min(count);
                (0..wanted).map(|k| (2 * k + 1) * count / (2 * wanted)).collect()
            }
        }
    }
}

/// A box in pixels of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PixelBox {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl PixelBox {
    /// Reads the numbers of a line; `scale` turns them into pixels of each axis.
    ///
    /// # Errors
    /// [`Error::Parse`] for fewer than four numbers, [`Error::BoxOutside`] for a box that is not finite or does not overlap
    /// the frame.
    pub(crate) fn parse(text: &str, file: &Path, frame: (u32, u32), scale: [f64; 2]) -> Result<Self> {
        let numbers: Vec<f64> = text.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [x, y, width, height] =
            numbers.get(..4).and_then(|four| <[f64; 4]>::try_from(four).ok()).ok_or_else(|| Error::Parse {
                file: file.into(),
                line: 1,
                reason: format!("expected x y width height, found `{}`", text.trim()),
            })?;
        let found = Self { x: x * scale[0], y: y * scale[1], width: width * scale[0], height: height * scale[1] };
        let overlaps = found.is_finite()
            && found.width > 0.0
            && found.height > 0.0
            && found.x < f64::from(frame.0)
            && found.y < f64::from(frame.1)
            && found.x + found.width > 0.0
            && found.y + found.height > 0.0;
        if overlaps {
            Ok(found)
        } else {
            Err(Error::BoxOutside { file: file.into(), found: format!("{found:?}"), frame })
        }
    }

    /// Whether all four numbers are.
    pub(crate) fn is_finite(self) -> bool {
        [self.x, self.y, self.width, self.height].into_iter().all(f64::is_finite)
    }

    /// Cut to the frame.
    #[must_use]
    pub fn clipped(self, frame: (u32, u32)) -> Self {
        let (x, y) = (self.x.max(0.0), self.y.max(0.0));
        let (right, bottom) =
            ((self.x + self.width).min(f64::from(frame.0)), (self.y + self.height).min(f64::from(frame.1)));
        Self { x, y, width: right - x, height: bottom - y }
    }
}

/// Refuses people who are in both of two splits.
///
/// # Errors
/// [`Error::IdentityLeak`], naming all of them.
pub fn check_disjoint<'a>(
    one: impl IntoIterator<Item = &'a str>,
    other: impl IntoIterator<Item = &'a str>,
) -> Result<()> {
    let (one, other): (BTreeSet<&str>, BTreeSet<&str>) = (one.into_iter().collect(), other.into_iter().collect());
    let ids: Vec<String> = one.intersection(&other).map(|id| (*id).to_owned()).collect();
    if ids.is_empty() { Ok(()) } else { Err(Error::IdentityLeak { ids }) }
}

/// A picture as 8-bit RGB.
///
/// # Errors
/// [`Error::Unreadable`], naming the file.
pub fn read_frame(path: &Path) -> Result<image::RgbImage> {
    Ok(core_tensor::data::decode_image(path).map_err(|error| Error::unreadable(path, error))?.into_rgb8())
}

/// Folders (or with `files`, pictures) directly in a folder, sorted.
fn listing(folder: &Path, files: bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder, "list"))? {
        let path = entry.map_err(Error::io(folder, "list"))?.path();
        let known =
            |extension: &OsStr| ["png", "jpg", "jpeg"].iter().any(|known| extension.eq_ignore_ascii_case(known));
        let picture = path.extension().is_some_and(known);
        let wanted = if files { picture && path.is_file() } else { path.is_dir() };
        if wanted {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Collects presentations and what is missing, so that all of it is reported at once.
#[derive(Default)]
struct Gathering {
    found: Vec<Presentation>,
    missing: Vec<PathBuf>,
}

impl Gathering {
    fn add(&mut self, folder: &Path, name: &str, species: Option<String>, subject: String) -> Result<()> {
        if !folder.is_dir() {
            self.missing.push(folder.into());
            return Ok(());
        }
        let frames = listing(folder, true)?;
        if frames.is_empty() {
            self.missing.push(folder.join("*.png"));
            return Ok(());
        }
        self.found.push(Presentation { name: name.into(), frames, bona_fide: species.is_none(), species, subject });
        Ok(())
    }

    /// # Errors
    /// [`Error::MissingFiles`] and [`Error::EmptyClass`].
    fn finish(self) -> Result<Vec<Presentation>> {
        if !self.missing.is_empty() {
            return Err(Error::MissingFiles { files: self.missing });
        }
        for (class, live) in [("bona fide", true), ("attack", false)] {
            if !self.found.iter().any(|presentation| presentation.bona_fide == live) {
                return Err(Error::EmptyClass { class });
            }
        }
        Ok(self.found)
    }
}

#[cfg(test)]
mod tests;
