use super::*;
use crate::grouping::Error;
use crate::grouping::head::unit;
use core_tensor::seed::{Purpose, generator};
use proptest::prelude::*;

/// As `benches/peers/grouping_fixtures.py` makes it, of unit length.
fn pattern() -> Tensor {
    let value = |i: i64, j: i64| (0.7 * i as f64 + 1.3 * j as f64 + 0.1 * (i * j) as f64).sin();
    let values: Vec<f64> = (0..12).flat_map(|i| (0..8).map(move |j| value(i, j))).collect();
    unit(&Tensor::from_slice(&values).view([12, 8]))
}

fn labels() -> Vec<i64> {
    (0..12).map(|item| item % 4).collect()
}

fn mine(miner: &dyn Miner, seed: u64) -> Mined {
    let (rows, labels) = (pattern(), labels());
    let batch = Embedded::new(&rows, &labels).unwrap();
    miner.mine(&batch, &mut generator(seed, Purpose::Noise, 0)).unwrap()
}

#[test]
fn hardest_triplets_are_those_of_pytorch_metric_learning() {
    let Mined::Triplets(found) = mine(&BatchHard, 0) else { panic!() };
    // BatchHardMiner of pytorch-metric-learning 2.9.0.
    let expected = [
        [0, 4, 1],
        [1, 5, 2],
        [2, 6, 1],
        [3, 7, 4],
        [4, 0, 3],
        [5, 9, 6],
        [6, 2, 5],
        [7, 11, 8],
        [8, 4, 7],
        [9, 5, 8],
        [10, 6, 11],
        [11, 7, 10],
    ];
    assert_eq!(found, expected);
}

#[test]
fn informative_pairs_are_those_of_pytorch_metric_learning() {
    let Mined::Pairs { positives, negatives } = mine(&MultiSimilarityMiner::default(), 0) else { panic!() };
    // MultiSimilarityMiner(0.1) of pytorch-metric-learning 2.9.0: all positives, and of item 0 these negatives of 9.
    assert_eq!(positives.len(), 24);
    let of = |anchor: usize| -> Vec<usize> {
        negatives.iter().filter(|pair| pair[0] == anchor).map(|pair| pair[1]).collect()
    };
    assert_eq!(of(0), [1, 5, 6, 7, 9, 10, 11]);
    assert_eq!(of(4), [3, 5, 9, 10, 11]);
    assert_eq!(of(8), [1, 2, 3, 7, 9]);
    assert_eq!(negatives.len(), 77);
}

#[test]
fn semi_hard_negatives_are_among_those_of_pytorch_metric_learning() {
    // TripletMarginMiner(0.2, "semihard") of pytorch-metric-learning 2.9.0 lists all of them; we draw one a positive pair.
    let known = [
        [0, 4, 2],
        [0, 8, 11],
        [1, 5, 3],
        [1, 9, 3],
        [2, 6, 0],
        [2, 6, 4],
        [3, 7, 0],
        [3, 7, 1],
        [3, 7, 5],
        [4, 0, 2],
        [4, 0, 6],
        [4, 8, 2],
        [4, 8, 6],
        [5, 1, 3],
        [5, 1, 7],
        [5, 9, 3],
        [5, 9, 7],
        [6, 2, 4],
        [6, 2, 8],
        [6, 10, 4],
        [6, 10, 8],
        [7, 3, 5],
        [7, 11, 4],
        [7, 11, 10],
        [8, 0, 1],
        [8, 4, 6],
        [8, 4, 10],
        [9, 1, 7],
        [9, 5, 7],
        [9, 5, 11],
        [10, 2, 0],
        [10, 2, 3],
        [11, 3, 0],
        [11, 7, 9],
    ];
    let mut drawn = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let Mined::Triplets(found) = mine(&SemiHard::default(), seed) else { panic!() };
        assert_eq!(found.len(), 24);
        for triplet in found {
            let has_semi_hard = known.iter().any(|known| known[..2] == triplet[..2]);
            assert!(!has_semi_hard || known.contains(&triplet), "{triplet:?}");
            drawn.insert(triplet);
        }
    }
    assert!(known.iter().all(|triplet| drawn.contains(triplet)));
}

#[test]
fn weights_of_the_published_formula() {
    let distances = [0.3, 0.5, 1.0, 2.0_f64.sqrt(), 1.6];
    for (dim, expected) in [
        (3, [0.315851, 0.315851, 0.157925, 0.111670, 0.098703]),
        (4, [0.383397, 0.383397, 0.107163, 0.065623, 0.060420]),
        (16, [0.499917, 0.499917, 1.3e-4, 1.4e-5, 2.1e-5]),
    ] {
        let found = negative_weights(&distances, dim, 0.5);
        for (found, expected) in found.iter().zip(expected) {
            // As many digits as the expected value has.
            let digits = if expected < 1e-3 { 5e-6 } else { 1e-6 };
            assert!((found - expected).abs() < digits, "{dim}: {found} {expected}");
        }
    }
    // Opposite points: no NaN.
    assert!(negative_weights(&[2.0, 1.0], 16, 0.5).iter().all(|weight| weight.is_finite()));
}

#[test]
fn draws_follow_the_weights() {
    let (rows, labels) = (pattern(), labels());
    let batch = Embedded::new(&rows, &labels).unwrap();
    let row = Matrix::new(&batch.distances()).unwrap();
    let (_, negatives) = partition(&batch, 0);
    let far: Vec<f64> = negatives.iter().map(|&other| row.row(0)[other]).collect();
    let expected = negative_weights(&far, 8, 0.5);
    let mut rng = generator(7, Purpose::Noise, 0);
    let draws = 4000;
    let mut counts = vec![0.0; negatives.len()];
    for _ in 0..draws {
        let Mined::Triplets(triplets) = DistanceWeighted::default().mine(&batch, &mut rng).unwrap() else { panic!() };
        assert_eq!(triplets.len(), 12);
        let position = negatives.iter().position(|&other| other == triplets[0][2]).unwrap();
        counts[position] += 1.0;
    }
    // Cells that expect fewer than five draws are pooled, as the test asks for.
    let (mut statistic, mut cells, mut rest) = (0.0, 0, (0.0, 0.0));
    for (count, weight) in counts.into_iter().zip(expected) {
        let mean = weight * f64::from(draws);
        if mean < 5.0 {
            rest = (rest.0 + count, rest.1 + mean);
        } else {
            statistic += (count - mean) * (count - mean) / mean;
            cells += 1;
        }
    }
    if rest.1 > 0.0 {
        statistic += (rest.0 - rest.1) * (rest.0 - rest.1) / rest.1.max(1.0);
    }
    // The 0.999 quantile of chi-square with 9 degrees of freedom, which is the most there can be.
    assert!(cells >= 2 && statistic < 27.9, "{statistic} over {cells} cells");
}

#[test]
fn what_a_miner_cannot_work_on_is_refused() {
    let rows = pattern() * 1.5;
    let labels = labels();
    let batch = Embedded::new(&rows, &labels).unwrap();
    let rng = &mut generator(0, Purpose::Noise, 0);
    let refused = DistanceWeighted::default().mine(&batch, rng);
    assert!(matches!(refused, Err(Error::NotUnit { position: 0, .. })), "{refused:?}");
    let unit_rows = pattern();
    let far = Embedded::new(&unit_rows, &labels).unwrap().against(&rows, &labels).unwrap();
    let refused = DistanceWeighted::default().mine(&far, rng);
    assert!(matches!(refused, Err(Error::NotUnit { what: "reference", position: 0, .. })), "{refused:?}");
    assert!(DistanceWeighted { cut_below: 2.0, ..Default::default() }.mine(&batch, rng).is_err());
    for cut in [f64::NAN, 0.0, -1.0] {
        let refused = DistanceWeighted { cut_above: Some(cut), ..Default::default() }.mine(&batch, rng);
        assert!(matches!(refused, Err(Error::Setting { setting: "cut_above", .. })), "{refused:?}");
    }
    assert!(SemiHard { margin: 0.0 }.mine(&batch, rng).is_err());
    assert!(MultiSimilarityMiner { epsilon: f64::NAN }.mine(&batch, rng).is_err());
    // One class: nothing to mine, and no panic.
    let one = vec![0; 12];
    let batch = Embedded::new(&unit_rows, &one).unwrap();
    let miners: [&dyn Miner; 6] = [
        &AllTriplets,
        &RandomTriplets,
        &BatchHard,
        &SemiHard::default(),
        &DistanceWeighted::default(),
        &MultiSimilarityMiner::default(),
    ];
    for miner in miners {
        assert!(miner.mine(&batch, rng).unwrap().is_empty(), "{miner:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn triplets_hold_a_positive_and_a_negative(seed in 0_u64..1000, labels in prop::collection::vec(0_i64..4, 12)) {
        let rows = pattern();
        let batch = Embedded::new(&rows, &labels).unwrap();
        let miners: [&dyn Miner; 5] =
            [&AllTriplets, &RandomTriplets, &BatchHard, &SemiHard::default(), &DistanceWeighted::default()];
        for miner in miners {
            let mine = || miner.mine(&batch, &mut generator(seed, Purpose::Noise, 0)).unwrap();
            prop_assert_eq!(mine(), mine());
            for [a, p, n] in mine().triplets() {
                prop_assert!(a != p && labels[a] == labels[p] && labels[a] != labels[n]);
            }
        }
    }
}
