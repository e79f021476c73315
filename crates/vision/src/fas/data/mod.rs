//! Published data sets as their authors lay them out, and protocols on generated domains.
//!
//! Video sets are read from frames extracted beforehand: where a set has `…/name.avi`, there is a folder `…/name/` with
//! frames as PNG or JPEG files that sort in their order in time. Files that say where the faces are stay where the set
//! has them, beside the videos. Each set needs a licence signed with its owners; none is part of this project.
//!
//! A reader makes [`Presentation`]s, which [`FasData::from_presentations`](super::model::FasData::from_presentations)
//! cuts out and makes a training or test set of.

mod celeba_spoof;
mod crop;
mod faces;
mod open;
mod protocol;

pub use celeba_spoof::celeba_spoof;
pub use crop::Crop;
pub use open::{Fold, casia_mfsd, msu_mfsd, oulu_npu, replay_attack, siw, siw_m};
pub use protocol::{Protocol, SplitPlan};

use super::error::{Error, Result};
use faces::FaceFile;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

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
#[derive(Debug, Clone, PartialEq)]
pub struct Presentation {
    /// The set, such as `oulu-npu`. People of two sets are two people, whatever they are called there.
    pub set: String,
    /// Its name in the set; no other presentation of the set has it.
    pub name: String,
    /// Frames in the order of time.
    pub frames: Vec<PathBuf>,
    /// Where the face is, a box a frame; empty where the set does not say.
    pub faces: Vec<PixelBox>,
    /// Whether a living person was in front of the camera.
    pub bona_fide: bool,
    /// Species with its instrument, such as `print/2`; `None` for bona fide.
    pub species: Option<String>,
    /// Who, in the set's own words.
    pub subject: String,
    /// With which camera it was taken, in the set's own words; `None` where the reader does not know.
    pub camera: Option<String>,
    /// In what light or session, likewise.
    pub light: Option<String>,
}

impl Presentation {
    /// A number for its person: the same in every part of the set, whoever asks.
    pub(crate) fn person(&self) -> u32 {
        let hash = hashed(&self.set, &self.subject);
        (hash >> 32) as u32 ^ hash as u32
    }

    /// A number for its recording.
    pub(crate) fn video(&self) -> u64 {
        hashed(&self.set, &self.name)
    }
}

/// FNV-1a of two names, which gives no two people of the published sets one number.
fn hashed(set: &str, name: &str) -> u64 {
    let bytes = set.bytes().chain([0]).chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Which frames of a video are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Frames {
    /// All.
    All,
    /// The first so many, as SiW's first protocol trains on 60.
    First(usize),
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
            Self::First(wanted) => (0..wanted.min(count)).collect(),
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
    /// [`Error::Parse`] for fewer than four numbers, [`Error::BoxOutside`] for a box that is not finite or does not
    /// overlap the frame.
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

/// Refuses people who are in both of two parts.
///
/// # Errors
/// [`Error::IdentityLeak`], naming all of them with their sets.
pub fn check_disjoint(one: &[Presentation], other: &[Presentation]) -> Result<()> {
    let (one, other) = (people(one), people(other));
    let ids: Vec<String> = one.intersection(&other).map(|(set, subject)| format!("{set}/{subject}")).collect();
    if ids.is_empty() { Ok(()) } else { Err(Error::IdentityLeak { ids }) }
}

fn people(part: &[Presentation]) -> BTreeSet<(&str, &str)> {
    part.iter().map(|one| (one.set.as_str(), one.subject.as_str())).collect()
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

/// Whether a name from a list leads to something below the folder that it is joined to, and nowhere else.
fn stays_below(name: &str) -> bool {
    let mut parts = Path::new(name).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// Collects presentations of a set and what is missing, so that all of it is reported at once.
struct Gathering {
    set: &'static str,
    found: Vec<Presentation>,
    missing: Vec<PathBuf>,
}

impl Gathering {
    fn of(set: &'static str) -> Self {
        Self { set, found: Vec::new(), missing: Vec::new() }
    }

    /// A video's folder of frames with, where the set has one, the file of its faces.
    fn add(
        &mut self,
        folder: &Path,
        name: &str,
        species: Option<String>,
        subject: String,
        faces: Option<FaceFile>,
    ) -> Result<()> {
        if !folder.is_dir() {
            self.missing.push(folder.into());
            return Ok(());
        }
        let frames = listing(folder, true)?;
        if frames.is_empty() {
            self.missing.push(folder.join("*.png"));
            return Ok(());
        }
        let faces = faces.map_or(Ok(Vec::new()), |file| file.boxes(&frames))?;
        let (set, name, bona_fide) = (self.set.into(), name.into(), species.is_none());
        let (camera, light) = (None, None);
        self.found.push(Presentation { set, name, frames, faces, bona_fide, species, subject, camera, light });
        Ok(())
    }

    /// Says in what conditions the presentation that was added last was taken.
    fn taken(&mut self, name: &str, camera: &str, light: &str) {
        // A missing one is not there to be described.
        if let Some(last) = self.found.last_mut().filter(|last| last.name == name) {
            (last.camera, last.light) = (Some(camera.into()), Some(light.into()));
        }
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
