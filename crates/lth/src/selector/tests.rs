use super::*;
use crate::criterion::{Criterion, FilterNorm, Magnitude, Random};
use crate::prunable::NamedTensor;
use crate::schedule::{PruningSchedule, ladder_density};
use proptest::prelude::*;
use tch::{Kind, Tensor};

fn layer(name: &str, values: &[f32]) -> NamedTensor {
    (name.to_owned(), Tensor::from_slice(values))
}

fn bits(mask: &MaskSet, name: &str) -> Vec<u8> {
    mask[name].bits().iter().map(u8::from).collect()
}

fn magnitude(selector: &Selector, weights: &[NamedTensor], amount: Amount) -> Result<MaskSet> {
    selector.prune(&Magnitude.score(weights, None)?, amount, None)
}

/// Distinct magnitudes in no particular order: multiples of a generator of the integers modulo a prime.
fn distinct(count: usize) -> Vec<f32> {
    (1..=count as u64).map(|i| (i * 7919 % 1_000_003) as f32 * if i % 2 == 0 { 1.0 } else { -1.0 }).collect()
}

#[test]
fn the_smallest_magnitudes_go() {
    let weights = [layer("w", &[3.0, -1.0, 2.0, -2.0, 0.5, 1.0])];
    let mask = magnitude(&Selector::global(), &weights, Amount::Count(3)).unwrap();
    assert_eq!(bits(&mask, "w"), [1, 0, 1, 1, 0, 0]);
}

#[test]
fn among_equals_the_first_tensor_and_the_lowest_index_go_first() {
    let weights = [layer("a", &[1.0, 2.0, -1.0]), layer("b", &[1.0, 1.0, 3.0])];
    let mask = magnitude(&Selector::global(), &weights, Amount::Count(3)).unwrap();
    assert_eq!((bits(&mask, "a"), bits(&mask, "b")), (vec![0, 1, 0], vec![0, 1, 1]));
}

#[test]
fn global_and_layer_wise_scopes_differ_on_unequal_scales() {
    let weights = [layer("a", &[10.0, 9.0]), layer("b", &[1.0, 0.1])];
    let global = Selector { empty_layer: EmptyLayer::Allow, ..Selector::global() };
    let mask = magnitude(&global, &weights, Amount::Count(2)).unwrap();
    assert_eq!((bits(&mask, "a"), bits(&mask, "b")), (vec![1, 1], vec![0, 0]));
    let mask = magnitude(&Selector::per_layer(), &weights, Amount::Rate(0.5)).unwrap();
    assert_eq!((bits(&mask, "a"), bits(&mask, "b")), (vec![1, 0], vec![1, 0]));
}

#[test]
fn counts_round_half_to_even_as_torch_does() {
    // torch.nn.utils.prune: round(p·n). 2.5 → 2, 3.5 → 4.
    for (weights, rate, dropped) in [(10, 0.2, 2), (101, 0.2, 20), (5, 0.5, 2), (7, 0.5, 4)] {
        let mask = magnitude(&Selector::global(), &[layer("w", &distinct(weights))], Amount::Rate(rate)).unwrap();
        assert_eq!(mask.weights() - mask.survivors(), dropped, "{rate} of {weights}");
    }
}

#[test]
fn two_rounds_of_a_fifth_leave_of_a_resnet_50_what_the_paper_counts() {
    // One number behind each shape; the counts need no more.
    let tensor = |name: String, shape: [i64; 4]| {
        (name, Tensor::zeros([1], (Kind::Float, tch::Device::Cpu)).expand(shape, false))
    };
    let mut model = vec![tensor("conv1.weight".into(), [64, 3, 7, 7])];
    let mut inputs = 64;
    for (stage, (width, blocks)) in (1..).zip([(64, 3), (128, 4), (256, 6), (512, 3)]) {
        for block in 0..blocks {
            let name = |layer: &str| format!("layer{stage}.{block}.{layer}.weight");
            model.push(tensor(name("conv1"), [width, inputs, 1, 1]));
            model.push(tensor(name("conv2"), [width, width, 3, 3]));
            model.push(tensor(name("conv3"), [4 * width, width, 1, 1]));
            if block == 0 {
                model.push(tensor(name("downsample.0"), [4 * width, inputs, 1, 1]));
            }
            inputs = 4 * width;
        }
    }
    let weights = crate::Prunable::conv_only().except(["conv1.weight"]).select(&model).unwrap();
    assert_eq!((model.len(), weights.len()), (53, 52));
    let all: usize = weights.iter().map(|(_, weight)| weight.numel()).sum();
    let mut left = vec![all];
    for _ in 0..2 {
        let alive = left[left.len() - 1];
        left.push(alive - Selector::global().dropped(&[Units { all, alive }], Amount::Rate(0.2)).unwrap());
    }
    assert_eq!(left, [23_445_504, 18_756_403, 15_005_122]);
}

#[test]
fn six_rounds_of_a_fifth_leave_what_the_integer_recursion_says() {
    // n ← n − round(0.2 n), by hand from 1000.
    let weights = [layer("w", &distinct(1000))];
    let mut mask = MaskSet::ones_like(&weights);
    let survivors: Vec<usize> = (0..6)
        .map(|_| {
            let scores = Magnitude.score(&weights, None).unwrap();
            mask = Selector::global().prune(&scores, Amount::Rate(0.2), Some(&mask)).unwrap();
            mask.survivors()
        })
        .collect();
    assert_eq!(survivors, [800, 640, 512, 410, 328, 262]);
}

#[test]
fn given_densities_hold_in_each_layer() {
    let weights = [layer("a", &distinct(40)), layer("b", &distinct(60))];
    let densities = IndexMap::from([("b".to_owned(), 0.1), ("a".to_owned(), 0.75)]);
    let mask = magnitude(&Selector::layer_densities(densities.clone()), &weights, Amount::AsScoped).unwrap();
    assert_eq!((mask["a"].survivors(), mask["b"].survivors()), (30, 6));

    let refuse = |densities: IndexMap<String, f64>, amount| {
        magnitude(&Selector::layer_densities(densities), &weights, amount).unwrap_err().to_string()
    };
    assert!(refuse(densities.clone(), Amount::Rate(0.2)).contains("AsScoped"));
    assert!(refuse(IndexMap::from([("a".into(), 0.5)]), Amount::AsScoped).contains("`b`: expected a density"));
    let mut unknown = densities;
    unknown.insert("c".into(), 0.5);
    assert!(refuse(unknown, Amount::AsScoped).contains("`c` fits no tensor"));
}

#[test]
fn every_layer_keeps_its_minimum_at_the_cost_of_others() {
    let weights = [layer("a", &[10.0, 9.0, 8.0]), layer("b", &[1.0, 0.1])];
    let selector = Selector { min_per_layer: 1, ..Selector::global() };
    let mask = magnitude(&selector, &weights, Amount::Count(3)).unwrap();
    assert_eq!((bits(&mask, "a"), bits(&mask, "b")), (vec![1, 0, 0], vec![1, 0]));
    let refused = magnitude(&selector, &weights, Amount::Count(4)).unwrap_err().to_string();
    assert!(refused.contains("at most 3 to drop"), "{refused}");
}

#[test]
fn layer_by_layer_a_minimum_is_a_floor_and_not_an_error() {
    let weights = [layer("a", &[10.0, 9.0, 8.0, 7.0]), layer("b", &[1.0, 0.1])];
    let selector = Selector { min_per_layer: 1, ..Selector::per_layer() };
    // round(0.9 · 4) = 4 and round(0.9 · 2) = 2 would leave nothing.
    let mask = magnitude(&selector, &weights, Amount::Rate(0.9)).unwrap();
    assert_eq!((bits(&mask, "a"), bits(&mask, "b")), (vec![1, 0, 0, 0], vec![1, 0]));
    // A layer smaller than the minimum stays whole; the other pays nothing for it.
    let selector = Selector { min_per_layer: 3, ..Selector::per_layer() };
    let mask = magnitude(&selector, &weights, Amount::Rate(0.5)).unwrap();
    assert_eq!((bits(&mask, "a"), bits(&mask, "b")), (vec![1, 1, 1, 0], vec![1, 1]));
}

#[test]
fn how_many_are_dropped_is_known_without_scores() {
    let weights = [layer("a", &distinct(40)), layer("b", &distinct(7))];
    let scores = Magnitude.score(&weights, None).unwrap();
    // 40 − round(0.3 · 40) and 7 − round(0.3 · 7).
    let earlier = magnitude(&Selector::per_layer(), &weights, Amount::Rate(0.3)).unwrap();
    let units = [Units { all: 40, alive: 28 }, Units { all: 7, alive: 5 }];
    let mut counts = Vec::new();
    for scope in [Scope::Global, Scope::PerLayer] {
        for min_per_layer in [0, 4] {
            let selector = Selector { scope: scope.clone(), min_per_layer, empty_layer: EmptyLayer::Allow };
            let mask = selector.prune(&scores, Amount::Rate(0.5), Some(&earlier)).unwrap();
            let dropped = selector.dropped(&units, Amount::Rate(0.5)).unwrap();
            assert_eq!(earlier.survivors() - mask.survivors(), dropped);
            counts.push(dropped);
        }
    }
    // round(0.5 · 33); round(0.5 · 28) + round(0.5 · 5), of which the minimum spares one.
    assert_eq!(counts, [16, 16, 16, 15]);
    let given = Selector::layer_densities(IndexMap::from([("a".to_owned(), 0.5), ("b".to_owned(), 0.5)]));
    assert!(given.dropped(&units, Amount::Rate(0.5)).unwrap_err().to_string().contains("AsScoped"));
}

#[test]
fn filters_go_whole_and_by_their_norm() {
    // L1 norms of arange(8) as [4, 2, 1, 1]: 1, 5, 9, 13.
    let weights = [("w".to_owned(), Tensor::arange(8, (Kind::Float, tch::Device::Cpu)).view([4, 2, 1, 1]))];
    let scores = FilterNorm { p: 1.0 }.score(&weights, None).unwrap();
    let mask = Selector::per_layer().prune(&scores, Amount::Rate(0.5), None).unwrap();
    assert_eq!(bits(&mask, "w"), [0, 0, 0, 0, 1, 1, 1, 1]);
    // A weight that was already gone does not come back with its filter.
    let earlier =
        MaskSet::from_tensors(&[("w".into(), Tensor::from_slice(&[1_u8, 1, 1, 1, 0, 1, 1, 1]).view([4, 2, 1, 1]))]);
    let mask = Selector::per_layer().prune(&scores, Amount::Rate(0.5), Some(&earlier.unwrap())).unwrap();
    assert_eq!(bits(&mask, "w"), [0, 0, 0, 0, 0, 1, 1, 1]);
    assert!(FilterNorm { p: 0.0 }.score(&weights, None).is_err());
}

#[test]
fn what_cannot_be_pruned_is_refused() {
    let weights = [layer("a", &[1.0, 2.0]), layer("b", &[3.0, f32::NAN])];
    let refuse =
        |weights: &[NamedTensor], amount| magnitude(&Selector::global(), weights, amount).unwrap_err().to_string();
    assert!(refuse(&weights, Amount::Count(1)).contains("`b` is NaN at flat index 1"));
    assert!(refuse(&[layer("a", &[f32::NEG_INFINITY])], Amount::Count(0)).contains("`a` is -inf at flat index 0"));
    let fine = [layer("a", &[1.0, 2.0]), layer("b", &[3.0, 4.0])];
    for density in [0.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
        assert!(refuse(&fine, Amount::Density(density)).contains("density"));
    }
    for rate in [-0.1, 1.0, f64::NAN] {
        assert!(refuse(&fine, Amount::Rate(rate)).contains("rate"));
    }
    assert!(refuse(&fine, Amount::Count(5)).contains("at most the 4 survivors"));
    assert!(refuse(&fine, Amount::AsScoped).contains("AsScoped"));
    assert!(refuse(&fine, Amount::Count(2)).contains("would leave layer `a` no weight of 2"));
    assert!(refuse(&[], Amount::Count(0)).contains("nothing to prune"));
    let integers = [("a".to_owned(), Tensor::from_slice(&[1_i64, 2]))];
    assert!(refuse(&integers, Amount::Count(1)).contains("expected floating-point numbers"));
}

#[test]
fn two_tensors_of_one_name_are_refused() {
    // Such as the weights of two stores put together: a mask would hold for one of them only.
    let weights = [layer("0.weight", &[1.0, 2.0]), layer("0.weight", &[3.0, 4.0])];
    let refused = magnitude(&Selector::global(), &weights, Amount::Count(1)).unwrap_err().to_string();
    assert_eq!(refused, "`0.weight`: expected one tensor of that name, found two");
    let one_shot = PruningSchedule::OneShot { density: 0.5 };
    assert!(matches!(one_shot.prune(&weights, &Magnitude, &Selector::global()), Err(Error::Mismatch { .. })));
}

#[test]
fn an_earlier_mask_must_cover_the_same_tensors_and_leave_enough() {
    let weights = [layer("a", &[1.0, 2.0, 3.0, 4.0])];
    let scores = Magnitude.score(&weights, None).unwrap();
    let refuse =
        |mask: &MaskSet, amount| Selector::global().prune(&scores, amount, Some(mask)).unwrap_err().to_string();
    let half = MaskSet::from_tensors(&[("a".into(), Tensor::from_slice(&[1_u8, 0, 1, 0]))]).unwrap();
    assert!(refuse(&half, Amount::Density(0.75)).contains("at most the 0.5"));
    let shorter = MaskSet::from_tensors(&[("a".into(), Tensor::from_slice(&[1_u8, 0]))]).unwrap();
    assert!(refuse(&shorter, Amount::Rate(0.5)).contains("expected an earlier mask of shape [4]"));
    let other = MaskSet::from_tensors(&[("b".into(), Tensor::from_slice(&[1_u8]))]).unwrap();
    assert!(refuse(&other, Amount::Rate(0.5)).contains("`a`: expected an earlier mask"));
    let more = MaskSet::ones_like(&[layer("a", &[0.0; 4]), layer("b", &[0.0])]);
    assert!(refuse(&more, Amount::Rate(0.5)).contains("`b`: expected a score"));
}

#[test]
fn any_float_kind_and_any_layout_is_ranked_in_row_major_order() {
    let values = Tensor::from_slice(&distinct(24)).view([2, 3, 2, 2]);
    let expected = magnitude(&Selector::global(), &[("w".into(), values.copy())], Amount::Count(9)).unwrap();
    let channels_last = values.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
    for same in [channels_last, values.to_kind(Kind::Double)] {
        assert_eq!(magnitude(&Selector::global(), &[("w".into(), same)], Amount::Count(9)).unwrap(), expected);
    }
}

#[test]
fn random_scores_repeat_for_a_seed_and_differ_between_seeds() {
    let weights = [layer("w", &[0.0; 500])];
    let draw = |seed| {
        let scores = Random { seed }.score(&weights, None).unwrap();
        Selector::global().prune(&scores, Amount::Rate(0.5), None).unwrap()
    };
    assert_eq!(draw(1), draw(1));
    // Independent masks of density ½ agree in half of the places; 0.1 is more than four standard deviations.
    assert!((draw(1).hamming(&draw(2)).unwrap() - 0.5).abs() < 0.1);
}

fn finite_weights() -> impl Strategy<Value = Vec<Vec<f32>>> {
    prop::collection::vec(prop::collection::vec(-4.0_f32..4.0, 1..60), 1..4)
}

fn named(layers: &[Vec<f32>]) -> Vec<NamedTensor> {
    layers.iter().enumerate().map(|(i, values)| layer(&format!("l{i}"), values)).collect()
}

proptest! {
    #[test]
    fn masks_nest_and_count_exactly(layers in finite_weights(), rate in 0.0..0.99_f64, rounds in 1_usize..6) {
        let weights = named(&layers);
        let selector = Selector { empty_layer: EmptyLayer::Allow, ..Selector::global() };
        let mut mask = MaskSet::ones_like(&weights);
        for _ in 0..rounds {
            let alive = mask.survivors();
            let next = selector.prune(&Magnitude.score(&weights, None).unwrap(), Amount::Rate(rate), Some(&mask)).unwrap();
            prop_assert!(next.is_subset_of(&mask).unwrap());
            prop_assert_eq!(next.survivors(), alive - (rate * alive as f64).round_ties_even() as usize);
            mask = next;
        }
    }

    #[test]
    fn rounds_on_unchanged_weights_equal_one_shot_to_the_same_count(layers in finite_weights(), rounds in 1_u32..8) {
        let weights = named(&layers);
        let selector = Selector { empty_layer: EmptyLayer::Allow, ..Selector::global() };
        let iterative = PruningSchedule::Iterative { rate: 0.2, rounds }.prune(&weights, &Magnitude, &selector).unwrap();
        let dropped = iterative.weights() - iterative.survivors();
        prop_assert_eq!(magnitude(&selector, &weights, Amount::Count(dropped)).unwrap(), iterative);
    }

    #[test]
    fn density_and_rate_agree_in_one_step(layers in finite_weights(), rounds in 1_u32..17) {
        let weights = named(&layers);
        let selector = Selector { empty_layer: EmptyLayer::Allow, ..Selector::global() };
        let density = ladder_density(rounds);
        prop_assert_eq!(
            magnitude(&selector, &weights, Amount::Density(density)).unwrap(),
            magnitude(&selector, &weights, Amount::Rate(1.0 - density)).unwrap()
        );
    }

    #[test]
    fn signs_scales_and_the_order_of_tensors_do_not_matter(seed in 0_usize..1000, scale in 0.01_f32..100.0, count in 0_usize..90) {
        // Distinct magnitudes, so that no tie depends on the order.
        let values = distinct(100 + seed);
        let (a, b) = values[seed..].split_at(37);
        let selector = Selector { empty_layer: EmptyLayer::Allow, ..Selector::global() };
        let mask = magnitude(&selector, &[layer("a", a), layer("b", b)], Amount::Count(count)).unwrap();
        let turned = magnitude(&selector, &[layer("b", b), layer("a", a)], Amount::Count(count)).unwrap();
        prop_assert_eq!((bits(&turned, "a"), bits(&turned, "b")), (bits(&mask, "a"), bits(&mask, "b")));
        // Integers below 2^20 stay distinct under scaling by a float: their relative gaps exceed its rounding.
        let change = |values: &[f32]| values.iter().map(|value| -value * scale).collect::<Vec<_>>();
        let changed = magnitude(&selector, &[layer("a", &change(a)), layer("b", &change(b))], Amount::Count(count)).unwrap();
        prop_assert_eq!(changed, mask);
    }

    #[test]
    fn a_minimum_per_layer_holds_and_the_count_stays_exact(layers in finite_weights(), share in 0.0..1.0_f64, minimum in 1_usize..4) {
        let weights = named(&layers);
        let floor: usize = layers.iter().map(|layer| layer.len().min(minimum)).sum();
        let total: usize = layers.iter().map(Vec::len).sum();
        let count = (share * (total - floor) as f64) as usize;
        let selector = Selector { min_per_layer: minimum, ..Selector::global() };
        let mask = magnitude(&selector, &weights, Amount::Count(count)).unwrap();
        prop_assert_eq!(mask.survivors(), total - count);
        for (_, layer) in mask.iter() {
            prop_assert!(layer.survivors() >= layer.weights().min(minimum));
        }
    }
}

#[test]
fn n_of_m_keeps_the_best_of_each_group_of_input_channels_tap_by_tap() {
    // One filter, four channels, two taps: rows are channels. The first tap has 1, 3, 5, 7, the second 8, 6, 4, 2.
    let taps = [1.0, 8.0, -3.0, 6.0, 5.0, -4.0, 7.0, 2.0].map(|value: f32| value);
    let weights = [("conv.weight".to_owned(), Tensor::from_slice(&taps).view([1, 4, 1, 2]))];
    let mask = magnitude(&Selector::n_of_m(2, 4), &weights, Amount::AsScoped).unwrap();
    assert_eq!(bits(&mask, "conv.weight"), [0, 1, 0, 1, 1, 0, 1, 0]);
    // Groups do not look at each other, nor do filters.
    let weights =
        [("fc.weight".to_owned(), Tensor::from_slice(&[9_f32, 8.0, 1.0, 2.0, 3.0, 4.0, 7.0, 7.0]).view([2, 4]))];
    let mask = magnitude(&Selector::n_of_m(1, 2), &weights, Amount::AsScoped).unwrap();
    // Among equals the first goes.
    assert_eq!(bits(&mask, "fc.weight"), [1, 0, 0, 1, 0, 1, 0, 1]);
}

#[test]
fn n_of_m_leaves_what_an_earlier_mask_dropped() {
    let weights =
        [("fc.weight".to_owned(), Tensor::from_slice(&[4_f32, 3.0, 2.0, 1.0, 4.0, 3.0, 2.0, 1.0]).view([1, 8]))];
    let earlier = MaskSet::from_tensors(&[(
        "fc.weight".to_owned(),
        Tensor::from_slice(&[0_u8, 1, 1, 1, 0, 0, 0, 1]).view([1, 8]),
    )]);
    let scores = Magnitude.score(&weights, None).unwrap();
    let mask = Selector::n_of_m(2, 4).prune(&scores, Amount::AsScoped, Some(&earlier.unwrap())).unwrap();
    assert_eq!(bits(&mask, "fc.weight"), [0, 1, 1, 0, 0, 0, 0, 1]);
}

#[test]
fn layers_that_do_not_divide_are_refused_or_kept() {
    let weights = [
        ("conv1.weight".to_owned(), Tensor::from_slice(&distinct(27)).view([1, 3, 3, 3])),
        ("bn.weight".to_owned(), Tensor::from_slice(&distinct(4))),
        ("conv2.weight".to_owned(), Tensor::from_slice(&distinct(36)).view([1, 4, 3, 3])),
    ];
    let error = magnitude(&Selector::n_of_m(2, 4), &weights, Amount::AsScoped).unwrap_err().to_string();
    assert!(error.starts_with("`conv1.weight`: expected a multiple of 4 input channels"), "{error}");
    let pattern = NOfM { keep: 2, of: 4, indivisible: Indivisible::Keep };
    let keeping = Selector { scope: Scope::NOfM(pattern), ..Selector::default() };
    let mask = magnitude(&keeping, &weights, Amount::AsScoped).unwrap();
    let survivors = ["conv1.weight", "bn.weight", "conv2.weight"].map(|name| mask[name].survivors());
    assert_eq!(survivors, [27, 4, 18]);
}

#[test]
fn settings_of_n_of_m_outside_their_range_are_refused() {
    let weights = [("fc.weight".to_owned(), Tensor::from_slice(&distinct(8)).view([2, 4]))];
    let refuse = |selector: &Selector, amount| magnitude(selector, &weights, amount).unwrap_err().to_string();
    assert_eq!(refuse(&Selector::n_of_m(0, 4), Amount::AsScoped), "keep is 0, expected 1 to the 4 of a group");
    assert_eq!(refuse(&Selector::n_of_m(5, 4), Amount::AsScoped), "keep is 5, expected 1 to the 4 of a group");
    assert!(refuse(&Selector::n_of_m(0, 0), Amount::AsScoped).contains("keep is 0"));
    let density = refuse(&Selector::n_of_m(2, 4), Amount::Density(0.5));
    assert_eq!(density, "amount is Density(0.5), expected `AsScoped` with so many of a group");
    let broken = [("fc.weight".to_owned(), Tensor::from_slice(&[1_f32, f32::NAN, 1.0, 1.0]).view([1, 4]))];
    let error = magnitude(&Selector::n_of_m(2, 4), &broken, Amount::AsScoped).unwrap_err();
    assert!(matches!(error, Error::NotFinite { index: 1, .. }), "{error}");
    let filters = FilterNorm { p: 1.0 }.score(&weights, None).unwrap();
    let error = Selector::n_of_m(2, 4).prune(&filters, Amount::AsScoped, None).unwrap_err().to_string();
    assert!(error.contains("a score for each weight"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_group_keeps_its_largest(
        keep in 1_usize..4, spare in 0_usize..3, groups in 1_usize..4, filters in 1_usize..4, taps in 1_usize..4, seed in 1_u64..1000,
    ) {
        let of = keep + spare;
        let count = filters * groups * of * taps;
        let values: Vec<f32> = (0..count as u64).map(|i| ((i + seed) * 7919 % 1009) as f32 - 500.0).collect();
        let shape = [filters, groups * of, taps].map(|side| side as i64);
        let weights = [("w".to_owned(), Tensor::from_slice(&values).view(shape))];
        let mask = magnitude(&Selector::n_of_m(keep, of), &weights, Amount::AsScoped).unwrap();
        prop_assert_eq!(mask.survivors() * of, count * keep);
        for (filter, group, tap) in (0..filters).flat_map(|f| (0..groups).flat_map(move |g| (0..taps).map(move |t| (f, g, t)))) {
            let members = (0..of).map(|member| (filter * groups * of + group * of + member) * taps + tap);
            let (kept, dropped): (Vec<usize>, Vec<usize>) = members.partition(|&index| mask["w"].keeps(index) == Some(true));
            prop_assert_eq!(kept.len(), keep);
            let least = kept.iter().map(|&index| values[index].abs()).fold(f32::INFINITY, f32::min);
            prop_assert!(dropped.iter().all(|&index| values[index].abs() <= least));
        }
    }
}
