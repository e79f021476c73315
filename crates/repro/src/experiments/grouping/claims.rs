//! The paper's claims as inequalities.

use super::PAPER;
use super::arms::{ATTENTIVE, Head, LAMBDAS, LossChoice, POOLED, Scene, Source, Study, TrainParams};
use super::learning::{ATTENTION, NEIGHBOURS};
use crate::section::{Axis, Curve, Media, Picture, Series, Table, cell};
use crate::{Ask, Claim, JudgedClaim, Relation, Results, Run, Samples, Section, Test, Tier};

const ABSTRACT: &str = "arXiv 2011.08877v3, abstract";

pub(super) fn judge(ask: &Ask, results: &Results) -> anyhow::Result<Section> {
    let mut section = Section::default();
    if ask.tier == Tier::Paper {
        let needs = "needs the In-Shop images, a ResNet-50 with ImageNet weights, and a GPU";
        section.claims.push(in_shop().not_run(needs));
        section.notes.push(
            "Readers of CUB-200-2011, Cars-196, Stanford Online Products and In-Shop are in `vision::grouping`; the \
             published configurations are listed in docs/papers/grouping.md. Nothing of this tier has been run."
                .into(),
        );
        return Ok(section);
    }
    section.claims.extend(invariance(results)?);
    let source = Source::at_hand(ask)?;
    let view = View { results, source: source.unwrap_or(Source::Omniglot), there: source.is_some() };
    section.claims.extend(view.gains(ask.tier)?);
    section.claims.extend(view.diversity()?);
    section.claims.extend(view.attention(ask.tier)?);
    section.claims.push(in_shop().not_run("needs the paper tier"));
    section.tables.push(view.table(&Study::of(ask.tier, view.source))?);
    section.curves.push(view.curve());
    view.pictures(&mut section)?;
    section.notes.extend(notes(ask.tier, source));
    Ok(section)
}

fn notes(tier: Tier, source: Option<Source>) -> Vec<String> {
    let mut notes = vec![
        "A convolutional network of four layers on characters, 64 numbers in four groups. Test characters are of \
         alphabets never seen in training; nothing is chosen on them. Differences are paired by seed."
            .to_owned(),
        "The cosine between groups says nothing about pooled groups, which are random projections that start near 0; it \
         is compared within attentive grouping only."
            .to_owned(),
    ];
    if source == Some(Source::Generated) {
        notes.push("Omniglot is not in the data folder: characters of random strokes stand in for it.".into());
    }
    if tier == Tier::Standard {
        notes.push(
            "λ is the one of {0, 0.02, 0.05} with the highest mean R@1 on 27 characters held out of training, \
             chosen for each loss and kind of image."
                .into(),
        );
    }
    notes
}

fn in_shop() -> Claim {
    Claim::new("C1-in-shop", "Attentive grouping reaches the published recall on In-Shop")
        .paper("88.93 %", "README of the authors' code")
        .test(Test::mean("R@1 on In-Shop", Relation::AtLeast(88.93)), "%")
}

/// Exact properties, whatever the weights.
fn invariance(results: &Results) -> anyhow::Result<Vec<JudgedClaim>> {
    let of = |metric: &str| results.samples(metric, |run| run.paper == PAPER && run.kind == "invariance");
    let claim = |id: &str, statement: &str, relation| {
        Claim::new(id, statement)
            .paper("invariant", ABSTRACT)
            .test(Test::exact("largest change of a component", relation), "")
    };
    Ok(vec![
        claim(
            "C4-random",
            "Permuting positions of the map leaves the embedding (random weights)",
            Relation::Below(1e-5),
        )
        .judge(&of("permutation")?)?,
        claim(
            "C5-circular",
            "With circular padding, an image shifted by the total stride has the same embedding",
            Relation::Below(1e-5),
        )
        .judge(&of("circular_stride")?)?,
        claim(
            "C5-pixel",
            "A shift by one pixel does change it: invariance needs multiples of the stride",
            Relation::Above(1e-4),
        )
        .judge(&of("circular_pixel")?)?,
        claim(
            "C5-border",
            "Zero padding at the border changes it too, even for a multiple of the stride",
            Relation::Above(1e-4),
        )
        .judge(&of("zeros_stride")?)?,
        claim(
            "C5-flattened",
            "A flattened map through a linear layer is not invariant even with circular padding",
            Relation::Above(1e-2),
        )
        .judge(&of("flat_circular_stride")?)?,
    ])
}

struct View<'a> {
    results: &'a Results,
    source: Source,
    there: bool,
}

impl View<'_> {
    fn params(&self, scene: Scene, loss: LossChoice, head: Head, lambda: f64) -> TrainParams {
        TrainParams::new(self.source, scene, loss, head, lambda)
    }

    fn of(&self, metric: &str, params: &TrainParams) -> anyhow::Result<Samples> {
        let is = |run: &Run| run.paper == PAPER && run.kind == params.label();
        let mut samples = self.results.samples(metric, is)?;
        if !self.there {
            samples.miss("needs Omniglot in the data folder");
        }
        Ok(samples)
    }

    fn plain(&self, metric: &str, head: Head, lambda: f64) -> anyhow::Result<Samples> {
        self.of(metric, &self.params(Scene::Plain, LossChoice::Margin, head, lambda))
    }

    fn gains(&self, tier: Tier) -> anyhow::Result<Vec<JudgedClaim>> {
        let gain = self.plain("r1", ATTENTIVE, 0.05)?.minus(&self.plain("r1", POOLED, 0.0)?);
        let formula = "R@1(attentive, λ 0.05) − R@1(pooled), four groups each";
        let every = Claim::new("C1-every", "Attentive groups retrieve better than pooled ones, with every seed")
            .paper("outperforms prior methods consistently", ABSTRACT)
            .test(Test::every(formula, Relation::Above(0.0)), "")
            .judge(&gain)?;
        let mean = Claim::new("C1-mean", "They do so by more than two points on average")
            .paper("outperforms prior methods consistently", ABSTRACT)
            .test(Test::mean(formula, Relation::Above(0.02)), "")
            .judge(&gain)?;
        let mut claims = vec![every, mean];
        let sets = [(Scene::Plain, &LossChoice::ALL[..]), (Scene::Cluttered, &LossChoice::ALL[..2])];
        for (scene, losses) in sets {
            for &loss in losses {
                let statement = format!(
                    "Attentive groups help the {} loss on {} characters, λ chosen on held-out ones",
                    loss.name(),
                    scene.name()
                );
                let claim = Claim::new(&format!("C1b-{}-{}", scene.name(), loss.name()), &statement)
                    .paper("improves any loss", ABSTRACT)
                    .test(Test::mean("R@1(attentive, λ chosen) − R@1(pooled)", Relation::Above(0.0)), "");
                claims.push(if tier == Tier::Quick {
                    claim.not_run("several losses need --tier standard")
                } else {
                    let pooled = self.of("r1", &self.params(scene, loss, POOLED, 0.0))?;
                    let lambda = self.chosen(scene, loss)?;
                    let attentive = self.of("r1", &self.params(scene, loss, ATTENTIVE, lambda))?;
                    claim.judge(&attentive.minus(&pooled))?
                });
            }
        }
        Ok(claims)
    }

    /// The λ with the highest mean recall on held-out training characters; the smallest when nothing was measured.
    fn chosen(&self, scene: Scene, loss: LossChoice) -> anyhow::Result<f64> {
        let mut best = (f64::NEG_INFINITY, LAMBDAS[0]);
        for lambda in LAMBDAS {
            let values = self.of("validation_r1", &self.params(scene, loss, ATTENTIVE, lambda))?.values();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            if mean > best.0 {
                best = (mean, lambda);
            }
        }
        Ok(best.1)
    }

    fn diversity(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let every = |id: &str, statement: &str, formula: &str, relation, samples: &Samples| {
            Claim::new(id, statement)
                .paper("queries become group-specific", ABSTRACT)
                .test(Test::every(formula, relation), "")
                .judge(samples)
        };
        let of = |metric: &str, lambda: f64| self.plain(metric, ATTENTIVE, lambda);
        let ensemble = |lambda: f64| anyhow::Ok(of("r1", lambda)?.minus(&of("best_group_r1", lambda)?));
        Ok(vec![
            Claim::new("C4-trained", "Permuting positions of the map leaves the embedding (trained weights)")
                .paper("invariant", ABSTRACT)
                .test(Test::exact("largest change of a component", Relation::Below(1e-5)), "")
                .judge(&of("permutation", 0.05)?)?,
            every(
                "C2-collapse",
                "Without the diversity loss the groups are copies of each other",
                "mean cosine between groups, λ 0",
                Relation::Above(0.95),
                &of("between_groups", 0.0)?,
            )?,
            every(
                "C2-same-places",
                "Without it they look at the same places",
                "overlap of attention, λ 0",
                Relation::Above(0.9),
                &of("overlap", 0.0)?,
            )?,
            every(
                "C2-diverse",
                "With it the groups differ",
                "mean cosine between groups, λ 0.05",
                Relation::Below(0.2),
                &of("between_groups", 0.05)?,
            )?,
            every(
                "C2-other-places",
                "With it they look at different places",
                "overlap of attention, λ 0.05",
                Relation::Below(0.6),
                &of("overlap", 0.05)?,
            )?,
            every(
                "C2-ensemble",
                "With it all groups together retrieve better than the best alone",
                "R@1(all) − R@1(best group), λ 0.05",
                Relation::Above(0.03),
                &ensemble(0.05)?,
            )?,
            every(
                "C2-no-ensemble",
                "Without it they do not",
                "R@1(all) − R@1(best group), λ 0",
                Relation::AtMost(0.03),
                &ensemble(0.0)?,
            )?,
        ])
    }

    fn attention(&self, tier: Tier) -> anyhow::Result<Vec<JudgedClaim>> {
        let params = self.params(Scene::Cluttered, LossChoice::Margin, ATTENTIVE, 0.05);
        let claim = |id: &str, statement: &str, formula: &str, bound: f64| {
            Claim::new(id, statement)
                .paper("attention scores are the importance of positions", ABSTRACT)
                .test(Test::mean(formula, Relation::Above(bound)), "× uniform")
        };
        let both = [
            (
                "mass_mean",
                claim(
                    "C3-mean",
                    "Groups look at the character, not at the clutter",
                    "attention in its box, mean",
                    1.25,
                ),
            ),
            (
                "mass_best",
                claim("C3-best", "One of them looks at little else", "attention in its box, best group", 1.8),
            ),
        ];
        let judge = |(metric, claim): (&str, Claim)| {
            if tier == Tier::Quick {
                return Ok(claim.not_run("cluttered characters need --tier standard"));
            }
            Ok(claim.judge(&self.of(metric, &params)?)?)
        };
        both.into_iter().map(judge).collect()
    }

    fn table(&self, study: &Study) -> anyhow::Result<Table> {
        let mut rows = Vec::new();
        for (params, _) in &study.arms {
            let mut row = vec![params.label()];
            for metric in ["r1", "map_at_r", "best_group_r1", "validation_r1"] {
                row.push(cell(&self.of(metric, params)?.values(), 3));
            }
            for metric in ["between_groups", "overlap", "mass_mean"] {
                // Not every head and kind of image has it.
                let has = |name: &str| match params.head {
                    Head::Attentive { .. } => name != "mass_mean" || params.scene == Scene::Cluttered,
                    Head::Baseline { groups, .. } => name == "between_groups" && groups > 1,
                };
                row.push(if has(metric) { cell(&self.of(metric, params)?.values(), 3) } else { "–".into() });
            }
            rows.push(row);
        }
        let header = [
            "images, loss, head",
            "R@1",
            "MAP@R",
            "R@1 of the best group",
            "R@1 on held-out",
            "cosine between groups",
            "overlap of attention",
            "attention in the box",
        ];
        Ok(Table {
            title: "Retrieval among characters never seen".into(),
            caption: "Mean ± half the 95 % interval over seeds.".into(),
            header: header.map(String::from).to_vec(),
            rows,
        })
    }

    fn curve(&self) -> Curve {
        let series = |name: &str, head, lambda| {
            let label = self.params(Scene::Plain, LossChoice::Margin, head, lambda).label();
            let history = self.results.history("metric", |run| run.paper == PAPER && run.kind == label);
            Series::over_epochs(name, &history)
        };
        Curve {
            title: "Margin loss while training".into(),
            caption: "Mean over groups and batches of an epoch; bands are 95 % t-intervals over seeds.".into(),
            x: Axis::linear("epoch"),
            y: Axis::linear("margin loss"),
            series: vec![
                series("pooled", POOLED, 0.0),
                series("attentive, λ 0", ATTENTIVE, 0.0),
                series("attentive, λ 0.05", ATTENTIVE, 0.05),
            ],
            levels: Vec::new(),
        }
    }

    /// Of the first seed's runs.
    fn pictures(&self, section: &mut Section) -> anyhow::Result<()> {
        for (scene, lambda) in [(Scene::Plain, 0.0), (Scene::Plain, 0.05), (Scene::Cluttered, 0.05)] {
            let label = self.params(scene, LossChoice::Margin, ATTENTIVE, lambda).label();
            let first = |run: &Run| run.paper == PAPER && run.kind == label && run.seed == 0;
            for finished in self.results.finished(first) {
                section.pictures.push(Picture {
                    title: format!("What each group looks at: {} characters, λ = {lambda}", scene.name()),
                    caption:
                        "Each row a character never seen: the image, then the image lit by each group's attention, \
                              scaled to its own maximum."
                            .into(),
                    alt: "rows of characters with bright and dark places, one column a group".into(),
                    media: Media::Png(std::fs::read(finished.artifact(ATTENTION)?)?),
                });
                if lambda > 0.0 {
                    section.pictures.push(Picture {
                        title: format!("Nearest neighbours: {} characters, λ = {lambda}", scene.name()),
                        caption:
                            "The query on the left, its eight nearest to the right: green of its class, red of another."
                                .into(),
                        alt: "rows of characters with green and red frames".into(),
                        media: Media::Png(std::fs::read(finished.artifact(NEIGHBOURS)?)?),
                    });
                }
            }
        }
        Ok(())
    }
}
