//! The paper's own measurement, on the user's checkpoints.

use super::super::published::{DEPTHS, Published};
use super::{LOGS, SITE};
use crate::section::Table;
use crate::{Claim, JudgedClaim, Relation, Results, Run, Samples, Section, Test};

/// Objects of a size, and what the authors found with ResNet-50's logits.
struct Size {
    /// Side, in pixels of 224.
    object: usize,
    /// Mean cosines with the centre, plain and blurred.
    centre: [&'static str; 2],
    /// Mean cosines with the top left and the bottom right, plain.
    corners: [&'static str; 2],
}

const SIZES: [Size; 2] = [
    Size { object: 125, centre: [".9613", ".9747"], corners: [".9449", ".9304"] },
    Size { object: 75, centre: [".9487", ".9625"], corners: [".9212", ".8921"] },
];

/// Labels of the paper's five anchors.
const ANCHORS: [&str; 5] = ["TL", "TR", "C", "BL", "BR"];

const NOTES: [&str; 3] = [
    "Bring `shift-invariance/objects/*.png` (cut-out objects with transparency) and `shift-invariance/resnet50.safetensors`, \
     `resnet50-antialiased.safetensors` (blur pools of side 5, torchvision's names) in the data root; resnet18 likewise.",
    "Checkpoints have no seeds: claims are asked of each depth in a seed's place, and need both to be reproduced. Each sample is a mean over \
     the objects brought; how much objects differ stands in the table.",
    "C3, C4 and C5 take what C1's runs record; C4 and C5 average over the five anchors, as the figures of the authors' site do. On its two \
     objects ResNet-50 has ratios of .43 and .36 (local) and of .73 and .79 (global): C5 is of the median over all networks, which that \
     one alone would miss. The stem keeps its stride of 2, blurred or not.",
];

/// A claim on objects of one size, in the order of [`claims`].
fn claim(size: &Size, which: usize) -> Claim {
    let Size { object, centre: [plain, blurred], corners: [top_left, bottom_right] } = size;
    let places = "ResNet-18 and ResNet-50 in the place of seeds";
    let of = |id: &str, statement: &str| {
        Claim::new(&format!("{id}-{object}"), &format!("{statement} (objects of {object} of 224 px)"))
    };
    match which {
        0 => of("C1", "Blur pools raise the mean similarity with the centre of published networks")
            .paper(&format!("{plain} → {blurred} for ResNet-50"), LOGS)
            .test(Test::every(&format!("mean cosine of logits, blurred − plain, {places}"), Relation::Above(0.0)), ""),
        1 => of("C3", "Plain published networks are biased: features at the top left resemble all others more")
            .paper(&format!("{top_left} and {bottom_right} for ResNet-50"), LOGS)
            .test(
                Test::every(
                    &format!("mean cosine of logits with the top left − with the bottom right, plain, {places}"),
                    Relation::Above(0.0),
                ),
                "",
            ),
        2 => of("C4", "Blur pools improve the local invariance of published networks")
            .paper("significantly improve local (abstract); median ratio .35 within 2 px of five anchors", SITE)
            .test(
                Test::every(
                    &format!("local drop (2 px) of logits, mean over five anchors, blurred / plain, {places}"),
                    Relation::Below(0.6),
                ),
                "×",
            ),
        _ => of("C5", "They have no effect on the global invariance of published networks")
            .paper("do not impact global (abstract); median ratio .95, quartiles .85 and 1.08", SITE)
            .test(
                Test::every(
                    &format!("1 − mean cosine of logits, mean over five anchors, blurred / plain, {places}"),
                    Relation::Within([0.85, 1.15].into()),
                ),
                "×",
            ),
    }
}

/// The claims in tiers that train networks of their own.
pub(super) fn not_run() -> Vec<JudgedClaim> {
    let needs = "needs the paper tier: checkpoints and cut-out objects in the data root's shift-invariance/, and a GPU";
    SIZES.iter().flat_map(|size| (0..4).map(|which| claim(size, which).not_run(needs))).collect()
}

pub(super) fn judge(results: &Results) -> anyhow::Result<Section> {
    let mut section = Section { notes: NOTES.map(String::from).into(), ..Section::default() };
    for size in &SIZES {
        let of = |antialiased, metric: &str| by_depth(results, antialiased, size.object, metric);
        let ratio = |metric: &str, share: fn(f64) -> f64| {
            let mean =
                |antialiased| over_anchors(|anchor| Ok(of(antialiased, &format!("{metric}_{anchor}"))?.map(share)));
            anyhow::Ok(mean(true)?.over(&mean(false)?))
        };
        let measured = [
            of(true, "mean_C")?.minus(&of(false, "mean_C")?),
            of(false, "mean_TL")?.minus(&of(false, "mean_BR")?),
            ratio("local_drop", |drop| drop)?,
            ratio("mean", |mean| 1.0 - mean)?,
        ];
        for (which, samples) in measured.iter().enumerate() {
            section.claims.push(claim(size, which).judge(samples)?);
        }
    }
    section.tables.push(means(results)?);
    Ok(section)
}

/// The mean of samples over the paper's five anchors.
fn over_anchors(of: impl Fn(&str) -> anyhow::Result<Samples>) -> anyhow::Result<Samples> {
    let mut sum = of(ANCHORS[0])?;
    for anchor in &ANCHORS[1..] {
        sum = sum.combine(&of(anchor)?, |a, b| a + b);
    }
    Ok(sum.map(|sum| sum / ANCHORS.len() as f64))
}

/// A metric by depth of the network.
fn by_depth(results: &Results, antialiased: bool, object: usize, metric: &str) -> anyhow::Result<Samples> {
    let mut all = Samples::default();
    for depth in DEPTHS {
        let mine = |run: &Run| run.params::<Published>().is_ok_and(|params| params.is(depth, antialiased, object));
        let one = results.samples(metric, mine)?;
        one.missing().iter().for_each(|reason| all.miss(reason));
        for value in one.values() {
            all.insert(u64::from(depth), value, one.runs());
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
        for anchor in ANCHORS {
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
