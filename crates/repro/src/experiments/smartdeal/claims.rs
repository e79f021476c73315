//! What the papers' abstracts claim, as inequalities on small counterparts.

use super::network::rivals;
use super::{energy, images, training_energy};
use crate::section::{Table, cell};
use crate::{Claim, JudgedClaim, Relation, Results, Samples, Section, Test, Tier};
use quant::smartdeal::train::CoefficientMode;

const ABSTRACT: &str = "arXiv 2101.01163, abstract";
const EXCHANGE: &str = "arXiv 2005.03403, abstract";
const POINTS: &str = "points";

pub(super) fn judge(tier: Tier, results: &Results) -> anyhow::Result<Section> {
    let of = |kind: &'static str| move |metric: &str| results.samples(metric, move |run| run.kind == kind);
    let (blocks, network, learning, energy) = (of("blocks"), of("network"), of("learning"), of("energy"));
    let every = |quantity: &str, relation| Test::every(quantity, relation);
    let mut section = Section::default();

    let best_rival = |theta: &str| -> anyhow::Result<Samples> {
        let mut best = network(&format!("k_means_{theta}"))?;
        for (rival, _) in rivals() {
            best = best.combine(&network(&format!("{rival}_{theta}"))?, f64::max);
        }
        Ok(best)
    };
    // An arm whose coefficients all stayed is the frozen one under another name.
    let mut moving = Vec::new();
    for mode in ["requantise", "switch"] {
        if learning(&format!("{mode}_moved"))?.values().iter().all(|share| *share > 0.0) {
            moving.push(learning(mode)?);
        }
    }
    let better_update = moving.into_iter().reduce(|best, other| best.combine(&other, f64::max));
    let no_harm = Claim::new("S7b", "Moving coefficients too does no harm")
        .paper("training in this form with negligible accuracy loss", ABSTRACT)
        .test(every("best A − A(frozen) of the updates that moved coefficients", Relation::AtLeast(-1.0)), POINTS);
    let no_harm = match better_update {
        Some(best) => no_harm.judge(&best.minus(&learning("frozen")?))?,
        None => no_harm.not_run("no coefficient moved"),
    };
    let kept = ["frozen", "requantise", "switch"].map(|mode| learning(&format!("{mode}_zeros_kept")));
    let [frozen_kept, requantise_kept, switch_kept] = kept;
    let all_kept = frozen_kept?.combine(&requantise_kept?, f64::min).combine(&switch_kept?, f64::min);
    section.claims = vec![
        Claim::new("S1", "A network read from its file and run from codes predicts as its rebuilt weights do")
            .paper("weights are a small basis times sparse powers of two", ABSTRACT)
            .test(every("share of equal predictions", Relation::AtLeast(0.999)), "")
            .judge(&network("agreement_0.2")?)?,
        Claim::new("S2a", "Fitting basis and powers of two together beats rounding as many weights, at six thresholds")
            .paper("joint pruning, decomposition and quantisation beats each alone", EXCHANGE)
            .test(every("largest ratio of errors, joint over rounded", Relation::AtMost(0.98)), "")
            .judge(&blocks("worst_ratio")?)?,
        Claim::new("S2b", "The basis helps the more the columns correlate")
            .paper("not in the papers: the mechanism", "ours")
            .test(every("largest rise of the error with the correlation", Relation::Below(0.0)), "")
            .judge(&blocks("largest_rise")?)?,
        Claim::new("S2c", "Rounding alone does not profit from correlation")
            .paper("not in the papers: a control", "ours")
            .test(every("spread of the error over correlations", Relation::Below(0.02)), "")
            .judge(&blocks("rounded_spread")?)?,
        Claim::new("S3a", "One-shot compression loses no more than rounding as many weights (θ = 0.1)")
            .paper("joint beats each alone", EXCHANGE)
            .test(every("A(SmartDeal) − A(rounded)", Relation::AtLeast(0.0)), POINTS)
            .judge(&network("one_shot_0.1")?.minus(&network("rounded_0.1")?))?,
        Claim::new("S3b", "One-shot compression is clearly better at high sparsity (θ = 0.2)")
            .paper("joint beats each alone", EXCHANGE)
            .test(every("A(SmartDeal) − A(rounded)", Relation::AtLeast(3.0)), POINTS)
            .judge(&network("one_shot_0.2")?.minus(&network("rounded_0.2")?))?,
        Claim::new("S3c", "Alternate re-training recovers accuracy (θ = 0.2)")
            .paper("negligible accuracy loss", ABSTRACT)
            .test(every("A(re-trained) − A(one shot)", Relation::AtLeast(5.0)), POINTS)
            .judge(&network("retrained_0.2")?.minus(&network("one_shot_0.2")?))?,
        Claim::new(
            "S4",
            "At equal bits it beats the best of pruning + k-means, + 8 bits, + powers of two, and low rank",
        )
        .paper("better than pruning-only, decomposition-only and quantisation-only", EXCHANGE)
        .test(Test::mean("A(SmartDeal) − A(best rival), one shot, θ = 0.2", Relation::Above(0.0)), POINTS)
        .judge(&network("one_shot_0.2")?.minus(&best_rival("0.2")?))?,
        Claim::new("S5", "The file on disk is at least 8 times smaller than the dense checkpoint (θ = 0.2)")
            .paper("10.56 × less storage in training", ABSTRACT)
            .test(every("bytes(dense) / bytes(.sdz)", Relation::AtLeast(8.0)), "×")
            .judge(&network("file_ratio_0.2")?)?,
        Claim::new("S6", "Compressed inference takes less energy than dense 8-bit weights on the same chip")
            .paper("up to 2.44 × better energy efficiency, measured on hardware", ABSTRACT)
            .test(every("energy(dense) / energy(SmartDeal), ResNet-20", Relation::Above(1.0)), "×")
            .judge(&energy("energy_ratio")?)?,
        Claim::new("S7a", "Training only the bases on new data improves a compressed network")
            .paper("training in this form with negligible accuracy loss", ABSTRACT)
            .test(every("A(frozen coefficients) − A(start)", Relation::Above(0.0)), POINTS)
            .judge(&learning("frozen")?.minus(&learning("start")?))?,
        no_harm,
        Claim::new("S7c", "Switching coefficients a rung at a time beats training the bases alone")
            .paper("training in this form with negligible accuracy loss", ABSTRACT)
            .test(Test::mean("A(switch) − A(frozen)", Relation::Above(0.0)), POINTS)
            .judge(&learning("switch")?.minus(&learning("frozen")?))?,
        Claim::new("S7d", "The structure holds throughout training: what was zero stays zero")
            .paper("structurally sparse coefficients", ABSTRACT)
            .test(Test::exact("1 where every masked coefficient stayed 0", Relation::AtLeast(1.0)), "")
            .judge(&all_kept)?,
    ];

    section.claims.extend(on_training_energy(results)?);
    section.claims.extend(on_images(tier, results)?);
    if tier == Tier::Standard {
        section.tables.push(image_table(results)?);
    }

    let row = |label: &str, metric: &str| -> anyhow::Result<Vec<String>> {
        let at = |theta: &str| Ok::<_, anyhow::Error>(cell(&network(&format!("{metric}_{theta}"))?.values(), 2));
        Ok(vec![label.to_owned(), at("0.1")?, at("0.2")?])
    };
    section.tables.push(Table {
        title: "A small network, compressed".into(),
        caption:
            "Accuracy in percent, one shot unless said; rivals get the same bits a layer, but for rounding, which \
                  gets the same number of non-zeros. Mean ± half width of the 95 % interval."
                .into(),
        header: ["", "θ = 0.1", "θ = 0.2"].map(String::from).into(),
        rows: vec![
            row("zeros, %", "zeros")?,
            row("dense bytes / file bytes", "file_ratio")?,
            row("SmartDeal", "one_shot")?,
            row("SmartDeal, bases not rounded to 8 bits", "one_shot_float_basis")?,
            row("SmartDeal, re-trained", "retrained")?,
            row("rounded, no basis", "rounded")?,
            row("pruned + k-means, 4 bits", "k_means")?,
            row("pruned + uniform, 8 bits", "uniform")?,
            row("pruned + powers of two, 4 bits", "powers_of_two")?,
            row("low rank, 8 bits", "low_rank")?,
        ],
    });
    let learned = |label: &str, metric: &str| -> anyhow::Result<Vec<String>> {
        let moved = match metric {
            "dense" | "start" => "–".into(),
            mode => cell(&learning(&format!("{mode}_moved"))?.values(), 2),
        };
        Ok(vec![label.to_owned(), cell(&learning(metric)?.values(), 2), moved])
    };
    section.tables.push(Table {
        title: "Learning in this form".into(),
        caption: "Accuracy in percent after six epochs on the other half of the data; moved: coefficients, of those that are \
                  not zero, with another value in the end than at the start."
            .into(),
        header: ["", "accuracy", "moved, %"].map(String::from).into(),
        rows: vec![
            learned("dense, before", "dense")?,
            learned("compressed, before", "start")?,
            learned("bases only", "frozen")?,
            learned("coefficients rounded at each step", "requantise")?,
            learned("coefficients switched a rung at a time", "switch")?,
        ],
    });
    section.tables.push(energy::table(results)?);
    section.tables.push(training_table(results)?);
    section.notes = vec![
        "The papers' bodies were not at hand: thresholds of the tests are ours, the papers' figures are those of their \
         abstracts."
            .into(),
        "The energy run prices ResNet-20 with its first random weights, half of the kernel rows pruned: it tests the \
         accounting and the direction, not an accuracy. Unit energies are the accelerator preset's."
            .into(),
        "Training energies are our model's of a step, on one chip for all forms; they are not the paper's. They leave out \
         norms, and price the gradient of every weight, kept or not. Which operands the paper's figure rests on is not known \
         to us: its published training code leaves activations and gradients in full precision."
            .into(),
        "The small network has no batch norm; moving many coefficients a step makes it diverge, hence the guard of one \
         in a thousand. Rounding after each step loses steps below half a rung. An update that moved no coefficient is training \
         the bases alone, and S7b leaves it out."
            .into(),
        "S9f was added after the figures of S9d had been seen. It compares with the dense network as it was compressed, after \
         eight epochs; what six more epochs would give that network is not measured."
            .into(),
    ];
    Ok(section)
}

/// A form's energy of a training step, or a part of it, in µJ an image.
fn training(results: &Results, network: &str, form: &str, part: &str) -> anyhow::Result<Samples> {
    let part = if part.is_empty() { String::new() } else { format!("_{part}") };
    Ok(results.samples(&format!("{network}_{form}{part}"), |run| run.kind == "training-energy")?)
}

fn on_training_energy(results: &Results) -> anyhow::Result<Vec<JudgedClaim>> {
    let mut claims = Vec::new();
    for ((network, name), [a, b, c, d]) in
        training_energy::NETWORKS.iter().zip([["S8a", "S8b", "S8c", "S8d"], ["S8e", "S8f", "S8g", "S8h"]])
    {
        let ratio = |theirs: &str, ours: &str, part: &str| -> anyhow::Result<Samples> {
            Ok(training(results, network, theirs, part)?.over(&training(results, network, ours, part)?))
        };
        let of = |id: &str, statement: &str, quantity: &str, relation| {
            Claim::new(id, &format!("{statement} ({name}, modelled)"))
                .paper("4.48 × less training energy", ABSTRACT)
                .test(Test::every(quantity, relation), "×")
        };
        claims.extend([
            of(
                a,
                "Training in this form with 8-bit activations and gradients takes 4.48 times less energy than dense training \
                 in full precision",
                "energy(dense, full precision) / energy(SmartDeal, 8 bits)",
                Relation::AtLeast(4.48),
            )
            .judge(&ratio("dense32", "switched", "")?)?,
            of(
                b,
                "So it does with activations and gradients in full precision, as the published code trains",
                "energy(dense, full precision) / energy(SmartDeal, full precision)",
                Relation::AtLeast(4.48),
            )
            .judge(&ratio("dense32", "switched32", "")?)?,
            of(
                c,
                "With 8 bits on both sides it takes less energy too",
                "energy(dense, 8 bits) / energy(SmartDeal, 8 bits)",
                Relation::Above(1.0),
            )
            .judge(&ratio("dense8", "switched", "")?)?,
            of(
                d,
                "Its optimizer moves less through DRAM than that of dense 8-bit training",
                "optimizer's DRAM energy(dense, 8 bits) / the same (SmartDeal)",
                Relation::Above(1.0),
            )
            .judge(&ratio("dense8", "switched", "state")?)?,
        ]);
    }
    Ok(claims)
}

fn training_table(results: &Results) -> anyhow::Result<Table> {
    let mut rows = Vec::new();
    for (network, name) in training_energy::NETWORKS {
        for (form, label) in training_energy::FORMS {
            let mut row = vec![format!("{name}, {label}")];
            let parts = training_energy::PARTS.iter().map(|(part, _)| *part);
            for part in parts.chain([""]) {
                row.push(cell(&training(results, network, form, part)?.values(), 2));
            }
            rows.push(row);
        }
    }
    let parts = training_energy::PARTS.map(|(_, label)| label.to_owned());
    Ok(Table {
        title: "A training step on the accelerator model".into(),
        caption: "µJ an image at 128 images a step of 32 × 32; half of the kernel rows pruned, θ = 0.004, random weights. Modelled."
            .into(),
        header: std::iter::once("".to_owned()).chain(parts).chain(["sum".to_owned()]).collect(),
        rows,
    })
}

/// A metric of the compressed networks on images at one share of zeros.
fn retrained(results: &Results, metric: &str, zeros: f64) -> anyhow::Result<Samples> {
    let at = move |run: &crate::Run| {
        run.kind == "retrained" && run.params::<images::Retrained>().is_ok_and(|params| params.zeros == zeros)
    };
    Ok(results.samples(metric, at)?)
}

/// A metric of the networks that learned in SmartDeal form on images, with coefficients that stay or that move.
fn learned(results: &Results, metric: &str, frozen: bool) -> anyhow::Result<Samples> {
    let of = move |run: &crate::Run| {
        let stay = |params: images::Learned| params.update.mode == CoefficientMode::Frozen;
        run.kind == "learned" && run.params().is_ok_and(|params| stay(params) == frozen)
    };
    Ok(results.samples(metric, of)?)
}

/// What compression costs a convolutional network on images.
fn on_images(tier: Tier, results: &Results) -> anyhow::Result<[JudgedClaim; 6]> {
    let every = |quantity: &str, relation| Test::every(quantity, relation);
    let claims = [
        Claim::new(
            "S9a",
            "On images, half of the coefficients zero and two epochs of re-training lose at most a point",
        )
        .paper("negligible accuracy loss", ABSTRACT)
        .test(every("A(re-trained at 50 % zeros) − A(dense)", Relation::AtLeast(-1.0)), POINTS),
        Claim::new("S9b", "There the file is at least 8 times smaller than the dense checkpoint")
            .paper("10.56 × less storage in training", ABSTRACT)
            .test(every("bytes(dense) / bytes(.sdz), 50 % zeros", Relation::AtLeast(8.0)), "×"),
        Claim::new("S9c", "Accuracy falls as zeros grow, from 50 to 70 to 85 %")
            .paper("not in the papers: the trade", "ours")
            .test(every("smallest fall from one share to the next", Relation::AtLeast(0.0)), POINTS),
        Claim::new("S9d", "Half of the coefficients zero and six epochs in SmartDeal form lose at most a point")
            .paper("training in this form with negligible accuracy loss", ABSTRACT)
            .test(every("A(learned in form at 50 % zeros) − A(dense)", Relation::AtLeast(-1.0)), POINTS),
        Claim::new(
            "S9f",
            "Six epochs in which coefficients stay, and bases, norms and dense layers learn, lose at most a point",
        )
        .paper("training in this form with negligible accuracy loss", ABSTRACT)
        .test(every("A(bases learned at 50 % zeros) − A(dense)", Relation::AtLeast(-1.0)), POINTS),
        Claim::new("S9e", "No zero is lost or made there: as many as asked for, within half a percent")
            .paper("structurally sparse coefficients", ABSTRACT)
            .test(every("|zeros in the end − 50|", Relation::AtMost(0.5)), "%"),
    ];
    if tier != Tier::Standard {
        return Ok(claims.map(|claim| claim.not_run("needs --tier standard")));
    }
    let [half, more, most] = super::ZEROS.map(|zeros| retrained(results, "test_accuracy", zeros));
    let (half, more, most) = (half?, more?, most?);
    let dense = results.samples("test_accuracy", |run| run.kind == "trained")?;
    let [a, b, c, d, f, e] = claims;
    let bases = learned(results, "test_accuracy", true)?;
    let learned = |metric: &str| learned(results, metric, false);
    Ok([
        a.judge(&half.minus(&dense))?,
        b.judge(&retrained(results, "file_ratio", super::ZEROS[0])?)?,
        c.judge(&half.minus(&more).combine(&more.minus(&most), f64::min))?,
        d.judge(&learned("test_accuracy")?.minus(&dense))?,
        f.judge(&bases.minus(&dense))?,
        e.judge(&learned("zeros")?.map(|zeros| (zeros - 100.0 * super::ZEROS[0]).abs()))?,
    ])
}

fn image_table(results: &Results) -> anyhow::Result<Table> {
    let row = |label: &str, metric: &str| -> anyhow::Result<Vec<String>> {
        let mut row = vec![label.to_owned()];
        for zeros in super::ZEROS {
            row.push(cell(&retrained(results, metric, zeros)?.values(), 2));
        }
        Ok(row)
    };
    let form = |label: &str, metric: &str, frozen: bool| -> anyhow::Result<Vec<String>> {
        let samples = learned(results, metric, frozen)?;
        Ok(vec![label.to_owned(), cell(&samples.values(), 2), "–".into(), "–".into()])
    };
    let dense = results.samples("test_accuracy", |run| run.kind == "trained")?;
    Ok(Table {
        title: "A network on images, compressed".into(),
        caption: format!(
            "Accuracy in percent; dense: {}. Re-trained for two epochs, each followed by a decomposition; learned in form for six.",
            cell(&dense.values(), 2)
        ),
        header: ["", "50 % zeros", "70 %", "85 %"].map(String::from).into(),
        rows: vec![
            row("zeros in the end, %", "zeros")?,
            row("one shot", "one_shot")?,
            row("re-trained", "test_accuracy")?,
            row("dense bytes / file bytes", "file_ratio")?,
            form("learned in form, zeros in the end, %", "zeros", false)?,
            form("learned in form, coefficients moved, %", "moved", false)?,
            form("learned in form", "test_accuracy", false)?,
            form("learned in form, bases not rounded to 8 bits", "float_basis_accuracy", false)?,
            form("learned in form, dense bytes / file bytes", "file_ratio", false)?,
            form("bases learned, coefficients as they were", "test_accuracy", true)?,
            form("bases learned, not rounded to 8 bits", "float_basis_accuracy", true)?,
            form("bases learned, dense bytes / file bytes", "file_ratio", true)?,
        ],
    })
}
