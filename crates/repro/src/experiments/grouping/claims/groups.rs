//! Whether the diversity loss is what helps, and whether groups look at the character.

use super::super::arms::{ATTENTIVE, FIXED_LAMBDA, Head, LAMBDAS, LossChoice, SETTINGS, Scene};
use super::{ABSTRACT, CEILING, CONTROL, OURS, STANDARD, View};
use crate::{Claim, JudgedClaim, Relation, Samples, Test, Tier};

const IMPORTANCE: &str = "attention scores are the importance of positions";

impl View<'_> {
    pub(super) fn diversity(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let claim = |id: &str, statement: &str, formula: &str| {
            Claim::new(id, statement).paper(CONTROL, OURS).test(Test::mean(formula, Relation::Above(0.0)), "")
        };
        let gain = self.plain("r1", ATTENTIVE, FIXED_LAMBDA)?.minus(&self.plain("r1", ATTENTIVE, 0.0)?);
        let statement = "Attentive groups retrieve better with the diversity loss than without";
        let formula = format!("R@1(λ {FIXED_LAMBDA}) − R@1(λ 0), attentive");
        let fixed = claim("C2-diversity", statement, &formula);
        let mut claims = vec![if self.is_generated() { fixed.not_run(CEILING) } else { fixed.judge(&gain)? }];
        for (scene, loss) in SETTINGS {
            let (images, by) = (scene.name(), loss.name());
            let statement =
                format!("So they do with the {by} loss on {images} characters, λ above 0 chosen on held-out ones");
            let formula = "R@1(λ chosen from 0.02 and 0.05) − R@1(λ 0), attentive";
            let claim = claim(&format!("C2-diversity-{images}-{by}"), &statement, formula);
            let without = self.of("r1", &self.params(scene, loss, ATTENTIVE, 0.0))?;
            let gain = self.at_best(&LAMBDAS[1..], "r1", (scene, loss, ATTENTIVE))?.minus(&without);
            claims.push(self.judge_in_standard(claim, &gain)?);
        }
        Ok(claims)
    }

    /// What all groups together retrieve beyond the best of them, plain characters, margin loss.
    pub(super) fn ensemble(&self, head: Head, lambda: f64) -> anyhow::Result<Samples> {
        Ok(self.plain("r1", head, lambda)?.minus(&self.plain("best_group_r1", head, lambda)?))
    }

    pub(super) fn attention(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let claim = |id: &str, statement: &str, formula: &str| {
            Claim::new(id, statement)
                .paper(IMPORTANCE, ABSTRACT)
                .test(Test::mean(formula, Relation::Above(0.0)), "× uniform")
        };
        let ink = claim(
            "C3-ink",
            "A pixel of the character's ink gets more attention than one of the clutter's, by more than the mean map or attention in \
             proportion to ink would give it",
            "(attention at a pixel of the character's ink − at one of the scraps', mean of groups, λ chosen) − the larger of the \
             same of the mean map and of ink",
        );
        let content = claim(
            "C3-box",
            "Groups find the character: more attention is in its box than the mean map or attention in proportion to ink would \
             have there",
            "attention in the box − the larger of the same of the mean map over all scenes and of ink, mean of groups, λ chosen",
        );
        if self.tier == Tier::Quick {
            return Ok(vec![ink.not_run(STANDARD), content.not_run(STANDARD)]);
        }
        let of = |metric: &str| self.at_chosen(metric, Scene::Cluttered, LossChoice::Margin, ATTENTIVE);
        let told_apart =
            |of_what: &str| anyhow::Ok(of(&format!("glyph_ink{of_what}"))?.minus(&of(&format!("scrap_ink{of_what}"))?));
        let told_apart = beyond_both(&told_apart("")?, [&told_apart("_blind")?, &told_apart("_of_ink")?]);
        let in_box = beyond_both(&of("mass")?, [&of("mass_blind")?, &of("mass_of_ink")?]);
        Ok(vec![ink.judge(&told_apart)?, content.judge(&in_box)?])
    }
}

/// What groups have beyond the larger of what the mean map and attention in proportion to ink have, seed by seed.
fn beyond_both(groups: &Samples, [mean_map, ink]: [&Samples; 2]) -> Samples {
    groups.minus(&mean_map.combine(ink, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_is_held_against_whichever_blind_map_has_more() {
        let of = |values: [f64; 2]| Samples::of([(0, values[0]), (1, values[1])]);
        // The first seed's ink has more than its mean map, which the groups are ahead of.
        let found = beyond_both(&of([1.8, 2.5]), [&of([1.5, 2.0]), &of([2.2, 1.0])]);
        assert_eq!(found.values(), [1.8 - 2.2, 0.5]);
    }
}
