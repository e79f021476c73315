//! A set in one file.

use super::{Columns, FasData};
use crate::fas::error::{Error, Result};
use crate::fas::metrics::Scored;
use crate::fas::model::Proxy;
use core_tensor::checkpoint::{Header, SafetensorsFile, read_safetensors, write_safetensors};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

const SCHEMA: &str = "vision.fas.data";

impl FasData {
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
    /// A file that is missing, malformed, or of something else; labels or attributes that contradict the header's.
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
        let there = |proxy: &Proxy| file.tensors().contains_key(proxy.name());
        let maps = Proxy::ALL.into_iter().filter(there).map(map).collect::<Result<_>>()?;
        let images = take("images", Kind::Uint8, &[Some(3), None, None])?;
        let (live, attributes) = (take("live", Kind::Float, &[])?, take("attributes", Kind::Int64, &[Some(5)])?);
        for (at, (label, sample)) in Vec::<f32>::try_from(&live)?.into_iter().zip(&named).enumerate() {
            if label != f32::from(u8::from(sample.bona_fide)) {
                let class = if sample.bona_fide { "1 (live)" } else { "0 (attack)" };
                return Err(Error::unreadable(path, format!("`live`: sample {at} is {label}, the header has {class}")));
            }
        }
        for (at, (columns, sample)) in Vec::<Vec<i64>>::try_from(&attributes)?.iter().zip(&named).enumerate() {
            let [identity, species] = [Columns::Identity, Columns::Species].map(|column| columns[column as usize]);
            // Somebody unknown has a number below 0.
            let person = sample.subject.map_or(identity < 0, |subject| identity == i64::from(subject));
            if !person || (species == 0) != sample.bona_fide {
                let found = format!("person {identity} and species {species}");
                let expected = sample.subject.map_or("nobody".into(), |subject| format!("person {subject}"));
                let class = if sample.bona_fide { "live" } else { "an attack" };
                let reason = format!("`attributes`: sample {at} has {found}, the header has {expected}, {class}");
                return Err(Error::unreadable(path, reason));
            }
        }
        Ok(Self { images, live, maps, attributes, samples: named.into_iter().map(Named::into_scored).collect() })
    }
}

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

#[cfg(test)]
mod tests {
    use super::super::{Policies, small};
    use super::*;

    #[test]
    fn a_set_survives_its_file_and_another_file_is_refused() {
        let data = small(Policies::default());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.safetensors");
        data.save(&path).unwrap();
        let back = FasData::load(&path).unwrap();
        assert_eq!(back.images, data.images);
        assert_eq!(back.maps[&Proxy::Material], data.maps[&Proxy::Material]);
        assert_eq!(back.scored(&[0.5; 15]).unwrap(), data.scored(&[0.5; 15]).unwrap());
        let some = back.subset(&[3, 4]);
        assert_eq!((some.len(), some.batch(&[0]).input), (2, data.batch(&[3]).input));
        let mut bare = back;
        bare.maps.retain(|proxy, _| *proxy == Proxy::Depth);
        bare.save(&path).unwrap();
        assert_eq!(FasData::load(&path).unwrap().maps.keys().collect::<Vec<_>>(), [&Proxy::Depth]);
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
    fn labels_that_contradict_the_header_are_refused() {
        let data = small(Policies::default());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.safetensors");
        let all: Vec<i64> = (0..15).collect();
        let first = |bona_fide: bool| data.positions_where(|_, sample| sample.bona_fide == bona_fide)[0];
        for (at, label, class) in [
            (first(false), 1.0, "0 (attack)"),
            (first(true), 0.0, "1 (live)"),
            (first(true), 0.5, "1 (live)"),
            (first(false), f64::NAN, "0 (attack)"),
        ] {
            let odd = data.subset(&all);
            let _ = odd.live.get(at).fill_(label);
            odd.save(&path).unwrap();
            let refused = FasData::load(&path).unwrap_err().to_string();
            let expected = format!("`live`: sample {at} is {label}, the header has {class}");
            assert!(refused.ends_with(&expected), "{refused}");
        }
    }

    #[test]
    fn attributes_that_contradict_the_header_are_refused() {
        let data = small(Policies::default());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.safetensors");
        let all: Vec<i64> = (0..15).collect();
        let person = data.attribute(3, Columns::Identity);
        assert!(data.samples[0].bona_fide && !data.samples[14].bona_fide);
        for (at, column, value, found, expected) in [
            (3, Columns::Identity, person + 1, format!("person {} and", person + 1), format!("person {person}, ")),
            (0, Columns::Species, 2, "and species 2".into(), ", live".into()),
            (14, Columns::Species, 0, "and species 0".into(), ", an attack".into()),
        ] {
            let odd = data.subset(&all);
            let _ = odd.attributes.get(at).get(column as i64).fill_(value);
            odd.save(&path).unwrap();
            let refused = FasData::load(&path).unwrap_err().to_string();
            assert!(refused.contains(&format!("`attributes`: sample {at} has person ")), "{refused}");
            assert!(refused.contains(&found) && refused.contains(&expected), "{refused}");
        }
        // Of nobody knows whom, whichever part of a set it was.
        let pictures = [image::RgbImage::new(8, 8), image::RgbImage::new(8, 8)];
        let samples = vec![Scored::live(0.0), Scored::attack(0.0, "print")];
        FasData::from_pictures(&pictures, samples).unwrap().subset(&[1]).save(&path).unwrap();
        assert_eq!(FasData::load(&path).unwrap().len(), 1);
    }
}
