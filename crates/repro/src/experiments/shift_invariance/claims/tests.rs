use super::*;
use crate::{DataRoot, Device};
use std::collections::BTreeSet;

#[test]
fn seeds_with_accuracies_too_far_apart_are_left_out_and_told() {
    // As shares of 1000 images come, in single precision: 2.0, 3.2 and −2.1 points.
    let shares = |list: [f32; 3]| Samples::of((0..).zip(list.map(f64::from)));
    let comparable = comparable(&shares([0.829, 0.830, 0.8]), &shares([0.849, 0.862, 0.779]));
    assert_eq!(comparable.seeds(), [0]);
    let ratios = Samples::of([(0, 0.5), (1, 2.0), (2, 2.0)]).combine(&comparable, |ratio, _| ratio);
    let claim = || Claim::new("C4", "").test(Test::every("ratio", Relation::Below(0.6)), "×");
    let judged = claim().judge(&ratios).unwrap();
    assert_eq!(judged.samples().collect::<Vec<_>>(), [(0, 0.5)]);
    let reasons =
        "seed 1: accuracies at the centre differ by 3.2 points; seed 2: accuracies at the centre differ by 2.1 points";
    assert!(judged.reason().ends_with(reasons), "{}", judged.reason());
    // None is left: no verdict.
    let none = Samples::of([(1, 0.5)]).combine(&comparable, |ratio, _| ratio);
    assert_eq!(claim().judge(&none).unwrap().verdict().as_str(), "not run");
}

#[test]
fn a_report_without_results_leaves_no_claim_out() {
    let empty = tempfile::tempdir().unwrap();
    for (tier, claims) in [(Tier::Quick, 26), (Tier::Standard, 26), (Tier::Paper, 2)] {
        let ask = Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        let section = judge(&ask, &Results::default()).unwrap();
        let ids: BTreeSet<_> = section.claims.iter().map(|claim| claim.id().to_owned()).collect();
        assert_eq!((ids.len(), section.claims.len()), (claims, claims), "{tier}");
        assert!(section.claims.iter().all(|claim| claim.verdict().as_str() == "not run"));
    }
}
