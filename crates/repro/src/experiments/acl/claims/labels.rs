//! What few labels make of a pre-trained encoder.

use super::super::cases::{DUAL, LABELS_ALONE, RADIUS, RANDOM, SEMI, SIMCLR};
use super::{ABSTRACT, OURS, POINTS, View};
use crate::{Claim, JudgedClaim, Relation, Test, Tier};

impl View<'_> {
    /// Fine-tuning with few labels, against training from scratch.
    pub(super) fn label_claims(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let few = self.few();
        let (acl, scratch) = (self.tuned("AFF", DUAL, few), self.tuned("AFF", RANDOM, few));
        let gain = acl.robust(RADIUS)?.minus(&scratch.robust(RADIUS)?);
        let mut claims = vec![
            Claim::new(
                "R3a",
                &format!("ACL beats supervised adversarial training from scratch by five points or more: TRADES, {few} labels"),
            )
                .paper("label-efficient and robust", ABSTRACT)
                .test(Test::mean("RA(ACL, AFF) − RA(scratch, AFF), Linf 8/255", Relation::AtLeast(5.0)), POINTS)
                .judge(&gain)?,
            Claim::new("R3d", "… and is more accurate on clean images")
                .paper("SA +2.14 over earlier robust pre-training", ABSTRACT)
                .test(Test::mean("SA(ACL, AFF) − SA(scratch, AFF)", Relation::Above(0.0)), POINTS)
                .judge(&acl.clean()?.minus(&scratch.clean()?))?,
        ];
        let many = Claim::new("R3b", "Pre-training matters more, the fewer labels there are")
            .paper("label-efficient", ABSTRACT)
            .test(Test::mean(&self.label_contrast(), Relation::AtLeast(0.0)), POINTS);
        let plain =
            Claim::new("R3c", &format!("The adversary adds to SimCLR after full fine-tuning: TRADES, {few} labels"))
                .paper("not in the abstract, whose comparison is with other robust pre-training", OURS)
                .test(Test::mean("RA(ACL, AFF) − RA(SimCLR, AFF), Linf 8/255", Relation::Above(0.0)), POINTS);
        let semi = |id, figure: &str| {
            Claim::new(
                id,
                &format!(
                    "A pseudo-labelled stage lifts {figure} over fine-tuning on the {few} labels alone by two points or more"
                ),
            )
                .paper("not in the abstract: what that stage adds", OURS)
                .test(Test::mean(&format!("{figure}(semi-supervised) − {figure}(AFF)"), Relation::AtLeast(2.0)), POINTS)
        };
        let (semi_robust, semi_clean) = (semi("R4a", "RA"), semi("R4b", "SA"));
        let labels_alone = |id, figure: &str| {
            Claim::new(id, &format!("It does lift {figure} over its own loss on the {few} labels alone"))
                .paper("not in the abstract: a control", OURS)
                .test(
                    Test::mean(
                        &format!("{figure}(semi-supervised) − {figure}(its loss, labels alone)"),
                        Relation::Above(0.0),
                    ),
                    POINTS,
                )
        };
        let (alone_robust, alone_clean) = (labels_alone("R4c", "RA"), labels_alone("R4d", "SA"));
        let pretrained = |id, figure: &str| {
            Claim::new(id, &format!("Pre-training by ACL lifts {figure} of semi-supervised training on {few} labels"))
                .paper("improves semi-supervised training with few labels", ABSTRACT)
                .test(
                    Test::mean(
                        &format!("{figure}(semi-supervised from ACL) − {figure}(from scratch)"),
                        Relation::Above(0.0),
                    ),
                    POINTS,
                )
        };
        let (from_acl_robust, from_acl_clean) = (pretrained("R4e", "RA"), pretrained("R4f", "SA"));
        if self.tier == Tier::Standard {
            let rich = self.tuned("AFF", DUAL, self.many()).robust(RADIUS)?;
            let rich = rich.minus(&self.tuned("AFF", RANDOM, self.many()).robust(RADIUS)?);
            let guessed = self.tuned(SEMI, DUAL, few);
            claims.extend([
                many.judge(&gain.minus(&rich))?,
                semi_robust.judge(&guessed.robust(RADIUS)?.minus(&acl.robust(RADIUS)?))?,
                semi_clean.judge(&guessed.clean()?.minus(&acl.clean()?))?,
            ]);
            let alone = self.tuned(LABELS_ALONE, DUAL, few);
            claims.extend([
                alone_robust.judge(&guessed.robust(RADIUS)?.minus(&alone.robust(RADIUS)?))?,
                alone_clean.judge(&guessed.clean()?.minus(&alone.clean()?))?,
            ]);
            let from_scratch = self.tuned(SEMI, RANDOM, few);
            claims.extend([
                from_acl_robust.judge(&guessed.robust(RADIUS)?.minus(&from_scratch.robust(RADIUS)?))?,
                from_acl_clean.judge(&guessed.clean()?.minus(&from_scratch.clean()?))?,
            ]);
        } else {
            let asked = [many, semi_robust, semi_clean, alone_robust, alone_clean, from_acl_robust, from_acl_clean];
            claims.extend(asked.map(|claim| claim.not_run(self.elsewhere())));
        }
        claims.push(if self.tier == Tier::Quick {
            plain.not_run(self.elsewhere())
        } else {
            plain.judge(&acl.robust(RADIUS)?.minus(&self.tuned("AFF", SIMCLR, few).robust(RADIUS)?))?
        });
        Ok(claims)
    }
}
