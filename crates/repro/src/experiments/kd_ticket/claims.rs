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
/// Why no network but a residual one has claims T1b and T1c.
const NO_COUNTERPART: &str = "that rewinding helps is said of residual networks, which the standard and paper tiers have, with \
                              CIFAR-10; it has no counterpart at the size of this one, and the table says what it gains";
/// Why most networks have no claims T2d, T4a and T4b.
const NO_SCANS: &str =
    "the scans of settings and of rewinding points are run on LeNet-300-100 in the standard tier only";

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
        let networks = "the paper's networks";
        section.claims.push(on_par_claim("T2b", networks).not_run(missing));
        section.claims.extend(scan_claims(str::to_owned, networks).map(|claim| claim.not_run(NO_SCANS)));
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
        claims.extend(self.scans()?);
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

    /// Claims T1b and T1c, without which being on par with rewinding says nothing. They are of residual networks.
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
        let weights = beats("T1b", &weights.0, "A(WR) − A(LT)", &weights.1);
        let rate = beats("T1c", &rate.0, "A(LRR) − A(LT)", &rate.1);
        if !self.case.is_residual() {
            return Ok([weights, rate].map(|claim| claim.not_run(NO_COUNTERPART)));
        }
        Ok([
            weights.judge(&self.at(Arm::WeightRewind(step))?.minus(&original))?,
            rate.judge(&self.at(Arm::LearningRateRewind(step))?.minus(&original))?,
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

    /// Claims T2d and T4: distillation has no setting that must be searched for, and a search gains rewinding no more.
    fn scans(&self) -> anyhow::Result<[JudgedClaim; 3]> {
        let claims = scan_claims(|id| self.id(id), &self.setting());
        if !self.case.scans {
            return Ok(claims.map(|claim| claim.not_run(NO_SCANS)));
        }
        let original = self.at(Arm::Original)?;
        let settings = self.case.scanned_settings().into_iter().map(|config| self.at(Arm::Kd(config)));
        let settings = settings.collect::<anyhow::Result<Vec<_>>>()?;
        let rewound = |steps: Vec<u64>| {
            let from = |step| if step == 0 { Ok(original.clone()) } else { self.at(Arm::WeightRewind(step)) };
            steps.into_iter().map(from).collect::<anyhow::Result<Vec<_>>>()
        };
        let (scanned, compared) = (rewound(self.case.scanned_steps())?, rewound(self.case.compared_steps())?);
        let gains: Vec<Samples> = settings.iter().map(|setting| setting.minus(&original)).collect();
        let [beats_a_search, helps_always, matters_less] = claims;
        Ok([
            beats_a_search.judge(&self.at(Arm::Kd(self.case.distill))?.minus(&folded(&scanned, f64::max)))?,
            helps_always.judge(&least_sure(&gains))?,
            matters_less.judge(&deviation(&compared).minus(&deviation(&settings)))?,
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

/// Claims T2d, T4a and T4b, of one network.
fn scan_claims(id: impl Fn(&str) -> String, setting: &str) -> [Claim; 3] {
    let claim = |name, statement, paper, formula, relation| {
        Claim::new(&id(name), &format!("{statement} ({setting})"))
            .paper(paper, ABSTRACT)
            .test(Test::mean(formula, relation), POINTS)
    };
    let free = "nearly free of hyper-parameters";
    [
        claim(
            "T2d",
            "Soft labels alone are on par with the best rewinding point of a scan, taken seed by seed by its test accuracy, \
             which favours rewinding",
            "on par with or better than rewinding",
            "A(KD) − max over k of A(WR)",
            Relation::AtLeast(-0.5),
        ),
        claim(
            "T4a",
            "Soft labels help whatever their setting: τ in {2, 4, 8}, α in {0.5, 0.9}",
            free,
            "A(KD) − A(LT), the setting with the lowest interval",
            Relation::Above(0.0),
        ),
        claim(
            "T4b",
            "The setting of soft labels matters less than the choice of the rewinding point, up to 20 % of the training",
            free,
            "standard deviation of A(WR) over k ≤ 20 % − standard deviation of A(KD) over settings",
            Relation::Above(0.0),
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
    let mean = folded(all, |a, b| a + b).map(|sum| sum / count);
    let squares: Vec<Samples> = all.iter().map(|samples| samples.minus(&mean).map(|off| off * off)).collect();
    folded(&squares, |a, b| a + b).map(|sum| (sum / (count - 1.0)).sqrt())
}

/// Seed by seed, all samples combined, the first two first.
fn folded(all: &[Samples], combine: impl Fn(f64, f64) -> f64) -> Samples {
    let mut rest = all.iter().cloned();
    let first = rest.next().unwrap_or_default();
    rest.fold(first, |so_far, samples| so_far.combine(&samples, &combine))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiments::finished_runs::finished;
    use crate::{DataRoot, Device, Experiment, Metrics, Verdict};
    use std::collections::BTreeSet;

    fn verdict(gains: &[[f64; 3]]) -> Verdict {
        let gains: Vec<_> = gains.iter().map(|gains| Samples::of((0..).zip(*gains))).collect();
        let [_, helps_always, _] = scan_claims(str::to_owned, "a network");
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
        let [_, helps_always, _] = scan_claims(str::to_owned, "a network");
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
            for id in ["T1b", "T1c", "T2b", "T2c", "T2d", "T3b", "T3c", "T3d", "T4a", "T4b", "T5a", "T5d"] {
                assert!(ids.contains(id), "{id} in the {tier} tier");
            }
            assert!(section.claims.iter().all(|claim| claim.verdict() == Verdict::ALL[3]));
            // As many as can be told apart.
            assert!(section.curves.iter().all(|curve| curve.series.len() <= 8));
        }
    }

    /// A report on finished runs, whose accuracy a function of label and seed gives.
    fn report_of(tier: Tier, accuracy: impl Fn(&str, u64) -> f64) -> Section {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("cifar-10-jpeg")).unwrap();
        let ask = Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(folder.path()) };
        let runs = crate::experiments::kd_ticket::KdTicket.plan(&ask).unwrap().runs.into_iter().map(|planned| {
            let label = planned.run.params().map_or("dense".to_owned(), |params: TicketParams| params.label);
            let accuracy = accuracy(&label, planned.run.seed);
            let metrics = Metrics::from([("test_accuracy".into(), accuracy), ("sparse_macs_share".into(), 0.01)]);
            let outcome = finished(&planned.run, &metrics);
            (planned.run, outcome)
        });
        judge(&ask, &Results::new(runs.collect())).unwrap()
    }

    fn found<'a>(section: &'a Section, id: &str) -> &'a JudgedClaim {
        section.claims.iter().find(|claim| claim.id() == id).unwrap()
    }

    #[test]
    fn rewinding_is_judged_on_residual_networks_and_nowhere_else() {
        let section = report_of(Tier::Standard, |label, _| if label.contains("RR") { 81.0 } else { 80.0 });
        for id in ["T1b", "T1c"] {
            let small = found(&section, id);
            assert!(small.verdict() == Verdict::ALL[3] && small.reason().contains("no counterpart"), "{id}");
        }
        // 0 is not above 0; a point is.
        let judged = ["T1b-2", "T1c-2"].map(|id| found(&section, id).verdict());
        assert_eq!(judged, [Verdict::ALL[1], Verdict::ALL[0]]);
        // The table keeps the small network's figures.
        let row = section.tables[0].rows.iter().find(|row| row[0].starts_with("LRR")).unwrap();
        assert!(row[4].starts_with("1.00"), "{row:?}");
        let large = report(Tier::Paper, &["cifar-10-jpeg", "imagenet"]);
        assert!(!found(&large, "T1b").reason().contains("no counterpart"));
    }

    #[test]
    fn the_best_rewinding_point_is_taken_seed_by_seed() {
        // Each of two points is a point ahead with every other seed: 81 is the best of all seeds, 80.5 the mean of either.
        let accuracy = |label: &str, seed: u64| match label {
            "WR from 48" if seed.is_multiple_of(2) => 81.0,
            "WR from 192" if !seed.is_multiple_of(2) => 81.0,
            "KD (τ 4, α 0.9)" => 80.4,
            _ => 80.0,
        };
        let section = report_of(Tier::Standard, accuracy);
        let scanned = found(&section, "T2d");
        assert_eq!(scanned.verdict(), Verdict::ALL[1]);
        assert!((scanned.mean().unwrap() + 0.6).abs() < 1e-9);
        assert_eq!(found(&section, "T2b").verdict(), Verdict::ALL[0]);
        for id in ["T2d-2", "T4a-2", "T4b-2"] {
            let other = found(&section, id);
            assert!(other.verdict() == Verdict::ALL[3] && other.reason().contains("LeNet-300-100"), "{id}");
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
