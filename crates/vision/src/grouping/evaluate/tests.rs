use super::*;
use core_tensor::seed::{Purpose, generator};
use proptest::prelude::*;
use rand::Rng;
use rand::seq::SliceRandom;

const LINE: [f32; 7] = [0.0, 1.0, 2.1, 3.3, 6.0, 6.4, 7.5];
const LABELS: [i64; 7] = [0, 0, 1, 0, 1, 1, 0];

fn tensor(values: &[f32], dim: usize) -> Tensor {
    Tensor::from_slice(values).view([-1, dim as i64])
}

fn evaluator(recall_at: &[usize]) -> Evaluator {
    Evaluator { average_precision: true, ..Evaluator::new(recall_at) }
}

#[test]
fn points_on_a_line_worked_by_hand() {
    let report = evaluator(&[1, 2, 4]).evaluate(&tensor(&LINE, 1), &LABELS).unwrap();
    // Recall, R-precision and MAP@R also by pytorch-metric-learning 2.9.0.
    let recall: Vec<f64> = report.recall.iter().map(|(_, recall)| *recall).collect();
    for (found, expected) in recall.into_iter().zip([4.0 / 7.0, 5.0 / 7.0, 1.0]) {
        assert!((found - expected).abs() < 1e-12);
    }
    assert!((report.r_precision - 0.428571).abs() < 1e-6);
    assert!((report.map_at_r - 0.341270).abs() < 1e-6);
    assert!((report.map.unwrap() - 0.592460).abs() < 1e-6);
    assert_eq!((report.queries, report.without_relevant), (7, 0));
    assert!(report.recall_half_width(1).unwrap() > 0.0 && report.recall_at(3).is_none());
    // Class 1 is items 2, 4 and 5; of their first neighbours 4's and 5's are of their class.
    let (count, means) = report.by_class()[&1];
    assert_eq!(count, 3);
    assert!((means[0] - 2.0 / 3.0).abs() < 1e-12);
}

#[test]
fn a_shift_of_everything_changes_no_rank() {
    let mut rng = generator(1, Purpose::Data, 4);
    let points: Vec<f32> = (0..300).map(|_| rng.random_range(-2_i32..3) as f32).collect();
    let labels: Vec<i64> = (0..100).map(|item| item % 7).collect();
    let reports = [0.0, 1e5].map(|shift| {
        let points = tensor(&points, 3) + shift;
        let (queries, gallery) = (points.narrow(0, 0, 30), points.narrow(0, 30, 70));
        let among = evaluator(&[1, 5]).evaluate(&points, &labels).unwrap();
        (among, evaluator(&[1, 5]).evaluate_query_gallery(&queries, &labels[..30], &gallery, &labels[30..]).unwrap())
    });
    assert_eq!(reports[0], reports[1]);
}

#[test]
fn queries_without_partners_are_left_out_and_counted() {
    let report = evaluator(&[1]).evaluate(&tensor(&LINE[..4], 1), &[0, 0, 7, 8]).unwrap();
    assert_eq!((report.queries, report.without_relevant), (2, 2));
    assert_eq!(report.recall_at(1), Some(1.0));
    let alone = Evaluator::new([1]).evaluate(&tensor(&LINE[..3], 1), &[0, 1, 2]);
    assert!(matches!(alone, Err(Error::NothingRelevant { queries: 3 })));
}

#[test]
fn queries_and_gallery_of_their_own() {
    // The query's own vector is in the gallery, as another item: nothing is left out.
    let found =
        evaluator(&[1, 3]).evaluate_query_gallery(&tensor(&[1.0], 1), &[1], &tensor(&LINE, 1), &LABELS).unwrap();
    // Neighbours of 1.0: items 1 (class 0), 0 (class 0), 2 (class 1).
    assert_eq!((found.recall_at(1), found.recall_at(3)), (Some(0.0), Some(1.0)));
    assert_eq!(found.outcomes[0].best_rank, Some(3));
    assert_eq!(found.outcomes[0].relevant, 3);
}

#[test]
fn clustering_is_reported_when_asked_for() {
    let evaluator = Evaluator { clustering: Some(KMeans { starts: 2, ..Default::default() }), ..Evaluator::new([1]) };
    let report = evaluator.evaluate(&tensor(&LINE, 1), &LABELS).unwrap();
    assert_eq!(report.nmi.len(), 2);
    assert!(report.nmi.iter().all(|nmi| (0.0..=1.0).contains(nmi)));
}

#[test]
fn what_cannot_be_evaluated_is_refused() {
    let points = tensor(&LINE, 1);
    let refused = Evaluator::new([7]).evaluate(&points, &LABELS);
    assert!(matches!(refused, Err(Error::TooManyNeighbours { k: 7, gallery: 6 })));
    assert!(Evaluator::new([0]).evaluate(&points, &LABELS).is_err());
    assert!(matches!(Evaluator::new([1]).evaluate(&points, &LABELS[..6]), Err(Error::Shape { .. })));
    let mut broken = LINE;
    broken[3] = f32::NAN;
    let refused = Evaluator::new([1]).evaluate(&tensor(&broken, 1), &LABELS);
    assert!(matches!(refused, Err(Error::NotFinite { what: "embeddings", position: 3 })));
    let cosine = Evaluator { distance: Distance::Cosine, ..Evaluator::new([1]) };
    assert!(matches!(cosine.evaluate(&points, &LABELS), Err(Error::ZeroNorm { position: 0 })));
    assert!(matches!(Evaluator::new([]).evaluate(&tensor(&LINE[..1], 1), &[0]), Err(Error::Empty("gallery"))));
    let wide = tensor(&LINE[..6], 2);
    let refused = Evaluator::new([1]).evaluate_query_gallery(&wide, &[0; 3], &points, &LABELS);
    assert!(matches!(refused, Err(Error::Shape { .. })));
}

/// The definitions, one by one, over the sorted list of all others.
fn naive(points: &[f32], dim: usize, labels: &[i64], recall_at: &[usize]) -> (Vec<f64>, f64, f64, f64) {
    let rows: Vec<&[f32]> = points.chunks(dim).collect();
    let (mut recall, mut r_precision, mut at_r, mut full, mut queries) =
        (vec![0.0; recall_at.len()], 0.0, 0.0, 0.0, 0.0);
    for (query, row) in rows.iter().enumerate() {
        let mut others: Vec<usize> = (0..rows.len()).filter(|&other| other != query).collect();
        let distance = |other: usize| row.iter().zip(rows[other]).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        others.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)));
        let hits: Vec<bool> = others.iter().map(|&other| labels[other] == labels[query]).collect();
        let relevant = hits.iter().filter(|hit| **hit).count();
        if relevant == 0 {
            continue;
        }
        queries += 1.0;
        for (sum, &k) in recall.iter_mut().zip(recall_at) {
            *sum += f64::from(hits[..k].contains(&true));
        }
        let precision = |rank: usize| hits[..rank].iter().filter(|hit| **hit).count() as f64 / rank as f64;
        let average = |until: usize| (1..=until).filter(|&rank| hits[rank - 1]).map(precision).sum::<f64>();
        r_precision += precision(relevant);
        at_r += average(relevant) / relevant as f64;
        full += average(hits.len()) / relevant as f64;
    }
    recall.iter_mut().for_each(|sum| *sum /= queries);
    (recall, r_precision / queries, at_r / queries, full / queries)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn all_metrics_are_those_of_the_naive_version(
        count in 3_usize..600, dim in 1_usize..5, classes in 1_i64..40, spread in 1_i32..5, seed in 0_u64..10_000,
    ) {
        // Points on a small grid: distances are exact in f32, and ties and duplicates are everywhere.
        let mut rng = generator(seed, Purpose::Data, 0);
        let points: Vec<f32> = (0..count * dim).map(|_| rng.random_range(-spread..=spread) as f32).collect();
        let mut labels: Vec<i64> = (0..count).map(|_| rng.random_range(0..classes)).collect();
        labels[1] = labels[0];
        let recall_at = [1, 1 + (count - 2) / 3, count - 1];
        let (recall, r_precision, map_at_r, map) = naive(&points, dim, &labels, &recall_at);
        let points = tensor(&points, dim);
        let report = evaluator(&recall_at).evaluate(&points, &labels).unwrap();
        let found: Vec<f64> = report.recall.iter().map(|(_, recall)| *recall).collect();
        // Means of the same numbers, added in another order.
        for (found, expected) in found.iter().zip(&recall) {
            prop_assert!((found - expected).abs() < 1e-12);
        }
        prop_assert!((report.r_precision - r_precision).abs() < 1e-12);
        prop_assert!((report.map_at_r - map_at_r).abs() < 1e-12);
        prop_assert!((report.map.unwrap() - map).abs() < 1e-12);
        // Without following every item the other metrics stay.
        let short = Evaluator::new(recall_at).evaluate(&points, &labels).unwrap();
        prop_assert_eq!(&short.recall, &report.recall);
        prop_assert_eq!(short.map_at_r, report.map_at_r);
        prop_assert!(short.map_at_r <= short.r_precision + 1e-12);
        prop_assert!(short.recall.is_sorted_by(|a, b| a.1 <= b.1));
    }

    #[test]
    fn order_and_scale_of_the_items_do_not_matter(count in 20_usize..200, seed in 0_u64..1000) {
        let mut rng = generator(seed, Purpose::Data, 1);
        let points: Vec<f32> = (0..count * 3).map(|_| rng.random_range(-1.0..1.0)).collect();
        let labels: Vec<i64> = (0..count).map(|item| (item % 7) as i64).collect();
        let report = Evaluator::new([1, 5]).evaluate(&tensor(&points, 3), &labels).unwrap();
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut rng);
        let shuffled: Vec<f32> = order.iter().flat_map(|&item| &points[item * 3..item * 3 + 3]).copied().collect();
        let shuffled_labels: Vec<i64> = order.iter().map(|&item| labels[item]).collect();
        // A power of two scales every distance exactly.
        let moved = Evaluator::new([1, 5]).evaluate(&(tensor(&shuffled, 3) * 4.0), &shuffled_labels).unwrap();
        prop_assert!((report.recall[0].1 - moved.recall[0].1).abs() < 1e-12);
        prop_assert!((report.map_at_r - moved.map_at_r).abs() < 1e-12);
        // Turning by a quarter is exact as well.
        let quarter = Tensor::from_slice(&[0.0_f32, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0]).view([3, 3]);
        let turned = Evaluator::new([1, 5]).evaluate(&tensor(&points, 3).matmul(&quarter), &labels).unwrap();
        prop_assert!((report.r_precision - turned.r_precision).abs() < 2.0 / count as f64);
    }

    #[test]
    fn a_set_split_into_queries_and_gallery_agrees_with_the_naive_version(count in 10_usize..300, seed in 0_u64..1000) {
        let mut rng = generator(seed, Purpose::Data, 2);
        let points: Vec<f32> = (0..count * 2).map(|_| rng.random_range(-4_i32..5) as f32).collect();
        let labels: Vec<i64> = (0..count).map(|_| rng.random_range(0..5)).collect();
        let cut = count / 3;
        let (queries, gallery) = (&points[..cut * 2], &points[cut * 2..]);
        let report = Evaluator::new([1, 3]).evaluate_query_gallery(
            &tensor(queries, 2), &labels[..cut], &tensor(gallery, 2), &labels[cut..],
        );
        let Ok(report) = report else { return Ok(()) };
        for outcome in &report.outcomes {
            let row = &queries[outcome.query * 2..outcome.query * 2 + 2];
            let distance = |other: usize| {
                let other = &gallery[other * 2..other * 2 + 2];
                (row[0] - other[0]).powi(2) + (row[1] - other[1]).powi(2)
            };
            let mut others: Vec<usize> = (0..count - cut).collect();
            others.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)).then(a.cmp(&b)));
            let rank = 1 + others.iter().position(|&other| labels[cut + other] == outcome.class).unwrap();
            let asked = rank <= 3.max(outcome.relevant);
            prop_assert_eq!(outcome.best_rank, asked.then_some(rank));
        }
    }
}
