//! What is frozen and probed: the adversary, the branches, the formulations.

use super::super::cases::{BEYOND, BOTH, DUAL, NOISE, ONE, RADIUS, SHARED, SIMCLR, WIDE, WIDE_NOISE};
use super::{CODE, OURS, POINTS, PROBED, View};
use crate::{Claim, JudgedClaim, Relation, Test};

pub(super) fn robust_claim() -> Claim {
    Claim::new(
        "R1a",
        "Features learned against an adversary, frozen, are more robust than SimCLR's by eight points or more: linear probe",
    )
    .paper(PROBED, OURS)
        .test(Test::mean("RA(ACL dual stream) − RA(SimCLR), Linf 8/255", Relation::AtLeast(8.0)), POINTS)
}

impl View<'_> {
    /// Linear probes: the adversary, the branches, the formulations.
    pub(super) fn pretraining_claims(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let (acl, simclr) = (self.probe(DUAL, "adversarial"), self.probe(SIMCLR, "normal"));
        let gain = |budget| anyhow::Ok(acl.robust(budget)?.minus(&simclr.robust(budget)?));
        let mut claims = vec![
            robust_claim().judge(&gain(RADIUS)?)?,
            Claim::new("R1b", "… and lose at most three points of clean accuracy")
                .paper(PROBED, OURS)
                .test(Test::mean("SA(ACL dual stream) − SA(SimCLR)", Relation::AtLeast(-3.0)), POINTS)
                .judge(&acl.clean()?.minus(&simclr.clean()?))?,
            Claim::new("R1c", "… and beyond the budget that it was trained for")
                .paper("not in the abstract; SimCLR hardly stands there, so that little could fail", OURS)
                .test(Test::mean("RA(ACL dual stream) − RA(SimCLR), Linf 0.1", Relation::Above(0.0)), POINTS)
                .judge(&gain(BEYOND)?)?,
        ];
        let wide = Claim::new("R1d", "Pre-training at budget 0.1 pays at budget 0.1, over pre-training at 8/255")
            .paper("not in the paper", "ours")
            .test(Test::mean("RA(ACL at 0.1) − RA(ACL at 8/255), Linf 0.1", Relation::Above(0.0)), POINTS);
        claims.push(if self.has(WIDE) {
            let wide_gain = self.probe(WIDE, "adversarial").robust(BEYOND)?.minus(&acl.robust(BEYOND)?);
            wide.judge(&wide_gain)?
        } else {
            wide.not_run(self.elsewhere())
        });
        for (id, label, statement, name) in [
            (
                "R1e",
                NOISE,
                "The adversary is worth more than random noise of its budget in its place",
                "noise of 8/255",
            ),
            (
                "R1f",
                WIDE_NOISE,
                "… and than noise fourteen times as wide, of a deviation of 0.25 before it is clipped to [0, 1]",
                "noise of 0.43",
            ),
        ] {
            let claim = Claim::new(id, statement).paper("not in the paper: a control", "ours").test(
                Test::mean(
                    &format!("RA(ACL dual stream) − RA(dual stream with {name}), Linf 8/255"),
                    Relation::Above(0.0),
                ),
                POINTS,
            );
            claims.push(if self.has(label) {
                claim.judge(&acl.robust(RADIUS)?.minus(&self.probe(label, "adversarial").robust(RADIUS)?))?
            } else {
                claim.not_run(self.elsewhere())
            });
        }
        let normal = self.probe(DUAL, "normal");
        claims.extend([
            Claim::new("R2a", "Of a dual encoder the adversarial branch is the robust one, by three points or more")
                .paper("adversarial branch for adversarial fine-tuning", CODE)
                .test(Test::mean("RA(adversarial) − RA(normal), Linf 8/255", Relation::AtLeast(3.0)), POINTS)
                .judge(&acl.robust(RADIUS)?.minus(&normal.robust(RADIUS)?))?,
            Claim::new("R2b", "… at about the same clean accuracy")
                .paper("not stated", "ours")
                .test(Test::mean("SA(adversarial) − SA(normal)", Relation::Within([-4.0, 4.0].into())), POINTS)
                .judge(&acl.clean()?.minus(&normal.clean()?))?,
        ]);
        let shared = Claim::new(
            "R2c",
            "The adversarial branch of two batch norms costs at most a point of clean accuracy against a shared one",
        )
        .paper("dual batch norm in all published models", CODE)
        .test(Test::mean("SA(dual, adversarial branch) − SA(shared)", Relation::AtLeast(-1.0)), POINTS);
        claims.push(if self.has(SHARED) {
            shared.judge(&acl.clean()?.minus(&self.probe(SHARED, "normal").clean()?))?
        } else {
            shared.not_run(self.elsewhere())
        });
        for (id, label, name) in [("C2a", BOTH, "adversarial to adversarial"), ("C2b", ONE, "adversarial to standard")]
        {
            let claim = Claim::new(id, &format!("The dual stream beats {name}: linear probe"))
                .paper("dual stream in all published models; here on frozen features", CODE)
                .test(Test::mean(&format!("RA(dual stream) − RA({name}), Linf 8/255"), Relation::Above(0.0)), POINTS);
            claims.push(if self.has(label) {
                claim.judge(&acl.robust(RADIUS)?.minus(&self.probe(label, "adversarial").robust(RADIUS)?))?
            } else {
                claim.not_run(self.elsewhere())
            });
        }
        Ok(claims)
    }
}
