//! Adaptation and fine-tuning: a network trained in full precision on one half of the data goes on in low precision on the
//! other. Adaptation halves the classes, fine-tuning the images.

use super::arms::{self, Arm};
use super::cases::drops;
use super::claims::{ABSTRACT, POINTS};
use super::train::{build, fit, read_weights, save_weights};
use super::view::{ACCURACY, CP, EVERYTHING, frontier, height};
use super::{GATED_REVISION, PAPER, REVISION, stages};
use crate::experiments::images::ImageSet;
use crate::experiments::training::{DataChoice, Loaders, Recipe};
use crate::section::{Table, cell};
use crate::{Ask, Claim, DataUse, JudgedClaim, Metrics, Plan, Relation, Results, Run, RunContext, Samples, Test};
use core_tensor::checkpoint::{LoadPolicy, Tolerance, load_state};
use core_tensor::data::{Augmentation, BatchSource, Dataset, Loader, LoaderConfig, OnDevice, Samples as _, Splits};
use core_tensor::networks::{Architecture, ConvNetConfig};
use core_tensor::seed::{Purpose, derive, generator};
use quant::fractrain::PlateauConfig;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

/// How kinds of runs begin.
const PRE_TRAINED: &str = "pre-trained";
const SEEDS: u64 = 6;
/// Of a training on one core, roughly; of one with gates.
const SECONDS: [f64; 2] = [12.0, 15.5];
/// Training images of a class, in both halves together.
const PER_CLASS: usize = 1_000;
const CLASSES: usize = 10;
/// How far below static training an accuracy may be, in points.
const MARGIN: f64 = -0.5;
/// When a stage of these ten epochs ends: after 2, 4 and 6 at the earliest, and each wait of the rule begins the last stage a tenth
/// later.
const PLATEAU: PlateauConfig = PlateauConfig { threshold: 0.3, ..arms::SMALL_PLATEAU };

/// A training on one half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Params {
    setting: Setting,
    /// Of one half: `train_images` are its images.
    recipe: Recipe,
    per_class: usize,
    part: Part,
}

/// What the halves are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Setting {
    /// Of the classes; the classifier starts anew.
    Adaptation,
    /// Of the images.
    FineTuning,
}

/// Which half is trained on, and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Part {
    /// The first, in full precision, from random weights.
    Source,
    /// The second, from what the first left.
    Target(Arm),
}

impl Setting {
    const ALL: [Self; 2] = [Self::Adaptation, Self::FineTuning];

    fn label(self) -> &'static str {
        match self {
            Self::Adaptation => "adaptation",
            Self::FineTuning => "fine-tuning",
        }
    }

    fn classes(self) -> usize {
        match self {
            Self::Adaptation => CLASSES / 2,
            Self::FineTuning => CLASSES,
        }
    }

    /// Training and test images of a half. The seed draws which classes, or which images, come first.
    fn half(self, splits: &Splits, per_class: usize, part: &Part, seed: u64) -> anyhow::Result<[Dataset; 2]> {
        let train = splits.train.balanced(per_class)?;
        let source = *part == Part::Source;
        match self {
            Self::Adaptation => {
                let mut classes = train.classes().to_vec();
                classes.shuffle(&mut generator(seed, Purpose::Data, 0));
                let (first, second) = classes.split_at(classes.len() / 2);
                let kept = if source { first } else { second };
                let of = |set: &Dataset| set.only_classes(|name| kept.iter().any(|class| class == name));
                Ok([of(&train)?, of(&splits.test)?])
            }
            Self::FineTuning => {
                let (first, second) = train.split(train.len() / 2, derive(seed, Purpose::Data, 0))?;
                Ok([if source { first } else { second }, splits.test.clone()])
            }
        }
    }
}

/// The small network of the quick tier.
fn params(set: ImageSet, setting: Setting, part: Part) -> Params {
    let classes = setting.classes() as i64;
    let mut recipe = Recipe {
        architecture: Architecture::ConvNet(ConvNetConfig { in_channels: 1, widths: vec![8, 16, 32, 32], classes }),
        data: DataChoice::Plain(set),
        train_images: PER_CLASS * CLASSES / 2,
        batch_size: 64,
        epochs: 10,
        // The second half starts from trained weights.
        peak: if part == Part::Source { 0.1 } else { 0.05 },
        milestones: Vec::new(),
        warm_up: 0,
        weight_decay: 1e-4,
        evaluate_every: 10,
    };
    recipe.milestones = drops(&recipe);
    Params { setting, recipe, per_class: PER_CLASS, part }
}

/// Progressive precision, and FracTrain.
fn methods() -> [Arm; 2] {
    [arms::pfq(PLATEAU), arms::fractrain(arms::SMALL_HIDDEN, PLATEAU)]
}

/// Static precisions, ascending in cost.
fn statics() -> Vec<Arm> {
    arms::statics(&arms::FRONTIER)
}

fn arms() -> impl Iterator<Item = Arm> {
    statics().into_iter().chain(methods())
}

pub(super) fn plan(ask: &Ask, plan: &mut Plan) -> anyhow::Result<()> {
    let set = ImageSet::grey(&ask.data)?;
    let mut data: DataUse = set.describe(PER_CLASS * CLASSES);
    data.set.push_str(" (adaptation and fine-tuning, half by half)");
    plan.data.push(data);
    for seed in ask.seeds(SEEDS) {
        for setting in Setting::ALL {
            let label = setting.label();
            let kind = format!("{PRE_TRAINED} for {label}");
            let run = ask.run(PAPER, &kind, seed, &params(set, setting, Part::Source))?;
            let [plain, gated] = SECONDS;
            let source = plan.add_weighted(run.at_revision(REVISION), plain);
            for arm in arms() {
                let kind = format!("{label} {}", arm.label());
                let (revision, seconds) =
                    if arm.gates().is_some() { (GATED_REVISION, gated) } else { (REVISION, plain) };
                let run = ask.run(PAPER, &kind, seed, &params(set, setting, Part::Target(arm)))?;
                plan.add_weighted(run.at_revision(revision).needing("source", &source), seconds);
            }
        }
    }
    Ok(())
}

/// Whether a run is of this part of the experiment.
pub(super) fn owns(run: &Run) -> bool {
    run.kind.starts_with(PRE_TRAINED) || Setting::ALL.iter().any(|setting| run.kind.starts_with(setting.label()))
}

pub(super) fn train(params: &Params, seed: u64, context: &mut RunContext) -> anyhow::Result<Metrics> {
    let Params { setting, recipe, part, .. } = params;
    let arm = match part {
        Part::Source => &Arm::FullPrecision,
        Part::Target(arm) => arm,
    };
    // Both parts start their own classifiers and gates alike.
    let net = build(recipe, arm, seed, context)?;
    let loaders = loaders(params, seed, context)?;
    if let Part::Target(_) = part {
        let classifier = net.model.network.classifier().to_owned();
        let policy = LoadPolicy {
            drop: if *setting == Setting::Adaptation { vec![classifier] } else { Vec::new() },
            // Gates and ranges, which the plain network has not.
            missing: Tolerance::Anywhere,
            ..LoadPolicy::strict()
        };
        load_state(&net.model.store, &read_weights(context.needed("source")?)?, &policy)?;
    }
    let (metrics, ..) = fit(context, (recipe, arm), &net, &loaders, seed)?;
    if *part == Part::Source {
        save_weights(context, &net.model.store)?;
    }
    Ok(metrics)
}

fn loaders(params: &Params, seed: u64, context: &RunContext) -> anyhow::Result<Loaders> {
    let Params { setting, recipe, per_class, part } = params;
    let DataChoice::Plain(set) = recipe.data else { anyhow::bail!("halves are made of plain images") };
    // The first images of a set are not balanced to the last one; a fifth more leaves enough of each class.
    let splits = set.load(context.data(), per_class * CLASSES * 6 / 5)?;
    let [train, test] = setting.half(&splits, *per_class, part, seed)?;
    let (found, expected) = (train.len(), recipe.train_images);
    anyhow::ensure!(found == expected, "half of the training set has {found} images, expected {expected}");
    let plain = Augmentation::new([set.normalise()]);
    let device = context.device().into();
    let source = |set: Dataset, config| -> anyhow::Result<Box<dyn BatchSource<Batch = core_tensor::data::Batch>>> {
        Ok(Box::new(OnDevice::new(Loader::new(set, &plain, config, seed)?, device)))
    };
    let (training, evaluation) = (LoaderConfig::training(recipe.batch_size), LoaderConfig::evaluation(500));
    Ok(Loaders { train: source(train, training)?, test: source(test, evaluation)? })
}

/// The claims, judged or not.
pub(super) fn claims(ran: bool, results: &Results) -> anyhow::Result<Vec<JudgedClaim>> {
    let mut claims = Vec::new();
    for (setting, suffixes) in
        [(Setting::Adaptation, ["a", "b", "c", "h"]), (Setting::FineTuning, ["d", "e", "f", "i"])]
    {
        for (claim, samples) in of_setting(setting, suffixes, results)? {
            let claim = claim.paper("comparable accuracy in adaptation and fine-tuning (no figures at hand)", ABSTRACT);
            claims.push(if ran { claim.judge(&samples)? } else { claim.not_run("needs --tier standard") });
        }
    }
    let (before, after) = (Part::Source, Part::Target(Arm::Static(8, 8)));
    let of = |part: &Part| metric(results, ACCURACY, Setting::FineTuning, part);
    let control = Claim::new("E5g", "Training on with the second half beats the pre-trained network, in fine-tuning")
        .paper("not in the paper: a control", "ours")
        .test(Test::mean("A(static 8/8, fine-tuned) − A(pre-trained)", Relation::Above(0.0)), POINTS);
    claims.push(if ran {
        control.judge(&of(&after)?.minus(&of(&before)?))?
    } else {
        control.not_run("needs --tier standard")
    });
    Ok(claims)
}

/// Both methods against static 8-bit training, and against static training at their own cost.
fn of_setting(setting: Setting, suffixes: [&str; 4], results: &Results) -> anyhow::Result<[(Claim, Samples); 4]> {
    let [pfq, fractrain] = methods();
    let of = |name: &str, arm: &Arm| metric(results, name, setting, &Part::Target(arm.clone()));
    let eight = of(ACCURACY, &Arm::Static(8, 8))?;
    let mut points = Vec::new();
    for arm in statics() {
        points.push((of(CP, &arm)?, of(ACCURACY, &arm)?));
    }
    let points = frontier(points);
    let gain = |arm: &Arm| -> anyhow::Result<Samples> { Ok(of(ACCURACY, arm)?.minus(&height(&points, &of(CP, arm)?))) };
    let what = setting.label();
    let within = |method: &str| {
        Test::mean(&format!("A({method}) − A(static 8/8), from a pre-trained network"), Relation::AtLeast(MARGIN))
    };
    let in_effect = |arm: &Arm| {
        let part = Part::Target(arm.clone());
        stages::in_effect(results, arm, |run| is(run, setting, &part))
    };
    let statement = |method: &str, arm: &Arm| {
        format!("{method}{} is within half a point of static 8-bit training in {what}", in_effect(arm))
    };
    let at_its_cost = |id: &str, name: &str, method: &str, arm: &Arm| -> anyhow::Result<(Claim, Samples)> {
        let statement = format!(
            "{method}{} is within half a point of static precision at the same cost in {what}, quantised layers only",
            in_effect(arm)
        );
        let test = Test::mean(&format!("A({name}) − static accuracy at its cost"), Relation::AtLeast(MARGIN));
        Ok((Claim::new(id, &statement).test(test, POINTS), gain(arm)?))
    };
    let [first, second, third, fourth] = suffixes.map(|suffix| format!("E5{suffix}"));
    Ok([
        (
            Claim::new(&first, &statement("Progressive precision", &pfq)).test(within("PFQ"), POINTS),
            of(ACCURACY, &pfq)?.minus(&eight),
        ),
        (
            Claim::new(&second, &statement("FracTrain", &fractrain)).test(within("FracTrain"), POINTS),
            of(ACCURACY, &fractrain)?.minus(&eight),
        ),
        at_its_cost(&third, "PFQ", "Progressive precision", &pfq)?,
        at_its_cost(&fourth, "FracTrain", "FracTrain", &fractrain)?,
    ])
}

fn metric(results: &Results, name: &str, setting: Setting, part: &Part) -> anyhow::Result<Samples> {
    Ok(results.samples(name, |run| is(run, setting, part))?)
}

fn is(run: &Run, setting: Setting, part: &Part) -> bool {
    owns(run) && run.params::<Params>().is_ok_and(|params| params.setting == setting && params.part == *part)
}

/// When stages ended, setting by setting.
fn stages_told(results: &Results) -> String {
    let tell = |setting: Setting, arm: Arm| {
        let part = Part::Target(arm.clone());
        let sentence = stages::sentence(results, &arm, |run| is(run, setting, &part));
        if sentence.is_empty() { sentence } else { format!(" In {}: {sentence}", setting.label()) }
    };
    Setting::ALL.into_iter().flat_map(|setting| methods().map(|arm| tell(setting, arm))).collect()
}

pub(super) fn table(results: &Results) -> anyhow::Result<Table> {
    let mut rows = Vec::new();
    let eight = Part::Target(Arm::Static(8, 8));
    for part in std::iter::once(Part::Source).chain(arms().map(Part::Target)) {
        let label = match &part {
            Part::Source => "pre-trained on the first half, full precision".into(),
            Part::Target(arm) => arm.label(),
        };
        let mut row = vec![label];
        for setting in Setting::ALL {
            let of = |name: &str, part: &Part| metric(results, name, setting, part);
            row.push(cell(&of(ACCURACY, &part)?.values(), 2));
            row.push(cell(&of(CP, &part)?.values(), 2));
            row.push(cell(&of(EVERYTHING, &part)?.over(&of(EVERYTHING, &eight)?).values(), 2));
        }
        rows.push(row);
    }
    Ok(Table {
        title: "Going on from a pre-trained network".into(),
        caption: format!(
            "The small ConvNet on halves of 10,000 images: of the classes (adaptation, another five classes to tell apart, so \
             that its first row is of another task) or of the images (fine-tuning). Mean ± half the 95 % interval over \
             seeds. Cost is that of the quantised layers, in percent of full precision; everything counted, layers in full \
             precision and gates too, it is given over that of static 8/8.{}",
            stages_told(results)
        ),
        header: [
            "method",
            "adaptation: accuracy (%)",
            "cost (%)",
            "everything ÷ static 8/8",
            "fine-tuning: accuracy (%)",
            "cost (%)",
            "everything ÷ static 8/8",
        ]
        .map(String::from)
        .to_vec(),
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_tensor::data::ShapeGenerator;
    use std::collections::BTreeSet;

    #[test]
    fn halves_share_no_class_or_no_image_and_make_up_the_whole() {
        let splits = ShapeGenerator::fashion_mnist().splits(120, 60, 1).unwrap();
        let of = |setting: Setting, part: &Part| setting.half(&splits, 8, part, 5).unwrap();
        let target = Part::Target(Arm::FullPrecision);
        let [first, second] = [&Part::Source, &target].map(|part| of(Setting::Adaptation, part));
        let classes = |sets: &[Dataset; 2]| sets[0].classes().iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!((classes(&first).len(), classes(&second).len()), (5, 5));
        assert!(classes(&first).is_disjoint(&classes(&second)));
        assert_eq!((first[0].len(), second[0].len()), (40, 40));
        assert_eq!(first[1].len() + second[1].len(), 60);

        let [first, second] = [&Part::Source, &target].map(|part| of(Setting::FineTuning, part));
        assert_eq!((first[0].len(), second[0].len(), first[1].len()), (40, 40, 60));
        let mut found: Vec<&[u8]> =
            first[0].pixels().chunks(28 * 28).chain(second[0].pixels().chunks(28 * 28)).collect();
        found.sort_unstable();
        found.dedup();
        // The generator draws no image twice.
        assert_eq!(found.len(), 80);
    }
}
