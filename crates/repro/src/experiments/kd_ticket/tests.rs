use super::arms::Arm;
use super::*;
use crate::{DataRoot, Device, Tier, Verdict};
use std::collections::BTreeSet;

fn ask(tier: Tier, data: &Path) -> Ask {
    Ask { tier, seeds: None, device: Device::Cpu, data: DataRoot::at(data) }
}

#[test]
fn a_quick_plan_pairs_every_ticket_with_the_dense_run_of_its_seed() {
    let empty = tempfile::tempdir().unwrap();
    let plan = KdTicket.plan(&ask(Tier::Quick, empty.path())).unwrap();
    let ids: BTreeSet<_> = plan.runs.iter().map(|planned| planned.run.id()).collect();
    assert_eq!(ids.len(), plan.runs.len());
    // Five seeds of a dense run and five arms, three of five controls; two seeds of seven arms at another density.
    assert_eq!(plan.runs.len(), 5 * (1 + 5) + 3 * 5 + 2 * 7);
    let dense = |seed| plan.runs.iter().find(|planned| planned.run.needs.is_empty() && planned.run.seed == seed);
    for planned in plan.runs.iter().filter(|planned| !planned.run.needs.is_empty()) {
        assert_eq!(planned.run.needs["dense"], dense(planned.run.seed).unwrap().run.id());
    }
    assert!(plan.data[0].set.contains("generated shapes"), "a substitute must be named: {:?}", plan.data);
}

#[test]
fn standard_plans_scan_settings_and_keep_every_step_that_an_arm_starts_from() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("cifar-10-jpeg")).unwrap();
    for case in cases::of(&ask(Tier::Standard, folder.path())).unwrap() {
        let kept = case.dense_params().keep;
        for ticket in case.tickets(0) {
            let plan = ticket.rewind.plan(&case.recipe.schedule(), case.recipe.steps()).unwrap();
            assert!(kept.contains(&plan.weights_from), "{} starts from step {}", ticket.label, plan.weights_from);
        }
    }
}

#[test]
fn every_rewinding_has_all_seeds_and_controls_have_fewer() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("cifar-10-jpeg")).unwrap();
    let cases = cases::of(&ask(Tier::Standard, folder.path())).unwrap();
    let resnet = &cases[1];
    let Case { distill, rewind, seeds, .. } = *resnet;
    let labels = |part: Part, seed: u64| -> Vec<String> {
        resnet.tickets_of(part, seed).into_iter().map(|ticket| ticket.label).collect()
    };
    let rewound = [
        Arm::WeightRewind(rewind),
        Arm::KdWeightRewind(rewind, distill),
        Arm::LearningRateRewind(rewind),
        Arm::KdLearningRateRewind(rewind, distill),
    ];
    let last = labels(Part::Core, seeds - 1);
    assert!(rewound.iter().all(|arm| last.contains(&arm.label())), "{last:?}");
    assert!(labels(Part::Rest, seeds - 1).is_empty());
    let controls =
        [Arm::Redrawn, Arm::RandomMask, Arm::Reinitialised, Arm::KdOfClasses(distill), Arm::KdUniform(distill)];
    assert_eq!(labels(Part::Rest, 0), controls.map(Arm::label));
}

#[test]
fn controls_differ_in_one_thing_from_what_they_control() {
    let empty = tempfile::tempdir().unwrap();
    let cases = cases::of(&ask(Tier::Quick, empty.path())).unwrap();
    let case = &cases[0];
    let distill = case.distill;
    let of = |arm: Arm| TicketParams { label: String::new(), ..arm.params(&case.recipe, case.density, &case.unpruned) };
    let (original, kd) = (of(Arm::Original), of(Arm::Kd(distill)));
    assert_eq!(of(Arm::Redrawn), TicketParams { start: Start::Redrawn, ..original.clone() });
    assert_eq!(of(Arm::Reinitialised), TicketParams { start: Start::Reinitialised, ..original.clone() });
    assert_eq!(of(Arm::RandomMask), TicketParams { shuffle_mask: true, ..original.clone() });
    assert_eq!(of(Arm::KdOfClasses(distill)), TicketParams { teacher: Teacher::OfClasses(distill), ..kd.clone() });
    assert_eq!(of(Arm::KdUniform(distill)), TicketParams { teacher: Teacher::Uniform(distill), ..kd.clone() });
    // 960 steps, each a third longer beside a teacher; one epoch of 32 where the teacher is averaged beforehand.
    let steps = |ticket: &TicketParams| ticket.effort(&case.recipe) / case.recipe.step_seconds();
    let expected: [(TicketParams, f64); 3] =
        [(original, 960.0), (kd, 1280.0), (of(Arm::KdUniform(distill)), 960.0 + 32.0 / 3.0)];
    assert!(expected.iter().all(|(ticket, expected)| (steps(ticket) - expected).abs() < 1e-9));
}

#[test]
fn re_training_has_a_data_order_and_redrawn_weights_of_its_own() {
    // Dense trainings have the seeds from 0 on.
    let seeds = (0..10).flat_map(|seed| [seed, retraining_seed(seed), redrawn_seed(seed)]);
    assert_eq!(seeds.collect::<BTreeSet<u64>>().len(), 30);
}

#[test]
fn the_paper_tier_follows_the_reference_scripts() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["cifar-10-jpeg", "imagenet"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let cases = cases::of(&ask(Tier::Paper, folder.path())).unwrap();
    let names: Vec<_> = cases.iter().map(|case| case.network).collect();
    assert_eq!(names, ["ResNet-20", "ResNet-56", "ResNet-110", "ResNet-50"]);
    // 45,000 training images in batches of 128.
    let resnet = &cases[1];
    assert_eq!((resnet.recipe.train_images, resnet.recipe.steps_per_epoch()), (45_000, 352));
    assert_eq!(resnet.recipe.milestones, [90 * 352, 135 * 352]);
    // 182 epochs, drops at 90 and 135, rewinding to 33: the re-training drops at 57 and 102.
    let rest = resnet.recipe.schedule().starting_at(resnet.rewind);
    let rate = |epoch: u64| rest.learning_rate(epoch * resnet.recipe.steps_per_epoch());
    assert!((rate(56) - 0.1).abs() < 1e-12 && (rate(57) - 0.01).abs() < 1e-12 && (rate(102) - 0.001).abs() < 1e-12);
    // ImageNet: five epochs of warm-up to 0.4, then drops at 30, 60 and 80.
    let imagenet = &cases[3].recipe;
    let rate = |epoch: u64| imagenet.schedule().learning_rate(epoch * imagenet.steps_per_epoch());
    assert!((rate(5) - 0.4).abs() < 1e-12 && (rate(29) - 0.4).abs() < 1e-12 && (rate(30) - 0.04).abs() < 1e-12);
    // Soft labels until epoch 60 of the schedule, at whose epoch 6 a rewound re-training starts.
    let Case { rewind, distill, ref unpruned, density, .. } = cases[3];
    let until = |arm: Arm| match arm.params(imagenet, density, unpruned).teacher {
        Teacher::Dense(config) => config.until_epoch,
        other => panic!("{other:?} does not teach"),
    };
    assert_eq!(until(Arm::Kd(distill)), Some(60));
    assert_eq!(until(Arm::KdWeightRewind(rewind, distill)), Some(54));
    assert_eq!(until(Arm::KdLearningRateRewind(rewind, distill)), Some(54));
}

#[test]
fn soft_labels_are_compared_with_the_rewinding_points_that_anyone_would_choose() {
    let empty = tempfile::tempdir().unwrap();
    let cases = cases::of(&ask(Tier::Standard, empty.path())).unwrap();
    // 30 epochs of 32 steps.
    assert_eq!(cases[0].scanned_steps(), [0, 48, 96, 192, 480, 768]);
    assert_eq!(cases[0].compared_steps(), [0, 48, 96, 192]);
}

#[test]
fn without_data_the_paper_tier_runs_nothing_and_says_what_it_needs() {
    let empty = tempfile::tempdir().unwrap();
    let ask = ask(Tier::Paper, empty.path());
    assert!(KdTicket.plan(&ask).unwrap().runs.is_empty());
    let section = KdTicket.judge(&ask, &Results::default()).unwrap();
    assert!(section.claims.iter().all(|claim| claim.verdict() == Verdict::ALL[3]));
    let reasons: Vec<_> = section.claims.iter().map(|claim| (claim.id(), claim.reason())).collect();
    assert!(reasons.iter().any(|(id, reason)| *id == "T2b" && reason.contains("CIFAR-10")), "{reasons:?}");
    assert!(reasons.iter().any(|(id, reason)| *id == "T4a" && reason.contains("standard tier only")), "{reasons:?}");
}
