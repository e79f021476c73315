//! Whether attentive groups retrieve better than other heads.

use super::super::arms::{
    ALONE, ATTENTIVE, EXCITATION, FIXED_LAMBDA, GATES, Head, LossChoice, POOLED, SETTINGS, Scene, UNGROUPED,
};
use super::{ABSTRACT, CEILING, CONTROL, OURS, OUTPERFORMS, View};
use crate::{Claim, JudgedClaim, Relation, Samples, Test};

/// What the abstract's "consistently", over data sets, metrics, networks and losses, does not say.
const OUR_LINE: &str = "not in the abstract: of every seed, and of a margin, it says nothing";
/// End of an id, name, metric.
const MEASURES: [(&str, &str, &str); 2] = [("", "R@1", "r1"), ("-map", "MAP@R", "map_at_r")];

impl View<'_> {
    pub(super) fn gains(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let mut claims = self.over_pooled()?;
        claims.extend(self.over_ungrouped()?);
        for (scene, loss) in SETTINGS {
            claims.extend(self.under(scene, loss)?);
        }
        for scene in [Scene::Plain, Scene::Cluttered] {
            claims.extend(self.of_grouping(scene)?);
        }
        claims.extend(self.over_prior_methods()?);
        claims.extend(elsewhere());
        Ok(claims)
    }

    /// Of the λ fixed beforehand on plain characters, margin loss.
    fn fixed_gain(&self, metric: &str, baseline: Head) -> anyhow::Result<Samples> {
        Ok(self.plain(metric, ATTENTIVE, FIXED_LAMBDA)?.minus(&self.plain(metric, baseline, 0.0)?))
    }

    fn over_pooled(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let formula = |name: &str| format!("{name}(attentive, λ {FIXED_LAMBDA}) − {name}(pooled), four groups each");
        let gain = self.fixed_gain("r1", POOLED)?;
        let every = Claim::new("C1-every", "Attentive groups retrieve better than pooled ones, with every seed")
            .paper(OUR_LINE, OURS)
            .test(Test::every(&formula("R@1"), Relation::Above(0.0)), "");
        let every = if self.is_generated() { every.not_run(CEILING) } else { every.judge(&gain)? };
        let mean = Claim::new("C1-mean", "They do so by more than two points on average")
            .paper(OUR_LINE, OURS)
            .test(Test::mean(&formula("R@1"), Relation::Above(0.02)), "");
        let mean = if self.is_generated() { mean.not_run(CEILING) } else { mean.judge(&gain)? };
        let map = Claim::new("C1-map", "They are better in MAP@R too")
            .paper(OUTPERFORMS, ABSTRACT)
            .test(Test::mean(&formula("MAP@R"), Relation::Above(0.0)), "")
            .judge(&self.fixed_gain("map_at_r", POOLED)?)?;
        Ok(vec![every, mean, map])
    }

    fn over_ungrouped(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let formula = |name: &str| format!("{name}(attentive, λ {FIXED_LAMBDA}) − {name}(pooled, one group)");
        let gain = self.fixed_gain("r1", UNGROUPED)?;
        let statement = "They retrieve better than one pooled group of the same length, with every seed";
        let every = Claim::new("C1-ungrouped-every", statement)
            .paper(OUR_LINE, OURS)
            .test(Test::every(&formula("R@1"), Relation::Above(0.0)), "");
        let mut claims = vec![self.judge_in_standard(every, &gain)?];
        for (end, name, metric) in MEASURES {
            let statement = format!("They do so in {name} on average");
            let claim = Claim::new(&format!("C1-ungrouped{end}"), &statement)
                .paper(OUTPERFORMS, ABSTRACT)
                .test(Test::mean(&formula(name), Relation::Above(0.0)), "");
            claims.push(self.judge_in_standard(claim, &self.fixed_gain(metric, UNGROUPED)?)?);
        }
        Ok(claims)
    }

    /// For one kind of image and loss.
    fn under(&self, scene: Scene, loss: LossChoice) -> anyhow::Result<Vec<JudgedClaim>> {
        let mut claims = Vec::new();
        let baselines = [("", "pooled groups", POOLED), ("ungrouped-", "one pooled group", UNGROUPED)];
        for (start, against, baseline) in baselines {
            for (end, name, metric) in MEASURES {
                let (images, by) = (scene.name(), loss.name());
                let statement = format!(
                    "With the {by} loss on {images} characters attentive groups are better than {against} in {name}, λ \
                     chosen on held-out ones"
                );
                let claim = Claim::new(&format!("C1b-{start}{images}-{by}{end}"), &statement)
                    .paper(OUTPERFORMS, ABSTRACT)
                    .test(mean_above_zero(&format!("{name}(attentive, λ chosen) − {name}({against})")), "");
                let attentive = self.at_chosen(metric, scene, loss, ATTENTIVE)?;
                let gain = attentive.minus(&self.of(metric, &self.params(scene, loss, baseline, 0.0))?);
                claims.push(self.judge_in_standard(claim, &gain)?);
            }
        }
        Ok(claims)
    }

    /// Four attentive groups against attention alone.
    fn of_grouping(&self, scene: Scene) -> anyhow::Result<Vec<JudgedClaim>> {
        let loss = LossChoice::Margin;
        let mut claims = Vec::new();
        for (end, name, metric) in MEASURES {
            let statement = format!(
                "It is the grouping too: on {} characters four attentive groups are better than one of the same length \
                 in {name}",
                scene.name()
            );
            let formula = format!("{name}(attentive, 4 groups, λ chosen) − {name}(attentive, 1 group)");
            let claim = Claim::new(&format!("C1-groups-{}{end}", scene.name()), &statement)
                .paper(CONTROL, OURS)
                .test(mean_above_zero(&formula), "");
            let alone = self.of(metric, &self.params(scene, loss, ALONE, 0.0))?;
            let gain = self.at_chosen(metric, scene, loss, ATTENTIVE)?.minus(&alone);
            claims.push(self.judge_in_standard(claim, &gain)?);
        }
        Ok(claims)
    }

    /// Heads of the form that other papers' have, and not those papers' methods, with the diversity loss that they
    /// need.
    fn over_prior_methods(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let (scene, loss) = (Scene::Plain, LossChoice::Margin);
        let mut claims = Vec::new();
        for (id, prior, form, head) in [
            ("excitation", "channel excitation", "", EXCITATION),
            ("gates", "gates", " of ABE's form (with a ReLU and a sigmoid, which this paper's code lacks)", GATES),
        ] {
            for (end, name, metric) in MEASURES {
                let statement = format!(
                    "Attentive groups are better than our head of {prior}{form} in {name}, either with the diversity \
                     loss at its own λ: at λ 0, which it may choose, its groups are copies"
                );
                let claim = Claim::new(&format!("C1-{id}{end}"), &statement)
                    .paper(CONTROL, OURS)
                    .test(mean_above_zero(&format!("{name}(attentive) − {name}({prior}), each at its chosen λ")), "");
                let other = self.at_chosen(metric, scene, loss, head)?;
                let gain = self.at_chosen(metric, scene, loss, ATTENTIVE)?.minus(&other);
                claims.push(self.judge_in_standard(claim, &gain)?);
            }
        }
        Ok(claims)
    }
}

/// What the abstract claims and no tier asks.
pub(super) fn elsewhere() -> Vec<JudgedClaim> {
    let gain = mean_above_zero("R@1(attentive) − R@1(the better of four pooled groups and one)");
    [
        (
            "C1-networks",
            "They are better on other base networks too",
            "one network of four convolutions is trained here: the paper's need their ImageNet weights",
        ),
        (
            "C1-data-sets",
            "They are better on photographs too: CUB-200-2011, Cars-196, Stanford Online Products, In-Shop",
            "none of these sets is at hand: here are characters, plain and cluttered",
        ),
    ]
    .map(|(id, statement, reason)| {
        Claim::new(id, statement).paper(OUTPERFORMS, ABSTRACT).test(gain.clone(), "").not_run(reason)
    })
    .into()
}

fn mean_above_zero(formula: &str) -> Test {
    Test::mean(formula, Relation::Above(0.0))
}
