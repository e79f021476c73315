use super::bootstrap::Ordered;
use super::*;
use crate::fas::Error;
use proptest::prelude::*;

/// Worked by hand: five live scores, four prints, six replays.
const LIVE: [f64; 5] = [0.9, 0.8, 0.7, 0.6, 0.35];
const PRINT: [f64; 4] = [0.1, 0.2, 0.4, 0.65];
const REPLAY: [f64; 6] = [0.05, 0.15, 0.3, 0.5, 0.75, 0.85];

fn worked() -> Vec<Scored> {
    let live = LIVE.map(Scored::live).into_iter();
    let print = PRINT.map(|score| Scored::attack(score, "print")).into_iter();
    live.chain(print).chain(REPLAY.map(|score| Scored::attack(score, "replay"))).collect()
}

fn pooled() -> Scores {
    Scores::new(LIVE, [&PRINT[..], &REPLAY].concat()).unwrap()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

#[test]
fn rates_at_thresholds_are_those_worked_by_hand() {
    let third = 1.0 / 3.0;
    let table = [
        (0.5, [0.25, 0.5, 0.5, 0.2, 0.35, 0.4, 0.30]),
        (0.6, [0.25, third, third, 0.2, 0.266_667, 0.3, 0.25]),
        (0.65, [0.25, third, third, 0.4, 0.366_667, 0.3, 0.35]),
        (0.7, [0.0, third, third, 0.4, 0.366_667, 0.2, 0.30]),
    ];
    for (threshold, expected) in table {
        let threshold = DevScores::new(worked()).unwrap().threshold(Criterion::Fixed(threshold)).unwrap();
        let report = evaluate(&TestScores::new(worked()).unwrap(), &threshold, &EvalOptions::default()).unwrap();
        let found = [
            report.species[0].apcer,
            report.species[1].apcer,
            report.apcer,
            report.bpcer,
            report.acer,
            report.far,
            report.hter,
        ];
        assert!(found.iter().zip(expected).all(|(f, e)| close(*f, e)), "{found:?} against {expected:?}");
        assert!(report.species.iter().all(|species| species.small_sample));
        assert!(close(report.auc, 0.78));
    }
}

#[test]
fn equal_error_rates_follow_their_rules() {
    let scores = pooled();
    assert_eq!(scores.eer(EerRule::Exact), Eer { value: 0.25, threshold: 0.6 });
    let grid = scores.eer(EerRule::Grid10001);
    assert!(close(grid.value, 0.25) && close(grid.threshold, 0.6));
    // As scikit-learn's roc_curve gives it in f64: the first of two equal minima.
    let first = scores.eer(EerRule::RocFirst);
    assert!(close(first.value, 0.30) && close(first.threshold, 0.65), "{first:?}");
}

#[test]
fn points_on_a_line_of_the_roc_are_no_vertices() {
    // (FPR, TPR): (0, 0) at +∞, (0, 1/2) at .95, (1/3, 1/2), (2/3, 1/2), (1, 1/2) at .7, (1, 1). The two on the line between
    // go, though (1/3, 1/2) at .9 has the least |TPR + FPR − 1|; of the others .95 and .7 have ½, and .95 comes first.
    let scores = Scores::new([0.95, 0.6], [0.9, 0.8, 0.7]).unwrap();
    assert_eq!(scores.eer(EerRule::RocFirst), Eer { value: 0.0, threshold: 0.95 });
    // Two scores at most are all vertices.
    let tied = Scores::new([0.5, 0.5], [0.5, 0.2]).unwrap();
    assert_eq!(tied.eer(EerRule::RocFirst), Eer { value: 0.5, threshold: 0.5 });
}

#[test]
fn areas_and_rates_at_rates_are_those_worked_by_hand() {
    let scores = pooled();
    assert!(close(scores.auc(), 0.78));
    assert!(close(scores.tpr_at_fpr(0.1), 0.4) && close(scores.tpr_at_fpr(0.2), 0.6));
    assert!(close(scores.recall_at_fpr(0.2), 0.7) && close(scores.recall_at_fpr(0.0), 0.5));
    assert_eq!([scores.tpr_at_fpr(1.0), scores.recall_at_fpr(1.0)], [1.0; 2]);
    for no_rate in [f64::NAN, -0.1, 1.1, f64::INFINITY] {
        assert_eq!([scores.tpr_at_fpr(no_rate), scores.recall_at_fpr(no_rate)], [0.0; 2], "{no_rate}");
    }
    let test = TestScores::new(worked()).unwrap();
    assert!(close(test.bpcer_at_apcer(0.25).unwrap(), 0.6) && close(test.bpcer_at_apcer(0.05).unwrap(), 0.8));
    let dev = DevScores::new(worked()).unwrap();
    assert_eq!(dev.threshold(Criterion::AtApcer(0.25)).unwrap().value(), 0.8);
    assert_eq!(dev.threshold(Criterion::AtApcer(0.05)).unwrap().value(), 0.9);
    assert_eq!(dev.threshold(Criterion::MinHter).unwrap().value(), 0.6);
    // One of five rejected at most: up to .6, which rejects .35 alone.
    assert_eq!(dev.threshold(Criterion::AtBpcer(0.2)).unwrap().value(), 0.6);
}

#[test]
fn ties_count_half() {
    let scores = Scores::new([0.5, 0.5, 0.9], [0.5, 0.1]).unwrap();
    assert_eq!(scores.eer(EerRule::Exact), Eer { value: 0.25, threshold: 0.5 });
    assert!(close(scores.auc(), 0.833_333));
    assert_eq!((scores.far(0.5), scores.frr(0.5)), (0.5, 0.0));
}

#[test]
fn an_oracle_says_so() {
    let report = evaluate_oracle(&TestScores::new(worked()).unwrap(), &EvalOptions::default()).unwrap();
    assert_eq!(report.threshold_source, "target oracle");
    assert!(report.to_string().contains("target oracle"));
    assert!(serde_json::to_string(&report).unwrap().contains("\"threshold_source\":\"target oracle\""));
}

#[test]
fn failures_to_acquire_are_counted_or_refused_and_never_dropped() {
    let mut scores = worked();
    scores.push(Scored::live(f64::NAN));
    let refused = TestScores::new(scores.clone()).unwrap_err();
    assert!(matches!(refused, Error::NonFiniteScore { index: 15, .. }), "{refused}");
    let dev = DevScores::new(worked()).unwrap().threshold(Criterion::Fixed(0.5)).unwrap();
    let report = evaluate(&TestScores::with_failures(scores).unwrap(), &dev, &EvalOptions::default()).unwrap();
    // One of 16: FAR' = .4 · 15/16, FRR' = 1/16 + .2 · 15/16.
    assert!(close(report.far, 0.375) && close(report.bpcer, 0.25) && close(report.failures_to_acquire, 0.0625));
}

#[test]
fn bad_score_sets_are_refused_by_name() {
    assert!(matches!(Scores::new([0.5], []), Err(Error::EmptyClass { class: "attack" })));
    assert!(matches!(DevScores::new(vec![Scored::attack(0.1, "x")]), Err(Error::EmptyClass { class: "bona fide" })));
    assert!(matches!(Scores::from_labels(&[0.1, 0.2], &[1.0]), Err(Error::LengthMismatch { left: 2, right: 1, .. })));
    assert!(matches!(Scores::from_labels(&[0.1, 0.2], &[1.0, 2.0]), Err(Error::BadLabel { index: 1, .. })));
    assert!(matches!(Scores::from_labels(&[0.1, f64::NAN], &[1.0, 0.0]), Err(Error::NonFiniteScore { index: 1, .. })));
    assert!(matches!(calibration(&[1.2], &[true]), Err(Error::BadParam { .. })));
    assert!(DevScores::new(worked()).unwrap().threshold(Criterion::AtApcer(1.5)).is_err());
}

#[test]
fn people_of_the_development_set_are_refused_in_the_test() {
    let named = |first: u32| -> Vec<Scored> {
        worked().into_iter().enumerate().map(|(at, scored)| scored.of(first + at as u32)).collect()
    };
    let threshold = DevScores::new(named(0)).unwrap().threshold(Criterion::Eer).unwrap();
    let leak = evaluate(&TestScores::new(named(14)).unwrap(), &threshold, &EvalOptions::default()).unwrap_err();
    assert!(matches!(&leak, Error::IdentityLeak { ids } if ids == &["14"]), "{leak}");
    assert!(evaluate(&TestScores::new(named(15)).unwrap(), &threshold, &EvalOptions::default()).is_ok());
}

#[test]
fn a_species_that_only_the_development_set_has_is_warned_about() {
    let threshold = DevScores::new(worked()).unwrap().threshold(Criterion::Eer).unwrap();
    let test: Vec<Scored> = worked().into_iter().filter(|s| s.species.as_deref() != Some("replay")).collect();
    let report = evaluate(&TestScores::new(test).unwrap(), &threshold, &EvalOptions::default()).unwrap();
    assert!(report.warnings[0].contains("replay"));
}

#[test]
fn a_species_whose_attacks_all_failed_to_be_acquired_keeps_its_row() {
    let threshold = DevScores::new(worked()).unwrap().threshold(Criterion::AtApcer(0.25)).unwrap();
    let mut failed = worked();
    failed.iter_mut().filter(|s| s.species.as_deref() == Some("replay")).for_each(|s| s.score = f64::NAN);
    let report = evaluate(&TestScores::with_failures(failed.clone()).unwrap(), &threshold, &EvalOptions::default());
    let report = report.unwrap();
    let row = &report.species[1];
    assert_eq!((row.species.as_str(), row.attacks, row.apcer, row.small_sample), ("replay", 0, 0.0, true));
    // Nothing is known of the share accepted among the 9 of 15 that were acquired.
    assert_eq!(row.interval[0], 0.0);
    assert!(close(row.interval[1], 0.6));
    assert_eq!(report.warnings, ["this set has attacks of species `replay`, none with a score"]);
    // A development set with such a species chooses by the others: .6 accepts one print of four.
    let threshold = DevScores::with_failures(failed).unwrap().threshold(Criterion::AtApcer(0.25)).unwrap();
    assert_eq!(threshold.value(), 0.6);
}

#[test]
fn species_group_by_the_parts_that_count() {
    let mut scores = vec![Scored::live(0.9), Scored::attack(0.1, "print/1"), Scored::attack(0.8, "print/2")];
    scores.push(Scored::attack(0.2, "replay/1"));
    let threshold = DevScores::new(scores.clone()).unwrap().threshold(Criterion::Fixed(0.5)).unwrap();
    let at = |species_level| {
        let options = EvalOptions { species_level, bootstrap: 0, ..EvalOptions::default() };
        evaluate(&TestScores::new(scores.clone()).unwrap(), &threshold, &options).unwrap()
    };
    assert_eq!((at(1).apcer, at(1).species.len()), (0.5, 2));
    assert_eq!((at(0).apcer, at(0).species.len()), (1.0, 3));
}

#[test]
fn frames_pool_into_recordings() {
    let frames = |pool| {
        let scores = [0.2, 0.9, 0.4].map(|score| Scored::live(score).in_video(7));
        let all: Vec<Scored> = scores.into_iter().chain([Scored::attack(0.3, "print")]).collect();
        pool_videos(&all, pool).unwrap().iter().map(|scored| scored.score).collect::<Vec<_>>()
    };
    assert_eq!([frames(Pool::Max), frames(Pool::Median)], [[0.9, 0.3], [0.4, 0.3]]);
    assert!(close(frames(Pool::Mean)[0], 0.5));
    let mixed = [Scored::live(0.1).in_video(1), Scored::attack(0.1, "x").in_video(1)];
    assert!(matches!(pool_videos(&mixed, Pool::Mean), Err(Error::BadLabel { index: 1, .. })));
}

#[test]
fn calibration_is_that_worked_by_hand() {
    let found = calibration(&[0.9, 0.6, 0.2, 0.8], &[true, false, false, true]).unwrap();
    // Bins of 1/15: .9 → 13; .6 (wrong) → 9; .8 and .8 → 12. Gaps .1 + .6 + .4 over 4.
    assert!(close(found.ece, 1.1 / 4.0), "{}", found.ece);
    // Confidences .9 + .6 + .8 + .8 over 4, less three right of 4.
    assert!(close(found.overconfidence, 3.1 / 4.0 - 0.75), "{}", found.overconfidence);
    // (.01 + .36 + .04 + .04) / 4 and −(ln .9 + ln .4 + ln .8 + ln .8) / 4.
    assert!(close(found.brier, 0.1125));
    assert!(close(found.nll, -(0.9_f64.ln() + 0.4_f64.ln() + 2.0 * 0.8_f64.ln()) / 4.0));
}

#[test]
fn wilson_intervals_are_those_of_the_formula() {
    // 1 of 10 by statsmodels' proportion_confint(1, 10, method="wilson").
    let [lo, hi] = wilson(1, 10);
    assert!((lo - 0.017_876).abs() < 1e-5 && (hi - 0.404_150).abs() < 1e-5, "[{lo}, {hi}]");
    assert_eq!(wilson(0, 0), [0.0, 1.0]);
}

#[test]
fn curves_start_and_end_where_everything_is_accepted_and_rejected() {
    let curve = Curve::new(&pooled(), CurveKind::Det);
    let points = curve.points();
    assert_eq!((points[0][1], points[0][2]), (1.0, 0.0));
    assert_eq!((points[points.len() - 1][1], points[points.len() - 1][2]), (0.0, 1.0));
    assert_eq!(curve.csv().lines().count(), points.len() + 1);
    assert!(curve.svg().starts_with("<svg") && Curve::new(&pooled(), CurveKind::Roc).svg().ends_with("</svg>"));
}

#[test]
fn resampling_is_fixed_by_its_seed_and_covers_the_value() {
    let scores: Vec<Scored> = (0..40)
        .flat_map(|i| {
            let x = f64::from(i) / 40.0;
            [Scored::live(0.3 + 0.7 * x).of(i), Scored::attack(0.7 * x, "print").of(i)]
        })
        .collect();
    let threshold = Threshold::saved(0.5, Criterion::Eer).unwrap();
    let report = |seed| {
        let options = EvalOptions { bootstrap: 200, seed, ..EvalOptions::default() };
        evaluate(&TestScores::new(scores.clone()).unwrap(), &threshold, &options).unwrap()
    };
    assert_eq!(report(1), report(1));
    assert_ne!(report(1).intervals, report(2).intervals);
    let (one, intervals) = (report(1), report(1).intervals.unwrap());
    assert!(intervals.hter[0] < one.hter && one.hter < intervals.hter[1]);
    assert!(intervals.auc[0] < one.auc && one.auc < intervals.auc[1]);
}

#[test]
fn intervals_count_failures_to_acquire_as_the_rates_do() {
    let scores: Vec<Scored> = (0..40)
        .flat_map(|i| {
            let x = f64::from(i) / 40.0;
            let failure = Scored::attack(f64::NAN, "print").of(i);
            [Scored::live(0.3 + 0.7 * x).of(i), Scored::attack(0.7 * x, "print").of(i), failure]
        })
        .collect();
    let threshold = Threshold::saved(0.5, Criterion::Eer).unwrap();
    let options = EvalOptions { bootstrap: 200, ..EvalOptions::default() };
    let report = evaluate(&TestScores::with_failures(scores).unwrap(), &threshold, &options).unwrap();
    let (species, intervals) = (&report.species[0], report.intervals.unwrap());
    for ([lo, hi], rate) in [
        (species.interval, species.apcer),
        (intervals.bpcer, report.bpcer),
        (intervals.acer, report.acer),
        (intervals.hter, report.hter),
    ] {
        assert!(lo < rate && rate < hi, "{rate} outside [{lo}, {hi}]");
    }
    // A third of the presentations has no score, and those are rejected for certain.
    assert!(close(report.failures_to_acquire, 1.0 / 3.0) && intervals.bpcer[0] >= 1.0 / 3.0);
    assert!(species.interval[1] <= 2.0 / 3.0);
}

#[test]
fn each_of_seventy_thousand_species_is_an_attack() {
    let attacks = (0..70_000).map(|at| Scored::attack(0.1, &at.to_string()));
    let all: Vec<Scored> = [Scored::live(0.9)].into_iter().chain(attacks).collect();
    let walked = Ordered::new(&all, 0.5, 0).undisturbed().unwrap();
    assert_eq!((walked.auc, walked.bpcer, walked.acer), (1.0, 0.0, 0.0));
}

fn any_scores() -> impl Strategy<Value = (Vec<f64>, Vec<f64>)> {
    // Few values, so that ties are common.
    let list = || prop::collection::vec((0_i32..12).prop_map(|i| f64::from(i) / 8.0), 1..25);
    (list(), list())
}

proptest! {
    #[test]
    fn order_is_all_that_counts((live, attack) in any_scores()) {
        let plain = Scores::new(live.clone(), attack.clone()).unwrap();
        let warp = |list: &[f64]| -> Vec<f64> { list.iter().map(|x| (3.0 * x).exp() - 20.0).collect() };
        let warped = Scores::new(warp(&live), warp(&attack)).unwrap();
        prop_assert_eq!(plain.auc(), warped.auc());
        prop_assert_eq!(plain.eer(EerRule::Exact).value, warped.eer(EerRule::Exact).value);
    }

    #[test]
    fn swapping_roles_and_signs_changes_nothing((live, attack) in any_scores()) {
        let negated = |list: &[f64]| -> Vec<f64> { list.iter().map(|x| -x).collect() };
        let plain = Scores::new(live.clone(), attack.clone()).unwrap();
        let swapped = Scores::new(negated(&attack), negated(&live)).unwrap();
        prop_assert!(close(plain.auc(), swapped.auc()));
        prop_assert!(close(plain.eer(EerRule::Exact).value, swapped.eer(EerRule::Exact).value));
    }

    #[test]
    fn rates_are_monotone_and_the_worst_species_is_no_better_than_the_pool(
        (live, attack) in any_scores(), thresholds in (0.0_f64..1.5, 0.0_f64..1.5),
    ) {
        let scores = Scores::new(live.clone(), attack.clone()).unwrap();
        let (low, high) = (thresholds.0.min(thresholds.1), thresholds.0.max(thresholds.1));
        prop_assert!(scores.far(low) >= scores.far(high) && scores.frr(low) <= scores.frr(high));
        let split = |at: usize| if at.is_multiple_of(2) { "a" } else { "b" };
        let attacks = attack.iter().enumerate().map(|(at, &score)| Scored::attack(score, split(at)));
        let all: Vec<Scored> = live.iter().map(|&score| Scored::live(score)).chain(attacks).collect();
        let options = EvalOptions { bootstrap: 0, ..EvalOptions::default() };
        let fixed = Threshold::saved(low, Criterion::Fixed(low)).unwrap();
        let report = evaluate(&TestScores::new(all).unwrap(), &fixed, &options).unwrap();
        prop_assert!(report.apcer >= report.far - 1e-12);
        if report.species.len() == 1 {
            prop_assert!(close(report.apcer, report.far) && close(report.acer, report.hter));
        }
    }

    #[test]
    fn doubling_a_class_changes_no_rate((live, attack) in any_scores()) {
        let plain = Scores::new(live.clone(), attack.clone()).unwrap();
        let doubled = Scores::new([live.clone(), live].concat(), attack).unwrap();
        prop_assert!(close(plain.auc(), doubled.auc()));
        prop_assert_eq!(plain.eer(EerRule::Exact), doubled.eer(EerRule::Exact));
    }

    #[test]
    fn the_walk_of_the_bootstrap_agrees_with_the_plain_metrics((live, attack) in any_scores(), threshold in 0.0_f64..1.5) {
        let plain = Scores::new(live.clone(), attack.clone()).unwrap();
        let species = |at: usize| if at.is_multiple_of(3) { "print" } else { "replay" };
        let attacks = attack.iter().enumerate().map(|(at, &score)| Scored::attack(score, species(at)));
        let all: Vec<Scored> = live.iter().map(|&score| Scored::live(score)).chain(attacks).collect();
        let ordered = Ordered::new(&all, threshold, 1);
        let walked = ordered.undisturbed().unwrap();
        prop_assert!(close(walked.auc, plain.auc()) && close(walked.hter, plain.hter(threshold)));
        prop_assert!(close(walked.eer, plain.eer(EerRule::Exact).value));
        prop_assert!(close(walked.bpcer, plain.frr(threshold)));
        let fixed = Threshold::saved(threshold, Criterion::Fixed(threshold)).unwrap();
        let options = EvalOptions { bootstrap: 0, ..EvalOptions::default() };
        let report = evaluate(&TestScores::new(all.clone()).unwrap(), &fixed, &options).unwrap();
        prop_assert!(close(walked.acer, report.acer));

        // A weight is as many copies: of these none, one and two by turns.
        let mut sorted = all;
        sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
        let weights: Vec<u16> = (0..sorted.len()).map(|at| (at % 3) as u16).collect();
        let copies = |(one, &weight): (&Scored, &u16)| std::iter::repeat_n(one.clone(), usize::from(weight));
        let drawn: Vec<Scored> = sorted.iter().zip(&weights).flat_map(copies).collect();
        prop_assert_eq!(ordered.walk(&weights), Ordered::new(&drawn, threshold, 1).undisturbed());
    }
}
