//! Blurred networks beside plain ones of the same head and seed.

use super::{POINTS, Pair, SITE, ZHANG, percent};
use crate::{Claim, JudgedClaim, Relation, Test};

/// Local and global invariance with blur pools.
pub(super) fn claims(pair: &Pair) -> anyhow::Result<[JudgedClaim; 4]> {
    let Pair { letter, head, .. } = pair;
    let local = pair.ratio("local_drop_2")?;
    Ok([
        Claim::new(&format!("C4{letter}"), &format!("Blur pools improve local invariance ({head})"))
            .paper("significantly improve local (abstract); median ratio .35 within 2 px of five anchors", SITE)
            .test(Test::every("local drop (2 px), centre anchor, blur 4 / plain", Relation::Below(0.6)), "×")
            .judge(&local)?,
        Claim::new(&format!("C4-top1-{letter}"), &format!("… and predictions change less often ({head})"))
            .paper("fewer changes", ZHANG)
            .test(
                Test::every("P(top-1 change) by a pixel, over the whole frame, blur 4 − plain", Relation::Below(0.0)),
                "",
            )
            .judge(&pair.difference("top1_change")?)?,
        Claim::new(&format!("C5-weak-{letter}"), &format!("They help locally more than globally ({head})"))
            .paper("do not impact global; median ratios .35 local, .95 global", SITE)
            .test(Test::every("local ratio (2 px) − global ratio, centre anchor", Relation::Below(0.0)), "×")
            .judge(&local.minus(&pair.ratio("global_drop")?))?,
        Claim::new(&format!("C5-strong-{letter}"), &format!("They have no effect on global invariance ({head})"))
            .paper("do not impact global; median ratio .95, quartiles .85 and 1.08", SITE)
            .test(
                Test::mean("global drop over three anchors, blur 4 / plain", Relation::Within([0.85, 1.15].into())),
                "×",
            )
            .judge(&pair.global_ratio()?)?,
    ])
}

/// Consistency under rolls with blur pools.
pub(super) fn consistency(pair: &Pair) -> anyhow::Result<JudgedClaim> {
    let statement = format!("Blur pools raise the consistency of predictions under small shifts ({})", pair.head);
    let claim = Claim::new("Z1", &statement)
        .paper("85.11 → 88.07 % for ResNet-18 under crops of ImageNet images", "antialiased-cnns, README")
        .test(Test::mean("circular consistency, rolls of at most 3 px, blur 4 − plain", Relation::Above(0.0)), POINTS);
    Ok(claim.judge(&percent(pair.difference("consistency")?))?)
}
