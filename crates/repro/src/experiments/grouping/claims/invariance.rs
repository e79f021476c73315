//! What moving things does: identities, and what shifts cost a trained network.

use super::super::PAPER;
use super::super::arms::{ATTENTIVE, FIXED_LAMBDA, Head, POOLED};
use super::super::moved;
use super::{ABSTRACT, View};
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

    /// What is left of the paper's translational invariance where nothing guarantees it.
    pub(super) fn moved_queries(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let judge = |pixels: i64| {
            let unit = if pixels == 1 { "pixel" } else { "pixels" };
            let statement =
                format!("Queries moved by {pixels} {unit} cost attentive groups no more recall than pooled ones");
            let formula = format!(
                "R@1 lost by moving queries {pixels} px, attentive (λ {FIXED_LAMBDA}) − the same of pooled groups"
            );
            let claim = Claim::new(&format!("C5-shift-{pixels}"), &statement)
                .paper("translational invariance", ABSTRACT)
                .test(Test::mean(&formula, Relation::AtMost(0.0)), "");
            let lost = self.lost(pixels, ATTENTIVE, FIXED_LAMBDA)?.minus(&self.lost(pixels, POOLED, 0.0)?);
            anyhow::Ok(claim.judge(&lost)?)
        };
        moved::SHIFTS.into_iter().map(judge).collect()
    }

    /// Recall lost by moving queries, plain characters, margin loss.
    fn lost(&self, pixels: i64, head: Head, lambda: f64) -> anyhow::Result<Samples> {
        Ok(self.plain(moved::STILL, head, lambda)?.minus(&self.plain(&moved::metric(pixels), head, lambda)?))
    }
}
