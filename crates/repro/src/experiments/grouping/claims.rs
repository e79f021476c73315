//! The paper's claims as inequalities.

mod figures;
mod gains;
mod groups;
mod invariance;
mod tables;

use super::arms::{FIXED_LAMBDA, Head, LAMBDAS, LossChoice, Scene, Source, Study, TrainParams};
use super::{PAPER, REVISION};
use crate::{Ask, Claim, JudgedClaim, Relation, Results, Run, Samples, Section, Test, Tier, statistics};

const ABSTRACT: &str = "arXiv 2011.08877v3, abstract";
const OURS: &str = "ours";
/// Our sheet's words of the abstract's on gains.
const OUTPERFORMS: &str =
    "\"outperforms prior methods consistently\" over data sets, metrics, base networks and losses";
const CONTROL: &str = "not in the abstract: a control";
const STANDARD: &str = "needs --tier standard";
/// Why a claim that asks for room above the baseline is not judged on characters of random strokes.
const CEILING: &str = "any head finds nearly every generated character: a ceiling, with less to gain than is asked";

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
    let source = Source::at_hand(ask)?;
    let (there, source) = (source.is_some(), source.unwrap_or(Source::Omniglot));
    let view = View { results, tier: ask.tier, source, there };
    section.claims.extend(view.identities()?);
    section.claims.extend(view.moved_queries()?);
    section.claims.extend(view.gains()?);
    section.claims.extend(view.diversity()?);
    section.claims.extend(view.attention()?);
    section.claims.push(in_shop().not_run("needs the paper tier"));
    section.tables.extend(view.tables(&Study::of(ask.tier, view.source))?);
    section.curves.push(view.curve());
    section.pictures = view.pictures()?;
    section.notes = view.notes();
    section.notes.extend(view.chosen_without()?);
    Ok(section)
}

fn in_shop() -> Claim {
    Claim::new("C1-in-shop", "Attentive grouping reaches the published recall on In-Shop")
        .paper("88.93 %", "README of the authors' code")
        .test(Test::mean("R@1 on In-Shop", Relation::AtLeast(88.93)), "%")
}

struct View<'a> {
    results: &'a Results,
    tier: Tier,
    source: Source,
    /// Whether the source's characters are at hand.
    there: bool,
}

/// The weight of the diversity loss that held-out characters speak for.
#[derive(Debug, PartialEq)]
struct Chosen {
    lambda: f64,
    /// How many seeds it was chosen by.
    seeds: usize,
    /// Why others could not take part.
    missing: Vec<String>,
}

impl Chosen {
    /// The candidate with the highest mean over the seeds that all candidates have; the first of equal ones, and of those
    /// without a common seed.
    fn of(candidates: &[(f64, Samples)]) -> Self {
        let all = candidates.iter().map(|(_, samples)| samples.clone());
        let common = all.reduce(|a, b| a.minus(&b)).unwrap_or_default();
        let mut best = (f64::NEG_INFINITY, candidates.first().map_or(0.0, |(lambda, _)| *lambda));
        for (lambda, samples) in candidates {
            let mean = statistics::mean(&samples.combine(&common, |value, _| value).values());
            if let Some(mean) = mean.filter(|mean| *mean > best.0) {
                best = (mean, *lambda);
            }
        }
        Self { lambda: best.1, seeds: common.seeds().len(), missing: common.missing().to_vec() }
    }
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

    /// On plain characters with the margin loss.
    fn plain(&self, metric: &str, head: Head, lambda: f64) -> anyhow::Result<Samples> {
        self.of(metric, &self.params(Scene::Plain, LossChoice::Margin, head, lambda))
    }

    /// By recall on held-out training characters.
    fn chosen(&self, scene: Scene, loss: LossChoice, head: Head) -> anyhow::Result<Chosen> {
        let of = |lambda| self.of("validation_r1", &self.params(scene, loss, head, lambda));
        let validated = |lambda| anyhow::Ok((lambda, of(lambda)?));
        let candidates = LAMBDAS.into_iter().map(validated).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Chosen::of(&candidates))
    }

    /// At the chosen λ; what the choice misses is missing here too.
    fn at_chosen(&self, metric: &str, scene: Scene, loss: LossChoice, head: Head) -> anyhow::Result<Samples> {
        let chosen = self.chosen(scene, loss, head)?;
        let mut samples = self.of(metric, &self.params(scene, loss, head, chosen.lambda))?;
        chosen.missing.iter().for_each(|reason| samples.miss(reason));
        Ok(samples)
    }

    fn is_generated(&self) -> bool {
        self.source == Source::Generated
    }

    /// A claim on trainings that only the standard tier has.
    fn judge_in_standard(&self, claim: Claim, samples: &Samples) -> anyhow::Result<JudgedClaim> {
        if self.tier == Tier::Quick {
            return Ok(claim.not_run(STANDARD));
        }
        Ok(claim.judge(samples)?)
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = vec![
            "A convolutional network of four layers on characters, 64 numbers in four groups unless a row says otherwise. \
             Test characters are of alphabets never seen in training; nothing is chosen on them. Differences are paired by \
             seed."
                .to_owned(),
            "All seeds share one split into training and held-out characters, and the test characters. A seed draws initial \
             weights, batches and triplets: intervals do not cover other characters."
                .to_owned(),
            "The cosine between groups says nothing about pooled groups and channel blocks, which are random projections \
             that start near 0; it is compared within heads whose groups share their values only."
                .to_owned(),
            format!(
                "Constants that are no parameters of a run (the split, what clutter is made of, by how much queries are moved, \
                 settings of losses and keys) are covered by the experiment's revision alone, here {REVISION}."
            ),
        ];
        if self.is_generated() {
            notes.push("Omniglot is not in the data folder: characters of random strokes stand in for it.".into());
        }
        if self.tier == Tier::Standard {
            notes.push(
                "λ is the one of {0, 0.02, 0.05} with the highest mean R@1 on 27 characters held out of training, over the \
                 seeds that all three have, chosen for each head, loss and kind of image."
                    .into(),
            );
            notes.push(format!(
                "Fixed before anything was run: eight seeds of plain characters with the margin loss for pooled groups, one \
                 pooled group, and attentive groups at λ 0 and {FIXED_LAMBDA}; three of everything else."
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataRoot, Device};
    use std::collections::BTreeSet;

    /// The claims of a tier without runs and without Omniglot.
    fn judged(tier: Tier) -> Vec<JudgedClaim> {
        let data = DataRoot::at(std::path::Path::new("nowhere"));
        let ask = Ask { tier, seeds: None, device: Device::Cpu, data };
        let section = judge(&ask, &Results::default()).unwrap();
        for table in &section.tables {
            assert!(table.rows.iter().all(|row| row.len() == table.header.len()), "{}", table.title);
        }
        section.claims
    }

    #[test]
    fn without_runs_no_claim_is_judged_and_every_id_is_there_once() {
        for tier in [Tier::Quick, Tier::Standard] {
            let claims = judged(tier);
            let ids: BTreeSet<&str> = claims.iter().map(JudgedClaim::id).collect();
            assert_eq!(ids.len(), claims.len());
            assert!(claims.iter().all(|claim| claim.verdict().as_str() == "not run"));
        }
    }

    #[test]
    fn ceilings_of_generated_characters_are_said_to_be_such() {
        let claims = judged(Tier::Quick);
        for id in ["C1-mean", "C2-ensemble"] {
            let claim = claims.iter().find(|claim| claim.id() == id).unwrap();
            assert_eq!(claim.reason(), CEILING);
        }
    }

    #[test]
    fn the_weight_is_chosen_over_common_seeds_and_says_what_is_missing() {
        // Over all of its seeds the first would win by 0.8 to 0.7; over seeds 0 and 1, which both have, it does not.
        let first = Samples::of([(0, 0.6), (1, 0.6), (2, 1.0), (3, 1.0)]);
        let mut second = Samples::of([(0, 0.7), (1, 0.7)]);
        second.miss("seed 2 failed");
        let expected = Chosen { lambda: 0.02, seeds: 2, missing: vec!["seed 2 failed".into()] };
        assert_eq!(Chosen::of(&[(0.0, first.clone()), (0.02, second)]), expected);
        let nothing = Chosen::of(&[(0.0, first), (0.02, Samples::default())]);
        assert_eq!(nothing, Chosen { lambda: 0.0, seeds: 0, missing: Vec::new() });
    }

    #[test]
    fn the_smaller_of_weights_that_do_equally_well_is_chosen() {
        let same = || Samples::of([(0, 0.5), (1, 0.7)]);
        assert_eq!(Chosen::of(&[(0.0, same()), (0.02, same()), (0.05, same())]).lambda, 0.0);
    }
}
