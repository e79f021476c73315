//! Pictures with their targets as tensors.

mod file;
mod pictures;

use super::losses::ProxyTargets;
use super::network::Proxy;
use crate::fas::error::{Error, Result};
use crate::fas::metrics::Scored;
use crate::fas::synth::{GeneratorConfig, Rendered};
use core_tensor::data::ToDevice;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

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
    /// Which camera; of pictures from elsewhere, which set and, where it says so, which of its cameras.
    Camera = 1,
    /// Which session's light; 0 of pictures from elsewhere whose set does not say.
    Light = 2,
    /// Turned left, frontal, right; 0 of pictures from elsewhere, unless [given](FasData::with_attribute).
    Pose = 3,
    /// Live, print, replay, mask; of pictures from elsewhere, 0 for live and then the species there are.
    Species = 4,
}

/// A data set in memory.
#[derive(Debug)]
pub struct FasData {
    /// `[samples, 3, size, size]`, 8 bit.
    images: Tensor,
    live: Tensor,
    /// What is true of some cues, all of them for generated pictures.
    maps: IndexMap<Proxy, Tensor>,
    attributes: Tensor,
    pub(super) samples: Vec<Scored>,
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

impl ToDevice for FasBatch {
    fn to_device(self, device: Device) -> Self {
        let move_to = |tensor: Tensor| tensor.to_device(device);
        Self {
            input: move_to(self.input),
            targets: ProxyTargets {
                live: move_to(self.targets.live),
                maps: self.targets.maps.into_iter().map(|(proxy, map)| (proxy, move_to(map))).collect(),
            },
            attributes: move_to(self.attributes),
        }
    }
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
        let depth = gather(&|p| p.depth.clone(), Proxy::Depth.channels());
        let reflection = gather(&|p| p.reflection.clone(), Proxy::Reflection.channels());
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
        let physical = Self {
            images,
            live: Tensor::from_slice(&live),
            maps: IndexMap::from([(Proxy::Depth, depth), (Proxy::Reflection, reflection), (Proxy::Material, material)]),
            attributes: Tensor::from_slice(&attributes).view([count, 5]),
            samples: pictures.iter().map(sample).collect(),
        };
        Ok(physical.labelled(policies))
    }

    /// With maps as policies say, from maps as things physically are: attacks lose their depth, faces their reflection.
    #[must_use]
    pub fn labelled(mut self, policies: Policies) -> Self {
        let zeroed = [
            (Proxy::Depth, policies.depth == DepthPolicy::LiveOnly, self.live.gt(0.5)),
            (Proxy::Reflection, policies.reflection == ReflectionPolicy::LiveZero, self.live.lt(0.5)),
        ];
        for (proxy, _, kept) in zeroed.into_iter().filter(|(_, zeroed, _)| *zeroed) {
            if let Some(map) = self.maps.get_mut(&proxy) {
                *map = &*map * kept.to_kind(Kind::Float).view([-1, 1, 1, 1]);
            }
        }
        self
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
    ///
    /// # Panics
    /// At a position that there is not.
    pub fn batch(&self, positions: &[i64]) -> FasBatch {
        let index = Tensor::from_slice(positions);
        let take = |tensor: &Tensor| tensor.index_select(0, &index);
        FasBatch {
            input: take(&self.images).to_kind(Kind::Float) / 255.0,
            targets: self.targets(positions),
            attributes: take(&self.attributes),
        }
    }

    /// Labels and maps of the samples at some positions, without their pictures.
    ///
    /// # Panics
    /// At a position that there is not.
    pub fn targets(&self, positions: &[i64]) -> ProxyTargets {
        let index = Tensor::from_slice(positions);
        let take = |tensor: &Tensor| tensor.index_select(0, &index);
        ProxyTargets {
            live: take(&self.live),
            maps: self.maps.iter().map(|(&proxy, map)| (proxy, take(map))).collect(),
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
    ///
    /// # Panics
    /// For a sample that there is not.
    pub fn attribute(&self, sample: usize, column: Columns) -> i64 {
        self.attributes.int64_value(&[sample as i64, column as i64])
    }

    /// The samples for which `keep` holds, by position.
    pub fn positions_where(&self, keep: impl Fn(usize, &Scored) -> bool) -> Vec<i64> {
        let kept = self.samples.iter().enumerate().filter(|(at, sample)| keep(*at, sample));
        kept.map(|(at, _)| at as i64).collect()
    }

    /// Only the samples at some positions.
    ///
    /// # Panics
    /// At a position that there is not.
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
}

/// Fifteen pictures of three people.
#[cfg(test)]
pub(super) fn small(policies: Policies) -> FasData {
    use crate::fas::synth::{Domain, Generator, Population};
    let config = GeneratorConfig { raster: 24, crop: 16, map: 4 };
    let population = Population { domains: vec![Domain::Webcam], identities: 3, live: 2, print: 1, replay: 1, mask: 1 };
    let pictures = Generator::new(2, config).unwrap().render_all(&population.specs()).unwrap();
    FasData::from_rendered(&pictures, config, policies).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_literatures_labels_give_attacks_no_depth_and_faces_no_shine() {
        let all: Vec<i64> = (0..15).collect();
        let sums = |policies| {
            let batch = small(policies).batch(&all);
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
    fn labels_can_be_put_on_maps_later() {
        let all: Vec<i64> = (0..15).collect();
        let physical = Policies { depth: DepthPolicy::Physical, reflection: ReflectionPolicy::Physical };
        let maps = |data: FasData| data.targets(&all).maps;
        assert_eq!(maps(small(physical).labelled(Policies::default())), maps(small(Policies::default())));
        assert_eq!(maps(small(physical).labelled(physical)), maps(small(physical)));
    }

    #[test]
    fn scores_of_another_number_are_refused() {
        let refused = small(Policies::default()).scored(&[0.5]);
        assert!(matches!(refused, Err(Error::LengthMismatch { left: 1, right: 15, .. })));
    }
}
