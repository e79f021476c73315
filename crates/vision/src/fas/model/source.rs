//! The batches that training sees.

use super::set::{FasBatch, FasData};
use crate::fas::error::{Error, Result};
use core_tensor::data::BatchSource;
use core_tensor::seed::{Purpose, generator};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tch::Tensor;

/// How a batch is put together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sampling {
    /// Half live, half attacks, each drawn at random.
    #[default]
    Balanced,
    /// A quarter as many people as samples, two live pictures and two attacks of each: pairs for mining. People of whom
    /// there are not both, and pictures of nobody knows whom, are left out.
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
    /// class has no sample, or in pairs nobody has samples of both.
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
        let positions = |live| data.positions_where(|_, sample| sample.bona_fide == live);
        let (live, attacks) = (positions(true), positions(false));
        for (class, positions) in [("bona fide", &live), ("attack", &attacks)] {
            if positions.is_empty() {
                return Err(Error::EmptyClass { class });
            }
        }
        let mut people: BTreeMap<u32, [Vec<i64>; 2]> = BTreeMap::new();
        for (at, sample) in data.samples.iter().enumerate() {
            if let Some(who) = sample.subject {
                people.entry(who).or_default()[usize::from(sample.bona_fide)].push(at as i64);
            }
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
    use super::super::network::Proxy;
    use super::super::set::{Columns, Policies, small};
    use super::*;
    use crate::fas::metrics::Scored;
    use tch::Kind;

    #[test]
    fn batches_come_back_and_are_half_live() {
        let data = small(Policies::default());
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
        let data = small(Policies::default());
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
        let data = small(Policies::default());
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
    fn sources_that_cannot_work_are_refused() {
        let data = small(Policies::default());
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
        let pictures = [image::RgbImage::new(8, 8), image::RgbImage::new(8, 8)];
        let nobody = FasData::from_pictures(&pictures, vec![Scored::live(0.0), Scored::attack(0.0, "print")]).unwrap();
        let pairs = FasSource::new(&nobody, (8, 1), (Sampling::Pairs, plain), 0);
        assert!(matches!(pairs, Err(Error::EmptyClass { class: "bona fide or attack of one person" })));
        assert!(FasSource::new(&nobody, (8, 1), (Sampling::Balanced, plain), 0).is_ok());
    }
}
