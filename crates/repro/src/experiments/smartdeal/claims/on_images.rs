//! What compression costs a convolutional network on images.

use super::super::ZEROS;
use super::super::images::{Continued, Course, Learned, Retrained};
use super::{ABSTRACT, CHECK, NEGLIGIBLE, NEGLIGIBLE_IN_FORM, OURS, POINTS, STAY, guard, judge_moving};
use crate::section::{Table, cell};
use crate::{Claim, JudgedClaim, Relation, Results, Run, Samples, Test, Tier};
use quant::smartdeal::train::{BucketSwitch, CoefficientMode, UpdateConfig};

/// Whether coefficients stay or move while a network learns in SmartDeal form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coefficients {
    Stay,
    Move,
}

pub(super) fn claims(tier: Tier, results: &Results) -> anyhow::Result<[JudgedClaim; 8]> {
    let claims = stated(&guard(rule(results)));
    if tier != Tier::Standard {
        return Ok(claims.map(|claim| claim.not_run("needs --tier standard")));
    }
    let [a, b, c, d, e, f, g, h] = claims;
    let [half, more, most] = ZEROS.map(|zeros| retrained(results, "test_accuracy", zeros));
    let (half, more, most) = (half?, more?, most?);
    let switched = |metric: &str| learned(results, metric, Coefficients::Move);
    let fixed = |metric: &str| learned(results, metric, Coefficients::Stay);
    let (two_epochs_more, six_epochs_more) = (continued(results, is_retraining)?, continued(results, is_learning)?);
    let moved = switched("moved")?;
    Ok([
        a.judge(&half.minus(&two_epochs_more))?,
        b.judge(&retrained(results, "file_ratio", ZEROS[0])?)?,
        c.judge(&half.minus(&more).combine(&more.minus(&most), f64::min))?,
        judge_moving(d, &moved, &switched("test_accuracy")?.minus(&six_epochs_more))?,
        e.judge(&switched("zeros_lost")?)?,
        f.judge(&fixed("test_accuracy")?.minus(&six_epochs_more))?,
        g.judge(&switched("file_ratio")?)?,
        h.judge(&fixed("file_ratio")?)?,
    ])
}

/// S9a to S9h, of which `guard` says how many coefficients a step may move.
fn stated(guard: &str) -> [Claim; 8] {
    let beside_dense = |quantity: &str| {
        let difference = format!("A({quantity}) − A(dense, continued as long)");
        Test::mean(&difference, Relation::AtLeast(-1.0))
    };
    let smaller = |quantity: &str| {
        let ratio = format!("bytes(dense) / bytes(.sdz), {quantity}");
        Test::every(&ratio, Relation::AtLeast(8.0))
    };
    [
        Claim::new(
            "S9a",
            "On images, at a threshold of 50 % zeros, two epochs of re-training lose at most a point against two epochs more \
             of dense training",
        )
        .paper(NEGLIGIBLE, ABSTRACT)
        .test(beside_dense("re-trained at a threshold of 50 % zeros"), POINTS),
        Claim::new(
            "S9b",
            "The file of that re-trained network is at least 8 times smaller than the dense checkpoint (zeros in the end and \
             loss of accuracy: in the table)",
        )
        .paper(CHECK, OURS)
        .test(smaller("re-trained at a threshold of 50 % zeros"), "×"),
        Claim::new("S9c", "At thresholds of 50, 70 and 85 % zeros, re-trained, accuracy does not rise from one to the next")
            .paper("not in the papers: the trade", OURS)
            .test(Test::mean("smallest fall from one threshold to the next", Relation::AtLeast(0.0)), POINTS),
        Claim::new(
            "S9d",
            &format!(
                "Half of the coefficients zero, six epochs in SmartDeal form, coefficients switched, {guard}, lose at most a \
                 point against six epochs more of dense training"
            ),
        )
        .paper(NEGLIGIBLE_IN_FORM, ABSTRACT)
        .test(beside_dense("learned in form, coefficients switched"), POINTS),
        Claim::new("S9e", "No zero is lost there")
            .paper(CHECK, OURS)
            .test(Test::every("coefficients that were zero and are not in the end", Relation::AtMost(0.0)), ""),
        Claim::new(
            "S9f",
            "Half of the coefficients zero, six epochs in which coefficients stay, and bases, biases and norms learn, lose at \
             most a point against six epochs more of dense training",
        )
        .paper(STAY, OURS)
        .test(beside_dense("learned in form, coefficients fixed"), POINTS),
        Claim::new(
            "S9g",
            "The file of the network that learned with coefficients switched is at least 8 times smaller than the dense \
             checkpoint (S9d has its accuracy)",
        )
        .paper(CHECK, OURS)
        .test(smaller("learned in form, coefficients switched"), "×"),
        Claim::new(
            "S9h",
            "The file of the network that learned with coefficients fixed is at least 8 times smaller than the dense \
             checkpoint (S9f has its accuracy)",
        )
        .paper(CHECK, OURS)
        .test(smaller("learned in form, coefficients fixed"), "×"),
    ]
}

/// How coefficients move in the runs that are planned; as usual where none is.
fn rule(results: &Results) -> BucketSwitch {
    let of = |run: &Run| match run.params::<Learned>() {
        Ok(Learned { update: UpdateConfig { mode: CoefficientMode::Switch(rule), .. }, .. }) => Some(rule),
        _ => None,
    };
    results.runs().filter(|(run, _)| run.kind == "learned").find_map(|(run, _)| of(run)).unwrap_or_default()
}

/// A metric of the compressed and re-trained networks at one share of zeros.
fn retrained(results: &Results, metric: &str, zeros: f64) -> anyhow::Result<Samples> {
    let at = |run: &Run| run.kind == "retrained" && run.params::<Retrained>().is_ok_and(|params| params.zeros == zeros);
    Ok(results.samples(metric, at)?)
}

/// A metric of the networks that learned in SmartDeal form.
fn learned(results: &Results, metric: &str, coefficients: Coefficients) -> anyhow::Result<Samples> {
    let found = |params: &Learned| match params.update.mode {
        CoefficientMode::Frozen => Coefficients::Stay,
        CoefficientMode::Requantise | CoefficientMode::Switch(_) => Coefficients::Move,
    };
    let of =
        |run: &Run| run.kind == "learned" && run.params::<Learned>().is_ok_and(|params| found(&params) == coefficients);
    Ok(results.samples(metric, of)?)
}

/// The accuracy of the dense network trained on, by the course that the arm beside it takes.
fn continued(results: &Results, is_of_arm: fn(Course) -> bool) -> anyhow::Result<Samples> {
    let of =
        |run: &Run| run.kind == "continued" && run.params::<Continued>().is_ok_and(|params| is_of_arm(params.course));
    Ok(results.samples("test_accuracy", of)?)
}

fn is_retraining(course: Course) -> bool {
    matches!(course, Course::Constant { .. })
}

fn is_learning(course: Course) -> bool {
    matches!(course, Course::Falling { .. })
}

pub(super) fn table(results: &Results) -> anyhow::Result<Table> {
    let dense = results.samples("test_accuracy", |run| run.kind == "trained")?;
    let (two_epochs_more, six_epochs_more) = (continued(results, is_retraining)?, continued(results, is_learning)?);
    let arm = |label: &str, metric: &str| each(label, |zeros| retrained(results, metric, zeros));
    let form = |label: &str, metric: &str, coefficients: Coefficients| -> anyhow::Result<Vec<String>> {
        Ok(first(label, &learned(results, metric, coefficients)?))
    };
    let beside_dense = |label: &str, coefficients: Coefficients| -> anyhow::Result<Vec<String>> {
        Ok(first(label, &learned(results, "test_accuracy", coefficients)?.minus(&six_epochs_more)))
    };
    let (fixed, switched) = (Coefficients::Stay, Coefficients::Move);
    Ok(Table {
        title: "A network on images, compressed".into(),
        caption: format!(
            "Accuracy in percent; dense: {}. By threshold, which gives so many zeros in one shot. Re-trained for two epochs, \
             each followed by a decomposition. Coefficients switched or fixed: six epochs in SmartDeal form, in which bases, \
             biases and norms learn. Dense training goes on for as many epochs, on the same batches under the same learning \
             rates.",
            cell(&dense.values(), 2)
        ),
        header: ["", "50 % zeros", "70 %", "85 %"].map(String::from).into(),
        rows: vec![
            arm("one shot", "one_shot")?,
            each("dense, two epochs more", |_| Ok(two_epochs_more.clone()))?,
            arm("re-trained", "test_accuracy")?,
            each("re-trained − dense, two epochs more, points", |zeros| {
                Ok(retrained(results, "test_accuracy", zeros)?.minus(&two_epochs_more))
            })?,
            arm("re-trained, zeros in the end, %", "zeros")?,
            arm("re-trained, dense bytes / file bytes", "file_ratio")?,
            first("dense, six epochs more", &six_epochs_more),
            form("coefficients switched", "test_accuracy", switched)?,
            beside_dense("coefficients switched − dense, six epochs more, points", switched)?,
            form("coefficients switched, bases not rounded to 8 bits", "float_basis_accuracy", switched)?,
            form("coefficients switched, moved, %", "moved", switched)?,
            form("coefficients switched, zeros in the end, %", "zeros", switched)?,
            form("coefficients switched, dense bytes / file bytes", "file_ratio", switched)?,
            form("coefficients fixed", "test_accuracy", fixed)?,
            beside_dense("coefficients fixed − dense, six epochs more, points", fixed)?,
            form("coefficients fixed, bases not rounded to 8 bits", "float_basis_accuracy", fixed)?,
            form("coefficients fixed, dense bytes / file bytes", "file_ratio", fixed)?,
        ],
    })
}

/// A row with samples of each threshold.
fn each(label: &str, samples: impl Fn(f64) -> anyhow::Result<Samples>) -> anyhow::Result<Vec<String>> {
    let mut row = vec![label.to_owned()];
    for zeros in ZEROS {
        row.push(cell(&samples(zeros)?.values(), 2));
    }
    Ok(row)
}

/// A row with samples of the first threshold alone.
fn first(label: &str, samples: &Samples) -> Vec<String> {
    vec![label.to_owned(), cell(&samples.values(), 2), "–".into(), "–".into()]
}

#[cfg(test)]
mod tests {
    use super::super::super::SmartDeal;
    use super::*;
    use crate::{Ask, DataRoot, Device, Experiment, Outcome};

    /// The standard tier's runs, none of them started, with their parameters for a reason.
    fn skipped() -> Results {
        let empty = tempfile::tempdir().unwrap();
        let ask = Ask { tier: Tier::Standard, seeds: None, device: Device::Cpu, data: DataRoot::at(empty.path()) };
        let outcome = |run: Run| {
            let reason = format!("{}: {}", run.kind, run.params);
            (run, Outcome::Skipped { reason })
        };
        Results::new(SmartDeal.plan(&ask).unwrap().runs.into_iter().map(|planned| outcome(planned.run)).collect())
    }

    #[test]
    fn arms_are_judged_beside_the_dense_network_that_took_their_course() {
        let claims = claims(Tier::Standard, &skipped()).unwrap();
        let reason = |id: &str| claims.iter().find(|claim| claim.id() == id).unwrap().reason().to_owned();
        for (id, arm, course, other) in [
            ("S9a", "retrained: ", "constant", "falling"),
            ("S9d", "learned: ", "falling", "constant"),
            ("S9f", "learned: ", "falling", "constant"),
        ] {
            let reason = reason(id);
            assert!(
                reason.contains(arm) && reason.contains("continued: ") && reason.contains(course),
                "{id}: {reason}"
            );
            assert!(!reason.contains(other) && !reason.contains("smartdeal trained "), "{id}: {reason}");
        }
        assert!(!reason("S9b").contains("continued: ") && !reason("S9h").contains("continued: "));
    }

    #[test]
    fn the_guard_is_the_planned_runs_own() {
        // LeNet-5 stands in for ResNet-20 where there is no CIFAR-10, and moves a tenth as many.
        assert_eq!(guard(rule(&skipped())), "at most one in 10000 of a layer's a step");
        assert_eq!(rule(&Results::default()), BucketSwitch::default());
        let claims = claims(Tier::Standard, &skipped()).unwrap();
        assert!(claims.iter().any(|claim| claim.id() == "S9d" && claim.statement().contains("one in 10000 ")));
    }
}
