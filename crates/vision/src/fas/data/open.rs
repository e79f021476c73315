//! The video sets.

use super::faces::{FaceFile, Line};
use super::{Gathering, Presentation, Split, listing, stays_below};
use crate::fas::error::{Error, Result};
use std::path::Path;

/// A protocol of a set and, where it has several, its fold from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fold {
    /// The protocol, from 1.
    pub protocol: u8,
    /// The fold, from 1; `None` where the protocol has one only.
    pub fold: Option<u8>,
}

fn bad_protocol(found: impl std::fmt::Debug, expected: &'static str) -> Error {
    Error::BadProtocol { found: format!("{found:?}"), expected }
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Lines of a list with their numbers, empty ones left out.
pub(super) fn lines(file: &Path) -> Result<Vec<(usize, String)>> {
    if !file.is_file() {
        return Err(Error::MissingFiles { files: vec![file.into()] });
    }
    let text = std::fs::read_to_string(file).map_err(Error::io(file, "read"))?;
    let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim().to_owned()));
    Ok(numbered.filter(|(_, line)| !line.is_empty()).collect())
}

/// OULU-NPU: lists `Protocols/Protocol_k/{Train,Dev,Test}[_fold].txt` of `label,Phone_Session_User_File` lines, videos
/// in `{Train,Dev,Test}_files/`. Files 1 are live, 2 and 3 prints, 4 and 5 replays. Phones are cameras, sessions
/// lights.
///
/// Faces come from the eyes in `<video>.txt` beside the video, `frame,x,y,x,y` lines: the box is 2.2 times as wide and
/// 3.1 times as high as the eyes are apart, and begins 1.35 times that above them.
///
/// # Errors
/// [`Error::BadProtocol`] for anything but protocols 1, 2 without and 3, 4 with folds 1 to 6; [`Error::Parse`] with the
/// line; [`Error::MissingFiles`] with all videos that are not there; [`Error::Unreadable`] for eyes in no frame of a
/// video.
pub fn oulu_npu(root: &Path, fold: Fold, split: Split) -> Result<Vec<Presentation>> {
    let suffix = match fold {
        Fold { protocol: 1 | 2, fold: None } => String::new(),
        Fold { protocol: 3 | 4, fold: Some(k @ 1..=6) } => format!("_{k}"),
        other => return Err(bad_protocol(other, "1 or 2 without a fold, 3 or 4 with a fold from 1 to 6")),
    };
    let part = match split {
        Split::Train => "Train",
        Split::Dev => "Dev",
        Split::Test => "Test",
    };
    let list = root.join(format!("Protocols/Protocol_{}/{part}{suffix}.txt", fold.protocol));
    let mut gathering = Gathering::of("oulu-npu");
    for (line, text) in lines(&list)? {
        let refuse = |reason: String| Error::Parse { file: list.clone(), line, reason };
        let (label, name) =
            text.split_once(',').ok_or_else(|| refuse(format!("expected `label,name`, found `{text}`")))?;
        let label: i32 =
            label.trim().parse().map_err(|_| refuse(format!("expected a whole number as label, found `{label}`")))?;
        let fields: Vec<&str> = name.trim().split('_').collect();
        let (&[phone, session, user, file], true) = (fields.as_slice(), stays_below(name.trim())) else {
            return Err(refuse(format!("expected `Phone_Session_User_File`, found `{name}`")));
        };
        let species = match file {
            "1" => None,
            "2" | "3" => Some(format!("print/{file}")),
            "4" | "5" => Some(format!("replay/{file}")),
            other => return Err(refuse(format!("expected a file type from 1 to 5, found `{other}`"))),
        };
        if (label > 0) != species.is_none() {
            return Err(refuse(format!("label {label} does not fit file type {file}")));
        }
        let folder = root.join(format!("{part}_files")).join(name.trim());
        let eyes = FaceFile::beside(&folder, "txt", Line::Eyes);
        gathering.add(&folder, name.trim(), species, user.into(), Some(eyes))?;
        gathering.taken(name.trim(), phone, session);
    }
    gathering.finish()
}

/// Replay-Attack: `{train,devel,test}/{real,attack/fixed,attack/hand}/…clientNNN…`. Species are the instrument and its
/// support, such as `print/fixed` or `highdef_photo/hand`. Faces come from `face-locations/…/<video>.face`,
/// `frame x y width height` lines.
///
/// # Errors
/// [`Error::MissingFiles`]; [`Error::Unreadable`] for a name without a client, and for a face in no frame of a video;
/// [`Error::Parse`] for a face with the line.
pub fn replay_attack(root: &Path, split: Split) -> Result<Vec<Presentation>> {
    let part = match split {
        Split::Train => "train",
        Split::Dev => "devel",
        Split::Test => "test",
    };
    let mut gathering = Gathering::of("replay-attack");
    for (place, support) in [("real", None), ("attack/fixed", Some("fixed")), ("attack/hand", Some("hand"))] {
        let folder = root.join(part).join(place);
        if !folder.is_dir() {
            gathering.missing.push(folder);
            continue;
        }
        for video in listing(&folder, false)? {
            let name = name_of(&video);
            let species = support.map(|support| format!("{}/{support}", replay_instrument(&name)));
            let path = root.join("face-locations").join(part).join(place).join(format!("{name}.face"));
            let faces = FaceFile { path, line: Line::Box };
            // A video's name is the same whether it was held or fixed.
            let own = format!("{part}/{place}/{name}");
            gathering.add(&video, &own, species, client(&name, &video)?, Some(faces))?;
        }
    }
    gathering.finish()
}

/// `attack_highdef_client001_session01_highdef_photo_adverse` → `highdef_photo`, where a screen showed it;
/// `attack_print_client001_session01_highdef_photo_adverse` → `print`, whatever took the photo on the paper.
fn replay_instrument(name: &str) -> String {
    let fields: Vec<&str> = name.split('_').collect();
    match fields.as_slice() {
        ["attack", "print", ..] => "print".into(),
        ["attack", device, .., kind, _] => format!("{device}_{kind}"),
        _ => "unnamed".into(),
    }
}

/// `…client001…` → `001`.
fn client(name: &str, path: &Path) -> Result<String> {
    let after = name.split("client").nth(1).unwrap_or_default();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    if digits.is_empty() { Err(Error::unreadable(path, "no `clientNNN` in its name")) } else { Ok(digits) }
}

/// CASIA-MFSD: `{train,test}_release/<subject>/{1…8,HR_1…HR_4}`; 1, 2 and HR_1 are live, then warped, cut, replayed.
/// There is no development part: hold out subjects of the training part. Both parts count their people from 1, so a
/// subject is named with its part. The set does not say where the faces are.
///
/// # Errors
/// [`Error::BadProtocol`] for [`Split::Dev`], [`Error::MissingFiles`], [`Error::Unreadable`] for a clip of another
/// name.
pub fn casia_mfsd(root: &Path, split: Split) -> Result<Vec<Presentation>> {
    let part = match split {
        Split::Train => "train_release",
        Split::Test => "test_release",
        Split::Dev => return Err(bad_protocol(split, "train or test: the set has no development part")),
    };
    let folder = root.join(part);
    if !folder.is_dir() {
        return Err(Error::MissingFiles { files: vec![folder] });
    }
    let mut gathering = Gathering::of("casia-mfsd");
    for person in listing(&folder, false)? {
        let subject = format!("{part}/{}", name_of(&person));
        for clip in listing(&person, false)? {
            let species = match name_of(&clip).as_str() {
                "1" | "2" | "HR_1" => None,
                "3" | "4" | "HR_2" => Some("print/warped"),
                "5" | "6" | "HR_3" => Some("print/cut"),
                "7" | "8" | "HR_4" => Some("replay/tablet"),
                other => {
                    return Err(Error::unreadable(&clip, format!("expected 1 to 8 or HR_1 to HR_4, found `{other}`")));
                }
            };
            let name = format!("{subject}/{}", name_of(&clip));
            gathering.add(&clip, &name, species.map(Into::into), subject.clone(), None)?;
        }
    }
    gathering.finish()
}

/// MSU-MFSD: videos `real_clientNNN_…` and `attack_clientNNN_<device>_<quality>_<instrument>_…` in
/// `scene01/{real,attack}`, subjects of a part in `train_sub_list.txt` or `test_sub_list.txt`. Faces come from
/// `<video>.face` beside the video, `frame,left,top,right,bottom,…` lines.
///
/// # Errors
/// As [`casia_mfsd`]; [`Error::Parse`] for a subject or a face with the line, [`Error::Unreadable`] for a face in no
/// frame of a video.
pub fn msu_mfsd(root: &Path, split: Split) -> Result<Vec<Presentation>> {
    let list = match split {
        Split::Train => "train_sub_list.txt",
        Split::Test => "test_sub_list.txt",
        Split::Dev => return Err(bad_protocol(split, "train or test: the set has no development part")),
    };
    let people: Vec<u32> = lines(&root.join(list))?
        .into_iter()
        .map(|(line, text)| {
            let reason = format!("expected a subject's number, found `{text}`");
            text.parse().map_err(|_| Error::Parse { file: root.join(list), line, reason })
        })
        .collect::<Result<_>>()?;
    let mut gathering = Gathering::of("msu-mfsd");
    for (kind, live) in [("real", true), ("attack", false)] {
        let folder = root.join("scene01").join(kind);
        if !folder.is_dir() {
            gathering.missing.push(folder);
            continue;
        }
        for video in listing(&folder, false)? {
            let name = name_of(&video);
            let subject = client(&name, &video)?;
            if !subject.parse::<u32>().is_ok_and(|number| people.contains(&number)) {
                continue;
            }
            let instrument = ["printed_photo", "ipad", "iphone"].into_iter().find(|word| name.contains(word));
            let species = match instrument {
                Some("printed_photo") => "print/photo".to_owned(),
                other => format!("replay/{}", other.unwrap_or("unnamed")),
            };
            let faces = FaceFile::beside(&video, "face", Line::Corners);
            gathering.add(&video, &name, (!live).then_some(species), subject, Some(faces))?;
        }
    }
    gathering.finish()
}

/// Whether a protocol keeps an attack of a type and medium.
type Keeps = Box<dyn Fn(&str, &str) -> bool>;

/// SiW: `{Train,Test}/{live,spoof}/<subject>/Subject_Sensor_Type_Medium_Session`. Type 1 is live, 2 print, 3 replay,
/// and `medium` keeps the instrument. Protocol 1 trains on the first 60 frames
/// ([`Frames::First`](super::Frames::First)), protocol 2 leaves replay media out one at a time (`fold` 1 to 4),
/// protocol 3 trains on prints and tests replays (1) or the other way round (2). Faces come from `<video>.face` beside
/// the video, a line `left top right bottom` a frame.
///
/// # Errors
/// [`Error::BadProtocol`], [`Error::MissingFiles`]; [`Error::Unreadable`] for a name of another form or in the wrong
/// folder, and for a face in no frame of a video; [`Error::Parse`] for a face with the line.
pub fn siw(root: &Path, fold: Fold, split: Split) -> Result<Vec<Presentation>> {
    let training = match split {
        Split::Train => true,
        Split::Test => false,
        Split::Dev => return Err(bad_protocol(split, "train or test: the set has no development part")),
    };
    let keeps: Keeps = match fold {
        Fold { protocol: 1, fold: None } => Box::new(|_, _| true),
        Fold { protocol: 2, fold: Some(left_out @ 1..=4) } => {
            Box::new(move |kind, medium| kind == "3" && (medium == left_out.to_string()) != training)
        }
        Fold { protocol: 3, fold: Some(order @ 1..=2) } => {
            let kept = if (order == 1) == training { "2" } else { "3" };
            Box::new(move |kind, _| kind == kept)
        }
        other => return Err(bad_protocol(other, "1 without a fold, 2 with 1 to 4, 3 with 1 or 2")),
    };
    let mut gathering = Gathering::of("siw");
    for place in ["live", "spoof"] {
        let folder = root.join(if training { "Train" } else { "Test" }).join(place);
        if !folder.is_dir() {
            gathering.missing.push(folder);
            continue;
        }
        for person in listing(&folder, false)? {
            for video in listing(&person, false)? {
                let name = name_of(&video);
                let fields: Vec<&str> = name.split('-').flat_map(|part| part.split('_')).collect();
                let &[subject, _, kind, medium, _] = fields.as_slice() else {
                    return Err(Error::unreadable(&video, "expected `Subject_Sensor_Type_Medium_Session`"));
                };
                let species = match kind {
                    "1" => None,
                    "2" => Some(format!("print/{medium}")),
                    "3" => Some(format!("replay/{medium}")),
                    other => {
                        return Err(Error::unreadable(&video, format!("expected a type from 1 to 3, found `{other}`")));
                    }
                };
                if species.is_none() != (place == "live") {
                    let reason = format!("expected type 1 in `live`, 2 or 3 in `spoof`; found {kind} in `{place}`");
                    return Err(Error::unreadable(&video, reason));
                }
                if species.is_none() || keeps(kind, medium) {
                    let faces = FaceFile::beside(&video, "face", Line::PlainCorners);
                    gathering.add(&video, &name, species, subject.into(), Some(faces))?;
                }
            }
        }
    }
    gathering.finish()
}

/// SiW-M and its second version: `Live/<video>` and `Spoof/<type>/<video>`; lists of videos, one a line, say what
/// belongs to a part, live and spoof together. Repeated names count once. Neither names nor lists say who is in a video
/// (numbers count the videos of a type), so each counts as a person of its own. Nor does the set say where the faces
/// are.
///
/// # Errors
/// [`Error::MissingFiles`], with every video that a list names and that is not there; [`Error::Parse`] with the line
/// for a name that leads out of the folder.
pub fn siw_m(root: &Path, lists: &[&Path]) -> Result<Vec<Presentation>> {
    let mut wanted = std::collections::BTreeSet::new();
    for list in lists {
        for (line, name) in lines(list)? {
            if !stays_below(&name) {
                let reason = format!("expected a video's name, found `{name}`");
                return Err(Error::Parse { file: list.into(), line, reason });
            }
            wanted.insert(name);
        }
    }
    let mut gathering = Gathering::of("siw-m");
    let mut places = vec![(root.join("Live"), None)];
    let spoof = root.join("Spoof");
    if spoof.is_dir() {
        places.extend(listing(&spoof, false)?.into_iter().map(|kind| (kind.clone(), Some(name_of(&kind)))));
    } else {
        gathering.missing.push(spoof);
    }
    for name in wanted {
        let place = places.iter().find(|(folder, _)| folder.join(&name).is_dir());
        let Some((folder, species)) = place else {
            gathering.missing.push(root.join(&name));
            continue;
        };
        gathering.add(&folder.join(&name), &name, species.clone(), name.clone(), None)?;
    }
    gathering.finish()
}
