//! CelebA-Spoof: pictures with 44 numbers each.

use super::{PixelBox, Presentation, stays_below};
use crate::fas::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// Species by the number at position 40.
const SPECIES: [&str; 11] = [
    "live",
    "print/photo",
    "print/poster",
    "print/a4",
    "mask/face",
    "mask/upper-body",
    "mask/region",
    "replay/pc",
    "replay/pad",
    "replay/phone",
    "mask/3d",
];

/// Reads a label file, JSON from a picture's path to 44 whole numbers, and the box beside each picture
/// (`<picture>_BB.txt`: `x y width height score` in 224ths of each axis). An attack's light is that of its numbers 41
/// and 42, the illumination and the environment, such as `2/1`; of living people both say 0, live, and nobody knows
/// which camera it was.
///
/// # Errors
/// [`Error::Unreadable`] for a file of another form, naming the picture; [`Error::MissingFiles`] with all pictures and
/// boxes that are not there; [`Error::Parse`] and [`Error::BoxOutside`] for their boxes; [`Error::EmptyClass`].
pub fn celeba_spoof(root: &Path, labels: &Path) -> Result<Vec<Presentation>> {
    if !labels.is_file() {
        return Err(Error::MissingFiles { files: vec![labels.into()] });
    }
    let text = std::fs::read_to_string(labels).map_err(Error::io(labels, "read"))?;
    let table: BTreeMap<String, Vec<i64>> =
        serde_json::from_str(&text).map_err(|error| Error::unreadable(labels, error))?;
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for (name, numbers) in table {
        let refuse = |reason: String| Error::unreadable(labels, format!("`{name}`: {reason}"));
        if !stays_below(&name) {
            return Err(refuse("expected a path below the data folder".into()));
        }
        // `Data/train/<subject>/live/000001.jpg`.
        let subject = Path::new(&name).iter().rev().nth(2).map(|part| part.to_string_lossy().into_owned());
        let subject = subject.ok_or_else(|| refuse("expected `…/<person>/<live or spoof>/<picture>`".into()))?;
        if numbers.len() != 44 {
            return Err(refuse(format!("expected 44 numbers, found {}", numbers.len())));
        }
        let species = usize::try_from(numbers[40]).ok().and_then(|at| SPECIES.get(at));
        let species =
            *species.ok_or_else(|| refuse(format!("expected a spoof type from 0 to 10, found {}", numbers[40])))?;
        let live = match numbers[43] {
            0 => true,
            1 => false,
            other => return Err(refuse(format!("expected 0 (live) or 1 (spoof), found {other}"))),
        };
        if live != (species == "live") {
            return Err(refuse(format!("label {} does not fit spoof type {}", numbers[43], numbers[40])));
        }
        let picture = root.join(&name);
        let beside = picture.with_file_name(format!(
            "{}_BB.txt",
            picture.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
        ));
        let absent: Vec<_> = [&picture, &beside].into_iter().filter(|file| !file.is_file()).cloned().collect();
        if !absent.is_empty() {
            missing.extend(absent);
            continue;
        }
        let frame = image::image_dimensions(&picture).map_err(|error| Error::unreadable(&picture, error))?;
        let text = std::fs::read_to_string(&beside).map_err(Error::io(&beside, "read"))?;
        let scale = [f64::from(frame.0) / 224.0, f64::from(frame.1) / 224.0];
        let face = PixelBox::parse(&text, &beside, frame, scale)?;
        let light = (numbers[41], numbers[42]);
        found.push(Presentation {
            camera: None,
            light: (light != (0, 0)).then(|| format!("{}/{}", light.0, light.1)),
            set: "celeba-spoof".into(),
            frames: vec![picture],
            faces: vec![face],
            bona_fide: live,
            species: (!live).then(|| species.to_owned()),
            subject,
            name,
        });
    }
    if !missing.is_empty() {
        return Err(Error::MissingFiles { files: missing });
    }
    for (class, live) in [("bona fide", true), ("attack", false)] {
        if !found.iter().any(|presentation| presentation.bona_fide == live) {
            return Err(Error::EmptyClass { class });
        }
    }
    Ok(found)
}
