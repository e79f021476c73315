//! Pictures with their targets as tensors, and the batches that training sees.

use super::losses::ProxyTargets;
use super::network::Proxy;
use crate::fas::error::{Error, Result};
use crate::fas::metrics::Scored;
use crate::fas::synth::{GeneratorConfig, Rendered};
use core_tensor::checkpoint::{Header, SafetensorsFile, read_safetensors, write_safetensors};
use core_tensor::data::BatchSource;
use core_tensor::seed::{Purpose, generator};
use indexmap::IndexMap;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// What depth an attack is said to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DepthPolicy {
    /// None at all: the literature's label.
    #[default]
    LiveOnly,
    /// Its true relative depth: a mask is as deep as a face.
    Physical,
}

/// What reflection a face is said to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReflectionPolicy {
    /// None at all: the literature's label.
    #[default]
    LiveZero,
    /// Its true reflection.
    Physical,
}

/// Both policies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// Of the depth target.
    pub depth: DepthPolicy,
    /// Of the reflection target.
    pub reflection: ReflectionPolicy,
}

/// Columns of the attribute table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub enum Columns {
    /// Who.
    Identity = 0,
    /// Which camera.
    Camera = 1,
    /// Which session's light.
    Light = 2,
    /// Turned left, frontal, right.
    Pose = 3,
    /// Live, print, replay, mask.
    Species = 4,
}

/// A data set in memory.
#[derive(Debug)]
pub struct FasData {
    /// `[samples, 3, size, size]`, 8 bit.
    images: Tensor,
    live: Tensor,
    maps: IndexMap<Proxy, Tensor>,
    attributes: Tensor,
    samples: Vec<Scored>,
}

/// A batch with everything true about it.
#[derive(Debug)]
pub struct FasBatch {
    /// `[batch, 3, size, size]`, in [0, 1].
    pub input: Tensor,
    /// Labels and maps.
    pub targets: ProxyTargets,
    /// `[batch, columns]` of whole numbers, see [`Columns`].
    pub attributes: Tensor,
}

impl FasData {
    /// Generated pictures with their maps.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] for pictures or maps of another size than the configuration's.
    pub fn from_rendered(pictures: &[Rendered], config: GeneratorConfig, policies: Policies) -> Result<Self> {
        let (crop, map) = (config.crop as i64, config.map as i64);
        let count = pictures.len() as i64;
        let pixels = config.map * config.map;
        for picture in pictures {
            let classes = Proxy::Material.channels() as usize;
            for (what, left, right) in [
                ("bytes of a picture and of the configuration", picture.image.len(), 3 * config.crop * config.crop),
                ("values of a depth map and of the configuration", picture.depth.len(), pixels),
                ("values of a reflection map and of the configuration", picture.reflection.len(), pixels),
                ("values of a material map and of the configuration", picture.material.len(), classes * pixels),
            ] {
                if left != right {
                    return Err(Error::LengthMismatch { what, left, right });
                }
            }
        }
        let bytes: Vec<u8> = pictures.iter().flat_map(|picture| picture.image.iter().copied()).collect();
        let images = Tensor::from_slice(&bytes).view([count, crop, crop, 3]).permute([0, 3, 1, 2]).contiguous();
        let is_live = |picture: &Rendered| picture.attributes.spec.attack.is_live();
        let live: Vec<f32> = pictures.iter().map(|p| f32::from(u8::from(is_live(p)))).collect();
        let gather = |of: &dyn Fn(&Rendered) -> Vec<f32>, channels: i64| {
            let values: Vec<f32> = pictures.iter().flat_map(of).collect();
            Tensor::from_slice(&values).view([count, channels, map, map])
        };
        let depth = gather(
            &|p| {
                if policies.depth == DepthPolicy::LiveOnly && !is_live(p) {
                    vec![0.0; p.depth.len()]
                } else {
                    p.depth.clone()
                }
            },
            1,
        );
        let reflection = gather(
            &|p| {
                if policies.reflection == ReflectionPolicy::LiveZero && is_live(p) {
                    vec![0.0; p.reflection.len()]
                } else {
                    p.reflection.clone()
                }
            },
            1,
        );
        let material = gather(&|p| p.material.clone(), Proxy::Material.channels());
        let attributes: Vec<i64> = pictures
            .iter()
            .flat_map(|picture| {
                let spec = picture.attributes.spec;
                let pose = i64::from(picture.attributes.pose_bin());
                let species = spec.attack.species() as i64;
                [i64::from(spec.identity), spec.domain as i64, i64::from(spec.session), pose, species]
            })
            .collect();
        let sample = |picture: &Rendered| {
            let spec = picture.attributes.spec;
            let species = (!is_live(picture)).then(|| spec.attack.species().name().to_owned());
            let video = (u64::from(spec.identity) << 32) | u64::from(spec.video);
            let (bona_fide, subject) = (is_live(picture), Some(spec.identity));
            Scored { score: f64::NAN, bona_fide, species, subject, video: Some(video) }
        };
        Ok(Self {
            images,
            live: Tensor::from_slice(&live),
            maps: IndexMap::from([(Proxy::Depth, depth), (Proxy::Reflection, reflection), (Proxy::Material, material)]),
            attributes: Tensor::from_slice(&attributes).view([count, 5]),
            samples: pictures.iter().map(sample).collect(),
        })
    }

    /// Samples in it.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The samples at some positions, as they are.
    pub fn batch(&self, positions: &[i64]) -> FasBatch {
        let index = Tensor::from_slice(positions);
        let take = |tensor: &Tensor| tensor.index_select(0, &index);
        FasBatch {
            input: take(&self.images).to_kind(Kind::Float) / 255.0,
            targets: ProxyTargets {
                live: take(&self.live),
                maps: self.maps.iter().map(|(&proxy, map)| (proxy, take(map))).collect(),
            },
            attributes: take(&self.attributes),
        }
    }

    /// Scores of all samples with who and what they are.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`].
    pub fn scored(&self, scores: &[f64]) -> Result<Vec<Scored>> {
        if scores.len() != self.len() {
            let (left, right) = (scores.len(), self.len());
            return Err(Error::LengthMismatch { what: "scores and samples", left, right });
        }
        let with = |(sample, &score): (&Scored, &f64)| Scored { score, ..sample.clone() };
        Ok(self.samples.iter().zip(scores).map(with).collect())
    }

    /// The attribute of a sample.
    pub fn attribute(&self, sample: usize, column: Columns) -> i64 {
        self.attributes.int64_value(&[sample as i64, column as i64])
    }

    /// The samples for which `keep` holds, by position.
    pub fn positions_where(&self, keep: impl Fn(usize, &Scored) -> bool) -> Vec<i64> {
        let kept = self.samples.iter().enumerate().filter(|(at, sample)| keep(*at, sample));
        kept.map(|(at, _)| at as i64).collect()
    }

    /// Only the samples at some positions.
    #[must_use]
    pub fn subset(&self, positions: &[i64]) -> Self {
        let index = Tensor::from_slice(positions);
        let take = |tensor: &Tensor| tensor.index_select(0, &index);
        Self {
            images: take(&self.images),
            live: take(&self.live),
            maps: self.maps.iter().map(|(&proxy, map)| (proxy, take(map))).collect(),
            attributes: take(&self.attributes),
            samples: positions.iter().map(|&at| self.samples[at as usize].clone()).collect(),
        }
    }

    /// Writes the set to a safetensors file.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors: IndexMap<String, Tensor> = IndexMap::new();
        for (name, tensor) in [("images", &self.images), ("live", &self.live), ("attributes", &self.attributes)] {
            tensors.insert(name.into(), tensor.shallow_clone());
        }
        for (proxy, map) in &self.maps {
            tensors.insert(proxy.name().into(), map.shallow_clone());
        }
        let named: Vec<Named> = self.samples.iter().map(Named::of).collect();
        Ok(write_safetensors(path, &tensors, &Header::new(SCHEMA, 1, named).to_metadata()?)?)
    }

    /// Reads a set that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// A file that is missing, malformed, or of something else.
    pub fn load(path: &Path) -> Result<Self> {
        let file = SafetensorsFile::open(path)?;
        let named = Header::<Vec<Named>>::from_metadata(file.metadata(), SCHEMA, 1, path)?.content;
        let mut tensors = read_safetensors(path)?;
        let samples = named.len() as i64;
        // `None` is a side of a square.
        let mut take = |name: &str, kind: Kind, lengths: &[Option<i64>]| -> Result<Tensor> {
            let tensor =
                tensors.swap_remove(name).ok_or_else(|| Error::unreadable(path, format!("no tensor `{name}`")))?;
            let size = tensor.size();
            let side = size.last().copied().filter(|&side| side > 0);
            let expected: Option<Vec<i64>> =
                std::iter::once(Some(samples)).chain(lengths.iter().map(|length| length.or(side))).collect();
            if tensor.kind() != kind || expected.as_ref() != Some(&size) {
                let found = format!("{size:?} of {:?}", tensor.kind());
                let lengths: Vec<String> = lengths
                    .iter()
                    .map(|length| length.map_or(", side".into(), |length| format!(", {length}")))
                    .collect();
                let expected = format!("[{samples}{}] of {kind:?}", lengths.concat());
                return Err(Error::unreadable(path, format!("`{name}`: expected {expected}, found {found}")));
            }
            Ok(tensor)
        };
        let map = |proxy: Proxy| Ok((proxy, take(proxy.name(), Kind::Float, &[Some(proxy.channels()), None, None])?));
        let maps = Proxy::ALL.into_iter().map(map).collect::<Result<_>>()?;
        let images = take("images", Kind::Uint8, &[Some(3), None, None])?;
        let (live, attributes) = (take("live", Kind::Float, &[])?, take("attributes", Kind::Int64, &[Some(5)])?);
        Ok(Self { images, live, maps, attributes, samples: named.into_iter().map(Named::into_scored).collect() })
    }

    fn positions(&self, live: bool) -> Vec<i64> {
        let of = self.samples.iter().enumerate().filter(|(_, sample)| sample.bona_fide == live);
        of.map(|(at, _)| at as i64).collect()
    }
}

const SCHEMA: &str = "vision.fas.data";

/// A sample without its score, which JSON could not hold while it is NaN.
#[derive(Serialize, Deserialize)]
struct Named {
    bona_fide: bool,
    species: Option<String>,
    subject: Option<u32>,
    video: Option<u64>,
}

impl Named {
    fn of(sample: &Scored) -> Self {
        let Scored { bona_fide, species, subject, video, .. } = sample.clone();
        Self { bona_fide, species, subject, video }
    }

    fn into_scored(self) -> Scored {
        let Self { bona_fide, species, subject, video } = self;
        Scored { score: f64::NAN, bona_fide, species, subject, video }
    }
}

/// How a batch is put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Half live, half attacks, each drawn at random.
    #[default]
    Balanced,
    /// A quarter as many people as samples, two live pictures and two attacks of each: pairs for mining.
    Pairs,
}

/// What is changed at random about a picture and its maps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augment {
    /// Mirrors half of all pictures.
    pub flip: bool,
    /// Standard deviation of the logarithm of brightness. Default 0.1.
    pub exposure: f64,
    /// Standard deviation of the logarithm of each channel's gain.
    pub gain: f64,
    /// Largest side of a grey square, as a share of the picture's.
    pub cutout: f64,
}

impl Default for Augment {
    fn default() -> Self {
        Self { flip: true, exposure: 0.1, gain: 0.0, cutout: 0.0 }
    }
}

impl Augment {
    fn check(&self) -> Result<()> {
        for (name, value) in [("exposure", self.exposure), ("gain", self.gain)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::BadParam { name, expected: "finite and at least 0", value });
            }
        }
        if !(0.0..=1.0).contains(&self.cutout) {
            return Err(Error::BadParam { name: "cutout", expected: "0 to 1", value: self.cutout });
        }
        Ok(())
    }
}

/// Random batches of a data set, the same ones whenever the same epoch is asked for.
#[derive(Debug)]
pub struct FasSource<'a> {
    data: &'a FasData,
    batch: usize,
    steps: u64,
    sampling: Sampling,
    augment: Augment,
    seed: u64,
    live: Vec<i64>,
    attacks: Vec<i64>,
    people: Vec<[Vec<i64>; 2]>,
}

impl<'a> FasSource<'a> {
    /// `steps` batches of `batch` samples an epoch.
    ///
    /// # Errors
    /// [`Error::BadParam`] for a batch not divisible by four or augmentation out of range, [`Error::EmptyClass`] where a
    /// class has no sample.
    pub fn new(
        data: &'a FasData,
        (batch, steps): (usize, u64),
        (sampling, augment): (Sampling, Augment),
        seed: u64,
    ) -> Result<Self> {
        if batch == 0 || !batch.is_multiple_of(4) {
            return Err(Error::BadParam { name: "batch", expected: "a positive multiple of 4", value: batch as f64 });
        }
        augment.check()?;
        let (live, attacks) = (data.positions(true), data.positions(false));
        for (class, positions) in [("bona fide", &live), ("attack", &attacks)] {
            if positions.is_empty() {
                return Err(Error::EmptyClass { class });
            }
        }
        let mut people: BTreeMap<Option<u32>, [Vec<i64>; 2]> = BTreeMap::new();
        for (at, sample) in data.samples.iter().enumerate() {
            people.entry(sample.subject).or_default()[usize::from(sample.bona_fide)].push(at as i64);
        }
        let people: Vec<_> = people.into_values().filter(|both| both.iter().all(|own| !own.is_empty())).collect();
        if sampling == Sampling::Pairs && people.is_empty() {
            return Err(Error::EmptyClass { class: "bona fide or attack of one person" });
        }
        Ok(Self { data, batch, steps, sampling, augment, seed, live, attacks, people })
    }

    fn draw(&self, random: &mut ChaCha8Rng) -> Vec<i64> {
        let pick = |list: &[i64], random: &mut ChaCha8Rng| list[random.random_range(0..list.len())];
        match self.sampling {
            Sampling::Balanced => {
                let half = self.batch / 2;
                let mut chosen: Vec<i64> = (0..half).map(|_| pick(&self.live, random)).collect();
                chosen.extend((0..half).map(|_| pick(&self.attacks, random)));
                chosen
            }
            Sampling::Pairs => {
                let mut order: Vec<usize> = (0..self.people.len()).collect();
                order.shuffle(random);
                let people = order.iter().cycle().take(self.batch / 4);
                people
                    .flat_map(|&who| {
                        let [attacks, live] = &self.people[who];
                        [pick(live, random), pick(live, random), pick(attacks, random), pick(attacks, random)]
                    })
                    .collect()
            }
        }
    }

    fn augmented(&self, mut batch: FasBatch, random: &mut ChaCha8Rng) -> FasBatch {
        let count = batch.input.size()[0];
        let mut normal = |scale: f64| {
            let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
            scale * radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
        };
        let gains: Vec<f32> = (0..count)
            .flat_map(|_| {
                let exposure = normal(self.augment.exposure);
                [0; 3].map(|_| (exposure + normal(self.augment.gain)).exp() as f32)
            })
            .collect();
        batch.input = (batch.input * Tensor::from_slice(&gains).view([count, 3, 1, 1])).clamp(0.0, 1.0);
        if self.augment.flip {
            let mirrored: Vec<bool> = (0..count).map(|_| random.random()).collect();
            let mirrored = Tensor::from_slice(&mirrored).view([count, 1, 1, 1]);
            let flip = |tensor: &Tensor| tensor.flip([3_i64].as_slice()).where_self(&mirrored, tensor);
            batch.input = flip(&batch.input);
            batch.targets.maps.values_mut().for_each(|map| *map = flip(map));
        }
        if self.augment.cutout > 0.0 {
            let size = batch.input.size()[2];
            for at in 0..count {
                let side = (random.random::<f64>() * self.augment.cutout * size as f64) as i64;
                let (x, y) = (random.random_range(0..=size - side), random.random_range(0..=size - side));
                let _ = batch.input.get(at).narrow(1, y, side).narrow(2, x, side).fill_(0.45);
            }
        }
        batch
    }
}

impl BatchSource for FasSource<'_> {
    type Batch = FasBatch;

    fn batches_per_epoch(&self) -> u64 {
        self.steps
    }

    fn epoch(&self, epoch: u64) -> core_tensor::Result<Box<dyn Iterator<Item = core_tensor::Result<FasBatch>> + '_>> {
        let mut order = generator(self.seed, Purpose::Order, epoch);
        let mut change = generator(self.seed, Purpose::Augmentation, epoch);
        Ok(Box::new((0..self.steps).map(move |_| {
            let positions = self.draw(&mut order);
            Ok(self.augmented(self.data.batch(&positions), &mut change))
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fas::synth::{Domain, Generator, Population};

    fn data(policies: Policies) -> FasData {
        let config = GeneratorConfig { raster: 24, crop: 16, map: 4 };
        let population =
            Population { domains: vec![Domain::Webcam], identities: 3, live: 2, print: 1, replay: 1, mask: 1 };
        let pictures = Generator::new(2, config).unwrap().render_all(&population.specs()).unwrap();
        FasData::from_rendered(&pictures, config, policies).unwrap()
    }

    #[test]
    fn the_literatures_labels_give_attacks_no_depth_and_faces_no_shine() {
        let all: Vec<i64> = (0..15).collect();
        let sums = |policies| {
            let batch = data(policies).batch(&all);
            let of = |proxy, class: f64| {
                let per = batch.targets.maps[&proxy].sum_dim_intlist([1_i64, 2, 3].as_slice(), false, Kind::Float);
                (per * batch.targets.live.eq(class)).sum(Kind::Float).double_value(&[])
            };
            [of(Proxy::Depth, 0.0), of(Proxy::Depth, 1.0), of(Proxy::Reflection, 1.0), of(Proxy::Reflection, 0.0)]
        };
        let literature = sums(Policies::default());
        assert!(literature[0] == 0.0 && literature[1] > 0.0 && literature[2] == 0.0 && literature[3] > 0.0);
        let physical = Policies { depth: DepthPolicy::Physical, reflection: ReflectionPolicy::Physical };
        assert!(sums(physical).iter().all(|&sum| sum > 0.0));
    }

    #[test]
    fn batches_come_back_and_are_half_live() {
        let data = data(Policies::default());
        for sampling in [Sampling::Balanced, Sampling::Pairs] {
            let source = FasSource::new(&data, (8, 2), (sampling, Augment::default()), 4).unwrap();
            let batches = |epoch| -> Vec<FasBatch> { source.epoch(epoch).unwrap().map(|b| b.unwrap()).collect() };
            let (first, again, other) = (batches(0), batches(0), batches(1));
            assert_eq!(first.len(), 2);
            assert_eq!(first[1].input, again[1].input);
            assert_ne!(first[1].input, other[1].input);
            assert_eq!(first[0].targets.live.sum(Kind::Float).double_value(&[]), 4.0);
        }
    }

    #[test]
    fn pairs_hold_two_live_and_two_attacks_of_each_person() {
        let data = data(Policies::default());
        let source = FasSource::new(&data, (12, 1), (Sampling::Pairs, Augment::default()), 4).unwrap();
        let batch = source.epoch(0).unwrap().next().unwrap().unwrap();
        let identities = Vec::<i64>::try_from(batch.attributes.select(1, Columns::Identity as i64)).unwrap();
        let live = Vec::<f32>::try_from(&batch.targets.live).unwrap();
        for four in 0..3 {
            assert!(identities[4 * four..4 * four + 4].iter().all(|id| *id == identities[4 * four]));
            assert_eq!(live[4 * four..4 * four + 4], [1.0, 1.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn mirrored_pictures_have_mirrored_maps() {
        let data = data(Policies::default());
        let still = Augment { flip: true, exposure: 0.0, gain: 0.0, cutout: 0.0 };
        let source = FasSource::new(&data, (8, 1), (Sampling::Balanced, still), 1).unwrap();
        let flipped = source.epoch(0).unwrap().next().unwrap().unwrap();
        let mut order = generator(1, Purpose::Order, 0);
        let plain = data.batch(&source.draw(&mut order));
        let mut mirrored = 0;
        for at in 0..8 {
            let same = |a: &Tensor, b: &Tensor| (a.get(at) - b.get(at)).abs().max().double_value(&[]) < 1e-6;
            let turned = |t: &Tensor| t.flip([3_i64].as_slice());
            let depth = (&flipped.targets.maps[&Proxy::Material], &plain.targets.maps[&Proxy::Material]);
            if same(&flipped.input, &plain.input) {
                assert!(same(depth.0, depth.1));
            } else {
                assert!(same(&flipped.input, &turned(&plain.input)) && same(depth.0, &turned(depth.1)));
                mirrored += 1;
            }
        }
        assert!(mirrored > 0);
    }

    #[test]
    fn a_set_survives_its_file_and_another_file_is_refused() {
        let data = data(Policies::default());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.safetensors");
        data.save(&path).unwrap();
        let back = FasData::load(&path).unwrap();
        assert_eq!(back.images, data.images);
        assert_eq!(back.maps[&Proxy::Material], data.maps[&Proxy::Material]);
        assert_eq!(back.scored(&[0.5; 15]).unwrap(), data.scored(&[0.5; 15]).unwrap());
        let some = back.subset(&[3, 4]);
        assert_eq!((some.len(), some.batch(&[0]).input), (2, data.batch(&[3]).input));
        let rounded = FasData { live: data.live.to_kind(Kind::Int64), ..data };
        rounded.save(&path).unwrap();
        let refused = FasData::load(&path).unwrap_err().to_string();
        assert!(refused.contains("`live`: expected [15] of Float, found [15] of Int64"), "{refused}");
        let narrow = FasData {
            live: rounded.live.to_kind(Kind::Float),
            images: rounded.images.narrow(3, 0, 8).contiguous(),
            ..rounded
        };
        narrow.save(&path).unwrap();
        assert!(FasData::load(&path).unwrap_err().to_string().contains("`images`: expected [15, 3, side, side]"));
        std::fs::write(&path, b"no set").unwrap();
        assert!(FasData::load(&path).is_err());
    }

    #[test]
    fn sources_that_cannot_work_are_refused() {
        let data = data(Policies::default());
        let odd = FasSource::new(&data, (6, 1), (Sampling::Balanced, Augment::default()), 0);
        assert!(matches!(odd, Err(Error::BadParam { name: "batch", .. })));
        let plain = Augment::default();
        for (augment, refused) in [
            (Augment { cutout: 1.5, ..plain }, "cutout"),
            (Augment { exposure: f64::NAN, ..plain }, "exposure"),
            (Augment { gain: -0.1, ..plain }, "gain"),
        ] {
            let source = FasSource::new(&data, (8, 1), (Sampling::Balanced, augment), 0);
            assert!(matches!(source, Err(Error::BadParam { name, .. }) if name == refused), "{refused}");
        }
        assert!(matches!(data.scored(&[0.5]), Err(Error::LengthMismatch { left: 1, right: 15, .. })));
    }
}
