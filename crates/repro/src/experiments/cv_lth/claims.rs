//! The paper's claims as inequalities, and the curves beside them.

use super::overlap;
use super::settings::{Objective, Settings};
use super::transfer::FRESH;
use crate::section::{Attachment, Axis, Curve, Level, Point, Series, Table, cell};
use crate::{Ask, Claim, Interval, JudgedClaim, Relation, Results, Samples, Section, Test};

const ABSTRACT: &str = "arXiv 2012.06908, abstract";
const POINTS: &str = "points";
const STANDARD: &str = "needs the standard tier";
/// The round that the paper's claims of far sparsity are tried at: 89.3 %.
const FAR: u32 = 10;

pub(super) fn judge(ask: &Ask, results: &Results) -> anyhow::Result<Section> {
    let mut section = Section::default();
    let Some(settings) = Settings::of(ask)? else {
        let missing = "needs ImageNet's weights or a week of pre-training, and a GPU";
        let claim = Claim::new("T1", "Tickets of pre-training transfer as well as the dense network");
        section.claims.push(claim.paper("67.23 %, 59.04 % and 59.04 % sparsity", ABSTRACT).not_run(missing));
        return Ok(section);
    };
    let view = View { settings: &settings, results };
    for objective in settings.objectives.iter().copied() {
        section.claims.extend(view.of_objective(objective)?);
        if settings.transfers.contains(&objective) {
            section.curves.push(view.curve(objective)?);
        }
    }
    section.claims.extend(view.overlap()?);
    section.claims.extend(view.scenes()?);
    section.claims.extend(left_open());
    section.curves.push(view.overlap_curve()?);
    section.curves.push(view.kernels_curve()?);
    section.tables.push(view.table()?);
    let mut tables = Vec::new();
    for finished in results.finished(|run| run.kind == "overlap") {
        let table = std::fs::read_to_string(finished.artifact("layers.csv")?)?;
        let name = format!("cv-lth-layers-{}.csv", finished.run.seed);
        section.attachments.push(Attachment {
            name,
            title: "Overlap of each pair of masks, layer by layer, last round".into(),
            bytes: table.clone().into_bytes(),
        });
        tables.push(table);
    }
    section.curves.push(view.depth_curve(&tables)?);
    section.notes.extend(notes());
    Ok(section)
}

fn notes() -> Vec<String> {
    [
        "A seed is one pre-training of each objective. Its figures are means over draws of few labels, on which all arms of a \
         seed are paired; a claim's interval is over seeds, of which there are few, so that `inconclusive` is to be expected \
         wherever an effect is small.",
        "Matching is the paper's: the mean over draws is at least the dense mean less one standard deviation of the dense \
         scores over draws. The paper takes its deviation over three runs on the full downstream data, which is smaller; with \
         few labels the line lies lower and matching is easier.",
        "The first convolution is not pruned, as in the paper; it is loaded, since source and target images have one size here.",
        "Masks found on the task itself come from a draw of labels that no score is taken on.",
        "Objectives start from initial weights of their own. Masks of objectives that share a start overlap more, and not for \
         what the objectives learn.",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn left_open() -> Vec<JudgedClaim> {
    vec![
        Claim::new("T5", "The temperature during the search hardly matters from 0.1 to 0.5 and hurts at 20")
            .paper("81.81, 81.91, 82.22 % at 0.1, 0.2, 0.5; 80.18 % at 20", "arXiv 2012.06908, table 2")
            .not_run("the small trainings here cannot resolve differences of one point"),
        Claim::new("T6", "A larger pre-trained network pruned to the size of a smaller one transfers better")
            .paper("ResNet-152 against ResNet-50", "arXiv 2012.06908, text")
            .not_run("a second, larger pre-training does not fit the time of this tier"),
    ]
}

/// The sparsity after a round, in percent: every round leaves four fifths.
fn sparsity(round: u32) -> f64 {
    100.0 * (1.0 - 0.8_f64.powi(round as i32))
}

struct View<'a> {
    settings: &'a Settings,
    results: &'a Results,
}

impl View<'_> {
    fn transfer(&self, objective: Objective, metric: &str) -> anyhow::Result<Samples> {
        Ok(self.results.samples(metric, move |run| run.kind == objective.transfer())?)
    }

    fn fresh(&self, metric: &str) -> anyhow::Result<Samples> {
        Ok(self.results.samples(metric, |run| run.kind == FRESH)?)
    }

    fn difference(&self, objective: Objective, better: &str, worse: &str) -> anyhow::Result<Samples> {
        Ok(self.transfer(objective, better)?.minus(&self.transfer(objective, worse)?))
    }

    /// Judges a claim on an objective's transfer, where the tier has one.
    fn judged(&self, objective: Objective, claim: Claim, samples: &Samples) -> anyhow::Result<JudgedClaim> {
        match self.settings.transfers.contains(&objective) {
            true => Ok(claim.judge(samples)?),
            false => Ok(claim.not_run(STANDARD)),
        }
    }

    fn of_objective(&self, objective: Objective) -> anyhow::Result<Vec<JudgedClaim>> {
        let name = objective.name();
        let id = |claim: &str| format!("{claim}-{name}");
        let above = |quantity: &str| Test::mean(quantity, Relation::Above(0.0));
        let mut claims = Vec::new();
        for (round, sparsity) in [(3, "48.8 %"), (5, "67.2 %")] {
            let margin = self.transfer(objective, &format!("margin_{round}"))?;
            let statement =
                format!("The ticket of {name} pre-training at {sparsity} transfers as well as the dense network");
            let claim = Claim::new(&id(&format!("T1-{round}")), &statement)
                .paper(
                    "matching up to 67.23 % (supervised), 59.04 % (simCLR, MoCo) on every classification task",
                    ABSTRACT,
                )
                .test(Test::mean("A(m_P, θ_P) − (A(dense) − σ(dense))", Relation::AtLeast(0.0)), POINTS);
            claims.push(self.judged(objective, claim, &margin)?);
        }
        let claim = Claim::new(&id("T2a"), &format!("At 89.3 % the mask of {name} pre-training beats random ones"))
            .paper("random masks gain from pre-trained weights only up to about 67.23 %", "arXiv 2012.06908, text")
            .test(above("A(m_P, θ_P) − A(random of the same layer densities, θ_P)"), POINTS);
        let far = self.difference(objective, &format!("ticket_{FAR}"), &format!("random_{FAR}"))?;
        claims.push(self.judged(objective, claim, &far)?);
        for (round, sparsity) in [(6, "73.8 %"), (FAR, "89.3 %")] {
            let statement =
                format!("At {sparsity} the task's own ticket is better from {name} weights than from fresh ones");
            let claim = Claim::new(&id(&format!("T2b-{round}")), &statement)
                .paper("(m_T, θ_0) is below every pre-trained variant", "arXiv 2012.06908, text")
                .test(above("A(m_T, θ_P) − A(m_T, θ_0)"), POINTS);
            let own = format!("own_{round}");
            let gain = self.transfer(objective, &own)?.minus(&self.fresh(&own)?);
            claims.push(self.judged(objective, claim, &gain)?);
        }
        for (label, change) in
            [("flip", "10 % flips"), ("complement", "taking the complement"), ("random", "a random mask")]
        {
            let statement = format!("{change} cost more at {name} weights than at fresh ones");
            let claim = Claim::new(&id(&format!("T4-{label}")), &statement)
                .paper(
                    "tickets at pre-trained weights are sensitive to perturbations, those at fresh ones are not",
                    "arXiv 2012.06908, text",
                )
                .test(above("[A(m) − A(m′)] at θ_P − [A(m) − A(m′)] at θ_0, 73.8 %"), POINTS);
            let changed = format!("own_{label}");
            let fresh = self.fresh("own_6")?.minus(&self.fresh(&changed)?);
            claims.push(self.judged(
                objective,
                claim,
                &self.difference(objective, "own_6", &changed)?.minus(&fresh),
            )?);
        }
        let exact = Relation::Within(Interval { lo: 0.0, hi: 0.0 });
        let claim = Claim::new(&id("E1"), "A ticket of sparsity 0 transfers exactly as the dense network")
            .paper("by definition", "ours")
            .test(Test::exact("A(mask of ones) − A(no mask)", exact), POINTS);
        claims.push(self.judged(objective, claim, &self.transfer(objective, "identity")?)?);
        Ok(claims)
    }

    fn overlap(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let mut claims = Vec::new();
        let of = |metric: &str| self.results.samples(metric, |run| run.kind == "overlap");
        for other in self.settings.objectives.iter().skip(1).map(|objective| objective.name()) {
            let excess = of(&format!("jaccard_{other}_5"))?.minus(&of(&format!("chance_{other}_5"))?);
            let statement =
                format!("Masks of supervised and {other} pre-training overlap at most 0.03 more than chance at 67.2 %");
            claims.push(
                Claim::new(&format!("T3a-{other}"), &statement)
                    .paper(
                        "relative similarity below 6.55 % after five rounds; chance alone gives 19.6 %",
                        "arXiv 2012.06908, text",
                    )
                    .test(
                        Test::mean(
                            "Jaccard − Jaccard of independent masks of these layer densities",
                            Relation::AtMost(0.03),
                        ),
                        "",
                    )
                    .judge(&excess)?,
            );
            // Of independent masks too the Jaccard similarity falls with their density: only what falls beyond that counts.
            let beyond = |round: u32| -> anyhow::Result<Samples> {
                Ok(of(&format!("jaccard_{other}_{round}"))?.minus(&of(&format!("chance_{other}_{round}"))?))
            };
            claims.push(
                Claim::new(
                    &format!("T3b-{other}"),
                    &format!(
                        "Masks of supervised and {other} pre-training drift apart as they get sparser, beyond what chance does"
                    ),
                )
                .paper("less similar when sparser", "arXiv 2012.06908, text")
                .test(Test::mean("(Jaccard − chance) at 48.8 % − the same at 89.3 %", Relation::Above(0.0)), "")
                .judge(&beyond(3)?.minus(&beyond(FAR)?))?,
            );
        }
        claims.push(self.kernels()?);
        Ok(claims)
    }

    /// Claim C4 on empty kernels.
    fn kernels(&self) -> anyhow::Result<JudgedClaim> {
        let claim = Claim::new("C4", "At 67.2 % MoCo's mask has more empty kernels than any other's")
            .paper("MoCo's have the most all-zero kernels until extreme sparsity", "arXiv 2012.06908, text")
            .test(Test::mean("empty kernels, MoCo − max(others)", Relation::Above(0.0)), "kernels");
        if !self.settings.objectives.contains(&Objective::MoCo) {
            return Ok(claim.not_run(STANDARD));
        }
        let others = self.settings.objectives.iter().filter(|objective| **objective != Objective::MoCo);
        let others = others.map(|other| self.zero_kernels(*other, 5)).collect::<anyhow::Result<Vec<_>>>()?;
        let most = others.into_iter().reduce(|a, b| a.combine(&b, f64::max)).unwrap_or_default();
        Ok(claim.judge(&self.zero_kernels(Objective::MoCo, 5)?.minus(&most))?)
    }

    /// Kernels of more than one weight of which a round left nothing.
    fn zero_kernels(&self, objective: Objective, round: u32) -> anyhow::Result<Samples> {
        let metric = format!("zero_kernels_{}_{round}", objective.name());
        Ok(self.results.samples(&metric, |run| run.kind == "overlap")?)
    }

    fn scenes(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let of = |metric: &str| self.results.samples(metric, |run| run.kind == "scenes");
        let claim =
            |id: &str, statement: &str, paper: &str, quantity: &str, metric: &str| -> anyhow::Result<JudgedClaim> {
                let claim = Claim::new(id, statement).paper(paper, "arXiv 2012.06908, text");
                let claim = claim.test(Test::mean(quantity, Relation::AtLeast(0.0)), POINTS);
                Ok(if self.settings.scenes.is_some() { claim.judge(&of(metric)?)? } else { claim.not_run(STANDARD) })
            };
        Ok(vec![
            claim(
                "C3-segmentation",
                "At 48.8 % the supervised ticket segments scenes as well as the dense network",
                "matching at 48.80 % (supervised), mIoU",
                "mIoU(m_P, θ_P) − (mIoU(dense) − σ(dense))",
                "miou_margin",
            )?,
            claim(
                "C3-detection",
                "At 48.8 % the supervised ticket detects shapes as well as the dense network",
                "matching at 73.79 % (supervised), AP",
                "AP50(m_P, θ_P) − (AP50(dense) − σ(dense))",
                "ap50_margin",
            )?,
        ])
    }

    fn curve(&self, objective: Objective) -> anyhow::Result<Curve> {
        let line =
            |name: &str, rounds: &[u32], of: &dyn Fn(u32) -> anyhow::Result<Samples>| -> anyhow::Result<Series> {
                let mut points = Vec::new();
                for round in rounds {
                    let values = of(*round)?.values();
                    points.extend(Point::of(sparsity(*round), &values));
                }
                Ok(Series { name: name.into(), points })
            };
        let level = |name: &str, samples: Samples| {
            Point::of(0.0, &samples.values()).map(|point| Level { name: name.into(), y: point.mean })
        };
        let arm = |arm: &'static str| move |round: u32| self.transfer(objective, &format!("{arm}_{round}"));
        let (transferred, found) = (&self.settings.transferred, &self.settings.found);
        let dense = level("dense, pre-trained", self.transfer(objective, "dense")?);
        let levels = [dense, level("dense, fresh", self.fresh("dense")?)];
        Ok(Curve {
            title: format!("Few labels after {} pre-training", objective.name()),
            caption: "Test accuracy on other classes; bands are 95 % intervals over pre-trainings.".into(),
            x: Axis::linear("sparsity, %"),
            y: Axis::linear("accuracy, %"),
            series: vec![
                line("(m_P, θ_P)", transferred, &arm("ticket"))?,
                line("(random, θ_P)", transferred, &arm("random"))?,
                line("(m_T, θ_P)", found, &arm("own"))?,
                line("(m_T, θ_0)", found, &|round| self.fresh(&format!("own_{round}")))?,
            ],
            levels: levels.into_iter().flatten().collect(),
        })
    }

    fn overlap_curve(&self) -> anyhow::Result<Curve> {
        let mut series = Vec::new();
        for other in self.settings.objectives.iter().skip(1).map(|objective| objective.name()) {
            for (prefix, name) in [("jaccard", "supervised and"), ("chance", "chance,")] {
                let mut points = Vec::new();
                for round in 1..=self.settings.rounds {
                    let metric = format!("{prefix}_{other}_{round}");
                    let values = self.results.samples(&metric, |run| run.kind == "overlap")?.values();
                    points.extend(Point::of(sparsity(round), &values));
                }
                series.push(Series { name: format!("{name} {other}"), points });
            }
        }
        Ok(Curve {
            title: "Overlap of masks of different pre-trainings".into(),
            caption: "Jaccard similarity of the kept weights, beside that of independent masks with the same layer densities.".into(),
            x: Axis::linear("sparsity, %"),
            y: Axis::linear("Jaccard similarity"),
            series,
            levels: Vec::new(),
        })
    }

    fn kernels_curve(&self) -> anyhow::Result<Curve> {
        let mut series = Vec::new();
        for objective in self.settings.objectives.iter().copied() {
            let mut points = Vec::new();
            for round in 1..=self.settings.rounds {
                points.extend(Point::of(sparsity(round), &self.zero_kernels(objective, round)?.values()));
            }
            series.push(Series { name: objective.name().into(), points });
        }
        Ok(Curve {
            title: "Empty kernels of the masks".into(),
            caption:
                "Kernels of more than one weight of which nothing is kept; bands are 95 % intervals over pre-trainings."
                    .into(),
            x: Axis::linear("sparsity, %"),
            y: Axis::linear("empty kernels"),
            series,
            levels: Vec::new(),
        })
    }

    /// From the tables of the runs that compared masks, one a seed.
    fn depth_curve(&self, tables: &[String]) -> anyhow::Result<Curve> {
        let tables = tables.iter().map(|table| overlap::densities(table)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut series = Vec::new();
        for objective in self.settings.objectives.iter().map(|objective| objective.name()) {
            let mut layers: Vec<Vec<f64>> = Vec::new();
            for densities in tables.iter().filter_map(|table| table.get(objective)) {
                layers.resize(layers.len().max(densities.len()), Vec::new());
                layers.iter_mut().zip(densities).for_each(|(layer, (_, density))| layer.push(100.0 * density));
            }
            let points = layers.iter().enumerate().filter_map(|(depth, values)| Point::of((depth + 1) as f64, values));
            series.push(Series { name: objective.into(), points: points.collect() });
        }
        Ok(Curve {
            title: "Where the weights that are kept lie".into(),
            caption: "Density of each pruned layer after the last round; bands are 95 % intervals over pre-trainings."
                .into(),
            x: Axis::linear("pruned layer, counted from the input"),
            y: Axis::linear("weights kept, %"),
            series,
            levels: Vec::new(),
        })
    }

    fn table(&self) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        for objective in self.settings.objectives.iter().copied() {
            let of = |metric: &str| self.transfer(objective, metric).map(|samples| samples.values());
            let knn = self.results.samples("source_knn", move |run| run.kind == objective.pretraining())?.values();
            let scale = |values: Vec<f64>| values.into_iter().map(|value| 100.0 * value).collect::<Vec<_>>();
            rows.push(vec![
                objective.name().to_owned(),
                cell(&knn, 1),
                cell(&of("dense")?, 1),
                cell(&of("dense_std")?, 1),
                cell(&scale(of("matching")?), 1),
                cell(&scale(of("failing")?), 1),
                cell(&of("own_barrier")?, 1),
                cell(&self.fresh("own_barrier")?.values(), 1),
            ]);
        }
        let header = [
            "pre-training",
            "source kNN, %",
            "dense, %",
            "σ(dense)",
            "largest matching sparsity, %",
            "next one tried",
            "barrier at θ_P",
            "barrier at θ_0",
        ];
        Ok(Table {
            title: "Pre-trainings and their tickets".into(),
            caption: "Largest matching sparsity: 0 where no ticket matches; the next one tried fails, 100 where the sparsest one \
                      matches. Barrier: rise of the test error between two fine-tunings of the task's own ticket that differ \
                      in the order of their data."
                .into(),
            header: header.map(str::to_owned).to_vec(),
            rows,
        })
    }
}
