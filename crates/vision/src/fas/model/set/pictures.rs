//! Sets of pictures from elsewhere: published ones, or one's own.

use super::{Columns, FasData};
use crate::fas::data::{Crop, Frames, Presentation, read_frame};
use crate::fas::error::{Error, Result};
use crate::fas::metrics::Scored;
use crate::fas::model::Proxy;
use image::RgbImage;
use indexmap::IndexMap;
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::iter::repeat_n;
use tch::{Device, Kind, Tensor};

impl FasData {
    /// Some frames of each presentation, cut out around the faces on all of rayon's threads. Presentations of several
    /// sets make one set: [`Columns::Camera`](super::Columns::Camera) tells them and their cameras apart, in the order
    /// of their names.
    ///
    /// Published sets have no true maps, so a network without cues
    /// ([`ProxyConfig::proxies`](crate::fas::model::ProxyConfig) empty) trains on them; one with cues needs
    /// [`with_maps`](Self::with_maps).
    ///
    /// # Errors
    /// [`Error::Unreadable`] and [`Error::BoxOutside`], naming the frame; [`Error::LengthMismatch`] for boxes of some
    /// frames only; those of [`Crop::cut`]; [`Error::BadShape`] where there is no frame at all.
    pub fn from_presentations(presentations: &[Presentation], frames: Frames, crop: Crop) -> Result<Self> {
        // Of several errors the first is told, whichever thread met it.
        let read: Vec<Result<Vec<RgbImage>>> = presentations.par_iter().map(|one| cut(one, frames, crop)).collect();
        let camera = |one: &Presentation| (one.set.clone(), one.camera.clone());
        let light = |one: &Presentation| one.light.as_ref().map(|light| (one.set.clone(), light.clone()));
        let all_cameras: BTreeSet<_> = presentations.iter().map(camera).collect();
        let all_lights: BTreeSet<_> = presentations.iter().filter_map(light).collect();
        let (mut pictures, mut samples, mut cameras, mut lights) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (one, cut) in presentations.iter().zip(read) {
            let cut = cut?;
            let sample = Scored {
                score: f64::NAN,
                bona_fide: one.bona_fide,
                species: one.species.clone(),
                subject: Some(one.person()),
                video: Some(one.video()),
            };
            let own_camera = all_cameras.range(..camera(one)).count() as i64;
            let own_light = light(one).map_or(0, |light| 1 + all_lights.range(..light).count() as i64);
            samples.extend(repeat_n(sample, cut.len()));
            cameras.extend(repeat_n(own_camera, cut.len()));
            lights.extend(repeat_n(own_light, cut.len()));
            pictures.extend(cut);
        }
        Self::from_pictures(&pictures, samples)?
            .with_attribute(Columns::Camera, &cameras)?
            .with_attribute(Columns::Light, &lights)
    }

    /// Pictures of one size, each with who and what it is; its score is of no concern. There are no true maps: see
    /// [`from_presentations`](Self::from_presentations).
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::BadShape`] for pictures that are not squares of one size, or none.
    pub fn from_pictures(pictures: &[RgbImage], mut samples: Vec<Scored>) -> Result<Self> {
        if pictures.len() != samples.len() {
            let (left, right) = (pictures.len(), samples.len());
            return Err(Error::LengthMismatch { what: "pictures and samples", left, right });
        }
        let side = pictures.first().map_or(0, RgbImage::width);
        let odd = pictures.iter().map(RgbImage::dimensions).find(|size| *size != (side, side));
        if side == 0 || odd.is_some() {
            let found =
                odd.map_or("none".into(), |(width, height)| format!("{width} × {height} after a width of {side}"));
            return Err(Error::BadShape { what: "pictures", expected: "squares of one size".into(), found });
        }
        let bytes = pictures.iter().map(|picture| picture.as_raw().as_slice()).collect::<Vec<_>>().concat();
        let (count, side) = (pictures.len() as i64, i64::from(side));
        let images = Tensor::from_slice(&bytes).view([count, side, side, 3]).permute([0, 3, 1, 2]).contiguous();
        let live: Vec<f32> = samples.iter().map(|sample| f32::from(u8::from(sample.bona_fide))).collect();
        let species: BTreeSet<String> =
            samples.iter().filter(|sample| !sample.bona_fide).map(|sample| sample.species_at(0)).collect();
        let attributes: Vec<i64> = samples
            .iter()
            .enumerate()
            .flat_map(|(at, sample)| {
                // Somebody unknown is nobody else.
                let identity = sample.subject.map_or(-1 - at as i64, i64::from);
                let kind = if sample.bona_fide { 0 } else { 1 + species.range(..sample.species_at(0)).count() as i64 };
                [identity, 0, 0, 0, kind]
            })
            .collect();
        samples.iter_mut().for_each(|sample| sample.score = f64::NAN);
        Ok(Self {
            images,
            live: Tensor::from_slice(&live),
            maps: IndexMap::new(),
            attributes: Tensor::from_slice(&attributes).view([count, 5]),
            samples,
        })
    }

    /// With what is known of each sample's camera, light or pose, any whole numbers: what an
    /// [`AttributeMiner`](crate::fas::model::AttributeMiner) mines by. Without it pictures from elsewhere agree in what
    /// their set does not say, and no sample has a positive by a key that all agree in.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`]; [`Error::BadParam`] for identity and species, which samples say themselves.
    pub fn with_attribute(self, column: Columns, values: &[i64]) -> Result<Self> {
        if !matches!(column, Columns::Camera | Columns::Light | Columns::Pose) {
            let value = column as i64 as f64;
            return Err(Error::BadParam { name: "column", expected: "camera, light or pose", value });
        }
        if values.len() != self.len() {
            let (left, right) = (values.len(), self.len());
            return Err(Error::LengthMismatch { what: "attributes and samples", left, right });
        }
        self.attributes.select(1, column as i64).copy_(&Tensor::from_slice(values));
        Ok(self)
    }

    /// With true maps of a cue, such as depth by a face model for living faces and none for attacks:
    /// `[samples, channels, side, side]` of `f32`, of the side that the network's head predicts.
    ///
    /// # Errors
    /// [`Error::BadShape`].
    pub fn with_maps(mut self, proxy: Proxy, maps: &Tensor) -> Result<Self> {
        let (count, channels, size) = (self.len() as i64, proxy.channels(), maps.size());
        let side = size.last().copied().unwrap_or(0);
        if maps.kind() != Kind::Float || side == 0 || size != [count, channels, side, side] {
            let expected = format!("[{count}, {channels}, side, side] of Float");
            let found = format!("{size:?} of {:?}", maps.kind());
            return Err(Error::BadShape { what: "maps", expected, found });
        }
        // Whatever made them is not what is trained here.
        self.maps.insert(proxy, maps.detach().to_device(Device::Cpu));
        Ok(self)
    }
}

/// The frames of a presentation that are looked at.
fn cut(one: &Presentation, frames: Frames, crop: Crop) -> Result<Vec<RgbImage>> {
    let (left, right) = (one.faces.len(), one.frames.len());
    if left != 0 && left != right {
        return Err(Error::LengthMismatch { what: "face boxes and frames of a presentation", left, right });
    }
    let cut = |at: usize| {
        let file = &one.frames[at];
        crop.cut(&read_frame(file)?, one.faces.get(at).copied()).map_err(|error| match error {
            Error::BoxOutside { found, frame, .. } => Error::BoxOutside { file: file.clone(), found, frame },
            other => other,
        })
    };
    frames.of(right).into_iter().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fas::data::PixelBox;
    use crate::fas::model::AttributeMiner;
    use image::Rgb;

    const CROP: Crop = Crop { scale: 1.0, size: 4 };

    /// Somebody's video of grey frames, each a little brighter, whose left half is black.
    fn video(folder: &std::path::Path, set: &str, subject: &str, species: Option<&str>) -> Presentation {
        let name = format!("{subject}-{}", species.unwrap_or("live").replace('/', "-"));
        let frames = (0..3_u8).map(|at| {
            let file = folder.join(format!("{set}-{name}-{at}.png"));
            let grey = |x: u32| if x < 8 { 0 } else { 100 + 10 * at };
            image::RgbImage::from_fn(16, 8, |x, _| Rgb([grey(x); 3])).save(&file).unwrap();
            file
        });
        Presentation {
            set: set.into(),
            frames: frames.collect(),
            faces: vec![PixelBox { x: 8.0, y: 0.0, width: 8.0, height: 8.0 }; 3],
            bona_fide: species.is_none(),
            species: species.map(Into::into),
            subject: subject.into(),
            camera: None,
            light: None,
            name,
        }
    }

    #[test]
    fn frames_are_cut_at_their_faces_and_know_who_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let of = |set, subject, species| video(folder.path(), set, subject, species);
        let all = [of("two", "1", None), of("one", "1", Some("replay/1")), of("two", "1", Some("print/1"))];
        let data = FasData::from_presentations(&all, Frames::First(2), CROP).unwrap();
        assert_eq!(data.len(), 6);
        let batch = data.batch(&[0, 1, 2, 3, 4, 5]);
        let brightness = batch.input.mean_dim([1_i64, 2, 3].as_slice(), false, Kind::Float) * 255.0;
        let brightness: Vec<f32> = brightness.try_into().unwrap();
        for (found, expected) in brightness.iter().zip([100.0, 110.0].repeat(3)) {
            assert!((found - expected).abs() < 1e-3, "{found} against {expected}");
        }
        assert_eq!(Vec::<f32>::try_from(&batch.targets.live).unwrap(), [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        let column = |column| (0..6).map(|at| data.attribute(at, column)).collect::<Vec<_>>();
        assert_eq!(column(Columns::Camera), [1, 1, 0, 0, 1, 1]);
        assert_eq!(column(Columns::Species), [0, 0, 2, 2, 1, 1]);
        let who = column(Columns::Identity);
        // The first person of one set is not that of the other.
        assert!(who[0] == who[4] && who[0] != who[2]);
        let scored = data.scored(&[0.5; 6]).unwrap();
        assert!(scored[0].video == scored[1].video && scored[1].video != scored[4].video);
        assert_eq!(scored[2].species.as_deref(), Some("replay/1"));

        let whole = all.map(|one| Presentation { faces: Vec::new(), ..one });
        let data = FasData::from_presentations(&whole, Frames::First(1), CROP).unwrap();
        // The middle square is half black.
        assert!((data.batch(&[0]).input.mean(Kind::Float).double_value(&[]) * 255.0 - 50.0).abs() < 1e-3);
    }

    #[test]
    fn cameras_and_lights_of_sets_that_name_them_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let of = |set, camera: Option<&str>, light: Option<&str>| Presentation {
            camera: camera.map(Into::into),
            light: light.map(Into::into),
            ..video(folder.path(), set, "1", None)
        };
        let all = [
            of("two", Some("2"), Some("1")),
            of("one", None, None),
            of("two", Some("1"), Some("3")),
            of("two", Some("2"), Some("3")),
            of("one", None, Some("1")),
        ];
        let data = FasData::from_presentations(&all, Frames::First(1), CROP).unwrap();
        let column = |column| (0..5).map(|at| data.attribute(at, column)).collect::<Vec<_>>();
        assert_eq!(column(Columns::Camera), [2, 0, 1, 2, 0]);
        // A session 1 of one set is not that of the other; nobody knows the second's.
        assert_eq!(column(Columns::Light), [2, 0, 3, 3, 1]);
        assert_eq!(column(Columns::Pose), [0; 5]);
    }

    #[test]
    fn a_set_of_ones_own_is_mined_by_the_cameras_that_it_is_given() {
        let samples = || {
            let of = |sample: Scored, who| sample.of(who);
            vec![
                of(Scored::live(0.1), 1),
                of(Scored::live(0.1), 2),
                of(Scored::attack(0.1, "print"), 1),
                of(Scored::attack(0.1, "print"), 2),
            ]
        };
        let data = || FasData::from_pictures(&[0; 4].map(|_| RgbImage::new(8, 8)), samples()).unwrap();
        let miner = AttributeMiner { keys: vec![Columns::Identity as i64, Columns::Camera as i64], margin: 0.3 };
        let anchors = |data: &FasData| {
            let batch = data.batch(&[0, 1, 2, 3]);
            let embedding = Tensor::from_slice(&[1.0_f32, 0.0, 0.0, 1.0, 0.6, 0.8, -1.0, 0.0]).view([4, 2]);
            miner.loss(&embedding, &batch.targets.live, &batch.attributes).unwrap().1.anchors
        };
        assert_eq!(anchors(&data()), 0);
        let known = data().with_attribute(Columns::Camera, &[4, 9, 4, 9]).unwrap();
        assert_eq!(anchors(&known), 2);
        assert_eq!(known.attribute(3, Columns::Camera), 9);
        let short = data().with_attribute(Columns::Light, &[0; 3]);
        assert!(matches!(short, Err(Error::LengthMismatch { left: 3, right: 4, .. })), "{short:?}");
        for column in [Columns::Identity, Columns::Species] {
            let refused = data().with_attribute(column, &[0; 4]);
            assert!(matches!(refused, Err(Error::BadParam { name: "column", .. })), "{refused:?}");
        }
    }

    #[test]
    fn maps_are_there_where_somebody_gives_them() {
        let picture = || image::RgbImage::new(8, 8);
        let samples = vec![Scored::live(0.1), Scored::attack(0.1, "print")];
        let data = FasData::from_pictures(&[picture(), picture()], samples).unwrap();
        assert!(data.batch(&[0]).targets.maps.is_empty());
        // Of nobody knows who, two are two.
        assert_ne!(data.attribute(0, Columns::Identity), data.attribute(1, Columns::Identity));
        let depth = Tensor::zeros([2, 1, 4, 4], (Kind::Float, Device::Cpu));
        let data = data.with_maps(Proxy::Depth, &depth).unwrap();
        assert_eq!(data.batch(&[1]).targets.maps[&Proxy::Depth].size(), [1, 1, 4, 4]);
        // By a network that is still being trained: its gradients are not for this set to walk through.
        let learned = depth.copy().set_requires_grad(true) * 0.5;
        let data = data.with_maps(Proxy::Depth, &learned).unwrap();
        assert!(learned.requires_grad() && !data.batch(&[1]).targets.maps[&Proxy::Depth].requires_grad());
        let double = depth.to_kind(Kind::Double);
        let samples = || vec![Scored::live(0.1), Scored::attack(0.1, "print")];
        for (proxy, maps) in
            [(Proxy::Material, &depth), (Proxy::Depth, &depth.narrow(3, 0, 3)), (Proxy::Reflection, &double)]
        {
            let refused = FasData::from_pictures(&[picture(), picture()], samples()).unwrap().with_maps(proxy, maps);
            assert!(matches!(refused, Err(Error::BadShape { what: "maps", .. })), "{refused:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let good = video(folder.path(), "one", "1", None);
        let build = |one: Presentation| FasData::from_presentations(&[one], Frames::All, CROP);
        let outside = PixelBox { x: 16.0, y: 0.0, width: 8.0, height: 8.0 };
        let mut moved = good.clone();
        moved.faces[2] = outside;
        let refused = build(moved);
        assert!(matches!(&refused, Err(Error::BoxOutside { file, .. }) if *file == good.frames[2]), "{refused:?}");
        let short = build(Presentation { faces: vec![outside], ..good.clone() });
        assert!(matches!(short, Err(Error::LengthMismatch { left: 1, right: 3, .. })), "{short:?}");
        std::fs::write(&good.frames[1], b"no picture").unwrap();
        let broken = build(good.clone());
        assert!(matches!(&broken, Err(Error::Unreadable { file, .. }) if *file == good.frames[1]), "{broken:?}");

        let picture = image::RgbImage::new;
        let pictures =
            |pictures: &[RgbImage]| FasData::from_pictures(pictures, vec![Scored::live(0.1); pictures.len()]);
        for odd in [&[picture(8, 8), picture(4, 4)][..], &[picture(8, 4)], &[]] {
            let refused = pictures(odd);
            assert!(matches!(refused, Err(Error::BadShape { what: "pictures", .. })), "{refused:?}");
        }
        let mixed = FasData::from_pictures(&[picture(8, 8)], Vec::new());
        assert!(matches!(mixed, Err(Error::LengthMismatch { left: 1, right: 0, .. })), "{mixed:?}");
    }
}
