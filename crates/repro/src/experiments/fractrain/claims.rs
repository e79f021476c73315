//! The paper's claims as inequalities, and the figures beside them.

use super::arms::{self, Arm, Case, TrainParams};
use super::hardware::{self, NETWORKS};
use super::{PAPER, language, stages, transfer};
use crate::section::{Axis, Curve, Point, Series, Table, cell};
use crate::{Ask, Claim, Relation, Results, Run, Samples, Section, Test, Tier};
use hw_sim::published::FRACTRAIN_SOURCE;

pub(super) const ABSTRACT: &str = "arXiv 2012.13113, abstract";
pub(super) const POINTS: &str = "points";
/// Logged epoch by epoch.
const CP: &str = "cp";

pub(super) fn judge(ask: &Ask, results: &Results) -> anyhow::Result<Section> {
    let mut section = Section { notes: hardware::notes(), ..Section::default() };
    match arms::of(ask)? {
        Some(case) => View { case: &case, results }.fill(&mut section)?,
        None => {
            let claim = Claim::new("E1a", "Progressive precision is as accurate as static 8-bit training")
                .paper("93.41 % against 93.04 % (ResNet-74, CIFAR-10)", "reference repository, figure")
                .test(Test::mean("A(PFQ) − A(static 8/8)", Relation::AtLeast(-0.5)), POINTS);
            section.claims.push(claim.not_run("needs CIFAR-10 under the data folder, and a GPU"));
        }
    }
    let transferred = ask.tier == Tier::Standard;
    section.claims.extend(transfer::claims(transferred, results)?);
    section.claims.extend(language::claims(language::asked(results), results)?);
    if transferred {
        section.tables.push(transfer::table(results)?);
    }
    if language::asked(results) {
        section.tables.push(language::table(results)?);
    }
    section.tables.extend(stages::table(ask, results)?);
    modelled(&mut section)?;
    if ask.tier == Tier::Quick {
        section.notes.push(
            "Few images and short trainings: an accuracy has a spread of about a point between seeds, and 4/6 bits are \
             nearly enough for this task, so that little room is left for precision that adapts."
                .into(),
        );
    }
    Ok(section)
}

/// Closed forms on the paper's networks.
fn modelled(section: &mut Section) -> anyhow::Result<()> {
    for (network, name, suffix) in NETWORKS {
        let saved = hardware::saving(network)?;
        section.claims.push(
            Claim::new(
                &format!("H3{suffix}"),
                &format!(
                    "A bit-composable array turns less than all saved bit operations into energy ({name}, modelled)"
                ),
            )
            .paper(&hardware::published_saving(network), FRACTRAIN_SOURCE)
            .test(Test::exact("effective MACs saved − energy saved", Relation::Above(0.0)), "%")
            .judge(&Samples::of([(0, 100.0 * (saved.effective_macs - saved.energy))]))?,
        );
        let row = |value: f64| format!("{:.1}", 100.0 * value);
        hardware::modelled(section).rows.push(vec![
            name.into(),
            row(saved.effective_macs),
            row(saved.energy),
            row(saved.latency),
        ]);
    }
    section.tables.push(hardware::published_table());
    Ok(())
}

/// A case with its results.
struct View<'a> {
    case: &'a Case,
    results: &'a Results,
}

impl View<'_> {
    fn fill(&self, section: &mut Section) -> anyhow::Result<()> {
        let case = self.case;
        let (full, eight) = (Arm::FullPrecision, case.static_bits(8, 8));
        let (pfq, fixed, permuted) = (case.pfq(), case.fixed(), case.permuted());
        let (dfq, random, fractrain) = (case.dfq_arm(), case.random_gates(), case.fractrain());
        let accuracy = |arm: &Arm| self.metric("test_accuracy", arm);
        let cost = |arm: &Arm| self.metric("cp", arm);
        let at_least = |formula: &str, bound: f64| Test::mean(formula, Relation::AtLeast(bound));
        let at_most = |formula: &str, bound: f64| Test::mean(formula, Relation::AtMost(bound));
        let of = |id: &str, statement: &str| Claim::new(id, &format!("{statement} ({})", case.network));
        let eight_accuracy = accuracy(&eight)?;
        let (eight_cost, margin) = (cost(&eight)?, -case.margin);
        let pfq_table = "93.41 % against 93.04 %, 1.03e14 against 2.61e14 MACs (ResNet-74, CIFAR-10)";
        let figure = "reference repository, figure";

        section.claims.extend([
            of("E0", "Static 8-bit training is as accurate as full precision")
                .paper("the premise of low-precision training", ABSTRACT)
                .test(at_least("A(static 8/8) − A(full precision)", margin), POINTS)
                .judge(&eight_accuracy.minus(&accuracy(&full)?))?,
            of("E1a", "Progressive precision is as accurate as static 8-bit training")
                .paper(pfq_table, figure)
                .test(at_least("A(PFQ) − A(static 8/8)", margin), POINTS)
                .judge(&accuracy(&pfq)?.minus(&eight_accuracy))?,
            of("E1b", "It costs at most three quarters")
                .paper(pfq_table, figure)
                .test(at_most("cost(PFQ) / cost(static 8/8)", 0.75), "")
                .judge(&cost(&pfq)?.over(&eight_cost))?,
            of("E1c", "So it is with switches at fixed epochs")
                .paper("not in the paper: a control for the indicator", "ours")
                .test(at_least("A(fixed stages) − A(static 8/8)", margin), POINTS)
                .judge(&accuracy(&fixed)?.minus(&eight_accuracy))?,
            of("E2", "The order matters: the same stages in another order, with the same last one, do worse")
                .paper("precision should grow", ABSTRACT)
                .test(Test::mean("A(3-4-6-8) − A(6-4-3-8), at equal cost", Relation::Above(0.0)), POINTS)
                .judge(&accuracy(&fixed)?.minus(&accuracy(&permuted)?))?,
            of("E3a", "Input-adaptive precision beats static precision at the same cost")
                .paper("−30.3 % MACs at −0.02 % accuracy (ResNet-74, CIFAR-10)", figure)
                .test(at_least("A(DFQ) − static accuracy at its cost", 0.0), POINTS)
                .judge(&accuracy(&dfq)?.minus(&self.frontier(&cost(&dfq)?)?))?,
            of("E3b", "It is within a point of static 8-bit training")
                .paper("93.09 % against 93.04 % (ResNet-74, CIFAR-10)", FRACTRAIN_SOURCE)
                .test(at_least("A(DFQ) − A(static 8/8)", -1.0), POINTS)
                .judge(&accuracy(&dfq)?.minus(&eight_accuracy))?,
            of("E3c", "It costs at most half")
                .paper("7.33e13 against 2.62e14 MACs (ResNet-74, CIFAR-10)", FRACTRAIN_SOURCE)
                .test(at_most("cost(DFQ) / cost(static 8/8)", 0.5), "")
                .judge(&cost(&dfq)?.over(&eight_cost))?,
            of("E3d", "Which input gets the bits matters: the same shares drawn at random do worse")
                .paper("not in the paper: a control", "ours")
                .test(Test::mean("A(DFQ) − A(random gates)", Relation::Above(0.0)), POINTS)
                .judge(&accuracy(&dfq)?.minus(&accuracy(&random)?))?,
            of("E4a", "FracTrain costs less than input-adaptive precision alone")
                .paper("5.85e13 against 7.33e13 MACs (ResNet-74, CIFAR-10)", FRACTRAIN_SOURCE)
                .test(Test::mean("cost(FracTrain) / cost(DFQ)", Relation::Below(1.0)), "")
                .judge(&cost(&fractrain)?.over(&cost(&dfq)?))?,
            of("E4b", "It is within a point of static 8-bit training")
                .paper("92.97 % against 93.04 % (ResNet-74, CIFAR-10)", FRACTRAIN_SOURCE)
                .test(at_least("A(FracTrain) − A(static 8/8)", -1.0), POINTS)
                .judge(&accuracy(&fractrain)?.minus(&eight_accuracy))?,
        ]);
        let saved = |name: &str, arm: &Arm| self.metric(&format!("resnet74_{name}_saved"), arm);
        section.claims.push(
            of("E7", "With what training chose, ResNet-74 as modelled saves less energy than bit operations")
                .paper(&hardware::published_saving("resnet74-cifar"), FRACTRAIN_SOURCE)
                .test(Test::mean("MACs saved − energy saved by FracTrain", Relation::Above(0.0)), "%")
                .judge(&saved("macs", &fractrain)?.minus(&saved("energy", &fractrain)?))?,
        );
        let bytes = self.metric("file_bytes", &full)?.over(&self.metric("int8_bytes", &eight)?);
        section.claims.extend([
            of("I1", "Exported to 8-bit integers, the static 8/8 network is within a point of full precision")
                .paper("not in the paper: inference with integers", "ours")
                .test(at_least("A(int8) − A(full precision)", -1.0), POINTS)
                .judge(&self.metric("int8_accuracy", &eight)?.minus(&accuracy(&full)?))?,
            of("I2", "Its file is at least 2.5 times smaller")
                .paper("not in the paper: inference with integers", "ours")
                .test(Test::exact("bytes(full precision) / bytes(int8)", Relation::AtLeast(2.5)), "×")
                .judge(&bytes)?,
        ]);
        let off = self.controller_errors()?;
        section.claims.push(
            of(
                "E8",
                &format!(
                    "The adaptive controller keeps the cost: within 0.15 of {} % in the second half",
                    case.targets().join(", ")
                ),
            )
            .paper("not in the paper: our controller", "ours")
            .test(Test::every("largest |mean cp − target|", Relation::AtMost(0.15)), "% of full precision")
            .judge(&off)?,
        );
        section.tables.push(self.table()?);
        section.tables.push(self.controllers()?);
        section.tables.push(self.integers()?);
        section.curves.push(self.trade()?);
        section.curves.push(self.over_time());
        section.notes.push(format!(
            "The plateau rule is scaled to short trainings: {}. {} {} Cost is the paper's: three passes of the quantised layers, in \
             percent of full precision. Gated networks keep their first convolution in full precision, as the reference \
             code does, and its cost is left out on both sides.",
            match &pfq {
                Arm::Pfq(_, plateau) => format!(
                    "threshold {}, decay {}, window {}",
                    plateau.threshold, plateau.decay, plateau.window
                ),
                _ => String::new(),
            },
            stages::sentence(self.results, &pfq, |run| self.is(run, &pfq)),
            stages::sentence(self.results, &fractrain, |run| self.is(run, &fractrain)),
        ));
        Ok(())
    }

    fn is(&self, run: &Run, arm: &Arm) -> bool {
        run.paper == PAPER && run.params::<TrainParams>().is_ok_and(|params| params == self.case.params(arm))
    }

    fn metric(&self, name: &str, arm: &Arm) -> anyhow::Result<Samples> {
        Ok(self.results.samples(name, |run| self.is(run, arm))?)
    }

    /// Seed by seed, what static training would reach at a cost: linear between 3/6, 4/6 and 8/8.
    fn frontier(&self, cost: &Samples) -> anyhow::Result<Samples> {
        let mut points = Vec::new();
        for arm in [Arm::Static(3, 6), Arm::Static(4, 6), self.case.static_bits(8, 8)] {
            points.push((self.metric("cp", &arm)?, self.metric("test_accuracy", &arm)?));
        }
        let between = |low: &(Samples, Samples), high: &(Samples, Samples)| {
            let share = cost.minus(&low.0).over(&high.0.minus(&low.0)).map(|share| share.clamp(0.0, 1.0));
            low.1.combine(&high.1.minus(&low.1).combine(&share, |rise, share| rise * share), |low, rise| low + rise)
        };
        let (first, second) = (between(&points[0], &points[1]), between(&points[1], &points[2]));
        let above = cost.minus(&points[1].0);
        let picked = above.combine(&first, |above, first| if above < 0.0 { first } else { f64::INFINITY });
        Ok(picked.combine(&second, |first, second| if first.is_finite() { first } else { second }))
    }

    /// Mean cp over the second half of a training, by seed.
    fn second_half(&self, arm: &Arm) -> anyhow::Result<Samples> {
        let half = self.case.recipe.epochs / 2;
        let of_run = |finished: &crate::Finished| {
            let rows = finished.rows.iter().filter(|row| row.epoch > half).filter_map(|row| row.values.get(CP));
            let values: Vec<f64> = rows.copied().collect();
            (finished.run.seed, values.iter().sum::<f64>() / values.len().max(1) as f64)
        };
        let halves = Samples::of(self.results.finished(|run| self.is(run, arm)).map(of_run));
        // The runs, and the reasons for those that are missing, come with the metric.
        Ok(self.metric(CP, arm)?.combine(&halves, |_, half| half))
    }

    /// By seed, the largest distance from the target over all targets, for seeds that were trained towards all of them.
    fn controller_errors(&self) -> anyhow::Result<Samples> {
        let distances = |arm: &Arm| -> anyhow::Result<Samples> {
            let target = arm.gates().map_or(0.0, |dfq| dfq.target.percent());
            Ok(self.second_half(arm)?.map(|cp| (cp - target).abs()))
        };
        let first = distances(&self.case.dfq_arm());
        let others = self.case.other_targets();
        others.iter().fold(first, |worst, arm| Ok(worst?.combine(&distances(arm)?, f64::max)))
    }

    fn controllers(&self) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        let mut arms = self.case.other_targets();
        arms.push(self.case.dfq_arm());
        arms.extend(self.case.sign_rule());
        for arm in arms {
            rows.push(vec![arm.label(), cell(&self.second_half(&arm)?.values(), 3)]);
        }
        Ok(Table {
            title: "Steering the cost".into(),
            caption: "Mean cost over the second half of the training, in percent of full precision.".into(),
            header: ["method", "mean cp (%)"].map(String::from).to_vec(),
            rows,
        })
    }

    fn integers(&self) -> anyhow::Result<Table> {
        let (full, eight) = (Arm::FullPrecision, self.case.static_bits(8, 8));
        let row = |label: &str, arm: &Arm, accuracy: &str, bytes: &str| -> anyhow::Result<Vec<String>> {
            let bytes = match bytes {
                "" => "–".into(),
                bytes => cell(&self.metric(bytes, arm)?.values(), 0),
            };
            Ok(vec![label.to_owned(), cell(&self.metric(accuracy, arm)?.values(), 2), bytes])
        };
        Ok(Table {
            title: "Inference in integers".into(),
            caption:
                "Convolutions in 8-bit integers; norms and classifier in full precision. Mean ± half the 95 % interval \
                      over seeds."
                    .into(),
            header: ["network", "test accuracy (%)", "bytes of the file"].map(String::from).to_vec(),
            rows: vec![
                row("trained and run in full precision", &full, "test_accuracy", "file_bytes")?,
                row("static 8/8, rounded in floating point", &eight, "test_accuracy", "")?,
                row("static 8/8, exported and run in integers", &eight, "int8_accuracy", "int8_bytes")?,
            ],
        })
    }

    fn table(&self) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        for arm in self.case.arms(0) {
            let of = |name: &str| self.metric(name, &arm);
            let eight = self.metric("reference_macs", &self.case.static_bits(8, 8))?;
            let saved = |name: &str| match &arm {
                Arm::FullPrecision => Ok("–".into()),
                arm => self.metric(name, arm).map(|samples| cell(&samples.values(), 1)),
            };
            rows.push(vec![
                arm.label(),
                cell(&of("test_accuracy")?.values(), 2),
                cell(&of("cp")?.values(), 2),
                cell(&of("cp")?.over(&self.metric("cp", &self.case.static_bits(8, 8))?).values(), 2),
                cell(&of("effective_macs")?.over(&eight).values(), 2),
                saved("resnet74_energy_saved")?,
                saved("resnet74_latency_saved")?,
            ]);
        }
        let header = [
            "method",
            "test accuracy (%)",
            "cost (% of full precision)",
            "÷ static 8/8",
            "everything counted ÷ static 8/8",
            "energy saved on ResNet-74 (%)",
            "latency saved (%)",
        ];
        Ok(Table {
            title: format!("{}: accuracy and cost of training", self.case.network),
            caption: "Mean ± half the 95 % interval over seeds, after the last epoch. Everything: layers in full precision and \
                      gates too, against the quantised layers of static 8/8. Savings: the run's precisions and their shares on \
                      ResNet-74, modelled, over static 8/8."
                .into(),
            header: header.map(String::from).to_vec(),
            rows,
        })
    }

    /// Accuracy against cost.
    fn trade(&self) -> anyhow::Result<Curve> {
        let case = self.case;
        let line = |name: &str, arms: &[Arm]| -> anyhow::Result<Option<Series>> {
            let mut points = Vec::new();
            for arm in arms {
                let cost = self.metric("cp", arm)?.values();
                let mean = cost.iter().sum::<f64>() / cost.len().max(1) as f64;
                points.extend(Point::of(mean, &self.metric("test_accuracy", arm)?.values()).filter(|_| mean > 0.0));
            }
            points.sort_by(|a, b| a.x.total_cmp(&b.x));
            Ok((!points.is_empty()).then(|| Series { name: name.into(), points }))
        };
        let lines = [
            line("static 3/6, 4/6, 8/8", &[Arm::Static(3, 6), Arm::Static(4, 6), case.static_bits(8, 8)])?,
            line("PFQ", &[case.pfq()])?,
            line("fixed stages", &[case.fixed()])?,
            line("CPT", &[case.cyclic()])?,
            line("DFQ", &[case.dfq_arm()])?,
            line("random gates", &[case.random_gates()])?,
            line("FracTrain", &[case.fractrain()])?,
        ];
        Ok(Curve {
            title: format!("{}: accuracy against the cost of training", case.network),
            caption: "Test accuracy after the last epoch; bands are 95 % t-intervals over seeds.".into(),
            x: Axis::log("cost (% of full precision)"),
            y: Axis::linear("test accuracy (%)"),
            series: lines.into_iter().flatten().collect(),
            levels: Vec::new(),
        })
    }

    /// Cost epoch by epoch.
    fn over_time(&self) -> Curve {
        let case = self.case;
        let line = |name: &str, arm: Arm| {
            let history = self.results.history(CP, |run| self.is(run, &arm));
            Series::over_epochs(name, &history)
        };
        Curve {
            title: format!("{}: cost epoch by epoch", case.network),
            caption: "Mean over seeds and steps.".into(),
            x: Axis::linear("epoch"),
            y: Axis::linear("cost (% of full precision)"),
            series: vec![
                line("PFQ", case.pfq()),
                line("fixed stages", case.fixed()),
                line("DFQ", case.dfq_arm()),
                line("FracTrain", case.fractrain()),
            ],
            levels: Vec::new(),
        }
    }
}
