//! Every sample once, the same batches from the same seed, errors passed on.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::data::{Image, ImageShape, Transform};

/// `n` images of 4 × 4 whose pixels are their position; two classes in turn.
fn numbered(n: usize) -> Dataset {
    let pixels = (0..n).flat_map(|position| [position as u8; 16]).collect();
    let labels = (0..n).map(|position| (position % 2) as i64).collect();
    Dataset::new(pixels, ImageShape::new(1, 4, 4), labels, vec!["even".into(), "odd".into()], "numbers").unwrap()
}

fn augmentation() -> Augmentation {
    Augmentation::new([Transform::PadCrop { padding: 1 }, Transform::HorizontalFlip { probability: 0.5 }])
}

fn epoch(loader: &Loader, epoch: u64) -> Vec<Batch> {
    loader.epoch(epoch).unwrap().collect::<Result<_>>().unwrap()
}

fn same(a: &[Batch], b: &[Batch]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.index == b.index && a.target == b.target && a.input == b.input)
}

/// A set whose image 5 cannot be read.
struct Broken;

impl Samples for Broken {
    fn len(&self) -> usize {
        8
    }
    fn channels(&self) -> usize {
        1
    }
    fn size(&self) -> Option<[usize; 2]> {
        Some([1, 1])
    }
    fn label(&self, _: usize) -> i64 {
        0
    }
    fn image(&self, index: usize) -> Result<Image<'_>> {
        if index == 5 {
            return Err(Error::malformed(std::path::Path::new("five.png"), 0, "broken"));
        }
        Ok(Image { pixels: Cow::Owned(vec![index as u8]), shape: ImageShape::new(1, 1, 1) })
    }
}

#[test]
fn a_batch_holds_what_its_index_says() {
    let loader = Loader::new(numbered(7), &Augmentation::default(), LoaderConfig::training(3), 1).unwrap();
    for batch in epoch(&loader, 0) {
        assert_eq!(batch.input.kind(), tch::Kind::Float);
        assert_eq!(batch.target.kind(), tch::Kind::Int64);
        for (row, &position) in batch.index.iter().enumerate() {
            let pixel = batch.input.double_value(&[row as i64, 0, 2, 2]);
            // A single rounding to f32.
            assert!((pixel - position as f64 / 255.0).abs() < 1e-8);
            assert_eq!(batch.target.int64_value(&[row as i64]), (position % 2) as i64);
        }
    }
}

#[test]
fn evaluation_keeps_the_order_of_the_set() {
    let loader = Loader::new(numbered(7), &Augmentation::default(), LoaderConfig::evaluation(3), 1).unwrap();
    let index: Vec<_> = epoch(&loader, 4).into_iter().flat_map(|batch| batch.index).collect();
    assert_eq!(index, [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn another_epoch_or_seed_gives_another_order() {
    let loader = |seed| Loader::new(numbered(64), &augmentation(), LoaderConfig::training(64), seed).unwrap();
    assert_ne!(epoch(&loader(0), 0)[0].index, epoch(&loader(0), 1)[0].index);
    assert_ne!(epoch(&loader(0), 0)[0].index, epoch(&loader(1), 0)[0].index);
}

#[test]
fn an_error_ends_the_epoch_and_names_the_file() {
    for prefetch in [0, 1, 3] {
        let config = LoaderConfig { prefetch, ..LoaderConfig::evaluation(2) };
        let loader = Loader::<Broken>::new(Broken, &Augmentation::default(), config, 0).unwrap();
        let batches: Vec<_> = loader.epoch(0).unwrap().collect();
        assert_eq!(batches.len(), 3);
        assert!(batches[0].is_ok() && batches[1].is_ok());
        assert!(batches[2].as_ref().unwrap_err().to_string().contains("five.png"));
    }
}

#[test]
fn settings_that_leave_no_batch_are_refused() {
    let loader = |config| Loader::new(numbered(3), &Augmentation::default(), config, 0);
    assert!(loader(LoaderConfig::training(0)).is_err());
    assert!(loader(LoaderConfig { drop_last: true, ..LoaderConfig::training(4) }).is_err());
    assert_eq!(loader(LoaderConfig::training(4)).unwrap().batches_per_epoch(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_sample_comes_once_an_epoch(
        n in 1_usize..50, batch_size in 1_usize..20, shuffle: bool, drop_last: bool, seed: u64,
    ) {
        prop_assume!(!drop_last || batch_size <= n);
        let config = LoaderConfig { shuffle, drop_last, ..LoaderConfig::training(batch_size) };
        let loader = Loader::new(numbered(n), &augmentation(), config, seed).unwrap();
        let batches = epoch(&loader, 3);
        prop_assert_eq!(batches.len() as u64, loader.batches_per_epoch());
        let (last, full) = batches.split_last().unwrap();
        prop_assert!(full.iter().all(|batch| batch.index.len() == batch_size));
        let mut seen: Vec<_> = batches.iter().flat_map(|batch| batch.index.clone()).collect();
        seen.sort_unstable();
        if drop_last {
            prop_assert_eq!(last.index.len(), batch_size);
            prop_assert_eq!(seen.len(), n / batch_size * batch_size);
            seen.dedup();
            prop_assert_eq!(seen.len(), n / batch_size * batch_size);
        } else {
            prop_assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn seed_and_epoch_fix_the_batches_whatever_the_prefetch_and_threads(
        seed: u64, at in 0_u64..5, prefetch in 0_usize..4, threads in 1_usize..4,
    ) {
        let loader = |prefetch| {
            let config = LoaderConfig { prefetch, ..LoaderConfig::training(4) };
            Loader::new(numbered(11), &augmentation(), config, seed).unwrap()
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let reference = epoch(&loader(2), at);
        prop_assert!(same(&reference, &pool.install(|| epoch(&loader(prefetch), at))));
    }
}
