//! The paper's own measurement, on the user's checkpoints.

use super::super::published::{DEPTHS, Published};
use super::LOGS;
use crate::section::Table;
use crate::{Claim, JudgedClaim, Relation, Results, Run, Samples, Section, Test};

/// Sides of objects, and the authors' mean cosines with the centre of ResNet-50's logits, plain and blurred.
const SIZES: [(usize, &str, &str); 2] = [(125, ".9613", ".9747"), (75, ".9487", ".9625")];

const NOTES: [&str; 2] = [
    "Bring `shift-invariance/objects/*.png` (cut-out objects with transparency) and `shift-invariance/resnet50.safetensors`, \
     `resnet50-antialiased.safetensors` (blur pools of side 5, torchvision's names) in the data root; resnet18 likewise.",
    "Checkpoints have no seeds: C1 is asked of each depth in a seed's place, and needs both to be reproduced. Each sample is a mean over \
     the objects brought; how much objects differ stands in the table.",
];

/// The claim on objects of one size.
fn claim((object, plain, blurred): (usize, &str, &str)) -> Claim {
    let statement = format!(
        "Blur pools raise the mean similarity with the centre of published networks (objects of {object} of 224 px)"
    );
    let quantity = "mean cosine of logits, blurred − plain, ResNet-18 and ResNet-50 in the place of seeds";
    Claim::new(&format!("C1-{object}"), &statement)
        .paper(&format!("{plain} → {blurred} for ResNet-50"), LOGS)
        .test(Test::every(quantity, Relation::Above(0.0)), "")
}

/// The claims in tiers that train networks of their own.
pub(super) fn not_run() -> [JudgedClaim; 2] {
    let needs = "needs the paper tier: checkpoints and cut-out objects in the data root's shift-invariance/, and a GPU";
    SIZES.map(|size| claim(size).not_run(needs))
}

pub(super) fn judge(results: &Results) -> anyhow::Result<Section> {
    let mut section = Section { notes: NOTES.map(String::from).into(), ..Section::default() };
    for size in SIZES {
        let gain = by_depth(results, true, size.0)?.minus(&by_depth(results, false, size.0)?);
        section.claims.push(claim(size).judge(&gain)?);
    }
    section.tables.push(means(results)?);
    Ok(section)
}

/// The mean cosine with the centre, by depth of the network.
fn by_depth(results: &Results, antialiased: bool, object: usize) -> anyhow::Result<Samples> {
    let mut all = Samples::default();
    for depth in DEPTHS {
        let mine = |run: &Run| run.params::<Published>().is_ok_and(|params| params.is(depth, antialiased, object));
        let one = results.samples("mean_C", mine)?;
        one.missing().iter().for_each(|reason| all.miss(reason));
        for mean in one.values() {
            all.insert(u64::from(depth), mean, one.runs());
        }
    }
    Ok(all)
}

fn means(results: &Results) -> anyhow::Result<Table> {
    let mut rows = Vec::new();
    for run in results.finished(|run| run.kind == "published") {
        let params: Published = run.run.params()?;
        let kind = if params.antialiased { "blur 5" } else { "plain" };
        let mut row = vec![format!("ResNet-{}, {kind}, {} px", params.depth, params.object)];
        for anchor in ["TL", "TR", "C", "BL", "BR"] {
            row.push(format!(
                "{:.4} ({:.3})",
                run.metric(&format!("mean_{anchor}"))?,
                run.metric(&format!("deviation_{anchor}"))?
            ));
        }
        rows.push(row);
    }
    Ok(Table {
        title: "Mean cosine over all positions".into(),
        caption: "By anchor; standard deviation over objects in brackets.".into(),
        header: ["", "TL", "TR", "C", "BL", "BR"].map(str::to_owned).into(),
        rows,
    })
}
