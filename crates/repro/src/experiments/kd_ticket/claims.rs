//! The paper's orderings as inequalities, and the curves beside them.

use super::PAPER;
use super::arms::{Arm, TicketParams};
use super::cases::{self, Case};
use crate::section::{Axis, Curve, Level, Point, Series, Table, cell};
use crate::statistics::t_interval;
use crate::{Ask, Claim, Interval, JudgedClaim, Relation, Results, Run, Samples, Section, Test, Tier};

/// Where the paper states its orderings; its tables are not quoted because only the abstract was at hand.
const ABSTRACT: &str = "arXiv 2101.03255v2, abstract";
const POINTS: &str = "points";

pub(super) fn judge(ask: &Ask, results: &Results) -> anyhow::Result<Section> {
    let mut section = Section::default();
    let cases = cases::of(ask)?;
    for (index, case) in cases.iter().enumerate() {
        let view = View { index, tier: ask.tier, case, results };
        section.claims.extend(view.claims()?);
        if !case.curve.is_empty() {
            section.curves.push(view.curve()?);
        }
        section.tables.push(view.table()?);
    }
    if cases.is_empty() {
        let missing = "needs CIFAR-10 or ImageNet under the data folder, and a GPU";
        section.claims.push(on_par_claim("T2b", "the paper's networks").not_run(missing));
    }
    section.notes.extend(cases.iter().map(denominator));
    section.notes.extend(notes(ask.tier));
    Ok(section)
}

/// What a case's densities are shares of.
fn denominator(case: &Case) -> String {
    let network = case.network;
    if case.unpruned.is_empty() {
        return format!("{network}: densities count the weights of every layer, the classifier's too.");
    }
    let kept = case.unpruned.join(", ");
    format!("{network}: densities leave out {kept}, which keeps all its weights; compare them with none that count it.")
}

fn notes(tier: Tier) -> Vec<String> {
    let mut notes = vec![
        "All arms of a seed share the dense network, the mask and the order of the data, so differences are paired. \
         Accuracies are those of the last epoch; the test set chooses nothing."
            .to_owned(),
    ];
    if tier == Tier::Standard {
        notes.push(
            "The ResNet's controls and learning-rate rewinding run with one seed, for time: their verdicts are left open here, \
             and the small network's speak for them. Claim T4b compares with rewinding points up to 20 % of the training: \
             the table has those at 50 and 80 % too, after which a sparse network has too few steps left, so that they \
             alone would decide."
                .to_owned(),
        );
    }
    if tier == Tier::Quick {
        notes.push(
            "The effect of soft labels is one of high sparsity: at 3.5 % density and above the arms of this small \
             network are hardly told apart, which is why claims are tested at 1.15 %."
                .to_owned(),
        );
    }
    notes
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
        let Case { distill, rewind, density, network, .. } = *self.case;
        let at = |arm| self.accuracy(arm, density);
        let (original, kd) = (at(Arm::Original)?, at(Arm::Kd(distill))?);
        let (rewound, kd_rewound) = (at(Arm::WeightRewind(rewind))?, at(Arm::KdWeightRewind(rewind, distill))?);
        let setting = format!("{network} at {:.2} % density", 100.0 * density);
        let above = |formula: &str, bound: f64| Test::mean(formula, Relation::Above(bound));
        let at_least = |formula: &str, bound: f64| Test::mean(formula, Relation::AtLeast(bound));

        let falls_short =
            Claim::new(&self.id("T1a"), &format!("The original ticket falls short of the dense network ({setting})"))
                .paper("falls short on large networks", ABSTRACT)
                .test(above("A(dense) − A(LT)", 0.0), POINTS)
                .judge(&self.dense()?.minus(&original))?;
        let rewinding =
            Claim::new(&self.id("T1b"), &format!("Rewinding weights beats the original ticket ({setting})"))
                .paper(
                    "89.15 % against 87.06 % (ResNet-20, 10.7 % density)",
                    "Renda et al. 2020, released results, medians of 3",
                )
                .test(above("A(WR) − A(LT)", 0.0), POINTS);
        let rewinding = if self.case.rewinding_matters {
            rewinding.judge(&rewound.minus(&original))?
        } else {
            rewinding
                .not_run("a small fully connected network trains well from its first weights: the standard tier's ResNet tests it")
        };
        let mut claims = vec![
            falls_short,
            rewinding,
            Claim::new(&self.id("T2a"), &format!("Soft labels lift the original ticket ({setting})"))
                .paper("KD tickets improve on the original tickets", ABSTRACT)
                .test(above("A(KD) − A(LT)", 0.0), POINTS)
                .judge(&kd.minus(&original))?,
            on_par_claim(&self.id("T2b"), &setting).judge(&kd.minus(&rewound))?,
            Claim::new(&self.id("T3a"), &format!("Soft labels lift rewinding too ({setting})"))
                .paper("KD and rewinding add up", ABSTRACT)
                .test(above("A(KD + WR) − A(WR)", 0.0), POINTS)
                .judge(&kd_rewound.minus(&rewound))?,
            Claim::new(
                &self.id("T3b"),
                &format!("Both together are at least as good as soft labels alone ({setting})"),
            )
            .paper("the combination is the best", ABSTRACT)
            .test(at_least("A(KD + WR) − A(KD)", -0.3), POINTS)
            .judge(&kd_rewound.minus(&kd))?,
        ];
        if self.case.scans {
            claims.extend(self.scans(&original)?);
        } else if self.tier == Tier::Quick {
            claims.extend(scan_claims().map(|claim| claim.not_run("the scans of settings need --tier standard")));
        }
        claims.extend([
            Claim::new(&self.id("T5a"), &format!("The ticket's weights matter: fresh ones do worse ({setting})"))
                .paper("winning tickets beat re-initialised ones", "Frankle and Carbin 2019, arXiv 1803.03635")
                .test(above("A(LT) − A(reinit)", 0.0), POINTS)
                .judge(&original.minus(&at(Arm::Reinitialised)?))?,
            Claim::new(&self.id("T5b"), &format!("The ticket's mask matters: a shuffled one does worse ({setting})"))
                .paper("winning tickets beat random masks", "Frankle and Carbin 2019, arXiv 1803.03635")
                .test(above("A(LT) − A(random mask)", 0.0), POINTS)
                .judge(&original.minus(&at(Arm::RandomMask)?))?,
            Claim::new(
                &self.id("T5c"),
                &format!(
                    "What the teacher says of each image matters: its mean labels of classes do worse ({setting})"
                ),
            )
            .paper("not in the paper: a control", "ours")
            .test(above("A(KD) − A(KD, mean labels of classes)", 0.0), POINTS)
            .judge(&kd.minus(&at(Arm::KdOfClasses(distill))?))?,
        ]);
        Ok(claims)
    }

    /// Claim T4: distillation has no setting that must be searched for.
    fn scans(&self, original: &Samples) -> anyhow::Result<Vec<JudgedClaim>> {
        let density = self.case.density;
        let settings = self.case.scanned_settings().into_iter().map(|config| self.accuracy(Arm::Kd(config), density));
        let settings = settings.collect::<anyhow::Result<Vec<_>>>()?;
        let rewound = self.case.compared_steps().into_iter().map(|step| match step {
            0 => Ok(original.clone()),
            step => self.accuracy(Arm::WeightRewind(step), density),
        });
        let rewound = rewound.collect::<anyhow::Result<Vec<_>>>()?;
        let gains: Vec<Samples> = settings.iter().map(|setting| setting.minus(original)).collect();
        let spread = |all: &[Samples]| fold(all, f64::max).minus(&fold(all, f64::min));
        let [helps_always, matters_less] = scan_claims();
        Ok(vec![
            helps_always.judge(&least_sure(&gains))?,
            matters_less.judge(&spread(&rewound).minus(&spread(&settings)))?,
        ])
    }

    fn id(&self, claim: &str) -> String {
        if self.index == 0 { claim.into() } else { format!("{claim}-{}", self.index + 1) }
    }

    fn curve(&self) -> anyhow::Result<Curve> {
        let mut densities = self.case.curve.clone();
        densities.push(self.case.density);
        densities.sort_by(f64::total_cmp);
        let mut series = Vec::new();
        for arm in self.case.curve_arms() {
            let mut points = Vec::new();
            for density in &densities {
                let samples = self.accuracy(arm, *density)?.values();
                points.extend(Point::of(100.0 * density, &samples));
            }
            series.push(Series { name: self.short(arm), points });
        }
        let dense = self.dense()?.values();
        let dense = Point::of(0.0, &dense).map(|point| Level { name: "dense".into(), y: point.mean });
        Ok(Curve {
            title: format!("{}: accuracy against density", self.case.network),
            caption: "Test accuracy after the last epoch; bands are 95 % t-intervals over seeds.".into(),
            x: Axis::log("density (% of prunable weights kept)"),
            y: Axis::linear("test accuracy (%)"),
            series,
            levels: dense.into_iter().collect(),
        })
    }

    fn table(&self) -> anyhow::Result<Table> {
        let mut rows = vec![vec!["dense".into(), "100".into(), "100".into(), cell(&self.dense()?.values(), 2)]];
        let tickets = self.case.tickets(0);
        for ticket in &tickets {
            let of = |metric: &str| self.results.samples(metric, |run| self.is(run, ticket));
            let percent = |samples: Samples| cell(&samples.map(|share| 100.0 * share).values(), 2);
            rows.push(vec![
                ticket.label.clone(),
                format!("{:.2}", 100.0 * ticket.density),
                percent(of("sparse_macs_share")?),
                cell(&of("test_accuracy")?.values(), 2),
            ]);
        }
        let header = ["re-training", "density (%)", "MACs left (%)", "test accuracy (%)"];
        Ok(Table {
            title: format!("{}: every arm", self.case.network),
            caption: "Mean ± half the 95 % interval over seeds. MACs are those with a non-zero weight.".into(),
            header: header.map(String::from).to_vec(),
            rows,
        })
    }

    fn accuracy(&self, arm: Arm, density: f64) -> anyhow::Result<Samples> {
        let wanted = arm.params(&self.case.recipe, density, &self.case.unpruned);
        Ok(self.results.samples("test_accuracy", |run| self.is(run, &wanted))?)
    }

    fn dense(&self) -> anyhow::Result<Samples> {
        let network = format!("{} dense", self.case.network);
        Ok(self.results.samples("test_accuracy", |run| run.paper == PAPER && run.kind == network)?)
    }

    fn is(&self, run: &Run, wanted: &TicketParams) -> bool {
        !run.needs.is_empty() && run.params::<TicketParams>().is_ok_and(|params| params == *wanted)
    }

    /// An arm's name in a legend, without the settings that all arms share.
    fn short(&self, arm: Arm) -> String {
        match arm {
            Arm::Kd(_) => "KD ticket".into(),
            Arm::WeightRewind(_) => "WR".into(),
            Arm::LearningRateRewind(_) => "LRR".into(),
            Arm::KdWeightRewind(..) => "KD + WR".into(),
            Arm::KdLearningRateRewind(..) => "KD + LRR".into(),
            other => other.label(),
        }
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
            "spread of A(WR) over k ≤ 20 % − spread of A(KD) over settings",
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

/// Seed by seed, `pick` over all samples.
fn fold(all: &[Samples], pick: fn(f64, f64) -> f64) -> Samples {
    let mut rest = all.iter().cloned();
    let first = rest.next().unwrap_or_default();
    rest.fold(first, |so_far, samples| so_far.combine(&samples, pick))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

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
    fn reports_say_what_a_density_is_a_share_of() {
        let empty = tempfile::tempdir().unwrap();
        let ask =
            Ask { tier: Tier::Quick, seeds: None, device: crate::Device::Cpu, data: crate::DataRoot::at(empty.path()) };
        let notes = judge(&ask, &Results::default()).unwrap().notes;
        assert!(notes.iter().any(|note| note.starts_with("LeNet-300-100: ") && note.contains("classifier's too")));
    }
}
