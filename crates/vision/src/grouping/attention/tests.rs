use super::*;
use crate::grouping::{DiversityConfig, diversity_loss};
use core_tensor::seed::{Purpose, generator};
use proptest::prelude::*;
use rand::Rng;
use rand::seq::SliceRandom;
use tch::Device;

/// Numbers in `[-1, 1)` from a generator of the test's own.
fn random(shape: &[i64], seed: u64) -> Tensor {
    let mut rng = generator(seed, Purpose::Data, 0);
    let count = shape.iter().product::<i64>();
    let values: Vec<f64> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_slice(&values).view(shape)
}

fn head(config: AttentiveGroupingConfig, kind: Kind, seed: u64) -> AttentiveGrouping {
    let store = nn::VarStore::new(Device::Cpu);
    let mut head = AttentiveGrouping::new(&store.root(), config).unwrap();
    for (offset, tensor) in [&mut head.query, &mut head.key, &mut head.value].into_iter().enumerate() {
        let shape = tensor.size();
        *tensor = random(&shape, seed + 1 + offset as u64).to_kind(kind);
    }
    head.output = head.output.map(|output| random(&output.size(), seed + 9).to_kind(kind));
    head
}

/// Two channels, two positions, two groups.
fn worked_example() -> (AttentiveGrouping, Tensor) {
    let config = AttentiveGroupingConfig { reduction: 1, ..AttentiveGroupingConfig::new(2, 2, 4) };
    let mut head = head(config, Kind::Double, 0);
    head.query = Tensor::from_slice(&[2.0_f64.ln(), 0.0, 0.0, 3.0_f64.ln()]).view([2, 2]);
    head.key = Tensor::eye(2, (Kind::Double, Device::Cpu));
    head.value = Tensor::from_slice(&[1.0_f64, 0.0, 0.0, 2.0]).view([2, 2]);
    // Position 0 is (1, 2), position 1 is (3, 0).
    (head, Tensor::from_slice(&[1.0_f64, 3.0, 2.0, 0.0]).view([1, 2, 1, 2]))
}

fn furthest(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

/// How much longer the terms of a group's vector are, added up without their signs, than the vector: the most over all.
fn cancellation(head: &AttentiveGrouping, features: &Tensor) -> f64 {
    let attention = head.forward(features).unwrap().attention().unwrap().flatten(2, -1);
    let map = features.flatten(2, -1);
    let output = head
        .output
        .as_ref()
        .map_or_else(|| Tensor::eye(head.value.size()[0], (Kind::Double, Device::Cpu)), Tensor::shallow_clone);
    let length = |value: &Tensor, output: &Tensor, map: &Tensor| {
        let pooled = attention.matmul(&value.matmul(map).transpose(1, 2)).matmul(&output.tr());
        pooled.norm_scalaropt_dim(2, [-1], false)
    };
    let terms = length(&head.value.abs(), &output.abs(), &map.abs());
    (terms / length(&head.value, &output, &map)).max().double_value(&[])
}

#[test]
fn attention_and_embedding_of_the_worked_example() {
    let (head, features) = worked_example();
    // Scores [[ln 2, ln 8], [ln 9, 0]]; attention [[.2, .8], [.9, .1]]; pooled values [[2.6, .8], [1.2, 3.6]].
    let attention = Tensor::from_slice(&[0.2_f64, 0.8, 0.9, 0.1]).view([1, 2, 1, 2]);
    let pooled = Tensor::from_slice(&[2.6_f64, 0.8, 1.2, 3.6]).view([1, 2, 2]);
    let lengths = Tensor::from_slice(&[7.4_f64.sqrt(), 14.4_f64.sqrt()]).view([1, 2, 1]);
    for seen in [head.forward(&features).unwrap(), head.forward_unfolded(&features).unwrap()] {
        assert!(furthest(seen.attention().unwrap(), &attention) < 1e-12);
        assert!(furthest(seen.groups(), &(&pooled / &lengths)) < 1e-12);
    }
}

#[test]
fn parameters_of_the_published_resnet_50_head() {
    let config = AttentiveGroupingConfig { remainder: Remainder::Floor, ..AttentiveGroupingConfig::new(2048, 3, 512) };
    // 3·256 queries, 256·2048 keys, 170·2048 values; 512 becomes 510.
    assert_eq!(config.parameters(), 768 + 524_288 + 348_160);
    assert_eq!(config.groups * config.group_dim(), 510);
    let store = nn::VarStore::new(Device::Cpu);
    let small = AttentiveGroupingConfig { output_projection: true, ..AttentiveGroupingConfig::new(16, 2, 8) };
    AttentiveGrouping::new(&(store.root() / "head"), small.clone()).unwrap();
    let mut names: Vec<_> = store.variables().into_keys().collect();
    names.sort();
    assert_eq!(names, ["head.key.weight", "head.output.weight", "head.query", "head.value.weight"]);
    let numbers: usize = store.variables().values().map(Tensor::numel).sum();
    assert_eq!(numbers as i64, small.parameters());
}

#[test]
fn weights_start_within_one_over_the_root_of_their_inputs() {
    let store = nn::VarStore::new(Device::Cpu);
    let head = AttentiveGrouping::new(&store.root(), AttentiveGroupingConfig::new(64, 2, 8)).unwrap();
    for (weight, inputs) in [(&head.query, 8.0_f64), (&head.key, 64.0), (&head.value, 64.0)] {
        let largest = weight.abs().max().double_value(&[]);
        // The bound is rounded to f32.
        assert!(largest <= 1.0 / inputs.sqrt() + 1e-7 && largest > 0.5 / inputs.sqrt(), "{largest}");
    }
}

#[test]
fn a_zero_query_is_average_pooling_and_a_linear_layer() {
    let mut head = head(AttentiveGroupingConfig::new(16, 1, 6), Kind::Double, 5);
    head.query = head.query.zeros_like();
    let features = random(&[3, 16, 5, 4], 6);
    let seen = head.forward(&features).unwrap();
    let linear = features.mean_dim([2, 3].as_slice(), false, Kind::Double).matmul(&head.value.tr());
    let expected = &linear / linear.norm_scalaropt_dim(2, [-1], true);
    // f64: sums of 20 and of 16 terms of size about 1.
    assert!(furthest(&seen.concat(), &expected) < 1e-12);
    let uniform = seen.attention().unwrap() - 1.0 / 20.0;
    assert!(uniform.abs().max().double_value(&[]) < 1e-15);
}

#[test]
fn a_very_large_query_picks_the_position_of_its_highest_score() {
    let mut head = head(AttentiveGroupingConfig::new(16, 2, 8), Kind::Double, 11);
    let features = random(&[2, 16, 3, 3], 12);
    let scores = head.query.matmul(&head.key).matmul(&features.flatten(2, -1));
    head.query = &head.query * 1e6;
    let seen = head.forward(&features).unwrap();
    let attention = seen.attention().unwrap().flatten(2, -1);
    assert_eq!(attention.argmax(-1, false), scores.argmax(-1, false));
    assert!(attention.max_dim(-1, false).0.min().double_value(&[]) > 0.999);
}

#[test]
fn scaling_the_features_sharpens_the_attention() {
    let head = head(AttentiveGroupingConfig::new(16, 2, 8), Kind::Double, 21);
    let features = random(&[2, 16, 3, 3], 22);
    let (once, twice) = (head.forward(&features).unwrap(), head.forward(&(&features * 2.0)).unwrap());
    assert!(twice.attention_entropy().unwrap() < once.attention_entropy().unwrap());
    assert!(furthest(once.groups(), twice.groups()) > 1e-3);
}

#[test]
fn swapping_two_queries_swaps_their_groups() {
    let mut head = head(AttentiveGroupingConfig::new(16, 2, 8), Kind::Double, 31);
    let features = random(&[4, 16, 3, 3], 32);
    let before = head.forward(&features).unwrap();
    head.query = head.query.flip([0]);
    let after = head.forward(&features).unwrap();
    assert!(furthest(&before.groups().flip([1]), after.groups()) < 1e-12);
    // What is ranked by and what is asked of groups do not depend on their order.
    let (a, b) = (before.mean_cosine_to(&before).unwrap(), after.mean_cosine_to(&after).unwrap());
    assert!(furthest(&a, &b) < 1e-12);
    let config = DiversityConfig::default();
    assert!(furthest(&diversity_loss(&before, &config), &diversity_loss(&after, &config)) < 1e-12);
}

#[test]
fn a_constant_added_to_a_groups_scores_changes_nothing() {
    // A query of the direction of k adds k·x, so let one channel of the map be constant and the query look at it.
    let config = AttentiveGroupingConfig { reduction: 1, ..AttentiveGroupingConfig::new(4, 2, 4) };
    let mut head = head(config, Kind::Double, 41);
    head.key = Tensor::eye(4, (Kind::Double, Device::Cpu));
    let features = random(&[2, 4, 3, 3], 42);
    let _ = features.select(1, 3).fill_(1.0);
    let before = head.forward(&features).unwrap();
    let _ = head.query.select(1, 3).fill_(7.5);
    let after = head.forward(&features).unwrap();
    assert!(furthest(before.groups(), after.groups()) < 1e-12);
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let config = AttentiveGroupingConfig { reduction: 2, ..AttentiveGroupingConfig::new(6, 2, 4) };
    let weights = random(&[2, 2, 2], 53);
    let features = random(&[2, 6, 2, 3], 52);
    let value = |head: &AttentiveGrouping| (head.forward(&features).unwrap().groups() * &weights).sum(Kind::Double);
    let mut head = head(config, Kind::Double, 51);
    let with = |head: &mut AttentiveGrouping, pick: usize, tensor: Tensor| match pick {
        0 => std::mem::replace(&mut head.query, tensor),
        1 => std::mem::replace(&mut head.key, tensor),
        _ => std::mem::replace(&mut head.value, tensor),
    };
    for pick in 0..3 {
        let placeholder = Tensor::zeros([1, 1], (Kind::Double, Device::Cpu));
        let original = with(&mut head, pick, placeholder);
        let leaf = original.copy().set_requires_grad(true);
        let _ = with(&mut head, pick, leaf.shallow_clone());
        value(&head).backward();
        let direction = random(&original.size(), 60 + pick as u64);
        let step = 1e-6;
        let [ahead, behind] = [step, -step].map(|step| {
            let _ = with(&mut head, pick, &original + &direction * step);
            value(&head).double_value(&[])
        });
        let _ = with(&mut head, pick, original);
        let numeric = (ahead - behind) / (2.0 * step);
        let expected = (leaf.grad() * direction).sum(Kind::Double).double_value(&[]);
        // Central differences: error about step² + 1e-16/step.
        assert!((numeric - expected).abs() < 1e-6 * expected.abs().max(0.1), "{pick}: {numeric} {expected}");
    }
}

#[test]
fn what_cannot_be_grouped_is_refused() {
    let refuse = |config: AttentiveGroupingConfig| config.validate().unwrap_err().to_string();
    assert!(refuse(AttentiveGroupingConfig::new(16, 0, 8)).contains("groups is 0"));
    assert!(refuse(AttentiveGroupingConfig::new(16, 4, 3)).contains("embed_dim is 3"));
    assert!(refuse(AttentiveGroupingConfig::new(16, 3, 8)).contains("multiple of 3"));
    assert!(refuse(AttentiveGroupingConfig::new(4, 2, 8)).contains("reduction is 8"));
    assert!(refuse(AttentiveGroupingConfig::new(0, 2, 8)).contains("in_channels"));

    let head = head(AttentiveGroupingConfig::new(16, 2, 8), Kind::Double, 0);
    for shape in [vec![2, 16, 3], vec![2, 15, 3, 3], vec![2, 16, 0, 3]] {
        let refused = head.forward(&Tensor::zeros(&shape, (Kind::Double, Device::Cpu)));
        assert!(matches!(refused, Err(Error::Shape { .. })), "{shape:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn permuting_positions_leaves_the_embedding(
        seed in 0_u64..1000, groups in 1_i64..5, height in 1_i64..7, width in 1_i64..7,
    ) {
        let features = random(&[3, 16, height, width], seed);
        let mut order: Vec<i64> = (0..height * width).collect();
        order.shuffle(&mut generator(seed, Purpose::Order, 0));
        let permuted = features.flatten(2, -1).index_select(2, &Tensor::from_slice(&order)).view_as(&features);
        // Sums in another order round differently, by about eight units in the last place of what is summed. A vector whose
        // terms cancel is shorter than they are, and its direction errs by so much more.
        let exact = head(AttentiveGroupingConfig::new(16, groups, 4 * groups), Kind::Double, seed + 1);
        let magnified = cancellation(&exact, &features).max(1.0);
        for (kind, tolerance) in [(Kind::Float, 1e-6 * magnified), (Kind::Double, 1e-12)] {
            let head = head(AttentiveGroupingConfig::new(16, groups, 4 * groups), kind, seed + 1);
            let plain = head.forward(&features.to_kind(kind)).unwrap();
            let moved = head.forward(&permuted.to_kind(kind)).unwrap();
            prop_assert!(furthest(plain.groups(), moved.groups()) < tolerance);
        }
    }

    #[test]
    fn attention_is_a_distribution_and_groups_have_length_one(seed in 0_u64..1000, scale in 0.0..100.0_f64) {
        let head = head(AttentiveGroupingConfig::new(16, 3, 12), Kind::Float, seed);
        let features = (random(&[2, 16, 4, 5], seed + 7) * scale).to_kind(Kind::Float);
        let seen = head.forward(&features).unwrap();
        let attention = seen.attention().unwrap();
        prop_assert!(attention.min().double_value(&[]) >= 0.0);
        // Twenty roundings of numbers below 1.
        let sums = attention.sum_dim_intlist([2, 3].as_slice(), false, Kind::Double);
        prop_assert!((sums - 1.0).abs().max().double_value(&[]) < 2e-6);
        if scale > 1e-3 {
            let lengths = seen.groups().norm_scalaropt_dim(2, [-1], false);
            prop_assert!((lengths - 1.0).abs().max().double_value(&[]) < 1e-6);
        }
    }

    #[test]
    fn folded_and_unfolded_agree(seed in 0_u64..1000, output_projection: bool, channels_last: bool) {
        let config = AttentiveGroupingConfig { output_projection, ..AttentiveGroupingConfig::new(32, 4, 32) };
        let head = head(config, Kind::Float, seed);
        let mut features = random(&[2, 32, 5, 3], seed + 3).to_kind(Kind::Float);
        if channels_last {
            features = core_tensor::nn::channels_last(&features);
        }
        let (folded, plain) = (head.forward(&features).unwrap(), head.forward_unfolded(&features).unwrap());
        // The order of f32 sums of up to 32 terms differs; normalising short vectors magnifies it.
        prop_assert!(furthest(folded.groups(), plain.groups()) < 1e-5);
        prop_assert!(furthest(folded.attention().unwrap(), plain.attention().unwrap()) < 1e-5);
    }

    #[test]
    fn concatenated_distances_are_those_of_the_mean_cosine(seed in 0_u64..1000) {
        let head = head(AttentiveGroupingConfig::new(16, 3, 12), Kind::Double, seed);
        let seen = head.forward(&random(&[4, 16, 3, 3], seed + 3)).unwrap();
        let all = seen.concat();
        let distances = (all.unsqueeze(0) - all.unsqueeze(1)).square().sum_dim_intlist(-1, false, Kind::Double);
        let cosines = seen.mean_cosine_to(&seen).unwrap();
        // ‖a − b‖² = Σ_g (2 − 2 cos_g) = 2G (1 − mean cos).
        prop_assert!(furthest(&distances, &((1.0 - cosines) * 6.0)) < 1e-12);
    }
}
