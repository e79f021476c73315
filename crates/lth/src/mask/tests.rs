use super::*;
use proptest::prelude::*;

fn set(bits: &[u8]) -> MaskSet {
    MaskSet::from_tensors(&[("w".into(), Tensor::from_slice(bits))]).unwrap()
}

/// Two tensors, one of them with a number of weights that is not a multiple of 8 or 64.
fn any_mask() -> impl Strategy<Value = MaskSet> {
    (prop::collection::vec(0_u8..2, 30), prop::collection::vec(0_u8..2, 128)).prop_map(|(a, b)| {
        let a = Tensor::from_slice(&a).view([5, 2, 1, 3]);
        let b = Tensor::from_slice(&b).view([16, 8]);
        MaskSet::from_tensors(&[("layer1.0.conv1.weight".into(), a), ("fc.weight".into(), b)]).unwrap()
    })
}

fn record() -> MaskRecord {
    let prunable = Prunable::matching(["*"]).except(["conv1.weight"]);
    MaskRecord { criterion: "magnitude".into(), scope: "global".into(), prunable, source: Some("5eed".into()) }
}

use crate::Prunable;

#[test]
fn distances_are_those_worked_out_by_hand() {
    let (a, b) = (set(&[1, 1, 0, 0, 1, 0, 1, 0]), set(&[1, 0, 0, 0, 1, 1, 1, 0]));
    // They differ in places 1 and 5 of 8; both keep 3 of the 5 that either keeps.
    assert_eq!((a.hamming(&b).unwrap(), a.jaccard(&b).unwrap(), a.overlap(&b).unwrap()), (0.25, 0.6, 3));
    assert_eq!((a.density(), a.sparsity(), a.weights()), (0.5, 0.5, 8));
}

#[test]
fn independent_masks_of_density_d_have_jaccard_d_over_two_minus_d() {
    for (density, expected) in [(0.64, 0.4706), (0.4096, 0.2576), (0.2097, 0.1171)] {
        let ones = (density * 100_000.0) as usize;
        let mask = set(&(0..100_000).map(|i| u8::from(i < ones)).collect::<Vec<_>>());
        let found = mask.shuffle_within_layers(1).jaccard(&mask.shuffle_within_layers(2)).unwrap();
        // Standard deviation of the ratio is below 0.0015 at this size; four of them.
        assert!((found - expected).abs() < 0.006, "{found} instead of {expected}");
    }
}

#[test]
fn masks_of_torch_prune_come_in_by_their_state_dict_names() {
    let float = |values: &[f32], shape: &[i64]| Tensor::from_slice(values).view(shape);
    let state = IndexMap::from([
        ("layer1.0.conv1.weight_orig".to_owned(), float(&[0.3, 0.1], &[1, 2, 1, 1])),
        ("layer1.0.conv1.weight_mask".to_owned(), float(&[1.0, 0.0], &[1, 2, 1, 1])),
        ("bn1.bias".to_owned(), float(&[0.0], &[1])),
    ]);
    let mask = MaskSet::from_state_dict(&state).unwrap();
    assert_eq!(mask.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["layer1.0.conv1.weight"]);
    assert_eq!(
        (mask["layer1.0.conv1.weight"].keeps(0), mask["layer1.0.conv1.weight"].keeps(1)),
        (Some(true), Some(false))
    );
    assert_eq!(mask["layer1.0.conv1.weight"].keeps(2), None);
    let none = IndexMap::from([("bn1.bias".to_owned(), float(&[0.0], &[1]))]);
    assert!(matches!(MaskSet::from_state_dict(&none), Err(Error::NothingToPrune { .. })));
}

#[test]
fn entries_other_than_zero_and_one_are_refused() {
    for (value, shown) in [(0.5, "0.5"), (f32::NAN, "NaN"), (2.0, "2"), (-1.0, "-1")] {
        let refused =
            MaskSet::from_tensors(&[("w".into(), Tensor::from_slice(&[1.0, value]))]).unwrap_err().to_string();
        assert_eq!(refused, format!("mask `w` holds {shown} at flat index 1, expected 0 or 1"));
    }
    // As `f32` these are 0 and 1.
    for (value, shown) in [(1e-60, format!("{}", 1e-60)), (1.0 - f64::EPSILON, format!("{}", 1.0 - f64::EPSILON))] {
        let masks = [("w".into(), Tensor::from_slice(&[1.0, 0.0, value, 0.5]).view([2, 2]))];
        let refused = MaskSet::from_tensors(&masks).unwrap_err().to_string();
        assert_eq!(refused, format!("mask `w` holds {shown} at flat index 2, expected 0 or 1"));
    }
    let one = || Tensor::from_slice(&[1_u8]);
    let twice = MaskSet::from_tensors(&[("w".into(), one()), ("w_mask".into(), one())]);
    assert!(matches!(twice, Err(Error::Mismatch { .. })));
}

#[test]
fn zeros_and_ones_of_every_kind_are_masks() {
    for kind in [Kind::Bool, Kind::Uint8, Kind::Int64, Kind::Half, Kind::BFloat16, Kind::Float, Kind::Double] {
        let bits = Tensor::from_slice(&[1_u8, 0, 1]).to_kind(kind);
        assert_eq!(MaskSet::from_tensors(&[("w".into(), bits)]).unwrap(), set(&[1, 0, 1]), "{kind:?}");
    }
}

#[test]
fn equal_masks_in_another_order_are_another_set() {
    let layers = [("a".to_owned(), Tensor::from_slice(&[1_u8, 0])), ("b".to_owned(), Tensor::from_slice(&[0_u8, 1]))];
    let [mask, same] = [0, 1].map(|_| MaskSet::from_tensors(&layers).unwrap());
    let [a, b] = layers;
    let turned = MaskSet::from_tensors(&[b, a]).unwrap();
    assert_eq!((&mask, mask.digest()), (&same, same.digest()));
    assert_ne!(mask, turned);
    assert_ne!(mask.digest(), turned.digest());
}

#[test]
fn masks_that_do_not_fit_the_model_change_nothing() {
    let ones = |name: &str, shape: &[i64]| (name.to_owned(), Tensor::ones(shape, (Kind::Float, Device::Cpu)));
    let mask = MaskSet::from_tensors(&[
        ("a".into(), Tensor::from_slice(&[0_u8, 1])),
        ("b".into(), Tensor::from_slice(&[0_u8, 1, 1])),
    ])
    .unwrap();
    for (second, says) in
        [(ones("b", &[1, 3]), "expected a tensor of shape [3], found [1, 3]"), (ones("c", &[3]), "no such tensor")]
    {
        let model = [ones("a", &[2]), second];
        let refused = mask.apply(&model).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
        assert_eq!(model[0].1.sum(Kind::Float).double_value(&[]), 2.0);
    }
    assert!(set(&[1, 0]).hamming(&set(&[1, 0, 1])).is_err());
    assert!(set(&[1, 0]).jaccard(&mask).is_err());
    assert!(mask.and(&set(&[1, 0])).is_err());
    assert!(mask.xor(&set(&[1, 0])).is_err());
}

#[test]
fn a_file_whose_parts_contradict_each_other_is_refused() {
    use core_tensor::checkpoint::{Header, write_safetensors};
    use core_tensor::optim::NamedTensors;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.safetensors");
    let load = |layers: serde_json::Value, bytes: &[u8], sparsity: serde_json::Value, denominator: usize| {
        let header = serde_json::json!({
            "criterion": "magnitude", "scope": "global", "prunable": {"choose": {"matching": ["w"]}}, "source": null,
            "sparsity": sparsity, "denominator": denominator, "layers": layers,
        });
        let tensors = NamedTensors::from([("w".to_owned(), Tensor::from_slice(bytes))]);
        write_safetensors(&path, &tensors, &Header::new("lth.mask", 1, header).to_metadata().unwrap()).unwrap();
        MaskSet::load(&path)
    };
    let refuse = |layers, bytes: &[u8]| load(layers, bytes, serde_json::json!(0.5), 4).unwrap_err().to_string();
    let layer =
        |shape: &[i64], survivors: u32| serde_json::json!([{"name": "w", "shape": shape, "survivors": survivors}]);
    assert!(refuse(layer(&[2, 2], 3), &[0b0101]).contains("expected 3 survivors, found 2"));
    assert!(refuse(layer(&[2, 2], 2), &[0b0101, 0]).contains("expected 1 bytes"));
    assert!(refuse(layer(&[2, 2], 2), &[0b1_0001]).contains("bits are set beyond its end"));
    assert!(refuse(layer(&[2, -2], 2), &[0b0101]).contains("its shape is [2, -2]"));
    for shape in [[i64::MAX, 2, 1], [i64::MAX, 2, 0], [0, -1, 2]] {
        assert!(refuse(layer(&shape, 2), &[0b0101]).contains("its shape is"), "{shape:?}");
    }
    assert!(refuse(serde_json::json!("all"), &[0b0101]).contains("does not fit"));
    let none = load(serde_json::json!([]), &[0b0101], serde_json::json!(0.0), 0).unwrap_err().to_string();
    assert!(none.contains("1 tensors for 0 layers"), "{none}");
    // The header's shares are those of the bits.
    let said = |sparsity, denominator| load(layer(&[2, 2], 2), &[0b0101], sparsity, denominator);
    assert!(said(serde_json::json!(0.5), 4).is_ok());
    let refused = |sparsity: f64, denominator| said(serde_json::json!(sparsity), denominator).unwrap_err().to_string();
    assert!(refused(0.5, 8).contains("its denominator is 8, its layers have 4 weights"));
    assert!(refused(0.75, 4).contains("its sparsity is 0.75, its bits drop 2 of 4"));
    assert!(said(serde_json::Value::Null, 4).is_err());
    let absent = folder.path().join("absent.safetensors");
    assert!(MaskSet::load(&absent).unwrap_err().to_string().contains("absent.safetensors"));
}

#[test]
fn a_mask_of_what_its_record_excepts_is_neither_written_nor_read() {
    use core_tensor::checkpoint::{Header, write_safetensors};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.safetensors");
    let conv = |name: &str| {
        let layers = [(name.to_owned(), Tensor::from_slice(&[1_u8, 0]).view([1, 2, 1, 1]))];
        MaskSet::from_tensors(&layers).unwrap()
    };
    let record = MaskRecord { prunable: Prunable::conv_only().except(["conv1.weight"]), ..record() };
    conv("layer1.0.conv1.weight").save(&path, &record).unwrap();
    assert!(MaskSet::load(&path).is_ok());
    let refused = conv("conv1.weight").save(&path, &record).unwrap_err().to_string();
    let says = "`conv1.weight`: expected no mask where the record prunes convolution weights, except conv1.weight, found one of \
                shape [1, 2, 1, 1]";
    assert_eq!(refused, says);
    // Another writer's.
    let mask = conv("conv1.weight");
    let header = super::file::MaskHeader { record, layout: mask.layout() };
    write_safetensors(&path, &mask.packed(""), &Header::new("lth.mask", 1, header).to_metadata().unwrap()).unwrap();
    let refused = MaskSet::load(&path).unwrap_err().to_string();
    assert!(refused.contains("mask.safetensors: `conv1.weight`: expected no mask"), "{refused}");
}

#[test]
fn masks_of_other_code_come_in_under_the_models_names() {
    use core_tensor::checkpoint::{LoadPolicy, Rename};

    let conv = |name: &str, bit: u8| (name.to_owned(), Tensor::from_slice(&[bit, 1 - bit]).view([1, 2, 1, 1]));
    let set = |layers: &[NamedTensor]| MaskSet::from_tensors(layers).unwrap();
    let theirs = set(&[
        conv("module.model.conv.weight", 1),
        conv("module.model.blocks.0.conv1.weight", 0),
        conv("module.model.blocks.1.shortcut.0.weight", 1),
        conv("module.model.fc.weight", 0),
    ]);
    let policy = LoadPolicy { rename: Rename::from_open_lth(1), ..LoadPolicy::without(["fc."]) };
    // The head's mask is left out with the head; order and bits stay.
    let ours =
        set(&[conv("conv1.weight", 1), conv("layer1.0.conv1.weight", 0), conv("layer2.0.downsample.0.weight", 1)]);
    assert_eq!(theirs.renamed(&policy).unwrap(), ours);
    // A mask that is under the model's names already stays as it is.
    assert_eq!(ours.renamed(&policy).unwrap(), ours);

    let clash =
        set(&[conv("module.conv.weight", 1), conv("conv1.weight", 0)]).renamed(&policy).unwrap_err().to_string();
    assert_eq!(
        clash,
        "`conv1.weight`: expected one mask of that name, found both `module.conv.weight` and `conv1.weight`"
    );
    let queries = LoadPolicy { select: Some("encoder_q.".into()), ..LoadPolicy::strict() };
    assert!(matches!(theirs.renamed(&queries), Err(Error::NothingToPrune { tensors: 4, .. })));
    assert!(theirs.renamed(&LoadPolicy::without([""])).is_err());
}

#[test]
fn a_set_without_masks_drops_nothing_and_survives_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.safetensors");
    let none = MaskSet::from_tensors(&[]).unwrap();
    assert_eq!((none.density(), none.sparsity(), none.weights()), (1.0, 0.0, 0));
    none.save(&path, &record()).unwrap();
    let (read, found) = MaskSet::load(&path).unwrap();
    assert_eq!((read.digest(), read, found), (none.digest(), none, record()));
}

#[test]
fn a_layer_without_weights_survives_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mask.safetensors");
    let empty = ("empty".to_owned(), Tensor::zeros([4, 0, 3], (Kind::Uint8, Device::Cpu)));
    let mask = MaskSet::from_tensors(&[("w".into(), Tensor::from_slice(&[1_u8, 0])), empty]).unwrap();
    assert_eq!((mask["empty"].density(), mask.density()), (1.0, 0.5));
    mask.save(&path, &record()).unwrap();
    let (read, found) = MaskSet::load(&path).unwrap();
    assert_eq!((read.digest(), read, found), (mask.digest(), mask, record()));
}

/// Of two tensors of 2000 weights, the first half of each and every third: 667 weights in both.
fn unlike_masks() -> [MaskSet; 2] {
    let mask = |kept: fn(usize) -> bool| {
        let layer = |layer: usize| {
            let bits: Vec<u8> = (2000 * layer..2000 * (layer + 1)).map(|place| u8::from(kept(place))).collect();
            (layer.to_string(), Tensor::from_slice(&bits))
        };
        MaskSet::from_tensors(&[layer(0), layer(1)]).unwrap()
    };
    [mask(|place| place % 2000 < 1000), mask(|place| place % 3 == 0)]
}

#[test]
fn masks_shuffled_with_one_seed_keep_their_overlap_and_with_two_do_not() {
    let [a, b] = unlike_masks();
    let nested = a.and(&b).unwrap();
    for shuffle in [MaskSet::shuffle_within_layers, MaskSet::shuffle_globally] {
        for mask in [&b, &nested] {
            assert_eq!(shuffle(&a, 1).jaccard(&shuffle(mask, 1)).unwrap(), a.jaccard(mask).unwrap());
        }
        assert!(shuffle(&nested, 1).is_subset_of(&shuffle(&a, 1)).unwrap());
        // By chance 667 · ½ of the 667 fall under the other mask; their standard deviation is 12.
        let overlap = shuffle(&a, 1).overlap(&shuffle(&nested, 2)).unwrap();
        assert!(overlap.abs_diff(nested.survivors() / 2) < 60, "{overlap} of {}", nested.survivors());
    }
}

proptest! {
    #[test]
    fn masks_survive_a_file(mask in any_mask()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.safetensors");
        mask.save(&path, &record()).unwrap();
        let (read, found) = MaskSet::load(&path).unwrap();
        prop_assert_eq!((read.digest(), read, found), (mask.digest(), mask, record()));
    }

    #[test]
    fn a_damaged_file_is_refused_or_read_as_some_mask_but_never_panics(
        mask in any_mask(), place in 0.0..1.0_f64, flip in 1_u8.., cut: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.safetensors");
        mask.save(&path, &record()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let place = (place * bytes.len() as f64) as usize;
        if cut { bytes.truncate(place) } else { bytes[place] ^= flip }
        std::fs::write(&path, &bytes).unwrap();
        let read = MaskSet::load(&path);
        prop_assert!(!cut || read.is_err());
        if let Ok((read, _)) = read {
            // Bits live in the last ⌈30/8⌉ + 16 bytes; counts catch a flip that changes how many are set.
            prop_assert_eq!(read.survivors(), mask.survivors());
        }
    }

    #[test]
    fn random_bytes_are_no_mask(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.safetensors");
        std::fs::write(&path, bytes).unwrap();
        prop_assert!(MaskSet::load(&path).is_err());
    }

    #[test]
    fn complements_and_intersections_are_those_of_sets(a in any_mask(), b in any_mask()) {
        let complement = a.complement();
        prop_assert_eq!(a.jaccard(&a).unwrap(), 1.0);
        prop_assert_eq!(a.overlap(&complement).unwrap(), 0);
        prop_assert_eq!(&complement.complement(), &a);
        prop_assert!((a.density() + complement.density() - 1.0).abs() < 1e-12);
        let both = a.and(&b).unwrap();
        prop_assert!(both.is_subset_of(&a).unwrap() && both.is_subset_of(&b).unwrap());
        prop_assert_eq!(both.survivors(), a.overlap(&b).unwrap());
        prop_assert_eq!(a.hamming(&b).unwrap(), b.hamming(&a).unwrap());
        // Nested masks: Jaccard is the ratio of the densities.
        if both.survivors() > 0 {
            prop_assert!((both.jaccard(&a).unwrap() - both.density() / a.density()).abs() < 1e-12);
        }
    }

    #[test]
    fn shuffles_keep_their_counts_and_repeat_for_a_seed(mask in any_mask(), seed: u64) {
        let within = mask.shuffle_within_layers(seed);
        prop_assert_eq!(within.layer_densities(), mask.layer_densities());
        prop_assert_eq!(&within, &mask.shuffle_within_layers(seed));
        let globally = mask.shuffle_globally(seed);
        prop_assert_eq!(globally.survivors(), mask.survivors());
        prop_assert_eq!(globally, mask.shuffle_globally(seed));
    }

    #[test]
    fn flipping_changes_exactly_the_share_asked_of_ones_and_of_zeros(mask in any_mask(), fraction in 0.0..=1.0_f64, seed: u64) {
        let flipped = mask.flip(fraction, seed).unwrap();
        let share = |count: usize| (fraction * count as f64).round_ties_even() as usize;
        let (ones, zeros) = (mask.survivors(), mask.weights() - mask.survivors());
        prop_assert_eq!(ones - mask.overlap(&flipped).unwrap(), share(ones));
        prop_assert_eq!(mask.complement().overlap(&flipped).unwrap(), share(zeros));
        prop_assert!(mask.flip(1.5, seed).is_err());
        // Recorded, the flips can be taken back; drawn anew they are others.
        let flips = mask.xor(&flipped).unwrap();
        prop_assert_eq!(flips.survivors(), share(ones) + share(zeros));
        prop_assert_eq!(&mask.xor(&flips).unwrap(), &flipped);
        prop_assert_eq!(&flipped.xor(&flips).unwrap(), &mask);
    }

    #[test]
    fn applying_a_mask_zeroes_what_it_drops_and_nothing_else(mask in any_mask()) {
        let model: Vec<NamedTensor> = mask.iter()
            .map(|(name, mask)| (name.to_owned(), Tensor::full(mask.shape(), -1.5, (Kind::Float, Device::Cpu))))
            .collect();
        mask.apply(&model).unwrap();
        for (name, tensor) in &model {
            let expected = mask[name.as_str()].to_tensor((Kind::Float, Device::Cpu)) * -1.5;
            prop_assert!(tensor.equal(&expected));
        }
    }
}
