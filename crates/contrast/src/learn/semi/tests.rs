use super::*;
use core_tensor::data::{ImageShape, Loader, LoaderConfig, ShapeGenerator, Transform};
use proptest::prelude::*;

fn matrix(values: &[f64]) -> Tensor {
    Tensor::from_slice(values).view([-1, 3])
}

#[test]
fn the_loss_of_a_reference_run() {
    let (clean, attacked) = (matrix(&[2.0, 0.0, -1.0, 0.0, 1.0, 1.0]), matrix(&[1.0, 0.0, -1.0, 0.5, 0.5, 0.0]));
    let (soft, target) = (matrix(&[2.0, 1.0, 0.0, 0.0, 1.0, 2.0]), Tensor::from_slice(&[0_i64]));
    let loss = SemiConfig::default().loss(&clean, &attacked, &target, &soft).unwrap();
    let part = |name: &str| loss.parts.iter().find(|(part, _)| *part == name).unwrap().1.double_value(&[]);
    // PyTorch, f64, given to 7 digits.
    assert!((part("labelled") + part("unlabelled") - 0.9553207).abs() < 1e-7);
    assert!((part("robustness") - 0.1166885).abs() < 1e-7);
    // Six divergences rounded to 7 digits.
    assert!((loss.total.double_value(&[]) - 1.6554514).abs() < 4e-7);
}

#[test]
fn where_all_have_labels_and_no_share_is_soft_it_is_cross_entropy_and_divergence() {
    let (clean, attacked) = (matrix(&[2.0, 0.0, -1.0, 0.0, 1.0, 1.0]), matrix(&[1.0, 0.0, -1.0, 0.5, 0.5, 0.0]));
    let target = Tensor::from_slice(&[0_i64, 2]);
    let config = SemiConfig { alpha: 0.0, ..SemiConfig::default() };
    let divergence = super::divergence(&clean, &attacked).unwrap().mean(Kind::Double);
    let expected = attacked.cross_entropy_loss(&target, None::<Tensor>, Reduction::Mean, -100, 0.0) + divergence * 6.0;
    for soft in [matrix(&[0.0; 6]), matrix(&[2.0, 1.0, 0.0, 0.0, 1.0, 2.0])] {
        let found = config.loss(&clean, &attacked, &target, &soft).unwrap().total;
        // Sums of numbers below 4, a handful of them, in another order.
        let difference = (found - &expected).abs().double_value(&[]);
        assert!(difference < 4e-15, "{difference:e}");
    }
}

#[test]
fn soft_labels_are_softened_by_the_temperature() {
    // With a = 1 and β = 0, one labelled row: T²·H. H is .8323956 at T = 1 and 1.0201914 at T = 2 (reference run).
    let (attacked, soft) = (matrix(&[1.0, 0.0, -1.0]), matrix(&[2.0, 1.0, 0.0]));
    for (temperature, expected) in [(1.0, 0.8323956), (2.0, 1.0201914)] {
        let config = SemiConfig { alpha: 1.0, beta: 0.0, temperature, ..SemiConfig::default() };
        let loss = config.loss(&attacked, &attacked, &Tensor::from_slice(&[0_i64]), &soft).unwrap();
        let found = loss.total.double_value(&[]) / (temperature * temperature);
        assert!((found - expected).abs() < 1e-7, "{found} for {expected}");
    }
}

#[test]
fn a_loss_with_settings_outside_their_range_is_refused() {
    let (logits, target) = (matrix(&[1.0, 0.0, -1.0]), Tensor::from_slice(&[0_i64]));
    let refused = |config: SemiConfig| config.loss(&logits, &logits, &target, &logits).unwrap_err();
    let good = SemiConfig::default;
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = refused(SemiConfig { temperature, ..good() });
        assert!(matches!(error, Error::InvalidTemperature { .. }), "{error}");
    }
    let cases = [
        ("alpha", SemiConfig { alpha: f64::NAN, ..good() }),
        ("soft_weight", SemiConfig { soft_weight: -1.0, ..good() }),
        ("beta", SemiConfig { beta: f64::INFINITY, ..good() }),
    ];
    for (name, config) in cases {
        let error = refused(config);
        assert!(matches!(error, Error::Setting { setting, .. } if setting == name), "{name}: {error}");
    }
    let scalar = Tensor::from(1.0);
    let error = good().loss(&scalar, &scalar, &target, &scalar).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}

#[test]
fn batches_whose_parts_do_not_fit_are_refused() {
    let weight = Tensor::from_slice(&[1.0_f32, -1.0]).view([2, 1]);
    let logits: Logits = Box::new(|x, _| x.linear(&weight, None::<Tensor>));
    let mut objective = SemiSupervised::of(logits, SemiConfig::default(), 0).unwrap();
    // Two labels or one, three images, soft labels of one or two of them.
    for (labels, soft) in [(vec![0_i64, 1], vec![1.0_f32, 0.0]), (vec![0], vec![1.0, 0.0, 0.0, 1.0])] {
        let batch = SemiBatch {
            input: Tensor::from_slice(&[0.5_f32, 0.5, 0.5]).view([3, 1]),
            target: Tensor::from_slice(&labels),
            soft: Tensor::from_slice(&soft).view([-1, 2]),
        };
        let error = objective.loss(&batch, &Progress::default()).unwrap_err();
        assert!(error.to_string().contains("soft labels") || format!("{error:?}").contains("soft labels"), "{error:?}");
    }
}

#[test]
fn the_attack_turns_from_labels_and_guesses() {
    // f(x) = (x, −x) of a single pixel: the attack lowers x where the label is 0 and raises it where it is 1.
    let weight = Tensor::from_slice(&[1.0_f32, -1.0]).view([2, 1]);
    let inputs = std::cell::RefCell::new(Vec::new());
    let logits: Logits = Box::new(|x, train| {
        if train {
            inputs.borrow_mut().push(Vec::<f32>::try_from(x.flatten(0, -1)).unwrap());
        }
        x.linear(&weight, None::<Tensor>)
    });
    let config = SemiConfig { attack: Pgd::new(Ball::linf(0.1)).with_steps(10), ..SemiConfig::default() };
    let mut objective = SemiSupervised::of(logits, config, 0).unwrap();
    let batch = SemiBatch {
        input: Tensor::from_slice(&[0.5_f32, 0.5, 0.5]).view([3, 1]),
        target: Tensor::from_slice(&[1_i64]),
        // The labelled row's own soft label says 0, its label 1: the label counts.
        soft: Tensor::from_slice(&[5.0_f32, 0.0, 2.0, 0.0, 0.0, 2.0]).view([3, 2]),
    };
    objective.loss(&batch, &Progress::default()).unwrap();
    let seen = inputs.borrow();
    assert_eq!(seen[0], [0.5, 0.5, 0.5]);
    for (found, expected) in seen[1].iter().zip([0.6, 0.4, 0.6]) {
        assert!((found - expected).abs() < 1e-6, "{seen:?}");
    }
}

fn set(labels: &[i64], classes: usize) -> Dataset {
    let names = (0..classes).map(|class| format!("class {class}")).collect();
    let pixels = (0..labels.len()).map(|position| position as u8).collect();
    Dataset::new(pixels, ImageShape::new(1, 1, 1), labels.to_vec(), names, "set").unwrap()
}

#[test]
fn splits_that_overlap_or_leave_the_set_are_refused() {
    let split = |labelled: &[usize], unlabelled: &[usize]| SemiSplit {
        labelled: labelled.to_vec(),
        unlabelled: unlabelled.to_vec(),
    };
    assert!(split(&[0], &[1, 2]).validate(3).is_ok());
    assert!(matches!(split(&[0, 1], &[1, 2]).validate(3), Err(Error::SplitOverlap { index: 1 })));
    assert!(matches!(split(&[3], &[1]).validate(3), Err(Error::Setting { setting: "labelled", .. })));
    assert!(matches!(split(&[0], &[]).validate(3), Err(Error::Setting { setting: "unlabelled", .. })));
    // A class that has too few images.
    assert!(matches!(SemiSplit::draw(&set(&[0, 0, 0, 1], 2), 2, 0), Err(Error::Setting { setting: "per_class", .. })));
}

#[test]
fn loaders_and_settings_that_do_not_fit_are_refused() {
    let set = set(&[0, 1, 0, 1, 0, 1], 2);
    let split = SemiSplit::draw(&set, 1, 0).unwrap();
    let soft = Tensor::zeros([6, 2], (Kind::Float, Device::Cpu));
    let make = |soft: &Tensor, sizes| {
        SemiLoader::new(set.clone(), split.clone(), soft, &Augmentation::default(), sizes, 0).unwrap_err()
    };
    assert!(matches!(make(&soft.narrow(0, 0, 5), [1, 2]), Error::Mismatch { .. }));
    assert!(matches!(make(&soft, [0, 2]), Error::Setting { setting: "labelled_size", .. }));
    assert!(matches!(make(&soft, [1, 5]), Error::Setting { setting: "unlabelled_size", .. }));
    let bad = |config: SemiConfig| config.validate().unwrap_err();
    assert!(matches!(bad(SemiConfig { alpha: 1.1, ..Default::default() }), Error::Setting { setting: "alpha", .. }));
    assert!(matches!(bad(SemiConfig { beta: -1.0, ..Default::default() }), Error::Setting { setting: "beta", .. }));
    let cold = SemiConfig { temperature: 0.0, ..Default::default() };
    assert!(matches!(bad(cold), Error::InvalidTemperature { .. }));
    assert!(pseudo_label_accuracy(&soft, &set, &[6]).is_err());
}

#[test]
fn soft_labels_are_kept_by_position() {
    let images = ShapeGenerator::fashion_mnist().splits(10, 1, 0).unwrap().train;
    let loader = |config| Loader::new(images.clone(), &Augmentation::default(), config, 0).unwrap();
    let mean = |x: &Tensor| {
        let mean = x.flatten(1, -1).mean_dim([1].as_slice(), true, Kind::Float);
        Tensor::cat(&[&mean, &(mean.neg())], 1)
    };
    let soft = pseudo_labels(mean, &loader(LoaderConfig::evaluation(4))).unwrap();
    let expected = mean(&(images.images().to_kind(Kind::Float) / 255.0));
    assert!((soft - expected).abs().max().double_value(&[]) < 1e-6);
    let shuffled = pseudo_labels(mean, &loader(LoaderConfig::training(4)));
    assert!(matches!(shuffled, Err(Error::Setting { setting: "source", .. })));
    // One number an image, and one row a batch.
    let flat = pseudo_labels(|x| mean(x).select(1, 0) * f64::NAN, &loader(LoaderConfig::evaluation(4)));
    let pooled = pseudo_labels(|x| mean(x).narrow(0, 0, 1), &loader(LoaderConfig::evaluation(4)));
    for refused in [flat, pooled] {
        assert!(matches!(refused, Err(Error::Mismatch { name, .. }) if name == "pseudo-labels"));
    }
}

#[test]
fn a_labelled_image_that_comes_round_again_in_an_epoch_is_augmented_anew() {
    let images = ShapeGenerator::fashion_mnist().splits(22, 1, 0).unwrap().train;
    let split = SemiSplit { labelled: vec![3, 8], unlabelled: (0..22).filter(|i| ![3, 8].contains(i)).collect() };
    let soft = Tensor::arange(22, (Kind::Float, Device::Cpu)).view([22, 1]);
    let moves = vec![Transform::PadCrop { padding: 4 }, Transform::HorizontalFlip { probability: 0.5 }];
    let augmentation = Augmentation::new(moves);
    let pipeline = augmentation.prepare(images.channels(), images.size()).unwrap();
    let loader = SemiLoader::new(images.clone(), split, &soft, &augmentation, [2, 2], 5).unwrap();
    let epoch = || loader.epoch(0).unwrap().map(|batch| batch.unwrap());
    let drawn =
        |position, stream| pipeline.batch(&images, &[position], Draw { seed: 5, epoch: 0, stream }).unwrap().get(0);
    let mut distinct: Vec<Tensor> = Vec::new();
    for ((round, batch), again) in (0_u64..).zip(epoch()).zip(epoch()) {
        assert_eq!(batch.input, again.input, "another pass through the epoch is the same");
        for row in 0..4 {
            let position = batch.soft.double_value(&[row, 0]) as usize;
            // Unlabelled images, and the first round of the labelled ones, are those of any other loader.
            let stream = if row < 2 { round } else { 0 };
            assert_eq!(batch.input.get(row), drawn(position, stream), "round {round}, image {position}");
            if position == 3 && !distinct.contains(&batch.input.get(row)) {
                distinct.push(batch.input.get(row));
            }
        }
    }
    // Of 162 moves ten are seldom twice the same.
    assert!(distinct.len() > 5, "{} pictures of ten", distinct.len());
}

#[test]
fn a_batch_may_begin_in_one_round_and_end_in_the_next() {
    let images = ShapeGenerator::fashion_mnist().splits(12, 1, 0).unwrap().train;
    let split = SemiSplit { labelled: vec![0, 1, 2], unlabelled: (3..12).collect() };
    let soft = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([12, 1]);
    let augmentation = Augmentation::new(vec![Transform::PadCrop { padding: 4 }]);
    let pipeline = augmentation.prepare(images.channels(), images.size()).unwrap();
    let loader = SemiLoader::new(images.clone(), split, &soft, &augmentation, [2, 3], 0).unwrap();
    let batches: Vec<SemiBatch> = loader.epoch(1).unwrap().map(|batch| batch.unwrap()).collect();
    for (place, stream) in [0, 0, 0, 1, 1, 1].into_iter().enumerate() {
        let (batch, row) = (&batches[place / 2], (place % 2) as i64);
        let position = batch.soft.double_value(&[row, 0]) as usize;
        let expected = pipeline.batch(&images, &[position], Draw { seed: 0, epoch: 1, stream }).unwrap();
        assert_eq!(batch.input.get(row), expected.get(0), "place {place}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn an_epoch_passes_once_through_the_unlabelled_and_evenly_through_the_labelled(
        per_class in 1_usize..4, labelled in 1_usize..4, unlabelled in 1_usize..6, seed: u64, epoch in 0_u64..3,
    ) {
        let labels: Vec<i64> = (0..24).map(|i| i % 3).collect();
        let set = set(&labels, 3);
        let split = SemiSplit::draw(&set, per_class, seed).unwrap();
        prop_assert_eq!(split.labelled.len(), 3 * per_class);
        prop_assert_eq!(split.labelled.len() + split.unlabelled.len(), 24);
        let labelled = labelled.min(split.labelled.len());
        let soft = Tensor::from_slice(&(0..24).map(|i| i as f32).collect::<Vec<_>>()).view([24, 1]).repeat([1, 3]);
        let sizes = [labelled, unlabelled];
        let loader = SemiLoader::new(set, split.clone(), &soft, &Augmentation::default(), sizes, seed).unwrap();
        let mut seen = [0_usize; 24];
        let batches: Vec<SemiBatch> = loader.epoch(epoch).unwrap().map(|batch| batch.unwrap()).collect();
        prop_assert_eq!(batches.len() as u64, loader.batches_per_epoch());
        for batch in &batches {
            prop_assert_eq!(batch.input.size()[0], (labelled + unlabelled) as i64);
            // A pixel holds its position; so does its soft label.
            let positions = Vec::<f32>::try_from((batch.input.flatten(0, -1) * 255.0).round()).unwrap();
            prop_assert_eq!(&positions, &Vec::<f32>::try_from(batch.soft.select(1, 0)).unwrap());
            for (place, position) in positions.iter().enumerate() {
                let position = *position as usize;
                seen[position] += 1;
                prop_assert_eq!(split.labelled.contains(&position), place < labelled);
                if place < labelled {
                    prop_assert_eq!(batch.target.int64_value(&[place as i64]), (position % 3) as i64);
                }
            }
        }
        for &index in &split.unlabelled {
            prop_assert!(seen[index] <= 1);
        }
        let counts: Vec<usize> = split.labelled.iter().map(|&index| seen[index]).collect();
        prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
    }
}
