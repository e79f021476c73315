use super::*;
use crate::{DataRoot, Device};
use std::collections::BTreeSet;

/// Shares of 1000 images as they come, in single precision.
fn shares<const N: usize>(list: [f32; N]) -> Samples {
    Samples::of((0..).zip(list.map(f64::from)))
}

fn claim() -> Claim {
    Claim::new("C4", "").test(Test::every("ratio", Relation::Below(0.6)), "×")
}

#[test]
fn seeds_with_accuracies_too_far_apart_are_left_out_and_told() {
    // 2.0, 3.2, −2.1, 0.5 and 0 points.
    let comparable = Comparable::of(&shares([0.829, 0.830, 0.8, 0.8, 0.8]), &shares([0.849, 0.862, 0.779, 0.805, 0.8]));
    assert_eq!(comparable.seeds.seeds(), [0, 3, 4]);
    let reasons = [
        "seed 1: accuracies at the centre differ by 3.2 points",
        "seed 2: accuracies at the centre differ by 2.1 points",
    ];
    assert_eq!(comparable.left_out, reasons);
    let ratios = comparable.only(&Samples::of([(0, 0.5), (1, 2.0), (2, 2.0), (3, 0.4), (4, 0.3)]));
    let judged = claim().judge(&ratios).unwrap();
    assert_eq!(judged.samples().collect::<Vec<_>>(), [(0, 0.5), (3, 0.4), (4, 0.3)]);
    assert_eq!(judged.verdict().as_str(), "reproduced");
    // A run that is missing is no seed left out.
    let mut lacking = Samples::of([(0, 0.5), (1, 2.0), (2, 2.0), (3, 0.4)]);
    lacking.miss("seed 4 failed");
    assert_eq!(claim().judge(&comparable.only(&lacking)).unwrap().verdict().as_str(), "inconclusive");
}

#[test]
fn too_few_comparable_seeds_carry_no_claim() {
    // Two of four, one of three.
    let two = Comparable::of(&shares([0.8, 0.8, 0.8, 0.8]), &shares([0.8, 0.8, 0.83, 0.83]));
    let judged = claim().judge(&two.only(&Samples::of([(0, 0.5), (1, 0.5), (2, 0.5), (3, 0.5)]))).unwrap();
    assert_eq!((judged.samples().count(), judged.verdict().as_str()), (2, "inconclusive"));
    let comparable = Comparable::of(&shares([0.829, 0.830, 0.8]), &shares([0.849, 0.862, 0.779]));
    let judged = claim().judge(&comparable.only(&Samples::of([(0, 0.5), (1, 2.0), (2, 2.0)]))).unwrap();
    assert_eq!(judged.samples().collect::<Vec<_>>(), [(0, 0.5)]);
    assert_eq!(judged.verdict().as_str(), "inconclusive");
    let reasons =
        "seed 1: accuracies at the centre differ by 3.2 points; seed 2: accuracies at the centre differ by 2.1 points";
    assert!(judged.reason().ends_with(reasons), "{}", judged.reason());
    // None is left: no verdict.
    let none = comparable.only(&Samples::of([(1, 0.5)]));
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
