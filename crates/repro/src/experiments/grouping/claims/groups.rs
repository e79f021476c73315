//! Whether the diversity loss is what helps, and whether groups look at the character.

use super::super::arms::{ATTENTIVE, BLOCKS, FIXED_LAMBDA, Head, LossChoice, SETTINGS, Scene};
use super::{ABSTRACT, CEILING, STANDARD, View};
use crate::{Claim, JudgedClaim, Relation, Samples, Test, Tier};

const SPECIFIC: &str = "with the diversity loss each query becomes group-specific";
const IMPORTANCE: &str = "attention scores are the importance of positions";

impl View<'_> {
    pub(super) fn diversity(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let claim = |id: &str, statement: &str, formula: &str| {
            Claim::new(id, statement).paper(SPECIFIC, ABSTRACT).test(Test::mean(formula, Relation::Above(0.0)), "")
        };
        let gain = self.plain("r1", ATTENTIVE, FIXED_LAMBDA)?.minus(&self.plain("r1", ATTENTIVE, 0.0)?);
        let statement = "Attentive groups retrieve better with the diversity loss than without";
        let formula = format!("R@1(λ {FIXED_LAMBDA}) − R@1(λ 0), attentive");
        let mut claims = vec![claim("C2-diversity", statement, &formula).judge(&gain)?];
        for (scene, loss) in SETTINGS {
            let (images, by) = (scene.name(), loss.name());
            let statement = format!("So they do with the {by} loss on {images} characters, λ chosen on held-out ones");
            let claim =
                claim(&format!("C2-diversity-{images}-{by}"), &statement, "R@1(λ chosen) − R@1(λ 0), attentive");
            let without = self.of("r1", &self.params(scene, loss, ATTENTIVE, 0.0))?;
            let gain = self.at_chosen("r1", scene, loss, ATTENTIVE)?.minus(&without);
            claims.push(self.judge_in_standard(claim, &gain)?);
        }
        let statement = "Together attentive groups gain more over their best than channel blocks do over theirs";
        let formula = format!("[R@1(all) − R@1(best group)](attentive, λ {FIXED_LAMBDA}) − the same of channel blocks");
        let claim = claim("C2-ensemble", statement, &formula);
        claims.push(if self.is_generated() {
            claim.not_run(CEILING)
        } else {
            let ensemble = self.ensemble(ATTENTIVE, FIXED_LAMBDA)?.minus(&self.ensemble(BLOCKS, 0.0)?);
            self.judge_in_standard(claim, &ensemble)?
        });
        Ok(claims)
    }

    /// Where held-out characters choose no diversity loss, so that C2-diversity compares trainings with themselves.
    pub(super) fn chosen_without(&self) -> anyhow::Result<Vec<String>> {
        let mut notes = Vec::new();
        if self.tier == Tier::Quick {
            return Ok(notes);
        }
        for (scene, loss) in SETTINGS {
            let chosen = self.chosen(scene, loss, ATTENTIVE)?;
            if chosen.seeds > 0 && chosen.lambda == 0.0 {
                let (images, by) = (scene.name(), loss.name());
                notes.push(format!(
                    "C2-diversity-{images}-{by} is 0 because held-out characters choose λ 0: it is refuted by the choice, and \
                     the table has what the other λ would have been."
                ));
            }
        }
        Ok(notes)
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
            "A pixel of the character's ink gets more attention than one of the clutter's",
            "attention at a pixel of the character's ink − at one of the scraps', mean of groups, λ chosen",
        );
        let content = claim(
            "C3-box",
            "Groups find the character: more attention is in its box than the mean map would have there",
            "attention in the box − the same of the mean map over all scenes, mean of groups, λ chosen",
        );
        if self.tier == Tier::Quick {
            return Ok(vec![ink.not_run(STANDARD), content.not_run(STANDARD)]);
        }
        let of = |metric: &str| self.at_chosen(metric, Scene::Cluttered, LossChoice::Margin, ATTENTIVE);
        Ok(vec![
            ink.judge(&of("glyph_ink")?.minus(&of("scrap_ink")?))?,
            content.judge(&of("mass")?.minus(&of("mass_blind")?))?,
        ])
    }
}
