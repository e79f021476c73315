//! The paper's claims as inequalities, and the figures beside them.

mod curves;
mod tables;

use super::settings::{Objective, Settings};
use super::transfer::FRESH;
use crate::section::Attachment;
use crate::{Ask, Claim, Interval, JudgedClaim, Relation, Results, Samples, Section, Test, statistics};

const TEXT: &str = "arXiv 2012.06908, text";
const OURS: &str = "ours";
const POINTS: &str = "points";
const STANDARD: &str = "needs the standard tier";
/// Why overlaps beyond chance are not judged: no objective's weights start where another's do.
const INDEPENDENT: &str = "independent starts leave no overlap beyond chance";
/// The round that the paper's claims of far sparsity are tried at: 89.3 %.
const FAR: u32 = 10;

pub(super) fn judge(ask: &Ask, results: &Results) -> anyhow::Result<Section> {
    let mut section = Section::default();
    let Some(settings) = Settings::of(ask)? else {
        let missing = "needs ImageNet's weights or a week of pre-training, and a GPU";
        let claim = Claim::new("T1", "Tickets of pre-training transfer as well as the dense network")
            .paper("67.23 %, 59.04 % and 59.04 % sparsity", TEXT)
            .test(Test::mean("A(ticket) − A(dense) + σ(dense), on the last task", Relation::AtLeast(0.0)), POINTS);
        section.claims.push(claim.not_run(missing));
        return Ok(section);
    };
    let view = View { settings: &settings, results };
    for objective in settings.objectives.iter().copied() {
        section.claims.extend(view.own_matching(objective)?);
        section.claims.push(view.own_task(objective)?);
        section.claims.extend(view.matching(objective)?);
        section.claims.extend(view.masks(objective)?);
        section.claims.extend(view.perturbed(objective)?);
        if settings.transfers.contains(&objective) {
            section.curves.push(view.curve(objective)?);
        }
    }
    section.claims.extend(view.overlap());
    section.claims.extend(view.kernels()?);
    section.claims.extend(view.scenes()?);
    section.claims.extend(left_open(&settings));
    section.curves.push(view.overlap_curve()?);
    section.curves.push(view.kernels_curve()?);
    section.tables.extend([
        view.own_task_table()?,
        view.own_score_table()?,
        view.one_shot_table()?,
        view.transfer_table()?,
        view.weights_table()?,
    ]);
    if settings.scenes.is_some() {
        section.tables.push(view.scenes_table()?);
    }
    let mut tables = Vec::new();
    for finished in results.finished(|run| run.kind == "overlap") {
        let table = std::fs::read_to_string(finished.artifact("layers.csv")?)?;
        let name = format!("cv-lth-layers-{}.csv", finished.run.seed);
        section.attachments.push(Attachment {
            name,
            title: "Overlap of each pair of masks, layer by layer, last round".into(),
            bytes: table.clone().into_bytes(),
        });
        tables.push(table);
    }
    section.curves.push(view.depth_curve(&tables)?);
    section.notes.extend(notes());
    Ok(section)
}

fn notes() -> Vec<String> {
    [
        "A seed is one pre-training of each objective. What is transferred has means over draws of few labels, on which all arms \
         of a seed are paired (T1, T2, T4); T0 is one training of the ticket and of one random mask, C3 a mean over repeats \
         with other heads and orders of the data, whose deviation is its σ, C4 a count. A claim's interval is over seeds, of \
         which there are few, so that `inconclusive` is to be expected wherever an effect is small.",
        "All seeds share the images of pre-training and the test images of source and target: intervals leave out what other \
         images would change.",
        "Matching (T1) is the paper's: the mean over draws is at least the dense mean less one standard deviation of the dense \
         scores over draws. The paper takes its deviation over three runs on the full downstream data, which is smaller; with \
         few labels the line lies lower and matching is easier. Ticket and dense network share their draws, so that a difference \
         well within σ may be there in every seed: the table of pre-trainings has it.",
        "C1 trains ticket, random mask and dense network from the pre-trained weights for one round of the search each, on the same \
         batches in the same order. Its score is test accuracy for supervised pre-training, and for the others how often an image's \
         other view is the nearest of all views in batches of 256 test images, on the backbone's features, as the reference code has \
         it of SimCLR. σ is over the dense trainings of the rounds that are tried, which differ in the order of the data, for SimCLR and MoCo in \
         their views too, and for MoCo in the queue's first keys. A round is short, so that the dense network may fall behind where it \
         began, as tickets may. C1 was not run before: its scores and the dense trainings had not been seen when it was written, the \
         nearest-neighbour figures of the same tickets and random masks (T0's table) had.",
        "The deviation of a seed's few draws is mostly noise. T1 and C3 therefore take one σ for all seeds, the root of the \
         mean of their variances, and its own error is no part of their intervals.",
        "The first convolution is not pruned, as in the paper; it is loaded, since source and target images have one size here.",
        "Masks found on the task itself come from a draw of labels that no score is taken on.",
        "Objectives start from initial weights of their own. Hidden units can change places, so that masks from independent \
         starts overlap as independent masks do, whatever the objectives learn: T3a could not fail and T3b could pass by \
         noise alone, and neither is judged. Masks of objectives that share a start overlap more, and not for what the \
         objectives learn.",
        "A short pre-training leaves its weights near those it began with. The table of one-shot pruning says how much of a ticket \
         the untrained weights would have kept too: that part is the initialisation's.",
        "C4 compares objectives whose images differ too: SimCLR and MoCo see crops, flips and changed colours, supervised \
         pre-training sees the images as they are, on CIFAR-10 too, without crop, flip or normalisation. Fine-tuning has none of \
         them either. What C4 finds between MoCo and supervised pre-training may be the augmentation's.",
        "T2c, and T4 against the ticket at fresh weights, were added by a review. m_T, found on labels of the task, has seen more of \
         them than m_P, which makes T2c harder to pass. The complement keeps 73.8 % of the weights, the ticket that it is held \
         against 26.2 %.",
        "(m_T, θ_5%), the task's own ticket rewound to 5 % of its training, is not run.",
        "Fresh weights θ_0 are one backbone a seed, whose own ticket's mask is found on it and tried on it; only heads are other \
         ones from draw to draw, as they are beside pre-trained weights.",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn left_open(settings: &Settings) -> Vec<JudgedClaim> {
    let elsewhere = Objective::ALL.into_iter().filter(|objective| !settings.objectives.contains(objective));
    let mut claims: Vec<JudgedClaim> =
        elsewhere.flat_map(own_matching_claims).map(|claim| claim.not_run(STANDARD)).collect();
    claims.extend([
        Claim::new("T5", "The temperature during the search hardly matters from 0.1 to 0.5 and hurts at 20")
            .paper("81.81, 81.91, 82.22 % at 0.1, 0.2, 0.5; 80.18 % at 20", "arXiv 2012.06908, table 2")
            .test(Test::mean("least A(ticket at τ of 0.1 to 0.5) − A(ticket at 20)", Relation::Above(0.0)), POINTS)
            .not_run("the small trainings here cannot resolve differences of one point"),
        Claim::new("T6", "A larger pre-trained network pruned to the size of a smaller one transfers better")
            .paper("ResNet-152 against ResNet-50", TEXT)
            .test(Test::mean("A(larger, pruned) − A(smaller, dense)", Relation::Above(0.0)), POINTS)
            .not_run("a second, larger pre-training does not fit the time of this tier"),
    ]);
    claims
}

/// The round at which a ticket is held against the dense network on the task that it was found on: the last up to which the paper's
/// match, or of MoCo's the last here.
pub(super) fn own_round(objective: Objective) -> u32 {
    match objective {
        Objective::Supervised => 5,
        Objective::SimClr => 4,
        Objective::MoCo => FAR,
    }
}

/// Claim C1, the paper's first, and its control.
fn own_matching_claims(objective: Objective) -> [Claim; 2] {
    let name = objective.name();
    let statement = format!(
        "On the task that it was found on, the ticket of {name} pre-training at {:.1} % matches the dense network",
        sparsity(own_round(objective))
    );
    let claim = Claim::new(&format!("C1-{name}"), &statement)
        .paper(&format!("matching up to {} % sparsity", own_matching_in_the_paper(objective)), TEXT)
        .test(
            Test::mean("score(m_P, θ_P) − score(dense, θ_P) + σ(dense), σ pooled over seeds", Relation::AtLeast(0.0)),
            POINTS,
        );
    // Where a random mask matches too, matching says nothing of the ticket.
    let control = Claim::new(&format!("C1-{name}-random"), "… and is better than a random mask there")
        .paper("not in the paper's text: a control", OURS)
        .test(
            Test::mean("score(m_P, θ_P) − score(random of the same layer densities, θ_P)", Relation::Above(0.0)),
            POINTS,
        );
    [claim, control]
}

/// The sparsity after a round, in percent: every round leaves four fifths.
fn sparsity(round: u32) -> f64 {
    100.0 * (1.0 - 0.8_f64.powi(round as i32))
}

/// The standard deviation within a seed, pooled over seeds of as many draws each: `√(mean of σ²)`. 0 of none.
fn pooled(deviations: &[f64]) -> f64 {
    let variances: Vec<f64> = deviations.iter().map(|deviation| deviation.powi(2)).collect();
    statistics::mean(&variances).unwrap_or_default().sqrt()
}

/// How far each seed's ticket lies above the line of matching, whose σ is pooled over seeds.
fn above_line(ticket: &Samples, dense: &Samples, deviations: &Samples) -> Samples {
    let deviation = pooled(&deviations.values());
    ticket.minus(dense).map(|difference| difference + deviation)
}

/// Up to which sparsity, in percent, the paper's tickets of an objective match: on every classification task, and on
/// CIFAR-100, the least of its tasks of small images.
fn matching_in_the_paper(objective: Objective) -> [&'static str; 2] {
    match objective {
        Objective::Supervised => ["67.23", "86.58"],
        Objective::SimClr => ["59.04", "86.58"],
        Objective::MoCo => ["59.04", "89.26"],
    }
}

/// The same on the pre-training's own task.
fn own_matching_in_the_paper(objective: Objective) -> &'static str {
    match objective {
        Objective::Supervised => "67.23",
        Objective::SimClr => "59.04",
        Objective::MoCo => "95.60",
    }
}

struct View<'a> {
    settings: &'a Settings,
    results: &'a Results,
}

impl View<'_> {
    fn pretraining(&self, objective: Objective, metric: &str) -> anyhow::Result<Samples> {
        Ok(self.results.samples(metric, move |run| run.kind == objective.pretraining())?)
    }

    fn transfer(&self, objective: Objective, metric: &str) -> anyhow::Result<Samples> {
        Ok(self.results.samples(metric, move |run| run.kind == objective.transfer())?)
    }

    fn fresh(&self, metric: &str) -> anyhow::Result<Samples> {
        Ok(self.results.samples(metric, |run| run.kind == FRESH)?)
    }

    fn scene(&self, metric: &str) -> anyhow::Result<Samples> {
        Ok(self.results.samples(metric, |run| run.kind == "scenes")?)
    }

    fn difference(&self, objective: Objective, better: &str, worse: &str) -> anyhow::Result<Samples> {
        Ok(self.transfer(objective, better)?.minus(&self.transfer(objective, worse)?))
    }

    /// What pre-trained weights add to a metric of fresh ones.
    fn gain(&self, objective: Objective, metric: &str) -> anyhow::Result<Samples> {
        Ok(self.transfer(objective, metric)?.minus(&self.fresh(metric)?))
    }

    /// Judges a claim on an objective's transfer, where the tier has one.
    fn judged(&self, objective: Objective, claim: Claim, samples: &Samples) -> anyhow::Result<JudgedClaim> {
        match self.settings.transfers.contains(&objective) {
            true => Ok(claim.judge(samples)?),
            false => Ok(claim.not_run(STANDARD)),
        }
    }

    fn own_matching(&self, objective: Objective) -> anyhow::Result<[JudgedClaim; 2]> {
        let round = own_round(objective);
        let score = |arm: &str| self.pretraining(objective, &format!("{arm}_score_{round}"));
        let [claim, control] = own_matching_claims(objective);
        let (ticket, deviations) = (score("ticket")?, self.pretraining(objective, "dense_score_std")?);
        let matching = claim.judge(&above_line(&ticket, &score("dense")?, &deviations))?;
        Ok([matching, control.judge(&ticket.minus(&score("random")?))?])
    }

    /// Claim T0, the positive control: whether a mask is worth something where it was found. Classes are the yardstick of every
    /// objective, of those too that never see them.
    fn own_task(&self, objective: Objective) -> anyhow::Result<JudgedClaim> {
        let name = objective.name();
        let knn = |arm: &str| self.pretraining(objective, &format!("{arm}_knn_{FAR}"));
        let statement = format!(
            "At 89.3 % the ticket of {name} pre-training beats a random mask on the images it was found on, by nearest \
             neighbours of their classes"
        );
        let quantity = "kNN(m_P, θ_P) − kNN(random of the same layer densities, θ_P), each after one round's training";
        let claim = Claim::new(&format!("T0-{name}"), &statement)
            .paper("not in the paper: a control", OURS)
            .test(Test::mean(quantity, Relation::Above(0.0)), POINTS);
        Ok(claim.judge(&knn("ticket")?.minus(&knn("random")?))?)
    }

    /// Claim T1, each with its control.
    fn matching(&self, objective: Objective) -> anyhow::Result<Vec<JudgedClaim>> {
        let name = objective.name();
        let [everywhere, least] = matching_in_the_paper(objective);
        let everywhere = format!("matching up to {everywhere} % on every classification task");
        let least = format!("matching up to {least} % on CIFAR-100, further on CIFAR-10, SVHN and Fashion-MNIST");
        let [dense, deviations] = [self.transfer(objective, "dense")?, self.transfer(objective, "dense_std")?];
        let mut claims = Vec::new();
        for (round, sparsity, paper) in [(3, "48.8 %", everywhere), (5, "67.2 %", least)] {
            let statement = format!(
                "The ticket of {name} pre-training at {sparsity} is within a standard deviation over draws of labels of the dense \
                 network, on a new task"
            );
            let quantity = "A(m_P, θ_P) − A(dense) + σ(dense), σ pooled over seeds";
            let claim = Claim::new(&format!("T1-{round}-{name}"), &statement)
                .paper(&paper, TEXT)
                .test(Test::mean(quantity, Relation::AtLeast(0.0)), POINTS);
            let ticket = self.transfer(objective, &format!("ticket_{round}"))?;
            claims.push(self.judged(objective, claim, &above_line(&ticket, &dense, &deviations))?);
            // Where a random mask matches too, matching says nothing of the ticket.
            let control =
                Claim::new(&format!("T1-{round}-{name}-random"), "… and better than a random mask does there")
                    .paper("not in the paper's text: a control", OURS)
                    .test(
                        Test::mean("A(m_P, θ_P) − A(random of the same layer densities, θ_P)", Relation::Above(0.0)),
                        POINTS,
                    );
            let random = self.transfer(objective, &format!("random_{round}"))?;
            claims.push(self.judged(objective, control, &ticket.minus(&random))?);
        }
        Ok(claims)
    }

    /// Claims T2a, T2b and T2c.
    fn masks(&self, objective: Objective) -> anyhow::Result<Vec<JudgedClaim>> {
        let name = objective.name();
        let above = |quantity: &str| Test::mean(quantity, Relation::Above(0.0));
        let mut claims = Vec::new();
        let claim =
            Claim::new(&format!("T2a-{name}"), &format!("At 89.3 % the mask of {name} pre-training beats random ones"))
                .paper("a baseline of the paper's curves, without a figure in its text", "arXiv 2012.06908")
                .test(above("A(m_P, θ_P) − A(random of the same layer densities, θ_P)"), POINTS);
        let far = self.difference(objective, &format!("ticket_{FAR}"), &format!("random_{FAR}"))?;
        claims.push(self.judged(objective, claim, &far)?);
        for (round, sparsity) in [(6, "73.8 %"), (FAR, "89.3 %")] {
            let statement =
                format!("At {sparsity} the task's own ticket is better from {name} weights than from fresh ones");
            let claim = Claim::new(&format!("T2b-{round}-{name}"), &statement)
                .paper("(m_T, θ_0) is below every pre-trained variant", TEXT)
                .test(above("A(m_T, θ_P) − A(m_T, θ_0)"), POINTS);
            claims.push(self.judged(objective, claim, &self.gain(objective, &format!("own_{round}"))?)?);
        }
        let statement = format!(
            "At 89.3 % the ticket of {name} pre-training beats the task's own from fresh weights, which was found on labels of \
             the task"
        );
        let claim = Claim::new(&format!("T2c-{name}"), &statement)
            .paper("(m_T, θ_0) is below every pre-trained variant", TEXT)
            .test(above("A(m_P, θ_P) − A(m_T, θ_0)"), POINTS);
        let far = self.transfer(objective, &format!("ticket_{FAR}"))?.minus(&self.fresh(&format!("own_{FAR}"))?);
        claims.push(self.judged(objective, claim, &far)?);
        Ok(claims)
    }

    /// Claim T4, and the identity E1.
    fn perturbed(&self, objective: Objective) -> anyhow::Result<Vec<JudgedClaim>> {
        let name = objective.name();
        let (paper, source) = match objective {
            Objective::Supervised => ("sensitive at θ_Img, not at θ_0 (CIFAR-100); tested: more at the former", TEXT),
            _ => ("not in the paper, which perturbs masks at supervised weights", OURS),
        };
        let mut claims = Vec::new();
        for (label, change) in
            [("flip", "10 % flips"), ("complement", "taking the complement"), ("random", "a random mask")]
        {
            let statement = format!("{change} cost more at {name} weights than at fresh ones");
            let quantity = "[A(m) − A(m′)] at θ_P − [A(m) − A(m′)] at θ_0, 73.8 %";
            let claim = Claim::new(&format!("T4-{label}-{name}"), &statement)
                .paper(paper, source)
                .test(Test::mean(quantity, Relation::Above(0.0)), POINTS);
            let changed = format!("own_{label}");
            let fresh = self.fresh("own_6")?.minus(&self.fresh(&changed)?);
            let samples = self.difference(objective, "own_6", &changed)?.minus(&fresh);
            claims.push(self.judged(objective, claim, &samples)?);
        }
        let (paper, source) = match objective {
            Objective::Supervised => ("(m^c, θ_Img) is no better than (m, θ_0)", TEXT),
            _ => ("not in the paper, which takes complements at supervised weights", OURS),
        };
        let statement =
            format!("The complement at {name} weights is no better than the task's own ticket at fresh ones");
        let claim = Claim::new(&format!("T4-complement-fresh-{name}"), &statement)
            .paper(paper, source)
            .test(Test::mean("A(m^c, θ_P) − A(m, θ_0), 73.8 %", Relation::AtMost(0.0)), POINTS);
        let above = self.transfer(objective, "own_complement")?.minus(&self.fresh("own_6")?);
        claims.push(self.judged(objective, claim, &above)?);
        let exact = Relation::Within(Interval { lo: 0.0, hi: 0.0 });
        let claim = Claim::new(&format!("E1-{name}"), "A ticket of sparsity 0 transfers exactly as the dense network")
            .paper("by definition", OURS)
            .test(Test::exact("A(mask of ones) − A(no mask)", exact), POINTS);
        claims.push(self.judged(objective, claim, &self.transfer(objective, "identity")?)?);
        Ok(claims)
    }

    /// Claims T3 on overlap, which independent starts settle beforehand.
    fn overlap(&self) -> Vec<JudgedClaim> {
        let mut claims = Vec::new();
        for other in self.settings.objectives.iter().skip(1).map(|objective| objective.name()) {
            let masks = format!("Masks of supervised and {other} pre-training");
            let within = Test::mean(
                "Jaccard − Jaccard of independent masks of these layer densities, 67.2 %",
                Relation::AtMost(0.03),
            );
            // Of independent masks too the Jaccard similarity falls with their density: only what falls beyond that counts.
            let falling = Test::mean("(Jaccard − chance) at 48.8 % − the same at 89.3 %", Relation::Above(0.0));
            claims.extend([
                Claim::new(
                    &format!("T3a-{other}"),
                    &format!("{masks} overlap at most 0.03 more than chance at 67.2 %"),
                )
                .paper("relative similarity below 6.55 % after five rounds; chance alone gives 19.6 %", TEXT)
                .test(within, "")
                .not_run(INDEPENDENT),
                Claim::new(
                    &format!("T3b-{other}"),
                    &format!("{masks} drift apart as they get sparser, beyond what chance does"),
                )
                .paper("less similar when sparser", TEXT)
                .test(falling, "")
                .not_run(INDEPENDENT),
            ]);
        }
        claims
    }

    /// Claims C4 on empty kernels, one an objective: the larger of two noisy counts lies above either one's mean.
    fn kernels(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let mut claims = Vec::new();
        for other in [Objective::Supervised, Objective::SimClr] {
            let name = other.name();
            let statement = format!("At 67.2 % MoCo's mask has more empty kernels than that of {name} pre-training");
            let claim = Claim::new(&format!("C4-{name}"), &statement)
                .paper("MoCo's have the most all-zero kernels until extreme sparsity", TEXT)
                .test(Test::mean(&format!("empty kernels, MoCo − {name}"), Relation::Above(0.0)), "kernels");
            if !self.settings.objectives.contains(&Objective::MoCo) {
                claims.push(claim.not_run(STANDARD));
                continue;
            }
            let more = self.zero_kernels(Objective::MoCo, 5)?.minus(&self.zero_kernels(other, 5)?);
            claims.push(claim.judge(&more)?);
        }
        Ok(claims)
    }

    /// Kernels of more than one weight of which a round left nothing.
    fn zero_kernels(&self, objective: Objective, round: u32) -> anyhow::Result<Samples> {
        let metric = format!("zero_kernels_{}_{round}", objective.name());
        Ok(self.results.samples(&metric, |run| run.kind == "overlap")?)
    }

    /// Claim C3.
    fn scenes(&self) -> anyhow::Result<Vec<JudgedClaim>> {
        let mut claims = Vec::new();
        for (task, metric, does, score, sparsity) in [
            ("segmentation", "miou", "segments scenes", "mIoU", "48.80 %"),
            ("detection", "ap50", "detects shapes", "AP50", "83.22 %"),
        ] {
            let statement = format!("At 48.8 % the supervised ticket {does} as well as the dense network");
            let quantity = format!("{score}(m_P, θ_P) − {score}(dense) + σ(dense), σ pooled over seeds");
            let claim = Claim::new(&format!("C3-{task}"), &statement)
                .paper(&format!("matching up to {sparsity} (supervised), {score}"), TEXT)
                .test(Test::mean(&quantity, Relation::AtLeast(0.0)), POINTS);
            if self.settings.scenes.is_none() {
                claims.push(claim.not_run(STANDARD));
                continue;
            }
            let of = |figure: &str| self.scene(&format!("{metric}_{figure}"));
            let margin = above_line(&of("ticket")?, &of("dense")?, &of("dense_std")?);
            claims.push(claim.judge(&margin)?);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_pooled_by_their_variances() {
        // √((1 + 49) / 2) = 5.
        assert_eq!(pooled(&[1.0, 7.0]), 5.0);
        assert_eq!(pooled(&[2.0, 2.0, 2.0]), 2.0);
        assert_eq!(pooled(&[]), 0.0);
    }

    #[test]
    fn every_seed_is_held_against_one_deviation() {
        let ticket = Samples::of([(0, 50.0), (1, 52.0)]);
        let dense = Samples::of([(0, 51.0), (1, 61.0)]);
        let deviations = Samples::of([(0, 1.0), (1, 7.0)]);
        // σ = 5: −1 + 5 and −9 + 5. By its own σ the second seed would lie at −2, by the first's at −8.
        assert_eq!(above_line(&ticket, &dense, &deviations).values(), [4.0, -4.0]);
        assert!(above_line(&Samples::default(), &dense, &deviations).values().is_empty());
    }
}
