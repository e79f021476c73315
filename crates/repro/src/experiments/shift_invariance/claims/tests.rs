use super::super::ImageSet;
use super::*;
use crate::{DataRoot, Device, DeviceKind, Metrics, Outcome};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeSet;

/// A run with the outcome that it would have had.
fn finished(kind: &str, seed: u64, params: &impl Serialize, metrics: &Metrics) -> (Run, Outcome) {
    let run = Run::new("shift-invariance", kind, seed, params, DeviceKind::Cpu).unwrap();
    let outcome = crate::experiments::finished_runs::finished(&run, metrics);
    (run, outcome)
}

/// A network with the fc head.
fn net(pool: Pool, seed: u64, metrics: [(&str, f64); 8]) -> (Run, Outcome) {
    let net = Net {
        data: ImageSet::FashionMnist,
        head: Head::Flatten,
        pool,
        train_images: 1,
        epochs: 1,
        batch: 1,
        peak: 0.1,
        test_images: 1,
        objects: 1,
    };
    finished("net", seed, &net, &Metrics::from(metrics.map(|(name, value)| (name.to_owned(), value))))
}

fn plain(seed: u64) -> (Run, Outcome) {
    let metrics = [
        ("accuracy_centre", 0.8),
        ("local_drop", 0.005),
        ("local_drop_2", 0.01),
        ("global_drop", 0.2),
        ("mean_TL", 0.7),
        ("mean_BR", 0.7),
        ("top1_change", 0.2),
        ("consistency", 0.9),
    ];
    net(Pool::Max, seed, metrics)
}

fn blurred(seed: u64, accuracy: f64) -> (Run, Outcome) {
    let metrics = [
        ("accuracy_centre", accuracy),
        ("local_drop", 0.0025),
        ("local_drop_2", 0.002),
        ("global_drop", 0.19),
        ("mean_TL", 0.71),
        ("mean_BR", 0.72),
        ("top1_change", 0.1),
        ("consistency", 0.95),
    ];
    net(Pool::Blur(4), seed, metrics)
}

#[test]
fn seeds_are_compared_whatever_their_accuracies() {
    let results = Results::new(vec![plain(0), plain(1), blurred(0, 0.8), blurred(1, 0.9)]);
    let nets = Nets::of(&results);
    let judged = blur::claims(&nets.fc).unwrap();
    for claim in &judged {
        assert_eq!((claim.samples().count(), claim.verdict().as_str()), (2, "reproduced"), "{}", claim.id());
    }
    // Local .002 / .01, global at the centre .19 / .2, over three anchors (.19 + .29 + .28) / (.2 + .3 + .3).
    let means = judged.map(|claim| claim.mean().unwrap());
    for (mean, expected) in means.into_iter().zip([0.2, -0.1, 0.2 - 0.95, 0.95]) {
        assert!((mean - expected).abs() < 1e-12, "{mean} {expected}");
    }
    // Gaps of 0 and 10 points: half width 12.7062 · 5.
    let row = tables::pairs(&[&nets.fc]).unwrap().rows.remove(0);
    assert_eq!(row[..3], ["fc head", "5.0 ± 63.5", "0.50 ± 0.00"]);
}

#[test]
fn a_ratio_counts_where_accuracy_falls() {
    let ratio = Samples::of([(0, 12.0), (1, 15.0), (2, 20.0)]);
    let fall = Samples::of([(0, 0.3), (1, 0.2), (3, 0.5)]);
    assert_eq!(where_it_falls(&ratio, &fall).values(), [12.0, 0.0]);
}

#[test]
fn drops_are_averaged_over_three_anchors() {
    let of = |value| Samples::of([(4, value)]);
    // (.25 + .5 + .75) / 3.
    let mean = mean_drop(&of(0.25), &of(0.5), &of(0.25));
    assert_eq!((mean.seeds(), mean.values()), (vec![4], vec![0.5]));
}

#[test]
fn a_report_without_results_leaves_no_claim_out_and_ends_with_the_checks() {
    let empty = tempfile::tempdir().unwrap();
    for (tier, claims, checks) in [(Tier::Quick, 33, 8), (Tier::Standard, 33, 8), (Tier::Paper, 8, 0)] {
        let ask = Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        let section = judge(&ask, &Results::default()).unwrap();
        let ids: BTreeSet<_> = section.claims.iter().map(|claim| claim.id().to_owned()).collect();
        assert_eq!((ids.len(), section.claims.len()), (claims, claims), "{tier}");
        assert!(section.claims.iter().all(|claim| claim.verdict().as_str() == "not run"));
        let is_check: Vec<_> =
            section.claims.iter().map(|claim| claim.paper() == ("a check of the implementation", OURS)).collect();
        assert_eq!(is_check.iter().position(|&check| check).unwrap_or(claims), claims - checks, "{tier}");
        assert!(is_check[claims - checks..].iter().all(|&check| check), "{tier}");
    }
}

/// A checkpoint's run on objects of 125 px: a mean cosine for all anchors but the bottom right, which has .25 less.
fn published(depth: u32, antialiased: bool, mean: f64) -> (Run, Outcome) {
    let weights = json!({ "bytes": 1, "sha256": "0" });
    let params =
        json!({ "depth": depth, "antialiased": antialiased, "object": 125, "weights": weights, "objects": {} });
    let means = [("TL", mean), ("TR", mean), ("C", mean), ("BL", mean), ("BR", mean - 0.25)].into_iter();
    let local = if antialiased { 0.0625 } else { 0.25 };
    let metrics = means.flat_map(|(anchor, mean)| {
        [("mean", mean), ("deviation", 0.1), ("local_drop", local)]
            .map(|(metric, value)| (format!("{metric}_{anchor}"), value))
    });
    finished("published", 0, &params, &metrics.collect::<Metrics>())
}

#[test]
fn published_networks_stand_in_the_place_of_seeds() {
    let runs = vec![
        published(18, false, 0.5),
        published(18, true, 0.75),
        published(50, false, 0.5),
        published(50, true, 0.625),
    ];
    let section = checkpoints::judge(&Results::new(runs.clone())).unwrap();
    let (large, small) = section.claims.split_at(4);
    let found = |index: usize| (large[index].samples().collect::<Vec<_>>(), large[index].verdict().as_str());
    assert_eq!(found(0), (vec![(18, 0.25), (50, 0.125)], "reproduced"));
    // Top left less bottom right, plain.
    assert_eq!(found(1), (vec![(18, 0.25), (50, 0.25)], "reproduced"));
    assert_eq!(found(2), (vec![(18, 0.25), (50, 0.25)], "reproduced"));
    // (4 · .25 + .5) / (4 · .5 + .75) and (4 · .375 + .625) / 2.75.
    let (ratios, verdict) = found(3);
    assert_eq!(ratios.iter().map(|(depth, _)| *depth).collect::<Vec<_>>(), [18, 50]);
    for ((_, ratio), expected) in ratios.iter().zip([1.5 / 2.75, 2.125 / 2.75]) {
        assert!((ratio - expected).abs() < 1e-12, "{ratio} {expected}");
    }
    assert_eq!(verdict, "not reproduced");
    assert!(small.len() == 4 && small.iter().all(|claim| claim.verdict().as_str() == "not run"));
    assert_eq!(section.tables[0].rows.len(), 4);
    let one = checkpoints::judge(&Results::new(runs[2..].to_vec())).unwrap();
    assert_eq!(one.claims[0].verdict().as_str(), "inconclusive");
}
