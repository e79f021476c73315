//! What moving things does: identities, and what shifts cost a trained network.

use super::super::PAPER;
use super::super::arms::{ATTENTIVE, FIXED_LAMBDA, Head, POOLED, UNGROUPED};
use super::super::moved;
use super::{ABSTRACT, OURS, View};
use crate::{Claim, JudgedClaim, Relation, Samples, Test};

impl View<'_> {
    /// Of random weights.
    pub(super) fn untrained(&self, metric: &str) -> anyhow::Result<Samples> {
        Ok(self.results.samples(metric, |run| run.paper == PAPER && run.kind == "invariance")?)
    }

    /// What holds by definition, whatever the weights: checks of this implementation.
    pub(super) fn identities(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let claim = |id: &str, statement: &str| {
            Claim::new(id, statement)
                .paper("invariant, by definition", ABSTRACT)
                .test(Test::exact("largest change of a component", Relation::Below(1e-5)), "")
        };
        let trained = self.plain("permutation", ATTENTIVE, FIXED_LAMBDA)?;
        Ok(vec![
            claim("C4-random", "An identity: permuting positions of the map leaves the embedding (random weights)")
                .judge(&self.untrained("permutation")?)?,
            claim("C4-trained", "The same identity with trained weights").judge(&trained)?,
            claim(
                "C5-circular",
                "An identity: with circular padding an image shifted by the total stride has the same embedding",
            )
            .judge(&self.untrained("circular_stride")?)?,
        ])
    }

    /// What shifts cost where nothing guarantees invariance, against heads that pool and so are as invariant by definition.
    pub(super) fn moved_queries(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let mut claims = Vec::new();
        for pixels in moved::SHIFTS {
            for (start, against, baseline) in
                [("", "pooled groups", POOLED), ("ungrouped-", "one pooled group", UNGROUPED)]
            {
                let unit = if pixels == 1 { "pixel" } else { "pixels" };
                let statement = format!(
                    "Queries moved by {pixels} {unit} cost attentive groups no more recall than {against}, all trained with \
                     shifts of up to 2"
                );
                let formula = format!(
                    "R@1 lost by moving queries {pixels} px, attentive (λ {FIXED_LAMBDA}) − the same of {against}"
                );
                let claim = Claim::new(&format!("C5-shift-{start}{pixels}"), &statement)
                    .paper("not in the abstract, whose translational invariance pooling has too", OURS)
                    .test(Test::mean(&formula, Relation::AtMost(0.0)), "");
                let lost = self.lost(pixels, ATTENTIVE, FIXED_LAMBDA)?.minus(&self.lost(pixels, baseline, 0.0)?);
                let in_all_tiers = baseline == POOLED;
                claims.push(if in_all_tiers { claim.judge(&lost)? } else { self.judge_in_standard(claim, &lost)? });
            }
        }
        Ok(claims)
    }

    /// Recall lost by moving queries, plain characters, margin loss.
    fn lost(&self, pixels: i64, head: Head, lambda: f64) -> anyhow::Result<Samples> {
        Ok(self.plain(moved::STILL, head, lambda)?.minus(&self.plain(&moved::metric(pixels), head, lambda)?))
    }
}
