//! The paper's orderings as inequalities.

mod exhibits;
mod notes;

use super::PAPER;
use super::arms::{Arm, TicketParams};
use super::cases::{self, Case};
use crate::statistics::t_interval;
use crate::{Ask, Claim, Interval, JudgedClaim, Relation, Results, Run, Samples, Section, Test, Tier};

/// Where the paper states its orderings; its tables are not quoted because only the abstract was at hand.
const ABSTRACT: &str = "arXiv 2101.03255v2, abstract";
const WINNING_TICKETS: &str = "Frankle and Carbin 2019, arXiv 1803.03635";
const CONTROL: &str = "not in the paper: a control";
const OURS: &str = "ours";
const POINTS: &str = "points";

pub(super) fn judge(ask: &Ask, results: &Results) -> anyhow::Result<Section> {
    let mut section = Section::default();
    let cases = cases::of(ask)?;
    for (index, case) in cases.iter().enumerate() {
        let view = View { index, tier: ask.tier, case, results };
        let claims = view.claims()?;
        section.notes.extend(view.notes(ask, &claims)?);
        section.claims.extend(claims);
        if !case.curve.is_empty() {
            section.curves.push(view.curve()?);
        }
        section.tables.push(view.table()?);
    }
    if cases.is_empty() {
        let missing = "needs CIFAR-10 or ImageNet under the data folder, and a GPU";
        section.claims.push(on_par_claim("T2b", "the paper's networks").not_run(missing));
    }
    section.notes.extend(notes::of_tier(ask.tier));
    Ok(section)
}

/// One case with its results.
struct View<'a> {
    /// Tells apart the claims of several networks: the first has no suffix.
    index: usize,
    tier: Tier,
    case: &'a Case,
    results: &'a Results,
}

impl View<'_> {
    fn claims(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let mut claims = vec![self.falls_short()?];
        claims.extend(self.rewinding()?);
        claims.extend(self.soft_labels()?);
        claims.extend(self.both_together()?);
        if self.case.scans {
            claims.extend(self.scans()?);
        } else if self.tier == Tier::Quick {
            claims.extend(scan_claims().map(|claim| claim.not_run("the scans of settings need --tier standard")));
        }
        claims.extend(self.luck()?);
        claims.extend(self.teaching()?);
        Ok(claims)
    }

    /// Claim T1a: there is something to win back.
    fn falls_short(&self) -> anyhow::Result<JudgedClaim> {
        let (statement, paper, source) = if self.tier == Tier::Paper {
            ("The original ticket falls short of the dense network", "falls short on large networks", ABSTRACT)
        } else {
            (
                "A precondition: a density at which the original ticket falls short of the dense network",
                "not the paper's claim, which is on large networks",
                OURS,
            )
        };
        let claim = self.claim("T1a", statement, "A(dense) − A(LT)", Relation::Above(0.0)).paper(paper, source);
        Ok(claim.judge(&self.dense()?.minus(&self.at(Arm::Original)?))?)
    }

    /// Claims T1b and T1c, without which being on par with rewinding says nothing.
    fn rewinding(&self) -> anyhow::Result<[JudgedClaim; 2]> {
        let (original, step) = (self.at(Arm::Original)?, self.case.rewind);
        let beats = |id, statement, formula, paper| {
            self.claim(id, statement, formula, Relation::Above(0.0))
                .paper(paper, "Renda et al. 2020, released results, medians of 3")
        };
        let [weights, rate] = [("89.15 %", "weights"), ("89.49 %", "the learning rate")].map(|(accuracy, what)| {
            let paper = format!("{accuracy} against 87.06 % (ResNet-20, 10.7 % density)");
            (format!("Rewinding {what} beats the original ticket"), paper)
        });
        Ok([
            beats("T1b", &weights.0, "A(WR) − A(LT)", &weights.1)
                .judge(&self.at(Arm::WeightRewind(step))?.minus(&original))?,
            beats("T1c", &rate.0, "A(LRR) − A(LT)", &rate.1)
                .judge(&self.at(Arm::LearningRateRewind(step))?.minus(&original))?,
        ])
    }

    /// Claim T2: soft labels alone.
    fn soft_labels(&self) -> anyhow::Result<[JudgedClaim; 3]> {
        let Case { distill, rewind, .. } = *self.case;
        let kd = self.at(Arm::Kd(distill))?;
        let lift = "Soft labels lift the original ticket";
        let rate = "Soft labels alone are on par with rewinding the learning rate";
        Ok([
            self.claim("T2a", lift, "A(KD) − A(LT)", Relation::Above(0.0))
                .paper("KD tickets improve on the original tickets", ABSTRACT)
                .judge(&kd.minus(&self.at(Arm::Original)?))?,
            on_par_claim(&self.id("T2b"), &self.setting()).judge(&kd.minus(&self.at(Arm::WeightRewind(rewind))?))?,
            self.claim("T2c", rate, "A(KD) − A(LRR)", Relation::AtLeast(-0.5))
                .paper("on par with or better than rewinding", ABSTRACT)
                .judge(&kd.minus(&self.at(Arm::LearningRateRewind(rewind))?))?,
        ])
    }

    /// Claim T3: soft labels and rewinding add up.
    fn both_together(&self) -> anyhow::Result<[JudgedClaim; 4]> {
        let Case { distill, rewind, .. } = *self.case;
        let (weights, rate) = (self.at(Arm::WeightRewind(rewind))?, self.at(Arm::LearningRateRewind(rewind))?);
        let kd_weights = self.at(Arm::KdWeightRewind(rewind, distill))?;
        let lift = |id, statement, formula| {
            self.claim(id, statement, formula, Relation::Above(0.0)).paper("KD and rewinding add up", ABSTRACT)
        };
        let best = |id, statement, formula, paper| {
            self.claim(id, statement, formula, Relation::AtLeast(-0.3)).paper(paper, ABSTRACT)
        };
        let kd_rate = lift("T3c", "Soft labels lift learning-rate rewinding too", "A(KD + LRR) − A(LRR)");
        let kd_rate = if self.case.kd_learning_rate {
            kd_rate.judge(&self.at(Arm::KdLearningRateRewind(rewind, distill))?.minus(&rate))?
        } else {
            kd_rate.not_run("KD + LRR is run on residual networks only, in the standard and paper tiers, with CIFAR-10")
        };
        Ok([
            lift("T3a", "Soft labels lift rewinding too", "A(KD + WR) − A(WR)").judge(&kd_weights.minus(&weights))?,
            best(
                "T3b",
                "Soft labels and rewound weights together are at least as good as soft labels alone",
                "A(KD + WR) − A(KD)",
                "the combination is the best: against soft labels alone",
            )
            .judge(&kd_weights.minus(&self.at(Arm::Kd(distill))?))?,
            kd_rate,
            best(
                "T3d",
                "Soft labels and rewound weights together are at least as good as rewinding the learning rate",
                "A(KD + WR) − A(LRR)",
                "the combination is the best: against every rewinding",
            )
            .judge(&kd_weights.minus(&rate))?,
        ])
    }

    /// Claim T4: distillation has no setting that must be searched for.
    fn scans(&self) -> anyhow::Result<[JudgedClaim; 2]> {
        let original = self.at(Arm::Original)?;
        let settings = self.case.scanned_settings().into_iter().map(|config| self.at(Arm::Kd(config)));
        let settings = settings.collect::<anyhow::Result<Vec<_>>>()?;
        let rewound = self.case.compared_steps().into_iter().map(|step| match step {
            0 => Ok(original.clone()),
            step => self.at(Arm::WeightRewind(step)),
        });
        let rewound = rewound.collect::<anyhow::Result<Vec<_>>>()?;
        let gains: Vec<Samples> = settings.iter().map(|setting| setting.minus(&original)).collect();
        let [helps_always, matters_less] = scan_claims();
        Ok([
            helps_always.judge(&least_sure(&gains))?,
            matters_less.judge(&deviation(&rewound).minus(&deviation(&settings)))?,
        ])
    }

    /// Claims T5a and T5b: a ticket is its weights and its mask.
    fn luck(&self) -> anyhow::Result<[JudgedClaim; 2]> {
        let original = self.at(Arm::Original)?;
        let weights = "The ticket's weights matter: others of the same initialisation do worse";
        let mask = "The ticket's mask matters: a shuffled one does worse";
        Ok([
            self.claim("T5a", weights, "A(LT) − A(redrawn)", Relation::Above(0.0))
                .paper("winning tickets beat re-initialised ones", WINNING_TICKETS)
                .judge(&original.minus(&self.at(Arm::Redrawn)?))?,
            self.claim("T5b", mask, "A(LT) − A(random mask)", Relation::Above(0.0))
                .paper("winning tickets beat random masks", WINNING_TICKETS)
                .judge(&original.minus(&self.at(Arm::RandomMask)?))?,
        ])
    }

    /// Claims T5c and T5d: what of a soft label it is that helps.
    fn teaching(&self) -> anyhow::Result<[JudgedClaim; 2]> {
        let distill = self.case.distill;
        let kd = self.at(Arm::Kd(distill))?;
        let images = "What the teacher says of each image matters: its mean labels of true classes do worse";
        let smoothing = "What the teacher says matters beyond smoothing: labels with its mean confidence in the true class \
                         and all others alike do worse";
        let control =
            |id, statement, formula| self.claim(id, statement, formula, Relation::Above(0.0)).paper(CONTROL, OURS);
        Ok([
            control("T5c", images, "A(KD) − A(KD, mean labels of true classes)")
                .judge(&kd.minus(&self.at(Arm::KdOfClasses(distill))?))?,
            control("T5d", smoothing, "A(KD) − A(KD, uniform off-class labels)")
                .judge(&kd.minus(&self.at(Arm::KdUniform(distill))?))?,
        ])
    }

    /// A claim on a mean difference of accuracies in this case.
    fn claim(&self, id: &str, statement: &str, formula: &str, relation: Relation) -> Claim {
        Claim::new(&self.id(id), &format!("{statement} ({})", self.setting()))
            .test(Test::mean(formula, relation), POINTS)
    }

    fn id(&self, claim: &str) -> String {
        if self.index == 0 { claim.into() } else { format!("{claim}-{}", self.index + 1) }
    }

    fn setting(&self) -> String {
        format!("{} at {:.2} % density", self.case.network, 100.0 * self.case.density)
    }

    /// Accuracies at the density of the claims.
    fn at(&self, arm: Arm) -> anyhow::Result<Samples> {
        self.accuracy(arm, self.case.density)
    }

    fn accuracy(&self, arm: Arm, density: f64) -> anyhow::Result<Samples> {
        let wanted = arm.params(&self.case.recipe, density, &self.case.unpruned);
        Ok(self.results.samples("test_accuracy", |run| self.is(run, &wanted))?)
    }

    fn dense(&self) -> anyhow::Result<Samples> {
        Ok(self.results.samples("test_accuracy", |run| self.is_dense(run))?)
    }

    fn is(&self, run: &Run, wanted: &TicketParams) -> bool {
        !run.needs.is_empty() && run.params::<TicketParams>().is_ok_and(|params| params == *wanted)
    }

    fn is_dense(&self, run: &Run) -> bool {
        run.paper == PAPER && run.kind == self.case.dense_kind()
    }
}

fn scan_claims() -> [Claim; 2] {
    let claim = |id, statement, formula| {
        Claim::new(id, statement)
            .paper("nearly free of hyper-parameters", ABSTRACT)
            .test(Test::mean(formula, Relation::Above(0.0)), POINTS)
    };
    [
        claim(
            "T4a",
            "Soft labels help whatever their setting: τ in {2, 4, 8}, α in {0.5, 0.9}",
            "A(KD) − A(LT), the setting with the lowest interval",
        ),
        claim(
            "T4b",
            "The setting of soft labels matters less than the choice of the rewinding point, up to 20 % of the training",
            "standard deviation of A(WR) over k ≤ 20 % − standard deviation of A(KD) over settings",
        ),
    ]
}

fn on_par_claim(id: &str, setting: &str) -> Claim {
    Claim::new(id, &format!("Soft labels alone are on par with rewinding weights ({setting})"))
        .paper("on par with or better than rewinding", ABSTRACT)
        .test(Test::mean("A(KD) − A(WR)", Relation::AtLeast(-0.5)), POINTS)
}

/// Of several paired differences that all have to be above 0, the one that decides: one whose whole interval is not, if
/// there is one, else the one with the lowest lower bound. One without an interval is less sure than any.
fn least_sure(all: &[Samples]) -> Samples {
    let bounds = all.iter().map(|samples| (t_interval(&samples.values()), samples));
    let (refuting, open): (Vec<_>, Vec<_>) =
        bounds.partition(|(interval, _)| interval.is_some_and(|interval| interval.hi <= 0.0));
    let lower = |interval: Option<Interval>| interval.map_or(f64::NEG_INFINITY, |interval| interval.lo);
    let deciding = if refuting.is_empty() { open } else { refuting };
    let found = deciding.into_iter().min_by(|(a, _), (b, _)| lower(*a).total_cmp(&lower(*b)));
    let mut found = found.map(|(_, samples)| samples.clone()).unwrap_or_default();
    all.iter().flat_map(Samples::missing).for_each(|reason| found.miss(reason));
    found
}

/// Seed by seed, the standard deviation over two or more samples, `√(Σ (x − mean)² / (n − 1))`. Unlike a range it hardly
/// grows with their number.
fn deviation(all: &[Samples]) -> Samples {
    let count = all.len() as f64;
    let mean = sum(all).map(|sum| sum / count);
    let squares: Vec<Samples> = all.iter().map(|samples| samples.minus(&mean).map(|off| off * off)).collect();
    sum(&squares).map(|sum| (sum / (count - 1.0)).sqrt())
}

/// Seed by seed, the sum over all samples.
fn sum(all: &[Samples]) -> Samples {
    let mut rest = all.iter().cloned();
    let first = rest.next().unwrap_or_default();
    rest.fold(first, |so_far, samples| so_far.combine(&samples, |a, b| a + b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataRoot, Device, Verdict};
    use std::collections::BTreeSet;

    fn verdict(gains: &[[f64; 3]]) -> Verdict {
        let gains: Vec<_> = gains.iter().map(|gains| Samples::of((0..).zip(*gains))).collect();
        let [helps_always, _] = scan_claims();
        helps_always.judge(&least_sure(&gains)).unwrap().verdict()
    }

    #[test]
    fn every_setting_has_to_help_by_its_own_interval() {
        let [reproduced, refuted, open, not_run] = Verdict::ALL;
        // Another setting is the worst with each seed, and all are beyond doubt above 0: half widths are 4.303 · s / √3.
        assert_eq!(verdict(&[[0.2, 0.4, 0.4], [0.4, 0.2, 0.4], [0.4, 0.4, 0.2]]), reproduced);
        assert_eq!(verdict(&[[0.6, 0.7, 0.8], [-0.1, 0.2, 0.5]]), open);
        // What is beyond doubt not above 0 refutes, whatever is less sure beside it.
        assert_eq!(verdict(&[[-2.0, 0.0, 4.0], [-0.6, -0.5, -0.4]]), refuted);
        assert_eq!(verdict(&[]), not_run);
    }

    #[test]
    fn a_setting_that_is_missing_keeps_the_claim_open() {
        let sure = Samples::of([(0, 0.3), (1, 0.3)]);
        let mut gone = Samples::of([(0, 0.3)]);
        gone.miss("the run of seed 1 failed");
        let [helps_always, _] = scan_claims();
        let judged = helps_always.judge(&least_sure(&[sure, gone])).unwrap();
        assert!(!judged.verdict().is_refutation() && judged.verdict() != Verdict::ALL[0]);
        assert!(judged.reason().contains("seed 1 failed"), "{}", judged.reason());
    }

    #[test]
    fn deviations_are_taken_within_a_seed() {
        let point = |values: [f64; 2]| Samples::of((0..).zip(values));
        let mut all = vec![point([1.0, 5.0]), point([2.0, 5.0]), point([3.0, 5.0])];
        // 1, 2, 3 are off their mean by 1, 0, 1, of which half the sum of squares is 1; equal points do not deviate.
        assert_eq!(deviation(&all).values(), [1.0, 0.0]);
        // What one point lacks is left out, and said.
        let mut gone = Samples::of([(0, 2.0)]);
        gone.miss("the run of seed 1 failed");
        all.push(gone);
        let found = deviation(&all);
        assert_eq!((found.seeds(), found.missing()), (vec![0], ["the run of seed 1 failed".to_owned()].as_slice()));
        // 1, 2, 2, 3: a sum of squares of 2, over 3.
        assert!((found.values()[0] - (2.0_f64 / 3.0).sqrt()).abs() < 1e-15);
    }

    fn report(tier: Tier, files: &[&str]) -> Section {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|name| std::fs::create_dir(folder.path().join(name)).unwrap());
        let ask = Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(folder.path()) };
        judge(&ask, &Results::default()).unwrap()
    }

    #[test]
    fn a_report_without_results_leaves_no_claim_out() {
        for tier in [Tier::Quick, Tier::Standard, Tier::Paper] {
            let section = report(tier, &["cifar-10-jpeg", "imagenet"]);
            for table in &section.tables {
                assert!(table.rows.iter().all(|row| row.len() == table.header.len()), "{}", table.title);
            }
            let ids: BTreeSet<_> = section.claims.iter().map(JudgedClaim::id).collect();
            assert_eq!(ids.len(), section.claims.len());
            for id in ["T1b", "T1c", "T2b", "T2c", "T3b", "T3c", "T3d", "T5a", "T5d"] {
                assert!(ids.contains(id), "{id} in the {tier} tier");
            }
            assert!(section.claims.iter().all(|claim| claim.verdict() == Verdict::ALL[3]));
            // As many as can be told apart.
            assert!(section.curves.iter().all(|curve| curve.series.len() <= 8));
        }
    }

    #[test]
    fn small_networks_falling_short_is_a_precondition_and_large_ones_a_claim() {
        let statement = |tier| {
            let section = report(tier, &["cifar-10-jpeg"]);
            section.claims.iter().find(|claim| claim.id() == "T1a").unwrap().statement().to_owned()
        };
        assert!(statement(Tier::Quick).starts_with("A precondition"));
        assert!(!statement(Tier::Paper).contains("precondition"));
    }
}
