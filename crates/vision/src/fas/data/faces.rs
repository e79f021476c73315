//! Where sets say that the faces are: text with a line a frame.

use super::PixelBox;
use super::open::lines;
use crate::fas::error::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a line says, in pixels. Numbers are parted by commas or white space; what follows them is of no concern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// `frame, x, y, x, y` of the eyes: OULU-NPU.
    Eyes,
    /// `frame x y width height`: Replay-Attack.
    Box,
    /// `frame, left, top, right, bottom`: MSU-MFSD.
    Corners,
    /// `left top right bottom`, where the line's place is the frame's: SiW.
    PlainCorners,
}

/// A file with a video's faces.
#[derive(Debug, Clone)]
pub(super) struct FaceFile {
    pub(super) path: PathBuf,
    pub(super) line: Line,
}

impl FaceFile {
    /// `…/name.extension` beside `…/name/`.
    pub(super) fn beside(folder: &Path, extension: &str, line: Line) -> Self {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Self { path: folder.with_file_name(format!("{name}.{extension}")), line }
    }

    /// A box for each of a video's frames, or none at all without the file.
    ///
    /// A frame's number is the one that its name ends in or, unless all names end in numbers, its place in their order. A
    /// frame without a face in the file, or with one of no area, as sets write where they found none, has that of the
    /// nearest frame.
    ///
    /// # Errors
    /// [`Error::Parse`] with the line, [`Error::Unreadable`] where no frame has a face.
    pub(super) fn boxes(&self, frames: &[PathBuf]) -> Result<Vec<PixelBox>> {
        if !self.path.is_file() {
            return Ok(Vec::new());
        }
        let mut known: BTreeMap<u64, PixelBox> = BTreeMap::new();
        for (line, text) in lines(&self.path)? {
            let refuse = |reason: String| Error::Parse { file: self.path.clone(), line, reason };
            let (frame, face) = self.line.read(&text, line).map_err(refuse)?;
            if face.width > 0.0 && face.height > 0.0 {
                known.insert(frame, face);
            }
        }
        let named: Option<Vec<u64>> = frames.iter().map(|frame| number(frame)).collect();
        let numbers = named.unwrap_or_else(|| (0..frames.len() as u64).collect());
        let nearest = |wanted: u64| {
            let around = [known.range(..=wanted).next_back(), known.range(wanted..).next()];
            let closest = around.into_iter().flatten().min_by_key(|(frame, _)| frame.abs_diff(wanted));
            closest.map(|(_, face)| *face)
        };
        let boxes: Option<Vec<PixelBox>> = numbers.into_iter().map(nearest).collect();
        boxes.ok_or_else(|| Error::unreadable(&self.path, "no frame has a face"))
    }
}

impl Line {
    /// The frame's number and the box of a line, or why it has none.
    fn read(self, text: &str, line: usize) -> std::result::Result<(u64, PixelBox), String> {
        let mut words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        let frame = if self == Self::PlainCorners {
            // Lines count from 1.
            line as u64 - 1
        } else {
            let word = words.next().unwrap_or_default();
            word.parse().map_err(|_| format!("expected a frame's number, found `{word}`"))?
        };
        let numbers: Vec<f64> = words.map_while(|word| word.parse().ok()).take(4).collect();
        let &[a, b, c, d] = numbers.as_slice() else { return Err(format!("expected {self}, found `{text}`")) };
        let face = match self {
            Self::Eyes => around_eyes([a, b], [c, d]),
            Self::Box => PixelBox { x: a, y: b, width: c, height: d },
            Self::Corners | Self::PlainCorners => PixelBox { x: a, y: b, width: c - a, height: d - b },
        };
        if face.is_finite() { Ok((frame, face)) } else { Err(format!("expected a finite box, found `{text}`")) }
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Eyes => "`frame, x, y, x, y` of the eyes",
            Self::Box => "`frame x y width height`",
            Self::Corners => "`frame, left, top, right, bottom`",
            Self::PlainCorners => "`left top right bottom`",
        })
    }
}

/// The box of an upright face with its eyes at two places, by a mean face's measures: 138 mm wide, 194 mm high, eyes 62 mm
/// apart and 84 mm under the top. That is 2.2 times as wide and 3.1 times as high as the eyes are apart, and begins 1.35
/// times that above them.
fn around_eyes(one: [f64; 2], other: [f64; 2]) -> PixelBox {
    let apart = (one[0] - other[0]).hypot(one[1] - other[1]);
    let (width, height) = (2.2 * apart, 3.1 * apart);
    PixelBox { x: 0.5 * (one[0] + other[0] - width), y: 0.5 * (one[1] + other[1]) - 1.35 * apart, width, height }
}

/// The number that a file's name ends in.
fn number(frame: &Path) -> Option<u64> {
    let stem = frame.file_stem()?.to_str()?;
    stem[stem.trim_end_matches(|c: char| c.is_ascii_digit()).len()..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(line: Line, text: &str, frames: &[&str]) -> Result<Vec<PixelBox>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("faces");
        std::fs::write(&path, text).unwrap();
        FaceFile { path, line }.boxes(&frames.iter().map(PathBuf::from).collect::<Vec<_>>())
    }

    fn square(x: f64) -> PixelBox {
        PixelBox { x, y: 3.0, width: 5.0, height: 5.0 }
    }

    #[test]
    fn every_form_of_line_gives_its_box() {
        for (line, text) in [
            (Line::Box, "0 2 3 5 5"),
            (Line::Corners, "0,2,3,7,8,4,5,6,5"),
            (Line::Corners, "0, 2, 3, 7, 8"),
            (Line::PlainCorners, "2 3 7 8"),
        ] {
            assert_eq!(boxes(line, text, &["0.png"]).unwrap(), [square(2.0)], "{text}");
        }
        // Eyes 20 apart around (50, 50): 44 wide, 62 high, from 27 above.
        let face = boxes(Line::Eyes, "0,40,50,60,50", &["0.png"]).unwrap()[0];
        let expected = [28.0, 23.0, 44.0, 62.0];
        let found = [face.x, face.y, face.width, face.height];
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-9), "{found:?}");
    }

    #[test]
    fn frames_are_found_by_number_and_take_the_nearest_face() {
        let text = "3 1 3 5 5\n4 0 0 0 0\n9 2 3 5 5\n";
        let found = |frames: &[&str]| -> Vec<f64> {
            boxes(Line::Box, text, frames).unwrap().iter().map(|face| face.x).collect()
        };
        // 4 has no face and is nearer to 3; 7 is nearer to 9.
        assert_eq!(found(&["v/frame3.png", "v/frame4.png", "v/frame7.png", "v/frame12.png"]), [1.0, 1.0, 2.0, 2.0]);
        // Not all have numbers, so places count: 0 and 1.
        assert_eq!(found(&["a.png", "b9.png"]), [1.0, 1.0]);
        let plain = boxes(Line::PlainCorners, "0 0 0 0\n\n1 3 6 8\n2 3 7 8\n", &["0.png", "2.png", "3.png"]).unwrap();
        // Lines 1 to 4 are frames 0 to 3, of which the first two have no face.
        assert_eq!(plain, [square(1.0), square(1.0), square(2.0)]);
    }

    #[test]
    fn lines_that_say_nothing_are_refused_by_number() {
        for (line, text, at) in [
            (Line::Box, "0 2 3 5 5\n1 2 3 5", 2),
            (Line::Box, "-1 2 3 5 5", 1),
            (Line::Eyes, "0,1,2,inf,4", 1),
            (Line::Corners, "0;1;2;3;4", 1),
            (Line::PlainCorners, "1 2 three 4", 1),
        ] {
            let refused = boxes(line, text, &["0.png"]);
            assert!(matches!(refused, Err(Error::Parse { line, .. }) if line == at), "{text}: {refused:?}");
        }
        let nobody = boxes(Line::Eyes, "0,0,0,0,0\n", &["0.png"]);
        assert!(matches!(nobody, Err(Error::Unreadable { .. })), "{nobody:?}");
        let absent = FaceFile { path: "nowhere".into(), line: Line::Eyes };
        assert!(absent.boxes(&["0.png".into()]).unwrap().is_empty());
    }
}
