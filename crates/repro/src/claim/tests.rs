use super::*;
use proptest::prelude::*;

fn samples(values: &[f64]) -> Samples {
    Samples::of(values.iter().enumerate().map(|(seed, &value)| (seed as u64, value)))
}

fn judge(test: Test, values: &[f64]) -> JudgedClaim {
    Claim::new("T", "t").test(test, "points").judge(&samples(values)).unwrap()
}

fn verdict(relation: Relation, values: &[f64]) -> &'static str {
    judge(Test::mean("x", relation), values).verdict().as_str()
}

#[test]
fn the_interval_decides_a_mean() {
    // Mean 2, s = 1, n = 3: 2 ± 4.302653 / √3 = [−0.484138, 4.484138], by hand.
    let values = [1.0, 2.0, 3.0];
    let judged = judge(Test::mean("x", Relation::Above(0.0)), &values);
    let interval = judged.interval().unwrap();
    assert!((interval.lo + 0.484138).abs() < 1e-6 && (interval.hi - 4.484138).abs() < 1e-6);
    assert_eq!(judged.mean(), Some(2.0));
    for (relation, expected) in [
        (Relation::Above(-0.49), "reproduced"),
        (Relation::Above(-0.48), "inconclusive"),
        (Relation::Above(4.48), "inconclusive"),
        (Relation::Above(4.49), "not reproduced"),
        (Relation::AtLeast(-0.49), "reproduced"),
        (Relation::Below(4.49), "reproduced"),
        (Relation::Below(4.48), "inconclusive"),
        (Relation::AtMost(-0.48), "inconclusive"),
        (Relation::AtMost(-0.49), "not reproduced"),
        (Relation::Within(Interval { lo: -0.49, hi: 4.49 }), "reproduced"),
        (Relation::Within(Interval { lo: -0.48, hi: 4.49 }), "inconclusive"),
        (Relation::Within(Interval { lo: 1.0, hi: 1.5 }), "inconclusive"),
        (Relation::Within(Interval { lo: 4.49, hi: 9.0 }), "not reproduced"),
    ] {
        assert_eq!(verdict(relation, &values), expected, "{relation}");
    }
}

#[test]
fn non_inferiority_needs_the_lower_end_above_minus_the_margin() {
    // −0.1, −0.3, −0.2: mean −0.2, s = 0.1, half width 4.302653 · 0.1 / √3 = 0.248414: [−0.448, 0.048].
    let differences = [-0.1, -0.3, -0.2];
    assert_eq!(verdict(Relation::AtLeast(-0.5), &differences), "reproduced");
    assert_eq!(verdict(Relation::AtLeast(-0.4), &differences), "inconclusive");
    assert_eq!(verdict(Relation::Above(0.0), &differences), "inconclusive");
}

#[test]
fn a_strict_bound_is_not_met_by_equality_and_a_closed_one_is() {
    assert_eq!(verdict(Relation::Above(0.0), &[0.0, 0.0]), "not reproduced");
    assert_eq!(verdict(Relation::AtLeast(0.0), &[0.0, 0.0]), "reproduced");
}

#[test]
fn one_seed_is_inconclusive_for_a_mean_and_for_every_seed_and_enough_for_an_exact_property() {
    assert_eq!(verdict(Relation::Above(0.0), &[5.0]), "inconclusive");
    let small = Relation::Below(1e-5);
    for (test, expected) in [(Test::every("x", small), "inconclusive"), (Test::exact("x", small), "reproduced")] {
        let judged = judge(test.clone(), &[3e-7]);
        assert_eq!((judged.verdict().as_str(), judged.interval()), (expected, None), "{test}");
        // One that breaks it refutes either, and two that hold are enough for either.
        assert_eq!(judge(test.clone(), &[3e-4]).verdict().as_str(), "not reproduced", "{test}");
        assert_eq!(judge(test.clone(), &[3e-7, 0.0]).verdict().as_str(), "reproduced", "{test}");
    }
}

#[test]
fn one_counter_example_refutes_a_claim_about_every_seed() {
    let judged = judge(Test::every("x", Relation::Above(0.0)), &[1.0, -0.1, 2.0]);
    assert_eq!((judged.verdict().as_str(), judged.reason()), ("not reproduced", "holds for 2 of 3"));
    assert_eq!(judged.interval(), Some(Interval { lo: -0.1, hi: 2.0 }));
}

#[test]
fn a_sample_that_is_no_number_is_an_error() {
    for bad in [f64::NAN, f64::INFINITY] {
        let error = Claim::new("T9", "t")
            .test(Test::mean("gain", Relation::Above(0.0)), "")
            .judge(&samples(&[1.0, bad]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("claim T9") && error.contains("gain"), "{error}");
    }
}

#[test]
fn what_is_missing_is_named_and_keeps_a_claim_from_being_reproduced() {
    let mut none = Samples::default();
    none.miss("run 1 failed");
    let judged = Claim::new("T", "t").judge(&none).unwrap();
    assert_eq!((judged.verdict().as_str(), judged.reason()), ("not run", "run 1 failed"));

    let mut some = samples(&[1.0, 1.1]);
    some.miss("run 2 failed");
    let judged = |test| Claim::new("T", "t").test(test, "").judge(&some).unwrap();
    let mean = judged(Test::mean("x", Relation::Above(0.0)));
    assert_eq!(mean.verdict().as_str(), "inconclusive");
    assert_eq!(mean.reason(), "the whole interval satisfies the inequality; missing: run 2 failed");
    for (bound, expected) in [(0.0, "inconclusive"), (1.05, "not reproduced")] {
        for test in [Test::every("x", Relation::Above(bound)), Test::exact("x", Relation::Above(bound))] {
            assert_eq!(judged(test.clone()).verdict().as_str(), expected, "{test}");
        }
    }
    // A mean that the survivors refute stays refuted: 1.05 ± 12.706205 · 0.0707107 / √2 ends at 1.685, by hand.
    assert_eq!(judged(Test::mean("x", Relation::Above(1.7))).verdict().as_str(), "not reproduced");
}

#[test]
fn json_of_a_judged_claim_has_the_documented_fields() {
    let judged = Claim::new("T2", "KD lifts a ticket")
        .paper("+1.0", "Table 1")
        .test(Test::mean("KD − LT", Relation::AtLeast(-0.5)), "points")
        .judge(&samples(&[1.0, 1.0]))
        .unwrap();
    let expected = serde_json::json!({
        "id": "T2", "statement": "KD lifts a ticket", "paper_value": "+1.0", "paper_source": "Table 1",
        "test": "mean[KD − LT] ≥ −0.5", "unit": "points", "timed": false, "seeds": [0, 1], "samples": [1.0, 1.0],
        "mean": 1.0, "interval": [1.0, 1.0], "verdict": "reproduced",
        "reason": "the whole interval satisfies the inequality", "runs": [],
    });
    assert_eq!(serde_json::to_value(&judged).unwrap(), expected);
}

proptest! {
    #[test]
    fn opposite_claims_are_never_both_reproduced(
        values in prop::collection::vec(-5.0_f64..5.0, 2..8), bound in -5.0_f64..5.0,
    ) {
        let over = verdict(Relation::Above(bound), &values);
        let under = verdict(Relation::AtMost(bound), &values);
        let mirrored = match over {
            "reproduced" => "not reproduced",
            "not reproduced" => "reproduced",
            same => same,
        };
        prop_assert_eq!(under, mirrored);
    }

    #[test]
    fn a_reproduced_mean_satisfies_the_inequality_itself(
        values in prop::collection::vec(-5.0_f64..5.0, 2..8), bound in -5.0_f64..5.0, strict: bool,
    ) {
        let relation = if strict { Relation::Above(bound) } else { Relation::AtMost(bound) };
        let judged = judge(Test::mean("x", relation), &values);
        if judged.verdict().as_str() == "reproduced" {
            prop_assert!(relation.holds(judged.mean().unwrap()));
        }
    }
}
