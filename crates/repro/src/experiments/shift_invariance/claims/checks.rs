//! What holds by construction: checks of the implementation, apart from what the papers claim.

use super::{Nets, OURS, percent};
use crate::{Claim, JudgedClaim, Relation, Results, Test};

pub(super) fn claims(nets: &Nets, results: &Results) -> anyhow::Result<[JudgedClaim; 8]> {
    let check = |id: &str, statement: &str| Claim::new(id, statement).paper("a check of the implementation", OURS);
    let border = |metric: &str| results.samples(metric, |run| run.kind == "borders");
    let (circular, polyphase) = (&nets.circular, &nets.polyphase);
    Ok([
        check("C3a", "With circular borders and global pooling the map is periodic with the total stride")
            .test(
                Test::exact("largest difference of positions 8 px apart, mean over objects", Relation::Below(1e-5)),
                "",
            )
            .judge(&circular.get("aperiodicity")?)?,
        check("C3b", "With zero padding it is not: borders tell where the object is")
            .test(
                Test::every(
                    "largest difference of positions 8 px apart, mean over objects, plain, gap",
                    Relation::Above(1e-3),
                ),
                "",
            )
            .judge(&nets.gap.plain.get("aperiodicity")?)?,
        check(
            "E2b",
            "Top or bottom half cannot be read off an invariant feature of an unseen object (circular, polyphase, gap)",
        )
        .test(Test::every("accuracy, objects left out, linear SVM", Relation::Within([0.45, 0.55].into())), "")
        .judge(&polyphase.get("top_bottom_left_out")?)?,
        check("P1", "Polyphase sampling keeps every prediction under every circular roll of up to 3 px")
            .test(Test::exact("agreement over 40 images and 36 rolls", Relation::AtLeast(100.0)), "%")
            .judge(&percent(polyphase.get("roll_agreement")?))?,
        check("P2", "… and its logits do not change")
            .test(Test::exact("largest change of a logit", Relation::Below(1e-4)), "")
            .judge(&polyphase.get("roll_change")?)?,
        check("P3", "Circular borders are not enough: with max pools predictions change under rolls of up to 3 px")
            .test(
                Test::every("agreement over 40 images and 36 rolls (gap, circular, max)", Relation::Below(100.0)),
                "%",
            )
            .judge(&percent(circular.get("roll_agreement")?))?,
        check("F1", "Full padding and a global sum make one convolution invariant over the frame")
            .test(Test::exact("spread of the sums, relative", Relation::Below(1e-5)), "")
            .judge(&border("full")?)?,
        check("F2", "\"Same\" padding does not")
            .test(Test::exact("spread of the sums, relative", Relation::Above(1e-3)), "")
            .judge(&border("same")?)?,
    ])
}
