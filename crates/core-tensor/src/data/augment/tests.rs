//! Identities, closed forms, and independence of batch and thread.

use proptest::prelude::*;
use tch::Tensor;

use super::*;
use crate::data::{ChannelStatistics, Dataset, ImageShape, Samples};

/// Images whose bytes are all different in a way that any move would show.
fn images(n: usize, shape: ImageShape) -> Dataset {
    let bytes = n * shape.channels * shape.height * shape.width;
    let pixels = (0..bytes).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    Dataset::new(pixels, shape, vec![0; n], vec!["only".to_owned()], "numbers").unwrap()
}

fn run(transforms: impl IntoIterator<Item = Transform>, set: &Dataset, draw: Draw) -> Tensor {
    let all: Vec<_> = (0..set.len()).collect();
    let pipeline = Augmentation::new(transforms).prepare(set.channels(), set.size()).unwrap();
    pipeline.batch(set, &all, draw).unwrap()
}

fn scaled(set: &Dataset) -> Tensor {
    set.images().to_kind(tch::Kind::Float) * (1.0 / 255.0)
}

fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

const FLIP: Transform = Transform::HorizontalFlip { probability: 1.0 };
const RGB: ImageShape = ImageShape::new(3, 7, 5);

#[test]
fn no_transform_scales_to_the_unit_range() {
    let set = images(3, RGB);
    // One rounding each.
    assert!(difference(&run([], &set, Draw::default()), &scaled(&set)) < 1e-7);
}

#[test]
fn a_crop_without_padding_is_the_identity() {
    let set = images(3, RGB);
    assert_eq!(run([Transform::PadCrop { padding: 0 }], &set, Draw::default()), run([], &set, Draw::default()));
}

#[test]
fn a_flip_mirrors_and_two_flips_are_the_identity() {
    let set = images(3, RGB);
    let plain = run([], &set, Draw::default());
    assert_eq!(run([FLIP], &set, Draw::default()), plain.flip([3]));
    assert_eq!(run([FLIP, FLIP], &set, Draw::default()), plain);
    assert_eq!(run([Transform::HorizontalFlip { probability: 0.0 }], &set, Draw::default()), plain);
}

#[test]
fn normalise_is_its_closed_form() {
    let set = images(3, RGB);
    let statistics = ChannelStatistics::cifar10();
    let column = |values: &[f32]| Tensor::from_slice(values).view([1, 3, 1, 1]);
    let expected = (scaled(&set) - column(&statistics.mean)) / column(&statistics.std);
    // Values reach 2.2; the fused form rounds at other places, a few units of 2⁻²³.
    assert!(difference(&run([statistics.normalise()], &set, Draw::default()), &expected) < 1e-6);
}

#[test]
fn padding_is_black_before_normalise_and_the_mean_after() {
    let white = Dataset::new(vec![255; 64 * 9], ImageShape::new(1, 3, 3), vec![0; 64], vec!["w".into()], "w").unwrap();
    let normalise = || Transform::Normalise { mean: vec![0.5], std: vec![0.25] };
    let crop = || Transform::PadCrop { padding: 2 };
    let draw = Draw { seed: 3, ..Draw::default() };
    // Black is (0 − 0.5) / 0.25 = −2 and white is 2; padding that comes after normalising is 0.
    let before = run([crop(), normalise()], &white, draw);
    assert_eq!((before.min().double_value(&[]), before.max().double_value(&[])), (-2.0, 2.0));
    let after = run([normalise(), crop()], &white, draw);
    assert_eq!((after.min().double_value(&[]), after.max().double_value(&[])), (0.0, 2.0));
    // Same draws, same places.
    assert_eq!(before.eq(2.0), after.eq(2.0));
}

#[test]
fn every_offset_of_a_padded_crop_is_drawn_equally_often() {
    // One white pixel in the middle of 5 × 5, padding 2: where it lands tells the offset; 25 places.
    let mut one = [0; 25];
    one[12] = 255;
    let n = 5000;
    let set = Dataset::new(one.repeat(n), ImageShape::new(1, 5, 5), vec![0; n], vec!["w".into()], "w").unwrap();
    let found = run([Transform::PadCrop { padding: 2 }], &set, Draw { seed: 1, ..Draw::default() });
    let counts = Vec::<f64>::try_from(found.sum_dim_intlist(0, false, tch::Kind::Double).view(25)).unwrap();
    let expected = n as f64 / 25.0;
    let chi_squared: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
    // 24 degrees of freedom: above 51.2 with probability 0.001 for a fair draw; the seed is fixed.
    assert!(chi_squared < 51.2, "{chi_squared}");
}

#[test]
fn seed_epoch_and_stream_each_change_the_draw() {
    let set = images(32, ImageShape::new(1, 8, 8));
    let at = |draw| run([Transform::PadCrop { padding: 2 }], &set, draw);
    let base = at(Draw::default());
    assert_eq!(base, at(Draw::default()));
    assert_ne!(base, at(Draw { seed: 1, ..Draw::default() }));
    assert_ne!(base, at(Draw { epoch: 1, ..Draw::default() }));
    assert_ne!(base, at(Draw { stream: 1, ..Draw::default() }));
}

#[test]
fn tasks_and_threads_change_no_image() {
    let set = images(11, ImageShape::new(3, 8, 8));
    let index = [7, 2, 2, 10, 0, 5, 9];
    let draw = Draw { seed: 3, epoch: 2, stream: 0 };
    let moves = || vec![Transform::PadCrop { padding: 2 }, Transform::HorizontalFlip { probability: 0.5 }];
    let blur = Transform::Blur { kernel: 3, sigma: [0.5, 1.5], probability: 0.5 };
    for transforms in [moves(), moves().into_iter().chain([blur]).collect()] {
        let pipeline = Augmentation::new(transforms).prepare(set.channels(), set.size()).unwrap();
        let alone = pipeline.in_tasks(&set, &index, draw, index.len()).unwrap();
        for (images_per_task, threads) in [(1, 1), (1, 3), (2, 3), (3, 2)] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let shared = pool.install(|| pipeline.in_tasks(&set, &index, draw, images_per_task)).unwrap();
            assert_eq!(difference(&shared, &alone), 0.0, "{images_per_task} images a task, {threads} threads");
        }
        // One image after the other, whatever place it has.
        let rows: Vec<_> = index.iter().map(|&position| pipeline.batch(&set, &[position], draw).unwrap()).collect();
        assert_eq!(difference(&Tensor::cat(&rows, 0), &alone), 0.0);
    }
}

#[test]
fn an_augmentation_survives_json_and_unknown_fields_are_refused() {
    let augmentation =
        Augmentation::new([Transform::PadCrop { padding: 4 }, FLIP, ChannelStatistics::mnist().normalise()]);
    let json = serde_json::to_string(&augmentation).unwrap();
    assert!(json.starts_with(r#"[{"kind":"pad_crop","padding":4},"#), "{json}");
    assert_eq!(serde_json::from_str::<Augmentation>(&json).unwrap(), augmentation);
    assert!(serde_json::from_str::<Augmentation>(r#"[{"kind":"pad_crop","padding":4,"fill":1}]"#).is_err());
}

#[test]
fn settings_outside_their_range_are_named() {
    let refused = |transform: Transform| match Augmentation::new([transform]).prepare(3, Some([32, 32])) {
        Err(Error::Setting { setting, .. }) => setting,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(Transform::PadCrop { padding: 33 }), "pad_crop.padding");
    assert_eq!(refused(Transform::HorizontalFlip { probability: 1.5 }), "horizontal_flip.probability");
    assert_eq!(refused(Transform::HorizontalFlip { probability: f64::NAN }), "horizontal_flip.probability");
    assert_eq!(refused(Transform::Cutout { side: 0 }), "cutout.side");
    let crop = |size, scale, ratio| refused(Transform::ResizedCrop { size, scale, ratio });
    assert_eq!(crop([0, 32], [0.1, 1.0], [0.75, 1.3]), "resized_crop.size");
    assert_eq!(crop([32, usize::MAX], [0.1, 1.0], [0.75, 1.3]), "resized_crop.size");
    assert_eq!(crop([32, 32], [0.0, 1.0], [0.75, 1.3]), "resized_crop.scale");
    assert_eq!(crop([32, 32], [0.1, 1.1], [0.75, 1.3]), "resized_crop.scale");
    assert_eq!(crop([32, 32], [0.1, 1.0], [1.3, 0.75]), "resized_crop.ratio");
    assert_eq!(crop([32, 32], [0.1, 1.0], [1.0, f64::INFINITY]), "resized_crop.ratio");
    let jitter = |brightness, hue, probability| {
        refused(Transform::ColourJitter { brightness, contrast: 0.4, saturation: 0.4, hue, probability })
    };
    assert_eq!(jitter(-0.1, 0.1, 0.8), "colour_jitter.brightness");
    assert_eq!(jitter(f64::INFINITY, 0.1, 0.8), "colour_jitter.brightness");
    assert_eq!(jitter(0.4, 0.6, 0.8), "colour_jitter.hue");
    assert_eq!(jitter(0.4, 0.1, 1.1), "colour_jitter.probability");
    assert_eq!(refused(Transform::Grey { probability: -0.5 }), "grey.probability");
    let blur = |kernel, sigma| refused(Transform::Blur { kernel, sigma, probability: 0.5 });
    assert_eq!(blur(4, [0.1, 2.0]), "blur.kernel");
    assert_eq!(blur(65, [0.1, 2.0]), "blur.kernel");
    assert_eq!(blur(3, [0.0, 2.0]), "blur.sigma");
    assert_eq!(refused(ChannelStatistics::mnist().normalise()), "normalise");
    assert_eq!(refused(Transform::Normalise { mean: vec![f32::NAN; 3], std: vec![1.0; 3] }), "normalise.mean");
    assert_eq!(refused(Transform::Normalise { mean: vec![0.0; 3], std: vec![1.0, 0.0, 1.0] }), "normalise.std");
    let twice = [ChannelStatistics::cifar10().normalise(), ChannelStatistics::cifar10().normalise()];
    assert!(Augmentation::new(twice).prepare(3, Some([32, 32])).is_err());
    let grey_at_the_end = [ChannelStatistics::cifar10().normalise(), Transform::Grey { probability: 0.5 }];
    assert!(Augmentation::new(grey_at_the_end).prepare(3, Some([32, 32])).is_err());
    assert!(Augmentation::new([Transform::Grey { probability: 0.5 }]).prepare(2, Some([32, 32])).is_err());
    assert!(Augmentation::new([Transform::PadCrop { padding: 1 }]).prepare(3, None).is_err());
    assert!(Augmentation::default().prepare(3, None).is_err());
    assert!(Augmentation::default().prepare(0, Some([32, 32])).is_err());
}

#[test]
fn transforms_with_probability_zero_are_the_identity() {
    let set = images(3, RGB);
    let jitter =
        Transform::ColourJitter { brightness: 1.0, contrast: 1.0, saturation: 1.0, hue: 0.5, probability: 0.0 };
    let blur = Transform::Blur { kernel: 3, sigma: [1.0, 1.0], probability: 0.0 };
    let found = run([jitter, Transform::Grey { probability: 0.0 }, blur], &set, Draw::default());
    assert_eq!(found, run([], &set, Draw::default()));
}

#[test]
fn a_resized_crop_of_everything_is_a_resize() {
    let set = images(2, ImageShape::new(3, 6, 6));
    let crop = Transform::ResizedCrop { size: [4, 5], scale: [1.0, 1.0], ratio: [1.0, 1.0] };
    let found = run([crop], &set, Draw::default());
    let expected = scaled(&set).internal_upsample_bilinear2d_aa([4, 5], false, None, None);
    // Values up to 1, weights that add up to 1.
    assert!(difference(&found, &expected) < 1e-5);
}

#[test]
fn grey_makes_three_equal_channels() {
    let found = run([Transform::Grey { probability: 1.0 }], &images(3, RGB), Draw::default());
    assert_eq!(found.select(1, 0), found.select(1, 1));
    assert_eq!(found.select(1, 0), found.select(1, 2));
}

#[test]
fn a_flip_after_other_transforms_still_mirrors() {
    let set = images(3, RGB);
    let grey = || Transform::Grey { probability: 1.0 };
    let plain = run([grey()], &set, Draw::default());
    assert_eq!(run([grey(), FLIP], &set, Draw::default()), plain.flip([3]));
    assert_eq!(run([FLIP, grey()], &set, Draw::default()), plain.flip([3]));
}

/// Images of different sizes.
struct Uneven;

impl Samples for Uneven {
    fn len(&self) -> usize {
        3
    }
    fn channels(&self) -> usize {
        3
    }
    fn size(&self) -> Option<[usize; 2]> {
        None
    }
    fn label(&self, _: usize) -> i64 {
        0
    }
    fn image(&self, index: usize) -> Result<crate::data::Image<'_>> {
        let shape = ImageShape::new(3, 4 + index, 9 - index);
        Ok(crate::data::Image { pixels: vec![100; 3 * shape.height * shape.width].into(), shape })
    }
}

#[test]
fn images_of_different_sizes_become_one_through_a_resized_crop() {
    let crop = Transform::ResizedCrop { size: [8, 8], scale: [0.3, 1.0], ratio: [0.75, 4.0 / 3.0] };
    let pipeline = Augmentation::new([FLIP, crop]).prepare(3, Uneven.size()).unwrap();
    let found = pipeline.batch(&Uneven, &[0, 1, 2], Draw::default()).unwrap();
    assert_eq!(found.size(), [3, 3, 8, 8]);
    // A constant stays constant under weights that add up to 1.
    assert!(difference(&found, &(found.ones_like() * (100.0 / 255.0))) < 1e-5);
}

#[test]
fn images_of_another_shape_and_positions_outside_are_refused() {
    let set = images(2, RGB);
    let pipeline = Augmentation::default().prepare(3, Some([5, 7])).unwrap();
    assert!(matches!(pipeline.batch(&set, &[0], Draw::default()), Err(Error::Tensor { .. })));
    let pipeline = Augmentation::default().prepare(3, set.size()).unwrap();
    assert!(matches!(pipeline.batch(&set, &[2], Draw::default()), Err(Error::Setting { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn an_image_comes_out_the_same_in_any_batch_and_on_any_thread(seed: u64, threads in 1_usize..4) {
        let set = images(9, ImageShape::new(3, 6, 6));
        let transforms = [
            Transform::ResizedCrop { size: [7, 5], scale: [0.2, 1.0], ratio: [0.75, 4.0 / 3.0] },
            Transform::ColourJitter { brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1, probability: 0.8 },
            Transform::Grey { probability: 0.2 },
            Transform::Blur { kernel: 3, sigma: [0.1, 2.0], probability: 0.5 },
            Transform::PadCrop { padding: 2 },
            Transform::HorizontalFlip { probability: 0.5 },
            ChannelStatistics::cifar10().normalise(),
            Transform::Cutout { side: 3 },
        ];
        let pipeline = Augmentation::new(transforms).prepare(3, set.size()).unwrap();
        let draw = Draw { seed, epoch: 2, stream: 0 };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let order = [5, 0, 8, 8, 3, 1, 2, 4, 6, 7];
        let together = pool.install(|| pipeline.batch(&set, &order, draw)).unwrap();
        for (row, &position) in order.iter().enumerate() {
            let alone = pipeline.batch(&set, &[position], draw).unwrap();
            prop_assert_eq!(together.get(row as i64), alone.get(0));
        }
    }
}
