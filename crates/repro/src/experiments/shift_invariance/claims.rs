//! What the papers claim, as inequalities on small networks.

use super::Net;
use super::network::{Head, Pool};
use super::page::{self, LAYERS};
use super::published::Published;
use crate::section::{Axis, Curve, Point, Series, Table, cell};
use crate::{Ask, Claim, JudgedClaim, Relation, Results, Samples, Section, Test, Tier};

const ABSTRACT: &str = "arXiv 2011.04127, abstract";
const SITE: &str = "computed from the raw maps of the authors' interactive site";
const ZHANG: &str = "arXiv 1904.11486";
const POLYPHASE: &str = "arXiv 2011.14214";

/// Networks are compared where their accuracies at the centre are at most this far apart: 2 points, and the rounding of shares
/// in single precision.
const COMPARABLE: f64 = 0.02 + 1e-6;

/// As many seeds have to be comparable, or all where there are fewer.
const ENOUGH: usize = 3;

/// Whether claims compare networks of this pool with one another: those without blur and those with a filter of four, of
/// either head.
pub(super) fn compares(pool: Pool) -> bool {
    matches!(pool, Pool::Max | Pool::Blur(4))
}

/// Metrics of one network.
struct Of<'a> {
    results: &'a Results,
    head: Head,
    pool: Pool,
}

impl Of<'_> {
    fn get(&self, metric: &str) -> anyhow::Result<Samples> {
        let (head, pool) = (self.head, self.pool);
        let mine = |run: &crate::Run| run.kind == "net" && run.params::<Net>().is_ok_and(|net| net.is(head, pool));
        Ok(self.results.samples(metric, mine)?)
    }
}

pub(super) fn judge(ask: &Ask, results: &Results) -> anyhow::Result<Section> {
    if ask.tier == Tier::Paper {
        return published(results);
    }
    let of = |head, pool| Of { results, head, pool };
    let (fc, gap, blur) = (Head::Flatten, Head::Average, Pool::Blur(4));
    let (fc_max, fc_blur) = (of(fc, Pool::Max), of(fc, blur));
    let (gap_max, gap_blur) = (of(gap, Pool::Max), of(gap, blur));
    let (circular, polyphase) = (of(gap, Pool::Circular), of(gap, Pool::Polyphase));
    let pairs = [("fc head", &fc_max, &fc_blur), ("global average pooling", &gap_max, &gap_blur)];
    let every = Test::every;
    let mut section = Section::default();
    let mut claims: Vec<JudgedClaim> = Vec::new();

    let ratio = |net: &Of| anyhow::Ok(net.get("global_drop")?.over(&net.get("local_drop")?));
    claims.push(
        Claim::new("C2a", "Features of a plain network are not globally invariant (fc head)")
            .paper("not globally invariant", ABSTRACT)
            .test(every("global drop / local drop (1 px), centre anchor", Relation::Above(10.0)), "×")
            .judge(&ratio(&fc_max)?)?,
    );
    claims.push(
        Claim::new("C2b", "… and its accuracy falls away from the training position (fc head)")
            .paper("not globally invariant", ABSTRACT)
            .test(every("accuracy(centre) − accuracy(whole frame), the same objects", Relation::Above(0.2)), "")
            .judge(&fc_max.get("accuracy_centre_objects")?.minus(&fc_max.get("accuracy_grid")?))?,
    );
    claims.push(
        Claim::new("C2c", "Nor are they with global average pooling")
            .paper("not globally invariant", ABSTRACT)
            .test(every("global drop / local drop (1 px), centre anchor", Relation::Above(2.0)), "×")
            .judge(&ratio(&gap_max)?)?,
    );
    claims.push(
        Claim::new("C3a", "With circular borders and global pooling the map is periodic with the total stride")
            .paper("biases and artifacts", ABSTRACT)
            .test(Test::exact("largest difference of positions 8 px apart", Relation::Below(1e-5)), "")
            .judge(&circular.get("aperiodicity")?)?,
    );
    claims.push(
        Claim::new("C3b", "With zero padding it is not: borders tell where the object is")
            .paper("biases and artifacts", ABSTRACT)
            .test(every("largest difference of positions 8 px apart, plain, gap", Relation::Above(1e-3)), "")
            .judge(&gap_max.get("aperiodicity")?)?,
    );
    claims.push(
        Claim::new(
            "C3c",
            "The variance has structure: along rows it repeats with the total stride of 8 px (plain, fc)",
        )
        .paper("biases and artifacts", ABSTRACT)
        .test(every("lower end of the interval of the repetition at 8 px", Relation::Above(0.1)), "")
        .judge(&fc_max.get("repetition_low")?)?,
    );
    let mut left_out = Vec::new();
    for (index, (head, plain, blurred)) in pairs.iter().enumerate() {
        let id = |stem: &str| format!("{stem}{}", ["a", "b"][index]);
        let comparable = Comparable::of(&plain.get("accuracy_centre")?, &blurred.get("accuracy_centre")?);
        left_out.extend(comparable.left_out.iter().map(|reason| format!("{head}, {reason}")));
        let fair = |samples: Samples| comparable.only(&samples);
        let over = |metric: &str| anyhow::Ok(fair(blurred.get(metric)?.over(&plain.get(metric)?)));
        let (local, global) = (over("local_drop")?, over("global_drop")?);
        claims.push(
            Claim::new(&id("C4"), &format!("Blur pools improve local invariance ({head})"))
                .paper("significantly improve local; median ratio .35", ABSTRACT)
                .test(every("local drop (1 px), blur 4 / plain", Relation::Below(0.6)), "×")
                .judge(&local)?,
        );
        claims.push(
            Claim::new(&id("C4-top1-"), &format!("… and predictions change less often ({head})"))
                .paper("fewer changes", ZHANG)
                .test(every("P(top-1 change), blur 4 − plain", Relation::Below(0.0)), "")
                .judge(&fair(blurred.get("top1_change")?.minus(&plain.get("top1_change")?)))?,
        );
        claims.push(
            Claim::new(&id("C5-weak-"), &format!("They help locally more than globally ({head})"))
                .paper("do not impact global; median ratios .35 local, .95 global", SITE)
                .test(every("local ratio − global ratio", Relation::Below(0.0)), "×")
                .judge(&local.minus(&global))?,
        );
        // Of one network alone, whatever the other's accuracy.
        claims.push(
            Claim::new(&id("C5-left-"), &format!("Global variance stays far above local, blurred too ({head})"))
                .paper("not globally invariant", ABSTRACT)
                .test(every("global drop / local drop (1 px), blur 4", Relation::Above(5.0)), "×")
                .judge(&ratio(blurred)?)?,
        );
        claims.push(
            Claim::new(&id("C5-strong-"), &format!("They have no effect on global invariance ({head})"))
                .paper("do not impact global; median ratio .95, quartiles .85 and 1.08", SITE)
                .test(every("global drop, blur 4 / plain", Relation::Within([0.85, 1.15].into())), "×")
                .judge(&global)?,
        );
    }
    let percent = |samples: Samples| samples.map(|share| 100.0 * share);
    claims.push(
        Claim::new("P1", "Polyphase sampling keeps every prediction under every circular roll of up to 3 px")
            .paper("100 % circular consistency", POLYPHASE)
            .test(Test::exact("agreement over 40 images and 36 rolls", Relation::AtLeast(100.0)), "%")
            .judge(&percent(polyphase.get("roll_agreement")?))?,
    );
    claims.push(
        Claim::new("P2", "… and its logits do not change")
            .paper("invariant by construction", POLYPHASE)
            .test(Test::exact("largest change of a logit", Relation::Below(1e-4)), "")
            .judge(&polyphase.get("roll_change")?)?,
    );
    let best = gap_max.get("roll_agreement")?.combine(&gap_blur.get("roll_agreement")?, f64::max);
    claims.push(
        Claim::new("P3", "Plain and blurred networks do change predictions under rolls")
            .paper("below 100 %", POLYPHASE)
            .test(every("the better agreement of the two (global average pooling)", Relation::Below(100.0)), "%")
            .judge(&percent(best))?,
    );
    claims.push(sizes(ask, results)?);
    let border = |metric: &str| results.samples(metric, |run| run.kind == "borders");
    claims.push(
        Claim::new("F1", "Full padding and a global sum make one convolution invariant over the frame")
            .paper("full convolution", "Kayhan and van Gemert, arXiv 2003.07064")
            .test(Test::exact("spread of the sums, relative", Relation::Below(1e-5)), "")
            .judge(&border("full")?)?,
    );
    claims.push(
        Claim::new("F2", "\"Same\" padding does not")
            .paper("borders leak position", "Kayhan and van Gemert, arXiv 2003.07064")
            .test(Test::exact("spread of the sums, relative", Relation::Above(1e-3)), "")
            .judge(&border("same")?)?,
    );
    claims.push(
        Claim::new("E2a", "Whether an unseen object is in the top or bottom half can be read off the fc feature")
            .paper("second experiment; its figures were not at hand", "arXiv 2011.04127, published code")
            .test(every("accuracy, objects left out, linear SVM", Relation::Above(0.9)), "")
            .judge(&fc_max.get("top_bottom_left_out")?)?,
    );
    claims.push(
        Claim::new("E2b", "It cannot be read off an invariant feature (circular, polyphase, gap)")
            .paper("not in the paper: a control", "ours")
            .test(every("accuracy, objects left out, linear SVM", Relation::Within([0.45, 0.55].into())), "")
            .judge(&polyphase.get("top_bottom_left_out")?)?,
    );
    claims.push(
        Claim::new(
            "E3",
            "Position is an additive code: what moving one object changes predicts the change of another (fc head)",
        )
        .paper("third experiment; neither figures nor code were at hand, the definition is ours", "ours")
        .test(every("lower end of the interval of cos(predicted) − cos(baseline)", Relation::Above(0.0)), "")
        .judge(&fc_max.get("arithmetic_low")?)?,
    );
    claims.push(
        Claim::new("C1", "The published networks at the paper's own sizes: 2.0 M and 4.5 M images")
            .paper("millions of images", ABSTRACT)
            .test(
                Test::exact(
                    "mean cosine of ResNet-50 fc, large objects, centre, blurred − plain",
                    Relation::Above(0.0),
                ),
                "",
            )
            .not_run(
                "needs the paper tier: checkpoints and cut-out objects in the data root's shift-invariance/, and a GPU",
            ),
    );
    section.claims = claims;

    let nets = Net::six().map(|(head, pool)| of(head, pool));
    section.tables = vec![overview(&nets)?, structure(&nets)?, layers(&nets)?];
    section.curves = vec![profile(&nets)?];
    section.attachments.extend(page::build(ask, results)?);
    section.notes = vec![
        "Objects are Fashion-MNIST test images of 20 × 20 on a black frame of 40 × 40 (21 × 21 positions), networks are trained within 3 px \
         of the centre. The feature is the 128-d layer before its ReLU. The paper moves COCO objects over ImageNet networks."
            .into(),
        "Networks of one head start from the same weights and see the same batches, whatever their pools. Claims that compare a blurred \
         network with a plain one (C4, C4-top1, C5-weak, C5-strong) are asked of the seeds whose accuracies on the test images at the centre \
         are at most 2 points apart. Three such seeds are needed, or both where there are two."
            .into(),
        "The strong form of the paper's claim on global invariance (C5-strong) is tested beside the weak form, because on networks this \
         small blur pools reach a good part of the frame: a shift of a few pixels is a tenth of it."
            .into(),
        "The repetition at 8 px is 1 − D(8) / ½ (D(7) + D(9)), where D(s) is the mean square of how much the differences of neighbours along \
         rows change over s px: 1 for a map that repeats exactly, about 0 for noise, less than 0.1 for a single slope or hill. C3c takes \
         the lower end of its 95 % bootstrap interval over objects."
            .into(),
    ];
    if !left_out.is_empty() {
        section.notes.push(format!("Not compared: {}.", left_out.join("; ")));
    }
    Ok(section)
}

/// The seeds whose networks may be compared. The choice looks at accuracies at the centre alone, not at what is compared.
struct Comparable {
    /// With the difference of accuracies.
    seeds: Samples,
    /// Of the other seeds, why not.
    left_out: Vec<String>,
}

impl Comparable {
    fn of(plain: &Samples, blurred: &Samples) -> Self {
        let gaps = blurred.minus(plain);
        let (mut seeds, mut left_out) = (Samples::default(), Vec::new());
        for (seed, gap) in gaps.seeds().into_iter().zip(gaps.values()) {
            if gap.abs() <= COMPARABLE {
                seeds.insert(seed, gap, []);
            } else {
                let points = 100.0 * gap.abs();
                left_out.push(format!("seed {seed}: accuracies at the centre differ by {points:.1} points"));
            }
        }
        // Where fewer are left than other claims have seeds, the others are what it lacks.
        if seeds.seeds().len() < gaps.seeds().len().min(ENOUGH) {
            left_out.iter().for_each(|reason| seeds.miss(reason));
        }
        Self { seeds, left_out }
    }

    /// A number of these seeds alone.
    fn only(&self, samples: &Samples) -> Samples {
        samples.combine(&self.seeds, |value, _| value)
    }
}

/// Consistency by size of the blur.
fn sizes(ask: &Ask, results: &Results) -> anyhow::Result<JudgedClaim> {
    let claim =
        Claim::new("Z1", "Consistency rises with the size of the blur: none < 2 < 3, and 4 and 5 no worse than 2")
            .paper("85.11, 86.90, 87.51, 88.07, 88.25 % for ResNet-18", "antialiased-cnns, README")
            .test(Test::mean("smallest of the four differences of consistency", Relation::AtLeast(0.0)), "points");
    if ask.tier == Tier::Quick {
        return Ok(claim.not_run("needs the standard tier, which trains all sizes"));
    }
    let consistency = |pool| anyhow::Ok(Of { results, head: Head::Average, pool }.get("consistency")?);
    let (plain, two, three) = (consistency(Pool::Max)?, consistency(Pool::Blur(2))?, consistency(Pool::Blur(3))?);
    let (four, five) = (consistency(Pool::Blur(4))?, consistency(Pool::Blur(5))?);
    let steps = two.minus(&plain).combine(&three.minus(&two), f64::min);
    let steps = steps.combine(&four.minus(&two), f64::min).combine(&five.minus(&two), f64::min);
    Ok(claim.judge(&steps.map(|share| 100.0 * share))?)
}

fn label(net: &Of) -> String {
    format!("{}, {}", net.head.label(), net.pool.label())
}

/// A row a network of `columns`: their titles, metrics and decimals.
fn table(title: &str, caption: &str, columns: &[(&str, &str, usize)], nets: &[Of]) -> anyhow::Result<Table> {
    let mut header = vec!["head, pool".to_owned()];
    header.extend(columns.iter().map(|column| column.0.to_owned()));
    let rows = nets.iter().map(|net| {
        let mut row = vec![label(net)];
        for &(_, metric, decimals) in columns {
            row.push(cell(&net.get(metric)?.values(), decimals));
        }
        anyhow::Ok(row)
    });
    Ok(Table { title: title.into(), caption: caption.into(), header, rows: rows.collect::<anyhow::Result<_>>()? })
}

fn overview(nets: &[Of]) -> anyhow::Result<Table> {
    let columns = [
        ("accuracy, test images, centre", "accuracy_centre", 3),
        ("accuracy, objects, centre", "accuracy_centre_objects", 3),
        ("accuracy, objects, frame", "accuracy_grid", 3),
        ("local drop (1)", "local_drop", 5),
        ("global drop", "global_drop", 4),
        ("jaggedness", "jaggedness", 5),
        ("P(top-1 change)", "top1_change", 3),
        ("MAC", "mean_absolute_change", 4),
        ("circular consistency", "consistency", 3),
        ("largest change under rolls", "roll_change", 6),
        ("mean from TL", "mean_TL", 4),
        ("mean from BR", "mean_BR", 4),
        ("top/bottom, left out", "top_bottom_left_out", 3),
        ("top/bottom, published folds", "top_bottom", 3),
        ("left/right, left out", "left_right_left_out", 3),
        ("arithmetic", "arithmetic", 4),
    ];
    let caption = "Means over test objects of the 128-d feature, centre anchor; shares from 0 to 1; mean ± half width of the 95 % interval \
                   over seeds. The accuracy of objects is that of the few moved ones, at the centre and over the whole frame.";
    table("Where invariance is lost: head, borders, aliasing", caption, &columns, nets)
}

fn structure(nets: &[Of]) -> anyhow::Result<Table> {
    let columns = [
        ("repetition at 8 px", "repetition", 3),
        ("lower end over objects", "repetition_low", 3),
        ("power at 8 px", "spectrum_8", 3),
        ("power at 4 px", "spectrum_4", 3),
        ("power at 2 px", "spectrum_2", 3),
    ];
    let caption = "Of the differences along rows of the map to the centre, means over test objects. Power: the share that a wave of this \
                   period explains; in random order they have about .15 at 8 and at 4 px and .08 at 2 px. 0 for a map without differences.";
    table("Does what varies repeat with the strides?", caption, &columns, nets)
}

fn layers(nets: &[Of]) -> anyhow::Result<Table> {
    let mut header = vec!["head, pool".to_owned()];
    header.extend(LAYERS.iter().map(|layer| format!("{layer}: local / global")));
    let rows = nets.iter().map(|net| {
        let mut row = vec![label(net)];
        for layer in LAYERS {
            let drop = |kind: &str| anyhow::Ok(cell(&net.get(&format!("{kind}_drop_{layer}"))?.values(), 5));
            row.push(format!("{} / {}", drop("local")?, drop("global")?));
        }
        anyhow::Ok(row)
    });
    Ok(Table {
        title: "Layer by layer".into(),
        caption:
            "Local drop (1 px) and global drop of each layer's feature (means over places for stages), centre anchor."
                .into(),
        header,
        rows: rows.collect::<anyhow::Result<_>>()?,
    })
}

fn profile(nets: &[Of]) -> anyhow::Result<Curve> {
    // The anchor is at row 9 of 21: 11 steps to the far edge.
    let distances = 0..=11;
    let mut series = Vec::new();
    for net in nets {
        let mut points = Vec::new();
        for distance in distances.clone() {
            let values = net.get(&format!("profile_{distance}"))?.values();
            points.extend(Point::of(distance as f64, &values));
        }
        series.push(Series { name: label(net), points });
    }
    Ok(Curve {
        title: "How far an object can move".into(),
        caption: "Mean cosine of the feature with that at the centre, by Chebyshev distance; bands are 95 % intervals over seeds.".into(),
        x: Axis::linear("distance, px"),
        y: Axis::linear("cosine"),
        series,
        levels: Vec::new(),
    })
}

/// The paper's own measurement on the user's checkpoints.
fn published(results: &Results) -> anyhow::Result<Section> {
    let mut section = Section::default();
    // Table: mean cosine over all positions, ResNet-50 logits.
    for (object, plain, blurred) in [(125, ".9613", ".9747"), (75, ".9487", ".9625")] {
        let of = |antialiased: bool| {
            let mine = move |run: &crate::Run| {
                run.params::<Published>()
                    .is_ok_and(|p| p.depth == 50 && p.antialiased == antialiased && p.object == object)
            };
            results.samples("mean_C", mine)
        };
        let claim =
            Claim::new(&format!("C1-{object}"), "Blur pools raise the mean similarity to the centre (ResNet-50 fc)")
                .paper(&format!("{plain} → {blurred}"), "the authors' logs, COCO objects on white")
                .test(Test::exact("mean cosine, blurred − plain", Relation::Above(0.0)), "");
        let gain = of(true)?.minus(&of(false)?);
        section.claims.push(claim.judge(&gain)?);
    }
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
    section.tables.push(Table {
        title: "Mean cosine over all positions".into(),
        caption: "By anchor; standard deviation over objects in brackets.".into(),
        header: ["", "TL", "TR", "C", "BL", "BR"].map(str::to_owned).into(),
        rows,
    });
    section.notes = vec![
        "Bring `shift-invariance/objects/*.png` (cut-out objects with transparency) and `shift-invariance/resnet50.safetensors`, \
         `resnet50-antialiased.safetensors` (blur pools of side 5, torchvision's names) in the data root; resnet18 likewise."
            .into(),
    ];
    Ok(section)
}

#[cfg(test)]
mod tests;
